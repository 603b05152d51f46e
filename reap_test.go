package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
)

func TestZombiesAreTheDeadChildrenOfOneParent(t *testing.T) {
	t.Parallel()
	stat := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	proc := fstest.MapFS{
		"1/stat":      stat("1 (imagelab) S 0 1 1"),
		"7/stat":      stat("7 (sh) Z 1 7 7"),
		"8/stat":      stat("8 (sleep) S 1 8 8"),
		"9/stat":      stat("9 (child of 8) Z 8 8 8"),
		"10/stat":     stat("10 (odd) Z 1 (name) Z 1 7 7"),
		"11/stat":     stat("11 (a) b) Z 1 7 7"),
		"12/stat":     stat("truncated"),
		"13/cmdline":  stat("no stat"),
		"self/stat":   stat("14 (not a number) Z 1"),
		"meminfo":     stat("MemTotal: 1 kB"),
		"100000/stat": stat("100000 (Z 1) R 1 1 1"),
	}
	got := fmt.Sprint(zombies(proc, 1))
	want := "[{10 odd) Z 1 (name} {11 a) b} {7 sh}]"
	if got != want {
		t.Errorf("zombies(proc, 1) = %s, want %s", got, want)
	}
}

// The test process makes itself the reaper of its descendants, as PID 1 is of
// everything in a container, and has children of its own at the same time.
func TestReaperTakesOrphansAndLeavesOwnChildren(t *testing.T) {
	t.Parallel()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	m := newMetrics(prometheus.NewRegistry(), newHealth(time.Now()), "", new(atomic.Int64))
	execute, interrupt := reaperActor(os.DirFS("/proc"), m, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- execute() }()

	const workers, each = 8, 125
	var children sync.WaitGroup
	for w := range workers {
		children.Go(func() {
			for i := range each {
				// Each child leaves an orphan behind, and each has a result that
				// only its own Wait may have.
				want := (w*each + i) % 250
				cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf("(exit 7) & exit %d", want))
				err := cmd.Run()
				if got := cmd.ProcessState.ExitCode(); got != want {
					t.Errorf("child exit = %d (%v), want %d", got, err, want)
				}
			}
		})
	}
	children.Wait()
	eventually(t, "end of all zombies", func() bool { return len(zombies(os.DirFS("/proc"), os.Getpid())) == 0 })
	if got := testutil.ToFloat64(m.reaped); got == 0 {
		t.Error("imagelab_reaped_total = 0, want the orphans")
	}
	interrupt(nil)
	if err := <-done; err != nil {
		t.Errorf("execute = %v, want nil", err)
	}
}

// waitid(2) names the eldest dead child, and goes on doing so until it is waited
// for.
func TestReaperSeesBehindAChildThatIsStillAwaited(t *testing.T) {
	t.Parallel()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	own := exec.Command("/bin/sh", "-c", "exit 3")
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	isZombie := func(pid int) bool {
		return slices.ContainsFunc(zombies(os.DirFS("/proc"), os.Getpid()), func(z zombie) bool { return z.pid == pid })
	}
	eventually(t, "the end of the child", func() bool { return isZombie(own.Process.Pid) })
	// Others' children die meanwhile, and are gone a moment later.
	eventually(t, "the name of a dead child", func() bool { return isZombie(firstZombie()) })
	out, err := exec.Command("/bin/sh", "-c", "sleep 0.01 >/dev/null & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	m := newMetrics(prometheus.NewRegistry(), newHealth(time.Now()), "", new(atomic.Int64))
	eventually(t, "the end of the orphan", func() bool {
		reap(os.DirFS("/proc"), os.Getpid(), m, slog.New(slog.DiscardHandler))
		return unix.Kill(orphan, 0) == unix.ESRCH
	})
	if err := own.Wait(); own.ProcessState.ExitCode() != 3 {
		t.Errorf("child exit = %v, want 3", err)
	}
}
