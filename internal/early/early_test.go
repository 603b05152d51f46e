package early

import (
	"bufio"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

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
		"http://127.0.0.1/" + strings.Repeat("x", 100): false,
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
		ok + "Content-Length: 2\r\n\r\nok":                    "200",
		ok + "Date: x\r\ncontent-length: 0\r\nX-1:\r\n\r\n":   "200",
		"HTTP/1.0 302 Found\r\nContent-Length: 1\r\n\r\nmore": "302",
		"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n":          "204",
		"":                                "",
		ok:                                "",
		ok + "\r\n":                       "", // until the end, which judge does not see
		ok + "Content-Length: 2\r\n\r\no": "",
		ok + "Content-Length: 2\r\n":      "",
		ok + "Content-Length:2\r\n\r\nok": "",
		ok + "Content-Length: -1\r\n\r\n": "",
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
