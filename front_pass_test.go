package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// startFront runs imagelab in front of a net/http server with that handler.
func startFront(t *testing.T, h http.HandlerFunc, environ ...string) *instance {
	t.Helper()
	up := httptest.NewServer(h)
	t.Cleanup(up.Close)
	return start(t, append(environ, "IMAGELAB_UPSTREAM="+up.URL)...)
}

func TestFrontPassesTargetsOnByteForByte(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, answers(slices.Repeat([]string{fine}, 100)...))
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
	for target, want := range map[string]string{
		"/":                         "/",
		"/health":                   "/health", // which is the built-in app's elsewhere
		"/proof":                    "/proof",
		"/-/metrics":                "/-/metrics",
		"//a//b/":                   "//a//b/",
		"/a/../b/./c":               "/a/../b/./c",
		"/a%2Fb%2e%2E/%00":          "/a%2Fb%2e%2E/%00",
		"/a;b=c?d;e&f=%zz&&":        "/a;b=c?d;e&f=%zz&&",
		"/?":                        "/?",
		"/a?b?c":                    "/a?b?c",
		"/caf\xc3\xa9?\xff":         "/caf\xc3\xa9?\xff",
		"/\"<>[]{}|\\^`":            "/\"<>[]{}|\\^`",
		"http://other.example/a//b": "/a//b",
		"http://other.example":      "/",
		"http://other.example?a":    "/?a",
	} {
		got := passThrough(t, in.app, nil, "GET "+target+" HTTP/1.1\r\nHost: other.example\r\n\r\n")
		if got.code != 200 {
			t.Errorf("GET %q = %+v", target, got)
			continue
		}
		if line, _, _ := strings.Cut(<-up.seen, "\r\n"); line != "GET "+want+" HTTP/1.1" {
			t.Errorf("GET %q was passed on as %q, want %q", target, line, want)
		}
	}
	if got := passThrough(t, in.app, nil, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"); got.code != 200 || !strings.HasPrefix(<-up.seen, "OPTIONS * HTTP/1.1\r\n") {
		t.Errorf("OPTIONS * = %+v, want it passed on", got)
	}
	for _, line := range []string{"CONNECT other.example:443 HTTP/1.1", "GET * HTTP/1.1"} {
		before := up.requests.Load()
		if got := passThrough(t, in.app, nil, line+"\r\nHost: other.example:443\r\n\r\n"); got.code != 400 || up.requests.Load() != before {
			t.Errorf("%s = %+v, want 400 and nothing passed on", line, got)
		}
	}
}

// What a client must not say in its header it must not say behind the body: some programs take
// trailers for fields of the header.
func TestFrontPassesTrailersOn(t *testing.T) {
	t.Parallel()
	const request = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-For, X-Sum\r\n\r\n3\r\nabc\r\n0\r\n" +
		"X-Forwarded-For: 6.6.6.6\r\nX-Sum: 7\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nProxy: evil\r\n\r\n"
	for trusted, want := range map[string]string{
		"IMAGELAB_TRUSTED_PROXIES=":            "map[X-Sum:[7]]",
		"IMAGELAB_TRUSTED_PROXIES=127.0.0.0/8": "map[Forwarded:[for=6.6.6.6] X-Forwarded-For:[6.6.6.6] X-Real-Ip:[6.6.6.6] X-Sum:[7]]",
	} {
		in := startFront(t, func(w http.ResponseWriter, r *http.Request) {
			declared := len(r.Trailer)
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, declared, " ", r.Trailer)
		}, trusted)
		if got := passThrough(t, in.app, nil, request); got.code != 200 || got.body[2:] != want {
			t.Errorf("%s: the upstream got the trailers %s, want %s", trusted, got.body, want)
		}
	}
}

func TestFrontPassesFieldsOn(t *testing.T) {
	t.Parallel()
	const trusted = "IMAGELAB_TRUSTED_PROXIES=10.0.0.0/8, 127.0.0.0/8"
	own := map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "example.com:81", "Host": "example.com:81"}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(own)
		maps.Copy(all, more)
		return all
	}
	for name, tc := range map[string]struct {
		lines   []string
		want    map[string]string // all that the upstream gets, values of a name joined by "|"
		environ []string
	}{
		"nothing": {nil, own, nil},
		"fields of the request": {
			[]string{"Accept: a", "accept: b", "Cookie: c=d", "Authorization: Basic eA==", "User-Agent:", "X-Odd:  \tv w\t "},
			with(map[string]string{"Accept": "a|b", "Cookie": "c=d", "Authorization": "Basic eA==", "User-Agent": "", "X-Odd": "v w"}), nil,
		},
		"fields of the connection": {
			[]string{"Connection: keep-alive, X-Hop", "Keep-Alive: 5", "Proxy-Connection: keep-alive", "TE: gzip", "X-Hop: 1", "Upgrade: h2c", "Trailer: X"},
			own, nil,
		},
		"trailers are welcome": {[]string{"Connection: te", "TE: gzip;q=0.5, trailers;q=1"}, with(map[string]string{"Connection": "TE", "Te": "trailers"}), nil},
		"an upgrade":           {[]string{"Connection: keep-alive, Upgrade", "Upgrade: chat"}, with(map[string]string{"Connection": "Upgrade", "Upgrade": "chat"}), nil},
		"an upgrade that the connection does not name": {[]string{"Upgrade: chat"}, own, nil},
		"a client that says who it is": {
			[]string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /x", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6"},
			own, nil,
		},
		"and with other words for the same": {
			[]string{"X_Forwarded_For: 6.6.6.6", "X-Forwarded_Proto: https", "X_Real_IP: 6.6.6.6", "Content_Length: 5", "Transfer_Encoding: chunked", "Proxy: http://evil", "My_Own: 1"},
			with(map[string]string{"My_own": "1"}), nil,
		},
		"a trusted proxy": {
			[]string{"X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2, 3.3.3.3", "X-Forwarded-Proto: https", "X-Forwarded-Host: public", "Forwarded: for=1.1.1.1"},
			with(map[string]string{"X-Forwarded-For": "1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "public", "Forwarded": "for=1.1.1.1"}),
			[]string{trusted},
		},
		"a trusted proxy that says nothing": {nil, own, []string{trusted}},
		"a trusted proxy whose client names it in Connection": {
			[]string{"Connection: X-Forwarded-For", "X-Forwarded-For: 1.1.1.1"}, with(map[string]string{"X-Forwarded-For": "1.1.1.1, 127.0.0.1"}), []string{trusted},
		},
		"another proxy": {[]string{"X-Forwarded-For: 1.1.1.1"}, own, []string{"IMAGELAB_TRUSTED_PROXIES=10.0.0.0/8,::1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := startUpstream(t, answers(fine))
			in := start(t, append(tc.environ, "IMAGELAB_UPSTREAM=http://"+up.addr)...)
			request := "GET / HTTP/1.1\r\nHost: example.com:81\r\n"
			for _, line := range tc.lines {
				request += line + "\r\n"
			}
			if got := passThrough(t, in.app, nil, request+"\r\n"); got.code != 200 {
				t.Fatalf("got %+v", got)
			}
			parsed, err := http.ReadRequest(bufio.NewReader(strings.NewReader(<-up.seen)))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{"Host": parsed.Host}
			for name, values := range parsed.Header {
				got[name] = strings.Join(values, "|")
			}
			if !maps.Equal(got, tc.want) {
				t.Errorf("%q was passed on as %q, want %q", tc.lines, got, tc.want)
			}
		})
	}
}

func TestFrontPassesAnswersOn(t *testing.T) {
	t.Parallel()
	const chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nfi\r\n003;a=b\r\nne\n\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n"
	for name, tc := range map[string]struct {
		request, answer string
		want            string // all that the client gets, Date aside
	}{
		"a length":             {aGET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\nfine\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\nfine\n"},
		"no type":              {aGET, fine, fine},
		"no body":              {aGET, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"an error":             {aGET, "HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n"},
		"HEAD":                 {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"},
		"204":                  {aGET, "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"},
		"304":                  {aGET, "HTTP/1.1 304 Not Modified\r\nEtag: \"a\"\r\nContent-Length: 500\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nEtag: \"a\"\r\n\r\n"},
		"cookies":              {aGET, "HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n"},
		"hop by hop":           {aGET, "HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"space before a colon": {aGET, "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\n\r\n"},
		"chunks and trailers":  {aGET, chunks, "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfine\n\r\n0\r\nX-More: 8\r\nX-Sum: 7\r\n\r\n"},
		"trailers that nobody announced": {aGET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: 1\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: 1\r\n\r\n"},
		"a field of header and trailer": {aGET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nX-B: 1\r\nTrailer: X-A, X-B\r\n\r\n2\r\nok\r\n0\r\nX-A: 2\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTrailer: X-A, X-B\r\nX-A: 1\r\nX-B: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: 2\r\n\r\n"},
		"chunks for HTTP/1.0": {"GET / HTTP/1.0\r\n\r\n", chunks, "HTTP/1.0 200 OK\r\n\r\nfine\n"},
		"early hints": {aGET, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n" + fine,
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n" + fine},
		"early hints for HTTP/1.0": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + fine,
			"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nfine\n"},
		"100 that nobody expects": {aGET, "HTTP/1.1 100 Continue\r\n\r\n" + fine, fine},
		"no length, HTTP/1.0":     {aGET, "HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\nfine\n", "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfine\n\r\n0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := startUpstream(t, answers(tc.answer))
			in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
			conn, r := dial(t, host(in.app))
			_, _ = io.WriteString(conn, tc.request)
			_ = conn.(*net.TCPConn).CloseWrite()
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			// An answer of HTTP/1.0 has a length if all of it has come at once.
			if got := withoutDate(string(text)); got != tc.want && strings.Replace(got, "Content-Length: 5\r\n", "", 1) != tc.want {
				t.Errorf("the answer %q was passed on as %q, want %q", tc.answer, got, tc.want)
			}
		})
	}
}

// withoutDate takes the lines out that differ each time.
func withoutDate(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "Date: ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// A piece of an answer is passed on when it has come, whatever comes next, and so is a piece
// of a body.
func TestFrontHoldsNothing(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{
		"server-sent events": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
		"a length":           "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
		"until it closes":    "HTTP/1.0 200 OK\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pieces, came := make(chan string), make(chan string, 10)
			up := startUpstream(t, func(c *fakeConn) {
				c.header()
				_, _ = io.WriteString(c, header)
				for piece := range pieces {
					if strings.Contains(header, "chunked") {
						piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
					}
					_, _ = io.WriteString(c, piece)
				}
				if strings.Contains(header, "chunked") {
					_, _ = io.WriteString(c, "0\r\n\r\n")
				}
			})
			in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
			conn, r := dial(t, host(in.app))
			_, _ = io.WriteString(conn, aGET)
			resp, err := http.ReadResponse(r, nil) // before there is any of the body
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				buf := make([]byte, 100)
				for {
					n, err := resp.Body.Read(buf)
					came <- string(buf[:n])
					if err != nil {
						came <- err.Error()
						return
					}
				}
			}()
			for _, piece := range []string{"ab", "cd", "ef"} {
				pieces <- piece
				got := ""
				for len(got) < 2 {
					got += <-came
				}
				if got != piece {
					t.Fatalf("after %q the client has %q", piece, got)
				}
			}
			close(pieces)
			got := ""
			for !strings.HasSuffix(got, "EOF") {
				got += <-came
			}
			if got != "EOF" {
				t.Errorf("the answer ended with %q, want EOF", got)
			}
		})
	}

	t.Run("a body", func(t *testing.T) {
		t.Parallel()
		came := make(chan string)
		in := startFront(t, func(_ http.ResponseWriter, r *http.Request) {
			buf := make([]byte, 100)
			for {
				n, err := r.Body.Read(buf)
				if n > 0 {
					came <- string(buf[:n])
				}
				if err != nil {
					return
				}
			}
		})
		conn, r := dial(t, host(in.app))
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, piece := range []string{"ab", "cd"} {
			_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
			if got := <-came; got != piece {
				t.Errorf("after %q the upstream has %q", piece, got)
			}
		}
		_, _ = io.WriteString(conn, "0\r\n\r\n")
		if got := readOutcome(r); got.code != 200 || got.last {
			t.Errorf("got %+v", got)
		}
	})
}

func TestFrontPassesBodiesOn(t *testing.T) {
	t.Parallel()
	in := startFront(t, func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%d %d %v %v %x %v", n, r.ContentLength, r.TransferEncoding, err, sum.Sum(nil), r.Trailer)
		w.Header().Set("X-Sum", "7")
	})
	for _, size := range []int{0, 1, 100, 4 << 10, 32<<10 - 12, 32 << 10, 1 << 20, 5_000_001} {
		content := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for _, length := range []int64{int64(size), -1} {
			req, _ := http.NewRequest("POST", in.app+"/", struct{ io.Reader }{bytes.NewReader(content)})
			req.ContentLength = length
			trailer := http.Header{}
			if length < 0 {
				trailer.Set("X-Mine", "8")
				req.Trailer = trailer
			} else if size == 0 {
				req.Body = http.NoBody
			}
			resp, err := client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			coding := "[]"
			if length < 0 {
				coding = "[chunked]"
			}
			want := fmt.Sprintf("%d %d %s <nil> %x %v", size, length, coding, sha256.Sum256(content), trailer)
			if string(body) != want || err != nil || resp.Trailer.Get("X-Sum") != "7" {
				t.Errorf("POST of %d bytes, length %d: upstream got %q, %v, trailer %v, want %q", size, length, body, err, resp.Trailer, want)
			}
		}
	}
}

func TestFrontAsksTheUpstreamBeforeTheClientSends(t *testing.T) {
	t.Parallel()
	const expecting = "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	in := startFront(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	t.Run("it wants it", func(t *testing.T) {
		conn, r := dial(t, host(in.app))
		_, _ = fmt.Fprintf(conn, expecting, "yes")
		if line, _ := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, want 100", line)
		}
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(conn, "hello")
		if got := readOutcome(r); got.code != 200 || got.body != "hello" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("it does not", func(t *testing.T) {
		conn, r := dial(t, host(in.app))
		_, _ = fmt.Fprintf(conn, expecting, "no")
		if got := readOutcome(r); got.code != 403 || !got.last {
			t.Errorf("got %+v, want 403 and the end", got)
		}
	})
	t.Run("it says nothing", func(t *testing.T) {
		up := startUpstream(t, answers(fine))
		in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
		conn, r := dial(t, host(in.app))
		_, _ = fmt.Fprintf(conn, expecting, "")
		if line, _ := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, want 100 after a second", line)
		}
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(conn, "hello")
		if got := readOutcome(r); got.code != 200 || got.last {
			t.Errorf("got %+v", got)
		}
	})
}

// Both directions are open at once.
func TestFrontStreamsBothWays(t *testing.T) {
	t.Parallel()
	in := startFront(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		buf := make([]byte, 100)
		for {
			_ = http.NewResponseController(w).Flush()
			n, err := r.Body.Read(buf)
			_, _ = w.Write(bytes.ToUpper(buf[:n]))
			if err != nil {
				return
			}
		}
	})
	body, send := io.Pipe()
	resp, err := client().Post(in.app+"/", "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, 3)
	for _, piece := range []string{"abc", "def"} {
		_, _ = io.WriteString(send, piece)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != strings.ToUpper(piece) {
			t.Fatalf("after %q the client has %q, %v", piece, got, err)
		}
	}
	send.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("the answer ended with %q, %v", rest, err)
	}
}

func TestFrontBounds(t *testing.T) {
	t.Parallel()
	t.Run("bodies, where it is asked for", func(t *testing.T) {
		t.Parallel()
		in := startFront(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, "IMAGELAB_MAX_BODY=10B")
		const refusal = `{"error":"body-too-large","want":"at most 10 bytes"}` + "\n"
		for _, tc := range []struct {
			body string
			code int
			want string
		}{
			{"Content-Length: 10\r\n\r\n0123456789", 200, ""},
			{"Content-Length: 11\r\n\r\n0123456789a", 413, refusal},
			{"Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n", 413, refusal},
		} {
			if got := passThrough(t, in.app, nil, "POST / HTTP/1.1\r\nHost: x\r\n"+tc.body); got.code != tc.code || got.body != tc.want {
				t.Errorf("%q = %+v, want %d", tc.body, got, tc.code)
			}
		}
	})
	t.Run("requests at once", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		in := startFront(t, func(http.ResponseWriter, *http.Request) { <-release }, "IMAGELAB_MAX_IN_FLIGHT=2")
		got := make(chan outcome, 2)
		for range cap(got) {
			go func() { got <- passThrough(t, in.app, nil, aGET) }()
		}
		eventually(t, "two requests", func() bool {
			_, body := fetch(t, "GET", in.ops+"/metrics", "")
			return strings.Contains(body, `imagelab_http_requests_in_flight{route="upstream",server="app"} 2`)
		})
		if o := passThrough(t, in.app, nil, aGET); o.code != 503 || !strings.HasPrefix(o.body, isRefused("overloaded")) {
			t.Errorf("the third = %+v, want 503", o)
		}
		close(release)
		for range cap(got) {
			if o := <-got; o.code != 200 {
				t.Errorf("one of two = %+v", o)
			}
		}
	})
}

func TestFrontOnTheWayToASocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	in := start(t, "IMAGELAB_UPSTREAM=unix://"+path)
	for range 3 {
		if _, body := fetch(t, "GET", in.app+"/", ""); body != host(in.app) {
			t.Errorf("GET / = %q, want the Host that was asked for", body)
		}
	}
}

func TestOpsPathsOnTheFrontAreItsOwn(t *testing.T) {
	t.Parallel()
	in := startFront(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "upstream ", r.URL.Path) }, "IMAGELAB_OPS_ADDR=")
	for path, want := range map[string]string{
		"/-/livez": `{"status":"alive"}`, "/-/no": notFound, "/-": "upstream /-", "/livez": "upstream /livez", "/": "upstream /",
	} {
		if _, body := fetch(t, "GET", in.app+path, ""); !strings.HasPrefix(body, want) {
			t.Errorf("GET %s = %q, want %q", path, body, want)
		}
	}
}

func TestFrontCountsAndLogs(t *testing.T) {
	t.Parallel()
	in := startFront(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(418) }, "IMAGELAB_ACCESS_LOG=all")
	for _, method := range []string{"GET", "BREW"} {
		fetch(t, method, in.app+"/a", "")
	}
	_, body := fetch(t, "GET", in.ops+"/metrics", "")
	for _, line := range []string{
		`imagelab_http_requests_total{code="418",method="GET",route="upstream",server="app"} 1`,
		`imagelab_http_requests_total{code="418",method="other",route="upstream",server="app"} 1`,
		`imagelab_upstream_header_seconds_count 2`,
		`imagelab_upstream_failures_total{reason="silent"} 0`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("/metrics has no line %q", line)
		}
	}
	record := in.log.find("request", "method", "BREW")
	if record == nil || record["path"] != "/a" || record["route"] != "upstream" || record["status"] != 418.0 {
		t.Errorf("the access log has %v", record)
	}
}

// A connection is used again while it is young, and not when it is old.
func TestFrontKeepsConnectionsForAWhile(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, answers(slices.Repeat([]string{fine}, 100)...))
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr, "IMAGELAB_UPSTREAM_IDLE=300ms")
	for range 20 {
		passThrough(t, in.app, nil, aGET)
	}
	if n := up.conns.Load(); n > 3 { // 1, unless this machine was busy for 300 ms
		t.Errorf("%d connections for 20 requests in a row, want one", n)
	}
	before := up.conns.Load()
	time.Sleep(400 * time.Millisecond)
	passThrough(t, in.app, nil, aGET)
	if n := up.conns.Load(); n != before+1 {
		t.Errorf("%d connections after a pause, want %d", n, before+1)
	}
}

// The time that a client has for its request is not that of the answer.
func TestFrontWaitsLongerThanClientsMayTake(t *testing.T) {
	t.Parallel()
	in := startFront(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(1500 * time.Millisecond) // longer than it takes to look after the client
	}, "IMAGELAB_READ_TIMEOUT=200ms")
	for _, request := range []string{aGET, aPOST, "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		t.Run(request[:4], func(t *testing.T) {
			t.Parallel()
			conn, r := dial(t, host(in.app))
			_, _ = io.WriteString(conn, request)
			if line, err := r.ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" || err != nil {
				t.Errorf("%q is answered %q, %v, want 200 and nothing before", request, line, err)
			}
		})
	}
}

func TestFrontSaysThatItsUpstreamIsElsewhere(t *testing.T) {
	t.Parallel()
	const warning = "requests are passed on to another machine, and in the clear"
	for upstream, elsewhere := range map[string]bool{
		"3000": false, "http://localhost:3000": false, "http://[::1]": false, "unix:///app.sock": false,
		"http://app:3000": true, "http://192.0.2.1": true,
	} {
		in := start(t, "IMAGELAB_UPSTREAM="+upstream)
		if said := in.log.find(warning) != nil; said != elsewhere {
			t.Errorf("IMAGELAB_UPSTREAM=%s: the log says that it is elsewhere: %t, want %t", upstream, said, elsewhere)
		}
	}
}

// CONNECT asks for a tunnel, and a target without an authority has no path that could be passed on.
func TestFrontRefusesOtherTargets(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, answers(fine))
	in := start(t, "IMAGELAB_UPSTREAM=http://"+up.addr)
	for _, line := range []string{"CONNECT /p", "CONNECT x:80", "GET foo:/secret?x", "GET foo:bar", "GET *"} {
		conn, r := dial(t, host(in.app))
		_, _ = io.WriteString(conn, line+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if text, _ := io.ReadAll(r); !strings.HasPrefix(string(text), "HTTP/1.1 400 ") {
			t.Errorf("%s: %q, want 400", line, text)
		}
	}
	select {
	case seen := <-up.seen:
		t.Errorf("the upstream got %q", seen)
	default:
	}
}
