package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// What is true of each image that is Debian, looked up in it with find, ls and file:
//   - sh is dash, and bash is there; apt, apt-get and dpkg are; perl is, which dpkg's own scripts need.
//   - mount, passwd, su and eight more are setuid or setgid, without effect under no-new-privileges.
//   - its programs are several hundred.
var (
	debianFails = []string{"executable-count", "package-manager-absent", "shell-absent"}
	debianWarns = []string{"interpreter-absent", "setuid-files", "user-namespace"}
)

// TestNoFalseAlarmOnStockImages audits images that are nobody's work here, hardened as compose.yaml does it, and has the
// whole list of what fails and warns. Each was looked into by hand; the comments say why it is true. user-namespace is the
// engine's: root is not remapped.
func TestNoFalseAlarmOnStockImages(t *testing.T) {
	t.Parallel()
	needEngine(t)
	network := auditNetwork(t)
	binary := imagelabOf(t)
	stock := func(variable string) func(t *testing.T) string {
		return func(t *testing.T) string { return stockImage(t, variable) }
	}
	example := func(name string) func(t *testing.T) string {
		return func(t *testing.T) string { return buildExample(t, name) }
	}
	for _, tc := range []struct {
		name         string
		image        func(t *testing.T) string
		options      []string
		command      []string
		fails, warns []string
	}{
		// sh and ash are busybox, and so are nc, nslookup and wget; apk is there. Eleven programs are more than five. As
		// PID 1 sleep has no handler for SIGTERM: docker stop takes its whole grace period, and the exit code is 137.
		{name: "Alpine", image: stock("ALPINE_IMAGE"), command: []string{"sleep", "600"},
			fails: []string{"network-client-absent", "package-manager-absent", "pid1-sigterm", "shell-absent"},
			warns: []string{"executable-count", "user-namespace"}},
		// It has 117 MB: more than the 52 that pass, within the budget. sleep is PID 1 here, too. There is no curl, wget or nc.
		{name: "Debian", image: stock("DEBIAN_IMAGE"), command: []string{"sleep", "600"},
			fails: append([]string{"pid1-sigterm"}, debianFails...), warns: append([]string{"image-size"}, debianWarns...)},
		// Python is the program's own interpreter. docker images has more than 200 MB for each of these images.
		{name: "gunicorn", image: example("gunicorn"), fails: append([]string{"image-size"}, debianFails...), warns: debianWarns},
		{name: "nginx", image: example("nginx"), fails: append([]string{"image-size"}, debianFails...), warns: debianWarns},
		{name: "node", image: example("node"), fails: append([]string{"image-size"}, debianFails...), warns: debianWarns},
		// Its data are on a volume, which outlives the container and can be written.
		{name: "redis", image: example("redis"), options: []string{"-v", "/data"},
			fails: append([]string{"image-size"}, debianFails...), warns: append([]string{"writable-mounts"}, debianWarns...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			name := newName()
			args := []string{"run", "-d", "--name", name, "--label", label(), "--no-healthcheck", "--network", network, "-v", binary + ":/audit:ro"}
			for what, options := range hardenedAudit {
				if what == "memory" {
					options = []string{"--memory", "256m"} // as the examples' own files have it
				}
				args = append(args, options...)
			}
			image := tc.image(t)
			t.Cleanup(func() { docker(t, "rm", "-f", "-v", name) })
			docker(t, slices.Concat(args, tc.options, []string{image}, tc.command)...)
			if tc.command == nil {
				eventually(t, "ready program", func() bool {
					_, _, code := try(t, "exec", name, "/imagelab", "--healthcheck", "http://127.0.0.1:9000/readyz")
					return code == 0
				})
			}
			stdout, stderr, _ := try(t, "exec", name, "/audit", "--audit", "--format", "json")
			var r report
			if err := json.Unmarshal([]byte(stdout), &r); err != nil {
				t.Fatalf("--audit: %v, %s", err, stderr)
			}
			// Root reads what the container's user may not.
			if out, _, code := try(t, "exec", "-u", "0", name, "/audit", "--audit", "--only", "secrets-in-files"); code != 0 {
				t.Errorf("root finds a secret in the image:\n%s", out)
			}
			got := map[string][]string{}
			for _, c := range r.Checks {
				got[c.Status] = append(got[c.Status], c.ID)
				if c.Status == fails || c.Status == warns {
					t.Logf("%s %s: %s", c.Status, c.ID, c.Evidence)
				}
			}
			for status, want := range map[string][]string{fails: tc.fails, warns: tc.warns, "unknown": nil} {
				want = slices.Sorted(slices.Values(want))
				if slices.Sort(got[status]); !slices.Equal(got[status], want) {
					t.Errorf("%s: %s, want %s", status, strings.Join(got[status], " "), strings.Join(want, " "))
				}
			}
		})
	}
}
