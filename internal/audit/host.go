package audit

import (
	"io/fs"
	"slices"
)

// OnHost says whether the process runs in no container at all, where a walk
// through the root filesystem would read somebody's machine. That is so in the
// host's pid namespace with the mounts of the host's init: a container has a pid
// namespace of its own, or with --pid host at least mounts of its own. What
// cannot be read counts as a container.
func (s *System) OnHost() bool {
	c := &container{sys: s}
	if host, err := c.inHostNamespace("pid"); err != nil || !host {
		return false
	}
	own, err := fs.ReadFile(s.FS, "proc/self/mountinfo")
	if err != nil {
		return false
	}
	init, err := fs.ReadFile(s.FS, "proc/1/mountinfo")
	return err == nil && slices.Equal(own, init)
}
