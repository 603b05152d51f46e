package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// composeCommand is Docker Compose with the base images of this machine; COMPOSE
// names another one.
func composeCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	name := os.Getenv("COMPOSE")
	if name == "" {
		name = filepath.Join(root(t), "scripts/compose.sh")
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = root(t)
	cmd.Env = environ()
	return cmd
}

// stack is compose.yaml, running as a project of its own.
type stack struct {
	*composeFile
	services   map[string]*container
	prometheus string // base URL
	helper     string
	// compose is Docker Compose with the stack's files, ports and name.
	compose func(args ...string) *exec.Cmd
}

// composeFile is what docker compose config makes of compose.yaml.
type composeFile struct {
	Services map[string]struct {
		Image           string
		Build           *struct{ Args map[string]string }
		StopGracePeriod string  `json:"stop_grace_period"`
		MemLimit        string  `json:"mem_limit"`
		PidsLimit       int     `json:"pids_limit"`
		CPUs            float64 `json:"cpus"`
		Volumes         []struct{ Type, Source string }
		HealthCheck     *struct{ Test []string }
		Ports           []struct {
			HostIP string `json:"host_ip"`
			Target int
		}
	}
	Secrets map[string]struct{ File string }
}

// readCompose runs the command, which ends in "config --format json".
func readCompose(t *testing.T, cmd *exec.Cmd) *composeFile {
	t.Helper()
	stdout, stderr, err := execute(t, cmd)
	if err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, stderr)
	}
	var file composeFile
	if err := json.Unmarshal([]byte(stdout), &file); err != nil {
		t.Fatalf("%s = %s: %v", cmd, stdout, err)
	}
	return &file
}

// up starts the stack and waits until Docker calls each service healthy. The files are
// added to compose.yaml.
func up(t *testing.T, files ...string) *stack {
	t.Helper()
	needEngine(t)
	project := newName()
	s := &stack{services: map[string]*container{}, helper: buildHelper(t)}
	override := "services:\n"
	for _, name := range []string{"scratch", "alpine", "prometheus"} {
		override += fmt.Sprintf("  %s:\n    labels: {imagelab.e2e: %q}\n", name, owner)
		if name != "prometheus" {
			override += fmt.Sprintf("    volumes: [%q]\n", s.helper+":/helper:ro")
		}
	}
	override += fmt.Sprintf("networks:\n  default:\n    labels: {imagelab.e2e: %q}\n", owner)
	file := filepath.Join(t.TempDir(), "override.yaml")
	write(t, file, override)

	ports := map[string]string{}
	var environment []string
	for _, name := range []string{"SCRATCH_PORT", "SCRATCH_OPS_PORT", "ALPINE_PORT", "ALPINE_OPS_PORT", "PROMETHEUS_PORT"} {
		ports[name] = freePort(t)
		environment = append(environment, name+"="+ports[name])
	}
	compose := func(args ...string) *exec.Cmd {
		given := []string{"-p", project}
		for _, f := range append([]string{"compose.yaml", file}, files...) {
			given = append(given, "-f", f)
		}
		cmd := composeCommand(t, append(given, args...)...)
		cmd.Env = environ(environment...)
		return cmd
	}
	s.compose = compose
	s.composeFile = readCompose(t, compose("config", "--format", "json"))
	if image := s.Services["prometheus"].Image; !imageIsHere(t, image) {
		leaveOut(t, "no image "+image+": scripts/base-images.sh makes one")
	}

	t.Cleanup(func() {
		if t.Failed() {
			stdout, stderr, _ := execute(t, compose("logs", "--tail", "10"))
			t.Logf("the end of the logs:\n%s%s", stdout, stderr)
		}
		if _, stderr, err := execute(t, compose("down", "--volumes", "--remove-orphans")); err != nil {
			t.Errorf("compose down: %v: %s", err, stderr)
		}
		for _, list := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
			if got := docker(t, append(list, "--filter", "label=com.docker.compose.project="+project)...); got != "" {
				t.Errorf("compose down left behind: docker %s = %q", list[0], got)
			}
		}
	})
	if _, stderr, err := execute(t, compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "120")); err != nil {
		t.Fatalf("compose up: %v: %s", err, stderr)
	}
	for _, variant := range variants {
		upper := strings.ToUpper(variant)
		s.services[variant] = &container{
			name: s.id(t, variant),
			app:  "http://127.0.0.1:" + ports[upper+"_PORT"],
			ops:  "http://127.0.0.1:" + ports[upper+"_OPS_PORT"],
		}
	}
	s.prometheus = "http://127.0.0.1:" + ports["PROMETHEUS_PORT"]
	return s
}

// id is that of the service's container, of which there is one.
func (s *stack) id(t *testing.T, service string) string {
	t.Helper()
	id, stderr, err := execute(t, s.compose("ps", "-q", "-a", service))
	if err != nil {
		t.Fatalf("compose ps: %v: %s", err, stderr)
	}
	return strings.TrimSpace(id)
}

func imageIsHere(t *testing.T, image string) bool {
	t.Helper()
	_, _, code := try(t, "image", "inspect", image)
	return code == 0
}

func TestComposeStack(t *testing.T) {
	t.Parallel()
	s := up(t)
	for _, variant := range variants {
		c := s.services[variant]
		t.Run(variant+" is healthy and serves", func(t *testing.T) {
			if got := inspect[string](t, c.name, ".State.Health.Status"); got != "healthy" {
				t.Errorf("health = %q, want healthy", got)
			}
			if _, body := fetch(t, "GET", c.app+"/", ""); body != "Hello from Docker! Rocket=Medium\n" {
				t.Errorf("GET / = %q, want the greeting", body)
			}
			if resp, body := fetch(t, "GET", c.app+"/proof", ""); resp.StatusCode != 200 {
				t.Errorf("GET /proof = %d %s, want 200: the secret is mounted", resp.StatusCode, body)
			}
		})
		t.Run(variant+" has no privilege", func(t *testing.T) { s.checkPrivileges(t, c) })
		t.Run(variant+" is limited", func(t *testing.T) { s.checkLimits(t, variant) })
		t.Run(variant+" writes to its tmpfs alone", func(t *testing.T) { s.checkWrites(t, variant) })
		t.Run(variant+" gets enough time to stop", func(t *testing.T) { s.checkGrace(t, variant) })
		t.Run(variant+" exposes what a linter accepts", func(t *testing.T) { checkExposition(t, c) })
	}
	t.Run("Prometheus scrapes both", func(t *testing.T) { s.checkPrometheus(t) })
	for _, variant := range variants {
		t.Run(variant+" stops and starts again", func(t *testing.T) { s.checkRestart(t, s.services[variant]) })
	}
}

func (s *stack) checkPrivileges(t *testing.T, c *container) {
	const user, none = "65532 65532 65532 65532", "0000000000000000"
	status := c.status(t)
	for field, want := range map[string]string{
		"Uid": user, "Gid": user, "NoNewPrivs": "1", "Seccomp": "2",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
	} {
		if got := status[field]; got != want {
			t.Errorf("%s = %q, want %q", field, got, want)
		}
	}
	// Docker adds no group of its own, but old engines list the primary one.
	if got := status["Groups"]; got != "" && got != "65532" {
		t.Errorf("Groups = %q, want none but 65532", got)
	}
}

func (s *stack) checkLimits(t *testing.T, variant string) {
	c, want := s.services[variant], s.Services[variant]
	if got := c.cgroup(t, "memory", "memory.limit_in_bytes", "memory.max"); got != want.MemLimit || want.MemLimit == "" {
		t.Errorf("memory limit = %s, want %q", got, want.MemLimit)
	}
	if got := c.cgroup(t, "pids", "pids.max", "pids.max"); got != fmt.Sprint(want.PidsLimit) {
		t.Errorf("pids limit = %s, want %d", got, want.PidsLimit)
	}
	quota := fmt.Sprint(int(want.CPUs * 100_000)) // of Docker's period of 100 ms
	if got := c.cgroup(t, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != quota && got != quota+" 100000" {
		t.Errorf("cpu quota = %s, want %s", got, quota)
	}
	limits := readProc(t, c.pid(t), "limits")
	for _, limit := range [][]string{{"Max", "open", "files", "8192", "8192", "files"}, {"Max", "core", "file", "size", "0", "0", "bytes"}} {
		if !slices.ContainsFunc(strings.Split(limits, "\n"), func(line string) bool { return slices.Equal(strings.Fields(line), limit) }) {
			t.Errorf("limits = %s\nwant %q", limits, limit)
		}
	}
}

// checkWrites writes as root as well, whom no file's mode keeps from it.
func (s *stack) checkWrites(t *testing.T, variant string) {
	c := s.services[variant]
	for _, tc := range []struct{ path, user, want string }{
		{"/tmp/x", "65532", "written"},
		{"/x", "65532", "read-only file system"},
		{"/etc/x", "65532", "read-only file system"},
		{"/x", "0", "read-only file system"},
		{"/etc/passwd", "0", "read-only file system"},
		{"/imagelab", "0", "read-only file system"},
		{"/run/secrets/secret", "0", "read-only file system"},
	} {
		if got := docker(t, "exec", "-u", tc.user, c.name, "/helper", "write", tc.path); !strings.HasSuffix(got, ": "+tc.want) && !(tc.path == "/imagelab" && strings.HasSuffix(got, "text file busy")) {
			t.Errorf("write as %s = %q, want %q", tc.user, got, tc.want)
		}
		if variant != "alpine" || tc.path == "/imagelab" {
			continue
		}
		_, stderr, code := try(t, "exec", "-u", tc.user, c.name, "sh", "-c", "true >>"+tc.path)
		if written := tc.want == "written"; written != (code == 0) || !written && !strings.Contains(strings.ToLower(stderr), tc.want) {
			t.Errorf("sh writes to %s as %s = %d %q, want %s", tc.path, tc.user, code, stderr, tc.want)
		}
	}
}

func (s *stack) checkGrace(t *testing.T, variant string) {
	grace, err := time.ParseDuration(s.Services[variant].StopGracePeriod)
	if err != nil {
		t.Fatal(err)
	}
	_, body := fetch(t, "GET", s.services[variant].ops+"/config", "")
	var vars []struct{ Name, Value string }
	if err := json.Unmarshal([]byte(body), &vars); err != nil {
		t.Fatalf("GET /config = %s: %v", body, err)
	}
	var budget time.Duration
	for _, v := range vars {
		switch v.Name {
		case "IMAGELAB_DRAIN_DELAY", "IMAGELAB_SHUTDOWN_TIMEOUT", "IMAGELAB_LAST_SCRAPE":
			d, err := time.ParseDuration(v.Value)
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			budget += d
		}
	}
	if budget == 0 || grace <= budget {
		t.Errorf("stop_grace_period = %v, want more than delay, timeout and last scrape, which are %v", grace, budget)
	}
}

func checkExposition(t *testing.T, c *container) {
	_, body := fetch(t, "GET", c.ops+"/metrics", "")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	req, err := http.NewRequest("GET", c.ops+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text") {
		t.Errorf("Content-Type = %q, want OpenMetrics when it is asked for", got)
	}
}

// families lists what the container exposes.
func families(t *testing.T, c *container) map[string]*dto.MetricFamily {
	t.Helper()
	_, body := fetch(t, "GET", c.ops+"/metrics", "")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	found, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (s *stack) checkPrometheus(t *testing.T) {
	// Only what was there before a scrape can be asked for.
	exposed := map[string]map[string]*dto.MetricFamily{}
	for _, variant := range variants {
		exposed[variant] = families(t, s.services[variant])
	}
	eventually(t, "two targets that are up", func() bool {
		var targets struct {
			Data struct {
				ActiveTargets []struct{ Health, ScrapeURL string }
			}
		}
		s.ask(t, "/api/v1/targets", &targets)
		healthy := 0
		for _, target := range targets.Data.ActiveTargets {
			if target.Health == "up" {
				healthy++
			}
		}
		return healthy == 2 && len(targets.Data.ActiveTargets) == 2
	})
	for _, variant := range variants {
		if len(exposed[variant]) < 30 {
			t.Errorf("%s: %d metric families, want those of Go, the process and the service", variant, len(exposed[variant]))
		}
		for name, family := range exposed[variant] {
			series := name
			if kind := family.GetType(); kind == dto.MetricType_HISTOGRAM || kind == dto.MetricType_SUMMARY {
				series += "_count"
			}
			query := fmt.Sprintf("count(%s{variant=%q})", series, variant)
			eventually(t, "answer to "+query, func() bool {
				var answer struct{ Data struct{ Result []any } }
				s.ask(t, "/api/v1/query?query="+url.QueryEscape(query), &answer)
				return len(answer.Data.Result) == 1
			})
		}
	}
	// Where a label is the scrape's as well, Prometheus renames it.
	var series struct{ Data []string }
	s.ask(t, "/api/v1/labels", &series)
	for _, label := range series.Data {
		if strings.HasPrefix(label, "exported_") {
			t.Errorf("Prometheus had to make a label %s", label)
		}
	}
}

// ask gets JSON from Prometheus.
func (s *stack) ask(t *testing.T, path string, answer any) {
	t.Helper()
	resp, body := fetch(t, "GET", s.prometheus+path, "")
	if err := json.Unmarshal([]byte(body), answer); err != nil || resp.StatusCode != 200 {
		t.Fatalf("GET %s = %d %s, %v", path, resp.StatusCode, body, err)
	}
}

func (s *stack) checkRestart(t *testing.T, c *container) {
	began := time.Now()
	docker(t, "stop", c.name) // with the grace of compose.yaml
	t.Logf("docker stop took %v", time.Since(began).Round(10*time.Millisecond))
	if got := c.exitCode(t); got != 0 {
		t.Errorf("exit code = %d, want 0", got)
	}
	docker(t, "start", c.name)
	c.awaitHealth(t, "healthy")
	if resp, body := fetch(t, "POST", c.app+"/store", "x"); resp.StatusCode != 201 {
		t.Errorf("POST /store = %d %s, want 201", resp.StatusCode, body)
	}
}

// plainCompose is Docker Compose without the scripts.
func plainCompose(t *testing.T) []string {
	t.Helper()
	for _, candidate := range [][]string{
		{"docker", "compose"}, {"docker-compose"}, {filepath.Join(root(t), ".tools/docker-compose")},
	} {
		version, _, err := execute(t, exec.Command(candidate[0], append(candidate[1:], "version", "--short")...))
		if v := strings.TrimPrefix(version, "v"); err == nil && v != "" && !strings.HasPrefix(v, "1.") {
			return candidate
		}
	}
	leaveOut(t, "no Docker Compose: scripts/compose.sh makes one")
	return nil
}

func TestComposePublishesForThisMachineAlone(t *testing.T) {
	t.Parallel()
	needEngine(t)
	for _, tc := range []struct {
		name, app string
		environ   []string
	}{
		{"unless asked otherwise", "127.0.0.1", nil},
		{"the ops ports always", "0.0.0.0", []string{"PUBLISH_ADDRESS=0.0.0.0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cmd := composeCommand(t, "config", "--format", "json")
			cmd.Env = environ(tc.environ...)
			services := readCompose(t, cmd).Services
			for name, service := range services {
				for _, port := range service.Ports {
					want := "127.0.0.1"
					if port.Target == 8000 {
						want = tc.app
					}
					if port.HostIP != want {
						t.Errorf("%s: port %d is published on %q, want %s", name, port.Target, port.HostIP, want)
					}
				}
			}
			for _, variant := range variants {
				if len(services[variant].Ports) != 2 {
					t.Errorf("%s publishes %d ports, want 2", variant, len(services[variant].Ports))
				}
			}
		})
	}
}

func TestComposeFileNeedsNothingOfTheScripts(t *testing.T) {
	t.Parallel()
	needEngine(t)
	compose := plainCompose(t)
	dir := t.TempDir() // without scripts/ and what they leave behind
	content, err := os.ReadFile(filepath.Join(root(t), "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "compose.yaml"), string(content))
	cmd := exec.Command(compose[0], append(compose[1:], "config", "--format", "json")...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	config := readCompose(t, cmd)

	files := []string{config.Secrets["secret"].File}
	for name, service := range config.Services {
		switch {
		case service.Build == nil && strings.Contains(service.Image, "imagelab"):
			t.Errorf("%s: image %s is neither built nor an official one", name, service.Image)
		case service.Build != nil && len(service.Build.Args) > 0:
			for arg, value := range service.Build.Args {
				if value != "" {
					t.Errorf("%s: build argument %s = %q, want the Dockerfile's own default", name, arg, value)
				}
			}
		}
		for _, v := range service.Volumes {
			files = append(files, v.Source)
		}
	}
	for _, file := range files {
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(root(t), rel)); err != nil {
			t.Errorf("compose.yaml mounts a file that the project does not have: %v", err)
		}
	}
}
