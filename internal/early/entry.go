package early

// The program's entry point is early_entry, which the linker is told by -E
// early_entry; it goes on to Go's own.
//
// As PID 1 a process gets only the signals that it handles. Go installs its handlers
// before any code of the program runs, and a SIGTERM that comes before the program has
// asked for it (os/signal) is raised again for the default action, which PID 1 does not
// have, so that Go exits with 2 in the end. But it passes such a signal on to a handler
// that was there before it, as there is where Go is a library in another program. So
// early_entry installs one, as PID 1 alone: it exits with 128 + the signal, as a shell
// says it. What comes before that is lost, by the kernel's rule for PID 1 (pid_namespaces(7)).
// Go itself ends for a SIGQUIT that nobody has asked for, with its goroutines on stderr and
// exit code 2, from when its handlers are there.
