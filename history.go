package main

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"imagelab/internal/compare"
)

// tally counts the app's requests for the dashboard's history, without health probes and ops
// paths. It is beside the metrics, as reading those makes some 100 kB of garbage, and this is
// read each second for as long as the process lives.
type tally struct {
	classes  [6]atomic.Uint64                        // by the first digit of the status
	buckets  [len(durationBuckets) + 1]atomic.Uint64 // of durationBuckets, and one beyond
	inFlight atomic.Int64
}

// observe counts one answered request; one that is untimed is no part of the durations.
func (t *tally) observe(code int, took time.Duration, untimed bool) {
	if class := code / 100; class > 0 && class < len(t.classes) {
		t.classes[class].Add(1)
	}
	if untimed {
		return
	}
	seconds, i := took.Seconds(), 0
	for i < len(durationBuckets) && seconds > durationBuckets[i] { // the fast ones are first, as in the metric
		i++
	}
	t.buckets[i].Add(1)
}

const (
	// historySeconds is how far back the history goes, a row a second: 600 rows of 60 bytes, which is 36 kB.
	historySeconds = 600
	// recentSeconds is what quantiles and the figures of now are about.
	recentSeconds = 10
	// historyMarks bounds the marks that are kept.
	historyMarks = 40
)

// The columns of a row behind its time, as compare.HistoryColumns names them.
const (
	colOK = iota // 1xx are among them: a switch of protocols is the end of a request
	colRedirect
	colRefused
	colFailed
	colP50
	colP90
	colP99
	colRejected
	colCPU
	colThrottled
	colMemory
	colInFlight
	colConns
	columns
)

type row struct {
	at     int64 // Unix, in milliseconds
	values [columns]float32
}

// reading is what the sampled counters said at one moment.
type reading struct {
	at        time.Time
	classes   [6]uint64
	buckets   [len(durationBuckets) + 1]uint64
	rejected  float64
	full      float64 // uploads refused for want of room
	cpu       float64 // seconds of this process
	throttled float64 // seconds; -1 if not known
}

// history is what happened in the last minutes: a row a second, and marks. It has its memory from the start of what it
// holds on, and never more than historySeconds rows and historyMarks marks.
type history struct {
	tally    *tally
	rejected []prometheus.Counter
	full     prometheus.Counter
	conns    prometheus.Gauge
	usage    func() (memory, throttledSeconds float64) // of the cgroup; -1 for what is not known
	spent    func() float64                            // processor seconds of this process
	program  func() (seconds float64, at time.Time)    // those of the program, which may have been seen a while ago

	mu       sync.Mutex
	rows     []row // a ring once it is full
	next     int   // in rows, the oldest one when it is full
	past     []reading
	marks    []compare.Mark
	state    string
	since    time.Time // that the state is this one
	busy     pace      // of the program
	fullFrom time.Time // the first refusal for want of room in the store, and the last one
	fullTo   time.Time
}

// pace is what the program had used at one moment, and per second before it.
type pace struct {
	at      time.Time
	seconds float64
	rate    float64
}

// follow takes in what the program has used.
func (p *pace) follow(seconds float64, at time.Time) {
	if !at.After(p.at) {
		return
	}
	if !p.at.IsZero() {
		p.rate = max(0, seconds-p.seconds) / at.Sub(p.at).Seconds()
	}
	p.at, p.seconds = at, seconds
}

// sample takes a row, and says what the state is. The first call makes no row, as there is nothing to compare with.
func (h *history) sample(now time.Time, state string) {
	memory, throttled := h.usage()
	r := reading{at: now, cpu: h.spent(), throttled: throttled}
	for i := range r.classes {
		r.classes[i] = h.tally.classes[i].Load()
	}
	for i := range r.buckets {
		r.buckets[i] = h.tally.buckets[i].Load()
	}
	for _, c := range h.rejected {
		r.rejected += valueOf(c)
	}
	r.full = valueOf(h.full)
	used, seen := h.program()

	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy.follow(used, seen)
	h.follow(now, state)
	h.past = append(h.past, r)
	if len(h.past) > recentSeconds+1 {
		h.past = append(h.past[:0], h.past[1:]...)
	}
	if len(h.past) < 2 {
		return
	}
	before, oldest := &h.past[len(h.past)-2], &h.past[0]
	seconds := now.Sub(before.at).Seconds()
	if seconds <= 0 {
		return
	}
	if r.full > before.full {
		if now.Sub(h.fullTo) > recentSeconds*time.Second {
			h.fullFrom = now
		}
		h.fullTo = now
	}
	perSecond := func(now, before float64) float32 { return float32(math.Round(max(0, now-before)/seconds*1000) / 1000) }
	class := func(i int) float32 { return perSecond(float64(r.classes[i]), float64(before.classes[i])) }
	line := row{at: now.UnixMilli()}
	line.values = [columns]float32{
		colOK: class(1) + class(2), colRedirect: class(3), colRefused: class(4), colFailed: class(5),
		colRejected: perSecond(r.rejected, before.rejected), colCPU: perSecond(r.cpu, before.cpu) + float32(math.Round(h.busy.rate*1000)/1000),
		colThrottled: -1, colMemory: float32(memory), colInFlight: float32(h.tally.inFlight.Load()), colConns: float32(valueOf(h.conns)),
	}
	if r.throttled >= 0 && before.throttled >= 0 {
		line.values[colThrottled] = perSecond(r.throttled, before.throttled)
	}
	for i, q := range []float64{.5, .9, .99} {
		line.values[colP50+i] = bucketOf(q, &r, oldest)
	}
	if len(h.rows) < historySeconds {
		h.rows = append(h.rows, line)
		return
	}
	h.rows[h.next] = line
	h.next = (h.next + 1) % historySeconds
}

// bucketOf returns the number of the bucket that a quantile of what came between two readings is in, or -1 for nothing.
func bucketOf(q float64, now, before *reading) float32 {
	total := uint64(0)
	for i := range now.buckets {
		total += now.buckets[i] - before.buckets[i]
	}
	rank, below := q*float64(total), uint64(0)
	for i := range now.buckets {
		n := now.buckets[i] - before.buckets[i]
		if below += n; n > 0 && float64(below) >= rank {
			return float32(i)
		}
	}
	return -1
}

// follow notes a change of the state. It is called with the lock held.
func (h *history) follow(now time.Time, state string) {
	if state == h.state {
		return
	}
	if h.state != "" {
		h.note(now, state)
	}
	h.state, h.since = state, now
}

// mark notes that something has happened.
func (h *history) mark(now time.Time, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(now, what)
}

// restarted notes a restart of the program. The state begins anew with it, though it may have been another one for
// less than a second, which nobody has seen.
func (h *history) restarted(now time.Time, what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(now, what)
	h.since = now
}

func (h *history) note(now time.Time, what string) {
	if len(h.marks) == historyMarks {
		h.marks = append(h.marks[:0], h.marks[1:]...)
	}
	h.marks = append(h.marks, compare.Mark{Time: float64(now.UnixMilli()) / 1e3, What: what})
}

// describe puts into live the state's age, the last seconds and the last rows; or all of them.
func (h *history) describe(live *compare.Live, now time.Time, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follow(now, live.State)
	live.StateSeconds = now.Sub(h.since).Seconds()
	if n := len(h.past); n > 1 {
		first, last := &h.past[0], &h.past[n-1]
		total := uint64(0)
		for i := range last.classes {
			total += last.classes[i] - first.classes[i]
		}
		live.Recent = &compare.Recent{
			Seconds: last.at.Sub(first.at).Seconds(), Requests: float64(total), Failed: float64(last.classes[5] - first.classes[5]),
			Rejected: last.rejected - first.rejected, StoreFull: last.full - first.full,
		}
		if live.Recent.StoreFull > 0 {
			live.Recent.StoreFullSeconds = now.Sub(h.fullFrom).Seconds()
		}
	}
	rows := slices.Concat(h.rows[h.next:], h.rows[:h.next])
	if !all {
		rows = rows[max(0, len(rows)-3):]
	}
	live.History = &compare.History{Columns: compare.HistoryColumns, Rows: encodeRows(rows), Marks: slices.Clone(h.marks)}
	if live.History.Marks == nil {
		live.History.Marks = []compare.Mark{}
	}
}

// encodeRows writes rows as a JSON array of arrays, with no digit more than a float32 has.
func encodeRows(rows []row) json.RawMessage {
	b := append(make([]byte, 0, 2+len(rows)*80), '[')
	for i, r := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendFloat(b, float64(r.at)/1e3, 'f', 3, 64)
		for _, v := range r.values {
			b = append(b, ',')
			b = strconv.AppendFloat(b, float64(v), 'f', -1, 32)
		}
		b = append(b, ']')
	}
	return append(b, ']')
}

// valueOf reads a counter or a gauge.
func valueOf(m prometheus.Metric) float64 {
	var d dto.Metric
	_ = m.Write(&d)
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}

// processorSeconds is what this process has used.
func processorSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
