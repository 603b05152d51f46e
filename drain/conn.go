package drain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
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
	ln          *Listener
	phase       atomic.Int32
	since       atomic.Int64 // when the phase began, in nanoseconds since ln.epoch
	over        atomic.Bool  // Close was called
	ahead       atomic.Bool  // a byte has come behind the request that is being served
	veiled      atomic.Bool  // something has come below TLS, and no request is known
	above       atomic.Bool  // it was let in above the cap; set with ln.mu held
	tail        [2]byte      // the last that was read
	plain       bool         // net/http reads it itself, with nothing such as TLS between
	followed    bool         // the request came before the answer to the last was written
	expendable  atomic.Bool  // the request that is being served is an onlooker's
	mayHaveBody atomic.Bool  // the request that is being served has one, or nobody knows
	broken      atomic.Bool  // a write has failed
	answered    atomic.Bool  // something was written for the request that is being served, or read
	awaiting    atomic.Int64 // since when a handler waits for more of a body, as stall.since, less the times between
	stall       stall
	body        bodyWait
	looks       int // of the drain, which found the phase unchanged

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

func (c *conn) Read(p []byte) (n int, err error) {
	c.beforeRead(len(p))
	switch {
	case !c.phaseIs(Active):
		c.body = bodyWait{}
	case len(p) > 1: // a single byte net/http reads while a handler runs, to see its client go
		began := time.Since(c.ln.epoch)
		c.awaiting.Store(int64(max(1, began-c.body.waited)))
		defer func() {
			c.awaiting.Store(0)
			c.body.add(n, time.Since(c.ln.epoch)-began)
		}()
	}
	for {
		n, err = c.TCPConn.Read(p)
		if n > 0 {
			c.afterRead(p[:n])
			return n, err
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.ignoreDeadline() {
			return n, err
		}
	}
}

// A bodyWait is how long handlers have waited for a request's body, since its beginning or
// since it last had brought a chunk: a client that sends a byte now and then is not served
// by that.
type bodyWait struct {
	waited time.Duration
	came   int // bytes
}

func (b *bodyWait) add(n int, waited time.Duration) {
	if b.came += n; b.came >= chunk {
		*b = bodyWait{}
		return
	}
	b.waited += waited
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
	held := max(0, c.pipeline.room-room)
	if held > len(c.tail) || !blank(c.tail[len(c.tail)-held:]) {
		// A single byte, such as net/http reads to see its client go, is the first of a
		// request: what was in the buffer before does not matter any more.
		if held == 1 {
			c.pipeline = pipeline{room: c.pipeline.room, line: 1, after: 1}
		}
		c.enter(Reading)
		return
	}
	c.pipeline = pipeline{room: room + held}
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
		} else {
			c.pipeline.unseen = true
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
			c.followed = true
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

// chunk is what a client has to accept within Options.WriteTimeout, in bytes.
const chunk = 64 << 10

// Write gives a client Options.WriteTimeout for each chunk. A deadline for the whole
// response would punish large ones, and none would let a client that reads a byte a
// minute hold its request for ever.
func (c *conn) Write(p []byte) (written int, err error) {
	if !c.answered.Load() {
		c.answered.Store(true)
	}
	for {
		n := min(len(p), chunk)
		m, err := c.writeChunk(p[:n])
		written += m
		if err != nil {
			c.broken.Store(true)
			return written, err
		}
		if p = p[n:]; len(p) == 0 {
			return written, nil
		}
	}
}

// glance is how often a write looks whether its client reads.
const glance = 250 * time.Millisecond

// writeChunk moves the socket's deadline only when it has passed: nearly every write is
// done at once, and needs none.
func (c *conn) writeChunk(p []byte) (written int, err error) {
	began := time.Since(c.ln.epoch)
	for {
		n, err := c.TCPConn.Write(p[written:])
		written += n
		c.stall.take(n)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.mayGoOn(began, time.Since(c.ln.epoch)) {
			return written, err
		}
	}
}

// A stall is a time in which the client does not read as fast as it is written to. It goes
// on over all answers of the connection: a client that sends requests, and now and then
// takes a byte of the answers, gets no new deadline with each.
type stall struct {
	since atomic.Int64 // in nanoseconds since Listener.epoch; 0 is none
	taken atomic.Int64 // bytes that the client has taken since then
}

func (s *stall) begin(at time.Duration) {
	s.taken.Store(0)
	s.since.Store(int64(at))
}

func (s *stall) end() { s.since.Store(0) }

func (s *stall) isOn() bool { return s.since.Load() != 0 }

// take notes that the client has taken n more bytes.
func (s *stall) take(n int) {
	if s.isOn() {
		s.taken.Add(int64(n))
	}
}

// mayGoOn is what a write whose deadline has passed asks: whether its client may have more
// time. It began at that time since the listener's epoch, as now is.
func (c *conn) mayGoOn(began, now time.Duration) bool {
	blocked := now-began > time.Millisecond // if not, it was an earlier write's deadline
	switch {
	case c.stall.isOn() && unsent(c.TCPConn) == 0: // it has everything
		c.stall.end()
	case blocked && !c.stall.isOn():
		c.stall.begin(began)
	case blocked && c.stall.taken.Load() >= chunk:
		c.stall.begin(now)
	}
	left := c.ln.writeTimeout
	if c.stall.isOn() {
		left -= now - time.Duration(c.stall.since.Load())
	}
	if by := c.theirDeadline(); !by.IsZero() {
		left = min(left, time.Until(by))
		blocked = blocked || left <= 0
	}
	if left <= 0 && blocked {
		return false
	}
	return c.TCPConn.SetWriteDeadline(time.Now().Add(max(time.Millisecond, min(left, glance)))) == nil
}

// backlog is how much of a client's answers may wait in this kernel, in bytes, when the
// next one is begun.
const backlog = 16 << 10

// awaitReader is for a pipelined request (RFC 9112, 9.3.2): it takes its turn with other
// connections, and waits until the client has read what came before. One that never reads
// would else be served until the kernel's buffers are full. Those are megabytes, and with a
// thousand such connections nobody else gets the processor for half a minute. The client has
// the time that a write would give it.
func (c *conn) awaitReader() {
	runtime.Gosched()
	left, began, late := unsent(c.TCPConn), time.Since(c.ln.epoch), false
	for pause := time.Millisecond; unstarted(c.TCPConn) > backlog && !c.ln.draining.Load(); {
		now := time.Since(c.ln.epoch)
		if u := unsent(c.TCPConn); u <= left-chunk {
			left, began = u, now
		}
		if now-began > c.ln.writeTimeout {
			c.broken.Store(true)
			_ = c.reset()
			return
		}
		if !late && !c.stall.isOn() {
			c.stall.begin(began)
		}
		late = true
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
	if late {
		c.stall.end()
	}
}

// theirDeadline is the write deadline that somebody has set, or zero.
func (c *conn) theirDeadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeBy
}

// ReadFrom is Write for files, which the kernel sends itself. Any other source may be slow
// where the client is not.
func (c *conn) ReadFrom(src io.Reader) (written int64, err error) {
	whole, limited := src.(*io.LimitedReader)
	if !limited || !isFile(whole.R) {
		return io.Copy(struct{ io.Writer }{c}, src)
	}
	c.answered.Store(true)
	for whole.N > 0 {
		part := io.LimitedReader{R: whole.R, N: min(whole.N, chunk)}
		want := part.N
		now := time.Now()
		first := c.stall.since.CompareAndSwap(0, int64(now.Sub(c.ln.epoch)))
		end := now.Add(c.ln.writeTimeout)
		if by := c.theirDeadline(); !by.IsZero() && by.Before(end) {
			end = by
		}
		_ = c.TCPConn.SetWriteDeadline(end)
		n, err := c.TCPConn.ReadFrom(&part)
		written += n
		whole.N -= n
		if err != nil {
			c.broken.Store(true)
		}
		if err != nil || n < want {
			return written, err
		}
		if first || n == chunk {
			c.stall.end()
		}
	}
	return written, nil
}

// isFile says whether src is a file, and not a pipe or a terminal.
func isFile(src io.Reader) bool {
	f, ok := src.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// CloseWrite is what net/http calls when it has sent its last answer to a client that is
// still sending. It then sleeps for half a second and closes, which resets the connection
// under whoever goes on: so the wait is here. For a handler that has taken the connection
// over it means what it means elsewhere.
func (c *conn) CloseWrite() error {
	if c.phaseIs(Hijacked) {
		return c.TCPConn.CloseWrite()
	}
	c.linger()
	return nil
}

// Close ends the connection. A client that may still be sending is heard out, so that it
// is not reset before it has read its answer (RFC 9112, 9.6): its request was refused
// before its end, or understood by nobody.
//
// During a drain every client is waited for until it has what was sent: the process may
// end next, and its network namespace with it, and what the kernel still holds by then is
// lost.
func (c *conn) Close() error {
	if c.over.CompareAndSwap(false, true) {
		switch {
		case c.broken.Load(): // then net/http closes it while its own reader goes on
			return c.reset()
		case c.ln.draining.Load(), c.isSending():
			c.linger()
		}
	}
	return c.end()
}

// reset closes the descriptor, and the kernel forgets what its client has not read: half
// an answer, which is not to look like a whole one.
func (c *conn) reset() error {
	_ = c.TCPConn.SetLinger(0)
	return c.end()
}

// isSending says whether the client may be sending still, although it has its answer.
func (c *conn) isSending() bool {
	switch c.current() {
	case Reading:
		return c.answered.Load()
	case Active:
		return c.answered.Load() && (c.mayHaveBody.Load() || unread(c.TCPConn))
	}
	return false
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

	// A client that sends more of what is not wanted is heard for lingerTime if it never
	// pauses for longer than lingerSilence: nginx's lingering_time and lingering_timeout.
	// lingerBytes is what a gigabit link carries in a third of that time.
	lingerTime    = 30 * time.Second
	lingerSilence = 5 * time.Second
	lingerBytes   = 1 << 30
	// lingerInDrain is for those whose answer is acknowledged.
	lingerInDrain = 2 * time.Second
)

// linger says FIN, and reads on and forgets what it reads. A client that may be sending is
// heard until it closes, within bounds.
//
// During a drain it waits for the client's kernel to acknowledge the FIN: then everything
// before it has arrived as well. A connection that was idle is waited for until its client
// has closed it, too: then whatever it sent before it knew has come. Not every client
// closes what it does not use, so that has an end, as has the wait for a FIN when
// everything else is acknowledged. An answer that is not gets the time that is left.
//
// What comes during a drain, or is there, is a request that gets no answer, unless it may
// be the rest of a body.
func (c *conn) linger() {
	was, sending := c.current(), c.isSending()
	waiting := was == Silent || was == Idle
	// TLS has a word of its own for goodbye.
	judged := c.ln.draining.Load() && c.plain && (waiting || was == Active && !c.mayHaveBody.Load())
	late := was == Active && c.more()
	c.enter(Lingering)
	if c.TCPConn.CloseWrite() != nil {
		return
	}
	now := time.Now()
	w := lastWords{
		idle: waiting, sending: sending,
		closed: was == Hijacked, // by a handler that may be reading still
		grace:  max(minFINWait, min(distanceOf(tcpInfo(c.TCPConn)).idleGrace(), maxFINWait)),
		began:  now, heard: now,
	}
	scrap := make([]byte, 4<<10)
	pause := time.Millisecond
	for !c.ln.isCut() {
		if now := time.Now(); c.ln.draining.Load() {
			if w.haveArrived(now, finAcknowledged(c.TCPConn), unsent(c.TCPConn)) {
				break
			}
			pause = min(2*pause, 50*time.Millisecond)
		} else {
			if w.areEnough(now) {
				break
			}
			pause = 500 * time.Millisecond
		}
		if w.closed {
			time.Sleep(pause) // it has nothing more to say, and may still be reading
			continue
		}
		_ = c.TCPConn.SetReadDeadline(time.Now().Add(pause))
		n, err := c.TCPConn.Read(scrap)
		if n > 0 {
			late, w.heard, w.size = true, time.Now(), w.size+n
		}
		w.closed = errors.Is(err, io.EOF)
		if err != nil && !w.closed && !errors.Is(err, os.ErrDeadlineExceeded) {
			break // it has gone
		}
	}
	if late && judged {
		c.ln.late.Add(1)
	}
}

// lastWords are what is known of a client that has its last answer, or is to get it.
type lastWords struct {
	idle    bool // its connection waited for a request
	sending bool // it may be sending still
	closed  bool // it sends no more
	grace   time.Duration
	began   time.Time // when the FIN was sent
	heard   time.Time // when something came last, or began
	size    int       // of what has come since then, in bytes
}

// areEnough says whether the client was heard for long enough.
func (w *lastWords) areEnough(now time.Time) bool {
	return w.closed || now.Sub(w.heard) > lingerSilence || now.Sub(w.began) > lingerTime || w.size > lingerBytes
}

// haveArrived says the same during a drain, by whether the FIN is acknowledged, and how
// many bytes are not.
func (w *lastWords) haveArrived(now time.Time, acknowledged bool, unsent int) bool {
	quiet := w.closed || now.Sub(w.heard) > w.grace || now.Sub(w.began) > lingerInDrain || !w.sending
	if acknowledged && (w.closed || !w.idle && quiet) {
		return true
	}
	return unsent <= 1 && now.Sub(w.began) > w.grace && quiet
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
		c.mayHaveBody.Store(true) // which the handler knows
		c.expendable.Store(false) // which the last request was, until its answer has arrived
		c.veiled.Store(false)
		c.pipeline.begun++
		// Nobody asks how long a request has been served, and the clock is not free.
		c.phase.Store(int32(Active))
		if c.followed {
			c.awaitReader()
		}
	case http.StateIdle:
		c.mu.Lock()
		c.sets = 0
		c.mu.Unlock()
		if c.followed = c.ahead.Swap(false); c.followed {
			c.pipeline.after++
		}
		c.answered.Store(false)
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
	unseen  bool // something was not looked at

	name   [maxName]byte // how the line that is not complete begins
	length bool          // the header that is not complete has Content-Length
	coding bool          // and Transfer-Encoding
	coded  int           // the number of the first header that has the latter
	twice  int           // and of the first that has both
}

func (p *pipeline) add(b []byte) {
	for {
		if p.line < maxName {
			copy(p.name[p.line:], b)
		}
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		p.after += i + 1
		switch p.line += i; {
		case p.line <= 1: // nothing but a carriage return
			p.endHeader()
		case begins(p.name[:min(p.line, maxName)], "content-length:"):
			p.length = true
		case begins(p.name[:min(p.line, maxName)], "transfer-encoding:"):
			p.coding = true
		}
		p.line = 0
		b = b[i+1:]
	}
	p.line += len(b)
	p.after += len(b)
}

// maxName is the length of the longest name that matters, with its colon.
const maxName = len("transfer-encoding:")

func begins(line []byte, name string) bool {
	return len(line) >= len(name) && strings.EqualFold(string(line[:len(name)]), name)
}

func (p *pipeline) endHeader() {
	p.ended++
	p.after = 0
	if p.coding && p.coded == 0 {
		p.coded = p.ended
	}
	if p.coding && p.length && p.twice == 0 {
		p.twice = p.ended
	}
	p.length, p.coding = false, false
}

func (p *pipeline) behind() bool { return !p.blurred && (p.ended > p.begun || p.after > 0) }

// isDoubtful says whether another server may see another end of the request: its
// connection has to be closed after it (RFC 9112, 6.1). net/http does not tell: it takes
// Content-Length out of a header that has Transfer-Encoding as well, and the latter out of
// a request of HTTP/1.0. Where the header cannot be told from others, or was not seen, the
// answer is yes.
func (p *pipeline) isDoubtful(r *http.Request) bool {
	chunked := len(r.TransferEncoding) > 0
	if p.blurred || p.unseen {
		return p.twice > 0 && chunked || !r.ProtoAtLeast(1, 1) && p.coded > 0 || p.unseen && (chunked || !r.ProtoAtLeast(1, 1))
	}
	return p.twice == p.begun || !r.ProtoAtLeast(1, 1) && p.coded == p.begun
}
