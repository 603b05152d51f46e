package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A stage is a program that gets ready and then becomes the command, in the same process: Command.Stage starts it, and
// it ends by calling Become, or Refuse. What it says comes by a pipe, which the kernel closes when it has become the
// command, so that Start knows as much of it as of a command without a stage.

// stagePipe holds the descriptor of that pipe in the environment of a stage. It is one that is free in the process that
// starts it, so that the command has those that it would have without a stage.
const stagePipe = "IMAGELAB_STAGE_PIPE"

// stageSignal is why a stage has not become the command: the signal has ended it.
type stageSignal syscall.Signal

func (s stageSignal) Error() string {
	return "a signal, " + syscall.Signal(s).String() + ", came before it was the command"
}

// stagePatience is how long a stage may take.
const stagePatience = 10 * time.Second

// The words of a stage, a line each: a note first, and then one of the others if it has failed.
var (
	wordNote    = []byte("note ")
	wordErrno   = []byte("errno ")
	wordRefusal = []byte("refusal ")
)

// pipeOfStage is the descriptor, and -1 where this process is no stage.
func pipeOfStage() int {
	pipe, err := strconv.Atoi(os.Getenv(stagePipe))
	if err != nil {
		return -1
	}
	return pipe
}

func say(word, text []byte) {
	line := bytes.ReplaceAll(append(bytes.Clone(word), text...), []byte("\n"), []byte(" "))
	_, _ = unix.Write(pipeOfStage(), append(line, '\n')) // nobody else could be told
}

// Become is the end of a stage: the process becomes the program in file. The note, one line, is for Process.Note. It
// returns the exit code if it cannot.
func Become(file string, args, env []string, note []byte) int {
	syscall.CloseOnExec(pipeOfStage())
	env = slices.DeleteFunc(slices.Clone(env), func(pair string) bool { return strings.HasPrefix(pair, stagePipe+"=") })
	say(wordNote, note)
	err := syscall.Exec(file, args, env)
	if errors.Is(err, syscall.ENOEXEC) {
		if err = syscall.Exec("/bin/sh", append([]string{args[0], file}, args[1:]...), env); errors.Is(err, syscall.ENOENT) {
			err = syscall.ENOEXEC // there is no shell to try
		}
	}
	var errno syscall.Errno
	errors.As(err, &errno)
	say(wordErrno, strconv.AppendInt(nil, int64(errno), 10))
	return 126
}

// Refuse ends a stage that will not become the command. It returns the exit code.
func Refuse(why error) int {
	say(wordRefusal, []byte(why.Error()))
	return 126
}

// forkStage is fork for a command with a stage: it returns when the stage has become the command.
func forkStage(c Command, file string, attr *syscall.ProcAttr) (pid int, note string, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return 0, "", err
	}
	defer unix.Close(pipe[0])
	staged := *attr
	staged.Env = slices.Concat(attr.Env, c.StageEnv, []string{stagePipe + "=" + strconv.Itoa(pipe[1])})
	for fd := len(attr.Files); fd < pipe[1]; fd++ { // inherited ones go on, others are closed as ever
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			staged.Files = append(staged.Files, ^uintptr(0))
		} else {
			staged.Files = append(staged.Files, uintptr(fd))
		}
	}
	staged.Files = append(staged.Files, uintptr(pipe[1]))
	pid, err = syscall.ForkExec(c.Stage[0], append(append([]string{}, c.Stage...), append([]string{file}, c.Args...)...), &staged)
	unix.Close(pipe[1])
	if err != nil {
		return 0, "", fmt.Errorf("%s: %v", c.Stage[0], err) // nothing of the command: it is not to be unwrapped
	}
	said, err := hear(pipe[0], stagePatience)
	for line := range bytes.Lines(said) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if text, ok := bytes.CutPrefix(line, wordNote); ok {
			note = string(text)
		} else if text, ok := bytes.CutPrefix(line, wordErrno); ok {
			n, _ := strconv.Atoi(string(text))
			err = syscall.Errno(n)
		} else if text, ok := bytes.CutPrefix(line, wordRefusal); ok {
			err = errors.New(string(text))
		}
	}
	ended := err == nil && note == ""
	if ended {
		err = errors.New("it ended before it was the command")
	}
	if err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL) // of one that has ended already, nothing changes
		var status syscall.WaitStatus
		for {
			if _, wait := syscall.Wait4(pid, &status, 0, nil); wait != syscall.EINTR {
				break
			}
		}
		if ended && status.Signaled() {
			err = stageSignal(status.Signal())
		}
		return 0, "", err
	}
	return pid, note, nil
}

// hear reads what a stage says, until it has become the command or has ended.
func hear(pipe int, patience time.Duration) (said []byte, err error) {
	by := time.Now().Add(patience)
	part := make([]byte, 4096)
	for {
		n, err := unix.Read(pipe, part)
		switch {
		case n > 0:
			said = append(said, part[:n]...)
		case err == nil:
			return said, nil
		case err == unix.EINTR:
		case err != unix.EAGAIN:
			return said, err
		default:
			left := time.Until(by)
			if left <= 0 {
				return said, fmt.Errorf("it was not the command after %v", patience)
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		}
	}
}
