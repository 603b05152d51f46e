package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// A Request is what is sent. Its texts are sent byte for byte: whoever makes it answers for
// there being no CR, LF or NUL in them, as net/http's server does for a request that it has
// read.
type Request struct {
	Method string
	Target string // such as a path and a query
	Host   string
	// Header are the fields that are sent, except those that are made from the rest of the
	// Request, or are about this connection: Host, Connection, Keep-Alive, Proxy-Connection,
	// TE, Trailer, Transfer-Encoding, Upgrade, Content-Length and Expect.
	Header http.Header
	// Upgrade is the protocol that is asked for, or empty.
	Upgrade string
	// TakesTrailers says that trailers are welcome (TE).
	TakesTrailers bool

	// Body is sent by a goroutine of its own, which reads it until Close at the latest. It may
	// be nil.
	Body io.Reader
	// Length is that of Body in bytes, or -1 if it is not known.
	Length int64
	// States says that a body of no bytes has its length stated, too.
	States bool
	// Trailer returns the trailers of a Body without a length: in Begin those that are
	// announced, and with their values when Body has ended. It may be nil.
	Trailer func() http.Header
	// Expects100 says that Body waits for SendBody.
	Expects100 bool
	// UnblockBody ends a Read of Body that waits, and the next. It is called by Close if Body
	// is not wanted to its end.
	UnblockBody func()

	// Once says that it cannot be sent again, should the server close a kept connection as it
	// comes: so it has one of its own, which is not kept.
	Once bool

	// Watch is asked every second while the server is waited for: an error ends the wait. It
	// may be nil.
	Watch func() error
	// BeforeWait is called before Next waits, if it has returned something since. It may be
	// nil.
	BeforeWait func()
}

// An Exchange is a request and its answer. Its methods are for one goroutine.
type Exchange struct {
	c       *conn
	req     *Request
	reused  bool
	began   time.Time // when the request's header was sent
	partial bool      // a byte of an answer has come

	// Of the request's body.
	send      chan struct{} // closed when the goroutine that sends it has ended; nil if there is none
	expecting bool          // nobody has asked for it yet
	allRead   atomic.Bool   // Body has ended
	reading   atomic.Bool   // Body is being read
	moved     atomic.Int64  // when the server took something last, in nanoseconds since began
	sendErr   error         // of the server's side; for those who wait for send
	bodyErr   atomic.Pointer[error]

	// Of the answer.
	framing   framing
	left      int64 // bytes of the body, or of its chunk
	inChunk   bool  // a chunk's end has to come
	full      bool  // the last read has filled the buffer
	done      bool  // the answer was read to its end
	keep      bool  // the connection may be used again
	delivered bool  // something was returned since BeforeWait
	upgraded  bool
	trailer   http.Header
}

// framing is how the end of a body is known.
type framing int

const (
	noBody framing = iota
	byLength
	chunked
	untilClose
)

// Begin sends the header of a request, over a connection that is kept or a new one, and
// begins to send its body. Without an error the Exchange has to be closed. ctx is for the
// connection only.
func (p *Pool) Begin(ctx context.Context, req *Request) (*Exchange, error) {
	now := time.Now()
	var c *conn
	if !req.Once {
		c = p.get(now)
	}
	reused := c != nil
	if !reused {
		var err error
		if c, err = p.dial(ctx); err != nil {
			return nil, &Error{Reason: NotThere, Untouched: true, Err: err}
		}
		now = time.Now()
	}
	return c.begin(req, reused, now)
}

// begin sends the header of a request on c.
func (c *conn) begin(req *Request, reused bool, now time.Time) (*Exchange, error) {
	x := &c.x
	*x = Exchange{c: c, req: req, reused: reused, began: now}
	c.woken.Store(false)
	c.arm(now, x.period())
	c.out = appendHead(c.out[:0], req)
	if n, err := c.nc.Write(c.out); err != nil && n == 0 {
		_ = c.nc.Close()
		return nil, &Error{Reason: Closed, Untouched: true, Reused: reused, Err: err}
	}
	// Of another error the answer may say more, if there is one.
	switch {
	case req.Body == nil:
		x.allRead.Store(true)
		runtime.Gosched() // others first: by then the answer may be here, and is read without a wait
	case req.Expects100:
		x.expecting = true
	default:
		x.SendBody()
	}
	return x, nil
}

// period is how often a wait for a header looks around.
func (x *Exchange) period() time.Duration {
	if t := x.c.pool.options.HeaderTimeout; t > 0 {
		return min(t, tick)
	}
	return tick
}

// appendHead appends a request's line and header.
func appendHead(b []byte, req *Request) []byte {
	b = append(b, req.Method...)
	b = append(b, ' ')
	b = append(b, req.Target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, req.Host...)
	b = append(b, "\r\n"...)
	for name, values := range req.Header {
		if isOfConnection(name) {
			continue
		}
		for _, value := range values {
			b = appendField(b, name, value)
		}
	}
	switch {
	case req.Upgrade != "":
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, req.Upgrade...)
		b = append(b, "\r\n"...)
	case req.TakesTrailers && req.Once:
		b = append(b, "Connection: TE, close\r\nTE: trailers\r\n"...)
	case req.TakesTrailers:
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	case req.Once:
		b = append(b, "Connection: close\r\n"...)
	}
	switch {
	case req.Body != nil && req.Length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if req.Trailer != nil {
			for name := range req.Trailer() {
				if !isOfConnection(name) {
					b = appendField(b, "Trailer", name)
				}
			}
		}
	case req.Body != nil || req.States:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, max(req.Length, 0), 10)
		b = append(b, "\r\n"...)
	}
	if req.Expects100 && req.Body != nil {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// isOfConnection says whether a field, by its canonical name, is about a connection and not
// the request (RFC 9110, 7.6.1), or is made anew.
func isOfConnection(name string) bool {
	switch name {
	case "Host", "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Expect":
		return true
	}
	return false
}

// SendBody begins to send a body that has waited (Request.Expects100).
func (x *Exchange) SendBody() {
	x.expecting = false
	if x.send == nil {
		x.send = make(chan struct{})
		go x.sendBody(x.c, x.req, x.send)
	}
}

// sendBody is the goroutine that sends the body. An error of Body ends the connection, so
// that the server does not take half a request for a whole one.
func (x *Exchange) sendBody(c *conn, req *Request, done chan<- struct{}) {
	defer close(done)
	const room = len("12345678\r\n") // for a chunk's size
	var buf *[]byte
	if small := int64(smallBuffer - room - 2); req.Length < 0 || req.Length > small {
		buf = takeBig()
	}
	if buf != nil {
		defer giveBig(buf)
	} else {
		buf = smallBuffers.Get().(*[]byte)
		defer smallBuffers.Put(buf)
	}
	b := *buf
	rest := req.Length
	for {
		x.reading.Store(true)
		n, err := req.Body.Read(b[room : len(b)-2])
		x.reading.Store(false)
		x.moved.Store(int64(time.Since(x.began))) // the server is not waited for meanwhile
		piece := b[room : room+n]
		last := err == io.EOF
		if rest >= 0 {
			if rest -= int64(n); rest < 0 {
				err = errTooLong
			} else if rest > 0 && last {
				err, last = io.ErrUnexpectedEOF, false
			}
			last = last || rest == 0
		} else if n > 0 {
			piece = frameChunk(b, room, n)
		}
		if err != nil && err != io.EOF {
			x.bodyErr.Store(&err)
			c.wake()
			return
		}
		if last {
			x.allRead.Store(true)
			if req.Length < 0 {
				piece = appendLastChunk(piece, req)
			}
		}
		if x.sendErr = x.write(c, piece); x.sendErr != nil || last {
			return
		}
	}
}

var errTooLong = errors.New("more than its length")

// write writes b, and notes when the server took a part of it.
func (x *Exchange) write(c *conn, b []byte) error {
	_, err := c.nc.Write(b)
	x.moved.Store(int64(time.Since(x.began)))
	return err
}

// frameChunk makes a chunk of b[room:room+n], which has room before and 2 bytes behind.
func frameChunk(b []byte, room, n int) []byte {
	var size [16]byte
	head := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	from := room - len(head)
	copy(b[from:], head)
	copy(b[room+n:], "\r\n")
	return b[from : room+n+2]
}

// appendLastChunk appends the last chunk and the trailers to a piece, which is another chunk
// or empty.
func appendLastChunk(piece []byte, req *Request) []byte {
	end := append(piece[:len(piece):len(piece)], "0\r\n"...)
	if req.Trailer != nil {
		for name, values := range req.Trailer() {
			for _, value := range values {
				if !isOfConnection(name) {
					end = appendField(end, name, value)
				}
			}
		}
	}
	return append(end, "\r\n"...)
}

// Interrupter returns what ends a wait for the answer, now or later, with Abandoned. Any
// goroutine may call it, at any time. The connection is not used again.
func (x *Exchange) Interrupter() (interrupt func()) {
	x.keep = false
	return x.c.wake
}

// errExpected is how a wait ends for 100 that did not come.
var errExpected = errors.New("no 100 within a second")

// onTick is asked by a wait for a header whether to go on. A server that is silent while
// it cannot have the whole request is not at fault.
func (x *Exchange) onTick(now time.Time) (time.Duration, error) {
	if err := x.watch(); err != nil {
		return 0, err
	}
	waited := now.Sub(x.began)
	if x.expecting && waited >= tick {
		return x.period(), errExpected
	}
	limit := x.c.pool.options.HeaderTimeout
	if limit <= 0 || x.expecting || x.reading.Load() {
		return x.period(), nil
	}
	waited -= time.Duration(x.moved.Load())
	if waited >= limit {
		return 0, x.fail(Silent, nil)
	}
	return max(min(limit-waited, x.period()), time.Millisecond), nil
}

// onBodyTick is the same for a body, which may take as long as it likes.
func (x *Exchange) onBodyTick(time.Time) (time.Duration, error) { return tick, x.watch() }

func (x *Exchange) watch() error {
	if err := x.bodyErr.Load(); err != nil {
		return x.fail(BodyFailed, *err)
	}
	if x.c.woken.Load() {
		return x.fail(Abandoned, nil)
	}
	if x.req.Watch != nil {
		if err := x.req.Watch(); err != nil {
			return x.fail(Abandoned, err)
		}
	}
	return nil
}

func (x *Exchange) fail(reason Reason, err error) error {
	return &Error{Reason: reason, Reused: x.reused, Err: err}
}

// broken is fail for an error of the connection.
func (x *Exchange) broken(err error) error {
	if _, ok := err.(*Error); ok || err == errExpected {
		return err
	}
	if err := x.bodyErr.Load(); err != nil {
		return x.fail(BodyFailed, *err)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if x.partial {
		return x.fail(Cut, err)
	}
	return x.fail(Closed, err)
}

// HasWholeRequest says whether the request's body has been read to its end. An answer that
// comes before that is an early one. It is false of nil, and a request that was not sent.
func (x *Exchange) HasWholeRequest() bool { return x != nil && x.allRead.Load() }

// Next returns the next piece of the answer's body, at most 32 KiB, which is valid until the
// call after it. It waits only if nothing has come. Its error is io.EOF behind the last
// piece of a whole body, and else says what is missing.
func (x *Exchange) Next() ([]byte, error) {
	for {
		if x.done {
			return nil, io.EOF
		}
		switch x.framing {
		case noBody:
			x.done = true
			continue
		case byLength:
			if x.left == 0 {
				x.done = true
				continue
			}
		case chunked:
			if x.left == 0 {
				if err := x.nextChunk(); err != nil {
					return nil, err
				}
				continue
			}
		}
		c := x.c
		if c.r == c.w {
			if x.left > int64(len(c.buf)) || x.framing == untilClose && x.full {
				c.getBig()
			}
			err := x.fillBody()
			x.full = c.w == len(c.buf)
			if err != nil {
				if x.framing == untilClose && err == io.EOF {
					x.done = true
					continue
				}
				return nil, x.broken(err)
			}
		}
		piece := c.buf[c.r:c.w]
		if x.framing != untilClose {
			piece = piece[:min(int64(len(piece)), x.left)]
			x.left -= int64(len(piece))
		}
		c.r += len(piece)
		x.delivered = true
		return piece, nil
	}
}

func (x *Exchange) fillBody() error {
	if x.delivered && x.req.BeforeWait != nil {
		x.req.BeforeWait()
	}
	x.delivered = false
	if x.c.r == x.c.w && x.left == 0 && !x.full {
		x.c.rest() // there may be nothing more for long
	}
	return x.c.fill(x.onBodyTick)
}

// Trailer are the trailers of the answer, when Next has returned io.EOF; nil if there are
// none.
func (x *Exchange) Trailer() http.Header { return x.trailer }

// Upgraded returns the connection after a status of 101, and what has come behind that. It
// is the caller's, and Close does not end it.
func (x *Exchange) Upgraded() (conn net.Conn, early []byte) {
	c := x.c
	x.upgraded = true
	if x.send != nil {
		<-x.send
	}
	_ = c.nc.SetReadDeadline(time.Time{})
	return c.nc, c.buf[c.r:c.w]
}

// Close ends the exchange. Its connection is kept if nothing is left of it, and otherwise
// closed, by which the server learns that nobody waits any more. When it returns, the
// request's body is not read any more.
func (x *Exchange) Close() {
	c := x.c
	if x.upgraded {
		return
	}
	keep := x.done && x.keep && c.r == c.w && !x.expecting && x.allRead.Load()
	if x.send != nil {
		if !keep {
			_ = c.nc.Close()
			if !x.allRead.Load() && x.req.UnblockBody != nil {
				x.req.UnblockBody()
			}
		}
		<-x.send
		keep = keep && x.sendErr == nil
	}
	if !keep || c.woken.Load() {
		_ = c.nc.Close()
		c.putBig()
		return
	}
	c.rest()
	c.x.req = nil
	c.pool.put(c, time.Now())
}
