package supervise

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Command is what to start.
type Command struct {
	// Args are the program and its arguments. A program without a slash is looked for in
	// the PATH of Env (execvp(3)).
	Args []string
	Env  []string // as os.Environ
	// Stage is a program, and its first arguments, that is started in place of the command,
	// with the command's file and Args behind them, and StageEnv behind Env. It becomes the
	// command by Become. Empty is none.
	Stage    []string
	StageEnv []string
}

// A StartError is why a command could not be started.
type StartError struct {
	Program string
	Err     error
	found   bool
}

func (e *StartError) Error() string { return e.Program + ": " + e.reason() }

func (e *StartError) Unwrap() error { return e.Err }

func (e *StartError) reason() string {
	if e.found && errors.Is(e.Err, syscall.ENOENT) {
		return "it is there, but not the interpreter or loader that it names"
	}
	if !e.found && errors.Is(e.Err, syscall.ENOENT) && !strings.Contains(e.Program, "/") {
		return "not found in PATH"
	}
	return e.Err.Error()
}

// Code is the exit code that a shell has for it: 127 if there is no such program, 126 if it
// cannot be run (POSIX, 2.8.2), and 128 and the number of a signal that has ended its stage.
func (e *StartError) Code() int {
	var ended stageSignal
	if errors.As(e.Err, &ended) {
		return 128 + int(ended)
	}
	if !e.found && (errors.Is(e.Err, syscall.ENOENT) || errors.Is(e.Err, syscall.ENOTDIR)) {
		return 127
	}
	return 126
}

// lookUp finds the file of a program. The error is ENOENT, or why what was found cannot be
// run.
func lookUp(program, path string) (file string, err error) {
	if strings.Contains(program, "/") {
		return program, runnable(program)
	}
	err = syscall.ENOENT
	if program == "" {
		return program, err
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, program)
		if dir == "" {
			file = "./" + program
		}
		problem := runnable(file)
		if problem == nil {
			return file, nil
		}
		if !errors.Is(problem, fs.ErrNotExist) && !errors.Is(problem, syscall.ENOTDIR) {
			err = problem // of the first that is there, if no other will do
		}
	}
	return program, err
}

// runnable says why a file cannot be run, or nil.
func runnable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return errors.Unwrap(err) // an errno, without the path
	}
	if info.IsDir() {
		return syscall.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

// defaultPath is where programs are looked for if the environment has no PATH: the bare
// minimum of execvp(3), with the places that images use.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// pathOf returns the PATH of an environment.
func pathOf(env []string) string {
	path := defaultPath
	for _, pair := range env {
		if value, ok := strings.CutPrefix(pair, "PATH="); ok {
			path = value
		}
	}
	return path
}

// fork starts the command in a process group of its own, and in the foreground of tty unless
// that is -1, and returns what its stage has noted. A file that is no program and names no interpreter is a shell's (execvp(3)).
func fork(c Command, tty int) (pid int, note string, err error) {
	if len(c.Args) == 0 {
		return 0, "", &StartError{Err: syscall.ENOENT}
	}
	file, err := lookUp(c.Args[0], pathOf(c.Env))
	if err != nil {
		return 0, "", &StartError{Program: c.Args[0], Err: err}
	}
	attr := &syscall.ProcAttr{
		Env:   c.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if tty >= 0 {
		attr.Sys.Foreground, attr.Sys.Ctty = true, tty
	}
	if len(c.Stage) > 0 {
		if pid, note, err = forkStage(c, file, attr); err != nil {
			err = &StartError{Program: c.Args[0], Err: err, found: true}
		}
		return pid, note, err
	}
	pid, err = syscall.ForkExec(file, c.Args, attr)
	if errors.Is(err, syscall.ENOEXEC) {
		pid, err = syscall.ForkExec("/bin/sh", append([]string{c.Args[0], file}, c.Args[1:]...), attr)
		if errors.Is(err, syscall.ENOENT) {
			err = syscall.ENOEXEC // there is no shell to try
		}
	}
	if err != nil {
		return 0, "", &StartError{Program: c.Args[0], Err: err, found: true}
	}
	return pid, "", nil
}
