package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imagelab/drain"
	"imagelab/internal/probe"
)

// server is one HTTP listener with what both have in common: limits, metrics, panic
// recovery and access log. Its connections and its stop are drain's.
type server struct {
	serverOptions
	ln        *drain.Listener
	drain     *drain.Server
	mux       *http.ServeMux
	front     *frontRoute // instead of mux, or nil
	log       *slog.Logger
	metrics   *metrics
	inFlight  atomic.Int64             // requests that count for maxInFlight
	routes    map[string]*routeMetrics // by pattern; complete before it serves
	unmatched *routeMetrics
	recorders sync.Pool
	lines     lineBudget // of failures
	epoch     time.Time
}

// serverOptions are what differs between servers.
type serverOptions struct {
	name        string // "app" or "ops": the metrics' server label and a key of the log
	accessLog   string // Config.AccessLog
	maxBody     int64  // bytes of a request body, except for /store
	maxInFlight int64  // requests at once; 0 is any number

	readHeaderTimeout, readTimeout, idleTimeout time.Duration
}

func newServerOptions(name string, cfg Config, maxInFlight int64) serverOptions {
	return serverOptions{
		name: name, accessLog: cfg.AccessLog, maxBody: int64(cfg.MaxBody), maxInFlight: maxInFlight,
		readHeaderTimeout: cfg.ReadHeaderTimeout, readTimeout: cfg.ReadTimeout, idleTimeout: cfg.IdleTimeout,
	}
}

// newServer makes a server on ln; its routes are added with handle. Without a match it
// answers 404.
func newServer(ln *drain.Listener, o serverOptions, log *slog.Logger, m *metrics) *server {
	s := &server{
		serverOptions: o,
		ln:            ln,
		mux:           http.NewServeMux(),
		log:           log.With("server", o.name),
		metrics:       m,
		routes:        map[string]*routeMetrics{},
		unmatched:     m.route(o.name, "unmatched"),
		epoch:         time.Now(),
	}
	s.recorders.New = func() any { return new(recorder) }
	s.mux.Handle("/", s.measure(s.unmatched, always, http.HandlerFunc(serveNotFound)))
	s.drain = drain.New(&http.Server{
		Handler:           s,
		ReadHeaderTimeout: o.readHeaderTimeout,
		ReadTimeout:       o.readTimeout,
		IdleTimeout:       o.idleTimeout,
		MaxHeaderBytes:    maxRequestHeader,
		// OPTIONS * is a request like any other, with metrics and an access log.
		DisableGeneralOptionsHandler: true,
		// Go logs every TLS hello and every malformed request here: a client's
		// mistake, and as many lines as the client likes.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}, ln)
	return s
}

// maxRequestHeader bounds a request's line and header, in bytes; Go adds 4096 and
// answers 431 above that.
const maxRequestHeader = 16 << 10

// A routeKind says how a route's requests are treated when there is not enough room or
// time for all.
type routeKind int

const (
	// always is the rule: refused at overload, waited for in the drain.
	always routeKind = iota
	// probed is served at overload as well: an overloaded process that is restarted for
	// being overloaded serves nobody.
	probed
	// watching is probed, and its answers are for onlookers: the drain does not fail for
	// those that have to be cut.
	watching
)

// handle adds a route. The pattern is a path of http.ServeMux without a method: methods
// are dispatched by methods, as Flask does.
func (s *server) handle(pattern string, kind routeKind, h http.Handler) {
	rm := s.metrics.route(s.name, pattern)
	s.routes[pattern] = rm
	s.mux.Handle(pattern, s.measure(rm, kind, h))
}

// frontRoute is the one route of a server that passes its requests on.
type frontRoute struct {
	metrics *routeMetrics
	http.Handler
	own string // the prefix of paths that are not passed on, or empty
}

// passOn makes h the handler of every path, as it is and not cleaned, except those below the
// prefix own if that is not empty.
func (s *server) passOn(h http.Handler, own string) {
	rm := s.metrics.route(s.name, "upstream")
	s.front = &frontRoute{rm, s.measure(rm, always, h), own}
}

// takes says whether the request is passed on.
func (f *frontRoute) takes(r *http.Request) bool {
	return f != nil && (f.own == "" || !strings.HasPrefix(r.URL.Path, f.own))
}

// handleStream adds a route whose answers last as long as somebody listens: its
// requests are counted, and no part of the durations.
func (s *server) handleStream(pattern string, kind routeKind, h http.Handler) {
	s.handle(pattern, kind, h)
	s.routes[pattern].untimed = true
}

// measure counts what is in flight by route, and refuses what is too much.
func (s *server) measure(rm *routeMetrics, kind routeKind, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rm.enter()
		defer rm.leave()
		if kind == watching {
			drain.Expendable(r.Context())
		}
		if kind == always && s.maxInFlight > 0 {
			if !drain.RoomFor(r.Context(), s.takeOne) {
				s.metrics.rejected.WithLabelValues("in_flight").Inc()
				overloaded(w)
				return
			}
			defer s.inFlight.Add(-1)
		}
		if !s.hasRoom(r, kind, rm.untimed) {
			overloaded(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// takeOne says whether one more request is below the cap, and counts it then.
func (s *server) takeOne() bool {
	for {
		n := s.inFlight.Load()
		if n >= s.maxInFlight {
			return false
		}
		if s.inFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func overloaded(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	writeError(w, http.StatusServiceUnavailable, "overloaded", "a new try in a second")
}

// hasRoom says whether the request's connection is below the cap of those. A stream is kept
// out of the spare connections whoever it is for: it would hold one, which is for probes, as
// long as it likes.
func (s *server) hasRoom(r *http.Request, kind routeKind, isStream bool) bool {
	reason := "connections"
	switch {
	case kind == always:
	case isStream:
		reason = "viewers"
	default:
		return true
	}
	if !drain.Room(r.Context()) {
		s.metrics.rejected.WithLabelValues(reason).Inc()
		return false
	}
	return true
}

// ServeHTTP runs one request to its route.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Since(s.epoch)
	rec := s.recorders.Get().(*recorder)
	*rec = recorder{ResponseWriter: w}
	defer func() {
		problem := recover()
		s.finish(rec, r, time.Since(s.epoch)-began, problem)
	}()
	passedOn := s.front.takes(r)
	if r.RequestURI == "*" && r.Method == http.MethodOptions && !passedOn {
		rec.Header().Set("Content-Length", "0") // the server is there, and no more is said
		rec.WriteHeader(http.StatusOK)
		return
	}
	if r.URL.Path == "" && r.URL.Scheme != "" {
		r.URL.Path = "/" // of a whole URL that has none (RFC 9112, 3.2.2)
	}
	whole := r.URL.Scheme == "" || r.URL.Host != "" // not foo:bar, nor foo:/bar
	if passedOn && r.Method != http.MethodConnect && whole &&
		(strings.HasPrefix(r.URL.Path, "/") || r.RequestURI == "*" && r.Method == http.MethodOptions) {
		rec.route = s.front.metrics
		s.front.ServeHTTP(rec, r)
		return
	}
	if passedOn || !strings.HasPrefix(r.URL.Path, "/") { // CONNECT host:port, and * of other methods than OPTIONS
		writeError(rec, http.StatusBadRequest, "bad-target", "a path")
		return
	}
	s.mux.ServeHTTP(rec, r)
}

// finish ends a request: the answer to a panic, metrics, and the access log.
func (s *server) finish(rec *recorder, r *http.Request, took time.Duration, problem any) {
	route := cmp.Or(rec.route, s.routes[r.Pattern], s.unmatched)
	aborted := problem == http.ErrAbortHandler
	if problem != nil && !aborted {
		s.metrics.panics.Inc()
		if held, ok := s.lines.take(time.Since(s.epoch)); ok {
			s.log.Error("panic in a handler, its request was answered 500 or cut", "route", route.route,
				"err", fmt.Sprint(problem), "stack", string(debug.Stack()), "held_back", held)
		}
		if rec.status == 0 {
			writeError(rec, http.StatusInternalServerError, "internal", "")
		} else {
			aborted = true // half an answer must not look like a whole one
		}
	}
	if rec.status == 0 && !aborted {
		// A handler that gave up with its client has no answer, and none is made up.
		if aborted = r.Context().Err() != nil; !aborted {
			rec.WriteHeader(http.StatusOK)
		}
	}
	if r.ContentLength != 0 {
		// net/http reads what is left of the body, however slowly it comes.
		_ = http.NewResponseController(rec.ResponseWriter).SetReadDeadline(time.Now().Add(restPatience))
	}
	rec.status = cmp.Or(rec.status, statusNoAnswer)
	route.observe(r.Method, rec.status, took, rec.route != nil && isStream(rec))
	s.logRequest(r, rec, route.route, took)
	rec.ResponseWriter = nil
	s.recorders.Put(rec)
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

// isStream says whether an answer that was passed on lasts for as long as somebody listens.
func isStream(rec *recorder) bool {
	return rec.status == http.StatusSwitchingProtocols || isEventStream(rec.Header())
}

// statusNoAnswer is counted and logged for a request that was cut before its answer. It
// is nginx's code, and is never sent.
const statusNoAnswer = 499

// logRequest is the access log.
func (s *server) logRequest(r *http.Request, rec *recorder, route string, took time.Duration) {
	var held int64
	switch {
	case s.accessLog == "all":
	case s.accessLog == "errors" && rec.status >= 500:
		var ok bool
		if held, ok = s.lines.take(time.Since(s.epoch)); !ok {
			return
		}
	default:
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.String("route", route),
		slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes),
		slog.Float64("duration_seconds", took.Seconds()), slog.String("client", r.RemoteAddr),
	}
	if held > 0 {
		attrs = append(attrs, slog.Int64("held_back", held))
	}
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}

// restPatience is how long a client may go on sending a body that is not wanted. Its
// connection is kept if the body ends by then.
const restPatience = 100 * time.Millisecond

// recorder is the http.ResponseWriter that handlers get. It notes the status and the
// bytes.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the header is written
	bytes  int64
	route  *routeMetrics // if the server's mux has not chosen it
}

// Unwrap is for http.ResponseController.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

func (rec *recorder) WriteHeader(code int) {
	if code >= 200 && rec.status == 0 || code == http.StatusSwitchingProtocols {
		rec.status = code
	}
	rec.ResponseWriter.WriteHeader(code)
}

func (rec *recorder) Write(p []byte) (int, error) {
	if rec.status == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	n, err := rec.ResponseWriter.Write(p)
	rec.bytes += int64(n)
	return n, err
}

// ReadFrom keeps sendfile for files. The header is written after the first read: a
// request's body may be waiting for its reader (RFC 9110, 10.1.1).
func (rec *recorder) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(rec.ResponseWriter, src)
	if n > 0 && rec.status == 0 {
		rec.status = http.StatusOK
	}
	rec.bytes += n
	return n, err
}

// FlushError is for http.ResponseController.
func (rec *recorder) FlushError() error {
	if rec.status == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(rec.ResponseWriter).Flush()
}

// limitBody refuses bodies of more than the server's maxBody bytes: 413 at once when the
// length is declared, an error from Read when it turns out.
func (s *server) limitBody(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > s.maxBody {
			s.metrics.rejected.WithLabelValues("body").Inc()
			writeError(w, http.StatusRequestEntityTooLarge, "body-too-large", atMost(s.maxBody))
			return
		}
		if r.Body != http.NoBody {
			r.Body = maxBytesReader(w, r.Body, s.maxBody)
		}
		h(w, r)
	}
}

// atMost says how long a body may be.
func atMost(bytes int64) string { return fmt.Sprintf("at most %d bytes", bytes) }

// maxBytesReader is http.MaxBytesReader for a ResponseWriter that wraps the server's
// own: that one is told to close the connection when the body is too long.
func maxBytesReader(w http.ResponseWriter, body io.ReadCloser, n int64) io.ReadCloser {
	for {
		wrapper, wraps := w.(interface{ Unwrap() http.ResponseWriter })
		if !wraps {
			return http.MaxBytesReader(w, body, n)
		}
		w = wrapper.Unwrap()
	}
}

// stream calls emit at once and then every interval, and flushes what it wrote, until
// emit returns false, the client takes no more or the server ends its streams; the last
// call has last set. The request's context says nothing of the client: it ends as well
// when one has only said that it will send no more (RFC 9112, 9.6). It lifts the deadline
// that is for requests.
func stream(w http.ResponseWriter, r *http.Request, interval time.Duration, emit func(last bool) bool) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if !emit(false) || rc.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-drain.Ending(r.Context()):
			emit(true)
			return
		}
	}
}

// bindAll binds the app listener, if there is to be one, and, unless its paths go to the app's, the ops
// listener, before anything runs: a busy port is an error with its name.
func bindAll(ctx context.Context, cfg Config, hasApp bool, vars []variable, lim limits, log *slog.Logger, m *metrics) (app, ops *drain.Listener, err error) {
	listen := func(name, addr string, maxConns, spare int) (*drain.Listener, error) {
		ln, err := drain.Listen(ctx, addr, drain.Options{
			MaxConns: maxConns, Spare: spare, WriteTimeout: cfg.WriteTimeout, Observe: m.connections(name, log),
		})
		if err != nil {
			// "listen tcp :80: bind: permission denied" names what is said better below.
			var dns *net.DNSError
			if errors.As(err, &dns) {
				return nil, errors.New(dns.Err)
			}
			return nil, probe.Reason(err)
		}
		log.Info("listening", "server", name, "addr", ln.Addr().String(), "max_conns", maxConns)
		return ln, nil
	}
	if hasApp {
		app, err = listen("app", net.JoinHostPort(cfg.BindAddress, strconv.Itoa(cfg.Port)), lim.conns, lim.spare)
	}
	if err != nil {
		what := named(vars, "PORT").shown()
		if cfg.BindAddress != "" {
			what = named(vars, "IMAGELAB_BIND_ADDRESS").shown() + " " + what
		}
		return nil, nil, fmt.Errorf("listen %s: %w", what, err)
	}
	if cfg.OpsAddr == "" {
		return app, nil, nil
	}
	ops, err = listen("ops", cfg.OpsAddr, lim.opsConns, opsSpare)
	if err != nil {
		if app != nil {
			app.Close()
		}
		return nil, nil, fmt.Errorf("listen %s: %w", named(vars, "IMAGELAB_OPS_ADDR").shown(), err)
	}
	return app, ops, nil
}
