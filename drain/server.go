package drain

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Server is a net/http server on a Listener, which can be stopped without losing a
// request.
type Server struct {
	http   *http.Server
	ln     *Listener
	served chan struct{} // closed when Serve has returned
	leave  func()        // closes it

	stop   sync.Once
	report Report
}

// New takes srv over: its Handler, ConnState and ConnContext are wrapped, and its methods
// are not to be called any more, those of the Server are. Its WriteTimeout should be 0, in
// favour of Options.WriteTimeout. HTTP/2 is turned off.
func New(srv *http.Server, ln *Listener) *Server {
	s := &Server{http: srv, ln: ln, served: make(chan struct{})}
	s.leave = sync.OnceFunc(func() { close(s.served) })
	srv.Handler = s.wrap(srv.Handler, srv.DisableGeneralOptionsHandler)
	// net/http would answer OPTIONS * past the handler, without a word of the drain.
	srv.DisableGeneralOptionsHandler = true
	if srv.TLSNextProto == nil { // HTTP/2 has its own way to say goodbye
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	theirState := srv.ConnState
	srv.ConnState = func(nc net.Conn, state http.ConnState) {
		if theirState != nil {
			theirState(nc, state)
		}
		connState(nc, state)
	}
	theirContext := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		if theirContext != nil {
			ctx = theirContext(ctx, nc)
		}
		c := unwrap(nc)
		if c == nil {
			return ctx
		}
		c.plain = nc == net.Conn(c)
		return context.WithValue(ctx, ctxKey{}, c)
	}
	return s
}

// Serve serves until Shutdown. It returns nil after a drain, also one that had to cut,
// and otherwise what made it end. It is called once.
func (s *Server) Serve() error {
	return s.until(s.http.Serve(s.ln))
}

// ServeTLS is Serve over TLS. The files are those of http.Server.ServeTLS, and empty if
// srv's TLSConfig has certificates.
func (s *Server) ServeTLS(certFile, keyFile string) error {
	return s.until(s.http.ServeTLS(s.ln, certFile, keyFile))
}

// until says that the listener is closed, and whether err is more than that.
func (s *Server) until(err error) error {
	s.leave()
	if errors.Is(err, errEmptied) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Draining tells the clients to go: from now on responses carry "Connection: close",
// and new connections are still served. Shutdown begins with it; a service behind a
// balancer calls it as soon as it is to be stopped, and Shutdown when the balancer has
// noticed.
func (s *Server) Draining() { s.ln.draining.Store(true) }

// Ending returns a channel that is closed when the server that serves the request of
// ctx waits for its streams to end. A handler that goes on until its client leaves has
// to watch it. Without such a server the channel is nil.
func Ending(ctx context.Context) <-chan struct{} {
	if c := connOf(ctx); c != nil {
		return c.ln.ending.Done()
	}
	return nil
}

// UntilEnding returns a copy of ctx that ends at the latest when Ending's channel is
// closed: for handlers that wait for others.
func UntilEnding(ctx context.Context) (context.Context, context.CancelFunc) {
	c := connOf(ctx)
	ctx, cancel := context.WithCancel(ctx)
	if c == nil {
		return ctx, cancel
	}
	stop := context.AfterFunc(c.ln.ending, cancel)
	return ctx, func() { stop(); cancel() }
}

// Expendable says that the request of ctx is an onlooker's, such as a stream of figures:
// when everything else is done it gets a second to end, and to cut it is to cut no
// request.
func Expendable(ctx context.Context) {
	if c := connOf(ctx); c != nil {
		c.expendable.Store(true)
	}
}

// SetWriteBuffer bounds what the kernel holds for the client of the request of ctx, in
// bytes; a stream that nobody reads is then noticed the sooner.
func SetWriteBuffer(ctx context.Context, bytes int) error {
	if c := connOf(ctx); c != nil {
		return c.TCPConn.SetWriteBuffer(bytes)
	}
	return errors.New("drain: the request is not of a drain.Server")
}

// wrap makes the handler that adds "Connection: close" during the drain.
func (s *Server) wrap(h http.Handler, options bool) http.Handler {
	if h == nil {
		h = http.DefaultServeMux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not from a pool: a handler that writes after its end would write into the
		// answer of another.
		lw := &lastWriter{ResponseWriter: w, ln: s.ln, request: r}
		if c := connOf(r.Context()); c != nil {
			lw.last = c.plain && c.pipeline.isDoubtful(r)
			c.mayHaveBody.Store(r.ContentLength != 0)
			if r.ContentLength != 0 {
				c.pipeline.blurred = true
			}
		}
		if r.RequestURI == "*" && r.Method == http.MethodOptions && !options {
			lw.Header().Set("Content-Length", "0") // as net/http does
		} else {
			h.ServeHTTP(lw, r)
		}
		lw.beforeHeader()
	})
}

// lastWriter is the http.ResponseWriter that handlers get. When the header is written,
// so that a request that began before the drain has it as well, it adds "Connection:
// close" unless a pipelined request has come already: a client may not send one after
// that, and what it has sent would be dropped (RFC 9112, 9.6).
type lastWriter struct {
	http.ResponseWriter
	ln      *Listener
	request *http.Request
	begun   bool // the header is written
	last    bool // no request may follow
}

func (w *lastWriter) beforeHeader() {
	if w.begun {
		return
	}
	w.begun = true
	r := w.request
	c := connOf(r.Context())
	last := w.last || c != nil && c.above.Load() // a place above the cap is for one request
	if !last && !w.ln.draining.Load() {
		return
	}
	if !last && c != nil && r.ContentLength == 0 && c.more() {
		return
	}
	w.Header().Set("Connection", "close")
}

// Unwrap is for http.ResponseController.
func (w *lastWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *lastWriter) WriteHeader(code int) {
	if code >= 200 {
		w.beforeHeader()
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *lastWriter) Write(p []byte) (int, error) {
	w.beforeHeader()
	return w.ResponseWriter.Write(p)
}

// WriteString is for io.WriteString.
func (w *lastWriter) WriteString(text string) (int, error) {
	w.beforeHeader()
	return io.WriteString(w.ResponseWriter, text)
}

// ReadFrom keeps sendfile for files.
func (w *lastWriter) ReadFrom(src io.Reader) (int64, error) {
	w.beforeHeader()
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return to.ReadFrom(src)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
}

// FlushError is for http.ResponseController.
func (w *lastWriter) FlushError() error {
	w.beforeHeader()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is for handlers that ask for an http.Flusher.
func (w *lastWriter) Flush() { _ = w.FlushError() }

// Hijack is for handlers that ask for an http.Hijacker.
func (w *lastWriter) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	w.begun = true // the handler's business from here on
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// A Report is what a Shutdown has done.
type Report struct {
	// Requests is how many requests were cut: connections that had one, or an answer
	// that their client has not acknowledged, when the time was up.
	Requests int
	// Cut is how many connections were closed when the time was up, by what they were
	// doing; those that had no request are among them.
	Cut map[Phase]int
	// Late is how many connections had a request come that got no answer, as they were
	// being closed: for being idle, or behind an answer with "Connection: close". An
	// HTTP/1.1 client has to send it again (RFC 9112, 9.3.1 and 9.6).
	Late int
	// Took is the time since Shutdown was called.
	Took time.Duration
	// Lossy is why it cannot be said that nothing else was lost, such as a kernel
	// without a way to keep new handshakes out; nil if that was checked.
	Lossy error
}

// Lossless says whether no request was lost, which was checked.
func (r Report) Lossless() bool { return r.Requests == 0 && r.Late == 0 && r.Lossy == nil }

const (
	// poll is how often a drain looks at its connections.
	poll = 2 * time.Millisecond
	// look is how often it reads the kernel's tables, which may be long.
	look = 5 * time.Millisecond
	// handshakeWait is how long a handshake is waited for: its last message may have to be
	// asked for twice, after 1 s and 2 s more.
	handshakeWait = 3500 * time.Millisecond
	// cookieWait is how long the answers to SYN cookies, which the kernel forgets, are
	// waited for.
	cookieWait = time.Second
	// leastLooks is how often it looks at a connection before it sends it away.
	leastLooks = 10
	// onlookers is how long an expendable request may go on when all others are done.
	onlookers = time.Second
)

// Shutdown stops the server: no new connections, requests in flight finish, connections
// close as they fall idle, and whatever was written is acknowledged by the client's
// kernel. It returns as soon as nothing is left. When ctx ends, by its deadline or
// because it is cancelled, what is left is cut. A second call waits for the first, and
// returns its report.
func (s *Server) Shutdown(ctx context.Context) Report {
	s.stop.Do(func() { s.report = s.shutdown(ctx) })
	return s.report
}

func (s *Server) shutdown(ctx context.Context) Report {
	began := time.Now()
	s.Draining()
	door := s.ln.shutDoor(began)
	tick := time.NewTimer(0)
	defer tick.Stop()
	var ended time.Time
	for ctx.Err() == nil {
		looked := time.Now()
		s.ln.dismissIdle()
		pause := pauseAfter(time.Since(looked), poll) // where connections are many, it takes long
		door.look()
		if door.closed {
			s.ln.empty()
		}
		if s.hasServed() {
			if s.ln.endStreams(); ended.IsZero() {
				ended = time.Now()
			}
			if s.ln.onlyExpendable(time.Since(ended)) && door.delivered(time.Now()) {
				break
			}
		}
		tick.Reset(pause)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	s.ln.endStreams()
	lossy := door.lossy()
	report := s.cutRest()
	if n := len(door.found.undelivered); n > 0 {
		report.Requests += n
		report.Cut[Lingering] += n
	}
	report.Late = int(s.ln.late.Load())
	if n := report.Cut[Silent] + report.Cut[Idle]; n > 0 {
		lossy = errors.Join(lossy, fmt.Errorf("%d connections were closed when the time was up, and may have been about to send a request", n))
	}
	report.Lossy = lossy
	report.Took = time.Since(began)
	return report
}

// pauseAfter is how long to wait after what took that long, so that it takes a third of a
// processor at most.
func pauseAfter(took, least time.Duration) time.Duration { return max(least, 2*took) }

// onlyExpendable says whether nothing is left, or after a while nothing that counts.
func (l *Listener) onlyExpendable(since time.Duration) bool {
	rest := l.snapshot()
	return len(rest) == 0 || since > onlookers &&
		!slices.ContainsFunc(rest, func(c *conn) bool { return !c.expendable.Load() })
}

func (s *Server) hasServed() bool {
	select {
	case <-s.served:
		return true
	default:
		return false
	}
}

// cutRest closes what is left.
func (s *Server) cutRest() Report {
	report := Report{Cut: map[Phase]int{}}
	rest := s.ln.snapshot()
	for _, c := range rest {
		phase := c.current()
		report.Cut[phase]++
		if c.hasRequest(phase) && !c.expendable.Load() {
			report.Requests++
		}
	}
	close(s.ln.cut)
	s.ln.empty()
	_ = s.http.Close()
	for _, c := range rest {
		_ = c.end() // also those that are hijacked, or linger
	}
	return report
}

// hasRequest says whether to cut the connection is to cut a request.
func (c *conn) hasRequest(phase Phase) bool {
	switch phase {
	case Silent, Idle:
		return unread(c.TCPConn) || unsent(c.TCPConn) > 0
	case Lingering:
		return unsent(c.TCPConn) > 1 // the FIN is one
	}
	return true
}

// dismissIdle sends away the connections that have nothing to finish.
//
// How long one has waited is measured in looks, too: where the processor is scarce, a
// client's next request and this loop are late together.
func (l *Listener) dismissIdle() {
	for _, c := range l.snapshot() {
		waited := c.waited()
		if waited < poll {
			c.looks = 0
		}
		c.looks++
		if waited < nearGrace || !c.phaseIs(Silent, Idle) {
			continue
		}
		info := tcpInfo(c.TCPConn)
		if info == nil || unsent(c.TCPConn) > 0 {
			continue // its client has not even got the last answer
		}
		if c.looks >= leastLooks && hasBeenSilent(info, c.phaseIs(Silent), waited) {
			c.leave(drained)
		}
	}
}

// hasBeenSilent says whether a client at work would have been heard of by now.
func hasBeenSilent(info *unix.TCPInfo, fromTheStart bool, waited time.Duration) bool {
	grace := distanceOf(info).idleGrace()
	if fromTheStart {
		grace = distanceOf(info).silentGrace()
	}
	heard := time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
	return min(waited, heard) >= grace
}
