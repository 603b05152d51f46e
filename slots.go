package main

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// slots bound how many requests do one costly thing at a time, whoever asks. They are
// held while it is done, and not while a client reads what came of it.
type slots struct {
	taken    chan struct{}
	rejected prometheus.Counter
}

// newSlots makes n. The reason is the label of those that are refused.
func newSlots(n int, reason string, m *metrics) *slots {
	return &slots{taken: make(chan struct{}, n), rejected: m.rejected.WithLabelValues(reason)}
}

// hold does it in a slot, or says that there was none. Then w has been answered.
func (s *slots) hold(w http.ResponseWriter, do func()) bool {
	select {
	case s.taken <- struct{}{}:
		defer func() { <-s.taken }()
		do()
		return true
	default:
		s.refuse(w)
		return false
	}
}

// refuse answers 503.
func (s *slots) refuse(w http.ResponseWriter) {
	s.rejected.Inc()
	w.Header().Set("Retry-After", "1")
	writeError(w, http.StatusServiceUnavailable, "overloaded", fmt.Sprintf("at most %d at a time", cap(s.taken)))
}
