package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imagelab/internal/audit"
)

// runAudit runs --audit in this process with checks that read little, as the
// walk through a whole machine takes its time.
func runAudit(environ []string, args ...string) (code int, stdout, stderr string) {
	var out, complaints bytes.Buffer
	code = run(context.Background(), append([]string{"--audit"}, args...), environ, &out, &complaints)
	return code, out.String(), complaints.String()
}

func TestAuditMode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name           string
		args           []string
		environ        []string
		code           int
		stdout, stderr string // parts of it
	}{
		{name: "passes", args: []string{"--only", "secrets-in-env"}, code: 0, stdout: "1 passed"},
		{name: "fails, by name and without the value", args: []string{"--only", "secrets-in-env"},
			environ: []string{"DB_PASSWORD=hunter2"}, code: 1, stdout: "DB_PASSWORD"},
		{name: "LAB_TOKEN is public", args: []string{"--only", "secrets-in-env"}, environ: []string{"LAB_TOKEN=abc"}, code: 0, stdout: "1 passed"},
		{name: "a foreign image's variables are no business of the audit", args: []string{"--only", "secrets-in-env"},
			environ: []string{"PORT=abc", "IMAGELAB_NO_SUCH=1"}, code: 0, stdout: "1 passed"},
		{name: "a failure below the threshold", args: []string{"--only", "secrets-in-env", "--fail-on", "high"},
			environ: []string{"DB_PASSWORD=hunter2"}, code: 0, stdout: "DB_PASSWORD"},
		{name: "markdown", args: []string{"--only", "secrets-in-env,pid-namespace", "--format", "markdown"}, stdout: "| secrets-in-env"},
		{name: "no such format", args: []string{"--format", "yaml"}, code: 2, stderr: "want text, json or markdown"},
		{name: "no such check", args: []string{"--only", "run-as-nonroot"}, code: 2, stderr: `did you mean "run-as-non-root"`},
		{name: "no such check to skip", args: []string{"--skip", "x"}, code: 2, stderr: `no check "x"`},
		{name: "no such severity", args: []string{"--fail-on", "bad"}, code: 2, stderr: "critical"},
		{name: "no argument", args: []string{"http://x/"}, code: 2, stderr: "unexpected argument"},
		{name: "bad budget", environ: []string{"IMAGELAB_IMAGE_BUDGET=large"}, code: 2, stderr: "IMAGELAB_IMAGE_BUDGET"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runAudit(tc.environ, tc.args...)
			if strings.Contains(strings.Join(tc.args, " "), "pid-namespace") {
				tc.code = code // the machine's, not the test's
			}
			if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("run(--audit %v) = %d\nstdout: %s\nstderr: %s\nwant %d, %q, %q", tc.args, code, stdout, stderr, tc.code, tc.stdout, tc.stderr)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Error("the value of a secret is in the output")
			}
			if strings.Contains(stdout, "\x1b") {
				t.Error("colours without a terminal")
			}
		})
	}
}

func TestAuditJSONHasTheSchemaOfThePackage(t *testing.T) {
	t.Parallel()
	_, stdout, _ := runAudit(nil, "--only", "secrets-in-env", "--format", "json")
	var report audit.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.Schema != audit.Schema || len(report.Checks) != 1 || report.Checks[0].Status != audit.Pass {
		t.Errorf("report = schema %d, %+v", report.Schema, report.Checks)
	}
}

// TestAuditsAtOnceAreBounded holds one, so that all who ask have to wait for it.
func TestAuditsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	h := newHealth(time.Now())
	m := newMetrics(reg, h, "", new(atomic.Int64))
	a := newAuditor(&audit.System{FS: fstest.MapFS{}}, h.app, reg, m, slog.New(slog.DiscardHandler))
	srv := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(srv.Close)

	const more = 5
	answers := make(chan answer, maxAudits+more)
	a.mu.Lock()
	for range maxAudits + more {
		go func() { answers <- ask(t, "GET", srv.URL, "") }()
	}
	for range more {
		want := answer{503, asJSON, "", `{"error":"overloaded","want":"at most 8 at a time"}` + "\n"}
		select {
		case got := <-answers:
			if got != want {
				t.Errorf("GET /audit beside %d that wait = %v, want %v", maxAudits, got, want)
			}
		case <-time.After(patience):
			t.Error("more wait for an audit than may")
		}
	}
	a.mu.Unlock()
	for range maxAudits {
		if got := <-answers; got.code != 200 || !strings.Contains(got.body, `"schema"`) {
			t.Errorf("GET /audit of one that waited = %v, want the report", got)
		}
	}
}

func TestServerOutsideAContainerLeavesTheMachineAlone(t *testing.T) {
	t.Parallel()
	if !audit.Live().OnHost() {
		t.Skip("kernel: these tests run in a container, which the server audits")
	}
	in := start(t)
	if resp, body := fetch(t, "GET", in.ops+"/audit", ""); resp.StatusCode != 404 || !strings.Contains(body, "not-in-a-container") {
		t.Errorf("GET /audit = %d %s, want 404", resp.StatusCode, body)
	}
	if got := in.metric(t, "imagelab_audit_duration_seconds"); got != "" {
		t.Errorf("imagelab_audit_duration_seconds = %s, want none", got)
	}
}
