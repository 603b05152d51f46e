package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The configurations of other fronts: what the program's manual says of a plain reverse
// proxy over kept connections, and no log of requests, of which imagelab has none either.
const (
	haproxyConfig = `global
  nbthread {cpus}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port}
  default_backend app
backend app
  server app 127.0.0.1:{upstream}
`
	nginxConfig = `daemon off; worker_processes {cpus}; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream app { server 127.0.0.1:{upstream}; keepalive 64; }
  server {
    listen 127.0.0.1:{port};
    location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`
	caddyConfig = `{
  admin off
  auto_https off
  persist_config off
}
http://127.0.0.1:{port} {
  reverse_proxy 127.0.0.1:{upstream}
}
`
)

const frontNote = "The upstream is bare, and the same for all. Upstream, front and load share all processors. " +
	"No front: the load goes to the upstream."

const frontLostNote = "Each is stopped with the signal that its own manual gives for a stop without loss, and bare is " +
	"behind it. The clients are those of \"requests lost under SIGTERM\"."

// fronts makes the subjects in front of that upstream, each with a port of its own.
func (b *bench) fronts(upstream *instance) ([]*subject, error) {
	imagelab := &subject{
		name: "imagelab", command: []string{b.program("imagelab")}, path: upstream.path, everywhere: true,
		env: []string{"PORT={port}", "IMAGELAB_OPS_ADDR=127.0.0.1:{ops}", "IMAGELAB_UPSTREAM=" + upstream.port},
	}
	all := []*subject{imagelab}
	for _, other := range []struct {
		name, config string
		command      []string
		stop         syscall.Signal
	}{
		{"haproxy", haproxyConfig, []string{"haproxy", "-db", "-f", "{config}"}, syscall.SIGUSR1},
		{"nginx", nginxConfig, []string{"nginx", "-c", "{config}"}, syscall.SIGQUIT},
		{"Caddy", caddyConfig, []string{"caddy", "run", "--adapter", "caddyfile", "--config", "{config}"}, syscall.SIGTERM},
	} {
		port := freePort()
		dir := filepath.Join(b.work, "front-"+other.name)
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o777); err != nil { // nginx's workers are not root
			return nil, err
		}
		fill := strings.NewReplacer("{port}", port, "{upstream}", upstream.port, "{dir}", dir,
			"{cpus}", strconv.Itoa(runtime.NumCPU()), "{config}", filepath.Join(dir, "config"))
		if err := os.WriteFile(filepath.Join(dir, "config"), []byte(fill.Replace(other.config)), 0o644); err != nil {
			return nil, err
		}
		s := &subject{
			name: other.name, path: upstream.path, everywhere: true, signal: other.stop,
			env: []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")},
		}
		for _, word := range other.command {
			s.command = append(s.command, fill.Replace(word))
		}
		s.port, _ = strconv.Atoi(port)
		all = append(all, s)
	}
	return all, nil
}

// frontRound measures each front before the same upstream, and the upstream without one.
func (b *bench) frontRound() error {
	up, err := b.start(&subject{
		name: noFront, command: []string{b.program("bare"), "{host}:{port}"}, path: "/health", everywhere: true,
	})
	if err != nil {
		return err
	}
	defer up.kill()
	fronts, err := b.fronts(up)
	if err != nil {
		return err
	}
	running := []*instance{up}
	stop := sync.OnceFunc(func() {
		for _, in := range running[1:] {
			in.stop()
		}
	})
	defer stop()
	for _, s := range fronts {
		in, err := b.start(s)
		if err != nil {
			return err
		}
		running = append(running, in)
		settle()
		if err := b.addFamily(in, "front-rss-idle"); err != nil {
			return err
		}
	}
	if err := b.addedLatency(running); err != nil {
		return err
	}
	found := map[string][]float64{}
	for range loads {
		for _, in := range running {
			f, err := b.saturateFrom("", in.url, 32, b.seconds/2)
			if err != nil {
				return err
			}
			found[in.name] = append(found[in.name], f.rate())
		}
	}
	for i, in := range running {
		b.add("front-rps", in.name, median(found[in.name]))
		if i == 0 {
			continue
		}
		if err := b.addFamily(in, "front-rss-after-load"); err != nil {
			return err
		}
	}
	stop()
	for _, s := range fronts {
		if err := b.addLost("front-lost", s, b.stopUnderLoad); err != nil {
			return err
		}
	}
	return b.frontOfGunicorn()
}

const gunicornNote = "The upstream is the Flask app of examples/gunicorn behind gunicorn with two processes of eight threads."

// frontOfGunicorn measures each front before a server that is slower than any of them, and closes
// connections as it likes.
func (b *bench) frontOfGunicorn() error {
	up, err := b.start(&subject{
		name: noFront, path: "/health", everywhere: true,
		command: []string{"gunicorn", "--chdir", filepath.Join(b.root, "examples/gunicorn"), "--worker-tmp-dir", "/dev/shm",
			"--workers", "2", "--threads", "8", "--bind", "{host}:{port}", "app:app"},
		env: []string{"PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1"},
	})
	if err != nil {
		return err
	}
	defer up.stop()
	fronts, err := b.fronts(up)
	if err != nil {
		return err
	}
	measure := func(in *instance) error {
		f, err := b.saturateFrom("", in.url, 32, b.seconds/2)
		if err == nil {
			b.add("front-gunicorn-rps", in.name, f.rate())
		}
		return err
	}
	if err := measure(up); err != nil {
		return err
	}
	for _, s := range fronts {
		in, err := b.start(s)
		if err != nil {
			return err
		}
		err = measure(in)
		in.stop()
		if err != nil {
			return err
		}
		if err := b.addLost("front-gunicorn-lost", s, b.stopUnderLoad); err != nil {
			return err
		}
	}
	return nil
}

// addedLatency is the median at 1,000 requests a second, less that of the first, in turns.
func (b *bench) addedLatency(running []*instance) error {
	found := map[string][]float64{}
	for range 3 {
		var direct float64
		for i, in := range running {
			m := steady(in.url, 1000, b.seconds/2)
			if m.Success < 1 {
				return fmt.Errorf("%s: %.1f %% of 1,000 requests a second were answered", in.name, 100*m.Success)
			}
			p50 := m.Latencies.Quantile(0.5).Seconds()
			if i == 0 {
				direct = p50
				continue
			}
			found[in.name] = append(found[in.name], p50-direct)
		}
	}
	for _, in := range running[1:] {
		b.add("front-added-p50", in.name, median(found[in.name]))
	}
	return nil
}

// addFamily adds the resident memory of a process and its children.
func (b *bench) addFamily(in *instance, id string) error {
	sum, err := memoryOf(in.pid, "VmRSS:")
	if err != nil {
		return err
	}
	for _, child := range children(in.pid) {
		bytes, err := memoryOf(child, "VmRSS:")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		sum += bytes
	}
	b.add(id, in.name, sum)
	return nil
}
