package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"imagelab/drain"
)

// stopper turns signals into the two steps of a stop: the first begins the drain, the
// second ends it. It is the only reader of the process's signals.
type stopper struct {
	signals chan os.Signal
	outside context.Context // its end is a SIGTERM

	begun context.Context // ends at the first signal
	begin context.CancelCauseFunc
	hurry context.Context // ends at the second
	cut   context.CancelCauseFunc
	asked bool // a signal has come, which need not have begun the stop; of the reader alone

	report   drain.Report // of the app server; complete when the group has ended
	deadline time.Time    // of its requests; set before the command's stop begins, zero without an app server
	failures atomic.Int64 // requests that an upstream has failed since the stop has begun
	// drained, if it is set, is told the report at once, and the failures so far.
	drained func(report drain.Report, failures int64)

	// With a command every signal is read, and others takes those that do not stop.
	others func(syscall.Signal) (taken bool)
	// result is the command's exit code, and how it has ended, when the group has.
	result func() (code int, why string)
}

// newStopper asks for the signals whose default is death, so that it has to come before
// anything else that takes time. What comes earlier ends the process: as PID 1 by the
// handler of internal/early. SIGQUIT is what images made from nginx's send, SIGHUP comes when a terminal closes.
func newStopper(ctx context.Context, hasCommand bool) *stopper {
	st := &stopper{signals: make(chan os.Signal, 64), outside: ctx}
	st.begun, st.begin = context.WithCancelCause(context.Background())
	st.hurry, st.cut = context.WithCancelCause(context.Background())
	if hasCommand {
		st.readAll()
		return st
	}
	signal.Notify(st.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if !signal.Ignored(syscall.SIGHUP) { // nohup has it ignored, and means it
		signal.Notify(st.signals, syscall.SIGHUP)
	}
	// A reader of the log that has gone is no reason to end. Not signal.Ignore, which a
	// child would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return st
}

// readAll asks for every signal that is not ignored: a command inherits what is.
func (st *stopper) readAll() {
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		if !signal.Ignored(sig) {
			signal.Notify(st.signals, sig)
		}
	}
}

// lastSignal is the kernel's (signal(7), SIGRTMAX).
const lastSignal syscall.Signal = 64

// signalError is the cause of a stop.
type signalError struct{ os.Signal }

func (e signalError) Error() string { return "signal " + e.String() }

// reader is the actor that reads the signals, also while the others stop; so it has to
// be the last of its group.
func (st *stopper) reader() (execute func() error, interrupt func(error)) {
	done := make(chan struct{})
	execute = func() error {
		outside := st.outside.Done()
		for {
			select {
			case sig := <-st.signals:
				st.take(sig)
			case <-outside:
				st.begin(nil)
				st.asked, outside = true, nil
			case <-done:
				return nil
			}
		}
	}
	return execute, func(error) { close(done) }
}

// take begins the stop, or hurries it. A second SIGHUP does not: a terminal that closes
// sends one, and its shell another. Nor does the first signal where the stop has begun without
// one: who sent it wants the stop, and not that it cuts.
func (st *stopper) take(sig os.Signal) {
	if number, ok := sig.(syscall.Signal); ok && st.others != nil && st.others(number) {
		return
	}
	switch {
	case !st.asked:
		st.asked = true
		st.begin(signalError{sig})
	case sig != syscall.SIGHUP:
		st.cut(signalError{sig})
	}
}

// errStopped is how the group ends when it was asked to.
var errStopped = errors.New("stopped")

// drainTimes are the parts of a server's stop.
type drainTimes struct {
	delay   time.Duration // new connections are still served
	timeout time.Duration // after the delay, what is left is cut
}

// opsDrain is for the ops listener, which stops last: a scrape takes milliseconds, and
// by then Docker's patience is nearly over.
var opsDrain = drainTimes{timeout: time.Second}

// failed notes that the upstream has failed a request: its client got an error instead of an
// answer, or a part of one.
func (st *stopper) failed() {
	if st.begun.Err() != nil {
		st.failures.Add(1)
	}
}

// actor waits for the stop to begin, and declares it before anything else of it happens.
func (st *stopper) actor(h *health, servers []*server, times drainTimes, log *slog.Logger) (execute func() error, interrupt func(error)) {
	declare := sync.OnceFunc(func() {
		h.set(draining)
		for _, s := range servers {
			s.drain.Draining()
		}
		name := "none"
		var cause signalError
		if errors.As(context.Cause(st.begun), &cause) {
			name = cause.String()
		}
		log.Info("draining", "signal", name, "delay_seconds", times.delay.Seconds(), "timeout_seconds", times.timeout.Seconds())
	})
	execute = func() error {
		<-st.begun.Done()
		declare()
		return errStopped
	}
	return execute, func(error) {
		st.begin(nil) // also when another actor failed first
		declare()
	}
}

// serverActor is the pair for run.Group: it serves until it is interrupted, and the
// interruption is the drain.
func (st *stopper) serverActor(s *server, times drainTimes) (execute func() error, interrupt func(error)) {
	execute = func() error {
		if err := s.drain.Serve(); err != nil {
			return fmt.Errorf("serve %s on %s: %w", s.name, s.ln.Addr(), err)
		}
		return nil
	}
	return execute, func(error) {
		select {
		case <-time.After(times.delay):
		case <-st.hurry.Done():
		}
		deadline := time.Now().Add(times.timeout)
		ctx, cancel := context.WithDeadline(st.hurry, deadline)
		defer cancel()
		report := s.drain.Shutdown(ctx)
		s.tell(report)
		if s.name == "app" {
			st.report, st.deadline = report, deadline
			if st.drained != nil {
				st.drained(report, st.failures.Load())
			}
		}
	}
}

// tell puts the report of a drain into metrics and log.
func (s *server) tell(report drain.Report) {
	for phase, n := range report.Cut {
		s.metrics.cut.WithLabelValues(s.name, phase.String()).Add(float64(n))
		s.log.Warn("connections were cut at the end of the drain", "phase", phase.String(), "connections", n)
	}
	s.metrics.drainDuration.WithLabelValues(s.name).Set(report.Took.Seconds())
	s.log.Info("drained", "duration_seconds", report.Took.Seconds(), "cut", report.Requests, "late", report.Late)
}

// exitCode says how the process ended, in the log and as its code. Only the app's
// requests decide.
func (st *stopper) exitCode(err error, log *slog.Logger) (exit int) {
	report := st.report
	if st.result != nil {
		code, why := st.result()
		log.Info("the command's exit code is this process's", "code", code, "status", why)
		defer func() { exit = code }()
	}
	unchecked := ""
	if report.Lossy != nil {
		unchecked = report.Lossy.Error()
	}
	failed := st.failures.Load()
	served := "no request was lost"
	if st.deadline.IsZero() { // the command has its own listeners, if any
		served = "what the command served was not seen"
	}
	var second signalError
	switch {
	case errors.As(context.Cause(st.hurry), &second):
		switch {
		case report.Requests > 0 || failed > 0:
			log.Error("stopped at once by a second signal, requests in flight were cut", "signal", second.String(),
				"cut", report.Requests, "failed", failed)
		case !report.Lossless():
			log.Warn("stopped at once by a second signal, no request that was seen was cut", "signal", second.String(), "late", report.Late, "not_checked", unchecked)
		default:
			log.Info("stopped at once by a second signal, "+served, "signal", second.String())
		}
		if number, ok := second.Signal.(syscall.Signal); ok {
			return 128 + int(number)
		}
		return exitFailed
	case errors.As(err, new(commandEnded)) && (report.Requests > 0 || failed > 0):
		log.Error("stopped, as the command has ended, and requests were cut or not answered", "cut", report.Requests, "failed", failed)
	case errors.As(err, new(commandEnded)):
		log.Info("stopped, as the command has ended")
	case !errors.Is(err, errStopped):
		log.Error("stopped by a failure", "err", err)
		return exitFailed
	case report.Requests > 0:
		log.Error("stopped, requests in flight were cut at the deadline", "cut", report.Requests, "failed", failed)
		return exitFailed
	case failed > 0:
		log.Error("stopped, requests were not answered by the upstream", "failed", failed)
		return exitFailed
	case !report.Lossless():
		log.Warn("stopped, no request that was seen was cut", "late", report.Late, "not_checked", unchecked)
	default:
		log.Info("stopped, " + served)
	}
	return exitOK
}
