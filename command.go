package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"

	"imagelab/internal/probe"
	"imagelab/internal/supervise"
	"imagelab/internal/upstream"
)

// commandOptions are what a command is started with and judged by.
type commandOptions struct {
	args, env  []string
	sandbox    commandSandbox // Config.SandboxCommand
	dataDir    string         // Config.DataDir
	restart    string         // Config.Restart
	upstream   upstreamAddr
	probe      string // Config.Probe
	interval   time.Duration
	start      time.Duration // until it is ready
	stop       time.Duration // until it is killed
	replaced   time.Duration // until the requests of one that was replaced are cut
	stopSignal syscall.Signal
	pool       func(network, address string) *upstream.Pool
}

func newCommandOptions(args, environ []string, cfg Config) commandOptions {
	return commandOptions{
		args: args, env: commandEnv(environ), restart: cfg.Restart, upstream: cfg.Upstream, probe: cfg.Probe,
		sandbox: cfg.SandboxCommand, dataDir: cfg.DataDir,
		interval: cfg.ProbeInterval, start: cfg.StartTimeout, stop: cfg.ShutdownTimeout,
		replaced:   max(cfg.ShutdownTimeout, cfg.UpstreamTimeout), // nobody waits for a reload to end, as for a stop
		stopSignal: syscall.Signal(cfg.StopSignal),
		pool:       func(network, address string) *upstream.Pool { return newPool(network, address, cfg) },
	}
}

// commandEnv is the environment of the command: without what is meant for this process.
func commandEnv(environ []string) []string {
	var env []string
	for _, pair := range environ {
		if !strings.HasPrefix(pair, "IMAGELAB_") {
			env = append(env, pair)
		}
	}
	return env
}

// command is the supervised program: the actor that starts it, says when it is ready, starts
// it again, and stops it when nobody needs it any more. It is the backend of the front.
type command struct {
	commandOptions
	owner    *supervise.Supervisor
	confined *confinement
	metrics  *commandMetrics
	log      *slog.Logger
	hurry    context.Context // ends when there is no time to wait for anything

	reloads  chan struct{} // of one place: a reload that is asked for during one comes after it
	stopping chan struct{} // closed when the command has to end
	ended    chan struct{} // closed when it has, for good
	retiring sync.WaitGroup

	mu      sync.Mutex
	number  int         // of the last generation
	latest  *generation // that gets the signals
	current *generation // that takes requests; nil if none does
	changed chan struct{}
	phase   string // while there is no current one
	stopFor syscall.Signal
	stopBy  time.Time
	live    []*generation
	spent   time.Duration // processor time of those that have ended
	last    string        // how a generation has ended
	code    int           // of the last one, when it ended
	why     string

	looking sync.Mutex // held during a look at /proc
	looked  look
}

// look is what the processes of the command used at one moment.
type look struct {
	of    []*generation
	usage supervise.Usage
	at    time.Time
	took  time.Duration
}

// A generation is one start of the command.
type generation struct {
	*supervise.Process
	number  int
	reason  string // why it was started: as the first one, a restart or a reload
	addr    upstreamAddr
	to      *destination // nil without a front
	ready   chan struct{}
	late    bool        // it had to be stopped, as it did not get ready; of the one who waits for it
	failing atomic.Bool // its probe fails, after it was ready
}

func (g *generation) hasEnded() bool { return isClosed(g.Done()) }

func (g *generation) wasReady() bool { return isClosed(g.ready) }

// outcome is its exit code, and how it has ended. One that was late has failed, whatever it says.
func (g *generation) outcome() (code int, why string) {
	if code = g.Status().Code(); code == 0 && g.late {
		return exitFailed, "it was not ready in time"
	}
	return code, g.Status().String()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// The states of a command that takes no requests, beside those of health.
const (
	restarting = "restarting"
	failing    = "failing" // its probe fails, after it was ready
	givenUp    = "given up"
)

func newCommand(o commandOptions, confined *confinement, owner *supervise.Supervisor, hurry context.Context, m *commandMetrics, log *slog.Logger) *command {
	c := &command{
		commandOptions: o, confined: confined, owner: owner, metrics: m, log: log, hurry: hurry,
		reloads: make(chan struct{}, 1), stopping: make(chan struct{}), ended: make(chan struct{}),
		changed: make(chan struct{}), phase: starting.String(),
	}
	m.register(c)
	return c
}

// commandEnded is how the group ends when the command has.
type commandEnded struct{ why string }

func (e commandEnded) Error() string { return "the command has ended: " + e.why }

// actor is the pair for run.Group. The interruption stops the command, and comes when the
// front has no more requests for it. Without a front, it has the grace to end.
func (c *command) actor(st *stopper, grace time.Duration) (execute func() error, interrupt func(error)) {
	execute = func() error {
		c.run()
		go func() { // what is being served by an old generation has until the end of the drain
			c.retiring.Wait()
			close(c.ended)
		}()
		return commandEnded{c.why}
	}
	return execute, func(error) {
		var cause signalError
		sig := syscall.SIGTERM
		if errors.As(context.Cause(st.begun), &cause) {
			sig = cause.Signal.(syscall.Signal)
		}
		by := time.Now().Add(grace)
		if !st.deadline.IsZero() { // the command has what its requests have left
			by = later(st.deadline, time.Now().Add(min(grace, leastGrace)))
		}
		c.mu.Lock()
		c.stopFor, c.stopBy = sig, by
		if c.stopSignal != 0 {
			c.stopFor = c.stopSignal
		}
		c.mu.Unlock()
		close(c.stopping)
		<-c.ended
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

const (
	// A command that ends before it is ready, or within leastLife, has failed to start. After
	// maxFailures of those in a row it is given up.
	leastLife   = time.Second
	maxFailures = 5
	// The sandbox may be why a command fails, if it fails within blameLife.
	blameLife = 10 * time.Second
	// The first start that follows another comes after some leastPause, each further one
	// after twice that, at most mostPause.
	leastPause = 200 * time.Millisecond
	mostPause  = 30 * time.Second
	// leastGrace is what a command has to end, also when its requests have taken all the time
	// until the deadline.
	leastGrace = 500 * time.Millisecond
	// leaveGrace is what the rest of a command's group has when the command has ended.
	leaveGrace = 2 * time.Second
)

// run keeps the command running until it stops, ends for good or is given up.
func (c *command) run() {
	pause := &backoff.ExponentialBackOff{
		InitialInterval: leastPause, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: mostPause,
	}
	failures := 0
	for reason := "start"; ; reason = "restart" {
		if isClosed(c.stopping) {
			if reason == "start" { // what has not run has not succeeded
				c.ends(128+int(c.signalOfStop()), "it was not started")
			}
			return
		}
		g, err := c.launch(reason)
		if err != nil {
			c.ends(startCode(err), err.Error())
			c.log.Error("the command cannot be started", "err", err)
			if reason == "start" {
				return
			}
			failures++
		} else {
			g = c.attend(g)
			code, why := g.outcome()
			c.ends(code, why)
			if code != 0 && !isClosed(c.stopping) && (!g.wasReady() || g.Lived() < blameLife) {
				c.confined.blame(c.sandbox, c.args, c.env, c.log)
			}
			if isClosed(c.stopping) || !c.restarts(code) {
				return
			}
			if failures++; g.wasReady() && g.Lived() >= leastLife {
				failures = 0
				pause.Reset()
			}
		}
		if failures >= maxFailures {
			c.enter(givenUp)
			c.log.Error("the command is given up, as it never got ready", "starts", failures, "last", c.why)
			return
		}
		c.enter(restarting)
		wait := pause.NextBackOff()
		c.log.Warn("the command is started again", "pause_seconds", wait.Seconds(), "last", c.why)
		select {
		case <-time.After(wait):
		case <-c.stopping:
			return
		}
	}
}

// startCode is the exit code for a command that could not be started.
func startCode(err error) int {
	var failure *supervise.StartError
	if errors.As(err, &failure) {
		return failure.Code()
	}
	return exitFailed
}

// ends notes how the command has ended.
func (c *command) ends(code int, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.code, c.why = code, why
}

// restarts says whether a command that has ended with a code is to be started again.
func (c *command) restarts(code int) bool {
	return c.restart == "always" || c.restart == "on-failure" && code != 0
}

// launch starts a generation.
func (c *command) launch(reason string) (*generation, error) {
	g := &generation{reason: reason, addr: c.upstream, ready: make(chan struct{})}
	env := c.env
	if c.upstream.auto {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		g.addr = upstreamAddr{network: "tcp", address: net.JoinHostPort("127.0.0.1", port)}
	}
	if g.addr.network != "" {
		removeStale(g.addr)
		g.to = newDestination(c.pool(g.addr.network, g.addr.address))
		env = withPort(env, g.addr)
	}
	if err := c.begin(g, env); err != nil {
		return nil, err
	}
	c.metrics.starts.WithLabelValues(reason).Inc()
	c.confined.staged(g.Note, c.log)
	c.log.Info("the command has started", "pid", g.Pid, "generation", g.number, "reason", reason, "upstream", g.addr.address)
	go c.watch(g)
	return g, nil
}

// begin starts the process of a generation. A signal that comes meanwhile waits for it.
func (c *command) begin(g *generation, env []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := supervise.Command{Args: c.args, Env: env}
	c.confined.stage(c.sandbox, c.dataDir, &start)
	p, err := c.owner.Start(start)
	if err != nil {
		return err
	}
	c.number++
	g.Process, g.number = p, c.number
	c.latest = g
	c.live = append(c.live, g)
	return nil
}

// removeStale removes the file of a Unix socket on which nobody listens any more: a command
// that was killed leaves it, and most programs then cannot listen.
func removeStale(addr upstreamAddr) {
	if addr.network != "unix" {
		return
	}
	info, err := os.Lstat(addr.address)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return
	}
	conn, err := net.DialTimeout(addr.network, addr.address, time.Second)
	if err == nil {
		conn.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(addr.address)
	}
}

// freePort finds a port that nobody listens on. Somebody may take it before the command
// does, which then fails to start, and gets another one.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}

// withPort sets PORT to that of the upstream. Otherwise it would be that of the front.
func withPort(env []string, addr upstreamAddr) []string {
	var out []string
	for _, pair := range env {
		if !strings.HasPrefix(pair, "PORT=") {
			out = append(out, pair)
		}
	}
	if _, port, err := net.SplitHostPort(addr.address); addr.network == "tcp" && err == nil {
		out = append(out, "PORT="+port)
	}
	return out
}

// attend lives with a generation, and with those that replace it, until the last one of them
// has ended. It returns that one.
func (c *command) attend(g *generation) *generation {
	c.await(g, nil)
	for {
		select {
		case <-g.Done():
			c.bury(g)
			return g
		case <-c.stopping:
			c.finish(g)
			return g
		case <-c.reloads:
			if isClosed(g.Done()) || isClosed(c.stopping) {
				continue
			}
			if next := c.replace(g); next != nil {
				g = next
			}
		}
	}
}

// await waits until a generation is ready, and lets it take requests then. It says false of
// one that has ended, takes too long or is not needed any more. The generation before it, if
// there is one, may end meanwhile.
func (c *command) await(g, before *generation) bool {
	late := time.NewTimer(c.start)
	defer late.Stop()
	var gone <-chan struct{}
	if before != nil {
		gone = before.Done()
	}
	for {
		select {
		case <-g.ready:
			c.promote(g)
			return true
		case <-g.Done():
			return false
		case <-c.stopping:
			return false
		case <-gone:
			c.bury(before)
			gone = nil
		case <-late.C:
			c.log.Error("the command is not ready in time, and is stopped", "pid", g.Pid, "generation", g.number,
				"timeout_seconds", c.start.Seconds())
			g.late = true
			c.end(g, c.endSignal(), time.Now().Add(c.stop))
			return false
		}
	}
}

// replace starts a new generation beside g, and returns it when it has taken over. If it does
// not get ready, g stays.
func (c *command) replace(g *generation) *generation {
	next, err := c.launch("reload")
	if err != nil {
		c.log.Error("the command was not reloaded, the old one stays", "err", err)
		return nil
	}
	if !c.await(next, g) {
		if isClosed(c.stopping) { // both end at once; attend sees to the old one
			c.retiring.Go(func() { c.finish(next) })
			return nil
		}
		<-next.Done()
		c.bury(next)
		c.mu.Lock()
		c.latest = g
		c.mu.Unlock()
		outcome := "the command was not reloaded, the old one stays"
		if g.hasEnded() {
			outcome = "the command was not reloaded, and the old one has ended"
		}
		c.log.Error(outcome, "generation", g.number, "new", next.Status().String())
		return nil
	}
	c.retiring.Go(func() { c.retire(g) })
	return next
}

// retire ends a generation that another one has replaced, when it has answered its requests.
func (c *command) retire(g *generation) {
	if g.to != nil {
		select {
		case <-g.to.retire():
		case <-time.After(c.replaced):
			c.log.Warn("requests of the old generation are cut", "generation", g.number, "requests", g.to.inFlight.Load())
		case <-c.stopping:
		}
	}
	c.end(g, c.endSignal(), time.Now().Add(c.stop))
	<-g.Done()
	c.bury(g)
}

// promote lets a generation take the requests.
func (c *command) promote(g *generation) {
	c.mu.Lock()
	c.current = g
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.log.Info("the command is ready", "pid", g.Pid, "generation", g.number, "after_seconds", time.Since(g.Started).Seconds())
}

// demote has requests wait for the next generation, if it was g that took them.
func (c *command) demote(g *generation) {
	c.mu.Lock()
	was := c.current == g
	if was {
		c.current = nil
		close(c.changed)
		c.changed = make(chan struct{})
	}
	c.mu.Unlock()
	if was && g.to != nil {
		g.to.retire()
	}
}

// finish stops the last generation.
func (c *command) finish(g *generation) {
	c.end(g, c.signalOfStop(), c.deadline())
	<-g.Done()
	c.bury(g)
}

// endSignal asks a generation to end where no signal has come that does.
func (c *command) endSignal() syscall.Signal {
	if c.stopSignal != 0 {
		return c.stopSignal
	}
	return syscall.SIGTERM
}

func (c *command) signalOfStop() syscall.Signal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopFor
}

func (c *command) deadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopBy
}

// end asks a generation to end, and kills it and its group at the deadline, or when a second
// signal comes.
func (c *command) end(g *generation, sig syscall.Signal, by time.Time) {
	_ = g.Signal(sig)
	_ = g.Signal(syscall.SIGCONT) // one that is stopped would sleep through it
	ctx, cancel := c.until(by)
	defer cancel()
	select {
	case <-g.Done():
		return
	case <-ctx.Done():
	}
	level, what := slog.LevelError, "the command is killed, as it has not ended in time"
	if c.hurry.Err() != nil {
		level, what = slog.LevelWarn, "the command is killed, as a second signal came"
	}
	if errors.Is(g.Kill(), unix.EPERM) {
		level, what = slog.LevelError, "the command cannot be killed: it runs as another user, and imagelab has no CAP_KILL"
	}
	c.log.Log(context.Background(), level, what, "pid", g.Pid, "generation", g.number)
}

// until ends at a time, at a second signal, and at the deadline of the stop, should that begin
// meanwhile.
func (c *command) until(by time.Time) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithDeadline(c.hurry, by)
	go func() {
		select {
		case <-c.stopping:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(time.Until(c.deadline())):
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// bury notes the end of a generation, and ends what it has left.
func (c *command) bury(g *generation) {
	c.demote(g)
	c.mu.Lock()
	known := false
	for i, other := range c.live {
		if other == g {
			c.live = append(c.live[:i:i], c.live[i+1:]...)
			c.spent += g.Spent()
			c.last = g.Status().String()
			known = true
			break
		}
	}
	c.mu.Unlock()
	if !known {
		return
	}
	code := strconv.Itoa(g.Status().Code())
	c.metrics.exits.WithLabelValues(code).Inc()
	level := slog.LevelInfo
	if g.Status().Code() != 0 && !isClosed(c.stopping) {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "the command has ended", "pid", g.Pid, "generation", g.number,
		"status", g.Status().String(), "lived_seconds", g.Lived().Seconds())
	ctx, cancel := c.until(time.Now().Add(leaveGrace))
	defer cancel()
	if g.End(ctx) {
		c.log.Warn("the command has left processes in its group, which were ended", "generation", g.number)
	}
}

// watch finds out when a generation is ready, and later whether it still is.
func (c *command) watch(g *generation) {
	for pause := 2 * time.Millisecond; ; pause = min(pause*3/2, 250*time.Millisecond) {
		err := c.check(g)
		if err == nil {
			break
		}
		select {
		case <-time.After(pause):
		case <-g.Done():
			return
		}
	}
	if g.hasEnded() {
		return
	}
	close(g.ready)
	for c.probe != "" {
		select {
		case <-time.After(c.interval):
		case <-g.Done():
			return
		}
		err := c.check(g)
		if failed := err != nil; g.failing.Swap(failed) != failed {
			if failed {
				c.log.Warn("the command's probe fails", "generation", g.number, "err", err)
			} else {
				c.log.Info("the command's probe succeeds again", "generation", g.number)
			}
		}
	}
}

// check says why a generation is not ready, or nil.
func (c *command) check(g *generation) error {
	ctx, cancel := context.WithTimeout(context.Background(), probe.DefaultTimeout)
	defer cancel()
	if c.probe != "" {
		target, err := probeTarget(c.probe, g.addr)
		if err != nil {
			return err
		}
		_, err = target.Probe(ctx, probe.Options{Timeout: probe.DefaultTimeout})
		return err
	}
	if g.to != nil {
		return g.to.pool.Accepts(ctx)
	}
	return nil
}

// probeTarget reads IMAGELAB_PROBE: a URL, or a path of the upstream.
func probeTarget(raw string, addr upstreamAddr) (probe.Target, error) {
	switch {
	case !strings.HasPrefix(raw, "/"):
		return probe.Parse(raw)
	case addr.network == "unix":
		return probe.Parse("unix://" + addr.address + ":" + raw)
	case addr.network == "": // each generation has a port of its own
		return probe.Parse("http://127.0.0.1" + raw)
	}
	return probe.Parse("http://" + addr.address + raw)
}

// acquire is the backend's.
func (c *command) acquire(ctx context.Context) (*destination, error) {
	for {
		c.mu.Lock()
		g, changed := c.current, c.changed
		c.mu.Unlock()
		if g != nil && g.to.take() {
			return g.to, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errNotThere
		}
	}
}

// forward passes a signal on to the latest generation.
func (c *command) forward(sig syscall.Signal) {
	c.mu.Lock()
	g := c.latest
	c.mu.Unlock()
	if g != nil {
		_ = g.Signal(sig)
	}
}

// reload asks for a new generation.
func (c *command) reload() {
	select {
	case c.reloads <- struct{}{}:
		c.log.Info("reloading the command")
	default: // one is asked for already, and will begin after this
	}
}

func (c *command) enter(phase string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = phase
}

// state is what /readyz says of the command.
func (c *command) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.current == nil && len(c.live) > 0 && c.phase != givenUp:
		return starting.String()
	case c.current == nil:
		return c.phase
	case c.current.failing.Load():
		return failing
	}
	return ready.String()
}

// result is the exit code of the command, and how it has ended, when it has for good.
func (c *command) result() (code int, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code, c.why
}

// commandFacts are what is known of the latest generation.
type commandFacts struct {
	up         bool
	generation int
	uptime     time.Duration // 0 if it is not up
	last       string        // how the generation before it, or it, has ended; empty if none has
	reason     string        // of its start
}

func (c *command) facts() commandFacts {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := commandFacts{generation: c.number, last: c.last}
	if g := c.latest; g != nil {
		f.reason = g.reason
		if !g.hasEnded() {
			f.up, f.uptime = true, time.Since(g.Started)
		}
	}
	return f
}

// mark is what the history says of the latest start; nothing of the first one.
func (f commandFacts) mark() string {
	switch f.reason {
	case "restart":
		return fmt.Sprintf("restarted the program, start %d; the one before: %s", f.generation, f.last)
	case "reload":
		return fmt.Sprintf("reloaded the program, start %d", f.generation)
	}
	return ""
}

const (
	// leastBetweenLooks is how old what was seen may be, so that the metrics and the history share a look.
	leastBetweenLooks = 500 * time.Millisecond
	// lookShare bounds the time that looks take: one part of so many.
	lookShare = 100
)

// usage is that of all generations that live, with the processor time of those that do not, and when it was seen. To
// look is to read a file of each process that there is, so it is done seldom where there are many. The time of a
// process which ends without being waited for is lost, and must not count backwards.
func (c *command) usage(proc fs.FS) (supervise.Usage, time.Time) {
	c.looking.Lock()
	defer c.looking.Unlock()
	began := time.Now()
	c.mu.Lock() // not during the look, as requests ask for it as well
	sum, live := supervise.Usage{Spent: c.spent}, slices.Clone(c.live)
	c.mu.Unlock()
	if began.Sub(c.looked.at) < max(leastBetweenLooks, lookShare*c.looked.took) && slices.Equal(live, c.looked.of) {
		return c.looked.usage, c.looked.at
	}
	for _, g := range live {
		u := g.Usage(proc)
		sum.Processes += u.Processes
		sum.Spent += u.Spent
		sum.Resident += u.Resident
		sum.Descriptors += u.Descriptors
	}
	sum.Spent = max(sum.Spent, c.looked.usage.Spent)
	c.looked = look{live, sum, began, time.Since(began)}
	return sum, began
}

// signals sees to those that reach this process. The ones that stop it are the stopper's; of
// the others the command gets all that it can, at once. SIGHUP reloads it where that means
// something.
func (c *command) signals(sig syscall.Signal) (taken bool) {
	switch sig {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT:
		return false
	case syscall.SIGHUP:
		if c.upstream.auto {
			c.reload()
			return true
		}
	case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
		return true
	}
	c.forward(sig)
	return true
}

// stopSignal is a signal by its name or number. The zero value is none.
type stopSignal syscall.Signal

// UnmarshalText reads SIGTERM, TERM or 15.
func (s *stopSignal) UnmarshalText(text []byte) error {
	name := strings.ToUpper(string(text))
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= 64 {
		*s = stopSignal(n)
		return nil
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	*s = stopSignal(unix.SignalNum(name))
	if *s == 0 {
		return errors.New("not a signal")
	}
	return nil
}

// commandErrors are what is wrong with the variables of a command beside others.
func commandErrors(cfg Config, vars []variable, refused map[string]bool) []error {
	if cfg.Probe == "" || strings.HasPrefix(cfg.Probe, "/") && refused["IMAGELAB_UPSTREAM"] {
		return nil
	}
	shown := named(vars, "IMAGELAB_PROBE").shown()
	if strings.HasPrefix(cfg.Probe, "/") && !cfg.Upstream.isSet() {
		return []error{fmt.Errorf("%s is a path of no upstream: want a URL, or IMAGELAB_UPSTREAM", shown)}
	}
	if _, err := probeTarget(cfg.Probe, cfg.Upstream); err != nil {
		return []error{fmt.Errorf("%s: %w", shown, err)}
	}
	return nil
}
