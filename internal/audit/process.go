package audit

import (
	"errors"
	"slices"
	"strings"
	"syscall"
)

func runAsNonRoot(c *container) verdict {
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	uid, err := c.subject.value.effective("Uid")
	switch {
	case err != nil:
		return unknown(err)
	case uid == 0:
		return fail("effective uid 0 in %s/status", c.subjectDir)
	}
	return pass("effective uid %d in %s/status", uid, c.subjectDir)
}

func nonRootGroup(c *container) verdict {
	if c.subject.err != nil {
		return unknown(c.subject.err)
	}
	gid, err := c.subject.value.effective("Gid")
	if err != nil {
		return unknown(err)
	}
	groups, err := c.subject.value.ids("Groups")
	switch {
	case err != nil:
		return unknown(err)
	case gid == 0:
		return fail("primary group 0 in %s/status", c.subjectDir)
	case slices.Contains(groups, 0):
		return fail("supplementary group 0 in %s/status", c.subjectDir)
	}
	return pass("effective gid %d, groups %v in %s/status", gid, groups, c.subjectDir)
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
	case slices.Contains(rules, "a *:* rwm"):
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
	case value == "1":
		return pass("NoNewPrivs 1 in %s/status", c.subjectDir)
	default:
		return fail("NoNewPrivs %s in %s/status", value, c.subjectDir)
	}
}

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
	if c.sys.Keyctl == nil || c.self.value["Seccomp"] != "2" {
		return unknown(errors.New("there is a filter, but the auditor does not run under it and cannot try it"))
	}
	if err := c.sys.Keyctl(); err == nil || errors.Is(err, syscall.EOPNOTSUPP) {
		return warn("Seccomp 2 (filter) in %s/status, but keyctl(2) gets through: the profile allows what default profiles refuse", c.subjectDir)
	}
	return pass("Seccomp 2 (filter) in %s/status, and keyctl(2) is refused", c.subjectDir)
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
	case c.sys.EUID == 0 && uid != 0:
		return warn("the auditor runs as uid 0, PID 1 as uid %d", uid)
	case mine&^theirs != 0:
		return warn("the auditor's bounding set has more than PID 1's: %s", strings.Join(capabilityList(mine&^theirs), " "))
	}
	return pass("uid %d and bounding set are within PID 1's", c.sys.EUID)
}
