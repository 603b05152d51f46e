package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
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

// methods makes a handler of one path, by method. As in Flask, HEAD is GET without the
// body, OPTIONS lists what there is unless it has a handler of its own, and everything
// else is 405.
func methods(byName map[string]http.HandlerFunc) http.Handler {
	names := slices.Collect(maps.Keys(byName))
	if get := byName[http.MethodGet]; get != nil {
		byName[http.MethodHead] = get
		names = append(names, http.MethodHead)
	}
	options := byName[http.MethodOptions]
	if options == nil {
		names = append(names, http.MethodOptions)
		options = func(w http.ResponseWriter, _ *http.Request) { w.Header()["Content-Type"] = htmlType }
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
