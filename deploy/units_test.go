package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/containers/podman/v5/pkg/systemd/parser"
	"github.com/containers/podman/v5/pkg/systemd/quadlet"
)

// Podman's own generator makes a service of the quadlet, and warns of nothing.
func TestQuadlet(t *testing.T) {
	t.Parallel()
	unit, err := parser.ParseUnitFile("podman/imagelab.container")
	if err != nil {
		t.Fatal(err)
	}
	service, warnings, err := quadlet.ConvertContainer(unit, false, map[string]*quadlet.UnitInfo{
		"imagelab.container": {ServiceName: "imagelab"},
	})
	if err != nil || warnings != nil {
		t.Fatalf("the generator says %v, and warns %v", err, warnings)
	}
	start, ok := service.Lookup("Service", "ExecStart")
	if !ok {
		t.Fatal("the service has no ExecStart")
	}
	t.Log(start)
	words := " " + start + " "
	for _, want := range []string{
		"--user 65532:65532", "--read-only", "--read-only-tmpfs=false", "--cap-drop all", "--security-opt=no-new-privileges",
		"--tmpfs /tmp:size=16m,mode=1777,noexec,nosuid,nodev", "--pids-limit 64", "--memory=64m", "--cpus=1", "--stop-timeout=12",
		"--publish 127.0.0.1:8000:8000", "localhost/imagelab:scratch",
	} {
		if !strings.Contains(words, " "+want+" ") {
			t.Errorf("podman is not told %s:\n%s", want, start)
		}
	}
}

// systemd accepts the unit, and calls its exposure low.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no systemd-analyze: apt-get install systemd")
		}
		t.Skip("no systemd-analyze: apt-get install systemd")
	}
	content, err := os.ReadFile("systemd/imagelab.service")
	if err != nil {
		t.Fatal(err)
	}
	// verify wants the program to be there.
	dir := t.TempDir()
	program := filepath.Join(dir, "imagelab")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(dir, "imagelab.service")
	here := strings.ReplaceAll(string(content), "/usr/local/bin/imagelab", program)
	if err := os.WriteFile(unit, []byte(here), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	level := regexp.MustCompile(`exposure level for imagelab\.service: ([0-9.]+)`).FindSubmatch(out)
	if level == nil {
		t.Fatalf("systemd-analyze security says no level:\n%s", out)
	}
	if exposure, err := strconv.ParseFloat(string(level[1]), 64); err != nil || exposure > 2 {
		t.Errorf("exposure %s, want at most 2 of 10:\n%s", level[1], out)
	}
}
