package main

import (
	"bufio"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
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
		l := startLoad(host(in.app), 32)
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
