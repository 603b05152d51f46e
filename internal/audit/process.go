package audit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// runAsNonRoot looks at the real, the effective, the saved and the filesystem uid:
// a process takes any of the first three back without a right.
func runAsNonRoot(c *container) verdict {
	name, s := c.program()
	if s.err != nil {
		return unknown(s.err)
	}
	uid, err := s.value.effective("Uid")
	if err != nil {
		return unknown(err)
	}
	ids, _ := s.value.ids("Uid")
	switch {
	case uid == 0:
		return fail("effective uid 0 in %s/status", name)
	case slices.Contains(ids, 0):
		return fail("effective uid %d, but uid 0 among the real, saved and filesystem uids %v in %s/status", uid, ids, name)
	}
	return pass("effective uid %d in %s/status", uid, name)
}

func nonRootGroup(c *container) verdict {
	name, s := c.program()
	if s.err != nil {
		return unknown(s.err)
	}
	gid, err := s.value.effective("Gid")
	if err != nil {
		return unknown(err)
	}
	ids, _ := s.value.ids("Gid")
	groups, err := s.value.ids("Groups")
	switch {
	case err != nil:
		return unknown(err)
	case gid == 0:
		return fail("primary group 0 in %s/status", name)
	case slices.Contains(ids, 0):
		return fail("group 0 among the real, saved and filesystem gids %v in %s/status", ids, name)
	case slices.Contains(groups, 0):
		return fail("supplementary group 0 in %s/status", name)
	}
	return pass("effective gid %d, groups %v in %s/status", gid, groups, name)
}

// program returns the /proc directory and the status of the process that the
// container is for: behind an init that is its child.
func (c *container) program() (string, part[status]) {
	pid := c.mainProcess()
	if pid == c.first {
		return c.subjectDir, c.subject
	}
	return procDir(pid), c.statusOf(procDir(pid))
}

func capabilitiesDropped(c *container) verdict {
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	caps, err := c.subject.value.capabilities()
	switch {
	case err != nil:
		return unknown(err)
	case caps&^capNetBindService != 0:
		// A user other than root has an empty effective set and all the same a
		// full bounding set, which is what a setuid file gives back.
		return fail("%d in the five sets of %s/status: %s", len(capabilityList(caps)), c.subjectDir, strings.Join(capabilityList(caps), " "))
	case caps != 0:
		return pass("only NET_BIND_SERVICE in %s/status", c.subjectDir)
	}
	return pass("all five sets are empty in %s/status", c.subjectDir)
}

func capabilitiesAdded(c *container) verdict {
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	caps, err := c.subject.value.capabilities()
	switch {
	case err != nil:
		return unknown(err)
	case caps&^capDefault != 0:
		return fail("beyond the default 14 in %s/status: %s", c.subjectDir, strings.Join(capabilityList(caps&^capDefault), " "))
	}
	return pass("none beyond the default 14 in %s/status", c.subjectDir)
}

// notPrivileged counts signs. Comparing with a full set of capabilities would
// not do: what is full depends on kernel, engine and the engine's own rights.
func notPrivileged(c *container) verdict {
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	if c.mountLines.err != nil {
		return unknown(c.mountLines.err)
	}
	bounding, err := c.subject.value.mask("CapBnd")
	if err != nil {
		return unknown(err)
	}
	var signs []string
	const strong = capSysModule | capSysRawIO | capSysAdmin
	if bounding&strong == strong {
		signs = append(signs, "SYS_MODULE, SYS_RAWIO and SYS_ADMIN in the bounding set")
	}
	sys, sysMounted := c.mountAt("/sys")
	if _, masked := c.mountAt("/proc/sys"); sysMounted && !sys.readOnly() && !masked {
		signs = append(signs, "/sys writable and /proc/sys not mounted read-only")
	}
	rules, _ := c.deviceRules() // never readable on cgroup v2
	devices, err := c.devices()
	blocks := 0
	for _, d := range devices {
		if d.block {
			blocks++
		}
	}
	switch {
	case slices.Contains(rules, "a *:* rwm") && !c.remapped():
		signs = append(signs, "all devices allowed in devices.list")
	case blocks > 3:
		signs = append(signs, "block devices in /dev")
	}
	switch {
	case len(signs) == 0 && err != nil:
		return unknown(err)
	case len(signs) == 0:
		return pass("no sign of it in capabilities, /sys, /proc/sys and devices")
	case len(signs) == 1:
		return warn("one of three signs: %s", signs[0])
	}
	return fail("%s", strings.Join(signs, "; "))
}

func noNewPrivileges(c *container) verdict {
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	switch value, ok := c.subject.value["NoNewPrivs"]; {
	case !ok:
		return notApplicable("this kernel does not show NoNewPrivs in %s/status", c.subjectDir)
	case value == "1" && c.self.value["NoNewPrivs"] == "0" && c.startedAlike():
		return warn("NoNewPrivs 1 in %s/status, which the program has set itself, or an old engine keeps from exec: "+
			"what was started beside it has 0 in /proc/self/status", c.subjectDir)
	case value == "1" && c.self.value["NoNewPrivs"] == "0":
		return unknown(fmt.Errorf("NoNewPrivs 1 in %s/status, but the auditor was brought in without it, "+
			"and cannot tell whether the container or the program has set it", c.subjectDir))
	case value == "1":
		return pass("NoNewPrivs 1 in %s/status", c.subjectDir)
	case c.sys.Sandbox.has("no_new_privs"):
		return warn("NoNewPrivs was %s when the program was started, and it has set it itself", value)
	default:
		return fail("NoNewPrivs %s in %s/status", value, c.subjectDir)
	}
}

// seccompFilter: what counts is the profile of the container. A program may have put
// filters of its own on top, which every other process of the container is without.
func seccompFilter(c *container) verdict {
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	switch c.subject.value["Seccomp"] {
	case "0":
		return fail("Seccomp 0 (off) in %s/status", c.subjectDir)
	case "1":
		return pass("Seccomp 1 (strict) in %s/status", c.subjectDir)
	case "2":
	default:
		return notApplicable("this kernel does not show Seccomp in %s/status", c.subjectDir)
	}
	mine, theirs := c.self.value.filters(), c.subject.value.filters()
	switch {
	case mine == 0 && c.startedAlike():
		return fail("Seccomp 0 (off) in /proc/self/status, as the container has no profile: "+
			"the filter in %s/status is the program's own", c.subjectDir)
	case mine == 0 || c.sys.Syscall == nil || mine < theirs && !c.startedAlike():
		return unknown(errors.New("there is a filter, but the auditor does not run under it and cannot try it"))
	}
	v, err := c.tryCalls()
	switch {
	case err != nil:
		return unknown(err)
	case mine > theirs && v.status == Pass:
		return unknown(fmt.Errorf("%s, but the auditor runs under %d filters and the program under %d: "+
			"which one refuses is not known", v.evidence, mine, theirs))
	}
	return v
}

// filters returns how many seccomp filters the process has. Before Linux 5.9 there is
// no number, and any stand for one.
func (s status) filters() int {
	if s["Seccomp"] != "2" {
		return 0
	}
	n, err := strconv.Atoi(s["Seccomp_filters"])
	if err != nil {
		return 1
	}
	return n
}

// startedAlike says whether the auditor was started in the container by what has
// started the program: docker exec, podman exec, kubectl exec, lxc-attach. They give it
// the container's seccomp profile and no_new_privs, and its cgroup. nsenter gives
// none of these, and exec --privileged more than the container has.
func (c *container) startedAlike() bool {
	if c.sys.App != nil || c.subjectDir == "/proc/self" || c.first == c.sys.PID {
		return false
	}
	if !c.inProgramsCgroup() {
		return false
	}
	held, err1 := c.self.value.mask("CapBnd")
	given, err2 := c.subject.value.mask("CapBnd")
	return err1 == nil && err2 == nil && held&^given == 0
}

// inProgramsCgroup says whether the auditor is in the container's cgroups: in a cgroup namespace it sees that
// from its own, and elsewhere they are the program's, or below these. Where the program is in the root of all
// of them nothing tells.
func (c *container) inProgramsCgroup() bool {
	mine := parse(c, "/proc/self/cgroup", parseCgroups)
	theirs := parse(c, c.subjectDir+"/cgroup", parseCgroups)
	host, err := c.inHostNamespace("cgroup")
	if mine.err != nil || theirs.err != nil || err != nil {
		return false
	}
	inside := !host
	for controller, name := range mine.value {
		program, known := theirs.value[controller]
		if strings.HasPrefix(name, "/..") || !known || host && !under(name, program) {
			return false
		}
		inside = inside || program != "/"
	}
	return inside
}

// tryCalls makes the calls that default profiles refuse.
func (c *container) tryCalls() (verdict, error) {
	caps, err := c.self.value.mask("CapBnd")
	if err != nil {
		return verdict{}, err
	}
	var refused, allowed []string
	for _, call := range triedCalls {
		if caps&call.granted != 0 {
			continue
		}
		switch err := c.sys.Syscall(call.name); {
		case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOSYS):
			refused = append(refused, call.name)
		default:
			allowed = append(allowed, call.name)
		}
	}
	evidence := fmt.Sprintf("Seccomp 2 (filter) in %s/status; of %d calls that default profiles refuse, %d are refused (%s)",
		c.subjectDir, len(refused)+len(allowed), len(refused), cmp.Or(strings.Join(refused, " "), "none"))
	if len(allowed) > 0 {
		evidence += ", allowed are " + strings.Join(allowed, " ")
	}
	if len(refused) <= len(allowed) {
		return warn("%s", evidence), nil
	}
	return pass("%s", evidence), nil
}

// triedCalls are refused by the default profiles of Docker, containerd, Podman and
// CRI-O (the last two allow keyctl alone), and so by most that were written to
// refuse something. With a capability of granted these profiles allow the call.
var triedCalls = []struct {
	name    string
	granted uint64
}{
	{"clock_settime", capSysTime},
	{"kcmp", capSysPtrace},
	{"keyctl", 0},
	{"move_pages", capSysNice},
	{"perf_event_open", capSysAdmin | capPerfmon},
	{"quotactl", capSysAdmin},
	{"set_mempolicy", capSysNice},
	{"swapon", 0},
	{"userfaultfd", 0},
}

// lsmLabel returns what AppArmor or SELinux says of the process, and where. A
// kernel without either has no label: the file is missing, or gives EINVAL.
func (c *container) lsmLabel() (label, name string, err error) {
	for _, name := range []string{c.subjectDir + "/attr/apparmor/current", c.subjectDir + "/attr/current", "/proc/self/attr/current"} {
		label, err := c.line(name)
		switch {
		case err != nil && !isAbsent(err):
			return "", name, err
		case err == nil && label != "" && label != "kernel":
			return label, name, nil
		}
	}
	return "", "", nil
}

func lsmConfined(c *container) verdict {
	label, name, err := c.lsmLabel()
	// An SELinux label is user:role:type:level.
	kind := label
	if parts := strings.Split(label, ":"); len(parts) >= 3 {
		kind = parts[2]
	}
	switch {
	case err != nil:
		return unknown(err)
	case label == "":
		return notApplicable("neither AppArmor nor SELinux labels this process: no label in %s/attr", c.subjectDir)
	case strings.HasPrefix(kind, "unconfined"), kind == "spc_t":
		return fail("%q in %s", label, name)
	case strings.HasSuffix(label, "(complain)"):
		return warn("%q in %s: the profile only logs", label, name)
	}
	return pass("%q in %s", label, name)
}

func execNotElevated(c *container) verdict {
	switch {
	case c.sys.PID == 1:
		return notApplicable("it is about what is started beside PID 1, which the auditor is: docker exec CONTAINER /imagelab --audit decides it")
	case c.hostPID:
		return notApplicable("PID 1 is the host's init: not the container's own pid namespace")
	case c.self.err != nil:
		return unknown(c.self.err)
	case c.subject.err != nil:
		return unknown(c.subject.err)
	}
	uid, err := c.subject.value.effective("Uid")
	if err != nil {
		return unknown(err)
	}
	mine, err := c.self.value.mask("CapBnd")
	if err != nil {
		return unknown(err)
	}
	theirs, err := c.subject.value.mask("CapBnd")
	switch {
	case err != nil:
		return unknown(err)
	case c.sys.EUID == 0 && uid != 0 && theirs&(capSetUID|capSetGID) == capSetUID|capSetGID && mine&^theirs == 0:
		// What it was given for that shows nowhere, but exec was given no more.
		return pass("the auditor runs as uid 0, PID 1 as uid %d, which it may have become by itself; the bounding set is within PID 1's", uid)
	case c.sys.EUID == 0 && uid != 0:
		return warn("the auditor runs as uid 0, PID 1 as uid %d", uid)
	case mine&^theirs != 0:
		return warn("the auditor's bounding set has more than PID 1's: %s", strings.Join(capabilityList(mine&^theirs), " "))
	}
	return pass("uid %d and bounding set are within PID 1's", c.sys.EUID)
}
