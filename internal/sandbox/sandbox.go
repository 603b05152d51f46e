package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// A Policy is what a process keeps. The zero value keeps next to nothing: it may read files, and use what is open.
type Policy struct {
	// Write has the directories below which files may be written, made, renamed and deleted, and single files that may be
	// written. What does not exist now cannot be written later, nor can what has a symbolic link in its path: the caller
	// says where links lead to, and nobody else can by putting one there.
	Write []string
	// Execute says whether other programs may be started.
	Execute bool
	// Bind says whether TCP ports may be bound.
	Bind bool
	// Connect has the TCP ports that may be connected to, of any address.
	Connect []uint16
	// ConnectAny says that all may be.
	ConnectAny bool
	// UDP says whether UDP may be spoken, with any port.
	UDP bool
	// Unix says whether there may be Unix sockets, which reach all that listen at a path.
	Unix bool
}

// A Part is one of the things that a process gives up.
type Part string

// The parts, in the order in which they are applied.
const (
	Privileges Part = "no_new_privs" // no program gives more rights than the process has
	Files      Part = "files"        // nothing is written or executed but what the policy says
	Devices    Part = "devices"      // ioctl(2) of device files that are opened from now on
	TCP        Part = "tcp"          // ports are bound and connected to as the policy says
	Others     Part = "others"       // no signals to other processes, nor their abstract Unix sockets
	Calls      Part = "calls"        // the seccomp filter
	Reads      Part = "reads"        // by ConfineReads
)

// Parts returns those that Confine applies where nothing is refused.
func Parts() []Part { return []Part{Privileges, Files, Devices, TCP, Others, Calls} }

// A Refusal is why a part was not applied.
type Refusal struct {
	Part   Part
	Reason string
}

// A Report is what became of a policy.
type Report struct {
	ABI     int // of Landlock; 0 is none
	Applied []Part
	Refused []Refusal
	Missing []string // paths of the policy that do not exist
}

// Has says whether the part was applied.
func (r Report) Has(p Part) bool { return slices.Contains(r.Applied, p) }

// Err names all that was refused, or is nil.
func (r Report) Err() error {
	var errs []error
	for _, refused := range r.Refused {
		errs = append(errs, fmt.Errorf("%s: %s", refused.Part, refused.Reason))
	}
	return errors.Join(errs...)
}

func (r *Report) note(p Part, err error) {
	if err != nil {
		r.Refused = append(r.Refused, Refusal{p, err.Error()})
		return
	}
	r.Applied = append(r.Applied, p)
}

// Confine confines the process, as far as the kernel and an outer seccomp profile allow. It cannot be undone.
func Confine(p Policy) Report { return confine(thisKernel(), p) }

// ConfineCalls sets no_new_privs and the filter of a server alone. It is for a process that ends soon and may look into
// others: it takes microseconds, where Confine stops all threads for a moment.
func ConfineCalls() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The kernel sets it for the other threads when it gives them the filter.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return explain(err)
	}
	program, err := filter(Policy{UDP: true, Unix: true})
	if err != nil {
		return err
	}
	return explain(install(program))
}

// ConfineReads keeps the process from opening files for reading, and from listing directories, but at and below the
// paths. What does not exist now cannot be read later.
func ConfineReads(paths []string) error { return confineReads(thisKernel(), paths) }

// kernel is what the package asks of the kernel.
type kernel struct {
	// landlock returns the ABI, and the errata that are fixed: bit n-1 is erratum n.
	landlock func() (abi int, fixed int, err error)
	restrict func(landlock.Config, []landlock.Rule) error
	lock     func() error                  // no_new_privs
	filter   func([]unix.SockFilter) error // seccomp
}

func thisKernel() kernel {
	return kernel{
		landlock: func() (abi, fixed int, err error) {
			if abi, err = ll.LandlockGetABIVersion(); err == nil && abi >= scopeABI {
				fixed, _ = ll.LandlockGetErrata() // before there was such a question, none was fixed
			}
			return abi, fixed, err
		},
		restrict: func(c landlock.Config, rules []landlock.Rule) error { return c.Restrict(rules...) },
		lock:     noNewPrivileges,
		filter:   install,
	}
}

// noNewPrivileges sets no_new_privs for every thread.
func noNewPrivileges() error {
	_, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func confine(k kernel, p Policy) Report {
	var r Report
	abi, fixed, err := k.landlock()
	if err == nil {
		r.ABI = abi
		confineByLandlock(k, p, fixed, &r)
	} else {
		r.note(Privileges, explain(k.lock()))
		for _, part := range []Part{Files, Devices, TCP, Others} {
			r.note(part, explain(err))
		}
	}
	program, err := filter(p)
	if err == nil {
		err = explain(k.filter(program))
	}
	r.note(Calls, err)
	return r
}

// explain says what an errno means here.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the kernel has none of it, or has it switched off: %w", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("a seccomp profile around the process refuses it: %w", err)
	}
	return err
}

// What each ABI has brought (landlock(7), "Landlock ABI versions").
const (
	truncateABI = 3
	netABI      = 4
	ioctlABI    = 5
	scopeABI    = 6
	logABI      = 7
	// signalErratum is fixed where threads of one process may signal each other, whatever their domains. The Go runtime
	// does that all the time, and before ABI 8 every thread has a domain of its own.
	signalErratum = 1 << (2 - 1)
)

// Rights to files that are given up, but for those of the policy. Reading is ConfineReads's, and connecting to Unix
// sockets by path is left alone.
const (
	changeFile = ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev
	change     = changeFile | ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeChar | ll.AccessFSMakeDir |
		ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSMakeFifo | ll.AccessFSMakeBlock | ll.AccessFSMakeSym |
		ll.AccessFSRefer
	read = ll.AccessFSReadFile | ll.AccessFSReadDir
	// never is what is given to no path. A device that one makes is a way to all that is on a disk.
	never = ll.AccessFSExecute | ll.AccessFSMakeChar | ll.AccessFSMakeBlock
)

// openReal opens a path without symbolic links, for no other use than to say which file that is.
func openReal(path string) (fd int, isDir bool, err error) {
	fd, err = unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return 0, false, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return 0, false, err
	}
	return fd, stat.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// known returns those of the rights that an ABI has.
func known(rights landlock.AccessFSSet, abi int) landlock.AccessFSSet {
	switch {
	case abi < 2:
		rights &^= ll.AccessFSRefer // which is then refused to everybody
		fallthrough
	case abi < truncateABI:
		rights &^= ll.AccessFSTruncate
		fallthrough
	case abi < ioctlABI:
		rights &^= ll.AccessFSIoctlDev
	}
	return rights
}

func confineByLandlock(k kernel, p Policy, fixed int, r *Report) {
	var c landlock.Config
	var rules []landlock.Rule
	tooOld := func(want int, linux string) error {
		return fmt.Errorf("it came with ABI %d of Landlock (Linux %s), and this kernel has ABI %d", want, linux, r.ABI)
	}
	parts := []Part{Files}
	c.HandledAccessFS = known(change, r.ABI)
	if !p.Execute {
		c.HandledAccessFS |= ll.AccessFSExecute
	}
	for _, path := range p.Write {
		fd, isDir, err := openReal(path)
		if err != nil {
			r.Missing = append(r.Missing, path)
			continue
		}
		defer unix.Close(fd)
		rights := c.HandledAccessFS &^ never
		if !isDir {
			rights &= changeFile
		}
		if byFD := fmt.Sprint("/proc/self/fd/", fd); unix.Access(byFD, unix.F_OK) == nil { // there is /proc
			path = byFD
		}
		rules = append(rules, landlock.PathAccess(rights, path))
	}
	var missing []Refusal
	lacks := func(part Part, err error) { missing = append(missing, Refusal{part, err.Error()}) }
	if r.ABI < truncateABI && p.Execute {
		lacks(Files, fmt.Errorf("truncate(2) is not refused: %w", tooOld(truncateABI, "6.2")))
	}
	if r.ABI >= ioctlABI {
		parts = append(parts, Devices)
	} else {
		lacks(Devices, tooOld(ioctlABI, "6.10"))
	}
	switch {
	case p.Bind && p.ConnectAny: // nothing of it is given up
	case r.ABI < netABI:
		lacks(TCP, tooOld(netABI, "6.7"))
	default:
		parts = append(parts, TCP)
		if !p.Bind {
			c.HandledAccessNet |= ll.AccessNetBindTCP
		}
		if !p.ConnectAny {
			c.HandledAccessNet |= ll.AccessNetConnectTCP
			for _, port := range p.Connect {
				rules = append(rules, landlock.ConnectTCP(port))
			}
		}
	}
	switch {
	case r.ABI < scopeABI:
		lacks(Others, tooOld(scopeABI, "6.12"))
	case fixed&signalErratum == 0:
		lacks(Others, errors.New("this kernel has erratum 2 of Landlock, so that threads could not signal each other"))
	default:
		parts = append(parts, Others)
		c.Scoped = ll.ScopeAbstractUnixSocket | ll.ScopeSignal
	}
	if p.Execute && r.ABI >= logABI {
		c = c.EnableLoggingForSubprocesses() // what is refused to them is for the audit log of the machine
	}
	// This sets no_new_privs first, for every thread, and each round over the threads stops the process for a moment.
	err := explain(k.restrict(c, rules))
	if err != nil {
		r.note(Privileges, explain(k.lock()))
	} else {
		r.note(Privileges, nil)
	}
	for _, part := range parts {
		r.note(part, err)
	}
	r.Refused = append(r.Refused, missing...)
}

func confineReads(k kernel, paths []string) error {
	if _, _, err := k.landlock(); err != nil {
		return explain(err)
	}
	var rules []landlock.Rule
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		rights := landlock.AccessFSSet(read)
		if !info.IsDir() {
			rights = ll.AccessFSReadFile
		}
		rules = append(rules, landlock.PathAccess(rights, path))
	}
	return explain(k.restrict(landlock.Config{HandledAccessFS: read}, rules))
}
