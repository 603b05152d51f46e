package probe

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strings"
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
	TLS     bool          // the certificate has to be of the host in Addrs[0]
}

const acceptedURLs = "want http://, https://, tcp://host:port or unix:///path/of.sock[:/http/path]"

// Parse reads a URL: http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH],
// tcp://HOST:PORT or unix:///PATH/OF.SOCK[:/HTTP/PATH]. For tcp, and for unix without
// an HTTP path, a connection is enough. An error says what would have been accepted,
// and shows no password.
func Parse(raw string) (Target, error) {
	if strings.HasPrefix(raw, "-") {
		return Target{}, fmt.Errorf("%q is not a URL: flags come before the URLs", raw)
	}
	if rest, ok := strings.CutPrefix(raw, "unix://"); ok {
		socket, path, _ := strings.Cut(rest, ":")
		if !strings.HasPrefix(socket, "/") {
			return Target{}, fmt.Errorf("%q: %s", Redacted(raw), acceptedURLs)
		}
		t := Target{Name: raw, Network: "unix", Addrs: []string{socket}, Host: "localhost"}
		if path != "" {
			u, err := url.ParseRequestURI(path)
			if err != nil {
				return Target{}, fmt.Errorf("%q: %s", Redacted(raw), acceptedURLs)
			}
			t.Path = u.RequestURI()
		}
		return t, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return Target{}, fmt.Errorf("%q does not parse: %s", Redacted(raw), acceptedURLs)
	}
	t := Target{Name: u.Redacted(), Network: "tcp", Host: u.Host, User: u.User}
	port := u.Port()
	switch {
	case u.Hostname() == "":
		return Target{}, fmt.Errorf("%q has no host: %s", Redacted(raw), acceptedURLs)
	case u.Scheme == "tcp" && port == "":
		return Target{}, fmt.Errorf("%q has no port: %s", Redacted(raw), acceptedURLs)
	case u.Scheme == "tcp":
	case u.Scheme == "http":
		t.Path, port = u.RequestURI(), cmp.Or(port, "80")
	case u.Scheme == "https":
		t.Path, port, t.TLS = u.RequestURI(), cmp.Or(port, "443"), true
	default:
		return Target{}, fmt.Errorf("%q: %s", Redacted(raw), acceptedURLs)
	}
	t.Addrs = []string{net.JoinHostPort(u.Hostname(), port)}
	return t, nil
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
	if !found { // it was forgotten
		return "xxxxx" + raw[at:]
	}
	return scheme + "://xxxxx" + raw[at:]
}
