package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A visit is how a test gets to one route.
type visit struct {
	path string
	get  int // the status of GET; 0 where there is only POST
	post int // the status of POST with a body; 0 where there is none
}

// appVisits and opsVisits have every route that can be turned on, by its pattern.
var (
	appVisits = map[string]visit{
		"/{$}":               {path: "/", get: 200},
		"/health":            {path: "/health", get: 200},
		"/proof":             {path: "/proof", get: 400},
		"/store":             {path: "/store", post: 201},
		"/store/{sha256}":    {path: "/store/" + strings.Repeat("a", 64), get: 404},
		"/delay/{duration}":  {path: "/delay/0s", get: 200},
		"/status/{code}":     {path: "/status/418", get: 418},
		"/panic":             {path: "/panic", get: 500},
		"/stream/{duration}": {path: "/stream/0s", get: 200},
		"/headers":           {path: "/headers", get: 200},
		"/echo":              {path: "/echo", post: 200},
		"unmatched":          {path: "/no/such", get: 404},
	}
	opsVisits = map[string]visit{
		"/livez":               {path: "/livez", get: 200},
		"/readyz":              {path: "/readyz", get: 200},
		"/readyz/disable":      {path: "/readyz/disable", post: 503},
		"/readyz/enable":       {path: "/readyz/enable", post: 200},
		"/metrics":             {path: "/metrics", get: 200},
		"/audit":               {path: "/audit", get: 404},
		"/config":              {path: "/config", get: 200},
		"/events":              {path: "/events", get: 200},
		"/last":                {path: "/last", get: 200}, // at the end of the drain
		"/snapshot":            {path: "/snapshot", get: 200},
		"/plain":               {path: "/plain", get: 200},
		"/peers":               {path: "/peers", get: 200},
		"/debug/pprof/{$}":     {path: "/debug/pprof/", get: 200},
		"/debug/pprof/{name}":  {path: "/debug/pprof/heap", get: 200},
		"/debug/pprof/profile": {path: "/debug/pprof/profile?seconds=1", get: 200},
		"/debug/pprof/trace":   {path: "/debug/pprof/trace?seconds=1", get: 200},
		"/{$}":                 {path: "/", get: 200},
		"/assets/{name}":       {get: 200},
		"unmatched":            {path: "/no/such", get: 404},
	}
)

// visits are those of all routes that the server of that name has.
func (in *instance) visits(t *testing.T, server string) map[string]visit {
	t.Helper()
	known := appVisits
	if server == "ops" {
		known = opsVisits
	}
	_, exposition := fetch(t, "GET", in.ops+"/metrics", "")
	gauge := regexp.MustCompile(`\nimagelab_http_requests_in_flight\{route="([^"]+)",server="` + server + `"\}`)
	all := map[string]visit{}
	for _, match := range gauge.FindAllStringSubmatch(exposition, -1) {
		v, ok := known[match[1]]
		if !ok {
			t.Fatalf("no visit for the route %q of %s: want one in this file", match[1], server)
		}
		if match[1] == "/assets/{name}" { // whose name changes with its content
			style, err := filepath.Glob("web/dist/style.*.css.gz")
			if err != nil || len(style) != 1 {
				t.Fatalf("style sheets of the page: %q, %v", style, err)
			}
			v.path = "/assets/" + strings.TrimSuffix(filepath.Base(style[0]), ".gz")
		}
		all[match[1]] = v
	}
	if len(all) < len(known) {
		t.Fatalf("%s has %d routes, want all %d that there are", server, len(all), len(known))
	}
	return all
}

// exchangeRaw sends a request as it is, and returns the answer with what of its body came.
// A stream is left after its header.
func exchangeRaw(t *testing.T, addr, method, request string) (*http.Response, string) {
	t.Helper()
	conn, r := dial(t, addr)
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	if resp.Header.Get("Content-Type") == "text/event-stream" && method != "HEAD" {
		return resp, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	if method == "HEAD" && resp.Close {
		rest, _ := io.ReadAll(r)
		body = append(body, rest...)
	}
	return resp, string(body)
}

func TestEveryRouteByEveryMethod(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_FAULTS=true", "IMAGELAB_PPROF=true")
	for server, base := range map[string]string{"app": in.app, "ops": in.ops} {
		for pattern, v := range in.visits(t, server) {
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "BREW", "get"} {
				if pattern == "/last" && method == "GET" {
					continue
				}
				for _, body := range []string{"", "hello"} {
					name := fmt.Sprintf("%s %s %s with %d bytes", server, method, pattern, len(body))
					length := ""
					if body != "" || method == "POST" {
						length = fmt.Sprintf("Content-Length: %d\r\n", len(body))
					}
					request := method + " " + v.path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + length + "\r\n" + body
					resp, content := exchangeRaw(t, host(base), method, request)
					v.check(t, name, method, pattern, body, resp, content)
					if pattern == "/readyz/disable" && method == "POST" {
						fetch(t, "POST", base+"/readyz/enable", "") // for those that are asked next
					}
					if method == "HEAD" && v.get != 0 && pattern != "/last" {
						get, _ := exchangeRaw(t, host(base), "GET", "GET"+strings.TrimPrefix(request, "HEAD"))
						if pattern == "/health" { // whose uptime gets longer
							resp.Header.Del("Content-Length")
						}
						t.Run(name, func(t *testing.T) { checkHeadIsGet(t, resp, get) })
					}
				}
			}
		}
	}
	if got := in.log.find("panic in a handler, its request was answered 500 or cut", "route", "/health"); got != nil {
		t.Errorf("a handler panicked: %v", got)
	}
}

// check is what holds for each answer of the route.
func (v visit) check(t *testing.T, name, method, pattern, body string, resp *http.Response, content string) {
	t.Helper()
	want, allowed := v.get, []string{"GET", "HEAD", "OPTIONS"}
	switch {
	case pattern == "unmatched":
		allowed = nil
	case pattern == "/store/{sha256}":
		allowed = append(allowed, "DELETE") // of nothing: 404 as well
	case v.get == 0:
		allowed = []string{"OPTIONS", "POST"}
	}
	slices.Sort(allowed)
	switch {
	case allowed == nil:
	case !slices.Contains(allowed, method):
		want = 405
	case method == "OPTIONS":
		want = 200
	case method == "POST":
		want = v.post
	}
	if resp.StatusCode != want && (want != 201 || resp.StatusCode != 200) {
		t.Errorf("%s = %d %.100q, want %d", name, resp.StatusCode, content, want)
	}
	if allow := strings.Join(allowed, ", "); (want == 405 || method == "OPTIONS" && allowed != nil) && resp.Header.Get("Allow") != allow {
		t.Errorf("%s: Allow = %q, want %q", name, resp.Header.Get("Allow"), allow)
	}
	switch {
	case method == "HEAD":
		if content != "" {
			t.Errorf("%s has the body %.100q", name, content)
		}
	case resp.StatusCode >= 400 && pattern != "/readyz/disable":
		var problem struct{ Error string }
		isError := json.Unmarshal([]byte(content), &problem) == nil && (problem.Error != "" || pattern == "/status/{code}")
		if resp.Header.Get("Content-Type") != asJSON || !isError {
			t.Errorf("%s = %s %q, want an error as JSON", name, resp.Header.Get("Content-Type"), content)
		}
	}
}

func TestHeadAndOptionsDoNothing(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	peer := fakeOps(t, map[string]http.HandlerFunc{"/": func(http.ResponseWriter, *http.Request) { asked.Add(1) }})
	in := startProcess(t, nil, "IMAGELAB_FAULTS=true", "IMAGELAB_PPROF=true", "IMAGELAB_PEERS=other="+peer)
	recording, _ := dial(t, host(in.ops))
	fmt.Fprint(recording, "GET /debug/pprof/profile?seconds=600 HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "recording", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="/debug/pprof/profile",server="ops"}`) == "1"
	})
	for _, url := range []string{
		in.app + "/delay/10m", in.app + "/stream/10m", in.app + "/panic", in.ops + "/events", in.ops + "/peers",
		in.ops + "/snapshot", in.ops + "/debug/pprof/profile?seconds=600", in.ops + "/debug/pprof/trace?seconds=600",
		in.ops + "/readyz/disable", in.ops + "/readyz/enable",
	} {
		want := map[bool]int{true: 500, false: 200}[strings.HasSuffix(url, "/panic")]
		if strings.Contains(url, "/readyz/") {
			want = 405
		}
		if got := ask(t, "HEAD", url, ""); got.code != want || got.body != "" {
			t.Errorf("HEAD %s = %v, want %d at once", url, got, want)
		}
		if got := ask(t, "OPTIONS", url, ""); got.code != 200 || got.allow == "" {
			t.Errorf("OPTIONS %s = %v, want 200 and what is allowed", url, got)
		}
	}
	if got := in.metric(t, "imagelab_http_panics_total"); got != "0" {
		t.Errorf("HEAD /panic counted %s panics, want 0", got)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("HEAD asked the peers %d times, want none", n)
	}
	if got := ask(t, "GET", in.ops+"/readyz", ""); got.code != 200 {
		t.Errorf("GET /readyz afterwards = %v, want 200", got)
	}
	if got := ask(t, "GET", in.ops+"/debug/pprof/profile?seconds=600", ""); got.code != 503 {
		t.Errorf("a second recording = %v, want 503", got)
	}
}

func TestHeadTakesNoViewersPlace(t *testing.T) {
	t.Parallel()
	e, addr := serveEvents(t, Config{ReadTimeout: patience, WriteTimeout: patience})
	head := func() int {
		resp, _ := fetch(t, "HEAD", "http://"+addr+"/events", "")
		return resp.StatusCode
	}
	for range maxViewers - 1 {
		watchEvents(t, "http://"+addr+"/events").next()
	}
	if got := head(); got != 200 || e.viewers.Load() != maxViewers-1 {
		t.Errorf("HEAD /events beside %d viewers = %d, %d viewers, want 200 and no more", maxViewers-1, got, e.viewers.Load())
	}
	watchEvents(t, "http://"+addr+"/events").next()
	if got := head(); got != 503 || e.viewers.Load() != maxViewers {
		t.Errorf("HEAD /events beside %d viewers = %d, %d viewers, want 503 as GET", maxViewers, got, e.viewers.Load())
	}
}

// halfClosed sends a request, says that no more will come, and returns all that does.
func halfClosed(t *testing.T, addr, request string) string {
	t.Helper()
	conn, r := dial(t, addr)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%.60q, half-closed: %v after %q", request, err, all)
	}
	return string(all)
}

func TestHalfClosedClientsGetTheirAnswer(t *testing.T) {
	t.Parallel()
	silent := fakeOps(t, map[string]http.HandlerFunc{"/": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }})
	in := startProcess(t, nil, "IMAGELAB_FAULTS=true", "IMAGELAB_PPROF=true", "IMAGELAB_PEERS=slow="+silent)
	fetch(t, "POST", in.app+"/store", "half-closed") // whose status is 200 from then on
	type request struct{ addr, method, path, body string }
	requests := map[string]request{
		"a delay":                  {host(in.app), "GET", "/delay/1s", ""},
		"a stream":                 {host(in.app), "GET", "/stream/1s", ""},
		"an upload":                {host(in.app), "POST", "/store", "half-closed"},
		"an echo":                  {host(in.app), "POST", "/echo", "half-closed"},
		"an echo of nothing":       {host(in.app), "POST", "/echo", ""},
		"OPTIONS":                  {host(in.app), "OPTIONS", "/proof", ""},
		"OPTIONS of all":           {host(in.app), "OPTIONS", "*", ""},
		"HEAD":                     {host(in.app), "HEAD", "/stream/1s", ""},
		"peers, one of them slow":  {host(in.ops), "GET", "/peers", ""},
		"a recording of a second":  {host(in.ops), "GET", "/debug/pprof/trace?seconds=1", ""},
		"the page":                 {host(in.ops), "GET", "/", ""},
		"the viewers' place, HEAD": {host(in.ops), "HEAD", "/events", ""},
	}
	for server, base := range map[string]string{"app": in.app, "ops": in.ops} {
		for pattern, v := range in.visits(t, server) {
			switch {
			case v.path == "/events", v.path == "/last": // which do not end
			// There is one recording at a time, which is above.
			case v.get != 0 && !strings.Contains(v.path, "/trace") && !strings.Contains(v.path, "/profile"):
				requests[server+" GET "+pattern] = request{host(base), "GET", v.path, ""}
			case v.post == 200:
				requests[server+" POST "+pattern] = request{host(base), "POST", v.path, "x"}
			}
		}
	}
	for name, req := range requests {
		for _, version := range []string{"1.1", "1.0"} {
			if version == "1.0" && strings.Contains(req.path, "seconds=") {
				continue
			}
			t.Run(name+" by HTTP/"+version, func(t *testing.T) {
				t.Parallel()
				text := fmt.Sprintf("%s %s HTTP/%s\r\nHost: x\r\n", req.method, req.path, version)
				if req.method == "POST" {
					text += fmt.Sprintf("Content-Length: %d\r\n", len(req.body))
				}
				text += "\r\n" + req.body
				began := time.Now()
				got := halfClosed(t, req.addr, text)
				took := time.Since(began)
				want, body := exchangeRaw(t, req.addr, req.method, text)
				head, content, _ := strings.Cut(got, "\r\n\r\n")
				if line, _, _ := strings.Cut(head, "\r\n"); line != fmt.Sprintf("HTTP/%s %s", version, want.Status) {
					t.Errorf("half-closed it gets %q, otherwise %q", line, want.Status)
				}
				if (content == "") != (body == "") {
					t.Errorf("half-closed it gets %d bytes, otherwise %d", len(content), len(body))
				}
				if req.path == "/peers" && content != body {
					t.Errorf("half-closed it gets %q, otherwise %q", content, body)
				}
				lasts := strings.HasSuffix(req.path, "/1s") || strings.HasSuffix(req.path, "seconds=1")
				if lasts && req.method == "GET" && took < time.Second {
					t.Errorf("the answer came after %v, want the second asked for", took)
				}
			})
		}
	}
	t.Run("events", func(t *testing.T) {
		t.Parallel()
		conn, r := dial(t, host(in.ops))
		fmt.Fprint(conn, "GET /events HTTP/1.0\r\n\r\n")
		_ = conn.(*net.TCPConn).CloseWrite()
		for frames := 0; frames < 3; {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("after %d frames: %v", frames, err)
			}
			if strings.HasPrefix(line, "data: ") {
				frames++
			}
		}
	})
}

// A client that has gone is not waited for: what it asked for makes room for others.
func TestClientsThatHaveGoneHoldNothing(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_FAULTS=true", "IMAGELAB_PPROF=true")
	for _, tc := range []struct {
		name, base, path, route string
		reset                   bool
	}{
		{"a reset delay", in.app, "/delay/10m", `{route="/delay/{duration}",server="app"}`, true},
		{"a reset stream", in.app, "/stream/10m", `{route="/stream/{duration}",server="app"}`, true},
		{"a stream", in.app, "/stream/10m", `{route="/stream/{duration}",server="app"}`, false},
		{"events", in.ops, "/events", `{route="/events",server="ops"}`, false},
		{"a profile", in.ops, "/debug/pprof/profile?seconds=600", `{route="/debug/pprof/profile",server="ops"}`, false},
		{"a trace", in.ops, "/debug/pprof/trace?seconds=600", `{route="/debug/pprof/trace",server="ops"}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inFlight := func() string { return in.metric(t, "imagelab_http_requests_in_flight"+tc.route) }
			conn, _ := dial(t, host(tc.base))
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", tc.path)
			eventually(t, "request in flight", func() bool { return inFlight() == "1" })
			if tc.reset {
				_ = conn.(*net.TCPConn).SetLinger(0)
			}
			conn.Close()
			eventually(t, "end of what nobody waits for", func() bool { return inFlight() == "0" })
		})
	}
}

func TestHandlerThatGivesUpMakesNothingUp(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.handle("/gives-up", always, get(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	if got := halfClosed(t, s.ln.Addr().String(), "GET /gives-up HTTP/1.1\r\nHost: x\r\n\r\n"); got != "" {
		t.Errorf("GET /gives-up = %q, want nothing at all", got)
	}
}

func TestStopAnswersHalfClosedClientsAtOnce(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_SHUTDOWN_TIMEOUT=1h")
	conn, r := dial(t, host(in.app))
	fmt.Fprint(conn, "GET /delay/10m HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = conn.(*net.TCPConn).CloseWrite()
	eventually(t, "request in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
	})
	in.cancel()
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 503 {
		t.Errorf("GET /delay/10m = %v, %v, want 503", resp, err)
	}
	if code := in.wait(t); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}
