package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asStage in the environment makes the test program a stage, and says how it ends.
const asStage = "SUPERVISE_TEST_STAGE"

func endStage(ending string) int {
	_ = os.Unsetenv(asStage)
	switch ending {
	case "become":
		return Become(os.Args[2], os.Args[3:], os.Environ(), []byte("a note\nof two lines"))
	case "become none":
		return Become(os.Args[2]+"/none", os.Args[3:], os.Environ(), nil)
	case "refuse":
		return Refuse(errors.New("there is\nno way"))
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		time.Sleep(patience)
		fallthrough
	default: // it ends without a word
		return 3
	}
}

func TestStageBecomesTheCommand(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	show := "exec </dev/null >" + out + " 2>&1; echo $0 $1 $KEPT $" + asStage + "; ls /proc/self/fd; exit 7\n"
	// They are written before other tests start processes, which would have them open for a moment (ETXTBSY).
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program, script, bad := file("program", "#!/bin/sh\n"+show), file("script", show), file("bad", "#!/no/such/interpreter\n")
	t.Parallel()
	for name, tc := range map[string]struct {
		ending, program string
		code            int    // of the command
		why             string // it could not be started
	}{
		"a program":                 {"become", program, 7, ""},
		"a script without its line": {"become", script, 7, ""},
		"no interpreter":            {"become", bad, 126, "interpreter"},
		"another file":              {"become none", "/bin/true", 126, "not a directory"},
		"a refusal":                 {"refuse", "/bin/true", 126, "there is no way"},
		"no word":                   {"end", "/bin/true", 126, "it ended before it was the command"},
		"a signal":                  {"die", "/bin/true", 143, "terminated, came before it was the command"},
	} {
		_ = os.Remove(out)
		p, err := supervisor.Start(Command{
			Args: []string{tc.program, "word"}, Env: []string{"PATH=" + os.Getenv("PATH"), "KEPT=kept"},
			Stage: []string{os.Args[0], "stage"}, StageEnv: []string{asStage + "=" + tc.ending},
		})
		if tc.why != "" {
			var failure *StartError
			if !errors.As(err, &failure) || failure.Code() != tc.code || !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%s: %v, want code %d and %q", name, err, tc.code, tc.why)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if code := p.wait(t).Code(); code != tc.code || p.Note != "a note of two lines" {
			t.Errorf("%s: exit %d and note %q, want %d and the note in a line", name, code, p.Note, tc.code)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		first, fds, _ := strings.Cut(string(content), "\n")
		if first != tc.program+" word kept" {
			t.Errorf("%s: it has %q", name, first)
		}
		begin(t, tc.program, "word").wait(t)
		plain, _ := os.ReadFile(out)
		if _, want, _ := strings.Cut(string(plain), "\n"); fds != want {
			t.Errorf("%s: it has the descriptors %q, want those of one without a stage, %q", name, fds, want)
		}
	}

	_, err := supervisor.Start(Command{Args: []string{"/bin/true"}, Stage: []string{filepath.Join(dir, "none")}})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "none")) {
		t.Errorf("a stage that is not there: %v, want its name", err)
	}
	if _, err := supervisor.Start(Command{Args: []string{filepath.Join(dir, "none")}, Stage: []string{os.Args[0]}}); err == nil {
		t.Error("a command that is not there has a stage")
	}
}

// A stage that does not end is not waited for any longer, and what it has said is not lost.
func TestStagesAreNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if _, err := unix.Write(pipe[1], []byte("note a\n")); err != nil {
		t.Fatal(err)
	}
	said, err := hear(pipe[0], 20*time.Millisecond)
	if string(said) != "note a\n" || err == nil || !strings.Contains(err.Error(), "after 20ms") {
		t.Errorf("%q, %v, want the note and how long it was waited for", said, err)
	}
	if _, err := hear(-1, patience); !errors.Is(err, syscall.EBADF) {
		t.Errorf("of no pipe: %v, want EBADF", err)
	}
}

// A stage that has failed leaves no process: nobody else would end it.
func TestFailedStagesLeaveNoProcess(t *testing.T) {
	t.Parallel()
	mark := fmt.Sprintf("1000.%d", os.Getpid())
	_, err := supervisor.Start(Command{
		Args:  []string{"/bin/true"},
		Stage: []string{"/bin/sh", "-c", "exec 3>&-; exec sleep " + mark},
	})
	if err == nil {
		t.Fatal("a stage that says nothing has become the command")
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("no processes in /proc: %v", err)
	}
	for _, file := range files {
		if text, _ := os.ReadFile(file); string(text) == "sleep\x00"+mark+"\x00" {
			t.Errorf("%s is left", file)
		}
	}
}
