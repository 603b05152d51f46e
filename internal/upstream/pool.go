// Package upstream is the client side of HTTP/1.1 for one address.
package upstream

import (
	"time"
)

// Options are what a Pool may be told. All are optional.
type Options struct {
	// Idle is how long a kept-alive connection may wait for its next request before it is
	// closed; 0 keeps none. It has to be less than what the server allows.
	Idle time.Duration
	// HeaderTimeout bounds the wait for a response's header, from the moment at which the
	// request has been sent; 0 is no bound.
	HeaderTimeout time.Duration
}

// A Pool holds the connections to one address. It is safe for concurrent use.
type Pool struct {
	network, address string
	options          Options
}

// New makes a pool of connections to the address of network, "tcp" or "unix", as
// net.Dial takes them. It connects when there is a request.
func New(network, address string, o Options) *Pool {
	return &Pool{network: network, address: address, options: o}
}

// Close closes the idle connections, and the others as their requests end.
func (p *Pool) Close() {}
