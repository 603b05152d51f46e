package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"imagelab/internal/audit"
	"imagelab/internal/sandbox"
)

// auditOptions are the flags of --audit.
type auditOptions struct {
	checks   audit.Options // --only and --skip
	failOn   audit.FailOn  // --fail-on, --fail-on-warn, --fail-on-unknown
	ignore   string        // --ignore, a file
	baseline string        // --baseline, a file
	root     string        // --root, a directory; empty is the container's own
	walk     time.Duration // --walk-timeout; 0 is no bound
}

// newSystem is the container as the audit sees it.
func newSystem(environ []string, variant string, budget ByteSize) *audit.System {
	sys := audit.Live()
	sys.Environ = environ
	sys.Tool = version
	// A label of the image, by the contract of GET /proof.
	sys.PublicEnv = []string{"LAB_TOKEN"}
	sys.Variant = variant
	sys.ImageBudget = int64(budget)
	return sys
}

// auditVariables are those of environ that concern the audit. It has to work in
// images that know nothing of imagelab, so the rest may be what it likes.
func auditVariables(environ []string) (variant string, budget ByteSize, err error) {
	given := env.ToMap(environ)
	for _, v := range variables() {
		value, source, err := lookup(given, v.Name)
		switch {
		case v.Name == "IMAGELAB_VARIANT" && err == nil:
			variant = value
		case v.Name == "IMAGELAB_IMAGE_BUDGET" && err != nil:
			return "", 0, err
		case v.Name == "IMAGELAB_IMAGE_BUDGET":
			v.Source = source
			if v.Value = cmp.Or(value, v.Default); budget.UnmarshalText([]byte(v.Value)) != nil {
				return "", 0, v.refuse()
			}
		}
	}
	return variant, budget, nil
}

// auditMode prints the report of the container that the process runs in. The exit
// code is 1 when a finding counts, when an exception has expired, and when more than
// half of the checks could not be decided.
func auditMode(ctx context.Context, opts auditOptions, format string, environ []string, stdout, stderr io.Writer) int {
	complain := func(code int, format string, args ...any) int {
		fmt.Fprintf(stderr, "imagelab: "+format+"\n", args...)
		return code
	}
	variant, budget, err := auditVariables(environ)
	if err != nil {
		return complain(exitUsage, "%v", err)
	}
	exceptions, baseline, err := opts.files()
	if err != nil {
		return complain(exitUsage, "%v", err)
	}
	system := newSystem(environ, variant, budget)
	switch {
	case opts.root != "" && opts.root != "/":
		if info, err := os.Stat(opts.root); err != nil || !info.IsDir() {
			return complain(exitUsage, "--root %q: want a directory", opts.root)
		}
		system.Detach(opts.root)
	case opts.root == "" && system.OnHost():
		return complain(exitUsage, "this is no container: its processes and mounts are the machine's own; "+
			"--root / audits the machine all the same, --root DIR the files below DIR")
	}
	system.Remember()
	confineOnce(environ, nil)
	system.WalkTimeout = opts.walk
	walk := progressLine{w: stderr, began: time.Now()}
	if terminal(stderr, env.ToMap(environ)).Width > 0 {
		system.Progress = walk.show
	}
	report, err := audit.Run(ctx, system, opts.checks)
	walk.clear()
	if err != nil {
		return complain(exitFailed, "%v", err)
	}
	if baseline != nil {
		report.Since(baseline)
	}
	expired := report.Except(exceptions)
	switch format {
	case "json":
		err = audit.WriteJSON(stdout, report)
	case "markdown":
		err = audit.WriteMarkdown(stdout, report)
	case "sarif":
		err = audit.WriteSARIF(stdout, report)
	case "junit":
		err = audit.WriteJUnit(stdout, report, opts.failOn)
	default:
		err = audit.WriteText(stdout, report, terminal(stdout, env.ToMap(environ)))
	}
	if err != nil {
		return complain(exitFailed, "write the report: %v", err)
	}
	code := exitOK
	for _, e := range expired {
		code = complain(exitFailed, "%s, line %d: expired on %s: %s (%s)", opts.ignore, e.Line, e.Expires, e.ID, e.Reason)
	}
	if report.LittleToSee() {
		code = complain(exitFailed, "there was little to see: %d of %d checks could not be decided",
			report.Summary.Unknown, len(report.Checks))
	}
	if report.Fails(opts.failOn) {
		code = exitFailed
	}
	return code
}

// progressLine says on a terminal how far a walk is that takes long.
type progressLine struct {
	w     io.Writer
	began time.Time
	shown time.Time
}

const (
	untold   = 2 * time.Second        // how long a walk may take without a word
	progress = 200 * time.Millisecond // between two words
)

func (p *progressLine) show(files int) {
	now := time.Now()
	if now.Sub(p.began) < untold || now.Sub(p.shown) < progress {
		return
	}
	p.shown = now
	fmt.Fprintf(p.w, "\r%d files after %.0f s", files, now.Sub(p.began).Seconds())
}

// clear takes the line away.
func (p *progressLine) clear() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// files reads what --ignore and --baseline name.
func (o auditOptions) files() (exceptions []audit.Exception, baseline *audit.Report, err error) {
	if o.ignore != "" {
		f, err := os.Open(o.ignore)
		if err != nil {
			return nil, nil, fmt.Errorf("--ignore: %w", err)
		}
		defer f.Close()
		if exceptions, err = audit.ParseExceptions(f); err != nil {
			return nil, nil, fmt.Errorf("--ignore %s: %w", o.ignore, err)
		}
	}
	if o.baseline != "" {
		f, err := os.Open(o.baseline)
		if err != nil {
			return nil, nil, fmt.Errorf("--baseline: %w", err)
		}
		defer f.Close()
		if baseline, err = audit.ReadReport(f); err != nil {
			return nil, nil, fmt.Errorf("--baseline %s: %w", o.baseline, err)
		}
	}
	return exceptions, baseline, nil
}

// terminal finds out how wide w is and whether it shows colours; NO_COLOR turns
// them off (no-color.org).
func terminal(w io.Writer, environ map[string]string) audit.TextOptions {
	f, isFile := w.(*os.File)
	if !isFile {
		return audit.TextOptions{}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return audit.TextOptions{}
	}
	return audit.TextOptions{Color: environ["NO_COLOR"] == "" && environ["TERM"] != "dumb", Width: int(size.Col)}
}

// auditor keeps the report of the serving process.
type auditor struct {
	system  *audit.System
	app     func() *audit.App
	onHost  bool
	sandbox *confinement
	metrics *auditMetrics
	waiting *slots
	log     *slog.Logger
	changed func(what string) // is told when a report differs from the one before it; nil for nobody

	mu     sync.Mutex // held during a run: whoever waits for one gets its report
	report *audit.Report
	ran    time.Time
	took   time.Duration
}

func newAuditor(system *audit.System, app func() *audit.App, confined *confinement, reg prometheus.Registerer, m *metrics, log *slog.Logger) *auditor {
	a := &auditor{
		// It is looked up before the sandbox is closed, which would hide it.
		system: system, app: app, onHost: system.OnHost(), sandbox: confined,
		metrics: &auditMetrics{}, waiting: newSlots(maxAudits, "audits", m), log: log,
	}
	reg.MustRegister(a.metrics)
	return a
}

// maxAudits is how many requests may wait for the report that is being made.
const maxAudits = 8

// fresh is how old a report may be that is served again: any number of viewers
// cost one audit a second, and a tenth of the time where one takes long.
const fresh = time.Second

// run returns a report that is fresh.
func (a *auditor) run(ctx context.Context) (*audit.Report, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.report != nil && time.Since(a.ran) < max(fresh, 9*a.took) {
		return a.report, nil
	}
	began := time.Now()
	system := *a.system
	system.App = a.app()
	system.Sandbox = a.sandbox.facts()
	report, err := audit.Run(ctx, &system, audit.Options{})
	if err != nil {
		return nil, err
	}
	if a.report != nil && a.report.Summary != report.Summary && a.changed != nil {
		s := report.Summary
		a.changed(fmt.Sprintf("audit: %d failed, %d warnings", s.Fail, s.Warn))
	}
	a.report, a.ran, a.took = report, time.Now(), time.Since(began)
	a.metrics.set(report, a.took)
	return report, nil
}

// firstRequests is how long the audit at the start leaves the processor to those.
const firstRequests = 100 * time.Millisecond

// actor is the pair for run.Group: it audits once, when the start is over, and
// then waits for the end. Where there is no container it only waits.
func (a *auditor) actor() (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	execute = func() error {
		select {
		case <-time.After(firstRequests):
			if err := a.first(ctx); err != nil {
				return err
			}
			<-ctx.Done()
		case <-ctx.Done():
		}
		return nil
	}
	return execute, func(error) { cancel() }
}

// The image is read again until all of it was seen once, after leastLook at first and then less
// and less often, down to mostLook: there may have been no descriptors left for it.
const (
	leastLook = time.Second
	mostLook  = 5 * time.Minute
)

// first is the audit at the start. After it the sandbox need not read the image any more. The
// error is why the process must not go on.
func (a *auditor) first(ctx context.Context) error {
	for pause, told := leastLook, false; ; pause = min(2*pause, mostLook) {
		report, err := a.look(ctx, !told)
		if err != nil {
			return nil // it is the end of the process
		}
		told = true
		done, err := a.closeReads(report)
		if done || err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// look audits the container, and says what it has found; where there is none the report is nil.
func (a *auditor) look(ctx context.Context, tell bool) (*audit.Report, error) {
	if a.onHost {
		return nil, nil
	}
	report, err := a.run(ctx)
	// The walk of a large image takes memory that nothing else will need.
	debug.FreeOSMemory()
	if err == nil && tell {
		s := report.Summary
		a.log.Info("audited", "pass", s.Pass, "fail", s.Fail, "warn", s.Warn, "unknown", s.Unknown, "not_applicable", s.NotApplicable)
	}
	return report, err
}

// closeReads ends the reading of the image, of which later audits take what report has. It says
// false if that has to be tried again.
func (a *auditor) closeReads(report *audit.Report) (done bool, err error) {
	a.mu.Lock() // nobody else reads it meanwhile
	defer a.mu.Unlock()
	if !a.sandbox.confinesServer() {
		return true, nil
	}
	if report != nil && !report.Complete() {
		a.log.Warn("files outside can be read until the audit has seen the whole image")
		return false, nil
	}
	done, err = a.sandbox.closeReads(a.log)
	if report != nil && a.sandbox.has(sandbox.Reads) {
		a.system.Keep(report)
		a.ran = time.Time{} // however long it took, the next report says that the image is closed
	}
	return done, err
}

// notInContainer is the error code of GET /audit where there is nothing to audit.
const notInContainer = "not-in-a-container"

// serve answers GET /audit with the report as JSON. Outside a container there is
// none: nobody asked to have the machine searched.
func (a *auditor) serve(w http.ResponseWriter, r *http.Request) {
	if a.onHost {
		writeError(w, http.StatusNotFound, notInContainer, "a container, or imagelab --audit")
		return
	}
	if !wantsBody(w, r, jsonType[0]) {
		return
	}
	ctx, cancel := untilEnding(r)
	defer cancel()
	var report *audit.Report
	var err error
	if held := a.waiting.hold(w, func() { report, err = a.run(ctx) }); !held {
		return
	}
	if err != nil { // only the end of the server does that
		writeError(w, http.StatusServiceUnavailable, "draining", "")
		return
	}
	var body bytes.Buffer
	_ = audit.WriteJSON(&body, report) // a Buffer takes everything
	writeJSON(w, http.StatusOK, body.Bytes())
}

// auditMetrics exposes the latest report.
type auditMetrics struct {
	mu     sync.Mutex
	report *audit.Report
	took   time.Duration
}

var (
	auditCheckDesc = prometheus.NewDesc("imagelab_audit_check",
		"Verdict of a check: 1 pass, 0.5 warn, 0 fail, NaN unknown; absent where it does not apply.", []string{"id", "severity"}, nil)
	auditChecksDesc = prometheus.NewDesc(metricAuditChecks,
		"Number of checks by verdict.", []string{"verdict"}, nil)
	auditDurationDesc = prometheus.NewDesc("imagelab_audit_duration_seconds",
		"How long the latest audit took.", nil, nil)
)

func (m *auditMetrics) set(report *audit.Report, took time.Duration) {
	m.mu.Lock()
	m.report, m.took = report, took
	m.mu.Unlock()
}

// Describe is for prometheus.Collector.
func (m *auditMetrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- auditCheckDesc
	descs <- auditChecksDesc
	descs <- auditDurationDesc
}

// Collect is for prometheus.Collector; before the first report there is nothing.
func (m *auditMetrics) Collect(metrics chan<- prometheus.Metric) {
	m.mu.Lock()
	report, took := m.report, m.took
	m.mu.Unlock()
	if report == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	values := map[audit.Status]float64{audit.Pass: 1, audit.Warn: 0.5, audit.Fail: 0, audit.Unknown: math.NaN()}
	for _, c := range report.Checks {
		if value, applies := values[c.Status]; applies {
			gauge(auditCheckDesc, value, c.ID, c.Severity.String())
		}
	}
	s := report.Summary
	for verdict, n := range map[audit.Status]int{
		audit.Pass: s.Pass, audit.Fail: s.Fail, audit.Warn: s.Warn, audit.Unknown: s.Unknown, audit.NotApplicable: s.NotApplicable,
	} {
		gauge(auditChecksDesc, float64(n), string(verdict))
	}
	gauge(auditDurationDesc, took.Seconds())
}

// listFlag is a flag of comma-separated words that may be given repeatedly.
type listFlag struct{ words *[]string }

func (l listFlag) String() string { return "" }

func (l listFlag) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			*l.words = append(*l.words, word)
		}
	}
	return nil
}
