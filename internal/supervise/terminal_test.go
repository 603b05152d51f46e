package supervise

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asSupervisor in the environment makes the test program one that starts its arguments as a
// command, and reads a line from its terminal when that has ended.
const asSupervisor = "SUPERVISE_TEST"

func superviseArguments() {
	time.AfterFunc(2*patience, func() { os.Exit(1) }) // should nobody be left who would end it
	s := New(Options{})
	p, err := s.Start(Command{Args: os.Args[1:], Env: os.Environ()})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go s.Run(context.Background())
	<-p.Done()
	var line string
	_, _ = fmt.Scanln(&line)
	fmt.Println("after it: " + line)
	os.Exit(p.Status().Code())
}

// A shell is bash on a terminal.
type shell struct {
	keys *os.File // the other end of the terminal
	mu   sync.Mutex
	said []byte
}

func (s *shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, p...)
	return len(p), nil
}

func startShell(t *testing.T) *shell {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	pid, err := syscall.ForkExec("/bin/bash", []string{"bash", "--norc", "--noprofile", "-i"}, &syscall.ProcAttr{
		Env:   []string{"PATH=" + os.Getenv("PATH"), "PS1=prompt> ", "TERM=dumb", "HOME=" + t.TempDir(), asSupervisor + "=1", "IT=" + os.Args[0]},
		Files: []uintptr{terminal.Fd(), terminal.Fd(), terminal.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	s := &shell{keys: keys}
	go func() { _, _ = io.Copy(s, keys) }()
	return s
}

// foreground is the group that has the terminal.
func (s *shell) foreground(t *testing.T) int {
	t.Helper()
	group, err := unix.IoctlGetInt(int(s.keys.Fd()), unix.TIOCGPGRP)
	if err != nil {
		t.Fatal(err)
	}
	return group
}

// enter types, and waits until the terminal shows what is wanted.
func (s *shell) enter(t *testing.T, typed, want string) {
	t.Helper()
	s.mu.Lock()
	before := len(s.said)
	s.mu.Unlock()
	if _, err := s.keys.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	new := func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return string(s.said[before:])
	}
	for deadline := time.Now().Add(patience); !strings.Contains(new(), want); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %q the terminal shows %q, want %q", typed, new(), want)
		}
	}
}

// awaitJob waits until the shell says that of its job.
func (s *shell) awaitJob(t *testing.T, state string) {
	t.Helper()
	for try := 0; ; try++ {
		s.mu.Lock()
		before := len(s.said)
		s.mu.Unlock()
		s.enter(t, fmt.Sprintf("jobs; echo try %d\n", try), fmt.Sprintf("\ntry %d\r\n", try))
		s.mu.Lock()
		found := strings.Contains(string(s.said[before:]), state)
		s.mu.Unlock()
		if found {
			return
		}
		if try == 1000 {
			t.Fatalf("after %d tries the shell's job is not %s: %q", try, state, s.said[before:])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// sees waits until the terminal belongs to the group of a process with that command line.
func (s *shell) sees(t *testing.T, program string) {
	t.Helper()
	eventually(t, program+" in the foreground", func() bool {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.foreground(t)))
		return strings.HasPrefix(string(line), program+"\x00")
	})
}

func TestCommandHasTheTerminal(t *testing.T) {
	t.Parallel()
	s := startShell(t)
	s.enter(t, "echo up\n", "\nup\r\n")
	s.enter(t, "$IT cat\n", "cat\r\n")
	s.sees(t, "cat")
	s.enter(t, "one\n", "one\r\none\r\n") // the terminal's echo, and cat's
	t.Log("its end gives the terminal back")
	s.enter(t, "\x04", "")
	s.sees(t, os.Args[0])
	s.enter(t, "two\n", "after it: two")
	s.enter(t, "echo code $?\n", "\ncode 0\r\n")
	t.Log("it has it before it asks for it")
	s.enter(t, "$IT sleep 1000\n", "1000\r\n")
	s.sees(t, "sleep")
	s.enter(t, "\x03", "")
	s.sees(t, os.Args[0])
	s.enter(t, "three\n", "after it: three")
	t.Log("only if it is its standard input")
	s.enter(t, "$IT sh -c 'echo begun; exec sleep 1000' </dev/null\n", "\nbegun\r\n")
	s.sees(t, os.Args[0])
	s.enter(t, "\x03", "prompt> ")
}

func TestStoppedCommandStopsItsSupervisor(t *testing.T) {
	t.Parallel()
	s := startShell(t)
	s.enter(t, "echo up\n", "\nup\r\n")
	for range 3 {
		s.enter(t, "$IT cat\n", "cat\r\n")
		s.sees(t, "cat")
		s.enter(t, "\x1a", "Stopped")
		s.sees(t, "bash")
		t.Log("in the background it reads, and is stopped again")
		s.enter(t, "bg\n", "cat &\r\n")
		s.awaitJob(t, "Stopped")
		s.sees(t, "bash")
		s.enter(t, "fg\n", "cat\r\n")
		s.sees(t, "cat")
		s.enter(t, "one\n", "one\r\none\r\n")
		s.enter(t, "\x04", "")
		s.sees(t, os.Args[0])
		s.enter(t, "two\n", "after it: two")
	}
}

func TestCommandInTheBackground(t *testing.T) {
	t.Parallel()
	s := startShell(t)
	s.enter(t, "echo up\n", "\nup\r\n")
	s.enter(t, "$IT sleep 1000 &\n", "[1] ")
	s.enter(t, "echo mine\n", "\nmine\r\n")
	s.sees(t, "bash")
	t.Log("stopped by another, its shell knows")
	s.enter(t, "until pkill -STOP -s 0 -f ^sleep.1000; do sleep 0.01; done\n", "\r\n")
	s.awaitJob(t, "Stopped")
	s.sees(t, "bash")
	s.enter(t, "bg\n", "sleep 1000 &\r\n")
	s.awaitJob(t, "Running")
	t.Log("its end leaves the terminal to the shell, too")
	s.enter(t, "until pkill -KILL -s 0 -f ^sleep.1000; do sleep 0.01; done\n", "\r\n")
	s.awaitJob(t, "Stopped")
	s.sees(t, "bash")
	s.enter(t, "fg\n", "$IT sleep 1000")
	s.enter(t, "one\n", "after it: one")
	s.enter(t, "echo code $?\n", "\ncode 137\r\n")
	t.Log("brought to the foreground before it reads")
	s.enter(t, "$IT sh -c 'sleep 0.5; cat' &\n", "[1] ")
	s.enter(t, "fg\n", "0.5;")
	s.sees(t, "sh")
	s.enter(t, "two\n", "two\r\ntwo\r\n")
	s.enter(t, "\x03", "")
	s.sees(t, os.Args[0])
	s.enter(t, "three\n", "after it: three")
	s.enter(t, "echo code $?\n", "\ncode 130\r\n")
	t.Log("or before it sets it")
	s.enter(t, "$IT sh -c 'sleep 0.5; stty sane; echo it is set' &\n", "[1] ")
	s.enter(t, "fg\n", "\nit is set\r\n")
	s.sees(t, os.Args[0])
	s.enter(t, "four\n", "after it: four")
}
