package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"imagelab/drain"
	"imagelab/internal/audit"
	"imagelab/internal/compare"
)

// shot is what one frame of /events says.
type shot struct {
	event string
	Live  compare.Live `json:"live"`
	Peers []peerView   `json:"peers"`
}

// viewer reads /events.
type viewer struct {
	t     *testing.T
	lines *bufio.Scanner
	begin compare.Live // what the event history says
}

func watchEvents(t *testing.T, url string, headers ...string) *viewer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := (&http.Transport{}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("GET %s = %d %q, want 200 and text/event-stream", url, resp.StatusCode, got)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &viewer{t: t, lines: lines}
}

// next returns the next frame, or false at the end.
func (v *viewer) next() (s shot, more bool) {
	v.t.Helper()
	for v.lines.Scan() {
		line := v.lines.Text()
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			s.event = name
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok && s.event == "history" {
			if err := json.Unmarshal([]byte(data), &v.begin); err != nil {
				v.t.Fatalf("history %q: %v", data, err)
			}
			s.event = ""
			v.lines.Scan() // the empty line
		} else if ok {
			if err := json.Unmarshal([]byte(data), &s); err != nil {
				v.t.Fatalf("frame %q: %v", data, err)
			}
		}
		if line == "" {
			return s, true
		}
	}
	return s, false
}

// until returns the first frame of which a condition holds.
func (v *viewer) until(what string, holds func(shot) bool) shot {
	v.t.Helper()
	for {
		s, more := v.next()
		if !more {
			v.t.Fatalf("the stream ended without %s: %v", what, v.lines.Err())
		}
		if holds(s) {
			return s
		}
	}
}

func TestSnapshotCountsTheApp(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]string{"own listener": "IMAGELAB_OPS_ADDR=127.0.0.1:0", "app listener": "IMAGELAB_OPS_ADDR="} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, environ, "IMAGELAB_VARIANT=scratch", "IMAGELAB_FAULTS=true", "IMAGELAB_MAX_BODY=4B", "IMAGELAB_STORE_MAX_BLOB=8KiB", "IMAGELAB_STORE_CAPACITY=8KiB")
			for _, path := range []string{"/", "/health", "/no/such", "/status/503", "/status/304", "/stream/1ms"} {
				ask(t, "GET", in.app+path, "")
			}
			ask(t, "POST", in.app+"/store", "hello")
			ask(t, "POST", in.app+"/echo", "too long")
			ask(t, "POST", in.app+"/store", strings.Repeat("no room ", 1<<10))
			before := time.Now()
			var live compare.Live
			eventually(t, "a snapshot with all of them", func() bool {
				_, body := fetch(t, "GET", in.ops+"/snapshot", "")
				live = compare.Live{}
				if err := json.Unmarshal([]byte(body), &live); err != nil {
					t.Fatalf("GET /snapshot = %q: %v", body, err)
				}
				return live.Requests.Total >= 8
			})
			if live.Schema != compare.LiveSchema || live.Variant != "scratch" || live.State != "ready" || live.Version != version {
				t.Errorf("snapshot = %+v", live)
			}
			if live.Requests.Total != 8 || live.Requests.Failed != 2 || live.Requests.Rejected != 1 {
				t.Errorf("requests = %+v, want 8 of which 2 failed and 1 was turned away, and none of the probe's and the ops paths", live.Requests)
			}
			if got, want := fmt.Sprint(live.Requests.ByClass), "map[1xx:0 2xx:3 3xx:1 4xx:2 5xx:2]"; got != want {
				t.Errorf("requests by class = %s, want %s", got, want)
			}
			if live.Store.Bytes != 4096 || live.Store.Blobs != 1 || live.Store.CapacityBytes != 8<<10 || live.Store.FreeBytes == nil ||
				live.Store.Rejected != 1 || live.Store.Full != 1 {
				t.Errorf("store = %+v", live.Store)
			}
			if live.Probes.Total != 1 {
				t.Errorf("probes = %+v, want 1", live.Probes)
			}
			u := audit.Live().Usage()
			if p := live.Process; (p.MemoryBytes != nil) != (u.MemoryBytes != nil) || (p.MemoryLimitBytes != nil) != (u.MemoryLimitBytes != nil) ||
				(p.CPULimit != nil) != (u.CPUs != nil) || (p.CPUThrottledSeconds != nil) != (u.Throttling != nil) {
				t.Errorf("process = %+v, want what the kernel tells: %+v", p, u)
			}
			n := uint64(0)
			for _, count := range live.Latency.Counts {
				n += count
			}
			if n != 7 || len(live.Latency.Counts) != len(live.Latency.Bounds)+1 {
				t.Errorf("latency = %+v, want 7 durations, none of the stream", live.Latency)
			}
			if live.Process.ResidentBytes < 1<<20 || live.UptimeSeconds <= 0 || live.Time.Before(before.Add(-time.Minute)) {
				t.Errorf("process = %+v, up %v, at %v", live.Process, live.UptimeSeconds, live.Time)
			}
		})
	}
}

func TestEventsGoOnAndEndWithTheDrain(t *testing.T) {
	t.Parallel()
	in := start(t)
	v := watchEvents(t, in.ops+"/events")
	first, _ := v.next()
	ask(t, "GET", in.app+"/", "")
	v.until("the request", func(s shot) bool { return s.Live.Requests.Total == first.Live.Requests.Total+1 })
	in.cancel()
	last := v.until("an end", func(s shot) bool { return s.event == "end" })
	if last.Live.State != "draining" || last.Live.Drain.Seconds == nil || last.Live.Drain.Cut != 0 {
		t.Errorf("the last frame says %q, drain %+v, want draining and how long it took", last.Live.State, last.Live.Drain)
	}
	if s, more := v.next(); more {
		t.Errorf("after the end came %+v", s)
	}
	if code := in.wait(t); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}

// noUsage is of a machine where the kernel tells nothing.
func noUsage() (memory, throttledSeconds float64) { return -1, -1 }

// countingGatherer counts how often it is asked.
type countingGatherer struct {
	prometheus.Gatherer
	asked atomic.Int64
}

func (g *countingGatherer) Gather() ([]*dto.MetricFamily, error) {
	g.asked.Add(1)
	return g.Gatherer.Gather()
}

func TestOneComputationForAllViewers(t *testing.T) {
	t.Parallel()
	g := &countingGatherer{Gatherer: prometheus.NewRegistry()}
	h := newHealth(time.Now())
	m := newMetrics(prometheus.NewRegistry(), h, "", new(atomic.Int64))
	e := newEvents(g, h, m, Config{}, noUsage)
	e.interval = time.Hour
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { e.refresh(false) })
	}
	all.Wait()
	if n := g.asked.Load(); n != 1 {
		t.Errorf("50 viewers within one interval gathered %d times, want once", n)
	}
	if idle := newEvents(g, h, m, Config{}, noUsage); idle.frame != nil || g.asked.Load() != 1 {
		t.Error("without a viewer something was computed")
	}
}

// serveEvents serves the dashboard's routes with frames every millisecond.
func serveEvents(t *testing.T, cfg Config) (e *events, addr string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	h := newHealth(time.Now())
	m := newMetrics(reg, h, "", new(atomic.Int64))
	log := slog.New(slog.DiscardHandler)
	ln, err := drain.Listen(t.Context(), "127.0.0.1:0", drain.Options{WriteTimeout: cfg.WriteTimeout})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(ln, newServerOptions("ops", cfg, 0), log, m)
	e = newEvents(reg, h, m, cfg, noUsage)
	e.interval = time.Millisecond
	s.handle("/events", watching, get(e.serveEvents))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.drain.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.drain.Shutdown(ctx)
		<-done
	})
	return e, ln.Addr().String()
}

func TestSlowViewerIsDropped(t *testing.T) {
	t.Parallel()
	e, addr := serveEvents(t, Config{ReadTimeout: patience, WriteTimeout: 200 * time.Millisecond})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a viewer", func() bool { return e.viewers.Load() == 1 })
	eventually(t, "end of a viewer that does not read", func() bool { return e.viewers.Load() == 0 })
}

func TestTooManyViewers(t *testing.T) {
	t.Parallel()
	e, addr := serveEvents(t, Config{ReadTimeout: patience, WriteTimeout: patience})
	for range maxViewers {
		watchEvents(t, "http://"+addr+"/events").next()
	}
	resp, body := fetch(t, "GET", "http://"+addr+"/events", "")
	if resp.StatusCode != 503 || !strings.Contains(body, "at most 32 viewers") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one viewer too many = %d %q, want 503", resp.StatusCode, body)
	}
	if got := e.viewers.Load(); got != maxViewers {
		t.Errorf("%d viewers, want %d", got, maxViewers)
	}
	var live compare.Live
	facts, _ := e.refresh(true)
	if err := json.Unmarshal(facts, &live); err != nil || live.Requests.Rejected != 0 {
		t.Errorf("requests = %+v, %v, want no viewer among them", live.Requests, err)
	}
}

func TestPeersGoDownAndComeBack(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	answers := honest("alpine")
	snapshot := answers["/snapshot"]
	answers["/snapshot"] = requireToken("open sesame", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		snapshot(w, r)
	})).ServeHTTP
	up, gone := fakeOps(t, answers), "http://127.0.0.1:1"
	in := start(t, "IMAGELAB_OPS_TOKEN=open sesame", "IMAGELAB_PEERS= alpine="+up+" , gone="+gone)
	v := watchEvents(t, in.ops+"/events", "Authorization: Bearer open sesame")
	s := v.until("both peers", func(s shot) bool { return s.Peers[0].Live != nil && s.Peers[1].Error != "" })
	if s.Peers[0].Name != "alpine" || s.Peers[0].Live.Variant != "alpine" || s.Peers[1].Name != "gone" || s.Peers[1].Error != "connection refused" {
		t.Errorf("peers = %+v", s.Peers)
	}
	down.Store(true)
	v.until("a peer that is down", func(s shot) bool {
		return s.Peers[0].Live == nil && strings.Contains(s.Peers[0].Error, "closed the connection")
	})
	down.Store(false)
	v.until("a peer that is back", func(s shot) bool { return s.Peers[0].Live != nil })

	_, body := fetch(t, "GET", in.ops+"/peers", "", "Authorization: Bearer open sesame")
	var views []peerView
	if err := json.Unmarshal([]byte(body), &views); err != nil {
		t.Fatalf("GET /peers = %q: %v", body, err)
	}
	if len(views) != 2 || views[0].Report == nil || views[0].Live == nil || views[1].Error != "connection refused" || views[1].Report != nil {
		t.Errorf("GET /peers = %s", body)
	}
}

// TestPeerSaysHowItStopped has peers whose drain takes no time, so that nobody who asks each second sees it.
func TestPeerSaysHowItStopped(t *testing.T) {
	t.Parallel()
	peer := start(t)
	in := start(t, "IMAGELAB_PEERS=alpine="+peer.ops)
	v := watchEvents(t, in.ops+"/events")
	v.until("the peer", func(s shot) bool { return s.Peers[0].Live != nil })
	eventually(t, "wait for the last words", func() bool {
		_, body := fetch(t, "GET", peer.ops+"/metrics", "")
		return strings.Contains(body, `in_flight{route="/last",server="ops"} 1`)
	})
	peer.cancel()
	s := v.until("how it has stopped", func(s shot) bool { return s.Peers[0].Error != "" && s.Peers[0].Ended != nil })
	if p := s.Peers[0]; p.Live != nil || p.Answers || p.Ended.Seconds == nil || p.Ended.Requests != 0 || p.EndedSeconds < 0 || p.EndedSeconds > patience.Seconds() {
		t.Errorf("the peer that has stopped is %+v, ended %+v", p, *p.Ended)
	}
	_, body := fetch(t, "GET", in.ops+"/plain", "")
	if !strings.Contains(body, "alpine: stopped ") || !strings.Contains(body, " s ago, 0 requests cut, 0 failed, 0 too late") {
		t.Errorf("GET /plain = %s, want how the peer has stopped", body)
	}
}

// TestPeersWordsAreForgotten claims nothing of a process that another one has followed.
func TestPeersWordsAreForgotten(t *testing.T) {
	t.Parallel()
	var state atomic.Value
	state.Store("ready")
	drained, gone := make(chan struct{}), atomic.Bool{}
	seconds := 0.25
	answers := map[string]http.HandlerFunc{
		"/snapshot": func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() {
				panic(http.ErrAbortHandler)
			}
			sends(compare.Live{Schema: compare.LiveSchema, Time: time.Now(), State: state.Load().(string)})(w, r)
		},
		"/last": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-drained:
				sends(compare.Live{Schema: compare.LiveSchema, Time: time.Now(), State: "draining", Drain: compare.Drain{Seconds: &seconds}})(w, r)
			case <-r.Context().Done():
			}
		},
	}
	in := start(t, "IMAGELAB_PEERS=alpine="+fakeOps(t, answers))
	v := watchEvents(t, in.ops+"/events")
	v.until("the peer", func(s shot) bool { return s.Peers[0].Live != nil })
	state.Store("draining")
	drained <- struct{}{}
	gone.Store(true)
	v.until("its last words", func(s shot) bool { return s.Peers[0].Ended != nil && *s.Peers[0].Ended.Seconds == seconds })
	state.Store("starting")
	gone.Store(false)
	v.until("the one after it", func(s shot) bool { return s.Peers[0].Live != nil && s.Peers[0].Live.State == "starting" })
	gone.Store(true)
	s := v.until("the end of that", func(s shot) bool { return s.Peers[0].Error != "" })
	if s.Peers[0].Ended != nil {
		t.Errorf("of a process that said nothing at its end is told %+v", *s.Peers[0].Ended)
	}
}

// TestPeerThatAnswersNonsenseIsThere is not down.
func TestPeerThatAnswersNonsenseIsThere(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_PEERS=odd="+fakeOps(t, nil)+",gone=http://127.0.0.1:1")
	v := watchEvents(t, in.ops+"/events")
	s := v.until("both verdicts", func(s shot) bool { return s.Peers[0].Error != "" && s.Peers[1].Error != "" })
	if !s.Peers[0].Answers || s.Peers[1].Answers {
		t.Errorf("peers = %+v, want the first one to answer", s.Peers)
	}
}

func TestLastWaitsForTheEndOfTheDrain(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	if resp, body := fetch(t, "HEAD", in.ops+"/last", ""); resp.StatusCode != 200 || body != "" {
		t.Errorf("HEAD /last = %d %q, want 200 at once", resp.StatusCode, body)
	}
	slow, last := make(chan int, 1), make(chan string, 1)
	go func() { resp, _ := fetch(t, "GET", in.app+"/delay/2s", ""); slow <- resp.StatusCode }()
	go func() {
		resp, err := http.Get(in.ops + "/last")
		if err != nil {
			last <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		last <- string(body)
	}()
	eventually(t, "both requests", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, `in_flight{route="/last",server="ops"} 1`) && strings.Contains(body, `in_flight{route="/delay/{duration}",server="app"} 1`)
	})
	in.cancel()
	if code := <-slow; code != 200 {
		t.Errorf("the request in flight = %d, want 200", code)
	}
	var live compare.Live
	if body := <-last; json.Unmarshal([]byte(body), &live) != nil || live.State != "draining" || live.Drain.Seconds == nil || live.Drain.Requests != 0 {
		t.Errorf("GET /last = %s, want how the drain has gone", body)
	}
	if code := in.wait(t); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestSlowPeerDelaysNothing(t *testing.T) {
	t.Parallel()
	silent := fakeOps(t, map[string]http.HandlerFunc{"/": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
	in := start(t, "IMAGELAB_PEERS=slow="+silent+",good="+fakeOps(t, honest("good")))
	v := watchEvents(t, in.ops+"/events")
	v.until("the good one while the slow one is asked", func(s shot) bool {
		return s.Peers[1].Live != nil && s.Peers[0].Live == nil && s.Peers[0].Error == ""
	})
	v.until("the slow one's verdict", func(s shot) bool { return s.Peers[0].Error == "no answer within 2s" })
}

// TestIdleProcessHasNoNull is for readers that count on arrays.
func TestIdleProcessHasNoNull(t *testing.T) {
	t.Parallel()
	_, body := fetch(t, "GET", start(t).ops+"/snapshot", "")
	if strings.Contains(body, "null") {
		t.Errorf("GET /snapshot of a process that has served nothing = %s, want no null", body)
	}
}
