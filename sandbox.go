package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"imagelab/internal/audit"
	"imagelab/internal/sandbox"
	"imagelab/internal/supervise"
)

// This file has both things that can be confined: the server, by itself, and the command, by
// a stage between its start and the program.

// confinement is what this process or its command is confined to. Its methods are safe for
// concurrent use.
type confinement struct {
	mode  string // Config.Sandbox
	write []string

	mu     sync.Mutex
	of     string // server, command, or empty for nothing
	report sandbox.Report
	plan   []byte // a stagePlan for each start of the command
}

// newConfinement confines nothing yet.
func newConfinement(cfg Config, hasCommand bool) *confinement {
	c := &confinement{mode: cfg.Sandbox}
	if !hasCommand && !cfg.Upstream.isSet() { // there is a store
		c.write = []string{cfg.DataDir}
	}
	return c
}

// confine has this process give up what it does not need, when all that it needs is open. The
// error is why it must not go on.
func (c *confinement) confine(cfg Config, system *audit.System, log *slog.Logger) error {
	if cfg.Sandbox == "off" {
		log.Info("not confined, as IMAGELAB_SANDBOX is off")
		return nil
	}
	// What is read once, when it is first needed, is read now.
	_, _ = time.Now().Zone()
	if slices.ContainsFunc(cfg.Peers.all, func(p peer) bool { return p.base.TLS }) {
		_, _ = x509.SystemCertPool()
	}
	system.Remember()
	for i, dir := range c.write {
		c.write[i] = realPath(dir)
	}
	policy := policyOf(cfg)
	policy.Write = c.write
	report := sandbox.Confine(policy)
	c.note("server", report)
	if err := report.Err(); err != nil && cfg.Sandbox == "require" {
		return fmt.Errorf("IMAGELAB_SANDBOX=require, and this is refused: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	c.log(log, "confined")
	if len(report.Missing) > 0 {
		log.Warn("the data directory does not exist, and cannot be used later: "+
			"make it before the start, or set IMAGELAB_SANDBOX=off",
			"dir", cfg.DataDir)
	}
	return nil
}

// policyOf is what the server connects to: the TCP ports of its peers, of its upstream, and, where
// one of them has a name, resolvers, which are asked by UDP, and by TCP for long answers.
func policyOf(cfg Config) (p sandbox.Policy) {
	var addresses []string
	for _, p := range cfg.Peers.all {
		addresses = append(addresses, p.base.Addrs...)
	}
	switch cfg.Upstream.network {
	case "tcp":
		addresses = append(addresses, cfg.Upstream.address)
	case "unix":
		p.Unix = true
	}
	for _, address := range addresses {
		host, port, _ := net.SplitHostPort(address)
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			p.Connect = append(p.Connect, uint16(n))
		}
		if _, err := netip.ParseAddr(host); err != nil {
			p.Connect, p.UDP = append(p.Connect, resolverPort), true
		}
	}
	slices.Sort(p.Connect)
	p.Connect = slices.Compact(p.Connect)
	return p
}

const resolverPort = 53

// confineOnce is for the modes that end soon: without a word, and without any effect on what
// they say. With targets it connects to their ports alone. An audit and a probe may look into
// other processes, and a probe has no time for more than the filter.
func confineOnce(environ []string, targets []peer) {
	if mode, _, err := lookup(env.ToMap(environ), "IMAGELAB_SANDBOX"); err == nil && mode == "off" {
		return
	}
	if targets == nil {
		_ = sandbox.ConfineCalls()
		return
	}
	_ = sandbox.Confine(policyOf(Config{Peers: peerList{targets}}))
}

// note keeps what became of a policy.
func (c *confinement) note(of string, report sandbox.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of, c.report = of, report
}

// log says what was applied and what was refused, in one line.
func (c *confinement) log(log *slog.Logger, msg string) {
	facts := c.facts()
	refused := []string{}
	for _, r := range facts.Refused {
		refused = append(refused, r.Part+": "+r.Reason)
	}
	log.Info(msg, "applied", facts.Applied, "refused", refused, "landlock_abi", facts.LandlockABI, "write", facts.Write)
}

// facts are for the audit's report.
func (c *confinement) facts() *audit.SandboxFacts {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := &audit.SandboxFacts{
		Mode: c.mode, Of: c.of, LandlockABI: c.report.ABI, Applied: []string{}, Refused: []audit.SandboxRefusal{}, Write: []string{},
	}
	for _, part := range c.report.Applied {
		f.Applied = append(f.Applied, string(part))
	}
	for _, r := range c.report.Refused {
		f.Refused = append(f.Refused, audit.SandboxRefusal{Part: string(r.Part), Reason: r.Reason})
	}
	if c.report.Has(sandbox.Files) {
		f.Write = append(f.Write, c.write...)
	}
	return f
}

// readable is what the server still reads when all else is closed: what the kernel shows, the
// store, the resolver's files, and its own program, whose build profiles name.
func (c *confinement) readable() []string {
	paths := append([]string{"/proc", "/sys", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"}, c.write...)
	if program, err := os.Executable(); err == nil {
		paths = append(paths, program)
	}
	return paths
}

// confinesServer says whether this process is confined to some of its files.
func (c *confinement) confinesServer() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of == "server" && c.report.Has(sandbox.Files)
}

// has says whether a part is applied.
func (c *confinement) has(part sandbox.Part) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report.Has(part)
}

// closeReads ends the reading of all other files, when the audit has seen them. It says false if
// there was no room for that, which may end.
func (c *confinement) closeReads(log *slog.Logger) (done bool, err error) {
	err = sandbox.ConfineReads(c.readable())
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
		log.Warn("files outside can be read for some time yet", "err", err)
		return false, nil
	}
	c.mu.Lock()
	if err != nil {
		c.report.Refused = append(c.report.Refused, sandbox.Refusal{Part: sandbox.Reads, Reason: err.Error()})
	} else {
		c.report.Applied = append(c.report.Applied, sandbox.Reads)
	}
	c.mu.Unlock()
	switch {
	case err == nil:
		log.Info("files outside are not read any more", "read", c.readable())
	case c.mode == "require":
		return true, fmt.Errorf("IMAGELAB_SANDBOX=require, and reads are not refused: %w", err)
	default:
		log.Warn("files outside can still be read", "err", err)
	}
	return true, nil
}

var sandboxDesc = prometheus.NewDesc("imagelab_sandbox_applied",
	"Whether a part of the sandbox is applied, to this server or to the command; reads are closed when the first audit is over.",
	[]string{"of", "part"}, nil)

// Describe is for prometheus.Collector.
func (c *confinement) Describe(descs chan<- *prometheus.Desc) { descs <- sandboxDesc }

// Collect is for prometheus.Collector; where nothing was to be confined there is nothing.
func (c *confinement) Collect(metrics chan<- prometheus.Metric) {
	facts := c.facts()
	if facts.Of == "" {
		return
	}
	parts := sandbox.Parts()
	if facts.Of == "server" {
		parts = append(parts, sandbox.Reads)
	}
	for _, part := range parts {
		value := 0.0
		if slices.Contains(facts.Applied, string(part)) {
			value = 1
		}
		metrics <- prometheus.MustNewConstMetric(sandboxDesc, prometheus.GaugeValue, value, facts.Of, string(part))
	}
}

// commandSandbox is the value of IMAGELAB_SANDBOX_COMMAND. The zero value is none.
type commandSandbox struct {
	on       bool
	defaults bool // the data directory and the tmpfs mounts may be written
	write    []string
	ports    []uint16 // none is all
}

// UnmarshalText reads words with commas between: "on", absolute paths, TCP ports.
func (s *commandSandbox) UnmarshalText(text []byte) error {
	*s = commandSandbox{}
	for word := range strings.SplitSeq(string(text), ",") {
		word = strings.TrimSpace(word)
		port, err := strconv.ParseUint(word, 10, 16)
		switch {
		case word == "on":
			s.defaults = true
		case strings.HasPrefix(word, "/"):
			s.write = append(s.write, filepath.Clean(word))
		case err == nil && port > 0:
			s.ports = append(s.ports, uint16(port))
		default:
			return errors.New("neither on nor a path nor a port")
		}
		s.on = true
	}
	s.defaults = s.defaults || len(s.write) == 0
	return nil
}

// devices are the files of /dev that programs write to, and that are no door to anything.
var devices = []string{
	"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx", "/dev/pts",
}

// paths are what the command may write, devices aside. One that is below another is left out: the
// command could put a link in its place, and have the next one write to where that leads.
func (s commandSandbox) paths(dataDir string) []string {
	given := slices.Clone(s.write)
	if s.defaults {
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		given = append(append(given, filepath.Clean(dataDir)), tmpfsMounts(string(mounts))...)
	}
	var paths []string
	for _, path := range given {
		if !slices.ContainsFunc(given, func(dir string) bool { return dir != path && isBelow(path, dir) }) {
			paths = append(paths, realPath(path))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// realPath is where a path leads to by its links. One that leads nowhere stays as it is.
func realPath(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// tmpfsMounts are the mount points of writable tmpfs in mountinfo (proc_pid_mountinfo(5)). /dev
// is none: devices are another matter than files. Engines mask files of /proc and /sys by one, and
// some bind /etc/hosts and the like out of one of the machine's, where the root is not all of it.
func tmpfsMounts(mountinfo string) []string {
	var points []string
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 6 || len(kind) == 0 || kind[0] != "tmpfs" || fields[3] != "/" ||
			strings.HasPrefix(fields[5]+",", "ro,") {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if point == "/dev" || strings.HasPrefix(point, "/proc/") || strings.HasPrefix(point, "/sys/") {
			continue
		}
		points = append(points, point)
	}
	return points
}

// stageVariable holds, in the environment of a stage, what it is to confine itself to.
const stageVariable = "IMAGELAB_SANDBOX_STAGE"

// stagePlan is its value.
type stagePlan struct {
	Policy  sandbox.Policy
	Require bool
}

// stageOf returns the plan if this process is a stage.
func stageOf(environ []string) (plan stagePlan, is bool) {
	for _, pair := range environ {
		if value, ok := strings.CutPrefix(pair, stageVariable+"="); ok {
			return plan, json.Unmarshal([]byte(value), &plan) == nil
		}
	}
	return plan, false
}

// runStage confines this process and becomes the command: args are its file, and its arguments
// with its name. It returns only if it cannot.
func runStage(plan stagePlan, args, environ []string) int {
	if len(args) < 2 {
		return exitUsage
	}
	report := sandbox.Confine(plan.Policy)
	if err := report.Err(); err != nil && plan.Require {
		return supervise.Refuse(fmt.Errorf("IMAGELAB_SANDBOX=require, and this is refused: %w", err))
	}
	note, err := json.Marshal(report)
	if err != nil {
		return supervise.Refuse(err)
	}
	env := slices.DeleteFunc(environ, func(pair string) bool { return strings.HasPrefix(pair, stageVariable+"=") })
	return supervise.Become(args[0], args[1:], env, note)
}

// ownProgram is this program for a new process of it. A path may be of another file by then.
const ownProgram = "/proc/self/exe"

// stage has a command confined before it starts, if it is to be. Where links lead to is found out
// before the first one starts: those that come later may be its own.
func (c *confinement) stage(s commandSandbox, dataDir string, cmd *supervise.Command) {
	if !s.on || c.mode == "off" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plan == nil {
		c.write = s.paths(dataDir)
		writable := slices.Clone(c.write)
		for _, name := range devices {
			writable = append(writable, realPath(name))
		}
		c.plan, _ = json.Marshal(stagePlan{ // of strings, numbers and booleans
			Policy: sandbox.Policy{
				Write: writable, Execute: true, Bind: true, Connect: s.ports, ConnectAny: len(s.ports) == 0,
				UDP: true, Unix: true,
			},
			Require: c.mode == "require",
		})
	}
	cmd.Stage, cmd.StageEnv = []string{ownProgram}, []string{stageVariable + "=" + string(c.plan)}
}

// staged notes what a stage has said of itself.
func (c *confinement) staged(note string, log *slog.Logger) {
	var report sandbox.Report
	if note == "" || json.Unmarshal([]byte(note), &report) != nil {
		return
	}
	c.note("command", report)
	c.log(log, "the command is confined")
	c.mu.Lock()
	missing := slices.DeleteFunc(report.Missing, func(path string) bool { return !slices.Contains(c.write, path) })
	c.mu.Unlock()
	if len(missing) > 0 {
		log.Warn("the command cannot write to paths that did not exist when it started, or have become links since the first",
			"paths", missing)
	}
}

// blame says of a command that has failed and is confined what may have been refused to it. The
// kernel tells nobody within a container, so that it is found by trying: which of the places
// that it is likely to write to could be written but for the sandbox.
func (c *confinement) blame(s commandSandbox, args, env []string, log *slog.Logger) {
	facts := c.facts()
	if facts.Of != "command" || !slices.Contains(facts.Applied, string(sandbox.Files)) {
		return
	}
	var refused []string
	for _, place := range placesOf(args, env) {
		inside := slices.ContainsFunc(facts.Write, func(allowed string) bool { return isBelow(place, allowed) })
		if !inside && !slices.Contains(refused, place) && unix.Access(place, unix.W_OK) == nil {
			refused = append(refused, place)
		}
	}
	connect := "any"
	if len(s.ports) > 0 {
		connect = strings.Trim(fmt.Sprint(s.ports), "[]")
	}
	log.Warn("the command has failed while it was confined, and may need more than IMAGELAB_SANDBOX_COMMAND allows: "+
		"with IMAGELAB_SANDBOX=off it is seen whether that is why",
		"write", facts.Write, "connect", connect, "writable_but_for_that", refused, "names_what_is_refused", traceRefusals)
}

// traceRefusals is a line for a shell that prints what is refused to the command: strace, around
// this program and not below it, is not confined.
const traceRefusals = "strace -f -Z imagelab -- COMMAND 2>&1 | grep -E ' (EACCES|EPERM|EXDEV) '"

// usualPlaces are where programs write.
var usualPlaces = []string{"/run", "/var/run", "/var/cache", "/var/lib", "/var/log", "/var/tmp", "/tmp"}

// placesOf are directories that a command with these arguments is likely to write to: its own, its
// user's, those that its arguments name, and the usual ones.
func placesOf(args, env []string) []string {
	dir, _ := os.Getwd() // which the command has, too
	places := []string{dir}
	for _, pair := range env {
		if name, value, _ := strings.Cut(pair, "="); name == "HOME" || name == "TMPDIR" {
			places = append(places, value)
		}
	}
	for _, arg := range args[1:] {
		if at := strings.Index(arg, "/"); at == 0 || at > 0 && arg[at-1] == '=' { // --dir=/data
			places = append(places, arg[at:])
		}
	}
	places = append(places, usualPlaces...)
	var dirs []string
	for _, place := range places {
		if info, err := os.Stat(place); err == nil && info.IsDir() {
			dirs = append(dirs, realPath(filepath.Clean(place)))
		}
	}
	return dirs
}

// isBelow says whether a path is a directory or below it, both without dots.
func isBelow(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

// sandboxErrors are what is wrong with the variables of the sandbox beside each other.
func sandboxErrors(cfg Config, vars []variable, hasCommand bool) []error {
	if !hasCommand || cfg.Sandbox != "require" || cfg.SandboxCommand.on {
		return nil
	}
	return []error{fmt.Errorf("%s with a command, which would not be confined: want IMAGELAB_SANDBOX_COMMAND=on, or what it may write and connect to",
		named(vars, "IMAGELAB_SANDBOX").shown())}
}
