package probe

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"imagelab/internal/early"
)

// maxHeader bounds what a server may send as status line and header, in bytes.
const maxHeader = 64 << 10

// Probe returns what it found, the status such as "200" or "connected", or why the
// target is not healthy, with the target's name. Everything ends with ctx and with
// the timeout of opts, and then the error is the cause of that.
func (t Target) Probe(ctx context.Context, opts Options) (detail string, err error) {
	ctx, cancel := opts.bound(ctx)
	defer cancel()
	detail, err = t.exchange(ctx, opts)
	if err != nil {
		return "", fmt.Errorf("%w %s", cause(ctx, err), t.Name)
	}
	return detail, nil
}

func (t Target) exchange(ctx context.Context, opts Options) (string, error) {
	if t.Path == "" {
		conn, err := t.dial(ctx)
		if err != nil {
			return "", Reason(err)
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
		return "", fmt.Errorf("status %d, want %v", resp.StatusCode, opts.Status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", fmt.Errorf("status %d, but its body broke off: %w", resp.StatusCode, Reason(err))
	}
	return strconv.Itoa(resp.StatusCode), nil
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
			name, _, err := net.SplitHostPort(t.Addrs[0])
			if err != nil {
				return nil, err
			}
			config := &tls.Config{ServerName: name, InsecureSkipVerify: opts.Insecure, NextProtos: []string{"http/1.1"}}
			secure := tls.Client(fresh, config)
			if err := secure.HandshakeContext(ctx); err != nil {
				return nil, fmt.Errorf("TLS: %w", Reason(err))
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
	own = slices.DeleteFunc(own, func(h Header) bool { return opts.Headers.has(h.Name) })

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
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

func (o Options) method() string { return cmp.Or(o.Method, http.MethodGet) }

// Headers is a list of headers, and a flag.Value that each use adds one to. Their
// order and case are what is sent.
type Headers []Header

// Header is one header. Nothing checks it when it is sent: Headers.Set does.
type Header struct{ Name, Value string }

// has says whether there is a header of that name, in any case.
func (h Headers) has(name string) bool {
	return slices.ContainsFunc(h, func(h Header) bool { return strings.EqualFold(h.Name, name) })
}

// String is empty, as a header may hold a secret.
func (h Headers) String() string { return "" }

// Set adds "Name: value". It refuses a name that is not a token, and a value with a
// line break in it.
func (h *Headers) Set(s string) error {
	name, value, found := strings.Cut(s, ":")
	if !found || !IsToken(name) || strings.ContainsAny(value, "\r\n\x00") {
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
