package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// plainServer as the first argument makes the server of net/http's own example of the test
// binary: SIGTERM ends it at once, whatever it is at.
const plainServer = "plain-server-of-a-test"

func servePlainly() {
	err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(3)
}

// programs are servers that know nothing of imagelab, each as its own manual starts it. Their
// answers are words.
var programs = map[string]struct {
	files   map[string]string // to write to the folder {dir}
	command []string
	install string // what Debian has it in
}{
	"gunicorn": {
		map[string]string{"app.py": flaskApp},
		[]string{"gunicorn", "--chdir", "{dir}", "--worker-tmp-dir", "/dev/shm", "--workers", "2", "--threads", "4", "app:app"},
		"gunicorn python3-flask",
	},
	"Flask's own server": {
		map[string]string{"app.py": flaskApp},
		[]string{"sh", "-c", `exec /usr/bin/python3 -m flask --app {dir}/app run --port "$PORT" 2>/dev/null`},
		"python3-flask",
	},
	"puma": {
		map[string]string{"config.ru": `run ->(env) { env["rack.input"].read; [200, {"content-type" => "text/plain"}, ["hello\n"]] }`},
		[]string{"sh", "-c", `exec puma --quiet --silent --threads 4 --bind "tcp://127.0.0.1:$PORT" {dir}/config.ru`},
		"puma",
	},
	"Node": {
		map[string]string{"server.js": `require("http").createServer((_, response) => response.end("hello\n")).listen(process.env.PORT, "127.0.0.1")`},
		[]string{"node", "{dir}/server.js"},
		"nodejs",
	},
	"Go": {nil, []string{os.Args[0], plainServer}, ""},
}

const flaskApp = `
from flask import Flask, request
app = Flask(__name__)

@app.route("/", methods=["GET", "POST"])
def hello():
    request.get_data()
    return "hello\n"
`

// A stop and a reload lose no request, whatever the program does with its signal. A crash loses
// no more than what the program was serving, which is one request for each client.
func TestProgramsLoseNoRequest(t *testing.T) {
	times := 2
	if *soak {
		times = 50
	}
	for name, program := range programs {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(program.command[0]); err != nil {
				t.Skipf("no %s: apt-get install %s", program.command[0], program.install)
			}
			dir := t.TempDir()
			for file, text := range program.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var command []string
			for _, word := range program.command {
				command = append(command, strings.ReplaceAll(word, "{dir}", dir))
			}
			start := func(t *testing.T, more ...string) *instance {
				in := startCommand(t, command, append(more, "IMAGELAB_UPSTREAM=auto", "IMAGELAB_DRAIN_DELAY=0s")...)
				in.awaitState(t, "ready")
				return in
			}
			answered, lost := int64(0), 0
			t.Run("stop", func(t *testing.T) {
				for range times {
					in := start(t)
					l := startLoad(host(in.app), loadClients, toAnyProgram)
					eventually(t, "load", func() bool { return l.answered.Load() > 100 || t.Failed() })
					l.stopping.Store(true)
					in.signal(t, syscall.SIGTERM)
					in.wait(t)
					l.wait(t)
					answered += l.answered.Load()
				}
			})
			t.Run("reload", func(t *testing.T) {
				in := start(t)
				l := startLoad(host(in.app), loadClients, toAnyProgram)
				for n := range times {
					before := l.answered.Load()
					in.signal(t, syscall.SIGHUP)
					eventually(t, "next generation", func() bool {
						return in.metric(t, "imagelab_command_generation") == fmt.Sprint(n+2) && in.metric(t, "imagelab_command_ready") == "1"
					})
					eventually(t, "load", func() bool { return l.answered.Load() > before+100 })
				}
				l.finished.Store(true)
				l.wait(t)
				answered += l.answered.Load()
			})
			t.Run("crash", func(t *testing.T) {
				in := start(t, "IMAGELAB_RESTART=on-failure")
				l := startLoad(host(in.app), loadClients, toAnyProgram)
				for n := range times {
					before := l.answered.Load()
					eventually(t, "load", func() bool { return l.answered.Load() > before+100 })
					eventually(t, "life that is no failed start", func() bool {
						uptime, _ := strconv.ParseFloat(in.metric(t, "imagelab_command_uptime_seconds"), 64)
						return uptime > leastLife.Seconds()
					})
					facts := in.log.find("the command has started", "generation", fmt.Sprint(n+1))
					if err := syscall.Kill(int(facts["pid"].(float64)), syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
					eventually(t, "next generation", func() bool {
						return in.metric(t, "imagelab_command_generation") == fmt.Sprint(n+2) && in.metric(t, "imagelab_command_ready") == "1"
					})
				}
				l.finished.Store(true)
				l.clients.Wait()
				answered += l.answered.Load()
				lost = len(l.lost)
				if lost > times*loadClients {
					t.Errorf("%d crashes lost %d requests of %d clients: %s", times, lost, loadClients, strings.Join(l.lost, "; "))
				}
			})
			t.Logf("%d requests over %d stops, reloads and crashes each; the crashes lost %d", answered, times, lost)
		})
	}
}
