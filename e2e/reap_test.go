package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// zombies counts the dead children of the container's PID 1.
func (c *container) zombies(t *testing.T) int {
	t.Helper()
	parent, n := strconv.Itoa(c.pid(t)), 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // no process, or gone meanwhile
		}
		// "7 (some name) Z 1 …" (proc_pid_stat(5))
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[0] == "Z" && fields[1] == parent {
			n++
		}
	}
	return n
}

// reaped is how many orphans the service has counted.
func (c *container) reaped(t *testing.T) int {
	t.Helper()
	n, err := strconv.ParseFloat(c.metric(t, "imagelab_reaped_total"), 64)
	if err != nil {
		t.Fatalf("imagelab_reaped_total: %v", err)
	}
	return int(n)
}

// checkPids says whether the container ever ran into its pids limit.
func (c *container) checkPids(t *testing.T) {
	t.Helper()
	if got := c.cgroup(t, "pids", "pids.events", "pids.events"); got != "max 0" {
		t.Errorf("pids.events = %q, want \"max 0\"", got)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	const rounds, each = 4, 100
	helper := buildHelper(t)
	for variant, orphans := range map[string][]string{
		// The subshell ends at once, and what it has started is PID 1's.
		"alpine":  {"sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do (sleep 0.01 &); i=$((i+1)); done", each)},
		"scratch": {"/helper", "orphans", strconv.Itoa(each)},
	} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			// On a busy machine orphans come faster than they are reaped, and what
			// the limit refuses is no orphan.
			c := start(t, variant, slices.Concat(hardened, []string{"--pids-limit", "512", "-v", helper + ":/helper:ro", "--no-healthcheck"})...)
			for range rounds {
				docker(t, append([]string{"exec", c.name}, orphans...)...)
			}
			eventually(t, "count of all orphans", func() bool { return c.reaped(t) >= rounds*each })
			if got := c.reaped(t); got != rounds*each {
				t.Errorf("imagelab_reaped_total = %d, want %d", got, rounds*each)
			}
			eventually(t, "end of the zombies", func() bool { return c.zombies(t) == 0 })
			c.checkPids(t)
		})
	}
}

func TestChildrenOfKilledProbesAreReaped(t *testing.T) {
	t.Parallel()
	const probes = 3
	helper := buildHelper(t)
	for variant, probe := range map[string][]string{
		// It starts a child that outlives it.
		"alpine": {"--health-cmd", "sleep 3 & exec sleep 600"},
		// The helper in the place of the shell that the image does not have.
		"scratch": {"--health-cmd", "hang", "-v", helper + ":/bin/sh:ro"},
	} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			c := start(t, variant, slices.Concat(hardened, probe,
				[]string{"--health-interval=1s", "--health-timeout=2s", "--health-retries=1"})...)
			c.awaitHealth(t, "unhealthy")
			eventually(t, "orphan of each killed probe", func() bool { return c.reaped(t) >= probes })
			eventually(t, "end of the zombies", func() bool { return c.zombies(t) == 0 })
			c.checkPids(t)
		})
	}
}
