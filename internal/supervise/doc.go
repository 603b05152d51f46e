// Package supervise runs programs the way an init does: each in a process group of its own,
// with the terminal if there is one; it waits for them and for every orphan, and tells
// afterwards how they ended.
//
//	s := supervise.New(supervise.Options{Reaped: func(o supervise.Orphan) { … }})
//	go s.Run(ctx)
//	p, err := s.Start(supervise.Command{Args: []string{"gunicorn", "app:app"}, Env: env})
//	…                            // err is a *StartError, with the code of a shell
//	p.Signal(syscall.SIGTERM)
//	<-p.Done()
//	p.End(ctx)                   // whatever it has left in its group
//	os.Exit(p.Status().Code())
//
// # What it owns
//
// There is one Supervisor in a process, and it is the only one that waits for children
// (wait(2)): Run takes every child that has died, whether Start has started it or the kernel
// has handed it over, as it does to process 1 and to a subreaper (PR_SET_CHILD_SUBREAPER,
// prctl(2)). So os/exec must not be used beside it: Run would take the children's ends away
// from it.
//
// The caller reads the process's signals, and passes on with Process.Signal what it likes.
// SIGCHLD is the package's own, as are SIGTTIN and SIGTTOU.
//
// # A stage
//
// Command.Stage names a program that runs first, in the process that will be the command's,
// such as one that confines itself. Start waits for it, and its failure is a StartError.
//
// # The terminal
//
// A command whose standard input is the terminal of this process gets it if this process is
// in the terminal's foreground: its group becomes the foreground group (tcsetpgrp(3)), so that
// Ctrl-C reaches the command and not this process, and reading is allowed. If the command is
// stopped, as by Ctrl-Z, this process takes the terminal back and stops as well, so that the
// shell that has started it goes on; when it is continued it continues the command, which gets
// the terminal if the shell has given it to this process. So does one that reads from it after
// the shell has brought this process to the foreground. Process 1 has no such shell, and does
// not stop.
//
// # What it does not do
//
// It sends no signal by itself, except within End. It keeps no logs and no figures, and
// restarts nothing.
package supervise
