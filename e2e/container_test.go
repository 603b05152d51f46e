package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestHealthcheckFollowsTheProcess(t *testing.T) {
	t.Parallel()
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			// The probe is the image's own; only its schedule is shorter.
			c := start(t, variant, "--health-interval=1s", "--health-timeout=2s", "--health-retries=2")
			c.awaitHealth(t, "healthy")
			c.signal(t, syscall.SIGSTOP)
			c.awaitHealth(t, "unhealthy")
			c.signal(t, syscall.SIGCONT)
			c.awaitHealth(t, "healthy")
		})
	}
}

func TestEnvironmentAloneConfigures(t *testing.T) {
	t.Parallel()
	const secret, login, token = "of this test", "someone", "t-1"
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(login + ":" + token))
	proof := fmt.Sprintf(`{"login":%q,"ok":true,"proof":%q}`+"\n", login, hex.EncodeToString(mac.Sum(nil)))
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			for _, tc := range []struct {
				name            string
				options         []string
				hello, proof    string
				proofStatusCode int
			}{
				{"nothing set", nil, "Hello from Docker! Rocket=Medium\n", `{"error":"no-secret"}` + "\n", 400},
				{"everything set", []string{"-e", "ROCKET_SIZE=Huge", "-e", "SECRET=" + secret, "-e", "LAB_LOGIN=" + login, "-e", "LAB_TOKEN=" + token},
					"Hello from Docker! Rocket=Huge\n", proof, 200},
			} {
				c := start(t, variant, tc.options...)
				if resp, body := fetch(t, "GET", c.app+"/", ""); resp.StatusCode != 200 || body != tc.hello {
					t.Errorf("%s: GET / = %d %q, want 200 %q", tc.name, resp.StatusCode, body, tc.hello)
				}
				if resp, body := fetch(t, "GET", c.app+"/proof", ""); resp.StatusCode != tc.proofStatusCode || body != tc.proof {
					t.Errorf("%s: GET /proof = %d %q, want %d %q", tc.name, resp.StatusCode, body, tc.proofStatusCode, tc.proof)
				}
			}
		})
	}
}

func TestAnyUserAndNothingWritable(t *testing.T) {
	t.Parallel()
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			c := start(t, variant, "--user", "12345:12345", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
			c.awaitHealth(t, "healthy")
			if got, want := c.status(t)["Uid"], "12345 12345 12345 12345"; got != want {
				t.Errorf("Uid = %s, want %s", got, want)
			}
			for _, tc := range []struct {
				method, url string
				code        int
				body        string
			}{
				{"GET", c.app + "/", 200, "Hello"},
				{"GET", c.app + "/health", 200, `{"status":"ok"`},
				{"GET", c.ops + "/readyz", 200, `{"status":"ready"`},
				{"GET", c.ops + "/metrics", 200, "# HELP"},
				{"POST", c.app + "/store", 507, `{"error":"store-unavailable"`},
			} {
				if resp, body := fetch(t, tc.method, tc.url, "x"); resp.StatusCode != tc.code || !strings.HasPrefix(body, tc.body) {
					t.Errorf("%s %s = %d %q, want %d %q", tc.method, tc.url, resp.StatusCode, body, tc.code, tc.body)
				}
			}
		})
	}
}

func TestStoppedContainerStartsAgain(t *testing.T) {
	t.Parallel()
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			c := start(t, variant, hardened...)
			for round := range 3 {
				if round > 0 {
					docker(t, "stop", c.name)
					if got := c.exitCode(t); got != 0 {
						t.Errorf("exit code = %d, want 0", got)
					}
					docker(t, "start", c.name)
					c.await(t)
				}
				// The tmpfs is a new one; Docker forgets the mode that it was asked
				// for, which leaves the mode of the image's own /tmp.
				if resp, body := fetch(t, "POST", c.app+"/store", "x"); resp.StatusCode != 201 {
					t.Errorf("start %d: POST /store = %d %s, want 201", round+1, resp.StatusCode, body)
				}
			}
		})
	}
}

// TestBinaryProbesFromAnyImage mounts the binary alone into an image that holds
// nothing at all.
func TestBinaryProbesFromAnyImage(t *testing.T) {
	t.Parallel()
	needEngine(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "imagelab")
	if err := os.WriteFile(binary, saved(t, "imagelab:scratch").files["imagelab"].content, 0o755); err != nil {
		t.Fatal(err)
	}
	empty := newName()
	t.Cleanup(func() { docker(t, "image", "rm", "-f", empty) })
	importEmpty(t, empty)

	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(srv.Close)
	for _, tc := range []struct {
		name, url, want string
		code            int
	}{
		{"a server that is well", srv.URL + "/good", "healthy: 200 in ", 0},
		{"a server that fails", srv.URL + "/bad", "unhealthy: status 500", 1},
		{"no server", "http://127.0.0.1:" + freePort(t), "unhealthy: connection refused", 1},
	} {
		stdout, _, code := try(t, "run", "--rm", "--label", label(), "--network", "host", "--user", "65532", "--read-only",
			"-v", binary+":/hc:ro", "--entrypoint", "/hc", empty, "--healthcheck", tc.url)
		if code != tc.code || !strings.HasPrefix(stdout, tc.want) || strings.Contains(stdout, "\n") {
			t.Errorf("%s: --healthcheck = %d %q, want %d %q and one line", tc.name, code, stdout, tc.code, tc.want)
		}
	}
}
