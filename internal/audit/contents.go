package audit

import (
	"path"
	"slices"
	"strings"

	"imagelab/internal/sizes"
)

// toolKind is a group of programs that an image is better without.
type toolKind int

const (
	shells toolKind = iota
	packageManagers
	interpreters
	networkClients
	toolKinds
)

// toolNames are the file names of each kind. Interpreters count with a version
// behind the name, too.
var toolNames = [toolKinds][]string{
	shells: {"sh", "bash", "ash", "dash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "busybox", "toybox"},
	packageManagers: {"apk", "apt", "apt-get", "dpkg", "yum", "dnf", "microdnf", "tdnf", "rpm", "zypper", "pacman",
		"opkg", "nix-env"},
	interpreters: {"python", "perl", "ruby", "node", "php", "lua", "java", "tclsh", "deno", "bun", "pip", "npm", "gem"},
	networkClients: {"curl", "wget", "nc", "ncat", "netcat", "socat", "telnet", "ssh", "scp", "sftp", "ftp", "tftp",
		"rsync", "nmap", "dig", "nslookup"},
}

// toolKindOf goes by the file name, wherever the file lies, except where
// distributions keep scripts and modules that are named after a tool: start
// scripts, cron jobs, bug reports, the methods of apt.
func toolKindOf(name string) (toolKind, bool) {
	for _, dir := range []string{"etc/", "usr/share/", "usr/lib/apt/"} {
		if strings.HasPrefix(name, dir) {
			return 0, false
		}
	}
	base := path.Base(name)
	for kind, names := range toolNames {
		if slices.Contains(names, base) {
			return toolKind(kind), true
		}
	}
	if slices.Contains(toolNames[interpreters], strings.TrimRight(base, "0123456789.")) {
		return interpreters, true
	}
	return 0, false
}

func shellAbsent(c *container) verdict { return c.noTools(shells, "shell", fail) }
func packageManagerAbsent(c *container) verdict {
	return c.noTools(packageManagers, "package manager", fail)
}
func interpreterAbsent(c *container) verdict { return c.noTools(interpreters, "interpreter", warn) }
func networkClientAbsent(c *container) verdict {
	return c.noTools(networkClients, "network client", fail)
}

// noTools gives the verdict found where there is any of the kind.
func (c *container) noTools(kind toolKind, name string, found func(string, ...any) verdict) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	f := &c.tree.value.tools[kind]
	if f.count > 0 {
		return c.walked(found("%s", f).found(f), c.tree.value.unreadDirs)
	}
	return c.walked(pass("no %s in %s", name, c.tree.value.extent()), c.tree.value.unreadDirs)
}

// Thresholds of executable-count and image-size. The last is the budget unless
// the system sets one.
const (
	fewExecutables  = 5
	manyExecutables = 100
	smallImage      = 50 << 20
	imageBudget     = 150_000_000
)

func executableCount(c *container) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	n := c.tree.value.executables
	verdictOf := fail
	switch {
	case n <= fewExecutables:
		verdictOf = pass
	case n <= manyExecutables:
		verdictOf = warn
	}
	return c.walked(verdictOf("%s in %s", plural(n, "executable"), c.tree.value.extent()), c.tree.value.unreadDirs)
}

func imageSize(c *container) verdict {
	if c.tree.err != nil {
		return unknown(c.tree.err)
	}
	budget := int64(imageBudget)
	if c.sys.ImageBudget > 0 {
		budget = c.sys.ImageBudget
	}
	n := c.tree.value.bytes
	verdictOf := fail
	switch {
	case n <= smallImage && n <= budget:
		verdictOf = pass
	case n <= budget:
		verdictOf = warn
	}
	return c.walked(verdictOf("%s in %s, the budget is %s", sizes.Image(float64(n)), plural(c.tree.value.files, "file"), sizes.Image(float64(budget))), c.tree.value.unreadDirs)
}

// extent says how much was looked at.
func (t *tree) extent() string {
	return plural(t.files, "file") + " of the root filesystem"
}

// walked notes what the walk could not see. Of a walk that was stopped nothing passes: what was not
// reached may be all there is.
func (c *container) walked(v verdict, unread int) verdict {
	if unread > 0 {
		v.incomplete = unread
		v.reason = plural(unread, "file or directory", "files or directories") + " could not be read by the auditor's user"
		if c.tree.err == nil && c.tree.value.cut {
			v.reason = "the walk was stopped after " + c.sys.WalkTimeout.String() + ", with " + plural(unread, "directory", "directories") + " or more to go"
			if v.status == Pass {
				v.status = Unknown
			}
		}
	}
	return v
}
