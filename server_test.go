package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// answer is what a client sees of a response.
type answer struct {
	code        int
	contentType string
	allow       string
	body        string
}

func (a answer) String() string {
	return fmt.Sprintf("%d %q allow %q body %q", a.code, a.contentType, a.allow, a.body)
}

// ask sends one request and returns what came.
func ask(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	resp, content := fetch(t, method, url, body, headers...)
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Get("Allow"), content}
}

const (
	asHTML   = "text/html; charset=utf-8"
	asJSON   = "application/json"
	ofReads  = "GET, HEAD, OPTIONS"
	notFound = `{"error":"not-found"}` + "\n"
	no405    = `{"error":"method-not-allowed","want":"GET, HEAD, OPTIONS"}` + "\n"
)

func TestContract(t *testing.T) {
	t.Parallel()
	in := start(t)
	noSecret := answer{400, asJSON, "", `{"error":"no-secret"}` + "\n"}
	for _, tc := range []struct {
		name, method, path string
		want               answer
	}{
		{"index", "GET", "/", answer{200, asHTML, "", "Hello from Docker! Rocket=Small\n"}},
		{"index with a query", "GET", "/?a=b", answer{200, asHTML, "", "Hello from Docker! Rocket=Small\n"}},
		{"index, HEAD", "HEAD", "/", answer{200, asHTML, "", ""}},
		{"index, OPTIONS", "OPTIONS", "/", answer{200, asHTML, ofReads, ""}},
		{"index, POST", "POST", "/", answer{405, asJSON, ofReads, no405}},
		{"index, DELETE", "DELETE", "/", answer{405, asJSON, ofReads, no405}},
		{"index, a method of one's own", "BREW", "/", answer{405, asJSON, ofReads, no405}},
		{"index, a method in lower case", "get", "/", answer{405, asJSON, ofReads, no405}},
		{"health, HEAD", "HEAD", "/health", answer{200, asJSON, "", ""}},
		{"health, OPTIONS", "OPTIONS", "/health", answer{200, asHTML, ofReads, ""}},
		{"health, PUT", "PUT", "/health", answer{405, asJSON, ofReads, no405}},
		{"proof", "GET", "/proof", noSecret},
		{"proof, HEAD", "HEAD", "/proof", answer{400, asJSON, "", ""}},
		{"proof, OPTIONS", "OPTIONS", "/proof", answer{200, asHTML, ofReads, ""}},
		{"proof, POST", "POST", "/proof", answer{405, asJSON, ofReads, no405}},
		{"elsewhere", "GET", "/no/such", answer{404, asJSON, "", notFound}},
		{"elsewhere, HEAD", "HEAD", "/no/such", answer{404, asJSON, "", ""}},
		{"elsewhere, POST", "POST", "/no/such", answer{404, asJSON, "", notFound}},
		{"elsewhere, OPTIONS", "OPTIONS", "/no/such", answer{404, asJSON, "", notFound}},
		{"a slash too many", "GET", "/health/", answer{404, asJSON, "", notFound}},
		{"a path in capitals", "GET", "/Health", answer{404, asJSON, "", notFound}},
		{"a path in code", "GET", "/%2e%2e/etc/passwd", answer{404, asJSON, "", notFound}},
		{"faults are off", "GET", "/panic", answer{404, asJSON, "", notFound}},
		{"ops paths are elsewhere", "GET", "/metrics", answer{404, asJSON, "", notFound}},
		{"ops paths are not mounted", "GET", "/-/livez", answer{404, asJSON, "", notFound}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := ask(t, tc.method, in.app+tc.path, ""); got != tc.want {
				t.Errorf("%s %s = %v, want %v", tc.method, tc.path, got, tc.want)
			}
		})
	}
	t.Run("health", func(t *testing.T) {
		t.Parallel()
		got := ask(t, "GET", in.app+"/health", "")
		if got.code != 200 || got.contentType != asJSON || !regexp.MustCompile(`^\{"status":"ok","uptime":\d+\.\d\d\}\n$`).MatchString(got.body) {
			t.Errorf("GET /health = %v, want 200 and an uptime of two decimals", got)
		}
	})
	t.Run("HEAD says the length of GET", func(t *testing.T) {
		t.Parallel()
		head, _ := fetch(t, "HEAD", in.app+"/", "")
		_, body := fetch(t, "GET", in.app+"/", "")
		if head.ContentLength != int64(len(body)) {
			t.Errorf("Content-Length of HEAD / = %d, want %d", head.ContentLength, len(body))
		}
	})
}

func TestRocketSize(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]string{
		"large": "Large", "empty": "", "not ASCII": "gewaltig 🚀", "markup": "<b>&amp;", "not UTF-8": "\xff", "with a percent sign": "%d%s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := answer{200, asHTML, "", "Hello from Docker! Rocket=" + size + "\n"}
			if got := ask(t, "GET", start(t, "ROCKET_SIZE="+size).app+"/", ""); got != want {
				t.Errorf("GET / = %v, want %v", got, want)
			}
		})
	}
}

func TestProof(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sign := func(secret, message string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		_, _ = io.WriteString(mac, message)
		return hex.EncodeToString(mac.Sum(nil))
	}
	// RFC 4231, test case 2, whose key is Jefe, without a colon in its message;
	// the one below is openssl's: printf me:42 | openssl dgst -sha256 -hmac key.
	if got := sign("Jefe", "what do ya want for nothing?"); got != "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" {
		t.Fatalf("the test's own HMAC = %s", got)
	}
	for _, tc := range []struct {
		name         string
		environ      []string
		login, proof string
	}{
		{"a known vector", []string{"SECRET=key", "LAB_LOGIN=me", "LAB_TOKEN=42"}, "me", "6852df4bbf805d5a75e4a9db065fafd3c562fb229d6731d658ac2c70b20e1481"},
		{"nothing but a secret", []string{"SECRET=key"}, "unknown", sign("key", "unknown:unknown")},
		{"empty login and token", []string{"SECRET=key", "LAB_LOGIN=", "LAB_TOKEN="}, "unknown", sign("key", "unknown:unknown")},
		{"a secret in a file", []string{"SECRET_FILE=" + path, "LAB_LOGIN=me"}, "me", sign("key", "me:unknown")},
		{"a secret with spaces", []string{"SECRET= k ", "LAB_TOKEN=a:b"}, "unknown", sign(" k ", "unknown:a:b")},
		{"a secret of more than a block", []string{"SECRET=" + strings.Repeat("k", 200)}, "unknown", sign(strings.Repeat("k", 200), "unknown:unknown")},
		{"not ASCII", []string{"SECRET=ключ", "LAB_LOGIN=Ядвига", "LAB_TOKEN=\U0001f511"}, "Ядвига", sign("ключ", "Ядвига:\U0001f511")},
		{"markup", []string{"SECRET=key", `LAB_LOGIN=<"&\>`}, `<"&\>`, sign("key", `<"&\>:unknown`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := start(t, tc.environ...)
			got := ask(t, "GET", in.app+"/proof", "")
			var body map[string]any
			if err := json.Unmarshal([]byte(got.body), &body); err != nil {
				t.Fatalf("GET /proof = %v: %v", got, err)
			}
			want := map[string]any{"login": tc.login, "ok": true, "proof": tc.proof}
			if got.code != 200 || got.contentType != asJSON || !reflect.DeepEqual(body, want) {
				t.Errorf("GET /proof = %v, want 200 %v", got, want)
			}
			if got := ask(t, "HEAD", in.app+"/proof", ""); got != (answer{200, asJSON, "", ""}) {
				t.Errorf("HEAD /proof = %v", got)
			}
		})
	}
	t.Run("an empty secret is none", func(t *testing.T) {
		t.Parallel()
		if got := ask(t, "GET", start(t, "SECRET=").app+"/proof", ""); got.code != 400 || got.body != `{"error":"no-secret"}`+"\n" {
			t.Errorf("GET /proof = %v, want 400 no-secret", got)
		}
	})
}

// startFlask runs the service that imagelab replaces, and returns its base URL.
func startFlask(t *testing.T, environ ...string) string {
	t.Helper()
	python := ""
	for _, candidate := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(candidate, "-c", "import flask").Run() == nil {
			python = candidate
			break
		}
	}
	if python == "" {
		t.Skip("no Flask to compare with: apt-get install python3-flask")
	}
	cmd := exec.Command(python, "examples/gunicorn/app.py")
	cmd.Env = append(environ, "PATH="+os.Getenv("PATH"), "PYTHONUTF8=1")
	log := &logBuffer{}
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(3*patience, func() { _ = cmd.Process.Kill() })
	defer overdue.Stop()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("Flask does not start: %v\n%s", err, log)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(port)
}

func TestAClientCannotTellItFromFlask(t *testing.T) {
	t.Parallel()
	paths := []string{"/", "/?a=b", "/health", "/proof", "/no/such", "/health/", "/Health"}
	methods := []string{"GET", "HEAD", "OPTIONS", "POST", "DELETE", "BREW"}
	for name, environ := range map[string][]string{
		"as it is":   {},
		"configured": {"ROCKET_SIZE=Large", "SECRET=key", "LAB_LOGIN=me", "LAB_TOKEN=42"},
		"empty":      {"ROCKET_SIZE=", "SECRET=", "LAB_LOGIN=", "LAB_TOKEN="},
		"not ASCII":  {"ROCKET_SIZE=gewaltig 🚀 <&>", "SECRET=ключ", "LAB_LOGIN=", "LAB_TOKEN=\U0001f511<\"&\\>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flask, in := startFlask(t, environ...), start(t, environ...)
			paths, methods := paths, methods
			if len(environ) > 0 { // the rest does not depend on them
				paths, methods = []string{"/", "/proof"}, []string{"GET", "HEAD"}
			}
			for _, path := range paths {
				for _, method := range methods {
					got, want := reliedOn(t, ask(t, method, in.app+path, "")), reliedOn(t, ask(t, method, flask+path, ""))
					if !reflect.DeepEqual(got, want) {
						t.Errorf("%s %s = %v, Flask %v", method, path, got, want)
					}
				}
			}
		})
	}
}

// reliedOn reduces an answer to what clients of the service may rely on: not
// the order of keys and methods, nor how an error is worded.
func reliedOn(t *testing.T, a answer) map[string]any {
	t.Helper()
	allow := strings.Split(a.allow, ", ")
	slices.Sort(allow)
	all := map[string]any{"code": a.code, "allow": allow}
	if a.code == http.StatusNotFound || a.code == http.StatusMethodNotAllowed {
		return all
	}
	all["type"], all["body"] = a.contentType, a.body
	if a.contentType == asJSON && a.body != "" {
		var body map[string]any
		if err := json.Unmarshal([]byte(a.body), &body); err != nil {
			t.Errorf("body %q: %v", a.body, err)
		}
		if _, isNumber := body["uptime"].(float64); isNumber {
			body["uptime"] = "a number"
		}
		all["body"] = body
	}
	return all
}

func TestOpsPaths(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string][]string{
		"on a listener of their own": {},
		"on the app listener":        {"IMAGELAB_OPS_ADDR="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, environ...)
			if separate := in.ops != in.app+"/-"; separate != (len(environ) == 0) {
				t.Errorf("ops paths are at %s", in.ops)
			}
			for _, step := range []struct {
				method, path string
				want         answer
			}{
				{"GET", "/livez", answer{200, asJSON, "", `{"status":"alive"}` + "\n"}},
				{"HEAD", "/livez", answer{200, asJSON, "", ""}},
				{"GET", "/readyz", answer{200, asJSON, "", `{"status":"ready"}` + "\n"}},
				{"GET", "/readyz/disable", answer{405, asJSON, "OPTIONS, POST", `{"error":"method-not-allowed","want":"OPTIONS, POST"}` + "\n"}},
				{"HEAD", "/readyz/disable", answer{405, asJSON, "OPTIONS, POST", ""}},
				{"GET", "/readyz/enable", answer{405, asJSON, "OPTIONS, POST", `{"error":"method-not-allowed","want":"OPTIONS, POST"}` + "\n"}},
				{"GET", "/readyz", answer{200, asJSON, "", `{"status":"ready"}` + "\n"}},
				{"POST", "/readyz/disable", answer{503, asJSON, "", `{"status":"disabled"}` + "\n"}},
				{"POST", "/readyz/disable", answer{503, asJSON, "", `{"status":"disabled"}` + "\n"}},
				{"GET", "/readyz", answer{503, asJSON, "", `{"status":"disabled"}` + "\n"}},
				{"GET", "/livez", answer{200, asJSON, "", `{"status":"alive"}` + "\n"}},
				{"POST", "/readyz/enable", answer{200, asJSON, "", `{"status":"ready"}` + "\n"}},
				{"GET", "/readyz", answer{200, asJSON, "", `{"status":"ready"}` + "\n"}},
				{"POST", "/readyz", answer{405, asJSON, ofReads, no405}},
				{"POST", "/metrics", answer{405, asJSON, ofReads, no405}},
				{"DELETE", "/config", answer{405, asJSON, ofReads, no405}},
				{"GET", "/debug/pprof/", answer{404, asJSON, "", notFound}},
				{"GET", "/no/such", answer{404, asJSON, "", notFound}},
			} {
				if got := ask(t, step.method, in.ops+step.path, ""); got != step.want {
					t.Errorf("%s %s = %v, want %v", step.method, step.path, got, step.want)
				}
			}
			// A process that is closed by hand is not ill.
			ask(t, "POST", in.ops+"/readyz/disable", "")
			if got := ask(t, "GET", in.app+"/health", ""); got.code != 200 {
				t.Errorf("disabled: GET /health = %v, want 200", got)
			}
			if got := in.metric(t, `imagelab_state{state="disabled"}`); got != "1" {
				t.Errorf("disabled: imagelab_state = %q, want 1", got)
			}
		})
	}
}

// TestOptionsHasTheStatusOfGet is for balancers such as haproxy, whose plain httpchk sends OPTIONS.
func TestOptionsHasTheStatusOfGet(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]string{
		"on a listener of their own": "IMAGELAB_OPS_ADDR=127.0.0.1:0",
		"on the app listener":        "IMAGELAB_OPS_ADDR=",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, environ, "IMAGELAB_DRAIN_DELAY=2s")
			check := func(state string, health, readyz int) {
				t.Helper()
				for url, code := range map[string]int{in.app + "/health": health, in.ops + "/readyz": readyz} {
					if got := ask(t, "GET", url, ""); got.code != code {
						t.Errorf("%s: GET %s = %v, want %d", state, url, got, code)
					}
					want := answer{code, asHTML, ofReads, ""}
					if got := ask(t, "OPTIONS", url, ""); got != want {
						t.Errorf("%s: OPTIONS %s = %v, want %v", state, url, got, want)
					}
				}
			}
			check("ready", 200, 200)
			ask(t, "POST", in.ops+"/readyz/disable", "")
			check("disabled", 200, 503)
			ask(t, "POST", in.ops+"/readyz/enable", "")
			check("enabled", 200, 200)
			in.cancel()
			eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
			check("draining", 503, 503)
		})
	}
}

func TestOpsToken(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string][]string{
		"on a listener of their own": {},
		"on the app listener":        {"IMAGELAB_OPS_ADDR="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, append(environ, "IMAGELAB_OPS_TOKEN=to ken", "IMAGELAB_PPROF=true")...)
			guarded := []string{"GET /metrics", "GET /config", "POST /readyz/disable", "POST /readyz/enable", "GET /debug/pprof/", "GET /debug/pprof/heap?debug=1", "GET /debug/pprof/profile?seconds=0", "GET /debug/pprof/trace?seconds=0", "GET /debug/pprof/no-such"}
			for _, tc := range []struct {
				name   string
				header []string
				ok     bool
			}{
				{"none", nil, false},
				{"right", []string{"Authorization: Bearer to ken"}, true},
				{"scheme in lower case", []string{"Authorization: bearer to ken"}, true},
				{"scheme in capitals", []string{"Authorization: BEARER to ken"}, true},
				{"another scheme", []string{"Authorization: Basic to ken"}, false},
				{"no scheme", []string{"Authorization: to ken"}, false},
				{"empty", []string{"Authorization: Bearer "}, false},
				{"wrong", []string{"Authorization: Bearer to kem"}, false},
				{"in capitals", []string{"Authorization: Bearer TO KEN"}, false},
				{"too short", []string{"Authorization: Bearer to ke"}, false},
				{"too long", []string{"Authorization: Bearer to kenn"}, false},
				{"in another header", []string{"X-Token: to ken"}, false},
			} {
				for _, route := range guarded {
					method, path, _ := strings.Cut(route, " ")
					resp, body := fetch(t, method, in.ops+path, "", tc.header...)
					if tc.ok && resp.StatusCode == 401 || !tc.ok && (resp.StatusCode != 401 || !strings.Contains(body, `"unauthorized"`) || resp.Header.Get("WWW-Authenticate") != `Bearer realm="imagelab"`) {
						t.Errorf("token %s: %s = %d %q, want ok %t", tc.name, route, resp.StatusCode, body, tc.ok)
					}
				}
			}
			for _, path := range []string{"/livez", "/readyz"} {
				if got := ask(t, "GET", in.ops+path, ""); got.code == 401 {
					t.Errorf("GET %s without a token = %v", path, got)
				}
			}
			if got := ask(t, "GET", in.app+"/health", ""); got.code != 200 {
				t.Errorf("GET /health without a token = %v", got)
			}
		})
	}
}

func TestPprof(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string][]string{
		"on a listener of their own": {},
		"on the app listener":        {"IMAGELAB_OPS_ADDR=", "IMAGELAB_OPS_TOKEN=t"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A recording takes longer than a request may take to arrive, and there
			// is one at a time in a process.
			in := startProcess(t, nil, append(environ, "IMAGELAB_PPROF=true", "IMAGELAB_READ_TIMEOUT=200ms")...)
			for _, tc := range []struct {
				path string
				code int
				body string // how it begins
			}{
				{"/", 200, "profile?seconds=30\n"},
				{"/goroutine?debug=1", 200, "goroutine profile: total "},
				{"/heap", 200, "\x1f\x8b"}, // gzip
				{"/trace?seconds=1", 200, "go 1."},
				{"/profile?seconds=1", 200, "\x1f\x8b"},
				{"/profile?seconds=0", 400, `{"error":"bad-seconds"`},
				{"/profile?seconds=601", 400, `{"error":"bad-seconds"`},
				{"/trace?seconds=long", 400, `{"error":"bad-seconds"`},
				{"/no-such", 404, notFound},
				{"/no/such", 404, notFound},
			} {
				began := time.Now()
				got := ask(t, "GET", in.ops+"/debug/pprof"+tc.path, "", "Authorization: Bearer t")
				if got.code != tc.code || !strings.HasPrefix(got.body, tc.body) {
					t.Errorf("GET /debug/pprof%s = %d %.200q, want %d %q", tc.path, got.code, got.body, tc.code, tc.body)
				}
				if took := time.Since(began); tc.code == 200 && strings.Contains(tc.path, "seconds=1") && took < time.Second {
					t.Errorf("GET /debug/pprof%s took %v, want the second asked for", tc.path, took)
				}
			}
		})
	}
}

func TestOverloadIsRefusedButHealthAnswers(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string][]string{
		"with an ops listener": {},
		"with one listener":    {"IMAGELAB_OPS_ADDR="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, append(environ, "IMAGELAB_MAX_IN_FLIGHT=2", "IMAGELAB_FAULTS=true")...)
			eventually(t, "overload", func() bool {
				// Where there is one listener, asking for metrics takes a place too,
				// and a request may meet it.
				conn, _ := dial(t, host(in.app))
				fmt.Fprint(conn, "GET /delay/10m HTTP/1.1\r\nHost: x\r\n\r\n")
				return in.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "2"
			})
			for _, path := range []string{"/", "/proof", "/no/such"} {
				resp, body := fetch(t, "GET", in.app+path, "")
				if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || !strings.Contains(body, `"overloaded"`) {
					t.Errorf("overloaded: GET %s = %d %v %q, want 503 with Retry-After", path, resp.StatusCode, resp.Header, body)
				}
			}
			for _, url := range []string{in.app + "/health", in.ops + "/livez", in.ops + "/readyz", in.ops + "/metrics"} {
				if got := ask(t, "GET", url, ""); got.code != 200 {
					t.Errorf("overloaded: GET %s = %v, want 200", url, got)
				}
			}
			if got, _ := strconv.Atoi(in.metric(t, `imagelab_http_requests_rejected_total{reason="in_flight"}`)); got < 3 {
				t.Errorf("rejected = %d, want 3 and those before", got)
			}
		})
	}
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	in := start(t)
	for name, tc := range map[string]struct {
		size, code int
	}{"small enough": {15 << 10, 200}, "too large": {21 << 10, 431}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := ask(t, "GET", in.app+"/", "", "X: "+strings.Repeat("x", tc.size)); got.code != tc.code {
				t.Errorf("GET / with a header of %d bytes = %v, want %d", tc.size, got, tc.code)
			}
		})
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{"errors": "500", "all": "200 404 500", "off": ""} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			in := start(t, "IMAGELAB_ACCESS_LOG="+mode, "IMAGELAB_FAULTS=true")
			for _, path := range []string{"/", "/no/such", "/status/500"} {
				ask(t, "GET", in.app+path+"?secret", "")
			}
			in.cancel()
			in.wait(t)
			var codes []string
			for line := range strings.Lines(in.log.String()) {
				var record struct {
					Msg, Path string
					Status    int
				}
				if err := json.Unmarshal([]byte(line), &record); err != nil {
					t.Errorf("log line %q: %v", line, err)
				}
				if record.Msg == "request" {
					codes = append(codes, fmt.Sprint(record.Status))
				}
			}
			if got := strings.Join(codes, " "); got != want || strings.Contains(in.log.String(), "?secret") {
				t.Errorf("logged requests = %q, want %q and no query; log:\n%s", got, want, in.log)
			}
		})
	}
}

func TestClientsCannotFloodTheLog(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	count := func() (lines, heldBack int) {
		for line := range strings.Lines(in.log.String()) {
			var record struct {
				Msg      string
				HeldBack int `json:"held_back"`
			}
			if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "request" {
				lines++
				heldBack += record.HeldBack
			}
		}
		return lines, heldBack
	}
	sent := 0
	for ; sent < 500; sent++ {
		ask(t, "GET", in.app+"/status/500", "")
	}
	eventually(t, "count of those that were held back", func() bool {
		lines, heldBack := count()
		if heldBack > 0 && lines+heldBack == sent {
			return true
		}
		ask(t, "GET", in.app+"/status/500", "")
		sent++
		time.Sleep(100 * time.Millisecond) // for the log to be written
		return false
	})
	if lines, _ := count(); lines > sent/2 {
		t.Errorf("%d of %d failures were logged", lines, sent)
	}
}
