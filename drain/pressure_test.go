package drain

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestClientThatTakesAByteNowAndThenIsCut(t *testing.T) {
	t.Parallel()
	s := runWith(t, Options{WriteTimeout: 2 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 1000))
	})
	conn, _ := s.dial(t)
	_ = conn.(*net.TCPConn).SetReadBuffer(2048)
	gone := make(chan struct{})
	go func() { // pipelines for as long as it is let
		defer close(gone)
		for {
			if _, err := io.WriteString(conn, strings.Repeat(getRoot, 100)); err != nil {
				return
			}
		}
	}()
	go func() {
		for sip := make([]byte, 1); ; {
			select {
			case <-gone:
				return
			case <-time.After(100 * time.Millisecond):
				_, _ = conn.Read(sip)
			}
		}
	}()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("each answer begins the write timeout anew")
	}
}

func TestClientThatReadsSlowlyIsNotCut(t *testing.T) {
	t.Parallel()
	const size = 300_000 // some 16 kB/s get through such a small buffer
	s := runWith(t, Options{WriteTimeout: 10 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, size))
	})
	conn, r := s.dial(t)
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	_, _ = io.WriteString(conn, getRoot)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := int64(0)
	for err == nil {
		var n int64
		n, err = io.CopyN(io.Discard, resp.Body, 3200)
		got += n
		time.Sleep(100 * time.Millisecond)
	}
	if err != io.EOF || got != size {
		t.Errorf("read %d bytes, %v, want %d", got, err, size)
	}
}

// busy is a server of at most two connections, with a request on each.
func busy(t *testing.T, spare int, events *atomic.Int64) *running {
	t.Helper()
	release := make(chan struct{})
	s := runWith(t, Options{MaxConns: 2, Spare: spare, WriteTimeout: patience, Observe: func(e Event) {
		if e.Kind == Refused {
			events.Add(1)
		}
	}}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/health":
		case !Room(r.Context()):
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/hold":
			<-release
		default:
			_, _ = io.WriteString(w, "room")
		}
	})
	t.Cleanup(func() { close(release) })
	for range 2 {
		conn, _ := s.dial(t)
		fmt.Fprint(conn, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	eventually(t, "requests in flight", func() bool { return s.active() == 2 })
	return s
}

// active is the number of requests in flight.
func (r *running) active() (n int) {
	for _, c := range r.ln.snapshot() {
		if c.phaseIs(Active) {
			n++
		}
	}
	return n
}

func TestSpareConnectionsAnswerHealthChecks(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	s := busy(t, 2, &refused)
	for _, tc := range []struct {
		path string
		want int
	}{{"/health", 200}, {"/", 503}, {"/health", 200}} {
		resp, err := sendThenRead(s.addr, "GET "+tc.path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0)
		if err != nil || resp.StatusCode != tc.want {
			t.Errorf("GET %s with every connection in use = %v, %v, want %d", tc.path, resp, err, tc.want)
		}
	}
	if got := refused.Load(); got != 1 {
		t.Errorf("refusals = %d, want the one", got)
	}
}

func TestSpareConnectionMovesIn(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	s := busy(t, 1, &refused)
	conn, answers := s.dial(t)
	fmt.Fprint(conn, getRoot) // which waits for room
	eventually(t, "request above the cap", func() bool { return s.active() == 3 })
	for _, c := range s.ln.snapshot() {
		if !c.above.Load() {
			_ = c.end()
			break
		}
	}
	if body, last := answer(t, answers); body != "room" || last {
		t.Errorf("answer = %q, the last %t, want that there is room again, for more requests", body, last)
	}
}

// A client that sends one request after the other is not to keep a health check out.
func TestSpareConnectionIsForOneRequest(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	s := busy(t, 1, &refused)
	for _, path := range []string{"/health", "/", "/health"} {
		conn, answers := s.dial(t)
		_, _ = io.WriteString(conn, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n", 10))
		if _, last := answer(t, answers); !last {
			t.Errorf("GET %s above the cap is not the last of its connection", path)
		}
	}
}

func TestSlowClientsMakeRoom(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]func(net.Conn){
		"that do not read": func(conn net.Conn) {
			_ = conn.(*net.TCPConn).SetReadBuffer(2048)
			fmt.Fprint(conn, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
		},
		"that do not send": func(conn net.Conn) {
			fmt.Fprint(conn, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var evictions atomic.Int64
			s := runWith(t, Options{MaxConns: 2, WriteTimeout: patience, Observe: func(e Event) {
				if e.Kind == Evicted {
					evictions.Add(1)
				}
			}}, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/large":
					_, _ = w.Write(make([]byte, 64<<20))
				case "/upload":
					_, _ = io.Copy(io.Discard, r.Body)
				}
			}, func(srv *http.Server) { srv.ReadTimeout = time.Hour })
			for range 2 {
				conn, _ := s.dial(t)
				slow(conn)
			}
			eventually(t, "requests in flight", func() bool { return s.active() == 2 })
			eventually(t, "answer to a client of good manners", func() bool {
				resp, err := sendThenRead(s.addr, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0)
				return err == nil && resp.StatusCode == 200
			})
			if evictions.Load() == 0 {
				t.Error("no eviction was reported")
			}
		})
	}
}

// A handler that takes its time is not its client's fault.
func TestServedRequestsMakeNoRoom(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	s := busy(t, 0, &refused)
	eventually(t, "time for an eviction", func() bool { return time.Since(s.ln.epoch) > 2*settledSlow })
	if s.ln.evict(evicted) || s.active() != 2 {
		t.Error("a request was cut that waits for its handler")
	}
}

func TestDoubtfulFramingClosesTheConnection(t *testing.T) {
	t.Parallel()
	s := run(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	const chunked = "3\r\nabc\r\n0\r\n\r\n"
	for _, tc := range []struct {
		name, request string
		closes        bool
	}{
		{"a length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", false},
		{"a coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, false},
		{"both", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, true},
		{"both, in the other order and other letters", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\ncontent-LENGTH: 3\r\n\r\n" + chunked, true},
		{"both, with bare line feeds", "POST / HTTP/1.1\nHost: x\nContent-Length: 3\nTransfer-Encoding: chunked\n\n" + chunked, true},
		{"a coding in HTTP/1.0", "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", true},
		{"a coding in HTTP/1.0 without a length", "GET / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", true},
		{"names that only begin so", "POST / HTTP/1.1\r\nHost: x\r\nContent-Lengths: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, false},
		{"names in a body", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 28\r\n\r\nTransfer-Encoding: chunked\r\n", false},
	} {
		for how, send := range map[string]func(net.Conn){
			"at once": func(conn net.Conn) { _, _ = io.WriteString(conn, tc.request) },
			"byte by byte": func(conn net.Conn) {
				for _, b := range []byte(tc.request) {
					_, _ = conn.Write([]byte{b})
					time.Sleep(100 * time.Microsecond)
				}
			},
		} {
			t.Run(tc.name+", "+how, func(t *testing.T) {
				t.Parallel()
				conn, answers := s.dial(t)
				for range 2 { // the second request is no better than the first
					send(conn)
					if _, last := answer(t, answers); last != tc.closes {
						t.Fatalf("last answer of its connection = %t, want %t", last, tc.closes)
					}
					if tc.closes {
						if _, err := answers.ReadByte(); err != io.EOF {
							t.Errorf("after the answer: %v, want the end", err)
						}
						return
					}
				}
			})
		}
	}
}

// A request that came in one segment with others is told from them.
func TestDoubtfulFramingAmongPipelinedRequests(t *testing.T) {
	t.Parallel()
	s := run(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	conn, answers := s.dial(t)
	const both = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	_, _ = io.WriteString(conn, getRoot+getRoot+both+getRoot)
	var closes []bool
	for range 3 {
		_, last := answer(t, answers)
		closes = append(closes, last)
	}
	if closes[0] || closes[1] || !closes[2] {
		t.Errorf("closed after = %v, want only the third", closes)
	}
	// Behind a body nobody knows what is a header.
	conn, answers = s.dial(t)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"+both+getRoot)
	answer(t, answers)
	if _, last := answer(t, answers); !last {
		t.Error("behind a body, a request with both is not its connection's last")
	}
}

func TestNextRequestAfterABodyKeepsItsConnection(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 6<<10) // more than net/http's buffer takes
	for name, request := range map[string]string{
		"chunked": fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body),
		"HTTP/1.0": fmt.Sprintf("POST / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n%s",
			len(body), body),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			served := 0
			r := run(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Length", "5")
				hello(w, r)
				_ = http.NewResponseController(w).Flush()
				if served++; served == 1 {
					// Its client has the answer, and is faster than the end of the handler.
					eventually(t, "byte of the next request", connOf(r.Context()).ahead.Load)
				}
			})
			conn, br := r.dial(t)
			for i := range 3 {
				fmt.Fprint(conn, request)
				if _, last := answer(t, br); last {
					t.Errorf("answer %d closes the connection", i)
				}
			}
		})
	}
}

// slowly gives ten bytes at a time.
type slowly struct{ io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return s.Reader.Read(p[:min(len(p), 10)])
}

func TestClientIsNotCutForASourceThatIsSlow(t *testing.T) {
	t.Parallel()
	const size = 1000
	for name, pipe := range map[string]bool{"reader": false, "pipe": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runWith(t, Options{WriteTimeout: 300 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				var source io.Reader = slowly{strings.NewReader(strings.Repeat("x", size))}
				if pipe {
					from, to, err := os.Pipe()
					if err != nil {
						t.Error(err)
						return
					}
					defer from.Close()
					go func(s io.Reader) {
						_, _ = io.Copy(to, struct{ io.Reader }{s})
						to.Close()
					}(source)
					source = from
				}
				if n, err := io.CopyN(w, source, size); err != nil {
					t.Errorf("written %d, %v", n, err)
				}
			})
			conn, br := r.dial(t)
			fmt.Fprint(conn, getRoot)
			if body, _ := answer(t, br); len(body) != size {
				t.Errorf("%d bytes, want %d", len(body), size)
			}
		})
	}
}

// pipelining is a client that has sent n requests for a kilobyte each and has read no
// answer; calls counts those that were begun.
func pipelining(t *testing.T, n int, o Options) (s *running, conn net.Conn, answers *bufio.Reader, calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	s = runWith(t, o, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = w.Write(make([]byte, 1000))
	})
	conn, answers = s.dial(t)
	_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	go func() { _, _ = io.WriteString(conn, strings.Repeat(getRoot, n)) }()
	eventually(t, "wait for the reader", s.stalls)
	return s, conn, answers, calls
}

// stalls says whether a client is waited for that does not read.
func (r *running) stalls() bool {
	return slices.ContainsFunc(r.ln.snapshot(), func(c *conn) bool { return c.stall.isOn() })
}

func TestPipelinedRequestsWaitForTheirReader(t *testing.T) {
	t.Parallel()
	const n = 3000
	_, _, answers, calls := pipelining(t, n, Options{WriteTimeout: patience})
	if got := calls.Load(); got > 400 { // what both kernels hold
		t.Errorf("%d requests are begun while nothing is read", got)
	}
	for i := range n {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if size, err := io.Copy(io.Discard, resp.Body); size != 1000 || err != nil {
			t.Fatalf("answer %d: %d bytes, %v, want 1000", i, size, err)
		}
	}
	if got := calls.Load(); got != n {
		t.Errorf("%d requests were served, want %d", got, n)
	}
}

func TestPipelinedRequestsDoNotWaitForEver(t *testing.T) {
	t.Parallel()
	s, _, _, _ := pipelining(t, 3000, Options{WriteTimeout: time.Second})
	eventually(t, "end of the connection", func() bool { return s.ln.count() == 0 })
}

// The time that a reader has begins with its wait, and not with the server.
func TestPipelinedRequestsWaitForALateReader(t *testing.T) {
	t.Parallel()
	const n = 1000
	s := runWith(t, Options{WriteTimeout: time.Second}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 1000))
	})
	eventually(t, "server that is older than the time for a write", func() bool { return time.Since(s.ln.epoch) > time.Second })
	conn, answers := s.dial(t)
	_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	go func() { _, _ = io.WriteString(conn, strings.Repeat(getRoot, n)) }()
	eventually(t, "wait for the reader", s.stalls)
	for i := range n {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if size, err := io.Copy(io.Discard, resp.Body); size != 1000 || err != nil {
			t.Fatalf("answer %d: %d bytes, %v, want 1000", i, size, err)
		}
	}
}

func TestPipelinedRequestsMakeRoom(t *testing.T) {
	t.Parallel()
	s, _, _, _ := pipelining(t, 3000, Options{WriteTimeout: patience, MaxConns: 1})
	conn, answers := s.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	if body, _ := answer(t, answers); len(body) != 1000 {
		t.Errorf("a new client reads %d bytes, want 1000", len(body))
	}
}

func TestPipelinedRequestsAreServedInADrain(t *testing.T) {
	t.Parallel()
	const n = 1000
	s, _, answers, calls := pipelining(t, n, Options{WriteTimeout: patience})
	read := make(chan int64)
	go func() {
		eventually(t, "drain", s.ln.draining.Load)
		size, _ := io.Copy(io.Discard, answers)
		read <- size
	}()
	if report := s.stop(t, patience); len(report.Cut) != 0 {
		t.Errorf("the drain cuts %v, want nothing", report.Cut)
	}
	if size := <-read; size < n*1000 || calls.Load() != n {
		t.Errorf("%d requests were served, %d bytes read, want %d requests", calls.Load(), size, n)
	}
}
