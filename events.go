package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"imagelab/drain"
	"imagelab/internal/audit"
	"imagelab/internal/compare"
	"imagelab/internal/probe"
)

// events serves what the dashboard shows: this process and its peers, live. It
// computes one frame a second for all viewers together, and nothing while there
// is none.
type events struct {
	reg      prometheus.Gatherer
	health   *health
	variant  string
	deadline time.Duration // of a drain, from its beginning
	past     *history
	token    string // that peers are asked with
	peers    []peer
	interval time.Duration
	viewers  atomic.Int64
	rejected prometheus.Counter // viewers
	asking   *slots             // requests to /peers
	watches  []*watch

	mu    sync.Mutex // held while a frame is made: who waits for one gets it
	live  []byte     // JSON of compare.Live
	frame []byte
	made  time.Time
	ended bool // the frame is the last one
}

const (
	// maxViewers leaves room on the ops listener for scrapers and probes.
	maxViewers = 32
	// viewerBuffer is what the kernel may hold for one viewer, in bytes. Who does
	// not read it for IMAGELAB_WRITE_TIMEOUT once it is full is dropped.
	viewerBuffer = 32 << 10
	// maxAsking is how many requests may ask the peers at once.
	maxAsking = 8
)

// newEvents makes them for cfg. The history samples usage, what the kernel counts for the
// cgroup.
func newEvents(reg prometheus.Gatherer, h *health, m *metrics, cfg Config, usage func() (memory, throttledSeconds float64)) *events {
	peers := cfg.Peers.all
	e := &events{
		reg: reg, health: h, variant: cfg.Variant, token: cfg.OpsToken, peers: peers, interval: time.Second,
		deadline: cfg.DrainDelay + cfg.ShutdownTimeout,
		past: &history{
			tally: m.recent, full: m.storeRejected.WithLabelValues(errStoreFull.Error()), conns: m.conns.WithLabelValues("app"),
			usage: usage, spent: processorSeconds, program: h.programSeconds,
		},
		rejected: m.rejected.WithLabelValues("viewers"), asking: newSlots(maxAsking, "peers", m),
	}
	for _, reason := range roomRejections {
		e.past.rejected = append(e.past.rejected, m.rejected.WithLabelValues(reason))
	}
	for _, p := range peers {
		e.watches = append(e.watches, &watch{peer: p, wake: make(chan struct{}, 1), heard: make(chan struct{}, 1)})
	}
	return e
}

// peerView is one peer as the dashboard sees it.
type peerView struct {
	Name   string        `json:"name"`
	URL    string        `json:"url"`
	Error  string        `json:"error,omitempty"` // why there is nothing else
	Report *audit.Report `json:"report,omitempty"`
	Live   *compare.Live `json:"live,omitempty"`

	Answers bool `json:"answers,omitempty"` // it is there, and the error is about what it says
	// Ended is how its drain went, if it has told that and has not answered since.
	Ended        *compare.Drain `json:"ended,omitempty"`
	EndedSeconds float64        `json:"ended_seconds,omitempty"` // since then
}

// refresh returns the JSON of the live facts and the frame of all, made anew when
// they are older than an interval, and once for the last frame, which tells how
// the drain went.
func (e *events) refresh(last bool) (live, frame []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fresh := time.Since(e.made) < e.interval-e.interval/10 // a tenth is what tickers may be early
	if e.frame != nil && (fresh && !last || e.ended) {
		return e.live, e.frame
	}
	// What could be gathered comes with an error, too; /metrics logs and counts it.
	families, _ := e.reg.Gather()
	now := time.Now()
	facts := compare.Live{
		Schema: compare.LiveSchema, Time: now.UTC(), Variant: e.variant, Version: version, Commit: commit, Go: runtime.Version(),
		State: e.health.readiness(), UptimeSeconds: now.Sub(e.health.started).Seconds(),
	}
	collect(families, &facts)
	if c := e.health.program; c != nil {
		f := c.facts()
		facts.Command = &compare.Command{
			Up: f.up, Generation: f.generation, UptimeSeconds: f.uptime.Seconds(), Last: f.last,
			Restarts: countOf(families, metricStarts, "reason", "restart"), Reloads: countOf(families, metricStarts, "reason", "reload"),
		}
	}
	facts.Drain.DeadlineSeconds = e.deadline.Seconds()
	if d := e.health.drained.Load(); d != nil {
		r := d.report
		facts.Drain.Failed = float64(d.failures)
		facts.Drain.Requests, facts.Drain.Late = float64(r.Requests), float64(r.Late)
		if r.Lossy != nil {
			facts.Drain.Unchecked = probe.OneLine(r.Lossy.Error())
		}
	}
	e.past.describe(&facts, now, false)
	peers := make([]peerView, len(e.watches))
	for i, w := range e.watches {
		peers[i] = w.view(now)
	}
	e.live, _ = json.Marshal(facts)
	e.frame, _ = json.Marshal(struct {
		Live  json.RawMessage `json:"live"`
		Peers []peerView      `json:"peers"`
	}{e.live, peers})
	e.made, e.ended = now, last
	return e.live, e.frame
}

// whole is the facts with all of the history.
func (e *events) whole(live []byte) []byte {
	var facts compare.Live
	_ = json.Unmarshal(live, &facts) // it is this process's own
	e.past.describe(&facts, time.Now(), true)
	all, _ := json.Marshal(facts)
	return all
}

// serveSnapshot answers GET /snapshot with the live facts of this process alone; ?history=1
// is with all of the history.
func (e *events) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !wantsBody(w, r, jsonType[0]) {
		return
	}
	live, _ := e.refresh(false)
	if r.URL.Query().Get("history") != "" {
		live = e.whole(live)
	}
	writeJSON(w, http.StatusOK, live)
}

// serveEvents answers GET /events with server-sent events (html.spec.whatwg.org,
// 9.2): one named history at first, with the live facts and the last ten minutes; one
// without a name each second, and one named end before the server ends its streams. HEAD
// takes no viewer's place.
func (e *events) serveEvents(w http.ResponseWriter, r *http.Request) {
	leave, ok := e.enter(w, r)
	defer leave()
	if !ok || !wantsStream(w, r, "text/event-stream") {
		return
	}
	_ = drain.SetWriteBuffer(r.Context(), viewerBuffer)
	emit := func(last bool) bool {
		name := ""
		if last {
			name = "event: end\n"
		}
		_, frame := e.refresh(last)
		_, err := fmt.Fprintf(w, "%sdata: %s\n\n", name, frame)
		return err == nil
	}
	live, _ := e.refresh(false)
	_, err := fmt.Fprintf(w, "event: history\ndata: %s\n\n", e.whole(live))
	if err != nil || !emit(false) || http.NewResponseController(w).Flush() != nil {
		return
	}
	// From then on soon after each full second, so that the process wakes once for all of
	// them, and the history has its new row.
	wait := time.NewTimer(time.Until(time.Now().Truncate(e.interval).Add(e.interval + e.interval/50)))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-drain.Ending(r.Context()):
	}
	stream(w, r, e.interval, emit)
}

// enter takes a viewer's place, unless all are taken; leave gives it back.
func (e *events) enter(w http.ResponseWriter, r *http.Request) (leave func(), ok bool) {
	leave = func() {}
	full := e.viewers.Load() >= maxViewers
	if r.Method != http.MethodHead {
		leave = func() { e.viewers.Add(-1) }
		full = e.viewers.Add(1) > maxViewers
	}
	if full {
		e.rejected.Inc()
		w.Header().Set("Retry-After", "5")
		writeError(w, http.StatusServiceUnavailable, "overloaded", fmt.Sprintf("at most %d viewers", maxViewers))
	}
	return leave, !full
}

// serveLast answers GET /last when the drain has ended, with the live facts of that moment: how it has gone. The
// listener closes right after it, so whoever asks each second would hardly ever learn that. A client that says that it
// will send no more gets the facts of now.
func (e *events) serveLast(w http.ResponseWriter, r *http.Request) {
	leave, ok := e.enter(w, r)
	defer leave()
	if !ok || !wantsStream(w, r, jsonType[0]) {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	ending := drain.Ending(r.Context())
	select {
	case <-ending:
	case <-r.Context().Done():
	}
	live, _ := e.refresh(isClosed(ending))
	writeJSON(w, http.StatusOK, live)
}

// servePeers answers GET /peers: each peer with its report and live facts, or why
// there are none; with ?history=1 all of the history is among the facts.
func (e *events) servePeers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if !wantsBody(w, r, jsonType[0]) {
		return
	}
	ctx, cancel := untilEnding(r)
	defer cancel()
	var sides []compare.Side
	snapshot := "snapshot"
	if r.URL.Query().Get("history") != "" {
		snapshot += "?history=1"
	}
	if !e.asking.hold(w, func() { sides = askPeers(ctx, e.peers, snapshot, e.token, peerTimeout) }) {
		return
	}
	views := []peerView{}
	for _, s := range sides {
		view := peerView{Name: s.Name, URL: s.URL, Report: s.Report, Live: s.Live}
		if s.Err != nil {
			view.fail(s.Err)
		}
		views = append(views, view)
	}
	body, _ := json.Marshal(views)
	writeJSON(w, http.StatusOK, append(body, '\n'))
}

// fail says why there is nothing of the peer.
func (v *peerView) fail(err error) {
	v.Error = probe.OneLine(err.Error())
	v.Answers = errors.As(err, new(answered))
}

// watch is one peer, asked as often as there is somebody to show it to.
type watch struct {
	peer  peer
	wake  chan struct{}
	heard chan struct{} // it has answered

	mu      sync.Mutex
	live    *compare.Live
	err     error
	at      time.Time
	last    *compare.Live // what it said when it had drained, until another process answers
	lastAt  time.Time
	looked  time.Time   // by a viewer
	looking *time.Timer // ends the wait for the last words when nobody looks any more
}

const (
	// unwatched is after how long nobody looks any more.
	unwatched = 10 * time.Second
	// farewell is how long one request for a peer's last words may take.
	farewell = time.Hour
	// deaf is when a peer that has none to give is asked for them again.
	deaf = 30 * time.Second
)

// view returns what is known of the peer, and asks for more. What is older than a
// peer may take is of an earlier viewer's time.
func (w *watch) view(now time.Time) peerView {
	select {
	case w.wake <- struct{}{}:
	default: // it is being asked
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looking != nil {
		w.looking.Reset(unwatched)
	}
	if now.Sub(w.looked) > unwatched {
		w.last = nil // it may have come and gone meanwhile
	}
	w.looked = now
	v := peerView{Name: w.peer.name, URL: w.peer.url}
	switch {
	case now.Sub(w.at) > 2*peerTimeout:
	case w.err != nil:
		v.fail(w.err)
		if w.last != nil && !v.Answers {
			v.Ended, v.EndedSeconds = &w.last.Drain, now.Sub(w.lastAt).Seconds()
		}
	default:
		v.Live = w.live
	}
	return v
}

// ask gets the peer's live facts.
func (w *watch) ask(ctx context.Context, token string) {
	ctx, cancel := context.WithTimeoutCause(ctx, peerTimeout, fmt.Errorf("no answer within %v", peerTimeout))
	defer cancel()
	live, err := askFor[compare.Live](ctx, w.peer, "snapshot", token, compare.LiveSchema)
	if err == nil {
		live.Bound()
		select {
		case w.heard <- struct{}{}:
		default:
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live, w.err, w.at = live, err, time.Now()
	// An answer may be older than the last words, and come after them.
	if err == nil && w.last != nil && live.State != w.last.State && live.Time.After(w.last.Time) {
		w.last = nil
	}
}

// listen waits for the peer's last words as long as somebody looks.
func (w *watch) listen(ctx context.Context, token string) {
	for {
		select {
		case <-w.heard:
		case <-ctx.Done():
			return
		}
		err := w.awaitLast(ctx, token)
		if errors.As(err, new(answered)) { // another version, or it has no place for one more viewer
			select {
			case <-time.After(deaf):
			case <-ctx.Done():
			}
		}
	}
}

// awaitLast keeps what the peer says when it has drained.
func (w *watch) awaitLast(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	w.mu.Lock()
	w.looking = time.AfterFunc(unwatched, cancel)
	w.mu.Unlock()
	live, err := askFor[compare.Live](ctx, w.peer, "last", token, compare.LiveSchema)
	if err != nil || live.State != draining.String() {
		return err
	}
	live.Bound()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.lastAt = live, time.Now()
	return nil
}

// actor is the pair for run.Group: it asks each peer in its own time, so that a
// slow one delays nothing else.
func (e *events) actor() (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	execute = func() error {
		var all sync.WaitGroup
		for _, w := range e.watches {
			all.Go(func() {
				for {
					select {
					case <-w.wake:
						w.ask(ctx, e.token)
					case <-ctx.Done():
						return
					}
				}
			})
			all.Go(func() { w.listen(ctx, e.token) })
		}
		<-ctx.Done()
		all.Wait()
		return nil
	}
	return execute, func(error) { cancel() }
}

// sampler is the pair for run.Group that writes the history, at each full second.
func (e *events) sampler() (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	execute = func() error {
		e.past.mark(e.health.started, "started")
		generation := 0
		for {
			now := time.Now()
			e.past.sample(now, e.health.readiness())
			if c := e.health.program; c != nil {
				if f := c.facts(); f.generation != generation {
					switch what := f.mark(); f.reason {
					case "restart":
						e.past.restarted(now, what)
					case "reload":
						e.past.mark(now, what)
					}
					generation = f.generation
				}
			}
			select {
			case <-time.After(time.Until(now.Truncate(time.Second).Add(time.Second))):
			case <-ctx.Done():
				return nil
			}
		}
	}
	return execute, func(error) { cancel() }
}

// countOf is the value of the counter of a family that has such a label.
func countOf(families []*dto.MetricFamily, name, label, value string) (sum float64) {
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if labels(m)[label] == value {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// appRejections are the reasons for which the app listener turns requests away; the
// other ones are the ops listener's. The first of them are for want of room.
var (
	appRejections  = []string{"in_flight", "connections", "uploads", "body"}
	roomRejections = appRejections[:3]
)

// collect sums up the registry's families in live. Requests are those of the app
// listener, without health probes and the ops paths that may be mounted there.
func collect(families []*dto.MetricFamily, live *compare.Live) {
	byName := map[string][]*dto.Metric{}
	for _, f := range families {
		byName[f.GetName()] = f.GetMetric()
	}
	sum := func(name string, include func(labels map[string]string) bool) (total float64) {
		for _, m := range byName[name] {
			if include == nil || include(labels(m)) {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return total
	}
	known := func(name string) *float64 {
		if len(byName[name]) == 0 {
			return nil
		}
		value := sum(name, nil)
		return &value
	}
	app := func(l map[string]string) bool { return isTraffic(l["server"], l["route"]) }

	live.Requests = compare.Requests{
		Total:    sum(metricRequests, app),
		ByClass:  map[string]float64{},
		Failed:   sum(metricRequests, func(l map[string]string) bool { return app(l) && l["code"] >= "500" }),
		Rejected: sum(metricRejected, func(l map[string]string) bool { return slices.Contains(appRejections, l["reason"]) }),
		Panics:   sum(metricPanics, nil),
		InFlight: sum(metricInFlight, app),
	}
	for _, class := range []string{"1xx", "2xx", "3xx", "4xx", "5xx"} {
		live.Requests.ByClass[class] = sum(metricRequests, func(l map[string]string) bool { return app(l) && l["code"][:1] == class[:1] })
	}
	live.Latency = compare.Histogram{Bounds: []float64{}, Counts: []uint64{}}
	for _, m := range byName[metricDuration] {
		if app(labels(m)) {
			addHistogram(&live.Latency, m.GetHistogram())
		}
	}
	live.Connections = sum(metricConns, app)
	for _, m := range byName[metricProbeDuration] {
		live.Probes.Total += float64(m.GetHistogram().GetSampleCount())
		live.Probes.SumSeconds += m.GetHistogram().GetSampleSum()
	}
	live.Process = compare.Process{
		MemoryBytes:         cmp.Or(known(metricWorkingSet), known(metricMemory)),
		MemoryLimitBytes:    known(metricMemoryLimit),
		ResidentBytes:       sum(metricResident, nil),
		HeapBytes:           sum(metricHeap, nil),
		CPUSeconds:          sum(metricCPU, nil),
		CPULimit:            known(metricCPULimit),
		CPUThrottledSeconds: known(metricCPUThrottled),
		OpenFiles:           sum(metricOpenFiles, nil),
		Goroutines:          sum(metricGoroutines, nil),
	}
	live.Store = compare.Store{
		Bytes:         sum(metricStoreBytes, nil),
		CapacityBytes: sum(metricStoreCapacity, nil),
		Blobs:         sum(metricStoreBlobs, nil),
		Rejected:      sum(metricStoreRejected, nil),
		Full:          sum(metricStoreRejected, func(l map[string]string) bool { return l["reason"] == errStoreFull.Error() }),
	}
	if len(byName[metricStoreFree]) > 0 {
		free := sum(metricStoreFree, nil)
		live.Store.FreeBytes = &free
	}
	if len(byName[metricDrainDuration]) > 0 {
		seconds := sum(metricDrainDuration, app)
		live.Drain.Seconds = &seconds
	}
	live.Drain.Cut = sum(metricDrainCut, app)
	if len(byName[metricAuditChecks]) > 0 {
		verdict := func(s audit.Status) int {
			return int(sum(metricAuditChecks, func(l map[string]string) bool { return l["verdict"] == string(s) }))
		}
		live.Audit = &audit.Summary{
			Pass: verdict(audit.Pass), Fail: verdict(audit.Fail), Warn: verdict(audit.Warn),
			Unknown: verdict(audit.Unknown), NotApplicable: verdict(audit.NotApplicable),
		}
	}
}

func labels(m *dto.Metric) map[string]string {
	all := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		all[l.GetName()] = l.GetValue()
	}
	return all
}

// addHistogram adds the counts of one series; all of a family have the same bounds.
func addHistogram(h *compare.Histogram, series *dto.Histogram) {
	buckets := series.GetBucket()
	if len(h.Counts) == 0 {
		h.Counts = make([]uint64, len(buckets)+1)
		for _, b := range buckets {
			h.Bounds = append(h.Bounds, b.GetUpperBound())
		}
	}
	below := uint64(0)
	for i, b := range buckets {
		h.Counts[i] += b.GetCumulativeCount() - below
		below = b.GetCumulativeCount()
	}
	h.Counts[len(buckets)] += series.GetSampleCount() - below
	h.SumSeconds += series.GetSampleSum()
}
