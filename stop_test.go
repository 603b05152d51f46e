package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var soak = flag.Bool("soak", false, "a million requests and fifty stops instead of a few")

// signal sends a signal to the process of the instance.
func (in *instance) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := in.process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// host strips the scheme of a base URL.
func host(url string) string { return strings.TrimPrefix(url, "http://") }

func dial(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn, bufio.NewReader(conn)
}

func TestStopUnderLoadLosesNothing(t *testing.T) {
	stops, requests := 4, 2_000
	if *soak {
		stops, requests = 50, 1_000_000
	}
	began := time.Now()
	var sent int64
	for n := range stops {
		delay := []string{"250ms", "0s"}[n%2]
		in := startProcess(t, nil, "IMAGELAB_DRAIN_DELAY="+delay)
		l := startLoad(host(in.app), 32, toTheApp)
		eventually(t, "load", func() bool { return l.sent.Load() >= int64(requests/stops) || t.Failed() })
		l.stopping.Store(true)
		in.signal(t, syscall.SIGTERM)
		if code := in.wait(t); code != 0 {
			t.Errorf("delay %s: exit = %d, want 0; log:\n%s", delay, code, in.log)
		}
		l.wait(t)
		sent += l.sent.Load()
	}
	t.Logf("%d requests, %d stops, lost %t, in %v", sent, stops, t.Failed(), time.Since(began).Round(time.Second))
}

func TestDrainIsToldAtOnceAndServesOn(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_DRAIN_DELAY=2s", "IMAGELAB_FAULTS=true")
	kept, keptAnswers := dial(t, host(in.app))
	if last, err := exchange(kept, keptAnswers, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); last || err != nil {
		t.Fatalf("before the drain: last %t, err %v", last, err)
	}
	slow := make(chan *http.Response, 1)
	go func() {
		resp, _ := fetch(t, "GET", in.app+"/delay/1s", "")
		slow <- resp
	}()
	eventually(t, "request in flight", func() bool {
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		return strings.Contains(body, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"} 1`)
	})

	in.signal(t, syscall.SIGTERM)
	eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
	for _, tc := range []struct {
		url, body string
		code      int
	}{
		{in.ops + "/readyz", `{"status":"draining"}`, 503},
		{in.ops + "/livez", `{"status":"alive"}`, 200},
		{in.app + "/health", `{"status":"draining","uptime":`, 503},
		{in.app + "/", "Hello", 200}, // on a new connection
		{in.ops + "/metrics", "# HELP", 200},
	} {
		resp, body := fetch(t, "GET", tc.url, "")
		if resp.StatusCode != tc.code || !strings.HasPrefix(body, tc.body) {
			t.Errorf("draining: GET %s = %d %q, want %d %q", tc.url, resp.StatusCode, body, tc.code, tc.body)
		}
	}
	if _, body := fetch(t, "GET", in.ops+"/metrics", ""); !strings.Contains(body, `imagelab_state{state="draining"} 1`) {
		t.Error("draining: imagelab_state does not say so")
	}
	if last, err := exchange(kept, keptAnswers, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); !last || err != nil {
		t.Errorf("draining: a kept-alive connection gets last %t, err %v, want Connection: close", last, err)
	}
	if resp := <-slow; resp.StatusCode != 200 || !resp.Close {
		t.Errorf("a request from before the drain = %d, close %t, want 200 and Connection: close", resp.StatusCode, resp.Close)
	}
	if code := in.wait(t); code != 0 {
		t.Errorf("exit = %d, want 0", code)
	}
	if in.log.find("drained", "server", "app") == nil || in.log.find("drained", "server", "ops") == nil {
		t.Errorf("no summary of the drains in the log:\n%s", in.log)
	}
}

func TestStopServesWhatTheKernelHasQueued(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil)
	in.signal(t, syscall.SIGSTOP)
	answers := make(chan error, 64)
	for range cap(answers) {
		conn, r := dial(t, host(in.app)) // the handshake is the kernel's
		go func() {
			_, err := exchange(conn, r, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
			answers <- err
		}()
	}
	in.signal(t, syscall.SIGTERM)
	in.signal(t, syscall.SIGCONT)
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Errorf("a queued connection got %v, want an answer", err)
		}
	}
	if code := in.wait(t); code != 0 {
		t.Errorf("exit = %d, want 0", code)
	}
}

func TestStopWaitsForConnectionsThatAreAboutToSpeak(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"accepted and silent":   "",
		"half a header":         "GET /health HT",
		"header without an end": "GET /health HTTP/1.1\r\nHost: x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := startProcess(t, nil)
			conn, r := dial(t, host(in.app))
			if _, err := io.WriteString(conn, before); err != nil {
				t.Fatal(err)
			}
			eventually(t, "connection", func() bool {
				_, body := fetch(t, "GET", in.ops+"/metrics", "")
				return strings.Contains(body, `imagelab_connections{server="app"} 1`)
			})
			in.signal(t, syscall.SIGTERM)
			// The listener is closed when a connection is refused: from then on
			// only what is known of is waited for.
			eventually(t, "closed listener", func() bool {
				c, err := net.DialTimeout("tcp", host(in.app), 50*time.Millisecond)
				if err == nil {
					c.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			rest := strings.TrimPrefix("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", before)
			if last, err := exchange(conn, r, rest); !last || err != nil {
				t.Errorf("exchange = last %t, %v, want an answer with Connection: close", last, err)
			}
			if code := in.wait(t); code != 0 {
				t.Errorf("exit = %d, want 0", code)
			}
		})
	}
}

func TestStopEndsWhatWouldNeverEnd(t *testing.T) {
	t.Parallel()
	t.Run("a silent connection", func(t *testing.T) {
		t.Parallel()
		// No other bound may be what ends it.
		in := startProcess(t, nil, "IMAGELAB_READ_HEADER_TIMEOUT=1h")
		conn, _ := dial(t, host(in.app))
		in.signal(t, syscall.SIGTERM)
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read = %v, want EOF", err)
		}
		if code := in.wait(t); code != 0 {
			t.Errorf("exit = %d, want 0", code)
		}
		if in.log.find("connections were cut at the end of the drain") != nil {
			t.Errorf("it was cut at the deadline, want it to leave before:\n%s", in.log)
		}
	})
	t.Run("an idle connection", func(t *testing.T) {
		t.Parallel()
		in := startProcess(t, nil)
		conn, r := dial(t, host(in.app))
		if _, err := exchange(conn, r, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		in.signal(t, syscall.SIGTERM)
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("read = %v, want EOF", err)
		}
		if code := in.wait(t); code != 0 {
			t.Errorf("exit = %d, want 0", code)
		}
	})
	t.Run("a stream", func(t *testing.T) {
		t.Parallel()
		in := startProcess(t, nil, "IMAGELAB_FAULTS=true")
		resp, err := client().Get(in.app + "/stream/10m")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		if !lines.Scan() {
			t.Fatal("no first line")
		}
		in.signal(t, syscall.SIGTERM)
		last := ""
		for lines.Scan() {
			last = lines.Text()
		}
		if last != "draining" || lines.Err() != nil {
			t.Errorf("the last line = %q, %v, want a whole stream that ends with draining", last, lines.Err())
		}
		if code := in.wait(t); code != 0 {
			t.Errorf("exit = %d, want 0", code)
		}
	})
}

func TestDeadlineAndSecondSignalCut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		timeout string
		signals []syscall.Signal
		code    int
	}{
		{"SIGINT alone is clean, the request ends", "8s", []syscall.Signal{syscall.SIGINT}, 0},
		{"the deadline cuts", "50ms", []syscall.Signal{syscall.SIGTERM}, 1},
		{"a second SIGTERM cuts at once", "8s", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 128 + 15},
		{"a SIGINT after a SIGTERM cuts at once", "8s", []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, 128 + 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := startProcess(t, nil, "IMAGELAB_FAULTS=true", "IMAGELAB_SHUTDOWN_TIMEOUT="+tc.timeout)
			duration := "10m"
			if tc.code == 0 {
				duration = "500ms"
			}
			answer := make(chan error, 1)
			go func() {
				resp, err := client().Get(in.app + "/delay/" + duration)
				if err == nil {
					resp.Body.Close()
				}
				answer <- err
			}()
			eventually(t, "request in flight", func() bool {
				_, body := fetch(t, "GET", in.ops+"/metrics", "")
				return strings.Contains(body, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"} 1`)
			})
			for _, sig := range tc.signals {
				in.signal(t, sig)
				eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
			}
			if code := in.wait(t); code != tc.code {
				t.Errorf("exit = %d, want %d; log:\n%s", code, tc.code, in.log)
			}
			if err := <-answer; (err == nil) != (tc.code == 0) {
				t.Errorf("the request got %v", err)
			}
			if tc.code == 1 && in.log.find("connections were cut at the end of the drain", "phase", "active") == nil {
				t.Errorf("the log does not say what was cut:\n%s", in.log)
			}
		})
	}
}

// holdRequest sends GET /delay, and returns what becomes of it once the server has it.
func (in *instance) holdRequest(t *testing.T, duration string) <-chan error {
	t.Helper()
	answer := make(chan error, 1)
	go func() {
		resp, err := client().Get(in.app + "/delay/" + duration)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		answer <- err
	}()
	eventually(t, "request in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
	})
	return answer
}

// checkWholeStop checks that the instance has answered what was in flight, and ended well.
func (in *instance) checkWholeStop(t *testing.T, answer <-chan error) {
	t.Helper()
	if code := in.wait(t); code != 0 {
		t.Errorf("exit = %d, want 0; log:\n%s", code, in.log)
	}
	if err := <-answer; err != nil {
		t.Errorf("the request in flight got %v", err)
	}
}

func TestSignalsThatStopDrain(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			in := startProcess(t, nil, "IMAGELAB_FAULTS=true")
			answer := in.holdRequest(t, "500ms")
			in.signal(t, sig)
			in.checkWholeStop(t, answer)
			if in.log.find("draining", "signal", sig.String()) == nil || in.log.find("stopped, no request was lost") == nil {
				t.Errorf("the log does not say that %v drained it:\n%s", sig, in.log)
			}
		})
	}
}

func TestSignalsThatDoNothing(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_FAULTS=true")
	answer := in.holdRequest(t, "500ms")
	for _, sig := range []syscall.Signal{
		syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH,
		syscall.SIGCHLD, syscall.SIGURG, syscall.SIGCONT,
	} {
		in.signal(t, sig)
		// As long as the kernel holds it, it cannot have done anything (proc_pid_status(5)).
		eventually(t, sig.String()+" delivered", func() bool {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.process.Pid))
			return err == nil && strings.Contains(string(status), "\nShdPnd:\t0000000000000000\n")
		})
		select {
		case code := <-in.exited:
			in.exited <- code
			t.Fatalf("%v: exit %d", sig, code)
		default:
		}
		if resp, body := fetch(t, "GET", in.ops+"/readyz", ""); resp.StatusCode != 200 {
			t.Errorf("%v: GET /readyz = %d %s, want 200", sig, resp.StatusCode, body)
		}
	}
	if err := <-answer; err != nil {
		t.Errorf("the request in flight got %v", err)
	}
}

func TestHangUpUnderNohupDoesNothing(t *testing.T) {
	t.Parallel()
	in := startProcess(t, []string{"sh", "-c", `trap '' HUP; exec "$@"`, "sh"})
	in.signal(t, syscall.SIGHUP)
	// Signals are read in their order, so the first one would be what began the drain.
	in.signal(t, syscall.SIGTERM)
	if code := in.wait(t); code != 0 {
		t.Errorf("exit = %d, want 0", code)
	}
	if in.log.find("draining", "signal", syscall.SIGTERM.String()) == nil {
		t.Errorf("it was not SIGTERM that ended it:\n%s", in.log)
	}
}

func TestSecondHangUpDoesNotCut(t *testing.T) {
	t.Parallel()
	for _, first := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		t.Run("after "+first.String(), func(t *testing.T) {
			t.Parallel()
			in := startProcess(t, nil, "IMAGELAB_FAULTS=true")
			answer := in.holdRequest(t, "1s")
			in.signal(t, first)
			eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
			in.signal(t, syscall.SIGHUP)
			in.checkWholeStop(t, answer)
		})
	}
}

func TestSecondSignalWithNothingInFlightCutsNoRequest(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ idle, never string }{
		"no connection":      {"", "were cut"},
		"an idle connection": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "requests in flight were cut"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := startProcess(t, nil, "IMAGELAB_DRAIN_DELAY=1m")
			if tc.idle != "" {
				conn, r := dial(t, host(in.app))
				if _, err := exchange(conn, r, tc.idle); err != nil {
					t.Fatal(err)
				}
			}
			in.signal(t, syscall.SIGTERM)
			eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
			in.signal(t, syscall.SIGTERM)
			if code := in.wait(t); code != 128+15 {
				t.Errorf("exit = %d, want 143", code)
			}
			said := in.log.find("stopped at once by a second signal, no request that was seen was cut")
			if said == nil || strings.Contains(in.log.String(), tc.never) {
				t.Errorf("the log does not say that no request was seen to be cut, or says that one was:\n%s", in.log)
			}
		})
	}
}

// startPiped is startProcess with a pipe for a log, of one page, which is read until the instance has started. The
// process gets an end that blocks, as from a shell, or one that does not, as from some supervisors.
func startPiped(t *testing.T, blocks bool, environ ...string) (*instance, *os.File) {
	t.Helper()
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		t.Fatal(err)
	}
	for i, end := range ends {
		if err := syscall.SetNonblock(end, i == 0 || !blocks); err != nil {
			t.Fatal(err)
		}
	}
	r, w := os.NewFile(uintptr(ends[0]), "read end"), os.NewFile(uintptr(ends[1]), "write end")
	t.Cleanup(func() { r.Close() })
	in := launch(t, w, nil, environ...)
	w.Close()
	in.readLog(t, r, "started")
	in.await(t)
	return in, r
}

// readLog reads the log from a pipe until it has a line with a message.
func (in *instance) readLog(t *testing.T, r *os.File, msg string) {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	page := make([]byte, os.Getpagesize())
	for in.log.find(msg) == nil {
		n, err := r.Read(page)
		if err != nil {
			t.Fatalf("no line %q in %d bytes of log: %v", msg, len(in.log.String()), err)
		}
		_, _ = in.log.Write(page[:n])
	}
}

func TestLogWhoseReaderHasGoneDoesNotStopTheService(t *testing.T) {
	t.Parallel()
	for name, blocks := range map[string]bool{"blocking": true, "non-blocking": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, r := startPiped(t, blocks, "IMAGELAB_FAULTS=true", "IMAGELAB_ACCESS_LOG=all")
			r.Close()
			answer := in.holdRequest(t, "500ms")
			in.signal(t, syscall.SIGTERM)
			in.checkWholeStop(t, answer)
		})
	}
}

// fillLog sends requests, each of which is logged, until lines were dropped.
func (in *instance) fillLog(t *testing.T) {
	t.Helper()
	conn, answers := dial(t, host(in.app))
	defer conn.Close()
	sent := 0
	eventually(t, "dropped line", func() bool {
		for range 500 {
			if _, err := exchange(conn, answers, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		return in.metric(t, "imagelab_log_lines_dropped_total") != "0"
	})
	if sent < maxLogLines {
		t.Errorf("lines were dropped after %d requests, want room for %d", sent, maxLogLines)
	}
}

func TestLogThatNobodyReadsDoesNotHoldTheStop(t *testing.T) {
	t.Parallel()
	for name, blocks := range map[string]bool{"blocking": true, "non-blocking": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, _ := startPiped(t, blocks, "IMAGELAB_FAULTS=true", "IMAGELAB_ACCESS_LOG=all")
			in.fillLog(t)
			answer := in.holdRequest(t, "500ms")
			began := time.Now()
			in.signal(t, syscall.SIGTERM)
			in.checkWholeStop(t, answer)
			took := time.Since(began)
			t.Logf("the stop took %v", took.Round(time.Millisecond))
			if took > patience/2 { // a stop that waits for the log would never end
				t.Errorf("the stop took %v, want little more than the request", took)
			}
		})
	}
}

func TestLogThatIsReadAgainSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	in, r := startPiped(t, true, "IMAGELAB_ACCESS_LOG=all")
	in.fillLog(t)
	in.readLog(t, r, "log lines were dropped, as nobody read them")
	dropped, err := strconv.ParseFloat(in.metric(t, "imagelab_log_lines_dropped_total"), 64)
	if got := in.log.find("log lines were dropped, as nobody read them")["lines"]; err != nil || got != dropped {
		t.Errorf("the log says that %v lines were dropped, the metric %v, %v", got, dropped, err)
	}
	read := make(chan error, 1)
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := io.Copy(in.log, r)
		read <- err
	}()
	// The last lines have little time, so those before them have to be out.
	fetch(t, "GET", in.app+"/marker", "")
	eventually(t, "empty queue", func() bool { return strings.Contains(in.log.String(), "/marker") })
	in.signal(t, syscall.SIGTERM)
	if code := in.wait(t); code != 0 {
		t.Errorf("exit = %d, want 0", code)
	}
	if err := <-read; err != nil || in.log.find("stopped, no request was lost") == nil {
		t.Errorf("the log does not end as the process did, %v", err)
	}
}

// TestDrainIsToldByTheOpsListener asks on connections from before the drain: only there it is the server that says
// Connection: close.
func TestDrainIsToldByTheOpsListener(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]string{
		"on a listener of their own": "IMAGELAB_OPS_ADDR=127.0.0.1:0",
		"on the app listener":        "IMAGELAB_OPS_ADDR=",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, environ, "IMAGELAB_DRAIN_DELAY=2s")
			addr, prefix, _ := strings.Cut(host(in.ops), "/")
			if prefix != "" {
				prefix = "/" + prefix
			}
			type probe struct {
				request string
				conn    net.Conn
				answers *bufio.Reader
			}
			var probes []probe
			for _, what := range []string{"GET /readyz", "OPTIONS /readyz", "GET /livez", "GET /metrics"} {
				method, path, _ := strings.Cut(what, " ")
				request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, prefix+path)
				conn, answers := dial(t, addr)
				if last, err := exchange(conn, answers, request); last || err != nil {
					t.Errorf("ready: %s = last %t, %v, want a connection that is kept", what, last, err)
				}
				probes = append(probes, probe{request, conn, answers})
			}
			in.cancel()
			eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
			for _, p := range probes {
				if last, err := exchange(p.conn, p.answers, p.request); !last || err != nil {
					t.Errorf("draining: %q = last %t, %v, want Connection: close", p.request, last, err)
				}
			}
			if code := in.wait(t); code != 0 {
				t.Errorf("exit = %d, want 0", code)
			}
		})
	}
}
