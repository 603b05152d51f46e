package probe_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"imagelab/internal/probe"
	"imagelab/internal/probe/probetest"
)

// patience is how long a test waits for something that should be there at once.
const patience = 20 * time.Second

// toProbe in the environment turns the test binary into a program that probes this
// URL, for what Go reads from the environment once in a process. hostToProbe is its
// Host header, and timeToProbe its time limit.
const (
	toProbe     = "TEST_BINARY_PROBES"
	hostToProbe = "TEST_BINARY_PROBES_HOST"
	timeToProbe = "TEST_BINARY_PROBES_TIMEOUT"
)

func TestMain(m *testing.M) {
	url, asked := os.LookupEnv(toProbe)
	if !asked {
		os.Exit(m.Run())
	}
	target, err := probe.Parse(url)
	if err != nil {
		fmt.Println(probe.Unhealthy(err))
		os.Exit(1)
	}
	opts := probe.Options{Timeout: patience}
	if timeout, err := time.ParseDuration(os.Getenv(timeToProbe)); err == nil {
		opts.Timeout = timeout
	}
	if host, given := os.LookupEnv(hostToProbe); given {
		opts.Headers = probe.Headers{{Name: "host", Value: host}}
	}
	line, healthy := probe.Run(context.Background(), []probe.Target{target}, opts)
	fmt.Println(line)
	if !healthy {
		os.Exit(1)
	}
}

// run probes the urls and checks what holds for every verdict. Its time limit is the
// patience of the tests unless opts have another.
func run(t *testing.T, opts probe.Options, urls ...string) (line string, healthy bool) {
	t.Helper()
	if opts.Timeout == 0 {
		opts.Timeout = patience
	}
	targets := make([]probe.Target, len(urls))
	for i, url := range urls {
		var err error
		if targets[i], err = probe.Parse(url); err != nil {
			line = probe.Unhealthy(err)
			probetest.CheckVerdict(t, line, false)
			return line, false
		}
	}
	line, healthy = probe.Run(context.Background(), targets, opts)
	probetest.CheckVerdict(t, line, healthy)
	return line, healthy
}

// runProcess probes the url from a process of its own, with environ alone.
func runProcess(t *testing.T, environ []string, url string) (line string, healthy bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(environ, toProbe+"="+url)
	stdout, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	line, healthy = strings.TrimSuffix(string(stdout), "\n"), cmd.ProcessState.ExitCode() == 0
	probetest.CheckVerdict(t, line, healthy)
	return line, healthy
}

// headers are what --header gives.
func headers(t *testing.T, lines ...string) (all probe.Headers) {
	t.Helper()
	for _, line := range lines {
		if err := all.Set(line); err != nil {
			t.Fatalf("Set(%q) = %v", line, err)
		}
	}
	return all
}

func TestRunJudgesTheAnswer(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tc := range []struct {
		name      string
		opts      probe.Options
		answer    func(net.Conn, string)
		unhealthy bool
		want      string // what the line contains
	}{
		{name: "200", answer: probetest.Say(ok + "Content-Length: 2\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "200 until the end of the connection", answer: probetest.Say(ok + "\r\nok"), want: "healthy: 200 in "},
		{name: "204", answer: probetest.Say("HTTP/1.1 204 No Content\r\n\r\n"), want: "healthy: 204 in "},
		{name: "204 on a connection that stays open", answer: func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			probetest.Hold(c, "")
		}, want: "healthy: 204 in "},
		{name: "HTTP/1.0", answer: probetest.Say("HTTP/1.0 200 OK\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "status without a reason", answer: probetest.Say("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "newlines without carriage return", answer: probetest.Say("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), want: "healthy: 200 in "},
		{name: "chunks", answer: probetest.Say(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "chunks with a trailer", answer: probetest.Say(ok + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n"), want: "healthy: 200 in "},
		{name: "chunks, named in capitals", answer: probetest.Say(ok + "TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "chunks in HTTP/1.0", answer: probetest.Say("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "chunks on a connection that stays open", answer: stayOpen(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "identity", answer: probetest.Say(ok + "Transfer-Encoding: identity\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "identity and a length", answer: stayOpen(ok + "transfer-encoding:Identity\r\nContent-Length: 2\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "identity with a truncated body", answer: probetest.Say(ok + "Transfer-Encoding: identity\r\nContent-Length: 9\r\n\r\nok"), unhealthy: true, want: "its body broke off"},
		{name: "identity in an interim answer", answer: probetest.Say("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: identity\r\n\r\n" + ok + "\r\n"), want: "healthy: 200 in "},
		{name: "gzip in chunks", answer: stayOpen(ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "gzip in chunks, a line each", answer: stayOpen(ok + "Transfer-Encoding: gzip\r\nX: y\r\nTransfer-Encoding: chunked\r\nX: z\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "gzip in chunks, folded", answer: stayOpen(ok + "Transfer-Encoding: gzip,\r\n\tchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "gzip in chunks that are truncated", answer: probetest.Say(ok + "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nok"), unhealthy: true, want: "its body broke off"},
		{name: "chunks with identity around", answer: stayOpen(ok + "Transfer-Encoding: chunked, identity,\r\n\r\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "chunks in another coding", answer: probetest.Say(ok + "Transfer-Encoding: chunked, gzip\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "unknown transfer coding", answer: probetest.Say(ok + "Transfer-Encoding: x-own\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "no transfer coding", answer: probetest.Say(ok + "Transfer-Encoding:\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "another header that is folded", answer: probetest.Say(ok + "X: y,\r\n chunked\r\nContent-Length: 2\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "content coding", answer: probetest.Say(ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"), want: "healthy: 200 in "},
		{name: "chunks after newlines without carriage return", answer: stayOpen("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\r\nok\r\n0\r\n\r\n"), want: "healthy: 200 in "},
		{name: "more than the length", answer: probetest.Say(ok + "Content-Length: 2\r\n\r\nok and more"), want: "healthy: 200 in "},
		{name: "HTTP/0.9", answer: probetest.Say("<html>ok</html>\n"), unhealthy: true, want: `no HTTP answer: malformed HTTP response "<html>ok</html>" http://`},
		{name: "reset in the body", answer: func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, ok+"Content-Length: 3\r\n\r\no")
			_ = c.(*net.TCPConn).SetLinger(0)
		}, unhealthy: true, want: "http://"},
		{name: "alert of TLS", answer: stayOpen("\x15\x03\x01\x00\x02\x02\x0a"), unhealthy: true, want: "no HTTP answer: the port speaks TLS, use https:// http://"},
		{name: "another protocol on a connection that stays open", answer: stayOpen("220 mail.example.org ESMTP"), unhealthy: true, want: `malformed HTTP response "220 mail.example.org ESMTP" http://`},
		{name: "another protocol that begins as HTTP does", answer: stayOpen("HELO\r\n"), unhealthy: true, want: `malformed HTTP response "HELO" http://`},
		{name: "400 that speaks of HTTPS", answer: stayOpen("HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port"), unhealthy: true, want: "status 400, want 200-399: the port speaks TLS, use https:// http://"},
		{name: "400 that speaks of HTTPS in a moment", answer: func(c net.Conn, request string) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			time.Sleep(20 * time.Millisecond)
			stayOpen("Client sent an HTTP request to an HTTPS server.")(c, request)
		}, unhealthy: true, want: "use https:// http://"},
		{name: "400 that speaks of SSL", answer: probetest.Say("HTTP/1.1 400 Bad Request\r\n\r\nYou're speaking plain HTTP to an SSL-enabled server port."), unhealthy: true, want: "use https:// http://"},
		{name: "400 of another kind", answer: stayOpen("HTTP/1.1 400 Bad Request\r\n\r\nno"), unhealthy: true, want: "status 400, want 200-399 http://"},
		{name: "404 that speaks of HTTPS", answer: probetest.Say("HTTP/1.1 404 Not Found\r\n\r\nHTTPS"), unhealthy: true, want: "status 404, want 200-399 http://"},
		{name: "large body", answer: probetest.Say(ok + "Content-Length: 3000000\r\n\r\n" + strings.Repeat("x", 3000000)), want: "healthy: 200 in "},
		{name: "100 first", answer: probetest.Say("HTTP/1.1 100 Continue\r\n\r\n" + ok + "\r\n"), want: "healthy: 200 in "},
		{name: "103 twice first", answer: probetest.Say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ok + "\r\n"), want: "healthy: 200 in "},
		{name: "103 and then 500", answer: probetest.Say("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n"), unhealthy: true, want: "status 500, want 200-399"},
		{name: "103 for ever", answer: probetest.ForEver("", "HTTP/1.1 103 Early Hints\r\n\r\n"), unhealthy: true, want: "header over 65536 bytes"},
		{name: "101", answer: probetest.Say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), unhealthy: true, want: "status 101, want 200-399"},
		{name: "302", answer: probetest.Say("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), want: "healthy: 302 in "},
		{name: "302 where only 2xx is healthy", opts: probe.Options{Status: probe.StatusRange{Low: 200, High: 299}}, answer: probetest.Say("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), unhealthy: true, want: "status 302, want 200-299"},
		{name: "401 where that is healthy", opts: probe.Options{Status: probe.StatusRange{Low: 401, High: 401}}, answer: probetest.Say("HTTP/1.1 401 No\r\n\r\n"), want: "healthy: 401 in "},
		{name: "200 where 401 is healthy", opts: probe.Options{Status: probe.StatusRange{Low: 401, High: 401}}, answer: probetest.Say(ok + "\r\n"), unhealthy: true, want: "status 200, want 401"},
		{name: "404", answer: probetest.Say("HTTP/1.1 404 Not Found\r\n\r\n"), unhealthy: true, want: "status 404, want 200-399"},
		{name: "500", answer: probetest.Say("HTTP/1.1 500 Internal Server Error\r\n\r\n"), unhealthy: true, want: "status 500, want 200-399"},
		{name: "503 with a body that never ends", answer: probetest.ForEver("HTTP/1.1 503 Service Unavailable\r\n\r\n", "x"), unhealthy: true, want: "status 503, want 200-399"},
		{name: "HEAD has no body", opts: probe.Options{Method: "HEAD"}, answer: func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, ok+"Content-Length: 1000\r\n\r\n")
			probetest.Hold(c, "")
		}, want: "healthy: 200 in "},
		{name: "silent", opts: probe.Options{Timeout: 100 * time.Millisecond}, answer: probetest.Hold, unhealthy: true, want: "unhealthy: no answer within 100ms http://"},
		{name: "slow drip of a header", opts: probe.Options{Timeout: 100 * time.Millisecond}, answer: func(c net.Conn, _ string) {
			for _, b := range []byte(ok + "X: ") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
			probetest.Hold(c, "")
		}, unhealthy: true, want: "no answer within 100ms"},
		{name: "body that stops", opts: probe.Options{Timeout: 100 * time.Millisecond}, answer: func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, ok+"Content-Length: 3\r\n\r\no")
			probetest.Hold(c, "")
		}, unhealthy: true, want: "no answer within 100ms"},
		{name: "body without an end", opts: probe.Options{Timeout: 100 * time.Millisecond}, answer: probetest.ForEver(ok+"\r\n", "x"), unhealthy: true, want: "no answer within 100ms"},
		{name: "chunks without an end", opts: probe.Options{Timeout: 100 * time.Millisecond}, answer: probetest.ForEver(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), unhealthy: true, want: "no answer within 100ms"},
		{name: "header without an end", answer: probetest.ForEver(ok+"X: ", strings.Repeat("x", 1000)), unhealthy: true, want: "no HTTP answer: header over 65536 bytes"},
		{name: "header lines without an end", answer: probetest.ForEver(ok, "X: y\r\n"), unhealthy: true, want: "no HTTP answer: header over 65536 bytes"},
		{name: "status line without an end", answer: probetest.ForEver("HTTP/1.1 200 ", "x"), unhealthy: true, want: "no HTTP answer: header over 65536 bytes"},
		{name: "closed without a word", answer: probetest.Say(""), unhealthy: true, want: "no HTTP answer: the server closed the connection"},
		{name: "closed in the status line", answer: probetest.Say("HTTP/1.1 2"), unhealthy: true, want: "no HTTP answer: "},
		{name: "closed in the header", answer: probetest.Say(ok + "X: y\r\n"), unhealthy: true, want: "no HTTP answer: the server closed the connection"},
		{name: "reset", answer: func(c net.Conn, _ string) { _ = c.(*net.TCPConn).SetLinger(0) }, unhealthy: true, want: "connection reset by peer"},
		{name: "truncated body", answer: probetest.Say(ok + "Content-Length: 9\r\n\r\nok"), unhealthy: true, want: "status 200, but its body broke off: the server closed the connection"},
		{name: "truncated chunks", answer: probetest.Say(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nok"), unhealthy: true, want: "status 200, but its body broke off"},
		{name: "chunks that are none", answer: probetest.Say(ok + "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"), unhealthy: true, want: "status 200, but its body broke off"},
		{name: "garbage", answer: probetest.Say("SSH-2.0-OpenSSH_9.2\r\n"), unhealthy: true, want: "no HTTP answer: malformed HTTP"},
		{name: "garbage that is binary", answer: probetest.Say("\x00\xff\x15\x03\x01\r\n\r\n"), unhealthy: true, want: "no HTTP answer: "},
		{name: "garbage that steers a terminal", answer: probetest.Say("HTTP/1.1 \x1b]0;pwned\x07\x1b[2J\u009b2J\u202e 200\r\n\r\n"), unhealthy: true, want: "no HTTP answer: "},
		{name: "status that is none", answer: probetest.Say("HTTP/1.1 abc OK\r\n\r\n"), unhealthy: true, want: "no HTTP answer: "},
		{name: "status of four digits", answer: probetest.Say("HTTP/1.1 2000 OK\r\n\r\n"), unhealthy: true, want: "no HTTP answer: "},
		{name: "negative length", answer: probetest.Say(ok + "Content-Length: -1\r\n\r\n"), unhealthy: true, want: "no HTTP answer: "},
		{name: "line of any length", answer: probetest.Say(strings.Repeat("é", 3000) + "\r\n\r\n"), unhealthy: true, want: "no HTTP answer: "},
		{name: "long first line of another protocol", answer: probetest.Say(strings.Repeat("y", 59) + "zz\r\n"), unhealthy: true, want: `malformed HTTP response "` + strings.Repeat("y", 59) + `z" http://`},
		{name: "HTTP/2 without being asked", answer: probetest.Say("\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n"), unhealthy: true, want: "no HTTP answer: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ln := probetest.Serve(t, "tcp", "127.0.0.1:0", tc.answer)
			line, healthy := run(t, tc.opts, "http://"+ln.Addr().String()+"/health")
			if healthy == tc.unhealthy || !strings.Contains(line, tc.want) {
				t.Errorf("Run = %q, %v, want %q, %v", line, healthy, tc.want, !tc.unhealthy)
			}
		})
	}
}

// stayOpen answers with text and waits until the client has gone.
func stayOpen(text string) func(net.Conn, string) {
	return func(conn net.Conn, request string) {
		probetest.Say(text)(conn, request)
		probetest.Hold(conn, request)
	}
}

func TestRunSendsWhatIsAsked(t *testing.T) {
	t.Parallel()
	const own = "Host: ADDR\r\nUser-Agent: imagelab-healthcheck/v0.1.0\r\nAccept: */*\r\nConnection: close\r\n"
	for _, tc := range []struct {
		name string
		opts probe.Options
		user string // of the URL
		path string
		want string // with ADDR for the address
	}{
		{name: "nothing", want: "GET / HTTP/1.1\r\n" + own + "\r\n"},
		{name: "a path and a query", path: "/a%20b c?x=%0d%0a&y=%20#fragment", want: "GET /a%20b%20c?x=%0d%0a&y=%20 HTTP/1.1\r\n" + own + "\r\n"},
		{name: "spaces and other bytes that a request line does not carry", path: "/a b\"<>[c]/é?d e={\\}|^`é%",
			want: "GET /a%20b%22%3C%3E%5Bc%5D/%C3%A9?d%20e=%7B%5C%7D%7C%5E%60%C3%A9%25 HTTP/1.1\r\n" + own + "\r\n"},
		{name: "all bytes that it does", path: "/azAZ09-._~!$&'()*+,;=:@/?azAZ09-._~!$&'()*+,;=:@/?",
			want: "GET /azAZ09-._~!$&'()*+,;=:@/?azAZ09-._~!$&'()*+,;=:@/? HTTP/1.1\r\n" + own + "\r\n"},
		{name: "bytes beside letters and digits", path: "/[`{^", want: "GET /%5B%60%7B%5E HTTP/1.1\r\n" + own + "\r\n"},
		{name: "what is encoded already", path: "/%2f%2F%c3%A9%zz%4?%", want: "GET /%2f%2F%c3%A9%25zz%254?%25 HTTP/1.1\r\n" + own + "\r\n"},
		{name: "slashes", path: "//a//b/../c", want: "GET //a//b/../c HTTP/1.1\r\n" + own + "\r\n"},
		{name: "a fragment without a path", path: "#x?y", want: "GET / HTTP/1.1\r\n" + own + "\r\n"},
		{name: "an empty query", path: "/a?", want: "GET /a? HTTP/1.1\r\n" + own + "\r\n"},
		{name: "a query without a path", path: "?x=y", want: "GET /?x=y HTTP/1.1\r\n" + own + "\r\n"},
		{name: "HEAD", opts: probe.Options{Method: "HEAD"}, want: "HEAD / HTTP/1.1\r\n" + own + "\r\n"},
		{name: "POST has a length", opts: probe.Options{Method: "POST"}, want: "POST / HTTP/1.1\r\n" + own + "Content-Length: 0\r\n\r\n"},
		{name: "headers of its own", opts: probe.Options{Headers: headers(t, "host: example.org", "USER-AGENT:me", "Accept:  text/plain ")},
			want: "GET / HTTP/1.1\r\nConnection: close\r\nhost: example.org\r\nUSER-AGENT: me\r\nAccept: text/plain\r\n\r\n"},
		{name: "other headers, one twice and one empty", opts: probe.Options{Headers: headers(t, "X-A: 1:2", "X-A: 3", "X-B:")},
			want: "GET / HTTP/1.1\r\n" + own + "X-A: 1:2\r\nX-A: 3\r\nX-B: \r\n\r\n"},
		{name: "user and password", user: "me:p%40ss@", want: "GET / HTTP/1.1\r\n" + own + "Authorization: Basic bWU6cEBzcw==\r\n\r\n"},
		{name: "user alone", user: "me@", want: "GET / HTTP/1.1\r\n" + own + "Authorization: Basic bWU6\r\n\r\n"},
		{name: "a token instead of the user", user: "me:pass@", opts: probe.Options{Headers: headers(t, "Authorization: Bearer x")},
			want: "GET / HTTP/1.1\r\n" + own + "Authorization: Bearer x\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan string, 1)
			addr := probetest.Serve(t, "tcp", "127.0.0.1:0", func(conn net.Conn, request string) {
				requests <- request
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			}).Addr().String()
			if line, healthy := run(t, tc.opts, "http://"+tc.user+addr+tc.path); !healthy {
				t.Fatalf("Run = %q, want it healthy", line)
			}
			if got, want := <-requests, strings.ReplaceAll(tc.want, "ADDR", addr); got != want {
				t.Errorf("Run sent %q, want %q", got, want)
			}
		})
	}
}

func TestRunReachesEveryKindOfTarget(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" || r.Host == "" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(plain.Close)
	addr := plain.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)

	// A path of a socket is at most 107 bytes, a message shows fewer, and a folder of the
	// test's own is often longer.
	dir, err := os.MkdirTemp("/tmp", "probe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "app.sock")
	var overUnix atomic.Value
	probetest.Serve(t, "unix", socket, func(conn net.Conn, request string) {
		overUnix.Store(request)
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	mail, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	neither := mail.Addr().String()
	t.Cleanup(func() { mail.Close() })
	go func() {
		for {
			conn, err := mail.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 mail.example.org ESMTP\r\n")
		}
	}()
	gone := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Hold)
	refused := gone.Addr().String()
	gone.Close()

	for _, tc := range []struct {
		name    string
		url     string
		healthy bool
		want    string
	}{
		{"http", "http://" + addr + "/health", true, "healthy: 200 in "},
		{"http, scheme in capitals", "HTTP://" + addr + "/health", true, "healthy: 200 in "},
		{"http by name", "http://localhost:" + port + "/health", true, "healthy: 200 in "},
		{"tcp", "tcp://" + addr, true, "healthy: connected in "},
		{"unix without a path", "unix://" + socket, true, "healthy: connected in "},
		{"unix with a path", "unix://" + socket + ":/health?x=y:z é#z", true, "healthy: 204 in "},
		{"unix without a listener", "unix://" + dir + "/no.sock", false, "unhealthy: no such file or directory unix://"},
		{"unix path too long", "unix:///" + strings.Repeat("x", 107), false, "names a socket by 108 bytes: want at most 107"},
		{"unix path as long as it may be", "unix:///" + strings.Repeat("x", 106), false, "unhealthy: no such file or directory unix:///xxx"},
		{"unix without a path, but a colon", "unix://" + socket + ":", false, "has an HTTP path without /: want unix://" + socket + ":/"},
		{"refused", "http://" + refused + "/", false, "unhealthy: connection refused http://" + refused + "/"},
		{"tcp refused", "tcp://" + refused, false, "unhealthy: connection refused tcp://" + refused},
		{"port of zero", "http://127.0.0.1:0/", false, "unhealthy: "},
		{"port above", "http://127.0.0.1:65536/", false, "unhealthy: "},
		{"host that does not resolve", "http://no-such-host.invalid/", false, "http://no-such-host.invalid/"},
		{"https on a port that speaks http", "https://" + addr + "/", false, "TLS: the port speaks HTTP without TLS, use http:// https://" + addr + "/"},
		{"https on a port that speaks neither", "https://" + neither + "/", false, "TLS: the port does not speak TLS https://" + neither + "/"},
		{"http on a port that speaks https", "http://" + secure.Listener.Addr().String() + "/", false, "status 400, want 200-399: the port speaks TLS, use https:// http://"},
		{"password in what is printed", "http://me:hidden@" + refused + "/", false, "http://me:xxxxx@" + refused + "/"},
		{"password without a scheme", "me:hidden@" + refused, false, `"xxxxx@` + refused + `" is not a URL: want http://xxxxx@` + refused + "/"},
		{"password with one slash", "http:/me:hidden@" + refused, false, `"xxxxx@` + refused + `" is not a URL: want http://xxxxx@` + refused},
		{"password that is no port", "http://me:99999999hid/den@" + refused, false, "http://xxxxx@" + refused},
		{"password that breaks the URL", "http://me:hid/den@" + refused + "/", false, "http://xxxxx@" + refused + "/"},
		{"password without a host", "http://me:hidden@", false, "has no host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			line, healthy := run(t, probe.Options{}, tc.url)
			if healthy != tc.healthy || !strings.Contains(line, tc.want) || strings.Contains(line, "hid") {
				t.Errorf("Run(%s) = %q, %v, want %q, %v", tc.url, line, healthy, tc.want, tc.healthy)
			}
		})
	}
	t.Cleanup(func() {
		if got, _ := overUnix.Load().(string); !strings.HasPrefix(got, "GET /health?x=y:z%20%C3%A9 HTTP/1.1\r\nHost: localhost\r\n") {
			t.Errorf("over unix came %q, want GET /health?x=y:z%%20%%C3%%A9 of localhost", got)
		}
	})
}

func TestRunDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	var followed atomic.Int64
	elsewhere := probetest.Serve(t, "tcp", "127.0.0.1:0", func(net.Conn, string) { followed.Add(1) }).Addr().String()
	ln := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 302 Found\r\nLocation: http://"+elsewhere+"/\r\nContent-Length: 0\r\n\r\n"))
	if line, _ := run(t, probe.Options{}, "http://"+ln.Addr().String()); !strings.HasPrefix(line, "healthy: 302 ") {
		t.Errorf("Run = %q, want a healthy 302", line)
	}
	if followed.Load() != 0 {
		t.Error("Run followed a redirect")
	}
}

func TestRunOfSeveral(t *testing.T) {
	t.Parallel()
	up := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 200 OK\r\n\r\n")).Addr().String()
	down := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 500 No\r\n\r\n")).Addr().String()

	// Each answers when both have been asked.
	var both sync.WaitGroup
	both.Add(2)
	meet := func(conn net.Conn, _ string) {
		both.Done()
		both.Wait()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	}
	first, second := probetest.Serve(t, "tcp", "127.0.0.1:0", meet).Addr().String(), probetest.Serve(t, "tcp", "127.0.0.1:0", meet).Addr().String()

	for _, tc := range []struct {
		name string
		urls []string
		want string
	}{
		{"all healthy", []string{"http://" + up, "tcp://" + up, "http://" + up + "/x"}, "^healthy: all 3 in .*, first http://" + up + "$"},
		{"the first is not", []string{"http://" + down + "/a", "http://" + up}, "^unhealthy: 1 of 2 failed: status 500, want 200-399 http://" + down + "/a$"},
		{"the last is not", []string{"http://" + up, "http://" + down + "/b"}, "^unhealthy: 1 of 2 failed: status 500, want 200-399 http://" + down + "/b$"},
		{"none is", []string{"http://" + down + "/c", "http://" + down + "/d"}, "^unhealthy: 2 of 2 failed: .*/c$"},
		{"nothing", nil, "^unhealthy: nothing to probe$"},
		{"side by side", []string{"http://" + first, "http://" + second}, "^healthy: all 2 in "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if line, _ := run(t, probe.Options{}, tc.urls...); !regexp.MustCompile(tc.want).MatchString(line) {
				t.Errorf("Run(%q) = %q, want %q", tc.urls, line, tc.want)
			}
		})
	}
}

func TestRunVerifiesCertificates(t *testing.T) {
	t.Parallel()
	// The certificate is of example.com, 127.0.0.1 and ::1. The body is the name that the client has said.
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := r.TLS.ServerName; name != strings.TrimPrefix(r.URL.Path, "/") {
			http.Error(w, "the client says "+name, http.StatusTeapot)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(bundle, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	// A server on ::1 that ends in the one above.
	if ln, err := net.Listen("tcp6", "[::1]:"+port); err == nil {
		over6 := &http.Server{Handler: srv.Config.Handler, TLSConfig: srv.TLS, ErrorLog: srv.Config.ErrorLog}
		go func() { _ = over6.ServeTLS(ln, "", "") }()
		t.Cleanup(func() { over6.Close() })
	}
	const byAddress = "https://127.0.0.1:"
	known := "SSL_CERT_FILE=" + bundle
	for _, tc := range []struct {
		name    string
		environ []string
		url     string // its path is the name that the client should say
		want    string
	}{
		{"unknown authority", nil, byAddress + port, "unhealthy: TLS: x509: "},
		{"known authority", []string{known}, byAddress + port, "healthy: 200 in "},
		{"another name", []string{known}, "https://localhost:" + port,
			"unhealthy: TLS: the certificate is not for localhost: x509: certificate is valid for example.com, "},
		{"name of a Host header", []string{known, hostToProbe + "=example.com"}, byAddress + port + "/example.com", "healthy: 200 in "},
		{"name and port of a Host header", []string{known, hostToProbe + "=example.com:8443"}, byAddress + port + "/example.com", "healthy: 200 in "},
		{"another name of a Host header", []string{known, hostToProbe + "=other.test"}, byAddress + port, "unhealthy: TLS: the certificate is not for other.test: "},
		{"address of a Host header", []string{known, hostToProbe + "=127.0.0.1"}, byAddress + port, "healthy: 200 in "},
		{"address in brackets of a Host header", []string{known, hostToProbe + "=[::1]"}, byAddress + port, "healthy: 200 in "},
		{"empty Host header", []string{known, hostToProbe + "="}, byAddress + port, "healthy: 200 in "},
		{"IPv6", []string{known}, "https://[::1]:" + port, "healthy: 200 in "},
		{"IPv6 with a zone", []string{known}, "https://[::1%25lo]:" + port, "healthy: 200 in "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(tc.url, "127.0.0.1") {
				if conn, err := net.Dial("tcp6", "[::1]:"+port); strings.Contains(tc.url, "::1") && err != nil {
					t.Skipf("kernel: no ::1 here: %v", err)
				} else if err == nil {
					conn.Close()
				}
			}
			if line, _ := runProcess(t, tc.environ, tc.url); !strings.HasPrefix(line, tc.want) {
				t.Errorf("Run(%s) with %q = %q, want %q", tc.url, tc.environ, line, tc.want)
			}
		})
	}
	t.Run("not asked", func(t *testing.T) {
		t.Parallel()
		if line, _ := run(t, probe.Options{Insecure: true}, byAddress+port); !strings.HasPrefix(line, "healthy: 200 in ") {
			t.Errorf("Run = %q, want it healthy", line)
		}
	})
	t.Run("silent handshake", func(t *testing.T) {
		t.Parallel()
		ln := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Hold)
		line, _ := run(t, probe.Options{Timeout: 100 * time.Millisecond}, "https://"+ln.Addr().String())
		if !strings.HasPrefix(line, "unhealthy: no answer within 100ms https://") {
			t.Errorf("Run = %q, want no answer", line)
		}
	})
}

func TestRunIgnoresProxies(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	proxy := probetest.Serve(t, "tcp", "127.0.0.1:0", func(conn net.Conn, _ string) {
		asked.Add(1)
		_, _ = io.WriteString(conn, "HTTP/1.1 500 No\r\n\r\n")
	}).Addr().String()
	ln := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 204 No Content\r\n\r\n"))
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	var environ []string
	for _, name := range []string{"http_proxy", "https_proxy", "all_proxy"} {
		environ = append(environ, name+"=http://"+proxy, strings.ToUpper(name)+"=http://"+proxy)
	}
	// For loopback addresses Go would ignore a proxy anyway, and 0.0.0.0 is none.
	line, healthy := runProcess(t, environ, "http://0.0.0.0:"+port+"/")
	if !healthy || asked.Load() != 0 {
		t.Errorf("Run = %q, and the proxy was asked %d times, want it healthy and never", line, asked.Load())
	}
}

func TestRunOverIPv6(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("kernel: no ::1 here: %v", err)
	}
	ln.Close()
	requests := make(chan string, 1)
	addr := probetest.Serve(t, "tcp6", "[::1]:0", func(conn net.Conn, request string) {
		requests <- request
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	}).Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for _, host := range []string{"[::1]:", "[::1%25lo]:", "[::1%lo]:"} {
		url := "http://" + host + port + "/"
		line, healthy := run(t, probe.Options{}, url)
		if shown := strings.ReplaceAll(url, "%lo", "%25lo"); !healthy || !strings.HasSuffix(line, shown) {
			t.Fatalf("Run(%s) = %q, want it healthy", url, line)
		}
		if request := <-requests; !strings.Contains(request, "\r\nHost: "+addr+"\r\n") {
			t.Errorf("Run(%s) sent %q, want the host %s", url, request, addr)
		}
	}
}

func TestTheEarlierDeadlineCounts(t *testing.T) {
	t.Parallel()
	target, err := probe.Parse("http://" + probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Hold).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	short, long := 100*time.Millisecond, patience
	for _, tc := range []struct {
		name             string
		context, timeout time.Duration // zero for none
		want             string
	}{
		{"neither", 0, 0, "no answer within 2s"},
		{"the timeout", 0, short, "no answer within 100ms"},
		{"the context", short, 0, "the context ended"},
		{"the timeout is earlier", long, short, "no answer within 100ms"},
		{"the context is earlier", short, long, "the context ended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			if tc.context > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, tc.context, errors.New("the context ended"))
				defer cancel()
			}
			opts := probe.Options{Timeout: tc.timeout}
			if _, err := target.Probe(ctx, opts); err == nil || err.Error() != tc.want+" "+target.Name {
				t.Errorf("Probe = %v, want %q and the target", err, tc.want)
			}
			if _, err := target.Request(ctx, opts); err == nil || err.Error() != tc.want {
				t.Errorf("Request = %v, want %q", err, tc.want)
			}
		})
	}
}

// A file that nobody writes to blocks whoever opens it, whatever the deadline of the handshake.
func TestRunDoesNotWaitForFiles(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	fifo := filepath.Join(t.TempDir(), "ca.pem")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	line, _ := runProcess(t, []string{"SSL_CERT_FILE=" + fifo, timeToProbe + "=200ms"}, srv.URL)
	if want := "unhealthy: no answer within 200ms " + srv.URL; line != want {
		t.Errorf("Run = %q, want %q", line, want)
	}
}

func TestVerdictShowsReasonAndName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70) + "Y" + strings.Repeat("z", 70)
	down := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say(strings.Repeat("é", 2000))).Addr().String()
	up := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 204 No Content\r\n\r\n")).Addr().String()
	for _, tc := range []struct {
		name string
		urls []string
		want string
	}{
		{"long reason", []string{"http://" + down + "/health"}, `^unhealthy: no HTTP answer: malformed HTTP response "é+" http://` + down + `/health$`},
		{"long name", []string{"http://" + up + "/" + long}, `^healthy: 204 in (0s|[0-9]00µs|[0-9]+(\.[0-9])?ms|[0-9.]{1,6}s) http://` + up + `/x+\.\.\.z+$`},
		{"long name of several", []string{"http://" + up + "/" + long, "tcp://" + up}, "^healthy: all 2 in [0-9.]+.?s, first http://" + up + `/x+\.\.\.z+$`},
		{"both long", []string{"http://" + down + "/" + long, "tcp://" + up},
			`^unhealthy: 1 of 2 failed: no HTTP answer: malformed HTTP response "é+\.\.\. http://` + down + `/x+\.\.\.z+$`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if line, _ := run(t, probe.Options{}, tc.urls...); !regexp.MustCompile(tc.want).MatchString(line) {
				t.Errorf("Run(%q) = %q, want %q", tc.urls, line, tc.want)
			}
		})
	}
	// The name has at most 100 bytes, and the line has 200 with its newline.
	prefix := "http://" + up + "/"
	for extra, want := range map[int]string{100: "", 101: "..."} {
		url := prefix + strings.Repeat("x", extra-len(prefix))
		if line, _ := run(t, probe.Options{}, url); strings.Count(line, "...")*3 != len(want) {
			t.Errorf("Run(%s) = %q, want the %d bytes with %q", url, line, extra, want)
		}
	}
	for extra, want := range map[int]int{188: 199, 189: 199, 187: 198} {
		if line := probe.Unhealthy(errors.New(strings.Repeat("x", extra))); len(line) != want || strings.HasSuffix(line, "...") != (extra > 188) {
			t.Errorf("Unhealthy of %d bytes = %q with %d, want %d", extra, line, len(line), want)
		}
	}
}

func TestParseSaysWhatToWrite(t *testing.T) {
	t.Parallel()
	const any = "want http://, https://, tcp://host:port or unix:///path/of.sock[:/http/path]"
	const brackets = "does not parse: an IPv6 address has brackets, as in http://[::1]:8000/"
	for raw, want := range map[string]string{
		"":                       `"" is not a URL: ` + any,
		"--timeout":              `"--timeout" is not a URL: flags come before the URLs`,
		"localhost:8000":         `"localhost:8000" is not a URL: want http://localhost:8000/`,
		"localhost/x":            `"localhost/x" is not a URL: want http://localhost/x`,
		"8000":                   `"8000" is not a URL: want http://127.0.0.1:8000/`,
		":8000":                  `":8000" is not a URL: want http://127.0.0.1:8000/`,
		":8000/x":                `":8000/x" is not a URL: want http://127.0.0.1:8000/x`,
		"/health":                `"/health" is not a URL: want http://127.0.0.1:8000/health`,
		"/run/x.sock":            `"/run/x.sock" is not a URL: want unix:///run/x.sock`,
		"127.0.0.1":              `"127.0.0.1" is not a URL: want http://127.0.0.1/`,
		"::1":                    `"::1" is not a URL: want http://[::1]/`,
		"[::1]:80":               `"[::1]:80" is not a URL: want http://[::1]:80/`,
		"http":                   `"http" is not a URL: want http://http/`,
		"htt":                    `"htt" is not a URL: want http://htt/`,
		"httpd:80":               `"httpd:80" is not a URL: want http://httpd:80/`,
		"HTTP:/h":                `"HTTP:/h" is not a URL: want http://h`,
		"https//h/x":             `"https//h/x" is not a URL: want https://h/x`,
		"unix:run/x":             `"unix:run/x" is not a URL: want unix:///run/x`,
		"tcp:h:1":                `"tcp:h:1" is not a URL: want tcp://h:1`,
		"?x":                     `"?x" is not a URL: ` + any,
		"me:hidden@h":            `"xxxxx@h" is not a URL: want http://xxxxx@h/`,
		"htp://h":                `"htp://h" has an unknown scheme: ` + any,
		"http://h\x7f":           `"http://h\x7f" has a control character: ` + any,
		"http://h/\x1f":          `"http://h/\x1f" has a control character: ` + any,
		"http://":                `"http://" has no host: want http://127.0.0.1`,
		"http://:80/x":           `"http://:80/x" has no host: want http://127.0.0.1:80/x`,
		"tcp://":                 `"tcp://" has no host: ` + any,
		"http://me@":             `"http://xxxxx@" has no host: ` + any,
		"http://::1/":            `"http://::1/" ` + brackets,
		"http://[::1/":           `"http://[::1/" does not parse: ` + any,
		"http://h:x/":            `"http://h:x/" does not parse: ` + any,
		"http://\u00e9/":         `"http://é/" has a host that is not ASCII: write it as DNS does, such as xn--bcher-kva.example`,
		"http://\u0080/":         `"http://\u0080/" has a host that is not ASCII: write it as DNS does, such as xn--bcher-kva.example`,
		"http://h:0/":            `"http://h:0/" has a port out of range: want one from 1 to 65535`,
		"tcp://h:65536":          `"tcp://h:65536" has a port out of range: want one from 1 to 65535`,
		"tcp://h":                `"tcp://h" has no port: ` + any,
		"tcp://h:1/x":            `"tcp://h:1/x" has a path, and tcp:// only connects: want http://h:1/x`,
		"unix://x":               `"unix://x" has no absolute path: ` + any,
		"unix:///x:y":            `"unix:///x:y" has an HTTP path without /: want unix:///x:/y`,
		strings.Repeat("x", 59):  `"` + strings.Repeat("x", 59) + `" is not a URL: want http://` + strings.Repeat("x", 21) + "..." + strings.Repeat("x", 27) + "/",
		strings.Repeat("x/", 31): `"` + strings.Repeat("x/", 14) + "..." + strings.Repeat("x/", 14) + `" is not a URL: want http://` + strings.Repeat("x/", 10) + "x..." + strings.Repeat("x/", 14),
		"http://h:y/?x=\u00e9@":  `"http://xxxxx@" does not parse: ` + any,
	} {
		if target, err := probe.Parse(raw); err == nil || err.Error() != want {
			t.Errorf("Parse(%q) = %+v, %v, want %s", raw, target, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]probe.Target{
		"http://h":                  {Name: "http://h", Addrs: []string{"h:80"}, Host: "h", Path: "/"},
		"http://h:/a":               {Name: "http://h:/a", Addrs: []string{"h:80"}, Host: "h", Path: "/a"},
		"https://h?x#y":             {Name: "https://h?x", Addrs: []string{"h:443"}, Host: "h", Path: "/?x", TLS: true},
		"HTTPS://h:0443/ ":          {Name: "https://h:0443/%20", Addrs: []string{"h:0443"}, Host: "h:0443", Path: "/%20", TLS: true},
		"tcp://h:1":                 {Name: "tcp://h:1", Addrs: []string{"h:1"}, Host: "h:1"},
		"tcp://h:65535/":            {Name: "tcp://h:65535/", Addrs: []string{"h:65535"}, Host: "h:65535"},
		"unix:///x":                 {Name: "unix:///x", Network: "unix", Addrs: []string{"/x"}, Host: "localhost"},
		"unix:///x y:/a b#":         {Name: "unix:///x y:/a%20b", Network: "unix", Addrs: []string{"/x y"}, Host: "localhost", Path: "/a%20b"},
		"http://[fe80::1%eth0]:80/": {Name: "http://[fe80::1%25eth0]:80/", Addrs: []string{"[fe80::1%eth0]:80"}, Host: "[fe80::1]:80", Path: "/"},
		"http://[fe80::1%25eth0]:/": {Name: "http://[fe80::1%25eth0]:/", Addrs: []string{"[fe80::1%eth0]:80"}, Host: "[fe80::1]", Path: "/"},
		"http://[fe80::1%25e%20h]/": {Name: "http://[fe80::1%25e%20h]/", Addrs: []string{"[fe80::1%e h]:80"}, Host: "[fe80::1]", Path: "/"},
	} {
		if want.Network == "" {
			want.Network = "tcp"
		}
		if got, err := probe.Parse(raw); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", raw, got, err, want)
		}
	}
}

func TestFlagValues(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"204": "204", "100": "100", "599": "599", "200-399": "200-399", "204-204": "204", "100-599": "100-599",
		"2xx": "!want a range such as 200-299", "5XX": "!want a range such as 500-599", "xx": "!", "20x": "!", "": "!", "x": "!", "200-": "!", "-200": "!",
		"99": "!", "99-200": "!", "200-600": "!", "600": "!", "300-299": "!", "200,204": "!", "2xxx": "!", "x-200": "!",
	} {
		var status probe.StatusRange
		err := status.Set(text)
		got := status.String()
		if err != nil {
			got = "!" + err.Error()
		}
		if want == "!" {
			want = "!want a status such as 204 or a range such as 200-399"
		}
		if got != want {
			t.Errorf("StatusRange.Set(%q) = %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"A: b": "b", "A:b": "b", "a-!#$%&'*+.^_`|~09AZaz:": "", "A: \u00e9\tx": "\u00e9\tx", "A: ~": "~", "A: b:c ": "b:c",
		"": "!", "A": "!", ": b": "!", "A : b": "!", "A\x7f: b": "!", "\u00e9: b": "!", "A(: b": "!", "A: \x7f": "!", "A: \x1f": "!", "A: \n": "!", "A: x\x00": "!",
	} {
		var all probe.Headers
		err := all.Set(text)
		if refused := want == "!"; (err != nil) != refused || !refused && (len(all) != 1 || all[0].Value != want) {
			t.Errorf("Headers.Set(%q) = %v, %q, want %q", text, err, all, want)
		}
		if all.String() != "" {
			t.Errorf("Headers.String = %q, want nothing of what may be secret", all.String())
		}
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "connection refused"},
		{&net.OpError{Op: "dial", Err: &net.OpError{Op: "read", Err: errors.New("x")}}, "x"},
		{&net.DNSError{Name: "h", Err: "no such host", Server: "192.0.2.1"}, "h: no such host"},
		{io.EOF, "the server closed the connection"},
		{fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), "the server closed the connection"},
		{errors.New("another"), "another"},
	} {
		if got := probe.Reason(tc.err); got.Error() != tc.want {
			t.Errorf("Reason(%v) = %v, want %s", tc.err, got, tc.want)
		}
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	get := func(t *testing.T, url string) (*http.Response, error) {
		t.Helper()
		target, err := probe.Parse(url)
		if err != nil {
			t.Fatal(err)
		}
		return target.Request(context.Background(), probe.Options{Timeout: patience})
	}
	t.Run("any status has a body to read", func(t *testing.T) {
		t.Parallel()
		ln := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nwhy"))
		resp, err := get(t, "http://"+ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if content, err := io.ReadAll(resp.Body); err != nil || string(content) != "why" || resp.StatusCode != 500 {
			t.Errorf("Request = %d %q, %v, want 500 and why", resp.StatusCode, content, err)
		}
	})
	t.Run("closing the body ends what has no end", func(t *testing.T) {
		t.Parallel()
		ended := make(chan struct{})
		ln := probetest.Serve(t, "tcp", "127.0.0.1:0", func(conn net.Conn, request string) {
			probetest.ForEver("HTTP/1.1 200 OK\r\n\r\n", "x")(conn, request)
			close(ended)
		})
		resp, err := get(t, "http://"+ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the connection outlives the body")
		}
	})
	t.Run("of a target without a path", func(t *testing.T) {
		t.Parallel()
		if _, err := get(t, "tcp://127.0.0.1:1"); err == nil || err.Error() != "no path to request: tcp://127.0.0.1:1" {
			t.Errorf("Request = %v, want no path", err)
		}
	})
}

func FuzzRun(f *testing.F) {
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
	dir, err := os.MkdirTemp("/tmp", "fuzz")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	var number atomic.Int64
	f.Fuzz(func(t *testing.T, response []byte) {
		// A socket of the file system, as ports would run out.
		socket := fmt.Sprintf("%s/%d", dir, number.Add(1))
		probetest.Serve(t, "unix", socket, probetest.Say(string(response)))
		run(t, probe.Options{}, "unix://"+socket+":/")
	})
}

func TestRedactedHidesWhatStandsBeforeTheLastAt(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"http://h/":          "http://h/",
		"http://me:s/@t@h/":  "http://xxxxx@h/",
		"me:secret@h":        "xxxxx@h",
		"@h":                 "xxxxx@h",
		"unix:///run/s:/a@b": "unix://xxxxx@b",
	} {
		if got := probe.Redacted(raw); got != want {
			t.Errorf("Redacted(%q) = %q, want %q", raw, got, want)
		}
	}
}
