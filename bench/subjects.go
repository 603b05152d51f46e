package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imagelab/e2e/wire"
)

// subject is a server to measure: a program of this machine, or an image.
type subject struct {
	name    string
	command []string // "{port}" and "{ops}" become free ports, "{host}" the address to listen on
	env     []string // the same
	image   string   // runs instead of the command, in the host's network namespace
	path    string   // answers 200 when the server is ready, and gets the load
	metrics string   // URL with {port} or {ops}, "" if it has none
	port    int      // fixed, 0 for any

	everywhere bool           // it runs on all processors, and not the servers' own
	signal     syscall.Signal // that stops it; 0 is SIGTERM
}

// instance is a running subject.
type instance struct {
	*subject
	cmd       *exec.Cmd
	container string
	pid       int
	end       *wire.End // see startIn
	host      string
	port, ops string
	url       string
	ready     float64 // seconds from exec, or docker run, to the first 200
}

const patience = 20 * time.Second

// start runs the subject on the servers' processor and waits for its first 200.
func (b *bench) start(s *subject, dockerOptions ...string) (*instance, error) {
	return b.startIn(nil, s, dockerOptions...)
}

// startIn is start in an end of a wire, which no image can be; nil is this machine's own network.
func (b *bench) startIn(end *wire.End, s *subject, dockerOptions ...string) (*instance, error) {
	in := &instance{subject: s, end: end, host: "127.0.0.1", port: strconv.Itoa(s.port), ops: freePort()}
	if end != nil {
		in.host = end.Addr
	}
	if s.port == 0 {
		in.port = freePort()
	} else if ln, err := net.Listen("tcp", ":"+in.port); err != nil { // somebody else would be measured
		return nil, fmt.Errorf("%s: port %d is taken: %w", s.name, s.port, err)
	} else {
		ln.Close()
	}
	fill := strings.NewReplacer("{host}", in.host, "{port}", in.port, "{ops}", in.ops)
	var args []string
	if s.image != "" {
		args = append([]string{"docker", "run", "-d", "--network", "host", "--cpuset-cpus", b.serverCPU, "--ulimit", "nofile=16384"}, dockerOptions...)
		for _, v := range s.env {
			args = append(args, "-e", fill.Replace(v))
		}
		args = append(args, s.image)
	}
	for _, word := range s.command {
		args = append(args, fill.Replace(word))
	}
	began := time.Now()
	if s.image != "" {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr(err))
		}
		in.container = string(bytes.TrimSpace(out))
	} else {
		in.cmd = exec.Command(args[0], args[1:]...)
		for _, v := range s.env {
			in.cmd.Env = append(in.cmd.Environ(), fill.Replace(v))
		}
		in.cmd.Dir = b.work
		run := func() error { return pinned(b.serverCPU, in.cmd.Start) }
		if s.everywhere {
			run = in.cmd.Start
		}
		if end != nil {
			run = func() error { return end.Do(func() error { return pinned(b.serverCPU, in.cmd.Start) }) }
		}
		if err := run(); err != nil {
			return nil, err
		}
		in.pid = in.cmd.Process.Pid
	}
	in.url = "http://" + in.host + ":" + in.port + s.path
	if err := in.awaitReady(); err != nil {
		in.kill()
		return nil, err
	}
	in.ready = time.Since(began).Seconds()
	if in.container != "" {
		out, err := exec.Command("docker", "inspect", "-f", "{{.State.Pid}}", in.container).Output()
		if err != nil {
			in.kill()
			return nil, fmt.Errorf("docker inspect: %w: %s", err, stderr(err))
		}
		in.pid, _ = strconv.Atoi(string(bytes.TrimSpace(out)))
	}
	return in, nil
}

// running measures the subject while it runs.
func (b *bench) running(s *subject, measure func(*instance) error, dockerOptions ...string) error {
	in, err := b.start(s, dockerOptions...)
	if err != nil {
		return err
	}
	defer in.kill()
	if err := measure(in); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// pinned calls start on a thread that is bound to one processor, which a process
// inherits. taskset would be a part of what it starts, and of the time that takes.
func pinned(cpu string, start func() error) error {
	n, err := strconv.Atoi(cpu)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	one.Set(n)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	return errors.Join(start(), unix.SchedSetaffinity(0, &all))
}

func (in *instance) awaitReady() error {
	// A client of its own: the first connection is a part of the measurement.
	transport := &http.Transport{DisableKeepAlives: true}
	if in.end != nil {
		transport.DialContext = func(_ context.Context, _, addr string) (net.Conn, error) {
			return in.end.Dial(addr, patience)
		}
	}
	client := http.Client{Transport: transport, Timeout: 5 * time.Second}
	var err error
	look := time.Now().Add(time.Second)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		var resp *http.Response
		if resp, err = client.Get(in.url); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		if time.Now().After(look) {
			if err := in.ended(); err != nil {
				return err
			}
			look = time.Now().Add(time.Second)
		}
	}
	return fmt.Errorf("%s is not ready at %s after %v: %w", in.name, in.url, patience, err)
}

// ended is an error if the instance runs no more.
func (in *instance) ended() error {
	if in.container == "" {
		if _, err := memoryOf(in.pid, "VmRSS:"); err != nil { // a zombie has none
			return fmt.Errorf("%s has ended; see what it says: %s", in.name, strings.Join(in.cmd.Args, " "))
		}
		return nil
	}
	state, _ := exec.Command("docker", "inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}{{if .State.OOMKilled}}, out of memory{{end}}", in.container).Output()
	code, stopped := strings.CutPrefix(strings.TrimSpace(string(state)), "false ")
	if !stopped {
		return nil
	}
	said, _ := exec.Command("docker", "logs", "--tail", "5", in.container).CombinedOutput()
	return fmt.Errorf("%s has ended with exit code %s: %s", in.name, code, bytes.TrimSpace(said))
}

// stop ends the instance and says how long that took from SIGTERM, in seconds.
func (in *instance) stop() float64 {
	began := time.Now()
	if in.container != "" {
		_ = exec.Command("docker", "stop", "-t", "10", in.container).Run()
		took := time.Since(began).Seconds()
		_ = exec.Command("docker", "rm", "-f", "-v", in.container).Run()
		return took
	}
	_ = in.cmd.Process.Signal(cmp.Or(in.signal, syscall.SIGTERM))
	kill := time.AfterFunc(patience, func() { _ = in.cmd.Process.Kill() })
	defer kill.Stop()
	_ = in.cmd.Wait()
	return time.Since(began).Seconds()
}

// kill ends the instance where its stop is not measured; some take seconds.
func (in *instance) kill() {
	if in.container != "" {
		_ = exec.Command("docker", "rm", "-f", "-v", in.container).Run()
		return
	}
	_ = in.cmd.Process.Kill()
	_ = in.cmd.Wait()
}

// memoryOf is a line of a process's status, in bytes (proc_pid_status(5)).
func memoryOf(pid int, name string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			var kib float64
			_, err := fmt.Sscan(rest, &kib)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/%d/status", name, pid)
}

// metricsURL is where the instance has its metrics.
func (in *instance) metricsURL() string {
	return strings.NewReplacer("{port}", in.port, "{ops}", in.ops).Replace(in.metrics)
}

// counter scrapes one metric without labels.
func (in *instance) counter(name string) (float64, error) {
	resp, err := http.Get(in.metricsURL())
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("no %s at %s", name, in.metricsURL())
}

func freePort() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0"
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}

// parseWith reads NAME=IMAGE@PORT/PATH or NAME=/PROGRAM@PORT/PATH.
func parseWith(s string) (*subject, error) {
	name, rest, ok := strings.Cut(s, "=")
	at := strings.LastIndex(rest, "@")
	if !ok || name == "" || at < 1 {
		return nil, fmt.Errorf("WITH=%q: want name=image:tag@port/path, or name=/program@port/path", s)
	}
	what, where := rest[:at], rest[at+1:]
	port, path, _ := strings.Cut(where, "/")
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return nil, fmt.Errorf("WITH=%q: port %q: want 1 to 65535", s, port)
	}
	sub := &subject{name: name, port: n, path: "/" + path}
	if strings.HasPrefix(what, "/") {
		sub.command = strings.Fields(what)
	} else {
		sub.image = what
	}
	return sub, nil
}
