package early

import (
	"bufio"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inTime is how long a test waits for something that should be there at once.
const inTime = 20 * time.Second

// serve answers every connection on a free port of 127.0.0.1 with each of the parts,
// one after the other has been waited for, and closes it when the test ends.
func serve(t *testing.T, parts ...string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go func() {
				for _, part := range parts {
					if part == "wait" {
						time.Sleep(2 * patience)
						continue
					}
					_, _ = io.WriteString(conn, part)
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// pipe returns both ends of a pipe.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// printed is all that comes out of a pipe whose other end is closed.
func printed(t *testing.T, r, w *os.File) string {
	t.Helper()
	w.Close()
	_ = r.SetReadDeadline(time.Now().Add(inTime))
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestDecide(t *testing.T) { // not parallel, as what was begun is the process's
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	healthy := "http://" + serve(t, ok) + "/health"
	for _, tc := range []struct {
		name    string
		args    []string
		decided bool
		begun   bool
	}{
		{"nothing asked", []string{"imagelab"}, false, false},
		{"another mode", []string{"imagelab", "--audit", healthy}, false, false},
		{"healthy", []string{"imagelab", "--healthcheck", healthy}, true, false},
		{"not understood", []string{"imagelab", "--healthcheck", "tcp" + healthy[4:]}, false, false},
		{"two URLs", []string{"imagelab", "--healthcheck", healthy, healthy}, false, false},
		{"a flag", []string{"imagelab", "--healthcheck", "--insecure"}, false, false},
		{"not enough", []string{"imagelab", "--healthcheck", "http://" + serve(t, ok[:len(ok)-1]) + "/health"}, false, true},
		{"refused", []string{"imagelab", "--healthcheck", "http://127.0.0.1:1/"}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, w := pipe(t)
			code, decided := decide(tc.args, int(w.Fd()))
			if code != 0 || decided != tc.decided {
				t.Errorf("decide(%q) = %d, %v, want 0, %v", tc.args, code, decided, tc.decided)
			}
			want := "^$"
			if tc.decided {
				want = `^healthy: 200 in (0s|[0-9]00µs|[0-9]+(\.[0-9])?ms) ` + healthy + "\n$"
			}
			if got := printed(t, r, w); !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("decide(%q) printed %q, want %q", tc.args, got, want)
			}
			p := Take()
			if (p != nil) != tc.begun {
				t.Fatalf("decide(%q) began %v, want %v", tc.args, p, tc.begun)
			}
			if p != nil {
				if Take() != nil {
					t.Error("Take = the same probe twice")
				}
				p.Close()
			}
		})
	}
}

func TestDecideAboutTheOwnServer(t *testing.T) { // not parallel, as the environment is the process's
	addr := serve(t, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")
	_, port, _ := net.SplitHostPort(addr)
	t.Setenv("PORT", port)
	for tries := 1; ; tries++ {
		r, w := pipe(t)
		code, decided := decide([]string{"imagelab", "--healthcheck"}, int(w.Fd()))
		got := printed(t, r, w)
		if p := Take(); p != nil && tries < 50 { // a loaded machine took longer than its patience
			p.Close()
			continue
		}
		if code != 0 || !decided || !strings.HasSuffix(got, " http://"+addr+"/health\n") {
			t.Errorf("decide = %d, %v, %q, want it healthy", code, decided, got)
		}
		break
	}
	if code, decided := decide([]string{"imagelab"}, 500); code != 0 || decided {
		t.Errorf("decide without an argument = %d, %v, want nothing", code, decided)
	}
}

func TestDecideWithoutDescriptors(t *testing.T) { // not parallel, as the limit is the process's
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r, w := pipe(t)
	args := []string{"imagelab", "--healthcheck", "nonsense"}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	code, decided := decide(args, int(w.Fd()))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const want = "unhealthy: too many open files, and the probe needs 3 more\n"
	if got := printed(t, r, w); code != 1 || !decided || got != want {
		t.Errorf("decide = %d, %v, %q, want 1 and %q", code, decided, got, want)
	}
	if err := reserve(500); err != nil { // whatever it is, the runtime can do without
		t.Errorf("reserve with a closed descriptor = %v, want nil", err)
	}
}

func TestFindOwnServer(t *testing.T) { // not parallel, as the environment is the process's
	for _, tc := range []struct {
		environ map[string]string
		want    string // the URL; empty for a probe that is not understood
	}{
		{nil, "http://127.0.0.1:8000/health"},
		{map[string]string{"PORT": "80"}, "http://127.0.0.1:80/health"},
		{map[string]string{"PORT": "0080"}, "http://127.0.0.1:0080/health"},
		{map[string]string{"PORT": "+80"}, ""},
		{map[string]string{"PORT": " 80"}, ""},
		{map[string]string{"PORT": "80/"}, ""},
		{map[string]string{"PORT": "0"}, ""},
		{map[string]string{"IMAGELAB_BIND_ADDRESS": "0.0.0.0"}, "http://127.0.0.1:8000/health"},
		{map[string]string{"IMAGELAB_BIND_ADDRESS": "10.0.0.1", "PORT": "1"}, "http://10.0.0.1:1/health"},
		{map[string]string{"IMAGELAB_BIND_ADDRESS": "::"}, ""},
		{map[string]string{"PORT_FILE": "/x"}, ""},
		{map[string]string{"IMAGELAB_BIND_ADDRESS_FILE": "/x"}, ""},
		{map[string]string{"IMAGELAB_UPSTREAM": "auto"}, ""},
		{map[string]string{"IMAGELAB_UPSTREAM_FILE": "/x"}, ""},
	} {
		for _, name := range []string{"PORT", "PORT_FILE", "IMAGELAB_BIND_ADDRESS", "IMAGELAB_BIND_ADDRESS_FILE", "IMAGELAB_UPSTREAM", "IMAGELAB_UPSTREAM_FILE"} {
			t.Setenv(name, tc.environ[name])
		}
		got := ""
		if p := find(nil); p != nil {
			got = p.url
		}
		if got != tc.want {
			t.Errorf("find() with %v = %q, want %q", tc.environ, got, tc.want)
		}
	}
}

func TestReceive(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: "
	for _, tc := range []struct {
		name   string
		parts  []string
		status string
	}{
		{"at once", []string{ok + "2\r\n\r\nok"}, "200"},
		{"byte by byte", strings.Split(ok+"2\r\n\r\nok", ""), "200"},
		{"as much as is looked at", []string{ok + "4000\r\n\r\n" + strings.Repeat("x", 4000)}, "200"},
		{"more than is looked at", []string{ok + "5000\r\n\r\n" + strings.Repeat("x", 5000)}, ""},
		{"too late", []string{"wait", ok + "2\r\n\r\nok"}, ""},
		{"half of it too late", []string{ok, "wait", "2\r\n\r\nok"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := parse("http://" + serve(t, tc.parts...) + "/")
			if !p.send() {
				t.Fatal("send = false")
			}
			got := p.receive()
			if got != tc.status {
				t.Errorf("receive = %q, want %q", got, tc.status)
			}
			// Whatever was not enough is there for whoever goes on.
			begin := p.take()
			defer begin.Close()
			all := strings.ReplaceAll(strings.Join(tc.parts, ""), "wait", "")
			overdue := time.AfterFunc(inTime, func() { begin.Close() })
			defer overdue.Stop()
			if content, err := io.ReadAll(io.LimitReader(begin, int64(len(all)))); err != nil || string(content) != all {
				t.Errorf("Read = %d bytes, %v, want the answer of %d from its beginning", len(content), err, len(all))
			}
		})
	}
}

func TestReadReportsWhatEndedTheAnswer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := parse("http://" + ln.Addr().String())
	if !p.send() {
		t.Fatal("send = false")
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	if status := p.receive(); status != "" {
		t.Errorf("receive = %q, want nothing", status)
	}
	begun := p.take()
	defer begun.Close()
	for range 2 { // the kernel says it once
		if n, err := begun.Read(make([]byte, 10)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read = %d, %v, want a reset connection", n, err)
		}
	}
}

func TestReadOfASilentServerEndsWithClose(t *testing.T) {
	t.Parallel()
	p := parse("http://" + serve(t))
	if !p.send() || p.receive() != "" {
		t.Fatal("want a request that has no answer yet")
	}
	begun := p.take()
	timer := time.AfterFunc(50*time.Millisecond, func() { begun.Close() })
	defer timer.Stop()
	if _, err := begun.Read(make([]byte, 10)); !errors.Is(err, os.ErrClosed) || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("Read = %v, want that it was closed, and no path", err)
	}
}

func TestSendLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := ln.Addr().String()
	ln.Close()
	p := parse("http://" + refused)
	if p.send() {
		t.Fatal("send to a closed port = true")
	}
	if target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(p.fd)); err == nil && strings.HasPrefix(target, "socket:") {
		if peer, err := syscall.Getpeername(p.fd); err != nil {
			t.Errorf("send left descriptor %d, %s, of %v", p.fd, target, peer)
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	fill := func(w *os.File) {
		fd := int(w.Fd()) // which makes it block
		_ = syscall.SetNonblock(fd, true)
		for page := make([]byte, 4096); ; {
			if _, err := syscall.Write(fd, page); err != nil {
				break
			}
		}
		_ = syscall.SetNonblock(fd, false)
	}
	// within runs print, which must not block.
	within := func(t *testing.T, print func()) {
		t.Helper()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			print()
		}()
		select {
		case <-ended:
		case <-time.After(inTime):
			t.Fatal("Print blocks")
		}
	}
	t.Run("a pipe that is read", func(t *testing.T) {
		t.Parallel()
		r, w := pipe(t)
		within(t, func() { Print(int(w.Fd()), "line\n") })
		if got := printed(t, r, w); got != "line\n" {
			t.Errorf("Print wrote %q, want the line", got)
		}
	})
	t.Run("a full pipe", func(t *testing.T) {
		t.Parallel()
		r, w := pipe(t)
		fill(w)
		within(t, func() { Print(int(w.Fd()), "line\n") })
		if got := printed(t, r, w); strings.Contains(got, "line") {
			t.Error("Print wrote to a full pipe")
		}
	})
	t.Run("a pipe that nobody reads", func(t *testing.T) {
		t.Parallel()
		r, w := pipe(t)
		r.Close()
		within(t, func() { Print(int(w.Fd()), "line\n") })
	})
	t.Run("a closed descriptor", func(t *testing.T) {
		t.Parallel()
		within(t, func() { Print(500, "line\n") })
	})
}

func TestParsePort(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"0": 0, "1": 1, "8000": 8000, "08000": 8000, "65535": 65535,
		"": -1, "65536": -1, "+80": -1, "-1": -1, " 80": -1, "80 ": -1, "80/tcp": -1, "0x50": -1, "8_0": -1, "8e3": -1, "٨": -1, "80\n": -1,
	} {
		if port, valid := ParsePort(text); valid != (want >= 0) || valid && int(port) != want {
			t.Errorf("ParsePort(%q) = %d, %v, want %d", text, port, valid, want)
		}
	}
}

// What comes later than this package's turn would move its turn.
func TestImportsAreCheap(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "early.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range file.Imports {
		if path, _ := strconv.Unquote(i.Path.Value); !strings.Contains(" os strconv sync/atomic syscall time ", " "+path+" ") {
			t.Errorf("early.go imports %s, want nothing that is initialised after package os", path)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]bool{
		"http://127.0.0.1:8000/health": true, "http://127.0.0.1": true, "http://10.20.30.255:65535/a/b.c_d-e": true, "http://0.0.0.0:1/": true,
		"": false, "http://": false, "http:///": false, "http:///health": false, "https://127.0.0.1/": false, "HTTP://127.0.0.1/": false,
		"http://localhost:8000/": false, "http://[::1]:8000/": false, "http://me@127.0.0.1/": false, "http://127.0.0.1:8000:8000/": false,
		"http://127.0.0.1:/": false, "http://127.0.0.1:0/": false, "http://127.0.0.1:65536/": false, "http://127.0.0.1:x/": false, "http://127.0.0.1:+1/": false,
		"http://127.0.0.256/": false, "http://127.0.0.01/": false, "http://127.0.0/": false, "http://127.0.0.1./": false, "http://1.2.3.4.5/": false, "http://127..0.1/": false,
		"http://127.0.0.1/?x": false, "http://127.0.0.1?x": false, "http://127.0.0.1/#x": false, "http://127.0.0.1/%20": false, "http://127.0.0.1/a b": false, "http://127.0.0.1/é": false,
		"http://127.0.0.1/azAZ09": true, "http://127.0.0.1/@": false, "http://127.0.0.1/[": false, "http://127.0.0.1/`": false, "http://127.0.0.1/{": false, "http://127.0.0.1/:": false,
		"http://127.0.0.1/" + strings.Repeat("x", 83): true, "http://127.0.0.1/" + strings.Repeat("x", 84): false,
	} {
		p := parse(raw)
		if (p != nil) != want {
			t.Errorf("parse(%q) = %v, want understood %v", raw, p, want)
		}
		if p == nil {
			continue
		}
		if u, err := url.Parse(raw); err != nil || u.Host != p.host || u.RequestURI() != p.path || u.Redacted() != p.url {
			t.Errorf("parse(%q) = host %q, path %q, net/url %v", raw, p.host, p.path, u)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for answer, want := range map[string]string{
		ok + "Content-Length: 2\r\n\r\nok":                             "200",
		ok + "Date: x\r\ncontent-length: 0\r\nX-1:\r\n\r\n":            "200",
		"HTTP/1.0 302 Found\r\nContent-Length: 1\r\n\r\nmore":          "302",
		"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n":                   "204",
		"HTTP/1.1 399 x\r\nContent-Length: 0\r\n\r\n":                  "399",
		"HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n":                  "",
		ok + "X: ~\r\nContent-Length: 0\r\n\r\n":                       "200",
		"":                                                             "",
		ok:                                                             "",
		ok[:len(ok)-1]:                                                 "",
		ok + "\r\n":                                                    "", // until the end, which judge does not see
		ok + "Content-Length: 2\r\n\r\no":                              "",
		ok + "Content-Length: 2\r\n":                                   "",
		ok + "Content-Length:2\r\n\r\nok":                              "",
		ok + "Content-Length: -1\r\n\r\n":                              "",
		ok + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n":          "",
		ok + "Content-Length : 0\r\n\r\n":                              "",
		ok + "Content-Length: 0\r\nX\r\n\r\n":                          "",
		ok + "Content-Length: 0\r\n X: y\r\n\r\n":                      "",
		ok + "Content-Length: 0\r\nX: \x1b[2J\r\n\r\n":                 "",
		ok + "Content-Length: 0\n\n":                                   "",
		ok + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n": "",
		ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n":             "",
		"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n":           "",
		"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n":                 "",
		"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n":                "",
		"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n":                 "",
		"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n":                 "",
		"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n":                   "",
	} {
		if got := judge(answer); got != want {
			t.Errorf("judge(%q) = %q, want %q", answer, got, want)
		}
	}
}

// Whatever judge finds healthy, net/http does as well.
func FuzzJudge(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 204 \r\nA: b\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 304 Not\r\nETag: \"x\"\r\ncontent-length: 00001\r\nConnection: close\r\n\r\n1", "HTTP/1.1 200 OK\r\nTrailer: X\r\nContent-Length: 1\r\n\r\n1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		status := judge(answer)
		if status == "" {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
		if err != nil || strconv.Itoa(resp.StatusCode) != status {
			t.Fatalf("judge(%q) = %q, net/http %v %v", answer, status, resp, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatalf("judge(%q) = %q, net/http's body %v", answer, status, err)
		}
	})
}
