package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// limit is how much the binary or an image may differ from the record, in percent:
// less than what one imported package costs, more than what a fix does.
const limit = 2

// compare returns what has grown too much, each with what is to blame, and what is
// worth a word.
func compare(before, now *figures) (failures, notes []string) {
	if before.toolchain != now.toolchain {
		notes = append(notes, fmt.Sprintf("recorded with %s, and this is %s: what differs may be the toolchain's", before.toolchain, now.toolchain))
	}
	judge := func(what string, from, to int64, blame string) {
		switch diff := to - from; {
		case diff*100 > from*limit:
			failures = append(failures, fmt.Sprintf("%s grew by more than %d %%: %s\n%s", what, limit, change(from, to), blame)+
				"If it is worth that: make size-record")
		case -diff*100 > from*limit:
			notes = append(notes, fmt.Sprintf("%s shrank: %s; record it: make size-record", what, change(from, to)))
		default:
			notes = append(notes, fmt.Sprintf("%s: %s", what, change(from, to)))
		}
	}

	judge("the binary", before.binary, now.binary, grown(before.parts, now.parts))
	for _, name := range slices.Sorted(maps.Keys(now.images)) {
		what, from, to := "image "+name, before.images[name], now.images[name]
		if from == 0 {
			failures = append(failures, what+" is not recorded: make size-record")
			continue
		}
		blame := fmt.Sprintf("  the binary         %s\n  what is beside it  %s\n",
			change(before.binary, now.binary), change(from-before.binary, to-now.binary))
		judge(what, from, to, blame)
	}
	return failures, notes
}

// mostGrown is how many parts are blamed by name.
const mostGrown = 10

// grown returns a line for each of the parts that grew most, the first one most of all.
func grown(before, now map[string]int64) string {
	growth := func(part string) int64 { return now[part] - before[part] }
	parts := slices.SortedFunc(maps.Keys(now), func(a, b string) int {
		return cmp.Or(cmp.Compare(growth(b), growth(a)), cmp.Compare(a, b))
	})
	var lines strings.Builder
	var others int
	for i, part := range parts {
		switch {
		case growth(part) <= 0:
		case i < mostGrown:
			fmt.Fprintf(&lines, "  %s  %s\n", part, change(before[part], now[part]))
		default:
			others++
		}
	}
	if others > 0 {
		fmt.Fprintf(&lines, "  and %d more, each by less\n", others)
	}
	return lines.String()
}

func change(from, to int64) string {
	if from == 0 {
		return fmt.Sprintf("new → %s bytes", commas(to))
	}
	return fmt.Sprintf("%s → %s bytes (%+.2f %%)", commas(from), commas(to), 100*float64(to-from)/float64(from))
}
