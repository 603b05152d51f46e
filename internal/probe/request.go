package probe

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"imagelab/internal/early"
)

// maxHeader bounds what a server may send as status line and header, in bytes.
const maxHeader = 64 << 10

// Probe returns what it found, the status such as "200" or "connected", or why the
// target is not healthy, with the target's name. Everything ends with ctx and with
// the timeout of opts, and then the error is the cause of that.
func (t Target) Probe(ctx context.Context, opts Options) (detail string, err error) {
	detail, err = t.ask(ctx, opts)
	if err != nil {
		return "", fmt.Errorf("%w %s", err, t.Name)
	}
	return detail, nil
}

// ask is Probe without the target's name. It does not wait for what no context ends,
// such as a file of certificates that cannot be read.
func (t Target) ask(ctx context.Context, opts Options) (detail string, reason error) {
	ctx, cancel := opts.bound(ctx)
	defer cancel()
	ended := make(chan struct{})
	var found string
	var err error
	go func() {
		defer close(ended)
		found, err = t.exchange(ctx, opts)
	}()
	select {
	case <-ended:
		return found, err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (t Target) exchange(ctx context.Context, opts Options) (string, error) {
	if t.Path == "" {
		conn, err := t.dial(ctx)
		if err != nil {
			return "", cause(ctx, Reason(err))
		}
		conn.Close()
		return "connected", nil
	}
	resp, err := t.Request(ctx, opts)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if !opts.Status.Contains(resp.StatusCode) {
		return "", fmt.Errorf("status %d, want %v%s", resp.StatusCode, opts.Status, t.hint(resp))
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", cause(ctx, fmt.Errorf("status %d, but its body broke off: %w", resp.StatusCode, Reason(err)))
	}
	return strconv.Itoa(resp.StatusCode), nil
}

// hintWait is how long a body may take to come that may explain a status.
const hintWait = 100 * time.Millisecond

// hint says that the port speaks TLS, where the server has noticed that the request
// came without it: Go's, nginx and Apache httpd answer 400 and say so in the body.
func (t Target) hint(resp *http.Response) string {
	if t.TLS || resp.StatusCode != http.StatusBadRequest {
		return ""
	}
	overdue := time.AfterFunc(hintWait, func() { resp.Body.Close() })
	defer overdue.Stop()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if bytes.Contains(said, []byte("HTTPS")) || bytes.Contains(said, []byte("SSL-enabled")) {
		return ": the port speaks TLS, use https://"
	}
	return ""
}

// cause is why ctx ended, or err when it has not.
func cause(ctx context.Context, err error) error {
	if ended := context.Cause(ctx); ended != nil {
		return ended
	}
	return err
}

// Request sends one request on a connection of its own and returns the answer,
// whatever its status; opts.Status does not matter here. The caller closes the body,
// which ends the connection without reading the rest. Everything ends with ctx and
// with the timeout of opts: from then on a read of the body fails. Nothing bounds the
// length of the body. An error does not name the target.
func (t Target) Request(ctx context.Context, opts Options) (*http.Response, error) {
	if t.Path == "" {
		return nil, fmt.Errorf("no path to request: %s", t.Name)
	}
	ctx, cancel := opts.bound(ctx)
	conn, err := t.open(ctx, opts.Begun)
	if err != nil {
		defer cancel()
		return nil, cause(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	end := func() { stop(); conn.Close(); cancel() }
	resp, err := t.converse(ctx, conn, opts)
	if err != nil {
		defer end()
		return nil, cause(ctx, err)
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

// open returns the connection of the probe begun, or a new one.
func (t Target) open(ctx context.Context, begun *early.Probe) (io.ReadCloser, error) {
	if begun != nil {
		return begun, nil
	}
	conn, err := t.dial(ctx)
	if err != nil {
		return nil, Reason(err)
	}
	return conn, nil
}

// converse sends the request on conn, unless conn is that of a probe begun, and
// reads the response's header.
func (t Target) converse(ctx context.Context, conn io.ReadCloser, opts Options) (*http.Response, error) {
	if fresh, ok := conn.(net.Conn); ok {
		if t.TLS {
			secure := tls.Client(fresh, &tls.Config{
				ServerName: t.serverName(opts.Headers), InsecureSkipVerify: opts.Insecure, NextProtos: []string{"http/1.1"},
			})
			if err := secure.HandshakeContext(ctx); err != nil {
				return nil, fmt.Errorf("TLS: %w", reasonTLS(err))
			}
			conn, fresh = secure, secure
		}
		if err := t.send(fresh, opts); err != nil {
			return nil, Reason(err)
		}
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	resp, err := readFinal(bufio.NewReader(limited), opts.method())
	if err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("header over %d bytes", maxHeader)
		}
		return nil, fmt.Errorf("no HTTP answer: %w", Reason(err))
	}
	limited.N = 1<<63 - 1 // a body may be long, it only has to end in time
	return resp, nil
}

// serverName is what the certificate has to be of, and what the server is told unless
// that is an address (RFC 6066, 3): the host that the server will read in the request.
func (t Target) serverName(headers Headers) string {
	host := t.Host
	if i := headers.index("Host"); i >= 0 {
		host = cmp.Or(headers[i].Value, host)
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// reasonTLS is Reason for the error of a handshake.
func reasonTLS(err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		if string(record.RecordHeader[:]) == "HTTP/" {
			return errors.New("the port speaks HTTP without TLS, use http://")
		}
		return errors.New("the port does not speak TLS")
	}
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) {
		err = unverified.Err
	}
	var name x509.HostnameError
	if errors.As(err, &name) {
		return fmt.Errorf("the certificate is not for %s: %w", name.Host, err) // before a list of any length
	}
	return Reason(err)
}

// dial connects to the first address that accepts.
func (t Target) dial(ctx context.Context) (conn net.Conn, err error) {
	var d net.Dialer
	var first error
	for _, addr := range t.Addrs {
		conn, err = d.DialContext(ctx, t.Network, addr)
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
func (t Target) send(w io.Writer, opts Options) error {
	own := Headers{
		{"Host", t.Host}, {"User-Agent", "imagelab-healthcheck/" + early.Version}, {"Accept", "*/*"}, {"Connection", "close"},
	}
	if t.User != nil {
		password, _ := t.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(t.User.Username() + ":" + password))
		own = append(own, Header{"Authorization", "Basic " + basic})
	}
	if opts.method() != http.MethodGet && opts.method() != http.MethodHead {
		own = append(own, Header{"Content-Length", "0"})
	}
	own = slices.DeleteFunc(own, func(h Header) bool { return opts.Headers.index(h.Name) >= 0 })

	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", opts.method(), t.Path)
	for _, h := range append(own, opts.Headers...) {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	b.WriteString("\r\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// readFinal reads the response and passes over interim ones (RFC 9110, 15.2).
func readFinal(r *bufio.Reader, method string) (*http.Response, error) {
	for {
		head, err := readHead(r)
		if err != nil {
			return nil, err
		}
		all := bufio.NewReader(io.MultiReader(bytes.NewReader(normalizeCodings(head)), r))
		resp, err := http.ReadResponse(all, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

// readHead reads a status line and header with the empty line at their end, or as
// much as there is of them. It does not wait for a line of what is not HTTP.
func readHead(r *bufio.Reader) (head []byte, err error) {
	first, err := r.Peek(1)
	if err != nil {
		return nil, err
	}
	switch first[0] {
	case 'H':
	case 0x15, 0x16: // a record with an alert, or of a handshake (RFC 8446, 5.1)
		return nil, errors.New("the port speaks TLS, use https://")
	default:
		said, _ := r.Peek(min(r.Buffered(), maxQuoted))
		said, _, _ = bytes.Cut(said, []byte("\n"))
		return nil, fmt.Errorf("malformed HTTP response %q", bytes.TrimSuffix(said, []byte("\r")))
	}
	for {
		line, err := r.ReadBytes('\n')
		head = append(head, line...)
		if err == io.EOF || err == nil && len(bytes.TrimRight(line, "\r\n")) == 0 {
			return head, nil // package http says what is missing
		}
		if err != nil || !bytes.HasPrefix(head, []byte("HTTP/")) {
			return head, err
		}
	}
}

// normalizeCodings leaves at most one Transfer-Encoding in a head, "chunked" where that
// is the outermost coding, as package http takes no other. "identity" was a name for
// none (RFC 2616, 3.6), and what other codings do to a body does not matter here: it
// ends where its length or the connection does, as it does for curl.
func normalizeCodings(head []byte) []byte {
	var rest []byte
	var codings []string
	inside := false // the lines of a Transfer-Encoding, which may be folded
	for line := range bytes.Lines(head) {
		name, value, _ := strings.Cut(string(line), ":")
		if folded := line[0] == ' ' || line[0] == '\t'; folded {
			value = string(line)
		} else {
			inside = strings.EqualFold(name, "Transfer-Encoding")
		}
		if !inside {
			rest = append(rest, line...)
			continue
		}
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.ToLower(strings.TrimSpace(coding)); coding != "" && coding != "identity" {
				codings = append(codings, coding)
			}
		}
	}
	if len(codings) == 0 || codings[len(codings)-1] != "chunked" {
		return rest
	}
	status, fields, _ := bytes.Cut(rest, []byte("\n"))
	return slices.Concat(status, []byte("\nTransfer-Encoding: chunked\r\n"), fields)
}

func (o Options) method() string { return cmp.Or(o.Method, http.MethodGet) }

// Headers is a list of headers, and a flag.Value that each use adds one to. Their
// order and case are what is sent.
type Headers []Header

// Header is one header. Nothing checks it when it is sent: Headers.Set does.
type Header struct{ Name, Value string }

// index returns where the first header of that name is, in any case, or -1.
func (h Headers) index(name string) int {
	return slices.IndexFunc(h, func(h Header) bool { return strings.EqualFold(h.Name, name) })
}

// String is empty, as a header may hold a secret.
func (h Headers) String() string { return "" }

// Set adds "Name: value". It refuses a name that is not a token, and a value with a
// control character in it other than a tab (RFC 9110, 5.5).
func (h *Headers) Set(s string) error {
	name, value, found := strings.Cut(s, ":")
	if !found || !IsToken(name) || strings.ContainsFunc(strings.ReplaceAll(value, "\t", ""), isControl) {
		return errors.New(`want "Name: value"`)
	}
	*h = append(*h, Header{name, strings.TrimSpace(value)})
	return nil
}

// IsToken says whether s can be a header's name or a method (RFC 9110, 5.6.2).
func IsToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// StatusRange is a range of status codes, both ends inclusive, and a flag.Value. The
// zero value means 200-399, as Kubernetes' httpGet probe.
type StatusRange struct{ Low, High int }

func (s StatusRange) orDefault() StatusRange { return cmp.Or(s, StatusRange{200, 399}) }

// Contains says whether the status code is in the range.
func (s StatusRange) Contains(code int) bool {
	s = s.orDefault()
	return s.Low <= code && code <= s.High
}

// String is "204" or "200-399".
func (s StatusRange) String() string {
	s = s.orDefault()
	if s.Low == s.High {
		return strconv.Itoa(s.Low)
	}
	return fmt.Sprintf("%d-%d", s.Low, s.High)
}

// Set reads "204" or "200-399".
func (s *StatusRange) Set(text string) error {
	if len(text) == 3 && strings.EqualFold(text[1:], "xx") {
		return fmt.Errorf("want a range such as %[1]c00-%[1]c99", text[0])
	}
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	from, err1 := strconv.Atoi(low)
	to, err2 := strconv.Atoi(high)
	if err1 != nil || err2 != nil || from < 100 || to > 599 || from > to {
		return errors.New("want a status such as 204 or a range such as 200-399")
	}
	*s = StatusRange{from, to}
	return nil
}
