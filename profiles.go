package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"sync"
	"time"

	"imagelab/drain"
)

// The handlers of IMAGELAB_PPROF, for go tool pprof and go tool trace. They are
// those of net/http/pprof that these tools need; the package itself would add
// 0.3 MB for differences of profiles and symbols, which the tools find alone.

func serveCPUProfile(one *slots) http.HandlerFunc {
	return serveTimed(one, "30", pprof.StartCPUProfile, pprof.StopCPUProfile)
}

func serveTrace(one *slots) http.HandlerFunc {
	return serveTimed(one, "1", trace.Start, trace.Stop)
}

// serveProfileList answers with the names of what can be asked for.
func serveProfileList(w http.ResponseWriter, r *http.Request) {
	if !wantsBody(w, r, "text/plain; charset=utf-8") {
		return
	}
	fmt.Fprintln(w, "profile?seconds=30\ntrace?seconds=1")
	for _, p := range pprof.Profiles() {
		fmt.Fprintf(w, "%s (%d)\n", p.Name(), p.Count())
	}
}

// serveProfile answers with the profile of that name; ?debug=1 makes it text.
func serveProfile(w http.ResponseWriter, r *http.Request) {
	p := pprof.Lookup(r.PathValue("name"))
	if p == nil {
		serveNotFound(w, r)
		return
	}
	debug, _ := strconv.Atoi(r.URL.Query().Get("debug"))
	contentType := "application/octet-stream"
	if debug > 0 {
		contentType = "text/plain; charset=utf-8"
	}
	if !wantsBody(w, r, contentType) {
		return
	}
	_ = p.WriteTo(w, debug) // fails when the client goes
}

// serveTimed answers with what start writes in ?seconds=, normally so many, until
// stop; a drain shortens it. There is one recording of a process at a time. HEAD records
// nothing.
func serveTimed(one *slots, normal string, start func(io.Writer) error, stop func()) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.Atoi(cmp.Or(r.URL.Query().Get("seconds"), normal))
		if err != nil || seconds < 1 || seconds > 600 {
			writeError(w, http.StatusBadRequest, "bad-seconds", "a number from 1 to 600")
			return
		}
		if !wantsStream(w, r, "application/octet-stream") {
			return
		}
		one.hold(w, func() {
			out := &sharedWriter{w: w}
			if start(out) != nil { // another server in the process records
				one.refuse(w)
				return
			}
			defer stop()
			if !stay(r, time.Duration(seconds)*time.Second, drain.Ending(r.Context()), out.flush) {
				panic(http.ErrAbortHandler)
			}
		})
	}
}

// sharedWriter is a response that is written by a recording in the background, and
// flushed meanwhile.
type sharedWriter struct {
	mu sync.Mutex
	w  http.ResponseWriter
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func (s *sharedWriter) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = http.NewResponseController(s.w).Flush()
}
