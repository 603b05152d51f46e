package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagelab/e2e/load"
	"imagelab/e2e/wire"
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
			manyStops(t, tc, imagelabProgram(t, tc, binary))
		})
	}
}

// TestExampleStopsOverAWire does the same with a program that has nothing of imagelab but its package drain, and is
// built as its user would build it.
func TestExampleStopsOverAWire(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "example")
	build(t, exec.Command("go", "build", "-C", filepath.Join(root(t), "examples", "drain"), "-o", binary, "."))
	for _, tc := range []wireCase{{100 * time.Millisecond, 0, "0s", "1"}, {30 * time.Millisecond, 0.01, "0s", "1"}} {
		t.Run(tc.String(), func(t *testing.T) {
			t.Parallel()
			manyStops(t, tc, program{
				command: []string{binary, ":8000"},
				verdict: func(output string) string { return strings.TrimSpace(output) },
				clean:   "no request was lost",
			})
		})
	}
}

// TestFrontStopsOverAWire does the same with a program behind the front, which is a second imagelab.
func TestFrontStopsOverAWire(t *testing.T) {
	binary := buildImagelab(t)
	for _, tc := range []wireCase{
		{30 * time.Millisecond, 0.01, "0s", "1"}, {100 * time.Millisecond, 0, "", "1"}, {300 * time.Millisecond, 0, "0s", "1"},
	} {
		t.Run(tc.String(), func(t *testing.T) {
			t.Parallel()
			p := imagelabProgram(t, tc, binary)
			p.command = []string{binary, "--", "env", "IMAGELAB_OPS_ADDR=127.0.0.1:0", "IMAGELAB_DATA_DIR=" + t.TempDir(), "SECRET=x", binary}
			p.env = append(p.env, "IMAGELAB_UPSTREAM=auto", "PATH="+os.Getenv("PATH"), "IMAGELAB_SANDBOX=auto") // the command is not confined
			manyStops(t, tc, p)
		})
	}
}

// A program serves on port 8000 until SIGTERM.
type program struct {
	command []string
	env     []string
	verdict func(output string) string // what it says of its stop
	clean   string                     // the verdict when nothing was lost
}

func imagelabProgram(t *testing.T, tc wireCase, binary string) program {
	t.Helper()
	p := program{
		command: []string{binary},
		// On a new connection the kernel waits for seconds before it repeats a request for the second time. Only the
		// stop may be what loses it.
		env: []string{"PORT=8000", "IMAGELAB_OPS_ADDR=:9000", "IMAGELAB_DATA_DIR=" + t.TempDir(), "SECRET=x",
			"IMAGELAB_READ_HEADER_TIMEOUT=" + load.Patience.String()},
		verdict: lastMessage,
		clean:   "stopped, no request was lost",
	}
	if tc.delay != "" {
		p.env = append(p.env, "IMAGELAB_DRAIN_DELAY="+tc.delay)
	}
	if tc.cookies == "2" {
		// A handshake by cookie leaves nothing in the kernel that a server could wait for. Without the right to
		// filter, one may get lost; the server has to say so either way.
		p.clean = "stopped, no request that was seen was cut"
	}
	return p
}

// manyStops stops the program as often as the run asks for.
func manyStops(t *testing.T, tc wireCase, p program) {
	t.Helper()
	stops := 1
	if *soak {
		stops = 50
	}
	var requests int64
	var lost int
	for range stops {
		sent, missing := stopOverWire(t, tc, p)
		requests += sent
		lost += missing
	}
	t.Logf("%d requests, %d stops, %d lost", requests, stops, lost)
}

// stopOverWire stops a program under load once, and returns how many requests were sent and how many of them, or of the
// connections for them, were lost.
func stopOverWire(t *testing.T, tc wireCase, p program) (sent int64, lost int) {
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

	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Env = environ(p.env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := w.Server.Start(cmd); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	defer cmd.Process.Kill()
	// From there, as the wire is slow.
	eventually(t, "listening program", func() bool {
		conn, err := w.Server.Dial("127.0.0.1:8000", patience)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})

	l := startLoad(func() (net.Conn, error) {
		time.Sleep(rand.N(tc.rtt)) // so that the clients do not march in step
		return w.Client.Dial(w.Server.Addr+":8000", load.Patience)
	})
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

	verdict, missing := p.verdict(output.String()), l.Lost()
	if len(missing) > 0 && tc.cookies != "2" || err != nil || verdict != p.clean {
		t.Errorf("seed %d: exit %v, want 0; last message %q, want %q; %d requests, lost %d: %s\n%s",
			seed, err, verdict, p.clean, sent, len(missing), strings.Join(missing, "; "), output.String())
	}
	if _, dropped := w.Packets(); tc.loss == 0 && dropped > 0 {
		t.Errorf("the wire dropped %d packets, want 0", dropped)
	}
	return sent, len(missing)
}

// buildImagelab builds the binary of this checkout, as everybody does.
func buildImagelab(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "imagelab")
	build(t, exec.Command(filepath.Join(root(t), "scripts", "build.sh"), path))
	return path
}

func build(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, stderr, err := execute(t, cmd); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr)
	}
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
