package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// patience is how long a test waits for something that should be there at once.
const patience = 20 * time.Second

// result is what came of a request.
type result struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
	err     error
}

// reason is that of the error, or "" if there was none.
func (r result) reason() string {
	var failure *Error
	if errors.As(r.err, &failure) {
		return failure.Reason.String()
	}
	if r.err != nil {
		return r.err.Error()
	}
	return ""
}

// readAll reads an answer up to its end.
func readAll(x *Exchange) (r result) {
	defer x.Close()
	for r.status < 200 && r.status != http.StatusSwitchingProtocols {
		r.header = http.Header{}
		if r.status, r.err = x.ReadHead(r.header); r.err != nil {
			return r
		}
	}
	var body bytes.Buffer
	for {
		piece, err := x.Next()
		body.Write(piece)
		if err != nil {
			if err != io.EOF {
				r.err = err
			}
			r.body, r.trailer = body.String(), x.Trailer()
			return r
		}
	}
}

// exchangeOver sends a request over a pipe to a server that answers with text, in pieces of
// that size, and closes.
func exchangeOver(req *Request, text string, piece int) result {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go func() { _, _ = io.Copy(io.Discard, server) }()
	go func() {
		defer server.Close()
		for part := range slices.Chunk([]byte(text), piece) {
			if _, err := server.Write(part); err != nil {
				return
			}
		}
	}()
	c := newConn(New("", "", Options{}), client)
	x, err := c.begin(req, false, time.Now())
	if err != nil {
		return result{err: err}
	}
	return readAll(x)
}

const (
	ok    = "HTTP/1.1 200 OK\r\n"
	none  = "Content-Length: 0\r\n\r\n"
	coded = ok + "Transfer-Encoding: chunked\r\n\r\n"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for _, tc := range []struct {
		name, text string
		status     int
		body       string
		reason     string // of the error
	}{
		{"a length", ok + "Content-Length: 5\r\n\r\nhello", 200, "hello", ""},
		{"a length of 0", ok + none, 200, "", ""},
		{"a long body", ok + "Content-Length: 100000\r\n\r\n" + long, 200, long, ""},
		{"no reason phrase", "HTTP/1.1 200\r\n" + none, 200, "", ""},
		{"an empty reason phrase", "HTTP/1.1 200 \r\n" + none, 200, "", ""},
		{"a status of its own", "HTTP/1.1 799 Odd \xff phrase\r\n" + none, 799, "", ""},
		{"a tab in the reason phrase", "HTTP/1.1 200 O\tK\r\n" + none, 200, "", ""},
		{"until it closes", ok + "\r\nhello", 200, "hello", ""},
		{"until it closes, HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello", 200, "hello", ""},
		{"interim answers", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ok + none, 200, "", ""},
		{"204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, "", ""},
		{"304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, "", ""},
		{"a header of 60 KiB", ok + "X: " + strings.Repeat("x", 60<<10) + "\r\n" + none, 200, "", ""},
		{"chunks", coded + "5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n", 200, "hello0123456789", ""},
		{"a long chunk", coded + "186A0\r\n" + long + "\r\n0\r\n\r\n", 200, long, ""},
		{"chunks with space behind their size", coded + "5 \r\nhello\r\n0\r\n\r\n", 200, "hello", ""},
		{"trailers", coded + "0\r\nX: y\r\n\r\n", 200, "", ""},
		{"CHUNKED", ok + "transfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n", 200, "", ""},

		{"nothing", "", 0, "", "closed"},
		{"the end within the status line", "HTTP/1.1 2", 0, "", "cut"},
		{"the end within the header", ok + "X: y\r\n", 0, "", "cut"},
		{"the end behind an interim answer", "HTTP/1.1 103 Early Hints\r\n\r\n", 0, "", "cut"},
		{"garbage", "hello\r\n\r\n", 0, "", "malformed"},
		{"an empty line first", "\r\n" + ok + none, 0, "", "malformed"},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n" + none, 0, "", "malformed"},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n" + none, 0, "", "malformed"},
		{"no status", "HTTP/1.1 \r\n" + none, 0, "", "malformed"},
		{"no space before a status", "HTTP/1.1\r\n" + none, 0, "", "malformed"},
		{"nothing behind the name", "HTTP/1.\r\n" + none, 0, "", "malformed"},
		{"a status of two digits", "HTTP/1.1 20 OK\r\n" + none, 0, "", "malformed"},
		{"a status of four digits", "HTTP/1.1 2000 OK\r\n" + none, 0, "", "malformed"},
		{"a status below 100", "HTTP/1.1 099 OK\r\n" + none, 0, "", "malformed"},
		{"two spaces before the status", "HTTP/1.1  200 OK\r\n" + none, 0, "", "malformed"},
		{"CR in the reason phrase", "HTTP/1.1 200 O\rK\r\n" + none, 0, "", "malformed"},
		{"a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", 0, "", "malformed"},
		{"a bare LF later", ok + "A: b\nContent-Length: 0\r\n\r\n", 0, "", "malformed"},
		{"a bare LF at the end", ok + "Content-Length: 0\r\n\n", 0, "", "malformed"},
		{"a bare LF at the end, behind a long line", ok + "X: " + strings.Repeat("x", 100) + "\n\n", 0, "", "malformed"},
		{"a bare LF behind a long line, and nothing more", ok + "X: " + strings.Repeat("x", 100) + "\n", 0, "", "malformed"},
		{"CR at the beginning of a value", ok + "A:\rb\r\n" + none, 0, "", "malformed"},
		{"NUL at the beginning of a value", ok + "A:\x00b\r\n" + none, 0, "", "malformed"},
		{"a length of 18 digits", ok + "Content-Length: 000000000000000005\r\n\r\nhello", 200, "hello", ""},
		{"a length of 19 digits", ok + "Content-Length: 0000000000000000005\r\n\r\nhello", 0, "", "malformed"},
		{"a chunk's size that is LF alone", coded + "\n", 200, "", "malformed"},
		{"a chunk that nothing ends", coded + "5\r\nhelloxx", 200, "hello", "malformed"},
		{"CR in a value", ok + "A: b\rc\r\n" + none, 0, "", "malformed"},
		{"two CR", ok + "A: b\r\r\n" + none, 0, "", "malformed"},
		{"NUL in a value", ok + "A: b\x00c\r\n" + none, 0, "", "malformed"},
		{"a folded line", ok + "A: b\r\n c\r\n" + none, 0, "", "malformed"},
		{"a line that begins with space", ok + " A: b\r\n" + none, 0, "", "malformed"},
		{"no colon", ok + "A b\r\n" + none, 0, "", "malformed"},
		{"an empty name", ok + ": b\r\n" + none, 0, "", "malformed"},
		{"space in a name", ok + "A B: c\r\n" + none, 0, "", "malformed"},
		{"a name that is no token", ok + "A\xc3\xa9: c\r\n" + none, 0, "", "malformed"},
		{"two lengths", ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 0, "", "malformed"},
		{"two equal lengths", ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 0, "", "malformed"},
		{"a list of lengths", ok + "Content-Length: 5, 5\r\n\r\nhello", 0, "", "malformed"},
		{"a negative length", ok + "Content-Length: -5\r\n\r\nhello", 0, "", "malformed"},
		{"a hexadecimal length", ok + "Content-Length: 0x5\r\n\r\nhello", 0, "", "malformed"},
		{"an empty length", ok + "Content-Length:\r\n\r\nhello", 0, "", "malformed"},
		{"a length of more than there can be", ok + "Content-Length: 9223372036854775808\r\n\r\nhello", 0, "", "malformed"},
		{"a length and chunks", ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "malformed"},
		{"two codings", ok + "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "malformed"},
		{"another coding", ok + "Transfer-Encoding: identity\r\n\r\nhello", 0, "", "malformed"},
		{"chunks of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "malformed"},
		{"101 that was not asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 0, "", "malformed"},
		{"a header of 70 KiB", ok + "X: " + strings.Repeat("x", 70<<10) + "\r\n" + none, 0, "", "header_too_big"},

		{"a body that is short", ok + "Content-Length: 6\r\n\r\nhello", 200, "hello", "cut"},
		{"no last chunk", coded + "5\r\nhello\r\n", 200, "hello", "cut"},
		{"a chunk that is short", coded + "6\r\nhello", 200, "hello", "cut"},
		{"trailers without an end", coded + "0\r\nX: y\r\n", 200, "", "cut"},
		{"a chunk of no size", coded + "\r\nhello\r\n0\r\n\r\n", 200, "", "malformed"},
		{"a chunk of 0x5", coded + "0x5\r\nhello\r\n0\r\n\r\n", 200, "", "malformed"},
		{"a chunk of -5", coded + "-5\r\nhello\r\n0\r\n\r\n", 200, "", "malformed"},
		{"a chunk of more than there can be", coded + "FFFFFFFFFFFFFFFF\r\nhello", 200, "", "malformed"},
		{"a chunk that is longer than its size", coded + "4\r\nhello\r\n0\r\n\r\n", 200, "hell", "malformed"},
		{"a chunk whose line ends with LF", coded + "5\nhello\r\n0\r\n\r\n", 200, "", "malformed"},
		{"a chunk that ends with LF", coded + "5\r\nhello\n0\r\n\r\n", 200, "hello", "malformed"},
		{"a chunk with endless extensions", coded + "5;" + long, 200, "", "malformed"},
		{"a chunk with something behind its size", coded + "5 x\r\nhello\r\n0\r\n\r\n", 200, "", "malformed"},
		{"a folded trailer", coded + "0\r\nX: y\r\n z\r\n\r\n", 200, "", "malformed"},
		{"trailers of 70 KiB", coded + "0\r\nX: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 200, "", "header_too_big"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, piece := range []int{1 << 20, 7, 1} {
				got := exchangeOver(&Request{Method: "GET", Target: "/"}, tc.text, piece)
				if got.status != tc.status || got.body != tc.body || got.reason() != tc.reason {
					t.Errorf("in pieces of %d: %d, %d bytes of body, %q (%v), want %d, %d bytes, %q",
						piece, got.status, len(got.body), got.reason(), got.err, tc.status, len(tc.body), tc.reason)
				}
			}
		})
	}
}

// startServer serves connections on a port of this machine.
// Tokens are as RFC 9110, 5.6.2 says.
func TestTokens(t *testing.T) {
	t.Parallel()
	const chars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for char := range 256 {
		if got, want := isToken("a"+string([]byte{byte(char)})), strings.IndexByte(chars, byte(char)) >= 0; got != want {
			t.Errorf("0x%02x in a token: %t, want %t", char, got, want)
		}
	}
	if isToken("") {
		t.Error("nothing is a token")
	}
}

func TestSizesOfChunks(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int64{
		"0": 0, "9": 9, "a": 10, "f": 15, "A": 10, "F": 15, "aF09": 0xaf09, "fffffffffffffff": 1<<60 - 1, "000000000000005": 5,
		"5;x": 5, "5 ;x": 5, "5\t": 5, "5 ": 5,
		"": -1, ";x": -1, " 5": -1, "0000000000000005": -1, "g": -1, "G": -1, "/": -1, ":": -1, "@": -1, "`": -1, "5 x": -1, "-5": -1, "0x5": -1,
	} {
		size, ok := parseChunkSize([]byte(line))
		if !ok {
			size = -1
		}
		if size != want {
			t.Errorf("%q = %d, want %d", line, size, want)
		}
	}
}

// Trailer announces trailers, which only chunks can have.
func TestTrailerIsForChunks(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		ok + "Trailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n": "X", ok + "Trailer: X\r\n" + none: "",
	} {
		if got := exchangeOver(&Request{Method: "GET"}, answer, 1000); got.err != nil || got.header.Get("Trailer") != want {
			t.Errorf("%q: Trailer %q, %v, want %q", answer, got.header.Get("Trailer"), got.err, want)
		}
	}
	if got := exchangeOver(&Request{Method: "GET"}, coded+"0\r\n\r\n", 1000); got.err != nil || got.trailer != nil {
		t.Errorf("no trailers are %v, %v, want nil", got.trailer, got.err)
	}
}

func startServer(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) *Pool {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	pool := New("tcp", ln.Addr().String(), Options{Idle: patience, HeaderTimeout: patience})
	t.Cleanup(pool.Close)
	return pool
}

// readHeader reads up to an empty line.
func readHeader(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String()
		}
	}
}

func send(t testing.TB, p *Pool, req *Request) result {
	t.Helper()
	x, err := p.Begin(context.Background(), req)
	if err != nil {
		return result{err: err}
	}
	return readAll(x)
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		req    Request
		answer string
		again  bool
	}{
		"a length":          {Request{Method: "GET"}, ok + "Content-Length: 5\r\n\r\nhello", true},
		"chunks":            {Request{Method: "GET"}, coded + "5\r\nhello\r\n0\r\n\r\n", true},
		"trailers":          {Request{Method: "GET"}, coded + "0\r\nX: y\r\n\r\n", true},
		"no body":           {Request{Method: "GET"}, "HTTP/1.1 204 No Content\r\n\r\n", true},
		"HEAD":              {Request{Method: "HEAD"}, ok + "Content-Length: 5\r\n\r\n", true},
		"close":             {Request{Method: "GET"}, ok + "Connection: Keep-Alive, CLOSE\r\n" + none, false},
		"HTTP/1.0":          {Request{Method: "GET"}, "HTTP/1.0 200 OK\r\n" + none, false},
		"HEAD with a body":  {Request{Method: "HEAD"}, ok + "Content-Length: 5\r\n\r\nhello", false},
		"204 with a body":   {Request{Method: "GET"}, "HTTP/1.1 204 No Content\r\n\r\nhello", false},
		"more than it said": {Request{Method: "GET"}, ok + "Content-Length: 4\r\n\r\nhello", false},
		"a second answer":   {Request{Method: "GET"}, ok + none + ok + none, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int64
			pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
				conns.Add(1)
				for readHeader(r) != "" {
					if _, err := io.WriteString(c, tc.answer); err != nil {
						return
					}
				}
			})
			for range 3 {
				if got := send(t, pool, &tc.req); got.err != nil {
					t.Fatal(got.err)
				}
			}
			want := int64(3)
			if tc.again {
				want = 1
			}
			if n := conns.Load(); n != want {
				t.Errorf("%d connections for three requests, want %d", n, want)
			}
		})
	}
}

// What cannot be sent again has a connection of its own, also where one is kept, and leaves none.
func TestRequestsThatAreSentOnceHaveTheirOwnConnections(t *testing.T) {
	t.Parallel()
	var conns atomic.Int64
	said := make(chan string, 10)
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		conns.Add(1)
		for header := readHeader(r); header != ""; header = readHeader(r) {
			said <- header
			_, _ = io.WriteString(c, ok+none)
		}
	})
	get, post, upgrade := &Request{Method: "GET"}, &Request{Method: "POST", Once: true, TakesTrailers: true}, &Request{Method: "POST", Once: true, Upgrade: "x"}
	for _, tc := range []struct {
		req        *Request
		conns      int64
		connection string
	}{
		{get, 1, ""}, {post, 2, "Connection: TE, close"}, {&Request{Method: "POST", Once: true}, 3, "Connection: close"}, {upgrade, 4, "Connection: Upgrade"}, {get, 4, ""},
	} {
		if got := send(t, pool, tc.req); got.err != nil {
			t.Fatal(got.err)
		}
		connection := ""
		for line := range strings.SplitSeq(<-said, "\r\n") {
			if strings.HasPrefix(line, "Connection:") {
				connection = line
			}
		}
		if n := conns.Load(); n != tc.conns || connection != tc.connection {
			t.Errorf("%s: %d connections, %q, want %d, %q", tc.req.Method, n, connection, tc.conns, tc.connection)
		}
	}
}

func TestProtocolsThatWereAskedFor(t *testing.T) {
	t.Parallel()
	for asked, want := range map[string]string{
		"": "malformed", "websocket": "", "WebSocket": "", "h2c, websocket": "", "h2c": "malformed", "websocket/13": "malformed", ",": "malformed",
	} {
		got := exchangeOver(&Request{Method: "GET", Upgrade: asked}, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 1000)
		if reason := got.reason(); reason != want {
			t.Errorf("websocket for %q: %q, want %q", asked, reason, want)
		}
	}
	if got := exchangeOver(&Request{Method: "GET", Upgrade: "x"}, "HTTP/1.1 101 Switching Protocols\r\n\r\n", 1000); got.reason() != "malformed" {
		t.Errorf("101 without a protocol: %q", got.reason())
	}
}

// After 101 the connection is the caller's, with what has come behind the header, and stays open.
func TestUpgradedConnectionsAreTheCallers(t *testing.T) {
	t.Parallel()
	for _, body := range []io.Reader{nil, strings.NewReader("x")} {
		pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
			readHeader(r)
			if body != nil {
				_, _ = r.ReadByte()
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nhello")
			_, _ = io.Copy(c, r)
		})
		x, err := pool.Begin(context.Background(), &Request{Method: "POST", Upgrade: "echo", Body: body, Length: 1})
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{}
		if status, err := x.ReadHead(header); status != http.StatusSwitchingProtocols {
			t.Fatalf("status %d, %v", status, err)
		}
		if header.Get("Connection") != "Upgrade" || header.Get("Upgrade") != "echo" || len(header) != 2 {
			t.Errorf("the header of 101 is %v, want the protocol in it", header)
		}
		nc, early := x.Upgraded()
		x.Close()
		said := make([]byte, 10)
		n := copy(said, early)
		if _, err := io.WriteString(nc, "again"); err != nil {
			t.Fatal(err)
		}
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(nc, said[n:]); err != nil || string(said) != "helloagain" {
			t.Errorf("%q, %v, want what came behind the header, and the echo", said, err)
		}
		nc.Close()
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		readHeader(r)
		_, _ = io.WriteString(c, ok+none)
		_, _ = r.ReadByte()
		ended <- struct{}{}
	})
	brief := New("tcp", pool.Addr(), Options{Idle: 50 * time.Millisecond})
	send(t, brief, &Request{Method: "GET"})
	select {
	case <-ended: // by the clock
	case <-time.After(patience):
		t.Fatal("an idle connection stays open")
	}
	send(t, pool, &Request{Method: "GET"})
	pool.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("an idle connection survives Close")
	}
}

func TestRequestsAreWritten(t *testing.T) {
	t.Parallel()
	body := func(text string) io.Reader { return strings.NewReader(text) }
	withEnd := func(text string) io.Reader { return iotest.DataErrReader(strings.NewReader(text)) }
	for name, tc := range map[string]struct {
		req  Request
		want string
	}{
		"GET":                      {Request{Method: "GET", Target: "//a?b", Host: "h"}, "GET //a?b HTTP/1.1\r\nHost: h\r\n\r\n"},
		"fields":                   {Request{Method: "GET", Target: "/", Header: http.Header{"A": {"b", "c"}, "Connection": {"A"}, "Host": {"x"}, "Expect": {"x"}, "Te": {"x"}}}, "GET / HTTP/1.1\r\nHost: \r\nA: b\r\nA: c\r\n\r\n"},
		"upgrade":                  {Request{Method: "GET", Target: "/", Upgrade: "u"}, "GET / HTTP/1.1\r\nHost: \r\nConnection: Upgrade\r\nUpgrade: u\r\n\r\n"},
		"trailers":                 {Request{Method: "GET", Target: "/", TakesTrailers: true}, "GET / HTTP/1.1\r\nHost: \r\nConnection: TE\r\nTE: trailers\r\n\r\n"},
		"a stated 0":               {Request{Method: "POST", Target: "/", States: true}, "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n"},
		"a length":                 {Request{Method: "POST", Target: "/", Body: body("hello"), Length: 5}, "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\n\r\nhello"},
		"a length of 0":            {Request{Method: "POST", Target: "/", Body: body("")}, "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n"},
		"chunks":                   {Request{Method: "POST", Target: "/", Body: body("hello"), Length: -1}, "POST / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"a length, with the end":   {Request{Method: "POST", Target: "/", Body: withEnd("hello"), Length: 5}, "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\n\r\nhello"},
		"a chunk, with the end":    {Request{Method: "POST", Target: "/", Body: withEnd("hello"), Length: -1}, "POST / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"a read of nothing before": {Request{Method: "POST", Target: "/", Body: io.MultiReader(&pause{}, body("hello")), Length: -1}, "POST / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"chunks of none":           {Request{Method: "POST", Target: "/", Body: body(""), Length: -1}, "POST / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"with trailers": {Request{Method: "POST", Target: "/", Body: body("a"), Length: -1, Trailer: func() http.Header { return http.Header{"X": {"y"}, "Content-Length": {"5"}} }},
			"POST / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			came := make(chan string, 1)
			pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
				got := make([]byte, len(tc.want))
				n, _ := io.ReadFull(r, got)
				_, _ = io.WriteString(c, ok+none)
				rest, _ := io.ReadAll(r)
				came <- string(got[:n]) + string(rest)
			})
			if got := send(t, pool, &tc.req); got.err != nil {
				t.Fatal(got.err)
			}
			pool.Close()
			if got := <-came; got != tc.want {
				t.Errorf("%q was sent, want %q", got, tc.want)
			}
		})
	}
}

// A body that waits for 100 is sent when it has come, or nothing for a second, and not if
// there is an answer.
func TestBodiesWaitFor100(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before string // what the server says before it reads the body
		status []int
		sent   string
	}{
		"100":           {"HTTP/1.1 100 Continue\r\n\r\n", []int{100, 200}, "hello"},
		"100 twice":     {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 2), []int{100, 200}, "hello"},
		"103, then 100": {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", []int{103, 100, 200}, "hello"},
		"nothing":       {"", []int{100, 200}, "hello"},
		"an answer":     {"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\n" + none, []int{417}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header, sent := make(chan string, 1), make(chan string, 1)
			pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
				header <- readHeader(r)
				_, _ = io.WriteString(c, tc.before)
				body := make([]byte, 5)
				n, _ := io.ReadFull(r, body)
				sent <- string(body[:n])
				_, _ = io.WriteString(c, ok+none)
			})
			x, err := pool.Begin(context.Background(), &Request{
				Method: "POST", Target: "/", Body: strings.NewReader("hello"), Length: 5, Expects100: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for len(got) == 0 || got[len(got)-1] < 200 {
				status, err := x.ReadHead(http.Header{})
				if err != nil {
					t.Fatalf("after %v: %v", got, err)
				}
				if got = append(got, status); status == http.StatusContinue {
					x.SendBody()
				}
			}
			x.Close()
			if h := <-header; !strings.Contains(h, "\r\nExpect: 100-continue\r\n") {
				t.Errorf("the header is %q, want it to expect 100", h)
			}
			if s := <-sent; !slices.Equal(got, tc.status) || s != tc.sent {
				t.Errorf("%v, and %q was sent, want %v and %q", got, s, tc.status, tc.sent)
			}
		})
	}
}

// A body that fits into a small buffer has one, and any other a big one.
func TestBodiesHaveBuffersOfTheirSize(t *testing.T) {
	t.Parallel()
	const small = 4084 // 4 KiB, but for a chunk's size and its end
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		readHeader(r)
		_, _ = io.Copy(io.Discard, r)
	})
	for length, want := range map[int64]int{0: small, 1: small, small: small, small + 1: bigBuffer - 12, -1: bigBuffer - 12} {
		asked := make(chan int, 1)
		send(t, pool, &Request{Method: "POST", Target: "/", Length: length, Body: readerFunc(func(b []byte) (int, error) {
			asked <- len(b)
			return 0, errReset
		})})
		if got := <-asked; got != want {
			t.Errorf("a body of %d bytes is read by %d, want %d", length, got, want)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// A body that is not what was announced ends the connection, so that the server does not take
// a part for the whole.
func TestBodiesThatAreNotWholeAreCut(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		body   io.Reader
		length int64
	}{
		"short":             {strings.NewReader("hell"), 5},
		"long":              {strings.NewReader("hello!"), 5},
		"long of none":      {strings.NewReader("x"), 0},
		"broken":            {io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)), 5},
		"broken, in chunks": {io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)), -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			came := make(chan string, 1)
			pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
				readHeader(r)
				rest, _ := io.ReadAll(r)
				came <- string(rest)
			})
			if got := send(t, pool, &Request{Method: "POST", Body: tc.body, Length: tc.length}); got.reason() != "body_failed" {
				t.Errorf("got %v", got.err)
			}
			if rest := <-came; len(rest) >= 5 && tc.length > 0 || len(rest) > 0 && tc.length == 0 || strings.Contains(rest, "0\r\n\r\n") {
				t.Errorf("the server has a whole body: %q", rest)
			}
		})
	}
}

// pause is a reader that has nothing at first, and then nothing more.
type pause struct{ over bool }

func (r *pause) Read([]byte) (int, error) {
	if r.over {
		return 0, io.EOF
	}
	r.over = true
	return 0, nil
}

// A connection that ends early is an error, and no end of a body; whether an answer had begun decides who
// may send the request again.
func TestAnswersThatAreCutAreUnexpected(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"": "closed", "H": "cut", "HTTP/1.1 200": "cut", ok + "Content-Length: 5\r\n\r\nhell": "cut", coded + "5\r\nhello\r\n": "cut",
	} {
		c := newConn(New("", "", Options{}), &cutShort{takes: 1 << 20, answer: strings.NewReader(answer)})
		x, err := c.begin(&Request{Method: "GET"}, false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(x); got.reason() != want || !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v, want %s by an unexpected end", answer, got.err, want)
		}
	}
}

// A connection over which a body was sent is used again, too, once the server has all of it.
func TestConnectionsOfBodiesAreUsedAgain(t *testing.T) {
	t.Parallel()
	var conns atomic.Int64
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		conns.Add(1)
		for readHeader(r) != "" {
			if _, err := io.CopyN(io.Discard, r, 5); err != nil {
				return
			}
			_, _ = io.WriteString(c, ok+none)
		}
	})
	for range 3 {
		if got := send(t, pool, &Request{Method: "POST", Body: strings.NewReader("hello"), Length: 5}); got.err != nil {
			t.Fatal(got.err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for three requests, want 1", n)
	}
}

// A request without a body is whole at once, one with a body when that has been read, and one that was
// not sent never.
func TestHasWholeRequest(t *testing.T) {
	t.Parallel()
	if (*Exchange)(nil).HasWholeRequest() {
		t.Error("a request that was not sent is whole")
	}
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		readHeader(r)
		_, _ = io.WriteString(c, ok+none)
		_, _ = io.Copy(io.Discard, r)
	})
	begin := func(body io.Reader) *Exchange {
		x, err := pool.Begin(context.Background(), &Request{Method: "POST", Body: body, Length: 5})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.ReadHead(http.Header{}); err != nil {
			t.Fatal(err)
		}
		return x
	}
	x := begin(nil)
	if !x.HasWholeRequest() {
		t.Error("a request without a body is not whole")
	}
	x.Close()
	rest := make(chan struct{})
	x = begin(io.MultiReader(strings.NewReader("he"), waitFor(rest), strings.NewReader("llo")))
	if x.HasWholeRequest() {
		t.Error("a request is whole before its body has ended")
	}
	close(rest)
	for deadline := time.Now().Add(patience); !x.HasWholeRequest() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if !x.HasWholeRequest() {
		t.Error("a request is not whole when its body has ended")
	}
	x.Close()
}

func TestInterrupterEndsAWaitForMore(t *testing.T) {
	t.Parallel()
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		readHeader(r)
		_, _ = io.WriteString(c, ok+"Content-Length: 5\r\n\r\nhe")
		_, _ = r.ReadByte()
	})
	x, err := pool.Begin(context.Background(), &Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.ReadHead(http.Header{}); err != nil {
		t.Fatal(err)
	}
	interrupt := x.Interrupter()
	go func() {
		time.Sleep(20 * time.Millisecond)
		interrupt()
	}()
	if got := readRest(x); got != "he, abandoned" {
		t.Errorf("got %q", got)
	}
	x.Close()
	interrupt() // which is too late, and does no harm
	if n := len(pool.idle); n != 0 {
		t.Errorf("%d connections are kept, want none", n)
	}
}

func readRest(x *Exchange) string {
	var b strings.Builder
	for {
		piece, err := x.Next()
		b.Write(piece)
		if err != nil {
			return fmt.Sprintf("%s, %v", b.String(), err)
		}
	}
}

// ordinary are answers as servers give them.
var ordinary = map[string]http.HandlerFunc{
	"text":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
	"empty": func(http.ResponseWriter, *http.Request) {},
	"fields": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Set-Cookie"] = []string{"a=b", "c=d"}
		w.WriteHeader(404)
	},
	"flushes": func(w http.ResponseWriter, _ *http.Request) {
		for range 10 {
			fmt.Fprint(w, strings.Repeat("hello", 1000))
			_ = http.NewResponseController(w).Flush()
		}
	},
	"long": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 3_000_000)) },
	"a length": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "70000")
		_, _ = w.Write(make([]byte, 70_000))
	},
	"trailers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-A")
		fmt.Fprint(w, "a")
		w.Header().Set("X-A", "b")
	},
	"no content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
	"unmodified": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Etag", `"a"`); w.WriteHeader(304) },
	"early hints": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "a")
		w.WriteHeader(103)
		fmt.Fprint(w, "hello")
	},
	"close": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "hello")
	},
	"echo": func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) },
	"a long field": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 20_000))
		fmt.Fprint(w, "hello")
	},
}

// What http.Transport makes of ordinary answers, this package does as well.
func TestOrdinaryAnswersAreThoseOfNetHTTP(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		ordinary[r.URL.Query().Get("name")](w, r)
	}))
	t.Cleanup(srv.Close)
	pool := New("tcp", srv.Listener.Addr().String(), Options{Idle: patience})
	defer pool.Close()
	for name := range ordinary {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			req, _ := http.NewRequest(method, srv.URL+"/?name="+strings.ReplaceAll(name, " ", "+"), nil)
			mine := &Request{Method: method, Target: req.URL.RequestURI(), Host: req.URL.Host, Header: http.Header{}}
			if method == "POST" {
				req.Body, req.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
				mine.Body, mine.Length = strings.NewReader("hello"), 5
			}
			resp, err := (&http.Transport{DisableKeepAlives: false, DisableCompression: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			want := result{status: resp.StatusCode, header: resp.Header, body: string(body), trailer: resp.Trailer, err: err}
			got := send(t, pool, mine)
			delete(want.header, "Connection") // about the connection
			delete(got.header, "Trailer")     // in resp.Trailer there
			delete(want.header, "Trailer")    // of HEAD
			equal := maps.EqualFunc(got.header, want.header, slices.Equal) && maps.EqualFunc(got.trailer, want.trailer, slices.Equal)
			if got.status != want.status || got.body != want.body || got.err != nil || want.err != nil || !equal {
				t.Errorf("%s of %q = %d, %d bytes, %v, %v, %v; net/http has %d, %d bytes, %v, %v, %v", method, name,
					got.status, len(got.body), got.header, got.trailer, got.err, want.status, len(want.body), want.header, want.trailer, want.err)
			}
		}
	}
}

// FuzzAnswer holds the parser against net/http's, which takes more: what both take has the
// same status, fields and body. However an answer is cut up, it is the same.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		ok + none, ok + "Content-Length: 5\r\n\r\nhello", coded + "5\r\nhello\r\n0\r\nX: y\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nhello",
		"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + ok + none, "HTTP/1.1 304 Not Modified\r\nEtag: a\r\n\r\n",
		ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n",
		ok + "A : b\r\nConnection: A, close\r\n" + none, coded + "5;a=b\r\nhello\r\n\r\n", ok + "A: b\r\n c\r\n" + none,
	} {
		for piece := range 3 {
			f.Add(text, piece == 1, byte(piece*3))
		}
	}
	f.Fuzz(func(t *testing.T, text string, head bool, piece byte) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		got := exchangeOver(&Request{Method: method, Target: "/"}, text, int(piece)+1)
		whole := exchangeOver(&Request{Method: method, Target: "/"}, text, 1<<20)
		if got.reason() != whole.reason() || got.status != whole.status || got.body != whole.body {
			t.Fatalf("%q in pieces of %d is %+v, and in one %+v", text, int(piece)+1, got, whole)
		}
		// White space before a colon is a part of the name for net/http.
		if got.err != nil || strings.Contains(text, " :") || strings.Contains(text, "\t:") {
			return
		}
		r := bufio.NewReader(strings.NewReader(text))
		req := &http.Request{Method: method}
		resp, err := http.ReadResponse(r, req)
		for err == nil && resp.StatusCode < 200 {
			resp, err = http.ReadResponse(r, req)
		}
		if err != nil {
			return
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != got.status || string(body) != got.body || err != nil {
			t.Fatalf("%q is %d %q here, and %d %q, %v for net/http", text, got.status, got.body, resp.StatusCode, body, err)
		}
		for name, values := range got.header {
			if name != "Trailer" && !slices.Equal(values, resp.Header[name]) {
				t.Fatalf("%q has %s: %q here, and %q for net/http", text, name, values, resp.Header[name])
			}
		}
	})
}

// An exchange on a kept connection costs little; the bench counts requests a second.
func BenchmarkExchange(b *testing.B) {
	pool := startServer(b, func(c net.Conn, r *bufio.Reader) {
		answer := []byte(ok + "Content-Type: application/json\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello")
		for {
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			_, _ = c.Write(answer)
		}
	})
	b.ReportAllocs()
	header := http.Header{}
	req := &Request{Method: "GET", Target: "/", Host: "x", Header: http.Header{"Accept": {"*/*"}}}
	for b.Loop() {
		x, err := pool.Begin(context.Background(), req)
		if err != nil {
			b.Fatal(err)
		}
		clear(header)
		if _, err := x.ReadHead(header); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := x.Next(); err != nil {
				break
			}
		}
		x.Close()
	}
}

// Large bodies pass in both directions also when there are more of them than big buffers, and
// all of those are given back.
func TestMoreBodiesThanBigBuffers(t *testing.T) {
	const bodies = mostBig + 20
	started, arrived := make(chan struct{}, bodies), make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.CopyN(w, r.Body, 100_000)
		_ = http.NewResponseController(w).Flush()
		started <- struct{}{}
		<-arrived
		_, _ = io.Copy(w, r.Body)
	}))
	defer up.Close()
	p := New("tcp", up.Listener.Addr().String(), Options{Idle: time.Second, DialTimeout: patience, HeaderTimeout: patience})
	text := strings.Repeat("0123456789", 20_000)
	got := make(chan string, bodies)
	for range bodies {
		go func() {
			half := strings.NewReader(text[:len(text)/2])
			rest := strings.NewReader(text[len(text)/2:])
			body := io.MultiReader(half, waitFor(arrived), rest)
			r := send(t, p, &Request{Method: "POST", Target: "/", Host: "x", Header: http.Header{}, Body: body, Length: int64(len(text))})
			if r.err != nil || r.body != text {
				got <- fmt.Sprintf("%d bytes, %v", len(r.body), r.err)
				return
			}
			got <- ""
		}()
	}
	for range bodies {
		<-started
	}
	close(arrived)
	for range bodies {
		if problem := <-got; problem != "" {
			t.Fatal(problem)
		}
	}
	if n := bigInUse.Load(); n != 0 {
		t.Errorf("%d big buffers are in use, want none", n)
	}
}

// waitFor is a reader of nothing, which ends when the channel is closed.
type waitFor <-chan struct{}

func (w waitFor) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}

// idlePool has n idle connections.
func idlePool(t *testing.T, n int, o Options) *Pool {
	t.Helper()
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		for readHeader(r) != "" {
			_, _ = io.WriteString(c, ok+none)
		}
	})
	pool.options = o
	var all []*Exchange
	for range n {
		x, err := pool.Begin(context.Background(), &Request{Method: "GET"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.ReadHead(http.Header{}); err != nil {
			t.Fatal(err)
		}
		if _, err := x.Next(); err != io.EOF {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	for _, x := range all {
		x.Close()
	}
	return pool
}

func (p *Pool) idleNow() (n int, sweeping bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle), p.sweeping
}

// Of idle connections the old ones are closed, and the others looked at again.
func TestSweepsGoOn(t *testing.T) {
	t.Parallel()
	const idle = 100 * time.Millisecond
	pool := idlePool(t, 3, Options{Idle: time.Hour})
	now := time.Now()
	pool.mu.Lock()
	pool.options.Idle = idle
	pool.idle[0].idleSince, pool.idle[1].idleSince, pool.idle[2].idleSince = now.Add(-time.Hour), now.Add(-idle), now.Add(time.Hour)
	pool.mu.Unlock()
	pool.sweep()
	if n, sweeping := pool.idleNow(); n != 1 || !sweeping {
		t.Errorf("%d connections are left, another sweep comes: %t, want the one that is younger, and another sweep", n, sweeping)
	}
	pool.mu.Lock()
	pool.idle[0].idleSince = now.Add(-time.Hour)
	pool.mu.Unlock()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n, sweeping := pool.idleNow()
		if n == 0 && !sweeping {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left, sweeping %t, want none", n, sweeping)
		}
	}
}

func TestIdleConnectionsHaveTheirTime(t *testing.T) {
	t.Parallel()
	for age, kept := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false, time.Hour: false} {
		pool := idlePool(t, 1, Options{Idle: time.Minute})
		if got := pool.get(pool.idle[0].idleSince.Add(age)); (got != nil) != kept {
			t.Errorf("a connection is used after %v: %t, want %t", age, got != nil, kept)
		}
	}
	if n, _ := idlePool(t, 1, Options{}).idleNow(); n != 0 {
		t.Errorf("%d connections are kept where none may be", n)
	}
}

// Accepts makes a connection, and ends it.
func TestAccepts(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	pool := startServer(t, func(c net.Conn, r *bufio.Reader) {
		_, err := r.ReadByte()
		ended <- err
	})
	if err := pool.Accepts(t.Context()); err != nil {
		t.Errorf("Accepts = %v, want nil", err)
	}
	select {
	case err := <-ended:
		if err != io.EOF {
			t.Errorf("the server reads %v, want the end", err)
		}
	case <-time.After(patience):
		t.Error("the connection stays")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := New("tcp", ln.Addr().String(), Options{}).Accepts(t.Context()); err == nil {
		t.Error("a port that nobody listens on accepts")
	}
}
