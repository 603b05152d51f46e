package drain

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// capped serves at most two requests at once, with RoomFor.
func capped(t *testing.T, h http.HandlerFunc) *running {
	t.Helper()
	var count atomic.Int64
	take := func() bool {
		if count.Add(1) <= 2 {
			return true
		}
		count.Add(-1)
		return false
	}
	return runWith(t, Options{WriteTimeout: patience}, func(w http.ResponseWriter, r *http.Request) {
		if !RoomFor(r.Context(), take) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer count.Add(-1)
		h(w, r)
	})
}

// statusOf asks with a client of its own.
func (r *running) statusOf(t *testing.T, path string) int {
	t.Helper()
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return resp.StatusCode
}

// Clients that keep requests waiting make room at a server's own cap, and handlers do not.
func TestRoomForRequests(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("x"), 8<<20)
	for name, test := range map[string]struct {
		request string
		drip    bool // a byte of the body now and then
		want    int
	}{
		"a body that does not come":    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", false, 200},
		"a body that drips":            {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", true, 200},
		"an answer that nobody reads":  {"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", false, 200},
		"a handler that is still busy": {"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", false, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			s := capped(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch r.URL.Path {
				case "/large":
					_, _ = w.Write(large)
				case "/hold":
					<-release
				}
			})
			t.Cleanup(func() { close(release) })
			for range 2 {
				conn, _ := s.dial(t)
				_, _ = io.WriteString(conn, test.request)
				if test.drip {
					go func() {
						for err := error(nil); err == nil; time.Sleep(50 * time.Millisecond) {
							_, err = io.WriteString(conn, "x")
						}
					}()
				}
			}
			eventually(t, "two requests", func() bool { return s.active() == 2 })
			for range 2 {
				if got := s.statusOf(t, "/"); got != test.want {
					t.Errorf("status %d, want %d", got, test.want)
				}
			}
			left := 2
			if test.want == 200 {
				left = 1 // the second found the room of the first
			}
			eventually(t, fmt.Sprintf("end of all but %d", left), func() bool { return s.active() == left })
		})
	}
}

// A slow body is cut only where there is no room.
func TestRoomForLeavesSlowBodiesAlone(t *testing.T) {
	t.Parallel()
	s := capped(t, func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || len(body) > 0 && len(body) != 40 {
			panic(http.ErrAbortHandler)
		}
	})
	conn, answers := s.dial(t)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n")
	for range 40 {
		_, _ = io.WriteString(conn, "x")
		if got := s.statusOf(t, "/"); got != 200 {
			t.Fatalf("status %d, want 200", got)
		}
		time.Sleep(settledSlow / 30)
	}
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the slow one got %v, %v, want 200", resp, err)
	}
}

// Who waits for room gets it before who comes later, and leaves no trace.
func TestRoomIsForTheFirst(t *testing.T) {
	t.Parallel()
	var released atomic.Bool
	order := make(chan string, 2)
	s := runWith(t, Options{WriteTimeout: patience}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow": // there may be room when it is ended
			_, _ = io.Copy(io.Discard, r.Body)
		case "/first":
			RoomFor(r.Context(), func() bool {
				if released.Load() {
					order <- "first"
				}
				return released.Load()
			})
		case "/second":
			RoomFor(r.Context(), func() bool {
				order <- "second"
				return true
			})
		}
	})
	send := func(path string) {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return // the end of the test
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
	}
	// There are always some that may be ended. In half a second each of them is.
	var slow sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	slow.Go(func() {
		for ctx.Err() == nil {
			send("/slow")
			time.Sleep(20 * time.Millisecond)
		}
	})
	defer slow.Wait()
	defer cancel()
	eventually(t, "slow request", func() bool { return s.active() > 0 })
	send("/first")
	eventually(t, "wait of the first", func() bool { return s.ln.wanting.Load() == 1 })
	send("/second")
	eventually(t, "wait of the second", func() bool { return s.ln.wanting.Load() == 2 })
	released.Store(true)
	for _, want := range []string{"first", "second"} {
		select {
		case got := <-order:
			if got != want {
				t.Errorf("room is for the %s, want the %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("there is no room for the %s", want)
		}
	}
	eventually(t, "end of the wait for room", func() bool { return s.ln.wanting.Load() == 0 })
}

// A request waits for its body no longer than it is there, however old the server is.
func TestWaitForABodyIsTheRequestsOwn(t *testing.T) {
	t.Parallel()
	s := runWith(t, Options{WriteTimeout: patience}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})
	eventually(t, "server of some age", func() bool { return time.Since(s.ln.epoch) > 200*time.Millisecond })
	began := int64(time.Since(s.ln.epoch))
	conn, _ := s.dial(t)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	for i := range 20 {
		_, _ = io.WriteString(conn, "x")
		var since int64
		eventually(t, "wait for the body", func() bool {
			for _, c := range s.ln.snapshot() {
				since = c.awaiting.Load()
			}
			return since != 0
		})
		if since < began {
			t.Fatalf("after %d bytes it waits since %v, and it was begun at %v", i+1, time.Duration(since), time.Duration(began))
		}
		time.Sleep(5 * time.Millisecond) // each byte is a read of its own
	}
}

// Waiting for room is worth while only where a request waits for its client. Callers that ask within the same
// 10 ms share one look.
func TestWhoMayMakeRoom(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{"/busy": false, "/body": true, "/answer": true} {
		t.Run(path[1:], func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			s := runWith(t, Options{WriteTimeout: patience}, func(w http.ResponseWriter, r *http.Request) {
				switch path {
				case "/body":
					_, _ = io.Copy(io.Discard, r.Body)
				case "/answer":
					_, _ = w.Write(make([]byte, 8<<20))
				case "/busy":
					_ = http.NewResponseController(w).Flush()
					<-release
				}
			})
			t.Cleanup(func() { close(release) })
			conn, answers := s.dial(t)
			request := getRoot
			if path == "/body" {
				request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
			}
			_, _ = io.WriteString(conn, request)
			if path == "/busy" { // its client has read what there is
				if _, err := http.ReadResponse(answers, nil); err != nil {
					t.Fatal(err)
				}
			}
			look := func() bool {
				s.ln.evicting.Lock()
				s.ln.nextLook = 0
				s.ln.evicting.Unlock()
				return s.ln.displace()
			}
			eventually(t, fmt.Sprintf("look that says %v", want), func() bool { return s.active() == 1 && look() == want })
			for range 20 {
				before := time.Since(s.ln.epoch)
				if look() != want {
					t.Fatalf("somebody may make room: %v, want %v", !want, want)
				}
				if next := s.ln.nextLook - before; next < 10*time.Millisecond {
					t.Fatalf("the next look is %v after this one, want 10ms at least", next)
				}
			}
		})
	}
}

func TestWaitForABodyAddsUp(t *testing.T) {
	t.Parallel()
	var b bodyWait
	b.add(1, time.Second)
	b.add(chunk-2, time.Second)
	if b.waited != 2*time.Second {
		t.Errorf("waited %v for a byte less than a chunk, want 2s", b.waited)
	}
	b.add(1, time.Second)
	if b != (bodyWait{}) {
		t.Errorf("after a chunk it is %+v, want zero", b)
	}
}
