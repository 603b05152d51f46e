package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagelab/e2e/internal/load"
	"imagelab/e2e/internal/wire"
)

// The stops mostly wait, so -parallel 8 shortens a soak. It is more than go test's own limit allows: -timeout 2h.
var soak = flag.Bool("soak", false, "fifty stops of each kind instead of one or two")

// wireCase is a kind of wire, and of stop.
type wireCase struct {
	rtt     time.Duration
	loss    float64
	delay   string // IMAGELAB_DRAIN_DELAY, "" is its default
	cookies string // net.ipv4.tcp_syncookies: 1 is when the queue is full, 2 is always
}

func (tc wireCase) String() string {
	delay := tc.delay
	if delay == "" {
		delay = "default"
	}
	return fmt.Sprintf("round trip %v, loss %v, delay %s, cookies %s", tc.rtt, tc.loss, delay, tc.cookies)
}

// TestStopOverAWireLosesNothing stops the server while handshakes, requests and answers are on their way, and while
// some of them get lost.
func TestStopOverAWireLosesNothing(t *testing.T) {
	stops := 1
	if *soak {
		stops = 50
	}
	var cases []wireCase
	for _, rtt := range []time.Duration{1, 10, 30, 100, 300} {
		for _, loss := range []float64{0, 0.01} {
			for _, delay := range []string{"", "0s"} {
				cases = append(cases, wireCase{rtt * time.Millisecond, loss, delay, "1"})
			}
		}
	}
	cases = append(cases, wireCase{100 * time.Millisecond, 0, "0s", "2"})

	binary := buildImagelab(t)
	for _, tc := range cases {
		t.Run(tc.String(), func(t *testing.T) {
			t.Parallel()
			var requests int64
			var lost int
			for range stops {
				sent, missing := stopOverWire(t, tc, binary)
				requests += sent
				lost += missing
			}
			t.Logf("%d requests, %d stops, %d lost", requests, stops, lost)
		})
	}
}

// stopOverWire stops a server under load once, and returns how many requests were sent and how many of them, or of the
// connections for them, were lost.
func stopOverWire(t *testing.T, tc wireCase, binary string) (sent int64, lost int) {
	t.Helper()
	seed := rand.Uint64()
	w, err := wire.New(tc.rtt, tc.loss, seed)
	if errors.Is(err, errors.ErrUnsupported) {
		leaveOut(t, "kernel: "+err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Server.Sysctl("net.ipv4.tcp_syncookies", tc.cookies); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(binary)
	// On a new connection the kernel waits for seconds before it repeats a request for the second time. Only the stop
	// may be what loses it.
	cmd.Env = environ("PORT=8000", "IMAGELAB_OPS_ADDR=:9000", "IMAGELAB_DATA_DIR="+t.TempDir(), "SECRET=x",
		"IMAGELAB_READ_HEADER_TIMEOUT="+load.Patience.String())
	if tc.delay != "" {
		cmd.Env = append(cmd.Env, "IMAGELAB_DRAIN_DELAY="+tc.delay)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := w.Server.Start(cmd); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	defer cmd.Process.Kill()
	awaitOverLoopback(t, w.Server)

	l := load.StartWith(func() (net.Conn, error) {
		time.Sleep(rand.N(tc.rtt)) // so that the clients do not march in step
		return w.Client.Dial(w.Server.Addr+":8000", load.Patience)
	}, 32)
	eventually(t, "answers for every client", func() bool { return l.Fewest() >= 3 || len(l.Lost()) > 0 })
	l.ServerStops()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err = <-exited:
	case <-time.After(patience):
		t.Fatalf("no exit %v after SIGTERM", patience)
	}
	sent, _ = l.Wait()

	verdict, want := lastMessage(log.String()), "stopped, no request was lost"
	missing := l.Lost()
	if tc.cookies == "2" {
		// A handshake by cookie leaves nothing in the kernel that a server could wait for. Without the right to
		// filter, one may get lost; the server has to say so either way.
		want = "stopped, no request that was seen was cut"
	}
	if len(missing) > 0 && tc.cookies != "2" || err != nil || verdict != want {
		t.Errorf("seed %d: exit %v, want 0; last message %q, want %q; %d requests, lost %d: %s\n%s",
			seed, err, verdict, want, sent, len(missing), strings.Join(missing, "; "), log.String())
	}
	if _, dropped := w.Packets(); tc.loss == 0 && dropped > 0 {
		t.Errorf("the wire dropped %d packets, want 0", dropped)
	}
	return sent, len(missing)
}

// buildImagelab builds the binary of this checkout.
func buildImagelab(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "imagelab")
	cmd := exec.Command("go", "build", "-C", root(t), "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, stderr, err := execute(t, cmd); err != nil {
		t.Fatalf("go build: %v\n%s", err, stderr)
	}
	return path
}

// awaitOverLoopback waits until the server in the end says that it is ready. It asks from there: the wire is slow.
func awaitOverLoopback(t *testing.T, e *wire.End) {
	t.Helper()
	c := client()
	c.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			return e.Dial(addr, patience)
		},
	}
	eventually(t, "ready server", func() bool {
		resp, err := c.Get("http://127.0.0.1:9000/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// lastMessage is the msg of the last line of a log of JSON lines, "" if there is none.
func lastMessage(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	var last struct {
		Msg string `json:"msg"`
	}
	_ = json.Unmarshal([]byte(lines[len(lines)-1]), &last)
	return last.Msg
}
