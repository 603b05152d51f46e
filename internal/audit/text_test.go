package audit

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// textOf is the report as text.
func textOf(t *testing.T, r *Report, opts TextOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteText(&b, r, opts); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestFactsInWords: the lines of the facts, in one that is long enough.
func TestFactsInWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, posture string
		edit          func(*fixture)
		want          []string
	}{
		{"alpine", "root-alpine", func(f *fixture) {}, []string{
			" in 7 files · 3 executables · 3 shells · 1 package manager · 2 network clients · 2 apk packages\n",
			"PID 1 sleep · uid 0 gid 0 · capabilities CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP · seccomp filter\n",
			"memory without limit, ", " · CPU without limit · pids unlimited or not known · open files ",
			"Landlock ABI 7 · docker\n", "\n  writable    /",
		}},
		{"one capability more than the default", "hardened-scratch", func(f *fixture) { f.status("CapBnd", "0000000000007fff") }, []string{"· 15 capabilities ·"}},
		{"packages and certificates", "root-alpine", func(f *fixture) {
			f.write("var/lib/dpkg/status", "Status: install ok installed\n")
			f.write("var/lib/rpm/Packages", "")
			f.write("etc/ssl/cert.pem", "-----BEGIN CERTIFICATE-----\n")
			f.write("lib/apk/db/installed", "P:a\nP:b\n")
		}, []string{"2 apk packages · 1 dpkg package · rpm database, not counted · 1 CA root\n"}},
		{"Kubernetes", "kubernetes", func(f *fixture) { f.sys.LandlockABI = func() (int, error) { return 0, nil } },
			[]string{"cgroup v2 · no Landlock · containerd · Kubernetes\n", "· cri-containerd.apparmor.d (enforce)\n"}},
		{"nothing readable", "hardened-scratch", func(f *fixture) {
			clear(f.files)
			f.sys.LandlockABI = nil
		}, []string{
			"image       no distribution\n", "process     uid unlimited or not known gid unlimited or not known\n",
			"memory without limit · CPU without limit · pids", "host        kernel not known\n", "writable    nothing\n",
		}},
		{"an app that has not been probed", "hardened-scratch", func(f *fixture) {
			f.sys.App = &App{Started: f.sys.Now(), StartSeconds: 0.0123}
		}, []string{"app         started 2026-01-02T03:04:05Z in 12.3 ms\n"}},
		{"an app that has been probed", "hardened-scratch", func(f *fixture) {
			f.sys.App = &App{Started: f.sys.Now(), StartSeconds: 0.0123, Probes: &ProbeSummary{Seen: 3, Failed: 1, MeanSeconds: 0.001, MaxSeconds: 0.002}}
		}, []string{"in 12.3 ms · 3 probes, 1 failed, mean 1.0 ms, slowest 2.0 ms\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, tc.posture)
			tc.edit(f)
			text := textOf(t, f.run(), TextOptions{Width: 1000})
			facts, _, _ := strings.Cut(text, "\nPASSED")
			for _, want := range tc.want {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, facts)
				}
			}
		})
	}
}

func TestTextIs80ColumnsWideUnlessTold(t *testing.T) {
	t.Parallel()
	r := load(t, "privileged").run()
	want := textOf(t, r, TextOptions{Width: 80})
	for _, width := range []int{0, -1} {
		if got := textOf(t, r, TextOptions{Width: width}); got != want {
			t.Errorf("the text for width %d is not the one for 80", width)
		}
	}
	if got := textOf(t, r, TextOptions{Width: 1}); got == want {
		t.Error("the text for width 1 is the one for 80")
	}
}

// TestTextFillsItsLines: a line ends only where the next word would not fit.
func TestTextFillsItsLines(t *testing.T) {
	t.Parallel()
	widest := 0
	for first := 1; first <= 5; first++ {
		r := &Report{Checks: []Result{{ID: "x", Status: Fail, Evidence: strings.Repeat("w", first) + strings.Repeat(" xyz", 60)}}}
		lines := strings.Split(textOf(t, r, TextOptions{}), "\n")
		for i, line := range lines[1:] {
			if !strings.HasPrefix(line, strings.Repeat(" ", 24)+"xyz") {
				continue
			}
			n := utf8.RuneCountInString(lines[i])
			widest = max(widest, n)
			if n+len(" xyz") <= 80 {
				t.Errorf("a line of %d columns ends before a word of 3 that it has room for: %q", n, lines[i])
			}
		}
	}
	if widest != 80 {
		t.Errorf("the longest line has %d columns, want 80", widest)
	}
}

func TestSummaryLine(t *testing.T) {
	t.Parallel()
	of := func(results ...Result) *Report {
		r := &Report{Checks: results}
		for _, c := range results {
			r.Summary.add(c.Status)
		}
		return r
	}
	for _, tc := range []struct {
		name, want, style string
		r                 *Report
	}{
		{"nothing", "0 checks: 0 failed, 0 warnings, 0 not known, 0 passed, 0 not applicable", green, of()},
		{"a pass", "1 check: 0 failed, 0 warnings, 0 not known, 1 passed, 0 not applicable", green, of(Result{Status: Pass, Severity: High})},
		{"a warning", "1 check: 0 failed, 1 warning, 0 not known, 0 passed, 0 not applicable", yellow, of(Result{Status: Warn})},
		{"an unknown", "1 check: 0 failed, 0 warnings, 1 not known, 0 passed, 0 not applicable", yellow, of(Result{Status: Unknown})},
		{"a failure of each severity", "5 checks: 5 failed (1 critical, 1 high, 1 medium, 1 low, 1 info), 0 warnings, 0 not known, 0 passed, 0 not applicable", red,
			of(Result{Status: Fail, Severity: Info}, Result{Status: Fail, Severity: Low}, Result{Status: Fail, Severity: Medium}, Result{Status: Fail, Severity: High}, Result{Status: Fail, Severity: Critical})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			want := "\x1b[1;" + tc.style + "m" + tc.want + "\x1b[0m\n"
			if text := textOf(t, tc.r, TextOptions{Color: true}); !strings.HasSuffix(text, want) || !strings.HasPrefix(text, want) {
				t.Errorf("the first or the last line is %q, want %q", text[strings.LastIndex(strings.TrimSuffix(text, "\n"), "\n")+1:], want)
			}
		})
	}
}

// TestTextWithoutFindings has no heading over nothing, and no escape of a colour
// around nothing.
func TestTextWithoutFindings(t *testing.T) {
	t.Parallel()
	text := textOf(t, &Report{}, TextOptions{Color: true})
	for _, heading := range []string{"FAILED", "WARNINGS", "NOT KNOWN", "TOGETHER", "PASSED", "NOT APPLICABLE", "0001-01-01"} {
		if strings.Contains(text, heading) {
			t.Errorf("%q in a report of nothing:\n%s", heading, text)
		}
	}
	if strings.Contains(text, "m\x1b[0m") {
		t.Errorf("a colour around nothing in %q", text)
	}
}

// TestKubernetesPatch: each key once, those of the pod above those of the container,
// and every thing that was found, with a name of its own.
func TestKubernetesPatch(t *testing.T) {
	t.Parallel()
	f := load(t, "kubernetes")
	hostNamespace("pid")(f)
	f.mount("/a /d1 rw - ext4 /dev/root rw")
	f.mount("/b /d2 rw - ext4 /dev/root rw")
	f.status("CapBnd", "00000000a80425fb")
	f.sub("proc/self/mountinfo", "/ / ro,", "/ / rw,")
	text := textOf(t, f.run(), TextOptions{Width: 100})
	_, patch, _ := strings.Cut(text, "TOGETHER for Kubernetes, a patch of the Deployment (capitals are yours to fill in)\n\n")
	patch, _, _ = strings.Cut(patch, "\n\n")
	keys := map[string]int{}
	for line := range strings.Lines(patch) {
		key, _, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		keys[key]++
		if keys[key] > 1 && !strings.Contains(key, "- ") {
			t.Errorf("%q is there twice:\n%s", key, patch)
		}
	}
	for _, want := range []string{"          hostPID: false\n", "              capabilities: {drop: [ALL], add: []}\n", "              readOnlyRootFilesystem: true\n",
		"{mountPath: /d1, readOnly: true}", "{mountPath: /d2, readOnly: true}"} {
		if !strings.Contains(patch, want) {
			t.Errorf("no %q in the patch:\n%s", want, patch)
		}
	}
}

// TestLimitsLeaveRoom: what a fix proposes is at least twice what is in use.
func TestLimitsLeaveRoom(t *testing.T) {
	t.Parallel()
	for used, want := range map[int]string{1 << 20: "64", 32 << 20: "64", 33 << 20: "128", 300 << 20: "1024"} {
		f := load(t, "kubernetes")
		f.write("sys/fs/cgroup/memory.max", "max\n")
		f.write("sys/fs/cgroup/memory.current", fmt.Sprint(used)+"\n")
		fix := f.run().result(t, "memory-limit").Fix
		if fix.Compose != "mem_limit: "+want+"m" || fix.Kubernetes != "resources: {limits: {memory: "+want+"Mi}}" || fix.Docker != "--memory "+want+"m" {
			t.Errorf("with %d bytes in use: %+v, want %s MiB", used, fix, want)
		}
	}
	f := load(t, "kubernetes")
	f.write("sys/fs/cgroup/pids.current", "200\n")
	if fix := f.run().result(t, "pids-limit").Fix; fix.Compose != "pids_limit: 512" {
		t.Errorf("with 200 processes: %s, want 512", fix.Compose)
	}
}

// TestTopOfTheReport: the counts, then the three worst findings that count, each in a
// line.
func TestTopOfTheReport(t *testing.T) {
	t.Parallel()
	r := &Report{Checks: []Result{
		{ID: "w", Status: Warn, Severity: Critical}, {ID: "low", Status: Fail, Severity: Low, Evidence: strings.Repeat("long ", 40)},
		{ID: "i", Status: Fail, Severity: Critical, Ignored: &Ignored{}}, {ID: "high", Status: Fail, Severity: High}, {ID: "p", Status: Pass, Severity: Critical},
		{ID: "w2", Status: Warn, Severity: Low},
	}}
	lines := strings.Split(textOf(t, r, TextOptions{}), "\n")
	for i, want := range []string{"6 checks:", "  high      high:", "  low       low: long", "  critical  w:", ""} {
		if !strings.HasPrefix(lines[i], want) || utf8.RuneCountInString(lines[i]) > 80 && i > 0 {
			t.Errorf("line %d = %q, want %q", i, lines[i], want)
		}
	}
}

// TestTopFitsItsLine: a finding is cut where it is longer than its line, in the colour of its status.
func TestTopFitsItsLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		n    int // of the evidence
		tail string
	}{{80 - 12 - len("id: "), "e"}, {80 - 12 - len("id: ") + 1, "…"}} {
		r := &Report{Checks: []Result{{ID: "id", Status: Fail, Severity: High, Evidence: strings.Repeat("e", tc.n)}}}
		if line := strings.Split(textOf(t, r, TextOptions{}), "\n")[1]; utf8.RuneCountInString(line) != 80 || !strings.HasSuffix(line, tc.tail) {
			t.Errorf("%q has %d columns, want 80 and %s at its end", line, utf8.RuneCountInString(line), tc.tail)
		}
	}
	for status, style := range map[Status]string{Fail: red, Warn: yellow} {
		r := &Report{Checks: []Result{{ID: "id", Status: status, Severity: High}}}
		if line := strings.Split(textOf(t, r, TextOptions{Color: true}), "\n")[1]; !strings.HasPrefix(line, "  \x1b["+style+"m") {
			t.Errorf("%s is %q, want it to begin with %s", status, line, style)
		}
	}
}

func TestAboutExec(t *testing.T) {
	t.Parallel()
	for status, want := range map[Status]string{Pass: "this report counts it", Fail: "this report counts it", NotApplicable: "this report does not", Unknown: ""} {
		for _, checks := range [][]Result{{{ID: "exec-not-elevated", Status: status}}, {{ID: "other", Status: Fail}, {ID: "exec-not-elevated", Status: status}}} {
			got := (&Report{Checks: checks}).aboutExec()
			if !strings.Contains(got, want) || (got == "") != (want == "") {
				t.Errorf("%v: %q, want %q", checks, got, want)
			}
		}
	}
	if got := (&Report{Checks: []Result{{ID: "other", Status: Pass}}}).aboutExec(); got != "" {
		t.Errorf("of another check: %q", got)
	}
}

// TestTogether: lines for compose.yaml are offered where there is more than a
// comment to write.
func TestTogether(t *testing.T) {
	t.Parallel()
	failed := func(id, compose string) Result { return Result{ID: id, Status: Fail, Fix: Fix{Compose: compose}} }
	for _, tc := range []struct {
		name    string
		results []Result
		want    bool
	}{
		{"nothing failed", []Result{{ID: "a", Status: Pass, Fix: Fix{Compose: "init: true"}}}, false},
		{"one", []Result{failed("a", "init: true")}, true},
		{"two comments", []Result{failed("a", "# one"), failed("b", "# two")}, false},
		{"two lines", []Result{failed("a", "init: true"), failed("b", "read_only: true")}, true},
		{"a line and a comment", []Result{failed("a", "init: true"), failed("b", "# two")}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			text := textOf(t, &Report{Checks: tc.results}, TextOptions{})
			if got := strings.Contains(text, "TOGETHER"); got != tc.want {
				t.Errorf("TOGETHER is there = %t, want %t:\n%s", got, tc.want, text)
			}
			if strings.Contains(text, "for Kubernetes") {
				t.Errorf("there is a patch of nothing:\n%s", text)
			}
		})
	}
}

func TestReportOfNames(t *testing.T) {
	t.Parallel()
	r := &Report{Variant: "\x1b[31mred", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if text := textOf(t, r, TextOptions{}); !strings.Contains(text, "\n"+`imagelab audit · \x1b[31mred · 2026-01-02T03:04:05Z`+"\n\n") {
		t.Errorf("heading = %q", text[:60])
	}
	for name, want := range map[string]string{"A\xffB": `A\xffB`, "\x07bell": `\abell`, "long 名前": "long 名前", "zero\u200bwidth": `zero\u200bwidth`} {
		f := load(t, "hardened-scratch")
		f.write("etc/os-release", "NAME=x\nPRETTY_NAME=\""+name+"\"\n")
		if got := f.run().Facts.Image.Distribution; got != want {
			t.Errorf("distribution %q = %q, want %q", name, got, want)
		}
	}
}

func TestSizesInWords(t *testing.T) {
	t.Parallel()
	for max, want := range map[string]string{
		"1023": "1023 B in", "1024": "1 KiB in", "1025": "1.0 KiB in", "1048576": "1 MiB in", "1610612736": "1.5 GiB in",
		"1125899906842624": "1024 TiB in", "1152921504606846976": "1048576 TiB in",
	} {
		f := load(t, "hardened-scratch")
		v2(f)
		f.deny("proc/meminfo")
		f.write("sys/fs/cgroup/memory.max", max+"\n")
		if got := f.run().result(t, "memory-limit").Evidence; !strings.HasPrefix(got, want) {
			t.Errorf("%s bytes = %q, want %q", max, got, want)
		}
	}
}

// TestLongListsAreCut, be it of mounts or of files; the first twelve are shown.
func TestLongListsAreCut(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][2]string{12: {"/m-11", "/x/f-11"}, 13: {"/m-11, …", "/x/f-11 and 1 more"}, 15: {"/m-11, …", "/x/f-11 and 3 more"}} {
		f := load(t, "hardened-scratch")
		for i := range n {
			f.mount(fmt.Sprintf("/var/lib/docker/volumes/v/_data /m-%02d rw - ext4 /dev/vda rw", i))
			f.file(fmt.Sprintf("x/f-%02d", i), "0666", "x")
		}
		r := f.run()
		for i, id := range []string{"writable-mounts", "world-writable-paths"} {
			if got := r.result(t, id).Evidence; !strings.HasSuffix(got, want[i]) {
				t.Errorf("%s of %d = %q, want %q at its end", id, n, got, want[i])
			}
		}
	}
}

// TestFixIsShown: the compose lines, or without them those for the Dockerfile.
func TestFixIsShown(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		fix  Fix
		want string // what follows the reason
	}{
		{"compose and image", Fix{Docker: "D", Compose: "C"}, "\n            compose     C\n"},
		{"image", Fix{Docker: "D", Kubernetes: "K"}, "\n            image       D\n            kubernetes  K\n"},
		{"Kubernetes", Fix{Kubernetes: "K"}, "\n            kubernetes  K\n"},
		{"none", Fix{}, "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := &Report{Checks: []Result{{ID: "x", Status: Fail, Why: "because", Fix: tc.fix}}}
			text := textOf(t, r, TextOptions{})
			_, after, _ := strings.Cut(text, "why         because")
			if !strings.HasPrefix(after, tc.want+"\n") {
				t.Errorf("after the reason comes %q, want %q", after, tc.want)
			}
		})
	}
}
