package near

import (
	"strings"
	"testing"
)

func TestWord(t *testing.T) {
	t.Parallel()
	known := []string{"audit", "healthcheck", "OPS_ADDR", "BIND_ADDRESS", "only", "DRAIN_DELAY", "DRAIN_DELAYS", "ulimits", "IMAGE_BUDGET", strings.Repeat("long", 16)}
	for _, tc := range []struct{ name, given, want string }{
		{"a letter too few", "audt", "audit"},
		{"a letter too many", "auddit", "audit"},
		{"a wrong letter", "audut", "audit"},
		{"two neighbours swapped", "aduit", "audit"},
		{"the last two swapped", "onyl", "only"},
		{"two slips in a short word", "adut", ""},
		{"two slips in a long word", "helthchek", "healthcheck"},
		{"three slips in a long word", "helthchk", ""},
		{"another case", "Drain_delay", "DRAIN_DELAY"},
		{"a slip in another case", "drain_dely", "DRAIN_DELAY"},
		{"the nearest of two", "DRAIN_DELAYSS", "DRAIN_DELAYS"},
		{"an abbreviation", "BIND_ADDR", "BIND_ADDRESS"},
		{"written out", "OPS_ADDRESS", "OPS_ADDR"},
		{"the beginning alone", "IMAGE", ""},
		{"the beginning of a long word", "health", ""},
		{"another word", "nope", ""},
		{"the first of two that are as near", "DRAIN_DELAYX", "DRAIN_DELAY"},
		{"three letters, and a slip", "ony", "only"},
		{"five letters, and two slips", "axdxt", ""},
		{"six letters, and two slips", "ulxmxts", "ulimits"},
		{"two wrong letters that are no swap", "auxyt", ""},
		{"four letters too many", "auditable", ""},
		{"one letter", "o", ""},
		{"two letters", "on", ""},
		{"nothing", "", ""},
		{"letters of more than a byte", "ädit", ""},
		{"the longest", strings.Repeat("long", 15) + "lonk", strings.Repeat("long", 16)},
		{"longer than that", strings.Repeat("long", 16) + "x", ""},
		{"the first two swapped", "uadit", "audit"},
		{"of any length", strings.Repeat("é", 5000), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got, found := Word(tc.given, known); got != tc.want || found != (tc.want != "") {
				t.Errorf("Word(%.20q) = %q, %v, want %q", tc.given, got, found, tc.want)
			}
		})
	}
	if got, found := Word("audit", nil); found {
		t.Errorf("Word among none = %q, want none", got)
	}
}
