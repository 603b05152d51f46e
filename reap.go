package main

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

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

// death is a process that was waited for.
type death struct {
	pid             int
	command, status string
}

// reap counts and logs the orphans that have died.
func reap(proc fs.FS, self int, m *metrics, log *slog.Logger) {
	for more := true; more; {
		dead := orphans(proc, self)
		for _, d := range dead {
			m.reaped.Inc()
			log.Info("reaped an orphan", "pid", d.pid, "command", d.command, "status", d.status)
		}
		more = len(dead) >= maxDead
	}
}

// maxDead is how many orphans are taken while no child can be started.
const maxDead = 64

// orphans waits for the zombie children of pid self that are not awaited already.
func orphans(proc fs.FS, self int) (dead []death) {
	if firstZombie() == 0 {
		return nil
	}
	// No child is started meanwhile. So a zombie either has its pidfd already or
	// is an orphan.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	awaited := pidfds(proc)
	wait := func(z zombie) bool {
		var status unix.WaitStatus
		pid, err := unix.Wait4(z.pid, &status, unix.WNOHANG, nil)
		if err != nil || pid != z.pid {
			return false
		}
		dead = append(dead, death{pid, z.command, describe(status)})
		return true
	}
	for len(dead) < maxDead {
		pid := firstZombie()
		if pid == 0 {
			return dead
		}
		if awaited[pid] {
			break
		}
		comm, _ := fs.ReadFile(proc, strconv.Itoa(pid)+"/comm")
		if !wait(zombie{pid, strings.TrimSuffix(string(comm), "\n")}) {
			break
		}
	}
	// One that is awaited hides those behind it.
	for _, z := range zombies(proc, self) {
		if !awaited[z.pid] {
			wait(z)
		}
	}
	return dead
}

// firstZombie is the child that a wait for any would take, which it leaves as it
// is; 0 if none is dead (waitid(2)).
func firstZombie() int {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return 0 // ECHILD: there are no children at all
	}
	// si_pid follows three ints, aligned as a pointer is (sigaction(2)).
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 8+unsafe.Sizeof(uintptr(0)))))
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

// pidfds lists the processes for which this one holds a pidfd (pidfd_open(2)):
// the descriptor's fdinfo has a line "Pid:" (proc_pid_fdinfo(5)).
func pidfds(proc fs.FS) map[int]bool {
	held := map[int]bool{}
	entries, _ := fs.ReadDir(proc, "self/fd")
	for _, e := range entries {
		// Most descriptors are connections, and a link is cheaper than a file.
		if target, _ := fs.ReadLink(proc, path.Join("self/fd", e.Name())); !strings.Contains(target, "pidfd") {
			continue
		}
		info, _ := fs.ReadFile(proc, path.Join("self/fdinfo", e.Name()))
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
