package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

func userNamespace(c *container) verdict {
	const name = "/proc/self/uid_map"
	data, err := c.line(name)
	if err != nil {
		return unknown(err)
	}
	for line := range strings.Lines(data) {
		ids := strings.Fields(line) // first inside, first outside, how many
		if len(ids) != 3 {
			return unknown(fmt.Errorf("%s: %q is no mapping", name, line))
		}
		if ids[0] == "0" && ids[1] == "0" {
			return warn("uid 0 here is uid 0 on the host in %s (an engine setting)", name)
		}
	}
	if data == "" {
		return unknown(errors.New(name + ": no mapping"))
	}
	return pass("uid 0 is another one outside in %s", name)
}

func pidNamespace(c *container) verdict {
	v := c.namespace("pid", fail)
	if v.status == Pass && c.foreignPID {
		return warn("another container's: PID 1 has other mounts than the auditor (/proc/1/mountinfo)")
	}
	return v
}

// ipcNamespace: Docker mounts /dev/shm of a private namespace right after
// /dev/mqueue, before all else, and one that came from outside among the binds.
func ipcNamespace(c *container) verdict {
	v := c.namespace("ipc", fail)
	if v.status != Pass || c.kubernetes || !c.exists("/.dockerenv") {
		return v
	}
	queue := slices.IndexFunc(c.mountLines.value, func(m mount) bool { return m.point == "/dev/mqueue" })
	memory := slices.IndexFunc(c.mountLines.value, func(m mount) bool { return m.point == "/dev/shm" && m.source == "shm" })
	if queue >= 0 && memory > queue+1 {
		return warn("not the host's, but /dev/shm came from outside (/proc/self/mountinfo): shareable, or another container's")
	}
	if memory >= 0 && queue > memory {
		return warn("not the host's, but the message queues of /dev/mqueue came from outside (/proc/self/mountinfo)")
	}
	return v
}

func utsNamespace(c *container) verdict { return c.namespace("uts", fail) }

// cgroupNamespace only warns: it hides names, and engines on cgroup v1 share
// the host's by default.
func cgroupNamespace(c *container) verdict { return c.namespace("cgroup", warn) }

func networkNamespace(c *container) verdict {
	v := c.namespace("net", fail)
	if v.status != Pass {
		return v
	}
	// Older kernels number the host's network namespace as any other one, but
	// only the host has the other ends of the bridges.
	interfaces, err := c.interfaces()
	if err != nil {
		return unknown(err)
	}
	for _, name := range interfaces {
		if name == "docker0" || name == "cni0" || strings.HasPrefix(name, "br-") || strings.HasPrefix(name, "veth") {
			return warn("interface %s in /proc/self/net/dev, as on a host", name)
		}
	}
	if id := c.otherContainer(); id != "" {
		return warn("not the host's, but another container's: /etc/hosts is of container %s (/proc/self/mountinfo)", id[:12])
	}
	return v
}

// otherContainer returns the id of the container whose /etc/hosts this one has, as
// those that share a network namespace do, where the own id is known and another.
func (c *container) otherContainer() string {
	hosts, mounted := c.mountAt("/etc/hosts")
	id := containerIn(hosts.root)
	if !mounted || id == "" {
		return ""
	}
	for _, p := range c.cgroups.value {
		if own := containerIn(p); own != "" && own != id {
			return id
		}
	}
	return ""
}

// containerIn returns the id of a container that is a part of the path, or "".
func containerIn(name string) string {
	for part := range strings.SplitSeq(name, "/") {
		part = strings.TrimSuffix(part, ".scope") // docker-ID.scope, kubepods-PODS:cri-containerd:ID
		part = part[strings.LastIndexAny(part, "-:")+1:]
		if isContainerID(part) {
			return part
		}
	}
	return ""
}

// namespace gives the verdict found where the namespace is the host's.
func (c *container) namespace(kind string, found func(string, ...any) verdict) verdict {
	host, err := c.inHostNamespace(kind)
	switch {
	case err != nil:
		return unknown(err)
	case host:
		return found("/proc/self/ns/%s is the host's (inode %s)", kind, initialNamespaces[kind])
	}
	return pass("/proc/self/ns/%s is not the host's", kind)
}

// interfaces returns the names of the network interfaces.
func (c *container) interfaces() ([]string, error) {
	data, err := c.read("/proc/self/net/dev")
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		// Two lines of headings have no colon.
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names, nil
}

// hasOwnNetwork says whether the network namespace is certainly not the host's.
func (c *container) hasOwnNetwork() bool {
	host, err := c.inHostNamespace("net")
	return err == nil && !host && !c.inHostNetwork()
}

// inHostNetwork says whether the network namespace is the host's, or looks so.
func (c *container) inHostNetwork() bool {
	s := networkNamespace(c).status
	return s == Fail || s == Warn && c.otherContainer() == ""
}
