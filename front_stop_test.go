package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startFrontProcess runs imagelab in a process of its own, in front of a server with that
// handler, which closes each of its connections after some requests, as servers do.
func startFrontProcess(t *testing.T, h http.HandlerFunc, environ ...string) *instance {
	t.Helper()
	up := httptest.NewServer(h)
	t.Cleanup(up.Close)
	return startProcess(t, nil, append(environ, "IMAGELAB_UPSTREAM="+up.URL)...)
}

// A body of 1 GiB goes through a front in each direction, and none of it stays.
func TestFrontHoldsNoBody(t *testing.T) {
	t.Parallel()
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	in := startFrontProcess(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if n != size && n != 0 || err != nil {
			t.Errorf("the upstream got %d bytes, %v", n, err)
		}
		_, _ = io.CopyN(w, zeros{}, size)
	})
	for _, chunked := range []bool{false, true} {
		req, err := http.NewRequest("POST", in.app, bufio.NewReaderSize(io.LimitReader(zeros{}, size), 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		if !chunked {
			req.ContentLength = size
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if n != size || err != nil {
			t.Errorf("the client got %d bytes, %v, want %d", n, err, size)
		}
	}
	// go_memstats_sys_bytes never falls: it is the most that was ever held.
	var most float64
	if _, err := fmt.Sscan(in.metric(t, "go_memstats_sys_bytes"), &most); err != nil || most > 48<<20 {
		t.Errorf("memory for %d bytes = %.0f (%v), want less than 48 MiB", size, most, err)
	}
}

func TestStopOfAFrontUnderLoadLosesNothing(t *testing.T) {
	stops, requests := 4, 2_000
	if *soak {
		stops, requests = 50, 1_000_000
	}
	for n := range stops {
		var served atomic.Int64
		in := startFrontProcess(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if served.Add(1)%100 == 0 {
				w.Header().Set("Connection", "close")
			}
			fmt.Fprintln(w, "hello")
		}, "IMAGELAB_DRAIN_DELAY="+[]string{"250ms", "0s"}[n%2])
		l := startLoad(host(in.app), 32, toTheApp)
		eventually(t, "load", func() bool { return l.sent.Load() >= int64(requests/stops) || t.Failed() })
		l.stopping.Store(true)
		in.signal(t, syscall.SIGTERM)
		if code := in.wait(t); code != 0 {
			t.Errorf("exit = %d, want 0; log:\n%s", code, in.log)
		}
		l.wait(t)
		if sent := l.sent.Load(); sent != served.Load() {
			t.Errorf("%d requests were sent, and the upstream has seen %d", sent, served.Load())
		}
	}
}

// What waits for an upstream when the server stops is answered.
func TestStopAnswersWhatWaitsForTheUpstream(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_UPSTREAM=http://"+freeAddress(t), "IMAGELAB_UPSTREAM_WAIT=1m")
	got := make(chan outcome)
	go func() { got <- passThrough(t, in.app, nil, aGET) }()
	eventually(t, "request that waits", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, "imagelab_upstream_waiting 1")
	})
	in.signal(t, syscall.SIGTERM)
	if o := <-got; o.code != 503 || !o.last || !strings.HasPrefix(o.body, isRefused("upstream-not-there")) {
		t.Errorf("got %+v, want 503", o)
	}
	if code := in.wait(t); code != 1 {
		t.Errorf("exit = %d, want 1; log:\n%s", code, in.log)
	}
}

// A request that the upstream fails during the stop is none that was not lost.
func TestStopCountsWhatTheUpstreamFails(t *testing.T) {
	t.Parallel()
	const says = "stopped, requests were not answered by the upstream"
	const post = "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
	for name, tc := range map[string]struct {
		path string // /a has no answer, /b half of one
		code int
	}{"no answer": {"/a", 502}, "half an answer": {"/b", 200}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, end := make(chan struct{}), make(chan struct{})
			in := startFrontProcess(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/b" {
					w.Header().Set("Content-Length", "10")
					_, _ = io.WriteString(w, "half")
					_ = http.NewResponseController(w).Flush()
				}
				close(begun)
				<-end
				panic(http.ErrAbortHandler)
			})
			got := make(chan outcome, 1)
			go func() { got <- passThrough(t, in.app, nil, fmt.Sprintf(post, tc.path)) }()
			<-begun
			in.signal(t, syscall.SIGTERM)
			eventually(t, "drain", func() bool { return in.log.find("draining") != nil })
			close(end)
			if o := <-got; o.code != tc.code {
				t.Errorf("got %+v, want %d", o, tc.code)
			}
			if code := in.wait(t); code != 1 || in.log.find(says)["failed"] != 1. {
				t.Errorf("exit = %d, want 1 and one that failed; log:\n%s", code, in.log)
			}
		})
	}
	t.Run("a command that dies", func(t *testing.T) {
		t.Parallel()
		in := startBefore(t, nil)
		pid := in.pid(t)
		got := make(chan outcome, 1)
		go func() { got <- passThrough(t, in.app, nil, fmt.Sprintf(post, "/slow?for=1m")) }()
		eventually(t, "request", func() bool {
			_, body := fetch(t, "GET", in.ops+"/metrics", "")
			return strings.Contains(body, `imagelab_http_requests_in_flight{route="upstream",server="app"} 1`)
		})
		in.signal(t, syscall.SIGTERM)
		eventually(t, "drain", func() bool { return in.log.find("draining") != nil })
		_ = syscall.Kill(pid, syscall.SIGKILL)
		if o := <-got; o.code != 502 {
			t.Errorf("got %+v, want 502", o)
		}
		if code := in.wait(t); code != 128+9 || in.log.find(says)["failed"] != 1. {
			t.Errorf("exit = %d, want that of the command and one that failed; log:\n%s", code, in.log)
		}
	})
	t.Run("what failed before is none of the stop's", func(t *testing.T) {
		t.Parallel()
		in := startFrontProcess(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		if o := passThrough(t, in.app, nil, fmt.Sprintf(post, "/")); o.code != 502 {
			t.Errorf("got %+v, want 502", o)
		}
		in.signal(t, syscall.SIGTERM)
		if code := in.wait(t); code != 0 || in.log.find("stopped, no request was lost") == nil {
			t.Errorf("exit = %d, want 0; log:\n%s", code, in.log)
		}
	})
}

// There is one deadline: what requests have taken of it, the command has no more.
func TestCommandHasTheRestOfTheDeadline(t *testing.T) {
	t.Parallel()
	const deadline = 3 * time.Second
	in := startBefore(t, []string{"-deaf"}, "IMAGELAB_SHUTDOWN_TIMEOUT="+deadline.String())
	conn, _ := dial(t, host(in.app))
	_, _ = io.WriteString(conn, "GET /slow?for=1m HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "request", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, `imagelab_http_requests_in_flight{route="upstream",server="app"} 1`)
	})
	began := time.Now()
	in.signal(t, syscall.SIGTERM)
	if code := in.wait(t); code != 128+9 {
		t.Errorf("exit = %d, want that of a command that was killed; log:\n%s", code, in.log)
	}
	if took := time.Since(began); took < deadline || took >= 2*deadline {
		t.Errorf("the stop took %v, want the deadline of %v and a moment", took, deadline)
	}
}

func TestStopEndsStreamsOfTheUpstream(t *testing.T) {
	t.Parallel()
	in := startFrontProcess(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" { // no stream, and not to be ended
			w.Header().Set("Content-Length", "4")
			_, _ = io.WriteString(w, "lo")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
			_, _ = io.WriteString(w, "ng")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for n := 0; ; n++ {
			fmt.Fprintf(w, "data: %d\n\n", n)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	conn, r := dial(t, host(in.app))
	_, _ = io.WriteString(conn, aGET)
	events, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	long := make(chan outcome)
	go func() { long <- passThrough(t, in.app, nil, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n") }()
	eventually(t, "two requests", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, `imagelab_http_requests_in_flight{route="upstream",server="app"} 2`)
	})
	in.signal(t, syscall.SIGTERM)
	text, err := io.ReadAll(events.Body)
	if err != nil || !strings.HasPrefix(string(text), "data: 0\n\n") || !strings.HasSuffix(string(text), "\n\n") {
		t.Errorf("the stream ended with %v after %q, want a whole answer", err, text)
	}
	if o := <-long; o.code != 200 || o.body != "long" {
		t.Errorf("an answer that was no stream = %+v, want the whole", o)
	}
	if code := in.wait(t); code != 0 {
		t.Errorf("exit = %d, want 0; log:\n%s", code, in.log)
	}
}

const upgradeTo = "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"

// upgraded opens a connection through the front that is upgraded to a protocol.
func upgraded(t *testing.T, in *instance, protocol string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, r := dial(t, host(in.app))
	_, _ = fmt.Fprintf(conn, upgradeTo, protocol)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != protocol || resp.Header.Get("Connection") != "Upgrade" || resp.Header.Get("X-A") != "b" {
		t.Fatalf("got %d %v, want 101", resp.StatusCode, resp.Header)
	}
	return conn.(*net.TCPConn), r
}

// upgrades takes an upgrade, sends something at once, and goes on.
func upgrades(protocol string, then func(c *fakeConn)) func(c *fakeConn) {
	return func(c *fakeConn) {
		c.header()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nX-A: b\r\nConnection: upgrade\r\nUpgrade: "+protocol+"\r\n\r\nwelcome\n")
		then(c)
	}
}

func TestUpgradedConnectionsGoBothWays(t *testing.T) {
	t.Parallel()
	ended := make(chan string, 1)
	up := startUpstream(t, upgrades("chat", func(c *fakeConn) {
		line, _ := c.r.ReadString('\n')
		_, _ = io.WriteString(c, strings.ToUpper(line))
		rest, err := io.ReadAll(c.r) // the client has ended its side, and still listens
		ended <- fmt.Sprintf("%s, %v", rest, err)
		_, _ = io.WriteString(c, "goodbye\n")
	}))
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
	conn, r := upgraded(t, in, "chat")
	for _, want := range []string{"welcome\n", "HELLO\n"} {
		if line, err := r.ReadString('\n'); line != want {
			t.Fatalf("got %q, %v, want %q", line, err, want)
		}
		_, _ = io.WriteString(conn, "hello\n")
	}
	_ = conn.CloseWrite()
	if got := <-ended; got != "hello\n, <nil>" {
		t.Errorf("the upstream's read ended with %q", got)
	}
	if rest, err := io.ReadAll(r); string(rest) != "goodbye\n" || err != nil {
		t.Errorf("the client's read ended with %q, %v", rest, err)
	}
	conn.Close()
	eventually(t, "end of the request", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, `imagelab_http_requests_total{code="101",method="GET",route="upstream",server="app"} 1`) &&
			strings.Contains(body, `imagelab_http_requests_in_flight{route="upstream",server="app"} 0`)
	})
	if _, body := fetch(t, "GET", in.ops+"/metrics", ""); strings.Contains(body, `duration_seconds_count{method="GET",route="upstream",server="app"} 1`) {
		t.Error("an upgraded connection is in the durations of requests")
	}
}

func TestUpgradedConnectionsEndWithEitherSide(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	up := startUpstream(t, upgrades("chat", func(c *fakeConn) {
		if c.n == 1 {
			c.reset()
			return
		}
		_, err := io.ReadAll(c.r)
		ended <- err
	}))
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
	_, r := upgraded(t, in, "chat")
	if _, err := io.ReadAll(r); isTimeout(err) {
		t.Error("the upstream has reset the connection, and the client's is open")
	}
	conn, _ := upgraded(t, in, "chat")
	_ = conn.SetLinger(0)
	conn.Close()
	if err := <-ended; isTimeout(err) {
		t.Error("the client has reset the connection, and the upstream's is open")
	}
}

// wsFrame makes a frame as a client does, with a mask (RFC 6455, 5.2).
func wsFrame(opcode byte, payload string) string {
	b := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return string(b)
}

// A client of a WebSocket is in the middle of a frame, or not, when the server stops. The
// upstream gets whole frames, and Close behind them; the client gets what the upstream says.
func TestStopTakesLeaveOfAWebSocketInTheClientsName(t *testing.T) {
	t.Parallel()
	long := wsFrame(2, strings.Repeat("x", 70_000))
	for name, tc := range map[string]struct{ before, after string }{
		"silent":           {"", ""},
		"between frames":   {wsFrame(1, "hello") + wsFrame(9, ""), ""},
		"within a payload": {wsFrame(1, "a") + long[:300], long[300:]},
		"within a header":  {long[:1], long[1:]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			came := make(chan string, 1)
			up := startUpstream(t, upgrades("websocket", func(c *fakeConn) {
				got := make([]byte, len(tc.before)+len(tc.after)+len(goingAway))
				n, _ := io.ReadFull(c.r, got)
				came <- string(got[:n])
				more, _ := c.r.ReadByte()
				came <- string(more)
				_, _ = io.WriteString(c, "\x88\x02\x03\xe9") // its own Close
			}))
			in := startProcess(t, nil, "IMAGELAB_UPSTREAM=http://"+up.addr)
			conn, r := upgraded(t, in, "websocket")
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, tc.before)
			// What has been sent has arrived when the kernel says so, and is soon read.
			eventually(t, "delivery", func() bool { return unsentBytes(t, conn) == 0 })
			time.Sleep(50 * time.Millisecond)
			in.signal(t, syscall.SIGTERM)
			eventually(t, "listener that is closed", func() bool {
				c, err := net.Dial("tcp", host(in.app))
				if err == nil {
					c.Close()
				}
				return err != nil
			})
			_, _ = io.WriteString(conn, tc.after)
			if got, want := <-came, tc.before+tc.after+string(goingAway); got != want {
				t.Errorf("the upstream got %d bytes, %.40q…, want %d, the last of which are a Close frame", len(got), got, len(want))
			}
			_, _ = io.WriteString(conn, wsFrame(1, "behind")+"\x88\x80\x00\x00\x00\x00")
			_ = conn.CloseWrite()
			if more := <-came; more != "\x00" {
				t.Errorf("the upstream got %q behind Close", more)
			}
			if rest, err := io.ReadAll(r); string(rest) != "\x88\x02\x03\xe9" || err != nil {
				t.Errorf("the client's read ended with %q, %v, want the upstream's Close", rest, err)
			}
			conn.Close()
			if code := in.wait(t); code != 0 {
				t.Errorf("exit = %d, want 0; log:\n%s", code, in.log)
			}
		})
	}
}

// Nobody can hold the stop up: not the other end of an upgraded connection, either.
func TestStopEndsUpgradedConnectionsThatGoOn(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"websocket", "chat"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			up := startUpstream(t, upgrades(protocol, func(c *fakeConn) {
				for {
					if _, err := io.WriteString(c, "\x81\x01a"); err != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}))
			in := startProcess(t, nil, "IMAGELAB_UPSTREAM=http://"+up.addr, "IMAGELAB_SHUTDOWN_TIMEOUT=15s")
			_, r := upgraded(t, in, protocol)
			began := time.Now()
			in.signal(t, syscall.SIGTERM)
			_, _ = io.Copy(io.Discard, r)
			if code := in.wait(t); code != 0 || time.Since(began) > 10*time.Second {
				t.Errorf("exit = %d after %v, want 0 before the deadline; log:\n%s", code, time.Since(began), in.log)
			}
		})
	}
}

func TestFramesKnowWhereTheyEnd(t *testing.T) {
	t.Parallel()
	text := []string{wsFrame(1, ""), wsFrame(1, "a"), wsFrame(2, strings.Repeat("b", 125)), wsFrame(2, strings.Repeat("c", 126)), wsFrame(2, strings.Repeat("d", 70_000)), wsFrame(8, "ab"), "\x81\x02ab"}
	ends := map[int]bool{0: true}
	total := 0
	for _, frame := range text {
		total += len(frame)
		ends[total] = true
	}
	all := strings.Join(text, "")
	for _, step := range []int{1, 2, 3, 7, 100, 1 << 20} {
		var f frames
		at := 0
		for piece := range slices.Chunk([]byte(all), step) {
			f.add(piece)
			if at += len(piece); f.atBoundary() != ends[at] {
				t.Fatalf("in pieces of %d: after %d bytes atBoundary = %t, want %t", step, at, f.atBoundary(), ends[at])
			}
		}
	}
}

// unsentBytes is what the peer's kernel has not acknowledged.
func unsentBytes(t *testing.T, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}
