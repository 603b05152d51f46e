package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

//go:embed report.lua
var reportLua string

// figures are what wrk says of a run, see report.lua.
type figures struct {
	Requests, Microseconds float64
	P50, P99, P999         float64 // microseconds
	Lost                   float64 // sent without an answer
	Refused                float64 // never connected
	Status                 float64 // answers that were not 2xx or 3xx
}

func (f figures) rate() float64 { return f.Requests / (f.Microseconds / 1e6) }

// saturate sends as much as the connections bear, on the load's own processor.
// wrk never sends a request twice.
func (b *bench) saturate(url string, conns int, d time.Duration, options ...string) (figures, error) {
	args := []string{"-c", b.loadCPU, "wrk", "-t1", "-c", strconv.Itoa(conns), "-d", fmt.Sprintf("%.0fs", max(1, d.Seconds())), "--timeout", "10s", "-s", b.lua}
	cmd := exec.Command("taskset", append(append(args, options...), url)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return figures{}, fmt.Errorf("wrk %s: %w\n%s", url, err, out)
	}
	var f figures
	last := bytes.LastIndexByte(out, '{')
	if last < 0 {
		return f, fmt.Errorf("wrk %s: no figures in\n%s", url, out)
	}
	return f, json.Unmarshal(out[last:], &f)
}

// steady sends at a fixed rate, whether or not the answers keep up, so that a
// server that stalls is charged for all that had to wait.
func steady(url string, rate int, d time.Duration) *vegeta.Metrics {
	attacker := vegeta.NewAttacker(vegeta.Redirects(vegeta.NoFollow), vegeta.Timeout(10*time.Second))
	targets := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: url})
	var m vegeta.Metrics
	for result := range attacker.Attack(targets, vegeta.Rate{Freq: rate, Per: time.Second}, d, "") {
		m.Add(result)
	}
	m.Close()
	return &m
}
