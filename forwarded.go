package main

import (
	"cmp"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// request makes what is sent to the upstream of what has come from the client.
func (p *passage) request() {
	r := p.r
	req := &p.req
	req.Method, req.Host, req.Header = r.Method, cmp.Or(r.Host, "localhost"), r.Header // HTTP/1.0 needs no Host
	req.Target = r.RequestURI
	if !strings.HasPrefix(req.Target, "/") && req.Target != "*" {
		req.Target = originForm(req.Target)
	}
	req.Upgrade, req.TakesTrailers = "", false
	p.stripConnection()
	p.forwarded()
	p.requestBody()
}

// originForm is the path and query of a whole URL (RFC 9112, 3.2.1 and 3.2.2).
func originForm(target string) string {
	_, rest, _ := strings.Cut(target, "://")
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// stripConnection takes the fields out that were for this connection alone, and reads what
// they say (RFC 9110, 7.6.1). internal/upstream leaves out those that always are.
func (p *passage) stripConnection() {
	h := p.r.Header
	for _, value := range h["Connection"] {
		for option := range strings.SplitSeq(value, ",") {
			option = http.CanonicalHeaderKey(strings.Trim(option, " \t"))
			switch option {
			case "", "Close", "Keep-Alive":
			case "Upgrade":
				if p.r.ProtoAtLeast(1, 1) {
					p.req.Upgrade = strings.Join(h["Upgrade"], ", ")
				}
			case "Te":
				p.req.TakesTrailers = hasToken(h["Te"], "trailers")
			default:
				// A client must not take out what a proxy before it has put in.
				if !isForwarded(option) {
					delete(h, option)
				}
			}
		}
	}
}

// hasToken says whether a list has a member, parameters aside.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for member := range strings.SplitSeq(value, ",") {
			member, _, _ = strings.Cut(member, ";")
			if strings.EqualFold(strings.Trim(member, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// isForwarded says whether a field tells who asked for what, before a proxy.
func isForwarded(name string) bool {
	return strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || name == "X-Real-Ip"
}

// stripForged takes out what a client says itself of who asked for what, unless it is trusted.
// Programs take "_" for "-", as CGI does (RFC 3875, 4.1.18), so that a name with one may stand
// for any of these; and Proxy for a variable that many libraries believe.
func stripForged(h http.Header, trusted bool) {
	for name := range h {
		switch {
		case name[0] == 'X' || name[0] == 'F':
			if !trusted && isForwarded(name) {
				delete(h, name)
			}
		case name == "Proxy":
			delete(h, name)
		}
		if strings.IndexByte(name, '_') >= 0 {
			meant := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
			if isForwarded(meant) || meant == "Content-Length" || meant == "Transfer-Encoding" || meant == "Proxy" {
				delete(h, name)
			}
		}
	}
}

// trailer returns the request's trailers. Programs may take those for fields of the header, so
// that they are stripped like it.
func (p *passage) trailer() http.Header {
	stripForged(p.r.Trailer, p.trusted)
	return p.r.Trailer
}

// forwarded says who asked for what. What a client says of that itself is believed of
// Config.TrustedProxies only.
func (p *passage) forwarded() {
	h := p.r.Header
	client, _, err := net.SplitHostPort(p.r.RemoteAddr)
	if err != nil {
		client = p.r.RemoteAddr
	}
	trusted := p.f.trusted.contain(client)
	p.trusted = trusted
	stripForged(h, trusted)
	if trusted {
		if before := h["X-Forwarded-For"]; len(before) > 0 {
			client = strings.Join(before, ", ") + ", " + client
		}
	}
	values := []string{client, "http", p.r.Host}
	if p.r.TLS != nil {
		values[1] = "https"
	}
	h["X-Forwarded-For"] = values[0:1:1]
	if len(h["X-Forwarded-Proto"]) == 0 {
		h["X-Forwarded-Proto"] = values[1:2:2]
	}
	if len(h["X-Forwarded-Host"]) == 0 && p.r.Host != "" {
		h["X-Forwarded-Host"] = values[2:3:3]
	}
}

// prefixList are networks.
type prefixList []netip.Prefix

// UnmarshalText reads prefixes and single addresses, with commas between.
func (l *prefixList) UnmarshalText(text []byte) error {
	*l = nil
	for item := range strings.SplitSeq(string(text), ",") {
		item = strings.TrimSpace(item)
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			addr, err := netip.ParseAddr(item)
			if err != nil || addr.Zone() != "" {
				return errors.New("not a network")
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix != prefix.Masked() {
			return errors.New("an address within a network")
		}
		*l = append(*l, prefix)
	}
	return nil
}

// contain says whether an address is in one of them.
func (l prefixList) contain(address string) bool {
	if len(l) == 0 {
		return false
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, prefix := range l {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}
