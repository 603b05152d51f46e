package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// fakeUpstream is an upstream that does what a test says, connection by connection.
type fakeUpstream struct {
	addr     string
	conns    atomic.Int64
	requests atomic.Int64
	ready    atomic.Bool // what has to happen before the next request has happened
	seen     chan string // the requests, as far as they were read
}

// fakeConn is one of its connections.
type fakeConn struct {
	*net.TCPConn
	r  *bufio.Reader
	up *fakeUpstream
	n  int64 // 1 for the first
}

// startUpstream runs serve for each connection, which ends with it.
func startUpstream(t *testing.T, serve func(c *fakeConn)) *fakeUpstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	up := &fakeUpstream{addr: ln.Addr().String(), seen: make(chan string, 1000)}
	go up.accept(ln, serve)
	return up
}

func (up *fakeUpstream) accept(ln net.Listener, serve func(c *fakeConn)) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(patience))
			serve(&fakeConn{TCPConn: nc.(*net.TCPConn), r: bufio.NewReader(nc), up: up, n: up.conns.Add(1)})
		}()
	}
}

// header reads a request's header, and says whether there was one.
func (c *fakeConn) header() (string, bool) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), false
		}
		if line == "\r\n" {
			break
		}
	}
	c.up.requests.Add(1)
	c.up.seen <- b.String()
	return b.String(), true
}

// request reads a request with a body, and says whether there was a whole one.
func (c *fakeConn) request() bool {
	header, ok := c.header()
	if !ok {
		return false
	}
	if strings.Contains(header, "Transfer-Encoding: chunked") {
		for line := ""; line != "0\r\n" && ok; { // which no test has in its body
			var err error
			line, err = c.r.ReadString('\n')
			ok = err == nil
		}
		_, err := c.r.Discard(2)
		return ok && err == nil
	}
	_, length, _ := strings.Cut(header, "Content-Length: ")
	length, _, _ = strings.Cut(length, "\r")
	n, _ := strconv.Atoi(length)
	_, err := c.r.Discard(n)
	return err == nil
}

// answers serves a connection: each request gets the next answer, and after the last the
// connection is closed.
func answers(texts ...string) func(c *fakeConn) {
	return func(c *fakeConn) {
		for _, text := range texts {
			if !c.request() {
				return
			}
			_, _ = io.WriteString(c, text)
		}
	}
}

// hold reads until the other side closes.
func (c *fakeConn) hold() { _, _ = io.Copy(io.Discard, c.r) }

// reset makes the end of the connection a reset.
func (c *fakeConn) reset() { _ = c.SetLinger(0) }

// byConn serves the first connection with the first function, and so on; the last is for the rest.
func byConn(serve ...func(c *fakeConn)) func(c *fakeConn) {
	return func(c *fakeConn) { serve[min(int(c.n), len(serve))-1](c) }
}

const (
	fine      = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n"
	aGET      = "GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n"
	aPOST     = "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello"
	emptyPOST = "POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n"
	aPUT      = "PUT /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello"
	wasCut    = "cut"   // in place of a body
	wasReset  = "reset" // in place of a body
)

// outcome is what a client of the front has got.
type outcome struct {
	code int // 0 if there was no answer
	body string
	last bool // Connection: close
}

// passThrough sends requests on one connection, each after the answer to the one before and
// when ready says so, and returns the last outcome.
func passThrough(t *testing.T, url string, ready func() bool, requests ...string) (got outcome) {
	t.Helper()
	conn, r := dial(t, host(url))
	for i, request := range requests {
		if i > 0 {
			eventually(t, "next request", ready)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		got = readOutcome(r)
	}
	return got
}

func readOutcome(r *bufio.Reader) outcome {
	resp, err := http.ReadResponse(r, nil)
	for err == nil && resp.StatusCode == http.StatusProcessing {
		resp, err = http.ReadResponse(r, nil)
	}
	if err != nil {
		return outcome{}
	}
	body, err := io.ReadAll(resp.Body)
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return outcome{resp.StatusCode, wasReset, resp.Close}
	case err != nil:
		return outcome{resp.StatusCode, wasCut, resp.Close}
	}
	return outcome{resp.StatusCode, string(body), resp.Close}
}

// frontCase is a row of docs/front.md.
type frontCase struct {
	name     string
	serve    func(c *fakeConn)
	requests []string // on one connection
	code     int
	body     string // its beginning
	sent     int64  // requests that the upstream has seen
	last     bool   // the client's connection ends with it
	waits    bool   // the second request comes when the upstream is ready
	environ  []string
	check    func(t *testing.T, up *fakeUpstream) // of what the upstream saw
}

// isRefused is the beginning of the JSON of an error.
func isRefused(code string) string { return `{"error":"` + code + `"` }

var (
	malformed = isRefused("upstream-malformed")
	closed    = isRefused("upstream-closed")
	cutHeader = isRefused("upstream-cut")
	silentOne = isRefused("upstream-silent")
)

// noAnswer takes a request and closes the connection.
func noAnswer(c *fakeConn) { c.request() }

// keptThen answers one request, and does something else with the second.
func keptThen(then func(c *fakeConn)) func(c *fakeConn) {
	return byConn(func(c *fakeConn) {
		c.header()
		_, _ = io.WriteString(c, fine)
		then(c)
	}, answers(fine, fine))
}

// closedAfter is a kept connection that the upstream closes before the next request.
func closedBefore(says string) func(c *fakeConn) {
	return keptThen(func(c *fakeConn) {
		_, _ = io.WriteString(c, says)
		_ = c.CloseWrite()
		c.up.ready.Store(true)
		c.hold()
	})
}

// refusing is a row for an answer that is none.
func refusing(name, answer string) frontCase {
	return frontCase{name: name, serve: answers(answer), requests: []string{aGET}, code: 502, body: malformed, sent: 1}
}

// cutting is a row for an answer that ends too early.
func cutting(name, answer string) frontCase {
	return frontCase{name: name, serve: answers(answer), requests: []string{aGET}, code: 200, body: wasCut, sent: 1}
}

func frontCases() []frontCase {
	silent := func(c *fakeConn) { c.header(); c.hold() }
	quick := []string{"IMAGELAB_UPSTREAM_TIMEOUT=200ms"}
	return []frontCase{
		{name: "the upstream accepts and is silent", serve: silent, requests: []string{aGET}, code: 504, body: silentOne, sent: 1, environ: quick},
		{name: "it stops within the header", serve: func(c *fakeConn) {
			c.header()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-")
			c.hold()
		}, requests: []string{aGET}, code: 504, body: silentOne, sent: 1, environ: quick},
		{name: "it drips a header", serve: func(c *fakeConn) {
			c.header()
			text := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 10_000)
			for i := range text {
				if _, err := io.WriteString(c, text[i:i+1]); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}, requests: []string{aGET}, code: 504, body: silentOne, sent: 1, environ: quick},
		{name: "it closes a new connection, GET", serve: byConn(noAnswer, answers(fine)), requests: []string{aGET}, code: 200, body: "fine\n", sent: 2},
		{name: "it closes a new connection, POST", serve: byConn(noAnswer, answers(fine)), requests: []string{aPOST}, code: 502, body: closed, sent: 1},
		{name: "it closes two connections, GET", serve: noAnswer, requests: []string{aGET}, code: 502, body: closed, sent: 2},
		{name: "it resets a new connection, GET", serve: byConn(func(c *fakeConn) { c.header(); c.reset() }, answers(fine)), requests: []string{aGET}, code: 200, body: "fine\n", sent: 2},
		{name: "it closes a kept connection as a GET comes", serve: keptThen(noAnswer), requests: []string{aGET, aGET}, code: 200, body: "fine\n", sent: 3},
		{name: "it closes a kept connection as a GET comes, and the next", serve: byConn(func(c *fakeConn) {
			c.header()
			_, _ = io.WriteString(c, fine)
			noAnswer(c)
		}, noAnswer, answers(fine)), requests: []string{aGET, aGET}, code: 200, body: "fine\n", sent: 4},
		{name: "it keeps a connection, and a POST comes", serve: keptThen(noAnswer), requests: []string{aGET, aPOST}, code: 200, body: "fine\n", sent: 2},
		{name: "it keeps a connection, and a POST without a body comes", serve: keptThen(noAnswer), requests: []string{aGET, emptyPOST}, code: 200, body: "fine\n", sent: 2},
		{name: "it keeps a connection, and a PUT with a body comes", serve: keptThen(noAnswer), requests: []string{aGET, aPUT}, code: 200, body: "fine\n", sent: 2},
		{name: "it has closed a kept connection before a GET comes", serve: closedBefore(""), requests: []string{aGET, aGET}, code: 200, body: "fine\n", sent: 2, waits: true},
		{name: "it has sent something on a kept connection before a GET comes", serve: closedBefore("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"), requests: []string{aGET, aGET}, code: 200, body: "fine\n", sent: 2, waits: true},
		{name: "it closes within the header", serve: answers("HTTP/1.1 200 OK\r\nContent-Le"), requests: []string{aGET}, code: 502, body: cutHeader, sent: 1},
		{name: "it resets within the header", serve: func(c *fakeConn) {
			c.header()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			time.Sleep(50 * time.Millisecond) // a reset may overtake what was sent before it
			c.reset()
		}, requests: []string{aGET}, code: 502, body: cutHeader, sent: 1},
		refusing("it sends garbage", "SSH-2.0-OpenSSH_9.6\r\n"),
		refusing("it sends garbage before the status line", "\r\n"+fine),
		refusing("it speaks HTTP/2", "\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
		{name: "it sends an endless header", serve: func(c *fakeConn) {
			c.header()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, "X-%d: %0100d\r\n", i, i); err != nil {
					return
				}
			}
		}, requests: []string{aGET}, code: 502, body: isRefused("upstream-header-too-big"), sent: 1},
		refusing("it ends lines with a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
		refusing("it folds a line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
		refusing("it sends NUL in a field", "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n"),
		refusing("it sends Content-Length twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nfine\n"),
		refusing("it sends a Content-Length that is none", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nfine\n"),
		refusing("it sends Content-Length and Transfer-Encoding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		refusing("it sends a coding that is not chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		{name: "it switches to another protocol than the one asked for", serve: answers("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\n"),
			requests: []string{fmt.Sprintf(upgradeTo, "x")}, code: 502, body: malformed, sent: 1},
		refusing("it switches protocols unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
		cutting("its body is shorter than Content-Length", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfine\n"),
		{name: "its body is longer than Content-Length", serve: func(c *fakeConn) {
			answers(fine+"more", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")(c)
		}, requests: []string{aGET, aGET}, code: 200, body: "fine\n", sent: 2, check: func(t *testing.T, up *fakeUpstream) {
			if n := up.conns.Load(); n != 2 {
				t.Errorf("%d connections to the upstream, want another one for the second request", n)
			}
		}},
		{name: "it resets within the body", serve: func(c *fakeConn) {
			c.header()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfine\n")
			time.Sleep(50 * time.Millisecond)
			c.reset()
		}, requests: []string{aGET}, code: 200, body: wasCut, sent: 1},
		cutting("it closes within a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfine\n"),
		cutting("it sends a chunk that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfine\n\r\n-1\r\n"),
		{name: "it cuts an answer to HTTP/1.0", serve: answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfine\n"),
			requests: []string{"GET /a HTTP/1.0\r\n\r\n"}, code: 200, body: wasReset, sent: 1, last: true},
		{name: "its body ends with the connection", serve: answers("HTTP/1.0 200 OK\r\n\r\nfine\n"), requests: []string{aGET}, code: 200, body: "fine\n", sent: 1},
		{name: "it answers before the end of the body", serve: func(c *fakeConn) {
			c.header()
			_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch")
		}, requests: []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\nhello"}, code: 413, body: "much", sent: 1, last: true},
		{name: "the client is slow with its body", serve: silent, requests: []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhello"},
			code: 408, body: isRefused("body-too-slow"), sent: 1, last: true, environ: []string{"IMAGELAB_READ_TIMEOUT=200ms"}},
		{name: "the client sends a chunk that is none", serve: silent, requests: []string{"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"},
			code: 400, body: isRefused("bad-body"), sent: 1, last: true},
		{name: "the client names X-Forwarded-For in Connection", serve: answers(fine), requests: []string{"GET /a HTTP/1.1\r\nHost: x\r\nConnection: X-Forwarded-For, X-Mine\r\nX-Mine: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"},
			code: 200, body: "fine\n", sent: 1, check: func(t *testing.T, up *fakeUpstream) {
				seen := <-up.seen
				if !strings.Contains(seen, "\r\nX-Forwarded-For: 127.0.0.1\r\n") || strings.Contains(seen, "6.6.6.6") || strings.Contains(seen, "Mine") {
					t.Errorf("the upstream got %q, want X-Forwarded-For of the connection, and no X-Mine", seen)
				}
			}},
		{name: "the client sends Content-Length and Transfer-Encoding", serve: answers(fine), requests: []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
			code: 200, body: "fine\n", sent: 1, last: true, check: func(t *testing.T, up *fakeUpstream) {
				if seen := <-up.seen; strings.Contains(seen, "Content-Length") || !strings.Contains(seen, "\r\nTransfer-Encoding: chunked\r\n") {
					t.Errorf("the upstream got %q, want Transfer-Encoding alone", seen)
				}
			}},
		{name: "the client sends two different lengths", serve: answers(fine), requests: []string{"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello"},
			code: 400, body: "400 Bad Request", sent: 0, last: true},
	}
}

// otherFrontCases are the rows of docs/front.md that have a test of their own.
var otherFrontCases = map[string]func(t *testing.T){
	"nothing listens":                     testNothingListens,
	"it listens while the request waits":  testItListensLater,
	"the client closes within its body":   testClientClosesWithinItsBody,
	"the client goes away":                testClientGoesAway,
	"the client sends no more, and waits": testClientSendsNoMore,
}

func TestWhatGoesWrongBehindTheFront(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, tc := range frontCases() {
		names[tc.name] = true
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			up := startUpstream(t, tc.serve)
			in := start(t, append(tc.environ, "IMAGELAB_UPSTREAM=http://"+up.addr)...)
			got := passThrough(t, in.app, func() bool { return !tc.waits || up.ready.Load() }, tc.requests...)
			if got.code != tc.code || !strings.HasPrefix(got.body, tc.body) || got.last != tc.last {
				t.Errorf("got %+v, want %d %q, last %t; log:\n%s", got, tc.code, tc.body, tc.last, in.log)
			}
			eventually(t, "requests", func() bool { return up.requests.Load() >= tc.sent })
			if n := up.requests.Load(); n != tc.sent {
				t.Errorf("the upstream has seen %d requests, want %d", n, tc.sent)
			}
			if tc.check != nil {
				tc.check(t, up)
			}
		})
	}
	for name, test := range otherFrontCases {
		names[name] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
	for _, row := range frontRows(t) {
		if !names[row] {
			t.Errorf("docs/front.md has the row %q, which has no test", row)
		}
		delete(names, row)
	}
	for name := range names {
		t.Errorf("docs/front.md has no row %q", name)
	}
}

// frontRows are the first cells of the table of docs/front.md.
func frontRows(t *testing.T) (rows []string) {
	t.Helper()
	text, err := os.ReadFile("docs/front.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "-") {
			continue
		}
		if row := strings.TrimSpace(cells[1]); row != "what happens" {
			rows = append(rows, row)
		}
	}
	return rows
}

func testNothingListens(t *testing.T) {
	in := start(t, "IMAGELAB_UPSTREAM=http://"+freeAddress(t), "IMAGELAB_UPSTREAM_WAIT=300ms")
	began := time.Now()
	resp, body := fetch(t, "POST", in.app+"/a", "hello")
	if resp.StatusCode != 503 || !strings.HasPrefix(body, isRefused("upstream-not-there")) || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("got %d %q, Retry-After %q", resp.StatusCode, body, resp.Header.Get("Retry-After"))
	}
	if waited := time.Since(began); waited < 300*time.Millisecond {
		t.Errorf("it waited for %v, want IMAGELAB_UPSTREAM_WAIT", waited)
	}
}

func testItListensLater(t *testing.T) {
	addr := freeAddress(t)
	in := start(t, "IMAGELAB_UPSTREAM=http://"+addr, "IMAGELAB_UPSTREAM_WAIT=20s")
	got := make(chan outcome, 20)
	for range cap(got) {
		go func() { got <- passThrough(t, in.app, nil, aPOST) }()
	}
	eventually(t, "requests that wait", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, "imagelab_upstream_waiting 20")
	})
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	up := &fakeUpstream{seen: make(chan string, 100)}
	go up.accept(ln, func(c *fakeConn) { answers(fine, fine, fine)(c) })
	for range cap(got) {
		if o := <-got; o.code != 200 || o.body != "fine\n" {
			t.Errorf("a request that waited got %+v", o)
		}
	}
}

func testClientClosesWithinItsBody(t *testing.T) {
	ended := make(chan error, 1)
	up := startUpstream(t, func(c *fakeConn) {
		c.header()
		_, err := io.ReadFull(c.r, make([]byte, 10))
		ended <- err
	})
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
	conn, _ := dial(t, host(in.app))
	_, _ = io.WriteString(conn, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	eventually(t, "request", func() bool { return up.requests.Load() == 1 })
	conn.Close()
	if err := <-ended; err == nil || isTimeout(err) {
		t.Errorf("the upstream's read ended with %v, want the end of the connection", err)
	}
}

func testClientGoesAway(t *testing.T) {
	ended := make(chan error, 1)
	up := startUpstream(t, func(c *fakeConn) {
		c.header()
		_, err := c.r.ReadByte()
		ended <- err
	})
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
	conn, _ := dial(t, host(in.app))
	_, _ = io.WriteString(conn, aGET)
	eventually(t, "request", func() bool { return up.requests.Load() == 1 })
	conn.Close()
	if err := <-ended; err != io.EOF {
		t.Errorf("the upstream's read ended with %v, want the end of the connection", err)
	}
	eventually(t, "count of a request without an answer", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, `imagelab_http_requests_total{code="499",method="GET",route="upstream",server="app"} 1`) &&
			strings.Contains(body, `imagelab_upstream_failures_total{reason="abandoned"} 1`)
	})
}

func testClientSendsNoMore(t *testing.T) {
	release := make(chan struct{})
	up := startUpstream(t, func(c *fakeConn) {
		c.header()
		<-release
		_, _ = io.WriteString(c, fine)
	})
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
	conn, r := dial(t, host(in.app))
	_, _ = io.WriteString(conn, aGET)
	_ = conn.(*net.TCPConn).CloseWrite()
	// The first of these says that it is known.
	line, err := r.ReadString('\n')
	if line != "HTTP/1.1 102 Processing\r\n" || err != nil {
		t.Fatalf("got %q, %v, want 102", line, err)
	}
	close(release)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if got := readOutcome(r); got.code != 200 || got.body != "fine\n" {
		t.Errorf("got %+v, want the answer", got)
	}
}
