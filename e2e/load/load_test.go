package load

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// clients load a server with GETs and POSTs.
func clients(addr string) Clients {
	return Clients{
		Number: 4,
		Dial:   func() (net.Conn, error) { return net.DialTimeout("tcp", addr, Patience) },
		Requests: []string{
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		},
	}
}

// await waits until each client has n answers.
func await(t *testing.T, l *Load, n int64) {
	t.Helper()
	for end := time.Now().Add(Patience); l.Fewest() < n; time.Sleep(time.Millisecond) {
		if lost := l.Lost(); len(lost) > 0 || time.Now().After(end) {
			t.Fatalf("%d answers for each client, lost %q, want %d answers", l.Fewest(), lost, n)
		}
	}
}

func TestClientsSendWhatTheyAreGiven(t *testing.T) {
	t.Parallel()
	var kept, closed, posted, connections atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost && string(body) == "hi" {
			posted.Add(1)
		}
		if r.Close {
			closed.Add(1)
		} else {
			kept.Add(1)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	l := clients(s.Listener.Addr().String()).Start()
	await(t, l, 5)
	l.Finish()
	sent, answered := l.Wait()
	if sent != answered || len(l.Lost()) > 0 {
		t.Errorf("sent %d, answered %d, lost %q, want as many answers as requests", sent, answered, l.Lost())
	}
	if posted.Load() < 10 || kept.Load() < 10 {
		t.Errorf("%d requests were POSTs, %d on kept connections, want at least 10 of each", posted.Load(), kept.Load())
	}
	if got, want := connections.Load(), closed.Load()+2; got != want {
		t.Errorf("%d connections, want %d, as many as requests that close theirs and 2 that are kept", got, want)
	}
}

func TestWhatIsLost(t *testing.T) {
	t.Parallel()
	unavailable := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", http.StatusServiceUnavailable) }
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, tc := range map[string]struct {
		handler  http.HandlerFunc
		statuses []int
		dial     error // of each try
		stopping bool
		lost     string // a part of what is said of it, "" if nothing is lost
	}{
		"any status is an answer":      {handler: unavailable},
		"a status that the server has": {handler: unavailable, statuses: []int{200, 503}},
		"a status of somebody else":    {handler: unavailable, statuses: []int{200}, lost: "status 503: gone"},
		"no answer":                    {handler: cut, lost: "EOF"},
		"no answer at the stop":        {handler: cut, stopping: true, lost: "EOF"},
		"refused":                      {dial: syscall.ECONNREFUSED, lost: "refused"},
		"refused at the stop":          {dial: syscall.ECONNREFUSED, stopping: true},
		"no handshake at the stop":     {dial: os.ErrDeadlineExceeded, stopping: true, lost: "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(tc.handler)
			defer s.Close()
			c := clients(s.Listener.Addr().String())
			c.Statuses = tc.statuses
			dial, begin := c.Dial, make(chan struct{})
			c.Dial = func() (net.Conn, error) {
				<-begin
				if tc.dial != nil {
					return nil, &net.OpError{Op: "dial", Err: tc.dial}
				}
				return dial()
			}
			l := c.Start()
			if tc.stopping {
				l.ServerStops()
			}
			close(begin)
			want := c.Number
			if tc.lost == "" {
				want = 0
			}
			if tc.lost == "" && tc.dial == nil {
				await(t, l, 2)
				l.Finish()
			}
			l.Wait()
			if lost := l.Lost(); len(lost) != want || want > 0 && !strings.Contains(lost[0], tc.lost) {
				t.Errorf("lost %q, want %d with %q", lost, want, tc.lost)
			}
		})
	}
}
