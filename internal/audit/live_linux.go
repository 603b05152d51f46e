package audit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Live returns the system that the process runs in.
func Live() *System {
	return &System{
		FS:             os.DirFS("/"),
		Stat:           fileStat,
		FileCapability: fileCapability,
		Keyctl:         keyctl,
		LandlockABI:    landlockABI,
		Sleep:          sleep,
		Now:            time.Now,
		PID:            os.Getpid(),
		EUID:           os.Geteuid(),
		Environ:        os.Environ(),
	}
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
	n, err := unix.Lgetxattr("/"+name, "security.capability", nil)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return false, nil
	case err != nil:
		return false, err
	}
	return n > 0, nil
}

func keyctl() error {
	_, err := unix.KeyctlInt(-1, 0, 0, 0, 0)
	return err
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
