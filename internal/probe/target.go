package probe

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"imagelab/internal/early"
)

// A Target is one thing to probe. Parse makes it from a URL. A program that knows
// more than a URL says, such as a second address, can fill it in itself.
type Target struct {
	Name    string        // what the verdict calls it: the URL, without its password
	Network string        // "tcp" or "unix"
	Addrs   []string      // host:port, or a socket's path; tried in this order until one accepts
	Host    string        // the Host header
	Path    string        // of the request, with its query; empty means that a connection is enough
	User    *url.Userinfo // sent as Basic authorization; nil for none
	TLS     bool          // the certificate has to be of Host, or of the Host in Options.Headers
}

const (
	acceptedURLs = "want http://, https://, tcp://host:port or unix:///path/of.sock[:/http/path]"

	// maxQuoted bounds what an error quotes of a URL, in bytes, so that the rest of
	// the sentence fits into a verdict.
	maxQuoted = 60

	// maxSocketPath is what fits into a sockaddr_un with its end (unix(7)).
	maxSocketPath = 107
)

// Parse reads a URL: http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH],
// tcp://HOST:PORT or unix:///PATH/OF.SOCK[:/HTTP/PATH]. For tcp, and for unix without
// an HTTP path, a connection is enough. What a path or query may not have is
// percent-encoded, such as a space, and a fragment is dropped (RFC 3986, 3.4 and 3.5).
// The zone of an IPv6 address may be written with % or %25 (RFC 6874).
// An error says what would have been accepted, and shows no password.
func Parse(raw string) (Target, error) {
	scheme, rest, found := strings.Cut(raw, "://")
	scheme = strings.ToLower(scheme)
	if strings.HasPrefix(raw, "-") {
		return Target{}, fmt.Errorf("%s is not a URL: flags come before the URLs", quote(raw))
	}
	if strings.ContainsFunc(raw, isControl) {
		return Target{}, refuse(raw, "has a control character", "")
	}
	if !found {
		return Target{}, refuse(raw, "is not a URL", guess(raw))
	}
	if scheme == "unix" {
		return parseUnix(raw, rest)
	}
	return parseTCP(raw, scheme, rest)
}

// parseTCP parses what comes after http://, https:// or tcp://.
func parseTCP(raw, scheme, rest string) (Target, error) {
	port, known := map[string]string{"http": "80", "https": "443", "tcp": ""}[scheme]
	if !known {
		return Target{}, refuse(raw, "has an unknown scheme", "")
	}
	authority, path := rest, ""
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority, path = rest[:end], requestPath(rest[end:])
	}
	u, err := url.Parse(scheme + "://" + escapeZone(authority))
	if err != nil {
		if strings.Contains(authority, "::") && !strings.Contains(authority, "[") {
			return Target{}, fmt.Errorf("%s does not parse: an IPv6 address has brackets, as in http://[::1]:8000/", quote(raw))
		}
		return Target{}, refuse(raw, "does not parse", "")
	}
	if u.Hostname() == "" {
		instead := ""
		if authority == "" || authority[0] == ':' {
			instead = scheme + "://127.0.0.1" + rest
		}
		return Target{}, refuse(raw, "has no host", instead)
	}
	if strings.ContainsFunc(u.Host, isBeyondASCII) {
		return Target{}, fmt.Errorf("%s has a host that is not ASCII: write it as DNS does, such as xn--bcher-kva.example",
			quote(raw))
	}
	port = cmp.Or(u.Port(), port)
	if port == "" {
		return Target{}, refuse(raw, "has no port", "")
	}
	if n, valid := early.ParsePort(port); !valid || n == 0 {
		return Target{}, fmt.Errorf("%s has a port out of range: want one from 1 to 65535", quote(raw))
	}
	t := Target{Name: u.Redacted() + path, Network: "tcp", Host: hostField(u), User: u.User, TLS: scheme == "https"}
	t.Addrs = []string{net.JoinHostPort(u.Hostname(), port)}
	if scheme != "tcp" {
		t.Path = "/" + strings.TrimPrefix(path, "/")
	} else if path != "" && path != "/" {
		return Target{}, refuse(raw, "has a path, and tcp:// only connects", "http://"+rest)
	}
	return t, nil
}

// parseUnix parses what comes after unix://.
func parseUnix(raw, rest string) (Target, error) {
	socket, path, hasPath := strings.Cut(rest, ":")
	if !strings.HasPrefix(socket, "/") {
		return Target{}, refuse(raw, "has no absolute path", "")
	}
	if len(socket) > maxSocketPath {
		return Target{}, fmt.Errorf("%s names a socket by %d bytes: want at most %d", quote(raw), len(socket), maxSocketPath)
	}
	if hasPath && !strings.HasPrefix(path, "/") {
		return Target{}, refuse(raw, "has an HTTP path without /", "unix://"+socket+":/"+path)
	}
	t := Target{Name: "unix://" + socket, Network: "unix", Addrs: []string{socket}, Host: "localhost"}
	if hasPath {
		t.Path = requestPath(path)
		t.Name += ":" + t.Path
	}
	return t, nil
}

// hostField is the Host header: without the zone of an address, which means something
// on this machine alone (RFC 6874, 4), and without the colon of a port that is empty.
func hostField(u *url.URL) string {
	before, zone, zoned := strings.Cut(u.Host, "%")
	if !zoned {
		return strings.TrimSuffix(u.Host, ":")
	}
	_, port, _ := strings.Cut(zone, "]")
	return before + strings.TrimSuffix("]"+port, ":")
}

// escapeZone writes the zone of an address as net/url wants it, [fe80::1%25eth0].
func escapeZone(authority string) string {
	host := strings.LastIndexByte(authority, '[') + 1
	address, zone, zoned := strings.Cut(authority[host:], "%")
	if host == 0 || !zoned || strings.HasPrefix(zone, "25") {
		return authority
	}
	return authority[:host] + address + "%25" + zone
}

// requestPath returns the path and query of a URL as a request line may have them.
func requestPath(s string) string {
	s, _, _ = strings.Cut(s, "#")
	var b strings.Builder
	for i := range len(s) {
		if isURIByte(s[i]) || s[i] == '%' && isEscape(s[i:]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// isURIByte says whether a path or a query may have c as it is (RFC 3986, 3.3 and 3.4).
func isURIByte(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("-._~!$&'()*+,;=:@/?", c) >= 0
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isEscape says whether s begins with % and two hexadecimal digits.
func isEscape(s string) bool {
	if len(s) < 3 {
		return false
	}
	_, err := strconv.ParseUint(s[1:3], 16, 8)
	return err == nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func isBeyondASCII(r rune) bool { return r > 0x7f }

// guess returns the URL that somebody may mean who writes raw, which has no ://.
func guess(raw string) string {
	if ip, err := netip.ParseAddr(raw); err == nil && ip.Is6() {
		return "http://[" + raw + "]/"
	}
	for _, scheme := range []string{"https", "http", "tcp", "unix"} {
		if len(raw) < len(scheme) || !strings.EqualFold(raw[:len(scheme)], scheme) {
			continue
		}
		rest := raw[len(scheme):]
		if bare := strings.TrimLeft(rest, ":/"); len(bare) < len(rest) {
			if scheme == "unix" {
				bare = "/" + bare
			}
			return scheme + "://" + bare
		}
	}
	_, port := early.ParsePort(raw)
	switch {
	case strings.HasPrefix(raw, "/") && strings.HasSuffix(raw, ".sock"):
		return "unix://" + raw
	case strings.HasPrefix(raw, "/"):
		return "http://127.0.0.1:8000" + raw
	case port:
		return "http://127.0.0.1:" + raw + "/"
	case strings.HasPrefix(raw, ":"):
		raw = "127.0.0.1" + raw
	}
	if !strings.Contains(raw, "/") {
		raw += "/"
	}
	return "http://" + raw
}

// refuse is the error for a URL with a fault. It says what to write, where Parse
// would take that.
func refuse(raw, fault, instead string) error {
	if _, err := Parse(instead); instead != "" && err == nil {
		return fmt.Errorf("%s %s: want %s", quote(raw), fault, shorten(Redacted(instead), maxQuoted))
	}
	return fmt.Errorf("%s %s: %s", quote(raw), fault, acceptedURLs)
}

// quote shows a URL that is wrong.
func quote(raw string) string { return strconv.Quote(shorten(Redacted(raw), maxQuoted)) }

// shorten cuts s in the middle, so that it has at most limit bytes.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	half := (limit - len("...")) / 2
	return strings.ToValidUTF8(s[:half], "") + "..." + strings.ToValidUTF8(s[len(s)-half:], "")
}

// Redacted returns a URL without what may be its user and password, for a message.
// Unlike url.URL.Redacted it takes a URL that does not parse: a character such as /
// in a password is the usual reason why it does not.
func Redacted(raw string) string {
	at := strings.LastIndexByte(raw, '@')
	if at < 0 {
		return raw
	}
	scheme, _, found := strings.Cut(raw[:at], "://")
	if !found {
		return "xxxxx" + raw[at:]
	}
	return scheme + "://xxxxx" + raw[at:]
}
