package main

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"imagelab/internal/audit"
)

func TestExpositionIsLintClean(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string][]string{
		"on a listener of their own": {"IMAGELAB_FAULTS=true", "IMAGELAB_VARIANT=scratch"},
		"on the app listener":        {"IMAGELAB_OPS_ADDR="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, environ...)
			// Series that only appear with their first event.
			for _, path := range []string{"/", "/health", "/panic", "/no/such"} {
				ask(t, "GET", in.app+path, "")
			}
			ask(t, "POST", in.app+"/store", "x")
			got := ask(t, "GET", in.ops+"/metrics", "")
			problems, err := promlint.New(strings.NewReader(got.body)).Lint()
			if err != nil {
				t.Fatalf("lint: %v", err)
			}
			for _, p := range problems {
				t.Errorf("lint: %s: %s", p.Metric, p.Text)
			}
		})
	}
}

func TestExpositionFormats(t *testing.T) {
	t.Parallel()
	in := start(t)
	for name, tc := range map[string]struct {
		accept, contentType, end string
	}{
		"nothing asked":       {"*/*", "text/plain; version=0.0.4; charset=utf-8", "\n"},
		"what a browser asks": {"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8", "\n"},
		"OpenMetrics":         {"application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8", "\n# EOF\n"},
		"what Prometheus asks": {"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
			"application/openmetrics-text; version=1.0.0; charset=utf-8", "\n# EOF\n"},
		"what Prometheus asks for native histograms": {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
			"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ask(t, "GET", in.ops+"/metrics", "", "Accept: "+tc.accept)
			if got.code != 200 || !strings.HasPrefix(got.contentType, tc.contentType) || !strings.HasSuffix(got.body, tc.end) {
				t.Errorf("GET /metrics with Accept %q = %d %q … %q, want %q … %q", tc.accept, got.code, got.contentType, got.body[max(0, len(got.body)-40):], tc.contentType, tc.end)
			}
		})
	}
	t.Run("compressed", func(t *testing.T) {
		t.Parallel()
		resp, body := fetch(t, "GET", in.ops+"/metrics", "", "Accept-Encoding: gzip")
		if resp.Header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(body, "\x1f\x8b") {
			t.Errorf("GET /metrics with Accept-Encoding gzip = %v", resp.Header)
		}
	})
}

func TestCountersCount(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_MAX_BODY=4B", "IMAGELAB_VARIANT=scratch")
	for _, request := range []string{
		"GET /", "GET /", "GET /?x", "HEAD /", "POST /", "OPTIONS /", "BREW /", "GET /health", "GET /health", "HEAD /health", "GET /proof",
		"GET /no/such", "GET /no/such/either", "XYZZY /no/such", "GET /status/418", "GET /status/503", "GET /panic", "POST /echo",
	} {
		method, path, _ := strings.Cut(request, " ")
		body := ""
		if path == "/echo" {
			body = "too large"
		}
		ask(t, method, in.app+path, body)
	}
	ask(t, "GET", in.ops+"/livez", "")
	for series, want := range map[string]string{
		`imagelab_http_requests_total{code="200",method="GET",route="/{$}",server="app"}`:                 "3",
		`imagelab_http_requests_total{code="200",method="HEAD",route="/{$}",server="app"}`:                "1",
		`imagelab_http_requests_total{code="200",method="OPTIONS",route="/{$}",server="app"}`:             "1",
		`imagelab_http_requests_total{code="405",method="POST",route="/{$}",server="app"}`:                "1",
		`imagelab_http_requests_total{code="405",method="other",route="/{$}",server="app"}`:               "1",
		`imagelab_http_requests_total{code="200",method="GET",route="/health",server="app"}`:              "2",
		`imagelab_http_requests_total{code="400",method="GET",route="/proof",server="app"}`:               "1",
		`imagelab_http_requests_total{code="404",method="GET",route="unmatched",server="app"}`:            "2",
		`imagelab_http_requests_total{code="404",method="other",route="unmatched",server="app"}`:          "1",
		`imagelab_http_requests_total{code="418",method="GET",route="/status/{code}",server="app"}`:       "1",
		`imagelab_http_requests_total{code="503",method="GET",route="/status/{code}",server="app"}`:       "1",
		`imagelab_http_requests_total{code="500",method="GET",route="/panic",server="app"}`:               "1",
		`imagelab_http_requests_total{code="413",method="POST",route="/echo",server="app"}`:               "1",
		`imagelab_http_requests_total{code="200",method="GET",route="/livez",server="ops"}`:               "1",
		`imagelab_http_request_duration_seconds_count{method="GET",route="/{$}",server="app"}`:            "3",
		`imagelab_http_request_duration_seconds_bucket{method="GET",route="/{$}",server="app",le="+Inf"}`: "3",
		`imagelab_http_requests_in_flight{route="/{$}",server="app"}`:                                     "0",
		`imagelab_http_requests_in_flight{route="/metrics",server="ops"}`:                                 "1", // this one
		`imagelab_http_requests_rejected_total{reason="body"}`:                                            "1",
		`imagelab_http_panics_total`:                              "1",
		`imagelab_health_probes_total{status="ok"}`:               "3",
		`imagelab_health_probes_total{status="draining"}`:         "0",
		`imagelab_health_probe_duration_seconds_count`:            "3",
		`imagelab_state{state="starting"}`:                        "0",
		`imagelab_state{state="ready"}`:                           "1",
		`imagelab_state{state="disabled"}`:                        "0",
		`imagelab_state{state="draining"}`:                        "0",
		`imagelab_actor_up{actor="signals"}`:                      "1",
		`imagelab_actor_up{actor="app"}`:                          "1",
		`imagelab_actor_up{actor="ops"}`:                          "1",
		`promhttp_metric_handler_errors_total{cause="encoding"}`:  "0",
		`promhttp_metric_handler_errors_total{cause="gathering"}`: "0",
		`imagelab_reaped_total`:                                   "0",
		fmt.Sprintf(`imagelab_build_info{commit=%q,goversion=%q,image_variant="scratch",version=%q}`, commit, goVersion(t), version): "1",
	} {
		if got := in.metric(t, series); got != want {
			t.Errorf("%s = %q, want %s", series, got, want)
		}
	}
	_, body := fetch(t, "GET", in.ops+"/metrics", "")
	for _, family := range []string{"go_goroutines", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} {
		if !strings.Contains(body, "\n# TYPE "+family+" ") {
			t.Errorf("GET /metrics lacks %s", family)
		}
	}
}

func TestDashboardIsMadeOfMetricsThatExist(t *testing.T) {
	t.Parallel()
	in := start(t)
	ask(t, "GET", in.app+"/health", "")
	_, body := fetch(t, "GET", in.ops+"/metrics", "")
	for _, name := range []string{
		metricRequests, metricPanics, metricInFlight, metricDuration, metricConns, metricProbeDuration,
		metricStoreBytes, metricStoreCapacity, metricStoreBlobs, metricStoreFree,
		metricResident, metricHeap, metricCPU, metricOpenFiles, metricGoroutines,
	} {
		if !strings.Contains(body, "\n# TYPE "+name+" ") {
			t.Errorf("GET /metrics has no %s", name)
		}
	}
	registered := registeredMetrics(t)
	for _, name := range []string{
		metricRejected, metricStoreRejected, metricDrainDuration, metricDrainCut, metricAuditChecks,
		metricMemory, metricWorkingSet, metricMemoryLimit, metricCPULimit, metricCPUThrottled,
	} {
		if _, is := registered[name]; !is {
			t.Errorf("%s is not registered", name)
		}
	}
}

// goVersion is what the program says that it was built with.
func goVersion(t *testing.T) string {
	t.Helper()
	_, stdout, _ := invoke(t, nil, "--version")
	return regexp.MustCompile(`go\d\S*`).FindString(stdout)
}

func TestActorsAreDownWhenTheyHaveReturned(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	conn, _ := dial(t, host(in.app))
	fmt.Fprint(conn, "GET /delay/10m HTTP/1.1\r\nHost: x\r\n\r\n") // the drain waits for it
	eventually(t, "request in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
	})
	in.cancel()
	for series, want := range map[string]string{
		`imagelab_actor_up{actor="signals"}`: "0",
		`imagelab_actor_up{actor="app"}`:     "0", // its listener is closed
		`imagelab_actor_up{actor="ops"}`:     "1",
		`imagelab_state{state="ready"}`:      "0",
		`imagelab_state{state="draining"}`:   "1",
	} {
		eventually(t, series+" "+want, func() bool { return in.metric(t, series) == want })
	}
	conn.Close()
	if code := in.wait(t); code != 0 {
		t.Errorf("exit = %d, want 0", code)
	}
}

// TestLabelsAreAClosedSet: what a client makes up is no label, and after the first
// odd requests no other ones make a series.
func TestLabelsAreAClosedSet(t *testing.T) {
	t.Parallel()
	in := start(t)
	odd := func(from, to int) []string {
		for i := from; i < to; i++ {
			ask(t, fmt.Sprintf("M%d", i), fmt.Sprintf("%s/%d?%d", in.app, i, i), "")
			ask(t, fmt.Sprintf("M%d", i), fmt.Sprintf("%s/%d?%d", in.ops, i, i), "")
			ask(t, "GET", fmt.Sprintf("%s/store/%d", in.app, i), "")
			ask(t, "GET", fmt.Sprintf("%s/assets/app.%08x.js", in.ops, i), "")
		}
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		var all []string
		for line := range strings.Lines(body) {
			if end := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, "imagelab_") {
				all = append(all, line[:end])
			}
		}
		return all
	}
	odd(0, 2)
	before := odd(2, 4) // the requests for /metrics are a series, too
	after := odd(4, 50)
	if strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("series after four odd requests of each kind:\n%s\nand after fifty\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	var got []string
	for _, series := range after {
		if strings.HasPrefix(series, "imagelab_http_requests_total{") {
			got = append(got, series)
		}
	}
	want := []string{
		`imagelab_http_requests_total{code="200",method="GET",route="/metrics",server="ops"}`,
		`imagelab_http_requests_total{code="404",method="GET",route="/assets/{name}",server="ops"}`,
		`imagelab_http_requests_total{code="404",method="GET",route="/store/{sha256}",server="app"}`,
		`imagelab_http_requests_total{code="404",method="other",route="unmatched",server="app"}`,
		`imagelab_http_requests_total{code="404",method="other",route="unmatched",server="ops"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("series after 200 odd requests:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestNoLabelChangesWithARelease: the names of the page's files hold their content.
func TestNoLabelChangesWithARelease(t *testing.T) {
	t.Parallel()
	for name, environ := range map[string]string{"own listener": "IMAGELAB_OPS_ADDR=127.0.0.1:0", "app listener": "IMAGELAB_OPS_ADDR="} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, environ)
			hash := regexp.MustCompile(`assets/[a-z]+\.([0-9a-f]{8})\.[a-z]+`)
			_, body := fetchPage(t, in.ops+"/")
			files := hash.FindAllStringSubmatch(string(decompress(t, []byte(body))), -1)
			if len(files) < 3 {
				t.Fatalf("the page refers to %v", files)
			}
			for _, file := range files {
				if resp, _ := fetchPage(t, in.ops+"/"+file[0]); resp.StatusCode != 200 {
					t.Errorf("GET %s = %d, want 200", file[0], resp.StatusCode)
				}
			}
			_, exposition := fetch(t, "GET", in.ops+"/metrics", "")
			for _, file := range files {
				if strings.Contains(exposition, file[1]) {
					t.Errorf("GET /metrics has a label with the hash of %s", file[0])
				}
			}
			if !strings.Contains(exposition, `assets/{name}",server=`) {
				t.Error("GET /metrics counts no asset")
			}
		})
	}
}

func TestStreamsAreCountedAndNotTimed(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true", "IMAGELAB_PPROF=true")
	ask(t, "GET", in.app+"/stream/1ms", "")
	ask(t, "GET", in.app+"/delay/1ms", "")
	ask(t, "GET", in.ops+"/debug/pprof/trace?seconds=1", "")
	ask(t, "GET", in.ops+"/debug/pprof/profile?seconds=none", "")
	ask(t, "HEAD", in.ops+"/events", "")
	for route, server := range map[string]string{
		"/stream/{duration}": "app", "/debug/pprof/trace": "ops", "/debug/pprof/profile": "ops", "/events": "ops",
	} {
		method, code := "GET", "200"
		switch route {
		case "/events":
			method = "HEAD"
		case "/debug/pprof/profile":
			code = "400"
		}
		labels := fmt.Sprintf(`method=%q,route=%q,server=%q}`, method, route, server)
		if got := in.metric(t, fmt.Sprintf(`imagelab_http_requests_total{code=%q,%s`, code, labels)); got != "1" {
			t.Errorf("%s is counted %q times, want once", route, got)
		}
		if got := in.metric(t, "imagelab_http_request_duration_seconds_count{"+labels); got != "" {
			t.Errorf("%s is timed %q times, want never", route, got)
		}
		if got := in.metric(t, fmt.Sprintf(`imagelab_http_requests_in_flight{route=%q,server=%q}`, route, server)); got != "0" {
			t.Errorf("%s in flight = %q, want 0", route, got)
		}
	}
	if got := in.metric(t, `imagelab_http_request_duration_seconds_count{method="GET",route="/delay/{duration}",server="app"}`); got != "1" {
		t.Errorf("/delay is timed %q times, want once", got)
	}
}

// TestBoundsOfDurations: package compare takes bounds that are closer than a factor of
// two for neighbours, and common objectives need a bound of their own.
func TestBoundsOfDurations(t *testing.T) {
	t.Parallel()
	in := start(t)
	ask(t, "GET", in.app+"/", "")
	_, exposition := fetch(t, "GET", in.ops+"/metrics", "")
	bound := regexp.MustCompile(`imagelab_http_request_duration_seconds_bucket\{method="GET",route="/\{\$\}",server="app",le="([0-9.e-]+)"\}`)
	var bounds []float64
	for _, found := range bound.FindAllStringSubmatch(exposition, -1) {
		seconds, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(bounds); n > 0 && (seconds <= bounds[n-1] || seconds >= 2*bounds[n-1]) {
			t.Errorf("after the bound %v comes %v, want more, and less than twice that", bounds[n-1], seconds)
		}
		bounds = append(bounds, seconds)
	}
	for _, objective := range prometheus.DefBuckets {
		if !slices.Contains(bounds, objective) {
			t.Errorf("no bound of %v in %v", objective, bounds)
		}
	}
	documented := strings.Join(strings.Fields(string(readFile(t, "docs/metrics.md"))), " ")
	var list []string
	for _, seconds := range bounds {
		list = append(list, strconv.FormatFloat(seconds, 'f', -1, 64))
	}
	if !strings.Contains(documented, strings.Join(list, " ")) {
		t.Errorf("docs/metrics.md lacks the bounds %v", list)
	}
}

func TestCapsAreExposed(t *testing.T) {
	t.Parallel()
	own := start(t, "IMAGELAB_MAX_CONNS=40", "IMAGELAB_MAX_IN_FLIGHT=20")
	shared := start(t, "IMAGELAB_MAX_CONNS=40", "IMAGELAB_OPS_ADDR=")
	for _, tc := range []struct {
		name   string
		in     *instance
		series string
		want   string
	}{
		{"connections", own, `imagelab_connections_max{server="app"}`, "40"},
		{"connections of the ops listener", own, `imagelab_connections_max{server="ops"}`, "128"}, // with plenty of descriptors
		{"in flight", own, `imagelab_http_requests_in_flight_max{server="app"}`, "20"},
		{"no cap in flight of the ops listener", own, `imagelab_http_requests_in_flight_max{server="ops"}`, ""},
		{"uploads", own, `imagelab_uploads_max`, "10"},
		{"in flight, derived", shared, `imagelab_http_requests_in_flight_max{server="app"}`, "30"},
		{"no ops listener", shared, `imagelab_connections_max{server="ops"}`, ""},
	} {
		if got := tc.in.metric(t, tc.series); got != tc.want {
			t.Errorf("%s: %s = %q, want %q", tc.name, tc.series, got, tc.want)
		}
	}
}

func TestCgroupIsExposedWhereItIsKnown(t *testing.T) {
	t.Parallel()
	t.Run("this machine's", func(t *testing.T) {
		t.Parallel()
		in := start(t)
		u := audit.Live().Usage()
		for series, known := range map[string]bool{
			metricMemory: u.MemoryBytes != nil, metricWorkingSet: u.WorkingSetBytes != nil, metricMemoryLimit: u.MemoryLimitBytes != nil,
			metricCPULimit: u.CPUs != nil, metricCPUThrottled: u.Throttling != nil,
		} {
			if got := in.metric(t, series); (got != "") != known || known && series == metricMemory && got == "0" {
				t.Errorf("%s = %q, want it where the kernel tells it: %v", series, got, known)
			}
		}
	})
	n := func(n int64) *int64 { return &n }
	half := 0.5
	for _, tc := range []struct {
		name  string
		usage audit.Usage
		want  string
	}{
		{"all", audit.Usage{
			MemoryBytes: n(300), WorkingSetBytes: n(200), MemoryLimitBytes: n(1000), CPUs: &half,
			Throttling: &audit.Throttling{Periods: 12, ThrottledPeriods: 6, ThrottledSeconds: 0.25},
		}, "cpu_limit_cores 0.5 cpu_periods_total 12 cpu_throttled_periods_total 6 cpu_throttled_seconds_total 0.25 " +
			"memory_bytes 300 memory_limit_bytes 1000 memory_working_set_bytes 200"},
		{"no limits", audit.Usage{MemoryBytes: n(300), Throttling: &audit.Throttling{}},
			"cpu_periods_total 0 cpu_throttled_periods_total 0 cpu_throttled_seconds_total 0 memory_bytes 300"},
		{"nothing", audit.Usage{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			reg.MustRegister(cgroupMetrics{func() audit.Usage { return tc.usage }})
			answer := httptest.NewRecorder()
			newMetricsHandler(reg, slog.New(slog.DiscardHandler)).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
			var got []string
			for line := range strings.Lines(answer.Body.String()) {
				if series, ok := strings.CutPrefix(line, "imagelab_cgroup_"); ok {
					got = append(got, strings.TrimSpace(series))
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("exposed: %v, want %s", got, tc.want)
			}
		})
	}
}

// registeredMetrics returns what the serving process registers, "labels: help" by name.
func registeredMetrics(t *testing.T) map[string]string {
	t.Helper()
	reg := prometheus.NewRegistry()
	log := slog.New(slog.DiscardHandler)
	h := newHealth(time.Now())
	m := newMetrics(reg, h, "", new(atomic.Int64))
	openStore(Config{DataDir: t.TempDir()}, 1, reg, m, log)
	newFrontMetrics(reg, m)
	confined := newConfinement(Config{}, false)
	reg.MustRegister(confined)
	newAuditor(audit.Live(), h.app, confined, reg, m, log)
	reg.MustRegister(cgroupMetrics{audit.Live().Usage})
	newMetricsHandler(reg, log)
	descs := make(chan *prometheus.Desc)
	go func() { reg.Describe(descs); close(descs) }()
	form := regexp.MustCompile(`^Desc\{fqName: "(.*)", help: "(.*?)", (?:unit: .*, )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}(?:, unit: .*)?\}$`)
	found := map[string]string{}
	for desc := range descs {
		parts := form.FindStringSubmatch(desc.String())
		if parts == nil {
			t.Fatalf("cannot read %v", desc)
		}
		var labels []string
		for _, pair := range strings.Split(parts[3], ",") {
			if name, _, ok := strings.Cut(pair, "="); ok {
				labels = append(labels, name)
			}
		}
		if parts[4] != "" {
			labels = append(labels, strings.Split(parts[4], ",")...)
		}
		found[parts[1]] = strings.Join(labels, " ") + ": " + parts[2]
	}
	return found
}

// TestMetricsPageIsComplete compares docs/metrics.md with what is registered, and with
// the types that a process exposes.
func TestMetricsPageIsComplete(t *testing.T) {
	t.Parallel()
	in := start(t)
	ask(t, "GET", in.app+"/health", "")
	_, exposition := fetch(t, "GET", in.ops+"/metrics", "")
	types := map[string]string{}
	for line := range strings.Lines(exposition) {
		if words := strings.Fields(line); len(words) == 4 && words[1] == "TYPE" {
			types[words[2]] = words[3]
		}
	}
	documented := map[string]bool{}
	registered := registeredMetrics(t)
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| (.*?) ?\\| (.*) \\|$")
	for _, cells := range row.FindAllStringSubmatch(string(readFile(t, "docs/metrics.md")), -1) {
		name, kind, labels, help := cells[1], cells[2], strings.ReplaceAll(cells[3], "`", ""), cells[4]
		documented[name] = true
		if got, want := labels+": "+help, registered[name]; got != want {
			t.Errorf("docs/metrics.md says of %s %q, want %q", name, got, want)
		}
		if want, exposed := types[name]; exposed && want != kind {
			t.Errorf("docs/metrics.md says that %s is a %s, want %s", name, kind, want)
		}
	}
	for name, what := range registered {
		if strings.HasPrefix(name, "imagelab_") && !documented[name] {
			t.Errorf("docs/metrics.md lacks %s (%s)", name, what)
		}
	}
}

// TestNoLabelIsTheScrapes: Prometheus renames a label that the scrape sets as well.
func TestNoLabelIsTheScrapes(t *testing.T) {
	t.Parallel()
	taken := map[string]bool{"job": true, "instance": true}
	for _, set := range regexp.MustCompile(`labels: \{ (.*) \}`).FindAllStringSubmatch(string(readFile(t, "deploy/prometheus/prometheus.yml")), -1) {
		for _, pair := range strings.Split(set[1], ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), ":")
			taken[name] = true
		}
	}
	if !taken["variant"] {
		t.Fatal("deploy/prometheus/prometheus.yml sets no variant")
	}
	for name, what := range registeredMetrics(t) {
		labels, _, _ := strings.Cut(what, ":")
		for _, label := range strings.Fields(labels) {
			if taken[label] {
				t.Errorf("%s has the label %q, which the scrape sets", name, label)
			}
		}
	}
}
