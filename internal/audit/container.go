package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// container is what one run has read. The checks decide on it and only look up
// single files themselves; each part has the error that kept it from being read.
type container struct {
	sys *System

	self    part[status]
	subject part[status] // of the process that is judged, see subjectDir
	// subjectDir is the /proc directory of the process that is judged: the one that
	// the container was started with, as docker exec may run the auditor under
	// another uid. That is PID 1, unless the pid namespace is the host's or another
	// container's; then it is the oldest process with the auditor's own mounts.
	subjectDir string
	first      int  // pid of it, 0 where the auditor judges itself
	hostPID    bool // in the host's pid namespace
	foreignPID bool // in another container's, as PID 1 has other mounts
	kubernetes bool

	mountLines part[[]mount] // all, in the order of the kernel
	mounts     []mount       // the one on top for each mount point, without the auditor's own
	cgroups    part[cgroups]
	cgroupName string // the file that they are from
	limits     part[map[string]limit]
	memory     part[memoryMax]

	processes part[[]process]
	zombies   []process // children of PID 1 that were zombies in both samples

	exe  string // the auditor's executable, as a clean absolute path; "" where unknown
	tree part[*tree]
}

// part is something that was read, or why it was not.
type part[T any] struct {
	value T
	err   error
}

// initialNamespaces are the inodes that the kernel gives the namespaces of the
// host (PROC_*_INIT_INO in include/linux/proc_ns.h, namespaces in nsfs since
// 6.18 for net).
var initialNamespaces = map[string]string{
	"pid": "4026531836", "net": "4026531833", "ipc": "4026531839", "uts": "4026531838", "cgroup": "4026531835",
}

// errNotWalked is why a report of a few checks has no facts about the image.
var errNotWalked = errors.New("no selected check needs the walk over the root filesystem")

// inspect reads everything that more than one check needs. The walk over the
// root filesystem takes longer than all the rest and may be left out. The only
// error is that of ctx.
func inspect(ctx context.Context, sys *System, walk bool) (*container, error) {
	c := &container{sys: sys}
	if exe, err := fs.ReadLink(sys.FS, "proc/self/exe"); err == nil {
		c.exe = path.Clean(strings.TrimSuffix(exe, " (deleted)"))
	}
	_, underKubernetes := c.env("KUBERNETES_SERVICE_HOST")
	c.kubernetes = underKubernetes || c.exists("/var/run/secrets/kubernetes.io/serviceaccount")

	c.processes.value, c.processes.err = c.listProcesses()
	c.findSubject()
	c.self = c.statusOf("/proc/self")
	c.subject = c.statusOf(c.subjectDir)
	c.limits = parse(c, c.subjectDir+"/limits", parseLimits)
	c.findCgroups()
	c.mountLines = parse(c, "/proc/self/mountinfo", parseMountinfo)
	if sys.Detached {
		c.mountLines = part[[]mount]{value: []mount{{root: "/", point: "/"}}}
	}
	c.mounts = topMounts(c.mountLines.value, c.exe)

	c.memory.value, c.memory.err = c.readMemoryMax()

	if err := c.sampleZombies(ctx); err != nil {
		return nil, err
	}
	c.tree.err = errNotWalked
	switch {
	case walk && sys.kept != nil:
		c.tree = part[*tree]{value: sys.kept.tree}
	case walk:
		c.tree.err = nil
		if err := c.walk(ctx); err != nil {
			return nil, err
		}
	}
	return c, ctx.Err()
}

// findSubject sets first and subjectDir, and leaves the processes of other
// containers out where the pid namespace is shared with one.
func (c *container) findSubject() {
	if host, err := c.inHostNamespace("pid"); err == nil {
		c.hostPID = host
	}
	own1, known := c.isOwn(1)
	c.foreignPID = !c.hostPID && known && !own1
	c.first, c.subjectDir = 1, procDir(1)
	if !c.hostPID && !c.foreignPID {
		return
	}
	own := slices.DeleteFunc(slices.Clone(c.processes.value), func(p process) bool {
		mine, known := c.isOwn(p.pid) // not known of one that has just ended
		return p.pid == 1 || p.state == 'Z' || !known || !mine
	})
	if c.foreignPID {
		c.processes.value = own
	}
	others := slices.DeleteFunc(slices.Clone(own), func(p process) bool { return p.pid == c.sys.PID })
	if len(others) == 0 {
		c.first, c.subjectDir = 0, "/proc/self"
		return
	}
	oldest := slices.MinFunc(others, func(a, b process) int { return cmp.Or(cmp.Compare(a.started, b.started), cmp.Compare(a.pid, b.pid)) })
	c.first, c.subjectDir = oldest.pid, procDir(oldest.pid)
}

// findCgroups reads where the program is, which the limits are for. An auditor that nsenter has
// brought is in a cgroup elsewhere.
func (c *container) findCgroups() {
	c.cgroupName = c.subjectDir + "/cgroup"
	if c.cgroups = parse(c, c.cgroupName, parseCgroups); c.cgroups.err != nil {
		c.cgroupName = "/proc/self/cgroup"
		c.cgroups = parse(c, c.cgroupName, parseCgroups)
	}
}

// isOwn says whether the process has the auditor's mounts, and so is in the same
// container, and whether that is known: mount ids are unique, so the first line of
// mountinfo tells one mount namespace from another. Where that may not be read the
// cgroup decides; a process that is ending has neither, and the kernel shows the root
// as its cgroup.
func (c *container) isOwn(pid int) (own, known bool) {
	for _, name := range []string{"/mountinfo", "/cgroup"} {
		mine, err1 := c.read("/proc/self" + name)
		theirs, err2 := c.read(procDir(pid) + name)
		if errors.Is(err2, fs.ErrPermission) {
			continue
		}
		if err1 != nil || err2 != nil || len(theirs) == 0 {
			break
		}
		myLine, _, _ := bytes.Cut(mine, []byte("\n"))
		theirLine, _, _ := bytes.Cut(theirs, []byte("\n"))
		return bytes.Equal(myLine, theirLine), true
	}
	return false, false
}

// topMounts keeps what can be seen. A mount
// of the auditor's executable alone is no part of the container; one of a directory
// that holds it may be any directory of the host.
func topMounts(lines []mount, exe string) []mount {
	tree := newMountTree(lines)
	var mounts []mount
	for i, m := range lines {
		if tree.over(m.point) == i && m.point != exe {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// mountAt returns the mount at exactly this point.
func (c *container) mountAt(point string) (mount, bool) {
	i := slices.IndexFunc(c.mounts, func(m mount) bool { return m.point == point })
	if i < 0 {
		return mount{}, false
	}
	return c.mounts[i], true
}

// mountOver returns the mount that holds the file.
func (c *container) mountOver(name string) (mount, bool) {
	i := newMountTree(c.mountLines.value).over(name)
	if i < 0 {
		return mount{}, false
	}
	return c.mountLines.value[i], true
}

// auditorIsPID1 says whether the auditor stands where the container's program
// would, so that nothing can be said of that program.
func (c *container) auditorIsPID1() bool { return c.sys.PID == 1 && c.sys.App == nil }

// env returns a variable of the auditor.
func (c *container) env(name string) (string, bool) {
	for _, v := range c.sys.Environ {
		if n, value, _ := strings.Cut(v, "="); n == name {
			return value, true
		}
	}
	return "", false
}

// inHostNamespace compares /proc/self/ns/KIND with the inode of the host's.
// Never /proc/1/ns: that asks for the right to trace PID 1.
func (c *container) inHostNamespace(kind string) (bool, error) {
	name := "proc/self/ns/" + kind
	target, err := fs.ReadLink(c.sys.FS, name)
	if err != nil {
		return false, readError("/"+name, err)
	}
	inode := strings.TrimSuffix(strings.TrimPrefix(target, kind+":["), "]")
	if _, err := strconv.ParseUint(inode, 10, 64); err != nil {
		return false, fmt.Errorf("/%s: %q is not %s:[inode]", name, target, kind)
	}
	return inode == initialNamespaces[kind], nil
}

// maxRead bounds what is read of one file of /proc or /sys, or of the image. It
// is also the size up to which files are searched for secrets.
const maxRead = 1 << 20

// read returns the file, up to maxRead bytes; errors name file and cause.
func (c *container) read(name string) ([]byte, error) {
	f, err := c.sys.FS.Open(strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil, readError(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRead))
	if err != nil {
		return nil, readError(name, err)
	}
	return data, nil
}

// line returns the file without the newline and zero bytes around it.
func (c *container) line(name string) (string, error) {
	data, err := c.read(name)
	return strings.Trim(string(data), "\x00 \n"), err
}

// parse reads a file into a part.
func parse[T any](c *container, name string, parser func([]byte) (T, error)) (p part[T]) {
	data, err := c.read(name)
	if err != nil {
		p.err = err
		return p
	}
	if p.value, err = parser(data); err != nil {
		p.err = fmt.Errorf("%s: %w", name, err)
	}
	return p
}

// readError is err with the name once, and in front.
func readError(name string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// stat follows symbolic links inside the root.
func (c *container) stat(name string) (fs.FileInfo, error) {
	_, info, err := resolve(c.sys.FS, name)
	return info, err
}

func (c *container) exists(name string) bool {
	_, err := c.stat(name)
	return err == nil
}

// maxLinks is the kernel's own bound on symbolic links in one path.
const maxLinks = 40

// resolve follows all symbolic links of name and returns where it leads, as a
// clean absolute path. Absolute links stay inside fsys, which keeps a recorded
// tree, or another container's root, from leaking into the one around it.
func resolve(fsys fs.FS, name string) (string, fs.FileInfo, error) {
	done, links := ".", 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		info, err := fs.Lstat(fsys, next)
		if err != nil {
			return "", nil, readError(name, err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", nil, fmt.Errorf("%s: too many symbolic links", name)
		}
		target, err := fs.ReadLink(fsys, next)
		if err != nil {
			return "", nil, readError(name, err)
		}
		if path.IsAbs(target) {
			done = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	info, err := fs.Lstat(fsys, done)
	if err != nil {
		return "", nil, readError(name, err)
	}
	return path.Join("/", done), info, nil
}

// listProcesses reads all of /proc. Processes that end meanwhile are left out.
func (c *container) listProcesses() ([]process, error) {
	entries, err := fs.ReadDir(c.sys.FS, "proc")
	if err != nil {
		return nil, readError("/proc", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	var processes []process
	for _, pid := range pids {
		p := parse(c, procDir(pid)+"/stat", parseStat)
		switch {
		case p.err == nil:
			processes = append(processes, p.value)
		case !errors.Is(p.err, fs.ErrNotExist) && !isNoProcess(p.err):
			return nil, p.err
		}
	}
	if len(processes) == 0 {
		return nil, errors.New("/proc: no process in it, is it mounted?")
	}
	if processes[0].pid != 1 {
		return nil, errors.New("/proc: PID 1 is not shown, nor what else is another user's (hidepid)")
	}
	return processes, nil
}

// zombieDelay is the time between two samples: what is a zombie in both is not
// just on its way out.
const zombieDelay = 150 * time.Millisecond

// sampleZombies looks a second time only where the first sample has zombies.
func (c *container) sampleZombies(ctx context.Context) error {
	first := zombiesOf(c.processes.value)
	if len(first) == 0 || c.sys.Sleep == nil {
		return nil
	}
	if err := c.sys.Sleep(ctx, zombieDelay); err != nil {
		return err
	}
	again, err := c.listProcesses()
	if err != nil {
		c.processes.err = err
		return nil
	}
	second := zombiesOf(again)
	for _, z := range first {
		if slices.Contains(second, z) {
			c.zombies = append(c.zombies, z)
		}
	}
	return nil
}

func zombiesOf(processes []process) []process {
	var zombies []process
	for _, p := range processes {
		if p.state == 'Z' {
			zombies = append(zombies, p)
		}
	}
	return zombies
}

// cgroupValues reads a file of the own cgroup and of each parent that can be
// seen, as a limit of a parent counts as well: v1 with its controller, or v2.
// The first value is the own cgroup's. The error is fs.ErrNotExist where there
// is no such file.
func (c *container) cgroupValues(controller, v1File, v2File string) ([]string, cgroupFile, error) {
	if c.mountLines.err != nil {
		return nil, cgroupFile{}, c.mountLines.err
	}
	if c.cgroups.err != nil {
		return nil, cgroupFile{}, c.cgroups.err
	}
	var hidden error
	// v2 first. Hybrid hosts mount it as well, but without these controllers.
	for _, v2 := range []bool{true, false} {
		file, key := v1File, controller
		if v2 {
			file, key = v2File, ""
		}
		own, ok := c.cgroups.value[key]
		if !ok || file == "" {
			continue
		}
		for _, m := range c.mounts {
			if v2 && m.fstype != "cgroup2" || !v2 && (m.fstype != "cgroup" || !slices.Contains(m.super, controller)) {
				continue
			}
			// A mount from outside the cgroup namespace has a root such as /../..,
			// and what it shows at its top is another cgroup's.
			if !under(own, m.root) || strings.HasPrefix(own, "/..") {
				hidden = fmt.Errorf("%s: the mount shows %s, not the own cgroup %s", m.point, m.root, own)
				continue
			}
			dir := path.Join(m.point, strings.TrimPrefix(own, m.root))
			values, err := c.readUpwards(dir, m.point, file)
			if len(values) > 0 {
				return values, cgroupFile{path.Join(dir, file), v2}, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, cgroupFile{}, err
			}
		}
	}
	if hidden == nil {
		hidden = c.hiddenCgroup(controller)
	}
	if hidden != nil {
		return nil, cgroupFile{}, hidden
	}
	return nil, cgroupFile{}, fmt.Errorf("no %s of the %s controller in any cgroup mount: %w", cmp.Or(v2File, v1File), controller, fs.ErrNotExist)
}

// hiddenCgroup returns an error where the process is in a cgroup of the controller
// that no mount shows, as behind an empty directory that is mounted on
// /sys/fs/cgroup. Nil means that the controller is not there.
func (c *container) hiddenCgroup(controller string) error {
	_, isV1 := c.cgroups.value[controller]
	if isV1 && !c.shows(controller) {
		return fmt.Errorf("%s: a cgroup of the %s controller, which no mount shows", c.cgroupName, controller)
	}
	only := len(c.cgroups.value) == 1 // the line of version 2, without hierarchies of version 1
	if _, isV2 := c.cgroups.value[""]; isV2 && only && !slices.ContainsFunc(c.mounts, func(m mount) bool { return m.fstype == "cgroup2" }) {
		return errors.New(c.cgroupName + ": a cgroup of version 2, which no mount shows")
	}
	return nil
}

// shows says whether a mount shows the controller of version 1.
func (c *container) shows(controller string) bool {
	return slices.ContainsFunc(c.mounts, func(m mount) bool {
		return m.fstype == "cgroup" && slices.Contains(m.super, controller)
	})
}

// cgroupFile is where a value was found.
type cgroupFile struct {
	name string
	v2   bool
}

// readUpwards reads file in dir and in its parents up to top. Without the file
// in dir itself there is an error.
func (c *container) readUpwards(dir, top, file string) ([]string, error) {
	var values []string
	for {
		value, err := c.line(path.Join(dir, file))
		if err != nil {
			if len(values) > 0 {
				return values, nil // the root cgroup has no limits
			}
			return nil, err
		}
		values = append(values, value)
		if dir == top {
			return values, nil
		}
		dir = path.Dir(dir)
	}
}

// smallest returns the least of the numbers; "max", -1 and what is not a number
// count as no limit, math.MaxInt64.
func smallest(values []string) int64 {
	least := int64(math.MaxInt64)
	for _, v := range values {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && n >= 0 {
			least = min(least, n)
		}
	}
	return least
}
