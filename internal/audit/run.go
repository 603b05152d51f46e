package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"imagelab/internal/near"
)

// Options selects checks by id. Empty, all of them run.
type Options struct {
	Only []string // these and no others
	Skip []string // all but these
}

// Validate returns an error that names each unknown id, and the one that was probably meant.
func (o Options) Validate() error {
	var errs []error
	for _, id := range slices.Concat(o.Only, o.Skip) {
		if !slices.ContainsFunc(checks, func(c Check) bool { return c.ID == id }) {
			errs = append(errs, fmt.Errorf("no check %q%s", id, near.Hint(id, ids())))
		}
	}
	if len(errs) > 0 {
		errs = append(errs, errors.New("the checks are\n"+listed(ids(), 80)))
	}
	return errors.Join(errs...)
}

// listed is the words with commas, in indented lines of at most width columns.
func listed(words []string, width int) string {
	const indent = "  "
	var lines []string
	line := indent
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		if line != indent && len(line)+1+len(word) > width {
			lines, line = append(lines, line), indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n")
}

func (o Options) selects(id string) bool {
	return (len(o.Only) == 0 || slices.Contains(o.Only, id)) && !slices.Contains(o.Skip, id)
}

func ids() []string {
	var all []string
	for _, c := range checks {
		all = append(all, c.ID)
	}
	return all
}

// Run audits the system. The error is that of opts or of ctx; what could not be
// read is no error but a verdict.
func Run(ctx context.Context, sys *System, opts Options) (*Report, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	walk := slices.ContainsFunc(checks, func(c Check) bool { return c.walks && opts.selects(c.ID) })
	c, err := inspect(ctx, sys, walk)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	r := &Report{
		Schema:  Schema,
		Tool:    sys.Tool,
		Variant: sys.Variant,
		Facts:   c.facts(),
		Checks:  []Result{},
	}
	if sys.Now != nil {
		r.Time = sys.Now().UTC().Truncate(time.Second)
	}
	for _, check := range checks {
		if !opts.selects(check.ID) {
			continue
		}
		v := notApplicable("nothing runs here: only the files of a directory are audited")
		if !sys.Detached || check.walks && check.ID != "device-nodes" {
			v = check.run(c)
		}
		result := check.result(v)
		r.Checks = append(r.Checks, result)
		r.Summary.add(result.Status)
	}
	r.PodSecurity = podSecurity(r.Checks)
	r.kept = c.keep(r.Facts, r.Time)
	return r, nil
}

// verdict is what a check's function returns.
type verdict struct {
	status     Status
	evidence   string   // what was read, where
	reason     string   // why it is not decided, or not in full
	incomplete int      // files and directories that could not be read
	affected   []string // for MOUNT, PATH or VARIABLE in the fix, and how many more
	more       int
	limits     []string // pairs for strings.NewReplacer: a limit of the fix, and one that the measured use leaves room in
}

func pass(format string, args ...any) verdict {
	return verdict{status: Pass, evidence: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) verdict {
	return verdict{status: Fail, evidence: fmt.Sprintf(format, args...)}
}

func warn(format string, args ...any) verdict {
	return verdict{status: Warn, evidence: fmt.Sprintf(format, args...)}
}

// unknown is for what could not be read.
func unknown(err error) verdict { return verdict{status: Unknown, reason: err.Error()} }

// notApplicable is for a question without meaning here.
func notApplicable(format string, args ...any) verdict {
	return verdict{status: NotApplicable, reason: fmt.Sprintf(format, args...)}
}

// at sets the things that the fix is about.
func (v verdict) at(things ...string) verdict {
	for _, thing := range things {
		if thing = printable(thing); !slices.Contains(v.affected, thing) {
			v.affected = append(v.affected, thing)
		}
	}
	return v
}

// found sets what the walk has found as the things that the fix is about.
func (v verdict) found(f *finding) verdict {
	for _, s := range f.some {
		v = v.at(s.path)
	}
	v.more = f.count - len(f.some)
	return v
}

// result joins the check and its verdict. Names from the container may hold
// anything, so control characters are escaped before they reach a terminal.
func (c Check) result(v verdict) Result {
	fix := c.Fix.fill(v.affected)
	if v.limits != nil {
		r := strings.NewReplacer(v.limits...)
		fix = Fix{Docker: r.Replace(fix.Docker), Compose: r.Replace(fix.Compose), Kubernetes: r.Replace(fix.Kubernetes)}
	}
	return Result{
		ID: c.ID, Title: c.Title, Subject: c.Subject, Severity: c.Severity,
		Status: v.status, Evidence: printable(v.evidence), Reason: printable(v.reason), Incomplete: v.incomplete,
		Affected: v.affected, More: v.more,
		Why: c.Why, Fix: fix, References: c.References,
	}
}

// isNoProcess says whether err comes of a process that has ended.
func isNoProcess(err error) bool { return errors.Is(err, syscall.ESRCH) }

// isAbsent says whether err means that the kernel has no such thing, in contrast
// to one that may not be read.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP)
}
