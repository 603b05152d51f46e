package audit

import "strings"

func userNamespace(c *container) verdict {
	line, err := c.line("/proc/self/uid_map")
	switch {
	case err != nil:
		return unknown(err)
	case strings.Join(strings.Fields(line), " ") == "0 0 4294967295":
		return warn("identity mapping in /proc/self/uid_map: uid 0 here is uid 0 on the host (an engine setting)")
	}
	return pass("remapped in /proc/self/uid_map")
}

func pidNamespace(c *container) verdict { return c.namespace("pid", fail) }
func ipcNamespace(c *container) verdict { return c.namespace("ipc", fail) }
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
	return v
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

// inHostNetwork says whether the network namespace is the host's, or looks so.
func (c *container) inHostNetwork() bool {
	s := networkNamespace(c).status
	return s == Fail || s == Warn
}
