package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// server is one HTTP listener with what both have in common: limits, metrics,
// panic recovery, access log and drain.
type server struct {
	name    string // "app" or "ops": the metrics' server label and a key of the log
	ln      *listener
	mux     *http.ServeMux
	http    *http.Server
	log     *slog.Logger
	metrics *metrics
	access  string // Config.AccessLog

	maxBody     int64
	maxInFlight int64 // 0 is no limit
	inFlight    atomic.Int64
	draining    atomic.Bool   // every response carries Connection: close
	ending      chan struct{} // closed when streams have to end
	served      atomic.Bool   // Serve has returned, so the listener is closed
	unmatched   *routeMetrics
	recorders   sync.Pool
}

// newServer makes a server on ln; its routes are added with handle. Without a
// match it answers 404.
func newServer(name string, ln *listener, cfg Config, log *slog.Logger, m *metrics) *server {
	s := &server{
		name:      name,
		ln:        ln,
		mux:       http.NewServeMux(),
		log:       log.With("server", name),
		metrics:   m,
		access:    cfg.AccessLog,
		maxBody:   int64(cfg.MaxBody),
		ending:    make(chan struct{}),
		unmatched: m.route(name, "unmatched"),
	}
	s.recorders.New = func() any { return new(recorder) }
	s.mux.Handle("/", s.measure(s.unmatched, http.HandlerFunc(serveNotFound)))
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		ReadTimeout:       cfg.ReadTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    maxRequestHeader,
		ConnState:         ln.connState,
		// Go logs every TLS hello and every malformed request here: a client's
		// mistake, and as many lines as the client likes.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s
}

// maxRequestHeader bounds a request's line and header, in bytes; Go adds 4096
// and answers 431 above that.
const maxRequestHeader = 16 << 10

// handle adds a route. The pattern is a path of http.ServeMux without a method:
// methods are dispatched by methods, as Flask does.
func (s *server) handle(pattern string, h http.Handler) {
	s.mux.Handle(pattern, s.measure(s.metrics.route(s.name, pattern), h))
}

// measure tells the request's recorder which route it took.
func (s *server) measure(rm *routeMetrics, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(*recorder).route = rm
		rm.inFlight.Inc()
		defer rm.inFlight.Dec()
		h.ServeHTTP(w, r)
	})
}

// ServeHTTP runs one request through the limits and to its route.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Since(s.ln.epoch)
	rec := s.recorders.Get().(*recorder)
	*rec = recorder{ResponseWriter: w, server: s, route: s.unmatched}
	inFlight := s.inFlight.Add(1)
	defer func() {
		problem := recover()
		s.inFlight.Add(-1)
		s.finish(rec, r, time.Since(s.ln.epoch)-began, problem)
	}()

	switch {
	case s.maxInFlight > 0 && inFlight > s.maxInFlight && r.URL.Path != "/health" && !strings.HasPrefix(r.URL.Path, "/-/"):
		// /health and the ops paths stay: an overloaded process that is restarted
		// for being overloaded serves nobody.
		s.metrics.rejected.WithLabelValues("in_flight").Inc()
		rec.Header().Set("Retry-After", "1")
		writeError(rec, http.StatusServiceUnavailable, "overloaded", "a new try in a second")
	default:
		s.mux.ServeHTTP(rec, r)
	}
}

// finish ends a request: the answer to a panic, metrics, and the access log.
func (s *server) finish(rec *recorder, r *http.Request, took time.Duration, problem any) {
	aborted := problem == http.ErrAbortHandler
	if problem != nil && !aborted {
		s.metrics.panics.Inc()
		s.log.Error("panic in a handler, its request was answered 500 or cut", "route", rec.route.route, "err", fmt.Sprint(problem), "stack", string(debug.Stack()))
		if rec.status == 0 {
			writeError(rec, http.StatusInternalServerError, "internal", "")
		} else {
			aborted = true // half an answer must not look like a whole one
		}
	}
	if rec.status == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	if r.ContentLength != 0 {
		// net/http reads what is left of the body, however slowly it comes.
		_ = http.NewResponseController(rec.ResponseWriter).SetReadDeadline(time.Now().Add(restPatience))
	}
	rec.route.observe(r.Method, rec.status, took)
	if s.access == "all" || s.access == "errors" && rec.status >= 500 {
		s.log.LogAttrs(r.Context(), slog.LevelInfo, "request",
			slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.String("route", rec.route.route),
			slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes),
			slog.Float64("duration_seconds", took.Seconds()), slog.String("client", r.RemoteAddr))
	}
	rec.ResponseWriter = nil
	s.recorders.Put(rec)
	if aborted {
		panic(http.ErrAbortHandler)
	}
}

// restPatience is how long a client may go on sending a body that is not wanted.
// Its connection is kept if the body ends by then.
const restPatience = 100 * time.Millisecond

// recorder is the http.ResponseWriter that handlers get. It notes the status and
// the bytes, and adds Connection: close when the header is written, so that a
// request that began before the drain carries it as well.
type recorder struct {
	http.ResponseWriter
	server *server
	route  *routeMetrics
	status int // 0 until the header is written
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

func (rec *recorder) WriteHeader(code int) {
	if code >= 200 && rec.status == 0 || code == http.StatusSwitchingProtocols {
		rec.status = code
		if rec.server.draining.Load() {
			rec.Header().Set("Connection", "close")
		}
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

// ReadFrom keeps sendfile for files.
func (rec *recorder) ReadFrom(src io.Reader) (int64, error) {
	if rec.status == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(rec.ResponseWriter, src)
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

// methods makes a handler of one path, by method. As in Flask, HEAD is GET
// without the body, OPTIONS lists what there is, and everything else is 405.
func methods(byName map[string]http.HandlerFunc) http.Handler {
	names := slices.Collect(maps.Keys(byName))
	names = append(names, http.MethodOptions)
	if get := byName[http.MethodGet]; get != nil {
		byName[http.MethodHead] = get
		names = append(names, http.MethodHead)
	}
	slices.Sort(names)
	allow := strings.Join(names, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := byName[r.Method]
		switch {
		case h != nil:
			h(w, r)
		case r.Method == http.MethodOptions:
			w.Header().Set("Allow", allow)
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
		default:
			w.Header().Set("Allow", allow)
			writeError(w, http.StatusMethodNotAllowed, "method-not-allowed", allow)
		}
	})
}

func get(h http.HandlerFunc) http.Handler {
	return methods(map[string]http.HandlerFunc{http.MethodGet: h})
}

func post(h http.HandlerFunc) http.Handler {
	return methods(map[string]http.HandlerFunc{http.MethodPost: h})
}

// limitBody refuses bodies of more than the server's maxBody bytes: 413 at once
// when the length is declared, an error from Read when it turns out.
func (s *server) limitBody(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > s.maxBody {
			s.metrics.rejected.WithLabelValues("body").Inc()
			writeError(w, http.StatusRequestEntityTooLarge, "body-too-large", fmt.Sprintf("at most %d bytes", s.maxBody))
			return
		}
		if r.Body != http.NoBody {
			r.Body = http.MaxBytesReader(w.(*recorder).ResponseWriter, r.Body, s.maxBody)
		}
		h(w, r)
	}
}

// unhurried is for handlers that take their time: a read deadline that passes
// meanwhile would cancel the request.
func unhurried(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		h(w, r)
	}
}

// The header values that nearly every response has; shared, so never changed.
var (
	jsonType = []string{"application/json"}
	htmlType = []string{"text/html; charset=utf-8"}
)

func writeJSON(w http.ResponseWriter, code int, body []byte) {
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// writeError answers {"error":code} and, where there is one, what would have
// been accepted.
func writeError(w http.ResponseWriter, status int, code, want string) {
	body, _ := json.Marshal(struct {
		Error string `json:"error"`
		Want  string `json:"want,omitempty"`
	}{code, want})
	writeJSON(w, status, append(body, '\n'))
}

func serveNotFound(w http.ResponseWriter, _ *http.Request) {
	writeError(w, http.StatusNotFound, "not-found", "")
}

// addAppRoutes adds the app listener's contract.
func addAppRoutes(s *server, cfg Config, h *health) {
	hello := []byte("Hello from Docker! Rocket=" + cfg.RocketSize + "\n")
	s.handle("/{$}", get(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = htmlType
		_, _ = w.Write(hello)
	}))
	s.handle("/health", get(h.serveHealth(s.metrics)))
	s.handle("/proof", get(serveProof(cfg)))
}

// serveProof answers GET /proof: the HMAC-SHA256 (RFC 2104) of login ":" token
// under SECRET, in lower-case hex, or 400 when there is no SECRET.
func serveProof(cfg Config) http.HandlerFunc {
	if cfg.Secret == "" {
		return func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, http.StatusBadRequest, "no-secret", "")
		}
	}
	mac := hmac.New(sha256.New, []byte(cfg.Secret))
	mac.Write([]byte(cfg.LabLogin + ":" + cfg.LabToken))
	body, _ := json.Marshal(struct {
		Login string `json:"login"`
		OK    bool   `json:"ok"`
		Proof string `json:"proof"`
	}{cfg.LabLogin, true, hex.EncodeToString(mac.Sum(nil))})
	body = append(body, '\n')
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, body) }
}

// addOpsRoutes adds the ops paths under prefix: "" on a listener of their own,
// "/-" on the app listener.
func addOpsRoutes(s *server, prefix string, cfg Config, vars []variable, h *health, a *auditor, metrics http.Handler) {
	open := func(path string, handler http.Handler) { s.handle(prefix+path, handler) }
	guarded := func(path string, handler http.Handler) { open(path, requireToken(cfg.OpsToken, handler)) }

	open("/livez", get(h.serveLive))
	open("/readyz", get(h.serveReady))
	guarded("/readyz/disable", post(h.serveClose(true)))
	guarded("/readyz/enable", post(h.serveClose(false)))
	guarded("/metrics", get(metrics.ServeHTTP))
	guarded("/audit", get(a.serve))
	guarded("/config", get(serveConfig(vars)))
	if cfg.Pprof {
		addProfileRoutes(s, guarded)
	}
}

// requireToken asks for "Authorization: Bearer token" (RFC 6750) unless token is
// empty. Digests are compared, so that the time tells not even the length.
func requireToken(token string, h http.Handler) http.Handler {
	if token == "" {
		return h
	}
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(given))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="imagelab"`)
			writeError(w, http.StatusUnauthorized, "unauthorized", "Authorization: Bearer and the value of IMAGELAB_OPS_TOKEN")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// serveConfig answers GET /config: every variable, its value or "(redacted)",
// and where it came from.
func serveConfig(vars []variable) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		body, _ := json.MarshalIndent(vars, "", "  ")
		writeJSON(w, http.StatusOK, append(body, '\n'))
	}
}

// stream calls emit at once and then every interval, and flushes what it wrote,
// until emit returns false, the client has gone or the server ends its streams;
// the last call has last set. It lifts the deadlines that are for requests.
func (s *server) stream(w http.ResponseWriter, r *http.Request, interval time.Duration, emit func(last bool) bool) {
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
		case <-r.Context().Done():
			return
		case <-s.ending:
			emit(true)
			return
		}
	}
}

// actor is the pair for run.Group: it serves until it is interrupted, and the
// interruption is the drain.
func (s *server) actor(stop *stopper, times drainTimes) (execute func() error, interrupt func(error)) {
	execute = func() error {
		defer s.served.Store(true)
		err := s.http.Serve(s.ln)
		if err == errDrained {
			return nil
		}
		return fmt.Errorf("serve %s on %s: %w", s.name, s.ln.Addr(), err)
	}
	return execute, func(error) { s.drain(stop, times) }
}

// bindAll binds the app listener and, unless its paths go to the app's, the ops
// listener, before anything runs: a busy port is an error with its name.
func bindAll(ctx context.Context, cfg Config, lim limits, log *slog.Logger, m *metrics) (app, ops *listener, err error) {
	app, err = listen(ctx, "app", appAddr(cfg), log, m)
	if err != nil {
		what := fmt.Sprintf("PORT=%d", cfg.Port)
		if cfg.BindAddress != "" {
			what = fmt.Sprintf("IMAGELAB_BIND_ADDRESS=%q %s", cfg.BindAddress, what)
		}
		return nil, nil, fmt.Errorf("listen %s: %w", what, err)
	}
	app.maxConns, app.headerTimeout, app.writeTimeout = lim.conns, cfg.ReadHeaderTimeout, cfg.WriteTimeout
	if cfg.OpsAddr == "" {
		return app, nil, nil
	}
	ops, err = listen(ctx, "ops", cfg.OpsAddr, log, m)
	if err != nil {
		app.Close()
		return nil, nil, fmt.Errorf("listen IMAGELAB_OPS_ADDR=%q: %w", cfg.OpsAddr, err)
	}
	ops.maxConns, ops.headerTimeout, ops.writeTimeout = opsConns, cfg.ReadHeaderTimeout, cfg.WriteTimeout
	return app, ops, nil
}

// opsConns is room for a few scrapers, probes and viewers.
const opsConns = 128
