package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A call is what the kernel shows a filter (struct seccomp_data).
type call struct {
	number, arch uint32
	args         [6]uint64
}

// word is what a filter loads from an offset.
func (c call) word(offset uint32) (uint32, error) {
	at, half := (offset-16)/8, offset%8/4
	switch {
	case offset == 0:
		return c.number, nil
	case offset == 4:
		return c.arch, nil
	case offset >= 16 && offset < 64 && offset%4 == 0:
		return uint32(c.args[at] >> (32 * half)), nil
	}
	return 0, fmt.Errorf("nothing is loaded from %d", offset)
}

// answer runs the program of a filter as the kernel does. It knows what filters here are made of and no more.
func answer(program []unix.SockFilter, c call) (uint32, error) {
	var a uint32
	for at := 0; at < len(program); at++ {
		i := program[at]
		jump := func(taken bool) {
			if taken {
				at += int(i.Jt)
			} else {
				at += int(i.Jf)
			}
		}
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			var err error
			if a, err = c.word(i.K); err != nil {
				return 0, fmt.Errorf("instruction %d: %w", at, err)
			}
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == i.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(a&i.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return i.K, nil
		default:
			return 0, fmt.Errorf("instruction %d: code %#x", at, i.Code)
		}
	}
	return 0, errors.New("the program has no end")
}

// numbersFile in the environment is the file with the numbers of the calls, for where there is no go command.
const numbersFile = "TEST_SANDBOX_NUMBERS"

// numbers are those of all calls of this architecture, as golang.org/x/sys has them.
func numbers(t *testing.T) map[string]uint32 {
	t.Helper()
	name := os.Getenv(numbersFile)
	if name == "" {
		name = numbersOf(t, runtime.GOARCH)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]uint32{}
	for _, match := range regexp.MustCompile(`(?m)^\tSYS_(\w+) += (\d+)$`).FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseUint(match[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		calls[strings.ToLower(match[1])] = uint32(n)
	}
	if len(calls) < 300 {
		t.Fatalf("%s has %d calls", name, len(calls))
	}
	return calls
}

func numbersOf(t *testing.T, arch string) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go")
}

// The names of what is refused, whatever the arguments. Where an architecture has no such call there is nothing to
// refuse.
const (
	refusedNames = `mount umount2 pivot_root unshare setns open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick
		mount_setattr open_by_handle_at quotactl quotactl_fd swapon swapoff acct
		ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
		init_module finit_module delete_module create_module query_module get_kernel_syms bpf kexec_load kexec_file_load reboot
		add_key request_key keyctl perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register fanotify_init
		move_pages vhangup syslog settimeofday clock_settime sethostname setdomainname
		iopl ioperm uselib ustat _sysctl nfsservctl`
	refusedToServersNames = `execve execveat fork vfork listen chroot personality memfd_create modify_ldt
		setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset
		truncate chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
		setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat file_setattr
		mknod mknodat mq_open mq_unlink shmget msgget semget
		adjtimex clock_adjtime setpriority ioprio_set
		sched_setaffinity sched_setattr sched_setparam sched_setscheduler`
)

// What a filter answers, in a letter.
var letters = map[uint32]string{allow: "a", refuse: "r", absent: "n", unsupported: "u", closed: "c"}

// The policies that are in use: servers, of which one has to find names and an upstream's Unix socket, and commands, of
// which one may connect to some ports alone.
var policies = []Policy{
	{Connect: []uint16{9000}},
	{Connect: []uint16{53, 9000}, UDP: true, Unix: true},
	{Execute: true, Bind: true, ConnectAny: true, UDP: true, Unix: true},
	{Execute: true, Bind: true, Connect: []uint16{5432}, UDP: true, Unix: true},
}

// answers are those of the filters of all policies, a letter each.
func answers(t *testing.T, c call) string {
	t.Helper()
	var all string
	for _, p := range policies {
		program, err := filter(p)
		if err != nil {
			t.Fatal(err)
		}
		action, err := answer(program, c)
		letter := letters[action]
		if err != nil || letter == "" {
			t.Fatalf("%+v: %#x, %v", c, action, err)
		}
		all += letter
	}
	return all
}

// Every number that there is, and those that may come.
func TestFilterOfEveryCall(t *testing.T) {
	t.Parallel()
	if architecture == 0 {
		t.Skip("kernel: no filter for this architecture")
	}
	want := map[uint32]string{}
	calls := numbers(t)
	expect := func(names, answers string) {
		for name := range strings.FieldsSeq(names) {
			if number, there := calls[name]; there {
				want[number] = answers
			}
		}
	}
	expect(refusedNames, "rrrr")
	expect(refusedToServersNames, "rraa")
	expect("clone3", "nnnn")
	expect("socketpair", "raaa")
	expect("socket", "rrrr") // of no family
	names := map[uint32]string{}
	for name, number := range calls {
		names[number] = name
	}
	for number := range uint32(1024) {
		expected := want[number]
		if expected == "" {
			expected = "aaaa"
		}
		if got := answers(t, call{number: number, arch: architecture}); got != expected {
			t.Errorf("%s (%d): %s, want %s", names[number], number, got, expected)
		}
		// In the numbers of another architecture, and of x32, it is another call.
		for _, arch := range []uint32{
			0, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_AARCH64,
		} {
			if arch == architecture {
				continue
			}
			if got := answers(t, call{number: number, arch: arch}); got != "rrrr" {
				t.Errorf("%d of architecture %#x: %s, want rrrr", number, arch, got)
			}
		}
		if architecture == unix.AUDIT_ARCH_X86_64 {
			if got := answers(t, call{number: number | 0x40000000, arch: architecture}); got != "rrrr" {
				t.Errorf("%d of x32: %s, want rrrr", number, got)
			}
		}
	}
}

func TestFilterOfArguments(t *testing.T) {
	t.Parallel()
	if architecture == 0 {
		t.Skip("kernel: no filter for this architecture")
	}
	calls := numbers(t)
	const above = 1 << 32 // is not looked at by a call that takes an int
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	for _, test := range []struct {
		call string
		args [6]uint64
		want string
	}{
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_STREAM}, "aaaa"},
		{"socket", [6]uint64{unix.AF_INET6, unix.SOCK_STREAM | flags}, "aaaa"},
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}, "aaaa"},
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_STREAM | flags, unix.IPPROTO_MPTCP}, "uuau"},
		{"socket", [6]uint64{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, "uuau"},
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP}, "uuau"},
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_DGRAM | flags}, "raaa"},
		{"socket", [6]uint64{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, "raaa"},
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, "rrrr"},
		{"socket", [6]uint64{unix.AF_INET6, unix.SOCK_RAW | flags, unix.IPPROTO_RAW}, "rrrr"},
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_PACKET | flags}, "rrrr"},
		{"socket", [6]uint64{above | unix.AF_PACKET, unix.SOCK_RAW}, "rrrr"},
		{"socket", [6]uint64{above | unix.AF_INET, above | unix.SOCK_RAW}, "rrrr"},
		{"socket", [6]uint64{unix.AF_PACKET, unix.SOCK_DGRAM}, "rrrr"},
		{"socket", [6]uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, "rrrr"},
		{"socket", [6]uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}, "rrrr"},
		{"socket", [6]uint64{unix.AF_BLUETOOTH, unix.SOCK_RAW}, "rrrr"},
		{"socket", [6]uint64{unix.AF_XDP, unix.SOCK_RAW}, "rrrr"},
		{"socket", [6]uint64{unix.AF_KEY, unix.SOCK_RAW}, "rrrr"},
		{"socket", [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM | flags}, "raaa"},
		{"socket", [6]uint64{unix.AF_UNIX, unix.SOCK_DGRAM}, "raaa"},
		{"socket", [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, "aaaa"},
		{"socket", [6]uint64{unix.AF_NETLINK, unix.SOCK_DGRAM | flags, unix.NETLINK_SOCK_DIAG}, "aaaa"},
		{"socket", [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, "rraa"},
		{"clone", [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}, "aaaa"},
		{"clone", [6]uint64{unix.CLONE_NEWUSER}, "rrrr"},
		{"clone", [6]uint64{unix.CLONE_NEWNS | unix.CLONE_VM}, "rrrr"},
		{"clone", [6]uint64{unix.CLONE_NEWNET | above}, "rrrr"},
		{"clone", [6]uint64{unix.CLONE_NEWPID}, "rrrr"},
		{"clone", [6]uint64{unix.CLONE_NEWIPC}, "rrrr"},
		{"clone", [6]uint64{unix.CLONE_NEWUTS}, "rrrr"},
		{"clone", [6]uint64{unix.CLONE_NEWCGROUP}, "rrrr"},
		{"ioctl", [6]uint64{0, unix.TIOCGWINSZ}, "aaaa"},
		{"ioctl", [6]uint64{0, unix.SIOCOUTQ}, "aaaa"},
		{"ioctl", [6]uint64{0, unix.TIOCSTI}, "rrrr"},
		{"ioctl", [6]uint64{0, above | unix.TIOCSTI}, "rrrr"},
		{"ioctl", [6]uint64{0, unix.TIOCLINUX}, "rrrr"},
		{"ioctl", [6]uint64{0, unix.FS_IOC_SETFLAGS}, "rraa"},
		{"ioctl", [6]uint64{0, unix.FICLONE}, "rraa"},
		{"ioctl", [6]uint64{0, 0x401c5820}, "rraa"}, // FS_IOC_FSSETXATTR
		{"prlimit64", [6]uint64{0, unix.RLIMIT_NOFILE, 1}, "aaaa"},
		{"prlimit64", [6]uint64{1, unix.RLIMIT_NOFILE, 0, 1}, "aaaa"},
		{"prlimit64", [6]uint64{1, unix.RLIMIT_CPU, 1}, "rrrr"},
		{"prlimit64", [6]uint64{1, unix.RLIMIT_CPU, above}, "rrrr"},
		{"prlimit64", [6]uint64{above | 1, unix.RLIMIT_CPU, 1}, "rrrr"},
		{"prlimit64", [6]uint64{above, unix.RLIMIT_CPU, 1}, "aaaa"}, // of itself
		{"sendto", [6]uint64{0, 0, 0, unix.MSG_NOSIGNAL}, "aaaa"},
		{"sendto", [6]uint64{0, 0, 0, unix.MSG_NOSIGNAL | unix.MSG_FASTOPEN}, "ccac"},
		{"sendmmsg", [6]uint64{0, 0, 0, unix.MSG_FASTOPEN}, "ccac"},
		{"sendmsg", [6]uint64{0, 0, unix.MSG_FASTOPEN}, "ccac"},
		{"sendmsg", [6]uint64{0, 0, unix.MSG_NOSIGNAL, unix.MSG_FASTOPEN}, "aaaa"},
	} {
		number, there := calls[test.call]
		if !there {
			t.Fatalf("no call %s", test.call)
		}
		if got := answers(t, call{number: number, arch: architecture, args: test.args}); got != test.want {
			t.Errorf("%s(%#x): %s, want %s", test.call, test.args, got, test.want)
		}
	}
}

// A filter is nothing but a computation, so that an emulator shows what that of the other architecture answers.
func TestFilterOfTheOtherArchitecture(t *testing.T) {
	t.Parallel()
	if os.Getenv(numbersFile) != "" {
		t.Skip("kernel: this is the other architecture")
	}
	other := map[string][2]string{
		"amd64": {"arm64", "qemu-aarch64-static"}, "arm64": {"amd64", "qemu-x86_64-static"},
	}[runtime.GOARCH]
	emulator, err := exec.LookPath(other[1])
	if err != nil {
		t.Skipf("no emulator: apt-get install qemu-user-static")
	}
	binary := filepath.Join(t.TempDir(), "sandbox.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "GOARCH="+other[0], "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), emulator, binary, "-test.v", "-test.run", "^TestFilterOf(EveryCall|Arguments)$")
	cmd.Env = append(os.Environ(), numbersFile+"="+numbersOf(t, other[0]))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 2 {
		t.Errorf("%s: %v\n%s", other[0], err, out)
	}
}
