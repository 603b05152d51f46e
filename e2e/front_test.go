package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// front is the program as a front of a server of the test.
type front struct {
	cmd *exec.Cmd
	url string
	log func() string
}

// startFront starts the program in front of a handler.
func startFront(t *testing.T, binary string, h http.HandlerFunc) *front {
	t.Helper()
	up := httptest.NewServer(h)
	t.Cleanup(up.Close)
	cmd := exec.Command(binary)
	cmd.Env = append(sandboxed(),
		"PORT=0", "IMAGELAB_BIND_ADDRESS=127.0.0.1", "IMAGELAB_OPS_ADDR=127.0.0.1:0", "IMAGELAB_UPSTREAM="+up.URL)
	var log syncBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	f := &front{cmd: cmd, log: log.String}
	eventually(t, "front that listens", func() bool {
		for line := range strings.Lines(log.String()) {
			var record struct{ Msg, Server, Addr string }
			if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "listening" && record.Server == "app" {
				f.url = "http://" + record.Addr
			}
		}
		return f.url != "" && strings.Contains(log.String(), `"msg":"started"`)
	})
	return f
}

// syncBuffer can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// peakMemory is the most that the front has had resident, in bytes (proc_pid_status(5)).
func (f *front) peakMemory(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	var kB int64
	if _, err := fmt.Sscan(after, &kB); err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// stop ends the front, which has to say that nothing was lost.
func (f *front) stop(t *testing.T) {
	t.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("the front ended with %v, log:\n%s", err, f.log())
	}
}

// flat is what a front may have resident, in bytes, whatever it passes on.
const flat = 32 << 20

// large is how much is passed on each way: whatever is held of it shows in the memory.
func large() int64 {
	if *soak {
		return 1 << 30
	}
	return 96 << 20
}

// noise is an endless stream of bytes.
type noise struct{ n byte }

func (s *noise) Read(p []byte) (int, error) {
	for i := range p {
		s.n = s.n*5 + 1
		p[i] = s.n
	}
	return len(p), nil
}

// sumOf reads size bytes and returns their digest.
func sumOf(r io.Reader, size int64) (string, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, r)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes, want %d", n, size)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}

func TestLargeBodiesPassAFrontInLittleMemory(t *testing.T) {
	t.Parallel()
	f := startFront(t, buildImagelab(t), func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			sum, err := sumOf(r.Body, large())
			fmt.Fprint(w, sum, err)
			return
		}
		_, _ = io.CopyN(w, new(noise), large())
	})
	want, err := sumOf(io.LimitReader(new(noise), large()), large())
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(f.url)
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := sumOf(resp.Body, large()); sum != want || err != nil {
		t.Errorf("down: %s, %v", sum, err)
	}
	resp.Body.Close()
	for _, length := range []int64{large(), -1} {
		req, _ := http.NewRequest(http.MethodPost, f.url, io.NopCloser(io.LimitReader(new(noise), large())))
		req.ContentLength = length
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != want+"<nil>" {
			t.Errorf("up, with a length of %d: %s", length, got)
		}
	}
	if peak := f.peakMemory(t); peak > flat {
		t.Errorf("the front had %d bytes resident, want at most %d", peak, flat)
	}
	f.stop(t)
}

// echoWebSocket sends each message back.
func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	ctx := context.Background()
	for {
		kind, message, err := c.Reader(ctx)
		if err != nil {
			return
		}
		answer, err := c.Writer(ctx, kind)
		if err != nil {
			return
		}
		if _, err := io.Copy(answer, message); err != nil || answer.Close() != nil {
			return
		}
	}
}

// dialWebSocket opens a WebSocket through the front.
func dialWebSocket(t *testing.T, ctx context.Context, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"chat"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(-1)
	return c
}

func TestWebSocketsPassAFront(t *testing.T) {
	t.Parallel()
	f := startFront(t, buildImagelab(t), echoWebSocket)
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	defer cancel()
	c := dialWebSocket(t, ctx, f.url)
	for _, message := range []string{"", "hello", strings.Repeat("x", 100_000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); string(got) != message || err != nil {
			t.Fatalf("%d bytes came back as %d, %v", len(message), len(got), err)
		}
	}

	// One message of many frames, up and down at once.
	want, _ := sumOf(io.LimitReader(new(noise), large()), large())
	sent := make(chan error, 1)
	go func() {
		w, err := c.Writer(ctx, websocket.MessageBinary)
		if err == nil {
			_, err = io.CopyN(w, new(noise), large())
			err = errors.Join(err, w.Close())
		}
		sent <- err
	}()
	_, message, err := c.Reader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := sumOf(message, large()); sum != want || err != nil {
		t.Errorf("the large message came back as %s, %v", sum, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("close: %v", err)
	}
	if peak := f.peakMemory(t); peak > flat {
		t.Errorf("the front had %d bytes resident, want at most %d", peak, flat)
	}
	f.stop(t)
}

// Both ends hear that they are leaving, and no end of a message is missing.
func TestStopOfAFrontClosesWebSockets(t *testing.T) {
	t.Parallel()
	served := make(chan error, 20)
	f := startFront(t, buildImagelab(t), func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			served <- err
			return
		}
		for {
			if _, _, err = c.Read(context.Background()); err != nil {
				served <- err
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	heard := make(chan error, cap(served))
	for range cap(served) {
		c := dialWebSocket(t, ctx, f.url)
		go func() { // a client that sends while it can, and reads
			for c.Write(ctx, websocket.MessageText, []byte("hello")) == nil {
				time.Sleep(time.Millisecond)
			}
		}()
		go func() {
			_, _, err := c.Read(ctx)
			heard <- err
		}()
	}
	f.stop(t)
	for range cap(served) {
		if err := <-served; websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("the upstream heard %v, want the status 1001", err)
		}
		if err := <-heard; websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("a client heard %v, want the status 1001", err)
		}
	}
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(f.url, "http://"), time.Second); err == nil {
		t.Error("the front still listens")
	}
}
