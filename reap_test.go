package main

import (
	"fmt"
	"strings"
	"testing"
)

// The test of the wait itself is internal/supervise's. Here the orphans of a command are
// counted and logged, also where the process is not PID 1.
func TestOrphansOfACommandAreCountedAndLogged(t *testing.T) {
	t.Parallel()
	const n = 50
	in := startCommand(t, []string{"sh", "-c", fmt.Sprintf(
		"for i in $(seq %d); do (sh -c 'sleep 0.1; exit 5' &); done; while :; do sleep 0.1; done", n)})
	eventually(t, "reaped orphans", func() bool { return in.metric(t, "imagelab_reaped_total") == fmt.Sprint(n) })
	if got := strings.Count(in.log.String(), `"msg":"reaped an orphan"`); got != n {
		t.Errorf("%d orphans are logged, want %d", got, n)
	}
	if in.log.find("reaped an orphan", "command", "sh", "status", "exit 5") == nil {
		t.Errorf("the log does not name the orphans:\n%s", in.log)
	}
}
