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
// configuration was bad.
func TestSIGTERMInTheFirstMilliseconds(t *testing.T) {
	t.Parallel()
	const tries = 200
	binary := buildImagelab(t)
	codes := map[int]int{}
	unheard := 0
	for i := range tries {
		cmd := exec.Command(binary)
		cmd.Env = environ("PORT=0", "IMAGELAB_OPS_ADDR=127.0.0.1:0", "IMAGELAB_DRAIN_DELAY=0s", "IMAGELAB_DATA_DIR="+t.TempDir())
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
		for moment := time.Duration(i) * 20 * time.Millisecond / tries; time.Since(began) < moment; {
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
	if codes[0]+codes[128+int(syscall.SIGTERM)] != tries {
		t.Errorf("exit codes %v, want 0 or 143 alone", codes)
	}
}
