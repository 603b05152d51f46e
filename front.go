package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"imagelab/internal/upstream"
)

// errNotThere is why a request was not passed on: nothing took it within
// Config.UpstreamWait.
var errNotThere = errors.New("upstream not there")

// backend says where requests go: the command's present generation, or a server elsewhere.
type backend interface {
	// acquire waits until a destination takes requests, and counts one as its own until
	// release. ctx ends when the request has waited for long enough; then the error is
	// errNotThere or the context's.
	acquire(ctx context.Context) (*destination, error)
}

// destination is one generation of the upstream.
type destination struct {
	pool     *upstream.Pool
	inFlight atomic.Int64 // requests, upgraded connections among them
	retired  atomic.Bool
	quit     chan struct{} // closed when it is retired
	quiet    chan struct{} // closed when it is retired and its last request has ended
	closing  sync.Once     // of quiet
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
// accept ask the backend again. The channel is closed when its last request has ended. It
// is called once.
func (d *destination) retire() <-chan struct{} {
	d.retired.Store(true)
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
