package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// Docker accepts deploy/swarm.yaml, alone and with the published port; make swarm deploys it.
func TestSwarmFiles(t *testing.T) {
	t.Parallel()
	needEngine(t)
	dir := filepath.Join(root(t), "deploy")
	for _, tc := range []struct {
		name      string
		files     []string
		published bool
	}{
		{"inside of the stack's network", []string{"swarm.yaml"}, false},
		{"published", []string{"swarm.yaml", "swarm-published.yaml"}, true},
	} {
		args := []string{"stack", "config"}
		for _, file := range tc.files {
			args = append(args, "-c", filepath.Join(dir, file))
		}
		config := docker(t, args...)
		for _, want := range []string{"order: start-first", "failure_action: rollback", "read_only: true", "pids: 64", "image: imagelab:scratch"} {
			if !strings.Contains(config, want) {
				t.Errorf("%s: the configuration has no %q:\n%s", tc.name, want, config)
			}
		}
		if got := strings.Contains(config, "published: 8000"); got != tc.published {
			t.Errorf("%s: port 8000 is published: %t, want %t", tc.name, got, tc.published)
		}
	}
}
