package main

import (
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"golang.org/x/sys/unix"
)

// limits are what the process allows itself, from Config and from what the container
// allows it. All shares come from one budget of memory and one of descriptors.
type limits struct {
	memory   uint64 // bytes, 0 is none
	conns    int    // connections of the app listener
	spare    int    // above them, so that a probe is answered when all are busy
	opsConns int    // connections of the ops listener
	inFlight int64  // requests of the app listener at once
	uploads  int64  // of these, how many may be uploads
}

const (
	// connCost is what one waiting connection is reckoned at: two buffers of
	// 4 KiB, a stack, the kernel's own, and as much again as room for requests.
	connCost = 64 << 10
	// passCost is that of one whose requests are passed on: with the upstream's connection.
	passCost = 2 * connCost
	// ownFiles are the descriptors that are neither connections nor blobs: log, epoll,
	// listeners, the store, /proc and the walk of the audit, peers, and clients that are
	// being refused (drain.Options.MaxConns).
	ownFiles = 64
	// maxAutoConns ends the derivation where nothing is limited.
	maxAutoConns = 16384
	// minConns is served with in any case.
	minConns = 8
	// maxOpsConns is room for a few scrapers, probes and viewers.
	maxOpsConns = 128
	// opsSpare connections of the ops listener are not for streams, so that viewers keep no
	// probe out. They are among the ownFiles.
	opsSpare = 2
)

// share derives the caps that are left open: maxConns connections and maxInFlight requests
// are as configured, or 0. There are files descriptors, and heap bytes for connections, each
// of which is reckoned at cost; 0 is any number. fits is how many connections there would
// be descriptors for.
func share(maxConns, maxInFlight int, heap, cost, files uint64) (lim limits, fits int) {
	room := maxAutoConns
	if heap > 0 {
		room = min(room, int(min(heap/cost, maxAutoConns)))
	}
	left := maxAutoConns * 4
	if files > 0 {
		left = max(0, int(min(files, maxAutoConns*4))-ownFiles)
	}
	lim.opsConns = min(max(min(left/8, room/4), minConns), maxOpsConns)
	lim.spare = min(max(min(left, room)/32, 2), 32)
	// A request may have a blob open, and three quarters of the connections a request.
	fits = max(minConns, (left-lim.opsConns-lim.spare)*4/7)
	lim.conns = maxConns
	if lim.conns == 0 {
		lim.conns = max(minConns, room)
	}
	lim.conns = min(lim.conns, fits)
	lim.spare = min(lim.spare, max(lim.conns/8, 2))
	lim.inFlight = int64(maxInFlight)
	if lim.inFlight == 0 {
		lim.inFlight = int64(max(1, lim.conns*3/4))
	}
	lim.uploads = max(1, min(lim.inFlight, int64(lim.conns))/2)
	return lim, fits
}

// applyLimits reads the container's limits, sets GOMEMLIMIT to what the store, if
// there is one, leaves of the memory (unless it is set), and derives the caps that
// Config leaves open.
func applyLimits(cfg Config, hasStore bool, log *slog.Logger) limits {
	var lim limits
	memory, err := memlimit.FromCgroup()
	if err == nil {
		lim.memory = memory
	} else if !errors.Is(err, memlimit.ErrNoLimit) && !errors.Is(err, memlimit.ErrNoCgroup) {
		log.Warn("memory limit not readable, GOMEMLIMIT stays as it is", "err", err)
	}
	// What the store holds on a tmpfs is charged to the same limit.
	heap := lim.memory
	if hasStore && onTmpfs(cfg.DataDir) && uint64(cfg.StoreCapacity) < heap {
		heap -= uint64(cfg.StoreCapacity)
	}
	if heap > 0 {
		if _, err := memlimit.Set(memlimit.WithProvider(memlimit.Limit(heap)), memlimit.WithRatio(heapRatio)); err != nil {
			log.Warn("GOMEMLIMIT stays as it is", "err", err)
		}
	}

	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		files.Cur = 0
	}
	cost := uint64(connCost)
	if cfg.Upstream.isSet() {
		cost = passCost
	}
	shares, fits := share(cfg.MaxConns, cfg.MaxInFlight, heap, cost, files.Cur)
	if cfg.MaxConns > fits {
		log.Warn("IMAGELAB_MAX_CONNS is more than there are descriptors for; raise the limit, such as ulimits.nofile of compose",
			"configured", cfg.MaxConns, "used", fits, "descriptors", files.Cur)
	}
	shares.memory = lim.memory
	return shares
}

// heapRatio is the share of the memory that Go may use; the rest is the binary's
// own pages, stacks of threads and the kernel's buffers.
const heapRatio = 0.6

// onTmpfs says whether dir is kept in memory.
func onTmpfs(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.TMPFS_MAGIC
}

// dockerGrace is how long docker stop waits before SIGKILL, unless told
// otherwise.
const dockerGrace = 10 * time.Second

// balancerIdle is how long the common balancers keep an idle connection. One that
// the server closes first may carry a request at that moment.
const balancerIdle = 60 * time.Second

// logStart says what the process will bear.
func logStart(cfg Config, hasCommand bool, lim limits, log *slog.Logger) {
	budget := cfg.DrainDelay + cfg.ShutdownTimeout + opsDrain.timeout
	if hasCommand {
		budget += leastGrace
	}
	log.Info("started", "version", version, "variant", cfg.Variant, "pid", os.Getpid(),
		"max_in_flight", lim.inFlight, "memory_limit_bytes", lim.memory, "gomemlimit_bytes", debug.SetMemoryLimit(-1), "stop_budget_seconds", budget.Seconds())
	if budget > dockerGrace {
		log.Warn("a stop may take longer than Docker's default grace and end in SIGKILL; raise stop_grace_period or lower IMAGELAB_DRAIN_DELAY and IMAGELAB_SHUTDOWN_TIMEOUT",
			"stop_budget_seconds", budget.Seconds(), "grace_seconds", dockerGrace.Seconds())
	}
	if cfg.IdleTimeout <= balancerIdle {
		log.Warn("idle connections close before a balancer's own timeout, which may lose requests; raise IMAGELAB_IDLE_TIMEOUT above it",
			"idle_timeout_seconds", cfg.IdleTimeout.Seconds(), "balancer_seconds", balancerIdle.Seconds())
	}
}
