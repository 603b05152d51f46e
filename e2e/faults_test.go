package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// blob is n random bytes and the path that they will have.
func blob(n int) (content, path string) {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	sum := sha256.Sum256(b)
	return string(b), "/store/" + hex.EncodeToString(sum[:])
}

// post stores content, which has to work.
func (c *container) post(t *testing.T, content, path string) {
	t.Helper()
	resp, body := fetch(t, "POST", c.app+"/store", content)
	if resp.StatusCode != 201 || resp.Header.Get("Location") != path {
		t.Fatalf("POST /store = %d %s, Location %q, want 201 and %s", resp.StatusCode, body, resp.Header.Get("Location"), path)
	}
}

// checkStored reads content back.
func (c *container) checkStored(t *testing.T, content, path string) {
	t.Helper()
	if resp, body := fetch(t, "GET", c.app+path, ""); resp.StatusCode != 200 || body != content {
		t.Errorf("GET %s = %d and %d bytes, want 200 and the %d bytes stored", path, resp.StatusCode, len(body), len(content))
	}
}

// checkSurvived says whether the kernel or the engine had to intervene.
func (c *container) checkSurvived(t *testing.T) {
	t.Helper()
	state := inspect[struct {
		OOMKilled, Running bool
		ExitCode           int
	}](t, c.name, ".State")
	if state.OOMKilled || !state.Running {
		t.Errorf("state = %+v, want it running and not killed for its memory", state)
	}
	if got := inspect[int](t, c.name, ".RestartCount"); got != 0 {
		t.Errorf("restart count = %d, want 0", got)
	}
}

func TestFullFileSystemLosesNothing(t *testing.T) {
	t.Parallel()
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			c := start(t, variant, "--read-only", "--tmpfs", "/tmp:size=2m,mode=1777", "-e", "IMAGELAB_STORE_CAPACITY=8MiB")
			stored := map[string]string{}
			// What a server has not read of a body when it answers, beyond 256 KiB, may
			// cost the client the answer (net/http), which is not what this is about.
			const size = 200 << 10
			for {
				content, path := blob(size)
				resp, body := fetch(t, "POST", c.app+"/store", content)
				if resp.StatusCode == 201 {
					stored[path] = content
					continue
				}
				var problem struct{ Error, Want string }
				if err := json.Unmarshal([]byte(body), &problem); err != nil || resp.StatusCode != 507 || problem.Error != "store-full" || problem.Want == "" {
					t.Fatalf("POST /store after %d blobs = %d %s, want 507 and a JSON error", len(stored), resp.StatusCode, body)
				}
				break
			}
			if got, want := len(stored), (2<<20)/size; got != want {
				t.Errorf("blobs stored = %d, want %d", got, want)
			}
			for path, content := range stored {
				c.checkStored(t, content, path)
			}
			for path := range stored {
				if resp, body := fetch(t, "DELETE", c.app+path, ""); resp.StatusCode != 204 {
					t.Fatalf("DELETE %s = %d %s, want 204", path, resp.StatusCode, body)
				}
				break
			}
			content, path := blob(size)
			c.post(t, content, path)
			c.checkStored(t, content, path)
			c.checkSurvived(t)
		})
	}
}

// uploads posts random blobs of a few sizes until stop is closed or the server
// is gone; it returns what was acknowledged, by path.
func (c *container) uploads(stop <-chan struct{}, clients int, begun *atomic.Int64) map[string]string {
	var all sync.WaitGroup
	var mu sync.Mutex
	kept := map[string]string{}
	for i := range clients {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				content, path := blob(1000 + 7000*i)
				begun.Add(1)
				resp, err := client().Post(c.app+"/store", "", io.MultiReader(strings.NewReader(content)))
				if err != nil {
					return
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusCreated {
					mu.Lock()
					kept[path] = content
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return kept
}

func TestKilledDuringUploadsItStartsAgain(t *testing.T) {
	t.Parallel()
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			c := start(t, variant, slices.Concat(hardened, []string{"--restart", "always"})...)
			for round := range 3 {
				var begun atomic.Int64
				stop, done := make(chan struct{}), make(chan struct{})
				go func() { c.uploads(stop, 8, &begun); close(done) }()
				eventually(t, "uploads", func() bool { return begun.Load() > 100 })
				c.signal(t, syscall.SIGKILL)
				eventually(t, "restart", func() bool { return inspect[int](t, c.name, ".RestartCount") == round+1 })
				close(stop)
				<-done
				c.await(t)
				content, path := blob(100_000)
				c.post(t, content, path)
				c.checkStored(t, content, path)
			}
		})
	}
}

// TestKilledDuringUploadsItKeepsWhatItHad has the store on a tmpfs that outlives
// the container.
func TestKilledDuringUploadsItKeepsWhatItHad(t *testing.T) {
	t.Parallel()
	needEngine(t)
	volume, holder := newName(), newName()
	t.Cleanup(func() {
		try(t, "rm", "-f", holder)
		docker(t, "volume", "rm", "-f", volume)
	})
	docker(t, "volume", "create", "--label", label(), "--driver", "local",
		"--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=64m,mode=1777", volume)
	// The engine unmounts a volume that no container has.
	docker(t, "run", "-d", "--name", holder, "--label", label(), "-v", volume+":/data", "--entrypoint", "sleep", "imagelab:alpine", "3600")

	c := start(t, "scratch", slices.Concat(hardened, []string{"--restart", "always", "-v", volume + ":/data",
		"-e", "IMAGELAB_DATA_DIR=/data", "-e", "IMAGELAB_STORE_CAPACITY=60MiB"})...)
	var begun atomic.Int64
	kept := make(chan map[string]string)
	go func() { kept <- c.uploads(nil, 16, &begun) }() // ends as the server does
	eventually(t, "uploads", func() bool { return begun.Load() > 300 })
	c.signal(t, syscall.SIGKILL)
	acknowledged := <-kept
	c.await(t)
	for path, content := range acknowledged {
		c.checkStored(t, content, path)
	}
	t.Logf("%d uploads begun, %d acknowledged", begun.Load(), len(acknowledged))

	sums := docker(t, "exec", holder, "sh", "-c", "cd /data/imagelab-store && ls -A && echo -- && sha256sum *")
	if strings.Contains(sums, ".upload-") {
		t.Errorf("leftovers in the store:\n%s", sums)
	}
	_, sums, _ = strings.Cut(sums, "--\n")
	lines := strings.Split(sums, "\n")
	if len(lines) < len(acknowledged) {
		t.Errorf("blobs = %d, want at least the %d acknowledged", len(lines), len(acknowledged))
	}
	for _, line := range lines {
		if sum, name, _ := strings.Cut(line, "  "); sum != name {
			t.Errorf("blob %s has the digest %s", name, sum)
		}
	}
}

func TestFewDescriptorsAreSurvived(t *testing.T) {
	t.Parallel()
	for _, variant := range variants {
		for name, options := range map[string][]string{
			"derived cap": nil,
			// Above the limit, so that accept itself fails.
			"cap beyond the limit": {"-e", "IMAGELAB_MAX_CONNS=1000"},
		} {
			t.Run(variant+", "+name, func(t *testing.T) {
				t.Parallel()
				c := start(t, variant, slices.Concat(hardened, options, []string{"--ulimit", "nofile=64:64", "--restart", "always",
					"-e", "IMAGELAB_READ_HEADER_TIMEOUT=1h", "--health-interval=1s"})...)
				var conns []net.Conn
				for range 200 {
					conn, err := net.DialTimeout("tcp", c.addr, patience)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					fmt.Fprint(conn, "GET /health HTTP/1.1\r\n")
					conns = append(conns, conn)
				}
				for range 10 {
					if resp, body := fetch(t, "GET", c.app+"/health", ""); resp.StatusCode != 200 {
						t.Errorf("with 200 connections: GET /health = %d %s, want 200", resp.StatusCode, body)
					}
				}
				c.awaitHealth(t, "healthy")
				for _, conn := range conns {
					conn.Close()
				}
				eventually(t, "recovery", func() bool { return c.metric(t, `imagelab_connections{server="app"}`) == "0" })
				content, path := blob(100_000)
				c.post(t, content, path)
				c.checkStored(t, content, path)
				c.checkSurvived(t)
			})
		}
	}
}

// slowClients are connections that send, or read, a byte a second, and come back
// when they are thrown out.
type slowClients struct {
	sync.WaitGroup
	connected, thrownOut atomic.Int64
}

func (s *slowClients) add(ctx context.Context, addr, request string, trickle bool) {
	s.Go(func() {
		for ctx.Err() == nil {
			if err := s.connect(ctx, addr, request, trickle); err != nil && ctx.Err() == nil {
				s.thrownOut.Add(1)
			}
			pause(ctx, time.Second)
		}
	})
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// connect sends the request and then a byte a second, or reads one a second.
func (s *slowClients) connect(ctx context.Context, addr, request string, trickle bool) error {
	dialer := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
		// What the kernel would take in for the client is not slow.
		return raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.connected.Add(1)
	defer s.connected.Add(-1)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	one := []byte("x")
	for {
		pause(ctx, time.Second)
		if trickle {
			_, err = conn.Write(one)
		} else {
			_, err = conn.Read(one)
		}
		if err != nil {
			return err
		}
	}
}

func TestSlowClientsInLittleMemory(t *testing.T) {
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			c := start(t, variant, slices.Concat(hardened, []string{"--restart", "always", "-m", "32m", "--memory-swap", "32m"})...)
			var large string
			for range 8 { // to the last byte of the capacity
				content, path := blob(1 << 20)
				c.post(t, content, path)
				large = path
			}
			if resp, body := fetch(t, "POST", c.app+"/store", "x"); resp.StatusCode != 507 {
				t.Errorf("POST /store = %d %s, want 507: the store is full", resp.StatusCode, body)
			}

			c.serveBesideSlowClients(t, large)
		})
	}
}

// TestSlowClientsOfAFrontInLittleMemory is the same with a front, whose upstream has memory enough.
func TestSlowClientsOfAFrontInLittleMemory(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 1<<20)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch _, _ = io.Copy(io.Discard, r.Body); r.URL.Path {
		case "/large":
			_, _ = w.Write(large)
		case "/nothing":
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(up.Close)
	c := start(t, "scratch", slices.Concat(hardened, []string{"--restart", "always", "-m", "32m", "--memory-swap", "32m",
		"-e", "IMAGELAB_UPSTREAM=" + up.URL})...)
	c.serveBesideSlowClients(t, "/large")
}

// serveBesideSlowClients connects 2,000 clients that send their requests a byte at a time, or read nothing of a
// large answer, and looks whether one that is well is served beside them.
func (c *container) serveBesideSlowClients(t *testing.T, large string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var slow slowClients
	t.Cleanup(func() { cancel(); slow.Wait() })
	for i := range 2000 {
		switch i % 5 {
		case 0, 1:
			slow.add(ctx, c.addr, "GET / HTTP/1.1\r\nHost: x\r\nA: ", true)
		case 2:
			slow.add(ctx, c.addr, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", true)
		case 3:
			slow.add(ctx, c.addr, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", true)
		case 4:
			slow.add(ctx, c.addr, "GET "+large+" HTTP/1.1\r\nHost: x\r\n\r\n", false)
		}
	}
	eventually(t, "slow clients", func() bool { return slow.connected.Load()+slow.thrownOut.Load() >= 2000 })

	failures, served, slowest := map[string]int{}, 0, time.Duration(0)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		for _, path := range []string{"/health", "/", large} {
			began := time.Now()
			if problem := c.request(path); problem != "" {
				failures[path+": "+problem]++
			} else {
				served++
			}
			slowest = max(slowest, time.Since(began))
		}
	}
	t.Logf("healthy client: %d served, slowest %v; slow clients: %d connected, %d thrown out", served, slowest.Round(time.Millisecond), slow.connected.Load(), slow.thrownOut.Load())
	t.Logf("peak memory %s, of it rss and more now:\n%s\nVmHWM %s", c.cgroup(t, "memory", "memory.max_usage_in_bytes", "memory.peak"),
		c.cgroup(t, "memory", "memory.stat", "memory.stat"), c.status(t)["VmHWM"])
	if len(failures) > 0 {
		t.Errorf("healthy client: failures = %v, want none", failures)
	}
	c.checkSurvived(t)
}

// request is one request of a client that is well and waits for a few seconds.
func (c *container) request(path string) (problem string) {
	quick := client()
	quick.Timeout = 5 * time.Second
	resp, err := quick.Get(c.app + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err.Error()
	case resp.StatusCode != http.StatusOK:
		return fmt.Sprintf("status %d %s", resp.StatusCode, bytes.TrimSpace(body[:min(len(body), 100)]))
	}
	return ""
}

// TestClientsThatDoNotReadMakeNobodyUnhealthy has one client with 1,200 connections, each of which sends requests for
// as long as they are taken and reads none of the answers, at the limits of compose.yaml. It is not parallel: such clients take a processor for themselves.
func TestClientsThatDoNotReadMakeNobodyUnhealthy(t *testing.T) {
	c := start(t, "scratch", slices.Concat(hardened, []string{"-m", "64m", "--memory-swap", "64m", "--cpus", "1", "--ulimit", "nofile=8192",
		"--health-interval=1s", "--health-timeout=3s", "--health-retries=3"})...)
	c.awaitHealth(t, "healthy")
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	t.Cleanup(func() { cancel(); clients.Wait() })
	var connected atomic.Int64
	for range 1200 {
		clients.Go(func() {
			for ctx.Err() == nil {
				connected.Add(1)
				sendWithoutReading(ctx, c.addr)
				pause(ctx, time.Second)
			}
		})
	}
	eventually(t, "connections", func() bool { return connected.Load() >= 1200 })
	failures := map[string]int{}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		problem := c.request("/health")
		if strings.HasSuffix(problem, "EOF") || strings.HasSuffix(problem, "server closed idle connection") {
			// At the cap a connection that has said nothing for 250 ms makes room, and this process is short of
			// processor time itself. net/http tells by the latter that it had not begun to write.
			problem = c.request("/health")
		}
		if problem != "" {
			failures[problem]++
		}
		if state := inspect[string](t, c.name, ".State.Health.Status"); state != "healthy" {
			t.Fatalf("Docker says %s", state)
		}
		pause(ctx, 100*time.Millisecond)
	}
	if len(failures) > 0 {
		t.Errorf("GET /health: %v, want an answer each time", failures)
	}
	c.checkSurvived(t)
}

// sendWithoutReading sends requests until the connection is closed.
func sendWithoutReading(ctx context.Context, addr string) {
	dialer := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048) })
	}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for many := strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1000); err == nil; {
		_, err = io.WriteString(conn, many)
	}
}
