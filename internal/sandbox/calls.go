package sandbox

import "golang.org/x/sys/unix"

// The filter refuses and allows the rest, and not the other way round: a new Go release may make calls that nobody has
// heard of yet, and must not end for it. What is refused was found from the other end, as what a server can be made to
// do that it never does by itself.
//
// That none of it is needed was seen by tracing the tests, and so it is seen again for a new Go release, or new code:
//
//	mkdir calls
//	export TEST_BENEATH="strace -D -ff --seccomp-bpf -o $PWD/calls/of -e trace=!read,write,futex,epoll_pwait,nanosleep"
//	IMAGELAB_SANDBOX=off go test -count=1 . # each imagelab and what it starts; -run for some
//	cut -d'(' -f1 calls/of.* | sort | uniq -c
//
// Of the names in the lists there are those that the audit tries before the sandbox is closed, to judge the profile
// around it, execve and listen, which come before as well, and what commands do and the tests around them, such as
// gunicorn's fchmod: grep -l NAME calls/of.* says by which process. And the same tests pass with
// IMAGELAB_SANDBOX=require and IMAGELAB_SANDBOX_COMMAND=on,/tmp.

// refused are the calls that neither a server nor a program that it starts has a use for: they change the machine or
// the container, look into other processes, or are where most holes of the kernel were found.
var refused = []uint32{
	// Mounts and namespaces. clone and clone3 are seen to by filter.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_OPEN_TREE,
	unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_OPEN_TREE_ATTR, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SWAPON,
	unix.SYS_SWAPOFF, unix.SYS_ACCT,
	// Other processes.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP,
	unix.SYS_PIDFD_GETFD,
	// Code in the kernel, and another kernel.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_BPF, unix.SYS_KEXEC_LOAD,
	unix.SYS_REBOOT,
	// Keyrings, and what is seldom used and often broken.
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_FANOTIFY_INIT,
	unix.SYS_MOVE_PAGES, unix.SYS_VHANGUP, unix.SYS_SYSLOG,
	// The clock and the name of the machine.
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
}

// refusedToServers are calls that many programs make, when they start others or get ready, and a server that starts
// none and has its listeners never does. listen(2) of a socket without a port takes a free one, unseen by Landlock.
var refusedToServers = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_LISTEN, unix.SYS_CHROOT, unix.SYS_PERSONALITY, unix.SYS_MEMFD_CREATE,
	// Another user, group or set of capabilities.
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_SETGROUPS, unix.SYS_CAPSET,
	// What Landlock leaves open of files that are not the policy's: to change all but their content, be it by a
	// descriptor for reading, and, before ABI 3, to cut them by name.
	unix.SYS_TRUNCATE, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT,
	unix.SYS_UTIMENSAT, unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT, unix.SYS_FILE_SETATTR,
	// Files that are none: pipes and sockets with names, and what the kernel keeps for whoever knows a name.
	unix.SYS_MKNODAT, unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK, unix.SYS_SHMGET, unix.SYS_MSGGET, unix.SYS_SEMGET,
	// The clock, and the pace of other processes.
	unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET, unix.SYS_SCHED_SETAFFINITY,
	unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETSCHEDULER,
}
