package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imagelab/drain"
)

// tunnel passes bytes between a client and the upstream after 101, until both have said that
// they will send no more, or one has gone.
//
// When the server waits for its streams to end, or another destination has taken the place of
// this one, the upstream is told that its client leaves: in the words of WebSocket if that is what is spoken, and else by the end of the stream. What
// the upstream still says is passed on, its goodbye to the client first of all. Both get
// tunnelPatience for that.
func (p *passage) tunnel() {
	p.w.WriteHeader(http.StatusSwitchingProtocols)
	p.committed = true
	client, rw, err := http.NewResponseController(p.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	server, early := p.x.Upgraded()
	t := &tunnel{client: client, server: server}
	if strings.EqualFold(p.req.Upgrade, "websocket") {
		t.frames = new(frames)
	}
	unread, _ := rw.Reader.Peek(rw.Reader.Buffered())
	t.run(append([]byte(nil), early...), append([]byte(nil), unread...), drain.Ending(p.r.Context()), p.to.quit)
}

// tunnelPatience is how long an upgraded connection may take to end when it is told to.
const tunnelPatience = time.Second

// tunnel is an upgraded connection.
type tunnel struct {
	client, server net.Conn

	mu     sync.Mutex // held by who writes to server
	frames *frames    // of the client, if it speaks WebSocket
	told   bool       // the server has the client's last word: nothing may follow it
	late   atomic.Bool
}

// run passes bytes in both directions. What has come already is passed on first.
func (t *tunnel) run(fromServer, fromClient []byte, ending, retired <-chan struct{}) {
	down, up := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(up)
		if t.write(fromClient) != nil || pump(t.client, t.write) != nil {
			t.abort()
			return
		}
		_ = closeWrite(t.server)
	}()
	go func() {
		defer close(down)
		toClient := func(b []byte) error {
			_, err := t.client.Write(b)
			return err
		}
		if toClient(fromServer) != nil || pump(t.server, toClient) != nil {
			t.abort()
			return
		}
		_ = closeWrite(t.client)
	}()
	var patience <-chan time.Time
	leave := func() {
		ending, retired = nil, nil
		t.late.Store(true)
		go t.leave()
		patience = time.After(tunnelPatience)
	}
	for upDone, downDone := up, down; upDone != nil || downDone != nil; {
		select {
		case <-upDone:
			upDone = nil
		case <-downDone:
			downDone = nil
		case <-ending:
			leave()
		case <-retired:
			leave()
		case <-patience:
			patience = nil
			t.abort()
		}
	}
	t.abort()
}

// abort closes both connections.
func (t *tunnel) abort() {
	_ = t.client.Close()
	_ = t.server.Close()
}

// pump passes on what comes from a connection, until it ends. Most upgraded connections wait
// most of the time, so that a large buffer is only for those with much to say.
func pump(from net.Conn, write func([]byte) error) error {
	small := make([]byte, 4<<10)
	buf := small
	var large *[]byte
	defer func() {
		if large != nil {
			copyBuffers.Put(large)
		}
	}()
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if err := write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case large == nil && n == len(small):
			large = copyBuffers.Get().(*[]byte)
			buf = *large
		case large != nil && n <= len(small):
			copyBuffers.Put(large)
			large, buf = nil, small
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// closeWrite says that no more will be sent.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// write passes on what the client has sent. Nothing follows its last word, which leave may
// have said for it.
func (t *tunnel) write(b []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told {
		return nil
	}
	if t.frames == nil {
		_, err := t.server.Write(b)
		return err
	}
	if t.late.Load() { // leave waits for the end of a frame
		n, ended := t.frames.untilBoundary(b)
		b = b[:n]
		if ended {
			b = append(append([]byte(nil), b...), goingAway...)
			t.told = true
		}
	} else {
		t.frames.add(b)
	}
	_, err := t.server.Write(b)
	return err
}

// leave says goodbye to the server in the client's name. It waits for write, which abort ends.
func (t *tunnel) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.told:
	case t.frames == nil:
		t.told = true
		_ = closeWrite(t.server)
	case t.frames.atBoundary():
		t.told = true
		_, _ = t.server.Write(goingAway)
	}
}

// goingAway is a client's Close frame with the status 1001, going away, and a mask of zeroes
// (RFC 6455, 5.2, 5.5.1 and 7.4.1).
var goingAway = []byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9}

// frames follows the frames of one direction of a WebSocket (RFC 6455, 5.2), to know where
// one ends.
type frames struct {
	header [14]byte
	got    int    // bytes of header
	left   uint64 // bytes of the payload that have to come
}

// atBoundary says whether a frame has ended, and the next has not begun.
func (f *frames) atBoundary() bool { return f.got == 0 && f.left == 0 }

func (f *frames) add(b []byte) {
	for len(b) > 0 {
		n := f.step(b)
		b = b[n:]
	}
}

// untilBoundary is how many bytes of b belong to the frame that has begun, and whether it
// ends there.
func (f *frames) untilBoundary(b []byte) (n int, ended bool) {
	for n < len(b) && !f.atBoundary() {
		n += f.step(b[n:])
	}
	return n, f.atBoundary()
}

// step reads a byte of a header or a part of a payload, and returns its length.
func (f *frames) step(b []byte) int {
	if f.left > 0 {
		n := int(min(f.left, uint64(len(b))))
		f.left -= uint64(n)
		return n
	}
	f.header[f.got] = b[0]
	f.got++
	if f.got < 2 {
		return 1
	}
	size, extra := uint64(f.header[1]&0x7f), 0
	switch size {
	case 126:
		extra = 2
	case 127:
		extra = 8
	}
	need := 2 + extra
	if f.header[1]&0x80 != 0 {
		need += 4 // the mask
	}
	if f.got < need {
		return 1
	}
	if extra > 0 {
		size = 0
		for _, b := range f.header[2 : 2+extra] {
			size = size<<8 | uint64(b)
		}
	}
	f.got, f.left = 0, size
	return 1
}
