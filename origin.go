package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// A guard keeps pages of other origins from using a browser as their way to the ops
// paths. A browser is not the operator: it stands in the operator's network, and sends
// what any page tells it to. Programs that are no browser are not concerned.
type guard struct {
	// token says that the paths ask for one. A page of another name for this address
	// (DNS rebinding) does not have it, so any Host may be asked for then.
	token bool
	hosts hostList
	cross *http.CrossOriginProtection

	wrongHost, wrongOrigin prometheus.Counter
}

func newGuard(cfg Config, m *metrics) *guard {
	return &guard{
		token: cfg.OpsToken != "", hosts: cfg.OpsHosts, cross: http.NewCrossOriginProtection(),
		wrongHost: m.rejected.WithLabelValues("host"), wrongOrigin: m.rejected.WithLabelValues("origin"),
	}
}

// protect refuses what a page of another origin sends, and what is sent to a name that
// may be anybody's. With visits, a link elsewhere may lead here.
//
// Browsers say who asks in Sec-Fetch-Site (w3.org/TR/fetch-metadata), but only over
// https and to localhost. Elsewhere, and older ones, say it in Origin, except for
// images, scripts and links: a page can make those requests, and cannot read the answer.
func (g *guard) protect(h http.Handler, visits bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !g.token && !g.hosts.allow(r.Host):
			g.wrongHost.Inc()
			writeError(w, http.StatusMisdirectedRequest, "host-not-allowed",
				"an IP address, localhost, a name without dots or under .local, .internal or .svc, a name in IMAGELAB_OPS_HOSTS, or IMAGELAB_OPS_TOKEN set")
		case g.foreign(r) && !(visits && isVisit(r)):
			g.wrongOrigin.Inc()
			writeError(w, http.StatusForbidden, "cross-origin",
				"a request of this server's own page (Host as in Origin), or of a client that is no browser")
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// foreign says whether a browser sent r for a page of another origin, whatever the method.
func (g *guard) foreign(r *http.Request) bool {
	asked := *r
	asked.Method = http.MethodPost // Check lets the safe methods pass
	return g.cross.Check(&asked) != nil
}

// isVisit says whether r opens a page in a tab of its own, as a link does.
func isVisit(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// The header values of every ops answer; shared, so never changed.
var (
	sameOrigin = []string{"same-origin"}
	noSniff    = []string{"nosniff"}
)

// unshared keeps the answers of h out of pages of other origins, also where such a page
// may not read them (fetch.spec.whatwg.org, Cross-Origin-Resource-Policy).
func unshared(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header["Cross-Origin-Resource-Policy"] = sameOrigin
		header["X-Content-Type-Options"] = noSniff
		h.ServeHTTP(w, r)
	})
}

// hostList is the value of IMAGELAB_OPS_HOSTS: names in lower case, of which one that
// begins with "*." stands for all names below it.
type hostList struct{ names []string }

// UnmarshalText reads names with commas between.
func (l *hostList) UnmarshalText(text []byte) error {
	l.names = nil
	for one := range strings.SplitSeq(string(text), ",") {
		name := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(one), "."))
		if strings.TrimSpace(one) == "" {
			continue
		}
		if !isHostName(strings.TrimPrefix(name, "*.")) {
			return errors.New("not a host name")
		}
		l.names = append(l.names, name)
	}
	return nil
}

// privateNames end the names that no resolver of the Internet answers for: localhost
// (RFC 6761), .local (RFC 6762), .internal (ICANN, 2024), .svc (Kubernetes).
var privateNames = []string{".localhost", ".local", ".internal", ".svc"}

// allow says whether the Host header is one by which nobody but the operator can have
// made a browser come here: none at all, which no browser sends, an address, a name that
// only a private network resolves, or one of the list.
func (l hostList) allow(header string) bool {
	if header == "" {
		return true
	}
	if _, err := netip.ParseAddr(header); err == nil {
		return true // an IPv6 address without its brackets
	}
	host, port, err := net.SplitHostPort(header)
	if err != nil { // there is no port
		host, port = header, ""
		if inner, closed := strings.CutSuffix(header, "]"); closed {
			host = strings.TrimPrefix(inner, "[")
		}
	}
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	if !isHostName(host) {
		return false
	}
	below := func(suffix string) bool { return strings.HasSuffix(host, suffix) }
	return !strings.Contains(host, ".") || slices.ContainsFunc(privateNames, below) ||
		slices.ContainsFunc(l.names, func(name string) bool {
			suffix, wild := strings.CutPrefix(name, "*")
			return host == name || wild && below(suffix)
		})
}

// isHostName says whether name, in lower case, is made of labels of letters, digits,
// dashes and underscores with dots between. Docker's names have underscores.
func isHostName(name string) bool {
	const maxName, maxLabel = 253, 63 // RFC 1035, 2.3.4
	if len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// servesPprof says whether /debug/pprof/ is served: not to everybody.
func servesPprof(cfg Config) bool { return cfg.Pprof && (cfg.OpsAddr != "" || cfg.OpsToken != "") }

// logExposure warns of what anybody who gets here can see or do without a token.
func logExposure(cfg Config, log *slog.Logger) {
	switch host, _, _ := net.SplitHostPort(cfg.OpsAddr); {
	case cfg.OpsToken != "":
	case cfg.OpsAddr == "":
		log.Warn("the ops paths are public under /-/ of the app listener; set IMAGELAB_OPS_TOKEN, or IMAGELAB_OPS_ADDR for a listener of their own",
			"pprof_not_served", cfg.Pprof)
	case cfg.Pprof && !isLoopback(host):
		log.Warn("profiles are served without a token to everybody who reaches the ops listener; set IMAGELAB_OPS_TOKEN, or publish its port on loopback only",
			"addr", cfg.OpsAddr)
	}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
