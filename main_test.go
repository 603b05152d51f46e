package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for something that should be there at once.
const patience = 20 * time.Second

// asProgram in the environment turns the test binary into imagelab, so that
// tests of signals have a process of their own, with the race detector in it.
const asProgram = "TEST_BINARY_IS_IMAGELAB"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == testProgram {
		os.Exit(serveForTest(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == plainServer {
		servePlainly()
	}
	if len(os.Args) > 2 && os.Args[1] == asRefuser {
		refuseLandlock(os.Args[2:])
	}
	if os.Getenv(asProgram) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	// Below nohup SIGHUP is ignored, and in a shell's background SIGINT and SIGQUIT are, which the programs that are
	// started here would inherit. What is asked for they do not.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(m.Run())
}

// logBuffer collects the log of a run, and can be read while it grows.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// find returns the first record with the message msg and, where given, the
// value of one key; nil when there is none yet.
func (b *logBuffer) find(msg string, keyValue ...string) map[string]any {
	lines := bufio.NewScanner(strings.NewReader(b.String()))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var record map[string]any
		if json.Unmarshal(lines.Bytes(), &record) != nil || record["msg"] != msg {
			continue
		}
		if len(keyValue) == 2 && fmt.Sprint(record[keyValue[0]]) != keyValue[1] {
			continue
		}
		return record
	}
	return nil
}

// instance is one running imagelab.
type instance struct {
	app, ops string // base URLs
	log      *logBuffer
	cancel   context.CancelFunc // as a SIGTERM, when run is in this process
	process  *os.Process        // when it is not
	exited   chan int
}

// inProcess is for what runs in this process, which must not be confined. What has a process of its own
// is, and with require where this is run with IMAGELAB_SANDBOX=require.
const inProcess = "IMAGELAB_SANDBOX=off"

// sandboxed are the variables of the sandbox for a process of its own, by the test's own environment. A command that
// is not to be confined is refused with require, and so has none.
func sandboxed(args ...string) []string {
	mode, command := os.Getenv("IMAGELAB_SANDBOX"), os.Getenv("IMAGELAB_SANDBOX_COMMAND")
	if mode == "" || command == "" && slices.Contains(args, "--") {
		return nil
	}
	return []string{"IMAGELAB_SANDBOX=" + mode, "IMAGELAB_SANDBOX_COMMAND=" + command}
}

// defaults are the variables that let any number of instances run side by side.
func defaults(t *testing.T, environ []string) []string {
	t.Helper()
	return append([]string{
		"PORT=0", "IMAGELAB_BIND_ADDRESS=127.0.0.1", "IMAGELAB_OPS_ADDR=127.0.0.1:0",
		"IMAGELAB_DATA_DIR=" + t.TempDir(), "IMAGELAB_DRAIN_DELAY=0s",
	}, environ...)
}

// start runs imagelab in this process.
func start(t *testing.T, environ ...string) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in := &instance{log: &logBuffer{}, cancel: cancel, exited: make(chan int, 1)}
	environ = defaults(t, append([]string{inProcess}, environ...))
	go func() { in.exited <- run(ctx, nil, environ, io.Discard, in.log) }()
	in.await(t)
	t.Cleanup(func() {
		cancel()
		in.wait(t)
	})
	return in
}

// startProcess runs imagelab in a process of its own; wrapper may name a command
// in front of it.
func startProcess(t *testing.T, wrapper []string, environ ...string) *instance {
	t.Helper()
	log := &logBuffer{}
	in := launch(t, log, wrapper, environ...)
	in.log = log
	in.await(t)
	return in
}

// launch is startProcess with another stderr, and does not wait for the start.
func launch(t *testing.T, stderr io.Writer, wrapper []string, environ ...string) *instance {
	t.Helper()
	return launchArgs(t, stderr, append(wrapper, os.Args[0]), environ...)
}

// beneath in the environment is a command that is put before each imagelab with a process of its own, such as a tracer.
const beneath = "TEST_BENEATH"

// launchArgs is launch with a whole command line.
func launchArgs(t *testing.T, stderr io.Writer, argv []string, environ ...string) *instance {
	t.Helper()
	argv = append(strings.Fields(os.Getenv(beneath)), argv...)
	cmd := exec.Command(argv[0], argv[1:]...)
	in := &instance{log: &logBuffer{}, exited: make(chan int, 1)}
	cmd.Env = append(defaults(t, append(sandboxed(argv...), environ...)), asProgram+"=1", "PATH="+os.Getenv("PATH"))
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.process = cmd.Process
	go func() {
		_ = cmd.Wait()
		in.exited <- cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		in.wait(t)
	})
	return in
}

// await waits until the instance has logged where it listens.
func (in *instance) await(t *testing.T) {
	t.Helper()
	eventually(t, "a start", func() bool {
		if in.log.find("started") == nil {
			select {
			case code := <-in.exited:
				t.Fatalf("exit %d at the start, log:\n%s", code, in.log)
			default:
			}
			return false
		}
		if app := in.log.find("listening", "server", "app"); app != nil { // not so before a command without an upstream
			in.app = "http://" + app["addr"].(string)
		}
		in.ops = in.app + "/-"
		if ops := in.log.find("listening", "server", "ops"); ops != nil {
			in.ops = "http://" + ops["addr"].(string)
		}
		return true
	})
}

// wait returns the exit code.
func (in *instance) wait(t *testing.T) int {
	t.Helper()
	select {
	case code := <-in.exited:
		in.exited <- code
		return code
	case <-time.After(patience):
		t.Fatalf("still running after %v, log:\n%s", patience, in.log)
		return -1
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s after %v", what, patience)
		}
	}
}

// client never retries: each of its requests has its own connection.
func client() *http.Client {
	return &http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetch sends one request and returns the answer with its body read. Headers
// are "Name: value".
func fetch(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client().Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, string(content)
}
