package main

import (
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// lastScrape keeps the ops listener open after a stop that has cut requests, until somebody
// has fetched the metrics, as otherwise the count of what was cut ends with the process,
// before anybody has seen it.
type lastScrape struct {
	metrics http.Handler
	wait    time.Duration // at most; 0 is not at all
	wanted  atomic.Bool
	once    sync.Once
	seen    chan struct{} // closed by the end of a scrape that has begun after the cut
}

func newLastScrape(metrics http.Handler, wait time.Duration) *lastScrape {
	return &lastScrape{metrics: metrics, wait: wait, seen: make(chan struct{})}
}

// ServeHTTP answers GET /metrics.
func (l *lastScrape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wanted := l.wanted.Load()
	l.metrics.ServeHTTP(w, r)
	if wanted && r.Method != http.MethodHead {
		l.once.Do(func() { close(l.seen) })
	}
}

// actor has its place after the app's and the command's, and before that of the ops
// listener. A second signal ends the wait.
func (l *lastScrape) actor(st *stopper, log *slog.Logger) (execute func() error, interrupt func(error)) {
	done := make(chan struct{})
	execute = func() error {
		<-done
		return nil
	}
	return execute, func(error) {
		defer close(done)
		if st.report.Requests == 0 || l.wait == 0 {
			return
		}
		l.wanted.Store(true)
		log.Info("waiting for a last scrape, as requests were cut", "seconds", l.wait.Seconds())
		select {
		case <-l.seen:
		case <-time.After(l.wait):
			log.Warn("nobody has fetched the metrics in time, so that no alert counts what was cut")
		case <-st.hurry.Done():
		}
	}
}
