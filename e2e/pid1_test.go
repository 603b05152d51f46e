package e2e

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestSIGTERMInTheFirstMilliseconds stops a process in a PID namespace of its own, whose PID 1 it is, at every moment
// of its start. It is stopped, by itself or by the handler that is there before Go's: it never says that its
// configuration was bad. With a command it never says that this has succeeded.
func TestSIGTERMInTheFirstMilliseconds(t *testing.T) {
	t.Parallel()
	const killed = 128 + int(syscall.SIGTERM)
	t.Run("server", func(t *testing.T) { stopEarly(t, 0, killed, nil) })
	t.Run("command", func(t *testing.T) {
		// The command is not to be confined, which the mode require would refuse.
		stopEarly(t, killed, killed, []string{"IMAGELAB_SANDBOX=auto"}, "--", "sleep", "1000")
	})
}

// stopEarly sends SIGTERM at each moment of the start. The exit code has to be one of two.
func stopEarly(t *testing.T, code, other int, env []string, args ...string) {
	t.Helper()
	const tries, last = 200, 20 * time.Millisecond
	binary := buildImagelab(t)
	codes := map[int]int{}
	unheard := 0
	for i := range tries {
		cmd := exec.Command(binary, args...)
		cmd.Env = environ("PORT=0", "IMAGELAB_OPS_ADDR=127.0.0.1:0", "IMAGELAB_DRAIN_DELAY=0s", "IMAGELAB_DATA_DIR="+t.TempDir())
		cmd.Env = append(cmd.Env, env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		began := time.Now()
		if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
			leaveOut(t, "kernel: no new PID namespace without privilege")
		} else if err != nil {
			t.Fatal(err)
		}
		exited := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(exited)
		}()
		// A timer would be too coarse.
		for moment := time.Duration(i) * last / tries; time.Since(began) < moment; {
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(250 * time.Millisecond):
			// The kernel drops what comes before the first instruction (pid_namespaces(7)).
			unheard++
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-exited:
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				t.Fatalf("no exit %v after a second SIGTERM", patience)
			}
		}
		codes[cmd.ProcessState.ExitCode()]++
	}
	t.Logf("exit codes %v, %d came before the first instruction", codes, unheard)
	for got, n := range codes {
		if got != code && got != other {
			t.Errorf("exit code %d, %d times; want %d or %d", got, n, code, other)
		}
	}
}
