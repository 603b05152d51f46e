package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"imagelab/internal/audit"
)

func ptr[T any](v T) *T { return &v }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// small and large are two containers that differ in everything.
func small() Side {
	return Side{Name: "small", URL: "http://small:9000/", Live: &Live{
		State: "ready", UptimeSeconds: 61, Process: Process{ResidentBytes: 10 << 20, MemoryBytes: ptr[float64](20 << 20)}, Probes: Probes{Total: 10, SumSeconds: 0.0001},
		Requests: Requests{Total: 5}, Latency: Histogram{Bounds: []float64{.001, .01}, Counts: []uint64{5, 0, 0}},
	}, Report: &audit.Report{
		Variant: "scratch", Tool: "v1", Summary: audit.Summary{Pass: 2},
		Checks: []audit.Result{
			{ID: "same", Status: audit.Pass, Severity: audit.High},
			{ID: "minor", Status: audit.Pass, Severity: audit.Low, Evidence: "nothing"},
			{ID: "grave", Status: audit.Pass, Severity: audit.Critical, Evidence: "all well"},
		},
		Facts: audit.Facts{
			Image: audit.ImageFacts{Bytes: ptr[int64](10e6), Files: ptr(4), Executables: ptr(1), Shells: &audit.Count{}, Packages: []audit.PackageFacts{}},
			Process: audit.ProcessFacts{
				UID: ptr(65532), GID: ptr(65532), Bounding: []string{}, NoNewPrivileges: ptr(true), Seccomp: "filter",
			},
			Limits:         audit.LimitFacts{MemoryBytes: ptr[int64](64 << 20)},
			WritableMounts: []string{"/tmp"},
			App:            &audit.App{StartSeconds: 0.0100},
		},
	}}
}

func large() Side {
	return Side{Name: "large", URL: "http://large:9000/", Live: &Live{
		State: "ready", UptimeSeconds: 3, Process: Process{ResidentBytes: 20.5 * (1 << 20)}, Probes: Probes{Total: 10, SumSeconds: 0.001},
		Requests: Requests{Total: 7, Failed: 1}, Latency: Histogram{Bounds: []float64{.01, .1}, Counts: []uint64{7, 0, 0}},
	}, Report: &audit.Report{
		Variant: "alpine", Tool: "v1", Summary: audit.Summary{Fail: 2, Pass: 1},
		Checks: []audit.Result{
			{ID: "same", Status: audit.Pass, Severity: audit.High},
			{ID: "minor", Status: audit.Fail, Severity: audit.Low, Evidence: "/bin/sh"},
			{ID: "grave", Status: audit.Unknown, Severity: audit.Critical, Reason: "permission denied"},
		},
		Facts: audit.Facts{
			Image: audit.ImageFacts{
				Distribution: "Alpine Linux v3.20", Bytes: ptr[int64](20e6), Files: ptr(90), Executables: ptr(12),
				Shells: &audit.Count{Count: 3, Paths: []string{"/bin/ash", "/bin/sh", "/usr/bin/sh"}}, Packages: []audit.PackageFacts{{Database: "apk", Packages: ptr(14)}},
			},
			Process: audit.ProcessFacts{UID: ptr(0), Bounding: []string{"CHOWN"}, NoNewPrivileges: ptr(false), Seccomp: "off"},
			Limits:  audit.LimitFacts{}, WritableMounts: []string{"/", "/tmp"}, App: &audit.App{StartSeconds: 0.030},
		},
	}}
}

// cellOf finds one value of a comparison.
func cellOf(t *testing.T, c Comparison, label, name string) Value {
	t.Helper()
	for _, r := range c.Rows {
		if r.Group+" "+r.Label != label {
			continue
		}
		for _, v := range r.Values {
			if v.Name == name {
				return v
			}
		}
	}
	t.Fatalf("no %q of %q", label, name)
	return Value{}
}

func TestBetterIsMarked(t *testing.T) {
	t.Parallel()
	c := Compare([]Side{small(), large()}, noon)
	for _, tc := range []struct {
		label, small, large string
		better              string // name, or "" for neither
	}{
		{"image base", "none", "Alpine Linux v3.20", ""},
		{"image size", "10.00 MB", "20.00 MB", "small"},
		{"image executables", "1", "12", "small"},
		{"image packages", "0", "14 (apk)", "small"},
		{"image shells", "0", "3 (ash sh)", "small"},
		{"image interpreters", "?", "?", ""},
		{"privileges user", "65532:65532", "0:?", "small"},
		{"privileges capabilities", "none", "1", "small"},
		{"privileges no_new_privs", "set", "not set", "small"},
		{"privileges seccomp", "filter", "off", "small"},
		{"privileges writable", "/tmp", "/ /tmp", "small"},
		{"limits memory", "64 MiB", "none", "small"},
		{"limits CPUs", "none", "none", ""},
		{"audit failed", "0", "2", "small"},
		{"process start", "10.0 ms", "30.0 ms", ""}, // what the moment decides
		{"process memory in use", "20 MiB", "?", ""},
		{"process resident memory", "10 MiB", "20.5 MiB", ""},
		{"since the start cost of a probe", "10 µs", "100 µs", ""},
		{"since the start requests", "5", "7", ""},
		{"since the start failed with 5xx", "0", "1", ""},
		{"since the start latency, median", "≤ 1 ms", "≤ 10 ms", ""},
	} {
		s, l := cellOf(t, c, tc.label, "small"), cellOf(t, c, tc.label, "large")
		if s.Text != tc.small || l.Text != tc.large {
			t.Errorf("%s = %q and %q, want %q and %q", tc.label, s.Text, l.Text, tc.small, tc.large)
		}
		if s.Better != (tc.better == "small") || l.Better != (tc.better == "large") {
			t.Errorf("%s: better is small %v, large %v, want %q", tc.label, s.Better, l.Better, tc.better)
		}
	}
}

// TestLatencyHasNoDigitsThatTheBucketsDoNotGive: each latency is the only one of its
// side, so it is median and p99.
func TestLatencyHasNoDigitsThatTheBucketsDoNotGive(t *testing.T) {
	t.Parallel()
	bounds := []float64{.000025, .00025, .00035, .0005, .0015, .25, .5, .75, 1, 7.5, 10}
	for _, tc := range []struct {
		name         string
		small, large int // the bucket
		texts        [2]string
	}{
		{"a constant 300 ms and next to nothing", 6, 0, [2]string{"≤ 500 ms", "≤ 25 µs"}},
		{"one bucket between", 6, 8, [2]string{"≤ 500 ms", "≤ 1 s"}},
		{"fractions", 4, 9, [2]string{"≤ 1.5 ms", "≤ 7.5 s"}},
		{"beyond the last bound", 1, 11, [2]string{"≤ 250 µs", "> 10 s"}},
		{"both beyond the last bound", 11, 11, [2]string{"> 10 s", "> 10 s"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			sides := []Side{small(), large()}
			for i, bucket := range []int{tc.small, tc.large} {
				sides[i].Live.Latency = Histogram{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
				sides[i].Live.Latency.Counts[bucket] = 1
			}
			c := Compare(sides, noon)
			for _, label := range []string{"since the start latency, median", "since the start latency, p99"} {
				s, l := cellOf(t, c, label, "small"), cellOf(t, c, label, "large")
				if s.Text != tc.texts[0] || l.Text != tc.texts[1] || s.Better || l.Better {
					t.Errorf("%s = %+v and %+v, want %q and %q, neither better", label, s, l, tc.texts[0], tc.texts[1])
				}
			}
			if err := WriteJSON(new(bytes.Buffer), c); err != nil {
				t.Errorf("JSON: %v", err)
			}
		})
	}
}

func TestLimitsKeepTheirNumbers(t *testing.T) {
	t.Parallel()
	v := cellOf(t, Compare([]Side{small(), large()}, noon), "limits memory", "small")
	if v.Number == nil || *v.Number != 64<<20 {
		t.Errorf("limits memory has the number %v, want 64 MiB", v.Number)
	}
}

func TestDifferencesWorstFirst(t *testing.T) {
	t.Parallel()
	c := Compare([]Side{small(), large()}, noon)
	got := fmt.Sprint(c.Differences)
	want := "[{grave  critical [{small pass all well} {large unknown permission denied}]} {minor  low [{small pass nothing} {large fail /bin/sh}]}]"
	if got != want {
		t.Errorf("differences = %s, want %s", got, want)
	}
}

func TestCheckOfAnotherVersionIsLeftOut(t *testing.T) {
	t.Parallel()
	a, b := small(), large()
	b.Report.Checks = b.Report.Checks[:1]
	if got := Compare([]Side{a, b}, noon).Differences; len(got) != 0 {
		t.Errorf("differences = %v, want none", got)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	broken := Side{Name: "gone", URL: "http://gone/", Err: errors.New("connection refused")}
	twin := small()
	twin.Name = "twin"
	for _, tc := range []struct {
		name  string
		sides []Side
		want  []string
	}{
		{"two", []Side{small(), large()}, []string{
			"The image of small is the smallest: 10.00 MB, below large by 10.00 MB (50 %).",
			"Of 22 rows that image and settings decide, better: small in 12, large in 0; no difference in 10.",
			"Failed checks: small none; large 1 (minor).",
		}},
		{"equal", []Side{small(), twin}, []string{
			"The images have the same size, 10.00 MB.",
			"Of 22 rows that image and settings decide, better: small in 0, twin in 0; no difference in 22.",
			"Failed checks: small none; twin none.",
		}},
		{"one is down", []Side{broken, small()}, []string{"gone could not be compared: connection refused.", "Failed checks: small none."}},
		{"all are down", []Side{broken}, []string{"gone could not be compared: connection refused."}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := Compare(tc.sides, noon).Summary; strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("summary = %q, want %q", got, tc.want)
			}
		})
	}
}

// TestMeasuredNumbers: what differs by less than a tenth of the best is as good
// as that.
func TestSummaryNamesThreeFailedChecks(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{3: "small 3 (a, b, c).", 4: "small 4 (a, b, c and 1 more)."} {
		s := small()
		s.Report.Checks = nil
		for _, id := range []string{"a", "b", "c", "d"}[:n] {
			s.Report.Checks = append(s.Report.Checks, audit.Result{ID: id, Status: audit.Fail})
		}
		if got := strings.Join(Compare([]Side{s}, noon).Summary, " "); !strings.Contains(got, want) {
			t.Errorf("summary = %q, want %q in it", got, want)
		}
	}
}

// TestSummaryNamesTheFirstOfEquallySmall images.
func TestSummaryNamesTheFirstOfEquallySmall(t *testing.T) {
	t.Parallel()
	twin := small()
	twin.Name = "twin"
	got := Compare([]Side{small(), large(), twin}, noon).Summary[0]
	if !strings.HasPrefix(got, "The image of small is the smallest: ") || strings.Contains(got, "twin") {
		t.Errorf("summary = %q, want small alone as the smallest", got)
	}
}

// TestSpansHaveTheUnitThatSuitsThem at each edge between two units.
func TestSpansHaveTheUnitThatSuitsThem(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		seconds float64
		unit    string
	}{
		{0.0009, " µs"}, {0.001, " ms"}, {0.9, " ms"}, {1, " s"}, {119, " s"}, {120, "m0s"}, {3723, "1h2m3s"},
	} {
		s := small()
		s.Live.UptimeSeconds = tc.seconds
		if got := cellOf(t, Compare([]Side{s}, noon), "process up for", "small").Text; !strings.HasSuffix(got, tc.unit) {
			t.Errorf("up for %v seconds = %q, want it to end in %q", tc.seconds, got, tc.unit)
		}
	}
}

// TestNobodyMakesItFail feeds what a stranger's server may say.
func TestNobodyMakesItFail(t *testing.T) {
	t.Parallel()
	empty := Side{Name: "empty", Report: &audit.Report{}, Live: &Live{}}
	noLive := small()
	noLive.Live = nil
	odd := large()
	odd.Name = "odd"
	odd.Report.Variant = "\x1b[2J evil\nvariant"
	odd.Report.Checks = append(odd.Report.Checks, odd.Report.Checks...)
	odd.Report.Checks[0].Status = "\x1b]0;title\a"
	odd.Report.Facts.Image.Distribution = strings.Repeat("長い名前 ", 100) + "\x1b[31m"
	odd.Report.Facts.WritableMounts = []string{strings.Repeat("/x", 500)}
	odd.Live.Latency = Histogram{Bounds: []float64{1, 2, 3}, Counts: []uint64{1}}
	lost := Side{Name: "lost", URL: "http://lost/", Err: errors.New("says \x1b[31mred\nand breaks lines")}

	for name, sides := range map[string][]Side{
		"nothing": nil, "empty": {empty}, "no live facts": {noLive, large()},
		"odd": {small(), odd}, "lost": {lost, lost}, "many": {small(), large(), odd, empty, noLive, lost, odd, small(), empty},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Compare(sides, noon)
			var text, markdown, data bytes.Buffer
			if err := errors.Join(WriteText(&text, c), WriteMarkdown(&markdown, c), WriteJSON(&data, c)); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(text.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
					t.Errorf("a line of %d columns, want at most 100: %q", n, line)
				}
			}
			if all := text.String() + markdown.String(); strings.ContainsAny(all, "\x1b\a") {
				t.Errorf("control characters in %q", all)
			}
			var back Comparison
			if err := json.Unmarshal(data.Bytes(), &back); err != nil || len(back.Targets) != len(sides) {
				t.Errorf("JSON = %s, %v, want %d targets", data.String(), err, len(sides))
			}
		})
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteText(&b, Compare([]Side{small(), large()}, noon)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"imagelab compare · 2026-01-02T12:00:00Z\n",
		"  small           http://small:9000/ scratch v1\n",
		"IMAGE               small                                   large\n",
		"  size              10.00 MB *                              20.00 MB\n",
		"  critical  grave:\n            small         pass      all well\n            large         unknown   permission denied\n",
		"\n  * better, where image or settings decide",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteMarkdown(&b, Compare([]Side{small(), large()}, noon)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| image: size | **10.00 MB** | 20.00 MB |\n", "| minor | low | large | fail | /bin/sh |\n", `no\_new\_privs`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	bounds := []float64{1, 2, 4}
	for _, tc := range []struct {
		name  string
		h     Histogram
		q     float64
		want  float64
		known bool
	}{
		{"nothing", Histogram{}, .5, 0, false},
		{"no counts", Histogram{Bounds: bounds, Counts: []uint64{0, 0, 0, 0}}, .5, 0, false},
		{"one too few", Histogram{Bounds: bounds, Counts: []uint64{1, 1, 1}}, .5, 0, false},
		{"first bucket", Histogram{Bounds: bounds, Counts: []uint64{10, 0, 0, 0}}, .5, 1, true},
		{"on the edge of a bucket", Histogram{Bounds: bounds, Counts: []uint64{5, 0, 5, 0}}, .5, 1, true},
		{"across an empty one", Histogram{Bounds: bounds, Counts: []uint64{5, 0, 5, 0}}, .75, 4, true},
		{"the least, with nothing in the first bucket", Histogram{Bounds: bounds, Counts: []uint64{0, 4, 0, 0}}, 0, 2, true},
		{"beyond the last", Histogram{Bounds: bounds, Counts: []uint64{0, 0, 0, 3}}, .99, math.Inf(1), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got, known := tc.h.Quantile(tc.q); got != tc.want || known != tc.known {
				t.Errorf("Quantile(%v) = %v, %v, want %v, %v", tc.q, got, known, tc.want, tc.known)
			}
		})
	}
}

func TestCommandOfEachSide(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]*Command{
		"none":                         nil,
		"start 1":                      {Up: true, Generation: 1},
		"start 3, last exit 1":         {Up: true, Generation: 3, Last: "exit 1"},
		"start 5, not up, last killed": {Generation: 5, Last: "killed"},
	} {
		if got := command(c).Text; got != want {
			t.Errorf("command(%+v) = %q, want %q", c, got, want)
		}
	}
}

// What is confined is better than what is not, and says what was refused to it.
func TestSandboxInWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		facts *audit.SandboxFacts
		want  Value
	}{
		{nil, text(notKnown)},
		{&audit.SandboxFacts{}, ranked("none", false)},
		{&audit.SandboxFacts{Of: "server"}, ranked("none", false)},
		{&audit.SandboxFacts{Applied: []string{"files"}}, ranked("none", false)},
		{&audit.SandboxFacts{Of: "server", Applied: []string{"files"}}, ranked("server", true)},
		{&audit.SandboxFacts{Of: "command", Applied: []string{"files"}, Refused: []audit.SandboxRefusal{{}}}, ranked("command, 1 refused", true)},
	} {
		if got := sandbox(tc.facts); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%+v is %+v, want %+v", tc.facts, got, tc.want)
		}
	}
}
