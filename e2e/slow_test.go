package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests of this file give each container a network namespace of its own, which ends with its PID 1: what the kernel
// has not delivered by then is lost, while on the host's network it would be delivered after the exit. They go to the
// container's own address, as Docker's proxy for published ports would read in place of a slow client.

// startOnBridge runs a hardened container of the variant on Docker's bridge. Options are those of docker run.
func startOnBridge(t *testing.T, variant string, options ...string) *container {
	t.Helper()
	needEngine(t)
	c := &container{name: newName()}
	t.Cleanup(func() { c.remove(t) })
	args := slices.Concat([]string{"run", "-d", "--name", c.name, "--label", label()}, hardened, sandboxOptions(), options)
	docker(t, append(args, imageOf(variant))...)
	ip := inspect[string](t, c.name, ".NetworkSettings.Networks.bridge.IPAddress")
	c.addr = net.JoinHostPort(ip, "8000")
	c.app, c.ops = "http://"+c.addr, "http://"+net.JoinHostPort(ip, "9000")
	if slices.Contains(options, "IMAGELAB_OPS_ADDR=") {
		c.ops = c.app + "/-"
	}
	c.await(t)
	return c
}

// stop runs docker stop with more grace than the service ever needs, checks the exit code, and returns the log.
func (c *container) stop(t *testing.T, exitCode int) stopLog {
	t.Helper()
	docker(t, "stop", "-t", "60", c.name)
	if got := c.exitCode(t); got != exitCode {
		t.Errorf("exit code = %d, want %d", got, exitCode)
	}
	_, stderr, _ := try(t, "logs", c.name)
	var log stopLog
	for line := range strings.Lines(stderr) {
		var record logRecord
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("line of the log %q: %v", line, err)
		}
		log = append(log, record)
	}
	if len(log) == 0 {
		t.Fatal("no log")
	}
	return log
}

// A stopLog is the log of a container that has stopped.
type stopLog []logRecord

// A logRecord has what the tests of the stop read of a line.
type logRecord struct {
	Time   time.Time `json:"time"`
	Msg    string    `json:"msg"`
	Cut    int       `json:"cut"`
	Signal string    `json:"signal"`
}

func (log stopLog) last() logRecord { return log[len(log)-1] }

// took is the time from the signal to the last line: most of what docker stop takes is the engine's own.
func (log stopLog) took(t *testing.T) time.Duration {
	t.Helper()
	for _, record := range log {
		if record.Msg == "draining" {
			return log.last().Time.Sub(record.Time)
		}
	}
	t.Error("the log does not say that it drained")
	return 0
}

// checkClean checks that the log claims that nothing was lost.
func (log stopLog) checkClean(t *testing.T) {
	t.Helper()
	if got, want := log.last().Msg, "stopped, no request was lost"; got != want {
		t.Errorf("the last line of the log = %q, want %q", got, want)
	}
}

// A slowConn is a client's connection whose kernel takes little, and which is read at a steady rate. All of its waits
// end after patience.
type slowConn struct {
	net.Conn
	rate  int       // bytes a second
	began time.Time // when the first byte was due
	read  int       // bytes since then
}

// smallBuffer is the receive buffer of slow clients, which the kernel doubles (socket(7), SO_RCVBUF).
const smallBuffer = 4096

func dialSlow(addr string, rate int) (*slowConn, error) {
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, smallBuffer)
		})
		return err
	}}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: conn, rate: rate, began: time.Now()}, conn.SetDeadline(time.Now().Add(patience))
}

// Read sleeps until the bytes that have been read were due.
func (c *slowConn) Read(b []byte) (int, error) {
	time.Sleep(time.Until(c.began.Add(time.Duration(c.read) * time.Second / time.Duration(c.rate))))
	n, err := c.Conn.Read(b[:min(len(b), 1024)])
	c.read += n
	return n, err
}

// A slowReader asks for a blob once, and reads it slowly.
type slowReader struct {
	size, rate int
	close      bool // it asks with Connection: close
	during     bool // it asks during the drain; the connection may have been used before

	conn    *slowConn
	answers *bufio.Reader
	content string
	path    string
	got     int
	asked   time.Time
	took    time.Duration
	err     error
}

func (r *slowReader) String() string {
	return fmt.Sprintf("%d bytes at %d a second, close %t, asked during the drain %t", r.size, r.rate, r.close, r.during)
}

// dial connects, and with a connection that is to be kept has a first answer.
func (r *slowReader) dial(addr string) error {
	conn, err := dialSlow(addr, r.rate)
	if err != nil {
		return err
	}
	r.conn, r.answers = conn, bufio.NewReaderSize(conn, 1024)
	if r.close {
		return nil
	}
	if err := r.ask("/"); err != nil {
		return err
	}
	_, _, err = r.answer()
	return err
}

func (r *slowReader) ask(path string) error {
	option := ""
	if r.close {
		option = "Connection: close\r\n"
	}
	r.asked = time.Now()
	r.conn.began, r.conn.read = r.asked, 0
	_, err := fmt.Fprintf(r.conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, option)
	return err
}

// answer reads an answer; last says that the server closes the connection after it.
func (r *slowReader) answer() (body []byte, last bool, err error) {
	resp, err := http.ReadResponse(r.answers, nil)
	if err != nil {
		return nil, false, err
	}
	body, err = io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return body, resp.Close, err
}

// finish reads the answer to its end, and then the end of the connection.
func (r *slowReader) finish() error {
	defer r.conn.Close()
	body, last, err := r.answer()
	r.got, r.took = len(body), time.Since(r.asked)
	switch {
	case err != nil:
		return err
	case string(body) != r.content:
		return errors.New("not what was stored")
	case r.during && !last:
		return errors.New("no Connection: close during the drain")
	}
	if _, err := r.answers.ReadByte(); err != io.EOF {
		return fmt.Errorf("behind the answer: %v, want EOF", err)
	}
	return nil
}

// awaitDraining waits until the container says that it drains.
func (c *container) awaitDraining() error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		resp, err := client().Get(c.ops + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			return nil
		}
	}
	return fmt.Errorf("not draining after %v", patience)
}

// A socket is what the kernel says of one of a container's sockets (proc_pid_net(5)).
type socket struct {
	queue  int  // bytes that the client has not acknowledged; a FIN counts as one
	closed bool // no process has it open
}

// peerOf returns the container's end of a connection.
func (c *container) peerOf(t *testing.T, conn net.Conn) (s socket, found bool) {
	t.Helper()
	remote := fmt.Sprintf(":%04X", conn.LocalAddr().(*net.TCPAddr).Port)
	pid := c.pid(t)
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		for line := range strings.Lines(readProc(t, pid, table)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || !strings.HasSuffix(fields[2], remote) {
				continue
			}
			queue, _, _ := strings.Cut(fields[4], ":")
			n, err := strconv.ParseInt(queue, 16, 64)
			if err != nil {
				t.Fatalf("line of %s %q: %v", table, line, err)
			}
			return socket{int(n), fields[9] == "0"}, true
		}
	}
	return socket{}, false
}

// awaitClosed waits until the server has closed the connection while the client has not got everything.
func (c *container) awaitClosed(t *testing.T, r *slowReader) {
	t.Helper()
	eventually(t, "connection that only the kernel knows", func() bool {
		s, found := c.peerOf(t, r.conn)
		if !found {
			t.Fatalf("%v: the connection is over before the stop", r)
		}
		return s.closed && s.queue > 1
	})
}

// begin has a reader ask before the stop, and waits for the first byte of the answer.
func (r *slowReader) begin(t *testing.T, c *container) {
	t.Helper()
	if err := r.dial(c.addr); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	t.Cleanup(func() { r.conn.Close() }) // and not the garbage collector
	if err := r.ask(r.path); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	if _, err := r.answers.Peek(1); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
}

func TestSlowReadersGetEverything(t *testing.T) {
	const kB = 1000
	stops := 2
	if *soak {
		stops = 50
	}
	// Sizes and rates. The client of the connection that is closed before the stop takes longest, so that nothing else
	// is waited for in its place.
	for name, tc := range map[string]slowCase{
		"default timeout": {
			timeout: "8s",
			kinds: []slowReader{
				{size: 60 * kB, rate: 20 * kB}, {size: 300 * kB, rate: 60 * kB}, {size: 1 << 20, rate: 200 * kB},
			},
			closed: slowReader{size: 60 * kB, rate: 9 * kB},
		},
		"longer timeout": {
			timeout: "30s",
			kinds:   []slowReader{{size: 60 * kB, rate: 20 * kB}, {size: 300 * kB, rate: 20 * kB}},
			closed:  slowReader{size: 60 * kB, rate: 3500},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var answers, received int
			var slowest, longest time.Duration
			for n := range stops {
				log, readers := stopWithSlowReaders(t, variants[n%len(variants)], tc)
				answers += len(readers)
				for _, r := range readers {
					received += r.got
					slowest = max(slowest, r.took)
				}
				longest = max(longest, log.took(t))
			}
			t.Logf("%d stops, %d answers, %d bytes; the slowest answer took %v, the longest stop %v",
				stops, answers, received, slowest.Round(time.Millisecond), longest.Round(time.Millisecond))
		})
	}
}

// A slowCase is what a container is stopped with: of each kind of reader one that keeps its connection and one that
// does not, before the drain and during it; and one whose connection the server has closed before.
type slowCase struct {
	timeout string // IMAGELAB_SHUTDOWN_TIMEOUT
	kinds   []slowReader
	closed  slowReader
}

// stopWithSlowReaders stops a container once, and returns its log and all readers.
func stopWithSlowReaders(t *testing.T, variant string, tc slowCase) (stopLog, []*slowReader) {
	t.Helper()
	// The delay is for those who ask during the drain. Some of them have been silent until then.
	c := startOnBridge(t, variant, "-e", "IMAGELAB_DRAIN_DELAY=2s", "-e", "IMAGELAB_SHUTDOWN_TIMEOUT="+tc.timeout,
		"-e", "IMAGELAB_READ_HEADER_TIMEOUT="+patience.String())
	var readers []*slowReader
	for _, r := range tc.kinds {
		r.content, r.path = blob(r.size)
		c.post(t, r.content, r.path)
		for _, r.close = range []bool{false, true} {
			for _, r.during = range []bool{false, true} {
				one := r
				readers = append(readers, &one)
			}
		}
	}
	closed := &tc.closed
	closed.close = true
	closed.content, closed.path = blob(closed.size)
	c.post(t, closed.content, closed.path)
	closed.begin(t, c)

	var all sync.WaitGroup
	for _, r := range readers {
		if !r.during {
			r.begin(t, c)
			all.Go(func() { r.err = r.finish() })
			continue
		}
		if err := r.dial(c.addr); err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		all.Go(func() {
			r.err = c.awaitDraining()
			if r.err == nil {
				r.err = r.ask(r.path)
			}
			if r.err == nil {
				r.err = r.finish()
			}
		})
	}
	c.awaitClosed(t, closed)
	all.Go(func() {
		// The client knows the length; the FIN behind it is not waited for.
		body, _, err := closed.answer()
		closed.got, closed.took = len(body), time.Since(closed.asked)
		if closed.err = err; string(body) != closed.content && err == nil {
			closed.err = errors.New("not what was stored")
		}
		closed.conn.Close()
	})
	log := c.stop(t, 0)
	log.checkClean(t)
	all.Wait()
	readers = append(readers, closed)
	for _, r := range readers {
		if r.err != nil {
			t.Errorf("%v: %d bytes in %v: %v", r, r.got, r.took, r.err)
		}
	}
	return log, readers
}

func TestReadersThatCannotEndAreCut(t *testing.T) {
	t.Parallel()
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			const timeout = 2 * time.Second
			c := startOnBridge(t, variant, "-e", "IMAGELAB_SHUTDOWN_TIMEOUT="+timeout.String())
			var readers []*slowReader
			var all sync.WaitGroup
			for _, size := range []int{60_000, 1 << 20} {
				content, path := blob(size)
				c.post(t, content, path)
				for _, keep := range []bool{true, false} {
					r := &slowReader{size: size, rate: 1000, close: !keep, content: content, path: path}
					r.begin(t, c)
					readers = append(readers, r)
				}
			}
			// The kernel takes the short answer at once.
			c.awaitClosed(t, readers[1])
			for _, r := range readers {
				all.Go(func() { r.err = r.finish() })
			}
			log := c.stop(t, 1)
			last := log.last()
			if last.Msg != "stopped, requests in flight were cut at the deadline" || last.Cut != len(readers) {
				t.Errorf("the log ends with %+v, want that %d requests were cut at the deadline", last, len(readers))
			}
			for _, record := range log {
				if strings.Contains(record.Msg, "no request was lost") {
					t.Errorf("the log says %q", record.Msg)
				}
			}
			if took := log.took(t); took < timeout || took > timeout+2*time.Second {
				t.Errorf("the stop took %v, want the timeout of %v", took, timeout)
			}
			for _, r := range readers {
				_ = r.conn.SetDeadline(time.Now()) // nobody is there to end it
			}
			all.Wait()
			for _, r := range readers {
				if r.err == nil || r.got == r.size {
					t.Errorf("%v: %d bytes, %v, so it was not too slow", r, r.got, r.err)
				}
			}
		})
	}
}

// TestLongestStopEndsWithinDockersGrace has all that a stop waits for with the defaults: the delay, a reader that
// cannot end, and then a viewer on the ops listener. Docker would kill it after ten seconds.
func TestLongestStopEndsWithinDockersGrace(t *testing.T) {
	t.Parallel()
	c := startOnBridge(t, variants[0])
	content, path := blob(1 << 20)
	c.post(t, content, path)
	r := &slowReader{size: len(content), rate: 1000, close: true, path: path}
	r.begin(t, c)
	c.watchWithoutReading(t)
	docker(t, "stop", c.name)
	if got := c.exitCode(t); got != 1 {
		t.Errorf("exit code = %d, want 1, and 137 is Docker's", got)
	}
}

func TestSlowUploadsAreKept(t *testing.T) {
	t.Parallel()
	const parts, size, took = 30, 10_000, 3 * time.Second
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			c := startOnBridge(t, variant)
			answers := make(chan error)
			frames := map[string]string{
				"length":            fmt.Sprintf("Content-Length: %d\r\n", parts*size),
				"length and close":  fmt.Sprintf("Connection: close\r\nContent-Length: %d\r\n", parts*size),
				"chunked":           "Transfer-Encoding: chunked\r\n",
				"chunked and close": "Connection: close\r\nTransfer-Encoding: chunked\r\n",
			}
			for name, header := range frames {
				content, _ := blob(parts * size)
				go func() {
					if err := uploadSlowly(c.addr, header, content, size, took); err != nil {
						answers <- fmt.Errorf("%s: %w", name, err)
						return
					}
					answers <- nil
				}()
			}
			eventually(t, "uploads", func() bool {
				return c.metric(t, `imagelab_http_requests_in_flight{route="/store",server="app"}`) == strconv.Itoa(len(frames))
			})
			c.stop(t, 0).checkClean(t)
			for range frames {
				if err := <-answers; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// uploadSlowly posts content in parts of a size, evenly over a time. The answer has to be 201.
func uploadSlowly(addr, header, content string, size int, took time.Duration) error {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "POST /store HTTP/1.1\r\nHost: x\r\n%s\r\n", header); err != nil {
		return err
	}
	tick := time.NewTicker(took * time.Duration(size) / time.Duration(len(content)))
	defer tick.Stop()
	chunked := strings.Contains(header, "chunked")
	for part := range slices.Chunk([]byte(content), size) {
		if chunked {
			part = fmt.Appendf(nil, "%x\r\n%s\r\n", len(part), part)
		}
		if _, err := conn.Write(part); err != nil {
			return err
		}
		<-tick.C
	}
	if chunked {
		if _, err := io.WriteString(conn, "0\r\n\r\n"); err != nil {
			return err
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	whole := bytes.Contains(body, fmt.Appendf(nil, `"bytes":%d`, len(content)))
	if err == nil && (resp.StatusCode != http.StatusCreated || !whole) {
		err = fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	return err
}

// TestOnlookersDoNotHoldTheStop stops a container with two viewers that do not read, of which one cannot be written
// to any more, and with a question for a peer that accepts and is silent.
func TestOnlookersDoNotHoldTheStop(t *testing.T) {
	t.Parallel()
	needEngine(t)
	silent := startOnBridge(t, variants[0])
	docker(t, "pause", silent.name)
	t.Cleanup(func() { docker(t, "unpause", silent.name) })
	// A peer's address is in each frame: long ones soon fill what the kernel takes.
	var peers []string
	for n := range 8 {
		peers = append(peers, fmt.Sprintf("p%d=%s/%s", n, silent.ops, strings.Repeat("x", 4000)))
	}
	for _, variant := range variants {
		for name, options := range map[string][]string{
			"ops listener": nil,
			"app listener": {"-e", "IMAGELAB_OPS_ADDR="},
		} {
			t.Run(variant+", "+name, func(t *testing.T) {
				t.Parallel()
				c := startOnBridge(t, variant, append(options, "-e", "IMAGELAB_PEERS="+strings.Join(peers, ","))...)
				stalled := c.watchWithoutReading(t)
				eventually(t, "viewer that cannot be written to", func() bool {
					s, found := c.peerOf(t, stalled)
					if !found {
						t.Fatal("the viewer's connection is gone")
					}
					return s.queue > 32<<10 // events.go, viewerBuffer
				})
				c.watchWithoutReading(t)
				answer := make(chan error, 1)
				go func() {
					resp, err := client().Get(c.ops + "/peers")
					if err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
					answer <- err
				}()
				series := `imagelab_http_requests_in_flight{route="/peers",server="ops"}`
				if len(options) > 0 {
					series = `imagelab_http_requests_in_flight{route="/-/peers",server="app"}`
				}
				eventually(t, "question for the peers", func() bool { return c.metric(t, series) == "1" })

				log := c.stop(t, 0)
				log.checkClean(t)
				took := log.took(t)
				t.Logf("the stop took %v", took.Round(time.Millisecond))
				// The delay, a second for onlookers, and what a busy machine adds.
				if limit := 250*time.Millisecond + 3*time.Second; took > limit {
					t.Errorf("the stop took %v, want at most %v", took, limit)
				}
				if err := <-answer; err != nil {
					t.Errorf("GET /peers: %v", err)
				}
			})
		}
	}
}

// watchWithoutReading asks for /events, and reads nothing but the first byte.
func (c *container) watchWithoutReading(t *testing.T) net.Conn {
	t.Helper()
	addr, prefix, _ := strings.Cut(strings.TrimPrefix(c.ops, "http://"), "/")
	conn, err := dialSlow(addr, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	path := "/events"
	if prefix != "" {
		path = "/" + prefix + path
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestStopSignalsOfOtherImages(t *testing.T) {
	t.Parallel()
	for _, signal := range []string{"SIGQUIT", "SIGHUP", "SIGINT"} {
		for _, variant := range variants {
			t.Run(signal+", "+variant, func(t *testing.T) {
				t.Parallel()
				c := startOnBridge(t, variant, "--stop-signal", signal, "-e", "IMAGELAB_FAULTS=true")
				answer := make(chan error, 1)
				go func() {
					resp, err := client().Get(c.app + "/delay/1s")
					if err == nil {
						var body []byte
						body, err = io.ReadAll(resp.Body)
						resp.Body.Close()
						if err == nil && (resp.StatusCode != http.StatusOK || string(body) != `{"delayed":"1s"}`+"\n") {
							err = fmt.Errorf("%d %s", resp.StatusCode, body)
						}
					}
					answer <- err
				}()
				eventually(t, "request in flight", func() bool {
					return c.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
				})
				log := c.stop(t, 0)
				log.checkClean(t)
				if err := <-answer; err != nil {
					t.Errorf("the request in flight: %v", err)
				}
			})
		}
	}
}
