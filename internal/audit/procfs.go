package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"path"
	"slices"
	"strconv"
	"strings"
)

// status is /proc/PID/status, value by field (proc_pid_status(5)).
type status map[string]string

func parseStatus(data []byte) (status, error) {
	s := status{}
	for line := range bytes.Lines(data) {
		if key, value, ok := strings.Cut(string(line), ":"); ok {
			s[key] = strings.TrimSpace(value)
		}
	}
	if s["Name"] == "" {
		return nil, errors.New("no Name in status")
	}
	return s, nil
}

// ids returns the numbers of a field such as Uid (real, effective, saved and
// filesystem id) or Groups (any number of them).
func (s status) ids(field string) ([]int, error) {
	value, ok := s[field]
	if !ok {
		return nil, fmt.Errorf("no %s in status", field)
	}
	var ids []int
	for _, word := range strings.Fields(value) {
		id, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("%s in status: %q is not a number", field, word)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// effective returns the second number of Uid or Gid.
func (s status) effective(field string) (int, error) {
	ids, err := s.ids(field)
	if err != nil {
		return 0, err
	}
	if len(ids) < 2 {
		return 0, fmt.Errorf("%s in status: want 4 numbers", field)
	}
	return ids[1], nil
}

// mask returns a field that is a set of bits in hexadecimal: capability or
// signal sets. Bit n is capability n, or signal n+1.
func (s status) mask(field string) (uint64, error) {
	value, ok := s[field]
	if !ok {
		return 0, fmt.Errorf("no %s in status", field)
	}
	mask, err := strconv.ParseUint(value, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%s in status: not a hexadecimal number", field)
	}
	return mask, nil
}

// capabilities returns the union of all five sets: what the process has, and
// what it can get back.
func (s status) capabilities() (uint64, error) {
	var union uint64
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		mask, err := s.mask(set)
		if err != nil {
			return 0, err
		}
		union |= mask
	}
	return union, nil
}

// capabilityNames are the names of capabilities(7), by number.
var capabilityNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

const (
	capDACOverride    = 1 << 1
	capSetGID         = 1 << 6
	capSetUID         = 1 << 7
	capNetBindService = 1 << 10
	capSysModule      = 1 << 16
	capSysRawIO       = 1 << 17
	capSysPtrace      = 1 << 19
	capSysAdmin       = 1 << 21
	capSysNice        = 1 << 23
	capMknod          = 1 << 27
	capSysTime        = 1 << 25
	capPerfmon        = 1 << 38
	// capDefault are the 14 that Docker and containerd grant.
	capDefault = 0xa80425fb
)

// capabilityList names the bits of mask; never nil.
func capabilityList(mask uint64) []string {
	names := []string{}
	for ; mask != 0; mask &= mask - 1 {
		n := bits.TrailingZeros64(mask)
		if n < len(capabilityNames) {
			names = append(names, capabilityNames[n])
		} else {
			names = append(names, strconv.Itoa(n))
		}
	}
	return names
}

// mount is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	id, parent string   // fields 1 and 2
	device     string   // field 3: major:minor of the filesystem
	root       string   // field 4: directory of the filesystem that is mounted
	point      string   // field 5: where, as a clean absolute path
	options    []string // field 6: of this mount; these decide ro or rw
	optional   []string // field 7: propagation, such as shared:1
	fstype     string
	source     string   // what mount(2) was given: a device, or any word
	super      []string // options of the filesystem
}

func (m mount) readOnly() bool { return slices.Contains(m.options, "ro") }

// isMask says whether m is how a runtime hides a path: an empty read-only tmpfs
// over a directory, the container's own /dev/null over a file.
func (m mount) isMask() bool {
	return m.root == "/null" || m.fstype == "tmpfs" && m.root == "/" && m.readOnly()
}

// isTmpfs says whether m is a tmpfs that can be filled: no bind of a part of
// one, no mask. Docker makes /dev and the cgroup v1 directory as it wants them.
func (m mount) isTmpfs() bool {
	return m.inMemory() && m.root == "/" && !m.readOnly() && m.point != "/dev" && m.point != "/sys/fs/cgroup"
}

// inMemory says whether what is stored ends with the mount. A ramfs is a tmpfs that has no size.
func (m mount) inMemory() bool { return m.fstype == "tmpfs" || m.fstype == "ramfs" }

// isPseudo says whether m shows the kernel and stores nothing.
func (m mount) isPseudo() bool {
	switch m.fstype {
	case "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "securityfs", "debugfs", "tracefs",
		"bpf", "pstore", "configfs", "fusectl", "binfmt_misc", "nsfs", "efivarfs", "autofs", "rpc_pipefs", "hugetlbfs", "fuse.lxcfs":
		return true
	}
	return false
}

func parseMountinfo(data []byte) ([]mount, error) {
	var mounts []mount
	for line := range bytes.Lines(data) {
		// Not strings.Fields: the source may be empty.
		fields := strings.Split(strings.TrimRight(string(line), "\n"), " ")
		end := slices.Index(fields, "-")
		if end < 6 || len(fields) < end+4 {
			return nil, fmt.Errorf("line %d of mountinfo is not as proc_pid_mountinfo(5) says", len(mounts)+1)
		}
		mounts = append(mounts, mount{
			id:       fields[0],
			parent:   fields[1],
			device:   fields[2],
			root:     unescape(fields[3]),
			point:    path.Clean("/" + unescape(fields[4])),
			options:  strings.Split(fields[5], ","),
			optional: fields[6:end],
			fstype:   fields[end+1],
			source:   unescape(fields[end+2]),
			super:    strings.Split(fields[end+3], ","),
		})
	}
	if len(mounts) == 0 {
		return nil, errors.New("no line in mountinfo")
	}
	return mounts, nil
}

// mountTree is the mounts by what they are mounted on.
type mountTree struct {
	lines []mount
	on    map[string][]int // indexes by parent, "" for what is mounted on none of them
}

func newMountTree(lines []mount) mountTree {
	t := mountTree{lines, map[string][]int{}}
	ids := map[string]bool{}
	for _, m := range lines {
		ids[m.id] = true
	}
	for i, m := range lines {
		if m.parent == m.id || !ids[m.parent] {
			m.parent = ""
		}
		t.on[m.parent] = append(t.on[m.parent], i)
	}
	return t
}

// over returns the index of the mount that shows at the name, -1 for none. A mount hides all that is below
// its point, and what is mounted there on another than itself.
func (t mountTree) over(name string) int {
	at, id := -1, ""
	for range t.lines { // as many steps as there are mounts, at most
		next := -1
		for _, i := range t.on[id] {
			point := t.lines[i].point
			if under(name, point) && (next < 0 || len(point) <= len(t.lines[next].point)) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		at, id = next, t.lines[next].id
	}
	return at
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// under says whether name is dir or below it; both are clean absolute paths.
func under(name, dir string) bool {
	return dir == "/" || name == dir || strings.HasPrefix(name, dir+"/")
}

// cgroups are the paths of /proc/PID/cgroup by controller, "" for the v2 line
// (cgroups(7)).
type cgroups map[string]string

func parseCgroups(data []byte) (cgroups, error) {
	paths := cgroups{}
	for line := range bytes.Lines(data) {
		parts := strings.SplitN(strings.TrimRight(string(line), "\n"), ":", 3)
		if len(parts) != 3 {
			return nil, errors.New("a line of cgroup is not ID:CONTROLLERS:PATH")
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			paths[name] = parts[2]
		}
	}
	return paths, nil
}

// process is one entry of /proc.
type process struct {
	pid, ppid int
	comm      string // at most 15 bytes, and the process may change it
	state     byte
	started   uint64 // in clock ticks after boot; 0 where not known
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The name, in parentheses,
// may hold anything, parentheses too, so the rest starts after the last one.
func parseStat(data []byte) (process, error) {
	before, behind, _ := strings.Cut(string(data), "(")
	end := strings.LastIndexByte(behind, ')')
	if end < 0 {
		return process{}, errors.New("no (name) in stat")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(before))
	rest := strings.Fields(behind[end+1:])
	if err != nil || len(rest) < 2 {
		return process{}, errors.New("stat is not as proc_pid_stat(5) says")
	}
	ppid, err := strconv.Atoi(rest[1])
	if err != nil {
		return process{}, errors.New("stat is not as proc_pid_stat(5) says")
	}
	p := process{pid: pid, ppid: ppid, comm: behind[:end], state: rest[0][0]}
	if len(rest) > 19 { // field 22, and the rest begins with field 3
		p.started, _ = strconv.ParseUint(rest[19], 10, 64)
	}
	return p, nil
}

// limit is one line of /proc/PID/limits; -1 is unlimited.
type limit struct{ soft, hard int64 }

// parseLimits reads /proc/PID/limits (proc_pid_limits(5)), by name such as
// "Max open files". Columns are fixed: names are padded to 26 characters.
func parseLimits(data []byte) (map[string]limit, error) {
	limits := map[string]limit{}
	for line := range bytes.Lines(data) {
		if len(line) < 26 || bytes.HasPrefix(line, []byte("Limit ")) {
			continue
		}
		fields := strings.Fields(string(line[26:]))
		if len(fields) < 2 {
			continue
		}
		soft, err1 := parseLimit(fields[0])
		hard, err2 := parseLimit(fields[1])
		if err1 != nil || err2 != nil {
			return nil, errors.New("limits is not as proc_pid_limits(5) says")
		}
		limits[strings.TrimSpace(string(line[:26]))] = limit{soft, hard}
	}
	if len(limits) == 0 {
		return nil, errors.New("no line in limits")
	}
	return limits, nil
}

func parseLimit(s string) (int64, error) {
	if s == "unlimited" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return int64(min(n, math.MaxInt64)), err
}
