// Package load is a number of HTTP clients that never retry, and count each
// request that they sent and each answer that they got. What is missing in the
// end was lost by the server.
package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Patience bounds one handshake, and one request. It is above any time that a
// test waits for a server to stop, so that an answer that never comes is seen as
// that.
const Patience = 30 * time.Second

// Load is a load under way. Half of its clients keep their connection, half make
// a new one for each request; they send GETs, and POSTs with a length and in
// chunks, one after the other.
type Load struct {
	dial     func() (net.Conn, error)
	sent     atomic.Int64
	answered []atomic.Int64 // by each client
	stopping atomic.Bool
	finished atomic.Bool

	clients sync.WaitGroup
	mu      sync.Mutex
	lost    []string
}

// Start begins to load the server at addr, which has to be there.
func Start(addr string, clients int) *Load {
	return StartWith(func() (net.Conn, error) { return net.DialTimeout("tcp", addr, Patience) }, clients)
}

// StartWith is Start with clients that get their connections from dial. Several
// of them call it at once. It must not retry, and gives up after Patience.
func StartWith(dial func() (net.Conn, error), clients int) *Load {
	l := &Load{dial: dial, answered: make([]atomic.Int64, clients)}
	for i := range clients {
		l.clients.Go(func() { l.client(i) })
	}
	return l
}

// Sent is the number of requests so far.
func (l *Load) Sent() int64 { return l.sent.Load() }

// Fewest is the least number of answers that any client has got so far.
func (l *Load) Fewest() int64 {
	fewest := int64(math.MaxInt64)
	for i := range l.answered {
		fewest = min(fewest, l.answered[i].Load())
	}
	return fewest
}

// ServerStops says that the server is about to be stopped: from here on a refused
// connection is an answer, too, and the end of the client.
func (l *Load) ServerStops() { l.stopping.Store(true) }

// Finish ends each client after the request that it is at.
func (l *Load) Finish() { l.finished.Store(true) }

// Lost is what has been lost so far, a line each.
func (l *Load) Lost() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lost...)
}

// Wait returns the numbers of requests and answers once the last client is done.
func (l *Load) Wait() (sent, answered int64) {
	l.clients.Wait()
	for i := range l.answered {
		answered += l.answered[i].Load()
	}
	return l.sent.Load(), answered
}

func (l *Load) lose(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = append(l.lost, fmt.Sprintf(format, args...))
}

var requests = [...]string{
	"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n",
	"POST /store HTTP/1.1\r\nHost: x\r\n%sContent-Length: 5\r\n\r\nhello",
	"GET /proof HTTP/1.1\r\nHost: x\r\n%s\r\n",
	"POST /store HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}

func (l *Load) client(i int) {
	keep, option := i%2 == 0, ""
	if !keep {
		option = "Connection: close\r\n"
	}
	request := fmt.Sprintf(requests[i/2%len(requests)], option)

	var conn net.Conn
	var answers *bufio.Reader
	for !l.finished.Load() {
		if conn == nil {
			var err error
			if conn, err = l.dial(); err != nil {
				if !errors.Is(err, syscall.ECONNREFUSED) || !l.stopping.Load() {
					l.lose("client %d: %v", i, err)
				}
				return
			}
			answers = bufio.NewReader(conn)
		}
		l.sent.Add(1)
		_ = conn.SetDeadline(time.Now().Add(Patience))
		last, err := exchange(conn, answers, request)
		if err != nil {
			conn.Close()
			l.lose("client %d, kept alive %t: %v", i, keep, err)
			return
		}
		l.answered[i].Add(1)
		if last || !keep {
			conn.Close()
			conn = nil
		}
	}
	if conn != nil {
		conn.Close()
	}
}

// exchange sends a request as it is and reads the answer; last says that the
// server closes the connection after it. A balancer answers in place of a server
// that it lost, so a status that the server does not give is no answer.
func exchange(conn net.Conn, answers *bufio.Reader, request string) (last bool, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated:
		return resp.Close, nil
	}
	return false, fmt.Errorf("status %d: %.200s", resp.StatusCode, body)
}
