package drain

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what a listener is made with. The zero value has no bounds and reports
// to nobody.
type Options struct {
	// MaxConns is how many connections may be open at once; 0 is any number. At the
	// cap a connection that waits for its client makes room for a new one: one that is
	// idle, slow to send its request, or slow to read its answer. When there is none for
	// two seconds, new ones are answered 503 and closed. A connection that a handler has
	// taken over is never closed to make room.
	MaxConns int
	// Spare is how many connections are let in above MaxConns, so that a health check is
	// answered when every other connection is being served. A handler of anything else has
	// to ask Room first.
	Spare int
	// WriteTimeout is how long a client may take to accept 64 KiB of a response; 0 is
	// for ever. Use it in place of http.Server.WriteTimeout, which is for the whole.
	WriteTimeout time.Duration
	// Observe is told what happens to connections, by the goroutine to which it
	// happens: it may be called many times at once, and must not block. It may be nil.
	Observe func(Event)
}

// An Event is something that happened to a connection, or to the listener.
type Event struct {
	Kind Kind
	Err  error // of AcceptFailed
}

// A Kind is what happened.
type Kind int

const (
	Opened        Kind = iota // a connection was accepted
	Closed                    // a connection has ended
	Evicted                   // a waiting connection was closed to make room below the cap
	EvictedForFDs             // a waiting connection was closed for its descriptor
	Refused                   // a connection was answered 503, as all others were being served
	AcceptFailed              // accept(2) failed, and will be tried again; Err says why
	AcceptResumed             // accept(2) has worked for ten seconds
)

// A Listener accepts connections, keeps their number below a cap, and can stop without
// losing what the kernel has queued. It is for one Server.
type Listener struct {
	tcp          *net.TCPListener
	maxConns     int
	spare        int
	writeTimeout time.Duration
	observe      func(Event)
	epoch        time.Time
	family       uint8         // AF_INET, or AF_INET6 also for IPv4 if it listens for both
	proc         fs.FS         // what the kernel says of this process
	gone         chan struct{} // a connection that was asked to leave has gone, or stays

	draining atomic.Bool   // connections linger when they are closed
	shut     atomic.Bool   // new handshakes are kept out
	emptied  atomic.Bool   // Accept ends
	cut      chan struct{} // closed when nothing is waited for any more
	late     atomic.Int64  // requests that came on a connection that was closed for being idle
	veiled   atomic.Int64  // connections that were closed with TLS bytes that nobody could judge

	ending     context.Context // ends when streams have to
	endStreams context.CancelFunc

	cookies   cookieJar
	inherit   func()            // sets inherited, once
	inherited map[socketID]bool // undelivered answers of an earlier listener on this address

	failed    time.Time     // when accept(2) failed last, while that is news; Accept's own
	fullSince time.Time     // since when nobody could be let in; Accept's own
	pressed   atomic.Bool   // somebody waits to be let in
	refusals  atomic.Int64  // clients that are being told so
	evicting  sync.Mutex    // held while a connection is asked to make room
	wanting   atomic.Int64  // callers of RoomFor that wait
	turn      chan struct{} // has one in it while one of them is first
	nextLook  time.Duration // of displace, since epoch; with evicting held
	lastLook  bool          // what the last one has found; with evicting held

	mu    sync.Mutex
	conns map[*conn]struct{}
	above int // how many of them are above the cap
}

// Listen binds addr, as net.Listen does for "tcp". Errors are those of net.Listen.
func Listen(ctx context.Context, addr string, o Options) (*Listener, error) {
	var lc net.ListenConfig
	// Go listens for Multipath TCP by default, and such a socket refuses what keeps
	// new handshakes out.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	l := &Listener{
		tcp:          ln.(*net.TCPListener),
		maxConns:     o.MaxConns,
		spare:        o.Spare,
		writeTimeout: o.WriteTimeout,
		observe:      o.Observe,
		epoch:        time.Now(),
		turn:         make(chan struct{}, 1),
		proc:         os.DirFS("/proc/self"),
		gone:         make(chan struct{}, 1),
		cut:          make(chan struct{}),
		conns:        make(map[*conn]struct{}),
	}
	if l.writeTimeout <= 0 {
		l.writeTimeout = 1 << 62 // more than a process lives
	}
	control(l.tcp, func(fd int) {
		family, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		l.family = uint8(family)
	})
	l.ending, l.endStreams = context.WithCancel(context.Background())
	l.inherit = sync.OnceFunc(func() {
		l.cookies.look(l.proc, time.Now())
		if found, err := takeCensus(l.proc, l.family, l.addr()); err == nil {
			l.inherited = found.undelivered
		}
	})
	time.AfterFunc(startWait, l.inherit)
	return l, nil
}

// startWait is how long the processor is left to the rest of the start, unless a connection
// comes, before the kernel is asked for what it takes a millisecond to answer.
const startWait = 100 * time.Millisecond

// addr is Addr.
func (l *Listener) addr() *net.TCPAddr { return l.tcp.Addr().(*net.TCPAddr) }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Close closes the listener at once, and with it what the kernel has queued.
// Server.Shutdown closes it without that.
func (l *Listener) Close() error { return l.tcp.Close() }

// errEmptied is what Accept returns when no connection can come any more.
var errEmptied = errors.New("drain: listener emptied")

// Accept waits for the next connection. What is temporary, above all a lack of
// descriptors, is reported and tried again until it is over.
func (l *Listener) Accept() (net.Conn, error) {
	var pause time.Duration
	for {
		if l.emptied.Load() {
			return nil, errEmptied
		}
		accepted, err := l.tcp.AcceptTCP()
		switch {
		case err == nil:
			if !l.failed.IsZero() && time.Since(l.failed) > resumed {
				l.failed = time.Time{}
				l.observe(Event{Kind: AcceptResumed})
			}
			if c := l.admit(accepted); c != nil {
				return c, nil
			}
			pause = 0
		case errors.Is(err, os.ErrDeadlineExceeded): // empty's, who has something to say
		case temporary(err):
			l.failed = time.Now()
			l.observe(Event{AcceptFailed, err})
			pause = longer(pause)
			if !l.evict(descriptors) {
				time.Sleep(pause)
			}
		default:
			return nil, err
		}
	}
}

// longer is how long to wait for descriptors after a pause that has not helped.
func longer(pause time.Duration) time.Duration {
	return min(max(2*pause, 5*time.Millisecond), 500*time.Millisecond)
}

// resumed is how long nothing must have failed for accept(2) to work again. While there
// are too few descriptors it fails and works in turn, as often as clients like.
const resumed = 10 * time.Second

// empty ends Accept. The kernel's queue has to be empty, and stay so.
func (l *Listener) empty() {
	l.emptied.Store(true)
	_ = l.tcp.SetDeadline(time.Unix(1, 0)) // wakes the Accept that waits
}

// temporary lists what accept(2) says of one connection or of a lack of resources, not
// of the listener.
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

// admit takes a new connection in, or refuses it.
func (l *Listener) admit(accepted *net.TCPConn) *conn {
	above, ok := l.makeRoom()
	if !ok {
		l.refuse(accepted)
		return nil
	}
	l.inherit() // before there can be answers of its own
	c := &conn{TCPConn: accepted, ln: l}
	c.above.Store(above)
	_ = c.TCPConn.SetWriteDeadline(time.Now().Add(min(glance, l.writeTimeout)))
	c.enter(Silent)
	l.mu.Lock()
	l.conns[c] = struct{}{}
	if above {
		l.above++
	}
	l.mu.Unlock()
	l.observe(Event{Kind: Opened})
	if time.Since(l.epoch) > startWait {
		l.cookies.look(l.proc, time.Now())
	}
	return c
}

const (
	// maxRefusals is how many refused clients are heard out at once, each for
	// refusalWait. The answer of one that is not may be lost to a reset.
	maxRefusals = 32
	refusalWait = time.Second
)

// refuse tells a client that there is no room. Its request may be on its way.
func (l *Listener) refuse(accepted *net.TCPConn) {
	l.observe(Event{Kind: Refused})
	_, _ = accepted.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	if l.refusals.Add(1) > maxRefusals {
		l.refusals.Add(-1)
		accepted.Close()
		return
	}
	go func() {
		defer l.refusals.Add(-1)
		defer accepted.Close()
		_ = accepted.CloseWrite()
		_ = accepted.SetReadDeadline(time.Now().Add(refusalWait))
		_, _ = io.Copy(io.Discard, accepted)
	}()
}

const (
	// settled is how long a connection must have waited before it may make room: what
	// it is waiting for until then may be this process.
	settled = 20 * time.Millisecond
	// settledSilent is that for one that has sent nothing yet. Its client may be short
	// of processor time, as a new one would be, so that closing it for the new one wins
	// nothing.
	settledSilent = 250 * time.Millisecond
	// settledSlow is that for one whose client does not read its answer, or does not send its
	// body: a network may do that as well.
	settledSlow = 500 * time.Millisecond
	// roomPatience is how long a new connection waits for room. Those behind it wait in
	// the kernel's queue meanwhile.
	roomPatience = 2 * time.Second
	// pressedPatience is how long a request above the cap waits while others are not even
	// let in: one of them may be a health check.
	pressedPatience = 250 * time.Millisecond
)

// makeRoom says whether a new connection may come in, and whether that is above the cap.
// It waits for room, once for all that come while there is none.
func (l *Listener) makeRoom() (above, ok bool) {
	for l.maxConns > 0 && l.count() >= l.maxConns && !l.shut.Load() {
		if l.evict(evicted) {
			continue
		}
		if l.count() < l.maxConns+l.spare && !l.someoneWillYield() {
			above = true
			break
		}
		if l.fullSince.IsZero() {
			l.fullSince = time.Now()
		}
		l.pressed.Store(true)
		if time.Since(l.fullSince) > roomPatience {
			return false, false
		}
		time.Sleep(time.Millisecond)
	}
	l.fullSince = time.Time{}
	l.pressed.Store(false)
	return above, true
}

// someoneWillYield says whether a connection without a request waits for its client,
// although not for long enough yet. One whose client has sent something waits for this
// process.
func (l *Listener) someoneWillYield() bool {
	return slices.ContainsFunc(l.snapshot(), func(c *conn) bool {
		return c.phaseIs(Lingering) || c.phaseIs(Silent, Reading, Idle) && !unread(c.TCPConn)
	})
}

// Room says whether the connection of ctx is below Options.MaxConns, and waits up to two
// seconds for that, or less if others wait outside. If not, the request should be answered
// 503. Only a connection that Options.Spare has let in can be above.
func Room(ctx context.Context) bool {
	c := connOf(ctx)
	if c == nil || !c.above.Load() {
		return true
	}
	for began := time.Now(); !c.ln.takeIn(c); {
		if c.ln.evict(evicted) {
			continue
		}
		most := roomPatience
		if c.ln.pressed.Load() {
			most = pressedPatience
		}
		if ctx.Err() != nil || time.Since(began) > most {
			c.ln.observe(Event{Kind: Refused})
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// RoomFor is for a cap of the server's own, such as one of requests: it says whether take
// has said that the request of ctx may go on. While it says no, requests that have waited
// longest for their own clients, to read their answers or to send their bodies, are ended to
// make room, as at Options.MaxConns. It waits up to two seconds for that, and not at all while
// every request waits for its handler.
func RoomFor(ctx context.Context, take func() bool) bool {
	c := connOf(ctx)
	if c == nil {
		return take()
	}
	l := c.ln
	if l.wanting.Load() == 0 && take() {
		return true
	}
	l.wanting.Add(1)
	defer l.wanting.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, roomPatience)
	defer cancel()
	// They go in the order in which they came, as a channel has it.
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return false
	}
	for !take() {
		if ctx.Err() != nil || l.draining.Load() || !l.displace() {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// displaceEvery is how often slow clients are looked for: in it, one that was ended leaves.
const displaceEvery = 10 * time.Millisecond

// displace ends requests that have waited longest for their own clients, if they have waited
// for long enough: as many as there are callers of RoomFor. It says whether there are any that
// wait. All callers share one look, so that those who are refused at overload cost little.
func (l *Listener) displace() (some bool) {
	l.evicting.Lock()
	defer l.evicting.Unlock()
	now := time.Since(l.epoch)
	if now < l.nextLook {
		return l.lastLook
	}
	var slow []waiter
	for _, c := range l.snapshot() {
		if !c.phaseIs(Active) {
			continue
		}
		some = some || c.stall.isOn() || c.awaiting.Load() != 0 || c.answered.Load() && unsent(c.TCPConn) > 0
		if order, since := c.yields(now); order != stay {
			slow = append(slow, waiter{c, order, since})
		}
	}
	slices.SortFunc(slow, func(a, b waiter) int { return cmp.Compare(a.since, b.since) })
	for _, c := range slow[:min(len(slow), int(l.wanting.Load()))] {
		l.left(evicted)
		_ = c.reset()
	}
	took := time.Since(l.epoch) - now
	l.nextLook, l.lastLook = now+max(displaceEvery, 4*took), some
	return some
}

// takeIn says whether c is below the cap, and moves it there if there is room.
func (l *Listener) takeIn(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.above.Load() && len(l.conns)-l.above < l.maxConns {
		c.above.Store(false)
		l.above--
	}
	return !c.above.Load()
}

// A waiter is a connection that yields.
type waiter struct {
	*conn
	order int
	since time.Duration
}

// evict asks a connection that waits for its client to leave, gives it the time to answer,
// and says whether there was one.
func (l *Listener) evict(why reason) bool {
	l.evicting.Lock()
	defer l.evicting.Unlock()
	var waiting []waiter
	now := time.Since(l.epoch)
	for _, c := range l.snapshot() {
		if order, since := c.yields(now); order != stay {
			waiting = append(waiting, waiter{c, order, since})
		}
	}
	slices.SortFunc(waiting, func(a, b waiter) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.since, b.since))
	})
	for _, c := range waiting {
		switch c.order {
		case hasAnswer:
			l.left(why)
			_ = c.end()
			return true
		case slowToRead, slowToSend:
			if l.someoneWillYield() { // who has no request, and goes first
				return false
			}
			l.left(why)
			_ = c.reset()
			return true
		}
		// A request that nobody has read yet waits for this process, not for its client.
		if unread(c.TCPConn) {
			continue
		}
		select {
		case <-l.gone: // an earlier one
		default:
		}
		if !c.leave(why) {
			continue
		}
		select {
		case <-l.gone:
		case <-time.After(settled):
		}
		return true
	}
	return false
}

// The order in which connections make room. Under many slow clients a new one is left the
// time to speak.
const (
	stay       = iota // it does not wait for its client
	hasAnswer         // it has its last answer
	slowHeader        // a part of a header has come
	idle              // between requests
	silent            // nothing has come yet
	slowToRead        // its client does not read the answer
	slowToSend        // its client does not send the body
)

// yields says in which order the connection makes room, and since when it waits. Of
// those with the same order the one that has waited longest is first.
func (c *conn) yields(now time.Duration) (order int, since time.Duration) {
	since = time.Duration(c.since.Load())
	least := settled
	switch c.current() {
	case Lingering:
		order = hasAnswer
	case Reading:
		order = slowHeader
	case Idle:
		order = idle
	case Silent:
		order, least = silent, settledSilent
	case Active:
		if since = time.Duration(c.stall.since.Load()); since != 0 && now-since >= settledSlow && unsent(c.TCPConn) > 0 {
			return slowToRead, since
		}
		if since = time.Duration(c.awaiting.Load()); since != 0 {
			order, least = slowToSend, settledSlow
		}
	}
	if now-since < least {
		return stay, 0
	}
	return order, since
}

// left reports that a connection leaves because it was asked to.
func (l *Listener) left(why reason) {
	switch why {
	case evicted:
		l.observe(Event{Kind: Evicted})
	case descriptors:
		l.observe(Event{Kind: EvictedForFDs})
	}
}

// evictionDone tells evict that a connection has gone or stays.
func (l *Listener) evictionDone() {
	select {
	case l.gone <- struct{}{}:
	default:
	}
}

func (l *Listener) forget(c *conn) {
	l.mu.Lock()
	_, known := l.conns[c]
	delete(l.conns, c)
	if known && c.above.Load() {
		l.above--
	}
	l.mu.Unlock()
	if known {
		l.observe(Event{Kind: Closed})
		l.evictionDone()
	}
}

// count is the number of open connections.
func (l *Listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// snapshot lists the open connections.
func (l *Listener) snapshot() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		all = append(all, c)
	}
	return all
}

// isCut says whether what is left is to be closed without waiting.
func (l *Listener) isCut() bool {
	select {
	case <-l.cut:
		return true
	default:
		return false
	}
}
