package sandbox

import "golang.org/x/sys/unix"

const (
	architecture = unix.AUDIT_ARCH_AARCH64
	otherCalls   = 0 // there is one set of calls
)

// refusedHere and refusedToServersHere are what this architecture has beside the others.
var (
	refusedHere          = []uint32{unix.SYS_KEXEC_FILE_LOAD, unix.SYS_NFSSERVCTL}
	refusedToServersHere []uint32
)
