package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// asConfined in the environment has the test binary confine itself, by the policy that is the value, and try things.
const asConfined = "TEST_SANDBOX_POLICY"

func TestMain(m *testing.M) {
	if policy := os.Getenv(asConfined); policy != "" {
		tryAll([]byte(policy))
		return
	}
	os.Exit(m.Run())
}

// attempt is what a confined process tries, beyond what the policy says.
type attempt struct {
	Policy
	CallsOnly  bool     // by ConfineCalls
	NoLandlock bool     // on a kernel without it
	Swap       bool     // Inside for a link to Outside, when the policy has been read
	Reads      []string // for ConfineReads, if there are any
	Inside     string   // a directory that the policy has
	Outside    string   // and one that it has not, with a file in it
	Ports      [2]uint16
	Victim     int    // a process outside
	Socket     string // an abstract Unix socket outside
	Path       string // of a Unix socket outside
	Pair       [2]int // of connected Unix sockets, made before
}

// outcome is what came of it: an errno, or 0, by what was tried.
type outcome struct {
	Report Report
	Errors map[string]syscall.Errno
	Status string // NoNewPrivs and Seccomp of every thread
}

// tryAll confines the process and tries what it may not do any more, on another thread than the one that has asked
// for it.
func tryAll(policy []byte) {
	var a attempt
	if err := json.Unmarshal(policy, &a); err != nil {
		panic(err)
	}
	// Threads that are there before: they are to be confined as well.
	var block sync.WaitGroup
	block.Add(1)
	ready := make(chan struct{})
	others := make(chan map[string]syscall.Errno)
	threads := 4
	if a.CallsOnly || a.NoLandlock {
		threads = 1 // they would change the same files
	}
	for range threads {
		go func() {
			runtime.LockOSThread()
			ready <- struct{}{}
			block.Wait()
			others <- a.try()
		}()
		<-ready
	}
	var out outcome
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	a.Pair = pair
	switch {
	case a.CallsOnly:
		out.Report.note(Calls, ConfineCalls())
	case a.Swap:
		k := thisKernel()
		restrict := k.restrict
		k.restrict = func(c landlock.Config, rules []landlock.Rule) error {
			if err := os.Rename(a.Inside, a.Inside+".real"); err != nil {
				return err
			}
			if err := os.Symlink(a.Outside, a.Inside); err != nil {
				return err
			}
			return restrict(c, rules)
		}
		out.Report = confine(k, a.Policy)
		a.Inside += ".real"
	case a.NoLandlock:
		k := thisKernel()
		k.landlock = func() (int, int, error) { return 0, 0, unix.ENOSYS }
		out.Report = confine(k, a.Policy)
	default:
		out.Report = Confine(a.Policy)
	}
	if len(a.Reads) > 0 {
		if err := ConfineReads(a.Reads); err != nil {
			out.Report.Refused = append(out.Report.Refused, Refusal{Reads, err.Error()})
		}
	}
	block.Done()
	for range threads {
		errs := <-others
		if out.Errors != nil && !reflect.DeepEqual(errs, out.Errors) {
			panic(fmt.Sprintf("threads differ: %v, %v", errs, out.Errors))
		}
		out.Errors = errs
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "NoNewPrivs:") || strings.HasPrefix(line, "Seccomp:") {
				if text := strings.Join(strings.Fields(line), ""); !strings.Contains(out.Status, text) {
					out.Status += text + " "
				}
			}
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(out)
}

func (a attempt) try() map[string]syscall.Errno {
	errs := map[string]syscall.Errno{}
	note := func(what string, err error) {
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			panic(fmt.Sprintf("%s: %v", what, err))
		}
		errs[what] = errno
	}
	raw := func(what string, call uintptr, args ...uintptr) {
		args = append(args, make([]uintptr, 6-len(args))...)
		_, _, errno := syscall.Syscall6(call, args[0], args[1], args[2], args[3], args[4], args[5])
		errs[what] = errno
	}
	open := func(what, name string, flags int) {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		note(what, err)
	}
	tid := fmt.Sprint(unix.Gettid())
	kept := filepath.Join(a.Outside, "kept")
	text := func(s string) uintptr { p, _ := unix.BytePtrFromString(s); return uintptr(unsafe.Pointer(p)) }

	open("write inside", filepath.Join(a.Inside, tid), unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC)
	note("rename inside", os.Rename(filepath.Join(a.Inside, tid), filepath.Join(a.Inside, tid+"-renamed")))
	note("delete inside", os.Remove(filepath.Join(a.Inside, tid+"-renamed")))
	open("write outside", kept, unix.O_WRONLY)
	open("write outside by a link", filepath.Join(a.Inside, "out", "kept"), unix.O_WRONLY)
	open("write outside by ..", a.Inside+"/../"+filepath.Base(a.Outside)+"/kept", unix.O_WRONLY)
	open("write outside by the root", "/proc/self/root"+kept, unix.O_WRONLY)
	open("create outside", filepath.Join(a.Outside, "new"), unix.O_CREAT|unix.O_WRONLY)
	open("create outside without a name", a.Outside, unix.O_TMPFILE|unix.O_WRONLY)
	if fd, err := unix.Open(kept, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil { // unless reads are refused
		open("write outside by a descriptor", fmt.Sprint("/proc/self/fd/", fd), unix.O_WRONLY)
		note("chmod outside by a descriptor", unix.Fchmod(fd, 0o600))
		note("chown outside by a descriptor", unix.Fchown(fd, -1, -1))
		note("utimes outside by a descriptor", unix.UtimesNanoAt(fd, "", nil, unix.AT_EMPTY_PATH))
		raw("attributes outside", unix.SYS_IOCTL, uintptr(fd), unix.FS_IOC_SETFLAGS, 0)
		unix.Close(fd)
	}
	note("link from outside", os.Link(kept, filepath.Join(a.Inside, tid+"-hard")))
	note("rename from outside", os.Rename(kept, filepath.Join(a.Inside, tid+"-taken")))
	open("for outside", filepath.Join(a.Inside, tid+"-here"), unix.O_CREAT|unix.O_WRONLY)
	note("link to outside", os.Link(filepath.Join(a.Inside, tid+"-here"), filepath.Join(a.Outside, "hard")))
	note("rename to outside", os.Rename(filepath.Join(a.Inside, tid+"-here"), filepath.Join(a.Outside, "given")))
	note("pipe outside", unix.Mkfifo(filepath.Join(a.Outside, "pipe"), 0o600))
	note("pipe inside", unix.Mkfifo(filepath.Join(a.Inside, tid+"-pipe"), 0o600))
	note("character device inside", unix.Mknod(filepath.Join(a.Inside, tid+"-char"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))))
	note("block device inside", unix.Mknod(filepath.Join(a.Inside, tid+"-block"), unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))))
	note("truncate outside", unix.Truncate(kept, 0))
	note("delete outside", os.Remove(kept))
	note("mkdir outside", os.Mkdir(filepath.Join(a.Outside, "dir"), 0o700))
	note("symlink outside", os.Symlink("x", filepath.Join(a.Outside, "link")))
	note("rename outside", os.Rename(kept, filepath.Join(a.Outside, "moved")))
	note("chmod outside", unix.Fchmodat(unix.AT_FDCWD, kept, 0o600, 0))
	open("read outside", kept, unix.O_RDONLY)
	open("list outside", a.Outside, unix.O_RDONLY|unix.O_DIRECTORY)
	_, err := os.Stat(kept)
	note("stat outside", err)

	// It would not return if it were allowed, so that it is given what is no program.
	raw("execve", unix.SYS_EXECVE, text(kept), 0, 0)
	raw("execveat", unix.SYS_EXECVEAT, ^uintptr(0), text(""), 0, 0, 0)
	raw("mount", unix.SYS_MOUNT, 0, 0, 0, 0, 0)
	raw("umount", unix.SYS_UMOUNT2, text("/none"), 0)
	raw("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWUTS)
	raw("clone with a namespace", unix.SYS_CLONE, unix.CLONE_NEWUTS|unix.CLONE_THREAD)
	raw("clone3", unix.SYS_CLONE3, 0, 0)
	raw("ptrace", unix.SYS_PTRACE, unix.PTRACE_ATTACH, uintptr(a.Victim))
	raw("process_vm_readv", unix.SYS_PROCESS_VM_READV, uintptr(a.Victim), 0, 0, 0, 0, 0)
	raw("bpf", unix.SYS_BPF, 0, 0, 0)
	raw("io_uring_setup", unix.SYS_IO_URING_SETUP, 0, 0)
	raw("keyctl", unix.SYS_KEYCTL, ^uintptr(0))
	raw("perf_event_open", unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0)
	raw("userfaultfd", unix.SYS_USERFAULTFD, ^uintptr(0))
	raw("init_module", unix.SYS_INIT_MODULE, 0, 0, 0)
	raw("setuid", unix.SYS_SETUID, uintptr(os.Getuid()))
	raw("TIOCSTI", unix.SYS_IOCTL, ^uintptr(0), unix.TIOCSTI)
	raw("another ioctl", unix.SYS_IOCTL, ^uintptr(0), unix.TIOCGWINSZ)
	var limit unix.Rlimit
	note("limits of another read", unix.Prlimit(a.Victim, unix.RLIMIT_NOFILE, nil, &limit))
	note("limits of another", unix.Prlimit(a.Victim, unix.RLIMIT_NOFILE, &limit, nil))
	note("limits", unix.Prlimit(0, unix.RLIMIT_CORE, nil, &limit))
	note("own limits", unix.Prlimit(0, unix.RLIMIT_CORE, &limit, nil))
	note("signal outside", unix.Kill(a.Victim, 0))
	note("signal self", unix.Kill(os.Getpid(), 0))

	socket := func(what string, family, kind int) {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		note(what, err)
	}
	socket("packet socket", unix.AF_PACKET, unix.SOCK_RAW)
	socket("vsock socket", unix.AF_VSOCK, unix.SOCK_STREAM)
	socket("raw socket", unix.AF_INET, unix.SOCK_RAW)
	socket("raw socket 6", unix.AF_INET6, unix.SOCK_RAW)
	socket("packet socket by its first name", unix.AF_INET, unix.SOCK_PACKET)
	socket("udp socket", unix.AF_INET, unix.SOCK_DGRAM)
	socket("tcp socket 6", unix.AF_INET6, unix.SOCK_STREAM)
	socket("netlink socket", unix.AF_NETLINK, unix.SOCK_RAW)
	dial := func(what, network, address string) {
		conn, err := net.DialTimeout(network, address, 10*time.Second)
		if err == nil {
			conn.Close()
		}
		note(what, err)
	}
	dial("connect to a port", "tcp", fmt.Sprintf("127.0.0.1:%d", a.Ports[0]))
	dial("connect to another port", "tcp", fmt.Sprintf("127.0.0.1:%d", a.Ports[1]))
	dial("connect to an abstract socket", "unix", a.Socket)
	dial("connect to a socket with a path", "unix", a.Path)
	if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		note("socket with a path outside", unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(a.Outside, "bound")}))
		unix.Close(fd)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	note("tcp socket", err)
	note("bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	note("listen", unix.Listen(fd, 1))
	unix.Close(fd)
	// A segment with data and SYN connects without connect(2).
	fd, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	note("fast open to another port", unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN,
		&unix.SockaddrInet4{Port: int(a.Ports[1]), Addr: [4]byte{127, 0, 0, 1}}))
	unix.Close(fd)
	fd, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	note("fast open by sendmsg", unix.Sendmsg(fd, []byte("x"), nil,
		&unix.SockaddrInet4{Port: int(a.Ports[1]), Addr: [4]byte{127, 0, 0, 1}}, unix.MSG_FASTOPEN))
	unix.Close(fd)
	more, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	note("socketpair", err)
	if err == nil {
		unix.Close(more[0])
		unix.Close(more[1])
	}
	note("send", unix.Sendto(a.Pair[0], []byte("x"), unix.MSG_DONTWAIT, nil))
	note("sendmsg", unix.Sendmsg(a.Pair[0], []byte("x"), nil, nil, unix.MSG_DONTWAIT))
	protocol := func(what string, kind, protocol int) {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, protocol)
		if err == nil {
			unix.Close(fd)
		}
		note(what, err)
	}
	protocol("mptcp socket", unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	protocol("sctp socket", unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP)
	protocol("tcp socket by number", unix.SOCK_STREAM, unix.IPPROTO_TCP)
	return errs
}

// stage makes what an attempt needs.
func stage(t *testing.T) attempt {
	t.Helper()
	dir := t.TempDir()
	a := attempt{Inside: filepath.Join(dir, "in"), Outside: filepath.Join(dir, "out")}
	for _, name := range []string{a.Inside, a.Outside} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(a.Outside, "kept"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(a.Outside, filepath.Join(a.Inside, "out")); err != nil {
		t.Fatal(err)
	}
	for i := range a.Ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		a.Ports[i] = uint16(ln.Addr().(*net.TCPAddr).Port)
	}
	a.Socket = "@imagelab-test-" + fmt.Sprint(a.Ports[0])
	a.Path = filepath.Join(a.Outside, "s")
	for _, name := range []string{a.Socket, a.Path} {
		ln, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		// One variable for both would leave the first to the garbage collector, which closes it.
		t.Cleanup(func() { ln.Close() })
	}
	a.Victim = os.Getpid()
	return a
}

// run has a process of its own try it.
func (a attempt) run(t *testing.T) outcome {
	t.Helper()
	policy, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asConfined+"="+string(policy))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("the confined process: %v, %s", err, stdout)
	}
	var out outcome
	if err := json.Unmarshal(stdout, &out); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	return out
}

// wants compares with what each attempt should give.
func (o outcome) wants(t *testing.T, want map[string]syscall.Errno) {
	t.Helper()
	for what, errno := range want {
		got, tried := o.Errors[what]
		if !tried || got != errno {
			t.Errorf("%s = %d (%v), want %d (%v)", what, got, got, errno, errno)
		}
	}
}

// whole skips where the kernel, or a profile around the test, does not have all of it.
func whole(t *testing.T) {
	t.Helper()
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < scopeABI {
		t.Skipf("kernel: Landlock ABI %d, %v", abi, err)
	}
	if architecture == 0 {
		t.Skip("no filter for this architecture")
	}
}

const (
	ok       = syscall.Errno(0)
	denied   = syscall.EACCES
	refusing = syscall.EPERM
)

// filesOutside is what a policy without them allows to be done to them.
var filesOutside = map[string]syscall.Errno{
	"write outside": denied, "write outside by a link": denied, "write outside by ..": denied, "create outside": denied,
	"write outside by the root": denied, "create outside without a name": denied,
	"link from outside": syscall.EXDEV, "rename from outside": denied, "for outside": ok,
	"link to outside": denied, "rename to outside": denied,
	"delete outside": denied, "mkdir outside": denied, "symlink outside": denied, "rename outside": denied,
	"stat outside": ok,
}

// filesOutsideAndIn is the same where no directory is the policy's.
var filesOutsideAndIn = map[string]syscall.Errno{
	"write outside": denied, "write outside by a link": denied, "create outside": denied, "write inside": denied,
}

func TestAServerIsConfined(t *testing.T) {
	t.Parallel()
	whole(t)
	a := stage(t)
	a.Policy = Policy{Write: []string{a.Inside, filepath.Join(a.Outside, "none")}, Connect: []uint16{a.Ports[0]}}
	out := a.run(t)
	if !slices.Equal(out.Report.Applied, Parts()) || len(out.Report.Refused) > 0 {
		t.Errorf("applied %v, refused %v, want %v and none", out.Report.Applied, out.Report.Refused, Parts())
	}
	if !slices.Equal(out.Report.Missing, []string{filepath.Join(a.Outside, "none")}) {
		t.Errorf("missing %v, want the path that does not exist", out.Report.Missing)
	}
	if out.Status != "NoNewPrivs:1 Seccomp:2 " {
		t.Errorf("threads have %q, want no_new_privs and the filter on each", out.Status)
	}
	out.wants(t, filesOutside)
	out.wants(t, map[string]syscall.Errno{
		"write inside": ok, "rename inside": ok, "delete inside": ok,
		"truncate outside": refusing, "chmod outside": refusing, "read outside": ok, "list outside": ok,
		"write outside by a descriptor": denied, "chmod outside by a descriptor": refusing,
		"chown outside by a descriptor": refusing, "utimes outside by a descriptor": refusing, "attributes outside": refusing,
		"pipe outside": refusing, "pipe inside": refusing, "character device inside": refusing, "block device inside": refusing,
		"limits of another read": ok, "limits of another": refusing, "limits": ok, "own limits": ok,
		"packet socket by its first name": refusing, "connect to a socket with a path": refusing,
		"execve": refusing, "execveat": refusing, "mount": refusing, "umount": refusing, "unshare": refusing,
		"clone with a namespace": refusing, "clone3": syscall.ENOSYS, "ptrace": refusing, "process_vm_readv": refusing,
		"bpf": refusing, "io_uring_setup": refusing, "keyctl": refusing, "perf_event_open": refusing,
		"userfaultfd": refusing, "init_module": refusing, "setuid": refusing,
		"TIOCSTI": refusing, "another ioctl": syscall.EBADF,
		"signal outside": refusing, "signal self": ok,
		"packet socket": refusing, "vsock socket": refusing, "raw socket": refusing, "raw socket 6": refusing,
		"udp socket": refusing, "tcp socket 6": ok, "netlink socket": ok,
		"connect to a port": ok, "connect to another port": denied, "connect to an abstract socket": refusing, "bind": denied, "listen": refusing,
		"fast open to another port": syscall.EOPNOTSUPP, "fast open by sendmsg": syscall.EOPNOTSUPP,
		"socketpair": refusing, "send": ok, "sendmsg": ok, "tcp socket": ok, "tcp socket by number": ok,
		"mptcp socket": syscall.EPROTONOSUPPORT, "sctp socket": syscall.EPROTONOSUPPORT,
	})

	// One that asks resolvers, and has its upstream at a path.
	a = stage(t)
	a.Policy = Policy{Write: []string{a.Inside}, UDP: true, Unix: true}
	a.run(t).wants(t, map[string]syscall.Errno{
		"udp socket": ok, "socketpair": ok, "connect to a socket with a path": ok, "connect to an abstract socket": refusing,
		"socket with a path outside": denied, "connect to a port": denied, "raw socket": refusing,
	})
}

// The path of a policy is the file that it names, and no link that has come since.
func TestLinksOfAPolicyLeadNowhere(t *testing.T) {
	t.Parallel()
	whole(t)
	a := stage(t)
	link := filepath.Join(a.Inside, "out")
	a.Policy = Policy{Write: []string{link, filepath.Join(link, "kept")}}
	out := a.run(t)
	if !slices.Equal(out.Report.Missing, a.Write) {
		t.Errorf("missing %v, want %v", out.Report.Missing, a.Write)
	}
	out.wants(t, filesOutsideAndIn)

	// Nor one that comes between the look at it and the rule.
	a = stage(t)
	a.Swap = true
	a.Policy = Policy{Write: []string{a.Inside}}
	out = a.run(t)
	if err := out.Report.Err(); err != nil {
		t.Errorf("refused: %v", err)
	}
	out.wants(t, filesOutside)
	out.wants(t, map[string]syscall.Errno{"write outside": denied, "create outside": denied, "write inside": ok})
}

func TestCallsAlone(t *testing.T) {
	t.Parallel()
	whole(t)
	a := stage(t)
	a.CallsOnly = true
	out := a.run(t)
	if err := out.Report.Err(); err != nil || out.Status != "NoNewPrivs:1 Seccomp:2 " {
		t.Errorf("refused: %v; threads have %q", err, out.Status)
	}
	out.wants(t, map[string]syscall.Errno{
		"execve": refusing, "ptrace": refusing, "mount": refusing, "packet socket": refusing, "chmod outside": refusing, "bpf": refusing,
		"write inside": ok, "write outside": ok, "create outside": ok, "signal outside": ok, "connect to another port": ok,
	})
}

// Where there is no Landlock, no_new_privs and the calls are given up on every thread all the same.
func TestWithoutLandlock(t *testing.T) {
	t.Parallel()
	whole(t)
	a := stage(t)
	a.NoLandlock = true
	out := a.run(t)
	if want := []Part{Privileges, Calls}; !slices.Equal(out.Report.Applied, want) || out.Status != "NoNewPrivs:1 Seccomp:2 " {
		t.Errorf("applied %v, and threads have %q, want %v on each", out.Report.Applied, out.Status, want)
	}
	out.wants(t, map[string]syscall.Errno{
		"execve": refusing, "mount": refusing, "packet socket": refusing, "chmod outside": refusing,
		"write inside": ok, "write outside": ok, "signal outside": ok,
	})
}

func TestReadsEndLater(t *testing.T) {
	t.Parallel()
	whole(t)
	a := stage(t)
	a.Policy = Policy{Write: []string{a.Inside}}
	a.Reads = []string{"/proc", a.Inside, filepath.Join(a.Outside, "none")}
	out := a.run(t)
	if err := out.Report.Err(); err != nil {
		t.Errorf("refused: %v", err)
	}
	out.wants(t, filesOutside)
	out.wants(t, map[string]syscall.Errno{
		"write inside": ok, "rename inside": ok, "delete inside": ok, "read outside": denied, "list outside": denied,
	})
}

func TestAProgramIsConfined(t *testing.T) {
	t.Parallel()
	whole(t)
	a := stage(t)
	a.Policy = Policy{Write: []string{a.Inside}, Execute: true, Bind: true, ConnectAny: true, UDP: true, Unix: true}
	out := a.run(t)
	if err := out.Report.Err(); err != nil || out.Report.Has(TCP) {
		t.Errorf("refused: %v; applied: %v, want all but tcp", err, out.Report.Applied)
	}
	out.wants(t, filesOutside)
	out.wants(t, map[string]syscall.Errno{
		"write inside": ok, "rename inside": ok, "delete inside": ok, "truncate outside": denied,
		"chmod outside": ok, "chmod outside by a descriptor": ok, // which is the documented gap
		"write outside by a descriptor": denied, "socket with a path outside": denied,
		"pipe outside": denied, "pipe inside": ok, "character device inside": denied, "block device inside": denied,
		"limits of another read": ok, "limits of another": refusing, "own limits": ok,
		"packet socket by its first name": refusing, "connect to a socket with a path": ok, "udp socket": ok, "socketpair": ok,
		"execve": denied, "execveat": syscall.ENOENT, "mount": refusing, "unshare": refusing, "ptrace": refusing,
		"clone with a namespace": refusing, "clone3": syscall.ENOSYS, "setuid": ok, "packet socket": refusing, "raw socket": refusing,
		"signal outside": refusing, "connect to a port": ok, "connect to another port": ok, "bind": ok, "listen": ok,
	})

	a.ConnectAny, a.Connect = false, []uint16{a.Ports[1]}
	a.run(t).wants(t, map[string]syscall.Errno{"connect to a port": denied, "connect to another port": ok, "bind": ok, "listen": ok,
		"mptcp socket": syscall.EPROTONOSUPPORT})
}

// recorded is a kernel that answers as one of a version does, and what it was asked for.
type recorded struct {
	abi, fixed        int
	landlock, seccomp error
	privileges, rule  error
	config            landlock.Config
	rules             int
	filters           int
}

func (k *recorded) kernel() kernel {
	return kernel{
		landlock: func() (int, int, error) { return k.abi, k.fixed, k.landlock },
		restrict: func(c landlock.Config, rules []landlock.Rule) error {
			k.config, k.rules = c, len(rules)
			return k.rule
		},
		lock: func() error { return k.privileges },
		filter: func([]unix.SockFilter) error {
			k.filters++
			return k.seccomp
		},
	}
}

func TestOlderKernels(t *testing.T) {
	t.Parallel()
	const none = "the kernel has none of it"
	const profile = "a seccomp profile around the process refuses it"
	files := func(more ...uint64) landlock.AccessFSSet {
		rights := uint64(1<<13 - 1) // of ABI 1
		for _, r := range more {
			rights |= r
		}
		return landlock.AccessFSSet(rights) &^ read
	}
	for _, test := range []struct {
		name    string
		kernel  recorded
		applied []Part
		refused map[Part]string // and what the reason has in it
		fs      landlock.AccessFSSet
		net     landlock.AccessNetSet
		scoped  landlock.ScopedSet
	}{
		{name: "Linux 5.10, without Landlock", kernel: recorded{landlock: unix.ENOSYS},
			applied: []Part{Privileges, Calls}, refused: map[Part]string{Files: none, Devices: none, TCP: none, Others: none}},
		{name: "switched off at boot", kernel: recorded{landlock: unix.EOPNOTSUPP},
			applied: []Part{Privileges, Calls}, refused: map[Part]string{Files: none, Devices: none, TCP: none, Others: none}},
		{name: "an outer profile", kernel: recorded{landlock: unix.EPERM, seccomp: unix.EPERM},
			applied: []Part{Privileges}, refused: map[Part]string{Files: profile, Devices: profile, TCP: profile, Others: profile, Calls: profile}},
		{name: "a kernel without seccomp, or a profile that refuses all of it",
			kernel:  recorded{landlock: unix.ENOSYS, seccomp: unix.EINVAL, privileges: unix.EPERM},
			refused: map[Part]string{Privileges: profile, Files: none, Devices: none, TCP: none, Others: none, Calls: "invalid argument"}},
		{name: "an outer profile that refuses seccomp alone", kernel: recorded{abi: 7, fixed: 3, seccomp: unix.EPERM},
			applied: []Part{Privileges, Files, Devices, TCP, Others}, refused: map[Part]string{Calls: profile},
			fs: files(ll.AccessFSRefer, ll.AccessFSTruncate, ll.AccessFSIoctlDev), net: 3, scoped: 3},
		{name: "16 rule sets already", kernel: recorded{abi: 1, rule: unix.E2BIG}, applied: []Part{Privileges, Calls},
			refused: map[Part]string{Files: "argument list too long", Devices: "6.10", TCP: "6.7", Others: "6.12"}, fs: files()},
		{name: "16 rule sets already, and a profile", kernel: recorded{abi: 1, rule: unix.E2BIG, privileges: unix.EPERM}, applied: []Part{Calls},
			refused: map[Part]string{Privileges: profile, Files: "argument list too long", Devices: "6.10", TCP: "6.7", Others: "6.12"}, fs: files()},
		{name: "Linux 5.15", kernel: recorded{abi: 1}, applied: []Part{Privileges, Files, Calls},
			refused: map[Part]string{Devices: "Linux 6.10", TCP: "Linux 6.7", Others: "Linux 6.12"}, fs: files()},
		{name: "Linux 6.1", kernel: recorded{abi: 2}, applied: []Part{Privileges, Files, Calls},
			refused: map[Part]string{Devices: "6.10", TCP: "has ABI 2", Others: "6.12"}, fs: files(ll.AccessFSRefer)},
		{name: "Linux 6.6", kernel: recorded{abi: 3}, applied: []Part{Privileges, Files, Calls},
			refused: map[Part]string{Devices: "6.10", TCP: "6.7", Others: "6.12"}, fs: files(ll.AccessFSRefer, ll.AccessFSTruncate)},
		{name: "Linux 6.8", kernel: recorded{abi: 4}, applied: []Part{Privileges, Files, TCP, Calls},
			refused: map[Part]string{Devices: "6.10", Others: "6.12"}, fs: files(ll.AccessFSRefer, ll.AccessFSTruncate), net: 3},
		{name: "Linux 6.10", kernel: recorded{abi: 5}, applied: []Part{Privileges, Files, Devices, TCP, Calls},
			refused: map[Part]string{Others: "6.12"}, fs: files(ll.AccessFSRefer, ll.AccessFSTruncate, ll.AccessFSIoctlDev), net: 3},
		{name: "Linux 6.12.0, with its erratum", kernel: recorded{abi: 6}, applied: []Part{Privileges, Files, Devices, TCP, Calls},
			refused: map[Part]string{Others: "erratum 2"}, fs: files(ll.AccessFSRefer, ll.AccessFSTruncate, ll.AccessFSIoctlDev), net: 3},
		{name: "Linux 6.12 of later", kernel: recorded{abi: 6, fixed: 3}, applied: Parts(),
			fs: files(ll.AccessFSRefer, ll.AccessFSTruncate, ll.AccessFSIoctlDev), net: 3, scoped: 3},
		{name: "Linux 6.15", kernel: recorded{abi: 7, fixed: 3}, applied: Parts(),
			fs: files(ll.AccessFSRefer, ll.AccessFSTruncate, ll.AccessFSIoctlDev), net: 3, scoped: 3},
		{name: "one that is to come", kernel: recorded{abi: 99, fixed: 3}, applied: Parts(),
			fs: files(ll.AccessFSRefer, ll.AccessFSTruncate, ll.AccessFSIoctlDev), net: 3, scoped: 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := test.kernel
			r := confine(k.kernel(), Policy{Write: []string{t.TempDir()}, Connect: []uint16{53}})
			if architecture == 0 {
				t.Skip("no filter for this architecture")
			}
			if !slices.Equal(r.Applied, test.applied) {
				t.Errorf("applied %v, want %v", r.Applied, test.applied)
			}
			if len(r.Refused) != len(test.refused) {
				t.Errorf("refused %v, want %v", r.Refused, test.refused)
			}
			for _, refused := range r.Refused {
				if want, known := test.refused[refused.Part]; !known || !strings.Contains(refused.Reason, want) {
					t.Errorf("refused %v, want %q", refused, want)
				}
			}
			if (r.Err() == nil) != (len(test.refused) == 0) {
				t.Errorf("Err() = %v with %v refused", r.Err(), test.refused)
			}
			if got := k.config; got.HandledAccessFS != test.fs || got.HandledAccessNet != test.net || got.Scoped != test.scoped {
				t.Errorf("asked Landlock for %v, want %v, %v, %v", got, test.fs, test.net, test.scoped)
			}
			if k.filters != 1 {
				t.Errorf("%d filters, want 1", k.filters)
			}
		})
	}
}

// A program's files can be cut by name before ABI 3, and by a server's they cannot, as its filter refuses the call.
func TestTruncateOfAProgramOnOlderKernels(t *testing.T) {
	t.Parallel()
	for abi, want := range map[int]bool{1: true, 2: true, 3: false, 7: false} {
		for _, programs := range []bool{true, false} {
			k := recorded{abi: abi, fixed: 3}
			r := confine(k.kernel(), Policy{Execute: programs})
			got := slices.ContainsFunc(r.Refused, func(f Refusal) bool { return strings.Contains(f.Reason, "truncate(2)") })
			if got != (want && programs) {
				t.Errorf("ABI %d, programs %v: refused %v", abi, programs, r.Refused)
			}
		}
	}
}

// What is refused to a program is for the machine's audit log, where the kernel has such messages; what a server
// is refused it notices itself.
func TestRefusalsOfAProgramAreLogged(t *testing.T) {
	t.Parallel()
	for abi, logs := range map[int]bool{6: false, 7: true, 8: true} {
		for _, programs := range []bool{true, false} {
			k := recorded{abi: abi, fixed: 3}
			confine(k.kernel(), Policy{Execute: programs})
			if got := reflect.DeepEqual(k.config, k.config.EnableLoggingForSubprocesses()); got != (logs && programs) {
				t.Errorf("ABI %d, programs %v: logged is %v", abi, programs, got)
			}
		}
	}
}

func TestReadsWithoutLandlock(t *testing.T) {
	t.Parallel()
	k := recorded{landlock: unix.ENOSYS}
	if err := confineReads(k.kernel(), []string{"/proc"}); !errors.Is(err, unix.ENOSYS) {
		t.Errorf("ConfineReads = %v, want ENOSYS", err)
	}
}
