package audit

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// sigtermBit is SIGTERM (15) in the masks of /proc/PID/status.
const sigtermBit = 1 << 14

// isInit says whether the name is one of a program made to be PID 1, which
// passes SIGTERM on and reaps. Some of them show nothing of it in their masks:
// tini waits in sigtimedwait(2).
func isInit(name string) bool {
	switch name {
	case "docker-init", "podman-init", "tini", "tini-static", "dumb-init", "catatonit", "s6-svscan", "runsvdir", "pause", "systemd":
		return true
	}
	return false
}

func isShell(name string) bool {
	switch name {
	case "sh", "bash", "ash", "dash", "zsh", "ksh":
		return true
	}
	return false
}

// withoutOwnPID1 returns the verdict of checks on PID 1 where PID 1 is not the
// container's program, and whether it applies.
func (c *container) withoutOwnPID1() (verdict, bool) {
	switch {
	case c.auditorIsPID1():
		return notApplicable("the auditor is PID 1, in the place of the container's program"), true
	case c.hostPID:
		return notApplicable("PID 1 is the host's init: not the container's own pid namespace"), true
	case c.first == 0:
		return notApplicable("PID 1 is another container's, and this one has no process but the auditor"), true
	}
	return verdict{}, false
}

func procDir(pid int) string { return fmt.Sprintf("/proc/%d", pid) }

// commandLine returns the arguments of a process; nil where unreadable.
func (c *container) commandLine(pid int) []string {
	data, err := c.read(procDir(pid) + "/cmdline")
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// programName returns the name a process was started by, without directory:
// argv[0], for busybox the applet. A login shell has a dash in front.
func (c *container) programName(pid int) string {
	argv := c.commandLine(pid)
	if len(argv) == 0 {
		return ""
	}
	name := strings.TrimPrefix(path.Base(argv[0]), "-")
	if name == "busybox" && len(argv) > 1 {
		name = path.Base(argv[1])
	}
	return name
}

// children returns the processes under pid, zombies aside. The auditor and what
// docker exec started have parent 0.
func (c *container) children(pid int) []int {
	var pids []int
	for _, p := range c.processes.value {
		if p.ppid == pid && p.state != 'Z' {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// mainProcess returns the process that the container is for: PID 1, or the
// first child of an init.
func (c *container) mainProcess() int {
	if isInit(c.programName(c.first)) {
		if children := c.children(c.first); len(children) > 0 {
			return children[0]
		}
	}
	return c.first
}

// pid1Sigterm: behind an init, or in another container's pid namespace, the program
// is no PID 1, and a signal without a handler has its default action, which is to
// end it.
func pid1Sigterm(c *container) verdict {
	if v, stop := c.withoutOwnPID1(); stop {
		return v
	}
	name, program := c.program()
	if program.err != nil {
		return unknown(program.err)
	}
	for _, set := range []struct {
		field string
		yes   func(string, ...any) verdict
		text  string
	}{
		{"SigIgn", fail, "SIGTERM is ignored"},
		{"SigCgt", pass, "SIGTERM has a handler"},
		{"SigBlk", pass, "SIGTERM is blocked, as for signalfd(2)"},
	} {
		mask, err := program.value.mask(set.field)
		if err != nil {
			return unknown(err)
		}
		if mask&sigtermBit != 0 {
			if set.field == "SigCgt" && c.mainProcess() == c.first && !c.foreignPID && c.programName(c.first) == "node" {
				return warn("SIGTERM has a handler (SigCgt in %s/status), but that may be node's own, "+
					"which only puts the terminal back and leaves the rest to a default action that PID 1 has not", name)
			}
			return set.yes("%s (%s in %s/status)", set.text, set.field, name)
		}
	}
	init := c.programName(c.first)
	switch {
	case c.mainProcess() != c.first:
		return pass("%s forwards SIGTERM to a program that ends by it, in %s/status", init, name)
	case isInit(init):
		return pass("PID 1 is %s, an init that forwards signals", init)
	case c.foreignPID:
		return pass("not PID 1 of its namespace, so SIGTERM ends it, in %s/status", name)
	}
	return fail("SIGTERM is neither handled nor blocked in %s/status, and PID 1 has no default action", name)
}

func pid1NotShell(c *container) verdict {
	if v, stop := c.withoutOwnPID1(); stop {
		return v
	}
	if _, err := c.read(c.subjectDir + "/cmdline"); err != nil {
		return unknown(err)
	}
	pids := []int{c.first}
	if isInit(c.programName(c.first)) {
		if c.processes.err != nil {
			return unknown(c.processes.err)
		}
		pids = append(pids, c.children(c.first)...)
	}
	for _, pid := range pids {
		name := c.programName(pid)
		if !isShell(name) {
			continue
		}
		s := c.statusOf(procDir(pid))
		caught, err := s.value.mask("SigCgt")
		if s.err == nil && err == nil && caught&sigtermBit != 0 {
			return warn("process %d is %s, with a trap for SIGTERM", pid, name)
		}
		return fail("process %d is %s (/proc/%d/cmdline)", pid, name, pid)
	}
	return pass("PID %d is %s (%s/cmdline)", c.first, c.programName(c.first), c.subjectDir)
}

// zombieReaping also names zombies whose parent lives: those are the parent's
// fault and not PID 1's.
func zombieReaping(c *container) verdict {
	if c.hostPID || c.foreignPID {
		return notApplicable("PID 1 is not the container's own: it is in another's pid namespace, or in the host's")
	}
	if c.processes.err != nil {
		return unknown(c.processes.err)
	}
	var orphans, others []string
	for _, z := range c.zombies {
		if z.ppid == 1 {
			orphans = append(orphans, fmt.Sprintf("%d (%s)", z.pid, z.comm))
		} else if i := slices.IndexFunc(c.processes.value, func(p process) bool { return p.pid == z.ppid }); i >= 0 {
			others = append(others, fmt.Sprintf("%d (%s) of its living parent %d (%s)", z.pid, z.comm, z.ppid, c.processes.value[i].comm))
		}
	}
	evidence := "no process of PID 1 stays a zombie"
	if len(orphans) > 0 {
		evidence = plural(len(orphans), "zombie") + " that PID 1 does not reap: " + strings.Join(firstFew(orphans), ", ")
	}
	if len(others) > 0 {
		evidence += "; zombies that their own parent does not reap: " + strings.Join(firstFew(others), ", ")
	}
	if len(orphans) > 0 {
		return warn("%s", evidence)
	}
	return pass("%s (%s in /proc)", evidence, plural(len(c.processes.value), "process", "processes"))
}

// firstFew cuts a list that may be long.
func firstFew(list []string) []string {
	if len(list) > maxPaths {
		return append(slices.Clip(list[:maxPaths]), "…")
	}
	return list
}
