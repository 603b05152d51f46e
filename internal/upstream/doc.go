// Package upstream is the client side of HTTP/1.1 for a proxy: it passes requests on to
// one address, over connections that it keeps for the next.
//
//	pool := upstream.New("tcp", "127.0.0.1:3000", upstream.Options{Idle: time.Second})
//	x, err := pool.Begin(ctx, &upstream.Request{Method: "GET", Target: "/", Host: "example.com"})
//	…
//	defer x.Close()
//	header := http.Header{}
//	status, err := x.ReadHead(header) // again while it is below 200, but not 101
//	for {
//		piece, err := x.Next() // io.EOF behind a whole body
//		…
//	}
//
// It differs from http.Transport in what a proxy needs. It is the goroutine of its caller
// that writes the request and reads the answer; only a body that is sent has one of its own.
// Bodies are never held, in either direction. An error says whether the request may be sent
// again. And it is strict: an answer whose end is not beyond doubt is none.
//
// # What is an answer
//
// RFC 9112, and where that leaves a choice the strict one. Refused are: anything before the
// status line; lines that end in a bare LF; CR, LF and NUL within a line; obs-fold; names
// that are no token; Content-Length that is not digits alone, comes twice, or comes with
// Transfer-Encoding; a coding other than chunked; chunked in HTTP/1.0; 101 that was not
// asked for; a header of more than MaxHeader bytes. White space between a name and its
// colon is taken out, as a proxy must (RFC 9112, 5.1).
//
// A body ends with its length, its last chunk and trailers, or, without either, with the
// connection. If the connection ends earlier, so does Next, with an error, and never io.EOF.
//
// # Which connections are used again
//
// One whose request was sent and whose answer was read to its end, of HTTP/1.1 and without
// Connection: close, with nothing behind it, and for at most Options.Idle; but for no request
// that is sent once (Request.Once), which has a connection of its own. Before it is used
// the kernel is asked whether the server has closed it or sent something meanwhile. What is
// left is the server that closes it at the very moment: Error.Reused, and the table of
// docs/front.md.
package upstream
