package upstream

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// smallBuffer is what a connection has for headers, and keeps while it is idle. A larger
	// header has one of its own size, up to MaxHeader, and a body one of bigBuffer.
	smallBuffer = 4 << 10
	bigBuffer   = 32 << 10
	// MaxHeader bounds an answer's status line and header, in bytes, and its trailers.
	MaxHeader = 64 << 10
	// tick is how often a wait looks at what has happened besides.
	tick = time.Second
)

// Bodies have big buffers, in both directions, as long as there are. Slow clients hold theirs,
// and with hundreds of those they would be most of a small container's memory.
var (
	bigBuffers   = sync.Pool{New: func() any { b := make([]byte, bigBuffer); return &b }}
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	bigInUse     atomic.Int32
)

// mostBig is how many big buffers there are at most: 4 MiB.
const mostBig = 128

// takeBig returns a big buffer, or nil.
func takeBig() *[]byte {
	if bigInUse.Add(1) > mostBig {
		bigInUse.Add(-1)
		return nil
	}
	return bigBuffers.Get().(*[]byte)
}

func giveBig(b *[]byte) {
	bigBuffers.Put(b)
	bigInUse.Add(-1)
}

// conn is a connection, with what has come on it and was not read.
type conn struct {
	pool *Pool
	nc   net.Conn
	raw  syscall.RawConn

	small []byte  // of smallBuffer bytes
	big   *[]byte // of bigBuffers, while a body is read
	buf   []byte  // one of the two, or a larger one for a large header
	r, w  int     // buf[r:w] is unread
	out   []byte  // the request's header

	idleSince time.Time
	wakeAt    time.Time // the read deadline
	woken     atomic.Bool

	quiet bool          // what peek found
	look  func(uintptr) // peek, made once
	x     Exchange
}

func newConn(p *Pool, nc net.Conn) *conn {
	c := &conn{pool: p, nc: nc, small: make([]byte, smallBuffer)}
	c.buf, c.look = c.small, c.peek
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	return c
}

// isQuiet says whether the server has neither closed an idle connection nor sent something
// that nobody asked for.
func (c *conn) isQuiet() bool {
	c.quiet = false
	return c.raw.Control(c.look) == nil && c.quiet
}

func (c *conn) peek(fd uintptr) {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	c.quiet = err == syscall.EAGAIN
}

// arm sees to it that a read wakes up within the period, for onTick.
func (c *conn) arm(now time.Time, period time.Duration) {
	if left := c.wakeAt.Sub(now); left > period/2 && left <= period {
		return // the clock and the timer cost more than the rest of this
	}
	c.wakeAt = now.Add(period)
	_ = c.nc.SetReadDeadline(c.wakeAt)
}

// wake ends a read that waits, and the next.
func (c *conn) wake() {
	c.woken.Store(true)
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}

// fill waits for more. onTick is asked every now and then whether to go on waiting.
func (c *conn) fill(onTick func(now time.Time) (time.Duration, error)) error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.w == len(c.buf) {
		if c.r > 0 {
			c.w = copy(c.buf, c.buf[c.r:c.w])
			c.r = 0
		} else {
			c.grow(min(2*len(c.buf), MaxHeader+bigBuffer))
		}
	}
	for {
		n, err := c.nc.Read(c.buf[c.w:])
		if n > 0 {
			c.w += n
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		period, err := onTick(now)
		if err != nil {
			return err
		}
		c.wakeAt = now.Add(period)
		_ = c.nc.SetReadDeadline(c.wakeAt)
		if c.woken.Load() { // meanwhile, and the deadline was moved
			_ = c.nc.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// grow moves what is unread to a buffer of that size.
func (c *conn) grow(size int) {
	bigger := make([]byte, size)
	c.move(bigger)
	c.putBig()
}

// getBig moves what is unread to a buffer for bodies, if there is one.
func (c *conn) getBig() {
	if len(c.buf) >= bigBuffer {
		return
	}
	if b := takeBig(); b != nil {
		c.big = b
		c.move(*b)
	}
}

func (c *conn) move(to []byte) {
	c.w = copy(to, c.buf[c.r:c.w])
	c.r, c.buf = 0, to
}

func (c *conn) putBig() {
	if c.big != nil {
		giveBig(c.big)
		c.big = nil
	}
}

// rest makes a connection small, of which everything was read.
func (c *conn) rest() {
	c.putBig()
	c.buf, c.r, c.w = c.small, 0, 0
	if cap(c.out) > 2*smallBuffer {
		c.out = nil
	}
}
