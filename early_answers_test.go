package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// earlyAnswer is an answer that is given before the request's body is read.
type earlyAnswer struct {
	status int
	server string // where it is given, as refusing names it
	path   string
	header string // a further one, name and value
}

var earlyAnswers = []earlyAnswer{
	{401, "ops", "/readyz/disable", ""},
	{404, "app", "/nope", ""},
	{405, "app", "/health", ""},
	{413, "app", "/store", ""},
	{431, "app", "/", "X: " + strings.Repeat("x", 7<<10)}, // three of them, for nginx takes 8 KiB each
	{503, "busy", "/", ""},
	{507, "full", "/store", ""},
}

// startRefusing starts servers that give those answers, and returns their addresses.
func startRefusing(t *testing.T) map[string]string {
	t.Helper()
	in := start(t, "IMAGELAB_STORE_MAX_BLOB=100KiB", "IMAGELAB_STORE_CAPACITY=100KiB", "IMAGELAB_OPS_TOKEN=secret")
	busy := start(t, "IMAGELAB_MAX_IN_FLIGHT=1", "IMAGELAB_FAULTS=true", "IMAGELAB_SHUTDOWN_TIMEOUT=1ms")
	hold, _ := dial(t, host(busy.app))
	fmt.Fprint(hold, "GET /delay/10m HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "request that takes the only place", func() bool {
		return busy.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
	})
	full := start(t, "IMAGELAB_STORE_MAX_BLOB=64MiB", "IMAGELAB_STORE_CAPACITY=64MiB")
	resp, err := client().Post(full.app+"/store", "", io.LimitReader(zeros{}, 64<<20-4096))
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("fill the store: %v, %v", resp, err)
	}
	resp.Body.Close()
	return map[string]string{"app": host(in.app), "ops": host(in.ops), "busy": host(busy.app), "full": host(full.app)}
}

// tries is how often an answer is asked for, by the size of the body.
func tries(size int64) int {
	switch {
	case *soak:
		return 200
	case size > 10<<20:
		return 1
	}
	return 20
}

var bodySizes = []int64{300_000, 1_000_000, 50_000_000}

func TestEarlyAnswersReachBlockingClients(t *testing.T) {
	t.Parallel()
	servers := startRefusing(t)
	for name, form := range map[string]string{
		"HTTP/1.0": "POST %s HTTP/1.0\r\n", "closing": "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", "kept alive": "POST %s HTTP/1.1\r\nHost: x\r\n",
	} {
		for _, a := range earlyAnswers {
			for _, size := range bodySizes {
				t.Run(fmt.Sprintf("%d %s, %d", a.status, name, size), func(t *testing.T) {
					t.Parallel()
					header := fmt.Sprintf(form, a.path) + fmt.Sprintf("Content-Length: %d\r\n", size)
					if a.header != "" {
						header += strings.Repeat(a.header+"\r\n", 3)
					}
					for range tries(size) {
						if status, err := sendThenRead(t, servers[a.server], header+"\r\n", size); err != nil || status != a.status {
							t.Fatalf("%s = %d, %v, want %d", header[:20], status, err, a.status)
						}
					}
				})
			}
		}
	}
}

// sendThenRead sends everything before it reads a byte of the answer.
func sendThenRead(t *testing.T, addr, header string, size int64) (status int, err error) {
	t.Helper()
	conn, r := dial(t, addr)
	defer conn.Close()
	if _, err := io.Copy(conn, io.MultiReader(strings.NewReader(header), io.LimitReader(zeros{}, size))); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestEarlyAnswersReachUrllib is for a client that sends the whole body, and then looks.
func TestEarlyAnswersReachUrllib(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("no python3")
	}
	servers := startRefusing(t)
	for _, a := range earlyAnswers {
		for _, size := range bodySizes {
			t.Run(fmt.Sprintf("%d, %d", a.status, size), func(t *testing.T) {
				t.Parallel()
				script := `
import sys, urllib.request, urllib.error
url, status, size, tries, header = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
body = bytes(size)
for i in range(tries):
    request = urllib.request.Request(url, data=body)
    for n in range(3 if header else 0):
        request.add_header('X-%d' % n, header)
    try:
        urllib.request.urlopen(request, timeout=20)
        sys.exit('no error')
    except urllib.error.HTTPError as e:
        e.read()
        if e.code != status:
            sys.exit('status %d' % e.code)
`
				_, value, _ := strings.Cut(a.header, ": ")
				cmd := exec.Command("python3", "-c", script, "http://"+servers[a.server]+a.path,
					fmt.Sprint(a.status), fmt.Sprint(size), fmt.Sprint(tries(size)), value)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

func TestEarlyAnswersPassProxies(t *testing.T) {
	t.Parallel()
	for name, startProxy := range map[string]func(*testing.T, map[string]string) map[string]string{
		"nginx": func(t *testing.T, to map[string]string) map[string]string { return startNginx(t, to, "") },
		"nginx that does not buffer requests": func(t *testing.T, to map[string]string) map[string]string {
			return startNginx(t, to, "proxy_request_buffering off;")
		},
		"nginx that asks for HTTP/1.1": func(t *testing.T, to map[string]string) map[string]string {
			return startNginx(t, to, `proxy_http_version 1.1; proxy_set_header Connection "";`)
		},
		"haproxy":  startHaproxy,
		"imagelab": startFronts,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := startProxy(t, startRefusing(t))
			for _, a := range earlyAnswers {
				if a.status == 431 && name == "haproxy" {
					continue // which takes no header of that size itself
				}
				for _, size := range bodySizes {
					t.Run(fmt.Sprintf("%d, %d", a.status, size), func(t *testing.T) {
						t.Parallel()
						for range tries(size) {
							req, err := http.NewRequest("POST", "http://"+servers[a.server]+a.path, io.LimitReader(zeros{}, size))
							if err != nil {
								t.Fatal(err)
							}
							req.ContentLength = size
							if key, value, ok := strings.Cut(a.header, ": "); ok {
								req.Header[key] = []string{value, value, value}
							}
							resp, err := client().Do(req)
							if err != nil {
								t.Fatal(err)
							}
							_, err = io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
							if err != nil || resp.StatusCode != a.status {
								t.Fatalf("POST %s = %d, %v, want %d", a.path, resp.StatusCode, err, a.status)
							}
						}
					})
				}
			}
		})
	}
}

// nextPort makes the ports of freeAddress different ones, also for tests of other packages that
// run at the same time.
var nextPort atomic.Int64

func init() { nextPort.Store(997 * int64(os.Getpid())) }

// freeAddress is one of this machine that nobody listens on. Its port is below those that the
// kernel chooses itself (ip(7), ip_local_port_range), so that no listener and no connection of
// another test gets it before its user does.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+nextPort.Add(1)%20000)
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no free port from 10000 to 29999")
	return ""
}

// startFronts starts an imagelab in front of each of the servers, and returns their addresses by
// the same names.
func startFronts(t *testing.T, servers map[string]string) map[string]string {
	t.Helper()
	front := map[string]string{}
	for name, addr := range servers {
		front[name] = host(start(t, "IMAGELAB_UPSTREAM=http://"+addr).app)
	}
	return front
}

// startNginx starts an nginx with its defaults, options aside, that passes requests on to
// each of the servers, and returns the addresses by the same names.
func startNginx(t *testing.T, servers map[string]string, options string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() == 0 { // for nginx's workers
		_ = os.Chmod(dir, 0o777)
		_ = os.Chmod(filepath.Dir(dir), 0o777)
	}
	front, blocks := map[string]string{}, ""
	for name, addr := range servers {
		front[name] = freeAddress(t)
		blocks += fmt.Sprintf("server { listen %s; location / { proxy_pass http://%s; %s } }\n", front[name], addr, options)
	}
	config := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log %[1]s/error.log; events {}
http { access_log off; client_max_body_size 0;
client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%[2]s}`, dir, blocks)
	startProxy(t, dir, config, "nginx", "-c", filepath.Join(dir, "config"))
	awaitListening(t, front)
	return front
}

// startHaproxy is startNginx with haproxy.
func startHaproxy(t *testing.T, servers map[string]string) map[string]string {
	t.Helper()
	front, blocks := map[string]string{}, ""
	for name, addr := range servers {
		front[name] = freeAddress(t)
		blocks += fmt.Sprintf("listen %s\n\tbind %s\n\tserver s %s\n", name, front[name], addr)
	}
	dir := t.TempDir()
	config := "defaults\n\tmode http\n\ttimeout connect 5s\n\ttimeout client 60s\n\ttimeout server 60s\n" + blocks
	startProxy(t, dir, config, "haproxy", "-db", "-f", filepath.Join(dir, "config"))
	awaitListening(t, front)
	return front
}

func startProxy(t *testing.T, dir, config string, argv ...string) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("no %s: apt-get install it", argv[0])
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		overdue := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		overdue.Stop()
		if t.Failed() {
			errors, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("%s said:\n%s%s", argv[0], log, errors)
		}
	})
}

func awaitListening(t *testing.T, addresses map[string]string) {
	t.Helper()
	for _, addr := range addresses {
		eventually(t, "listener at "+addr, func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
}
