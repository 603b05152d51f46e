// Package e2e has the tests of both images against a real Docker engine. They
// find the images as imagelab:scratch and imagelab:alpine, talk to the engine by
// its command line, and leave nothing behind: what they make carries a label, and
// TestMain looks for it at the end. The stop over a wire needs no engine, but root.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long a test waits for something that should be there within
	// seconds; the machine may be busy.
	patience = time.Minute
	// command is how long one docker command may take.
	command = 3 * time.Minute
)

// variants are the images that are tested, imagelab:NAME.
var variants = []string{"scratch", "alpine"}

// imageOf is the image of a variant. IMAGELAB_E2E_IMAGES is another repository, for a build beside the one that others use.
func imageOf(variant string) string {
	return cmp.Or(os.Getenv("IMAGELAB_E2E_IMAGES"), "imagelab") + ":" + variant
}

// owner is the value of the label imagelab.e2e on all that this run makes.
var owner = strconv.Itoa(os.Getpid())

func label() string { return "imagelab.e2e=" + owner }

func TestMain(m *testing.M) {
	code := m.Run()
	if engine() == "" {
		for _, list := range [][]string{
			{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}, {"image", "ls", "-aq"},
		} {
			out, err := exec.Command("docker", append(list, "--filter", "label="+label())...).Output()
			if err != nil || len(out) > 0 {
				fmt.Fprintf(os.Stderr, "docker %s: left behind %q, %v\n", list[0], out, err)
				code = max(code, 1)
			}
		}
	}
	os.Exit(code)
}

// engine says why there is no engine to test with, once; "" if there is one.
var engine = sync.OnceValue(func() string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "version").CombinedOutput()
	if err == nil {
		for _, v := range variants {
			if err := exec.CommandContext(ctx, "docker", "image", "inspect", imageOf(v)).Run(); err != nil {
				return "no image " + imageOf(v) + ": make images builds it"
			}
		}
		return ""
	}
	return fmt.Sprintf("no docker: %v, %s", err, bytes.TrimSpace(out))
})

// needEngine skips the test where it cannot run.
func needEngine(t *testing.T) {
	t.Helper()
	if reason := engine(); reason != "" {
		leaveOut(t, reason)
	}
}

// leaveOut skips the test, except in CI, where nothing may be left out but for a reason that begins with "kernel:".
func leaveOut(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" && !strings.HasPrefix(reason, "kernel:") {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// root is the project's folder.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// environ is this process's environment without what configures imagelab, and
// with the variables that are given.
func environ(given ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "IMAGELAB_"), strings.HasPrefix(name, "LAB_"),
			name == "ROCKET_SIZE", name == "SECRET", name == "SECRET_FILE":
		default:
			env = append(env, kv)
		}
	}
	return append(append(env, sandboxed()...), given...)
}

// sandboxed are the variables of the sandbox that this is run with, such as IMAGELAB_SANDBOX=require: they go to all
// that is started, where a test does not say otherwise.
func sandboxed() (variables []string) {
	for _, name := range []string{"IMAGELAB_SANDBOX", "IMAGELAB_SANDBOX_COMMAND"} {
		if value := os.Getenv(name); value != "" {
			variables = append(variables, name+"="+value)
		}
	}
	return variables
}

// sandboxOptions are the same for docker run, before what may say otherwise.
func sandboxOptions() (options []string) {
	for _, variable := range sandboxed() {
		options = append(options, "-e", variable)
	}
	return options
}

// commandSandboxOptions are those of a command: none if it is not to be confined, as require would refuse it.
func commandSandboxOptions() []string {
	if os.Getenv("IMAGELAB_SANDBOX_COMMAND") == "" {
		return nil
	}
	return sandboxOptions()
}

// execute runs a command to its end and returns what it printed on stdout, and
// on stderr.
func execute(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return "", "", err
	}
	timer := time.AfterFunc(command, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	return out.String(), errs.String(), err
}

// try runs docker and returns what it printed and its exit code.
func try(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	stdout, stderr, err := execute(t, exec.Command("docker", args...))
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return strings.TrimSpace(stdout), strings.TrimSpace(stderr), code
}

// docker runs docker, which has to succeed, and returns what it printed.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := try(t, args...)
	if code != 0 {
		t.Fatalf("docker %s: exit %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// inspect decodes what docker inspect prints with a template.
func inspect[T any](t *testing.T, object, template string) T {
	t.Helper()
	out := docker(t, "inspect", "-f", "{{json "+template+"}}", object)
	var v T
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("docker inspect %s %s = %s: %v", object, template, out, err)
	}
	return v
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s after %v", what, patience)
		}
	}
}

var nextName atomic.Int64

// newName is a name for a container, a project, a volume or an image.
func newName() string { return fmt.Sprintf("imagelab-e2e-%s-%d", owner, nextName.Add(1)) }

// nextPort makes the ports of freePort different ones, also for tests of other packages that run
// at the same time.
var nextPort atomic.Int64

func init() { nextPort.Store(997 * int64(os.Getpid())) }

// freePort is a port of 127.0.0.1 that nothing listens on. It is below those that the kernel
// chooses itself (ip(7), ip_local_port_range), so that no listener and no connection of another
// test gets it before its user does.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.FormatInt(10000+nextPort.Add(1)%20000, 10)
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no free port from 10000 to 29999")
	return ""
}

// hardened are the options that compose.yaml asks for, less the limits.
var hardened = []string{
	"--read-only", "--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev",
	"--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--pids-limit", "64",
}

// container is one running container of an image.
type container struct {
	name     string
	addr     string // of the app, for load
	app, ops string // base URLs
}

// start runs a container of the variant in the host's network namespace, so that
// load comes by loopback alone: Docker's proxy for published ports would accept
// connections in place of a container that refuses them. Options are those of
// docker run.
func start(t *testing.T, variant string, options ...string) *container {
	t.Helper()
	needEngine(t)
	return startAt(t, variant, freePort(t), freePort(t), options...)
}

// startAt is start with the ports given.
func startAt(t *testing.T, variant, appPort, opsPort string, options ...string) *container {
	t.Helper()
	c := &container{name: newName(), addr: "127.0.0.1:" + appPort}
	c.app, c.ops = "http://"+c.addr, "http://127.0.0.1:"+opsPort
	args := append([]string{
		"run", "-d", "--name", c.name, "--label", label(), "--network", "host",
		"-e", "PORT=" + appPort, "-e", "IMAGELAB_BIND_ADDRESS=127.0.0.1", "-e", "IMAGELAB_OPS_ADDR=127.0.0.1:" + opsPort,
	}, append(sandboxOptions(), options...)...)
	t.Cleanup(func() { c.remove(t) })
	docker(t, append(args, imageOf(variant))...)
	c.await(t)
	return c
}

func (c *container) remove(t *testing.T) {
	t.Helper()
	if t.Failed() {
		stdout, stderr, _ := try(t, "logs", "--tail", "20", c.name)
		t.Logf("the end of the log of %s:\n%s\n%s", c.name, stdout, stderr)
	}
	docker(t, "rm", "-f", "-v", c.name)
}

// await waits until the container says that it is ready.
func (c *container) await(t *testing.T) {
	t.Helper()
	eventually(t, "ready container", func() bool {
		resp, err := client().Get(c.ops + "/readyz")
		if err != nil {
			if got := inspect[string](t, c.name, ".State.Status"); got == "exited" {
				t.Fatalf("%s has exited with %d", c.name, c.exitCode(t))
			}
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (c *container) exitCode(t *testing.T) int {
	t.Helper()
	return inspect[int](t, c.name, ".State.ExitCode")
}

// pid is the container's PID 1, as the host sees it.
func (c *container) pid(t *testing.T) int {
	t.Helper()
	return inspect[int](t, c.name, ".State.Pid")
}

// signal sends a signal to PID 1 from outside of the container's namespace, where
// also those that it cannot catch have an effect.
func (c *container) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	err := syscall.Kill(c.pid(t), sig)
	if errors.Is(err, syscall.EPERM) {
		leaveOut(t, "signals to a process of another user need root")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// awaitHealth waits for a verdict of the image's own HEALTHCHECK.
func (c *container) awaitHealth(t *testing.T, want string) {
	t.Helper()
	eventually(t, want+" container", func() bool {
		return inspect[string](t, c.name, ".State.Health.Status") == want
	})
}

// status reads the fields of PID 1's /proc/PID/status (proc_pid_status(5)).
func (c *container) status(t *testing.T) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for _, line := range strings.Split(readProc(t, c.pid(t), "status"), "\n") {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

func readProc(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// cgroup reads a file of the container's cgroup: of the controller's own
// hierarchy in version 1, of the only one in version 2 (cgroups(7)).
func (c *container) cgroup(t *testing.T, controller, v1, v2 string) string {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(readProc(t, c.pid(t), "cgroup")), "\n") {
		parts := strings.SplitN(line, ":", 3)
		file := ""
		for _, name := range strings.Split(parts[1], ",") {
			if name == controller {
				file = filepath.Join("/sys/fs/cgroup", controller, parts[2], v1)
			}
		}
		if parts[1] == "" {
			file = filepath.Join("/sys/fs/cgroup", parts[2], v2)
		}
		if b, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	t.Fatalf("%s: no cgroup file %s or %s", c.name, v1, v2)
	return ""
}

// metric returns the value of one series of the container, "" when there is none.
func (c *container) metric(t *testing.T, series string) string {
	t.Helper()
	_, body := fetch(t, "GET", c.ops+"/metrics", "")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// client never retries: each of its requests has its own connection.
func client() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
}

// fetch sends one request and returns the answer with its body read.
func fetch(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
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

// buildHelper builds the program that the tests mount into containers.
func buildHelper(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "helper")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./internal/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, stderr, err := execute(t, cmd); err != nil {
		t.Fatalf("go build ./internal/helper: %v\n%s", err, stderr)
	}
	return path
}
