package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A message is one raw request to a server, and what may come back. POST stands for a path
// that takes it, as it differs between the listeners.
type message struct {
	name, send string
	from, to   int // the statuses that are right, both included
}

// wholeMessages are the complete requests of the public suite h1spec (uNetworking/h1spec on
// GitHub), which expects the same statuses. Its server echoes what is posted to every path.
var wholeMessages = []message{
	{"no version", "GET / \r\n\r\n", 400, 599},
	{"Expect without a body", "GET / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n", 200, 299},
	{"a plain GET", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, 299},
	{"names in any case, values with tabs or none", "GET / HTTP/1.1\r\nhoSt:\tlocalhost\r\nempty:\r\n\r\n", 200, 299},
	{"a name that is no token", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Invalid[]: test\r\n\r\n", 400, 499},
	{"no Host", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400, 499},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost.local\r\n\r\n", 400, 499},
	{"a negative length of more than a number holds",
		"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -123456789123456789123456789\r\n\r\n", 400, 499},
	{"a negative length", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1234\r\n\r\n", 400, 499},
	{"a length that is none", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n", 400, 499},
	{"an empty value", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Empty-Header: \r\n\r\n", 200, 299},
	{"a control character in a value", "GET / HTTP/1.1\r\nHost: localhost\r\nX-Bad-Control-Char: test\x07\r\n\r\n", 400, 499},
	{"a version that does not exist", "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400, 599},
	{"words before the method", "Extra lineGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 599},
	{"a bare CR where the header should end", "GET / HTTP/1.1\r\nHost: localhost\r\n\rSome-Header: Test\r\n\r\n", 400, 499},
	{"a body with a length", "POST HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 200, 299},
	{"a body in chunks",
		"POST HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n", 200, 299},
	{"a length beside chunks", "POST HTTP/1.1\r\nHost: localhost\r\ncontent-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\n" +
		"c\r\nHellO world1\r\n0\r\n\r\n", 200, 499},
}

// beginnings are the fragments of the suite: they may not be answered before the rest has
// come.
var beginnings = []string{
	"G", "GET ", "GET /hello", "GET /hello ", "GET /hello HTTP", "GET /hello HTTP/1.1", "GET /hello HTTP/1.1\r",
	"GET /hello HTTP/1.1\r\n", "GET /hello HTTP/1.1\r\nHos", "GET /hello HTTP/1.1\r\nHost:", "GET /hello HTTP/1.1\r\nHost: ",
	"GET /hello HTTP/1.1\r\nHost: localhost", "GET /hello HTTP/1.1\r\nHost: localhost\r",
	"GET /hello HTTP/1.1\r\nHost: localhost\r\n", "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r",
}

const wholeBeginning = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"

// moreMessages are siblings of those, from RFC 9110 and RFC 9112.
var moreMessages = []message{
	{"nothing but a method", "GET\r\n\r\n", 400, 400},
	{"no target", "GET HTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"no method", " / HTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"a method that is no token", "G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"two spaces behind the method", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"a space in the target", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"a target that is no path", "GET hello HTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"a tab for a space", "GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"a broken escape in the target", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"the version in small letters", "GET / http/1.1\r\nHost: x\r\n\r\n", 400, 400},
	{"a version of two digits", "GET / HTTP/1.10\r\nHost: x\r\n\r\n", 400, 400},
	{"HTTP/0.9", "GET /\r\n\r\n", 400, 400},
	{"HTTP/1.2, as which 1.1 is meant", "GET / HTTP/1.2\r\nHost: x\r\n\r\n", 200, 505},
	{"an absolute target", "GET http://localhost/ HTTP/1.1\r\nHost: x\r\n\r\n", 200, 200},
	{"a host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, 400},
	{"a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, 400},
	{"an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 200, 200},
	{"HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n", 200, 200},
	{"a space before the colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, 400},
	{"a space in a name", "GET / HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n", 400, 400},
	{"an empty name", "GET / HTTP/1.1\r\nHost: x\r\n: z\r\n\r\n", 400, 400},
	{"a line without a colon", "GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", 400, 400},
	{"a folded first line", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, 400},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400, 400},
	{"a bare CR in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400, 400},
	{"bytes beyond ASCII in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: \xfc\xff\r\n\r\n", 200, 200},
	{"a length with a plus sign", "POST HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400, 400},
	{"a length in hex", "POST HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", 400, 400},
	{"a length with a fraction", "POST HTTP/1.1\r\nHost: x\r\nContent-Length: 5.0\r\n\r\nhello", 400, 400},
	{"an empty length", "POST HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nhello", 400, 400},
	{"two lengths in a list", "POST HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello", 400, 400},
	{"two lengths that differ", "POST HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, 400},
	{"the same length twice", "POST HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 200, 400},
	{"an unknown coding", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nhello", 400, 501},
	{"a coding behind chunked", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, 501},
	{"chunked twice", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 501},
	{"an empty coding", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\nhello", 400, 501},
	{"an unknown expectation", "POST HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 5\r\n\r\nhello", 417, 417},
	{"a bare LF at the end of each line", "GET / HTTP/1.1\nHost: x\n\n", 200, 400},
	{"an empty line first", "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, 400},
	{"a target of 20,000 bytes", "GET /" + strings.Repeat("x", 20_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", 404, 431},
	{"a target of 40,000 bytes", "GET /" + strings.Repeat("x", 40_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431, 431},
	{"a name of 40,000 bytes", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("x", 40_000) + ": y\r\n\r\n", 431, 431},
	{"ten thousand headers", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 10_000) + "\r\n", 431, 431},
}

// badChunks are bodies that a route which reads them has to refuse.
var badChunks = []message{
	{"a size that is none", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n", 400, 400},
	{"a negative size", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", 400, 400},
	{"an empty size", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", 400, 400},
	{"a size with 0x", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400, 400},
	{"a size of more than a number holds", "POST HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
		strings.Repeat("f", 17) + "\r\nhello\r\n0\r\n\r\n", 400, 400},
}

// sendWhole sends all at once, sendBytes byte by byte.
func sendWhole(conn net.Conn, text string) {
	_, _ = io.WriteString(conn, text) // the server may have answered the beginning of it, and closed
}

func sendBytes(conn net.Conn, text string) {
	_ = conn.(*net.TCPConn).SetNoDelay(true)
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
	}
}

// check sends the message and compares what comes. An answer that says that the message was
// malformed ends the connection, and any other leaves it in order: the request that follows
// is answered, too.
func (m message) check(t *testing.T, addr, post string, send func(net.Conn, string)) {
	t.Helper()
	conn, r := dial(t, addr)
	text := m.send
	if rest, isPost := strings.CutPrefix(text, "POST "); isPost {
		text = "POST " + post + " " + rest
	}
	go send(conn, text)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("no answer: %v, want %d to %d", err, m.from, m.to)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatalf("half an answer: %v", err)
	}
	if resp.StatusCode < m.from || resp.StatusCode > m.to {
		t.Fatalf("answer = %s, want %d to %d", resp.Status, m.from, m.to)
	}
	refused := resp.StatusCode == 400 || resp.StatusCode == 417 || resp.StatusCode == 431 || resp.StatusCode >= 500
	if refused && !resp.Close {
		t.Errorf("answer = %s, and the connection stays", resp.Status)
	}
	if resp.Close {
		checkNothingFollows(t, r)
		return
	}
	sendWhole(conn, wholeBeginning)
	if next, err := http.ReadResponse(r, nil); err != nil || next.StatusCode != 404 {
		t.Errorf("the request that follows = %v, %v, want 404", next, err)
	}
}

// checkNothingFollows reads to the end of a connection.
func checkNothingFollows(t *testing.T, r *bufio.Reader) {
	t.Helper()
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("behind the last answer came %.100q", rest)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	for listener, at := range map[string]struct{ addr, post string }{
		"app": {host(in.app), "/echo"}, "ops": {host(in.ops), "/readyz/enable"},
	} {
		for how, send := range map[string]func(net.Conn, string){"whole": sendWhole, "byte by byte": sendBytes} {
			for suite, messages := range map[string][]message{"h1spec": wholeMessages, "more": moreMessages, "chunks": badChunks} {
				if suite == "chunks" && listener == "ops" {
					continue // nothing there reads a body
				}
				for _, m := range messages {
					t.Run(listener+"/"+suite+"/"+m.name+", "+how, func(t *testing.T) {
						t.Parallel()
						m.check(t, at.addr, at.post, send)
					})
				}
			}
		}
		for _, part := range beginnings {
			t.Run(listener+"/h1spec/waits behind "+part, func(t *testing.T) {
				t.Parallel()
				conn, r := dial(t, at.addr)
				sendWhole(conn, part)
				_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // as long as the suite waits
				if b, err := r.ReadByte(); err == nil || !isTimeout(err) {
					t.Fatalf("before the rest came %q, %v, want nothing", b, err)
				}
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				sendWhole(conn, strings.TrimPrefix(wholeBeginning, part))
				if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 404 {
					t.Errorf("answer = %v, %v, want 404", resp, err)
				}
			})
		}
	}
	t.Cleanup(func() {
		if got := in.metric(t, "imagelab_http_panics_total"); got != "0" {
			t.Errorf("panics = %s, want 0", got)
		}
	})
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

func TestTargetsInOtherFormsThanAPath(t *testing.T) {
	t.Parallel()
	in := start(t)
	badTarget := `{"error":"bad-target","want":"a path"}` + "\n"
	for _, tc := range []struct {
		method, target string
		code           int
		body           string
	}{
		{"GET", "http://other.example/", 200, "Hello from Docker! Rocket=Small\n"},
		{"GET", "http://other.example", 200, "Hello from Docker! Rocket=Small\n"},
		{"GET", "http://other.example?a=b", 200, "Hello from Docker! Rocket=Small\n"},
		{"GET", "http://other.example/nope", 404, notFound},
		{"OPTIONS", "*", 200, ""},
		{"GET", "*", 400, badTarget},
		{"BREW", "*", 400, badTarget},
		{"CONNECT", "other.example:443", 400, badTarget},
		{"CONNECT", "/", 405, no405},
		{"TRACE", "/", 405, no405},
	} {
		resp, body := exchangeRaw(t, host(in.app), tc.method, tc.method+" "+tc.target+" HTTP/1.1\r\nHost: other.example\r\n\r\n")
		if resp.StatusCode != tc.code || body != tc.body {
			t.Errorf("%s %s = %d %q, want %d %q", tc.method, tc.target, resp.StatusCode, body, tc.code, tc.body)
		}
	}
}

func TestTheSuiteIsWhole(t *testing.T) {
	t.Parallel()
	if n := len(wholeMessages) + len(beginnings); n != 33 {
		t.Errorf("%d requests of h1spec, want its 33", n)
	}
}
