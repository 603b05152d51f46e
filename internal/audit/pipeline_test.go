package audit

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"slices"
	"strings"
	"testing"
)

func TestPodSecurityLevel(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, posture string
		edit          func(*fixture)
		level         string
		why           []string
	}{
		{"hardened", "hardened-scratch", nil, "restricted", []string{}},
		{"the default of an engine", "root-alpine", nil, "baseline", []string{"run-as-non-root", "capabilities-dropped", "no-new-privileges"}},
		{"the host's network", "hardened-scratch", hostNamespace("net"), "privileged", []string{"network-namespace"}},
		{"a directory of the host", "hardened-scratch", hostMount("/srv/app /d ro - ext4 /dev/vda rw"), "privileged", []string{"sensitive-host-mounts"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, tc.posture)
			if tc.edit != nil {
				tc.edit(f)
			}
			if got := f.run().PodSecurity; got == nil || got.Level != tc.level || !slices.Equal(got.Why, tc.why) {
				t.Errorf("Pod Security = %+v, want %s for %v", got, tc.level, tc.why)
			}
		})
	}
}

func TestPodSecurityNeedsItsChecks(t *testing.T) {
	t.Parallel()
	r, err := Run(t.Context(), load(t, "hardened-scratch").sys, Options{Skip: []string{"seccomp-filter"}})
	if err != nil || r.PodSecurity != nil {
		t.Errorf("Pod Security without the check of seccomp = %+v, %v, want none", r.PodSecurity, err)
	}
}

// TestExceptionForPaths: one covers a finding only with each path that is affected.
func TestExceptionForPaths(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	f.file("bin/su", "04755", "\x7fELF")
	f.file("bin/mount", "04755", "\x7fELF")
	for _, tc := range []struct {
		file string
		want bool
	}{
		{"setuid-files /bin/su until 2026-01-02: x", false},
		{"setuid-files /bin/su until 2026-01-02: x\nsetuid-files /bin/mount until 2026-01-02: x", true},
		{"setuid-files until 2026-01-02: x", true},
		{"setuid-files until 2026-01-01: x", false}, // the day before
	} {
		exceptions, err := ParseExceptions(strings.NewReader(tc.file))
		if err != nil {
			t.Fatal(err)
		}
		r := f.run()
		r.Except(exceptions)
		if got := r.result(t, "setuid-files").Ignored != nil; got != tc.want {
			t.Errorf("%q: ignored %t, want %t", tc.file, got, tc.want)
		}
	}
}

// TestExceptionsSayTheirLines: each line that is none is named, comments and empty lines counted.
func TestExceptionsSayTheirLines(t *testing.T) {
	t.Parallel()
	good, err := ParseExceptions(strings.NewReader("# a\n\nsetuid-files /bin/su until 2026-01-02: x\n"))
	if err != nil || len(good) != 1 || good[0] != (Exception{Line: 3, ID: "setuid-files", Path: "/bin/su", Expires: "2026-01-02", Reason: "x"}) {
		t.Errorf("%+v, %v, want the one of line 3", good, err)
	}
	_, err = ParseExceptions(strings.NewReader("setuid-files until 2026-01-02\n# a\nsetuid-files su until 2026-01-02: x\nsetuid-file until 2026-01-02: x\n"))
	for _, want := range []string{"line 1: want ID", "line 3: path", "line 4: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestReadReport(t *testing.T) {
	t.Parallel()
	r := load(t, "root-alpine").run()
	var out bytes.Buffer
	if err := WriteJSON(&out, r); err != nil {
		t.Fatal(err)
	}
	again, err := ReadReport(bytes.NewReader(out.Bytes()))
	if err != nil || len(again.Checks) != len(r.Checks) || again.Summary != r.Summary {
		t.Errorf("what was written is read as %+v, %v", again, err)
	}
	for text, want := range map[string]string{
		out.String() + "x": "behind it", out.String() + out.String(): "behind it",
		"": "no report", "[]": "no report", `{"schema": 999}`: "schema 999, want"} {
		if _, err := ReadReport(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestSince: what is new since the baseline counts, and so does what has changed.
func TestSince(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		before, after Status
		moved         bool   // other paths are affected
		want          string // the list
		fails         bool
	}{
		{Pass, Pass, false, "", false}, {Pass, Fail, false, "new", true}, {Pass, Warn, false, "new", true},
		{Unknown, Fail, false, "new", true}, {Warn, Fail, false, "new", true}, {"", Fail, false, "new", true},
		{Fail, Fail, false, "", false}, {Warn, Warn, false, "", false}, {Fail, Fail, true, "changed", true}, {Warn, Warn, true, "changed", true},
		{Fail, Warn, false, "changed", true}, {Fail, Pass, false, "gone", false}, {Warn, Pass, false, "gone", false},
		{Fail, Unknown, false, "gone", true}, {Pass, Unknown, false, "", true}, {Unknown, Pass, true, "", false}, {"", Pass, false, "", false},
	} {
		old := &Report{}
		if tc.before != "" {
			old.Checks = []Result{{ID: "other", Status: Fail}, {ID: "x", Status: tc.before, Affected: []string{"/a"}}}
		}
		r := &Report{Checks: []Result{{ID: "x", Status: tc.after, Affected: []string{"/a"}}}}
		if tc.moved {
			r.Checks[0].Affected = []string{"/a", "/b"}
		}
		r.Since(old)
		got := ""
		for list, changes := range map[string][]Change{"new": r.Baseline.New, "gone": r.Baseline.Gone, "changed": r.Baseline.Changed} {
			for _, c := range changes {
				if got += list; c != (Change{"x", tc.before, tc.after}) {
					t.Errorf("%s then %s: %+v", tc.before, tc.after, c)
				}
			}
		}
		if got != tc.want {
			t.Errorf("%s then %s, moved %t: %q, want %q", tc.before, tc.after, tc.moved, got, tc.want)
		}
		if fails := r.Fails(FailOn{Warn: true, Unknown: true}); fails != tc.fails {
			t.Errorf("%s then %s, moved %t: fails %t, want %t", tc.before, tc.after, tc.moved, fails, tc.fails)
		}
	}
}

func TestLittleToSee(t *testing.T) {
	t.Parallel()
	half := len(checks) / 2
	for unknown, want := range map[int]bool{0: false, half: false, half + 1: true, len(checks): true} {
		if got := (&Report{Summary: Summary{Unknown: unknown}}).LittleToSee(); got != want {
			t.Errorf("with %d of %d not known: %t, want %t", unknown, len(checks), got, want)
		}
	}
}

// TestFailOn: warnings and unknowns count where they are asked for, from the severity on.
func TestFailOn(t *testing.T) {
	t.Parallel()
	r := &Report{Checks: []Result{{Severity: Medium, Status: Warn}, {Severity: High, Status: Unknown}}}
	for _, tc := range []struct {
		on   FailOn
		want bool
	}{
		{FailOn{}, false}, {FailOn{Warn: true}, true}, {FailOn{Severity: High, Warn: true}, false},
		{FailOn{Unknown: true}, true}, {FailOn{Severity: Critical, Unknown: true}, false},
	} {
		if got := r.Fails(tc.on); got != tc.want {
			t.Errorf("Fails(%+v) = %t, want %t", tc.on, got, tc.want)
		}
	}
}

// TestURIPath: what RFC 3986 has no use for as it is is written as bytes in hexadecimal.
func TestURIPath(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"": ".", alphanumerics: alphanumerics, "a/B-._~@+=,9": "a/B-._~@+=,9",
		"a b": "a%20b", "100%": "100%25", "é": "%C3%A9", "a:b?c#d": "a%3Ab%3Fc%23d", "\n": "%0A",
	} {
		if got := uriPath(name); got != want {
			t.Errorf("uriPath(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestSaidInOneLine(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Result{
		"e": {Evidence: "e"}, "r": {Reason: "r"}, "e; r": {Evidence: "e", Reason: "r"}, "": {},
	} {
		if got := r.said(); got != want {
			t.Errorf("%+v is said as %q, want %q", r, got, want)
		}
	}
}

// TestSARIFSaysEachVerdict by kind and level, and is what GitHub asks for beyond the
// standard: a rule and a place for each result.
func TestSARIFSaysEachVerdict(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	f.deny("proc/1/limits")
	f.file("a b/su", "04755", "\x7fELF")
	r := f.run()
	r.Except([]Exception{{ID: "shell-absent", Expires: "2999-01-01", Reason: "debugging"}})
	var out bytes.Buffer
	if err := WriteSARIF(&out, r); err != nil {
		t.Fatal(err)
	}
	var log sarifLog
	if err := json.Unmarshal(out.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if len(run.Tool.Driver.Rules) != len(checks) || len(run.Results) != len(checks)-r.Summary.NotApplicable {
		t.Errorf("%d rules and %d results, want %d and %d", len(run.Tool.Driver.Rules), len(run.Results), len(checks), len(checks)-r.Summary.NotApplicable)
	}
	for i, rule := range run.Tool.Driver.Rules {
		help := r.Checks[i].Why
		for line := range strings.Lines(r.Checks[i].Fix.Docker + "\n" + r.Checks[i].Fix.Compose + "\n" + r.Checks[i].Fix.Kubernetes + "\n") {
			if line != "\n" {
				help += "\n" + strings.TrimSuffix(line, "\n")
			}
		}
		if rule.Help.Text != help {
			t.Errorf("%s: help %q, want %q", rule.ID, rule.Help.Text, help)
		}
	}
	want := map[string]string{"run-as-non-root": "fail error", "user-namespace": "fail warning", "pid-namespace": "pass none", "ulimits": "open none"}
	for _, result := range run.Results {
		if run.Tool.Driver.Rules[result.RuleIndex].ID != result.RuleID || len(result.Locations) == 0 || result.Message.Text == "" {
			t.Errorf("result %+v has another rule, no place or no message", result)
		}
		if w, given := want[result.RuleID]; given && result.Kind+" "+result.Level != w {
			t.Errorf("%s = %s %s, want %s", result.RuleID, result.Kind, result.Level, w)
		}
		if got := result.Suppressions != nil; got != (result.RuleID == "shell-absent") {
			t.Errorf("%s: suppressed %t", result.RuleID, got)
		}
		if result.RuleID == "setuid-files" && result.Locations[0].Physical.Artifact.URI != "a%20b/su" {
			t.Errorf("setuid-files at %+v, want a%%20b/su", result.Locations)
		}
	}
}

// TestEscapeXML: what XML 1.0 cannot have is replaced, and the rest is kept (XML 1.0, 2.2).
func TestEscapeXML(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a é 名 ~": "a é 名 ~", "\x1f\x00": "??", "\uFFFE\uFFFF": "??", "\uFFFD": "\uFFFD", " ": " ", "<&>\"\n\t": "&lt;&amp;&gt;&quot;&#10;&#9;",
	} {
		if got := escapeXML(text); got != want {
			t.Errorf("escapeXML(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestJUnitCountsWhatItHas holds the numbers of each suite against its cases.
func TestJUnitCountsWhatItHas(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	f.deny("proc/1/limits")
	f.file("bin/<&\"'\x01>", "04755", "\x7fELF")
	r := f.run()
	r.Except([]Exception{{ID: "shell-absent", Expires: "2999-01-01", Reason: "a & b"}})
	for _, on := range []FailOn{{}, {Warn: true, Unknown: true}} {
		var out bytes.Buffer
		if err := WriteJUnit(&out, r, on); err != nil {
			t.Fatal(err)
		}
		var suites struct {
			Suites []struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
				Errors   int `xml:"errors,attr"`
				Skipped  int `xml:"skipped,attr"`
				Cases    []struct {
					Failure *struct{} `xml:"failure"`
					Error   *struct{} `xml:"error"`
					Skipped *struct{} `xml:"skipped"`
				} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		if err := xml.Unmarshal(out.Bytes(), &suites); err != nil {
			t.Fatal(err)
		}
		total, failures, errs, skipped := 0, 0, 0, 0
		for _, s := range suites.Suites {
			n, bad, open, left := 0, 0, 0, 0
			for _, c := range s.Cases {
				n++
				if c.Failure != nil {
					bad++
				}
				if c.Error != nil {
					open++
				}
				if c.Skipped != nil {
					left++
				}
			}
			if n == 0 || n != s.Tests || bad != s.Failures || open != s.Errors || left != s.Skipped {
				t.Errorf("a suite says %d, %d, %d, %d and has %d, %d, %d, %d", s.Tests, s.Failures, s.Errors, s.Skipped, n, bad, open, left)
			}
			total, failures, errs, skipped = total+n, failures+bad, errs+open, skipped+left
		}
		wantFailures, wantErrs := r.Summary.Fail-1, 0
		if on.Warn {
			wantFailures += r.Summary.Warn
		}
		if on.Unknown {
			wantErrs = r.Summary.Unknown
		}
		if total != len(checks) || failures != wantFailures || errs != wantErrs || skipped != r.Summary.NotApplicable+1 {
			t.Errorf("with %+v %d cases, %d failures, %d errors, %d skipped; want %d, %d, %d, %d", on, total, failures, errs, skipped,
				len(checks), wantFailures, wantErrs, r.Summary.NotApplicable+1)
		}
	}
	var out bytes.Buffer
	if err := WriteJUnit(&out, &Report{}, FailOn{}); err != nil || strings.Contains(out.String(), "<testsuite ") {
		t.Errorf("of no checks there are suites, %v:\n%s", err, &out)
	}
}

func TestRuntimeName(t *testing.T) {
	t.Parallel()
	for want, edit := range map[string]func(*fixture){
		"docker":         func(f *fixture) { f.write(".dockerenv", "") },
		"podman":         func(f *fixture) { f.write("run/.containerenv", "") },
		"systemd-nspawn": func(f *fixture) { f.write("run/systemd/container", "systemd-nspawn\n") },
		"lxc":            func(f *fixture) { f.mount("/proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw") },
		"":               func(f *fixture) {},
	} {
		f := load(t, "hardened-scratch")
		edit(f)
		if got := f.run().Facts.Host.Runtime; got != want {
			t.Errorf("runtime = %q, want %q", got, want)
		}
	}
}

// A line of a Dockerfile is quoted as such, also where it is a comment of another file.
func TestLinesToPasteElsewhereAreQuoted(t *testing.T) {
	t.Parallel()
	fix := Fix{Kubernetes: "# in the Dockerfile: RUN chmod o-w PATH"}.fill([]string{"/a", "/$(touch b)"})
	if want := "# in the Dockerfile: RUN chmod o-w /a\n# in the Dockerfile: RUN chmod o-w '/$(touch b)'"; fix.Kubernetes != want {
		t.Errorf("the lines are\n%s\nwant\n%s", fix.Kubernetes, want)
	}
}
