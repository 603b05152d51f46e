package audit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Live returns the system that the process runs in.
func Live() *System {
	return &System{
		FS:             os.DirFS("/"),
		Stat:           fileStat,
		FileCapability: func(name string) (bool, error) { return fileCapability("/" + name) },
		Syscall:        hopelessSyscall,
		LandlockABI:    landlockABI,
		Sleep:          sleep,
		Now:            time.Now,
		PID:            os.Getpid(),
		EUID:           os.Geteuid(),
		Environ:        os.Environ(),
	}
}

// Detach makes the system the tree of files below dir, such as an unpacked image.
func (s *System) Detach(dir string) {
	s.FS, s.Detached = os.DirFS(dir), true
	s.FileCapability = func(name string) (bool, error) { return fileCapability(path.Join(dir, name)) }
}

func fileStat(info fs.FileInfo) (FileStat, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return FileStat{}, false
	}
	return FileStat{
		Dev: uint64(st.Dev), Ino: st.Ino, Nlink: uint64(st.Nlink),
		UID: int(st.Uid), GID: int(st.Gid),
		Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev)),
	}, true
}

func fileCapability(name string) (bool, error) {
	n, err := unix.Lgetxattr(name, "security.capability", nil)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return false, nil
	case err != nil:
		return false, err
	}
	return n > 0, nil
}

// hopelessSyscall makes a call that can only fail: each kernel looks at these
// arguments before it asks for a capability, so without a filter the error is
// never EPERM, whoever calls.
func hopelessSyscall(name string) error {
	const no = ^uintptr(0)
	var errno syscall.Errno
	switch name {
	case "clock_settime": // of a clock that does not exist
		_, _, errno = unix.Syscall(unix.SYS_CLOCK_SETTIME, 1000, 0, 0)
	case "kcmp": // of a kind that does not exist
		pid := uintptr(os.Getpid())
		_, _, errno = unix.Syscall6(unix.SYS_KCMP, pid, pid, 1000, 0, 0, 0)
	case "keyctl":
		_, _, errno = unix.Syscall(unix.SYS_KEYCTL, no, 0, 0)
	case "move_pages": // no page, with flags that do not exist
		_, _, errno = unix.Syscall6(unix.SYS_MOVE_PAGES, 0, 0, 0, 0, 0, 1<<20)
	case "perf_event_open":
		_, _, errno = unix.Syscall6(unix.SYS_PERF_EVENT_OPEN, 0, 0, no, no, no, 0)
	case "quotactl": // of a type that does not exist
		_, _, errno = unix.Syscall6(unix.SYS_QUOTACTL, 0xff, 0, 0, 0, 0, 0)
	case "set_mempolicy":
		_, _, errno = unix.Syscall(unix.SYS_SET_MEMPOLICY, 1000, 0, 0)
	case "swapon": // of nothing, with flags that do not exist
		_, _, errno = unix.Syscall(unix.SYS_SWAPON, 0, 1<<30, 0)
	case "userfaultfd":
		_, _, errno = unix.Syscall(unix.SYS_USERFAULTFD, no, 0, 0)
	}
	if errno == 0 {
		return nil
	}
	return errno
}

// landlockABI asks for the version as landlock_create_ruleset(2) describes it.
func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return int(abi), nil
	case unix.ENOSYS, unix.EOPNOTSUPP: // not built in, not enabled at boot
		return 0, nil
	}
	return 0, errno
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
