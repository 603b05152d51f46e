// Command imagelab is one static binary that makes a FROM scratch image fit for
// production: it serves an HTTP app and its metrics, probes itself for
// HEALTHCHECK, does PID 1's duties, and stops on SIGTERM without losing a request.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
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
	if plan, is := stageOf(environ); is {
		return runStage(plan, args, environ)
	}
	mode, opts, err := parseArgs(args)
	switch {
	case err != nil && mode == modeHealthcheck:
		return unhealthy(stdout, err)
	case err != nil:
		page := "--help"
		if mode != modeServe && hasManual(mode) {
			page = "--" + string(mode) + " --help"
		}
		fmt.Fprintf(stderr, "imagelab: %v\nRun imagelab %s for what there is.\n", err, page)
		return exitUsage
	case mode == modeHealthcheck:
		return healthcheck(ctx, opts.targets, opts.probe, environ, stdout)
	case mode == modeAudit:
		return auditMode(ctx, opts.audit, opts.format, environ, stdout, stderr)
	case mode == modeCompare:
		return compareMode(ctx, opts.peers, opts.format, environ, stdout, stderr)
	case mode == modeSBOM:
		return sbomMode(stdout, stderr)
	case mode == modeVersion:
		printVersion(stdout)
		return exitOK
	case mode == modeHelp:
		printHelp(stdout, opts.helpOn)
		return exitOK
	}

	cfg, vars, doubts, err := loadConfigFor(environ, mode == modeCommand)
	if err != nil {
		fmt.Fprintf(stderr, "imagelab: bad configuration:\n  %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return exitUsage
	}
	format := logFormat(vars, cfg.LogFormat, isTerminal(stderr))
	lines := newLogQueue(stderr, func(dropped int64) {
		newLogger(stderr, cfg.LogLevel, format).Warn("log lines were dropped, as nobody read them", "lines", dropped)
	})
	defer lines.Close()
	log := newLogger(lines, cfg.LogLevel, format)
	logDoubts(doubts, log)
	return serve(newStopper(ctx, mode == modeCommand), opts.command, cfg, vars, environ, log, &lines.dropped)
}

// serve runs the two listeners and the command, if there is one, until the stop. A command
// that no requests are passed on to leaves no work for the app listener.
func serve(stop *stopper, args []string, cfg Config, vars []variable, environ []string, log *slog.Logger, dropped *atomic.Int64) int {
	hasCommand := len(args) > 0
	hasApp := !hasCommand || cfg.Upstream.isSet()
	h := newHealth(time.Now())
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, h, cfg.Variant, dropped)
	lim := applyLimits(cfg, hasApp && !cfg.Upstream.isSet(), log)
	appLn, opsLn, err := bindAll(stop.outside, cfg, hasApp, vars, lim, log, m)
	if err != nil {
		log.Error("cannot start", "err", err)
		return exitFailed
	}
	m.caps(lim, opsLn != nil)
	owner := newSupervisor(m, log)
	system := newSystem(environ, cfg.Variant, cfg.ImageBudget)
	confined := newConfinement(cfg, hasCommand)
	reg.MustRegister(confined)
	reg.MustRegister(cgroupMetrics{system.Usage})
	auditor := newAuditor(system, h.app, confined, reg, m, log)
	live := newEvents(reg, h, m, cfg, system.Meter().Read)
	auditor.changed = func(what string) { live.past.mark(time.Now(), what) }
	stop.drained = h.noteDrain

	var program *command
	var to backend
	if hasCommand {
		program = newCommand(newCommandOptions(args, environ, cfg), confined, owner, stop.hurry, newCommandMetrics(reg), log)
		stop.others, stop.result, h.program = program.signals, program.result, program
		to = program
	} else if cfg.Upstream.isSet() {
		to = newFixed(cfg, log)
	}
	var servers []*server
	if hasApp {
		app := newServer(appLn, newServerOptions("app", cfg, lim.inFlight), log, m)
		servers = append(servers, app)
		if to != nil {
			addFront(app, to, cfg, vars, opsLn == nil, stop.failed, reg, log)
		} else {
			blobs := openStore(cfg, lim.uploads, reg, m, log)
			defer blobs.close()
			addAppRoutes(app, cfg, h, blobs)
		}
	}
	apps := len(servers)
	scrapes := newLastScrape(newMetricsHandler(reg, log), cfg.LastScrape)
	watchers := opsRoutes{
		token: cfg.OpsToken, guard: newGuard(cfg, m), pprof: servesPprof(cfg), variables: vars,
		health: h, auditor: auditor, metrics: scrapes, events: live,
		profiles: newSlots(1, "profiles", m),
	}
	if opsLn != nil {
		ops := newServer(opsLn, newServerOptions("ops", cfg, 0), log, m)
		watchers.add(ops, "")
		servers = append(servers, ops)
	} else if hasApp {
		watchers.add(servers[0], "/-")
	}

	// All that it needs is open.
	if !hasCommand {
		if err := confined.confine(cfg, system, log); err != nil {
			log.Error("cannot start", "err", err)
			return exitFailed
		}
	}

	// Actors are interrupted in the order in which they are added, each after the one
	// before it is done: the command comes after the app's listener, so that its requests
	// end first, and the ops listener after both, so that all of it can be scraped.
	var group actors.Group
	times := drainTimes{cfg.DrainDelay, cfg.ShutdownTimeout}
	group.Add(m.track("signals")(stop.actor(h, servers, times, log)))
	for _, app := range servers[:apps] {
		group.Add(m.track("app")(stop.serverActor(app, times)))
	}
	if program != nil {
		group.Add(m.track("command")(program.actor(stop, cfg.ShutdownTimeout)))
	}
	for _, ops := range servers[apps:] {
		group.Add(scrapes.actor(stop, log))
		group.Add(m.track("ops")(stop.serverActor(ops, opsDrain)))
	}
	group.Add(m.track("audit")(auditor.actor()))
	group.Add(m.track("history")(live.sampler()))
	if len(live.peers) > 0 {
		group.Add(m.track("peers")(live.actor()))
	}
	if os.Getpid() == 1 || hasCommand {
		group.Add(m.track("reaper")(reaperActor(owner, hasCommand, log)))
	} else {
		log.Info("not PID 1, so orphans are left to whoever is", "pid", os.Getpid())
	}
	group.Add(m.track("signal-reader")(stop.reader()))

	logStart(cfg, hasCommand, lim, log)
	logExposure(cfg, log)
	h.set(ready)
	return stop.exitCode(group.Run(), log)
}
