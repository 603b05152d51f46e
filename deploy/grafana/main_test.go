package main

import (
	"os"
	"strings"
	"testing"
)

func TestDashboardIsWhatTheProgramWrites(t *testing.T) {
	t.Parallel()
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("dashboards/imagelab.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("dashboards/imagelab.json is not what is made of main.go: go run ./grafana grafana/dashboards/imagelab.json renews it")
	}
}

// Each panel has a title and a query, and each query names no instance but the chosen ones.
func TestPanels(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range rows {
		for _, p := range r.panels {
			if p.title == "" || seen[p.title] || len(p.queries) == 0 || p.unit == "" {
				t.Errorf("%s: panel %q with %d queries in %q, want a title of its own, a query and a unit", r.title, p.title, len(p.queries), p.unit)
			}
			seen[p.title] = true
			for _, q := range p.queries {
				if strings.Count(q.expr, "(") != strings.Count(q.expr, ")") || q.legend == "" {
					t.Errorf("%s: query %q with legend %q", p.title, q.expr, q.legend)
				}
			}
		}
	}
}
