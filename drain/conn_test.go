package drain

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// connPair returns an accepted connection, and its client, which sends and reads nothing
// by itself.
func connPair(t *testing.T) (accepted *conn, client net.Conn) {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{WriteTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	accepted = nc.(*conn)
	accepted.plain = true // as New finds out
	return accepted, client
}

func TestReadDeadlineIsTheLastOneSet(t *testing.T) {
	t.Parallel()
	const wait = 60 * time.Millisecond
	for name, before := range map[string]func(net.Conn){
		"one":               func(net.Conn) {},
		"sooner than known": func(c net.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Hour)) },
		"later than known":  func(c net.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) },
		"after a wake":      func(c net.Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) },
	} {
		c, _ := connPair(t)
		before(c)
		now := time.Now()
		_ = c.SetReadDeadline(now.Add(wait))
		_, err := c.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(now.Add(wait)) {
			t.Errorf("%s: Read = %v after %v; want a timeout not before %v", name, err, time.Since(now), wait)
		}
	}
}

func TestReadDeadlineBeyondTheArmedOneIsKept(t *testing.T) {
	t.Parallel()
	c, client := connPair(t)
	_ = c.SetReadDeadline(time.Now().Add(time.Hour))
	// The socket's own passes, as it does after headerWait.
	c.mu.Lock()
	_ = c.arm(time.Now().Add(10 * time.Millisecond))
	c.mu.Unlock()
	time.AfterFunc(50*time.Millisecond, func() { _, _ = io.WriteString(client, "x") })
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("Read = %v; want a byte", err)
	}
}

func TestNoReadDeadlineAfterAWake(t *testing.T) {
	t.Parallel()
	c, client := connPair(t)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_ = c.SetReadDeadline(time.Time{})
	time.AfterFunc(20*time.Millisecond, func() { _, _ = io.WriteString(client, "x") })
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("Read = %v; want a byte", err)
	}
}

func TestWriteDeadlineCountsFromTheWrite(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	eventually(t, "the socket's own deadline in the past", func() bool { return time.Since(c.ln.epoch) > 150*time.Millisecond })
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatalf("a late Write = %v; want none", err)
	}
	full := make([]byte, chunk)
	began := time.Now()
	var err error
	for range 1000 { // until nothing more fits between the two
		if _, err = c.Write(full); err != nil {
			break
		}
	}
	if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < 95*time.Millisecond {
		t.Errorf("Write to a client that does not read = %v after %v; want a timeout 100ms after the first", err, took)
	}
}

func TestConnectionLeavesOnlyWithoutARequest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		why        reason
		read, sent string // what the server has read before, and what waits then
		leaves     bool
	}{
		"nothing sent":                            {why: drained, leaves: true},
		"a request that nobody has read":          {why: drained, sent: "GET"},
		"half a header, drained":                  {why: drained, read: "GE"},
		"half a header, evicted":                  {why: evicted, read: "GE", leaves: true},
		"nothing sent, evicted":                   {why: evicted, leaves: true},
		"half a header, and more of it, evicted":  {why: evicted, read: "GE", sent: "T /"},
		"a request that nobody has read, evicted": {why: evicted, sent: "GET"},
		"half a header, without descriptors":      {why: descriptors, read: "GE", leaves: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer := connPair(t)
			got := make([]byte, 8)
			if test.read != "" {
				fmt.Fprint(peer, test.read)
				if _, err := c.Read(got); err != nil {
					t.Fatal(err)
				}
			}
			fmt.Fprint(peer, test.sent)
			eventually(t, "input", func() bool { return unread(c.TCPConn) == (test.sent != "") })
			c.leave(test.why)
			if !test.leaves && test.sent == "" {
				test.sent = "T /" // it waits for more
				fmt.Fprint(peer, test.sent)
			}
			n, err := c.Read(got)
			if string(got[:n]) != test.sent || (err != nil) != test.leaves {
				t.Errorf("after leave, Read = %q, %v, want %q", got[:n], err, test.sent)
			}
		})
	}
}

func TestEvictionOrder(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	// The youngest phase is the oldest connection, so that age alone decides otherwise.
	order := []Phase{Silent, Idle, Reading, Lingering}
	for _, p := range order {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := nc.(*conn)
		c.enter(p)
		go func() { // as net/http does
			_, _ = c.Read(make([]byte, 1))
			c.Close()
		}()
	}
	begun := time.Now()
	eventually(t, "connections that have waited", func() bool { return time.Since(begun) > settledSilent+settled })
	for i := len(order) - 1; i >= 0; i-- {
		if !ln.evict(evicted) {
			t.Fatalf("nobody left, want %v", order[i])
		}
		eventually(t, "the end of "+order[i].String(), func() bool { return ln.count() == i })
		for _, c := range ln.snapshot() {
			if c.phaseIs(order[i]) {
				t.Errorf("%v stays, want it to leave before the others", order[i])
			}
		}
	}
}

func TestPipeline(t *testing.T) {
	t.Parallel()
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, test := range map[string]struct {
		reads []string
		begun int
		want  bool // something is behind the last request that was begun
	}{
		"one request":                 {[]string{get}, 1, false},
		"in two reads":                {[]string{get[:9], get[9:]}, 1, false},
		"cut within the empty line":   {[]string{get[:len(get)-1], "\n"}, 1, false},
		"cut before the empty line":   {[]string{get[:len(get)-2], "\r\n"}, 1, false},
		"byte by byte":                {splitBytes(get), 1, false},
		"two, one begun":              {[]string{get + get}, 1, true},
		"two, both begun":             {[]string{get + get}, 2, false},
		"one and a byte":              {[]string{get + "G"}, 1, true},
		"one, and one without an end": {[]string{get + get[:len(get)-1]}, 1, true},
		"bare line feeds":             {[]string{"GET / HTTP/1.1\nHost: x\n\n"}, 1, false},
	} {
		var p pipeline
		for _, read := range test.reads {
			p.add([]byte(read))
		}
		p.begun = test.begun
		if got := p.behind(); got != test.want {
			t.Errorf("%s: behind() = %t, want %t", name, got, test.want)
		}
	}
}

func splitBytes(s string) []string {
	var all []string
	for _, b := range []byte(s) {
		all = append(all, string(b))
	}
	return all
}
