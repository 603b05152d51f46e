package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The faults of IMAGELAB_FAULTS exist so that people can see what their balancer, alerts
// and timeouts do with them.

// maxFault bounds /delay and /stream.
const maxFault = 10 * time.Minute

// serveDelay answers GET /delay/{duration} after that time, also to a client that has
// said that it will send no more: that one gets 503 when the server stops, as it may have
// gone. HEAD does not wait.
func serveDelay(w http.ResponseWriter, r *http.Request) {
	d, ok := faultDuration(w, r)
	if !ok {
		return
	}
	if r.Method != http.MethodHead {
		began := time.Now()
		if !stay(r, d, nil, func() {}) {
			panic(http.ErrAbortHandler)
		}
		if time.Since(began) < d {
			writeError(w, http.StatusServiceUnavailable, "draining", "")
			return
		}
	}
	writeJSON(w, http.StatusOK, fmt.Appendf(nil, `{"delayed":%q}`+"\n", d))
}

// serveStatus answers GET /status/{code} with that code.
func serveStatus(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil || code < 200 || code > 599 {
		writeError(w, http.StatusBadRequest, "bad-status", "a status from 200 to 599")
		return
	}
	writeJSON(w, code, fmt.Appendf(nil, `{"status":%d}`+"\n", code))
}

// servePanic panics, which is answered 500. HEAD has the answer without the panic.
func servePanic(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodHead {
		panic("asked for by GET /panic")
	}
	writeError(w, http.StatusInternalServerError, "internal", "")
}

// serveStream answers GET /stream/{duration} with a line a second.
func serveStream(w http.ResponseWriter, r *http.Request) {
	d, ok := faultDuration(w, r)
	if !ok {
		return
	}
	if !wantsStream(w, r, "text/plain; charset=utf-8") {
		return
	}
	line, end := 0, time.Now().Add(d)
	stream(w, r, time.Second, func(last bool) bool {
		if last {
			fmt.Fprintln(w, "draining")
			return false
		}
		fmt.Fprintln(w, line)
		line++
		return time.Now().Before(end)
	})
}

// serveHeaders answers GET /headers with those of the request.
func serveHeaders(w http.ResponseWriter, r *http.Request) {
	body, _ := json.MarshalIndent(r.Header, "", "  ")
	writeJSON(w, http.StatusOK, append(body, '\n'))
}

// serveEcho answers POST /echo with its body, as it comes.
func serveEcho(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// Otherwise the rest of the body is thrown away at the first write.
	_ = http.NewResponseController(w).EnableFullDuplex()
	switch n, err := io.Copy(w, r.Body); {
	case err != nil && n > 0:
		panic(http.ErrAbortHandler) // half an echo must not look like a whole one
	case err != nil:
		w.Header().Set("Connection", "close") // nobody knows where the next request begins
		writeError(w, http.StatusBadRequest, "bad-body", "a whole, well-formed body")
	case n == 0:
		w.WriteHeader(http.StatusOK)
	}
}

// faultDuration reads the {duration} of the path, or answers 400.
func faultDuration(w http.ResponseWriter, r *http.Request) (time.Duration, bool) {
	d, err := time.ParseDuration(r.PathValue("duration"))
	if err != nil || d < 0 || d > maxFault {
		writeError(w, http.StatusBadRequest, "bad-duration", fmt.Sprintf("a duration such as 250ms or 3s, at most %v", maxFault))
		return 0, false
	}
	return d, true
}
