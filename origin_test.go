package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// mounts are the two places of the ops paths.
var mounts = map[string]string{
	"on a listener of their own": "IMAGELAB_OPS_ADDR=127.0.0.1:0",
	"on the app listener":        "IMAGELAB_OPS_ADDR=",
}

// opsPaths are all of them, by method; those that an attacker would want.
var opsPaths = []string{
	"GET /", "GET /metrics", "GET /config", "GET /audit", "GET /snapshot", "GET /peers", "GET /events",
	"HEAD /config", "OPTIONS /config", "POST /config", "POST /readyz/disable", "POST /readyz/enable",
}

// raw sends bytes to the server at url, and returns the answer to them.
func raw(t *testing.T, url, request string) answer {
	t.Helper()
	conn, err := net.DialTimeout("tcp", strings.SplitN(strings.TrimPrefix(url, "http://"), "/", 2)[0], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %q: %v", request, err)
	}
	if resp.Header.Get("Content-Type") == "text/event-stream" { // to close the body is to read it
		return answer{code: resp.StatusCode, contentType: "text/event-stream"}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("the answer to %q breaks off: %v", request, err)
	}
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Get("Allow"), string(body)}
}

// request is one with a Host header of that value and more headers, "Name: value" each.
func request(url, method, path, host string, headers ...string) string {
	prefix := ""
	if strings.HasSuffix(url, "/-") {
		prefix = "/-"
	}
	lines := append([]string{method + " " + prefix + path + " HTTP/1.1", "Host: " + host, "Connection: close", "Accept-Encoding: gzip"}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// TestHostsOfTheOpsPaths has what the Host header may be without a token: nothing that a
// stranger can give the address of this machine.
func TestHostsOfTheOpsPaths(t *testing.T) {
	t.Parallel()
	const listed = "IMAGELAB_OPS_HOSTS=ops.example.com, *.Lab.Example.org.,"
	for mount, environ := range mounts {
		in := start(t, environ, listed)
		for _, tc := range []struct {
			name  string
			hosts []string
			code  int // of GET /config
		}{
			{"IPv4 addresses", []string{"127.0.0.1", "127.0.0.1:9000", "192.168.1.7:80", "8.8.8.8", "127.0.0.1."}, 200},
			{"IPv6 addresses", []string{"[::1]", "[::1]:9000", "::1", "[fe80::1%25eth0]:9000", "[::ffff:127.0.0.1]:9000", "[FE80::1]"}, 200},
			{"localhost", []string{"localhost", "localhost:9000", "LOCALHOST", "localhost.", "a.localhost:9000", "a.b.localhost"}, 200},
			{"names without dots", []string{"alpine", "alpine:9000", "Alpine", "imagelab_alpine_1:9000", "alpine.", "2130706433", "0x7f000001", "xn--bcher-kva"}, 200},
			{"names of a private network", []string{"nas.local", "nas.local.:9000", "host.docker.internal:9000", "imagelab.ns.svc", "imagelab.ns.svc.cluster.local:9000", "A.LOCAL"}, 200},
			{"names of the list", []string{"ops.example.com", "OPS.example.COM:9000", "ops.example.com.", "a.lab.example.org", "a.b.lab.example.org:1"}, 200},
			{"no name", []string{""}, 200},

			{"public names", []string{"evil.com", "evil.com:9000", "EVIL.COM.", "xn--bcher-kva.example"}, 421},
			{"names that begin or end like private ones", []string{
				"127.0.0.1.evil.com", "localhost.evil.com", "notlocalhost.com", "local.evil.com", "evil-local.com", "imagelab.ns.svc.evil.com", "svc.evil.com",
				"127.0.0.1.nip.io", "internal.com",
			}, 421},
			{"names beside the list", []string{"example.com", "a.ops.example.com", "lab.example.org", "evil-lab.example.org", "ops.example.com.evil.com"}, 421},
			{"what is no name", []string{
				".", "..", ".local", "a..local", "localhost..", "localhost:evil.com", "localhost:9000:1", "[::1", "[evil.com]", "[::1].evil.com",
				"evil%2ecom", "127.1", "0177.0.0.1", "127.0.0.1.1", "*", "a=b", "a,b", "127.0.0.1,evil.com", strings.Repeat("a", 64),
			}, 421},
			{"what no header may be", []string{"user:pass@localhost", "localhost@evil.com", "bücher", "evil.com/", "a b", "localhost\\", "evil。com"}, 400},
		} {
			for _, host := range tc.hosts {
				got := raw(t, in.ops, request(in.ops, "GET", "/config", host))
				if got.code != tc.code || got.code == 421 && !strings.Contains(got.body, "IMAGELAB_OPS_HOSTS") {
					t.Errorf("%s: GET /config of Host %q (%s) = %v, want %d", mount, host, tc.name, got, tc.code)
				}
			}
		}
		for _, path := range opsPaths {
			method, path, _ := strings.Cut(path, " ")
			if got := raw(t, in.ops, request(in.ops, method, path, "evil.com")); got.code != 421 || got.contentType != asJSON {
				t.Errorf("%s: %s %s of a public name = %v, want 421 as JSON", mount, method, path, got)
			}
		}
		for _, path := range []string{"GET /livez", "GET /readyz", "HEAD /readyz", "OPTIONS /readyz"} {
			method, path, _ := strings.Cut(path, " ")
			if got := raw(t, in.ops, request(in.ops, method, path, "imagelab.example.com", "Origin: http://evil.com", "Sec-Fetch-Site: cross-site")); got.code != 200 {
				t.Errorf("%s: %s %s of a public name = %v, want 200", mount, method, path, got)
			}
		}
		if got := in.metric(t, `imagelab_http_requests_rejected_total{reason="host"}`); got == "0" || got == "" {
			t.Errorf("%s: the refused are counted as %q", mount, got)
		}
	}
}

// TestRequestTargetsThatNameAHost has the forms of RFC 9112, 3.2, in which the target's
// host stands above the header's.
func TestRequestTargetsThatNameAHost(t *testing.T) {
	t.Parallel()
	for mount, environ := range mounts {
		in := start(t, environ)
		prefix := strings.TrimPrefix(in.ops, "http://"+strings.TrimPrefix(in.app, "http://"))
		if prefix != "/-" {
			prefix = ""
		}
		for request, code := range map[string]int{
			"GET http://evil.com" + prefix + "/config HTTP/1.1\r\nHost: localhost":            421,
			"GET http://localhost" + prefix + "/config HTTP/1.1\r\nHost: localhost":           200,
			"GET http://a@evil.com:80" + prefix + "/config HTTP/1.1\r\nHost: localhost":       421,
			"POST http://evil.com" + prefix + "/readyz/disable HTTP/1.1\r\nHost: localhost":   421,
			"GET " + prefix + "/config HTTP/1.0\r\nAccept: */*":                               200,
			"GET " + prefix + "/config HTTP/1.0\r\nHost: evil.com":                            421,
			"GET " + prefix + "/config HTTP/1.1\r\nAccept: */*":                               400,
			"GET " + prefix + "/config HTTP/1.1\r\nHost: localhost\r\nHost: evil.com":         400,
			"GET " + prefix + "//config HTTP/1.1\r\nHost: evil.com\r\nAccept: */*":            301, // to the path above
			"GET " + prefix + "/%63onfig HTTP/1.1\r\nHost: evil.com\r\nAccept: */*":           421,
			"GET " + prefix + "/x/../config HTTP/1.1\r\nHost: evil.com\r\nAccept: */*":        301,
			"GET " + prefix + "/config HTTP/1.1\r\nHost: evil.com\r\nX-Forwarded-Host: a":     421,
			"GET " + prefix + "/config HTTP/1.1\r\nHost: evil.com\r\nForwarded: host=a":       421,
			"GET " + prefix + "/config HTTP/1.1\r\nHost: evil.com\r\nAuthorization: Bearer x": 421,
		} {
			got := raw(t, in.ops, request+"\r\nConnection: close\r\n\r\n")
			if got.code != code && !(code == 301 && got.code == 307) {
				t.Errorf("%s: %q = %v, want %d", mount, request, got, code)
			}
		}
	}
}

// TestTheAppIsForEveryName is the app's half: it is public.
func TestTheAppIsForEveryName(t *testing.T) {
	t.Parallel()
	for mount, environ := range mounts {
		in := start(t, environ)
		for path, code := range map[string]int{"GET /": 200, "GET /health": 200, "GET /proof": 400, "GET /no/such": 404} {
			method, path, _ := strings.Cut(path, " ")
			if got := raw(t, in.app, request(in.app, method, path, "www.example.com", "Origin: https://else.where", "Sec-Fetch-Site: cross-site")); got.code != code {
				t.Errorf("%s: %s %s = %v, want %d", mount, method, path, got, code)
			}
		}
		if got := ask(t, "POST", in.app+"/store", "x", "Origin: https://else.where"); got.code != 201 {
			t.Errorf("%s: POST /store for another origin = %v, want 201", mount, got)
		}
	}
}

// TestOriginsOfTheOpsPaths sends what browsers send, new ones with Sec-Fetch-*, old ones
// and those that ask over plain http with Origin alone.
func TestOriginsOfTheOpsPaths(t *testing.T) {
	t.Parallel()
	const (
		cross, site, same, none     = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"
		noCORS, cors, visit, socket = "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Mode: cors", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Mode: websocket"
		document, iframe            = "Sec-Fetch-Dest: document", "Sec-Fetch-Dest: iframe"
		evil, own, null             = "Origin: http://evil.com", "Origin: http://localhost:9000", "Origin: null"
		upgrade                     = "Upgrade: websocket"
	)
	for mount, environ := range mounts {
		for _, tokens := range [][]string{nil, {"IMAGELAB_OPS_TOKEN=t"}} {
			in := start(t, append([]string{environ, "IMAGELAB_PEERS=dead=http://127.0.0.1:1", "IMAGELAB_PPROF=true"}, tokens...)...)
			for _, tc := range []struct {
				name    string
				headers []string
				refused string // methods and paths, with spaces between: GET is every method but POST, POST also OPTIONS
			}{
				{"curl, Prometheus and the probe", nil, ""},
				{"the page itself", []string{same, cors}, ""},
				{"the page itself in an old browser", []string{own}, ""},
				{"the address line and bookmarks", []string{none, visit, document}, ""},
				{"fetch of another site", []string{cross, cors, evil}, "GET POST"},
				{"fetch of another site without reading", []string{cross, noCORS, evil}, "GET POST"},
				{"fetch in an old browser", []string{evil}, "GET POST"},
				{"a sandboxed frame in an old browser", []string{null}, "GET POST"},
				{"fetch of another port", []string{site, noCORS, "Origin: http://localhost:1"}, "GET POST"},
				{"fetch of another port in an old browser", []string{"Origin: http://localhost:1"}, "GET POST"},
				{"fetch of another scheme", []string{site, cors, "Origin: https://localhost:9000"}, "GET POST"},
				{"an image", []string{cross, noCORS, "Sec-Fetch-Dest: image"}, "GET POST"},
				{"a script of another port", []string{site, noCORS, "Sec-Fetch-Dest: script"}, "GET POST"},
				{"a prefetch", []string{cross, noCORS, "Sec-Fetch-Dest: empty", "Sec-Purpose: prefetch"}, "GET POST"},
				{"a frame", []string{cross, visit, iframe}, "GET POST"},
				{"an embedded object", []string{cross, visit, "Sec-Fetch-Dest: object"}, "GET POST"},
				{"a form that is posted", []string{cross, visit, document, evil}, "POST GET/events GET/debug/pprof/profile?seconds=1"},
				{"a link elsewhere", []string{cross, visit, document, "Sec-Fetch-User: ?1"}, "POST GET/events GET/debug/pprof/profile?seconds=1"},
				{"a link on another port", []string{site, visit, document}, "POST GET/events GET/debug/pprof/profile?seconds=1"},
				{"an event stream", []string{cross, cors, evil, "Accept: text/event-stream"}, "GET POST"},
				{"a web socket", []string{cross, socket, evil, upgrade}, "GET POST"},
				{"a web socket in an old browser", []string{evil, upgrade}, "GET POST"},
				{"a value of Sec-Fetch-Site that is unknown", []string{"Sec-Fetch-Site: nearby"}, "GET POST"},
				{"two values of Sec-Fetch-Site", []string{cross, same}, "GET POST"},
			} {
				for _, route := range append(opsPaths, "GET /debug/pprof/", "GET /debug/pprof/profile?seconds=1") {
					method, path, _ := strings.Cut(route, " ")
					profiled := strings.Contains(path, "/debug/")
					if profiled && mount == "on the app listener" && tokens == nil {
						continue // not served
					}
					want := false
					for _, one := range strings.Fields(tc.refused) {
						want = want || one == method || one == method+path || one == "GET" && method != "POST" || method == "OPTIONS" && strings.HasPrefix(one, "POST")
					}
					if !want && (path == "/audit" || strings.Contains(path, "?")) {
						continue // it takes its time
					}
					headers := append([]string{"Authorization: Bearer t"}, tc.headers...)
					got := raw(t, in.ops, request(in.ops, method, path, "localhost:9000", headers...))
					if refused := got.code == 403; refused != want || refused && method != "HEAD" && !strings.Contains(got.body, `"cross-origin"`) || refused && got.contentType != asJSON {
						t.Errorf("%s, token %t: %s by %s = %v, want refused %t", mount, tokens != nil, route, tc.name, got, want)
					}
				}
			}
			if got := ask(t, "POST", in.ops+"/readyz/enable", "", "Authorization: Bearer t"); got.code != 200 {
				t.Errorf("%s: curl's POST /readyz/enable = %v, want 200", mount, got)
			}
			_, metrics := fetch(t, "GET", in.ops+"/metrics", "", "Authorization: Bearer t")
			if strings.Contains(metrics, `imagelab_http_requests_rejected_total{reason="origin"} 0`) {
				t.Errorf("%s: the refused are not counted", mount)
			}
		}
	}
}

// TestATokenStandsForTheName: a page of another name has no token.
func TestATokenStandsForTheName(t *testing.T) {
	t.Parallel()
	for mount, environ := range mounts {
		in := start(t, environ, "IMAGELAB_OPS_TOKEN=t")
		for headers, code := range map[string]int{"Authorization: Bearer t": 200, "Accept: */*": 401} {
			if got := raw(t, in.ops, request(in.ops, "GET", "/config", "ops.example.com", headers)); got.code != code {
				t.Errorf("%s: GET /config with %q = %v, want %d", mount, headers, got, code)
			}
		}
		if got := raw(t, in.ops, request(in.ops, "GET", "/", "ops.example.com")); got.code != 200 {
			t.Errorf("%s: GET / = %v, want the page, which asks for the token", mount, got)
		}
	}
}

func TestOpsAnswersAreOfNoUseToOtherOrigins(t *testing.T) {
	t.Parallel()
	for mount, environ := range mounts {
		in := start(t, environ)
		for _, route := range append(opsPaths, "GET /livez", "GET /readyz") {
			method, path, _ := strings.Cut(route, " ")
			switch path {
			case "/events": // which has no end
				method = "HEAD"
			case "/audit": // which takes its time
				method = "POST"
			}
			resp, _ := fetch(t, method, in.ops+path, "", "Accept-Encoding: gzip")
			if h := resp.Header; h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %s has %v", mount, route, h)
			}
		}
	}
}

func TestOpsHostsVariable(t *testing.T) {
	t.Parallel()
	for value, ok := range map[string]bool{
		"ops.example.com": true, "*.example.com": true, " a , B. ,": true, ",": true, "xn--bcher-kva.example": true, "10.0.0.1": true,
		"*": false, "*.": false, ".": false, "a.*.com": false, "http://a": false, "a:9000": false, "a/": false, "a b": false, "bücher.example": false,
		"[::1]": false, ".example.com": false, "user@a": false, "a..b": false, strings.Repeat("a.", 127) + "a": false, strings.Repeat("a", 64): false,
	} {
		_, _, err := loadConfig([]string{"IMAGELAB_OPS_HOSTS=" + value})
		if ok && err != nil || !ok && (err == nil || !strings.Contains(err.Error(), "want host names with commas between, such as ops.example.com or *.example.com")) {
			t.Errorf("IMAGELAB_OPS_HOSTS=%q: %v, want ok %t", value, err, ok)
		}
	}
}

// TestWhatIsPublicIsWarnedOf has the two ways to show more than one meant.
func TestWhatIsPublicIsWarnedOf(t *testing.T) {
	t.Parallel()
	const (
		public   = "the ops paths are public under /-/ of the app listener; set IMAGELAB_OPS_TOKEN, or IMAGELAB_OPS_ADDR for a listener of their own"
		profiles = "profiles are served without a token to everybody who reaches the ops listener; set IMAGELAB_OPS_TOKEN, or publish its port on loopback only"
	)
	for _, tc := range []struct {
		name    string
		environ []string
		warning string
		pprof   int // of GET /debug/pprof/
	}{
		{"a listener of its own", nil, "", 404},
		{"profiles on loopback", []string{"IMAGELAB_PPROF=true"}, "", 200},
		{"profiles on a name for loopback", []string{"IMAGELAB_PPROF=true", "IMAGELAB_OPS_ADDR=localhost:0"}, "", 200},
		{"profiles on all interfaces", []string{"IMAGELAB_PPROF=true", "IMAGELAB_OPS_ADDR=:0"}, profiles, 200},
		{"profiles on all interfaces with a token", []string{"IMAGELAB_PPROF=true", "IMAGELAB_OPS_ADDR=:0", "IMAGELAB_OPS_TOKEN=t"}, "", 200},
		{"under the app", []string{"IMAGELAB_OPS_ADDR="}, public, 404},
		{"profiles under the app", []string{"IMAGELAB_OPS_ADDR=", "IMAGELAB_PPROF=true"}, public, 404},
		{"under the app with a token", []string{"IMAGELAB_OPS_ADDR=", "IMAGELAB_OPS_TOKEN=t"}, "", 404},
		{"profiles under the app with a token", []string{"IMAGELAB_OPS_ADDR=", "IMAGELAB_OPS_TOKEN=t", "IMAGELAB_PPROF=true"}, "", 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := start(t, tc.environ...)
			if got := ask(t, "GET", in.ops+"/debug/pprof/", "", "Authorization: Bearer t"); got.code != tc.pprof {
				t.Errorf("GET /debug/pprof/ = %v, want %d", got, tc.pprof)
			}
			in.cancel()
			in.wait(t)
			for _, msg := range []string{public, profiles} {
				record := in.log.find(msg)
				if (record != nil) != (msg == tc.warning) {
					t.Errorf("the log says %v, want %q", record, tc.warning)
				}
				if record != nil && msg == public && record["pprof_not_served"] != strings.Contains(tc.name, "profiles") {
					t.Errorf("the log says %v", record)
				}
			}
		})
	}
}

// TestStrangersCostABoundedAmount asks for more at once than is done at once.
func TestStrangersCostABoundedAmount(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	slow := fakeOps(t, map[string]http.HandlerFunc{"/audit": func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}})
	in := startProcess(t, nil, "IMAGELAB_PEERS=slow="+slow, "IMAGELAB_PPROF=true")
	defer close(hold)
	for _, tc := range []struct {
		path, reason string
		atOnce, ok   int
	}{
		{"/peers", "peers", maxAsking + 6, maxAsking},
		{"/debug/pprof/profile?seconds=2", "profiles", 5, 1},
		{"/debug/pprof/trace?seconds=2", "profiles", 5, 1},
	} {
		var all sync.WaitGroup
		answers := make(chan string, tc.atOnce)
		for range tc.atOnce {
			all.Go(func() {
				resp, body := fetch(t, "GET", in.ops+tc.path, "")
				text := fmt.Sprint(resp.StatusCode)
				if resp.StatusCode != 200 {
					text += fmt.Sprintf(" after %s s %s", resp.Header.Get("Retry-After"), body)
				}
				answers <- text
			})
		}
		all.Wait()
		close(answers)
		served := 0
		for got := range answers {
			switch got {
			case "200":
				served++
			case fmt.Sprintf(`503 after 1 s {"error":"overloaded","want":"at most %d at a time"}`+"\n", tc.ok):
			default:
				t.Errorf("GET %s = %s", tc.path, got)
			}
		}
		if served != tc.ok {
			t.Errorf("GET %s, %d at once: %d were served, want %d", tc.path, tc.atOnce, served, tc.ok)
		}
		if got := in.metric(t, `imagelab_http_requests_rejected_total{reason="`+tc.reason+`"}`); got == "0" || got == "" {
			t.Errorf("those refused for %s are counted as %q", tc.reason, got)
		}
	}
}
