// Command imagelab is one static binary that makes a FROM scratch image fit for
// production: it serves an HTTP app and its metrics, probes itself for
// HEALTHCHECK, does PID 1's duties, and stops on SIGTERM without losing a request.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	actors "github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"

	"imagelab/internal/early"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// Set by the linker: -X imagelab/internal/early.Version=… -X main.commit=….
var (
	version = early.Version
	commit  = "unknown"
)

// Exit codes. A probe knows only the first two (health.go), and a second signal
// is 128 plus its number, as shells report it.
const (
	exitOK     = 0
	exitFailed = 1 // it failed, or requests were cut at the deadline
	exitUsage  = 2 // bad configuration or command line
)

// run is the program: the mode that args ask for, with environ as configuration.
// Reports go to stdout, logs and complaints to stderr. Cancelling ctx is a
// SIGTERM.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	mode, opts, err := parseArgs(args)
	switch {
	case err != nil && mode == modeHealthcheck:
		return unhealthy(stdout, err)
	case err != nil:
		fmt.Fprintf(stderr, "imagelab: %v\nRun imagelab --help for what there is.\n", err)
		return exitUsage
	case mode == modeHealthcheck:
		return healthcheck(ctx, opts.targets, opts.probe, environ, stdout)
	case mode == modeAudit:
		return auditMode(ctx, opts.audit, opts.format, environ, stdout, stderr)
	case mode == modeCompare:
		return compareMode(ctx, opts.peers, opts.format, environ, stdout, stderr)
	case mode == modeVersion:
		printVersion(stdout)
		return exitOK
	case mode == modeHelp:
		printHelp(stdout)
		return exitOK
	}

	cfg, vars, err := loadConfig(environ)
	if err != nil {
		fmt.Fprintf(stderr, "imagelab: bad configuration:\n  %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return exitUsage
	}
	return serve(ctx, cfg, vars, environ, newLogger(cfg, stderr))
}

// serve runs the two listeners until a signal.
func serve(ctx context.Context, cfg Config, vars []variable, environ []string, log *slog.Logger) int {
	// First of all, as PID 1 does not get the signals that it has not asked for.
	// Two, as the first begins the drain and the second ends it.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	stop := &stopper{signals: signals}

	h := newHealth(time.Now())
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, h, cfg.Variant)
	lim := applyLimits(cfg, log)
	appLn, opsLn, err := bindAll(ctx, cfg, lim, log, m)
	if err != nil {
		log.Error("cannot start", "err", err)
		return exitFailed
	}
	blobs := openStore(cfg, reg, m, log)
	system := newSystem(environ, cfg.Variant, cfg.ImageBudget)
	auditor := newAuditor(system, h.app, reg, log)
	peers := cfg.Peers.all
	live := newEvents(reg, h, cfg, peers)

	app := newServer("app", appLn, cfg, log, m)
	app.maxInFlight = lim.inFlight
	addAppRoutes(app, cfg, h)
	addStoreRoutes(app, blobs, lim)
	if cfg.Faults {
		addFaultRoutes(app)
	}

	// Actors are interrupted in the order in which they are added, each after
	// the one before it is done: the ops listener is last, so that the drain can
	// be scraped.
	var group actors.Group
	group.Add(m.track("signals")(signalActor(ctx, h, stop, cfg, log)))
	group.Add(m.track("app")(app.actor(stop, appDrain(cfg))))
	metricsHandler := newMetricsHandler(reg, log)
	if opsLn == nil {
		addOpsRoutes(app, "/-", cfg, vars, h, auditor, metricsHandler)
		addDashboardRoutes(app, "/-", cfg, live)
	} else {
		ops := newServer("ops", opsLn, cfg, log, m)
		addOpsRoutes(ops, "", cfg, vars, h, auditor, metricsHandler)
		addDashboardRoutes(ops, "", cfg, live)
		group.Add(m.track("ops")(ops.actor(stop, opsDrain())))
	}
	group.Add(m.track("audit")(auditor.actor()))
	if len(peers) > 0 {
		group.Add(m.track("peers")(live.actor()))
	}
	if os.Getpid() == 1 {
		group.Add(m.track("reaper")(reaperActor(os.DirFS("/proc"), m, log)))
	} else {
		log.Info("not PID 1, so orphans are left to whoever is", "pid", os.Getpid())
	}

	logStart(cfg, lim, appLn, opsLn, log)
	h.set(ready)
	err = group.Run()
	return exitCode(err, stop, log)
}

// errStopped is how the group ends when it was asked to.
var errStopped = errors.New("stopped")

// signalActor waits for a signal, or the end of ctx, and declares the drain
// before anything else of it happens.
func signalActor(ctx context.Context, h *health, stop *stopper, cfg Config, log *slog.Logger) (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancel(ctx)
	execute = func() error {
		name := "none"
		select {
		case sig := <-stop.signals:
			name = sig.String()
		case <-ctx.Done():
		}
		h.set(draining)
		log.Info("draining", "signal", name, "delay_seconds", cfg.DrainDelay.Seconds(), "timeout_seconds", cfg.ShutdownTimeout.Seconds())
		return errStopped
	}
	return execute, func(error) {
		h.set(draining) // also when another actor failed first
		cancel()
	}
}

// exitCode says how the process ended, in the log and as its code.
func exitCode(err error, stop *stopper, log *slog.Logger) int {
	cut := stop.cut.Load()
	if second := stop.second.Load(); second != nil {
		log.Error("stopped at once by a second signal, requests in flight were cut", "signal", (*second).String(), "cut", cut)
		if number, ok := (*second).(syscall.Signal); ok {
			return 128 + int(number)
		}
		return exitFailed
	}
	switch {
	case !errors.Is(err, errStopped):
		log.Error("stopped by a failure", "err", err)
		return exitFailed
	case cut > 0:
		log.Error("stopped, requests in flight were cut at the deadline", "cut", cut)
		return exitFailed
	}
	log.Info("stopped, no request was lost")
	return exitOK
}
