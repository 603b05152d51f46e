package drain

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// sendThenRead sends everything before it reads a byte of the answer, as many clients do.
func sendThenRead(addr, header string, body int64) (*http.Response, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, header); err != nil {
		return nil, fmt.Errorf("send the header: %w", err)
	}
	if _, err := io.Copy(conn, io.LimitReader(zeros{}, body)); err != nil {
		return nil, fmt.Errorf("send the body: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, fmt.Errorf("read the answer's body: %w", err)
	}
	return resp, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAnswerBeforeTheEndOfTheRequestArrives(t *testing.T) {
	t.Parallel()
	s := run(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not wanted", http.StatusUnauthorized)
	}, func(srv *http.Server) { srv.MaxHeaderBytes = 8 << 10 })
	for _, tc := range []struct {
		name, header string
		status       int
	}{
		{"HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n", 401},
		{"HTTP/1.1 that closes", "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", 401},
		{"HTTP/1.1 kept alive", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 401},
		{"malformed header", "POST / HTTP/1.1\r\nHost: x\r\nNo Colon\r\nContent-Length: %d\r\n\r\n", 400},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rot13\r\nX: %d\r\n\r\n", 501},
		{"header too large", "POST / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\nContent-Length: %d\r\n\r\n", 431},
	} {
		for _, size := range []int64{300 << 10, 1 << 20, 50 << 20} {
			t.Run(fmt.Sprintf("%s, %d", tc.name, size), func(t *testing.T) {
				t.Parallel()
				for range 5 {
					resp, err := sendThenRead(s.addr, fmt.Sprintf(tc.header, size), size)
					if err != nil {
						t.Fatal(err)
					}
					if resp.StatusCode != tc.status {
						t.Errorf("status = %d, want %d", resp.StatusCode, tc.status)
					}
				}
			})
		}
	}
}

// A client that was answered and does not close is not waited for for ever, nor one that
// sends for ever.
func TestClientsThatNeverEndTheirRequestsAreLeft(t *testing.T) {
	t.Parallel()
	s := run(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) })
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	eventually(t, "half-closed connection", func() bool {
		all := s.ln.snapshot()
		return len(all) == 1 && all[0].phaseIs(Lingering)
	})
	eventually(t, "end of the connection", func() bool { return s.ln.count() == 0 })
}

func TestRefusedClientsAreToldSideBySide(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := runWith(t, Options{MaxConns: 2, WriteTimeout: patience}, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	for range 2 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	eventually(t, "requests in flight", func() bool {
		n := 0
		for _, c := range s.ln.snapshot() {
			if c.phaseIs(Active) {
				n++
			}
		}
		return n == 2
	})
	// One after the other they would not be done in time.
	answers := make(chan error, 20)
	for range cap(answers) {
		go func() {
			resp, err := sendThenRead(s.addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", 1_000_000)
			if err == nil && resp.StatusCode != http.StatusServiceUnavailable {
				err = fmt.Errorf("status = %d, want 503", resp.StatusCode)
			}
			answers <- err
		}()
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}
