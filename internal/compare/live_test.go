package compare

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rowOf is a row whose numbers are all the same.
func rowOf(number string) string {
	return "[" + strings.Repeat(number+",", len(HistoryColumns)-1) + number + "]"
}

func TestBoundLeavesOutWhatIsNoHistory(t *testing.T) {
	t.Parallel()
	columns, _ := json.Marshal(HistoryColumns)
	most := "[" + strings.TrimSuffix(strings.Repeat(rowOf("0")+",", maxRows), ",") + "]"
	many := "[" + strings.TrimSuffix(strings.Repeat(rowOf("0")+",", maxRows+1), ",") + "]"
	for _, tc := range []struct {
		name, history string
		want          string // the rows; empty for none
	}{
		{"as it is made here", fmt.Sprintf(`{"columns":%s,"rows":[%s]}`, columns, rowOf("1.5")), "[" + rowOf("1.5") + "]"},
		{"no rows", fmt.Sprintf(`{"columns":%s,"rows":[]}`, columns), "[]"},
		{"null is 0", fmt.Sprintf(`{"columns":%s,"rows":[%s]}`, columns, rowOf("null")), "[" + rowOf("0") + "]"},
		{"other columns", `{"columns":["time"],"rows":[[1]]}`, ""},
		{"a row of other columns", fmt.Sprintf(`{"columns":%s,"rows":[%s,[1]]}`, columns, rowOf("1")), ""},
		{"texts", fmt.Sprintf(`{"columns":%s,"rows":[%s]}`, columns, rowOf(`"x"`)), ""},
		{"no array", fmt.Sprintf(`{"columns":%s,"rows":{}}`, columns), ""},
		{"nothing", fmt.Sprintf(`{"columns":%s}`, columns), ""},
		{"null", fmt.Sprintf(`{"columns":%s,"rows":null}`, columns), ""},
		{"as many as may be", fmt.Sprintf(`{"columns":%s,"rows":%s}`, columns, most), most},
		{"too many", fmt.Sprintf(`{"columns":%s,"rows":%s}`, columns, many), ""},
	} {
		var l Live
		if err := json.Unmarshal([]byte(`{"history":`+tc.history+`}`), &l); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		l.Bound()
		got := ""
		if l.History != nil {
			if got = string(l.History.Rows); l.History.Marks == nil {
				t.Errorf("%s: the marks are null", tc.name)
			}
		}
		if got != tc.want {
			t.Errorf("%s: rows = %.200s, want %.200s", tc.name, got, tc.want)
		}
	}
}

func TestBoundKeepsTextsToALine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é\n", 1000)
	columns := slices.Clone(HistoryColumns)
	l := Live{
		Variant: long, Version: long, Commit: long, Go: long, State: long, Drain: Drain{Unchecked: long}, Command: &Command{Last: long},
		History: &History{Columns: columns, Rows: json.RawMessage("[]"), Marks: make([]Mark, maxMarks+1)},
	}
	l.History.Marks[0].What = long
	l.Bound()
	if n := len(l.History.Marks); n != maxMarks {
		t.Errorf("%d marks are left, want %d", n, maxMarks)
	}
	for i, text := range []string{
		l.Variant, l.Version, l.Commit, l.Go, l.State, l.Drain.Unchecked, l.Command.Last, l.History.Marks[0].What,
	} {
		if len(text) > maxText || len(text) < maxText-3 || strings.Contains(text, "\n") || strings.Contains(text, "\uFFFD") {
			t.Errorf("text %d has become %q", i, text)
		}
	}
}

func TestBoundLeavesOutWhatIsNoHistogram(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		bounds []float64
		counts []uint64
		kept   bool
	}{
		{[]float64{1, 2}, []uint64{3, 4, 5}, true},
		{[]float64{2, 1}, []uint64{3, 4, 5}, false},
		{[]float64{1, 2}, []uint64{3, 4}, false},
		{nil, nil, false},
		{make([]float64, maxRows), make([]uint64, maxRows+1), true},
		{make([]float64, maxRows+1), make([]uint64, maxRows+2), false},
	} {
		l := Live{Latency: Histogram{Bounds: tc.bounds, Counts: tc.counts}}
		l.Bound()
		if got := len(l.Latency.Bounds) > 0; got != tc.kept || l.Latency.Bounds == nil || l.Latency.Counts == nil {
			t.Errorf("of bounds %v and counts %v is left %+v, want kept: %v", tc.bounds, tc.counts, l.Latency, tc.kept)
		}
	}
}
