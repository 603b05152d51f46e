package drain

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// patience is how long a test waits for something that should be there at once.
const patience = 20 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s after %v", what, patience)
		}
	}
}

// running is a server that serves, and can be stopped once.
type running struct {
	*Server
	addr  string
	serve chan error
}

// run serves h on a free port.
func run(t *testing.T, h http.HandlerFunc, change ...func(*http.Server)) *running {
	t.Helper()
	return runWith(t, Options{WriteTimeout: patience}, h, change...)
}

func runWith(t *testing.T, o Options, h http.HandlerFunc, change ...func(*http.Server)) *running {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: patience, IdleTimeout: patience}
	for _, f := range change {
		f(srv)
	}
	r := &running{Server: New(srv, ln), addr: ln.Addr().String(), serve: make(chan error, 1)}
	go func() { r.serve <- r.Serve() }()
	t.Cleanup(func() { srv.Close() })
	return r
}

// stop shuts it down within the time and checks that Serve ends without an error.
func (r *running) stop(t *testing.T, timeout time.Duration) Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	report := r.Shutdown(ctx)
	select {
	case err := <-r.serve:
		if err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
	case <-time.After(patience):
		t.Error("Serve does not return after Shutdown")
	}
	return report
}

// checkClean fails for a drain that lost something, or says that it may have.
func checkClean(t *testing.T, r Report) {
	t.Helper()
	if !r.Lossless() || len(r.Cut) > 0 {
		t.Errorf("Shutdown() = %+v, want nothing cut or lost", r)
	}
}

func (r *running) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn, bufio.NewReader(conn)
}

const getRoot = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// answer reads one response.
func answer(t *testing.T, r *bufio.Reader) (body string, last bool) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("half an answer: %v", err)
	}
	return string(content), resp.Close
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func TestPipelinedRequestsAreAllAnswered(t *testing.T) {
	t.Parallel()
	for name, requests := range map[string][]string{
		"in one segment":        {strings.Repeat(getRoot, 4)},
		"one by one":            {getRoot, getRoot, getRoot, getRoot},
		"the last one in parts": {strings.Repeat(getRoot, 3) + "GET", " / HTTP/1.1\r\nHost: x\r\n", "\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered, release := make(chan struct{}, 4), make(chan struct{})
			r := run(t, func(w http.ResponseWriter, _ *http.Request) {
				entered <- struct{}{}
				<-release
				_, _ = io.WriteString(w, "hello")
			})
			conn, answers := r.dial(t)
			for _, part := range requests {
				if _, err := io.WriteString(conn, part); err != nil {
					t.Fatal(err)
				}
			}
			<-entered
			r.Draining()
			close(release)
			for i := range 4 {
				if body, last := answer(t, answers); body != "hello" || last != (i == 3) {
					t.Errorf("answer %d = %q, last %t", i, body, last)
				}
			}
			checkClean(t, r.stop(t, patience))
		})
	}
}

func TestHalfARequestBehindAnotherIsWaitedFor(t *testing.T) {
	t.Parallel()
	const second = "GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, first := range []string{
		getRoot,
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	} {
		// net/http waits for four bytes before it counts a request as begun.
		for _, n := range []int{1, 2, 3, 4, 5, 20, len(second) - 1} {
			t.Run(fmt.Sprintf("%s and %d bytes", first[:4], n), func(t *testing.T) {
				t.Parallel()
				r := run(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(w, r.URL.Path)
				})
				conn, answers := r.dial(t)
				_, _ = io.WriteString(conn, first+second[:n])
				if body, last := answer(t, answers); body != "/" || last {
					t.Fatalf("first answer = %q, last %t", body, last)
				}
				report := make(chan Report)
				go func() { report <- r.stop(t, patience) }()
				eventually(t, "closed listener", func() bool {
					c, err := net.Dial("tcp", r.addr)
					if err == nil {
						c.Close()
					}
					return err != nil
				})
				// Long enough for the connection to be closed, if it counted as idle.
				time.Sleep(nearGrace + 100*time.Millisecond)
				_, _ = io.WriteString(conn, second[n:])
				if body, last := answer(t, answers); body != "/second" || !last {
					t.Errorf("second answer = %q, last %t", body, last)
				}
				checkClean(t, <-report)
			})
		}
	}
}

func TestStopServesWhatIsQueued(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: New(&http.Server{Handler: http.HandlerFunc(hello)}, ln), addr: ln.Addr().String(), serve: make(chan error, 1)}
	conn, answers := r.dial(t)
	if got, err := queued(ln.tcp); got != 1 || err != nil {
		t.Errorf("queued() = %d, %v, want 1", got, err)
	}
	_, _ = io.WriteString(conn, getRoot)
	report := make(chan Report)
	go func() { report <- r.stop(t, patience) }()
	eventually(t, "a door that is shut", func() bool { return ln.shut.Load() })
	go func() { r.serve <- r.Serve() }()
	if body, last := answer(t, answers); body != "hello" || !last {
		t.Errorf("answer = %q, last %t", body, last)
	}
	checkClean(t, <-report)
}

func TestDrainWaitsForHijackedConnections(t *testing.T) {
	t.Parallel()
	taken := make(chan net.Conn, 1)
	r := run(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		taken <- conn
	})
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	hijacked := <-taken
	report := make(chan Report)
	go func() { report <- r.stop(t, patience) }()
	if err := <-r.serve; err != nil {
		t.Errorf("Serve() = %v, want nil", err)
	}
	r.serve <- nil
	select {
	case <-report:
		t.Error("the drain did not wait for a hijacked connection")
	default:
	}
	_, _ = io.WriteString(hijacked, "bye\n")
	hijacked.Close()
	if line, err := answers.ReadString('\n'); line != "bye\n" {
		t.Errorf("the client got %q, %v", line, err)
	}
	conn.Close()
	checkClean(t, <-report)
}

func TestDrainDeliversWhatIsWritten(t *testing.T) {
	t.Parallel()
	const size = 60_000 // which the kernel takes, although its client reads nothing
	for name, option := range map[string]string{"kept alive": "", "the last": "Connection: close\r\n"} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, asked before the drain %t", name, !late), func(t *testing.T) {
				t.Parallel()
				written := make(chan struct{}, 1)
				r := run(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Length", fmt.Sprint(size))
					_, _ = w.Write(make([]byte, size))
					written <- struct{}{}
				})
				var d net.Dialer
				d.Control = smallBuffer
				conn, err := d.DialContext(t.Context(), "tcp", r.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if late {
					r.Draining()
				}
				_, _ = io.WriteString(conn, strings.Replace(getRoot, "\r\n\r\n", "\r\n"+option+"\r\n", 1))
				<-written // to the kernel
				report := make(chan Report)
				go func() { report <- r.stop(t, patience) }()
				select {
				case got := <-report:
					t.Fatalf("Shutdown() = %+v although its client has read nothing", got)
				case <-time.After(500 * time.Millisecond):
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); n != int64(size) || err != nil {
					t.Errorf("got %d bytes, %v, want %d", n, err, int64(size))
				}
				checkClean(t, <-report)
			})
		}
	}
}

func TestUnreadAnswerIsCutAndCounted(t *testing.T) {
	t.Parallel()
	r := run(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "300000")
		_, _ = w.Write(make([]byte, 300_000))
	})
	var d net.Dialer
	d.Control = smallBuffer
	conn, err := d.DialContext(t.Context(), "tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, strings.Replace(getRoot, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
	eventually(t, "an answer", func() bool {
		one := make([]byte, 1)
		n, _ := conn.Read(one)
		return n == 1
	})
	if got := r.stop(t, 300*time.Millisecond); got.Requests != 1 {
		t.Errorf("Shutdown() = %+v, want 1 request cut", got)
	}
}

func TestDeadlineAndCancelCut(t *testing.T) {
	t.Parallel()
	for name, timeout := range map[string]time.Duration{"deadline": 50 * time.Millisecond, "cancelled": patience} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered := make(chan struct{})
			r := run(t, func(_ http.ResponseWriter, r *http.Request) {
				close(entered)
				<-r.Context().Done()
			})
			conn, _ := r.dial(t)
			_, _ = io.WriteString(conn, getRoot)
			<-entered
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			if name == "cancelled" {
				time.AfterFunc(20*time.Millisecond, cancel)
			}
			report := r.Shutdown(ctx)
			if report.Requests != 1 || report.Cut[Active] != 1 || report.Lossless() {
				t.Errorf("Shutdown() = %+v, want one active request cut", report)
			}
		})
	}
}

func TestExpendableRequestsFailNothing(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	r := run(t, func(_ http.ResponseWriter, r *http.Request) {
		Expendable(r.Context())
		close(entered)
		<-r.Context().Done()
	})
	conn, _ := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	<-entered
	report := r.stop(t, patience)
	if report.Requests != 0 || report.Cut[Active] != 1 || report.Took > patience/2 {
		t.Errorf("Shutdown() = %+v, want an onlooker cut after a second, and no request", report)
	}
}

func TestStreamsAreToldToEnd(t *testing.T) {
	t.Parallel()
	r := run(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first ")
		w.(http.Flusher).Flush()
		ctx, cancel := UntilEnding(r.Context())
		defer cancel()
		<-ctx.Done()
		<-Ending(r.Context())
		_, _ = io.WriteString(w, "last")
	})
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	if _, err := answers.Peek(1); err != nil {
		t.Fatal(err)
	}
	report := make(chan Report)
	go func() { report <- r.stop(t, patience) }()
	if body, _ := answer(t, answers); body != "first last" {
		t.Errorf("the stream = %q, want its first and its last word", body)
	}
	checkClean(t, <-report)
}

func TestOptionsStarIsToldToGo(t *testing.T) {
	t.Parallel()
	r := run(t, hello)
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	if body, last := answer(t, answers); body != "" || last {
		t.Errorf("OPTIONS * = %q, last %t", body, last)
	}
	r.Draining()
	_, _ = io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	if body, last := answer(t, answers); body != "" || !last {
		t.Errorf("draining: OPTIONS * = %q, last %t, want Connection: close", body, last)
	}
	checkClean(t, r.stop(t, patience))
}

func TestRequestOnAConnectionThatIsClosedForBeingIdleIsCounted(t *testing.T) {
	t.Parallel()
	c, client := connPair(t)
	c.ln.draining.Store(true)
	c.enter(Idle)
	closed := make(chan struct{})
	// The client's kernel acknowledges the FIN at once; its request is already there.
	_, _ = io.WriteString(client, getRoot)
	eventually(t, "input", func() bool { return unread(c.TCPConn) })
	go func() { c.Close(); close(closed) }()
	<-closed
	if got := c.ln.late.Load(); got != 1 {
		t.Errorf("late = %d, want 1", got)
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[Kind]int{}
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{MaxConns: 1, Observe: func(e Event) {
		mu.Lock()
		seen[e.Kind]++
		mu.Unlock()
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := New(&http.Server{Handler: http.HandlerFunc(hello)}, ln)
	r := &running{Server: s, addr: ln.Addr().String(), serve: make(chan error, 1)}
	go func() { r.serve <- r.Serve() }()
	first, answers := r.dial(t)
	_, _ = io.WriteString(first, getRoot)
	answer(t, answers)
	second, answers := r.dial(t) // the first one makes room
	_, _ = io.WriteString(second, getRoot)
	answer(t, answers)
	checkClean(t, r.stop(t, patience))
	mu.Lock()
	defer mu.Unlock()
	if seen[Opened] != 2 || seen[Closed] != 2 || seen[Evicted] != 1 || len(seen) != 3 {
		t.Errorf("events = %v, want 2 opened, 2 closed, 1 evicted", seen)
	}
}

func TestWithoutProcNothingIsClaimed(t *testing.T) {
	t.Parallel()
	r := run(t, hello)
	r.ln.proc = fstest.MapFS{}
	report := r.stop(t, patience)
	if report.Lossy == nil || report.Requests != 0 {
		t.Errorf("Shutdown() = %+v, want a doubt", report)
	}
}

func TestCookiesAreSaid(t *testing.T) {
	t.Parallel()
	r := run(t, hello)
	r.ln.inherit()
	r.ln.cookies.older = -1 // as if one had been sent since
	report := r.stop(t, patience)
	if report.Lossy == nil || !strings.Contains(report.Lossy.Error(), "SYN cookies") {
		t.Errorf("Shutdown() = %+v, want a doubt because of SYN cookies", report)
	}
}

func TestServesOverTLS(t *testing.T) {
	t.Parallel()
	// httptest has a certificate for its own clients.
	lender := httptest.NewTLSServer(nil)
	defer lender.Close()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	r := &running{Server: New(&http.Server{
		TLSConfig: lender.TLS.Clone(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(entered)
				<-release
			}
			_, _ = io.WriteString(w, r.TLS.ServerName+r.URL.Path)
		}),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2
	}, ln), addr: ln.Addr().String(), serve: make(chan error, 1)}
	go func() { r.serve <- r.ServeTLS("", "") }()

	roots := x509.NewCertPool()
	roots.AddCert(lender.Certificate())
	config := &tls.Config{RootCAs: roots, ServerName: "example.com"}
	exchange := func(conn net.Conn, path string) (body string, last bool) {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		return answer(t, bufio.NewReader(conn))
	}
	dial := func() net.Conn {
		conn, err := tls.Dial("tcp", r.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	idle, busy := dial(), dial()
	if body, last := exchange(idle, "/"); body != "example.com/" || last {
		t.Fatalf("answer = %q, last %t", body, last)
	}
	done := make(chan bool)
	go func() {
		body, last := exchange(busy, "/slow")
		done <- body == "example.com/slow" && last
	}()
	<-entered
	report := make(chan Report)
	go func() { report <- r.stop(t, patience) }()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF { // with a close_notify
		t.Errorf("the idle connection ends with %v, want EOF", err)
	}
	idle.Close()
	close(release)
	if !<-done {
		t.Error("the request that was being served got no whole answer with Connection: close")
	}
	busy.Close()
	checkClean(t, <-report)
}

// What a service of any kind relies on works as it does without drain.
func TestHandlersGetWhatNetHTTPGives(t *testing.T) {
	t.Parallel()
	t.Run("a hijacked connection can be copied from", func(t *testing.T) {
		t.Parallel()
		got := make(chan string, 1)
		r := run(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			var b strings.Builder
			_, err = io.Copy(&b, conn)
			got <- fmt.Sprint(b.String(), " ", err)
		})
		client, _ := r.dial(t)
		_, _ = io.WriteString(client, getRoot)
		eventually(t, "a hijacked connection", func() bool {
			return slices.ContainsFunc(r.ln.snapshot(), func(c *conn) bool { return c.phaseIs(Hijacked) })
		})
		_, _ = io.WriteString(client, "ping")
		_ = client.(*net.TCPConn).CloseWrite()
		if text := <-got; text != "ping <nil>" {
			t.Errorf("io.Copy got %s, want ping", text)
		}
		checkClean(t, r.stop(t, patience))
	})
	t.Run("a handler's write deadline", func(t *testing.T) {
		t.Parallel()
		ended := make(chan error, 1)
		r := run(t, func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, chunk))
			}
			ended <- err
		})
		conn, _ := r.dial(t)
		_, _ = io.WriteString(conn, getRoot)
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write = %v, want a timeout", err)
			}
		case <-time.After(patience / 2):
			t.Error("the write goes on after its deadline")
		}
	})
	t.Run("a ConnState hook that sets a deadline", func(t *testing.T) {
		t.Parallel()
		r := run(t, hello, func(srv *http.Server) {
			srv.ConnState = func(nc net.Conn, s http.ConnState) {
				if s == http.StateIdle {
					_ = nc.SetReadDeadline(time.Now().Add(patience))
				}
			}
		})
		conn, answers := r.dial(t)
		_, _ = io.WriteString(conn, getRoot)
		answer(t, answers)
		checkClean(t, r.stop(t, patience))
	})
	t.Run("a writer that is kept is not another's", func(t *testing.T) {
		t.Parallel()
		var kept http.ResponseWriter
		r := run(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/keep" {
				kept = w
				return
			}
			_, _ = io.WriteString(kept, "of another")
			_, _ = io.WriteString(w, "own")
		})
		conn, answers := r.dial(t)
		_, _ = io.WriteString(conn, "GET /keep HTTP/1.1\r\nHost: x\r\n\r\n")
		answer(t, answers)
		_, _ = io.WriteString(conn, getRoot)
		if body, _ := answer(t, answers); body != "own" {
			t.Errorf("answer = %q, want its own alone", body)
		}
	})
}

func TestWriteTimeoutHoldsForEveryRequest(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{WriteTimeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			return
		}
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, chunk))
		}
		ended <- err
	})}
	r := &running{Server: New(srv, ln), addr: ln.Addr().String(), serve: make(chan error, 1)}
	go func() { r.serve <- r.Serve() }()
	t.Cleanup(func() { srv.Close() })
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	answer(t, answers)
	_, _ = io.WriteString(conn, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %v, want a timeout", err)
		}
	case <-time.After(patience / 2):
		t.Error("a client that does not read its second answer holds its request for ever")
	}
}

func TestEmptyLineBehindABodyIsNoRequest(t *testing.T) {
	t.Parallel()
	for name, parts := range map[string][]string{"with it": {"hello\r\n"}, "after it": {"hello", "\r\n"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			conn, answers := r.dial(t)
			_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"+parts[0])
			answer(t, answers)
			for _, part := range parts[1:] {
				_, _ = io.WriteString(conn, part)
			}
			if report := r.stop(t, patience/2); report.Requests != 0 {
				t.Errorf("Shutdown() = %+v, want no request cut", report)
			}
		})
	}
}

func TestOnlookerThatDoesNotReadFailsNothing(t *testing.T) {
	t.Parallel()
	served := make(chan struct{}, 1)
	r := run(t, func(w http.ResponseWriter, r *http.Request) {
		Expendable(r.Context())
		_, _ = w.Write(make([]byte, 60_000)) // which the kernel takes
		served <- struct{}{}
	})
	d := net.Dialer{Control: smallBuffer}
	conn, err := d.DialContext(t.Context(), "tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, getRoot)
	<-served
	if report := r.stop(t, patience); report.Requests != 0 || report.Took > patience/2 {
		t.Errorf("Shutdown() = %+v, want an onlooker's answer cut after a second", report)
	}
}

func TestWhatTheDeadlineEndsIsNotCalledLossless(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]string{"silent": "", "idle": getRoot} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, hello)
			conn, answers := r.dial(t)
			if send != "" {
				_, _ = io.WriteString(conn, send)
				answer(t, answers)
			}
			eventually(t, name+" connection", func() bool {
				all := r.ln.snapshot()
				return len(all) == 1 && all[0].current().String() == name
			})
			if report := r.stop(t, time.Nanosecond); report.Lossless() || report.Requests != 0 {
				t.Errorf("Shutdown() = %+v, want no request, and a doubt: nothing was waited for", report)
			}
		})
	}
}

func TestLatePipelinedRequestsAreCounted(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 1), make(chan struct{})
	r := run(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the header is written ")
		_ = http.NewResponseController(w).Flush()
		entered <- struct{}{}
		<-release
	})
	r.Draining()
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	<-entered
	_, _ = io.WriteString(conn, getRoot+getRoot)
	close(release)
	if _, last := answer(t, answers); !last {
		t.Error("the answer has no Connection: close")
	}
	if report := r.stop(t, patience); report.Late != 1 {
		t.Errorf("Shutdown() = %+v, want 1 late", report)
	}
}

func TestAnswersOfAnEarlierListenerAreNotThisOnes(t *testing.T) {
	t.Parallel()
	earlier, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Control: smallBuffer}
	client, err := d.DialContext(t.Context(), "tcp", earlier.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := earlier.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = accepted.Write(make([]byte, 100_000))
	accepted.Close()
	earlier.Close()

	ln, err := Listen(t.Context(), earlier.Addr().String(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: New(&http.Server{Handler: http.HandlerFunc(hello)}, ln), addr: ln.Addr().String(), serve: make(chan error, 1)}
	go func() { r.serve <- r.Serve() }()
	checkClean(t, r.stop(t, patience))
}
