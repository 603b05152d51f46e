package drain

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// smallBuffer makes a client whose kernel takes little that nobody reads.
func smallBuffer(_, _ string, c syscall.RawConn) error {
	var err error
	_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	return err
}
