package audit

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"imagelab/internal/sizes"
)

// TextOptions are about the terminal.
type TextOptions struct {
	Color bool // ANSI colours
	Width int  // columns; 0 means 80
}

// WriteText writes the report for a terminal: the counts, the three worst findings,
// and the lines that fix all of them at once; then the facts, and what failed, each
// with its evidence and the lines that fix it, what warns, what is not known, the
// rest by name, and the counts again in the last line, where a terminal stops. Lines
// to copy are not wrapped.
func WriteText(w io.Writer, r *Report, opts TextOptions) error {
	t := text{width: opts.Width, color: opts.Color}
	if t.width <= 0 {
		t.width = 80
	}
	t.verdict(r)
	t.together(append(r.with(Fail), r.with(Warn)...))
	t.heading(r)
	t.facts(r.Facts)
	t.standing(r)
	t.findings("FAILED", red, r.with(Fail))
	t.findings("WARNINGS", yellow, r.with(Warn))
	t.findings("NOT KNOWN", magenta, r.with(Unknown))
	t.names("PASSED", green, r, Pass)
	t.names("NOT APPLICABLE", dim, r, NotApplicable)
	t.summary(r)
	_, err := io.WriteString(w, t.out.String())
	return err
}

// with returns the results of a status, the worst first.
func (r *Report) with(status Status) []Result {
	var found []Result
	for _, c := range r.Checks {
		if c.Status == status {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b Result) int { return cmp.Compare(b.Severity, a.Severity) })
	return found
}

const (
	red     = "31"
	green   = "32"
	yellow  = "33"
	magenta = "35"
	bold    = "1"
	dim     = "2"
)

// text is a report in the making.
type text struct {
	out   strings.Builder
	width int
	color bool
}

func (t *text) paint(style, s string) string {
	if !t.color || s == "" {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// worst is how many findings stand at the top.
const worst = 3

// verdict writes the counts and the worst findings, those that do not count aside.
func (t *text) verdict(r *Report) {
	if r.LittleToSee() {
		t.wrap(0, fmt.Sprintf("There was little to see: %d of %s could not be decided.", r.Summary.Unknown, plural(len(r.Checks), "check")))
	}
	t.out.WriteString(t.paint(bold+";"+r.Summary.style(), r.Summary.sentence(r)) + "\n")
	top := slices.DeleteFunc(append(r.with(Fail), r.with(Warn)...), func(c Result) bool { return c.Ignored != nil })
	for _, c := range top[:min(len(top), worst)] {
		style := yellow
		if c.Status == Fail {
			style = red
		}
		t.out.WriteString("  " + t.paint(style, fmt.Sprintf("%-10s", c.Severity)))
		line := []rune(c.ID + ": " + c.said())
		if room := max(t.width-12, 20); len(line) > room {
			line = append(line[:room-1], '…')
		}
		t.out.WriteString(string(line) + "\n")
	}
}

// standing writes what is about the report as a whole: the Pod Security level and
// what has changed since the baseline.
func (t *text) standing(r *Report) {
	if p := r.PodSecurity; p != nil {
		level := p.Level
		if p.Next != "" {
			level += ", and not " + p.Next + " for " + strings.Join(p.Why, ", ")
		}
		t.labelled(2, "pods", 12, "Pod Security Standards: "+level)
	}
	if b := r.Baseline; b != nil {
		for _, list := range []struct {
			name    string
			changes []Change
		}{{"new", b.New}, {"gone", b.Gone}, {"changed", b.Changed}} {
			var words []string
			for _, c := range list.changes {
				words = append(words, fmt.Sprintf("%s (%s, was %s)", c.ID, c.To, cmp.Or(string(c.From), "not there")))
			}
			t.labelled(2, list.name, 12, cmp.Or(strings.Join(words, ", "), "nothing")+" since the baseline")
		}
	}
}

func (t *text) heading(r *Report) {
	words := []string{"imagelab audit"}
	if r.Variant != "" {
		words = append(words, printable(r.Variant))
	}
	if !r.Time.IsZero() {
		words = append(words, r.Time.Format(time.RFC3339))
	}
	t.out.WriteString("\n" + t.paint(bold, strings.Join(words, " · ")) + "\n\n")
}

// labelled writes a label and wrapped text beside it.
func (t *text) labelled(indent int, label string, width int, s string) {
	t.out.WriteString(strings.Repeat(" ", indent) + t.paint(dim, fmt.Sprintf("%-*s", width, label)))
	t.wrap(indent+width, s)
}

// wrap writes s from the column on, breaking lines between words.
func (t *text) wrap(column int, s string) { t.out.WriteString(t.wrapped(column, s) + "\n") }

// wrapped is s as wrap writes it, without the end of the line.
func (t *text) wrapped(column int, s string) string {
	var out strings.Builder
	used := column
	for i, word := range strings.Fields(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > t.width:
			out.WriteString("\n" + strings.Repeat(" ", column))
			used = column
		default:
			out.WriteString(" ")
			used++
		}
		out.WriteString(word)
		used += n
	}
	return out.String()
}

// verbatim writes lines to copy, below each other from the column on.
func (t *text) verbatim(indent int, label string, width int, s string) {
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			label = ""
		}
		t.out.WriteString(strings.Repeat(" ", indent) + t.paint(dim, fmt.Sprintf("%-*s", width, label)) + t.paint(bold, line) + "\n")
	}
}

func (t *text) findings(title, style string, results []Result) {
	if len(results) == 0 {
		return
	}
	t.out.WriteString("\n" + t.paint(bold+";"+style, fmt.Sprintf("%s %d", title, len(results))) + "\n")
	for _, r := range results {
		title := t.wrapped(12, r.ID+": "+r.Title)
		fmt.Fprintf(&t.out, "\n  %s  %s\n", t.paint(style, fmt.Sprintf("%-8s", r.Severity)), t.paint(bold, r.ID)+title[len(r.ID):])
		const indent, width = 12, 12
		if r.Evidence != "" {
			t.labelled(indent, "found", width, r.Evidence)
		}
		if r.Reason != "" {
			t.labelled(indent, "note", width, r.Reason)
		}
		if r.Ignored != nil {
			t.labelled(indent, "ignored", width, "until "+r.Ignored.Expires+": "+r.Ignored.Reason)
		}
		if r.Status == Unknown {
			continue
		}
		t.labelled(indent, "why", width, r.Why)
		if r.Fix.Compose != "" {
			t.verbatim(indent, "compose", width, r.Fix.Compose)
		} else if r.Fix.Docker != "" {
			t.verbatim(indent, "image", width, r.Fix.Docker)
		}
		if r.Fix.Kubernetes != "" {
			t.verbatim(indent, "kubernetes", width, r.Fix.Kubernetes)
		}
	}
}

// together writes the compose lines of all findings as one block.
func (t *text) together(results []Result) {
	lines := composeLines(results)
	if !slices.ContainsFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "#") }) {
		return
	}
	t.out.WriteString("\n" + t.paint(bold, "TOGETHER") + " for the service in compose.yaml (capitals and /app are yours to fill in)\n\n")
	t.verbatim(4, "", 0, strings.Join(lines, "\n"))
	if lines = kubernetesLines(results); len(lines) > 0 {
		t.out.WriteString("\n" + t.paint(bold, "TOGETHER") + " for Kubernetes, a patch of the Deployment (capitals are yours to fill in)\n\n")
		t.verbatim(4, "", 0, strings.Join(lines, "\n"))
	}
}

// names lists the ids of a status by subject.
func (t *text) names(title, style string, r *Report, status Status) {
	n := len(r.with(status))
	if n == 0 {
		return
	}
	t.out.WriteString("\n" + t.paint(bold+";"+style, fmt.Sprintf("%s %d", title, n)) + "\n")
	for _, subject := range subjects() {
		var ids []string
		for _, c := range r.Checks {
			if c.Subject == subject && c.Status == status {
				id := c.ID
				if c.Incomplete > 0 {
					id += fmt.Sprintf(" (%d unread)", c.Incomplete)
				}
				ids = append(ids, id)
			}
		}
		if len(ids) > 0 {
			t.labelled(2, string(subject), 12, strings.Join(ids, ", "))
		}
	}
}

// subjects returns the subjects in the order of the table.
func subjects() []Subject {
	var all []Subject
	for _, c := range checks {
		if !slices.Contains(all, c.Subject) {
			all = append(all, c.Subject)
		}
	}
	return all
}

func (t *text) summary(r *Report) {
	s := r.Summary
	t.out.WriteString("\n")
	if note := r.aboutExec(); note != "" {
		t.wrap(0, note)
	}
	t.out.WriteString(t.paint(bold+";"+s.style(), s.sentence(r)) + "\n")
}

// style is red where something failed, amber where something is open.
func (s Summary) style() string {
	switch {
	case s.Fail > 0:
		return red
	case s.Warn > 0 || s.Unknown > 0:
		return yellow
	}
	return green
}

// aboutExec says why a report of the same container may count one check otherwise: only
// what docker exec started can tell what docker exec gives.
func (r *Report) aboutExec() string {
	const id = "exec-not-elevated"
	i := slices.IndexFunc(r.Checks, func(c Result) bool { return c.ID == id })
	switch {
	case i < 0 || r.Checks[i].Status == Unknown:
		return ""
	case r.Checks[i].Status == NotApplicable:
		return id + " is about docker exec: --audit that is started so counts it, and this report does not."
	}
	return id + " is about docker exec: this report counts it, and the dashboard of a server that is PID 1 does not."
}

// sentence is the counts in words.
func (s Summary) sentence(r *Report) string {
	failed := fmt.Sprintf("%d failed", s.Fail)
	var bySeverity []string
	for severity := Critical; severity >= Info; severity-- {
		n := 0
		for _, c := range r.Checks {
			if c.Status == Fail && c.Severity == severity {
				n++
			}
		}
		if n > 0 {
			bySeverity = append(bySeverity, fmt.Sprintf("%d %s", n, severity))
		}
	}
	if len(bySeverity) > 0 {
		failed += " (" + strings.Join(bySeverity, ", ") + ")"
	}
	return fmt.Sprintf("%s: %s, %s, %d not known, %d passed, %d not applicable",
		plural(len(r.Checks), "check"), failed, plural(s.Warn, "warning"), s.Unknown, s.Pass, s.NotApplicable)
}

func (t *text) facts(f Facts) {
	for _, row := range f.rows() {
		t.labelled(2, row[0], 12, row[1])
	}
}

// rows are the facts in words, one label and one line for each part.
func (f Facts) rows() [][2]string {
	image := []string{cmp.Or(f.Image.Distribution, "no distribution")}
	if f.Image.Bytes != nil {
		image = append(image, sizes.Image(float64(*f.Image.Bytes))+" in "+plural(*f.Image.Files, "file"), plural(*f.Image.Executables, "executable"))
		for _, kind := range []struct {
			name  string
			count *Count
		}{
			{"shell", f.Image.Shells}, {"package manager", f.Image.PackageManagers}, {"interpreter", f.Image.Interpreters},
			{"network client", f.Image.NetworkClients}, {"setuid file", f.Image.SetuidFiles},
		} {
			if kind.count.Count > 0 {
				image = append(image, plural(kind.count.Count, kind.name))
			}
		}
	}
	for _, p := range f.Image.Packages {
		if p.Packages == nil {
			image = append(image, p.Database+" database, not counted")
		} else {
			image = append(image, plural(*p.Packages, p.Database+" package"))
		}
	}
	if f.Image.CARoots != nil {
		image = append(image, plural(*f.Image.CARoots, "CA root"))
	}

	var process []string
	if f.Process.PID1 != "" {
		process = append(process, "PID 1 "+f.Process.PID1)
	}
	process = append(process, "uid "+number(f.Process.UID)+" gid "+number(f.Process.GID))
	switch n := len(f.Process.Bounding); {
	case f.Process.Bounding == nil:
	case n == 0:
		process = append(process, "no capabilities")
	case n > 14:
		process = append(process, fmt.Sprintf("%d capabilities", n))
	default:
		process = append(process, "capabilities "+strings.Join(f.Process.Bounding, " "))
	}
	if f.Process.Seccomp != "" {
		process = append(process, "seccomp "+f.Process.Seccomp)
	}
	if f.Process.LSM != "" {
		process = append(process, f.Process.LSM)
	}

	memory := "memory without limit"
	if f.Limits.MemoryBytes != nil {
		memory = "memory " + sizes.Memory(float64(*f.Limits.MemoryBytes))
	}
	if f.Limits.MemoryUsedBytes != nil {
		memory += ", " + sizes.Memory(float64(*f.Limits.MemoryUsedBytes)) + " used"
	}
	cpus := "CPU without limit"
	if f.Limits.CPUs != nil {
		cpus = fmt.Sprintf("%.3g CPUs", *f.Limits.CPUs)
	}
	limits := []string{memory, cpus, "pids " + number(f.Limits.PIDs), "open files " + number(f.Limits.OpenFilesHard)}

	host := []string{"kernel " + cmp.Or(f.Host.Kernel, "not known")}
	if f.Host.CgroupVersion > 0 {
		host = append(host, fmt.Sprintf("cgroup v%d", f.Host.CgroupVersion))
	}
	switch {
	case f.Host.LandlockABI == nil:
	case *f.Host.LandlockABI == 0:
		host = append(host, "no Landlock")
	default:
		host = append(host, fmt.Sprintf("Landlock ABI %d", *f.Host.LandlockABI))
	}
	if f.Host.Runtime != "" {
		host = append(host, f.Host.Runtime)
	}
	if f.Host.Kubernetes {
		host = append(host, "Kubernetes")
	}

	writable := "nothing"
	if len(f.WritableMounts) > 0 {
		writable = strings.Join(firstFew(f.WritableMounts), " ")
	}
	rows := [][2]string{
		{"image", strings.Join(image, " · ")},
		{"process", strings.Join(process, " · ")},
		{"limits", strings.Join(limits, " · ")},
		{"host", strings.Join(host, " · ")},
		{"writable", writable},
	}
	if f.Sandbox != nil {
		rows = append(rows, [2]string{"sandbox", f.Sandbox.String()})
	}
	if f.App != nil {
		app := fmt.Sprintf("started %s in %s ms", f.App.Started.UTC().Format(time.RFC3339), milliseconds(f.App.StartSeconds))
		if p := f.App.Probes; p != nil {
			app += fmt.Sprintf(" · %s, %d failed, mean %s ms, slowest %s ms", plural(int(p.Seen), "probe"), p.Failed, milliseconds(p.MeanSeconds), milliseconds(p.MaxSeconds))
		}
		rows = append(rows, [2]string{"app", app})
	}
	return rows
}

func milliseconds(seconds float64) string { return strconv.FormatFloat(seconds*1000, 'f', 1, 64) }

// number is an integer, or says that there is none.
func number[T int | int64](n *T) string {
	if n == nil {
		return "unlimited or not known"
	}
	return strconv.FormatInt(int64(*n), 10)
}
