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
// retry. Half of them keep their connection, half make a new one each time;
// they send GETs, and POSTs with a length and in chunks.
type load struct {
	addr     string
	sent     atomic.Int64
	answered atomic.Int64
	stopping atomic.Bool // from here on a refused connection is an answer, too

	clients sync.WaitGroup
	mu      sync.Mutex
	lost    []string
}

func startLoad(addr string, clients int) *load {
	l := &load{addr: addr}
	for i := range clients {
		l.clients.Go(func() { l.client(i) })
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

// client sends requests until it is refused.
func (l *load) client(i int) {
	keep := i%2 == 0
	request := [...]string{
		"GET /health HTTP/1.1\r\nHost: x\r\n%s\r\n",
		"POST /store HTTP/1.1\r\nHost: x\r\n%sContent-Length: 5\r\n\r\nhello",
		"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n",
		"POST /store HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	}[i/2%4]
	option := ""
	if !keep {
		option = "Connection: close\r\n"
	}
	request = fmt.Sprintf(request, option)

	var conn net.Conn
	var answers *bufio.Reader
	for {
		if conn == nil {
			var err error
			conn, err = net.Dial("tcp", l.addr)
			if err != nil {
				if !errors.Is(err, syscall.ECONNREFUSED) || !l.stopping.Load() {
					l.lose("client %d: %v", i, err)
				}
				return
			}
			answers = bufio.NewReader(conn)
		}
		l.sent.Add(1)
		_ = conn.SetDeadline(time.Now().Add(patience))
		last, err := exchange(conn, answers, request)
		if err != nil {
			conn.Close()
			l.lose("client %d, kept alive %t: %v", i, keep, err)
			return
		}
		l.answered.Add(1)
		if last || !keep {
			conn.Close()
			conn = nil
		}
	}
}

// exchange sends a request as it is and reads the answer; last says that the
// server closes the connection after it.
func exchange(conn net.Conn, answers *bufio.Reader, request string) (last bool, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return false, err
	}
	return resp.Close, nil
}
