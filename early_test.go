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
		{"identity", probetest.Say(ok + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok")},
		{"gzip in chunks", probetest.Say(ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")},
		{"HTTP/1.0", probetest.Say("HTTP/1.0 200 OK\r\n\r\nok")},
		{"HTTP/0.9", probetest.Say("ok\n")},
		{"newlines without carriage return", probetest.Say("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")},
		{"interim answers", probetest.Say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n")},
		{"another protocol asked for", probetest.Say("HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n")},
		{"lengths that differ", probetest.Say(ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok")},
		{"length twice", probetest.Say(ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok")},
		{"length that is none", probetest.Say(ok + "Content-Length: x\r\n\r\nok")},
		{"no length of a 204", probetest.Say("HTTP/1.1 204 No\r\n\r\n")},
		{"header without an end", probetest.ForEver(ok, "X: y\r\n")},
		{"alert of TLS", probetest.Say("\x15\x03\x01\x00\x02\x02\x0a")},
		{"reset in the body", func(c net.Conn, _ string) {
			_, _ = io.WriteString(c, ok+"Content-Length: 3\r\n\r\n")
			time.Sleep(20 * time.Millisecond)
			_ = c.(*net.TCPConn).SetLinger(0)
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
		{"PORT= " + port},
		{"PORT=+" + port},
		{"PORT=" + port + "/tcp"},
		{"PORT=0x1f40"},
		{"PORT=8_000"},
		{"PORT="},
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

// Whatever is wrong with a URL or right with it, both say the same.
func TestEarlyProbeReadsURLsAsTheProbeDoes(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 2)
	addr := probetest.Serve(t, "tcp", "127.0.0.1:0", func(conn net.Conn, request string) {
		requests <- request
		probetest.Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(conn, request)
	}).Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for _, url := range []string{
		"http://" + addr, "http://" + addr + "/", "http://" + addr + "//a/../b_c-d.e", "HTTP://" + addr + "/", "http://localhost:" + port + "/",
		"http://127.0.0.1:0" + port + "/", "http://127.0.0.1:+" + port + "/", "http://0.0.0.0:" + port + "/", "http://127.0.0.01:" + port + "/",
		"http://" + addr + "?x=y z", "http://" + addr + "/?é", "http://" + addr + "/a b", "http://" + addr + "/%20%zz", "http://" + addr + "/#x",
		"http://me:secret@" + addr + "/", "http://" + addr + ":80/", "http://" + addr + "/" + strings.Repeat("x", 100), addr, "tcp://" + addr, "http://127.0.0.1:0/",
	} {
		code, stdout, stderr := earlyProbe(t, nil, url)
		checkVerdict(t, code, stdout, stderr)
		request := ""
		if code == exitOK && strings.HasPrefix(strings.ToLower(url), "http") {
			request = <-requests
		}
		wantCode, want, _ := invoke(t, nil, "--healthcheck", url)
		if code != wantCode || took.ReplaceAllString(stdout, "") != took.ReplaceAllString(want, "") {
			t.Errorf("early probe of %s = %d %q, want %d %q", url, code, stdout, wantCode, want)
		}
		if request == "" {
			continue
		}
		if wantRequest := <-requests; request != wantRequest {
			t.Errorf("early probe of %s sent %q, want %q", url, request, wantRequest)
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
