package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"imagelab/internal/sandbox"
)

// asRefuser as the first argument has the test binary refuse Landlock to the program behind it, as
// the seccomp profile of an old container engine does.
const asRefuser = "refuse-landlock"

// refuseLandlock becomes the program of args, under a filter.
func refuseLandlock(args []string) {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		panic(err)
	}
	panic(syscall.Exec(args[0], args, os.Environ()))
}

// A command has the descriptors that were handed down, as without the sandbox (sd_listen_fds(3)).
func TestConfinedCommandKeepsDescriptors(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const read = `for fd in 3 9; do read word <&$fd && [ "$word" = word ] || exit 1; done`
	log := &logBuffer{}
	in := launchArgs(t, log, []string{"sh", "-c", `exec 3<"$1" 9<"$1"; exec "$0" -- sh -c "$2"`, os.Args[0], file, read}, "IMAGELAB_SANDBOX_COMMAND=on")
	if code := in.wait(t); code != 0 {
		t.Errorf("exit %d, want 0; log:\n%s", code, log)
	}
}

// wholeSandbox skips where this kernel, or what is around the test, does not have all of it.
func wholeSandbox(t *testing.T) {
	t.Helper()
	in := startProcess(t, nil, "IMAGELAB_SANDBOX=auto")
	confined := in.log.find("confined")
	_ = in.process.Signal(syscall.SIGTERM)
	in.wait(t)
	if refused, _ := confined["refused"].([]any); len(refused) > 0 {
		t.Skipf("kernel: not all of the sandbox: %v", refused)
	}
}

// sandboxParts are the parts that the metrics say are applied to of.
func (in *instance) sandboxParts(t *testing.T, of string) []string {
	t.Helper()
	var parts []string
	for _, part := range append(sandbox.Parts(), sandbox.Reads) {
		if in.metric(t, fmt.Sprintf(`imagelab_sandbox_applied{of=%q,part=%q}`, of, part)) == "1" {
			parts = append(parts, string(part))
		}
	}
	return parts
}

// The data directory is a link, which somebody turns to another place while the server runs.
func TestServerWritesWhereItStartedToAndNowhereElse(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	for mode, confined := range map[string]bool{"require": true, "auto": true, "off": false} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			link, first, other := filepath.Join(dir, "link"), filepath.Join(dir, "first"), filepath.Join(dir, "other")
			for _, name := range []string{first, other} {
				if err := os.Mkdir(name, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(first, link); err != nil {
				t.Fatal(err)
			}
			in := startProcess(t, nil, "IMAGELAB_SANDBOX="+mode, "IMAGELAB_DATA_DIR="+link)
			if resp, body := fetch(t, "POST", in.app+"/store", "one"); resp.StatusCode != 201 {
				t.Fatalf("POST /store = %d %s, want 201", resp.StatusCode, body)
			}
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(other, link); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(first, storeDir)); err != nil {
				t.Fatal(err)
			}
			want := 201
			if confined {
				want = 507
			}
			eventually(t, "a store elsewhere, or none", func() bool {
				resp, _ := fetch(t, "POST", in.app+"/store", "two")
				return resp.StatusCode == want || confined && resp.StatusCode == 503
			})
			entries, err := os.ReadDir(other)
			if err != nil || (len(entries) == 0) != confined {
				t.Errorf("the other directory holds %v, %v", entries, err)
			}
			if got := in.log.find("confined") != nil; got != confined {
				t.Errorf("the log says confined: %v, want %v", got, confined)
			}
			if confined {
				eventually(t, "end of reads", func() bool { return in.has(t, "server", sandbox.Reads) })
			}
		})
	}
}

// Somebody puts another directory in the place of the store's, or of the one above it, while a body comes.
func TestUploadWhoseDirectoryIsReplaced(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	for name, replace := range map[string]func(data, aside, other string) error{
		"the data directory": func(data, aside, other string) error {
			return errors.Join(os.Rename(data, aside), os.Symlink(other, data))
		},
		"the store's directory": func(data, _, other string) error {
			store := filepath.Join(data, storeDir)
			return errors.Join(os.Rename(store, filepath.Join(data, "aside")), os.Symlink(other, store))
		},
		"the store's directory, which is taken out": func(data, aside, other string) error {
			store := filepath.Join(data, storeDir)
			return errors.Join(os.Rename(store, aside), os.Symlink(other, store))
		},
		"the data directory by another one": func(data, aside, _ string) error {
			return errors.Join(os.Rename(data, aside), os.Mkdir(data, 0o700))
		},
	} {
		for _, mode := range []string{"require", "off"} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				data, aside, other := filepath.Join(dir, "data"), filepath.Join(dir, "aside"), filepath.Join(dir, "other")
				for _, name := range []string{data, other} {
					if err := os.Mkdir(name, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				in := startProcess(t, nil, "IMAGELAB_SANDBOX="+mode, "IMAGELAB_DATA_DIR="+data)
				in.keep(t, "before")
				body, upload := io.Pipe()
				status := make(chan int, 1)
				go func() {
					code, _ := in.post(t, body)
					status <- code
				}()
				half := strings.Repeat("x", 100_000)
				if _, err := io.WriteString(upload, half); err != nil {
					t.Fatal(err)
				}
				eventually(t, "part of an upload", func() bool {
					names, _ := filepath.Glob(filepath.Join(data, storeDir, tempPrefix+"*"))
					return len(names) == 1
				})
				if err := replace(data, aside, other); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(upload, half); err != nil {
					t.Fatal(err)
				}
				upload.Close()
				code := <-status
				if code != 201 && code < 500 {
					t.Errorf("POST /store = %d, want 201 or an error of the server", code)
				}
				// Where the store was before, and where it is now: nowhere but in the directory that it had opened.
				digests := map[string]string{digestOf([]byte("before")): "before"}
				if code == 201 {
					digests[digestOf([]byte(half+half))] = half + half
				}
				found := map[string]string{}
				_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, _ error) error {
					if entry.Type().IsRegular() && isDigest(entry.Name()) {
						content, _ := os.ReadFile(path)
						found[entry.Name()] = string(content)
					}
					if strings.HasPrefix(path, other+"/") {
						t.Errorf("%s has come to be", path)
					}
					return nil
				})
				if !maps.Equal(found, digests) {
					t.Errorf("%d blobs are there, want %d and nothing else: %v", len(found), len(digests), slices.Collect(maps.Keys(found)))
				}
				// It goes on, with a store or without one.
				if resp, body := fetch(t, "GET", in.app+"/health", ""); resp.StatusCode != 200 {
					t.Errorf("GET /health = %d %s", resp.StatusCode, body)
				}
				_ = in.process.Signal(syscall.SIGTERM)
				if code := in.wait(t); code != 0 {
					t.Errorf("exit %d", code)
				}
			})
		}
	}
}

// has says whether the metrics say that a part is applied.
func (in *instance) has(t *testing.T, of string, part sandbox.Part) bool {
	return slices.Contains(in.sandboxParts(t, of), string(part))
}

func TestEveryThreadOfTheServerIsConfined(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	in := startProcess(t, nil, "IMAGELAB_SANDBOX=require")
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", in.process.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if os.IsNotExist(err) {
			continue
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s has no %q", task, want)
			}
		}
	}
	want := []string{"no_new_privs", "files", "devices", "tcp", "others", "calls", "reads"}
	eventually(t, "all parts", func() bool { return slices.Equal(in.sandboxParts(t, "server"), want) })
}

// An outer profile that refuses Landlock is no obstacle for auto, which says so, and one for require.
func TestOuterProfileRefusesTheSandbox(t *testing.T) {
	t.Parallel()
	refuser := []string{os.Args[0], asRefuser}
	in := startProcess(t, refuser, "IMAGELAB_SANDBOX=auto")
	confined := in.log.find("confined")
	refused := fmt.Sprint(confined["refused"])
	for _, part := range []string{"files", "devices", "tcp", "others"} {
		if !strings.Contains(refused, part+": a seccomp profile around the process refuses it") {
			t.Errorf("refused %v, want %s among it", refused, part)
		}
	}
	if applied := fmt.Sprint(confined["applied"]); applied != "[no_new_privs calls]" {
		t.Errorf("applied %v, want what needs no Landlock", applied)
	}
	if parts := in.sandboxParts(t, "server"); !slices.Equal(parts, []string{"no_new_privs", "calls"}) {
		t.Errorf("the metrics have %v", parts)
	}
	if resp, body := fetch(t, "POST", in.app+"/store", "one"); resp.StatusCode != 201 {
		t.Errorf("POST /store = %d %s, want 201", resp.StatusCode, body)
	}

	log := &logBuffer{}
	if code := launch(t, log, refuser, "IMAGELAB_SANDBOX=require").wait(t); code != 1 {
		t.Errorf("exit %d with require, want 1", code)
	}
	if failure := log.find("cannot start"); !strings.Contains(fmt.Sprint(failure["err"]), "IMAGELAB_SANDBOX=require, and this is refused: files: ") {
		t.Errorf("the log does not say why:\n%s", log)
	}

	// The same for a command.
	for mode, want := range map[string]int{"auto": 7, "require": 126} {
		log := &logBuffer{}
		in := launchArgs(t, log, append(refuser, os.Args[0], "--", "sh", "-c", "exit 7"), "IMAGELAB_SANDBOX="+mode, "IMAGELAB_SANDBOX_COMMAND=on")
		if code := in.wait(t); code != want {
			t.Errorf("exit %d of a command with %s, want %d, log:\n%s", code, mode, want, log)
		}
	}
}

func TestConfinedServerReachesItsPeers(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	other := start(t)
	in := startProcess(t, nil, "IMAGELAB_SANDBOX=require", "IMAGELAB_PEERS=other="+other.ops)
	// It answers, be it that it has no report outside a container.
	resp, body := fetch(t, "GET", in.ops+"/peers", "")
	if resp.StatusCode != 200 || !strings.Contains(body, `"error":"it runs in no container`) && !strings.Contains(body, `"report":`) {
		t.Errorf("GET /peers = %d %s, want what the peer has said", resp.StatusCode, body)
	}
}

// runConfined runs a command with imagelab before it, and returns its code and its output with the log.
func runConfined(t *testing.T, allowed string, command ...string) (code int, output string) {
	t.Helper()
	log := &logBuffer{}
	in := launchArgs(t, log, append([]string{os.Args[0], "--"}, command...), "IMAGELAB_SANDBOX=require", "IMAGELAB_SANDBOX_COMMAND="+allowed)
	return in.wait(t), log.String()
}

// listeners are the ports of two servers that answer before they are asked.
func listeners(t *testing.T) (ports []string) {
	t.Helper()
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
				go func() { // a request that is not read would be a reset
					_ = conn.SetDeadline(time.Now().Add(patience))
					_ = conn.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, conn)
					conn.Close()
				}()
			}
		}()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

func TestCommandIsConfined(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	ports := listeners(t)
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for _, name := range []string{in, out} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(out, "kept")
	if err := os.WriteFile(kept, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	connect := func(port string) string { return "exec 3<>/dev/tcp/127.0.0.1/" + port + " && read -r line <&3" }
	for name, test := range map[string]struct {
		allowed string
		script  string
		fails   bool
	}{
		"a file inside":                {in, "echo x >" + in + "/new && mv " + in + "/new " + in + "/moved && rm " + in + "/moved", false},
		"a directory inside":           {in, "mkdir " + in + "/d && rmdir " + in + "/d", false},
		"devices":                      {in, "echo x >/dev/null && exec 2>/dev/null && head -c 1 /dev/zero >/dev/null", false},
		"reading outside":              {in, "cat " + kept + " >/dev/null", false},
		"other programs":               {in, "ls / >/dev/null && sh -c 'exit 0'", false},
		"a file outside":               {in, "echo x >" + out + "/new", true},
		"an old file outside":          {in, "echo x >>" + kept, true},
		"deleting outside":             {in, "rm -f " + kept, true},
		"a link outside":               {in, "ln -s " + out + " " + in + "/link; echo x >" + in + "/link/new", true},
		"a file outside by a child":    {in, "sh -c 'echo x >" + out + "/new'", true},
		"both":                         {in + "," + out, "echo x >" + out + "/both && rm " + out + "/both", false},
		"any port":                     {in, connect(ports[0]) + " && " + connect(ports[1]), false},
		"a port":                       {in + "," + ports[0], connect(ports[0]), false},
		"another port":                 {in + "," + ports[0], connect(ports[1]), true},
		"a mount":                      {in, "mount -t tmpfs none " + in, true},
		"a namespace":                  {in, "unshare -U true", true},
		"a signal to its own":          {in, "sleep 60 & kill $!", false},
		"a signal to who has begun it": {in, "kill -0 $PPID", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, output := runConfined(t, test.allowed, "bash", "-c", test.script)
			if (code != 0) != test.fails {
				t.Errorf("exit %d, want failure %v:\n%s", code, test.fails, output)
			}
			if blamed := strings.Contains(output, "the command has failed while it was confined,"); blamed != test.fails {
				t.Errorf("the log says that the sandbox may be why: %v, want %v:\n%s", blamed, test.fails, output)
			}
		})
	}
	t.Cleanup(func() {
		if content, err := os.ReadFile(kept); err != nil || string(content) != "kept" {
			t.Errorf("the file outside holds %q, %v", content, err)
		}
	})
}

// The user of the images may write to places that are everybody's.
func TestCommandOfAnotherUserIsConfined(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	dir, err := os.MkdirTemp("", "imagelab-test") // t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(in, 0o700), os.Mkdir(out, 0o700), os.Chmod(in, 0o777), os.Chmod(out, 0o777)); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]int{"require": 9, "off": 0} {
		code, _, stderr := asUser(t, []string{
			"IMAGELAB_SANDBOX=" + mode, "IMAGELAB_SANDBOX_COMMAND=" + in, "IMAGELAB_OPS_ADDR=127.0.0.1:0", "PATH=" + os.Getenv("PATH"),
		}, "--", "sh", "-c", "echo x >"+in+"/new || exit 8; (echo x >"+out+"/new) || exit 9")
		if code != want {
			t.Errorf("exit %d with %s, want %d: %s", code, mode, want, stderr)
		}
	}
}

// A command may make links, and what it is confined to may be named by a path that it can change. Its next start is by
// the same imagelab, or by another one.
func TestCommandCannotMoveItsBounds(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	for name, test := range map[string]struct {
		allowed func(dir string) string
		again   bool // by another imagelab
	}{
		"below another one": {func(dir string) string { return dir + "/in/sub," + dir + "/in" }, true},
		"by a link":         {func(dir string) string { return dir + "/in," + dir + "/alias/sub" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			if err := errors.Join(os.MkdirAll(in+"/sub", 0o700), os.Mkdir(out, 0o700), os.Symlink(in, dir+"/alias")); err != nil {
				t.Fatal(err)
			}
			script := "cd " + in + "; if [ -L sub ]; then echo x >sub/new; echo x >new; exit 0; fi; echo x >sub/old; mv sub moved; ln -s " +
				out + " sub; exit 1"
			log := &logBuffer{}
			run := func(restart string, want int) {
				code := launchArgs(t, log, []string{os.Args[0], "--", "sh", "-c", script},
					"IMAGELAB_SANDBOX=require", "IMAGELAB_SANDBOX_COMMAND="+test.allowed(dir), "IMAGELAB_RESTART="+restart).wait(t)
				if code != want {
					t.Errorf("exit %d, want %d, log:\n%s", code, want, log)
				}
			}
			if test.again {
				run("never", 1)
				run("never", 0)
			} else {
				run("on-failure", 0)
			}
			for _, name := range []string{in + "/moved/old", in + "/new"} {
				if _, err := os.Stat(name); err != nil {
					t.Errorf("%v, log:\n%s", err, log)
				}
			}
			if entries, err := os.ReadDir(out); err != nil || len(entries) > 0 {
				t.Errorf("outside there is %v, %v", entries, err)
			}
		})
	}
}

// What is no write is refused as well, where it would end imagelab or leave the sandbox.
func TestCommandCannotTouchImagelab(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	python := program(t, "python3")
	const attempts = `
import ctypes, errno, os, resource, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
parent, went = os.getppid(), []
def refused(what, attempt):
    try:
        attempt()
        went.append(what)
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EACCES): went.append((what, e))
def call(*args):
    if libc.syscall(*args) < 0: raise OSError(ctypes.get_errno(), "")
def child(*steps):
    pid = os.fork()
    if pid == 0:
        try:
            for step in steps: step()
        except OSError as e:
            os._exit(e.errno)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status: raise OSError(status, "")
kill = lambda: os.kill(parent, signal.SIGKILL)
refused("kill", kill)
refused("kill in a session of its own", lambda: child(os.setsid, kill))
refused("limits", lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (0, 0)))
refused("ptrace", lambda: call(101, 16, parent, 0, 0))
refused("memory", lambda: open("/proc/%d/mem" % parent, "r+b"))
def environment():
    if not open("/proc/%d/environ" % parent, "rb").read(): raise OSError(errno.EPERM, "empty")
capabilities = int([line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1], 16)
if not capabilities & (1 << 21 | 1 << 38): refused("environment", environment) # CAP_SYS_ADMIN and CAP_PERFMON show it
refused("descriptors", lambda: os.readlink("/proc/%d/fd/0" % parent))
refused("its root", lambda: os.listdir("/proc/%d/root/" % parent))
refused("oom_score_adj", lambda: open("/proc/%d/oom_score_adj" % parent, "w"))
def by_pidfd():
    fd = os.pidfd_open(parent)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
refused("pidfd", by_pidfd)
def by_owner():
    import fcntl, time
    r, w = os.pipe()
    fcntl.fcntl(r, 10, signal.SIGKILL) # F_SETSIG
    fcntl.fcntl(r, fcntl.F_SETOWN, parent)
    fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
    os.write(w, b"x")
    raise OSError(errno.EPERM, "not sent") # as is seen from its being there
refused("SIGIO", by_owner)
refused("packets", lambda: socket.socket(socket.AF_INET, 10))
refused("packets of any kind", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
# A program in memory is confined as any other.
fd = os.memfd_create("program")
os.write(fd, open("/bin/sh", "rb").read())
def from_memory():
    os.execve("/proc/self/fd/%d" % fd, ["sh", "-c", "echo x >/usr/imagelab-test && exit 0; exit 13"], {})
refused("memory as a program", lambda: child(from_memory))
raise SystemExit(str(went) if went else 0)
`
	if runtime.GOARCH != "amd64" {
		t.Skip("kernel: the number of ptrace is that of amd64")
	}
	if code, output := runConfined(t, t.TempDir(), python, "-c", attempts); code != 0 {
		t.Errorf("exit %d, what is listed was not refused:\n%s", code, output)
	}
}

// What the log says of a command that fails is enough to mend it.
func TestLogSaysWhatACommandNeeds(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	dir := t.TempDir()
	in, cache := filepath.Join(dir, "in"), filepath.Join(dir, "cache")
	if err := errors.Join(os.Mkdir(in, 0o700), os.Mkdir(cache, 0o700)); err != nil {
		t.Fatal(err)
	}
	command := []string{"sh", "-c", `echo x >"${1#--cache=}/new"`, "sh", "--cache=" + cache}
	log := &logBuffer{}
	code := launchArgs(t, log, append([]string{os.Args[0], "--"}, command...), "IMAGELAB_SANDBOX=require",
		"IMAGELAB_SANDBOX_COMMAND="+in+","+dir+"/none,5432").wait(t)
	const msg = "the command has failed while it was confined, and may need more than IMAGELAB_SANDBOX_COMMAND allows: " +
		"with IMAGELAB_SANDBOX=off it is seen whether that is why"
	line := log.find(msg)
	if code == 0 || line == nil {
		t.Fatalf("exit %d, log:\n%s", code, log)
	}
	if line["connect"] != "5432" || !strings.HasPrefix(fmt.Sprint(line["write"]), "["+in) {
		t.Errorf("the log does not say what is allowed: %v", line)
	}
	if places, _ := line["writable_but_for_that"].([]any); !slices.Contains(places, any(cache)) || slices.Contains(places, any(in)) {
		t.Errorf("it could write but for the sandbox: %v, want %s among it, and not %s", places, cache, in)
	}
	missing := log.find("the command cannot write to paths that did not exist when it started, or have become links since the first")
	if fmt.Sprint(missing["paths"]) != "["+dir+"/none]" {
		t.Errorf("the log does not say what is missing: %v", missing)
	}

	// The line for a shell, as it is printed, names the path.
	program(t, "strace")
	trace, _ := line["names_what_is_refused"].(string)
	trace = strings.Replace(trace, "imagelab", os.Args[0], 1)
	trace = strings.Replace(trace, "COMMAND", `"$@"`, 1)
	shell := exec.CommandContext(t.Context(), "sh", append([]string{"-c", trace, "sh"}, command...)...)
	shell.Env = append(defaults(t, nil), asProgram+"=1", "PATH="+os.Getenv("PATH"), "IMAGELAB_SANDBOX_COMMAND="+in)
	out, _ := shell.CombinedOutput()
	if want := `"` + cache + `/new"`; !strings.Contains(string(out), want) {
		t.Errorf("%s: no %s in\n%s", trace, want, out)
	}
}

// What the stage must not change: how a command is found, what it inherits, and how its end is told.
func TestStageIsNotSeen(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain") // a script without an interpreter is a shell's
	broken := filepath.Join(dir, "broken")
	for name, content := range map[string]string{plain: "exit 42\n", broken: "#!/no/such/interpreter\n"} {
		if err := os.WriteFile(name, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		command []string
		code    int
	}{
		{[]string{"/no/such/program"}, 127},
		{[]string{"no-such-program"}, 127},
		{[]string{"/etc/passwd"}, 126},
		{[]string{broken}, 126},
		{[]string{plain}, 42},
		{[]string{"sh", "-c", "exit 77"}, 77},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137},
		{[]string{"sh", "-c", `[ "$0" = "--healthcheck" ] && [ "$1" = "a b" ]`, "--healthcheck", "a b"}, 0},
		{[]string{"sh", "-c", `! env | grep IMAGELAB_`}, 0},
		{[]string{"sh", "-c", `[ "$(ls -l /proc/self/fd | grep -c pipe:.*)" -le 3 ] && [ ! -e /proc/$$/fd/3 ]`}, 0},
		{[]string{"sh", "-c", `[ "$(ps -o pgid= -p $$ | tr -d ' ')" = $$ ]`}, 0},
	} {
		if code, output := runConfined(t, "on", test.command...); code != test.code {
			t.Errorf("%q: exit %d, want %d:\n%s", test.command, code, test.code, output)
		}
	}
}

func TestSandboxOfACommandIsShown(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	in := startBefore(t, nil, "IMAGELAB_SANDBOX=require", "IMAGELAB_SANDBOX_COMMAND=on")
	want := []string{"no_new_privs", "files", "devices", "others", "calls"}
	if parts := in.sandboxParts(t, "command"); !slices.Equal(parts, want) {
		t.Errorf("the metrics have %v, want %v", parts, want)
	}
	if line := in.log.find("the command is confined"); line == nil || len(line["refused"].([]any)) > 0 {
		t.Errorf("the log says %v", line)
	}
	// The supervisor stays as it is.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.process.Pid))
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t0\n") && !underNoNewPrivs(t) {
		t.Errorf("the supervisor has given up something: %v", err)
	}
	before := in.pid(t)
	if err := in.process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a reload", func() bool { return in.pid(t) != before })
}

// underNoNewPrivs says whether the test itself has no_new_privs.
func underNoNewPrivs(t *testing.T) bool {
	t.Helper()
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return set == 1
}

// Programs that know nothing of it.
func TestProgramsRunConfined(t *testing.T) {
	t.Parallel()
	wholeSandbox(t)
	t.Run("python with threads", func(t *testing.T) {
		t.Parallel()
		const script = `
import threading, tempfile, socket, subprocess, errno
done = []
def work(i):
    with tempfile.TemporaryFile() as f:
        f.write(b"x"); done.append(i)
threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(done) == 20
assert subprocess.run(["true"]).returncode == 0
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW); raise SystemExit(3)
except OSError as e:
    assert e.errno == errno.EPERM, e
try:
    open("/usr/imagelab-test", "w"); raise SystemExit(4)
except OSError as e:
    assert e.errno == errno.EACCES, e
`
		python := program(t, "python3")
		if code, output := runConfined(t, "/tmp", python, "-c", script); code != 0 {
			t.Errorf("exit %d:\n%s", code, output)
		}
	})
	t.Run("nginx", func(t *testing.T) {
		t.Parallel()
		nginx := program(t, "nginx")
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil { // its workers are another user's
			t.Fatal(err)
		}
		conf := filepath.Join(dir, "nginx.conf")
		ports := listeners(t)
		text := `daemon off; worker_processes 2; pid ` + dir + `/pid; error_log stderr;
events {}
http { access_log off; client_body_temp_path ` + dir + `/b; proxy_temp_path ` + dir + `/p; fastcgi_temp_path ` + dir + `/f;
uwsgi_temp_path ` + dir + `/u; scgi_temp_path ` + dir + `/s; server { listen unix:` + dir + `/socket; location / { return 200 "nginx\n"; }
location /allowed { proxy_pass http://127.0.0.1:` + ports[0] + `; } location /other { proxy_pass http://127.0.0.1:` + ports[1] + `; } } }`
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		in := startCommand(t, []string{nginx, "-c", conf}, "IMAGELAB_SANDBOX=require", "IMAGELAB_SANDBOX_COMMAND="+dir+","+ports[0],
			"IMAGELAB_UPSTREAM=unix://"+dir+"/socket")
		if resp, body := fetch(t, "GET", in.app+"/", ""); resp.StatusCode != 200 || body != "nginx\n" {
			t.Errorf("GET / = %d %q, log:\n%s", resp.StatusCode, body, in.log)
		}
		if resp, body := fetch(t, "GET", in.app+"/allowed", ""); resp.StatusCode != 200 || body != "hello\n" {
			t.Errorf("GET from the port that is listed = %d %q, log:\n%s", resp.StatusCode, body, in.log)
		}
		eventually(t, "a refusal in the log of nginx", func() bool {
			resp, _ := fetch(t, "GET", in.app+"/other", "")
			return resp.StatusCode == 502 && strings.Contains(in.log.String(), "127.0.0.1:"+ports[1]+" failed (13: Permission denied)")
		})
		text = strings.Replace(text, "access_log off", "access_log "+filepath.Dir(dir)+"/outside", 1)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, output := runConfined(t, dir, nginx, "-c", conf)
		if code == 0 || !strings.Contains(output, "/outside\" failed (13: Permission denied)") {
			t.Errorf("exit %d with a log outside:\n%s", code, output)
		}
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		redis := program(t, "redis-server")
		dir := t.TempDir()
		ports := listeners(t)
		in := startCommand(t, []string{redis, "--port", "0", "--unixsocket", dir + "/socket", "--dir", dir, "--save", ""},
			"IMAGELAB_SANDBOX=require", "IMAGELAB_SANDBOX_COMMAND="+dir+","+ports[0], "IMAGELAB_PROBE=unix://"+dir+"/socket")
		in.awaitState(t, "ready")
		ask := func(command string) string {
			conn, err := net.Dial("unix", dir+"/socket")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s\r\nQUIT\r\n", command)
			answer, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			return string(answer)
		}
		if got := ask("SET a b"); !strings.HasPrefix(got, "+OK") {
			t.Errorf("SET = %q", got)
		}
		if got := ask("SAVE"); !strings.HasPrefix(got, "+OK") {
			t.Errorf("SAVE inside = %q", got)
		}
		if got := ask("CONFIG SET dir /var/tmp"); strings.HasPrefix(got, "+OK") {
			if got := ask("SAVE"); !strings.HasPrefix(got, "-ERR") {
				t.Errorf("SAVE outside = %q, want an error", got)
			}
		}
		// Whoever listens there, redis takes any answer that is no error for success.
		if got := ask("MIGRATE 127.0.0.1 " + ports[0] + " a 0 5000"); !strings.HasPrefix(got, "+OK") {
			t.Errorf("MIGRATE to the port that is listed = %q", got)
		}
		if got := ask("SET c d") + ask("MIGRATE 127.0.0.1 "+ports[1]+" c 0 5000"); !strings.Contains(got, "-IOERR") {
			t.Errorf("MIGRATE to another port = %q, want an error", got)
		}
	})
}

// program finds a program, or skips.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func TestSandboxVariables(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		environ []string
		want    string
	}{
		{[]string{"IMAGELAB_SANDBOX=yes"}, `IMAGELAB_SANDBOX="yes": want auto, require or off`},
		{[]string{"IMAGELAB_SANDBOX=require"}, `IMAGELAB_SANDBOX="require" with a command, which would not be confined: want IMAGELAB_SANDBOX_COMMAND=on`},
		{[]string{"IMAGELAB_SANDBOX_COMMAND=yes"}, `IMAGELAB_SANDBOX_COMMAND="yes": want on, or paths`},
		{[]string{"IMAGELAB_SANDBOX_COMMAND=tmp"}, `want on, or paths`},
		{[]string{"IMAGELAB_SANDBOX_COMMAND=0"}, `want on, or paths`},
		{[]string{"IMAGELAB_SANDBOX_COMMAND=65536"}, `want on, or paths`},
		{[]string{"IMAGELAB_SANDBOX_COMMAND=/data,"}, `want on, or paths`},
	} {
		code, _, stderr := invoke(t, test.environ, "--", "true")
		if code != 2 || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit %d, %s, want 2 and %q", test.environ, code, stderr, test.want)
		}
	}
	for value, want := range map[string]commandSandbox{
		"on":                 {on: true, defaults: true},
		"5432":               {on: true, defaults: true, ports: []uint16{5432}},
		"/data":              {on: true, write: []string{"/data"}},
		"/data/ , 1, 65535":  {on: true, write: []string{"/data"}, ports: []uint16{1, 65535}},
		"on,/var/cache/x/..": {on: true, defaults: true, write: []string{"/var/cache"}},
	} {
		cfg, _, _, err := loadConfigFor([]string{"IMAGELAB_SANDBOX_COMMAND=" + value}, true)
		if err != nil || fmt.Sprint(cfg.SandboxCommand) != fmt.Sprint(want) {
			t.Errorf("%q = %+v, %v, want %+v", value, cfg.SandboxCommand, err, want)
		}
	}
}

func TestTmpfsMounts(t *testing.T) {
	t.Parallel()
	const mountinfo = `22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=a
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:22 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
25 24 0:23 / /dev/shm rw,nosuid,nodev - tmpfs shm rw,size=65536k
26 22 0:24 / /tmp rw,noexec shared:7 - tmpfs tmpfs rw
27 22 0:25 / /run ro,noexec - tmpfs tmpfs rw
28 23 0:26 / /proc/acpi ro,relatime - tmpfs tmpfs ro
29 22 0:27 / /sys/firmware ro - tmpfs tmpfs ro
30 22 0:28 / /with\040space rw - tmpfs tmpfs rw
31 22 0:29 / /data rw - ext4 /dev/sda rw
32 22 0:30 /containers/storage/a/hosts /etc/hosts rw - tmpfs tmpfs rw
33 22 0:30 /app /srv/app rw - tmpfs tmpfs rw
broken
`
	if got, want := tmpfsMounts(mountinfo), []string{"/dev/shm", "/tmp", "/with space"}; !slices.Equal(got, want) {
		t.Errorf("tmpfsMounts = %q, want %q", got, want)
	}
}
