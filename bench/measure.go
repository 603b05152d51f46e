package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// lostNote has the number of stops for its verb.
const lostNote = "The sum of %d stops in each round, each after a second of load by 16 clients on kept connections and 16 " +
	"with a new one for each request. Lost is what was sent and not answered, not what was refused when the server had gone. " +
	"The requests are POST, as Go's client sends a GET again. bare is stopped by http.Server.Shutdown."

const lostOverWireNote = "The sum of as many stops, over a wire between two network namespaces that drops nothing. " +
	"The clients send GETs, none of them again, and end with the first that they lose."

const keptUp = "Who has no figure did not answer all of them."

// describe are the rows, in the document's order; a row of a sweep is added by it.
var describe = []row{
	{ID: "binary-bytes", Section: "Size", Title: "binary", Unit: "bytes", Floor: "bare"},
	{ID: "image-bytes", Section: "Size", Title: "image", Unit: "bytes", Floor: "bare", Note: "The programs of others are put into `FROM scratch` as they are built here; their published images are larger."},
	{ID: "image-compressed", Section: "Size", Title: "image, compressed by gzip", Unit: "bytes", Floor: "bare"},
	{ID: "image-layers", Section: "Size", Title: "layers of the image", Floor: "bare"},
	{ID: "exec-to-200", Section: "Start and stop", Title: "exec to the first 200", Unit: "seconds", Floor: "bare", Note: "The client tries every 0.2 ms."},
	{ID: "idle-stop", Section: "Start and stop", Title: "SIGTERM to exit, idle", Unit: "seconds", Note: "imagelab's includes its drain delay of 250 ms; bare is stopped by http.Server.Shutdown."},
	{ID: "lost", Section: "Start and stop", Title: "requests lost under SIGTERM", Note: fmt.Sprintf(lostNote, stops)},
	{ID: "lost-50ms", Section: "Start and stop", Title: "requests lost under SIGTERM at a round trip of 50 ms", Note: lostOverWireNote},
	{ID: "create-to-healthy", Section: "Start and stop", Title: "container create to healthy", Unit: "seconds", Floor: "bare", Note: "From docker run to the engine's event, with a check every 100 ms, the first of them after that time; the engine takes most of it. imagelab checks itself, Python with urllib, the others with busybox wget."},
	{ID: "rss-idle", Section: "Memory", Title: "resident memory, idle", Unit: "bytes", Floor: "bare"},
	{ID: "rss-idle-1000", Section: "Memory", Title: "resident memory with 1,000 idle connections", Unit: "bytes", Floor: "bare"},
	{ID: "rss-after-load", Section: "Memory", Title: "resident memory after load", Unit: "bytes", Floor: "bare"},
	{ID: "slow-lost", Section: "Memory", Title: "requests without an answer beside slow clients in 32 MiB", Note: slowNote},
	{ID: "rps-saturation", Section: "Load", Title: "requests a second at saturation", Unit: "requests/s", More: true, Floor: "bare", Note: "32 connections; the server has one processor, the load another."},
	{ID: "p50-saturation", Section: "Load", Title: "median latency at saturation", Unit: "seconds", Floor: "bare"},
	{ID: "p99-saturation", Section: "Load", Title: "99th percentile at saturation", Unit: "seconds", Floor: "bare"},
	{ID: "p999-saturation", Section: "Load", Title: "99.9th percentile at saturation", Unit: "seconds", Floor: "bare"},
	{ID: "p50-1000", Section: "Load", Title: "median latency at 1,000 requests a second", Unit: "seconds", Floor: "bare"},
	{ID: "p99-1000", Section: "Load", Title: "99th percentile at 1,000 requests a second", Unit: "seconds", Floor: "bare"},
	{ID: "p999-1000", Section: "Load", Title: "99.9th percentile at 1,000 requests a second", Unit: "seconds", Floor: "bare"},
	{ID: "p50-5000", Section: "Load", Title: "median latency at 5,000 requests a second", Unit: "seconds", Floor: "bare", Note: keptUp},
	{ID: "p99-5000", Section: "Load", Title: "99th percentile at 5,000 requests a second", Unit: "seconds", Floor: "bare", Note: keptUp},
	{ID: "p999-5000", Section: "Load", Title: "99.9th percentile at 5,000 requests a second", Unit: "seconds", Floor: "bare", Note: keptUp},
	{ID: "allocs", Section: "Load", Title: "allocations a request", Floor: "bare", Note: "From go_memstats_mallocs_total, over a run at saturation."},
	{ID: "alloc-bytes", Section: "Load", Title: "bytes allocated a request", Unit: "bytes", Floor: "bare"},
	{ID: "scrape", Section: "Load", Title: "a scrape of /metrics", Unit: "seconds", Note: "Median of 100 on one connection."},
	{ID: "front-rps", Section: "Front", Title: "requests a second through a front", Unit: "requests/s", More: true, Floor: noFront, Note: "32 connections. " + frontNote},
	{ID: "front-added-p50", Section: "Front", Title: "added to the median latency at 1,000 requests a second", Unit: "seconds", Floor: "imagelab", Note: frontNote},
	{ID: "front-rss-idle", Section: "Front", Title: "resident memory of a front, idle", Unit: "bytes", Floor: "imagelab", Note: "Of all its processes."},
	{ID: "front-rss-after-load", Section: "Front", Title: "resident memory of a front after load", Unit: "bytes", Floor: "imagelab", Note: "Of all its processes."},
	{ID: "front-lost", Section: "Front", Title: "requests lost when a front is stopped", Note: frontLostNote},
	{ID: "front-gunicorn-rps", Section: "Front", Title: "requests a second through a front of gunicorn", Unit: "requests/s", More: true, Floor: noFront, Note: "32 connections. " + gunicornNote},
	{ID: "front-gunicorn-lost", Section: "Front", Title: "requests lost when a front of gunicorn is stopped", Note: gunicornNote + " Signals and clients are those of the row before."},
	{ID: "sandbox-exec-to-200", Section: "Sandbox", Title: "exec to the first 200, with the sandbox and without", Unit: "seconds", Floor: notConfined},
	{ID: "sandbox-rps", Section: "Sandbox", Title: "requests a second at saturation, with the sandbox and without", Unit: "requests/s", More: true, Floor: notConfined, Note: "32 connections."},
	{ID: "init-exec-to-200", Section: "PID 1", Title: "exec to the first 200, of the server and its init", Unit: "seconds", Floor: "imagelab"},
	{ID: "init-rss", Section: "PID 1", Title: "resident memory of the server and its init", Unit: "bytes", Floor: "imagelab"},
	{ID: "reap-cpu", Section: "PID 1", Title: "processor time of PID 1 for each orphan", Unit: "seconds", Floor: "imagelab", Note: fmt.Sprintf("%s processes lose their parent, one after the other. imagelab logs and counts each of them, the others say nothing.", format(orphans, ""))},
	{ID: "probe-wall", Section: "Health probe", Title: "a health probe, wall time", Unit: "seconds", Floor: "empty Go program", Note: "Median of 40 runs in each round."},
	{ID: "probe-cpu", Section: "Health probe", Title: "a health probe, processor time", Unit: "seconds", Floor: "empty Go program"},
	{ID: "probe-rss", Section: "Health probe", Title: "a health probe, peak memory of the process", Unit: "bytes", Floor: "empty Go program", Note: "Of the shell's row it is the shell's alone."},
	{ID: "audit-wall", Section: "Audit", Title: "an audit of a container, wall time", Unit: "seconds", Floor: "empty Go program", Note: "In a container with the engine's defaults. amicontained would be the rival, but it tries all system calls, among them those that stop it, and does not always end."},
	{ID: "audit-cpu", Section: "Audit", Title: "an audit of a container, processor time", Unit: "seconds", Floor: "empty Go program"},
	{ID: "audit-rss", Section: "Audit", Title: "an audit of a container, peak memory of the process", Unit: "bytes", Floor: "empty Go program"},
	{ID: "audit-debian-wall", Section: "Audit", Title: "an audit of 10,000 files of Debian, wall time", Unit: "seconds", Floor: "empty Go program", Note: "Debian's smallest system, twice in one image. Median of 3 runs in each round."},
	{ID: "audit-debian-cpu", Section: "Audit", Title: "an audit of 10,000 files of Debian, processor time", Unit: "seconds", Floor: "empty Go program"},
	{ID: "audit-debian-rss", Section: "Audit", Title: "an audit of 10,000 files of Debian, peak memory of the process", Unit: "bytes", Floor: "empty Go program"},
}

// How often a round goes over all servers where what is measured is short: a
// machine's pace changes within seconds, and a ratio is of neighbours.
const (
	starts    = 15
	loads     = 9
	creations = 5
	stops     = 5
)

// startRound starts each server a few times, in turn.
func (b *bench) startRound() error {
	took := map[string][]float64{}
	for range starts {
		for _, s := range b.servers {
			in, err := b.start(s)
			if err != nil {
				return err
			}
			took[s.name] = append(took[s.name], in.ready)
			in.kill()
		}
	}
	for _, s := range b.servers {
		if s.image == "" { // a container's start is the engine's for the most part
			b.add("exec-to-200", s.name, median(took[s.name]))
		}
	}
	return nil
}

// quietRound measures each server without load and with little.
func (b *bench) quietRound() error {
	for _, s := range b.servers {
		if err := b.running(s, b.quiet); err != nil {
			return err
		}
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
	for _, rate := range []int{1000, 5000} {
		m := steady(in.url, rate, b.seconds)
		for what, quantile := range map[string]float64{"p50": 0.5, "p99": 0.99, "p999": 0.999} {
			latency := m.Latencies.Quantile(quantile).Seconds()
			if m.Success < 1 {
				latency = math.NaN()
			}
			b.add(fmt.Sprintf("%s-%d", what, rate), in.name, latency)
		}
	}
	return nil
}

// saturateRound gives each server in turn all that it bears. They run side by
// side, and those whose turn it is not do nothing.
func (b *bench) saturateRound() error {
	var running []*instance
	defer func() {
		for _, in := range running {
			in.kill()
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
	for range loads {
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
	bytes, err := memoryOf(in.pid, "VmRSS:")
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
			s = b.shutdown // which has metrics
		}
		if s.metrics == "" {
			continue
		}
		if err := b.running(s, b.allocs); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) allocs(in *instance) error {
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
		b.add(id, in.name, (n-before[id])/f.Requests)
	}
	if in.name == "bare" { // its /metrics is the test's own
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
	b.add("scrape", in.name, median(took))
	return nil
}

// stopRound stops each server idle, and under load.
func (b *bench) stopRound() error {
	servers := slices.Clone(b.servers)
	servers[0] = b.shutdown // bare handles no signal
	// All idle ones come first: a load leaves thousands of closed connections to the kernel for a minute, and
	// imagelab's stop looks through them.
	for _, s := range servers {
		if s.image != "" { // docker stop would be measured
			continue
		}
		in, err := b.start(s)
		if err != nil {
			return err
		}
		settle()
		b.add("idle-stop", s.name, in.stop())
	}
	for _, s := range servers {
		if err := b.addLost("lost", s, b.stopUnderLoad); err != nil {
			return err
		}
		if s.port == 0 { // a guest may be an image, or listen on loopback alone
			if err := b.addLost("lost-50ms", s, b.stopOverWire); err != nil {
				return err
			}
		}
	}
	return nil
}

// addLost notes what the stops of a round have lost together.
func (b *bench) addLost(id string, s *subject, stop func(*subject) (float64, error)) error {
	var sum float64
	for range stops {
		lost, err := stop(s)
		if errors.Is(err, errors.ErrUnsupported) {
			b.row(id).LeftOut = err.Error()
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		sum += lost
	}
	b.add(id, s.name, sum)
	return nil
}

// probeRound runs each probe against the same server.
func (b *bench) probeRound() error {
	in, err := b.start(b.servers[1])
	if err != nil {
		return err
	}
	defer func() { in.kill() }()
	url := in.url
	probes := []tool{
		{Name: "empty Go program", Command: []string{b.program("empty")}},
		{Name: "imagelab --healthcheck", Command: []string{b.program("imagelab"), "--healthcheck", url}},
		{Name: "curl -fs", Command: []string{"curl", "-fs", "-o", "/dev/null", url}},
		{Name: "busybox wget", Command: []string{"busybox", "wget", "-q", "-O", "/dev/null", url}},
		{Name: "wget through sh", Command: []string{"sh", "-c", "busybox wget -q -O /dev/null " + url + " || exit 1"}},
	}
	t, err := timeAll(40, probes)
	if err != nil {
		return err
	}
	for i, p := range probes {
		b.add("probe-wall", p.Name, t[i].Wall)
		b.add("probe-cpu", p.Name, t[i].CPU)
		b.add("probe-rss", p.Name, t[i].Peak)
	}
	return nil
}

// sizeRound reads the sizes of programs and images.
func (b *bench) sizeRound() error {
	for _, s := range b.servers {
		if len(s.command) == 0 || s.name == "Flask" { // an image, a script
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
			in.kill()
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
			in.kill()
			if err != nil {
				return err
			}
			b.addSweep(limit.sweep, "requests a second", limit.x, s.name, f.rate())
		}
	}
	return nil
}
