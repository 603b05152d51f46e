package drain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Phase is what a connection is doing.
type Phase int32

// The phases of a connection. Silent, Reading, Active and Idle follow each other as
// requests come; Lingering and Hijacked are left only by the connection's end.
const (
	Silent    Phase = iota // accepted, nothing received yet
	Reading                // a part of a request's header has come
	Active                 // a request is being served
	Idle                   // kept alive, between requests
	Lingering              // the last answer is written; its client may not have it yet
	Hijacked               // taken over by a handler
	phases
)

func (p Phase) String() string {
	return [phases]string{"silent", "reading", "active", "idle", "lingering", "hijacked"}[p]
}

// conn is a connection that knows its phase. net/http reports only complete headers
// (ConnState), and a byte that has arrived makes the difference between an idle
// connection and a request.
type conn struct {
	*net.TCPConn
	ln         *Listener
	phase      atomic.Int32
	since      atomic.Int64 // when the phase began, in nanoseconds since ln.epoch
	over       atomic.Bool  // Close was called
	ahead      atomic.Bool  // a byte has come behind the request that is being served
	veiled     atomic.Bool  // something has come below TLS, and no request is known
	tail       [2]byte      // the last that was read
	plain      bool         // net/http reads it itself, with nothing such as TLS between
	expendable atomic.Bool  // the request that is being served is an onlooker's
	looks      int          // of the drain, which found the phase unchanged

	pipeline pipeline // the serving goroutine's own

	mu       sync.Mutex
	deadline time.Time // the server's read deadline
	armed    time.Time // the socket's own; zero if it has none, or one that has passed
	asked    reason    // why leave's read deadline is set instead
	sets     int       // of the read deadline, since the connection is idle
	writeBy  time.Time // the write deadline that somebody has set
}

func (c *conn) enter(p Phase) {
	c.since.Store(int64(time.Since(c.ln.epoch)))
	c.phase.Store(int32(p))
}

func (c *conn) current() Phase { return Phase(c.phase.Load()) }

func (c *conn) phaseIs(any ...Phase) bool { return slices.Contains(any, c.current()) }

// waited is how long the connection has been in its phase.
func (c *conn) waited() time.Duration {
	return time.Since(c.ln.epoch) - time.Duration(c.since.Load())
}

func (c *conn) Read(p []byte) (int, error) {
	c.beforeRead(len(p))
	for {
		n, err := c.TCPConn.Read(p)
		if n > 0 {
			c.afterRead(p[:n])
			return n, err
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.ignoreDeadline() {
			return n, err
		}
	}
}

// WriteTo keeps io.Copy from reading past Read.
func (c *conn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{c}) }

// beforeRead finds out whether net/http holds the beginning of a request: it asks for
// less than its buffer takes if there is something in it already. An empty line behind a
// body is not the beginning of one (RFC 9112, 2.2).
func (c *conn) beforeRead(room int) {
	if p := c.current(); !c.plain || p != Silent && p != Idle {
		return
	}
	held := c.pipeline.room - room
	if held > 0 && (held > len(c.tail) || !blank(c.tail[len(c.tail)-held:])) {
		c.enter(Reading)
		return
	}
	c.pipeline = pipeline{room: room + max(held, 0)}
}

// afterRead notes what has come. Below TLS nobody knows what it is before there is a
// request.
func (c *conn) afterRead(b []byte) {
	p := c.current()
	if p == Hijacked || p == Lingering {
		return
	}
	if n := copy(c.tail[:], b[max(0, len(b)-len(c.tail)):]); n < len(c.tail) {
		c.tail = [2]byte{c.tail[1], b[0]}
	}
	switch {
	case p == Active:
		// net/http waits for one byte behind a request, to see its client go.
		if len(b) == 1 {
			c.ahead.Store(true)
		}
		return
	case p == Silent && !c.plain:
		c.veiled.Store(true)
	case p == Silent, p == Idle && !blank(b):
		c.enter(Reading)
	}
	c.pipeline.add(b)
}

// blank says whether there is nothing but ends of lines in b.
func blank(b []byte) bool {
	for _, char := range b {
		if char != '\r' && char != '\n' {
			return false
		}
	}
	return true
}

// SetReadDeadline keeps t, and moves the socket's own deadline only where that would
// pass too late: net/http sets six for each request, nearly all of which the next one
// replaces, and each costs the clock and a timer. A socket's that passes too early
// wakes Read, which looks at what is kept.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline, c.asked = t, stays
	if c.phaseIs(Idle) {
		// The first is for the wait, the second for the header of a request whose
		// beginning net/http has found in its buffer.
		if c.sets++; c.sets == 2 {
			c.enter(Reading)
		}
	}
	switch {
	case t.IsZero() || !c.armed.IsZero() && !t.Before(c.armed):
		return nil
	case c.isWakeup(t):
		c.armed = time.Time{}
		return c.TCPConn.SetReadDeadline(t)
	}
	// That of an idle connection is far away, and that of the header to come is not.
	if early := time.Now().Add(headerWait); early.Before(t) {
		t = early
	}
	return c.arm(t)
}

// headerWait is how far ahead a socket's deadline is set at most: what servers
// usually allow for a header.
const headerWait = 5 * time.Second

// isWakeup says whether t is a deadline that net/http sets to wake its own reader,
// which it does after each request. It needs no look at the clock.
func (c *conn) isWakeup(t time.Time) bool { return t.Before(c.ln.epoch) }

func (c *conn) arm(t time.Time) error {
	c.armed = t
	return c.TCPConn.SetReadDeadline(t)
}

// SetWriteDeadline keeps t beside Options.WriteTimeout. net/http clears it after each
// request, which must not clear the socket's own: Write would wait for ever.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeBy = t
	if t.IsZero() {
		return nil
	}
	return c.TCPConn.SetWriteDeadline(t)
}

// writeEnd is when a write has to be done that may take until end.
func (c *conn) writeEnd(end time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writeBy.IsZero() && c.writeBy.Before(end) {
		return c.writeBy
	}
	return end
}

// SetDeadline is what net/http calls for a connection that a handler takes over.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

// A reason is why a connection is asked to leave.
type reason int

const (
	stays       reason = iota // it is not asked
	drained                   // the server stops
	evicted                   // the cap is reached
	descriptors               // there are no more descriptors
)

// leave asks a waiting connection to end, and says whether that is news to it. Closing
// it from outside would also close it on a request that has been read but not been seen
// to be: only the reader knows. So the reader is woken, and decides.
func (c *conn) leave(why reason) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked != stays {
		return false
	}
	c.asked, c.armed = why, time.Time{}
	_ = c.TCPConn.SetReadDeadline(time.Unix(1, 0))
	return true
}

// ignoreDeadline says whether a read deadline that has passed means nothing: it was
// not yet the server's, or it was leave's, and there is a request after all. The drain
// waits for the rest of one, an eviction does not.
func (c *conn) ignoreDeadline() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.asked == stays:
		if d := c.deadline; !d.IsZero() && (c.isWakeup(d) || time.Until(d) <= 0) {
			return false
		}
	case (c.phaseIs(Silent, Idle) || c.phaseIs(Reading) && c.asked != drained) && !unread(c.TCPConn):
		c.ln.left(c.asked)
		if c.phaseIs(Silent) && c.veiled.Load() {
			c.ln.veiled.Add(1)
		}
		return false
	default:
		c.asked = stays
		c.ln.evictionDone()
	}
	return c.arm(c.deadline) == nil
}

// chunk is what one write deadline is for, in bytes.
const chunk = 64 << 10

// Write gives a client Options.WriteTimeout for each chunk. A deadline for the whole
// response would punish large ones, and none would let a client that reads a byte a
// minute hold its request for ever.
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

// writeChunk moves the socket's deadline only when it has passed: nearly every write is
// done at once, and needs none.
func (c *conn) writeChunk(p []byte) (written int, err error) {
	began := time.Since(c.ln.epoch)
	for {
		n, err := c.TCPConn.Write(p[written:])
		written += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		end := c.writeEnd(c.ln.epoch.Add(began + c.ln.writeTimeout))
		if time.Until(end) <= 0 {
			return written, err
		}
		_ = c.TCPConn.SetWriteDeadline(end)
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
		_ = c.TCPConn.SetWriteDeadline(c.writeEnd(time.Now().Add(c.ln.writeTimeout)))
		n, err := c.TCPConn.ReadFrom(&part)
		written += n
		whole.N -= n
		if err != nil || n < want {
			return written, err
		}
	}
	return written, nil
}

// CloseWrite is what net/http calls when it has sent its last answer to a client that
// may still be sending; it waits before it closes, so that the answer is not lost
// (RFC 9112, 9.6).
func (c *conn) CloseWrite() error {
	c.enter(Lingering)
	return c.TCPConn.CloseWrite()
}

// Close ends the connection. During a drain it first waits until the client has what
// was sent: the process may end next, and its network namespace with it, and what the
// kernel still holds by then is lost.
func (c *conn) Close() error {
	if c.over.CompareAndSwap(false, true) && c.ln.draining.Load() {
		c.linger()
	}
	return c.end()
}

// end closes the descriptor.
func (c *conn) end() error {
	c.ln.forget(c)
	return c.TCPConn.Close()
}

const (
	// maxFINWait is how long a client without an answer to come may take to close.
	maxFINWait = time.Second
	// minFINWait is how long one gets at least: a proxy that ends TCP connections itself is
	// near, and its client may be far.
	minFINWait = 400 * time.Millisecond
)

// linger says FIN, and waits for the client's kernel to acknowledge it: then everything
// before it has arrived as well.
//
// A connection that was idle is waited for until its client has closed it, too: then
// whatever it sent before it knew has come. Not every client closes what it does not use,
// so that has an end, as has the wait for a FIN when everything else is acknowledged. An
// answer that is not gets the time that is left.
//
// What comes meanwhile, or is there, is a request that gets no answer, unless it may be
// the rest of a body: then net/http has called CloseWrite before.
func (c *conn) linger() {
	was := c.current()
	late := was == Active && c.more()
	if c.CloseWrite() != nil {
		return
	}
	waiting := was == Silent || was == Idle
	grace := max(minFINWait, min(distanceOf(tcpInfo(c.TCPConn)).idleGrace(), maxFINWait))
	scrap := make([]byte, 512)
	closed := was == Hijacked // by a handler that may be reading still
	pause := time.Millisecond
	for began := time.Now(); !c.ln.isCut(); pause = min(2*pause, 50*time.Millisecond) {
		if finAcknowledged(c.TCPConn) && (closed || !waiting) || unsent(c.TCPConn) <= 1 && time.Since(began) > grace {
			break
		}
		if closed {
			time.Sleep(pause) // it has nothing more to say, and may still be reading
			continue
		}
		_ = c.TCPConn.SetReadDeadline(time.Now().Add(pause))
		n, err := c.TCPConn.Read(scrap)
		late = late || n > 0
		closed = errors.Is(err, io.EOF)
		if err != nil && !closed && !errors.Is(err, os.ErrDeadlineExceeded) {
			break // it has gone
		}
	}
	// TLS has a word of its own for goodbye.
	if late && c.plain && (waiting || was == Active) {
		c.ln.late.Add(1)
	}
}

// ctxKey is the key of a request's connection in its context.
type ctxKey struct{}

// connOf is the connection that serves the request of ctx, or nil.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(ctxKey{}).(*conn)
	return c
}

// unwrap finds the connection below what a server wraps it in, such as *tls.Conn.
func unwrap(nc net.Conn) *conn {
	for {
		switch c := nc.(type) {
		case *conn:
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
}

// connState is the server's ConnState hook.
func connState(nc net.Conn, s http.ConnState) {
	c := unwrap(nc)
	if c == nil {
		return
	}
	switch s {
	case http.StateActive:
		c.expendable.Store(false) // which the last request was, until its answer has arrived
		c.veiled.Store(false)
		c.pipeline.begun++
		// Nobody asks how long a request has been served, and the clock is not free.
		c.phase.Store(int32(Active))
	case http.StateIdle:
		c.mu.Lock()
		c.sets = 0
		c.mu.Unlock()
		if c.ahead.Swap(false) {
			c.pipeline.after++
		}
		c.enter(Idle)
	case http.StateHijacked:
		c.enter(Hijacked)
	}
}

// more says whether a further request has come, or a part of one, behind the one that
// is being served, which has no body: behind a body it is not known.
func (c *conn) more() bool {
	return c.plain && (c.pipeline.behind() || c.ahead.Load() || unread(c.TCPConn))
}

// A pipeline counts the requests that net/http has been given, and those that it has
// begun: what is in its buffer it tells nobody. It counts empty lines, which end a
// request's header (RFC 9112, 2.1), and begins anew whenever the buffer is seen empty.
// Until then a body makes it useless, as that may hold empty lines, too.
type pipeline struct {
	room  int // bytes that net/http asks for when its buffer is empty
	ended int // headers that are complete
	begun int // requests that net/http has begun
	line  int // bytes of the line that is not complete
	after int // bytes since the last complete header

	blurred bool // bodies were counted as well
}

func (p *pipeline) add(b []byte) {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		p.after += i + 1
		if p.line+i <= 1 { // nothing but a carriage return
			p.ended++
			p.after = 0
		}
		p.line = 0
		b = b[i+1:]
	}
	p.line += len(b)
	p.after += len(b)
}

func (p *pipeline) behind() bool { return !p.blurred && (p.ended > p.begun || p.after > 0) }
