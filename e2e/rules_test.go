package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// alerts are the names in the rules.
func alerts(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, match := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, "deploy/prometheus/rules.yml"), -1) {
		names = append(names, match[1])
	}
	if len(names) == 0 {
		t.Fatal("the rules have no alert")
	}
	return names
}

// read is a file of the project.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// prometheusImage is the one that compose.yaml takes.
func prometheusImage(t *testing.T) string {
	t.Helper()
	needEngine(t)
	image := readCompose(t, composeCommand(t, "config", "--format", "json")).Services["prometheus"].Image
	if !imageIsHere(t, image) {
		leaveOut(t, "no image "+image+": scripts/base-images.sh makes one")
	}
	return image
}

// promtool checks and tests the rules, in the release that loads them.
func TestRulesPassTheirOwnTests(t *testing.T) {
	t.Parallel()
	image := prometheusImage(t)
	promtool := func(args ...string) {
		t.Helper()
		stdout, stderr, code := try(t, append([]string{
			"run", "--rm", "--label", label(), "--network", "none", "--read-only", "--tmpfs", "/tmp:mode=1777",
			"-v", filepath.Join(root(t), "deploy/prometheus") + ":/rules:ro", "--entrypoint", "promtool", image,
		}, args...)...)
		if code != 0 {
			t.Errorf("promtool %q = %d\n%s\n%s", args, code, stdout, stderr)
		}
	}
	promtool("check", "config", "/rules/prometheus.yml")
	promtool("check", "rules", "--lint=all", "--lint-fatal", "/rules/rules.yml")
	promtool("test", "rules", "/rules/rules_test.yml")
}

// Each alert has a test in which it fires, one in which it does not, and a chapter that says what to do.
func TestEachAlertIsTestedAndExplained(t *testing.T) {
	t.Parallel()
	tests, page := read(t, "deploy/prometheus/rules_test.yml"), read(t, "docs/alerts.md")
	for _, name := range alerts(t) {
		cases := regexp.MustCompile(`alertname: `+name+`\b[^-]*?exp_alerts:( \[\])?`).FindAllStringSubmatch(tests, -1)
		fires := slices.ContainsFunc(cases, func(c []string) bool { return c[1] == "" })
		quiet := slices.ContainsFunc(cases, func(c []string) bool { return c[1] != "" })
		if !fires || !quiet {
			t.Errorf("rules_test.yml: %s fires: %t, does not fire: %t, want both", name, fires, quiet)
		}
		if !strings.Contains(page, "\n## "+name+"\n") {
			t.Errorf("docs/alerts.md has no chapter on %s", name)
		}
		if !strings.Contains(read(t, "deploy/prometheus/rules.yml"), "runbook: docs/alerts.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("rules.yml: %s does not name its chapter", name)
		}
	}
}

// Each alert fires in Compose's Prometheus when what it is about happens. The time for which
// it has to go on is shortened, all else is as it stands; promtool tests the time.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rules := regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(read(t, "deploy/prometheus/rules.yml"), "$1 5s")
	write(t, filepath.Join(dir, "rules.yml"), rules)
	// Two more targets: a command that ends again and again, and a front.
	config := read(t, "deploy/prometheus/prometheus.yml") + "      - targets: [\"command:9000\", \"front:9000\"]\n"
	write(t, filepath.Join(dir, "prometheus.yml"), config)
	override := filepath.Join(dir, "override.yaml")
	write(t, override, fmt.Sprintf(`services:
  scratch:
    environment: {IMAGELAB_FAULTS: "true", IMAGELAB_SHUTDOWN_TIMEOUT: 1s}
  alpine:
    environment: {IMAGELAB_STORE_CAPACITY: 64MiB, IMAGELAB_STORE_MAX_BLOB: 256KiB}
    tmpfs: ["/tmp:size=64m,mode=1777,noexec,nosuid,nodev"]
  command:
    image: imagelab:alpine
    entrypoint: [/imagelab, --, sleep, "2"]
    environment: {IMAGELAB_RESTART: always}
    healthcheck: {test: [CMD, /imagelab, --healthcheck, "http://127.0.0.1:9000/livez"], interval: 5s}
    networks: [default]
    labels: {imagelab.e2e: %[1]q}
  front:
    image: imagelab:alpine
    environment: {IMAGELAB_UPSTREAM: "http://alpine:8000"}
    healthcheck: {test: [CMD, /imagelab, --healthcheck, "http://127.0.0.1:9000/livez"], interval: 5s}
    networks: [default]
    labels: {imagelab.e2e: %[1]q}
  prometheus:
    volumes:
      - %[2]s:/etc/prometheus/rules.yml:ro
      - %[3]s:/etc/prometheus/prometheus.yml:ro
`, owner, filepath.Join(dir, "rules.yml"), filepath.Join(dir, "prometheus.yml")))
	s := up(t, override)
	scratch, alpine := s.services["scratch"], s.services["alpine"]
	t.Cleanup(func() {
		if t.Failed() {
			_, body := fetch(t, "GET", s.prometheus+"/api/v1/rules", "")
			t.Logf("the rules: %s", body)
		}
	})
	// What has fired stays, as the rest may end it.
	fired := map[string]bool{}
	fires := func(alert, labels string) {
		t.Helper()
		query := fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing",%s}`, alert, labels)
		eventually(t, query, func() bool { return s.value(t, query) != "" })
		fired[alert] = true
	}

	// More than one scrape has to see each series.
	eventually(t, "scrapes", func() bool {
		return s.value(t, `count_over_time(imagelab_state{state="ready",instance="scratch:9000"}[1m]) >= 2`) != ""
	})
	for _, path := range []string{"/status/500", "/delay/300ms"} {
		get := func() {
			resp, err := client().Get(scratch.app + path)
			if err != nil {
				t.Errorf("GET %s: %v", path, err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		get() // a series begins with its first request, which no rate has in it
		scrapes(t, s, "scratch")
		var all sync.WaitGroup
		for range 30 {
			all.Go(get)
		}
		all.Wait()
	}
	for _, alert := range []string{
		"ImagelabErrorBudgetBurnsFast", "ImagelabErrorBudgetBurns", "ImagelabLatencyBudgetBurnsFast", "ImagelabLatencyBudgetBurns",
	} {
		fires(alert, `variant="scratch"`)
	}
	fires("ImagelabCommandRestarted", `instance="command:9000"`)
	fires("ImagelabCommandCrashLoops", `instance="command:9000"`)

	for i := 0; ; i++ { // until the store's blobs have filled the memory
		if alpine.number(t, "imagelab_cgroup_memory_working_set_bytes") > 0.93*alpine.number(t, "imagelab_cgroup_memory_limit_bytes") {
			break
		}
		blob := append(bytes.Repeat([]byte("x"), 256<<10-4), fmt.Sprintf("%04d", i)...)
		resp, err := client().Post(alpine.app+"/store", "", bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("POST /store = %d after %d blobs, want 201", resp.StatusCode, i)
		}
	}
	for i := range 10 { // two more than fit
		blob := append(bytes.Repeat([]byte("x"), 1<<20-4), fmt.Sprintf("%04d", i)...)
		resp, err := client().Post(scratch.app+"/store", "", bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	fetch(t, "POST", alpine.ops+"/readyz/disable", "")
	fires("ImagelabMemoryNearLimit", `variant="alpine"`)
	fires("ImagelabStoreNearlyFull", `variant="scratch"`)
	fires("ImagelabNotReady", `variant="alpine",state="disabled"`)

	docker(t, "update", "--cpus", "0.05", alpine.name)
	var load sync.WaitGroup
	over := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if resp, err := client().Get(alpine.app + "/"); err == nil {
					resp.Body.Close()
				}
			}
		})
	}
	func() {
		defer load.Wait()
		defer close(over)
		fires("ImagelabThrottled", `variant="alpine"`)
	}()

	answer := make(chan error, 1)
	go func() {
		resp, err := client().Get(scratch.app + "/delay/50s")
		if err == nil {
			resp.Body.Close()
		}
		answer <- err
	}()
	eventually(t, "request in flight", func() bool {
		return scratch.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
	})
	docker(t, "stop", scratch.name)
	if err := <-answer; err == nil {
		t.Error("the request in flight was answered, want it cut")
	}
	fires("ImagelabStopCutRequests", `variant="scratch",server="app"`)
	fires("ImagelabDown", `variant="scratch"`)
	docker(t, "start", scratch.name)
	scratch.awaitHealth(t, "healthy")

	for i := range 3 {
		scrapes(t, s, "scratch")
		scratch.signal(t, syscall.SIGKILL)
		eventually(t, fmt.Sprintf("start after kill %d", i+1), func() bool {
			return inspect[int](t, scratch.name, ".RestartCount") == i+1 && inspect[bool](t, scratch.name, ".State.Running")
		})
		scratch.await(t)
	}
	fires("ImagelabRestarted", `variant="scratch"`)
	fires("ImagelabCrashLoops", `variant="scratch"`)

	careless := filepath.Join(dir, "careless.yaml")
	write(t, careless, "services:\n  scratch:\n    read_only: false\n")
	again := s.compose("-f", careless, "up", "-d", "--no-build", "--no-deps", "scratch")
	if _, stderr, err := execute(t, again); err != nil {
		t.Fatalf("compose up: %v: %s", err, stderr)
	}
	fires("ImagelabAuditRegressed", `variant="scratch",id="rootfs-read-only"`)

	checkDashboard(t, s)
	for _, name := range alerts(t) {
		// It is about a Prometheus without targets; promtool tests it.
		if !fired[name] && name != "ImagelabAbsent" {
			t.Errorf("%s was not tried", name)
		}
	}
}

// checkDashboard runs every query of Grafana's dashboard, as Grafana fills in its variables. All of
// them have data, as by now everything has happened that they show.
func checkDashboard(t *testing.T, s *stack) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana/dashboards/imagelab.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			query := strings.NewReplacer("$__rate_interval", "20s", "$instance", ".+").Replace(target.Expr)
			now := time.Now()
			var answer struct {
				Data struct{ Result []struct{ Values [][2]any } }
			}
			s.ask(t, "/api/v1/query_range?"+url.Values{
				"query": {query}, "step": {"5"},
				"start": {strconv.FormatInt(now.Add(-10*time.Minute).Unix(), 10)}, "end": {strconv.FormatInt(now.Unix(), 10)},
			}.Encode(), &answer)
			if len(answer.Data.Result) == 0 {
				t.Errorf("panel %q: no data for %s", panel.Title, query)
			}
		}
	}
	if queries < 30 {
		t.Errorf("the dashboard has %d queries, want at least 30", queries)
	}
}

// value is what Prometheus answers to a query, "" if that is no single sample.
func (s *stack) value(t *testing.T, query string) string {
	t.Helper()
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	s.ask(t, "/api/v1/query?query="+url.QueryEscape(query), &answer)
	if len(answer.Data.Result) != 1 {
		return ""
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}

// scrapes waits until Prometheus has seen the service once more. timestamp is that of the sample
// for a plain selector alone.
func scrapes(t *testing.T, s *stack, service string) {
	t.Helper()
	query := fmt.Sprintf(`timestamp(imagelab_build_info{instance="%s:9000"})`, service)
	var before string
	eventually(t, "scrape of "+service, func() bool {
		now := s.value(t, query)
		if before == "" {
			before = now
		}
		return now != "" && now != before
	})
}
