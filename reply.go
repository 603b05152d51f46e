package main

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"imagelab/drain"
)

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

// writeError answers {"error":code} and, where there is one, what would have been
// accepted.
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

// wantsBody begins an answer whose body costs something, and says whether to make one:
// HEAD is answered here. The length is left out, as it is not known (RFC 9110, 9.3.2).
func wantsBody(w http.ResponseWriter, r *http.Request, contentType string) bool {
	w.Header().Set("Content-Type", contentType)
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return false
	}
	return true
}

// wantsStream is wantsBody for a body that comes bit by bit, each of which proxies have to
// pass on at once: X-Accel-Buffering tells nginx, no-transform (RFC 9111, 5.2.2.6) those
// that compress.
func wantsStream(w http.ResponseWriter, r *http.Request, contentType string) bool {
	h := w.Header()
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	return wantsBody(w, r, contentType)
}

// untilEnding is a context for an answer that asks others or takes time: it ends when the
// server waits for its streams to end. The request's own is no such thing, as it ends
// when the client says that it will send no more, and such a client waits for its answer
// (RFC 9112, 9.6).
func untilEnding(r *http.Request) (context.Context, context.CancelFunc) {
	return drain.UntilEnding(context.WithoutCancel(r.Context()))
}

// stay waits for d, or until the ending, and says whether the client is still there. Where
// it has ended its side, nudge is called once and may send something: only what is sent
// finds out soon whether the client has gone.
func stay(r *http.Request, d time.Duration, ending <-chan struct{}, nudge func()) bool {
	end := time.NewTimer(d)
	defer end.Stop()
	halfClosed := r.Context().Done()
	var look <-chan time.Time
	for {
		select {
		case <-end.C:
			return true
		case <-ending:
			return true
		case <-halfClosed:
			halfClosed, ending = nil, drain.Ending(r.Context()) // a stop does not wait for who may have gone
			nudge()
			each := time.NewTicker(time.Second)
			defer each.Stop()
			look = each.C
		case <-look:
			if drain.Gone(r.Context()) {
				return false
			}
		}
	}
}

// methods makes a handler of one path, by method. As in Flask, HEAD is GET without the
// body, OPTIONS lists what there is unless it has a handler of its own, and everything
// else is 405. A GET that does something, takes time or costs much does not do so for
// HEAD.
func methods(byName map[string]http.HandlerFunc) http.Handler {
	names := slices.Collect(maps.Keys(byName))
	if get := byName[http.MethodGet]; get != nil {
		byName[http.MethodHead] = get
		names = append(names, http.MethodHead)
	}
	options := byName[http.MethodOptions]
	if options == nil {
		names = append(names, http.MethodOptions)
		options = func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = htmlType
			w.WriteHeader(http.StatusOK)
		}
	}
	slices.Sort(names)
	allow := strings.Join(names, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := byName[r.Method]
		switch {
		case r.Method == http.MethodOptions:
			w.Header().Set("Allow", allow)
			options(w, r)
		case h != nil:
			h(w, r)
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

// writeProblem answers {"error":code} and what is known of the cause.
func writeProblem(w http.ResponseWriter, status int, code, why string) {
	body, _ := json.Marshal(struct {
		Error string `json:"error"`
		Why   string `json:"why"`
	}{code, why})
	writeJSON(w, status, append(body, '\n'))
}
