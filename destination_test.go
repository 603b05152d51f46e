package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// frontOf serves a front of that backend, with the figures of a process.
func frontOf(t *testing.T, to backend) (url string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, newHealth(time.Now()), "", new(atomic.Int64))
	f := newFront(to, Config{UpstreamWait: patience, ReadTimeout: patience}, false, func() {}, newFrontMetrics(reg, m), slog.New(slog.DiscardHandler))
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv.URL
}

// generations is a backend whose destination can be replaced.
type generations struct{ now atomic.Pointer[destination] }

func (g *generations) acquire(ctx context.Context) (*destination, error) {
	for {
		if d := g.now.Load(); d != nil && d.take() {
			return d, nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, errNotThere
		}
	}
}

func destinationAt(url string) *destination {
	return newDestination(newPool("tcp", host(url), Config{UpstreamWait: patience, UpstreamIdle: patience, UpstreamTimeout: patience}))
}

// A destination that is replaced ends when its requests have, and takes no further ones. Its
// streams end at once.
func TestRetiredDestinationFinishesItsRequests(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: old\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		<-release
		fmt.Fprint(w, "old")
	}))
	t.Cleanup(old.Close)
	next := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "new") }))
	t.Cleanup(next.Close)
	first := destinationAt(old.URL)
	var g generations
	g.now.Store(first)
	url := frontOf(t, &g)

	got := make(chan string, 2)
	for _, path := range []string{"/", "/events"} {
		go func() {
			_, body := fetch(t, "GET", url+path, "")
			got <- body
		}()
	}
	eventually(t, "two requests", func() bool { return first.inFlight.Load() == 2 })
	g.now.Store(destinationAt(next.URL))
	quiet := first.retire()
	if _, body := fetch(t, "GET", url, ""); body != "new" {
		t.Errorf("behind the change: %q, want the new destination's answer", body)
	}
	if body := <-got; body != "data: old\n\n" {
		t.Errorf("the stream is %q", body)
	}
	if isClosed(quiet) {
		t.Error("the old destination is quiet, and has a request")
	}
	close(release)
	if body := <-got; body != "old" {
		t.Errorf("a request of before the change is answered %q", body)
	}
	select {
	case <-quiet:
	case <-time.After(patience):
		t.Error("the old destination is not quiet, and has no request")
	}
	if first.take() {
		t.Error("the old destination takes a request")
	}
}

// What waits for a destination that does not accept goes to the one that replaces it.
func TestRequestsOfADestinationThatNeverAcceptsGoToTheNext(t *testing.T) {
	t.Parallel()
	next := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	t.Cleanup(next.Close)
	first := destinationAt("http://" + freeAddress(t))
	var g generations
	g.now.Store(first)
	url := frontOf(t, &g)
	got := make(chan string, 10)
	for range cap(got) {
		go func() {
			_, body := fetch(t, "POST", url, "hello")
			got <- body
		}()
	}
	eventually(t, "requests that wait", func() bool { return first.inFlight.Load() == int64(cap(got)) })
	g.now.Store(destinationAt(next.URL))
	<-first.retire()
	for range cap(got) {
		if body := <-got; body != "hello" {
			t.Errorf("a request that waited is answered %q", strings.TrimSpace(body))
		}
	}
}
