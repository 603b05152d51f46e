package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaperActor waits for orphans. A process whose parent dies becomes PID 1's
// child, and stays a zombie until PID 1 waits for it: each health probe that is
// killed for its timeout would leave one, until the pids limit is full.
//
// A child that this process started itself belongs to whoever waits for it
// (os/exec), and its result must not be stolen. Such a child has a pidfd here
// for as long as someone may wait for it, as os.StartProcess keeps one; an
// orphan has none.
func reaperActor(proc fs.FS, m *metrics, log *slog.Logger) (execute func() error, interrupt func(error)) {
	ended := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(ended, syscall.SIGCHLD)
	execute = func() error {
		defer signal.Stop(ended)
		// Signals of one kind do not queue, and one may come between the look
		// and the wait, so there is a second occasion.
		again := time.NewTicker(5 * time.Second)
		defer again.Stop()
		for {
			reap(proc, os.Getpid(), m, log)
			select {
			case <-ended:
			case <-again.C:
			case <-done:
				return nil
			}
		}
	}
	return execute, func(error) { close(done) }
}

// reap waits for every zombie child of pid self that is not awaited already.
func reap(proc fs.FS, self int, m *metrics, log *slog.Logger) {
	dead := zombies(proc, self)
	if len(dead) == 0 {
		return
	}
	// The order matters: a child that was a zombie when its pidfd was already
	// gone has been waited for, and cannot be taken for an orphan.
	awaited := pidfds(proc)
	for _, z := range dead {
		if awaited[z.pid] {
			continue
		}
		var status unix.WaitStatus
		if pid, err := unix.Wait4(z.pid, &status, unix.WNOHANG, nil); err == nil && pid == z.pid {
			m.reaped.Inc()
			log.Info("reaped an orphan", "pid", pid, "command", z.command, "status", describe(status))
		}
	}
}

func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return "exit " + strconv.Itoa(status.ExitStatus())
}

type zombie struct {
	pid     int
	command string
}

// zombies lists the children of parent in state Z (proc_pid_stat(5)).
func zombies(proc fs.FS, parent int) []zombie {
	var found []zombie
	entries, _ := fs.ReadDir(proc, ".")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := fs.ReadFile(proc, path.Join(e.Name(), "stat"))
		if err != nil {
			continue // gone meanwhile
		}
		// "7 (some (odd) name) Z 1 …": the name ends at the last parenthesis.
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(string(stat[end+1:]))
		if len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			found = append(found, zombie{pid, string(stat[open+1 : end])})
		}
	}
	return found
}

// pidfds lists the processes for which this one holds a pidfd: their fdinfo has
// a line "Pid:" (proc_pid_fdinfo(5)).
func pidfds(proc fs.FS) map[int]bool {
	held := map[int]bool{}
	entries, _ := fs.ReadDir(proc, "self/fdinfo")
	for _, e := range entries {
		info, err := fs.ReadFile(proc, path.Join("self/fdinfo", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for line := range strings.Lines(string(info)) {
			if rest, ok := strings.CutPrefix(line, "Pid:"); ok {
				if pid, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
					held[pid] = true
				}
			}
		}
	}
	return held
}
