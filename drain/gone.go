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
