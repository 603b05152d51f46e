package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

func sshdAbsent(c *container) verdict {
	switch {
	case c.hostPID:
		return notApplicable("the processes of the host are seen: not the container's own pid namespace")
	case c.processes.err != nil:
		return unknown(c.processes.err)
	}
	for _, p := range c.processes.value {
		for _, name := range []string{p.comm, c.programName(p.pid)} { // that of busybox is busybox
			switch name {
			case "sshd", "dropbear", "telnetd", "in.telnetd":
				return fail("process %d is %s", p.pid, name)
			}
		}
	}
	return pass("not among %s in /proc", plural(len(c.processes.value), "process", "processes"))
}

func listeningPorts(c *container) verdict {
	if c.inHostNetwork() {
		return notApplicable("the ports of the host are seen: not the container's own network namespace")
	}
	var low, all []int
	for _, name := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		data, err := c.read(name)
		if isAbsent(err) && name == "/proc/self/net/tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return unknown(err)
		}
		for line := range strings.Lines(string(data)) {
			port, ok := listener(line)
			if !ok {
				continue
			}
			all = append(all, port)
			if port < 1024 {
				low = append(low, port)
			}
		}
	}
	slices.Sort(low)
	low = slices.Compact(low)
	if len(low) > 0 {
		return warn("listening on %v beyond the loopback, in /proc/self/net/tcp and tcp6", low)
	}
	return pass("none among %s beyond the loopback, in /proc/self/net/tcp and tcp6", plural(len(all), "listener"))
}

// listener returns the port of a line of /proc/net/tcp or tcp6 that listens on
// more than the loopback. Addresses are hexadecimal, four bytes at a time in
// the order of a little-endian machine.
func listener(line string) (port int, ok bool) {
	const listen = "0A"
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] != listen {
		return 0, false
	}
	address, portText, _ := strings.Cut(fields[1], ":")
	n, err := strconv.ParseUint(portText, 16, 16)
	if err != nil || len(address)%8 != 0 {
		return 0, false
	}
	var raw []byte
	for i := 0; i < len(address); i += 8 {
		word, err := strconv.ParseUint(address[i:i+8], 16, 32)
		if err != nil {
			return 0, false
		}
		raw = append(raw, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok || ip.Unmap().IsLoopback() {
		return 0, false
	}
	return int(n), true
}

func defaultBridgeNetwork(c *container) verdict {
	switch {
	case c.kubernetes:
		return notApplicable("Kubernetes: the network is the cluster's")
	case !slices.Contains([]string{"", "docker"}, c.runtime()):
		return notApplicable("%s: there is no docker0", c.runtime())
	case c.inHostNetwork():
		return notApplicable("the host's network namespace has no bridge of its own")
	}
	interfaces, err := c.interfaces()
	if err != nil {
		return unknown(err)
	}
	if !slices.ContainsFunc(interfaces, func(name string) bool { return strings.HasPrefix(name, "eth") }) {
		return notApplicable("no network interface but %s", fmt.Sprint(interfaces))
	}
	resolv, err := c.read("/etc/resolv.conf")
	if err != nil {
		return unknown(err)
	}
	for line := range strings.Lines(string(resolv)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "nameserver" && fields[1] == "127.0.0.11" {
			return pass("Docker's resolver of user-defined networks in /etc/resolv.conf")
		}
	}
	return warn("an interface, and no nameserver 127.0.0.11 in /etc/resolv.conf as on every user-defined network")
}
