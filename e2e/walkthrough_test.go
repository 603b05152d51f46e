package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAuditWalkthroughIsTrue does what docs/audit-walkthrough.md says was done: each block of a report that the page shows
// is a part of the report, as it comes.
func TestAuditWalkthroughIsTrue(t *testing.T) {
	t.Parallel()
	needEngine(t)
	if version := docker(t, "info", "--format", "{{.CgroupVersion}}"); version != "1" {
		leaveOut(t, "kernel: the page was written on cgroup v1, and this is version "+version)
	}
	page := read(t, "docs/audit-walkthrough.md")
	blocks := func(section, kind string) (found []string) {
		_, text, _ := strings.Cut(page, section)
		text, _, _ = strings.Cut(text, "\n## ")
		for _, match := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
			if match[1] == kind {
				found = append(found, match[2])
			}
		}
		return found
	}
	bad, clean := blocks("# From a bad", "yaml")[0], blocks("## Third run", "yaml")[0]
	// The second file is the third but for the image and the start command, which are what the second run finds.
	half := clean
	for _, change := range [][2]string{
		{"image: app:scratch", "image: app:alpine"},
		{`entrypoint: ["/app", "sleep"]`, `entrypoint: sh -c "/app sleep; true"`},
		{"    init: true\n", ""},
	} {
		if strings.Count(half, change[0]) != 1 {
			t.Fatalf("the last file has %q %d times, want it once:\n%s", change[0], strings.Count(half, change[0]), half)
		}
		half = strings.Replace(half, change[0], change[1], 1)
	}

	dir, images := t.TempDir(), newName()
	app := buildHelper(t)
	for _, variant := range []string{"alpine", "scratch"} {
		from := map[string]string{"alpine": stockImage(t, "ALPINE_IMAGE"), "scratch": "scratch"}[variant]
		context := t.TempDir()
		write(t, filepath.Join(context, "Dockerfile"), "FROM "+from+"\nCOPY helper /app\n")
		if err := os.Link(app, filepath.Join(context, "helper")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { docker(t, "image", "rm", "-f", images+":"+variant) })
		docker(t, "build", "-q", "--label", label(), "-t", images+":"+variant, context)
	}
	if err := os.Rename(imagelabOf(t), filepath.Join(dir, "imagelab")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "DB_PASSWORD.txt"), "hunter2\n")

	project := newName()
	compose := func(text string) func(args ...string) *exec.Cmd {
		labels := fmt.Sprintf("{imagelab.e2e: %q}", owner)
		override := "services: {app: {labels: " + labels + "}}\nnetworks: {default: {labels: " + labels + "}}\n"
		if strings.Contains(text, "\nvolumes: {NAME") {
			override += "volumes: {NAME: {labels: " + labels + "}}\n"
		}
		write(t, filepath.Join(dir, "compose.yaml"), strings.ReplaceAll(text, "image: app:", "image: "+images+":"))
		write(t, filepath.Join(dir, "labels.yaml"), override)
		return func(args ...string) *exec.Cmd {
			return composeCommand(t, append([]string{"-p", project, "-f", filepath.Join(dir, "compose.yaml"), "-f", filepath.Join(dir, "labels.yaml")}, args...)...)
		}
	}
	var run func(args ...string) *exec.Cmd
	must := func(args ...string) {
		t.Helper()
		if stdout, stderr, err := execute(t, run(args...)); err != nil {
			t.Fatalf("compose %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
		}
	}
	t.Cleanup(func() { must("down", "-v", "--timeout", "1") })
	for _, stage := range []struct{ section, file string }{{"## First run", bad}, {"## Second run", half}, {"## Third run", clean}} {
		run = compose(stage.file)
		must("up", "-d", "--timeout", "1")
		report, stderr, _ := execute(t, run("exec", "-T", "app", "/imagelab", "--audit"))
		shown := blocks(stage.section, "")
		if len(shown) == 0 || report == "" {
			t.Fatalf("%s: %d blocks of the page, %d bytes of a report, %s", stage.section, len(shown), len(report), stderr)
		}
		for _, block := range shown {
			if !strings.Contains(report, block) && !strings.HasPrefix(block, "docker compose ") {
				t.Errorf("%s: the report has no\n%s\nbut is\n%s", stage.section, block, report)
			}
		}
	}
	// What was pasted is what the first run gave.
	for _, block := range blocks("## First run", "") {
		if !strings.HasPrefix(block, "TOGETHER") {
			continue
		}
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if !strings.Contains(line, ":") || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "TOGETHER") || strings.HasPrefix(line, "volumes:") {
				continue
			}
			if !strings.Contains(clean, "    "+line+"\n") {
				t.Errorf("the last file has no line %q, which the first run gives", line)
			}
		}
	}
}
