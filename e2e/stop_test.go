package e2e

import (
	"encoding/csv"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imagelab/e2e/load"
)

// startLoad begins a load of all kinds of requests, by connections that dial makes.
func startLoad(dial func() (net.Conn, error)) *load.Load {
	return load.Clients{
		Number: 32,
		Dial:   dial,
		Requests: []string{
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
			"GET /proof HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		},
		Statuses: []int{http.StatusOK, http.StatusCreated},
	}.Start()
}

// dialer makes connections to addr, with no second try.
func dialer(addr string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.DialTimeout("tcp", addr, load.Patience) }
}

// ended reports what the load has lost.
func ended(t *testing.T, l *load.Load) {
	t.Helper()
	sent, answered := l.Wait()
	lost := l.Lost()
	t.Logf("%d requests, %d answers, %d failures", sent, answered, len(lost))
	if sent != answered || len(lost) > 0 {
		t.Errorf("sent %d, answered %d, lost: %s", sent, answered, strings.Join(lost, "; "))
	}
}

// underway waits until the load has sent n more requests.
func underway(t *testing.T, l *load.Load, n int64) {
	t.Helper()
	n += l.Sent()
	eventually(t, "load", func() bool {
		if lost := l.Lost(); len(lost) > 0 {
			t.Fatalf("lost before anything was stopped: %s", strings.Join(lost, "; "))
		}
		return l.Sent() >= n
	})
}

func TestDockerStopUnderLoadLosesNothing(t *testing.T) {
	for _, variant := range variants {
		for name, options := range map[string][]string{
			"default delay": nil,
			"no delay":      {"-e", "IMAGELAB_DRAIN_DELAY=0s"},
		} {
			t.Run(variant+", "+name, func(t *testing.T) {
				c := start(t, variant, slices.Concat(hardened, []string{"-e", "SECRET=x"}, options)...)
				l := startLoad(dialer(c.addr))
				underway(t, l, 2000)
				l.ServerStops()
				docker(t, "stop", c.name)
				if got := c.exitCode(t); got != 0 {
					t.Errorf("exit code = %d, want 0", got)
				}
				ended(t, l)
			})
		}
	}
}

func TestIdleContainerStopsWithinItsGrace(t *testing.T) {
	const grace = 12 * time.Second // compose.yaml's
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			c := start(t, variant, hardened...)
			began := time.Now()
			docker(t, "stop", "-t", fmt.Sprint(grace.Seconds()), c.name)
			took := time.Since(began)
			if got := c.exitCode(t); got != 0 || took >= grace {
				t.Errorf("stop = exit code %d after %v, want 0 before %v", got, took, grace)
			}
			// Most of docker stop is the engine's own, so ask the service.
			_, log, _ := try(t, "logs", c.name)
			for line := range strings.Lines(log) {
				if strings.Contains(line, `"msg":"drained"`) {
					t.Logf("docker stop took %v: %s", took.Round(time.Millisecond), strings.TrimSpace(line))
				}
			}
		})
	}
}

// TestRollingReplacementLosesNothing replaces two containers one after the other
// behind a balancer that knows nothing of imagelab but its /readyz.
func TestRollingReplacementLosesNothing(t *testing.T) {
	needEngine(t)
	if _, err := exec.LookPath("haproxy"); err != nil {
		leaveOut(t, "no haproxy: apt-get install haproxy")
	}
	options := slices.Concat(hardened, []string{"-e", "SECRET=x",
		"-e", "IMAGELAB_DRAIN_DELAY=2s"}) // well above the balancer's interval
	type place struct{ variant, app, ops string }
	places := map[string]place{}
	running := map[string]*container{}
	servers := ""
	for _, variant := range variants {
		p := place{variant, freePort(t), freePort(t)}
		places[variant] = p
		running[variant] = startAt(t, p.variant, p.app, p.ops, options...)
		servers += fmt.Sprintf("\tserver %s 127.0.0.1:%s check port %s\n", variant, p.app, p.ops)
	}
	b := startBalancer(t, servers)
	for _, variant := range variants {
		b.awaitServer(t, variant, "UP")
	}

	l := startLoad(dialer(b.addr))
	for range 2 {
		for _, variant := range variants {
			underway(t, l, 500)
			old := running[variant]
			docker(t, "stop", old.name)
			if got := old.exitCode(t); got != 0 {
				t.Errorf("%s: exit code = %d, want 0", variant, got)
			}
			b.awaitServer(t, variant, "DOWN")
			underway(t, l, 500)
			p := places[variant]
			running[variant] = startAt(t, p.variant, p.app, p.ops, options...)
			b.awaitServer(t, variant, "UP")
		}
	}
	underway(t, l, 500)
	l.Finish()
	ended(t, l)
}

// balancer is a running haproxy.
type balancer struct{ addr, stats string }

// startBalancer runs haproxy with the servers, which it does not help: it never
// retries and never sends a request to another server.
func startBalancer(t *testing.T, servers string) *balancer {
	t.Helper()
	b := &balancer{"127.0.0.1:" + freePort(t), "127.0.0.1:" + freePort(t)}
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	write(t, config, fmt.Sprintf(`defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	timeout check 1s
	retries 0
frontend app
	bind %s
	default_backend imagelab
backend imagelab
	balance roundrobin
	option httpchk GET /readyz
	http-check expect status 200
	default-server inter 100ms fall 1 rise 1
%sfrontend stats
	bind %s
	stats enable
	stats uri /
`, b.addr, servers, b.stats))
	cmd := exec.Command("haproxy", "-db", "-f", config)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy said:\n%s", output.String())
		}
	})
	return b
}

// awaitServer waits for what the balancer thinks of a server.
func (b *balancer) awaitServer(t *testing.T, server, want string) {
	t.Helper()
	eventually(t, server+" that is "+want+" for the balancer", func() bool {
		resp, err := client().Get("http://" + b.stats + "/;csv")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		rows, err := csv.NewReader(resp.Body).ReadAll()
		if err != nil || resp.StatusCode != http.StatusOK || len(rows) == 0 {
			return false
		}
		status := slices.Index(rows[0], "status")
		for _, row := range rows[1:] {
			if row[1] == server {
				return row[status] == want
			}
		}
		return false
	})
}
