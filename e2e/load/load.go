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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Patience bounds one handshake, and one request. It is above any time that a
// test waits for a server to stop, so that an answer that never comes is seen as
// that.
const Patience = 30 * time.Second

// Clients are those of a load. Half of them keep their connection, half make a
// new one for each request.
type Clients struct {
	Number int
	// Dial makes a connection to the server, which has to be there. Several
	// clients call it at once. It must not retry, and gives up after Patience.
	Dial func() (net.Conn, error)
	// Requests are what the clients send, as it is. Each client sends one of them
	// again and again; one that keeps no connection adds "Connection: close".
	Requests []string
	// Statuses are those of answers. A balancer gives another one in place of a
	// server that it lost. Without any, all are.
	Statuses []int
}

// Load is a load under way.
type Load struct {
	clients  Clients
	sent     atomic.Int64
	answered []atomic.Int64 // by each client
	stopping atomic.Bool
	finished atomic.Bool

	running sync.WaitGroup
	mu      sync.Mutex
	lost    []string
}

// Start begins to load the server.
func (c Clients) Start() *Load {
	l := &Load{clients: c, answered: make([]atomic.Int64, c.Number)}
	for i := range c.Number {
		l.running.Go(func() { l.client(i) })
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
	l.running.Wait()
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

func (l *Load) client(i int) {
	keep := i%2 == 0
	request := l.clients.Requests[i/2%len(l.clients.Requests)]
	if !keep {
		request = strings.Replace(request, "\r\n", "\r\nConnection: close\r\n", 1)
	}

	var conn net.Conn
	var answers *bufio.Reader
	for !l.finished.Load() {
		if conn == nil {
			var err error
			if conn, err = l.clients.Dial(); err != nil {
				if !errors.Is(err, syscall.ECONNREFUSED) || !l.stopping.Load() {
					l.lose("client %d: %v", i, err)
				}
				return
			}
			answers = bufio.NewReader(conn)
		}
		l.sent.Add(1)
		_ = conn.SetDeadline(time.Now().Add(Patience))
		last, err := l.exchange(conn, answers, request)
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

// exchange sends a request and reads the answer; last says that the server closes
// the connection after it.
func (l *Load) exchange(conn net.Conn, answers *bufio.Reader, request string) (last bool, err error) {
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
	if statuses := l.clients.Statuses; len(statuses) > 0 && !slices.Contains(statuses, resp.StatusCode) {
		return false, fmt.Errorf("status %d: %.200s", resp.StatusCode, body)
	}
	return resp.Close, nil
}
