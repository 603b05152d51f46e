package main

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describe are the rows, in the document's order; a row of a sweep is added by it.
var describe = []row{
	{ID: "binary-bytes", Section: "Size", Title: "binary", Unit: "bytes", Floor: "bare"},
	{ID: "image-bytes", Section: "Size", Title: "image", Unit: "bytes", Floor: "bare", Note: "The programs of others are put into `FROM scratch` as they are built here; their published images are larger."},
	{ID: "image-compressed", Section: "Size", Title: "image, compressed by gzip", Unit: "bytes", Floor: "bare"},
	{ID: "image-layers", Section: "Size", Title: "layers of the image", Floor: "bare"},
	{ID: "exec-to-200", Section: "Start and stop", Title: "exec to the first 200", Unit: "seconds", Floor: "bare", Note: "The client tries every 0.2 ms."},
	{ID: "idle-stop", Section: "Start and stop", Title: "SIGTERM to exit, idle", Unit: "seconds", Note: "imagelab's includes its drain delay of 250 ms; bare has no handler of signals and is not listed."},
	{ID: "lost", Section: "Start and stop", Title: "requests lost under SIGTERM", Note: "A second of load, 16 clients on kept connections and 16 with a new one for each request, then SIGTERM. Lost is what was sent and not answered, not what was refused when the server had gone. The requests are POST, as Go's client sends a GET again."},
	{ID: "rss-idle", Section: "Memory", Title: "resident memory, idle", Unit: "bytes", Floor: "bare"},
	{ID: "rss-idle-1000", Section: "Memory", Title: "resident memory with 1,000 idle connections", Unit: "bytes", Floor: "bare"},
	{ID: "rss-after-load", Section: "Memory", Title: "resident memory after load", Unit: "bytes", Floor: "bare"},
	{ID: "rps-saturation", Section: "Load", Title: "requests a second at saturation", Unit: "requests/s", More: true, Floor: "bare", Note: "32 connections; the server has one processor, the load another."},
	{ID: "p50-saturation", Section: "Load", Title: "median latency at saturation", Unit: "seconds", Floor: "bare"},
	{ID: "p99-saturation", Section: "Load", Title: "99th percentile at saturation", Unit: "seconds", Floor: "bare"},
	{ID: "p999-saturation", Section: "Load", Title: "99.9th percentile at saturation", Unit: "seconds", Floor: "bare"},
	{ID: "p50-1000", Section: "Load", Title: "median latency at 1,000 requests a second", Unit: "seconds", Floor: "bare"},
	{ID: "p99-1000", Section: "Load", Title: "99th percentile at 1,000 requests a second", Unit: "seconds", Floor: "bare"},
	{ID: "p999-1000", Section: "Load", Title: "99.9th percentile at 1,000 requests a second", Unit: "seconds", Floor: "bare"},
	{ID: "allocs", Section: "Load", Title: "allocations a request", Floor: "bare", Note: "From go_memstats_mallocs_total, over a run at saturation."},
	{ID: "alloc-bytes", Section: "Load", Title: "bytes allocated a request", Unit: "bytes", Floor: "bare"},
	{ID: "scrape", Section: "Load", Title: "a scrape of /metrics", Unit: "seconds", Note: "Median of 100 on one connection."},
	{ID: "probe-wall", Section: "Health probe", Title: "a health probe, wall time", Unit: "seconds", Floor: "empty Go program", Note: "Median of 40 runs in each round."},
	{ID: "probe-cpu", Section: "Health probe", Title: "a health probe, processor time", Unit: "seconds", Floor: "empty Go program"},
	{ID: "probe-rss", Section: "Health probe", Title: "a health probe, peak memory of the process", Unit: "bytes", Floor: "empty Go program", Note: "Of the shell's row it is the shell's alone."},
}

// passes is how often a round goes over all servers where what is measured is
// short: a machine's pace changes within seconds, and a ratio is of neighbours.
const passes = 5

// startRound starts each server a few times, in turn.
func (b *bench) startRound() error {
	starts := map[string][]float64{}
	for range passes {
		for _, s := range b.servers {
			in, err := b.start(s)
			if err != nil {
				return err
			}
			starts[s.name] = append(starts[s.name], in.ready)
			in.stop()
		}
	}
	for _, s := range b.servers {
		if s.image == "" { // a container's start is the engine's for the most part
			b.add("exec-to-200", s.name, median(starts[s.name]))
		}
	}
	return nil
}

// quietRound measures each server without load and with little.
func (b *bench) quietRound() error {
	for _, s := range b.servers {
		in, err := b.start(s)
		if err != nil {
			return err
		}
		if err := b.quiet(in); err != nil {
			in.stop()
			return fmt.Errorf("%s: %w", s.name, err)
		}
		in.stop()
	}
	return nil
}

func (b *bench) quiet(in *instance) error {
	settle()
	if err := b.addResident(in, "rss-idle"); err != nil {
		return err
	}
	if err := b.idleConns(in, 1000); err != nil {
		return err
	}
	m := steady(in.url, 1000, b.seconds)
	b.add("p50-1000", in.name, m.Latencies.P50.Seconds())
	b.add("p99-1000", in.name, m.Latencies.P99.Seconds())
	b.add("p999-1000", in.name, m.Latencies.Quantile(0.999).Seconds())
	return nil
}

// saturateRound gives each server in turn all that it bears. They run side by
// side, and those whose turn it is not do nothing.
func (b *bench) saturateRound() error {
	var running []*instance
	defer func() {
		for _, in := range running {
			in.stop()
		}
	}()
	for _, s := range b.servers {
		in, err := b.start(s)
		if err != nil {
			return err
		}
		running = append(running, in)
	}
	found := map[string]map[string][]float64{"rps": {}, "p50": {}, "p99": {}, "p999": {}}
	for range passes {
		for _, in := range running {
			f, err := b.saturate(in.url, 32, b.seconds/2)
			if err != nil {
				return err
			}
			for what, v := range map[string]float64{"rps": f.rate(), "p50": f.P50 / 1e6, "p99": f.P99 / 1e6, "p999": f.P999 / 1e6} {
				found[what][in.name] = append(found[what][in.name], v)
			}
		}
	}
	for _, in := range running {
		for what, values := range found {
			b.add(what+"-saturation", in.name, median(values[in.name]))
		}
		if err := b.addResident(in, "rss-after-load"); err != nil {
			return err
		}
	}
	return nil
}

// settle lets a server finish what it does after its first answer.
func settle() { time.Sleep(300 * time.Millisecond) }

func (b *bench) addResident(in *instance, id string) error {
	bytes, err := in.resident()
	if err == nil {
		b.add(id, in.name, bytes)
	}
	return err
}

// idleConns holds n kept-alive connections that had a request each.
func (b *bench) idleConns(in *instance, n int) error {
	for range n {
		conn, err := net.Dial("tcp", "127.0.0.1:"+in.port)
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", in.path)
		if _, err := conn.Read(make([]byte, 4096)); err != nil {
			return err
		}
	}
	settle()
	return b.addResident(in, "rss-idle-1000")
}

// allocRound reads what the servers say of their allocations, and what a scrape
// takes.
func (b *bench) allocRound() error {
	for _, s := range b.servers {
		if s.name == "bare" {
			s = b.shutdown
		}
		if s.metrics == "" {
			continue
		}
		in, err := b.start(s)
		if err != nil {
			return err
		}
		if err := b.allocs(in); err != nil {
			in.stop()
			return err
		}
		in.stop()
	}
	return nil
}

func (b *bench) allocs(in *instance) error {
	name := strings.TrimSuffix(in.name, " with Shutdown")
	names := map[string]string{"allocs": "go_memstats_mallocs_total", "alloc-bytes": "go_memstats_alloc_bytes_total"}
	if _, err := b.saturate(in.url, 32, time.Second); err != nil { // pools fill
		return err
	}
	before := map[string]float64{}
	for id, metric := range names {
		n, err := in.counter(metric)
		if err != nil {
			return err
		}
		before[id] = n
	}
	f, err := b.saturate(in.url, 32, b.seconds)
	if err != nil {
		return err
	}
	for id, metric := range names {
		n, err := in.counter(metric)
		if err != nil {
			return err
		}
		b.add(id, name, (n-before[id])/f.Requests)
	}
	if name == "bare" { // its /metrics is the test's own
		return nil
	}
	var took []float64
	for range 100 {
		began := time.Now()
		resp, err := http.Get(in.metricsURL())
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		took = append(took, time.Since(began).Seconds())
	}
	b.add("scrape", name, median(took))
	return nil
}

// stopRound stops each server idle, and under load.
func (b *bench) stopRound() error {
	for _, s := range b.servers {
		if s.name == "bare" {
			s = b.shutdown
		}
		if s.image != "" {
			continue // docker stop would be measured
		}
		in, err := b.start(s)
		if err != nil {
			return err
		}
		settle()
		b.add("idle-stop", s.name, in.stop())

		if in, err = b.start(s); err != nil {
			return err
		}
		lost, err := b.stopUnderLoad(in)
		if err != nil {
			return err
		}
		b.add("lost", s.name, lost)
	}
	return nil
}

// probeRound runs each probe against the same server.
func (b *bench) probeRound() error {
	in, err := b.start(b.servers[1])
	if err != nil {
		return err
	}
	defer func() { in.stop() }()
	url := in.url
	probes := []struct {
		name    string
		command []string
	}{
		{"empty Go program", []string{b.program("empty")}},
		{"imagelab --healthcheck", []string{b.program("imagelab"), "--healthcheck", url}},
		{"curl -fs", []string{"curl", "-fs", "-o", "/dev/null", url}},
		{"busybox wget", []string{"busybox", "wget", "-q", "-O", "/dev/null", url}},
		{"wget through sh", []string{"sh", "-c", "busybox wget -q -O /dev/null " + url + " || exit 1"}},
	}
	const runs = 40
	wall, cpu, rss := make([][]float64, len(probes)), make([][]float64, len(probes)), make([]float64, len(probes))
	for range runs {
		for i, p := range probes {
			began := time.Now()
			cmd := exec.Command(p.command[0], p.command[1:]...)
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w", strings.Join(p.command, " "), err)
			}
			wall[i] = append(wall[i], time.Since(began).Seconds())
			cpu[i] = append(cpu[i], (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
		}
	}
	for i, p := range probes {
		if rss[i], err = peak(p.command); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(p.command, " "), err)
		}
		b.add("probe-wall", p.name, median(wall[i]))
		b.add("probe-cpu", p.name, median(cpu[i]))
		b.add("probe-rss", p.name, rss[i])
	}
	return nil
}

// sizeRound reads the sizes of programs and images.
func (b *bench) sizeRound() error {
	for _, s := range b.servers {
		if len(s.command) == 0 || s.prints {
			continue
		}
		info, err := os.Stat(s.command[0])
		if err != nil {
			return err
		}
		b.add("binary-bytes", s.name, float64(info.Size()))
	}
	for _, im := range b.images {
		if err := b.imageSize(im.name, im.tag); err != nil {
			return err
		}
	}
	return nil
}

// sweepRound measures with the number of connections, and with the limits of a
// container, the same programs in images from scratch.
func (b *bench) sweepRound() error {
	for _, conns := range []int{1, 10, 100, 1000, 10000} {
		for _, s := range b.sweepers {
			in, err := b.start(s)
			if err != nil {
				return err
			}
			f, err := b.saturate(in.url, conns, b.seconds)
			in.stop()
			if err != nil {
				return err
			}
			b.addSweep("connections", "requests a second", float64(conns), s.name, f.rate())
		}
	}
	for _, limit := range []struct {
		sweep  string
		x      float64
		option []string
	}{
		{"cpu", 0.1, []string{"--cpus", "0.1"}}, {"cpu", 0.25, []string{"--cpus", "0.25"}}, {"cpu", 0.5, []string{"--cpus", "0.5"}},
		{"memory", 16, []string{"-m", "16m"}}, {"memory", 32, []string{"-m", "32m"}}, {"memory", 64, []string{"-m", "64m"}},
	} {
		for _, s := range b.contained {
			in, err := b.start(s, limit.option...)
			if err != nil { // what cannot start has no figure
				fmt.Fprintf(os.Stderr, "%s with %s: %v\n", s.name, strings.Join(limit.option, " "), err)
				b.addSweep(limit.sweep, "requests a second", limit.x, s.name, math.NaN())
				continue
			}
			f, err := b.saturate(in.url, 32, b.seconds)
			in.stop()
			if err != nil {
				return err
			}
			b.addSweep(limit.sweep, "requests a second", limit.x, s.name, f.rate())
		}
	}
	return nil
}

// peak is the most memory that the program had resident, in bytes. What wait4(2)
// says begins with the memory of the parent, as the two share it until exec, so
// the program is stopped as it exits and asked (proc_pid_status(5), VmHWM).
func peak(command []string) (float64, error) {
	return traced(command, func(pid int) (float64, error) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		var kib float64
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				_, err = fmt.Sscan(rest, &kib)
			}
		}
		return kib * 1024, err
	})
}

// traced runs the program and calls look when it is about to exit (ptrace(2)).
func traced(command []string, look func(pid int) (float64, error)) (value float64, err error) {
	done := make(chan struct{})
	go func() { // the thread that traces is not to be used again
		defer close(done)
		runtime.LockOSThread()
		path, lookErr := exec.LookPath(command[0])
		if lookErr != nil {
			err = lookErr
			return
		}
		null, openErr := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if openErr != nil {
			err = openErr
			return
		}
		defer null.Close()
		process, startErr := os.StartProcess(path, command, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{null, null, null}, Sys: &unix.SysProcAttr{Ptrace: true}})
		if startErr != nil {
			err = startErr
			return
		}
		pid := process.Pid
		var status unix.WaitStatus
		if _, err = unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			return
		}
		if err = unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_EXITKILL); err != nil {
			return
		}
		signal := 0
		for {
			if err = unix.PtraceCont(pid, signal); err != nil {
				return
			}
			if _, err = unix.Wait4(pid, &status, unix.WALL, nil); err != nil || status.Exited() || status.Signaled() {
				return
			}
			if signal = 0; status.TrapCause() == unix.PTRACE_EVENT_EXIT {
				if value, err = look(pid); err != nil {
					return
				}
			} else if s := status.StopSignal(); s != unix.SIGTRAP {
				signal = int(s)
			}
		}
	}()
	<-done
	return value, err
}
