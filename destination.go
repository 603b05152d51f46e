package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"imagelab/internal/upstream"
)

// errNotThere is why a request was not passed on: nothing took it within
// Config.UpstreamWait.
var errNotThere = errors.New("upstream not there")

// backend says where requests go: the command's present generation, or a server elsewhere.
type backend interface {
	// acquire waits until a destination takes requests, and counts one as its own until
	// release. One that is there is returned at once, also if ctx has ended. ctx ends when the
	// request has waited for long enough; then the error is errNotThere or the context's.
	acquire(ctx context.Context) (*destination, error)
}

// fixed is the backend of a server that is not ours.
type fixed struct{ *destination }

// newFixed is the backend of the server that Config.Upstream names.
func newFixed(cfg Config, log *slog.Logger) fixed {
	u := cfg.Upstream
	if !u.isHere() {
		log.Warn("requests are passed on to another machine, and in the clear", "upstream", u.address)
	}
	return fixed{newDestination(newPool(u.network, u.address, cfg))}
}

func (f fixed) acquire(context.Context) (*destination, error) {
	f.take()
	return f.destination, nil
}

// destination is one generation of the upstream.
type destination struct {
	pool     *upstream.Pool
	inFlight atomic.Int64 // requests, upgraded connections among them
	retired  atomic.Bool
	quit     chan struct{} // closed when it is retired
	quiet    chan struct{} // closed when it is retired and its last request has ended
	closing  sync.Once     // of quiet

	mu      sync.Mutex
	waiting int           // requests that wait for it to accept
	accepts chan struct{} // closed when it does; nil if nobody waits
}

func newDestination(pool *upstream.Pool) *destination {
	return &destination{pool: pool, quit: make(chan struct{}), quiet: make(chan struct{})}
}

// take counts a request, and says false for a destination that is retired: its backend
// has another.
func (d *destination) take() bool {
	d.inFlight.Add(1)
	if d.retired.Load() {
		d.release()
		return false
	}
	return true
}

// release ends a request.
func (d *destination) release() {
	if d.inFlight.Add(-1) == 0 && d.retired.Load() {
		d.closing.Do(d.end)
	}
}

// retire ends the destination: it takes no more requests, and those that wait for it to
// accept ask the backend again. The channel is closed when its last request has ended.
func (d *destination) retire() <-chan struct{} {
	if d.retired.Swap(true) {
		return d.quiet // it is over, or about to be
	}
	close(d.quit)
	if d.inFlight.Load() == 0 {
		d.closing.Do(d.end)
	}
	return d.quiet
}

func (d *destination) end() {
	d.pool.Close()
	close(d.quiet)
}

// awaitAccepting waits until the destination may accept a connection, which it has refused:
// until it has accepted one, is retired, or ctx ends. However many requests wait, one
// connection at a time is tried.
func (d *destination) awaitAccepting(ctx context.Context) {
	d.mu.Lock()
	d.waiting++
	if d.accepts == nil {
		d.accepts = make(chan struct{})
		go d.knock(d.accepts)
	}
	accepts := d.accepts
	d.mu.Unlock()
	select {
	case <-accepts: // also when it is retired
	case <-ctx.Done():
	}
	d.mu.Lock()
	d.waiting--
	d.mu.Unlock()
}

const (
	// A destination that refuses connections is asked again after leastKnock, and then less
	// and less often, down to mostKnock. A start is a matter of seconds, and a request should
	// not wait for much longer than that.
	leastKnock = 5 * time.Millisecond
	mostKnock  = 100 * time.Millisecond
)

// knock tries to connect while somebody waits.
func (d *destination) knock(accepts chan struct{}) {
	defer close(accepts)
	for pause := leastKnock; ; pause = min(pause*3/2, mostKnock) {
		select {
		case <-time.After(pause):
		case <-d.quit:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := d.pool.Accepts(ctx)
		cancel()
		d.mu.Lock()
		if err == nil || d.waiting == 0 || d.retired.Load() {
			d.accepts = nil
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
	}
}
