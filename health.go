package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caarlos0/env/v11"

	"imagelab/internal/audit"
	"imagelab/internal/early"
)

// This file has both ends of one contract: the state that /health, /livez and
// /readyz report, and the probe that reads it.

// A state is where the process is in its life.
type state int32

const (
	starting state = iota
	ready
	draining
)

func (s state) String() string {
	return [...]string{"starting", "ready", "draining"}[s]
}

// health is the state of one process. Its methods are safe for concurrent use.
type health struct {
	started time.Time // what uptime counts from
	state   atomic.Int32
	readyIn atomic.Int64 // nanoseconds from started to ready
	closed  atomic.Bool  // by hand, through /readyz/disable

	// What the probes of /health were, in nanoseconds where it is a time; the last
	// is counted from started.
	seen, failed, last, spent, longest atomic.Int64
}

func newHealth(started time.Time) *health { return &health{started: started} }

func (h *health) set(s state) {
	if s == ready {
		h.readyIn.Store(int64(time.Since(h.started)))
	}
	h.state.Store(int32(s))
}

func (h *health) current() state { return state(h.state.Load()) }

// readiness is what /readyz says: the state, or "disabled" for a ready process
// that was closed by hand. Only "ready" means: send requests here.
func (h *health) readiness() string {
	if s := h.current(); s != ready || !h.closed.Load() {
		return s.String()
	}
	return "disabled"
}

// healthRoute answers GET /health, the contract of the Flask service: 200 and
// the uptime in seconds, or 503 while draining. It counts itself, as what a
// probe costs is a thing to know of a service that is probed every few seconds.
func (h *health) healthRoute(m *metrics) http.Handler {
	ok, closing := m.probes.WithLabelValues("ok"), m.probes.WithLabelValues("draining")
	serve := func(w http.ResponseWriter, r *http.Request) {
		began := time.Since(h.started)
		code, status, count := http.StatusOK, "ok", ok
		if h.current() == draining {
			code, status, count = http.StatusServiceUnavailable, "draining", closing
		}
		body := make([]byte, 0, 64)
		body = append(body, `{"status":"`...)
		body = append(body, status...)
		body = append(body, `","uptime":`...)
		body = strconv.AppendFloat(body, began.Seconds(), 'f', 2, 64)
		body = append(body, '}', '\n')
		writeStatus(w, r, code, body)
		count.Inc()
		took := time.Since(h.started) - began
		m.probeDuration.Observe(took.Seconds())
		h.probed(began, took, code)
	}
	return methods(map[string]http.HandlerFunc{http.MethodGet: serve, http.MethodOptions: serve})
}

// writeStatus answers a health check. One by OPTIONS, as haproxy's plain httpchk sends,
// has the status of GET and no body, as Flask's OPTIONS has none.
func writeStatus(w http.ResponseWriter, r *http.Request, code int, body []byte) {
	if r.Method == http.MethodOptions {
		w.Header()["Content-Type"] = htmlType
		w.WriteHeader(code)
		return
	}
	writeJSON(w, code, body)
}

// probed notes one request to /health for the report.
func (h *health) probed(at, took time.Duration, code int) {
	h.seen.Add(1)
	if code != http.StatusOK {
		h.failed.Add(1)
	}
	h.last.Store(int64(at))
	h.spent.Add(int64(took))
	for most := h.longest.Load(); int64(took) > most && !h.longest.CompareAndSwap(most, int64(took)); {
		most = h.longest.Load()
	}
}

// app is what the process knows of itself, for the audit's report.
func (h *health) app() *audit.App {
	app := &audit.App{Started: h.started.UTC(), StartSeconds: time.Duration(h.readyIn.Load()).Seconds()}
	if seen := h.seen.Load(); seen > 0 {
		app.Probes = &audit.ProbeSummary{
			Seen: seen, Failed: h.failed.Load(), Last: h.started.Add(time.Duration(h.last.Load())).UTC(),
			MeanSeconds: time.Duration(h.spent.Load() / seen).Seconds(),
			MaxSeconds:  time.Duration(h.longest.Load()).Seconds(),
		}
	}
	return app
}

// serveLive answers GET /livez: the process runs, whatever its state.
func (h *health) serveLive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, []byte(`{"status":"alive"}`+"\n"))
}

// serveReady answers GET /readyz: 200 when requests should come here, else 503
// and why not.
func (h *health) serveReady(w http.ResponseWriter, r *http.Request) {
	code, status := http.StatusOK, h.readiness()
	if status != ready.String() {
		code = http.StatusServiceUnavailable
	}
	writeStatus(w, r, code, []byte(`{"status":"`+status+`"}`+"\n"))
}

func (h *health) readyRoute() http.Handler {
	return methods(map[string]http.HandlerFunc{http.MethodGet: h.serveReady, http.MethodOptions: h.serveReady})
}

// serveClose answers POST /readyz/disable and /readyz/enable, which take the
// process out of its balancer and back without stopping it.
func (h *health) serveClose(closed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.closed.Store(closed)
		h.serveReady(w, r)
	}
}

// probeOptions are the flags of --healthcheck.
type probeOptions struct {
	timeout  time.Duration // total, default 2s: below the 3s that HEALTHCHECK has here
	method   string        // default GET
	headers  headerFlag
	status   statusRange // default 200-399, as Kubernetes' httpGet probe
	insecure bool        // skip the verification of https certificates

	begun *early.Probe // the probe of the one target has got this far; usually nil
}

// maxProbeLine bounds the line that a probe prints. Docker keeps 4096 bytes of a
// probe's output and shows them in one column; a line is all that helps there.
const maxProbeLine = 200

// healthcheck probes urls side by side, or the server that environ configures,
// and prints one line on stdout. The exit code is 0 when all answered as wanted
// and 1 otherwise: Docker reserves 2 (Dockerfile reference, HEALTHCHECK).
func healthcheck(ctx context.Context, urls []string, opts probeOptions, environ []string, stdout io.Writer) int {
	began := time.Now()
	if opts.begun = early.Take(); opts.begun != nil {
		began = opts.begun.Began
	}
	ctx, cancel := context.WithDeadlineCause(ctx, began.Add(opts.timeout), fmt.Errorf("no answer within %v", opts.timeout))
	defer cancel()

	targets, err := targets(urls, environ)
	if err != nil {
		printVerdict(stdout, "unhealthy", err.Error())
		return 1
	}
	details, errs := make([]string, len(targets)), make([]error, len(targets))
	var probes sync.WaitGroup
	for i, target := range targets {
		probes.Go(func() { details[i], errs[i] = target.probe(ctx, opts) })
	}
	probes.Wait()
	var failed []error
	for _, err := range errs {
		if err != nil {
			failed = append(failed, err)
		}
	}
	took := time.Since(began).Round(100 * time.Microsecond)
	switch {
	case len(failed) > 0 && len(targets) > 1:
		printVerdict(stdout, "unhealthy", fmt.Sprintf("%d of %d failed: %v", len(failed), len(targets), failed[0]))
	case len(failed) > 0:
		printVerdict(stdout, "unhealthy", failed[0].Error())
	case len(targets) > 1:
		printVerdict(stdout, "healthy", fmt.Sprintf("all %d in %v, first %s", len(targets), took, targets[0].name))
	default:
		printVerdict(stdout, "healthy", fmt.Sprintf("%s in %v %s", details[0], took, targets[0].name))
	}
	if len(failed) > 0 {
		return 1
	}
	return 0
}

// printVerdict prints the line of a probe, whatever detail is.
func printVerdict(w io.Writer, verdict, detail string) {
	line := verdict + ": " + oneLine(detail)
	if len(line) >= maxProbeLine {
		line = strings.ToValidUTF8(line[:maxProbeLine-4], "") + "..."
	}
	fmt.Fprintln(w, line)
}

// oneLine keeps what a server or a resolver said from spreading over lines or
// steering a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// A target is one thing to probe.
type target struct {
	name    string   // as given, for messages
	network string   // tcp or unix
	addrs   []string // tried in this order until one accepts
	host    string   // of the Host header and the certificate
	path    string   // of the request; empty means that a connection is enough
	user    *url.Userinfo
	tls     bool
}

// targets parses urls; without any it returns the server's own /health.
func targets(urls []string, environ []string) ([]target, error) {
	if len(urls) == 0 {
		t, err := ownTarget(environ)
		return []target{t}, err
	}
	all := make([]target, len(urls))
	for i, raw := range urls {
		t, err := parseTarget(raw)
		if err != nil {
			return nil, err
		}
		all[i] = t
	}
	return all, nil
}

// ownTarget follows the variables that the server itself reads, so that one
// change of the port does not need a second one in the HEALTHCHECK. A wildcard
// or no address means 127.0.0.1, then ::1.
func ownTarget(environ []string) (target, error) {
	given := env.ToMap(environ)
	port, _, err := lookup(given, "PORT")
	if err != nil {
		return target{}, err
	}
	if port == "" {
		port = "8000"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return target{}, fmt.Errorf("PORT=%q: want a port from 1 to 65535, or a URL as argument", port)
	}
	host, _, err := lookup(given, "IMAGELAB_BIND_ADDRESS")
	if err != nil {
		return target{}, err
	}
	hosts := []string{host}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		hosts = []string{"127.0.0.1", "::1"}
	}
	t := target{network: "tcp", host: net.JoinHostPort(hosts[0], port), path: "/health"}
	for _, h := range hosts {
		t.addrs = append(t.addrs, net.JoinHostPort(h, port))
	}
	t.name = "http://" + t.host + t.path
	return t, nil
}

const acceptedURLs = "want http://, https://, tcp://host:port or unix:///path/of.sock[:/http/path]"

// parseTarget reads one URL of the command line.
func parseTarget(raw string) (target, error) {
	if strings.HasPrefix(raw, "-") {
		return target{}, fmt.Errorf("%q is not a URL: flags come before the URLs", raw)
	}
	if rest, ok := strings.CutPrefix(raw, "unix://"); ok {
		socket, path, _ := strings.Cut(rest, ":")
		if !strings.HasPrefix(socket, "/") {
			return target{}, fmt.Errorf("%q: %s", shown(raw), acceptedURLs)
		}
		t := target{name: raw, network: "unix", addrs: []string{socket}, host: "localhost"}
		if path != "" {
			u, err := url.ParseRequestURI(path)
			if err != nil {
				return target{}, fmt.Errorf("%q: %s", shown(raw), acceptedURLs)
			}
			t.path = u.RequestURI()
		}
		return t, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, fmt.Errorf("%q does not parse: %s", shown(raw), acceptedURLs)
	}
	t := target{name: u.Redacted(), network: "tcp", host: u.Host, user: u.User}
	port := u.Port()
	switch {
	case u.Hostname() == "":
		return target{}, fmt.Errorf("%q has no host: %s", shown(raw), acceptedURLs)
	case u.Scheme == "tcp" && port == "":
		return target{}, fmt.Errorf("%q has no port: %s", shown(raw), acceptedURLs)
	case u.Scheme == "tcp":
	case u.Scheme == "http":
		t.path, port = u.RequestURI(), orDefault(port, "80")
	case u.Scheme == "https":
		t.path, port, t.tls = u.RequestURI(), orDefault(port, "443"), true
	default:
		return target{}, fmt.Errorf("%q: %s", shown(raw), acceptedURLs)
	}
	t.addrs = []string{net.JoinHostPort(u.Hostname(), port)}
	return t, nil
}

// shown is a URL that does not parse, without what may be a password: one with
// a character such as / in it is the usual reason.
func shown(raw string) string {
	scheme, rest, _ := strings.Cut(raw, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		return scheme + "://xxxxx" + rest[at:]
	}
	return raw
}

func orDefault(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// probe returns what it found, such as "200", or why the target is not healthy.
// Everything, from the resolver to the last byte of the body, ends with ctx.
func (t target) probe(ctx context.Context, opts probeOptions) (string, error) {
	detail, err := t.exchange(ctx, opts)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return "", fmt.Errorf("%w %s", err, t.name)
	}
	return detail, nil
}

// maxHeader bounds what a server may send as status line and header.
const maxHeader = 64 << 10

func (t target) exchange(ctx context.Context, opts probeOptions) (string, error) {
	if t.path == "" {
		conn, err := t.dial(ctx)
		if err != nil {
			return "", reason(err)
		}
		conn.Close()
		return "connected", nil
	}
	resp, err := t.request(ctx, opts)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if !opts.status.contains(resp.StatusCode) {
		return "", fmt.Errorf("status %d, want %v", resp.StatusCode, opts.status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", fmt.Errorf("status %d, but its body broke off: %w", resp.StatusCode, reason(err))
	}
	return strconv.Itoa(resp.StatusCode), nil
}

// request sends one request on a connection of its own, which ends with ctx and
// with the response's body. That needs no client with a pool, redirects and
// proxies; a redirect counts as the status that it is.
func (t target) request(ctx context.Context, opts probeOptions) (*http.Response, error) {
	var conn io.ReadCloser = opts.begun
	if opts.begun == nil {
		var err error
		if conn, err = t.dial(ctx); err != nil {
			return nil, reason(err)
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	end := func() { stop(); conn.Close() }
	resp, err := t.converse(ctx, conn, opts)
	if err != nil {
		end()
		return nil, err
	}
	resp.Body = body{resp.Body, end}
	return resp, nil
}

// body is a response's body that ends its connection.
type body struct {
	io.ReadCloser
	end func()
}

// Close does not read the rest, as the server may go on for ever.
func (b body) Close() error { b.end(); return nil }

// converse sends the request on conn, unless conn is that of a probe begun, and
// reads the response's header.
func (t target) converse(ctx context.Context, conn io.ReadCloser, opts probeOptions) (*http.Response, error) {
	if fresh, ok := conn.(net.Conn); ok {
		if t.tls {
			name, _, err := net.SplitHostPort(t.addrs[0])
			if err != nil {
				return nil, err
			}
			secure := tls.Client(fresh, &tls.Config{ServerName: name, InsecureSkipVerify: opts.insecure, NextProtos: []string{"http/1.1"}})
			if err := secure.HandshakeContext(ctx); err != nil {
				return nil, fmt.Errorf("TLS: %w", reason(err))
			}
			conn, fresh = secure, secure
		}
		if err := t.send(fresh, opts); err != nil {
			return nil, reason(err)
		}
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	resp, err := readFinal(bufio.NewReader(limited), opts.method)
	if err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("header over %d bytes", maxHeader)
		}
		return nil, fmt.Errorf("no HTTP answer: %w", reason(err))
	}
	limited.N = 1<<63 - 1 // a body may be long, it only has to end in time
	return resp, nil
}

// dial connects to the first address that accepts.
func (t target) dial(ctx context.Context) (conn net.Conn, err error) {
	var d net.Dialer
	var first error
	for _, addr := range t.addrs {
		conn, err = d.DialContext(ctx, t.network, addr)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// send writes the request.
func (t target) send(w io.Writer, opts probeOptions) error {
	own := headerFlag{{"Host", t.host}, {"User-Agent", "imagelab-healthcheck/" + version}, {"Accept", "*/*"}, {"Connection", "close"}}
	if t.user != nil {
		password, _ := t.user.Password()
		own = append(own, header{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(t.user.Username()+":"+password))})
	}
	if opts.method != http.MethodGet && opts.method != http.MethodHead {
		own = append(own, header{"Content-Length", "0"})
	}
	// What --header gives replaces what would be sent without it.
	own = slices.DeleteFunc(own, func(h header) bool { return opts.headers.has(h.name) })

	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", opts.method, t.path)
	for _, h := range append(own, opts.headers...) {
		fmt.Fprintf(&b, "%s: %s\r\n", h.name, h.value)
	}
	b.WriteString("\r\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// readFinal reads the response and passes over interim ones (RFC 9110, 15.2).
func readFinal(r *bufio.Reader, method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

// reason strips what a probe's line does not need: "dial tcp 127.0.0.1:8000:
// connect: connection refused" becomes "connection refused".
func reason(err error) error {
	var op *net.OpError
	for errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Errorf("%s: %s", dns.Name, dns.Err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the server closed the connection")
	}
	return err
}

// headerFlag is the repeatable --header "Name: value".
type headerFlag []header

type header struct{ name, value string }

// has says whether there is a header of that name, in any case.
func (h headerFlag) has(name string) bool {
	return slices.ContainsFunc(h, func(h header) bool { return strings.EqualFold(h.name, name) })
}

func (h *headerFlag) String() string { return "" }

func (h *headerFlag) Set(s string) error {
	name, value, found := strings.Cut(s, ":")
	if !found || !isToken(name) || strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("want \"Name: value\"")
	}
	*h = append(*h, header{name, strings.TrimSpace(value)})
	return nil
}

// isToken says whether s can be a header's name or a method (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// statusRange is --status: "200", or "200-399", both ends inclusive.
type statusRange struct{ lo, hi int }

func (s statusRange) contains(code int) bool { return s.lo <= code && code <= s.hi }

func (s statusRange) String() string {
	if s.lo == s.hi {
		return strconv.Itoa(s.lo)
	}
	return fmt.Sprintf("%d-%d", s.lo, s.hi)
}

func (s *statusRange) Set(text string) error {
	lo, hi, isRange := strings.Cut(text, "-")
	if !isRange {
		hi = lo
	}
	from, err1 := strconv.Atoi(lo)
	to, err2 := strconv.Atoi(hi)
	if err1 != nil || err2 != nil || from < 100 || to > 599 || from > to {
		return errors.New("want a status such as 204 or a range such as 200-399")
	}
	*s = statusRange{from, to}
	return nil
}
