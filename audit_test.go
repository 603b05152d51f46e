package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"imagelab/internal/audit"
)

// runAudit runs --audit in this process with checks that read little, as the
// walk through a whole machine takes its time.
func runAudit(environ []string, args ...string) (code int, stdout, stderr string) {
	var out, complaints bytes.Buffer
	code = run(context.Background(), append([]string{"--audit", "--root", "/"}, args...), append([]string{inProcess}, environ...), &out, &complaints)
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
		{name: "no such format", args: []string{"--format", "yaml"}, code: 2, stderr: "want text, json, markdown, sarif or junit"},
		{name: "no such check", args: []string{"--only", "run-as-nonroot"}, code: 2, stderr: "did you mean run-as-non-root?"},
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

// TestAuditExceptions: what is ignored does not count until it expires, and each line
// that is wrong is named.
func TestAuditExceptions(t *testing.T) {
	t.Parallel()
	environ := []string{"DB_PASSWORD=hunter2"}
	for _, tc := range []struct {
		name, file     string
		code           int
		stdout, stderr string
	}{
		{"ignored", "# why\nsecrets-in-env until 2999-01-31: a demo", 0, `"reason": "a demo"`, ""},
		{"expired", "secrets-in-env until 2020-01-31: a demo", 1, "", "line 1: expired on 2020-01-31: secrets-in-env (a demo)"},
		{"expired, and nothing else is wrong", "shell-absent until 2020-01-31: old\nsecrets-in-env until 2999-01-31: a demo", 1, "", "line 1: expired"},
		{"another check", "shell-absent until 2999-01-31: x", 1, "", ""},
		{"no reason", "secrets-in-env until 2999-01-31:", 2, "", "line 1: want ID [PATH] until"},
		{"no such day", "secrets-in-env until 2999-02-31: x", 2, "", "line 1: want ID"},
		{"no such check", "\nsecrets until 2999-01-31: x", 2, "", "line 2"},
		{"a path that is none", "setuid-files su until 2999-01-31: x", 2, "", "begins with /"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join(t.TempDir(), "ignore")
			if err := os.WriteFile(name, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := runAudit(environ, "--only", "secrets-in-env", "--format", "json", "--ignore", name)
			if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("--ignore %q = %d\nstdout: %s\nstderr: %s\nwant %d, %q, %q", tc.file, code, stdout, stderr, tc.code, tc.stdout, tc.stderr)
			}
		})
	}
}

// TestAuditBaseline: what was found before does not count again.
func TestAuditBaseline(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "report.json")
	found := []string{"DB_PASSWORD=hunter2"}
	_, report, _ := runAudit(found, "--only", "secrets-in-env", "--format", "json")
	if err := os.WriteFile(name, []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		environ []string
		code    int
		list    string // that has the check
	}{
		{"the same", found, 0, ""},
		{"another secret beside it", append(found, "API_KEY=abc"), 1, "changed"},
		{"gone", nil, 0, "gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, _ := runAudit(tc.environ, "--only", "secrets-in-env", "--format", "json", "--baseline", name)
			var got struct {
				Baseline map[string][]audit.Change
			}
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != tc.code {
				t.Fatalf("--baseline = %d, %v, want %d", code, err, tc.code)
			}
			for list, changes := range got.Baseline {
				if want := list == tc.list; want != (len(changes) == 1) {
					t.Errorf("%s = %v, want the check there: %t", list, changes, want)
				}
			}
		})
	}
	if code, _, stderr := runAudit(nil, "--baseline", "/dev/null"); code != 2 || !strings.Contains(stderr, "no report") {
		t.Errorf("--baseline of no report = %d, %s, want 2", code, stderr)
	}
}

// TestAuditOfATree audits files in which nothing runs.
func TestAuditOfATree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sh"), []byte("\x7fELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runAudit(nil, "--root", dir, "--format", "json")
	var report audit.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v: %s %s", err, stdout, stderr)
	}
	for _, c := range report.Checks {
		if c.Subject != audit.Contents && c.Subject != audit.Filesystem && c.Subject != audit.Secrets && c.Status != audit.NotApplicable {
			t.Errorf("%s = %s, want %s where nothing runs", c.ID, c.Status, audit.NotApplicable)
		}
		if c.ID == "shell-absent" && (c.Status != audit.Fail || !slices.Equal(c.Affected, []string{"/sh"})) {
			t.Errorf("shell-absent = %s %v, want a failure for /sh", c.Status, c.Affected)
		}
	}
	if code != 1 {
		t.Errorf("--root = %d, want 1", code)
	}
	if code, _, _ := runAudit(nil, "--root", filepath.Join(dir, "none")); code != 2 {
		t.Errorf("--root of nothing = %d, want 2", code)
	}
}

// TestAuditOnTheHost: nobody asked to have the machine searched.
func TestAuditOnTheHost(t *testing.T) {
	t.Parallel()
	if !audit.Live().OnHost() {
		t.Skip("kernel: the tests run in a container here")
	}
	var out, complaints bytes.Buffer
	code := run(t.Context(), []string{"--audit"}, []string{inProcess}, &out, &complaints)
	if code != 2 || !strings.Contains(complaints.String(), "this is no container") || out.Len() > 0 {
		t.Errorf("--audit on the host = %d, %s, %s, want 2 and no report", code, &out, &complaints)
	}
}

func TestAuditFailOn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		only, flag string
		want       int
	}{
		{"user-namespace", "", 0},
		{"user-namespace", "--fail-on-warn", 1},
	} {
		args := []string{"--only", tc.only}
		if tc.flag != "" {
			args = append(args, tc.flag)
		}
		if uids, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(uids))[1] != "0" {
			t.Skip("kernel: the user namespace is another one here")
		}
		if code, stdout, stderr := runAudit(nil, args...); code != tc.want {
			t.Errorf("%v = %d, want %d: %s%s", args, code, tc.want, stdout, stderr)
		}
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
	a := newAuditor(&audit.System{FS: fstest.MapFS{}}, h.app, newConfinement(Config{Sandbox: "off"}, true), reg, m, slog.New(slog.DiscardHandler))
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

// startAuditor serves /audit of a container of which nothing is known but a zombie. Its
// audits wait for that one's end: running gets a value there, and release lets it go on.
func startAuditor(t *testing.T) (s *server, running chan struct{}, release func()) {
	t.Helper()
	s = startServer(t)
	running = make(chan struct{}, 1)
	released := make(chan struct{})
	system := audit.Live()
	zombie := "7 (sh) Z 1 7 7 0 -1 0" + strings.Repeat(" 0", 43) + "\n" // proc_pid_stat(5)
	system.FS = fstest.MapFS{"proc/1/stat": {Data: []byte("1 (sh) S 0\n")}, "proc/7/stat": {Data: []byte(zombie)}}
	system.Sleep = func(ctx context.Context, _ time.Duration) error {
		select {
		case running <- struct{}{}:
		default:
		}
		select {
		case <-released:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a := newAuditor(system, func() *audit.App { return nil }, newConfinement(Config{Sandbox: "off"}, true), prometheus.NewRegistry(), s.metrics, slog.New(slog.DiscardHandler))
	s.handle("/audit", watching, get(a.serve))
	return s, running, sync.OnceFunc(func() { close(released) })
}

func TestHalfClosedClientGetsItsReport(t *testing.T) {
	t.Parallel()
	s, running, release := startAuditor(t)
	conn, r := dial(t, s.ln.Addr().String())
	fmt.Fprint(conn, "GET /audit HTTP/1.1\r\nHost: x\r\n\r\n")
	await(t, "audit", running)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // time to notice, which it may not
	if b, err := r.ReadByte(); err == nil || !isTimeout(err) {
		t.Fatalf("before the report came %q, %v, want nothing", b, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	release()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	var report audit.Report
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil || resp.StatusCode != 200 || len(report.Checks) == 0 {
		t.Errorf("GET /audit = %s, %d checks, %v, want the report", resp.Status, len(report.Checks), err)
	}
}

func TestAuditDuringTheDrainSaysSo(t *testing.T) {
	t.Parallel()
	s, running, _ := startAuditor(t)
	conn, r := dial(t, s.ln.Addr().String())
	fmt.Fprint(conn, "GET /audit HTTP/1.1\r\nHost: x\r\n\r\n")
	await(t, "audit", running)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go s.drain.Shutdown(ctx)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 503 || string(body) != `{"error":"draining"}`+"\n" {
		t.Errorf("GET /audit = %s %q, want 503 draining", resp.Status, body)
	}
}

func TestHeadAuditsNothing(t *testing.T) {
	t.Parallel()
	s, running, _ := startAuditor(t)
	resp, _ := fetch(t, "HEAD", "http://"+s.ln.Addr().String()+"/audit", "")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != asJSON || len(running) > 0 {
		t.Errorf("HEAD /audit = %d %q, %d audits, want 200, JSON and none", resp.StatusCode, resp.Header.Get("Content-Type"), len(running))
	}
}

// await waits for a value.
func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("no %s after %v", what, patience)
	}
}

// TestAuditOnATerminal: the report is no wider than the terminal, and has colours
// unless NO_COLOR or the terminal says otherwise.
func TestAuditOnATerminal(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	open := filepath.Join(root, "open")
	if err := errors.Join(os.WriteFile(open, nil, 0o600), os.Chmod(open, 0o666)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		environ []string
		colours bool
	}{
		{"colours", nil, true},
		{"NO_COLOR", []string{"NO_COLOR=1"}, false},
		{"TERM=dumb", []string{"TERM=dumb"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			const width = 60
			reader, terminal := openTerminal(t)
			if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: width}); err != nil {
				t.Fatal(err)
			}
			var output bytes.Buffer
			copied := make(chan struct{})
			go func() { // until the terminal's last user closes it
				defer close(copied)
				_, _ = io.Copy(&output, reader)
			}()
			code := run(context.Background(), []string{"--audit", "--root", root}, append([]string{inProcess}, tc.environ...), terminal, terminal)
			terminal.Close()
			<-copied
			if code != 0 && code != 1 {
				t.Fatalf("run(--audit) = %d\n%s", code, &output)
			}
			if got := bytes.Contains(output.Bytes(), []byte("\x1b[")); got != tc.colours {
				t.Errorf("colours = %v, want %v:\n%s", got, tc.colours, &output)
			}
			plain := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(output.String(), "")
			if !strings.Contains(plain, "world-writable-paths") {
				t.Errorf("no report: %s", plain)
			}
			for line := range strings.Lines(plain) {
				// The counts are one line for whoever greps them, and a fix is there to be copied.
				line = strings.TrimRight(line, "\r\n")
				if strings.HasPrefix(line, "50 checks:") || strings.Contains(line, "chmod") {
					continue
				}
				if n := utf8.RuneCountInString(line); n > width {
					t.Errorf("%d columns, want at most %d: %s", n, width, line)
				}
			}
		})
	}
}

func TestAuditProgressLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	quick := progressLine{w: &out, began: time.Now()}
	quick.show(100)
	quick.clear()
	if out.Len() > 0 {
		t.Errorf("a quick walk says %q, want nothing", &out)
	}
	slow := progressLine{w: &out, began: time.Now().Add(-time.Minute)}
	slow.show(100)
	slow.show(200) // at once: too soon for another word
	slow.clear()
	if got, want := out.String(), "\r100 files after 60 s\r\x1b[K"; got != want {
		t.Errorf("a walk that began a minute ago says %q, want %q", got, want)
	}
}

// TestAuditSaysHowFarItIs: a walk that takes longer than two seconds shows a line on a terminal, which goes before the
// report comes, and --walk-timeout bounds it. The tree is one directory, and grows until it is large enough for this
// machine: files of zeros, which are searched to their ends and take no room.
func TestAuditSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	audit := func(stderr io.Writer, args ...string) (report string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], append([]string{"--audit", "--root", dir, "--only", "secrets-in-files", "--format", "json"}, args...)...)
		cmd.Env = append(sandboxed(), asProgram+"=1", "PATH="+os.Getenv("PATH"))
		var stdout bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		overdue := time.AfterFunc(scriptPatience, func() { _ = cmd.Process.Kill() })
		defer overdue.Stop()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("--audit %q: %v\n%s", args, err, &stdout)
		}
		return stdout.String()
	}
	grow := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			name := filepath.Join(dir, fmt.Sprint(n))
			if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// seen is how many files the report is about, and what it says of those that are missing.
	seen := func(report, want string) (files int, reason string) {
		t.Helper()
		var r struct {
			Facts  struct{ Image struct{ Files int } }
			Checks []struct{ Status, Reason string }
		}
		if err := json.Unmarshal([]byte(report), &r); err != nil || len(r.Checks) != 1 || r.Checks[0].Status != want {
			t.Fatalf("%v, want one check that is %s in %s", err, want, report)
		}
		return r.Facts.Image.Files, r.Checks[0].Reason
	}

	files, shown := 0, ""
	for began, more := time.Now(), 50; !strings.Contains(shown, "files after"); more = files {
		if time.Since(began) > scriptPatience {
			t.Fatalf("no line on the terminal for %d files", files)
		}
		grow(files, files+more)
		files += more
		reader, terminal := openTerminal(t)
		if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
			t.Fatal(err)
		}
		var output bytes.Buffer
		copied := make(chan struct{})
		go func() { // until the terminal's last user closes it
			defer close(copied)
			_, _ = io.Copy(&output, reader)
		}()
		report := audit(terminal)
		terminal.Close()
		<-copied
		shown = output.String()
		if n, reason := seen(report, "pass"); n != files || reason != "" {
			t.Fatalf("the report is about %d files (%s), want %d", n, reason, files)
		}
	}
	if !regexp.MustCompile(`^(\r\d+ files after \d+ s)+\r\x1b\[K$`).MatchString(shown) {
		t.Errorf("the terminal shows %q, want one line that counts, and goes", shown)
	}
	for _, word := range regexp.MustCompile(`(\d+) files after (\d+) s`).FindAllStringSubmatch(shown, -1) {
		if n, _ := strconv.Atoi(word[1]); n < 1 || n >= files || word[2] < "2" && len(word[2]) == 1 {
			t.Errorf("the terminal shows %q, want fewer than %d files, and no earlier than after 2 s", word[0], files)
		}
	}

	var stderr bytes.Buffer
	n, reason := seen(audit(&stderr, "--walk-timeout", "100ms"), "unknown")
	if n >= files || reason != "the walk was stopped after 100ms, with 1 directory or more to go" || stderr.Len() > 0 {
		t.Errorf("within 100 ms it has seen %d of %d files, %q; without a terminal it says %q", n, files, reason, &stderr)
	}
}
