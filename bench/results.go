package main

import (
	"math"
	"slices"
	"time"
)

// results is all that one run has measured; docs/results.json is its JSON.
type results struct {
	Date     time.Time `json:"date"`
	Command  string    `json:"command"`  // what repeats the run
	Took     float64   `json:"took"`     // seconds
	Machine  []fact    `json:"machine"`  // processors, memory, kernel, engine
	Versions []fact    `json:"versions"` // of the subjects and the tools
	Rows     []*row    `json:"rows"`     // in the order of the document
}

// fact is a line of text with a name.
type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// row is one quantity, measured for several subjects in interleaved rounds.
type row struct {
	ID      string  `json:"id"`                // unique, as in "rps-saturation"
	Section string  `json:"section"`           // the heading that it is printed under
	Title   string  `json:"title"`             // as in "requests a second at saturation"
	Unit    string  `json:"unit"`              // "bytes", "seconds", "requests/s" or "" for a number
	More    bool    `json:"more,omitempty"`    // more is better
	Floor   string  `json:"floor,omitempty"`   // the subject that ratios refer to
	Note    string  `json:"note,omitempty"`    // what a reader has to know
	X       float64 `json:"x,omitempty"`       // the condition in a sweep, as 0.25 CPU, or 1000 connections
	Sweep   string  `json:"sweep,omitempty"`   // the sweep's name, as "connections"; rows of one sweep make one chart
	LeftOut string  `json:"leftout,omitempty"` // why this machine cannot measure it

	Samples []sample `json:"samples"` // in the order in which the subjects were first measured
}

// sample is what one subject gave: one value a round, in the order of the rounds.
// Where there is none it is null.
type sample struct {
	Subject string     `json:"subject"`
	Values  []*float64 `json:"values"`
}

// median of the rounds, NaN without any.
func (s sample) median() float64 { return median(s.numbers()) }

// spread is the least and the greatest of the rounds.
func (s sample) spread() (low, high float64) {
	n := s.numbers()
	if len(n) == 0 {
		return math.NaN(), math.NaN()
	}
	return slices.Min(n), slices.Max(n)
}

func (s sample) numbers() []float64 {
	var n []float64
	for _, v := range s.Values {
		if v != nil {
			n = append(n, *v)
		}
	}
	return n
}

func median(n []float64) float64 {
	if len(n) == 0 {
		return math.NaN()
	}
	n = slices.Sorted(slices.Values(n))
	return (n[(len(n)-1)/2] + n[len(n)/2]) / 2
}

// of is what the subject gave, nil if it was not measured.
func (r *row) of(subject string) *sample {
	for i := range r.Samples {
		if r.Samples[i].Subject == subject {
			return &r.Samples[i]
		}
	}
	return nil
}

// ratios of subject to other, round by round: what disturbs a whole round, as a
// warm processor does, is the same for both.
func (r *row) ratios(subject, other string) []float64 {
	a, b := r.of(subject), r.of(other)
	if a == nil || b == nil {
		return nil
	}
	var n []float64
	for i := range min(len(a.Values), len(b.Values)) {
		if x, y := a.Values[i], b.Values[i]; x != nil && y != nil && *y != 0 {
			n = append(n, *x / *y)
		}
	}
	return n
}
