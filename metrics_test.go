package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
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
		fmt.Sprintf(`imagelab_build_info{commit=%q,goversion=%q,variant="scratch",version=%q}`, commit, goVersion(t), version): "1",
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

func TestLabelsAreAClosedSet(t *testing.T) {
	t.Parallel()
	in := start(t)
	for i := range 50 {
		ask(t, fmt.Sprintf("M%d", i), fmt.Sprintf("%s/%d?%d", in.app, i, i), "")
		ask(t, fmt.Sprintf("M%d", i), fmt.Sprintf("%s/%d?%d", in.ops, i, i), "")
		ask(t, "GET", fmt.Sprintf("%s/store/%d", in.app, i), "")
	}
	_, body := fetch(t, "GET", in.ops+"/metrics", "")
	var got []string
	for line := range strings.Lines(body) {
		if series, _, _ := strings.Cut(line, "} "); strings.HasPrefix(line, "imagelab_http_requests_total{") {
			got = append(got, series+"}")
		}
	}
	want := []string{
		`imagelab_http_requests_total{code="404",method="GET",route="/store/{sha256}",server="app"}`,
		`imagelab_http_requests_total{code="404",method="other",route="unmatched",server="app"}`,
		`imagelab_http_requests_total{code="404",method="other",route="unmatched",server="ops"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("series after 150 odd requests:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
