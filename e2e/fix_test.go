package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPastedFixesTakeTheFindingsAway runs a service that has much wrong, pastes the
// lines for compose.yaml that the report gives over the service's own, and audits
// again. By hand come only what the comments of these lines say: the secret's file.
func TestPastedFixesTakeTheFindingsAway(t *testing.T) {
	t.Parallel()
	needEngine(t)
	dir, project := t.TempDir(), newName()
	write(t, filepath.Join(dir, "DB_PASS.txt"), "hunter2\n")
	write(t, filepath.Join(dir, "API_KEY.txt"), "hunter3\n")
	weak := []string{
		`image: imagelab:scratch`, `user: "0:0"`, `tmpfs: ["/a:exec", "/b:suid", "/c d's $$e:exec"]`, `environment: {DB_PASS: hunter2, API_KEY: hunter3}`,
		`security_opt: ["seccomp=unconfined"]`, `cap_add: [SYS_PTRACE]`, fmt.Sprintf("labels: {imagelab.e2e: %q}", owner),
	}
	compose := func(service []string, more string) func(args ...string) *exec.Cmd {
		file := filepath.Join(dir, "compose.yaml")
		write(t, file, fmt.Sprintf("services:\n  app:\n    %s\nnetworks:\n  default:\n    labels: {imagelab.e2e: %q}\n%s", strings.Join(service, "\n    "), owner, more))
		return func(args ...string) *exec.Cmd {
			return composeCommand(t, append([]string{"-p", project, "-f", file}, args...)...)
		}
	}
	var run func(args ...string) *exec.Cmd
	must := func(args ...string) {
		t.Helper()
		if stdout, stderr, err := execute(t, run(args...)); err != nil {
			t.Fatalf("compose %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
		}
	}
	audit := func(format string) string {
		t.Helper()
		eventually(t, "listening server", func() bool {
			_, _, err := execute(t, run("exec", "-T", "app", "/imagelab", "--healthcheck"))
			return err == nil
		})
		stdout, stderr, _ := execute(t, run("exec", "-T", "app", "/imagelab", "--audit", "--format", format))
		if stdout == "" {
			t.Fatalf("no report: %s", stderr)
		}
		return stdout
	}

	run = compose(weak, "")
	t.Cleanup(func() { must("down", "-v", "--timeout", "1") })
	must("up", "-d")
	_, block, found := strings.Cut(audit("text"), "TOGETHER for the service in compose.yaml (capitals and /app are yours to fill in)\n\n")
	block, _, _ = strings.Cut(block, "\n\n")
	if !found {
		t.Fatal("no lines to paste")
	}
	var pasted []string
	given := map[string]bool{}
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		key, _, _ := strings.Cut(line, ":")
		if given[key] && !strings.HasPrefix(line, "#") {
			t.Errorf("%s is there twice in\n%s", key, block)
		}
		given[key] = true
		pasted = append(pasted, line)
	}
	for _, line := range weak {
		if key, _, _ := strings.Cut(line, ":"); !given[key] {
			pasted = append(pasted, line)
		}
	}
	run = compose(pasted, "secrets: {DB_PASS: {file: ./DB_PASS.txt}, API_KEY: {file: ./API_KEY.txt}}\n")
	must("up", "-d")
	var r report
	if err := json.Unmarshal([]byte(audit("json")), &r); err != nil {
		t.Fatal(err)
	}
	for id, status := range r.verdicts() {
		if status == fails || status == warns && id != "user-namespace" { // the engine's setting
			t.Errorf("%s = %s after pasting: %s\n%s", id, status, r.why(id), block)
		}
	}
}
