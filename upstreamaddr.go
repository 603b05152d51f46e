package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"imagelab/internal/early"
)

// upstreamAddr is where requests are passed on to. The zero value is nowhere.
type upstreamAddr struct {
	auto             bool   // a free port for each generation of the command
	network, address string // as net.Dial takes them
}

// UnmarshalText reads a port, an http:// URL, unix:// with a path, or auto.
func (u *upstreamAddr) UnmarshalText(text []byte) error {
	s := string(text)
	*u = upstreamAddr{}
	if s == "auto" {
		u.auto = true
		return nil
	}
	if _, ok := early.ParsePort(s); ok {
		*u = upstreamAddr{network: "tcp", address: net.JoinHostPort("127.0.0.1", s)}
		return u.check()
	}
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		// A path of the kernel's is bounded (unix(7)).
		if !strings.HasPrefix(path, "/") || len(path) > 107 || strings.ContainsRune(path, 0) {
			return errors.New("not a path")
		}
		*u = upstreamAddr{network: "unix", address: path}
		return nil
	}
	parsed, err := url.Parse(s)
	if err != nil || parsed.Scheme != "http" || parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "" ||
		parsed.Path != "" && parsed.Path != "/" || parsed.Hostname() == "" {
		return errors.New("not an upstream")
	}
	port := parsed.Port()
	if port == "" {
		port = "80"
	}
	*u = upstreamAddr{network: "tcp", address: net.JoinHostPort(parsed.Hostname(), port)}
	return u.check()
}

// check says whether the port is one.
func (u *upstreamAddr) check() error {
	_, port, _ := net.SplitHostPort(u.address)
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return errors.New("not a port")
	}
	return nil
}

func (u upstreamAddr) isSet() bool { return u.auto || u.network != "" }

// isHere says whether the upstream is on this machine, as far as its name tells.
func (u upstreamAddr) isHere() bool {
	host, _, _ := net.SplitHostPort(u.address)
	return u.network != "tcp" || isLoopback(host) || !isSpecific(host)
}

// listensOn says whether requests would be passed on to a listener on that host, which may
// be empty for all addresses, and port.
func (u upstreamAddr) listensOn(host, port string) bool {
	theirs, theirPort, err := net.SplitHostPort(u.address)
	if u.network != "tcp" || err != nil || port == "0" || theirPort != port {
		return false
	}
	return u.isHere() && (host == "" || !isSpecific(host) || isLoopback(host)) || host == theirs
}

// isSpecific says whether a listener on that host takes connections to one address only.
func isSpecific(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err != nil || !addr.IsUnspecified()
}

// upstreamErrors are what is wrong with IMAGELAB_UPSTREAM beside other variables.
func upstreamErrors(cfg Config, vars []variable, hasCommand bool, refused map[string]bool) []error {
	var errs []error
	u := cfg.Upstream
	if u.auto && !hasCommand {
		errs = append(errs, fmt.Errorf("%s needs a command, as in imagelab -- COMMAND: want a port, http://host:port or "+
			"unix:///path.sock without one", named(vars, "IMAGELAB_UPSTREAM").shown()))
	}
	if !refused["PORT"] && u.listensOn(cfg.BindAddress, strconv.Itoa(cfg.Port)) {
		errs = append(errs, fmt.Errorf("%s is where the app listener is, %s: want another port",
			named(vars, "IMAGELAB_UPSTREAM").shown(), named(vars, "PORT").shown()))
	}
	if host, port, err := net.SplitHostPort(cfg.OpsAddr); err == nil && !refused["IMAGELAB_OPS_ADDR"] && u.listensOn(host, port) {
		errs = append(errs, fmt.Errorf("%s is where the ops listener is, %s: want another port",
			named(vars, "IMAGELAB_UPSTREAM").shown(), named(vars, "IMAGELAB_OPS_ADDR").shown()))
	}
	return errs
}
