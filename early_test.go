package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imagelab/internal/probe/probetest"
)

// earlyProbe probes from a process of its own, without a flag, so that
// internal/early has its say before the rest of the program.
func earlyProbe(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"--healthcheck"}, args...)...)
	cmd.Env = append(environ, asProgram+"=1")
	return execute(t, cmd)
}

// took is what may differ between two lines of the same verdict.
var took = regexp.MustCompile(` in [0-9.]+[mµ]?s `)

func TestEarlyProbeIsTheProbe(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tc := range []struct {
		name   string
		answer func(net.Conn, string)
	}{
		{"healthy", probetest.Say(ok + "Content-Length: 2\r\n\r\nok")},
		{"redirect", probetest.Say("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")},
		{"until the end of the connection", probetest.Say(ok + "\r\nok")},
		{"chunks", probetest.Say(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")},
		{"long", probetest.Say(ok + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000))},
		{"no body on a connection that stays open", func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			probetest.Hold(c, "")
		}},
		{"body apart", func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, ok+"Content-Length: 2\r\n\r\n")
			time.Sleep(20 * time.Millisecond)
			_, _ = io.WriteString(c, "ok")
		}},
		{"slow, header and body apart", func(c net.Conn, _ string) {
			for _, part := range []string{ok, "Content-Length: 2\r\n\r\n", "ok"} {
				time.Sleep(150 * time.Millisecond)
				_, _ = io.WriteString(c, part)
			}
		}},
		{"unavailable", probetest.Say("HTTP/1.1 503 Draining\r\nContent-Length: 2\r\n\r\nno")},
		{"closed", probetest.Say("")},
		{"truncated", probetest.Say(ok + "Content-Length: 9\r\n\r\nok")},
		{"garbage", probetest.Say("SSH-2.0-OpenSSH_9.2\r\n")},
		{"reset", func(c net.Conn, _ string) { _ = c.(*net.TCPConn).SetLinger(0) }},
		{"silent", probetest.Hold},
		{"never ends", probetest.ForEver(ok+"\r\n", "x")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan string, 8)
			ln := probetest.Serve(t, "tcp", "127.0.0.1:0", func(conn net.Conn, request string) {
				requests <- request
				tc.answer(conn, request)
			})
			url := "http://" + ln.Addr().String() + "/health"
			code, stdout, stderr := earlyProbe(t, nil, url)
			checkVerdict(t, code, stdout, stderr)
			request := <-requests
			if len(requests) > 0 {
				t.Errorf("the early probe sent %d requests, want 1", 1+len(requests))
			}
			wantCode, want, _ := invoke(t, nil, "--healthcheck", url)
			if code != wantCode || took.ReplaceAllString(stdout, "") != took.ReplaceAllString(want, "") {
				t.Errorf("early probe = %d %q, want %d %q", code, stdout, wantCode, want)
			}
			if wantRequest := <-requests; request != wantRequest {
				t.Errorf("early probe sent %q, want %q", request, wantRequest)
			}
		})
	}
}

func TestEarlyProbeFollowsTheVariables(t *testing.T) {
	t.Parallel()
	ln := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	file := filepath.Join(t.TempDir(), "port")
	if err := os.WriteFile(file, []byte(port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, environ := range [][]string{
		{"PORT=" + port},
		{"PORT=0" + port},
		{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=127.0.0.1"},
		{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=0.0.0.0"},
		{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=::"},
		{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=localhost"},
		{"PORT=" + port, "IMAGELAB_BIND_ADDRESS=127.0.0.1/x"},
		{"PORT_FILE=" + file},
		{"PORT_FILE=" + file, "PORT="},
		{"PORT_FILE=" + file, "PORT=" + port},
		{"PORT_FILE=" + file + ".none"},
		{"PORT=" + port, "PORT_FILE="},
		{"PORT=" + port, "IMAGELAB_BIND_ADDRESS_FILE=" + file + ".none"},
		{"PORT=" + port + "/"},
		{"PORT=" + port + " "},
		{"PORT=0"},
		{"PORT=65536"},
		{"PORT=x"},
	} {
		code, stdout, stderr := earlyProbe(t, environ)
		checkVerdict(t, code, stdout, stderr)
		wantCode, want, _ := invoke(t, environ, "--healthcheck")
		if code != wantCode || took.ReplaceAllString(stdout, "") != took.ReplaceAllString(want, "") {
			t.Errorf("early probe with %q = %d %q, want %d %q", environ, code, stdout, wantCode, want)
		}
	}
}

// The point of internal/early: what a healthy server's probe does not need is not
// initialised for it.
func TestEarlyProbeIsEarly(t *testing.T) {
	t.Parallel()
	ln := probetest.Serve(t, "tcp", "127.0.0.1:0", probetest.Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	code, _, trace := earlyProbe(t, []string{"GODEBUG=inittrace=1"}, "http://"+ln.Addr().String()+"/")
	for _, late := range []string{"init github.com/", "init google.golang.org/", "init net ", "init unicode "} {
		if code != 0 || strings.Contains(trace, late) {
			t.Errorf("early probe = %d, and initialised:\n%s\nwant 0 and no %q", code, trace, late)
		}
	}
}
