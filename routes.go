package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// healthPath is the app's own health check, contract of the Flask service.
const healthPath = "/health"

// addAppRoutes adds what the app listener serves: the contract of the Flask service,
// /store, and with IMAGELAB_FAULTS the faults.
func addAppRoutes(s *server, cfg Config, h *health, st *store) {
	s.handle("/{$}", always, get(serveHello(cfg.RocketSize)))
	s.handle(healthPath, probed, h.healthRoute(s.metrics))
	s.handle("/proof", always, get(serveProof(cfg.Secret, cfg.LabLogin, cfg.LabToken)))
	s.handle("/store", always, post(st.servePut))
	s.handle("/store/{sha256}", always, methods(map[string]http.HandlerFunc{
		http.MethodGet:    st.serveGet,
		http.MethodDelete: st.serveDelete,
	}))
	if cfg.Faults {
		s.handle("/delay/{duration}", always, get(serveDelay))
		s.handle("/status/{code}", always, get(serveStatus))
		s.handle("/panic", always, get(servePanic))
		s.handleStream("/stream/{duration}", always, get(serveStream))
		s.handle("/headers", always, get(serveHeaders))
		s.handle("/echo", always, post(s.limitBody(serveEcho)))
	}
}

// addFront passes everything on to the backend instead. The ops paths are the server's own
// if they are on the app listener.
func addFront(s *server, to backend, cfg Config, vars []variable, opsHere bool, failed func(), reg prometheus.Registerer, log *slog.Logger) {
	boundsBodies := named(vars, "IMAGELAB_MAX_BODY").Source != "default"
	f := newFront(to, cfg, boundsBodies, failed, newFrontMetrics(reg, s.metrics), log)
	own := ""
	if opsHere {
		own = "/-/"
	}
	s.passOn(f, own)
}

// opsRoutes are what the ops listener serves from.
type opsRoutes struct {
	token     string // Config.OpsToken
	guard     *guard
	pprof     bool
	variables []variable
	health    *health
	auditor   *auditor
	metrics   http.Handler
	events    *events
	profiles  *slots
}

// add adds them under prefix: "" on a listener of their own, "/-" on the app listener.
// The page itself holds no data, and asks for the token where one is needed.
func (o opsRoutes) add(s *server, prefix string) {
	open := func(path string, h http.Handler) { s.handle(prefix+path, watching, unshared(h)) }
	guarded := func(path string, h http.Handler) { open(path, o.guard.protect(requireToken(o.token, h), true)) }
	// What goes on for a while is not to be begun by a link.
	stream := func(path string, h http.HandlerFunc) {
		s.handleStream(prefix+path, watching, unshared(o.guard.protect(requireToken(o.token, get(h)), false)))
	}

	// Balancers ask for these by any name, and they reveal nothing.
	open("/livez", get(o.health.serveLive))
	open("/readyz", o.health.readyRoute())
	guarded("/readyz/disable", post(o.health.serveClose(true)))
	guarded("/readyz/enable", post(o.health.serveClose(false)))
	guarded("/metrics", get(o.metrics.ServeHTTP))
	guarded("/audit", get(o.auditor.serve))
	guarded("/config", get(serveConfig(o.variables)))
	stream("/events", o.events.serveEvents)
	guarded("/snapshot", get(o.events.serveSnapshot))
	stream("/last", o.events.serveLast)
	guarded("/peers", get(o.events.servePeers))
	guarded("/plain", get(o.events.servePlain))
	if o.pprof {
		guarded("/debug/pprof/{$}", get(serveProfileList))
		guarded("/debug/pprof/{name}", get(serveProfile))
		stream("/debug/pprof/profile", serveCPUProfile(o.profiles))
		stream("/debug/pprof/trace", serveTrace(o.profiles))
	}
	page, assets := dashboard()
	open("/{$}", o.guard.protect(get(page), true))
	open("/assets/{name}", o.guard.protect(get(assets), true))
}

// serveHello answers GET / with the size of the rocket.
func serveHello(rocketSize string) http.HandlerFunc {
	hello := []byte("Hello from Docker! Rocket=" + rocketSize + "\n")
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = htmlType
		_, _ = w.Write(hello)
	}
}

// serveProof answers GET /proof: the HMAC-SHA256 (RFC 2104) of login ":" token under
// secret, in lower-case hex, or 400 when there is no secret.
func serveProof(secret, login, token string) http.HandlerFunc {
	if secret == "" {
		return func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, http.StatusBadRequest, "no-secret", "")
		}
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(login + ":" + token))
	body, _ := json.Marshal(struct {
		Login string `json:"login"`
		OK    bool   `json:"ok"`
		Proof string `json:"proof"`
	}{login, true, hex.EncodeToString(mac.Sum(nil))})
	body = append(body, '\n')
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, body) }
}

// serveConfig answers GET /config: every variable, its value or "(redacted)", and where
// it came from.
func serveConfig(vars []variable) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		body, _ := json.MarshalIndent(vars, "", "  ")
		writeJSON(w, http.StatusOK, append(body, '\n'))
	}
}

// requireToken asks for "Authorization: Bearer token" (RFC 6750) unless token is empty.
// Digests are compared, so that the time tells not even the length.
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
