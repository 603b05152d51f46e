package sandbox

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the filter finds things in struct seccomp_data (seccomp(2)). Arguments have 64 bits, of which the calls that are
// looked into take the lower half, which comes first on both architectures.
const (
	atNumber = 0
	atArch   = 4
	atArg0   = 16
	atArg1   = 24
	atArg2   = 32
	atArg3   = 40
	// upperHalf is from the lower half of an argument to the upper one.
	upperHalf = 4
)

// newNamespaces are the flags of clone(2) for a namespace.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

const (
	allow  = unix.SECCOMP_RET_ALLOW
	refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	// absent makes libraries fall back to a call whose arguments can be seen.
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	// unsupported and closed make them fall back to TCP, and to connect(2).
	unsupported = unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)
	closed      = unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)
)

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func end(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// when goes on with the next instruction if what was loaded compares so with value, and else skips others.
func when(compare uint16, value uint32, others uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | compare | unix.BPF_K, K: value, Jf: others}
}

// unless goes on with the next instruction if what was loaded does not compare so with value, and else skips others.
func unless(compare uint16, value uint32, others uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | compare | unix.BPF_K, K: value, Jt: others}
}

// filter makes the program of the filter. It is written here, and not by a library, because the one that is kept
// (github.com/elastic/go-seccomp-bpf) has the names of all calls of all architectures in maps, which cost every start
// of the program 0.2 ms and 165 kB, and the binary 1.1 %.
func filter(p Policy) ([]unix.SockFilter, error) {
	if architecture == 0 {
		return nil, fmt.Errorf("there is no list of calls for %s", runtime.GOARCH)
	}
	// Calls of another architecture have other numbers: of 32 bits on a machine of 64.
	f := []unix.SockFilter{load(atArch), unless(unix.BPF_JEQ, architecture, 1), end(refuse), load(atNumber)}
	if otherCalls != 0 {
		f = append(f, when(unix.BPF_JSET, otherCalls, 1), end(refuse))
	}
	lists := [][]uint32{refused, refusedHere}
	if !p.Execute {
		lists = append(lists, refusedToServers, refusedToServersHere)
	}
	if !p.Unix {
		lists = append(lists, []uint32{unix.SYS_SOCKETPAIR}) // they are Unix sockets, which can be connected anew
	}
	for _, list := range lists {
		for _, call := range list {
			f = append(f, when(unix.BPF_JEQ, call, 1), end(refuse))
		}
	}
	f = append(f,
		when(unix.BPF_JEQ, unix.SYS_CLONE3, 1), end(absent),
		when(unix.BPF_JEQ, unix.SYS_CLONE, 4), load(atArg0), when(unix.BPF_JSET, newNamespaces, 1), end(refuse), end(allow),
		// Limits of another process end it, such as one of processor time. To read them is allowed.
		when(unix.BPF_JEQ, unix.SYS_PRLIMIT64, 8), load(atArg0), unless(unix.BPF_JEQ, 0, 5),
		load(atArg2), when(unix.BPF_JEQ, 0, 2), load(atArg2+upperHalf), unless(unix.BPF_JEQ, 0, 1), end(refuse), end(allow),
	)
	f = append(f, ioctls(p)...)
	if !p.ConnectAny {
		// TCP Fast Open connects with the first bytes, unseen by Landlock.
		f = append(f,
			when(unix.BPF_JEQ, unix.SYS_SENDMSG, 4), load(atArg2), when(unix.BPF_JSET, unix.MSG_FASTOPEN, 1), end(closed), end(allow),
			unless(unix.BPF_JEQ, unix.SYS_SENDTO, 1), when(unix.BPF_JEQ, unix.SYS_SENDMMSG, 4),
			load(atArg3), when(unix.BPF_JSET, unix.MSG_FASTOPEN, 1), end(closed), end(allow),
		)
	}
	return append(f, sockets(p)...), nil
}

// ioctls is the part of the filter for ioctl(2).
func ioctls(p Policy) []unix.SockFilter {
	// What is typed at a terminal can be put there by ioctl, and would be read by the shell that has started this.
	f := []unix.SockFilter{
		load(atArg1), when(unix.BPF_JEQ, unix.TIOCSTI, 1), end(refuse), when(unix.BPF_JEQ, unix.TIOCLINUX, 1), end(refuse),
	}
	if !p.Execute {
		// File systems change attributes, and some of them files, for whoever has opened one for reading.
		f = append(f, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xff00})
		for _, kind := range []uint32{'f', 'X', 0x94} { // of most of them, of XFS and all, and of Btrfs
			f = append(f, when(unix.BPF_JEQ, kind<<8, 1), end(refuse))
		}
	}
	f = append(f, end(allow))
	return append([]unix.SockFilter{when(unix.BPF_JEQ, unix.SYS_IOCTL, uint8(len(f)))}, f...)
}

// sockets is the last part of the filter, for socket(2): sockets of the machine, for questions to the kernel, and of
// the Internet, but raw ones.
func sockets(p Policy) []unix.SockFilter {
	f := []unix.SockFilter{unless(unix.BPF_JEQ, unix.SYS_SOCKET, 1), end(allow), load(atArg0)}
	if p.Unix {
		f = append(f, when(unix.BPF_JEQ, unix.AF_UNIX, 1), end(allow))
	}
	if p.Execute {
		f = append(f, when(unix.BPF_JEQ, unix.AF_NETLINK, 1), end(allow))
	} else { // for the interfaces, and for connections under way
		f = append(f, when(unix.BPF_JEQ, unix.AF_NETLINK, 5), load(atArg2), unless(unix.BPF_JEQ, unix.NETLINK_ROUTE, 2),
			unless(unix.BPF_JEQ, unix.NETLINK_SOCK_DIAG, 1), end(refuse), end(allow))
	}
	f = append(f,
		unless(unix.BPF_JEQ, unix.AF_INET, 2), unless(unix.BPF_JEQ, unix.AF_INET6, 1), end(refuse),
		load(atArg1),
		unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf}, // without SOCK_CLOEXEC and SOCK_NONBLOCK
		when(unix.BPF_JEQ, unix.SOCK_RAW, 1), end(refuse),
		when(unix.BPF_JEQ, unix.SOCK_PACKET, 1), end(refuse), // as of AF_PACKET, by its first name
		when(unix.BPF_JEQ, unix.SOCK_DGRAM, 1), end(permit(p.UDP)),
	)
	if p.Bind && p.ConnectAny {
		return append(f, end(allow))
	}
	// The ports of Landlock are those of TCP, and not of MPTCP, SCTP and the like.
	return append(f,
		unless(unix.BPF_JEQ, unix.SOCK_STREAM, 1), end(unsupported),
		load(atArg2),
		unless(unix.BPF_JEQ, 0, 2), unless(unix.BPF_JEQ, unix.IPPROTO_TCP, 1), end(unsupported),
		end(allow),
	)
}

// permit is what becomes of a call that a policy allows or does not.
func permit(allowed bool) uint32 {
	if allowed {
		return allow
	}
	return refuse
}

// install makes every thread run under the filter, and what they start.
func install(program []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	set := func(flags uintptr) (uintptr, syscall.Errno) {
		thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		return thread, errno
	}
	// Without the second flag kernels before 5.16 slow the process down as if it ran code of strangers. Those before 4.17
	// do not know it.
	thread, errno := set(unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	if errno == unix.EINVAL {
		thread, errno = set(unix.SECCOMP_FILTER_FLAG_TSYNC)
	}
	runtime.KeepAlive(program)
	switch {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}
