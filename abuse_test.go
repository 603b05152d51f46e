package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// healthy fails the test unless a client of good manners is served.
func (in *instance) healthy(t *testing.T, when string) {
	t.Helper()
	if resp, _ := fetch(t, "GET", in.app+"/health", ""); resp.StatusCode != 200 {
		t.Errorf("%s: GET /health = %d, want 200", when, resp.StatusCode)
	}
}

func TestSlowClientsAreSentAway(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_READ_HEADER_TIMEOUT=300ms", "IMAGELAB_READ_TIMEOUT=2s", "IMAGELAB_WRITE_TIMEOUT=300ms",
		"IMAGELAB_STORE_MAX_BLOB=16MiB", "IMAGELAB_STORE_CAPACITY=17MiB")
	resp, err := client().Post(in.app+"/store", "", io.LimitReader(zeros{}, 16<<20))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	large := resp.Header.Get("Location")

	for _, tc := range []struct {
		name, send string
		answer     string // what comes before the end, if anything
		drip       bool   // a byte every 50 ms, for ever
		read       bool   // read what comes; otherwise let it pile up
	}{
		{name: "silent", read: true},
		{name: "half a header", send: "GET /health HTT", answer: "HTTP/1.1 400", read: true},
		{name: "header, byte by byte", send: "GET /health HTTP/1.1\r\nHost: x\r\nX: ", drip: true, read: true},
		{name: "body that stops", send: "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", answer: "HTTP/1.1 408", read: true},
		{name: "body, byte by byte", send: "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n", drip: true, answer: "HTTP/1.1 408", read: true},
		{name: "response that is not read", send: "GET " + large + " HTTP/1.1\r\nHost: x\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, r := dial(t, host(in.app))
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			if _, err := io.WriteString(conn, tc.send); err != nil {
				t.Fatal(err)
			}
			if tc.drip {
				go func() {
					for {
						if _, err := io.WriteString(conn, "x"); err != nil {
							return
						}
						time.Sleep(50 * time.Millisecond)
					}
				}()
			}
			if !tc.read {
				eventually(t, "count of the response that was cut", func() bool {
					return in.metric(t, `imagelab_http_requests_total{code="200",method="GET",route="/store/{sha256}",server="app"}`) == "1"
				})
				return
			}
			got, _ := io.ReadAll(r) // the server ends it, or the deadline of dial does
			if !strings.HasPrefix(string(got), tc.answer) || tc.answer == "" && len(got) > 0 {
				t.Errorf("answer = %q, want %q", got, tc.answer)
			}
		})
	}
	in.healthy(t, "meanwhile")
}

func TestTheCapOfConnectionsKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_MAX_CONNS=20", "IMAGELAB_READ_HEADER_TIMEOUT=1h")
	for range 100 {
		conn, _ := dial(t, host(in.app))
		fmt.Fprint(conn, "GET /health HTTP/1.1\r\n")
	}
	for range 10 {
		in.healthy(t, "with a hundred slow clients at a cap of twenty")
	}
	if in.metric(t, `imagelab_connections_closed_total{reason="evicted",server="app"}`) == "" {
		t.Error("no eviction was counted")
	}
	if got := in.metric(t, `imagelab_connections{server="app"}`); got > "20" && len(got) > 1 {
		t.Errorf("connections = %s, want at most 20", got)
	}
}

func TestTooManyUploadsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_MAX_IN_FLIGHT=8")
	for range 8 {
		conn, _ := dial(t, host(in.app))
		fmt.Fprint(conn, "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	}
	eventually(t, "uploads in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_rejected_total{reason="uploads"}`) == "4"
	})
	if resp, _ := fetch(t, "GET", in.app+"/", ""); resp.StatusCode != 200 {
		t.Errorf("GET / = %d, want 200", resp.StatusCode)
	}
	// Those that bring nothing keep their places for a second at most.
	eventually(t, "place for an upload", func() bool {
		resp, body := fetch(t, "POST", in.app+"/store", "x")
		if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
			t.Fatalf("POST /store = %d %q without Retry-After", resp.StatusCode, body)
		}
		return resp.StatusCode == 201
	})
}

func TestUnwantedBodiesHoldNoConnection(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_READ_TIMEOUT=1h", "IMAGELAB_MAX_CONNS=8")
	for range 8 {
		conn, answer := dial(t, host(in.app))
		fmt.Fprint(conn, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
		if resp, err := http.ReadResponse(answer, nil); err != nil || resp.StatusCode != 404 || !resp.Close {
			t.Errorf("POST /nothing without its body = %v, %v, want 404 and Connection: close", resp, err)
		}
	}
	in.healthy(t, "with unwanted bodies on every connection")

	conn, answer := dial(t, host(in.app))
	for range 2 {
		fmt.Fprint(conn, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nwhole")
		resp, err := http.ReadResponse(answer, nil)
		if err != nil || resp.StatusCode != 404 || resp.Close {
			t.Fatalf("POST /nothing with its body = %v, %v, want 404 on a connection that stays", resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}

func TestWithoutDescriptorsItRecovers(t *testing.T) {
	t.Parallel()
	in := startProcess(t, []string{"/bin/sh", "-c", `ulimit -n 20 && exec "$0"`}, // too few for the least of caps
		"IMAGELAB_READ_HEADER_TIMEOUT=1h")
	var conns []net.Conn
	for range 120 {
		conn, _ := dial(t, host(in.app))
		fmt.Fprint(conn, "GET /health HTTP/1.1\r\n")
		conns = append(conns, conn)
	}
	for range 20 {
		in.healthy(t, "with every descriptor in use")
	}
	eventually(t, "count of the failures", func() bool {
		return in.metric(t, `imagelab_accept_errors_total{server="app"}`) != ""
	})
	if in.log.find("cannot accept connections, trying again until it works") == nil {
		t.Errorf("the log does not say so:\n%s", in.log)
	}
	if in.log.find("accepting connections again") != nil {
		t.Error("the log speaks of a recovery while the descriptors are in use")
	}
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "word of the recovery", func() bool {
		in.healthy(t, "after the failures")
		time.Sleep(100 * time.Millisecond) // one connection at a time
		return in.log.find("accepting connections again") != nil
	})
	// The ops listener shares the descriptors, and speaks for itself.
	for _, line := range []string{"cannot accept connections, trying again until it works", "accepting connections again"} {
		n := 0
		for record := range strings.Lines(in.log.String()) {
			if strings.Contains(record, line) && strings.Contains(record, `"server":"app"`) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q is logged %d times for the app listener, want once", line, n)
		}
	}
}

// seriesOf lists the series of /metrics, without their values.
func (in *instance) seriesOf(t *testing.T) []string {
	t.Helper()
	_, exposition := fetch(t, "GET", in.ops+"/metrics", "")
	var all []string
	for line := range strings.Lines(exposition) {
		if !strings.HasPrefix(line, "#") {
			all = append(all, line[:strings.LastIndexByte(line, ' ')])
		}
	}
	slices.Sort(all)
	return all
}

// oddRequests makes requests that no client of good manners would send, to paths that
// exist and others.
type oddRequests struct {
	*rand.Rand
	paths []string
}

func (o oddRequests) word(letters string) string {
	word := make([]byte, 1+o.IntN(12))
	for i := range word {
		word[i] = letters[o.IntN(len(letters))]
	}
	return string(word)
}

// next returns a request and its method.
func (o oddRequests) next() (request, method string) {
	const token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-!#$%&'*+.^_`|~0123456789"
	const small = "abcdefghijklmnopqrstuvwxyz0123456789"
	method = o.word(token)
	if o.IntN(2) == 0 {
		method = allMethods[o.IntN(len(allMethods))]
	}
	path := "/" + o.word(small+"/~.%")
	switch o.IntN(8) {
	case 0, 1, 2:
		path = o.paths[o.IntN(len(o.paths))]
	case 3:
		path = fmt.Sprintf("/status/%d", o.IntN(1200)-300)
	case 4:
		path = "/delay/" + o.word(small)
	case 5:
		path = "/store/" + o.word("0123456789abcdef")
	}
	host, version := o.word(small), "1.1"
	switch o.IntN(20) {
	case 0:
		version = "1.0"
	case 1:
		version = fmt.Sprintf("%d.%d", o.IntN(10), o.IntN(10))
	case 2:
		host = o.word(token)
	}
	request = fmt.Sprintf("%s %s?%s HTTP/%s\r\nHost: %s\r\n", method, path, o.word("abc=&;"), version, host)
	for range o.IntN(4) {
		request += o.word(token) + ": " + o.word(small+" ,;=\"") + "\r\n"
	}
	return request + "\r\n", method
}

// allMethods are those with a label of their own, and one without.
var allMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW"}

func TestSeriesDoNotGrowWithWhatClientsSend(t *testing.T) {
	t.Parallel()
	requests := 100_000
	if testing.Short() {
		requests = 10_000
	}
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_PPROF=true", "IMAGELAB_ACCESS_LOG=off")
	// The first round: each route by each method, ready and not, by its path and by one that
	// is redirected to it, by a strange name; and each status.
	paths := map[string][]string{}
	for server, base := range map[string]string{"app": in.app, "ops": in.ops} {
		for _, v := range in.visits(t, server) {
			if v.path != "/events" && v.path != "/last" && v.path != "/panic" && !strings.Contains(v.path, "seconds=") {
				paths[base] = append(paths[base], v.path)
			}
		}
		slices.Sort(paths[base]) // the requests are the same each time
	}
	for range 2 {
		for base := range paths {
			for _, path := range append(paths[base], "/status/1", "/delay/1") {
				for _, method := range allMethods {
					for _, dots := range []string{"", "/."} {
						exchangeRaw(t, host(base), method, method+" "+dots+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
					}
					exchangeRaw(t, host(base), method, method+" "+path+" HTTP/1.1\r\nHost: not.this.one\r\n\r\n")
				}
			}
		}
		fetch(t, "POST", in.ops+"/readyz/disable", "")
	}
	for code := 200; code < 600; code++ {
		for _, method := range []string{"GET", "HEAD"} {
			ask(t, method, fmt.Sprintf("%s/status/%d", in.app, code), "")
		}
	}
	before := in.seriesOf(t)

	var clients sync.WaitGroup
	var answered atomic.Int64
	for i := range 8 {
		clients.Go(func() {
			base := []string{in.app, in.app, in.app, in.ops}[i%4]
			odd := oddRequests{rand.New(rand.NewPCG(11, uint64(i))), paths[base]}
			var conn net.Conn
			var r *bufio.Reader
			for range requests / 8 {
				if conn == nil {
					conn, r = dial(t, host(base))
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				request, method := odd.next()
				_, err := io.WriteString(conn, request)
				var resp *http.Response
				if err == nil {
					resp, err = http.ReadResponse(r, &http.Request{Method: method})
				}
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				if err != nil {
					t.Errorf("%q: %v", request, err)
					return
				}
				answered.Add(1)
				if resp.Close {
					conn.Close()
					conn = nil
				}
			}
		})
	}
	clients.Wait()
	if n := answered.Load(); n != int64(requests) {
		t.Errorf("%d of %d odd requests were answered", n, requests)
	}
	after := in.seriesOf(t)
	var added []string
	for _, series := range after {
		if _, known := slices.BinarySearch(before, series); !known {
			added = append(added, series)
		}
	}
	if len(added) > 0 {
		t.Errorf("%d odd requests made %d new series, want none:\n%s", requests, len(added), strings.Join(added, "\n"))
	}
}

func TestMalformedRequestsAreNeverTwo(t *testing.T) {
	t.Parallel()
	in := start(t)
	const hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, tc := range []struct {
		name, send string
		answers    string // the first line of each answer
	}{
		// The length is ignored and the chunks count (RFC 9112, 6.3), so what
		// follows the last chunk is the second request, as any proxy that
		// follows the RFC sees it as well.
		{"both a length and chunks", "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "201"},
		{"two lengths", "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na" + hidden, "400"},
		{"a length with a sign", "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na" + hidden, "400"},
		{"an unknown coding", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + hidden, "501"},
		{"two codings", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n1\r\na\r\n0\r\n\r\n" + hidden, "501"},
		{"a space before the colon", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + hidden, "400"},
		{"a bare CR in a header", "GET / HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 9\r\n\r\n" + hidden, "400"},
		{"a bare CR in a chunk line", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\ra\r\n0\r\n\r\n" + hidden, "400"},
		{"a chunk that is longer than it says", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n" + hidden, "400"},
		{"a chunk of negative length", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n" + hidden, "400"},
		{"a chunk line without end", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 70_000) + "\r\na\r\n0\r\n\r\n" + hidden, "400"},
		{"a chunk of more than a number holds", "POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na\r\n0\r\n\r\n" + hidden, "400"},
		{"no host", "GET / HTTP/1.1\r\n\r\n" + hidden, "400"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + hidden, "400"},
		{"a folded header", "GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n" + hidden, "400"},
		{"NUL in a header", "GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n" + hidden, "400"},
		{"no such version", "GET / HTTP/3.7\r\nHost: x\r\n\r\n" + hidden, "505"},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00", 9), "400"},
		{"TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + strings.Repeat("\x42\r\n", 60), "400"},
		{"a header of 1 MiB", "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "431"},
		{"nothing but newlines", strings.Repeat("\r\n", 100) + hidden, "400"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, r := dial(t, host(in.app))
			go func() {
				_, _ = io.WriteString(conn, tc.send)
				_ = conn.(*net.TCPConn).CloseWrite()
			}()
			if got := answersOf(r); got != tc.answers {
				t.Errorf("answers = %s, want %s", got, tc.answers)
			}
		})
	}
	t.Cleanup(func() {
		if got := in.metric(t, "imagelab_http_panics_total"); got != "0" {
			t.Errorf("panics = %s, want 0", got)
		}
	})
}

// answersOf lists the status codes that come until the end.
func answersOf(r *bufio.Reader) string {
	var codes []string
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return strings.Join(codes, " ")
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		codes = append(codes, fmt.Sprint(resp.StatusCode))
	}
}

// greedy is a client that sends requests for as long as they are taken, and reads nothing,
// or a byte now and then. It comes back when it is thrown out.
func greedy(ctx context.Context, addr, request string, sips bool) {
	for ctx.Err() == nil {
		greedyConnection(ctx, addr, request, sips)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func greedyConnection(ctx context.Context, addr, request string, sips bool) {
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048) })
	}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	many := strings.Repeat(request, 100)
	for sip := make([]byte, 1); ; {
		_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := io.WriteString(conn, many)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if sips {
			if _, err := conn.Read(sip); err != nil {
				return
			}
		}
	}
}

func TestClientsThatDoNotReadKeepNobodyOut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, request string
		sips          bool
	}{
		{"reads nothing", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
		{"reads a byte now and then", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"asks for its health", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", false},
		{"sends no body", "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := start(t, "IMAGELAB_MAX_CONNS=16", "IMAGELAB_SHUTDOWN_TIMEOUT=1s")
			ctx, cancel := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for range 24 {
				clients.Go(func() { greedy(ctx, host(in.app), tc.request, tc.sips) })
			}
			eventually(t, "cap", func() bool {
				n, _ := strconv.Atoi(in.metric(t, `imagelab_connections{server="app"}`))
				return n >= 16
			})
			_, port, _ := net.SplitHostPort(host(in.app))
			for range 5 {
				in.healthy(t, "under clients that do not read")
				if code, line := probeServer(t, "PORT="+port); code != exitOK {
					t.Errorf("--healthcheck = %d, %s", code, line)
				}
				eventually(t, "answer to GET /", func() bool { // which may have to be sent again
					resp, err := client().Get(in.app + "/")
					if err != nil {
						return false
					}
					resp.Body.Close()
					return resp.StatusCode == http.StatusOK
				})
			}
			cancel()
			clients.Wait()
		})
	}
}

// probeServer runs --healthcheck in this process.
func probeServer(t *testing.T, environ ...string) (code int, line string) {
	t.Helper()
	var out bytes.Buffer
	code = run(t.Context(), []string{"--healthcheck", "--timeout", patience.String()}, append([]string{inProcess}, environ...), &out, io.Discard)
	return code, out.String()
}

func TestProbeIsAnsweredWhileEveryConnectionIsServed(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_MAX_CONNS=8", "IMAGELAB_MAX_IN_FLIGHT=100", "IMAGELAB_FAULTS=true", "IMAGELAB_SHUTDOWN_TIMEOUT=1ms")
	for range 8 {
		conn, _ := dial(t, host(in.app))
		fmt.Fprint(conn, "GET /delay/10m HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	eventually(t, "requests in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "8"
	})
	for range 20 {
		in.healthy(t, "with a request on every connection")
	}
	resp, body := fetch(t, "GET", in.app+"/", "")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "overloaded") {
		t.Errorf("GET / = %d %s, want 503 overloaded with Retry-After", resp.StatusCode, body)
	}
}

func TestViewersKeepNoProbeOut(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]struct {
		wrapper []string
		environ string
		path    string
		probes  []string
		of      func(*instance) string
	}{
		"app": {nil, "IMAGELAB_OPS_ADDR=", "/-/events", []string{"/health", "/-/livez"}, func(in *instance) string { return in.app }},
		"ops": {
			[]string{"/bin/sh", "-c", `ulimit -n 128 && exec "$0"`}, // which leaves it the least of caps
			"IMAGELAB_FAULTS=false", "/events", []string{"/livez", "/readyz"}, func(in *instance) string { return in.ops },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := startProcess(t, on.wrapper, on.environ, "IMAGELAB_MAX_CONNS=8")
			refused := 0
			for range 12 {
				conn, br := dial(t, host(on.of(in)))
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", on.path)
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != 200 {
					refused++
					conn.Close()
					continue
				}
				go func() { _, _ = io.Copy(io.Discard, resp.Body) }()
			}
			if refused == 0 {
				t.Error("12 viewers are let in on 8 connections")
			}
			for range 10 {
				for _, path := range on.probes {
					if resp, body := fetch(t, "GET", on.of(in)+path, ""); resp.StatusCode != 200 {
						t.Errorf("GET %s among viewers = %d %s, want 200", path, resp.StatusCode, body)
					}
				}
			}
		})
	}
}
