// Package compare puts containers side by side: what their audits found and what
// their processes measure, row by row, with the better one marked. It is pure;
// whoever uses it fetches.
package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"imagelab/internal/audit"
	"imagelab/internal/sizes"
)

// Schema is the version of the comparison's JSON form. A new field leaves it, a
// changed or removed one raises it.
const Schema = 1

// A Side is one of the containers.
type Side struct {
	Name string
	URL  string
	// Err is why there is no report; then the two below are nil.
	Err    error
	Report *audit.Report
	Live   *Live
}

// Comparison is the result.
type Comparison struct {
	Schema      int          `json:"schema"`
	Time        time.Time    `json:"time"`
	Targets     []Target     `json:"targets"`
	Rows        []Row        `json:"rows"`
	Differences []Difference `json:"differences"`
	Summary     []string     `json:"summary"` // sentences
}

// Target is one side, or why it is missing in the rest.
type Target struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Variant string `json:"variant,omitempty"`
	Version string `json:"version,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Row is one fact about each side that has a report, in the order of the targets.
type Row struct {
	Group  string  `json:"group"`
	Label  string  `json:"label"`
	Values []Value `json:"values"`
	rule   rule
}

// Value is one fact about one side.
type Value struct {
	Name   string   `json:"name"` // of the target
	Text   string   `json:"text"`
	Number *float64 `json:"number,omitempty"` // in base units: bytes, seconds, counts
	Better bool     `json:"better"`           // than another one of the row, and no one is better
	// rank is what the better one is found by, where that is not Number: 1 and 0
	// for words, 1 for a limit of any height.
	rank *float64
}

// Difference is a check whose verdicts are not the same.
type Difference struct {
	ID       string         `json:"id"`
	Title    string         `json:"title"`
	Severity audit.Severity `json:"severity"`
	Verdicts []Verdict      `json:"verdicts"`
}

// Verdict is that of one side, with what was found.
type Verdict struct {
	Name   string       `json:"name"` // of the target
	Status audit.Status `json:"status"`
	Reason string       `json:"reason"`
}

// rule says which number of a row is the better one. Neither is what traffic or the
// moment decides, as everything that a process measures of itself: one that serves more
// is not the worse for it.
type rule int

const (
	neither rule = iota
	less
	more
)

// cell is one fact about one side, with the place in the table that it goes to.
type cell struct {
	group, label string
	rule         rule
	value        Value
}

// sinceStart is the group of what counts from the start of each process. Requests
// are without health probes.
const sinceStart = "since the start"

// cells lists the facts about a side, for every side the same in the same order.
func (s *Side) cells() []cell {
	f := &s.Report.Facts
	image, process, limits, sum := &f.Image, &f.Process, &f.Limits, &s.Report.Summary
	l := s.Live
	if l == nil {
		l = new(Live)
	}
	start := text(notKnown)
	if f.App != nil {
		start = amount(f.App.StartSeconds, span)
	}
	return []cell{
		{"image", "base", neither, text(cmp.Or(image.Distribution, "none"))},
		{"image", "size", less, amountOf(image.Bytes, sizes.Image)},
		{"image", "files", less, count(image.Files)},
		{"image", "executables", less, count(image.Executables)},
		{"image", "packages", less, packages(image.Packages)},
		{"image", "shells", less, paths(image.Shells)},
		{"image", "package managers", less, paths(image.PackageManagers)},
		{"image", "interpreters", less, paths(image.Interpreters)},
		{"image", "network clients", less, paths(image.NetworkClients)},
		{"image", "setuid files", less, paths(image.SetuidFiles)},
		{"image", "CA roots", neither, count(image.CARoots)},

		{"privileges", "user", more, user(process)},
		{"privileges", "capabilities", less, capabilities(process.Bounding)},
		{"privileges", "no_new_privs", more, noNewPrivs(process.NoNewPrivileges)},
		{"privileges", "seccomp", more, seccomp(process.Seccomp)},
		{"privileges", "writable", more, writable(f.WritableMounts)},
		{"privileges", "sandbox", more, sandbox(f.Sandbox)},

		{"limits", "memory", more, limit(amountOf(limits.MemoryBytes, sizes.Memory))},
		{"limits", "CPUs", more, limit(amountOf(limits.CPUs, plain))},
		{"limits", "processes", more, limit(amountOf(limits.PIDs, plain))},
		{"limits", "open files", more, limit(amountOf(limits.OpenFilesHard, plain))},

		{"audit", "failed", less, amount(float64(sum.Fail), plain)},
		{"audit", "warnings", less, amount(float64(sum.Warn), plain)},
		{"audit", "not known", less, amount(float64(sum.Unknown), plain)},
		{"audit", "passed", neither, amount(float64(sum.Pass), plain)},

		{"process", "state", neither, text(cmp.Or(l.State, notKnown))},
		{"process", "command", neither, command(l.Command)},
		{"process", "up for", neither, amount(l.UptimeSeconds, span)},
		{"process", "start", neither, start},
		{"process", "memory in use", neither, amountOf(l.Process.MemoryBytes, sizes.Memory)},
		{"process", "resident memory", neither, amount(l.Process.ResidentBytes, sizes.Memory)},

		{sinceStart, "cost of a probe", neither, mean(l.Probes)},
		{sinceStart, "requests", neither, amount(l.Requests.Total, plain)},
		{sinceStart, "failed with 5xx", neither, amount(l.Requests.Failed, plain)},
		{sinceStart, "latency, median", neither, quantile(l.Latency, 0.5)},
		{sinceStart, "latency, p99", neither, quantile(l.Latency, 0.99)},
	}
}

// command is which start of the command runs, and how the one before it has ended.
func command(c *Command) Value {
	if c == nil {
		return text("none")
	}
	words := fmt.Sprintf("start %d", c.Generation)
	if !c.Up {
		words += ", not up"
	}
	if c.Last != "" {
		words += ", last " + c.Last
	}
	return text(words)
}

// Compare compares. Names have to be unique.
func Compare(sides []Side, now time.Time) Comparison {
	c := Comparison{Schema: Schema, Time: now.UTC().Truncate(time.Second), Targets: []Target{}, Rows: []Row{}, Differences: []Difference{}, Summary: []string{}}
	var shown []*Side
	for i := range sides {
		s := &sides[i]
		s.Name = printable(s.Name)
		t := Target{Name: s.Name, URL: printable(s.URL)}
		if s.Err != nil {
			t.Error = printable(s.Err.Error())
		} else {
			t.Variant, t.Version = printable(s.Report.Variant), printable(s.Report.Tool)
			shown = append(shown, s)
		}
		c.Targets = append(c.Targets, t)
	}
	for _, s := range shown {
		for i, cell := range s.cells() {
			if i == len(c.Rows) {
				c.Rows = append(c.Rows, Row{Group: cell.group, Label: cell.label, rule: cell.rule})
			}
			cell.value.Name, cell.value.Text = s.Name, printable(cell.value.Text)
			c.Rows[i].Values = append(c.Rows[i].Values, cell.value)
		}
	}
	for i := range c.Rows {
		c.Rows[i].mark()
	}
	if len(shown) > 0 {
		c.Differences = differences(shown)
	}
	c.summarize(shown)
	return c
}

// mark marks the best values, unless all are equally good. What is not known is
// neither better nor worse.
func (r *Row) mark() {
	var known []float64
	for i := range r.Values {
		v := &r.Values[i]
		if v.rank == nil {
			v.rank = v.Number
		}
		if v.rank != nil {
			known = append(known, *v.rank)
		}
	}
	if r.rule == neither || len(known) < 2 {
		return
	}
	best, worst := slices.Min(known), slices.Max(known)
	if r.rule == more {
		best, worst = worst, best
	}
	if best == worst {
		return
	}
	for i := range r.Values {
		if v := &r.Values[i]; v.rank != nil {
			v.Better = *v.rank == best
		}
	}
}

// differences lists the checks on which the sides disagree, the worst first. A
// check that one side does not have, being of another version, is left out.
func differences(sides []*Side) []Difference {
	found := []Difference{}
	for severity := audit.Critical; severity >= audit.Info; severity-- {
		for i := range sides[0].Report.Checks {
			check := &sides[0].Report.Checks[i]
			if check.Severity != severity {
				continue
			}
			d := Difference{ID: printable(check.ID), Title: printable(check.Title), Severity: severity}
			same := true
			for _, s := range sides {
				if result := s.result(check.ID); result != nil {
					same = same && result.Status == check.Status
					reason := printable(cmp.Or(result.Evidence, result.Reason))
					d.Verdicts = append(d.Verdicts, Verdict{s.Name, audit.Status(printable(string(result.Status))), reason})
				}
			}
			if !same && len(d.Verdicts) == len(sides) {
				found = append(found, d)
			}
		}
	}
	return found
}

// result is the side's verdict of a check; nil when it has none.
func (s *Side) result(id string) *audit.Result {
	for i := range s.Report.Checks {
		if s.Report.Checks[i].ID == id {
			return &s.Report.Checks[i]
		}
	}
	return nil
}

// summarize says in words what the rows amount to.
func (c *Comparison) summarize(shown []*Side) {
	say := func(format string, args ...any) { c.Summary = append(c.Summary, fmt.Sprintf(format, args...)) }
	for _, t := range c.Targets {
		if t.Error != "" {
			say("%s could not be compared: %s.", t.Name, t.Error)
		}
	}
	if len(shown) == 0 {
		return
	}
	if len(shown) > 1 {
		if s := smallest(shown); s != "" {
			say("%s", s)
		}
		wins := map[string]int{}
		judged, even := 0, 0
		for _, r := range c.Rows {
			if r.rule == neither {
				continue
			}
			judged++
			if !slices.ContainsFunc(r.Values, func(v Value) bool { return v.Better }) {
				even++
			}
			for _, v := range r.Values {
				if v.Better {
					wins[v.Name]++
				}
			}
		}
		var parts []string
		for _, s := range shown {
			parts = append(parts, fmt.Sprintf("%s in %d", s.Name, wins[s.Name]))
		}
		say("Of %d rows that image and settings decide, better: %s; no difference in %d.", judged, strings.Join(parts, ", "), even)
	}
	var failed []string
	for _, s := range shown {
		var ids []string
		for _, r := range s.Report.Checks {
			if r.Status == audit.Fail {
				ids = append(ids, printable(r.ID))
			}
		}
		switch {
		case len(ids) == 0:
			failed = append(failed, s.Name+" none")
		case len(ids) > 3:
			failed = append(failed, fmt.Sprintf("%s %d (%s and %d more)", s.Name, len(ids), strings.Join(ids[:3], ", "), len(ids)-3))
		default:
			failed = append(failed, fmt.Sprintf("%s %d (%s)", s.Name, len(ids), strings.Join(ids, ", ")))
		}
	}
	say("Failed checks: %s.", strings.Join(failed, "; "))
}

// smallest says which image is the smallest, and how much larger the others are.
func smallest(sides []*Side) string {
	var least *Side
	for _, s := range sides {
		switch bytes := s.Report.Facts.Image.Bytes; {
		case bytes == nil:
			return ""
		case least == nil || *bytes < *least.Report.Facts.Image.Bytes:
			least = s
		}
	}
	size := float64(*least.Report.Facts.Image.Bytes)
	var others []string
	for _, s := range sides {
		if bytes := float64(*s.Report.Facts.Image.Bytes); bytes > size {
			others = append(others, fmt.Sprintf("%s by %s (%.0f %%)", s.Name, sizes.Image(bytes-size), 100*(1-size/bytes)))
		}
	}
	if len(others) == 0 {
		return "The images have the same size, " + sizes.Image(size) + "."
	}
	return fmt.Sprintf("The image of %s is the smallest: %s, below %s.", least.Name, sizes.Image(size), strings.Join(others, " and "))
}

// What a value is called when nobody knows it.
const notKnown = "?"

func text(s string) Value { return Value{Text: s} }

func amount(n float64, format func(float64) string) Value { return Value{Text: format(n), Number: &n} }

func amountOf[T int64 | float64](n *T, format func(float64) string) Value {
	if n == nil {
		return text(notKnown)
	}
	return amount(float64(*n), format)
}

func count(n *int) Value {
	if n == nil {
		return text(notKnown)
	}
	return amount(float64(*n), plain)
}

// ranked is a word that is better (1) or worse (0) than another.
func ranked(s string, good bool) Value {
	rank := 0.0
	if good {
		rank = 1
	}
	return Value{Text: s, rank: &rank}
}

// limit makes any limit better than none.
func limit(v Value) Value {
	if v.Number == nil {
		return ranked("none", false)
	}
	return Value{Text: v.Text, Number: v.Number, rank: ranked("", true).rank}
}

// paths adds the first names to a number of files.
func paths(c *audit.Count) Value {
	if c == nil {
		return text(notKnown)
	}
	v := count(&c.Count)
	var names []string
	for _, p := range c.Paths {
		name := p[strings.LastIndexByte(p, '/')+1:]
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		v.Text += " (" + strings.Join(names, " ") + ")"
	}
	return v
}

func packages(found []audit.PackageFacts) Value {
	n := 0
	var databases []string
	for _, p := range found {
		if p.Packages == nil {
			return text(p.Database + ", not counted")
		}
		n += *p.Packages
		databases = append(databases, p.Database)
	}
	v := count(&n)
	if len(databases) > 0 {
		v.Text += " (" + strings.Join(databases, " ") + ")"
	}
	return v
}

func user(p *audit.ProcessFacts) Value {
	if p.UID == nil {
		return text(notKnown)
	}
	return ranked(strconv.Itoa(*p.UID)+":"+count(p.GID).Text, *p.UID != 0)
}

// capabilities is the bounding set: what the process could still get.
func capabilities(set []string) Value {
	if set == nil {
		return text(notKnown)
	}
	v := amount(float64(len(set)), plain)
	if len(set) == 0 {
		v.Text = "none"
	}
	return v
}

func noNewPrivs(set *bool) Value {
	switch {
	case set == nil:
		return text(notKnown)
	case *set:
		return ranked("set", true)
	}
	return ranked("not set", false)
}

func seccomp(mode string) Value {
	if mode == "" {
		return text(notKnown)
	}
	return ranked(mode, mode != "off")
}

// writable are the mount points that can be written to; what counts is whether
// the root is one.
func writable(mounts []string) Value {
	return ranked(cmp.Or(strings.Join(mounts, " "), "nothing"), !slices.Contains(mounts, "/"))
}

// sandbox is what is confined, and how much of it; less than all is better than nothing.
func sandbox(s *audit.SandboxFacts) Value {
	switch {
	case s == nil:
		return text(notKnown)
	case s.Of == "" || len(s.Applied) == 0:
		return ranked("none", false)
	case len(s.Refused) == 0:
		return ranked(s.Of, true)
	}
	return ranked(fmt.Sprintf("%s, %d refused", s.Of, len(s.Refused)), true)
}

func mean(p Probes) Value {
	if p.Total <= 0 {
		return text("none yet")
	}
	return amount(p.SumSeconds/p.Total, span)
}

func quantile(h Histogram, q float64) Value {
	seconds, known := h.Quantile(q)
	switch {
	case !known:
		return text("none yet")
	case math.IsInf(seconds, 1):
		return Value{Text: "> " + edge(h.Bounds[len(h.Bounds)-1]), rank: &seconds}
	}
	return amount(seconds, func(s float64) string { return "≤ " + edge(s) })
}

// edge writes the bound of a bucket, which is round, with no digit more than it has.
func edge(seconds float64) string {
	unit := " s"
	switch {
	case seconds < 0.001:
		seconds, unit = seconds*1e6, " µs"
	case seconds < 1:
		seconds, unit = seconds*1e3, " ms"
	}
	return strconv.FormatFloat(seconds, 'g', 4, 64) + unit
}

func plain(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// span writes seconds with the unit that suits them.
func span(seconds float64) string {
	switch {
	case seconds < 0.001:
		return strconv.FormatFloat(seconds*1e6, 'f', 0, 64) + " µs"
	case seconds < 1:
		return strconv.FormatFloat(seconds*1e3, 'f', 1, 64) + " ms"
	case seconds < 120:
		return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// printable keeps what a stranger's server said from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
