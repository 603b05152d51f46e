package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

const patience = 20 * time.Second

// The test process has one Supervisor, as any process has. So no test starts anything by
// os/exec.
var (
	supervisor *Supervisor
	orphans    struct {
		sync.Mutex
		byPid map[int]Orphan
	}
)

func TestMain(m *testing.M) {
	if os.Getenv(asSupervisor) != "" {
		superviseArguments()
	}
	if out := os.Getenv(asDeserter); out != "" {
		desert(out)
	}
	if ending := os.Getenv(asStage); ending != "" {
		os.Exit(endStage(ending))
	}
	orphans.byPid = map[int]Orphan{}
	supervisor = New(Options{Reaped: func(o Orphan) {
		orphans.Lock()
		defer orphans.Unlock()
		orphans.byPid[o.Pid] = o
	}})
	if err := AdoptOrphans(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go supervisor.Run(context.Background())
	// What a shell's background or nohup has ignored a command would inherit, unless it is asked for.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(m.Run())
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s after %v", what, patience)
		}
	}
}

// asDeserter in the environment has the test program leave its group for that of its parent, and make a file then.
const asDeserter = "SUPERVISE_TEST_DESERTER"

func desert(out string) {
	signal.Ignore(syscall.SIGTERM)
	group, err := syscall.Getpgid(os.Getppid())
	if err == nil {
		err = syscall.Setpgid(0, group)
	}
	if err == nil {
		err = os.WriteFile(out, nil, 0o600)
	}
	if err != nil {
		panic(err)
	}
	time.Sleep(time.Hour)
}

// Kill ends a command that has left its group, too, and none of the group that it has joined.
func TestKillFindsWhoHasLeftTheGroup(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	p, err := supervisor.Start(Command{Args: []string{os.Args[0]}, Env: append(os.Environ(), asDeserter+"="+out)})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "deserter", func() bool { _, err := os.Stat(out); return err == nil })
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if got := p.wait(t).Code(); got != 137 {
		t.Errorf("exit %d, want 137", got)
	}
	if err := p.Kill(); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("Kill of one that has ended: %v, want ESRCH", err)
	}
}

func TestLivedEndsWithTheCommand(t *testing.T) {
	t.Parallel()
	p := begin(t, "true")
	p.wait(t)
	most := time.Since(p.Started)
	if lived := p.Lived(); lived <= 0 || lived > most {
		t.Errorf("Lived = %v, want up to %v", lived, most)
	}
}

func begin(t *testing.T, args ...string) *Process {
	t.Helper()
	p, err := supervisor.Start(Command{Args: args, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

func (p *Process) wait(t *testing.T) Status {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatal("the command does not end")
	}
	return p.Status()
}

// sh runs a script with a file for its output, which it returns.
func sh(t *testing.T, script string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if s := begin(t, "/bin/sh", "-c", "exec >"+out+"; "+script).wait(t); s.Code() != 0 {
		t.Fatalf("%s: %v", script, s)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestExitCodesAreTheCommandsOwn(t *testing.T) {
	t.Parallel()
	for code := range 256 {
		if got := begin(t, "/bin/sh", "-c", fmt.Sprint("exit ", code)).wait(t); got.Code() != code || got.Signaled() {
			t.Errorf("exit %d: %v, code %d", code, got, got.Code())
		}
	}
}

func TestDeathBySignalIs128AndItsNumber(t *testing.T) {
	t.Parallel()
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch sig {
		case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG, syscall.SIGWINCH:
			continue // they do not end anybody (signal(7))
		case 32, 33: // the C library's own
			continue
		}
		p := begin(t, "sleep", "60")
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if got := p.wait(t); got.Code() != 128+int(sig) || !got.Signaled() {
			t.Errorf("%v: %v, code %d", sig, got, got.Code())
		}
		if err := p.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("a signal to a command that has ended: %v", err)
		}
	}
}

func TestWhyACommandCannotBeStarted(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	plain := file("plain", "#!/bin/sh\n", 0o644)
	tests := map[string]struct {
		program string
		code    int
		says    string
	}{
		"nothing":                   {"", 127, "not found in PATH"},
		"not there":                 {filepath.Join(dir, "none"), 127, "no such file"},
		"not in PATH":               {"no-such-program", 127, "not found in PATH"},
		"below a file":              {plain + "/x", 127, "not a directory"},
		"no permission":             {plain, 126, "permission denied"},
		"no permission, in PATH":    {"plain", 126, "permission denied"},
		"a folder":                  {dir, 126, "is a directory"},
		"an interpreter not there":  {file("bad", "#!/no/such/interpreter\n", 0o755), 126, "interpreter"},
		"an interpreter, in PATH":   {"bad", 126, "interpreter"},
		"a link to itself":          {loop, 126, "symbolic links"},
		"a program of nothing ELF":  {file("elf", "\x7fELF", 0o755), 0, ""},
		"a script without its line": {file("script", "exit 7\n", 0o755), 7, ""},
		"a script, in PATH":         {"script", 7, ""},
	}
	t.Parallel() // the files are written before others start processes, which would have them open for a moment (ETXTBSY)
	for name, test := range tests {
		p, err := supervisor.Start(Command{Args: []string{test.program}, Env: []string{"PATH=/nowhere:" + plain + ":" + dir}})
		if test.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if got := p.wait(t).Code(); test.code != 0 && got != test.code {
				t.Errorf("%s: exit %d, want %d", name, got, test.code)
			}
			continue
		}
		var failure *StartError
		if !errors.As(err, &failure) || failure.Code() != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want code %d and %q", name, err, test.code, test.says)
		}
	}
	if _, err := supervisor.Start(Command{}); err == nil {
		t.Error("no arguments are a command")
	}
}

func TestCommandHasACleanStart(t *testing.T) {
	t.Parallel()
	status := sh(t, "cat /proc/self/status")
	// Signal 32 is the C library's own, and some programs start others with it ignored.
	for _, mask := range []string{`\nSigBlk:\t0{16}\n`, `\nSigIgn:\t0{8}[08]0{7}\n`} {
		if !regexp.MustCompile(mask).MatchString(status) {
			t.Errorf("the masks of a command are not empty, want %q:\n%s", mask, status)
		}
	}
	own, err := os.Create(filepath.Join(t.TempDir(), "own"))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if fds := sh(t, "ls -l /proc/self/fd"); strings.Contains(fds, own.Name()) {
		t.Errorf("a command has a descriptor of this process:\n%s", fds)
	}
	group := strings.Fields(sh(t, "cut -d' ' -f1,5 /proc/$$/stat"))
	if len(group) != 2 || group[0] != group[1] {
		t.Errorf("process and group are %v, want one number", group)
	}
}

func TestOrphansAreReapedByTheirNames(t *testing.T) {
	t.Parallel()
	const n = 500
	pids := strings.Fields(sh(t, fmt.Sprintf("for i in $(seq %d); do (sh -c 'exec sleep 0.2' & echo $!); done", n)))
	if len(pids) != n {
		t.Fatalf("%d orphans", len(pids))
	}
	eventually(t, "end of all orphans", func() bool {
		orphans.Lock()
		defer orphans.Unlock()
		for _, text := range pids {
			var pid int
			fmt.Sscan(text, &pid)
			if o, ok := orphans.byPid[pid]; !ok || o.Name != "sleep" || o.Status.Code() != 0 {
				return false
			}
		}
		return true
	})
}

func TestCommandsAndOrphansAreNotMixedUp(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 50 {
				want := (worker*50 + i) % 250
				p, err := supervisor.Start(Command{Args: []string{"/bin/sh", "-c", fmt.Sprintf("(exit 7) & exit %d", want)}})
				if err != nil {
					t.Error(err)
					return
				}
				if got := p.wait(t).Code(); got != want {
					t.Errorf("exit %d, want %d", got, want)
				}
			}
		})
	}
	all.Wait()
}

func TestEndOfAGroup(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script string
		rest   bool
	}{
		"nobody is left":          {"exit 0", false},
		"one is left":             {"sleep 1000 & exit 0", true},
		"one that ignores it":     {"(trap '' TERM; while :; do sleep 0.1; done) & exit 0", true},
		"one that is stopped":     {"(kill -STOP $(cut -d' ' -f4 /proc/self/stat); sleep 1000) & sleep 0.2; exit 0", true},
		"one with a session":      {"setsid sleep 0.1 & sleep 0.3; exit 0", false},
		"one that ends by itself": {"sleep 0.3 & exit 0", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := begin(t, "/bin/sh", "-c", test.script)
			p.wait(t)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if got := p.End(ctx); got != test.rest {
				t.Errorf("End = %t, want %t", got, test.rest)
			}
			eventually(t, "empty group", func() bool { return !p.HasGroup() })
		})
	}
}

// What is left is asked to end before it is killed, also where it is stopped.
func TestEndIsTold(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{"running": "", "stopped": "kill -STOP $pid; "} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := filepath.Join(t.TempDir(), "told")
			p := begin(t, "/bin/sh", "-c", "(trap 'echo >"+told+"; exit' TERM; pid=$(cut -d' ' -f4 /proc/self/stat); echo $pid >"+told+".ready; "+
				before+"while :; do sleep 0.01; done) & while [ ! -s "+told+".ready ]; do sleep 0.01; done")
			p.wait(t)
			if before != "" {
				eventually(t, "stopped process", func() bool {
					pid, _ := os.ReadFile(told + ".ready")
					stat, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
					return strings.Contains(string(stat), ") T ")
				})
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if !p.End(ctx) || ctx.Err() != nil {
				t.Errorf("End found nobody, or had to kill: %v", ctx.Err())
			}
			if _, err := os.Stat(told); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKillEndsAllOfTheGroup(t *testing.T) {
	t.Parallel()
	p := begin(t, "/bin/sh", "-c", "trap '' TERM; sleep 1000 & wait")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := p.wait(t).Code(); got != 128+9 {
		t.Errorf("code %d, want 137", got)
	}
	eventually(t, "empty group", func() bool { return !p.HasGroup() })
}

func TestUsageAddsUp(t *testing.T) {
	t.Parallel()
	stat := func(pid, group int, rest string) *fstest.MapFile {
		return &fstest.MapFile{Data: fmt.Appendf(nil, "%d (a) b) S 1 %d 3 4 5 6 7 8 9 10 %s", pid, group, rest)}
	}
	// utime, stime, cutime and cstime in ticks; priority, nice, threads, 0, start, vsize; rss in pages.
	const times, pages = "100 20 3 1000 ", "20 0 1 0 5 6 25"
	proc := fstest.MapFS{
		"10/stat": stat(10, 10, times+pages), "10/fd/0": {}, "10/fd/1": {},
		"11/stat": stat(11, 10, times+pages+" 7 8"), "11/fd/0": {},
		"12/stat":        stat(12, 11, times+pages), // of another group
		"13/stat":        {Data: []byte("13 (a")},   // cut
		"14/stat":        {Data: []byte("14 (a) S 1 10 3 4 5 6 7 8 9 10 " + times + "20 0 1 0 5 6")},
		"15/fd/0":        {}, // gone meanwhile
		"self/stat":      stat(10, 10, times+pages),
		"16/stat":        {Data: []byte(")")},
		"meminfo":        {Data: []byte("MemTotal: 1 kB")},
		"fs/file-max":    {},
		"10.5/stat":      stat(16, 10, times+pages),
		"thread-self/fd": {Mode: fs.ModeDir},
	}
	p := &Process{Pid: 10}
	want := Usage{
		Processes: 2, Spent: 2 * 11230 * time.Millisecond, Resident: 2 * 25 * int64(os.Getpagesize()), Descriptors: 3,
	}
	if got := p.Usage(proc); got != want {
		t.Errorf("Usage = %+v, want %+v", got, want)
	}
	if got := p.Usage(fstest.MapFS{}); got != (Usage{}) {
		t.Errorf("Usage without a process = %+v", got)
	}
}

func TestUsageIsThatOfTheGroup(t *testing.T) {
	t.Parallel()
	p := begin(t, "/bin/sh", "-c", "exec 7</dev/null; (sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'); sleep 1000 & sleep 1000 & wait")
	eventually(t, "usage of three processes", func() bool {
		u := p.Usage(os.DirFS("/proc"))
		return u.Processes == 3 && u.Spent > 0 && u.Resident > 100_000 && u.Descriptors >= 12
	})
	_ = p.Kill()
	p.wait(t)
	eventually(t, "usage of nobody", func() bool { return p.Usage(os.DirFS("/proc")) == Usage{} })
	// Nearly all of its time is the system's.
	p = begin(t, "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=2000", "status=none")
	p.wait(t)
	if p.Spent() <= 0 {
		t.Errorf("Spent = %v", p.Spent())
	}
}
