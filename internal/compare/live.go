package compare

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"imagelab/internal/audit"
)

// LiveSchema is the version of Live's JSON form. A new field leaves it, a
// changed or removed one raises it. 2: requests are without health probes.
const LiveSchema = 2

// Live is what a serving process measures of itself, at one moment. Requests are
// those of the app listener without health probes, which Probes counts; counters
// count from the start of the process. A nil pointer is what is not known.
type Live struct {
	Schema  int       `json:"schema"`
	Time    time.Time `json:"time"`
	Variant string    `json:"variant"`
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Go      string    `json:"go"`

	State         string  `json:"state"`         // starting, ready, disabled or draining; of a command also restarting, failing or given up
	StateSeconds  float64 `json:"state_seconds"` // for how long it has been that; the process looks once a second
	UptimeSeconds float64 `json:"uptime_seconds"`

	Recent  *Recent  `json:"recent,omitempty"`  // absent in the first second
	History *History `json:"history,omitempty"` // the last rows, or all that are kept where that was asked for

	Requests    Requests  `json:"requests"`
	Latency     Histogram `json:"latency"`
	Connections float64   `json:"connections"`
	Probes      Probes    `json:"probes"`
	Process     Process   `json:"process"`
	Store       Store     `json:"store"`
	Drain       Drain     `json:"drain"`

	Command *Command `json:"command,omitempty"` // that is supervised, if there is one

	Audit *audit.Summary `json:"audit,omitempty"` // of the latest report, if there is one
}

// Command is about the latest start of a supervised command.
type Command struct {
	Up            bool    `json:"up"`
	Generation    int     `json:"generation"`     // how many starts there were
	UptimeSeconds float64 `json:"uptime_seconds"` // 0 if it is not up
	Restarts      float64 `json:"restarts"`
	Reloads       float64 `json:"reloads"`
	Last          string  `json:"last,omitempty"` // how the last one to end has ended: "exit 1", or the name of a signal
}

// Recent is about the last seconds.
type Recent struct {
	Seconds   float64 `json:"seconds"` // 10, and fewer at the start
	Requests  float64 `json:"requests"`
	Failed    float64 `json:"failed"`     // of these, answered with a status from 500 on
	Rejected  float64 `json:"rejected"`   // of these, refused for want of room
	StoreFull float64 `json:"store_full"` // uploads that were refused for want of room in the store
	// StoreFullSeconds is for how long that has been so, with pauses of at most 10 s.
	StoreFullSeconds float64 `json:"store_full_seconds"`
}

// HistoryColumns are the numbers of a row: its time in Unix seconds; requests a second by
// class; for three quantiles of the last 10 s the number of the bucket of Live.Latency that
// they are in; requests refused a second for want of room; processors in use; seconds of throttling a
// second, of all threads; bytes charged to the cgroup; requests and connections at that
// moment. What is not known is -1.
var HistoryColumns = []string{
	"time", "2xx", "3xx", "4xx", "5xx", "p50", "p90", "p99", "rejected", "cpu", "throttled", "memory", "in_flight", "connections",
}

// History is what happened in the last ten minutes, a row a second.
type History struct {
	Columns []string        `json:"columns"`
	Rows    json.RawMessage `json:"rows"` // an array of arrays of numbers
	Marks   []Mark          `json:"marks"`
}

// Mark is something that happened at one moment.
type Mark struct {
	Time float64 `json:"time"` // Unix, in seconds
	What string  `json:"what"` // "started", the state that it changed to, or a sentence
}

// Requests counts requests.
type Requests struct {
	Total    float64            `json:"total"`
	ByClass  map[string]float64 `json:"by_class"` // of statuses, "1xx" to "5xx", all of them
	Failed   float64            `json:"failed"`   // answered with a status from 500 on
	Rejected float64            `json:"rejected"` // turned away before their handler
	Panics   float64            `json:"panics"`
	InFlight float64            `json:"in_flight"`
}

// Histogram counts durations by bucket, those of streams left out.
type Histogram struct {
	Bounds     []float64 `json:"bounds"` // upper ones in seconds, rising; the last bucket has none
	Counts     []uint64  `json:"counts"` // of each bucket alone, one more than bounds
	SumSeconds float64   `json:"sum_seconds"`
}

// Probes is about the requests to /health.
type Probes struct {
	Total      float64 `json:"total"`
	SumSeconds float64 `json:"sum_seconds"` // time that the server spent on them
}

// Process is what the kernel and the Go runtime say of the process, and of its
// cgroup: the container, where there is one.
type Process struct {
	// MemoryBytes is what is charged to the cgroup, tmpfs included, less inactive
	// page cache. It is what the kernel's limit is about; ResidentBytes is not.
	MemoryBytes         *float64 `json:"memory_bytes,omitempty"`
	MemoryLimitBytes    *float64 `json:"memory_limit_bytes,omitempty"` // nil is also no limit
	ResidentBytes       float64  `json:"resident_bytes"`
	HeapBytes           float64  `json:"heap_bytes"`
	CPUSeconds          float64  `json:"cpu_seconds"`
	CPULimit            *float64 `json:"cpu_limit,omitempty"`             // in processors; nil is also no quota
	CPUThrottledSeconds *float64 `json:"cpu_throttled_seconds,omitempty"` // of all threads, since the cgroup was made
	OpenFiles           float64  `json:"open_files"`
	Goroutines          float64  `json:"goroutines"`
}

// Store is the state of /store.
type Store struct {
	Bytes         float64  `json:"bytes"` // on the disk
	CapacityBytes float64  `json:"capacity_bytes"`
	FreeBytes     *float64 `json:"free_bytes,omitempty"` // of the file system; absent where it has no bound
	Blobs         float64  `json:"blobs"`
	Rejected      float64  `json:"rejected"` // uploads that were not kept, for any reason
	Full          float64  `json:"full"`     // of these, for want of room
}

// Drain is how the app listener's drain went.
type Drain struct {
	DeadlineSeconds float64  `json:"deadline_seconds"`    // for how long a drain may take
	Seconds         *float64 `json:"seconds,omitempty"`   // absent before its end
	Cut             float64  `json:"cut"`                 // connections
	Requests        float64  `json:"requests"`            // that were cut
	Failed          float64  `json:"failed"`              // requests that an upstream has failed meanwhile
	Late            float64  `json:"late"`                // connections closed while a request was on its way
	Unchecked       string   `json:"unchecked,omitempty"` // why it is not certain that nothing else was lost
}

const (
	// maxText bounds each text that another process says, in bytes.
	maxText = 300
	// maxRows and maxMarks bound its history.
	maxRows, maxMarks = 1000, 100
)

// Bound makes what another process says fit to be shown. No text has more than a line. A history or a histogram that
// is not as it is made here is left out.
func (l *Live) Bound() {
	texts := []*string{&l.Variant, &l.Version, &l.Commit, &l.Go, &l.State, &l.Drain.Unchecked}
	if l.Command != nil {
		texts = append(texts, &l.Command.Last)
	}
	if h := l.History; h != nil {
		var rows [][]float64
		wrong := func(row []float64) bool { return len(row) != len(HistoryColumns) }
		if !slices.Equal(h.Columns, HistoryColumns) || json.Unmarshal(h.Rows, &rows) != nil ||
			len(rows) > maxRows || slices.ContainsFunc(rows, wrong) || rows == nil {
			l.History = nil
		} else {
			h.Rows, _ = json.Marshal(rows) // what was null is 0
			h.Marks = append([]Mark{}, h.Marks[:min(len(h.Marks), maxMarks)]...)
			for i := range h.Marks {
				texts = append(texts, &h.Marks[i].What)
			}
		}
	}
	for _, text := range texts {
		*text = printable(strings.ToValidUTF8((*text)[:min(len(*text), maxText)], ""))
	}
	if n := len(l.Latency.Bounds); n > maxRows || len(l.Latency.Counts) != n+1 || !slices.IsSorted(l.Latency.Bounds) {
		l.Latency = Histogram{Bounds: []float64{}, Counts: []uint64{}}
	}
}

// Quantile returns an upper bound, in seconds, of the duration below which the
// share q of all lies: the upper one of the bucket that it is in, as nothing is
// known of where in the bucket. It is +Inf beyond the last bound, and false when
// there is nothing to go by.
func (h Histogram) Quantile(q float64) (atMost float64, known bool) {
	total := uint64(0)
	for _, n := range h.Counts {
		total += n
	}
	if total == 0 || len(h.Bounds) == 0 || len(h.Counts) != len(h.Bounds)+1 {
		return 0, false
	}
	rank, below := q*float64(total), 0.0
	for i, upper := range h.Bounds {
		n := float64(h.Counts[i])
		if below += n; n > 0 && below >= rank {
			return upper, true
		}
	}
	return math.Inf(1), true
}
