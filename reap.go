package main

import (
	"context"
	"log/slog"
	"os"

	"imagelab/internal/supervise"
)

// newSupervisor makes the one that waits for children: for those of the command, and for
// orphans. A process whose parent dies becomes a child of PID 1, and stays a zombie until
// PID 1 waits for it: each health probe that is killed for its timeout would leave one, until
// the pids limit is full.
func newSupervisor(m *metrics, log *slog.Logger) *supervise.Supervisor {
	return supervise.New(supervise.Options{Reaped: func(o supervise.Orphan) {
		m.reaped.Inc()
		log.Info("reaped an orphan", "pid", o.Pid, "command", o.Name, "status", o.Status.String())
	}})
}

// reaperActor has the supervisor wait. The orphans of a command are its too where another
// process is PID 1.
func reaperActor(s *supervise.Supervisor, hasCommand bool, log *slog.Logger) (execute func() error, interrupt func(error)) {
	if hasCommand && os.Getpid() != 1 {
		if err := supervise.AdoptOrphans(); err != nil {
			log.Warn("orphans of the command are left to PID 1", "err", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return func() error { s.Run(ctx); return nil }, func(error) { cancel() }
}
