package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"imagelab/internal/probe"
)

// A phase is what a connection is doing, as drain and the connection cap see it.
type phase int32

const (
	silent    phase = iota // accepted, nothing received yet
	reading                // a part of a request's header has come
	active                 // a request is being served
	idle                   // kept alive, between requests
	lingering              // the last answer is sent; its client may still be sending
	hijacked               // taken over by a handler
)

func (p phase) String() string {
	return [...]string{"silent", "reading", "active", "idle", "lingering", "hijacked"}[p]
}

// conn is a connection that knows its phase. net/http reports only complete
// headers (ConnState), and a byte that has arrived makes the difference between
// an idle connection and a request.
type conn struct {
	*net.TCPConn
	ln    *listener
	phase atomic.Int32
	since atomic.Int64 // when the phase began, in nanoseconds since ln.epoch
	looks int          // of the drain, which found the phase unchanged

	mu       sync.Mutex
	deadline time.Time // the server's read deadline
	armed    time.Time // the socket's own; zero if it has none, or one that has passed
	asked    string    // why leave's read deadline is set instead; "" if it is not
}

func (c *conn) enter(p phase) {
	c.since.Store(int64(time.Since(c.ln.epoch)))
	c.phase.Store(int32(p))
}

func (c *conn) in(phases ...phase) bool {
	return slices.Contains(phases, phase(c.phase.Load()))
}

// waited is how long the connection has been in its phase.
func (c *conn) waited() time.Duration {
	return time.Since(c.ln.epoch) - time.Duration(c.since.Load())
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.TCPConn.Read(p)
		if n > 0 {
			if c.in(silent, idle) {
				c.enter(reading)
			}
			return n, err
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.stay() {
			return n, err
		}
	}
}

// SetReadDeadline keeps t, and moves the socket's own deadline only where that would
// pass too late: net/http sets six for each request, nearly all of which the next
// one replaces, and each costs the clock and a timer. A socket's that passes too
// early wakes Read, which looks at what is kept.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline, c.asked = t, ""
	switch {
	case t.IsZero() || !c.armed.IsZero() && !t.Before(c.armed):
		return nil
	case c.wakes(t):
		c.armed = time.Time{}
		return c.TCPConn.SetReadDeadline(t)
	}
	// That of an idle connection is far away, and that of the header to come is not.
	if early := time.Until(t) - c.ln.headerTimeout; early > 0 {
		t = t.Add(-early)
	}
	return c.arm(t)
}

// wakes says whether t is a deadline that net/http sets to wake its own reader,
// which it does after each request. It needs no look at the clock.
func (c *conn) wakes(t time.Time) bool { return t.Before(c.ln.epoch) }

func (c *conn) arm(t time.Time) error {
	c.armed = t
	return c.TCPConn.SetReadDeadline(t)
}

// SetDeadline is what net/http calls for a connection that a handler takes over.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

// The reasons to ask a connection to leave. Those of an eviction are labels of
// imagelab_connections_closed_total.
const (
	drained     = "drained"
	evicted     = "evicted"
	descriptors = "descriptors"
)

// leave asks a waiting connection to end, and says whether that is news to it.
// Closing it from outside would also close it on a request that has been read but
// not been seen to be: only the reader knows. So the reader is woken, and decides.
func (c *conn) leave(why string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked != "" {
		return false
	}
	c.asked, c.armed = why, time.Time{}
	_ = c.TCPConn.SetReadDeadline(time.Unix(1, 0))
	return true
}

// stay says whether a read deadline that has passed is to be ignored: it was not
// yet the server's, or it was leave's, and there is a request after all. The drain
// waits for the rest of one, an eviction does not.
func (c *conn) stay() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.asked == "":
		if d := c.deadline; !d.IsZero() && (c.wakes(d) || time.Until(d) <= 0) {
			return false
		}
	case (c.in(silent, idle) || c.in(reading) && c.asked != drained) && !c.hasInput():
		if c.asked != drained {
			c.ln.metrics.connsClosed.WithLabelValues(c.ln.name, c.asked).Inc()
		}
		return false
	default:
		c.asked = ""
		c.ln.answer()
	}
	return c.arm(c.deadline) == nil
}

// chunk is what one write deadline is for, in bytes.
const chunk = 64 << 10

// Write gives a client Config.WriteTimeout for each chunk. A deadline for the
// whole response would punish large ones, and one for none would let a client
// that reads a byte a minute hold its request for ever.
func (c *conn) Write(p []byte) (written int, err error) {
	for {
		n := min(len(p), chunk)
		m, err := c.writeChunk(p[:n])
		written += m
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

// writeChunk moves the socket's deadline only when it has passed: nearly every
// write is done at once, and needs none.
func (c *conn) writeChunk(p []byte) (written int, err error) {
	began := time.Since(c.ln.epoch)
	for {
		n, err := c.TCPConn.Write(p[written:])
		written += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		end := c.ln.epoch.Add(began + c.ln.writeTimeout)
		if time.Until(end) <= 0 {
			return written, err
		}
		_ = c.SetWriteDeadline(end)
	}
}

// ReadFrom is Write for files, which the kernel sends itself.
func (c *conn) ReadFrom(src io.Reader) (written int64, err error) {
	whole, limited := src.(*io.LimitedReader)
	if !limited {
		return io.Copy(struct{ io.Writer }{c}, src)
	}
	for whole.N > 0 {
		part := io.LimitedReader{R: whole.R, N: min(whole.N, chunk)}
		want := part.N
		_ = c.SetWriteDeadline(time.Now().Add(c.ln.writeTimeout))
		n, err := c.TCPConn.ReadFrom(&part)
		written += n
		whole.N -= n
		if err != nil || n < want {
			return written, err
		}
	}
	return written, nil
}

// CloseWrite is what net/http calls when it has sent its last answer to a client
// that may still be sending; it waits before it closes, so that the answer is not
// lost (RFC 9112, 9.6).
func (c *conn) CloseWrite() error {
	c.enter(lingering)
	return c.TCPConn.CloseWrite()
}

func (c *conn) Close() error {
	c.ln.forget(c)
	return c.TCPConn.Close()
}

// hasInput says whether bytes wait in the kernel that nobody has read: a request
// that the server does not know of yet (tcp(7), SIOCINQ).
func (c *conn) hasInput() bool {
	n := 0
	control(c.TCPConn, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCINQ) })
	return n > 0
}

// control runs f on the descriptor of c; a closed c runs nothing.
func control(c syscall.Conn, f func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// listener accepts connections, keeps their number below a cap, and can stop
// without losing what the kernel has queued (drain.go).
type listener struct {
	*net.TCPListener
	name          string
	log           *slog.Logger
	metrics       *metrics
	open          prometheus.Gauge
	epoch         time.Time
	maxConns      int           // 0 is no cap
	headerTimeout time.Duration // the shortest of the server's usual read deadlines
	writeTimeout  time.Duration
	answered      chan struct{} // a connection that was asked to leave has gone, or stays
	stopping      atomic.Int64  // 0, or the quiet time in nanoseconds after which Accept ends
	leaky         atomic.Bool   // new handshakes go on although it is stopping

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// appAddr is what the app listener binds.
func appAddr(cfg Config) string {
	return net.JoinHostPort(cfg.BindAddress, strconv.Itoa(cfg.Port))
}

func listen(ctx context.Context, name, addr string, log *slog.Logger, m *metrics) (*listener, error) {
	var lc net.ListenConfig
	// Go listens for Multipath TCP by default, and such a socket refuses the
	// filter that the drain needs.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		// "listen tcp :80: bind: permission denied" names what the caller says
		// better.
		return nil, probe.Reason(err)
	}
	return &listener{
		TCPListener: ln.(*net.TCPListener),
		name:        name,
		log:         log.With("server", name),
		metrics:     m,
		open:        m.conns.WithLabelValues(name),
		epoch:       time.Now(),
		answered:    make(chan struct{}, 1),
		conns:       make(map[*conn]struct{}),
	}, nil
}

// Accept waits for the next connection. What is temporary, above all a lack of
// descriptors, is counted, said once and tried again until it is over.
func (l *listener) Accept() (net.Conn, error) {
	var pause time.Duration
	for {
		if quiet := l.stopping.Load(); quiet > 0 {
			if l.leaky.Load() && l.queued() == 0 {
				return nil, errDrained
			}
			_ = l.SetDeadline(time.Now().Add(time.Duration(quiet)))
		}
		accepted, err := l.AcceptTCP()
		switch {
		case err == nil:
			if pause > 0 {
				l.log.Info("accepting connections again")
			}
			if c := l.admit(accepted); c != nil {
				return c, nil
			}
			pause = 0
		case errors.Is(err, os.ErrDeadlineExceeded):
			if l.stopping.Load() > 0 && l.queued() == 0 {
				return nil, errDrained
			}
		case temporary(err):
			l.metrics.acceptErrors.WithLabelValues(l.name).Inc()
			if pause == 0 {
				l.log.Error("cannot accept connections, trying again until it works", "err", probe.Reason(err))
			}
			pause = min(max(2*pause, 5*time.Millisecond), 500*time.Millisecond)
			if !l.evict(descriptors) {
				time.Sleep(pause)
			}
		default:
			return nil, err
		}
	}
}

// temporary lists what accept(2) says of one connection or of a lack of
// resources, not of the listener.
func temporary(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// admit takes a new connection in. At the cap the one that has waited longest
// makes room, so that clients that only sit there cannot keep others out; when
// every connection is being served, the new one is refused.
func (l *listener) admit(accepted *net.TCPConn) *conn {
	if !l.makeRoom() {
		l.metrics.connsClosed.WithLabelValues(l.name, "refused").Inc()
		_, _ = accepted.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
		accepted.Close()
		return nil
	}
	c := &conn{TCPConn: accepted, ln: l}
	_ = c.SetWriteDeadline(time.Now().Add(l.writeTimeout)) // for Write to find passed
	c.enter(silent)
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	l.open.Inc()
	return c
}

const (
	// settled is how long a connection must have waited before it may make room:
	// what it is waiting for until then may be this process.
	settled = 20 * time.Millisecond
	// settledSilent is that for one that has sent nothing yet. Its client may be
	// short of processor time, as a new one would be, so that closing it for the
	// new one wins nothing.
	settledSilent = 250 * time.Millisecond
	// roomPatience is how long a new connection waits for room. Those behind it
	// wait in the kernel's queue meanwhile.
	roomPatience = 2 * time.Second
)

// makeRoom says whether there is room below the cap, and waits for it.
func (l *listener) makeRoom() bool {
	for began := time.Now(); l.maxConns > 0 && l.count() >= l.maxConns && l.stopping.Load() == 0; {
		if l.evict(evicted) {
			continue
		}
		if time.Since(began) > roomPatience {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// evict asks a connection that waits to leave, gives it the time to answer, and
// says whether there was one. One that has its last answer comes first, one with
// half a header before an idle one, an idle one before one that has only come, and
// of these the one that has waited longest: under many slow clients that leaves a
// new one the time to speak.
func (l *listener) evict(why string) bool {
	order := map[phase]int{reading: 1, idle: 2, silent: 3}
	var waiting []*conn
	for _, c := range l.snapshot() {
		if c.in(lingering, reading, idle) && c.waited() >= settled || c.in(silent) && c.waited() >= settledSilent {
			waiting = append(waiting, c)
		}
	}
	slices.SortFunc(waiting, func(a, b *conn) int {
		return cmp.Or(cmp.Compare(order[phase(a.phase.Load())], order[phase(b.phase.Load())]), cmp.Compare(a.since.Load(), b.since.Load()))
	})
	for _, c := range waiting {
		if c.in(lingering) { // and nobody reads
			l.metrics.connsClosed.WithLabelValues(l.name, why).Inc()
			c.Close()
			return true
		}
		// A request that nobody has read yet waits for this process, not for its
		// client.
		if c.hasInput() {
			continue
		}
		select {
		case <-l.answered: // to an earlier question
		default:
		}
		if !c.leave(why) {
			continue
		}
		select {
		case <-l.answered:
		case <-time.After(settled):
		}
		return true
	}
	return false
}

// answer tells evict that a connection has gone or stays.
func (l *listener) answer() {
	select {
	case l.answered <- struct{}{}:
	default:
	}
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	_, known := l.conns[c]
	delete(l.conns, c)
	l.mu.Unlock()
	if known {
		l.open.Dec()
		l.answer()
	}
}

// count is the number of open connections.
func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// snapshot lists the open connections.
func (l *listener) snapshot() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		all = append(all, c)
	}
	return all
}

// connState is the server's ConnState hook.
func (l *listener) connState(nc net.Conn, s http.ConnState) {
	c := nc.(*conn)
	switch s {
	case http.StateActive:
		// Nobody asks how long a request has been served, and the clock is not
		// free.
		c.phase.Store(int32(active))
	case http.StateIdle:
		c.enter(idle)
	case http.StateHijacked:
		c.enter(hijacked)
	}
}
