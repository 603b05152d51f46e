package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Ignored says why a finding does not count. Its verdict stays.
type Ignored struct {
	Reason  string `json:"reason"`
	Expires string `json:"expires"` // the last day, as 2027-01-31
}

// Exception is one line of an ignore file.
type Exception struct {
	Line    int
	ID      string
	Path    string // of one affected path alone; empty means all of them
	Expires string // the last day on which it holds, as 2027-01-31
	Reason  string
}

// ParseExceptions reads an ignore file. Each line that is not empty and no comment
// is
//
//	ID [PATH] until YYYY-MM-DD: REASON
//
// The error names each line that is not so.
func ParseExceptions(r io.Reader) ([]Exception, error) {
	var found []Exception
	var errs []error
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		e, err := parseException(line)
		e.Line = n
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		found = append(found, e)
	}
	return found, errors.Join(append(errs, s.Err())...)
}

func parseException(line string) (Exception, error) {
	what, rest, ok := strings.Cut(line, " until ")
	expires, reason, reasoned := strings.Cut(rest, ":")
	id, name, _ := strings.Cut(strings.TrimSpace(what), " ")
	e := Exception{ID: id, Path: strings.TrimSpace(name), Expires: strings.TrimSpace(expires), Reason: strings.TrimSpace(reason)}
	switch _, err := time.Parse(time.DateOnly, e.Expires); {
	case !ok || !reasoned || e.Reason == "" || err != nil:
		return e, errors.New("want ID [PATH] until YYYY-MM-DD: REASON")
	case e.Path != "" && !strings.HasPrefix(e.Path, "/"):
		return e, fmt.Errorf("path %q: want one that begins with /", e.Path)
	}
	return e, Options{Only: []string{id}}.Validate()
}

// Except marks the findings that an exception covers: all of them, or, where it names
// a path, those whose affected paths are all named. It returns the exceptions that
// have expired, which cover nothing, at the time of the report.
func (r *Report) Except(exceptions []Exception) (expired []Exception) {
	today := r.Time.UTC().Format(time.DateOnly)
	var valid []Exception
	for _, e := range exceptions {
		if e.Expires < today {
			expired = append(expired, e)
		} else {
			valid = append(valid, e)
		}
	}
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.Status == Pass || c.Status == NotApplicable {
			continue
		}
		if by, covered := coveredBy(*c, valid); covered {
			c.Ignored = &Ignored{Reason: by.Reason, Expires: by.Expires}
		}
	}
	return expired
}

// coveredBy returns the exception that covers the result, the last one where each
// path has its own.
func coveredBy(c Result, exceptions []Exception) (Exception, bool) {
	var by Exception
	left := slices.Clone(c.Affected)
	for _, e := range exceptions {
		switch {
		case e.ID != c.ID:
		case e.Path == "":
			return e, true
		case slices.Contains(left, e.Path):
			left = slices.DeleteFunc(left, func(name string) bool { return name == e.Path })
			by = e
		}
	}
	// What is affected beyond the paths that the report holds is covered by none.
	return by, by.ID != "" && len(left) == 0 && c.More == 0
}

// Change is what became of one check since the baseline.
type Change struct {
	ID   string `json:"id"`
	From Status `json:"from"`
	To   Status `json:"to"`
}

// Changes compare a report with an earlier one. Only failures and warnings are
// findings.
type Changes struct {
	New     []Change `json:"new"`     // was no finding, or was a warning and is a failure
	Gone    []Change `json:"gone"`    // was a finding
	Changed []Change `json:"changed"` // is a finding as before, on other things or with another verdict
}

// ReadReport reads a report that WriteJSON wrote.
func ReadReport(r io.Reader) (*Report, error) {
	var report Report
	in := json.NewDecoder(r)
	if err := in.Decode(&report); err != nil {
		return nil, fmt.Errorf("no report of --audit --format json: %w", err)
	}
	if _, err := in.Token(); err != io.EOF {
		return nil, errors.New("no report of --audit --format json: there is something behind it")
	}
	if report.Schema != Schema {
		return nil, fmt.Errorf("a report of schema %d, want %d", report.Schema, Schema)
	}
	return &report, nil
}

// Since compares with the baseline and keeps the result in the report. A check that
// only one of the two has is left out, except that a finding of a check that the
// baseline does not know is new.
func (r *Report) Since(baseline *Report) {
	before := map[string]Result{}
	for _, c := range baseline.Checks {
		before[c.ID] = c
	}
	changes := Changes{New: []Change{}, Gone: []Change{}, Changed: []Change{}}
	for _, c := range r.Checks {
		old := before[c.ID]
		change := Change{c.ID, old.Status, c.Status}
		was, is := old.Status == Fail || old.Status == Warn, c.Status == Fail || c.Status == Warn
		switch {
		case is && !was, old.Status == Warn && c.Status == Fail:
			changes.New = append(changes.New, change)
		case was && !is:
			changes.Gone = append(changes.Gone, change)
		case is && (old.Status != c.Status || !slices.Equal(old.Affected, c.Affected)):
			changes.Changed = append(changes.Changed, change)
		}
	}
	r.Baseline = &changes
}

// FailOn says which findings make an audit fail.
type FailOn struct {
	Severity Severity // the least of a failure
	Warn     bool     // warnings of at least that severity count, too
	Unknown  bool     // so does what could not be decided
}

// Fails says whether a finding makes the audit fail: none that is ignored, and none
// that the baseline had already.
func (r *Report) Fails(on FailOn) bool {
	return slices.ContainsFunc(r.Checks, func(c Result) bool { return r.counts(c, on) })
}

func (r *Report) counts(c Result, on FailOn) bool {
	if c.Ignored != nil || c.Severity < on.Severity {
		return false
	}
	known := r.Baseline != nil && !slices.ContainsFunc(slices.Concat(r.Baseline.New, r.Baseline.Changed), func(n Change) bool { return n.ID == c.ID })
	switch c.Status {
	case Fail:
		return !known
	case Warn:
		return on.Warn && !known
	case Unknown:
		return on.Unknown
	}
	return false
}

// LittleToSee says whether more than half of all checks are unknown, so that the
// report says next to nothing.
func (r *Report) LittleToSee() bool { return r.Summary.Unknown*2 > len(checks) }

// PodSecurity is the level of the Pod Security Standards that a pod like this
// container would be admitted at, as far as it shows from inside.
type PodSecurity struct {
	Level string   `json:"level"` // privileged, baseline or restricted
	Next  string   `json:"next"`  // the level above, empty at restricted
	Why   []string `json:"why"`   // ids of the checks that keep it from that
}

// podSecurity goes by the references of the checks; nil where one of them was not
// selected. What is not known keeps from a level as a failure does.
func podSecurity(results []Result) *PodSecurity {
	why := map[string][]string{"baseline": {}, "restricted": {}}
	for _, check := range checks {
		for level := range why {
			if !slices.ContainsFunc(check.References, func(ref string) bool {
				controls, ok := strings.CutPrefix(ref, "Pod Security Standards, ")
				name, _, _ := strings.Cut(controls, ":")
				return ok && strings.Contains(name, level)
			}) {
				continue
			}
			i := slices.IndexFunc(results, func(r Result) bool { return r.ID == check.ID })
			if i < 0 {
				return nil
			}
			// Whatever comes from the host is a hostPath volume.
			mounts := check.Subject == Mounts && results[i].Status == Warn
			// What the program has done to itself since is in no manifest.
			itself := check.ID == "no-new-privileges" && results[i].Status == Warn
			if results[i].Status == Fail || results[i].Status == Unknown || mounts || itself {
				why[level] = append(why[level], check.ID)
			}
		}
	}
	switch {
	case len(why["baseline"]) > 0:
		return &PodSecurity{Level: "privileged", Next: "baseline", Why: why["baseline"]}
	case len(why["restricted"]) > 0:
		return &PodSecurity{Level: "baseline", Next: "restricted", Why: why["restricted"]}
	}
	return &PodSecurity{Level: "restricted", Why: []string{}}
}

// runtime names what made the container, or is empty.
func (c *container) runtime() string {
	if c.sys.kept != nil {
		return c.sys.kept.runtime
	}
	root, _ := c.mountAt("/")
	options := strings.Join(root.super, ",")
	manager, _ := c.line("/run/systemd/container")
	switch {
	case c.exists("/.dockerenv"):
		return "docker"
	case c.exists("/run/.containerenv"):
		return "podman"
	case manager != "":
		return printable(manager)
	case strings.Contains(options, "io.containerd."):
		return "containerd"
	case strings.Contains(options, "/docker/overlay2/"):
		return "docker"
	case strings.Contains(options, "/containers/storage/"):
		return "cri-o"
	}
	for _, m := range c.mounts {
		if m.fstype == "fuse.lxcfs" {
			return "lxc"
		}
	}
	name, _ := c.env("container")
	return printable(name)
}
