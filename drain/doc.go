// Package drain stops a net/http server without losing a request.
//
//	ln, err := drain.Listen(ctx, ":8080", drain.Options{WriteTimeout: 30 * time.Second})
//	…
//	srv := drain.New(&http.Server{Handler: mux, IdleTimeout: 90 * time.Second}, ln)
//	go srv.Serve()
//	<-stop // SIGTERM
//	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
//	defer cancel()
//	report := srv.Shutdown(ctx)
//
// # What http.Server.Shutdown loses
//
//   - What sits in the kernel's accept queue: to close a listener resets it. The same goes
//     for handshakes under way, which take a round trip: 100 ms and more across the world.
//   - What comes on a connection that was just accepted (go.dev/issue/75591).
//   - What comes on a kept-alive connection as it is closed (go.dev/issue/23829).
//   - Pipelined requests behind one that is being served.
//   - What the kernel still has to send, if the process is the last of its network
//     namespace, as it is in a container: the namespace ends with it.
//
// # What is promised
//
// Shutdown does, in this order:
//
//  1. Responses carry "Connection: close" (Draining does only that, for as long as a
//     balancer needs to notice).
//  2. New handshakes are kept out. Those under way are waited for, and the accept queue is
//     served. Then the listener is closed: from here on clients are refused.
//  3. Requests are finished: those that are being served, those of which a part has come,
//     and those that are pipelined behind them. Streams are told to end (Ending).
//  4. A connection that waits for a request is closed when its client has been silent for
//     longer than a client at work would be, by its own round trip and two losses in a row:
//     300 ms and 8 round trips on one machine or rack, 1.5 s and 8 elsewhere. One that has
//     sent nothing yet gets 1 s, and 3.5 s and 8 round trips.
//  5. A connection is closed only when its client's kernel has acknowledged all that was
//     written to it. Connections that were closed before the stop are waited for as well.
//
// It returns as soon as nothing is left. When its context ends, by a deadline or because
// somebody cancels it, what is left is cut, and counted.
//
// Report says what was lost and what could not be checked. Report.Lossless is the only
// ground on which to say that nothing was lost.
//
// # What is not promised
//
//   - A request that a client sends on an idle connection at the moment at which it is
//     closed gets no answer: no HTTP/1.1 server can prevent that, and clients have to send
//     it again (RFC 9112, 9.3.1). Those that come before the client has closed, too, or
//     within a second, are counted (Report.Late). A proxy that ends TCP connections itself,
//     and does not know HTTP, makes it likelier: the kernel knows how far the proxy is, and
//     not how far the client.
//   - A pipelined request that comes behind an answer with "Connection: close". It is
//     counted. One that has come in the same segment as the body of the request before it
//     gets no answer either, and is not: net/http keeps what it has read to itself. A client
//     must not take a request that it sent behind the last answer for served (RFC 9112, 9.6).
//   - A handshake by SYN cookie, which a kernel sends whose queue is full: it keeps nothing
//     of it that could be seen. Where the kernel allows a filter, the answers are waited
//     for; Report.Lossy says that there were cookies in any case.
//   - A client from which nothing is heard for 3 s during its handshake.
//   - Whoever the network or a proxy loses. Docker's userland proxy, for one, accepts
//     connections for a container that has stopped to listen.
//   - HTTP/2, which New turns off. With TLS, HTTP/1.1 is served and drained, but what is
//     pipelined, or comes late, is not seen, and a connection's first request is not waited
//     for while only a part of it has come; Report.Lossy says that there was something.
//
// # What a Listener does besides
//
//   - An answer that is given before the end of its request reaches its client: the
//     connection is half-closed, and what still comes is read and forgotten until the client
//     closes, is silent for 5 s, or has gone on for 30 s or a gibibyte (RFC 9112, 9.6). During
//     a drain that is 2 s. net/http would reset the connection, for which proxies answer 502.
//   - A client has to take 64 KiB within Options.WriteTimeout, over all its answers: one that
//     takes a byte now and then gets no new deadline with the next request.
//   - A pipelined request is begun when the kernel has sent all but 16 KiB of the answers
//     before it: a client that never reads is not served until the kernel's buffers are full.
//   - At Options.MaxConns, connections that wait for their clients make room for new ones:
//     first those that have their last answer, then those with half a header, idle ones,
//     ones that have sent nothing for 250 ms, those whose client takes more than half a second
//     for 64 KiB of its answer, and last those whose client takes as long for 64 KiB of a
//     body. A kind comes up when none before it has waited long enough. Only a
//     request that waits for its handler is never cut, nor is a hijacked connection. RoomFor
//     has the last two make room for a server's own cap of requests.
//   - Options.Spare connections are let in above that when all others are being served, each
//     for one request, for health checks; Room is for the other handlers.
//   - A request with both Content-Length and Transfer-Encoding, or of HTTP/1.0 with the
//     latter, is its connection's last (RFC 9112, 6.1), as others may see another end of it.
//     Below TLS that is not seen.
//
// # Which kernels
//
// Linux. New handshakes are refused by binding the listener to an interface that does not
// exist, which needs no privilege since Linux 5.7, or dropped by a filter (SO_ATTACH_FILTER,
// which needs CAP_NET_ADMIN in recent kernels). Where neither is allowed the first moment
// at which nothing is queued has to do, and Report.Lossy says so. Handshakes under way and
// answers that are not acknowledged are asked for by sock_diag(7), or where that is not
// allowed read from /proc/self/net/tcp. Without either, handshakes are waited for as long as
// one across the world takes, and Report.Lossy says so.
// Other programs that use the same address in the same network namespace are counted with
// it. The answers that an earlier listener on it has left behind are not.
//
// # What it costs
//
// Serving: a handler's ResponseWriter is wrapped, and each connection knows its phase,
// which is some tens of nanoseconds and one allocation a request. Stopping: a look at all
// connections every 2 ms, or twice as long as that takes, system calls for each that has
// been silent for a while, and the kernel's list of the port's sockets every 5 ms, or twice
// as long as that takes, some 1 ms where there are few.
package drain
