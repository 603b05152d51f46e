package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

func rootfsReadOnly(c *container) verdict {
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	root, ok := c.mountAt("/")
	switch {
	case !ok:
		return unknown(errors.New("no mount at / in /proc/self/mountinfo"))
	case !root.readOnly() && c.sandboxed() != "":
		return warn("/ is mounted rw (%s) in /proc/self/mountinfo, but %s", root.fstype, c.sandboxed())
	case !root.readOnly():
		return fail("/ is mounted rw (%s) in /proc/self/mountinfo", root.fstype)
	}
	if c.subject.err == nil {
		if caps, err := c.subject.value.mask("CapBnd"); err == nil && caps&capSysAdmin != 0 {
			return warn("/ is mounted ro, but SYS_ADMIN is in the bounding set and can remount it")
		}
	}
	return pass("/ is mounted ro (%s) in /proc/self/mountinfo", root.fstype)
}

func worldWritablePaths(c *container) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	t := c.tree.value
	if t.worldWritable.count > 0 {
		return c.walked(warn("%s", &t.worldWritable).found(&t.worldWritable), t.unreadDirs)
	}
	return c.walked(pass("none in %s", t.extent()), t.unreadDirs)
}

func setuidFiles(c *container) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	t := c.tree.value
	switch {
	case t.setuid.count == 0:
		return c.walked(pass("none in %s", t.extent()), t.unreadDirs)
	case c.subject.value["NoNewPrivs"] == "1" || c.sys.Sandbox.has("no_new_privs"):
		return c.walked(warn("%s; without effect, as no_new_privs is set", &t.setuid).found(&t.setuid), t.unreadDirs)
	}
	return c.walked(fail("%s", &t.setuid).found(&t.setuid), t.unreadDirs)
}

func fileCapabilities(c *container) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	t := c.tree.value
	switch {
	case t.capable.count > 0:
		return c.walked(warn("%s", &t.capable).found(&t.capable), t.unreadDirs+t.unreadAttrs)
	case c.sys.FileCapability == nil:
		return unknown(errors.New("extended attributes cannot be read here"))
	}
	return c.walked(pass("none in %s", t.extent()), t.unreadDirs+t.unreadAttrs)
}

// appBinaryImmutable judges for the uid of the main process, not with access(2)
// for the auditor's.
func appBinaryImmutable(c *container) verdict {
	if v, stop := c.withoutOwnPID1(); stop {
		return v
	}
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	pid := c.mainProcess()
	s := c.statusOf(procDir(pid))
	if s.err != nil {
		return unknown(s.err)
	}
	uid, err := s.value.effective("Uid")
	if err != nil {
		return unknown(err)
	}
	gid, err := s.value.effective("Gid")
	if err != nil {
		return unknown(err)
	}
	groups, err := s.value.ids("Groups")
	if err != nil {
		return unknown(err)
	}
	caps, err := s.value.mask("CapEff")
	if err != nil {
		return unknown(err)
	}
	program, err := c.programPath(pid)
	if err != nil {
		return unknown(err)
	}
	programs := append([]string{program}, c.scripts(pid)...)
	var v verdict
	for _, name := range programs {
		v = c.immutable(name, pid, uid, append(groups, gid), caps)
		if v.status != Pass {
			return v
		}
	}
	return v
}

// immutable judges one file for the process: the file itself, and all directories
// above it up to the mount point, as whoever may rename one of these
// puts another in its place.
func (c *container) immutable(program string, pid, uid int, groups []int, caps uint64) verdict {
	m, ok := c.mountOver(program)
	switch {
	case c.mountLines.err != nil:
		return unknown(c.mountLines.err)
	case !ok:
		return unknown(fmt.Errorf("%s: no mount in /proc/self/mountinfo holds it", program))
	case m.readOnly():
		return pass("%s is on a read-only mount (%s)", program, m.point)
	}
	for name := program; ; name = path.Dir(name) {
		info, err := c.stat(name)
		if err != nil {
			return unknown(err)
		}
		st, known := c.fileStat(info)
		if !known {
			return unknown(errors.New(name + ": the owner cannot be read here"))
		}
		if how := writableBy(info, st, uid, groups, caps); how != "" {
			if c.keptFrom(pid, program) {
				return warn("uid %d of process %d could write %s (%s), as %s is mounted rw, but %s", uid, pid, name, how, m.point, c.sandboxed()).at(program)
			}
			return fail("uid %d of process %d can write %s (%s), and %s is mounted rw", uid, pid, name, how, m.point).at(program)
		}
		if name == m.point || name == "/" {
			break // a mount point cannot be renamed
		}
	}
	return pass("uid %d of process %d can write neither %s nor a directory above it", uid, pid, program)
}

// scripts returns the first file among the arguments of an interpreter, and the
// directories before it: what it runs is the program. Relative names are looked up in the working directory.
func (c *container) scripts(pid int) []string {
	argv := c.commandLine(pid)
	if len(argv) < 2 {
		return nil
	}
	name := c.programName(pid)
	kind, isTool := toolKindOf(name)
	if !isShell(name) && (!isTool || kind != interpreters) {
		return nil
	}
	dir, _ := fs.ReadLink(c.sys.FS, strings.TrimPrefix(procDir(pid), "/")+"/cwd")
	var found []string
	for _, arg := range argv[1:] {
		if arg == "-c" || arg == "-m" || arg == "-e" && !isShell(name) {
			break // the program is the argument, or a module; what follows is its own
		}
		if !path.IsAbs(arg) {
			if dir == "" || strings.HasPrefix(arg, "-") {
				continue
			}
			arg = path.Join(dir, arg)
		}
		target, info, err := resolve(c.sys.FS, arg)
		if err == nil && (info.IsDir() || info.Mode().IsRegular()) {
			found = append(found, target)
		}
		if err == nil && info.Mode().IsRegular() {
			break
		}
	}
	return found
}

// writableBy says why such a process may write the file or directory, or "".
func writableBy(info fs.FileInfo, st FileStat, uid int, groups []int, caps uint64) string {
	mode := info.Mode()
	switch {
	case caps&capDACOverride != 0:
		return "DAC_OVERRIDE"
	case st.UID == uid:
		return "its owner" // who may also chmod it
	case slices.Contains(groups, st.GID) && mode&0o020 != 0:
		return "its group may"
	case mode&0o002 != 0 && (mode&fs.ModeSticky == 0 || !info.IsDir()):
		return "everyone may"
	}
	return ""
}

// programPath returns the executable of a process: /proc/PID/exe, or, where the
// auditor may not follow that link, argv[0] looked up as execvp(3) does.
func (c *container) programPath(pid int) (string, error) {
	target, err := fs.ReadLink(c.sys.FS, strings.TrimPrefix(procDir(pid), "/")+"/exe")
	if err == nil {
		return path.Clean(strings.TrimSuffix(target, " (deleted)")), nil
	}
	linkErr := readError(procDir(pid)+"/exe", err)
	argv := c.commandLine(pid)
	if len(argv) == 0 || argv[0] == "" {
		return "", linkErr
	}
	if path.IsAbs(argv[0]) {
		if name, _, err := resolve(c.sys.FS, argv[0]); err == nil {
			return name, nil
		}
		return "", linkErr
	}
	if strings.Contains(argv[0], "/") { // relative to a directory that is not known
		return "", linkErr
	}
	search, ok := c.env("PATH")
	if !ok {
		search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // Docker's own
	}
	for dir := range strings.SplitSeq(search, ":") {
		name, info, err := resolve(c.sys.FS, path.Join(dir, argv[0]))
		if err == nil && isExecutable(info) {
			return name, nil
		}
	}
	return "", linkErr
}
