package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagelab/internal/probe/probetest"
)

// healthcheckLine runs imagelab --healthcheck with args and checks what holds for every
// probe. Its time limit is the patience of the tests unless args have another.
func healthcheckLine(t *testing.T, environ []string, args ...string) (code int, line string) {
	t.Helper()
	code, stdout, stderr := invoke(t, environ, append([]string{"--healthcheck", "--timeout", patience.String()}, args...)...)
	checkVerdict(t, code, stdout, stderr)
	return code, strings.TrimSuffix(stdout, "\n")
}

// checkVerdict checks that a probe printed its verdict as one line and nothing else,
// with the exit code that belongs to it.
func checkVerdict(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	line, whole := strings.CutSuffix(stdout, "\n")
	if code != exitOK && code != exitFailed || !whole || stderr != "" {
		t.Errorf("probe = exit %d, stdout %q, stderr %q, want 0 or 1 and one line", code, stdout, stderr)
	}
	probetest.CheckVerdict(t, line, code == exitOK)
}

func TestHealthcheckFlagsReachTheProbe(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	server := func(answer probetest.Answer) string {
		return "http://" + probetest.Serve(t, "tcp", "127.0.0.1:0", answer).Addr().String()
	}
	judge := func(conn net.Conn, request string) {
		status := "400 Bad Request"
		if strings.HasPrefix(request, "PUT ") && strings.HasSuffix(request, "\r\nX-A: 1\r\nX-B: 2\r\n\r\n") {
			status = "201 Created"
		}
		probetest.Say("HTTP/1.1 "+status+"\r\n\r\n")(conn, request)
	}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"the last --status counts", []string{"--status", "500", "--status", "204", server(probetest.Say("HTTP/1.1 204 No\r\n\r\n"))}, 0, "healthy: 204"},
		{"--status range", []string{"--status=200-299", server(probetest.Say("HTTP/1.1 302 Found\r\n\r\n"))}, 1, "status 302, want 200-299"},
		{"--method and --header", []string{"--method=PUT", "--header", "X-A: 1", "-header=X-B:2", server(judge)}, 0, "healthy: 201"},
		{"--timeout", []string{"--timeout", "100ms", server(probetest.Hold)}, 1, "no answer within 100ms"},
		{"--insecure", []string{"--insecure", "--status", "404", secure.URL}, 0, "healthy: 404"},
		{"two URLs", []string{"tcp://" + secure.Listener.Addr().String(), "tcp://" + secure.Listener.Addr().String()}, 0, "healthy: all 2 in "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, line := healthcheckLine(t, nil, tc.args...)
			if code != tc.code || !strings.Contains(line, tc.want) {
				t.Errorf("--healthcheck %q = %d %q, want %d %q", tc.args, code, line, tc.code, tc.want)
			}
		})
	}
}

func TestProbeOverIPv6(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("kernel: no ::1 here: %v", err)
	}
	ln.Close()
	addr := probetest.Serve(t, "tcp6", "[::1]:0", probetest.Say("HTTP/1.1 204 No Content\r\n\r\n")).Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for name, tc := range map[string]struct {
		environ []string
		want    string
	}{
		"of a server on ::1 alone":             {[]string{"PORT=" + port}, "/health"},
		"of a server on the wildcard of IPv6":  {[]string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=::"}, "/health"},
		"of a server that is configured on it": {[]string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=::1"}, "http://" + addr + "/health"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, line := healthcheckLine(t, tc.environ)
			if code != 0 || !strings.HasSuffix(line, tc.want) {
				t.Errorf("probe with %q = %d %q, want 0 %q", tc.environ, code, line, tc.want)
			}
		})
	}
}

func TestProbeOfTheOwnServer(t *testing.T) {
	t.Parallel()
	in := start(t)
	_, port, _ := net.SplitHostPort(host(in.app))
	path := filepath.Join(t.TempDir(), "port")
	if err := os.WriteFile(path, []byte(port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	word := filepath.Join(t.TempDir(), "word")
	if err := os.WriteFile(word, []byte("unhealthy"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		environ []string
		code    int
		want    string
	}{
		{"address in a file that is the word of the verdict", []string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS_FILE=" + word}, 1, `^unhealthy: .* http://\(redacted\):` + port},
		{"PORT", []string{"PORT=" + port}, 0, `^healthy: 200 in [0-9.]+(µs|ms|s) http://127\.0\.0\.1:` + port + `/health$`},
		{"PORT_FILE", []string{"PORT_FILE=" + path}, 0, "^healthy: 200 in "},
		{"wildcard", []string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=0.0.0.0"}, 0, "^healthy: 200 in "},
		{"name", []string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=localhost"}, 0, "^healthy: 200 in "},
		{"a configuration that serves nobody", []string{"PORT=" + port, "IMAGELAB_TYPO=1", "IMAGELAB_MAX_BODY=x"}, 0, "^healthy: 200 in "},
		{"another address", []string{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=127.0.0.2"}, 1, "connection refused http://127.0.0.2:" + port},
		{"port of zero", []string{"PORT=0"}, 1, `^unhealthy: PORT="0": want a port from 1 to 65535, or a URL as argument$`},
		{"port that is a word", []string{"PORT=abc"}, 1, `PORT="abc": want a port`},
		{"port above", []string{"PORT=65536"}, 1, `PORT="65536": want a port`},
		{"port over two lines", []string{"PORT=1\n2"}, 1, `PORT="1\\n2": want a port`},
		{"port twice", []string{"PORT=1", "PORT_FILE=" + path}, 1, "PORT and PORT_FILE are both set"},
		{"port in a file that is missing", []string{"PORT_FILE=/no/such"}, 1, `PORT_FILE: "/no/such", read by uid`},
		{"address in a file that is missing", []string{"IMAGELAB_BIND_ADDRESS_FILE=/no/such"}, 1, "IMAGELAB_BIND_ADDRESS_FILE: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, line := healthcheckLine(t, tc.environ)
			if code != tc.code || !regexp.MustCompile(tc.want).MatchString(line) {
				t.Errorf("probe with %q = %d %q, want %d %q", tc.environ, code, line, tc.code, tc.want)
			}
		})
	}
}

// The exit code is the verdict, and it comes in time, wherever the line goes.
func TestProbeWithoutAReader(t *testing.T) {
	t.Parallel()
	up := "http://" + probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).Addr().String()
	down := "http://" + probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")).Addr().String()
	devices := map[string]string{"a full device": "/dev/full", "a device": "/dev/null"}
	for _, tc := range []struct {
		name string
		args []string
		code int
	}{
		{"healthy", []string{up}, exitOK},
		{"healthy, with a flag", []string{"--insecure", up}, exitOK},
		{"unhealthy", []string{down}, exitFailed},
		{"unhealthy, with a flag", []string{"--insecure", down}, exitFailed},
		{"no URL", []string{"nonsense"}, exitFailed},
	} {
		probeTo := func(t *testing.T, stdout *os.File) {
			t.Helper()
			cmd := exec.Command(os.Args[0], append([]string{"--healthcheck"}, tc.args...)...)
			cmd.Env, cmd.Stdout = []string{asProgram + "=1"}, stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			overdue := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			defer overdue.Stop()
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != tc.code {
				t.Errorf("--healthcheck %q = %v, want exit %d", tc.args, cmd.ProcessState, tc.code)
			}
		}
		for name, path := range devices {
			t.Run(tc.name+", "+name, func(t *testing.T) {
				t.Parallel()
				device, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer device.Close()
				probeTo(t, device)
			})
		}
		t.Run(tc.name+", a full pipe", func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			_ = w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = w.Write(make([]byte, 1<<20))
			probeTo(t, w)
		})
		t.Run(tc.name+", a pipe that nobody reads", func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			defer w.Close()
			probeTo(t, w)
		})
	}
}

// limited runs the probe below a shell that says something first.
func limited(t *testing.T, first string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", first + `; exec "$0" --healthcheck "$@"`, os.Args[0]}, args...)...)
	cmd.Env = []string{asProgram + "=1"}
	return execute(t, cmd)
}

func TestProbeWithoutDescriptors(t *testing.T) {
	t.Parallel()
	url := "http://" + probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).Addr().String()
	for _, args := range [][]string{{url}, {"--insecure", url}, {"nonsense"}} {
		for n := 4; n < 12; n++ { // with 3 a binary with cgo, as for the race detector, cannot load
			code, stdout, stderr := limited(t, "ulimit -n "+strconv.Itoa(n), args...)
			checkVerdict(t, code, stdout, stderr)
			if few := "unhealthy: too many open files, and the probe needs 3 more\n"; n == 4 && stdout != few {
				t.Errorf("probe %q with 4 descriptors = %d %q, want %q", args, code, stdout, few)
			}
		}
		for _, first := range []string{"exec <&-", "exec >&-", "exec <&- >&- 2>&-"} {
			code, _, stderr := limited(t, first, args...)
			if want := strings.Count(args[0], "nonsense"); code != want || stderr != "" {
				t.Errorf("%s before the probe %q = %d, stderr %q, want %d", first, args, code, stderr, want)
			}
		}
	}
}

func TestSignalsEndAProbeAsUnhealthy(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{})
			url := "http://" + probetest.Serve(t, "tcp", "127.0.0.1:0", func(conn net.Conn, request string) {
				close(asked)
				probetest.Hold(conn, request)
			}).Addr().String()
			cmd := exec.Command(os.Args[0], "--healthcheck", "--timeout", patience.String(), url)
			cmd.Env = []string{asProgram + "=1"}
			var out, complaints strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &complaints
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			overdue := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			defer overdue.Stop()
			select {
			case <-asked:
				_ = cmd.Process.Signal(sig)
			case <-time.After(patience):
				t.Error("the probe never asked")
			}
			_ = cmd.Wait()
			code, stdout, stderr := cmd.ProcessState.ExitCode(), out.String(), complaints.String()
			checkVerdict(t, code, stdout, stderr)
			if want := "unhealthy: the probe was stopped: " + sig.String() + " " + url + "\n"; code != exitFailed || stdout != want {
				t.Errorf("probe = %d %q, want 1 and %q", code, stdout, want)
			}
		})
	}
}

// One reading of PORT: what the server serves on, its probe asks, and both refuse the rest.
func TestServerAndProbeReadPORTAlike(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"8000": true, "08000": true, "65535": true,
		"+8000": false, " 8000": false, "8000 ": false, "8000/tcp": false, "0x1f40": false, "8_000": false, "65536": false, "-1": false, "8e3": false, "8000\n": false,
	} {
		_, _, _, err := loadConfig([]string{"PORT=" + text})
		_, _, probeErr := ownTarget([]string{"PORT=" + text})
		if (err == nil) != want || (probeErr == nil) != want {
			t.Errorf("PORT=%q: the server says %v, its probe %v, want accepted %v", text, err, probeErr, want)
		}
	}
}

func TestProbeSeesADrain(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_DRAIN_DELAY=10m")
	in.signal(t, syscall.SIGTERM)
	eventually(t, "drain", func() bool { return in.log.find("draining") != nil })
	code, line := healthcheckLine(t, nil, in.app+"/health")
	if code != 1 || !strings.Contains(line, "status 503, want 200-399") {
		t.Errorf("probe = %d %q, want 1 and status 503", code, line)
	}
}

// Behind a front /health is the upstream's path.
func TestProbeOfAFrontAsksTheOpsListener(t *testing.T) {
	t.Parallel()
	for environ, want := range map[string]string{
		"IMAGELAB_UPSTREAM=auto": "http://127.0.0.1:9000/readyz",
		"IMAGELAB_UPSTREAM=3000 PORT=80 IMAGELAB_OPS_ADDR=10.0.0.1:7":              "http://10.0.0.1:7/readyz",
		"IMAGELAB_UPSTREAM=3000 PORT=80 IMAGELAB_OPS_ADDR=":                        "http://127.0.0.1:80/-/readyz",
		"IMAGELAB_UPSTREAM= PORT=80":                                               "http://127.0.0.1:80/health",
		"IMAGELAB_UPSTREAM=3000 IMAGELAB_BIND_ADDRESS=10.0.0.2 IMAGELAB_OPS_ADDR=": "http://10.0.0.2:8000/-/readyz",
	} {
		target, _, err := ownTarget(strings.Fields(environ))
		if err != nil || target.Name != want {
			t.Errorf("with %s it asks %q, %v, want %q", environ, target.Name, err, want)
		}
	}
	for _, ops := range []string{"9000", "127.0.0.1:0", "127.0.0.1:http"} {
		if _, _, err := ownTarget([]string{"IMAGELAB_UPSTREAM=auto", "IMAGELAB_OPS_ADDR=" + ops}); err == nil || !strings.Contains(err.Error(), "IMAGELAB_OPS_ADDR") {
			t.Errorf("IMAGELAB_OPS_ADDR=%s: %v, want an error that names it", ops, err)
		}
	}
}
