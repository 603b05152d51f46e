package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// README.md repeats what stands between these, see scripts/results.sh.
const (
	glanceBegin = "<!-- glance:begin -->"
	glanceEnd   = "<!-- glance:end -->"
)

// figure is one subject's part of a row.
type figure struct{ row, subject string }

// budget is what imagelab has promised: the multiple of what another subject
// gives, the difference from it, or the figure itself keeps to a limit.
type budget struct {
	what string
	figure
	against string   // a subject of the same row: the limit is a multiple of it
	above   []figure // the limit is for what the figure has above their sum,
	base    string   // which is called this
	total   bool     // the limit is for all rounds together
	atLeast bool     // the limit is the least, not the most
	limit   float64
	unit    string // of the limit, as in row
}

var budgets = []budget{
	{what: "binary", figure: figure{"binary-bytes", "imagelab"},
		against: "bare", limit: 1.95},
	{what: "scratch image", figure: figure{"image-bytes", "imagelab"}, unit: "bytes",
		above: []figure{{"binary-bytes", "imagelab"}}, base: "binary", limit: 300e3},
	{what: "alpine image", figure: figure{"image-bytes", "imagelab (alpine)"}, unit: "bytes",
		above: []figure{{"image-bytes", "alpine base"}, {"binary-bytes", "imagelab"}}, base: "base + binary", limit: 100e3},
	{what: "exec to the first 200", figure: figure{"exec-to-200", "imagelab"},
		against: "bare", limit: 1.5},
	{what: "resident memory, idle", figure: figure{"rss-idle", "imagelab"},
		against: "bare", limit: 1.8},
	{what: "resident memory after load", figure: figure{"rss-after-load", "imagelab"},
		against: "bare", limit: 1.4},
	{what: "requests a second on /health, metrics on", figure: figure{"rps-saturation", "imagelab"},
		against: "bare", atLeast: true, limit: 0.9},
	{what: "requests a second on /health, metrics on", figure: figure{"rps-saturation", "imagelab"},
		against: "podinfo", atLeast: true, limit: 1.5},
	{what: "allocations a request", figure: figure{"allocs", "imagelab"},
		above: []figure{{"allocs", "bare"}}, base: "bare", limit: 2},
	{what: "front: requests a second", figure: figure{"front-rps", "imagelab"},
		against: "haproxy", atLeast: true, limit: 0.6},
	{what: "front: requests a second", figure: figure{"front-rps", "imagelab"},
		against: "Caddy", atLeast: true, limit: 2},
	{what: "front: resident memory, idle", figure: figure{"front-rss-idle", "imagelab"},
		limit: 12e6, unit: "bytes"},
	{what: "front: resident memory after load", figure: figure{"front-rss-after-load", "imagelab"},
		limit: 20e6, unit: "bytes"},
	{what: "front: added to the median latency at 1,000 requests a second", figure: figure{"front-added-p50", "imagelab"},
		limit: 150e-6, unit: "seconds"},
	{what: "front: requests lost when it is stopped under load, in all rounds", figure: figure{"front-lost", "imagelab"},
		total: true, limit: 0},
	{what: "sandbox: exec to the first 200", figure: figure{"sandbox-exec-to-200", isConfined}, unit: "seconds",
		above: []figure{{"sandbox-exec-to-200", notConfined}}, base: notConfined, limit: 2e-3},
	{what: "sandbox: requests a second", figure: figure{"sandbox-rps", isConfined},
		against: notConfined, atLeast: true, limit: 0.97},
	{what: "`--healthcheck`, wall time", figure: figure{"probe-wall", "imagelab --healthcheck"},
		against: "curl -fs", limit: 0.5},
	{what: "`--healthcheck`, processor time", figure: figure{"probe-cpu", "imagelab --healthcheck"},
		against: "curl -fs", limit: 0.5},
	{what: "`--healthcheck`, wall time", figure: figure{"probe-wall", "imagelab --healthcheck"},
		against: "empty Go program", limit: 1.5},
	{what: "`--healthcheck`, processor time", figure: figure{"probe-cpu", "imagelab --healthcheck"},
		against: "empty Go program", limit: 1.5},
	{what: "audit of a scratch image, wall time", figure: figure{"audit-wall", "imagelab --audit"},
		limit: 0.024, unit: "seconds"},
	{what: "audit of a scratch image, peak memory", figure: figure{"audit-rss", "imagelab --audit"},
		limit: 20e6, unit: "bytes"},
	{what: "audit of 10,000 files of Debian, wall time", figure: figure{"audit-debian-wall", "imagelab --audit"},
		limit: 2, unit: "seconds"},
	{what: "requests lost on SIGTERM under load, in all rounds", figure: figure{"lost", "imagelab"},
		total: true, limit: 0},
	{what: "the same at a round trip of 50 ms", figure: figure{"lost-50ms", "imagelab"},
		total: true, limit: 0},
	{what: "32 MiB, 2,000 slow clients, store full: requests without an answer", figure: figure{"slow-lost", "imagelab"},
		total: true, limit: 0},
	{what: "SIGTERM to exit, idle, with a drain delay of 250 ms", figure: figure{"idle-stop", "imagelab"},
		limit: 0.300, unit: "seconds"},
}

// measured is what the limit is for, round by round; empty if a part of it was
// not measured.
func (b budget) measured(r *results) []float64 {
	row := r.find(b.row)
	if row == nil {
		return nil
	}
	if b.against != "" {
		return row.ratios(b.subject, b.against)
	}
	s := row.of(b.subject)
	if s == nil {
		return nil
	}
	if b.total {
		return s.total()
	}
	left := *s
	for _, f := range b.above {
		other := r.find(f.row)
		if other == nil || other.of(f.subject) == nil {
			return nil
		}
		left = left.minus(*other.of(f.subject))
	}
	return left.numbers()
}

// met says so of what was measured.
func (b budget) met(measured []float64) bool {
	if b.atLeast {
		return median(measured) >= b.limit
	}
	return median(measured) <= b.limit
}

// cells are the budget's line in its table.
func (b budget) cells(r *results) []string {
	sign, unit := "≤ ", b.unit
	if b.atLeast {
		sign = "≥ "
	}
	limit := sign + format(b.limit, b.unit)
	switch {
	case b.against != "":
		limit, unit = sign+strconv.FormatFloat(b.limit, 'f', -1, 64)+" × "+b.against, "ratio"
	case b.base != "":
		limit = sign + b.base + " + " + format(b.limit, b.unit)
	case b.limit == 0:
		limit = "0"
	}
	n := b.measured(r)
	if len(n) == 0 {
		return []string{b.what, "not measured", limit, "–"}
	}
	measured, verdict := formatAll(n, unit), "✓"
	if b.base != "" && median(n) >= 0 {
		measured = "+" + measured
	}
	if !b.met(n) {
		verdict = "✗ [why](#misses)"
	}
	return []string{b.what, measured, limit, verdict}
}

// missed says whether a budget is.
func (r *results) missed() bool {
	return slices.ContainsFunc(budgets, func(b budget) bool {
		n := b.measured(r)
		return len(n) > 0 && !b.met(n)
	})
}

// glances are the columns of the table that compares at a glance.
var glances = []struct {
	row, what string
	total     bool // of all rounds, not their median
}{
	{row: "image-bytes", what: "image"},
	{row: "exec-to-200", what: "exec to first 200"},
	{row: "rss-idle", what: "memory, idle"},
	{row: "rps-saturation", what: "requests/s"},
	{row: "p99-1000", what: "p99 at 1,000/s"},
	{row: "lost", what: "lost on SIGTERM", total: true},
	{row: "lost-50ms", what: "lost on SIGTERM, at 50 ms", total: true},
}

// glance is a table of the subjects that have at least half of its figures: a
// base image is no rival.
func (r *results) glance() (header []string, lines [][]string) {
	var columns []*row
	count := map[string]int{}
	var subjects []string
	header = []string{""}
	for _, g := range glances {
		measured := r.find(g.row)
		if measured == nil || measured.LeftOut != "" {
			continue
		}
		column := *measured
		column.Samples = nil
		for _, s := range measured.Samples {
			if len(s.numbers()) == 0 {
				continue
			}
			if g.total {
				s.Values = []*float64{&s.total()[0]}
			}
			column.Samples = append(column.Samples, s)
			if count[s.Subject]++; count[s.Subject] == 1 {
				subjects = append(subjects, s.Subject)
			}
		}
		columns = append(columns, &column)
		header = append(header, g.what)
	}
	subjects = slices.DeleteFunc(subjects, func(s string) bool { return 2*count[s] < len(columns) })
	slices.SortStableFunc(subjects, func(a, b string) int { return cmp.Compare(eminence(a), eminence(b)) })
	for _, c := range columns {
		c.Samples = slices.DeleteFunc(c.Samples, func(s sample) bool { return !slices.Contains(subjects, s.Subject) })
	}
	for _, subject := range subjects {
		line := []string{subject}
		for _, c := range columns {
			cell := "–"
			if s := c.of(subject); s != nil {
				cell = c.mark(subject, format(s.median(), c.Unit))
			}
			line = append(line, cell)
		}
		lines = append(lines, line)
	}
	return header, lines
}

// eminence sorts imagelab first and then what it is measured against.
func eminence(subject string) int {
	if i := slices.Index([]string{"imagelab", "bare"}, subject); i >= 0 {
		return i
	}
	return 2
}

// noFront is the load that goes to the upstream itself, and no rival.
const noFront = "no front"

// frontRows are the lines of the table that compares fronts.
var frontRows = []struct {
	row, what string
	total     bool // of all rounds, not their median
}{
	{row: "front-lost", what: "requests lost when it is stopped under load", total: true},
	{row: "front-rss-idle", what: "memory, idle"},
	{row: "front-rss-after-load", what: "memory, after load"},
	{row: "front-rps", what: "requests a second"},
	{row: "front-added-p50", what: "added to the median latency, at 1,000 requests a second"},
}

// fronts is a table of what was measured of fronts, with a column for each. Only what
// is better than all others is marked.
func (r *results) fronts() (header []string, lines [][]string) {
	header = []string{"as a front"}
	for _, f := range frontRows {
		measured := r.find(f.row)
		if measured == nil || measured.LeftOut != "" {
			continue
		}
		for _, s := range measured.Samples {
			if len(s.numbers()) > 0 && s.Subject != noFront && !slices.Contains(header, s.Subject) {
				header = append(header, s.Subject)
			}
		}
	}
	slices.SortStableFunc(header[1:], func(a, b string) int { return cmp.Compare(eminence(a), eminence(b)) })
	for _, f := range frontRows {
		measured := r.find(f.row)
		if measured == nil || measured.LeftOut != "" {
			continue
		}
		line := row{Unit: measured.Unit, More: measured.More}
		for _, s := range measured.Samples {
			if len(s.numbers()) == 0 || s.Subject == noFront {
				continue
			}
			if f.total {
				s.Values = []*float64{&s.total()[0]}
			}
			line.Samples = append(line.Samples, s)
		}
		cells := []string{f.what}
		for _, subject := range header[1:] {
			cell := "–"
			if s := line.of(subject); s != nil {
				cell = format(s.median(), line.Unit)
				if ranking := line.ranking(); len(ranking) > 1 && slices.Equal(ranking[0], []string{subject}) {
					cell = "**" + cell + "**"
				}
			}
			cells = append(cells, cell)
		}
		lines = append(lines, cells)
	}
	return header, lines
}

// markdown writes docs/results.md. The misses say why a budget is missed.
func (r *results) markdown(w io.Writer, misses string) error {
	b := new(bytes.Buffer)
	fmt.Fprint(b, "# Measured results\n\nimagelab beside `bare`, the least net/http server, and its rivals, "+
		"in interleaved rounds on one machine: the ratios count, absolute figures are this machine's.\n\n")
	took := time.Duration(r.Took * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(b, "Measured on %s in %s by\n\n```sh\n%s\n```\n\n", r.Date.UTC().Format("2 January 2006"), took, r.Command)
	fmt.Fprint(b, "How to read it: a ratio is the median of the ratios of the single rounds, the least and the greatest of "+
		"them in brackets. Subjects share a rank where their spreads overlap or their medians differ by less than 5 %, "+
		"**bold** is the best.\n\n")
	facts(b, "machine", r.Machine)
	facts(b, "version", r.Versions)

	fmt.Fprintf(b, "## As a front\n\n%s\n\n", glanceBegin)
	if header, lines := r.fronts(); len(lines) > 0 {
		table(b, 1, header, lines)
		fmt.Fprint(b, "**Bold** is the best; where two cannot be told apart, none is.\n\n")
	}
	fmt.Fprintf(b, "%s\n\n", glanceEnd)

	fmt.Fprint(b, "## As a server\n\n")
	if header, lines := r.glance(); len(lines) > 0 {
		fmt.Fprint(b, "`bare` is the least net/http server, stopped by http.Server.Shutdown; **bold** is the best, and what cannot be told apart from it.\n\n")
		table(b, 1, header, lines)
	}

	fmt.Fprint(b, "## Budgets\n\n")
	var lines [][]string
	for _, budget := range budgets {
		lines = append(lines, budget.cells(r))
	}
	table(b, 4, []string{"budget", "measured", "limit", "met"}, lines)

	if r.missed() {
		if misses = strings.TrimSpace(misses); misses == "" {
			misses = "No reason is given yet."
		}
		fmt.Fprintf(b, "## Misses\n\n%s\n\n", misses)
	}

	for _, section := range unique(r.Rows, func(r *row) string { return r.Section }) {
		fmt.Fprintf(b, "## %s\n\n", heading(section))
		swept := map[string]bool{}
		for _, next := range r.Rows {
			if next.Section != section || swept[next.Sweep] {
				continue
			}
			rows := []*row{next}
			if next.Sweep != "" {
				swept[next.Sweep] = true
				rows = r.sweep(next.Sweep)
				sweepTable(b, rows)
			} else {
				next.table(b)
			}
			for _, p := range r.pictures() {
				if slices.Contains(rows, p.rows[len(p.rows)-1]) {
					fmt.Fprintf(b, "![%s](results/%s.svg)\n\n", p.alt, p.name)
				}
			}
		}
	}
	_, err := w.Write(append(bytes.TrimRight(b.Bytes(), "\n"), '\n'))
	return err
}

func facts(b *bytes.Buffer, what string, facts []fact) {
	var lines [][]string
	for _, f := range facts {
		lines = append(lines, []string{f.Name, f.Value})
	}
	table(b, 2, []string{what, ""}, lines)
}

// table of one row: its subjects by rank.
func (r *row) table(b *bytes.Buffer) {
	fmt.Fprintf(b, "### %s\n\n", heading(r.Title))
	if r.LeftOut != "" {
		fmt.Fprintf(b, "Left out here: %s.\n\n", r.LeftOut)
		return
	}
	header := []string{"rank", "subject", "ratio to " + r.Floor, "median", "spread"}
	if r.Floor == "" {
		header = slices.Delete(header, 2, 3)
	}
	var lines [][]string
	line := func(rank string, s *sample) {
		low, high := s.spread()
		cells := []string{rank, r.mark(s.Subject, s.Subject), formatAll(r.ratios(s.Subject, r.Floor), "ratio"),
			format(s.median(), r.Unit), formatSpan(low, high, r.Unit)}
		if r.Floor == "" {
			cells = slices.Delete(cells, 2, 3)
		}
		lines = append(lines, cells)
	}
	for _, group := range r.ranking() {
		rank := strconv.Itoa(len(lines) + 1)
		for _, subject := range group {
			line(rank, r.of(subject))
		}
	}
	for i := range r.Samples {
		if len(r.Samples[i].numbers()) == 0 {
			line("–", &r.Samples[i])
		}
	}
	table(b, 2, header, lines)
	note(b, []*row{r})
}

// sweepTable has a line for each subject and a column for each condition.
func sweepTable(b *bytes.Buffer, rows []*row) {
	first := rows[0]
	fmt.Fprintf(b, "### %s, by %s\n\n", heading(first.Title), sweepOf(first.Sweep).label)
	if first.Floor != "" {
		fmt.Fprintf(b, "Ratio to %s (median):\n\n", first.Floor)
	}
	header := []string{""}
	for _, r := range rows {
		header = append(header, condition(r.X))
	}
	var all []sample
	for _, r := range rows {
		all = append(all, r.Samples...)
	}
	var lines [][]string
	for _, subject := range unique(all, func(s sample) string { return s.Subject }) {
		line := []string{subject}
		for _, r := range rows {
			cell := "–"
			if s := r.of(subject); s != nil && len(s.numbers()) > 0 {
				cell = format(s.median(), r.Unit)
				if ratios := r.ratios(subject, r.Floor); len(ratios) > 0 {
					cell = fmt.Sprintf("%s (%s)", format(median(ratios), "ratio"), cell)
				}
				cell = r.mark(subject, cell)
			}
			line = append(line, cell)
		}
		lines = append(lines, line)
	}
	table(b, 1, header, lines)
	note(b, rows)
}

// note writes what a reader has to know of the rows, once.
func note(b *bytes.Buffer, rows []*row) {
	for _, n := range unique(rows, func(r *row) string { return r.Note }) {
		if n != "" {
			fmt.Fprintf(b, "%s\n\n", n)
		}
	}
}

// mark makes the text bold if the subject is among the best.
func (r *row) mark(subject, text string) string {
	if ranking := r.ranking(); len(ranking) > 1 && slices.Contains(ranking[0], subject) {
		return "**" + text + "**"
	}
	return text
}

// table writes lines of cells, of which the first few columns are text and the
// rest are numbers.
func table(b *bytes.Buffer, text int, header []string, lines [][]string) {
	escape := strings.NewReplacer("|", `\|`, "\n", " ")
	line := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(b, "| %s ", escape.Replace(c))
		}
		fmt.Fprintln(b, "|")
	}
	line(header)
	for i := range header {
		b.WriteString("|---")
		if i >= text {
			b.WriteString(":")
		}
	}
	fmt.Fprintln(b, "|")
	for _, cells := range lines {
		line(cells)
	}
	fmt.Fprintln(b)
}

// ranking groups the subjects that have values, best first by their medians. A
// group ends where the next subject is clearly apart from the one before it, so
// the ends of a long group may be apart from each other.
func (r *row) ranking() [][]string {
	var measured []*sample
	for i := range r.Samples {
		if len(r.Samples[i].numbers()) > 0 {
			measured = append(measured, &r.Samples[i])
		}
	}
	slices.SortStableFunc(measured, func(a, b *sample) int {
		if r.More {
			a, b = b, a
		}
		return cmp.Compare(a.median(), b.median())
	})
	var groups [][]string
	for i, s := range measured {
		if i == 0 || r.order(measured[i-1], s) != 0 {
			groups = append(groups, nil)
		}
		last := &groups[len(groups)-1]
		*last = append(*last, s.Subject)
	}
	return groups
}

// order is -1 if a is clearly better than b, 1 if it is clearly worse, and 0 if
// their spreads overlap, their medians differ by less than 5 % of the lesser, or
// one has no values.
func (r *row) order(a, b *sample) int {
	aLow, aHigh := a.spread()
	bLow, bHigh := b.spread()
	x, y := a.median(), b.median()
	apart := aHigh < bLow || bHigh < aLow
	switch {
	case !apart || math.Abs(x-y) < 0.05*min(math.Abs(x), math.Abs(y)):
		return 0
	case x < y != r.More:
		return -1
	}
	return 1
}

// contradictions are the pairs of subjects that both runs clearly order, and
// each the other way round.
func contradictions(a, b *results) []string {
	var found []string
	for _, row := range a.Rows {
		again := b.find(row.ID)
		if again == nil {
			continue
		}
		for i := range row.Samples {
			s := &row.Samples[i]
			for j := range row.Samples[:i] {
				t := &row.Samples[j]
				s2, t2 := again.of(s.Subject), again.of(t.Subject)
				if s2 == nil || t2 == nil {
					continue
				}
				if first, second := row.order(t, s), again.order(t2, s2); first*second < 0 {
					better, worse := t.Subject, s.Subject
					if first > 0 {
						better, worse = worse, better
					}
					found = append(found, fmt.Sprintf("%s: %s before %s in one run, after it in the other", row.ID, better, worse))
				}
			}
		}
	}
	return found
}

// find is the row of the id, nil if it was not measured.
func (r *results) find(id string) *row {
	for _, row := range r.Rows {
		if row.ID == id {
			return row
		}
	}
	return nil
}

// sweep is the rows of one, by their condition.
func (r *results) sweep(name string) []*row {
	var rows []*row
	for _, row := range r.Rows {
		if row.Sweep == name {
			rows = append(rows, row)
		}
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return cmp.Compare(a.X, b.X) })
	return rows
}

// total is the sum of the rounds, nothing without any.
func (s sample) total() []float64 {
	n := s.numbers()
	if n == nil {
		return nil
	}
	var sum float64
	for _, v := range n {
		sum += v
	}
	return []float64{sum}
}

// minus is the difference from other, round by round.
func (s sample) minus(other sample) sample {
	difference := sample{Subject: s.Subject}
	for i := range min(len(s.Values), len(other.Values)) {
		var d *float64
		if x, y := s.Values[i], other.Values[i]; x != nil && y != nil {
			d = new(*x - *y)
		}
		difference.Values = append(difference.Values, d)
	}
	return difference
}

// unique keys, in the order of their first item.
func unique[T any](items []T, key func(T) string) []string {
	var keys []string
	for _, item := range items {
		if k := key(item); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// heading is the text with a capital.
func heading(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// scales are the decimal prefixes of a unit, as Docker prints sizes.
var scales = map[string][]struct {
	factor float64
	unit   string
}{
	"bytes":   {{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}},
	"seconds": {{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}, {1e-9, "ns"}},
}

// format writes the value for people, with three significant digits: "9.99 MB",
// "250 ms", "41,200/s". A whole number without a unit keeps all its digits.
func format(v float64, unit string) string {
	if math.IsNaN(v) {
		return "–"
	}
	if unit == "" && v == math.Trunc(v) {
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	}
	// Rounded first, so that 999.9 kB becomes 1.00 MB.
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	for _, s := range scales[unit] {
		switch {
		case v == 0 && s.factor == 1:
			return "0 " + s.unit
		case v == 0 || math.Abs(v) < s.factor:
		case s.unit == "B":
			return strconv.FormatFloat(v, 'f', -1, 64) + " B"
		default:
			return digits(v/s.factor) + " " + s.unit
		}
	}
	switch unit {
	case "", "ratio":
		return digits(v)
	case "requests/s":
		return digits(v) + "/s"
	}
	return digits(v) + " " + unit
}

// digits writes three significant ones.
func digits(v float64) string {
	s := strconv.FormatFloat(v, 'e', 2, 64)
	_, e, _ := strings.Cut(s, "e")
	exponent, _ := strconv.Atoi(e)
	v, _ = strconv.ParseFloat(s, 64)
	return thousands(strconv.FormatFloat(v, 'f', max(0, 2-exponent), 64))
}

// thousands puts commas into a number.
func thousands(s string) string {
	whole, _, _ := strings.Cut(s, ".")
	first := 0
	if strings.HasPrefix(s, "-") {
		first = 1
	}
	for i := len(whole) - 3; i > first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// condition writes an X as it was set.
func condition(x float64) string { return thousands(strconv.FormatFloat(x, 'f', -1, 64)) }

// formatSpan writes the unit once if it is the same.
func formatSpan(low, high float64, unit string) string {
	a, b := format(low, unit), format(high, unit)
	if a == b {
		return a
	}
	number, unitA, _ := strings.Cut(a, " ")
	if _, unitB, _ := strings.Cut(b, " "); unitA == unitB {
		a = number
	}
	return strings.TrimSuffix(a, "/s") + "–" + b
}

// formatAll writes the median and, if there is one, the spread.
func formatAll(n []float64, unit string) string {
	if len(n) == 0 {
		return "–"
	}
	middle, span := format(median(n), unit), formatSpan(slices.Min(n), slices.Max(n), unit)
	if middle == span {
		return middle
	}
	return fmt.Sprintf("%s (%s)", middle, span)
}
