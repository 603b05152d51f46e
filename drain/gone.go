package drain

import "context"

// Gone says whether the connection of the request of ctx is over: reset by the client or
// cut. That ctx has ended does not say so: it ends as well when a client only says that
// it will send no more, and such a client waits for its answer (RFC 9112, 9.6). One that
// has closed the connection looks the same until something is sent to it, which its
// kernel answers with a reset. Without a Server there is no telling, and it is false.
func Gone(ctx context.Context) bool {
	c := connOf(ctx)
	if c == nil {
		return false
	}
	info := tcpInfo(c.TCPConn)
	return info == nil || info.State == tcpClose
}

// Reset says that the answer to the request of ctx is not whole, where the end of the
// connection would be that of the answer, as it is in HTTP/1.0: the connection is reset when
// it is closed. A handler calls it before it panics with http.ErrAbortHandler.
func Reset(ctx context.Context) {
	if c := connOf(ctx); c != nil {
		c.broken.Store(true)
	}
}
