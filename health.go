package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"

	"imagelab/drain"
	"imagelab/internal/audit"
	"imagelab/internal/early"
	"imagelab/internal/probe"
)

// This file has both ends of one contract: the state that /health, /livez and
// /readyz report, and the mode that probes it.

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
	program *command     // that is supervised, or nil
	drained atomic.Pointer[drained]

	// What the probes of /health were, in nanoseconds where it is a time; the last
	// is counted from started.
	seen, failed, last, spent, longest atomic.Int64
}

// drained is how the app listener's drain has gone.
type drained struct {
	report   drain.Report
	failures int64 // requests that an upstream has failed meanwhile
}

// noteDrain keeps it for whoever looks.
func (h *health) noteDrain(report drain.Report, failures int64) {
	h.drained.Store(&drained{report, failures})
}

func newHealth(started time.Time) *health { return &health{started: started} }

func (h *health) set(s state) {
	if s == ready {
		h.readyIn.Store(int64(time.Since(h.started)))
	}
	h.state.Store(int32(s))
}

func (h *health) current() state { return state(h.state.Load()) }

// readiness is what /readyz says: the state, "disabled" for a ready process that was closed
// by hand, or the state of its command. Only "ready" means: send requests here.
func (h *health) readiness() string {
	s := h.current().String()
	switch {
	case h.program != nil && h.program.state() == givenUp: // for which it is draining, too
		return givenUp
	case s != ready.String():
	case h.closed.Load():
		return "disabled"
	case h.program != nil:
		return h.program.state()
	}
	return s
}

// programSeconds is the processor time of the supervised command, and when that was seen; 0 without one.
func (h *health) programSeconds() (float64, time.Time) {
	if h.program == nil {
		return 0, time.Time{}
	}
	usage, at := h.program.usage(os.DirFS("/proc"))
	return usage.Spent.Seconds(), at
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

// timeoutFlag is --timeout. Its error says what to write.
type timeoutFlag time.Duration

func (d *timeoutFlag) String() string { return time.Duration(*d).String() }

func (d *timeoutFlag) Set(text string) error {
	parsed, err := time.ParseDuration(text)
	if err == nil {
		*d = timeoutFlag(parsed)
		return nil
	}
	if _, err := strconv.ParseUint(text, 10, 31); err == nil {
		return fmt.Errorf("want %ss, with its unit", text)
	}
	return errors.New("want a duration such as 2s or 500ms")
}

// headerFlag is --header. Package flag shows a value that Set refuses, and a header may
// hold a secret, so wrong takes the first error.
type headerFlag struct {
	headers *probe.Headers
	wrong   *error
}

func (h headerFlag) String() string { return "" }

func (h headerFlag) Set(text string) error {
	if err := h.headers.Set(text); err != nil && *h.wrong == nil {
		*h.wrong = fmt.Errorf("--header: %w", err)
	}
	return nil
}

// healthcheck is the mode --healthcheck: it probes urls, or the server that environ
// configures, and prints the verdict on stdout. The exit code is 0 or 1, for a signal
// that would end the process as well.
func healthcheck(ctx context.Context, urls []string, opts probe.Options, environ []string, stdout io.Writer) int {
	ctx, cancel := withSignals(ctx)
	defer cancel()
	opts.Begun = early.Take()
	targets, hidden, err := parseTargets(urls, environ)
	if err != nil {
		return unhealthy(stdout, err)
	}
	confineOnce(environ, nil)
	line, healthy := probe.Run(ctx, targets, opts)
	if hidden != "" { // what begins an address, or a resolver's complaint
		word, detail, _ := strings.Cut(line, ": ")
		line = word + ": " + strings.ReplaceAll(detail, hidden+":", redacted+":")
	}
	printVerdict(stdout, line)
	if !healthy {
		return exitFailed
	}
	return exitOK
}

// withSignals returns a context that a signal ends, which is then its cause.
func withSignals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	go func() {
		select {
		case sig := <-signals:
			cancel(fmt.Errorf("the probe was stopped: %v", sig))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// unhealthy prints the verdict of a probe that could not be made, and returns its
// exit code.
func unhealthy(stdout io.Writer, err error) int {
	printVerdict(stdout, probe.Unhealthy(err))
	return exitFailed
}

// printVerdict writes the line as early.Print does, where stdout has a descriptor.
func printVerdict(stdout io.Writer, line string) {
	file, ok := stdout.(syscall.Conn)
	if !ok {
		fmt.Fprintln(stdout, line)
		return
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return // closed, and the exit code says the same
	}
	_ = raw.Write(func(fd uintptr) bool {
		early.Print(int(fd), line+"\n")
		return true
	})
}

// parseTargets parses urls; without any it returns the server's own /health. Hidden is
// a host that is not to be shown.
func parseTargets(urls []string, environ []string) (targets []probe.Target, hidden string, err error) {
	if len(urls) == 0 {
		t, hidden, err := ownTarget(environ)
		return []probe.Target{t}, hidden, err
	}
	all := make([]probe.Target, len(urls))
	for i, raw := range urls {
		t, err := probe.Parse(raw)
		if err != nil {
			return nil, "", err
		}
		all[i] = t
	}
	return all, "", nil
}

// ownTarget follows the variables that the server itself reads, so that one
// change of the port does not need a second one in the HEALTHCHECK. A wildcard
// or no address means 127.0.0.1, then ::1. Hidden is a host name that is the content
// of a file.
func ownTarget(environ []string) (target probe.Target, hidden string, err error) {
	given := env.ToMap(environ)
	port, source, err := lookup(given, "PORT")
	if err != nil {
		return probe.Target{}, "", err
	}
	if port == "" {
		port = "8000"
	}
	if n, valid := early.ParsePort(port); !valid || n == 0 {
		v := variable{Name: "PORT", Value: port, Source: source, want: "a port from 1 to 65535, or a URL as argument"}
		return probe.Target{}, "", v.refuse()
	}
	host, source, err := lookup(given, "IMAGELAB_BIND_ADDRESS")
	if err != nil {
		return probe.Target{}, "", err
	}
	bind := variable{Name: "IMAGELAB_BIND_ADDRESS", Value: host, Source: source, want: "an IP address or a host name without a port"}
	if bind.fromFile() && net.ParseIP(host) == nil {
		if hidden = host; !isHostName(strings.ToLower(host)) {
			return probe.Target{}, "", bind.refuse()
		}
	}
	path := "/health"
	// Behind a front that path is the upstream's, and health is the ops listener's.
	upstream, _, err := lookup(given, "IMAGELAB_UPSTREAM")
	if err != nil {
		return probe.Target{}, "", err
	}
	if upstream != "" {
		ops, source, err := lookup(given, "IMAGELAB_OPS_ADDR")
		switch {
		case err != nil:
			return probe.Target{}, "", err
		case ops == "" && source != "default":
			path = "/-/readyz"
		default:
			v := named(variables(), "IMAGELAB_OPS_ADDR")
			v.Value, v.Source = cmp.Or(ops, v.Default), source
			path, hidden = "/readyz", ""
			if host, port, err = net.SplitHostPort(v.Value); err != nil {
				return probe.Target{}, "", v.refuse()
			}
			if n, valid := early.ParsePort(port); !valid || n == 0 {
				v.want = "a port from 1 to 65535 in it, or a URL as argument"
				return probe.Target{}, "", v.refuse()
			}
		}
	}
	hosts := []string{host}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		hosts = []string{"127.0.0.1", "::1"}
	}
	t := probe.Target{Network: "tcp", Host: net.JoinHostPort(hosts[0], port), Path: path}
	for _, h := range hosts {
		t.Addrs = append(t.Addrs, net.JoinHostPort(h, port))
	}
	t.Name = "http://" + t.Host + t.Path
	return t, hidden, nil
}
