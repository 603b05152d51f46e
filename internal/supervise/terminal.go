package supervise

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownTerminal is standard input if that is the terminal of this process, else -1.
func ownTerminal() int {
	if _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err != nil {
		return -1
	}
	return 0
}

// giveTerminal makes a group the foreground group of the terminal (tcsetpgrp(3)). Who is in
// the background gets SIGTTOU for it, unless that is blocked.
func giveTerminal(tty, group int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before) != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, group)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}

// isForeground says whether there is a terminal, and a group is its foreground group.
func (s *Supervisor) isForeground(group int) bool {
	got, err := unix.IoctlGetInt(s.tty, unix.TIOCGPGRP)
	return err == nil && got == group
}

// stopped is called when a command was stopped by a signal. The shell waits for this process,
// and not for the command.
func (s *Supervisor) stopped(p *Process, sig syscall.Signal) {
	own := unix.Getpgrp()
	switch wants := sig == syscall.SIGTTIN || sig == syscall.SIGTTOU; {
	case wants && s.isForeground(own): // the shell has brought this process there since
	case s.tty < 0 || os.Getpid() == 1:
		return
	default:
		if s.isForeground(p.Pid) {
			giveTerminal(s.tty, own)
		}
		stopSelf()
	}
	if s.isForeground(own) { // the shell has continued this process there
		giveTerminal(s.tty, p.Pid)
	}
	_ = syscall.Kill(-p.Pid, syscall.SIGCONT)
}

// stopSelf stops this process, and returns when it is continued. A signal to the whole
// process may find another thread, and this one would go on for a moment.
func stopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// takeTerminal takes the terminal back from a command that has ended.
func (s *Supervisor) takeTerminal(p *Process) {
	if s.isForeground(p.Pid) {
		giveTerminal(s.tty, unix.Getpgrp())
	}
}

// pidOf reads si_pid, which follows three ints, aligned as a pointer is (sigaction(2)).
func pidOf(info *unix.Siginfo) int { return fieldOf(info, 0) }

// signalOf reads si_status, which follows si_pid and si_uid: of a process that was stopped, the
// signal that did it.
func signalOf(info *unix.Siginfo) syscall.Signal { return syscall.Signal(fieldOf(info, 8)) }

func fieldOf(info *unix.Siginfo, offset uintptr) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 8+unsafe.Sizeof(uintptr(0))+offset)))
}
