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

				eventually(t, "the end of reading", func() bool {
					_, log, _ := try(t, "logs", c.name)
					return strings.Contains(log, "files outside are not read any more")
				})
				r, facts := c.sandboxed(t) // the first report after that says it, however fresh the last one was
				if facts.ImageRead == "" {
					t.Error("the report does not say that the image is closed")
				}
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

// Profiles of engines: of one that is older than Landlock, and of one that lets nobody have a filter of its own.
func TestSandboxUnderAProfileThatRefusesIt(t *testing.T) {
	t.Parallel()
	needEngine(t)
	for name, test := range map[string]struct {
		calls   []string
		refused []string // whatever the kernel has
		applied []string
	}{
		"no Landlock":      {[]string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}, []string{"files", "devices", "tcp", "others"}, []string{"no_new_privs", "calls"}},
		"no rules for it":  {[]string{"landlock_add_rule"}, []string{"files"}, []string{"no_new_privs", "calls"}},
		"none for threads": {[]string{"landlock_restrict_self"}, []string{"files"}, []string{"no_new_privs", "calls"}},
		"no filters":       {[]string{"seccomp"}, []string{"calls"}, []string{"no_new_privs"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			profile := filepath.Join(t.TempDir(), "profile.json")
			text := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO", "errnoRet": 1, "names": ["` +
				strings.Join(test.calls, `", "`) + `"]}]}`
			if err := os.WriteFile(profile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			options := []string{"--security-opt", "seccomp=" + profile}
			c := start(t, "scratch", append(options, "-e", "IMAGELAB_SANDBOX=auto")...)
			_, facts := c.sandboxed(t)
			var refused []string
			for _, r := range facts.Refused {
				refused = append(refused, r.Part)
			}
			for _, part := range test.refused {
				if !slices.Contains(refused, part) || slices.Contains(facts.Applied, part) {
					t.Errorf("%s is not refused alone: %+v", part, facts)
				}
			}
			for _, part := range test.applied {
				if !slices.Contains(facts.Applied, part) {
					t.Errorf("%s is not applied: %+v", part, facts)
				}
			}
			if resp, body := fetch(t, "POST", c.app+"/store", "blob"); resp.StatusCode != 201 {
				t.Errorf("POST /store = %d %s", resp.StatusCode, body)
			}
			_, stderr, code := try(t, slices.Concat([]string{"run", "--rm", "--label", label()}, options,
				[]string{"-e", "IMAGELAB_SANDBOX=require", imageOf("scratch")})...)
			if code != 1 || !strings.Contains(stderr, "IMAGELAB_SANDBOX=require, and this is refused") {
				t.Errorf("exit %d with require: %s", code, stderr)
			}
			_, stderr, code = try(t, slices.Concat([]string{"run", "--rm", "--label", label()}, options,
				[]string{"-e", "IMAGELAB_SANDBOX=require", "-e", "IMAGELAB_SANDBOX_COMMAND=on", imageOf("alpine"), "--", "true"})...)
			if code != 126 || !strings.Contains(stderr, "IMAGELAB_SANDBOX=require, and this is refused") {
				t.Errorf("exit %d of a command with require: %s", code, stderr)
			}
		})
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
		"within the defaults":         {"echo x >/tmp/file && echo x >/dev/shm/file && echo x >/dev/null && echo out >/dev/stdout", 0},
		"the image":                   {"echo x >/etc/new || exit 9", 9},
		"the image by the root":       {"echo x >/proc/self/root/etc/new || exit 9", 9},
		"another session":             {"setsid sh -c 'echo x >/etc/new' || exit 9", 9},
		"an orphan":                   {"(sh -c 'sleep 0.2; echo x >/etc/new' &) ; sleep 1; [ -e /etc/new ] || exit 9", 9},
		"the program":                 {"rm /imagelab || exit 9", 9},
		"a hard link":                 {"ln /etc/passwd /tmp/passwd && echo x >>/tmp/passwd || exit 9", 9},
		"a device":                    {"mknod /tmp/kmem c 1 1 || exit 9", 9},
		"a disk":                      {"mknod /tmp/sda b 8 0 || exit 9", 9},
		"a pipe":                      {"mkfifo /tmp/pipe && ! mkfifo /etc/pipe || exit 9", 0},
		"settings":                    {"echo 1 >/proc/sys/net/ipv4/ip_forward || exit 9", 9},
		"a mount":                     {"mount -t tmpfs none /mnt || exit 9", 9},
		"the root of another":         {"echo x >/proc/1/root/etc/new || exit 9", 9},
		"the environment of the init": {"grep -q PATH /proc/1/environ || exit 9", 9},
		"the init":                    {"kill -TERM 1 || exit 9", 9},
	} {
		for rights, options := range map[string][]string{"": nil, ", with more rights": {
			"--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
			"--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE", "--cap-add", "NET_ADMIN", "--cap-add", "DAC_READ_SEARCH",
		}} {
			if name == "the environment of the init" && options != nil {
				continue // the kernel shows it to such a process
			}
			t.Run(name+rights, func(t *testing.T) {
				t.Parallel()
				stdout, stderr, code := try(t, slices.Concat([]string{"run", "--rm", "--user", "0:0", "--label", label(), "-e", "IMAGELAB_SANDBOX=require",
					"-e", "IMAGELAB_SANDBOX_COMMAND=on"}, options, []string{imageOf("alpine"), "--", "sh", "-c", test.script})...)
				if code != test.code {
					t.Errorf("exit %d, want %d: %s%s", code, test.code, stdout, stderr)
				}
			})
		}
	}
}
