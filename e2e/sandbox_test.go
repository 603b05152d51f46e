package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sandboxFacts are those of a report.
type sandboxFacts struct {
	Of, Mode       string
	Applied, Write []string
	Refused        []struct{ Part, Reason string }
	ImageRead      string `json:"image_read"`
}

// sandboxed is what /audit says, and the facts of the sandbox in it.
func (c *container) sandboxed(t *testing.T) (report, sandboxFacts) {
	t.Helper()
	_, body := fetch(t, "GET", c.ops+"/audit", "")
	var r report
	var facts struct {
		Facts struct{ Sandbox sandboxFacts }
	}
	for _, into := range []any{&r, &facts} {
		if err := json.Unmarshal([]byte(body), into); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
	}
	return r, facts.Facts.Sandbox
}

// needSandbox leaves a test out where the kernel does not have all of it.
func needSandbox(t *testing.T) {
	t.Helper()
	if _, facts := start(t, "scratch").sandboxed(t); len(facts.Refused) > 0 {
		t.Skipf("kernel: not all of the sandbox: %v", facts.Refused)
	}
}

// A container that was started without any care writes nowhere but in its data directory.
func TestSandboxHoldsWithoutAnyHardening(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	for _, variant := range []string{"scratch", "alpine"} {
		for name, options := range map[string][]string{
			"root":                 {"--user", "0:0"},
			"root, unconfined":     {"--user", "0:0", "--security-opt", "seccomp=unconfined"},
			"a user":               {"--user", "65532:65532"},
			"a user, behind tini":  {"--user", "65532:65532", "--init"},
			"read-only":            {"--user", "65532:65532", "--read-only", "--tmpfs", "/tmp:mode=1777"},
			"read-only, no tmpfs":  {"--user", "65532:65532", "--read-only"},
			"hardened by the rest": {"--user", "65532:65532", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"},
		} {
			t.Run(variant+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := start(t, variant, append(options, "-e", "IMAGELAB_SANDBOX=require")...)
				readOnly := slices.Contains(options, "--read-only")
				stored := !readOnly || slices.Contains(options, "--tmpfs")
				if resp, body := fetch(t, "POST", c.app+"/store", "blob"); (resp.StatusCode == 201) != stored {
					t.Errorf("POST /store = %d %s", resp.StatusCode, body)
				}
				for _, path := range []string{"/store/../../etc/new", "/store/%2e%2e%2f%2e%2e%2fetc%2fnew", "/store/..%2fnew"} {
					if resp, body := fetch(t, "POST", c.app+path, "blob"); resp.StatusCode < 300 {
						t.Errorf("POST %s = %d %s", path, resp.StatusCode, body)
					}
				}
				if variant == "alpine" && !readOnly {
					// The store's directory becomes another one between two uploads.
					docker(t, "exec", "-u", "0", c.name, "sh", "-c", "mv /tmp/imagelab-store /tmp/old && ln -s /etc /tmp/imagelab-store")
					for _, body := range []string{"one", "two"} {
						fetch(t, "POST", c.app+"/store", body)
					}
				}
				for _, line := range strings.Split(strings.TrimSpace(docker(t, "diff", c.name)), "\n") {
					_, path, _ := strings.Cut(line, " ")
					// The engine makes a place for its init.
					engines := slices.Contains(options, "--init") && (path == "/sbin" || path == "/sbin/docker-init")
					if path != "" && path != "/tmp" && !strings.HasPrefix(path, "/tmp/") && !engines {
						t.Errorf("the container has changed %s", line)
					}
				}

				var facts sandboxFacts
				var r report
				eventually(t, "a report of a closed image", func() bool {
					r, facts = c.sandboxed(t)
					return facts.ImageRead != ""
				})
				want := []string{"no_new_privs", "files", "devices", "tcp", "others", "calls", "reads"}
				if facts.Of != "server" || facts.Mode != "require" || !slices.Equal(facts.Applied, want) || !slices.Equal(facts.Write, []string{"/tmp"}) {
					t.Errorf("sandbox = %+v", facts)
				}
				status := map[bool]string{true: "pass", false: "warn"}[readOnly]
				if got := r.verdicts()["rootfs-read-only"]; got != status {
					t.Errorf("rootfs-read-only = %s: %s, want %s", got, r.why("rootfs-read-only"), status)
				}
				if r.Facts.Image.Files == 0 || r.verdicts()["secrets-in-files"] != "pass" {
					t.Errorf("the closed image has %d files; %s", r.Facts.Image.Files, r.why("secrets-in-files"))
				}
				given := slices.Contains(options, "no-new-privileges:true")
				if got := r.verdicts()["no-new-privileges"]; (got == "pass") != given {
					t.Errorf("no-new-privileges = %s: %s", got, r.why("no-new-privileges"))
				}
				filtered := !slices.Contains(options, "seccomp=unconfined")
				if got := r.verdicts()["seccomp-filter"]; (got == "fail") != !filtered {
					t.Errorf("seccomp-filter = %s: %s, and the engine's filter is there: %v", got, r.why("seccomp-filter"), filtered)
				}
				docker(t, "stop", c.name)
				if code := c.exitCode(t); code != 0 {
					t.Errorf("exit %d after a stop", code)
				}
			})
		}
	}
}

// The profile of an engine that is older than Landlock.
func TestSandboxUnderAProfileThatRefusesIt(t *testing.T) {
	t.Parallel()
	needEngine(t)
	profile := filepath.Join(t.TempDir(), "profile.json")
	const text = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO", "errnoRet": 1,
		"names": ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]}]}`
	if err := os.WriteFile(profile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, "scratch", "--security-opt", "seccomp="+profile)
	if _, facts := c.sandboxed(t); len(facts.Refused) == 0 || !slices.Contains(facts.Applied, "calls") {
		t.Errorf("sandbox = %+v, want what needs no Landlock", facts)
	}
	_, stderr, code := try(t, "run", "--rm", "--security-opt", "seccomp="+profile, "-e", "IMAGELAB_SANDBOX=require", "imagelab:scratch")
	if code != 1 || !strings.Contains(stderr, "IMAGELAB_SANDBOX=require, and this is refused") {
		t.Errorf("exit %d with require: %s", code, stderr)
	}
}

// A command that knows nothing of it, as root with a writable root.
func TestSandboxOfACommandInAContainer(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	for name, test := range map[string]struct {
		script string
		code   int
	}{
		"within the defaults": {"echo x >/tmp/file && echo x >/dev/shm/file && echo x >/dev/null && echo out >/dev/stdout", 0},
		"the image":           {"echo x >/etc/new || exit 9", 9},
		"the program":         {"rm /imagelab || exit 9", 9},
		"a mount":             {"mount -t tmpfs none /mnt || exit 9", 9},
		"the init":            {"kill -TERM 1 || exit 9", 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := try(t, "run", "--rm", "--user", "0:0", "--label", label(), "-e", "IMAGELAB_SANDBOX=require",
				"-e", "IMAGELAB_SANDBOX_COMMAND=on", "imagelab:alpine", "--", "sh", "-c", test.script)
			if code != test.code {
				t.Errorf("exit %d, want %d: %s%s", code, test.code, stdout, stderr)
			}
		})
	}
}
