package main

import (
	"strings"
	"syscall"
	"testing"
)

// What a stop has cut is fetched once before the process ends. A clean stop, and one that is
// hurried, wait for nobody; without anybody who asks, the wait ends by itself.
func TestLastScrape(t *testing.T) {
	t.Parallel()
	const wait = "waiting for a last scrape, as requests were cut"
	cutting := []string{"IMAGELAB_FAULTS=true", "IMAGELAB_SHUTDOWN_TIMEOUT=50ms"}

	t.Run("is waited for after a cut", func(t *testing.T) {
		t.Parallel()
		in := startProcess(t, nil, append(cutting, "IMAGELAB_LAST_SCRAPE=10m")...)
		in.holdRequest(t, "10m")
		in.signal(t, syscall.SIGTERM)
		eventually(t, "wait", func() bool { return in.log.find(wait) != nil })
		if resp, _ := fetch(t, "GET", in.ops+"/readyz", ""); resp.StatusCode != 503 {
			t.Errorf("GET /readyz = %d, want 503", resp.StatusCode)
		}
		if resp, _ := fetch(t, "HEAD", in.ops+"/metrics", ""); resp.StatusCode != 200 {
			t.Errorf("HEAD /metrics = %d, want 200", resp.StatusCode)
		}
		_, body := fetch(t, "GET", in.ops+"/metrics", "")
		if want := "imagelab_drain_cut_connections_total{reason=\"active\",server=\"app\"} 1\n"; !strings.Contains(body, want) {
			t.Errorf("the last scrape has no line %s", want)
		}
		if code := in.wait(t); code != 1 {
			t.Errorf("exit = %d, want 1", code)
		}
	})
	t.Run("is not waited for any longer at a second signal", func(t *testing.T) {
		t.Parallel()
		in := startProcess(t, nil, append(cutting, "IMAGELAB_LAST_SCRAPE=10m")...)
		in.holdRequest(t, "10m")
		in.signal(t, syscall.SIGTERM)
		eventually(t, "wait", func() bool { return in.log.find(wait) != nil })
		in.signal(t, syscall.SIGTERM)
		if code := in.wait(t); code != 128+15 {
			t.Errorf("exit = %d, want %d", code, 128+15)
		}
	})
	t.Run("is given up when nobody asks", func(t *testing.T) {
		t.Parallel()
		in := startProcess(t, nil, append(cutting, "IMAGELAB_LAST_SCRAPE=100ms")...)
		in.holdRequest(t, "10m")
		in.signal(t, syscall.SIGTERM)
		if code := in.wait(t); code != 1 {
			t.Errorf("exit = %d, want 1", code)
		}
		if in.log.find("nobody has fetched the metrics in time, so that no alert counts what was cut") == nil {
			t.Errorf("the log does not say that nobody has asked:\n%s", in.log)
		}
	})
	for _, tc := range []struct{ name, timeout, scrape, delay string }{
		{"is not waited for after a clean stop", "8s", "10m", "500ms"},
		{"is not waited for unless it is asked for", "50ms", "0s", "10m"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := startProcess(t, nil, "IMAGELAB_FAULTS=true", "IMAGELAB_SHUTDOWN_TIMEOUT="+tc.timeout, "IMAGELAB_LAST_SCRAPE="+tc.scrape)
			in.holdRequest(t, tc.delay)
			in.signal(t, syscall.SIGTERM)
			in.wait(t)
			if in.log.find(wait) != nil {
				t.Errorf("it waits for a scrape:\n%s", in.log)
			}
		})
	}
}
