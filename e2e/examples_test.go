package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imagelab/e2e/load"
)

// An example is one of ../examples that serves HTTP.
type example struct {
	name    string
	reloads bool     // it has IMAGELAB_UPSTREAM=auto
	alone   []string // the command without imagelab, on {port}
}

var httpExamples = []example{
	{"gunicorn", true, []string{"gunicorn", "--worker-tmp-dir=/dev/shm", "--workers=2", "--threads=8", "--bind=127.0.0.1:{port}", "app:app"}},
	{"node", true, []string{"node", "server.js"}},
	{"nginx", false, []string{"sh", "-c", "sed 's/unix:.tmp.nginx.sock/127.0.0.1:{port}/' /etc/nginx/nginx.conf >/tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g 'daemon off;'"}},
}

// buildExample builds the image of an example by its compose file, and returns its name.
func buildExample(t *testing.T, name string) string {
	t.Helper()
	needEngine(t)
	chosen, _ := os.ReadFile(filepath.Join(root(t), ".tools/images.env"))
	if os.Getenv("DEBIAN_IMAGE") == "" && !strings.Contains(string(chosen), "DEBIAN_IMAGE=") {
		leaveOut(t, "no Debian image: scripts/base-images.sh debian makes one")
	}
	building.Lock()
	defer building.Unlock()
	cmd := composeCommand(t, "-f", filepath.Join(root(t), "examples", name, "compose.yaml"), "build", "-q")
	if _, stderr, err := execute(t, cmd); err != nil {
		t.Fatalf("build examples/%s: %v\n%s", name, err, stderr)
	}
	return "imagelab-example:" + name
}

// building is held by who builds: the second of the same is done at once.
var building sync.Mutex

// startExample runs an example with imagelab before it.
func startExample(t *testing.T, image string, options []string, command ...string) *container {
	t.Helper()
	appPort, opsPort := freePort(t), freePort(t)
	c := &container{name: newName(), addr: "127.0.0.1:" + appPort}
	c.app, c.ops = "http://"+c.addr, "http://127.0.0.1:"+opsPort
	t.Cleanup(func() { c.remove(t) })
	docker(t, slices.Concat([]string{
		"run", "-d", "--name", c.name, "--label", label(), "--network", "host",
		"-e", "PORT=" + appPort, "-e", "IMAGELAB_BIND_ADDRESS=127.0.0.1", "-e", "IMAGELAB_OPS_ADDR=127.0.0.1:" + opsPort,
	}, hardened, commandSandboxOptions(), options, []string{image}, command)...)
	c.await(t)
	return c
}

// startAlone runs an example's program without imagelab, and without any flag.
func startAlone(t *testing.T, image string, e example) *container {
	t.Helper()
	port := freePort(t)
	c := &container{name: newName(), addr: "127.0.0.1:" + port}
	c.app = "http://" + c.addr
	var command []string
	for _, word := range e.alone {
		command = append(command, strings.ReplaceAll(word, "{port}", port))
	}
	t.Cleanup(func() { docker(t, "rm", "-f", "-v", c.name) })
	docker(t, slices.Concat([]string{"run", "-d", "--name", c.name, "--label", label(), "--network", "host", "-e", "PORT=" + port,
		"--entrypoint", command[0], image}, command[1:])...)
	c.awaitAnswer(t)
	return c
}

func (c *container) awaitAnswer(t *testing.T) {
	t.Helper()
	eventually(t, "answer", func() bool {
		resp, err := client().Get(c.app + "/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

const exampleClients = 16

// askExample loads an example with clients that never retry.
func askExample(c *container, statuses ...int) *load.Load {
	return load.Clients{
		Number: exampleClients, Dial: dialer(c.addr), Statuses: append(statuses, http.StatusOK),
		Requests: []string{
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /?post HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		},
	}.Start()
}

// times is how often something is tried: enough to see it, or with -soak what is claimed.
func times(few int) int {
	if *soak {
		return 50
	}
	return few
}

func TestExamplesLoseNoRequest(t *testing.T) {
	for _, e := range httpExamples {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			image := buildExample(t, e.name)
			t.Run("stop", func(t *testing.T) {
				for range times(2) {
					c := startExample(t, image, nil)
					l := askExample(c)
					underway(t, l, 300)
					l.ServerStops()
					docker(t, "stop", c.name)
					ended(t, l)
					if t.Failed() {
						return
					}
				}
			})
			if e.reloads {
				t.Run("reload", func(t *testing.T) {
					c := startExample(t, image, nil)
					l := askExample(c)
					for i := range times(3) {
						underway(t, l, 200)
						docker(t, "kill", "--signal", "HUP", c.name)
						want := fmt.Sprint(i + 2)
						eventually(t, "generation "+want, func() bool { return c.metric(t, "imagelab_command_generation") == want })
						c.await(t)
					}
					underway(t, l, 200)
					l.Finish()
					ended(t, l)
				})
			}
			t.Run("crash", func(t *testing.T) {
				c := startExample(t, image, []string{"-e", "IMAGELAB_RESTART=on-failure"})
				// What the command was serving when it was killed is lost: 502, or half an answer.
				halves := 0
				for i := range times(2) {
					l := askExample(c, http.StatusBadGateway)
					underway(t, l, 200)
					want := fmt.Sprint(i + 2)
					c.killCommand(t)
					eventually(t, "generation "+want, func() bool { return c.metric(t, "imagelab_command_generation") == want })
					c.await(t)
					time.Sleep(time.Second) // or it counts as a failed start
					l.Finish()
					l.Wait()
					halves += len(l.Lost())
				}
				total, cut := c.failures(t)
				if limit := times(2) * exampleClients; total > limit || halves > cut {
					t.Errorf("%d crashes cost %d requests, %d of which were cut; %d clients saw half an answer; want at most %d",
						times(2), total, cut, halves, limit)
				}
				t.Logf("%d crashes cost %d requests of %d clients", times(2), total, exampleClients)
			})
		})
	}
}

// killCommand kills the command and its group, as the kernel does that is out of memory.
func (c *container) killCommand(t *testing.T) {
	t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.pid(t)))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(child); err == nil {
				_ = syscall.Kill(-pid, syscall.SIGKILL)
			}
		}
	}
}

// failures counts what was not passed on, and answers that were cut.
func (c *container) failures(t *testing.T) (total, cut int) {
	t.Helper()
	for _, reason := range []string{"closed", "cut", "malformed", "silent", "not_there"} {
		n, _ := strconv.Atoi(c.metric(t, `imagelab_upstream_failures_total{reason="`+reason+`"}`))
		if total += n; reason == "cut" {
			cut = n
		}
	}
	return total, cut
}

// TestExamplesBeforeAndAfter shows what imagelab changes for an example. It asserts that the
// audit fails less; the rest is for docs/examples.md.
func TestExamplesBeforeAndAfter(t *testing.T) {
	for _, e := range httpExamples {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			image := buildExample(t, e.name)
			lost := func(start func() *container, do func(c *container)) (n int) {
				for range times(2) {
					c := start()
					l := askExample(c)
					underway(t, l, 200)
					l.ServerStops()
					do(c)
					sent, answered := l.Wait()
					n += max(int(sent-answered), len(l.Lost()))
				}
				return n
			}
			stop := func(c *container) { docker(t, "stop", c.name) }
			alone := func() *container { return startAlone(t, image, e) }
			before := startAlone(t, image, e)
			after := startExample(t, image, nil)
			fails := func(c *container) int {
				out, stderr, _ := try(t, "exec", c.name, "/imagelab", "--audit", "--format", "json")
				var report struct {
					Summary struct{ Fail int }
				}
				if err := json.Unmarshal([]byte(out), &report); err != nil {
					t.Fatalf("audit: %v\n%s%s", err, out, stderr)
				}
				return report.Summary.Fail
			}
			failsBefore, failsAfter := fails(before), fails(after)
			if failsAfter >= failsBefore {
				t.Errorf("%d checks fail after, %d before", failsAfter, failsBefore)
			}
			t.Logf("%s: checks that fail %d, then %d; lost in %d stops %d, then %d", e.name, failsBefore, failsAfter,
				times(2), lost(alone, stop), lost(func() *container { return startExample(t, image, nil) }, stop))
		})
	}
}

// TestRedisLosesNoAcknowledgedWrite stops redis while a client writes, and looks in the next
// start for what it was told is written.
func TestRedisLosesNoAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	image := buildExample(t, "redis")
	volume := newName()
	docker(t, "volume", "create", "--label", label(), volume)
	t.Cleanup(func() { docker(t, "volume", "rm", volume) })
	acknowledged := 0
	for range times(3) {
		port := freePort(t)
		c := startExample(t, image, []string{"-v", volume + ":/data", "-e", "IMAGELAB_PROBE=tcp://127.0.0.1:" + port},
			"redis-server", "--dir", "/data", "--appendonly", "yes", "--port", port)
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		answers := bufio.NewReader(conn)
		ask := func(command string) (string, error) {
			if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
				return "", err
			}
			line, err := answers.ReadString('\n')
			if strings.HasPrefix(line, "$") && err == nil && line != "$-1\r\n" {
				line, err = answers.ReadString('\n')
			}
			return strings.TrimSpace(line), err
		}
		if acknowledged > 0 {
			eventually(t, "loaded data", func() bool {
				got, err := ask("PING")
				return err != nil || got == "+PONG"
			})
			if got, err := ask("GET last"); err != nil || got != fmt.Sprint(acknowledged) && got != fmt.Sprint(acknowledged+1) {
				t.Fatalf("redis has %q, %v, want the last write that it acknowledged, %d", got, err, acknowledged)
			}
		}
		stopped := make(chan struct{})
		for began := acknowledged; ; {
			if got, err := ask(fmt.Sprintf("SET last %d", acknowledged+1)); err != nil || got != "+OK" {
				break // it has ended
			}
			if acknowledged++; acknowledged == began+500 {
				go func() { defer close(stopped); docker(t, "stop", c.name) }()
			}
		}
		<-stopped
		conn.Close()
		c.remove(t)
	}
	t.Logf("%d writes were acknowledged, none of which is missing", acknowledged)
}
