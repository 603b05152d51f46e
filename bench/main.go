// Bench measures imagelab beside a bare net/http server, other services, other
// probes, in interleaved rounds on one machine, and writes docs/results.md, its
// charts and docs/results.json. See "make bench".
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run.
type bench struct {
	root, work string // the project, and a folder for this run
	debian     string // base image of an audit of many files; empty is none
	lua        string
	serverCPU  string
	loadCPU    string
	seconds    time.Duration // of load in each measurement

	servers   []*subject // bare and imagelab first
	sweepers  []*subject
	contained []*subject // the sweepers as images
	checked   []*subject // images that check their own health
	inits     []*subject // imagelab behind another PID 1, as programs
	pid1s     []*subject // the same in containers
	shutdown  *subject   // bare, stopped by http.Server.Shutdown
	images    []image
	results   results
	rows      map[string]*row
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	root := flags.String("root", "..", "the project's `folder`")
	rounds := flags.Int("rounds", 3, "rounds to measure; the sweeps get half of them")
	seconds := flags.Duration("load", 2*time.Second, "length of each run of load")
	with := flags.String("with", "", "one more server: `name=image:tag@port/path`, or name=/program@port/path")
	debian := flags.String("debian", "", "Debian's base `image`, for an audit of many files; without it that is left out")
	inside := flags.String("inside", "", "time these `programs`, in JSON; the program calls itself so in a container")
	again := flags.String("again", "", "measure nothing; say where the rankings of this `file` contradict docs/results.json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *inside != "" {
		return answerInside(*inside, *rounds)
	}
	docs := filepath.Join(*root, "docs")
	if *again != "" {
		return compareRuns(*again, filepath.Join(docs, "results.json"))
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds %d: want at least 1", *rounds)
	}
	var guest *subject
	if *with != "" {
		if guest, err = parseWith(*with); err != nil {
			return err
		}
	}
	b := &bench{seconds: *seconds, debian: *debian, rows: map[string]*row{}}
	if b.root, err = filepath.Abs(*root); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "imagelab-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	began := time.Now()
	b.removeImages() // of a run that was killed
	defer b.removeImages()
	if err := b.prepare(guest); err != nil {
		return err
	}
	for round := range *rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, *rounds)
		steps := []func() error{b.sizeRound, b.probeRound, b.auditRound, b.startRound, b.healthyRound, b.pid1Round,
			b.quietRound, b.slowRound, b.saturateRound, b.allocRound, b.stopRound, b.frontRound, b.sandboxRound}
		if round < (*rounds+1)/2 {
			steps = append(steps, b.sweepRound)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
	}
	b.results.Date, b.results.Took = began.UTC(), time.Since(began).Seconds()
	b.results.Command = "make bench"
	if *with != "" {
		b.results.Command += fmt.Sprintf(" WITH=%q", *with)
	}
	return b.write(docs)
}

// write keeps the results before anything is drawn.
func (b *bench) write(docs string) error {
	for i := range describe {
		if r := b.rows[describe[i].ID]; r != nil {
			b.results.Rows = append(b.results.Rows, r)
		}
	}
	b.results.Rows = append(b.results.Rows, b.sweepRows()...)
	data, err := json.MarshalIndent(b.results, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(docs, "results.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if err := b.results.charts(filepath.Join(docs, "results")); err != nil {
		return err
	}
	misses, err := os.ReadFile(filepath.Join(docs, "misses.md"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.Create(filepath.Join(docs, "results.md"))
	if err != nil {
		return err
	}
	return errors.Join(b.results.markdown(f, string(misses)), f.Close())
}

func compareRuns(files ...string) error {
	var runs [2]results
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &runs[i])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	differ := contradictions(&runs[0], &runs[1])
	for _, line := range differ {
		fmt.Println(line)
	}
	if len(differ) > 0 {
		return fmt.Errorf("%d rows are ranked differently", len(differ))
	}
	fmt.Println("the same ranking in every row")
	return nil
}

// row is the one of the id.
func (b *bench) row(id string) *row {
	for i := range describe {
		if b.rows[id] == nil && describe[i].ID == id {
			b.rows[id] = &describe[i]
		}
	}
	return b.rows[id]
}

// add notes one round's value; NaN is none.
func (b *bench) add(id, subject string, v float64) {
	r := b.row(id)
	s := r.of(subject)
	if s == nil {
		r.Samples = append(r.Samples, sample{Subject: subject})
		s = r.of(subject)
	}
	value := &v
	if math.IsNaN(v) {
		value = nil
	}
	s.Values = append(s.Values, value)
}

// addSweep is add for one condition of a sweep.
func (b *bench) addSweep(sweep, title string, x float64, subject string, v float64) {
	id := fmt.Sprintf("%s-%v", sweep, x)
	if b.rows[id] == nil {
		b.rows[id] = &row{ID: id, Section: "As work grows and limits shrink", Title: title, Unit: "requests/s", More: true, Floor: "bare", Sweep: sweep, X: x}
		sweepOrder = append(sweepOrder, id)
	}
	b.add(id, subject, v)
}

// sweepOrder are the ids of the sweeps' rows as they came.
var sweepOrder []string

func (b *bench) sweepRows() []*row {
	var rows []*row
	for _, id := range sweepOrder {
		rows = append(rows, b.rows[id])
	}
	return rows
}

func (b *bench) program(name string) string { return filepath.Join(b.work, name) }

// prepare builds the subjects, finds the processors and describes the machine.
func (b *bench) prepare(with *subject) error {
	n := runtime.NumCPU()
	b.serverCPU, b.loadCPU = "0", strconv.Itoa(n-1)
	if n < 2 {
		return errors.New("one processor: the load needs one of its own, so at least 2")
	}
	for tool, where := range map[string]string{"wrk": "wrk", "curl": "curl", "busybox": "busybox-static", "taskset": "util-linux", "docker": "docker.io", "tini": "tini", "dumb-init": "dumb-init", "haproxy": "haproxy", "nginx": "nginx-light", "podinfo": "", "go-httpbin": "", "caddy": ""} {
		if _, err := exec.LookPath(tool); err != nil {
			if where == "" {
				return fmt.Errorf("%s is missing: go install it, see scripts/bench.sh", tool)
			}
			return fmt.Errorf("%s is missing: apt-get install %s", tool, where)
		}
	}
	// 10,000 connections on each side.
	const files = 10_500
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Max < files {
		return fmt.Errorf("at most %d open files (ulimit -Hn): want %d, for 10,000 connections", limit.Max, files)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the number of open files to %d: %w", limit.Cur, err)
	}
	b.lua = filepath.Join(b.work, "report.lua")
	if err := os.WriteFile(b.lua, []byte(reportLua), 0o644); err != nil {
		return err
	}
	for _, build := range [][]string{
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.program("bare"), "./bare"},
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", "shutdown", "-o", b.program("shutdown"), "./bare"},
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.program("empty"), "./empty"},
		{filepath.Join(b.root, "scripts/build.sh"), b.program("imagelab")},
	} {
		cmd := exec.Command(build[0], build[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Dir = filepath.Join(b.root, "bench")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(build, " "), err, out)
		}
	}
	for _, tool := range []string{"podinfo", "go-httpbin"} {
		path, _ := exec.LookPath(tool)
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(b.program(tool), data, 0o755)
		}
		if err != nil {
			return err
		}
	}

	bare := &subject{name: "bare", command: []string{b.program("bare"), "{host}:{port}"}, path: "/health"}
	b.shutdown = &subject{name: "bare", command: []string{b.program("shutdown"), "{host}:{port}"}, path: "/health", metrics: "http://127.0.0.1:{port}/metrics"}
	imagelab := &subject{name: "imagelab", command: []string{b.program("imagelab")}, path: "/health", metrics: "http://127.0.0.1:{ops}/metrics",
		env: []string{"PORT={port}", "IMAGELAB_OPS_ADDR=127.0.0.1:{ops}", "IMAGELAB_DATA_DIR=" + b.work}}
	podinfo := &subject{name: "podinfo", command: []string{b.program("podinfo"), "--port={port}", "--level=error"}, path: "/healthz", metrics: "http://127.0.0.1:{port}/metrics"}
	httpbin := &subject{name: "go-httpbin", command: []string{b.program("go-httpbin"), "-host", "{host}", "-port", "{port}"}, path: "/status/200"}
	flask := &subject{name: "Flask", command: []string{"/usr/bin/python3", filepath.Join(b.root, "examples/gunicorn/app.py")}, path: "/health", env: []string{"HOST={host}", "PORT={port}"}}
	b.servers = []*subject{bare, imagelab, podinfo, httpbin, flask}
	b.sweepers = []*subject{bare, imagelab, podinfo}
	b.images = []image{{"imagelab", "imagelab:scratch"}, {"imagelab (alpine)", "imagelab:alpine"}}
	if base, err := exec.Command("docker", "inspect", "-f", `{{index .Config.Labels "org.opencontainers.image.base.name"}}`, "imagelab:alpine").Output(); err == nil && len(strings.TrimSpace(string(base))) > 0 {
		b.images = append(b.images, image{"alpine base", strings.TrimSpace(string(base))})
	}
	if err := b.makeImages(); err != nil {
		return err
	}
	if with != nil {
		if err := b.join(with); err != nil {
			return err
		}
	}
	b.describeMachine()
	return nil
}

func (b *bench) describeMachine() {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	text := func(command string, args ...string) string {
		out, _ := exec.Command(command, args...).CombinedOutput()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return line
	}
	b.results.Machine = []fact{
		{"processors", fmt.Sprintf("%d × %s", runtime.NumCPU(), processor())},
		{"kernel", unix.ByteSliceToString(uts.Release[:])},
		{"engine", text("docker", "version", "-f", "{{.Server.Version}}")},
	}
	b.results.Versions = []fact{
		{"imagelab", text(b.program("imagelab"), "--version")},
		{"Go", runtime.Version()},
		{"podinfo", text("go", "version", "-m", b.program("podinfo"))},
		{"curl", text("curl", "--version")},
		{"busybox", text("busybox")},
		{"tini", text("tini", "--version")},
		{"dumb-init", text("dumb-init", "--version")},
		{"haproxy", text("haproxy", "-v")},
		{"nginx", text("nginx", "-v")},
		{"Caddy", text("caddy", "version")},
		{"Flask", text("/usr/bin/python3", "-c", "from importlib.metadata import version as v; print(v('flask'))")},
	}
	for i, tool := range []string{"podinfo", "go-httpbin"} {
		out, _ := exec.Command("go", "version", "-m", b.program(tool)).Output()
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) >= 3 && f[0] == "mod" {
				v := fact{tool, f[2]}
				if i == 0 {
					b.results.Versions[2] = v
				} else {
					b.results.Versions = append(b.results.Versions, v)
				}
			}
		}
	}
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
