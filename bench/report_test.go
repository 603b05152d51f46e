package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// recorded is a run of invented figures.
func recorded(t *testing.T) *results {
	t.Helper()
	content, err := os.ReadFile("testdata/results.json")
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatalf("testdata/results.json: %v", err)
	}
	return &r
}

// values are rounds, of which NaN has none.
func values(n ...float64) []*float64 {
	var all []*float64
	for _, v := range n {
		if math.IsNaN(v) {
			all = append(all, nil)
		} else {
			all = append(all, new(v))
		}
	}
	return all
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	whole := recorded(t)
	partial := *whole
	partial.Rows = slices.DeleteFunc(slices.Clone(whole.Rows), func(r *row) bool { return r.Section != "latency" })
	for name, run := range map[string]struct {
		r      *results
		misses string
	}{
		"results": {whole, "\n**exec to the first 200**: the reason.\n"},
		"partial": {&partial, "stale"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			if err := run.r.markdown(&got, run.misses); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("differs from %s; after a look, go test -update:\n%s", golden, got.Bytes())
			}
		})
	}
}

// docs/results.md says what docs/results.json has.
func TestResultsPageIsOfItsFigures(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../docs/results.json")
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	misses, err := os.ReadFile("../docs/misses.md")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := r.markdown(&got, string(misses)); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := errors.Join(r.charts("../docs/results"), os.WriteFile("../docs/results.md", got.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if page, err := os.ReadFile("../docs/results.md"); err != nil || !bytes.Equal(got.Bytes(), page) {
		t.Errorf("docs/results.md is not made of docs/results.json (%v): go test -run ResultsPage -update, then scripts/results.sh", err)
	}
}

func TestFronts(t *testing.T) {
	t.Parallel()
	r := results{Rows: []*row{
		{ID: "front-lost", Samples: []sample{
			{Subject: "haproxy", Values: values(1, 2)}, {Subject: "imagelab", Values: values(0, 0)}, {Subject: "nginx", Values: values(4, 1)}}},
		{ID: "front-rss-idle", Unit: "bytes", Samples: []sample{
			{Subject: "imagelab", Values: values(10e6)}, {Subject: "haproxy", Values: values(10.1e6)}, {Subject: "nginx", Values: values(20e6)}}},
		{ID: "front-rss-after-load", LeftOut: "no reason"},
		{ID: "front-rps", Unit: "requests/s", More: true, Samples: []sample{
			{Subject: noFront, Values: values(90e3)}, {Subject: "imagelab", Values: values(30e3)}, {Subject: "haproxy", Values: values(40e3)}}},
	}}
	header, got := r.fronts()
	if want := []string{"as a front", "imagelab", "haproxy", "nginx"}; !slices.Equal(header, want) {
		t.Errorf("fronts() has the columns %q; want %q", header, want)
	}
	want := [][]string{
		{"requests lost when it is stopped under load", "**0**", "3", "5"},
		{"memory, idle", "10.0 MB", "10.1 MB", "20.0 MB"}, // equal, so none has won
		{"requests a second", "30,000/s", "**40,000/s**", "–"},
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("fronts() = %q; want %q", got, want)
	}
}

func TestMissesWithoutReason(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	if err := recorded(t).markdown(&got, ""); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.String(), "## Misses\n\nNo reason is given yet.\n") {
		t.Error("a miss without a reason has nowhere that its link leads")
	}
}

func TestLeftOut(t *testing.T) {
	t.Parallel()
	r := recorded(t)
	*r.find("lost-50ms") = row{ID: "lost-50ms", Section: "stop", Title: "stops over a wire", LeftOut: "no TUN device"}
	var got bytes.Buffer
	if err := r.markdown(&got, ""); err != nil {
		t.Fatal(err)
	}
	if want := "### Stops over a wire\n\nLeft out here: no TUN device.\n\n#"; !strings.Contains(got.String(), want) {
		t.Errorf("the report lacks %q:\n%s", want, got.String())
	}
	if header, _ := r.glance(); slices.Contains(header, "lost on SIGTERM, at 50 ms") {
		t.Errorf("the columns at a glance are %q, one of them without a figure", header)
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	type figures map[figure][]float64
	tests := []struct {
		limit     string
		met, miss figures // the first at the limit, the second just beyond
		measured  string  // what the first shows
	}{
		{"≤ 1.95 × bare",
			figures{{"binary-bytes", "imagelab"}: {19.5e6}, {"binary-bytes", "bare"}: {10e6}},
			figures{{"binary-bytes", "imagelab"}: {19.51e6}, {"binary-bytes", "bare"}: {10e6}},
			"1.95"},
		{"≤ binary + 300 kB",
			figures{{"image-bytes", "imagelab"}: {9.3e6}, {"binary-bytes", "imagelab"}: {9e6}},
			figures{{"image-bytes", "imagelab"}: {9300001}, {"binary-bytes", "imagelab"}: {9e6}},
			"+300 kB"},
		{"≤ base + binary + 100 kB",
			figures{{"image-bytes", "imagelab (alpine)"}: {17.1e6}, {"image-bytes", "alpine base"}: {8e6}, {"binary-bytes", "imagelab"}: {9e6}},
			figures{{"image-bytes", "imagelab (alpine)"}: {17100001}, {"image-bytes", "alpine base"}: {8e6}, {"binary-bytes", "imagelab"}: {9e6}},
			"+100 kB"},
		{"≤ 1.5 × bare",
			figures{{"exec-to-200", "imagelab"}: {.003, .006, .009}, {"exec-to-200", "bare"}: {.002, .004, .001}},
			figures{{"exec-to-200", "imagelab"}: {.0031, .0061, .001}, {"exec-to-200", "bare"}: {.002, .004, .001}},
			"1.50 (1.50–9.00)"},
		{"≤ 1.8 × bare",
			figures{{"rss-idle", "imagelab"}: {9e6}, {"rss-idle", "bare"}: {5e6}},
			figures{{"rss-idle", "imagelab"}: {9.01e6}, {"rss-idle", "bare"}: {5e6}},
			"1.80"},
		{"≤ 1.4 × bare",
			figures{{"rss-after-load", "imagelab"}: {7e6}, {"rss-after-load", "bare"}: {5e6}},
			figures{{"rss-after-load", "imagelab"}: {7.01e6}, {"rss-after-load", "bare"}: {5e6}},
			"1.40"},
		{"≥ 0.9 × bare",
			figures{{"rps-saturation", "imagelab"}: {9000, math.NaN()}, {"rps-saturation", "bare"}: {10000, 1}},
			figures{{"rps-saturation", "imagelab"}: {8999, math.NaN()}, {"rps-saturation", "bare"}: {10000, 1}},
			"0.900"},
		{"≥ 1.5 × podinfo",
			figures{{"rps-saturation", "imagelab"}: {15000}, {"rps-saturation", "podinfo"}: {10000}},
			figures{{"rps-saturation", "imagelab"}: {14999}, {"rps-saturation", "podinfo"}: {10000}},
			"1.50"},
		{"≤ bare + 2",
			figures{{"allocs", "imagelab"}: {19}, {"allocs", "bare"}: {17}},
			figures{{"allocs", "imagelab"}: {20}, {"allocs", "bare"}: {17}},
			"+2"},
		{"≥ 0.6 × haproxy",
			figures{{"front-rps", "imagelab"}: {18000}, {"front-rps", "haproxy"}: {30000}},
			figures{{"front-rps", "imagelab"}: {17999}, {"front-rps", "haproxy"}: {30000}},
			"0.600"},
		{"≥ 2 × Caddy",
			figures{{"front-rps", "imagelab"}: {18000}, {"front-rps", "Caddy"}: {9000}},
			figures{{"front-rps", "imagelab"}: {17999}, {"front-rps", "Caddy"}: {9000}},
			"2.00"},
		{"≤ 12.0 MB",
			figures{{"front-rss-idle", "imagelab"}: {12e6}},
			figures{{"front-rss-idle", "imagelab"}: {12000001}},
			"12.0 MB"},
		{"≤ 20.0 MB",
			figures{{"front-rss-after-load", "imagelab"}: {20e6}},
			figures{{"front-rss-after-load", "imagelab"}: {20000001}},
			"20.0 MB"},
		{"≤ 150 µs",
			figures{{"front-added-p50", "imagelab"}: {150e-6}},
			figures{{"front-added-p50", "imagelab"}: {151e-6}},
			"150 µs"},
		{"0",
			figures{{"front-lost", "imagelab"}: {0, 0, 0}},
			figures{{"front-lost", "imagelab"}: {0, 0, 1}},
			"0"},
		{"≤ not confined + 2.00 ms",
			figures{{"sandbox-exec-to-200", "confined"}: {.008}, {"sandbox-exec-to-200", "not confined"}: {.006}},
			figures{{"sandbox-exec-to-200", "confined"}: {.00801}, {"sandbox-exec-to-200", "not confined"}: {.006}},
			"+2.00 ms"},
		{"≥ 0.97 × not confined",
			figures{{"sandbox-rps", "confined"}: {970}, {"sandbox-rps", "not confined"}: {1000}},
			figures{{"sandbox-rps", "confined"}: {969}, {"sandbox-rps", "not confined"}: {1000}},
			"0.970"},
		{"≤ 0.5 × curl -fs",
			figures{{"probe-wall", "imagelab --healthcheck"}: {.005}, {"probe-wall", "curl -fs"}: {.01}},
			figures{{"probe-wall", "imagelab --healthcheck"}: {.0051}, {"probe-wall", "curl -fs"}: {.01}},
			"0.500"},
		{"≤ 0.5 × curl -fs",
			figures{{"probe-cpu", "imagelab --healthcheck"}: {.005}, {"probe-cpu", "curl -fs"}: {.01}},
			figures{{"probe-cpu", "imagelab --healthcheck"}: {.0051}, {"probe-cpu", "curl -fs"}: {.01}},
			"0.500"},
		{"≤ 1.5 × empty Go program",
			figures{{"probe-wall", "imagelab --healthcheck"}: {.015}, {"probe-wall", "empty Go program"}: {.01}},
			figures{{"probe-wall", "imagelab --healthcheck"}: {.0151}, {"probe-wall", "empty Go program"}: {.01}},
			"1.50"},
		{"≤ 1.5 × empty Go program",
			figures{{"probe-cpu", "imagelab --healthcheck"}: {.015}, {"probe-cpu", "empty Go program"}: {.01}},
			figures{{"probe-cpu", "imagelab --healthcheck"}: {.0151}, {"probe-cpu", "empty Go program"}: {.01}},
			"1.50"},
		{"≤ 24.0 ms",
			figures{{"audit-wall", "imagelab --audit"}: {.024}},
			figures{{"audit-wall", "imagelab --audit"}: {.0241}},
			"24.0 ms"},
		{"≤ 20.0 MB",
			figures{{"audit-rss", "imagelab --audit"}: {20e6}},
			figures{{"audit-rss", "imagelab --audit"}: {20000001}},
			"20.0 MB"},
		{"≤ 2.00 s",
			figures{{"audit-debian-wall", "imagelab --audit"}: {2}},
			figures{{"audit-debian-wall", "imagelab --audit"}: {2.01}},
			"2.00 s"},
		{"0",
			figures{{"lost", "imagelab"}: {0, 0, 0}},
			figures{{"lost", "imagelab"}: {0, 0, 1}},
			"0"},
		{"0",
			figures{{"lost-50ms", "imagelab"}: {0, 0, 0}},
			figures{{"lost-50ms", "imagelab"}: {0, 0, 1}},
			"0"},
		{"0",
			figures{{"slow-lost", "imagelab"}: {0, 0, 0}},
			figures{{"slow-lost", "imagelab"}: {0, 1, 0}},
			"0"},
		{"≤ 300 ms",
			figures{{"idle-stop", "imagelab"}: {.26, .3, .31}},
			figures{{"idle-stop", "imagelab"}: {.26, .301, .31}},
			"300 ms (260–310 ms)"},
	}
	if len(tests) != len(budgets) {
		t.Fatalf("%d budgets have %d tests", len(budgets), len(tests))
	}

	run := func(f figures) *results {
		var r results
		for at, n := range f {
			if r.find(at.row) == nil {
				r.Rows = append(r.Rows, &row{ID: at.row})
			}
			m := r.find(at.row)
			m.Samples = append(m.Samples, sample{at.subject, values(n...)})
		}
		return &r
	}
	for i, test := range tests {
		b := budgets[i]
		t.Run(b.row+" "+test.limit, func(t *testing.T) {
			t.Parallel()
			met, miss := run(test.met), run(test.miss)
			if got, want := b.cells(met), []string{b.what, test.measured, test.limit, "✓"}; !slices.Equal(got, want) {
				t.Errorf("met: %q; want %q", got, want)
			}
			if met.missed() {
				t.Error("met, but missed() is true")
			}
			if got := b.cells(miss)[3]; got != "✗ [why](#misses)" {
				t.Errorf("missed: %q", got)
			}
			if !miss.missed() {
				t.Error("missed, but missed() is false")
			}
			// Without any of its figures, or with one that has no values.
			for at := range test.met {
				for _, n := range [][]float64{nil, {math.NaN()}} {
					lacking := figures{}
					for other, values := range test.met {
						if other != at {
							lacking[other] = values
						}
					}
					if n != nil {
						lacking[at] = n
					}
					got, want := b.cells(run(lacking)), []string{b.what, "not measured", test.limit, "–"}
					if !slices.Equal(got, want) {
						t.Errorf("%v is %v: %q; want %q", at, n, got, want)
					}
				}
			}
		})
	}
}

func TestRanking(t *testing.T) {
	t.Parallel()
	type samples = []sample
	for name, test := range map[string]struct {
		more    bool
		samples samples
		want    [][]string
	}{
		"less is better": {false,
			samples{{"a", values(3)}, {"b", values(1)}, {"c", values(2)}},
			[][]string{{"b"}, {"c"}, {"a"}}},
		"more is better": {true,
			samples{{"a", values(3)}, {"b", values(1)}, {"c", values(2)}},
			[][]string{{"a"}, {"c"}, {"b"}}},
		"spreads overlap": {false,
			samples{{"a", values(10, 20, 31)}, {"b", values(30, 40, 50)}},
			[][]string{{"a", "b"}}},
		"spreads touch": {false,
			samples{{"a", values(10, 20, 30)}, {"b", values(30, 40, 50)}},
			[][]string{{"a", "b"}}},
		"medians are near": {false,
			samples{{"a", values(100)}, {"b", values(104.9)}, {"c", values(120)}},
			[][]string{{"a", "b"}, {"c"}}},
		"medians are 5 % apart": {true,
			samples{{"a", values(100)}, {"b", values(105)}},
			[][]string{{"b"}, {"a"}}},
		"each overlaps the next": {false,
			samples{{"a", values(1, 2, 3)}, {"b", values(3, 4, 5)}, {"c", values(5, 6, 7)}},
			[][]string{{"a", "b", "c"}}},
		"none is lost": {false,
			samples{{"a", values(0, 0)}, {"b", values(3, 5)}, {"c", values(0, 0)}},
			[][]string{{"a", "c"}, {"b"}}},
		"without values": {false,
			samples{{"a", values(math.NaN())}, {"b", nil}, {"c", values(math.NaN(), 1)}},
			[][]string{{"c"}}},
		"nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &row{More: test.more, Samples: test.samples}
			if got := r.ranking(); !reflect.DeepEqual(got, test.want) {
				t.Errorf("ranking() = %v; want %v", got, test.want)
			}
		})
	}
}

func TestContradictions(t *testing.T) {
	t.Parallel()
	run := func(id string, more bool, a, b, c []*float64) *results {
		return &results{Rows: []*row{{ID: id, More: more, Samples: []sample{{"a", a}, {"b", b}, {"c", c}}}}}
	}
	first := run("x", false, values(1), values(2), values(3))
	for name, test := range map[string]struct {
		second *results
		want   []string
	}{
		"the same":        {first, nil},
		"another scale":   {run("x", false, values(10), values(20), values(30)), nil},
		"a pair":          {run("x", false, values(2), values(1), values(3)), []string{"x: a before b in one run, after it in the other"}},
		"the worst first": {run("x", false, values(2), values(3), values(1)), []string{"x: a before c in one run, after it in the other", "x: b before c in one run, after it in the other"}},
		"near":            {run("x", false, values(1.04), values(1), values(3)), nil},
		"overlapping":     {run("x", false, values(1, 3), values(1, 2), values(5)), nil},
		"no values":       {run("x", false, values(2), nil, values(3)), nil},
		"another row":     {run("y", false, values(2), values(1), values(3)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := contradictions(first, test.second); !slices.Equal(got, test.want) {
				t.Errorf("contradictions = %q; want %q", got, test.want)
			}
		})
	}
	more := contradictions(run("x", true, values(1), values(2), nil), run("x", true, values(2), values(1), nil))
	if want := []string{"x: b before a in one run, after it in the other"}; !slices.Equal(more, want) {
		t.Errorf("where more is better: contradictions = %q; want %q", more, want)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "bytes", "0 B"},
		{7, "bytes", "7 B"},
		{999, "bytes", "999 B"},
		{1000, "bytes", "1.00 kB"},
		{999_400, "bytes", "999 kB"},
		{999_600, "bytes", "1.00 MB"},
		{9_987_654, "bytes", "9.99 MB"},
		{51_234_567, "bytes", "51.2 MB"},
		{1.5e9, "bytes", "1.50 GB"},
		{2.5e12, "bytes", "2,500 GB"},
		{-93_100, "bytes", "-93.1 kB"},
		{0, "seconds", "0 s"},
		{0.25, "seconds", "250 ms"},
		{0.00001234, "seconds", "12.3 µs"},
		{0.9996, "seconds", "1.00 s"},
		{5e-8, "seconds", "50.0 ns"},
		{75.26, "seconds", "75.3 s"},
		{41_234, "requests/s", "41,200/s"},
		{1_234_567, "requests/s", "1,230,000/s"},
		{0.98765, "ratio", "0.988"},
		{1, "ratio", "1.00"},
		{9.996, "ratio", "10.0"},
		{5, "", "5"},
		{5.125, "", "5.12"},
		{123_456, "", "123,456"},
		{-123, "", "-123"},
		{-1234, "", "-1,234"},
		{12, "switches", "12.0 switches"},
		{math.NaN(), "bytes", "–"},
	} {
		if got := format(test.v, test.unit); got != test.want {
			t.Errorf("format(%v, %q) = %q; want %q", test.v, test.unit, got, test.want)
		}
	}
	for _, test := range []struct {
		low, high float64
		unit      string
		want      string
	}{
		{0.0012, 0.00131, "seconds", "1.20–1.31 ms"},
		{0.0009, 0.0011, "seconds", "900 µs–1.10 ms"},
		{5_267_619, 5_267_620, "bytes", "5.27 MB"},
		{44_900, 46_300, "requests/s", "44,900–46,300/s"},
		{0, 5, "", "0–5"},
		{math.NaN(), math.NaN(), "", "–"},
	} {
		if got := formatSpan(test.low, test.high, test.unit); got != test.want {
			t.Errorf("formatSpan(%v, %v, %q) = %q; want %q", test.low, test.high, test.unit, got, test.want)
		}
	}
}

func TestResultsScript(t *testing.T) {
	t.Parallel()
	results := "# Results\n" + glanceBegin + "\n9 MB [why](#misses) ![x](results/x.svg)\n" + glanceEnd + "\nrest\n"
	behind := "before\n" + glanceBegin + "\nold\n" + glanceEnd + "\nafter\n"
	copied := "before\n" + glanceBegin + "\n9 MB [why](docs/results.md#misses) ![x](docs/results/x.svg)\n" + glanceEnd + "\nafter\n"
	for name, test := range map[string]struct {
		results, readme string
		args            []string
		want            string // README.md afterwards
		err             string // a part of what the failure says
	}{
		"copies":                   {results, behind, nil, copied, ""},
		"copies once":              {results, copied, nil, copied, ""},
		"checks":                   {results, copied, []string{"--check"}, copied, ""},
		"finds a README behind":    {results, behind, []string{"--check"}, behind, "-old"},
		"says what to do":          {results, behind, []string{"--check"}, behind, "error: README.md does not show"},
		"README without an end":    {results, glanceBegin + "\nold\n", nil, glanceBegin + "\nold\n", "error: README.md needs one line"},
		"results without markers":  {"", behind, []string{"--check"}, behind, "error: docs/results.md needs one line"},
		"markers in a wrong order": {results, glanceEnd + "\n" + glanceBegin + "\n", nil, glanceEnd + "\n" + glanceBegin + "\n", "error: README.md needs one line"},
		"an unknown argument":      {results, behind, []string{"--chek"}, behind, "error: --chek is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			write := func(name, content string, mode os.FileMode) {
				t.Helper()
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), mode); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"scripts/results.sh", "scripts/lib.sh"} {
				content, err := os.ReadFile(filepath.Join("..", name))
				if err != nil {
					t.Fatal(err)
				}
				write(name, string(content), 0o755)
			}
			write("docs/results.md", test.results, 0o644)
			write("README.md", test.readme, 0o644)

			out, err := exec.Command("sh", append([]string{filepath.Join(root, "scripts/results.sh")}, test.args...)...).CombinedOutput()
			if (err != nil) != (test.err != "") || !strings.Contains(string(out), test.err) {
				t.Errorf("%v, it says %q; want %q", err, out, test.err)
			}
			readme, err := os.ReadFile(filepath.Join(root, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			if string(readme) != test.want {
				t.Errorf("README.md is %q; want %q", readme, test.want)
			}
		})
	}
}
