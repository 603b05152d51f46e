package main

import (
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"imagelab/internal/compare"
)

// newTestHistory is one that no clock drives. What it reads is what the test sets.
func newTestHistory(usage func() (float64, float64), spent func() float64) *history {
	counter := func() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }
	return &history{
		tally: new(tally), rejected: []prometheus.Counter{counter()}, full: counter(),
		conns: prometheus.NewGauge(prometheus.GaugeOpts{Name: "y"}), usage: usage, spent: spent,
		program: func() (float64, time.Time) { return 0, time.Time{} },
	}
}

// rowsOf decodes the rows of a history.
func rowsOf(t *testing.T, h *compare.History) [][]float64 {
	t.Helper()
	var rows [][]float64
	if err := json.Unmarshal(h.Rows, &rows); err != nil {
		t.Fatalf("rows %s: %v", h.Rows, err)
	}
	for _, r := range rows {
		if len(r) != len(h.Columns) {
			t.Fatalf("a row has %d numbers, want %d: %v", len(r), len(h.Columns), h.Columns)
		}
	}
	return rows
}

// column is a number of a row, by its name.
func column(row []float64, name string) float64 {
	return row[slices.Index(compare.HistoryColumns, name)]
}

func TestHistoryHasARowASecond(t *testing.T) {
	t.Parallel()
	spent, throttled := 0.0, 0.0
	h := newTestHistory(func() (float64, float64) { return 20 << 20, throttled }, func() float64 { return spent })
	start := time.Unix(1_700_000_000, 0)
	h.sample(start, "ready")
	for range 3 {
		h.tally.observe(200, 3*time.Millisecond, false)
	}
	h.tally.observe(101, time.Hour, true)
	h.tally.observe(304, 3*time.Millisecond, false)
	h.tally.observe(404, 3*time.Millisecond, false)
	h.tally.observe(507, 300*time.Millisecond, false)
	h.rejected[0].Add(2)
	h.full.Inc()
	h.conns.Set(7)
	h.tally.inFlight.Store(4)
	spent, throttled = .5, .25
	h.sample(start.Add(2*time.Second), "ready")

	live := compare.Live{State: "ready"}
	h.describe(&live, start.Add(3*time.Second), true)
	rows := rowsOf(t, live.History)
	if len(rows) != 1 {
		t.Fatalf("%d rows, want 1: the first sample has none before it", len(rows))
	}
	for name, want := range map[string]float64{
		"time": 1_700_000_002, "2xx": 2, "3xx": .5, "4xx": .5, "5xx": .5, "rejected": 1, "cpu": .25, "throttled": .125,
		"memory": 20 << 20, "in_flight": 4, "connections": 7,
		"p50": 11, "p90": 23, "p99": 23, // the buckets up to 3.5 ms and 350 ms
	} {
		if got := column(rows[0], name); math.Abs(got-want) > 1e-6 {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if want := (compare.Recent{Seconds: 2, Requests: 7, Failed: 1, Rejected: 2, StoreFull: 1, StoreFullSeconds: 1}); *live.Recent != want {
		t.Errorf("recent = %+v, want %+v", *live.Recent, want)
	}
	if live.StateSeconds != 3 {
		t.Errorf("ready for %v s, want 3", live.StateSeconds)
	}
}

// TestHistoryOfAFullStore has refusals with short pauses, and then with a long one.
func TestHistoryOfAFullStore(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	for second, want := range map[int]float64{0: 0, 1: 0, 9: 8, 15: 14, 18: 17, 19: 0, 20: 0, 40: 0, 43: 3} {
		h := newTestHistory(noUsage, func() float64 { return 0 })
		for s := range second + 1 {
			if s == 1 || s == 9 || s == 40 {
				h.full.Inc()
			}
			h.sample(start.Add(time.Duration(s)*time.Second), "ready")
		}
		live := compare.Live{State: "ready"}
		h.describe(&live, start.Add(time.Duration(second)*time.Second), false)
		if live.Recent == nil {
			live.Recent = new(compare.Recent)
		}
		if got := live.Recent.StoreFullSeconds; got != want {
			t.Errorf("after %d s uploads have been refused for %v s, want %v", second, got, want)
		}
	}
}

// TestHistoryOfAShortRestart has a state that nobody has seen change.
func TestHistoryOfAShortRestart(t *testing.T) {
	t.Parallel()
	h := newTestHistory(noUsage, func() float64 { return 0 })
	start := time.Unix(1_700_000_000, 0)
	h.sample(start, "ready")
	h.restarted(start.Add(5*time.Second), "restarted the program")
	h.sample(start.Add(6*time.Second), "ready")
	live := compare.Live{State: "ready"}
	h.describe(&live, start.Add(7*time.Second), false)
	if live.StateSeconds != 2 || len(live.History.Marks) != 1 || live.History.Marks[0].What != "restarted the program" {
		t.Errorf("ready for %v s, marks %v, want 2 s since the restart", live.StateSeconds, live.History.Marks)
	}
}

// TestHistoryOfAProgramThatIsSeldomSeen has the same use of the processor in each row, though only each fifth sample
// sees the program.
func TestHistoryOfAProgramThatIsSeldomSeen(t *testing.T) {
	t.Parallel()
	h := newTestHistory(noUsage, func() float64 { return 0 })
	start, second := time.Unix(1_700_000_000, 0), 0
	h.program = func() (float64, time.Time) {
		seen := second / 5 * 5
		return .5 * float64(seen), start.Add(time.Duration(seen) * time.Second)
	}
	for second = range 31 {
		h.sample(start.Add(time.Duration(second)*time.Second), "ready")
	}
	live := compare.Live{State: "ready"}
	h.describe(&live, start.Add(30*time.Second), true)
	for i, r := range rowsOf(t, live.History) {
		want := .5
		if i < 4 { // not seen twice yet
			want = 0
		}
		if got := column(r, "cpu"); got != want {
			t.Errorf("row %d has %v processors in use, want %v", i, got, want)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	h := newTestHistory(noUsage, func() float64 { return 0 })
	start := time.Unix(1_700_000_000, 0)
	states := []string{"ready", "disabled"}
	for i := range 3 * historySeconds {
		h.tally.observe(200, time.Millisecond, false)
		h.sample(start.Add(time.Duration(i)*time.Second), states[i/10%2])
	}
	live := compare.Live{State: "ready"}
	h.describe(&live, start.Add(3*historySeconds*time.Second), true)
	rows := rowsOf(t, live.History)
	if len(rows) != historySeconds || cap(h.rows) > 2*historySeconds || len(h.past) > recentSeconds+1 || cap(h.past) > 2*recentSeconds {
		t.Errorf("%d rows (room for %d), %d readings (room for %d)", len(rows), cap(h.rows), len(h.past), cap(h.past))
	}
	for i, r := range rows {
		if want := float64(start.Unix() + int64(2*historySeconds+i)); r[0] != want {
			t.Fatalf("row %d is of %v, want %v", i, r[0], want)
		}
	}
	if got := rows[len(rows)-1]; column(got, "memory") != -1 || column(got, "throttled") != -1 {
		t.Errorf("what is not known is %v, want -1", got)
	}
	if n := len(live.History.Marks); n != historyMarks || live.History.Marks[n-1].What != "ready" {
		t.Errorf("%d marks, want the last %d: %v", n, historyMarks, live.History.Marks)
	}
	h.describe(&live, start, false)
	if got := rowsOf(t, live.History); len(got) != 3 {
		t.Errorf("a frame has %d rows, want 3", len(got))
	}
	if size := historySeconds * unsafe.Sizeof(row{}); size > 40e3 {
		t.Errorf("the rows take %d bytes, want at most 40 kB", size)
	}
}

func TestHistoryWithoutTraffic(t *testing.T) {
	t.Parallel()
	h := newTestHistory(noUsage, func() float64 { return 0 })
	start := time.Unix(1_700_000_000, 0)
	h.sample(start, "ready")
	h.sample(start.Add(time.Second), "ready")
	h.sample(start.Add(time.Second), "ready") // a clock that stands still makes no row
	live := compare.Live{State: "ready"}
	h.describe(&live, start.Add(time.Second), true)
	rows := rowsOf(t, live.History)
	if len(rows) != 1 || column(rows[0], "p99") != -1 || column(rows[0], "2xx") != 0 {
		t.Errorf("rows = %v, want one without a quantile", rows)
	}
}

func TestEventsBeginWithTheHistory(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	ask(t, "GET", in.app+"/status/500", "")
	eventually(t, "a look at the state before it changes", func() bool {
		_, body := fetch(t, "GET", in.ops+"/snapshot", "")
		return !strings.Contains(body, `"rows":[]`)
	})
	ask(t, "GET", in.app+"/status/500", "")
	ask(t, "POST", in.ops+"/readyz/disable", "")
	hasAll := func(live compare.Live) bool {
		failed, marks := 0.0, ""
		for _, r := range rowsOf(t, live.History) {
			failed += column(r, "5xx")
		}
		for _, m := range live.History.Marks {
			marks += m.What + " "
		}
		return failed > 0 && strings.Contains(marks, "started") && strings.Contains(marks, "disabled")
	}
	eventually(t, "a history with what has been", func() bool {
		_, body := fetch(t, "GET", in.ops+"/snapshot?history=1", "")
		var live compare.Live
		if err := json.Unmarshal([]byte(body), &live); err != nil {
			t.Fatal(err)
		}
		return hasAll(live)
	})
	v := watchEvents(t, in.ops+"/events")
	if v.next(); !hasAll(v.begin) {
		t.Errorf("the events begin with %s, %v", v.begin.History.Rows, v.begin.History.Marks)
	}
}

func TestPeersAreAskedForTheirHistory(t *testing.T) {
	t.Parallel()
	answers := honest("alpine")
	snapshot, asked := answers["/snapshot"], make(chan string, 8)
	answers["/snapshot"] = func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.RawQuery
		snapshot(w, r)
	}
	in := start(t, "IMAGELAB_PEERS=alpine="+fakeOps(t, answers))
	for path, want := range map[string]string{"/peers": "", "/peers?history=1": "history=1"} {
		fetch(t, "GET", in.ops+path, "")
		if got := <-asked; got != want {
			t.Errorf("GET %s asks the peer for %q, want %q", path, got, want)
		}
	}
}

func TestPlainFigures(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_VARIANT=scratch", "IMAGELAB_FAULTS=true", "IMAGELAB_PEERS=gone=http://127.0.0.1:1")
	eventually(t, "figures", func() bool {
		ask(t, "GET", in.app+"/status/500", "")
		_, body := fetch(t, "GET", in.ops+"/plain", "")
		return strings.Contains(body, "scratch: ready for ") && strings.Contains(body, " failed, 0 refused") &&
			strings.Contains(body, "gone: down: connection refused")
	})
}
