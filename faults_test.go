package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imagelab/drain"
)

func TestFaultsAreOffByDefault(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, request := range []string{"GET /delay/1s", "GET /status/500", "GET /panic", "GET /stream/1s", "GET /headers", "POST /echo"} {
		method, path, _ := strings.Cut(request, " ")
		if got := ask(t, method, in.app+path, ""); got != (answer{404, asJSON, "", notFound}) {
			t.Errorf("%s = %v, want 404", request, got)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_READ_TIMEOUT=100ms", "IMAGELAB_MAX_BODY=16B")
	badDuration := answer{400, asJSON, "", `{"error":"bad-duration","want":"a duration such as 250ms or 3s, at most 10m0s"}` + "\n"}
	badStatus := answer{400, asJSON, "", `{"error":"bad-status","want":"a status from 200 to 599"}` + "\n"}
	const bytes = "application/octet-stream"
	for _, tc := range []struct {
		name, method, path, body string
		want                     answer
	}{
		{"no delay", "GET", "/delay/0s", "", answer{200, asJSON, "", `{"delayed":"0s"}` + "\n"}},
		{"a delay beyond the read timeout", "GET", "/delay/400ms", "", answer{200, asJSON, "", `{"delayed":"400ms"}` + "\n"}},
		{"a delay without unit", "GET", "/delay/1", "", badDuration},
		{"a negative delay", "GET", "/delay/-1s", "", badDuration},
		{"an absurd delay", "GET", "/delay/87600h", "", badDuration},
		{"a delay of more than a number holds", "GET", "/delay/99999999999999999h", "", badDuration},
		{"a delay that is none", "GET", "/delay/soon", "", badDuration},
		{"no duration", "GET", "/delay/", "", answer{404, asJSON, "", notFound}},
		{"a delay by POST", "POST", "/delay/0s", "", answer{405, asJSON, ofReads, no405}},
		{"status 200", "GET", "/status/200", "", answer{200, asJSON, "", `{"status":200}` + "\n"}},
		{"status 204 has no body", "GET", "/status/204", "", answer{204, asJSON, "", ""}},
		{"status 302 goes nowhere", "GET", "/status/302", "", answer{302, asJSON, "", `{"status":302}` + "\n"}},
		{"status 304 has no body", "GET", "/status/304", "", answer{304, "", "", ""}},
		{"status 503", "GET", "/status/503", "", answer{503, asJSON, "", `{"status":503}` + "\n"}},
		{"status 599", "HEAD", "/status/599", "", answer{599, asJSON, "", ""}},
		{"status 100", "GET", "/status/100", "", badStatus},
		{"status 600", "GET", "/status/600", "", badStatus},
		{"status 0", "GET", "/status/0", "", badStatus},
		{"a status that is none", "GET", "/status/teapot", "", badStatus},
		{"a stream that is over at once", "GET", "/stream/0s", "", answer{200, "text/plain; charset=utf-8", "", "0\n"}},
		{"a stream beyond the read timeout", "GET", "/stream/1s", "", answer{200, "text/plain; charset=utf-8", "", "0\n1\n"}},
		{"a stream that is none", "GET", "/stream/long", "", badDuration},
		{"echo", "POST", "/echo", "\x00\xff<b>\r\n", answer{200, bytes, "", "\x00\xff<b>\r\n"}},
		{"echo of nothing", "POST", "/echo", "", answer{200, bytes, "", ""}},
		{"echo at the limit", "POST", "/echo", strings.Repeat("x", 16), answer{200, bytes, "", strings.Repeat("x", 16)}},
		{"echo over the limit", "POST", "/echo", strings.Repeat("x", 17), answer{413, asJSON, "", `{"error":"body-too-large","want":"at most 16 bytes"}` + "\n"}},
		{"echo by GET", "GET", "/echo", "", answer{405, asJSON, "OPTIONS, POST", `{"error":"method-not-allowed","want":"OPTIONS, POST"}` + "\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, tc.method, in.app+tc.path, tc.body)
			if strings.HasPrefix(tc.path, "/stream/1s") && strings.HasPrefix(got.body, tc.want.body) {
				got.body = tc.want.body // one line more where a second is long
			}
			if got != tc.want {
				t.Errorf("%s %s = %v, want %v", tc.method, tc.path, got, tc.want)
			}
		})
	}
	t.Run("headers", func(t *testing.T) {
		t.Parallel()
		got := ask(t, "GET", in.app+"/headers", "", "X-A: <b>", "Accept: text/plain")
		if got.code != 200 || got.contentType != asJSON || !strings.Contains(got.body, `"X-A": [
    "\u003cb\u003e"
  ]`) {
			t.Errorf("GET /headers = %v, want X-A", got)
		}
	})
	t.Run("echo in chunks over the limit", func(t *testing.T) {
		t.Parallel()
		resp, err := client().Post(in.app+"/echo", "", io.MultiReader(strings.NewReader(strings.Repeat("x", 100))))
		if err == nil {
			var body []byte
			body, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == 200 && err == nil {
				t.Errorf("POST /echo of 100 bytes in chunks = %d %q, want no whole answer", resp.StatusCode, body)
			}
		}
	})
}

func TestEchoGivesBackExactlyWhatCame(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_MAX_BODY=4MiB")
	body := strings.Repeat("0123456789abcdef", 4<<20/16)
	for name, reader := range map[string]io.Reader{
		"with a length": strings.NewReader(body),
		"in chunks":     io.MultiReader(strings.NewReader(body)),
		"in odd chunks": iotest.HalfReader(strings.NewReader(body)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := client().Post(in.app+"/echo", "", reader)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != body || resp.StatusCode != 200 {
				t.Errorf("POST /echo of %d bytes = %d, %d bytes, %v", len(body), resp.StatusCode, len(got), err)
			}
		})
	}
}

func TestPanicIsAnsweredAndCounted(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	for range 3 {
		want := answer{500, asJSON, "", `{"error":"internal"}` + "\n"}
		if got := ask(t, "GET", in.app+"/panic", ""); got != want {
			t.Errorf("GET /panic = %v, want %v", got, want)
		}
	}
	in.healthy(t, "after panics")
	if got := in.metric(t, "imagelab_http_panics_total"); got != "3" {
		t.Errorf("panics = %q, want 3", got)
	}
	if got := in.metric(t, `imagelab_http_requests_in_flight{route="/panic",server="app"}`); got != "0" {
		t.Errorf("panics in flight = %q, want 0", got)
	}
	record := in.log.find("panic in a handler, its request was answered 500 or cut")
	if record == nil || record["route"] != "/panic" || !strings.Contains(fmt.Sprint(record["stack"]), "faults.go") {
		t.Errorf("no record of the panic with its stack in the log:\n%s", in.log)
	}
}

func TestStreamIsFlushed(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	resp, err := client().Get(in.app + "/stream/10m")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// Lines come while the handler goes on.
	lines := bufio.NewScanner(resp.Body)
	for want := range 2 {
		if !lines.Scan() || lines.Text() != fmt.Sprint(want) {
			t.Fatalf("line %d = %q, %v", want, lines.Text(), lines.Err())
		}
	}
	resp.Body.Close()
	eventually(t, "end of the stream with its client", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="/stream/{duration}",server="app"}`) == "0"
	})
}

func TestHandlerThatFailsHalfWayDoesNotLookDone(t *testing.T) {
	t.Parallel()
	for name, problem := range map[string]any{"panic": errors.New("half way"), "abort": http.ErrAbortHandler} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			s.handle("/half", always, get(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintln(w, "half")
				_ = http.NewResponseController(w).Flush()
				panic(problem)
			}))
			resp, err := client().Get("http://" + s.ln.Addr().String() + "/half")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if string(body) != "half\n" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("GET /half = %q, %v, want half and an unexpected end", body, err)
			}
		})
	}
}

// startServer runs a server of the program's kind for the routes of a test.
func startServer(t *testing.T) *server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg, _, err := loadConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := newMetrics(prometheus.NewRegistry(), newHealth(time.Now()), "", new(atomic.Int64))
	ln, err := drain.Listen(t.Context(), "127.0.0.1:0", drain.Options{WriteTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(ln, newServerOptions("app", cfg, 0), log, m)
	go func() { _ = s.drain.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.drain.Shutdown(ctx)
	})
	return s
}

// TestExpectIsAnsweredBeforeTheBody is for clients that ask first whether a body is wanted
// (RFC 9110, 10.1.1). Those that are not told so in time send it anyway, or never.
func TestExpectIsAnsweredBeforeTheBody(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_OPS_TOKEN=secret")
	fetch(t, "POST", in.app+"/store", "hello") // so that it is there already
	const length, chunks = "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"
	for _, tc := range []struct {
		name, base, line, headers string
		asks                      bool // for the body
		code                      int
	}{
		{"echo", in.app, "POST /echo HTTP/1.1", "Expect: 100-continue\r\n" + length, true, 200},
		{"echo in chunks", in.app, "POST /echo HTTP/1.1", "Expect: 100-continue\r\n" + chunks, true, 200},
		{"echo in another spelling", in.app, "POST /echo HTTP/1.1", "expect: 100-Continue\r\n" + length, true, 200},
		{"echo of nothing", in.app, "POST /echo HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false, 200},
		{"an upload", in.app, "POST /store HTTP/1.1", "Expect: 100-continue\r\n" + length, true, 200},
		{"an upload in chunks", in.app, "POST /store HTTP/1.1", "Expect: 100-continue\r\n" + chunks, true, 200},
		{"echo of too much", in.app, "POST /echo HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 5000000\r\n", false, 413},
		{"an upload of too much", in.app, "POST /store HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 5000000\r\n", false, 413},
		{"no such path", in.app, "POST /nope HTTP/1.1", "Expect: 100-continue\r\n" + length, false, 404},
		{"a wrong method", in.app, "PUT /echo HTTP/1.1", "Expect: 100-continue\r\n" + length, false, 405},
		{"a path that reads no body", in.app, "GET /health HTTP/1.1", "Expect: 100-continue\r\n" + length, false, 200},
		{"without the token", in.ops, "POST /readyz/enable HTTP/1.1", "Expect: 100-continue\r\n" + length, false, 401},
		{"an expectation that nobody knows", in.app, "POST /echo HTTP/1.1", "Expect: tea\r\n" + length, false, 417},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, r := dial(t, host(tc.base))
			fmt.Fprintf(conn, "%s\r\nHost: x\r\n%s\r\n", tc.line, tc.headers)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body := "hello"
			if tc.asks {
				if resp.StatusCode != 100 {
					t.Fatalf("before the body = %s, want 100", resp.Status)
				}
				if strings.Contains(tc.headers, chunks) {
					_, err = io.WriteString(conn, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
				} else {
					_, err = io.WriteString(conn, body)
				}
				if err != nil {
					t.Fatal(err)
				}
				if resp, err = http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
			}
			content, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tc.code {
				t.Fatalf("answer = %s %q, %v, want %d", resp.Status, content, err, tc.code)
			}
			if tc.asks && strings.Contains(tc.line, "/echo") && string(content) != body {
				t.Errorf("echo = %q, want %q", content, body)
			}
			// The client may send the body all the same, or the next request.
			if bodyMayFollow := !tc.asks && !strings.Contains(tc.headers, "Length: 0"); resp.Close != bodyMayFollow {
				t.Errorf("Connection: close is %v, want %v", resp.Close, bodyMayFollow)
			}
			if resp.Close {
				_, _ = io.WriteString(conn, body)
				checkNothingFollows(t, r)
				return
			}
			fmt.Fprint(conn, wholeBeginning)
			if next, err := http.ReadResponse(r, nil); err != nil || next.StatusCode != 404 {
				t.Errorf("the request that follows = %v, %v, want 404", next, err)
			}
		})
	}
	t.Run("HTTP/1.0 knows no 100", func(t *testing.T) {
		t.Parallel()
		got := halfClosed(t, host(in.app), "POST /echo HTTP/1.0\r\nExpect: 100-continue\r\n"+length+"\r\nhello")
		if !strings.HasPrefix(got, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nhello") {
			t.Errorf("answer = %q, want 200 and hello", got)
		}
	})
	t.Run("Go's client", func(t *testing.T) {
		t.Parallel()
		large := strings.Repeat("x", 1<<20)
		c := client()
		c.Transport.(*http.Transport).ExpectContinueTimeout = patience // it waits, as a strict one does
		req, err := http.NewRequest("POST", in.app+"/echo", strings.NewReader(large))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Expect", "100-continue")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if content, err := io.ReadAll(resp.Body); err != nil || string(content) != large {
			t.Errorf("POST /echo of %d bytes = %d bytes, %v", len(large), len(content), err)
		}
	})
	t.Run("curl", func(t *testing.T) {
		t.Parallel()
		if _, err := exec.LookPath("curl"); err != nil {
			t.Skip("no curl")
		}
		// It sends Expect above 1 MiB of its own, and waits for as long as it is told to.
		cmd := exec.Command("curl", "-sS", "--max-time", "20", "--expect100-timeout", "20", "-H", "Expect: 100-continue",
			"--data-binary", "@-", in.app+"/echo")
		cmd.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
		if out, err := cmd.Output(); err != nil || len(out) != 1<<20 {
			t.Errorf("curl got %d bytes, %v, want them all", len(out), err)
		}
	})
}

func TestEchoOfAMalformedBodyIsAnError(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_READ_TIMEOUT=200ms")
	for name, rest := range map[string]string{
		"a chunk without a size": "Transfer-Encoding: chunked\r\n\r\nx\r\n",
		"a body that stops":      "Content-Length: 100\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := exchangeRaw(t, host(in.app), "POST", "POST /echo HTTP/1.1\r\nHost: x\r\n"+rest)
			if resp.StatusCode != 400 || !resp.Close || body != `{"error":"bad-body","want":"a whole, well-formed body"}`+"\n" {
				t.Errorf("answer = %s %q, want 400 and the end", resp.Status, body)
			}
		})
	}
}
