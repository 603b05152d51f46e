package main

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unicode/utf8"
)

// probe runs imagelab --healthcheck with args and checks what holds for every
// probe. Its time limit is the patience of the tests unless args have another.
func probe(t *testing.T, environ []string, args ...string) (code int, line string) {
	t.Helper()
	code, stdout, stderr := invoke(t, environ, append([]string{"--healthcheck", "--timeout", patience.String()}, args...)...)
	checkVerdict(t, code, stdout, stderr)
	return code, strings.TrimSuffix(stdout, "\n")
}

// checkVerdict checks that a probe printed one line that Docker can show, that
// no terminal obeys, and that says the same as its exit code.
func checkVerdict(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	line, whole := strings.CutSuffix(stdout, "\n")
	word := map[int]string{0: "healthy: ", 1: "unhealthy: "}[code]
	if word == "" || !whole || len(stdout) > 200 || !strings.HasPrefix(line, word) || stderr != "" {
		t.Errorf("probe = exit %d, stdout %q (%d bytes), stderr %q, want 0 or 1 and one line of at most 200 bytes", code, stdout, len(stdout), stderr)
	}
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("probe printed %q, want nothing but printable characters", line)
	}
}

// serveRaw accepts connections on a free port, reads a request's header from
// each, and hands it to answer together with the connection, which it closes
// afterwards.
func serveRaw(t testing.TB, network, addr string, answer func(conn net.Conn, request string)) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				var request strings.Builder
				r := bufio.NewReader(conn)
				for !strings.HasSuffix(request.String(), "\r\n\r\n") {
					b, err := r.ReadByte()
					if err != nil {
						return
					}
					request.WriteByte(b)
				}
				answer(conn, request.String())
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	return ln
}

// say answers with text and ends.
func say(text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) { _, _ = io.WriteString(conn, text) }
}

// hold waits until the client has gone.
func hold(conn net.Conn, _ string) { _, _ = io.Copy(io.Discard, conn) }

// forEver repeats text until the client has gone.
func forEver(first, text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) {
		_, err := io.WriteString(conn, first)
		for err == nil {
			_, err = io.WriteString(conn, text)
		}
	}
}

func TestProbeJudgesTheAnswer(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tc := range []struct {
		name   string
		args   []string
		answer func(net.Conn, string)
		code   int
		want   string // what the line contains
	}{
		{name: "200", answer: say(ok + "Content-Length: 2\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "200 until the end of the connection", answer: say(ok + "\r\nok"), want: "healthy: 200 in "},
		{name: "204", answer: say("HTTP/1.1 204 No Content\r\n\r\n"), want: "healthy: 204 in "},
		{name: "204 on a connection that stays open", answer: func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			hold(c, "")
		}, want: "healthy: 204 in "},
		{name: "HTTP/1.0", answer: say("HTTP/1.0 200 OK\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "status without a reason", answer: say("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "newlines without carriage return", answer: say("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), want: "healthy: 200 in "},
		{name: "chunks", answer: say(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "chunks with a trailer", answer: say(ok + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n"), want: "healthy: 200 in "},
		{name: "large body", answer: say(ok + "Content-Length: 3000000\r\n\r\n" + strings.Repeat("x", 3000000)), want: "healthy: 200 in "},
		{name: "100 first", answer: say("HTTP/1.1 100 Continue\r\n\r\n" + ok + "\r\n"), want: "healthy: 200 in "},
		{name: "103 twice first", answer: say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ok + "\r\n"), want: "healthy: 200 in "},
		{name: "103 and then 500", answer: say("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n"), code: 1, want: "status 500, want 200-399"},
		{name: "103 for ever", answer: forEver("", "HTTP/1.1 103 Early Hints\r\n\r\n"), code: 1, want: "header over 65536 bytes"},
		{name: "101", answer: say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), code: 1, want: "status 101, want 200-399"},
		{name: "302", answer: say("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), want: "healthy: 302 in "},
		{name: "302 where only 2xx is healthy", args: []string{"--status", "200-299"}, answer: say("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), code: 1, want: "status 302, want 200-299"},
		{name: "401 where that is healthy", args: []string{"--status", "401"}, answer: say("HTTP/1.1 401 No\r\n\r\n"), want: "healthy: 401 in "},
		{name: "200 where 401 is healthy", args: []string{"--status", "401"}, answer: say(ok + "\r\n"), code: 1, want: "status 200, want 401"},
		{name: "the last --status counts", args: []string{"--status", "500", "--status", "204"}, answer: say("HTTP/1.1 204 No\r\n\r\n"), want: "healthy: 204"},
		{name: "404", answer: say("HTTP/1.1 404 Not Found\r\n\r\n"), code: 1, want: "status 404, want 200-399"},
		{name: "500", answer: say("HTTP/1.1 500 Internal Server Error\r\n\r\n"), code: 1, want: "status 500, want 200-399"},
		{name: "503 with a body that never ends", answer: forEver("HTTP/1.1 503 Service Unavailable\r\n\r\n", "x"), code: 1, want: "status 503, want 200-399"},
		{name: "HEAD has no body", args: []string{"--method", "HEAD"}, answer: func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, ok+"Content-Length: 1000\r\n\r\n")
			hold(c, "")
		}, want: "healthy: 200 in "},
		{name: "silent", args: []string{"--timeout", "100ms"}, answer: hold, code: 1, want: "unhealthy: no answer within 100ms http://"},
		{name: "slow drip of a header", args: []string{"--timeout", "100ms"}, answer: func(c net.Conn, _ string) {
			for _, b := range []byte(ok + "X: ") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
			hold(c, "")
		}, code: 1, want: "no answer within 100ms"},
		{name: "body that stops", args: []string{"--timeout", "100ms"}, answer: func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, ok+"Content-Length: 3\r\n\r\no")
			hold(c, "")
		}, code: 1, want: "no answer within 100ms"},
		{name: "body without an end", args: []string{"--timeout", "100ms"}, answer: forEver(ok+"\r\n", "x"), code: 1, want: "no answer within 100ms"},
		{name: "chunks without an end", args: []string{"--timeout", "100ms"}, answer: forEver(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), code: 1, want: "no answer within 100ms"},
		{name: "header without an end", answer: forEver(ok+"X: ", strings.Repeat("x", 1000)), code: 1, want: "no HTTP answer: header over 65536 bytes"},
		{name: "header lines without an end", answer: forEver(ok, "X: y\r\n"), code: 1, want: "no HTTP answer: header over 65536 bytes"},
		{name: "status line without an end", answer: forEver("HTTP/1.1 200 ", "x"), code: 1, want: "no HTTP answer: header over 65536 bytes"},
		{name: "closed without a word", answer: say(""), code: 1, want: "no HTTP answer: the server closed the connection"},
		{name: "closed in the status line", answer: say("HTTP/1.1 2"), code: 1, want: "no HTTP answer: "},
		{name: "closed in the header", answer: say(ok + "X: y\r\n"), code: 1, want: "no HTTP answer: the server closed the connection"},
		{name: "reset", answer: func(c net.Conn, _ string) { _ = c.(*net.TCPConn).SetLinger(0) }, code: 1, want: "connection reset by peer"},
		{name: "truncated body", answer: say(ok + "Content-Length: 9\r\n\r\nok"), code: 1, want: "status 200, but its body broke off: the server closed the connection"},
		{name: "truncated chunks", answer: say(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nok"), code: 1, want: "status 200, but its body broke off"},
		{name: "chunks that are none", answer: say(ok + "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"), code: 1, want: "status 200, but its body broke off"},
		{name: "garbage", answer: say("SSH-2.0-OpenSSH_9.2\r\n"), code: 1, want: "no HTTP answer: malformed HTTP"},
		{name: "garbage that is binary", answer: say("\x00\xff\x15\x03\x01\r\n\r\n"), code: 1, want: "no HTTP answer: "},
		{name: "garbage that steers a terminal", answer: say("HTTP/1.1 \x1b]0;pwned\x07\x1b[2J\u009b2J\u202e 200\r\n\r\n"), code: 1, want: "no HTTP answer: "},
		{name: "status that is none", answer: say("HTTP/1.1 abc OK\r\n\r\n"), code: 1, want: "no HTTP answer: "},
		{name: "status of four digits", answer: say("HTTP/1.1 2000 OK\r\n\r\n"), code: 1, want: "no HTTP answer: "},
		{name: "negative length", answer: say(ok + "Content-Length: -1\r\n\r\n"), code: 1, want: "no HTTP answer: "},
		{name: "line of any length", answer: say(strings.Repeat("é", 3000) + "\r\n\r\n"), code: 1, want: "no HTTP answer: "},
		{name: "HTTP/2 without being asked", answer: say("\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n"), code: 1, want: "no HTTP answer: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ln := serveRaw(t, "tcp", "127.0.0.1:0", tc.answer)
			code, line := probe(t, nil, append(tc.args, "http://"+ln.Addr().String()+"/health")...)
			if code != tc.code || !strings.Contains(line, tc.want) {
				t.Errorf("probe = %d %q, want %d %q", code, line, tc.code, tc.want)
			}
		})
	}
}

func TestProbeSendsWhatIsAsked(t *testing.T) {
	t.Parallel()
	const own = "Host: ADDR\r\nUser-Agent: imagelab-healthcheck/dev\r\nAccept: */*\r\nConnection: close\r\n"
	for _, tc := range []struct {
		name string
		args []string
		user string // of the URL
		path string
		want string // with ADDR for the address
	}{
		{name: "nothing", want: "GET / HTTP/1.1\r\n" + own + "\r\n"},
		{name: "a path and a query", path: "/a%20b c?x=%0d%0a&y#fragment", want: "GET /a%20b%20c?x=%0d%0a&y HTTP/1.1\r\n" + own + "\r\n"},
		{name: "a query without a path", path: "?x=y", want: "GET /?x=y HTTP/1.1\r\n" + own + "\r\n"},
		{name: "HEAD", args: []string{"--method", "HEAD"}, want: "HEAD / HTTP/1.1\r\n" + own + "\r\n"},
		{name: "POST has a length", args: []string{"--method=POST"}, want: "POST / HTTP/1.1\r\n" + own + "Content-Length: 0\r\n\r\n"},
		{name: "headers of its own", args: []string{"--header", "host: example.org", "--header=USER-AGENT:me", "-header", "Accept:  text/plain "},
			want: "GET / HTTP/1.1\r\nConnection: close\r\nhost: example.org\r\nUSER-AGENT: me\r\nAccept: text/plain\r\n\r\n"},
		{name: "other headers, one twice and one empty", args: []string{"--header", "X-A: 1:2", "--header", "X-A: 3", "--header", "X-B:"},
			want: "GET / HTTP/1.1\r\n" + own + "X-A: 1:2\r\nX-A: 3\r\nX-B: \r\n\r\n"},
		{name: "user and password", user: "me:p%40ss@", want: "GET / HTTP/1.1\r\n" + own + "Authorization: Basic bWU6cEBzcw==\r\n\r\n"},
		{name: "user alone", user: "me@", want: "GET / HTTP/1.1\r\n" + own + "Authorization: Basic bWU6\r\n\r\n"},
		{name: "a token instead of the user", user: "me:pass@", args: []string{"--header", "Authorization: Bearer x"},
			want: "GET / HTTP/1.1\r\n" + own + "Authorization: Bearer x\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan string, 1)
			addr := serveRaw(t, "tcp", "127.0.0.1:0", func(conn net.Conn, request string) {
				requests <- request
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			}).Addr().String()
			code, line := probe(t, nil, append(tc.args, "http://"+tc.user+addr+tc.path)...)
			if code != 0 {
				t.Fatalf("probe = %d %q, want 0", code, line)
			}
			if got, want := <-requests, strings.ReplaceAll(tc.want, "ADDR", addr); got != want {
				t.Errorf("probe sent %q, want %q", got, want)
			}
		})
	}
}

func TestProbeReachesEveryKindOfTarget(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" || r.Host == "" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(plain.Close)
	addr := plain.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)

	// A path of a socket is at most 107 bytes, and a test's own is often longer.
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "app.sock")
	var overUnix atomic.Value
	serveRaw(t, "unix", socket, func(conn net.Conn, request string) {
		overUnix.Store(request)
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	gone := serveRaw(t, "tcp", "127.0.0.1:0", hold)
	refused := gone.Addr().String()
	gone.Close()

	for _, tc := range []struct {
		name string
		url  string
		code int
		want string
	}{
		{"http", "http://" + addr + "/health", 0, "healthy: 200 in "},
		{"http, scheme in capitals", "HTTP://" + addr + "/health", 0, "healthy: 200 in "},
		{"http by name", "http://localhost:" + port + "/health", 0, "healthy: 200 in "},
		{"tcp", "tcp://" + addr, 0, "healthy: connected in "},
		{"unix without a path", "unix://" + socket, 0, "healthy: connected in "},
		{"unix with a path", "unix://" + socket + ":/health?x=y:z", 0, "healthy: 204 in "},
		{"unix without a listener", "unix://" + dir + "/no.sock", 1, "unhealthy: no such file or directory unix://"},
		{"unix path too long", "unix:///" + strings.Repeat("x", 150), 1, "unhealthy: "},
		{"refused", "http://" + refused + "/", 1, "unhealthy: connection refused http://" + refused + "/"},
		{"tcp refused", "tcp://" + refused, 1, "unhealthy: connection refused tcp://" + refused},
		{"port of zero", "http://127.0.0.1:0/", 1, "unhealthy: "},
		{"port above", "http://127.0.0.1:65536/", 1, "unhealthy: "},
		{"host that does not resolve", "http://no-such-host.invalid/", 1, "http://no-such-host.invalid/"},
		{"https on a port that speaks http", "https://" + addr + "/", 1, "TLS: "},
		{"password in what is printed", "http://me:hidden@" + refused + "/", 1, "http://me:xxxxx@" + refused + "/"},
		{"password that breaks the URL", "http://me:hid/den@" + refused + "/", 1, "http://xxxxx@" + refused + "/"},
		{"password without a host", "http://me:hidden@", 1, "has no host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, line := probe(t, nil, tc.url)
			if code != tc.code || !strings.Contains(line, tc.want) || strings.Contains(line, "hid") {
				t.Errorf("probe of %s = %d %q, want %d %q", tc.url, code, line, tc.code, tc.want)
			}
		})
	}
	t.Cleanup(func() {
		if got, _ := overUnix.Load().(string); !strings.HasPrefix(got, "GET /health?x=y:z HTTP/1.1\r\nHost: localhost\r\n") {
			t.Errorf("over unix came %q, want GET /health?x=y:z of localhost", got)
		}
	})
}

func TestProbeDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	var followed atomic.Int64
	elsewhere := serveRaw(t, "tcp", "127.0.0.1:0", func(net.Conn, string) { followed.Add(1) }).Addr().String()
	ln := serveRaw(t, "tcp", "127.0.0.1:0", say("HTTP/1.1 302 Found\r\nLocation: http://"+elsewhere+"/\r\nContent-Length: 0\r\n\r\n"))
	if code, line := probe(t, nil, "http://"+ln.Addr().String()); code != 0 || !strings.HasPrefix(line, "healthy: 302 ") {
		t.Errorf("probe = %d %q, want 0 and 302", code, line)
	}
	if followed.Load() != 0 {
		t.Error("the probe followed a redirect")
	}
}

func TestProbeOverIPv6(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("kernel: no ::1 here: %v", err)
	}
	ln.Close()
	addr := serveRaw(t, "tcp6", "[::1]:0", say("HTTP/1.1 204 No Content\r\n\r\n")).Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for name, tc := range map[string]struct {
		environ []string
		args    []string
		want    string
	}{
		"as a literal":                         {nil, []string{"http://" + addr + "/"}, "http://" + addr + "/"},
		"of a server on ::1 alone":             {[]string{"PORT=" + port}, nil, "/health"},
		"of a server on the wildcard of IPv6":  {[]string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=::"}, nil, "/health"},
		"of a server that is configured on it": {[]string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=::1"}, nil, "http://" + addr + "/health"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, line := probe(t, tc.environ, tc.args...)
			if code != 0 || !strings.HasSuffix(line, tc.want) {
				t.Errorf("probe with %q %q = %d %q, want 0 %q", tc.environ, tc.args, code, line, tc.want)
			}
		})
	}
}

func TestProbeOfTheOwnServer(t *testing.T) {
	t.Parallel()
	in := start(t)
	_, port, _ := net.SplitHostPort(host(in.app))
	path := filepath.Join(t.TempDir(), "port")
	if err := os.WriteFile(path, []byte(port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		environ []string
		code    int
		want    string
	}{
		{"PORT", []string{"PORT=" + port}, 0, `^healthy: 200 in [0-9.]+(µs|ms|s) http://127\.0\.0\.1:` + port + `/health$`},
		{"PORT_FILE", []string{"PORT_FILE=" + path}, 0, "^healthy: 200 in "},
		{"wildcard", []string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=0.0.0.0"}, 0, "^healthy: 200 in "},
		{"name", []string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=localhost"}, 0, "^healthy: 200 in "},
		{"a configuration that serves nobody", []string{"PORT=" + port, "IMAGELAB_TYPO=1", "IMAGELAB_MAX_BODY=x"}, 0, "^healthy: 200 in "},
		{"another address", []string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=127.0.0.2"}, 1, "connection refused http://127.0.0.2:" + port},
		{"port of zero", []string{"PORT=0"}, 1, `^unhealthy: PORT="0": want a port from 1 to 65535, or a URL as argument$`},
		{"port that is a word", []string{"PORT=abc"}, 1, `PORT="abc": want a port`},
		{"port above", []string{"PORT=65536"}, 1, `PORT="65536": want a port`},
		{"port over two lines", []string{"PORT=1\n2"}, 1, `PORT="1\\n2": want a port`},
		{"port twice", []string{"PORT=1", "PORT_FILE=" + path}, 1, "PORT and PORT_FILE are both set"},
		{"port in a file that is missing", []string{"PORT_FILE=/no/such"}, 1, `PORT_FILE: "/no/such", read by uid`},
		{"address in a file that is missing", []string{"IMAGELAB_BIND_ADDRESS_FILE=/no/such"}, 1, "IMAGELAB_BIND_ADDRESS_FILE: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, line := probe(t, tc.environ)
			if code != tc.code || !regexp.MustCompile(tc.want).MatchString(line) {
				t.Errorf("probe with %q = %d %q, want %d %q", tc.environ, code, line, tc.code, tc.want)
			}
		})
	}
}

func TestProbeSeesADrain(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_DRAIN_DELAY=10m")
	in.signal(t, syscall.SIGTERM)
	eventually(t, "drain", func() bool { return in.log.find("draining") != nil })
	code, line := probe(t, nil, in.app+"/health")
	if code != 1 || !strings.Contains(line, "status 503, want 200-399") {
		t.Errorf("probe = %d %q, want 1 and status 503", code, line)
	}
}

func TestProbeOfSeveral(t *testing.T) {
	t.Parallel()
	up := serveRaw(t, "tcp", "127.0.0.1:0", say("HTTP/1.1 200 OK\r\n\r\n")).Addr().String()
	down := serveRaw(t, "tcp", "127.0.0.1:0", say("HTTP/1.1 500 No\r\n\r\n")).Addr().String()

	// Each answers when both have been asked.
	var both sync.WaitGroup
	both.Add(2)
	meet := func(conn net.Conn, _ string) {
		both.Done()
		both.Wait()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	}
	first, second := serveRaw(t, "tcp", "127.0.0.1:0", meet).Addr().String(), serveRaw(t, "tcp", "127.0.0.1:0", meet).Addr().String()

	for _, tc := range []struct {
		name string
		urls []string
		code int
		want string
	}{
		{"all healthy", []string{"http://" + up, "tcp://" + up, "http://" + up + "/x"}, 0, "^healthy: all 3 in .*, first http://" + up + "$"},
		{"the first is not", []string{"http://" + down + "/a", "http://" + up}, 1, "^unhealthy: 1 of 2 failed: status 500, want 200-399 http://" + down + "/a$"},
		{"the last is not", []string{"http://" + up, "http://" + down + "/b"}, 1, "^unhealthy: 1 of 2 failed: status 500, want 200-399 http://" + down + "/b$"},
		{"none is", []string{"http://" + down + "/c", "http://" + down + "/d"}, 1, "^unhealthy: 2 of 2 failed: .*/c$"},
		{"side by side", []string{"http://" + first, "http://" + second}, 0, "^healthy: all 2 in "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, line := probe(t, nil, tc.urls...)
			if code != tc.code || !regexp.MustCompile(tc.want).MatchString(line) {
				t.Errorf("probe of %q = %d %q, want %d %q", tc.urls, code, line, tc.code, tc.want)
			}
		})
	}
}

// probeProcess probes from a process of its own, for what Go reads from the
// process's environment.
func probeProcess(t *testing.T, environ []string, args ...string) (code int, line string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"--healthcheck", "--timeout", patience.String()}, args...)...)
	cmd.Env = append(environ, asProgram+"=1")
	code, stdout, stderr := execute(t, cmd)
	checkVerdict(t, code, stdout, stderr)
	return code, strings.TrimSuffix(stdout, "\n")
}

func TestProbeVerifiesCertificates(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(bundle, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	url := srv.URL + "/health"
	for _, tc := range []struct {
		name    string
		environ []string
		args    []string
		code    int
		want    string
	}{
		{"unknown authority", nil, []string{url}, 1, "unhealthy: TLS: tls: failed to verify certificate: x509: "},
		{"known authority", []string{"SSL_CERT_FILE=" + bundle}, []string{url}, 0, "healthy: 200 in "},
		{"not asked", nil, []string{"--insecure", url}, 0, "healthy: 200 in "},
		{"another name", []string{"SSL_CERT_FILE=" + bundle}, []string{"https://localhost:" + port}, 1, "x509: certificate is valid for example.com, "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, line := probeProcess(t, tc.environ, tc.args...)
			if code != tc.code || !strings.Contains(line, tc.want) {
				t.Errorf("probe of %q with %q = %d %q, want %d %q", tc.args, tc.environ, code, line, tc.code, tc.want)
			}
		})
	}
	t.Run("silent handshake", func(t *testing.T) {
		t.Parallel()
		ln := serveRaw(t, "tcp", "127.0.0.1:0", hold)
		code, line := probe(t, nil, "--timeout", "100ms", "https://"+ln.Addr().String())
		if code != 1 || !strings.HasPrefix(line, "unhealthy: no answer within 100ms https://") {
			t.Errorf("probe = %d %q, want no answer", code, line)
		}
	})
}

func TestProbeIgnoresProxies(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	proxy := serveRaw(t, "tcp", "127.0.0.1:0", func(conn net.Conn, _ string) {
		asked.Add(1)
		_, _ = io.WriteString(conn, "HTTP/1.1 500 No\r\n\r\n")
	}).Addr().String()
	ln := serveRaw(t, "tcp", "127.0.0.1:0", say("HTTP/1.1 204 No Content\r\n\r\n"))
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	var environ []string
	for _, name := range []string{"http_proxy", "https_proxy", "all_proxy"} {
		environ = append(environ, name+"=http://"+proxy, strings.ToUpper(name)+"=http://"+proxy)
	}
	// For loopback addresses Go would ignore a proxy anyway, and 0.0.0.0 is none.
	code, line := probeProcess(t, environ, "http://0.0.0.0:"+port+"/")
	if code != 0 || asked.Load() != 0 {
		t.Errorf("probe = %d %q, and the proxy was asked %d times, want 0 and never", code, line, asked.Load())
	}
}

func FuzzProbeResponse(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "HTTP", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\nffffffffffffffff\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n\r\n", "HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n\x00\x01",
		"HTTP/1.1 302 Found\r\nLocation: \x1b[2J\r\n\r\n", "HTTP/0.9 200\r\n\r\n", "HTTP/1.1 -1 x\r\n\r\n", "HTTP/1.1 200 \u009b2J\u202e\r\nA\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"\x16\x03\x01\x00\x01\x00", "\xff\xfe\xfd " + strings.Repeat("é", 300) + "\r\n",
	} {
		f.Add([]byte(seed))
	}
	dir, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	var number atomic.Int64
	f.Fuzz(func(t *testing.T, response []byte) {
		// A socket of the file system, as ports would run out.
		socket := fmt.Sprintf("%s/%d", dir, number.Add(1))
		serveRaw(t, "unix", socket, say(string(response)))
		probe(t, nil, "unix://"+socket+":/")
	})
}
