package supervise

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options are the hooks of a Supervisor. Each may be nil.
type Options struct {
	// Reaped is called for each orphan that was waited for, one at a time.
	Reaped func(Orphan)
}

// An Orphan is a dead process whose parent had died before it.
type Orphan struct {
	Pid    int
	Name   string // its command, cut to 15 bytes (proc_pid_comm(5)); empty if unknown
	Status Status
}

// A Status is how a process ended.
type Status struct{ wait syscall.WaitStatus }

// Code is the exit code, or 128 and the number of the signal, as shells report it.
func (s Status) Code() int {
	if s.wait.Signaled() {
		return 128 + int(s.wait.Signal())
	}
	return s.wait.ExitStatus()
}

// Signaled says whether a signal has ended it.
func (s Status) Signaled() bool { return s.wait.Signaled() }

// String is "exit 3" or the name of a signal.
func (s Status) String() string {
	if s.wait.Signaled() {
		return s.wait.Signal().String()
	}
	return "exit " + strconv.Itoa(s.wait.ExitStatus())
}

// A Supervisor starts commands, and waits for them and for orphans.
type Supervisor struct {
	reaped func(Orphan)
	tty    int // the terminal of this process, or -1

	mu    sync.Mutex // held from before a fork until its pid is known, and while the dead are taken
	known map[int]*Process
}

// New makes the Supervisor of this process.
func New(o Options) *Supervisor {
	return &Supervisor{reaped: o.Reaped, known: map[int]*Process{}, tty: ownTerminal()}
}

// AdoptOrphans has the orphans among its descendants handed to this process, as process 1
// has anyway (Linux 3.4).
func AdoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Start starts a command. The error is a *StartError.
func (s *Supervisor) Start(c Command) (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tty := -1
	if s.isForeground(unix.Getpgrp()) {
		tty = s.tty
	}
	pid, note, err := fork(c, tty)
	if err != nil {
		return nil, err
	}
	p := &Process{Pid: pid, Note: note, Started: time.Now(), owner: s, done: make(chan struct{})}
	s.known[pid] = p
	return p, nil
}

// again is how often Run looks without being told: signals of one kind do not queue, and one
// may come between the look and the wait.
const again = 5 * time.Second

// Run waits for children until ctx ends.
func (s *Supervisor) Run(ctx context.Context) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		s.takeDead()
		select {
		case <-died:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// takeDead waits for all that have died, and then sees to one that was stopped.
func (s *Supervisor) takeDead() {
	for {
		dead, status := s.takeOne()
		switch p := dead.process; {
		case dead.pid == 0:
			s.takeStopped()
			return
		case p != nil:
			s.takeTerminal(p)
			p.status, p.ended = Status{status}, time.Now()
			close(p.done)
		case s.reaped != nil:
			s.reaped(Orphan{dead.pid, dead.name, Status{status}})
		}
	}
}

// child is one that has died.
type child struct {
	pid     int      // 0 if there is none
	process *Process // nil of an orphan
	name    string   // of an orphan
}

// takeOne waits for a child that has died, if there is one.
func (s *Supervisor) takeOne() (dead child, status syscall.WaitStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dead.pid = firstZombie()
	if dead.pid == 0 {
		return dead, 0
	}
	dead.process = s.known[dead.pid]
	if dead.process == nil {
		dead.name = nameOf(dead.pid)
	}
	var usage syscall.Rusage
	for {
		_, err := syscall.Wait4(dead.pid, &status, 0, &usage)
		if err != syscall.EINTR {
			break
		}
	}
	if dead.process != nil {
		delete(s.known, dead.pid)
		dead.process.spent = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return dead, status
}

// takeStopped sees to commands that were stopped.
func (s *Supervisor) takeStopped() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WSTOPPED|unix.WNOHANG, nil)
		if err != nil || pidOf(&info) == 0 {
			return
		}
		s.mu.Lock()
		p := s.known[pidOf(&info)]
		s.mu.Unlock()
		if p != nil {
			s.stopped(p, signalOf(&info))
		}
	}
}

// firstZombie is the child that a wait for any would take, which it leaves as it is; 0 if
// none is dead (waitid(2)).
func firstZombie() int {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return 0
	}
	return pidOf(&info)
}

// nameOf is the name of a process, or empty.
func nameOf(pid int) string {
	comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return strings.TrimSuffix(string(comm), "\n")
}

// A Process is a command that was started. Its methods are safe for concurrent use.
type Process struct {
	Pid     int // of the command, and of its process group
	Started time.Time
	Note    string // of its stage

	owner  *Supervisor
	done   chan struct{}
	status Status
	spent  time.Duration
	ended  time.Time
}

// Done is closed when the command has ended, whatever is left of its group.
func (p *Process) Done() <-chan struct{} { return p.done }

// Status is how the command has ended. It is called after Done is closed.
func (p *Process) Status() Status { return p.status }

// Spent is the processor time of the command and of those for which it has waited. It is
// called after Done is closed.
func (p *Process) Spent() time.Duration { return p.spent }

// Lived is how long the command has run. It is called after Done is closed.
func (p *Process) Lived() time.Duration { return p.ended.Sub(p.Started) }

// Signal sends a signal to the command, and not to the rest of its group. One that has ended
// gets none.
func (p *Process) Signal(sig syscall.Signal) error {
	// Its pid is its own as long as nobody has waited for it.
	p.owner.mu.Lock()
	defer p.owner.mu.Unlock()
	if p.owner.known[p.Pid] != p {
		return os.ErrProcessDone
	}
	return syscall.Kill(p.Pid, sig)
}

// Kill ends the command, also where it has left its group, and all in the group at once. The
// error is EPERM if it may not be signalled (kill(2)).
func (p *Process) Kill() error {
	group := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if own := p.Signal(syscall.SIGKILL); !errors.Is(own, os.ErrProcessDone) {
		return own
	}
	return group
}

// HasGroup says whether there is anyone in the command's group.
func (p *Process) HasGroup() bool { return syscall.Kill(-p.Pid, 0) != syscall.ESRCH }

// End ends what a command that has ended left in its group: by SIGTERM, and by SIGKILL when
// ctx ends. It says whether there was something.
func (p *Process) End(ctx context.Context) bool {
	if !p.HasGroup() {
		return false
	}
	// One that is stopped acts on neither before it goes on.
	_ = syscall.Kill(-p.Pid, syscall.SIGTERM)
	_ = syscall.Kill(-p.Pid, syscall.SIGCONT)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.HasGroup() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = p.Kill()
			return true
		}
	}
	return true
}
