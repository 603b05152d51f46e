package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tool is a program that runs and ends.
type tool struct {
	Name    string
	Command []string
	Verdict bool // exit code 1 is an answer, as an audit's
}

// timing is what one run of a program takes.
type timing struct {
	Wall, CPU float64 // seconds, the medians of the runs
	Peak      float64 // bytes, of one run more
}

// timeAll runs the programs in turn, so many times each.
func timeAll(runs int, programs []tool) ([]timing, error) {
	wall, cpu := make([][]float64, len(programs)), make([][]float64, len(programs))
	for range runs {
		for i, p := range programs {
			took, used, err := p.run()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", strings.Join(p.Command, " "), err)
			}
			wall[i], cpu[i] = append(wall[i], took.Seconds()), append(cpu[i], used.Seconds())
		}
	}
	var all []timing
	for i, p := range programs {
		most, err := peak(p.Command)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(p.Command, " "), err)
		}
		all = append(all, timing{median(wall[i]), median(cpu[i]), most})
	}
	return all, nil
}

// run says how long the program took, and how much of a processor's time.
func (p tool) run() (wall, cpu time.Duration, err error) {
	began := time.Now()
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	if err := cmd.Run(); err != nil && (!p.Verdict || cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1) {
		return 0, 0, err
	}
	return time.Since(began), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// timeInside is timeAll in a container that has this program as /bench.
func timeInside(tag string, runs int, programs []tool) ([]timing, error) {
	wish, err := json.Marshal(programs)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("docker", "run", "--rm", tag, "/bench", "-inside", string(wish), "-rounds", fmt.Sprint(runs)).Output()
	if err != nil {
		return nil, fmt.Errorf("in a container of %s: %w: %s", tag, err, stderr(err))
	}
	var all []timing
	if err := json.Unmarshal(out, &all); err != nil || len(all) != len(programs) {
		return nil, errors.Join(fmt.Errorf("in a container of %s: %d of %d timings in %s", tag, len(all), len(programs), out), err)
	}
	return all, nil
}

// answerInside is the other end of timeInside.
func answerInside(wish string, runs int) error {
	var programs []tool
	if err := json.Unmarshal([]byte(wish), &programs); err != nil {
		return fmt.Errorf("-inside %s: %w", wish, err)
	}
	all, err := timeAll(runs, programs)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// peak is the most memory that the program had resident, in bytes. What wait4(2)
// says begins with the memory of the parent, as the two share it until exec, so
// the program is stopped as it exits and asked (proc_pid_status(5), VmHWM).
func peak(command []string) (bytes float64, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread that traces ends with its goroutine
		bytes, err = traced(command)
	}()
	<-done
	return bytes, err
}

// traced is peak on a thread of its own (ptrace(2)).
func traced(command []string) (bytes float64, err error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	process, err := os.StartProcess(path, command, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{null, null, null}, Sys: &unix.SysProcAttr{Ptrace: true}})
	if err != nil {
		return 0, err
	}
	pid := process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return 0, err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_EXITKILL); err != nil {
		return 0, err
	}
	for signal := 0; ; {
		if err := unix.PtraceCont(pid, signal); err != nil {
			return 0, err
		}
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			return 0, err
		}
		if status.Exited() || status.Signaled() {
			return bytes, nil
		}
		if signal = 0; status.TrapCause() == unix.PTRACE_EVENT_EXIT {
			if bytes, err = memoryOf(pid, "VmHWM:"); err != nil {
				return 0, err
			}
		} else if s := status.StopSignal(); s != unix.SIGTRAP {
			signal = int(s)
		}
	}
}
