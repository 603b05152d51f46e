package upstream

import (
	"context"
	"net"
	"sync"
	"time"
)

// Options are what a Pool may be told.
type Options struct {
	// Idle is how long a kept-alive connection may wait for its next request; 0 keeps none.
	// It has to be less than what the server allows.
	Idle time.Duration
	// DialTimeout bounds the wait for a connection; 0 is the kernel's own bound.
	DialTimeout time.Duration
	// HeaderTimeout bounds the wait for an answer's header, from the moment at which the
	// server took the last byte of the request, or could have; 0 is no bound.
	HeaderTimeout time.Duration
}

// A Pool holds the connections to one address. It is safe for concurrent use.
type Pool struct {
	network, address string
	options          Options
	dialer           net.Dialer

	mu       sync.Mutex
	idle     []*conn // the one that was used last is the last
	sweeping bool
	closed   bool
}

// New makes a pool of connections to the address of network, "tcp" or "unix", as net.Dial
// takes them. It connects when there is a request.
func New(network, address string, o Options) *Pool {
	return &Pool{network: network, address: address, options: o, dialer: net.Dialer{Timeout: o.DialTimeout}}
}

// Addr is where the pool connects to.
func (p *Pool) Addr() string { return p.address }

// Accepts tries whether the server accepts a connection: nil, or why not.
func (p *Pool) Accepts(ctx context.Context) error {
	nc, err := p.dialer.DialContext(ctx, p.network, p.address)
	if err != nil {
		return err
	}
	// It is not kept: one that says nothing may hold a server up that serves one at a time.
	return nc.Close()
}

func (p *Pool) dial(ctx context.Context) (*conn, error) {
	nc, err := p.dialer.DialContext(ctx, p.network, p.address)
	if err != nil {
		return nil, err
	}
	return newConn(p, nc), nil
}

// get returns a connection that was used before and can be used again, or nil.
func (p *Pool) get(now time.Time) *conn {
	for {
		p.mu.Lock()
		last := len(p.idle) - 1
		if last < 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[last]
		p.idle[last] = nil
		p.idle = p.idle[:last]
		p.mu.Unlock()
		if now.Sub(c.idleSince) < p.options.Idle && c.isQuiet() {
			return c
		}
		_ = c.nc.Close()
	}
}

// put keeps c for the next request.
func (p *Pool) put(c *conn, now time.Time) {
	c.idleSince = now
	p.mu.Lock()
	if p.closed || p.options.Idle <= 0 {
		p.mu.Unlock()
		_ = c.nc.Close()
		return
	}
	p.idle = append(p.idle, c)
	if !p.sweeping {
		p.sweeping = true
		time.AfterFunc(p.options.Idle, p.sweep)
	}
	p.mu.Unlock()
}

// sweep closes what has been idle for too long, and comes again while there are others.
func (p *Pool) sweep() {
	now := time.Now()
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].idleSince) >= p.options.Idle {
		n++
	}
	old := append([]*conn(nil), p.idle[:n]...)
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	if p.sweeping = rest > 0; p.sweeping {
		time.AfterFunc(max(p.options.Idle/4, time.Millisecond), p.sweep)
	} else {
		p.idle = nil
	}
	p.mu.Unlock()
	for _, c := range old {
		_ = c.nc.Close()
	}
}

// Close closes the idle connections, and the others as their requests end.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.nc.Close()
	}
}
