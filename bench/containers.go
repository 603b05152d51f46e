package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// served is how a server runs in a container of its own, on its usual port, and
// how people ask it for its health there.
type served struct{ start, check string }

var containers = map[string]served{
	"bare":       {`["/bare", ":8080"]`, wget("http://127.0.0.1:8080/health")},
	"podinfo":    {`["/podinfo", "--port=9898", "--level=error"]`, wget("http://127.0.0.1:9898/healthz")},
	"go-httpbin": {`["/go-httpbin"]`, wget("http://127.0.0.1:8080/status/200")},
	// There is no wget in an image of Python.
	"Flask": {`["/usr/bin/python3", "/app.py"]`,
		`["/usr/bin/python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health')"]`},
}

func wget(url string) string {
	return fmt.Sprintf(`["/busybox", "wget", "-q", "-O", "/dev/null", %q]`, url)
}

// makeImages puts the programs into images from scratch.
func (b *bench) makeImages() error {
	busybox := map[string]string{}
	if err := withLibraries(busybox, "/busybox", "busybox"); err != nil {
		return err
	}
	for _, s := range b.servers {
		if err := b.serverImages(s, busybox); err != nil {
			return err
		}
	}
	if err := b.initImage(busybox); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	programs := map[string]string{"/imagelab": b.program("imagelab"), "/empty": b.program("empty"), "/bench": self}
	if err := importImage(imported+"audit", programs); err != nil || b.debian == "" {
		return err
	}
	return b.debianImage()
}

// debianImage puts the programs of the audit into an image with about 10,000 files:
// Debian's smallest system, twice.
func (b *bench) debianImage() error {
	dockerfile := fmt.Sprintf("FROM %[1]s\nCOPY --from=%[1]s / /again\nCOPY --from=%[2]saudit / /\nUSER 0:0\nENTRYPOINT []\n", b.debian, imported)
	build := exec.Command("docker", "build", "-q", "-t", imported+"audit-debian", "-")
	build.Stdin = strings.NewReader(dockerfile)
	if _, err := build.Output(); err != nil {
		return fmt.Errorf("an image of %s: %w: %s", b.debian, err, stderr(err))
	}
	return nil
}

// serverImages makes a server's image, and another with what checks its health.
// imagelab has both in one.
func (b *bench) serverImages(s *subject, busybox map[string]string) error {
	own := *s // in the host's network, with the port that it is told
	files := map[string]string{}
	switch s.name {
	case "imagelab":
		own.image, own.command = "imagelab:scratch", nil
		own.env = []string{"PORT={port}", "IMAGELAB_OPS_ADDR=127.0.0.1:{ops}"}
	case "Flask":
		var err error
		if files, err = flaskFiles(s.command[1]); err != nil {
			return err
		}
		own.image, own.command = imported+s.name, []string{s.command[0], "/app.py"}
	default:
		name := "/" + filepath.Base(s.command[0])
		files[name] = s.command[0]
		own.image, own.command = imported+s.name, append([]string{name}, s.command[1:]...)
	}
	if s.name != "go-httpbin" {
		b.contained = append(b.contained, &own)
	}
	if s.name == "imagelab" {
		b.checked = append(b.checked,
			&subject{name: s.name, image: own.image}, &subject{name: "imagelab (alpine)", image: "imagelab:alpine"})
		return nil
	}
	if err := importImage(own.image, files); err != nil {
		return err
	}
	b.images = append(b.images, image{s.name, own.image})
	if s.name != "Flask" {
		maps.Copy(files, busybox)
	}
	checked := &subject{name: s.name, image: own.image + "-checked"}
	b.checked = append(b.checked, checked)
	how := containers[s.name]
	return importImage(checked.image, files, "ENV PORT=8080", "ENTRYPOINT "+how.start, "HEALTHCHECK CMD "+how.check)
}

// initImage makes the image in which imagelab is PID 1, or behind another.
func (b *bench) initImage(busybox map[string]string) error {
	imagelab := b.servers[1]
	files := maps.Clone(busybox)
	files["/imagelab"] = imagelab.command[0]
	b.inits = []*subject{imagelab}
	b.pid1s = []*subject{{name: imagelab.name, command: []string{"/imagelab"}}}
	for _, init := range []string{"tini", "dumb-init"} {
		if err := withLibraries(files, "/"+init, init); err != nil {
			return err
		}
		behind := *imagelab
		behind.name = init + " + imagelab"
		behind.command = []string{init, "--", imagelab.command[0]}
		if init == "tini" { // which warns where it is not PID 1
			behind.command = slices.Insert(behind.command, 1, "-s")
		}
		b.inits = append(b.inits, &behind)
		b.pid1s = append(b.pid1s, &subject{name: behind.name, command: []string{"/" + init, "--", "/imagelab"}})
	}
	for _, s := range b.pid1s {
		s.image, s.path = imported+"pid1", imagelab.path
		s.env = []string{"PORT={port}", "IMAGELAB_OPS_ADDR=127.0.0.1:{ops}"}
	}
	return importImage(imported+"pid1", files)
}

// join adds a server of the user's.
func (b *bench) join(s *subject) error {
	for _, other := range b.servers {
		if other.name == s.name {
			return fmt.Errorf("WITH: %s is measured already; take another name", s.name)
		}
	}
	if s.image == "" {
		if _, err := exec.LookPath(s.command[0]); err != nil {
			return fmt.Errorf("WITH: %w", err)
		}
	} else {
		out, err := exec.Command("docker", "image", "inspect", "-f", "{{if .Config.Healthcheck}}{{len .Config.Healthcheck.Test}}{{end}}", s.image).Output()
		if err != nil {
			return fmt.Errorf("WITH: no image %s here: docker pull it, or build it, first", s.image)
		}
		if strings.TrimSpace(string(out)) != "" {
			b.checked = append(b.checked, &subject{name: s.name, image: s.image})
		}
		b.images = append(b.images, image{s.name, s.image})
		b.contained = append(b.contained, s)
	}
	b.servers = append(b.servers, s)
	b.sweepers = append(b.sweepers, s)
	// All that follows would fail for the same reason, minutes later.
	in, err := b.start(s)
	if err != nil {
		return fmt.Errorf("WITH: %w", err)
	}
	in.kill()
	return nil
}

// healthyRound starts containers, each on a network of its own, and waits until
// the engine calls them healthy.
func (b *bench) healthyRound() error {
	events := exec.Command("docker", "events", "--filter", "event=health_status", "--format", "{{.ID}} {{.Status}}")
	out, err := events.StdoutPipe()
	if err != nil {
		return err
	}
	if err := events.Start(); err != nil {
		return err
	}
	defer func() {
		_ = events.Process.Kill()
		_ = events.Wait()
	}()
	type event struct {
		line string
		at   time.Time
	}
	seen := make(chan event)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case seen <- event{lines.Text(), time.Now()}:
			case <-done:
			}
		}
	}()
	one := func(s *subject) (float64, error) {
		began := time.Now()
		out, err := exec.Command("docker", "run", "-d", "--health-interval", "100ms", s.image).Output()
		id := strings.TrimSpace(string(out))
		if id != "" {
			defer func() { _ = exec.Command("docker", "rm", "-f", "-v", id).Run() }()
		}
		if err != nil {
			return 0, fmt.Errorf("docker run %s: %w: %s", s.image, err, stderr(err))
		}
		for deadline := time.After(patience); ; {
			select {
			case e := <-seen:
				if e.line == id+" health_status: healthy" {
					return e.at.Sub(began).Seconds(), nil
				}
			case <-deadline:
				return 0, fmt.Errorf("%s is not healthy after %v; see docker run %[1]s", s.image, patience)
			}
		}
	}
	found := map[string][]float64{}
	for range creations {
		for _, s := range b.checked {
			took, err := one(s)
			if err != nil {
				return err
			}
			found[s.name] = append(found[s.name], took)
		}
	}
	for _, s := range b.checked {
		b.add("create-to-healthy", s.name, median(found[s.name]))
	}
	return nil
}

// orphans is how many processes lose their parent in a container, in one go.
const orphans = 2000

// pid1Round measures what PID 1 costs: imagelab in that role, and behind an init.
func (b *bench) pid1Round() error {
	took := map[string][]float64{}
	for range starts {
		for _, s := range b.inits {
			in, err := b.start(s)
			if err != nil {
				return err
			}
			took[s.name] = append(took[s.name], in.ready)
			in.stop() // an init that is killed leaves its server behind
		}
	}
	for _, s := range b.inits {
		b.add("init-exec-to-200", s.name, median(took[s.name]))
	}
	for _, s := range b.pid1s {
		if err := b.running(s, b.pid1); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) pid1(in *instance) error {
	settle()
	pids := append([]int{in.pid}, children(in.pid)...)
	total := 0.0
	for _, pid := range pids {
		n, err := memoryOf(pid, "VmRSS:")
		if err != nil {
			return err
		}
		total += n
	}
	b.add("init-rss", in.name, total)

	before, err := cpuTime(in.pid)
	if err != nil {
		return err
	}
	// A subshell's background job outlives the subshell.
	loop := fmt.Sprintf("i=0; while [ $i -lt %d ]; do (true &); i=$((i+1)); done", orphans)
	if out, err := exec.Command("docker", "exec", in.container, "/busybox", "sh", "-c", loop).CombinedOutput(); err != nil {
		return fmt.Errorf("%d orphans: %w\n%s", orphans, err, out)
	}
	for deadline := time.Now().Add(patience); len(children(in.pid)) >= len(pids); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d zombies are left after %v", len(children(in.pid))-len(pids)+1, patience)
		}
	}
	after, err := cpuTime(in.pid)
	if err != nil {
		return err
	}
	b.add("reap-cpu", in.name, (after-before)/orphans)
	return nil
}

// children lists the processes whose parent is the process (proc_pid_task(5)).
func children(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			n, _ := strconv.Atoi(word)
			all = append(all, n)
		}
	}
	return all
}

// cpuTime is what the threads of a process have run, in seconds: the first field
// of schedstat, nanoseconds, where stat counts in hundredths of a second.
func cpuTime(pid int) (float64, error) {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	sum, found := 0.0, false
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has gone
		}
		var ns float64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			return 0, fmt.Errorf("%s: %w", stat, err)
		}
		sum, found = sum+ns/1e9, true
	}
	if !found {
		return math.NaN(), fmt.Errorf("no schedstat of process %d", pid)
	}
	return sum, nil
}

// slowRound gives each server 2,000 slow clients and little memory.
func (b *bench) slowRound() error {
	for _, s := range b.contained {
		if err := b.running(s, b.slow, "-m", "32m", "--memory-swap", "32m", "--tmpfs", "/tmp:size=16m"); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) slow(in *instance) error {
	if in.name == "imagelab" {
		if err := fillStore("http://127.0.0.1:" + in.port + "/store"); err != nil {
			return err
		}
	}
	b.add("slow-lost", in.name, beside(2000, in, b.seconds))
	return nil
}

// fillStore uploads until there is no room.
func fillStore(url string) error {
	for i := range 1000 {
		resp, err := http.Post(url, "application/octet-stream", bytes.NewReader(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 256<<10)))
		if err != nil {
			return err
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusCreated:
		case http.StatusInsufficientStorage:
			return nil
		default:
			return fmt.Errorf("POST %s: %s", url, resp.Status)
		}
	}
	return fmt.Errorf("POST %s: 500 MB, and the store is not full", url)
}

// auditRound runs the audit in containers with the engine's defaults, as root: with
// nothing else in the image, and with Debian's files.
func (b *bench) auditRound() error {
	if err := b.auditIn("audit", 10); err != nil || b.debian == "" {
		return err
	}
	return b.auditIn("audit-debian", 3)
}

// auditIn adds to the rows that begin with the image's name.
func (b *bench) auditIn(image string, runs int) error {
	audits := []tool{
		{Name: "empty Go program", Command: []string{"/empty"}},
		{Name: "imagelab --audit", Command: []string{"/imagelab", "--audit"}, Verdict: true},
	}
	t, err := timeInside(imported+image, runs, audits)
	if err != nil {
		return err
	}
	for i, a := range audits {
		b.add(image+"-wall", a.Name, t[i].Wall)
		b.add(image+"-cpu", a.Name, t[i].CPU)
		b.add(image+"-rss", a.Name, t[i].Peak)
	}
	return nil
}
