package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for something that should be there within seconds.
const patience = time.Minute

func newWire(t *testing.T, rtt time.Duration, loss float64) *Wire {
	t.Helper()
	seed := rand.Uint64()
	w, err := New(rtt, loss, seed)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		carried, dropped := w.Packets()
		t.Logf("seed %d, %d packets arrived, %d were dropped", seed, carried, dropped)
	})
	return w
}

func listen(t *testing.T, e *End, addr string) net.Listener {
	t.Helper()
	ln, err := e.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestPacketsTakeTheirTime(t *testing.T) {
	t.Parallel()
	for _, rtt := range []time.Duration{time.Millisecond, 50 * time.Millisecond} {
		t.Run(rtt.String(), func(t *testing.T) {
			t.Parallel()
			w := newWire(t, rtt, 0)
			ln := listen(t, w.Server, w.Server.Addr+":8000")
			least := time.Hour
			for range 20 {
				began := time.Now()
				conn, err := w.Client.Dial(ln.Addr().String(), patience)
				if err != nil {
					t.Fatal(err)
				}
				least = min(least, time.Since(began))
				conn.Close()
			}
			t.Logf("the fastest handshake took %v", least)
			if least < rtt {
				t.Errorf("a handshake took %v, want at least %v", least, rtt)
			}
		})
	}
}

func TestTransfersArriveWhole(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rtt  time.Duration
		loss float64
		size int
	}{
		"no loss":         {10 * time.Millisecond, 0, 1 << 20},
		"without a delay": {0, 0, 1 << 20},
		// The sender waits for seconds when it loses a packet twice.
		"every fifth is lost": {2 * time.Millisecond, 0.2, 100 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, tc.rtt, tc.loss)
			ln := listen(t, w.Server, w.Server.Addr+":8000")
			sent := make([]byte, tc.size)
			for i := range sent {
				sent[i] = byte(rand.Uint32())
			}
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Write(sent)
			}()
			conn, err := w.Client.Dial(ln.Addr().String(), patience)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("received %d bytes, %v, want the %d that were sent", len(got), err, len(sent))
			}
			if _, dropped := w.Packets(); (dropped > 0) != (tc.loss > 0) {
				t.Errorf("dropped %d packets at a loss of %v", dropped, tc.loss)
			}
		})
	}
}

func TestEndsAreIsolated(t *testing.T) {
	t.Parallel()
	w, other := newWire(t, time.Millisecond, 0), newWire(t, time.Millisecond, 0)
	ln := listen(t, w.Server, ":8000")
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	host := func(addr string, timeout time.Duration) (net.Conn, error) {
		return net.DialTimeout("tcp", addr, timeout)
	}
	for name, tc := range map[string]struct {
		dial    func(addr string, timeout time.Duration) (net.Conn, error)
		addr    string
		reaches bool
	}{
		"the other end":            {w.Client.Dial, w.Server.Addr + ":8000", true},
		"the loopback device":      {w.Server.Dial, "127.0.0.1:8000", true},
		"the other end's loopback": {w.Client.Dial, "127.0.0.1:8000", false},
		"another port":             {w.Client.Dial, w.Server.Addr + ":8001", false},
		"another wire":             {other.Client.Dial, w.Server.Addr + ":8000", false},
		// Who answers there is not known, if anyone does.
		"the host":            {host, w.Server.Addr + ":8000", false},
		"the host's loopback": {host, "127.0.0.1:8000", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := patience
			if !tc.reaches {
				timeout = time.Second
			}
			var got []byte
			conn, err := tc.dial(tc.addr, timeout)
			if err == nil {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(timeout))
				got, err = io.ReadAll(conn)
			}
			if (string(got) == "hello") != tc.reaches {
				t.Errorf("received %q, %v; is the listener reached: want %t", got, err, tc.reaches)
			}
		})
	}
}

func TestClosedPortRefuses(t *testing.T) {
	t.Parallel()
	w := newWire(t, time.Millisecond, 0)
	if conn, err := w.Client.Dial(w.Server.Addr+":8000", patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial = %v, %v, want %v", conn, err, syscall.ECONNREFUSED)
	}
}

func TestProcessesAndParametersAreTheEnds(t *testing.T) {
	t.Parallel()
	w := newWire(t, 0, 0)
	if err := w.Server.Sysctl("net.ipv4.tcp_syncookies", "2"); err != nil {
		t.Fatal(err)
	}
	const path = "/proc/sys/net/ipv4/tcp_syncookies"
	host, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		end  *End
		want string
	}{
		"its own":     {w.Server, "2"},
		"the other's": {w.Client, "1"},
	} {
		var out bytes.Buffer
		cmd := exec.Command("cat", path)
		cmd.Stdout = &out
		if err := tc.end.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); got != tc.want {
			t.Errorf("%s tcp_syncookies = %s, want %s", name, got, tc.want)
		}
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, host) {
		t.Errorf("the host's tcp_syncookies = %q, %v, want %q", now, err, host)
	}
}
