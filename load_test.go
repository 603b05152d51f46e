package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// load is a number of clients that send one request after the other and never
// retry. Half of them keep their connection, half make a new one each time. A
// request that is answered with 500 or more is lost, unless it is aboutHealth.
type load struct {
	addr     string
	sent     atomic.Int64
	answered atomic.Int64
	stopping atomic.Bool // from here on a refused connection is an answer, too, and the last
	finished atomic.Bool // after the request that each client is at

	clients sync.WaitGroup
	mu      sync.Mutex
	lost    []string
}

// aboutHealth begins a request that a server which drains answers with 503.
const aboutHealth = "GET /health "

// toTheApp are requests of the app's own: GETs, and POSTs with a length and in chunks. The
// verb is for more fields.
var toTheApp = []string{
	aboutHealth + "HTTP/1.1\r\nHost: x\r\n%s\r\n",
	"POST /store HTTP/1.1\r\nHost: x\r\n%sContent-Length: 5\r\n\r\nhello",
	"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n",
	"POST /store HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}

// toAnyProgram are those that any program answers.
var toAnyProgram = []string{
	"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 5\r\n\r\nhello",
}

func startLoad(addr string, clients int, requests []string) *load {
	l := &load{addr: addr}
	for i := range clients {
		l.clients.Go(func() { l.client(requests[i/2%len(requests)], i%2 == 0) })
	}
	return l
}

// wait ends with the last client and reports what was lost.
func (l *load) wait(t *testing.T) {
	t.Helper()
	l.clients.Wait()
	if sent, answered := l.sent.Load(), l.answered.Load(); len(l.lost) > 0 || sent != answered {
		t.Errorf("sent %d, answered %d, lost: %s", sent, answered, strings.Join(l.lost, "; "))
	}
}

func (l *load) lose(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = append(l.lost, fmt.Sprintf(format, args...))
}

// client sends a request again and again, until it is refused.
func (l *load) client(request string, keep bool) {
	option := ""
	if !keep {
		option = "Connection: close\r\n"
	}
	request = fmt.Sprintf(request, option)

	var conn net.Conn
	var answers *bufio.Reader
	for !l.finished.Load() {
		if conn == nil {
			var err error
			conn, err = net.Dial("tcp", l.addr)
			if errors.Is(err, syscall.ECONNREFUSED) && l.stopping.Load() {
				return
			}
			if err != nil {
				l.lose("%q: %v", request, err)
				return
			}
			answers = bufio.NewReader(conn)
		}
		l.sent.Add(1)
		_ = conn.SetDeadline(time.Now().Add(patience))
		last, status, err := exchangeStatus(conn, answers, request)
		switch {
		case err != nil:
			l.lose("%q: %v", request, err)
		case status >= 500 && !strings.HasPrefix(request, aboutHealth):
			l.lose("%q: status %d", request, status)
		default:
			l.answered.Add(1)
		}
		if last || !keep || err != nil {
			conn.Close()
			conn = nil
		}
	}
	if conn != nil {
		conn.Close()
	}
}

// exchange sends a request as it is and reads the answer; last says that the
// server closes the connection after it.
func exchange(conn net.Conn, answers *bufio.Reader, request string) (last bool, err error) {
	last, _, err = exchangeStatus(conn, answers, request)
	return last, err
}

// exchangeStatus is exchange with the status of the answer.
func exchangeStatus(conn net.Conn, answers *bufio.Reader, request string) (last bool, status int, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return false, 0, err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return false, 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Close, resp.StatusCode, err
}
