package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An initProgram is put before a command, as PID 1 of a namespace of its own.
type initProgram struct {
	name string
	argv []string
	env  []string
}

// A trial is one start of a command below an initProgram.
type trial struct {
	init initProgram
	dir  string // for what the command writes
}

// initRun is the process of a trial.
type initRun struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts a command as the init's, with a fresh /proc; limits is run before by a shell.
func (tr trial) start(attr *syscall.SysProcAttr, tty *os.File, limits string, command ...string) (*initRun, error) {
	script := `mount --make-rprivate / && mount -t proc proc /proc && ` + limits + ` exec "$@"`
	argv := append([]string{"-c", script, "sh"}, append(append([]string{}, tr.init.argv...), command...)...)
	cmd := exec.Command("/bin/sh", argv...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "OUT=" + filepath.Join(tr.dir, "out"), "UP=" + filepath.Join(tr.dir, "up")}, tr.init.env...)
	cmd.SysProcAttr = attr
	if attr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	if tty != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	o := &initRun{cmd, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(o.done) }()
	return o, nil
}

// code is the exit code, or -1 if there is none within the limit.
func (o *initRun) code(limit time.Duration) int {
	select {
	case <-o.done:
		return o.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		_ = o.cmd.Process.Kill()
		<-o.done
		return -1
	}
}

// run is start, and the exit code.
func (tr trial) run(limits string, command ...string) (int, error) {
	o, err := tr.start(nil, nil, limits, command...)
	if err != nil {
		return 0, err
	}
	return o.code(patience), nil
}

func (tr trial) wrote() string {
	content, _ := os.ReadFile(filepath.Join(tr.dir, "out"))
	return string(content)
}

// await waits until the command has written what it does when it is up.
func (tr trial) await(condition func() bool) bool {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if condition() {
			return true
		}
	}
	return false
}

func (tr trial) isUp() bool { _, err := os.Stat(filepath.Join(tr.dir, "up")); return err == nil }

const forEver = "; : >$UP; while :; do sleep 0.01; done"

// exits makes a case of a script's exit code.
func exits(want int, limits, script string) func(trial) error {
	return func(tr trial) error {
		if code, err := tr.run(limits, "sh", "-c", script); err != nil || code != want {
			return fmt.Errorf("exit %d, %v, want %d", code, err, want)
		}
		return nil
	}
}

// signalled makes a case of a script that is up and gets a signal.
func signalled(sig syscall.Signal, script string, want int) func(trial) error {
	return func(tr trial) error {
		o, err := tr.start(nil, nil, "", "sh", "-c", script+forEver)
		if err != nil {
			return err
		}
		tr.await(tr.isUp)
		_ = o.cmd.Process.Signal(sig)
		if code := o.code(3 * time.Second); code != want {
			return fmt.Errorf("exit %d, want %d", code, want)
		}
		return nil
	}
}

// onTerminal runs a script on a terminal of its own, and what is done to that when it is up.
func onTerminal(script string, act func(terminal *os.File), want string) func(trial) error {
	return func(tr trial) error {
		reader, terminal, err := newTerminal()
		if err != nil {
			return err
		}
		defer reader.Close()
		go func() { _, _ = io.Copy(io.Discard, reader) }()
		o, err := tr.start(&syscall.SysProcAttr{Setsid: true, Setctty: true}, terminal, "", "sh", "-c", script)
		terminal.Close()
		if err != nil {
			return err
		}
		tr.await(tr.isUp)
		act(reader)
		o.code(3 * time.Second)
		if got := strings.TrimSpace(tr.wrote()); got != want {
			return fmt.Errorf("it says %q, want %q", got, want)
		}
		return nil
	}
}

func newTerminal() (reader, terminal *os.File, err error) {
	reader, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(reader.Fd()), unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(int(reader.Fd()), unix.TIOCSPTLCK, 0))
	if err != nil {
		return nil, nil, err
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	return reader, terminal, err
}

// initCases are the rows of docs/init.md.
var initCases = []struct {
	name string
	try  func(trial) error
}{
	{"exit codes 0 to 255 are the command's", func(tr trial) error {
		for code := range 256 {
			if err := exits(code, "", fmt.Sprint("exit ", code))(tr); err != nil {
				return err
			}
		}
		return nil
	}},
	{"a command that a signal has ended: 128 + n", func(tr trial) error {
		for _, sig := range []int{1, 2, 3, 6, 9, 10, 11, 12, 13, 14, 15, 31, 34, 64} {
			if err := exits(128+sig, "", fmt.Sprintf("kill -%d $$", sig))(tr); err != nil {
				return fmt.Errorf("signal %d: %w", sig, err)
			}
		}
		return nil
	}},
	{"a command that is not there: 127", func(tr trial) error {
		if code, err := tr.run("", "/no/such/program"); err != nil || code != 127 {
			return fmt.Errorf("exit %d, %v", code, err)
		}
		return nil
	}},
	{"one that cannot be run: 126", func(tr trial) error {
		if code, err := tr.run("", "/etc/passwd"); err != nil || code != 126 {
			return fmt.Errorf("exit %d, %v", code, err)
		}
		return nil
	}},
	{"a script without its first line is the shell's", func(tr trial) error {
		script := filepath.Join(tr.dir, "script")
		if err := os.WriteFile(script, []byte("exit 42\n"), 0o755); err != nil {
			return err
		}
		if code, err := tr.run("", script); err != nil || code != 42 {
			return fmt.Errorf("exit %d, %v", code, err)
		}
		return nil
	}},
	{"`--` among its arguments is the command's", func(tr trial) error {
		if code, err := tr.run("", "sh", "-c", `[ "$*" = "-- --version -h" ]`, "sh", "--", "--version", "-h"); err != nil || code != 0 {
			return fmt.Errorf("exit %d, %v", code, err)
		}
		return nil
	}},
	{"the stop signals reach it: TERM, INT, QUIT", func(tr trial) error { return reach(tr, 15, 2, 3) }},
	{"so do HUP, USR1, USR2, ALRM, WINCH, CONT, IO, PWR", func(tr trial) error { return reach(tr, 1, 10, 12, 14, 28, 18, 29, 30) }},
	{"so do TTIN and TTOU, which set gunicorn's workers", func(tr trial) error { return reach(tr, 21, 22) }},
	{"so do real-time signals", func(tr trial) error { return reach(tr, 34, 40, 64) }},
	{"so does TSTP, and it is stopped by it", func(tr trial) error {
		o, err := tr.start(nil, nil, "", "sh", "-c", "echo $$ >$OUT"+forEver)
		if err != nil {
			return err
		}
		defer o.code(0)
		tr.await(tr.isUp)
		_ = o.cmd.Process.Signal(syscall.SIGTSTP)
		if !tr.await(func() bool { return childIsStopped(o.cmd.Process.Pid) }) {
			return errors.New("it goes on")
		}
		return nil
	}},
	{"so do URG and PIPE", func(tr trial) error { return reach(tr, 23, 13) }},
	{"nothing is blocked or ignored in the command", func(tr trial) error {
		// Signal 32 is the C library's own, and some programs start others with it ignored.
		for _, mask := range []string{"SigBlk:.0{16}", "SigIgn:.0{8}[08]0{7}"} {
			if err := exits(0, "", "exec grep -qE '^"+mask+"$' /proc/self/status")(tr); err != nil {
				return fmt.Errorf("%s: %w", mask, err)
			}
		}
		return nil
	}},
	{"its limit of descriptors is the one that was set", exits(0, "ulimit -Sn 300;", "[ $(ulimit -Sn) = 300 ]")},
	{"orphans are waited for, 10,000 of them", exits(0, "", `
		i=0; while [ $i -lt 1000 ]; do (: & : & : & : & : & : & : & : & : & : &) ; i=$((i+1)); done
		for try in $(seq 100); do
			grep -hs '^State:.*Z' /proc/[0-9]*/status >/dev/null || exit 0
			sleep 0.1
		done; exit 1`)},
	{"so are daemons, which fork twice", exits(0, "", `
		(setsid sh -c 'sleep 0.2 & exit' &) ; sleep 0.5
		! grep -hs '^State:.*Z' /proc/[0-9]*/status >/dev/null`)},
	{"the command may close its standard streams", exits(7, "", "exec <&- >&- 2>&-; sleep 0.1; exit 7")},
	{"one that is deaf to SIGTERM is killed in the end", signalled(syscall.SIGTERM, "trap '' TERM", 137)},
	{"one that is stopped can still be stopped", func(tr trial) error {
		o, err := tr.start(nil, nil, "", "sh", "-c", "trap 'exit 5' TERM; kill -STOP $$; while :; do sleep 0.01; done")
		if err != nil {
			return err
		}
		tr.await(func() bool { return childIsStopped(o.cmd.Process.Pid) })
		_ = o.cmd.Process.Signal(syscall.SIGTERM)
		if code := o.code(3 * time.Second); code != 5 {
			return fmt.Errorf("exit %d, want 5", code)
		}
		return nil
	}},
	{"what the command leaves behind may clean up", func(tr trial) error {
		if _, err := tr.run("", "sh", "-c", `(trap 'sleep 0.2; echo clean >$OUT; exit' TERM; : >$UP; while :; do sleep 0.01; done) & while [ ! -e $UP ]; do sleep 0.01; done; exit 3`); err != nil {
			return err
		}
		if got := tr.wrote(); got != "clean\n" {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	}},
	{"Ctrl-C on its terminal reaches the command", onTerminal(
		"trap 'echo int >$OUT; exit' INT; : >$UP; while :; do sleep 0.01; done",
		func(terminal *os.File) { _, _ = terminal.WriteString("\x03") }, "int")},
	{"the size of its window, and changes of that", onTerminal(
		"trap 'stty size >$OUT; exit' WINCH; : >$UP; while :; do sleep 0.01; done",
		func(terminal *os.File) {
			_ = unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77})
		}, "33 77")},
	{"job control: a shell on the terminal has it", onTerminal(
		// Of the fields of proc_pid_stat(5), 5 is the group and 8 the terminal's foreground group.
		"cut -d' ' -f5,8 /proc/$$/stat | { read group front; [ $group = $front ] && echo yes >$OUT; }; : >$UP; sleep 0.2",
		func(*os.File) {}, "yes")},
}

// reach sends each signal to a start of its own, whose command notes it.
func reach(tr trial, signals ...int) error {
	var missing []string
	for _, n := range signals {
		one := tr
		dir, err := os.MkdirTemp(tr.dir, "")
		if err != nil {
			return err
		}
		one.dir = dir
		o, err := one.start(nil, nil, "", "sh", "-c", fmt.Sprintf("trap 'echo got >$OUT; exit' %d", n)+forEver)
		if err != nil {
			return err
		}
		one.await(one.isUp)
		_ = o.cmd.Process.Signal(syscall.Signal(n))
		for deadline := time.Now().Add(3 * time.Second); one.wrote() == "" && time.Now().Before(deadline); {
			time.Sleep(2 * time.Millisecond)
		}
		if one.wrote() != "got\n" {
			name := strings.TrimPrefix(unix.SignalName(syscall.Signal(n)), "SIG")
			missing = append(missing, cmp.Or(name, strconv.Itoa(n)))
		}
		_ = o.cmd.Process.Kill()
		<-o.done
	}
	if missing != nil {
		return fmt.Errorf("not %s", strings.Join(missing, ", "))
	}
	return nil
}

// childIsStopped says whether a child of a process is in state T.
func childIsStopped(pid int) bool {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // of each thread its own
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			stat, _ := os.ReadFile("/proc/" + child + "/stat")
			if strings.Contains(string(stat), ") T ") {
				return true
			}
		}
	}
	return false
}

// TestInitBesideOthers makes the table of docs/init.md, of who passes what, and compares it
// with the one that is there; -update writes it.
func TestInitBesideOthers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("PID namespaces need root")
	}
	inits := []initProgram{
		{"imagelab", []string{os.Args[0], "--"}, []string{asProgram + "=1", "IMAGELAB_OPS_ADDR=", "IMAGELAB_SHUTDOWN_TIMEOUT=1s", "IMAGELAB_LOG_LEVEL=error"}},
		{"tini", []string{"tini", "--"}, nil},
		{"dumb-init", []string{"dumb-init", "--"}, nil},
	}
	for _, init := range inits[1:] {
		if _, err := exec.LookPath(init.argv[0]); err != nil {
			t.Skipf("no %s: apt-get install tini dumb-init", init.name)
		}
	}
	results := make([][]error, len(initCases))
	var all sync.WaitGroup
	places := make(chan struct{}, 4)
	for i, c := range initCases {
		results[i] = make([]error, len(inits))
		for j, init := range inits {
			dir := t.TempDir()
			all.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				results[i][j] = c.try(trial{init, dir})
			})
		}
	}
	all.Wait()
	var table bytes.Buffer
	fmt.Fprintf(&table, "| what | imagelab | tini %s | dumb-init %s |\n|---|---|---|---|\n",
		versionOf(t, "tini", "--version"), versionOf(t, "dumb-init", "--version"))
	for i, c := range initCases {
		fmt.Fprintf(&table, "| %s |", c.name)
		for _, err := range results[i] {
			switch {
			case err == nil:
				table.WriteString(" yes |")
			case strings.HasPrefix(err.Error(), "not "):
				fmt.Fprintf(&table, " %v |", err)
			default:
				table.WriteString(" no |")
			}
		}
		table.WriteString("\n")
		for j, err := range results[i] {
			if err != nil {
				t.Logf("%s: %s: %v", c.name, inits[j].name, err)
			}
		}
	}
	page, err := os.ReadFile("docs/init.md")
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Index(page, []byte("| what |"))
	end := begin + bytes.Index(page[begin:], []byte("\n\n")) + 1
	if *update {
		if err := os.WriteFile("docs/init.md", append(append(append([]byte{}, page[:begin]...), table.Bytes()...), page[end:]...), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := string(page[begin:end]); got != table.String() {
		t.Errorf("docs/init.md has\n%swant\n%s", got, table.String())
	}
}

// versionOf is the number that a program says of itself.
func versionOf(t *testing.T, program, flag string) string {
	t.Helper()
	out, err := exec.Command(program, flag).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(out)) {
		word = strings.TrimPrefix(word, "v")
		if _, err := strconv.ParseFloat(word[:1], 64); err == nil {
			return word
		}
	}
	t.Fatalf("%s has no version: %s", program, out)
	return ""
}
