package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// drawn are the files that charts writes.
func drawn(t *testing.T, r *results) map[string][]byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new")
	if err := r.charts(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = content
	}
	return files
}

func TestCharts(t *testing.T) {
	t.Parallel()
	first, second := drawn(t, recorded(t)), drawn(t, recorded(t))
	for name, texts := range map[string][]string{
		"connections.svg": {"Requests a second", "connections", "4,000", "50,000", "imagelab", "bare", "podinfo"},
		"cpu.svg":         {"Requests a second", "CPU limit (processors)", "0.25", "imagelab"},
		"memory.svg":      {"Requests a second", "memory limit (MiB)", "128", "imagelab"},
		"latency.svg":     {"Latency at 1,000 requests a second", "p99.9", "500 µs", "10 ms", "imagelab"},
		"image-bytes.svg": {"Size of the image", "imagelab (alpine)", "9.12 MB"},
		"probe-wall.svg":  {"Wall time of a probe", "imagelab --healthcheck", "curl -fs", "2.86 ms"},
	} {
		svg, ok := first[name]
		if !ok {
			t.Errorf("%s is not written", name)
			continue
		}
		if !bytes.Equal(svg, second[name]) {
			t.Errorf("%s differs from one time to the next", name)
		}
		delete(first, name)
		var found []string
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
			if text, ok := token.(xml.CharData); ok {
				found = append(found, strings.TrimSpace(string(text)))
			}
		}
		for _, text := range texts {
			if !slices.Contains(found, text) {
				t.Errorf("%s does not say %q, only %q", name, text, found)
			}
		}
	}
	for name := range first {
		t.Errorf("%s is not expected", name)
	}
}

func TestChartsOfWhatWasMeasured(t *testing.T) {
	t.Parallel()
	r := recorded(t)
	for _, m := range r.Rows {
		switch m.ID {
		case "p99-1000", "rps-mem8", "rps-mem16", "rps-mem32", "rps-mem64", "probe-wall":
			for i := range m.Samples {
				m.Samples[i].Values = values()
			}
		}
	}
	r.Rows = slices.DeleteFunc(r.Rows, func(m *row) bool { return m.Sweep == "cpu" })
	var names []string
	for name := range drawn(t, r) {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"connections.svg", "image-bytes.svg"}; !slices.Equal(names, want) {
		t.Errorf("charts writes %q; want %q", names, want)
	}
	var doc bytes.Buffer
	if err := r.markdown(&doc, ""); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(doc.String(), "](results/"); n != len(names) {
		t.Errorf("the document shows %d pictures of %d", n, len(names))
	}
}

func TestChartOfNothingAboveZero(t *testing.T) {
	t.Parallel()
	r := &results{}
	for _, id := range []string{"p50-1000", "p99-1000", "p999-1000"} {
		r.Rows = append(r.Rows, &row{ID: id, Samples: []sample{{"bare", values(0)}}})
	}
	if err := r.charts(t.TempDir()); err == nil || !strings.HasPrefix(err.Error(), "chart latency: ") {
		t.Errorf("charts = %v; want an error that names the chart", err)
	}
}

// A subject that serves nothing is drawn at 0, and breaks no axis.
func TestChartOfZeros(t *testing.T) {
	t.Parallel()
	r := &results{}
	for _, x := range []float64{1, 2} {
		r.Rows = append(r.Rows, &row{Sweep: "connections", X: x, Samples: []sample{{"bare", values(0)}}})
	}
	if svg := drawn(t, r)["connections.svg"]; bytes.Contains(svg, []byte("NaN")) || !bytes.Contains(svg, []byte(">bare<")) {
		t.Errorf("a line at 0 is drawn as %s", svg)
	}
}

// Two subjects of one chart share no colour.
func TestPalette(t *testing.T) {
	t.Parallel()
	pictures := recorded(t).pictures()
	places := newPalette(pictures)
	for _, p := range pictures {
		taken := map[int]string{}
		for _, s := range p.rows[0].Samples {
			if other, ok := taken[places[s.Subject]]; ok {
				t.Errorf("%s: %s and %s have the same colour", p.name, other, s.Subject)
			}
			taken[places[s.Subject]] = s.Subject
		}
	}
	many := &picture{rows: []*row{{Samples: []sample{{Subject: "imagelab"}, {Subject: "bare"}}}}}
	for _, name := range strings.Split("abcdefghijkl", "") {
		many.rows[0].Samples = append(many.rows[0].Samples, sample{Subject: name})
	}
	for subject, place := range newPalette([]*picture{many}) {
		if own := strings.HasPrefix(subject, "imagelab") || subject == "bare"; own != (place < 2) || place >= min(len(colours), len(shapes)) {
			t.Errorf("among many, %s has place %d", subject, place)
		}
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		ticks     ticks
		low, high float64
		want      string
	}{
		{linear("requests/s"), 0, 48_000, "0 10,000 20,000 30,000 40,000 50,000"},
		{linear("requests/s"), 0, 50_000, "0 10,000 20,000 30,000 40,000 50,000"},
		{linear("requests/s"), 0, 31, "0 10 20 30 40"},
		{linear("requests/s"), 0, 11_000, "0 5,000 10,000 15,000"},
		{linear("seconds"), 0, 0.0041, "0 1 ms 2 ms 3 ms 4 ms 5 ms"},
		{logarithmic("seconds"), 0.0002, 0.003, "100 µs 200 µs 500 µs 1 ms 2 ms 5 ms"},
	} {
		var labels []string
		for _, m := range test.ticks(test.low, test.high) {
			labels = append(labels, m.Label)
		}
		if got := strings.Join(labels, " "); got != test.want {
			t.Errorf("from %v to %v: %s; want %s", test.low, test.high, got, test.want)
		}
	}
}
