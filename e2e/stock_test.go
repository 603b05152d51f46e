package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestNoFalseAlarmOnStockImages audits images that are nobody's work here, hardened as compose.yaml does it, and has the
// whole list of what fails and warns. Each was looked into by hand; the comments say why it is true.
func TestNoFalseAlarmOnStockImages(t *testing.T) {
	t.Parallel()
	needEngine(t)
	network := auditNetwork(t)
	binary := imagelabOf(t)
	for _, tc := range []struct {
		name         string
		image        func(t *testing.T) string
		command      []string
		fails, warns []string
	}{
		{name: "Alpine", image: func(t *testing.T) string { return stockImage(t, "ALPINE_IMAGE") },
			command: []string{"sleep", "600"}},
		{name: "Debian", image: func(t *testing.T) string { return stockImage(t, "DEBIAN_IMAGE") },
			command: []string{"sleep", "600"}},
		{name: "gunicorn", image: func(t *testing.T) string { return buildExample(t, "gunicorn") }},
		{name: "nginx", image: func(t *testing.T) string { return buildExample(t, "nginx") }},
		{name: "node", image: func(t *testing.T) string { return buildExample(t, "node") }},
		{name: "redis", image: func(t *testing.T) string { return buildExample(t, "redis") }},
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
			docker(t, slices.Concat(args, []string{image}, tc.command)...)
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
			got := map[string][]string{}
			for _, c := range r.Checks {
				got[c.Status] = append(got[c.Status], c.ID)
				if c.Status == fails || c.Status == warns {
					t.Logf("%s %s: %s", c.Status, c.ID, c.Evidence)
				}
			}
			for status, want := range map[string][]string{fails: tc.fails, warns: tc.warns, "unknown": nil} {
				slices.Sort(got[status])
				if slices.Sort(want); !slices.Equal(got[status], want) {
					t.Errorf("%s: %s, want %s", status, strings.Join(got[status], " "), strings.Join(want, " "))
				}
			}
		})
	}
}
