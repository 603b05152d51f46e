package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// testProgram as the first argument makes an HTTP server of the test binary, of which an
// imagelab process knows nothing.
const testProgram = "program-of-a-test"

// serveForTest serves on PORT, or on a unix socket, until SIGTERM or SIGQUIT: then it ends
// what is in flight, as servers do that know how to stop.
func serveForTest(args []string) int {
	fs := flag.NewFlagSet(testProgram, flag.ExitOnError)
	late := fs.Duration("late", 0, "before it listens")
	socket := fs.String("socket", "", "path of a unix socket")
	deaf := fs.Bool("deaf", false, "SIGTERM does nothing")
	badAfter := fs.String("bad-after", "", "a file: if it is there, it ends with code 9 before it listens")
	_ = fs.Parse(args)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGQUIT)
	time.Sleep(*late)
	if _, err := os.Stat(*badAfter); err == nil {
		return 9
	}
	network, address := "tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT"))
	if *socket != "" {
		network, address = "unix", *socket
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	var sick atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, os.Getpid())
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Join(os.Environ(), "\n")) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.FormValue("for"))
		time.Sleep(d)
		fmt.Fprint(w, os.Getpid())
	})
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/sick", func(_ http.ResponseWriter, r *http.Request) { sick.Store(r.FormValue("is") == "true") })
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(ln) }()
	for sig := range stop {
		if *deaf && sig == syscall.SIGTERM {
			continue
		}
		break
	}
	_ = srv.Shutdown(context.Background())
	return 0
}

// startCommand runs imagelab with a command, in a process of its own.
func startCommand(t *testing.T, command []string, environ ...string) *instance {
	t.Helper()
	log := &logBuffer{}
	in := launchArgs(t, log, append([]string{os.Args[0], "--"}, command...), environ...)
	in.log = log
	t.Cleanup(func() { // before it is killed, as the command would live on
		_ = in.process.Signal(syscall.SIGTERM)
		in.wait(t)
	})
	in.await(t)
	return in
}

// startBefore runs imagelab before the test's program, and waits until that is ready.
func startBefore(t *testing.T, flags []string, environ ...string) *instance {
	t.Helper()
	in := startCommand(t, append([]string{os.Args[0], testProgram}, flags...), append([]string{"IMAGELAB_UPSTREAM=auto"}, environ...)...)
	in.awaitState(t, "ready")
	return in
}

func (in *instance) awaitState(t *testing.T, want string) {
	t.Helper()
	eventually(t, "state "+want, func() bool {
		_, body := fetch(t, "GET", in.ops+"/readyz", "")
		return body == `{"status":"`+want+`"}`+"\n"
	})
}

// pid asks the program which process it is.
func (in *instance) pid(t *testing.T) int {
	t.Helper()
	resp, body := fetch(t, "GET", in.app+"/", "")
	pid, err := strconv.Atoi(body)
	if resp.StatusCode != 200 || err != nil {
		t.Fatalf("GET / = %d %s, want a pid", resp.StatusCode, body)
	}
	return pid
}

// Without a front nobody knows what the command has served.
func TestStopOfACommandWithoutAFrontClaimsNothing(t *testing.T) {
	t.Parallel()
	in := startCommand(t, []string{"sleep", "1000"})
	in.signal(t, syscall.SIGTERM)
	in.wait(t)
	if in.log.find("stopped, what the command served was not seen") == nil || strings.Contains(in.log.String(), "no request was lost") {
		t.Errorf("the log says:\n%s", in.log)
	}
}

func TestCommandsExitCodeIsTheProcesss(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{"exit 0": 0, "exit 1": 1, "exit 77": 77, "exit 255": 255, "kill -KILL $$": 137, "kill -TERM $$": 143, "kill -SEGV $$": 139} {
		in := launchArgs(t, io.Discard, []string{os.Args[0], "--", "sh", "-c", script})
		if code := in.wait(t); code != want {
			t.Errorf("%s: exit %d, want %d", script, code, want)
		}
	}
}

func TestCommandThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]int{"/no/such/program": 127, "no-such-program": 127, "/etc/passwd": 126, "/etc": 126} {
		log := &logBuffer{}
		in := launchArgs(t, log, []string{os.Args[0], "--", program}, "IMAGELAB_RESTART=always")
		if code := in.wait(t); code != want {
			t.Errorf("%s: exit %d, want %d", program, code, want)
		}
		if !strings.Contains(log.String(), program) {
			t.Errorf("the log does not name %s:\n%s", program, log)
		}
	}
}

func TestArgumentsAreTheCommandsOwn(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"--", "--audit", "-h", "", "a b", "--healthcheck"}
	in := launchArgs(t, io.Discard, append([]string{os.Args[0], "--", "sh", "-c", `printf '%s\n' "$@" >"$0"`, out}, args...))
	if code := in.wait(t); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	content, _ := os.ReadFile(out)
	if got := string(content); got != strings.Join(args, "\n")+"\n" {
		t.Errorf("arguments are %q, want %q", got, args)
	}
}

func TestCommandLineOfACommand(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args, env []string
		code      int
		says      string
	}{
		{[]string{"--"}, nil, exitUsage, "-- without a command"},
		{[]string{"--audit", "--", "x"}, nil, exitUsage, "unexpected argument"},
		{[]string{"sh"}, nil, exitUsage, "a command stands behind --"},
		{nil, []string{"IMAGELAB_UPSTREAM=auto"}, exitUsage, "needs a command"},
		{nil, []string{"IMAGELAB_UPSTREAM=auto", "PORT=abc", "IMAGELAB_OPS_ADDR=x"}, exitUsage, "needs a command"},
		{[]string{"--", "true"}, []string{"IMAGELAB_UPSTREAM=bad", "IMAGELAB_PROBE=ftp://x/"}, exitUsage, "IMAGELAB_PROBE"},
		{[]string{"--", "true"}, []string{"IMAGELAB_RESTART=sometimes"}, exitUsage, "want never, on-failure or always"},
		{[]string{"--", "true"}, []string{"IMAGELAB_STOP_SIGNAL=STOPP"}, exitUsage, `IMAGELAB_STOP_SIGNAL="STOPP": want a signal`},
		{[]string{"--", "true"}, []string{"IMAGELAB_STOP_SIGNAL=0"}, exitUsage, `want a signal`},
		{[]string{"--", "true"}, []string{"IMAGELAB_PROBE=/health"}, exitUsage, "is a path of no upstream"},
		{[]string{"--", "true"}, []string{"IMAGELAB_PROBE=ftp://x/"}, exitUsage, "IMAGELAB_PROBE"},
		{[]string{"--", "true"}, []string{"IMAGELAB_UPSTREAM=auto", "IMAGELAB_PROBE=/\x01"}, exitUsage, "IMAGELAB_PROBE"},
		{[]string{"--", "true"}, []string{"PORT=3000", "IMAGELAB_UPSTREAM=3000"}, exitUsage, "is where the app listener is"},
		{[]string{"--", "true"}, []string{"IMAGELAB_UPSTREAM=localhost"}, exitUsage, "want a port of 127.0.0.1"},
	} {
		var stderr strings.Builder
		code := run(t.Context(), test.args, defaults(t, append([]string{inProcess}, test.env...)), io.Discard, &stderr)
		if code != test.code || !strings.Contains(stderr.String(), test.says) {
			t.Errorf("imagelab %q, %q = %d, %s; want %d and %q", test.args, test.env, code, stderr.String(), test.code, test.says)
		}
	}
}

func TestSignalsReachTheCommandAtOnce(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	want := []string{"HUP", "USR1", "USR2", "WINCH", "ALRM", "TTIN", "TTOU", "IO"}
	script := "echo up >>" + out + "; for s in " + strings.Join(want, " ") + "; do trap \"echo $s >>" + out + "\" $s; done; echo ready >>" + out + "; while :; do sleep 0.01; done"
	in := startCommand(t, []string{"sh", "-c", script})
	has := func(word string) func() bool {
		return func() bool {
			content, _ := os.ReadFile(out)
			return slices.Contains(strings.Fields(string(content)), word)
		}
	}
	eventually(t, "start of the script", has("ready"))
	for name, sig := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
		"ALRM": syscall.SIGALRM, "TTIN": syscall.SIGTTIN, "TTOU": syscall.SIGTTOU, "IO": syscall.SIGIO,
	} {
		in.signal(t, sig)
		eventually(t, name+" at the command", has(name))
	}
	in.signal(t, syscall.SIGTERM) // at which the shell ends
	if code := in.wait(t); code != 143 {
		t.Errorf("exit %d, want 143", code)
	}
}

func TestStopOfACommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script  string
		environ []string
		signals []syscall.Signal
		code    int
	}{
		"it ends by itself":       {"trap 'exit 5' TERM; echo", nil, []syscall.Signal{syscall.SIGTERM}, 5},
		"another signal":          {"trap 'exit 6' INT; echo", nil, []syscall.Signal{syscall.SIGINT}, 6},
		"a signal of its own":     {"trap 'exit 7' USR1; trap '' TERM; echo", []string{"IMAGELAB_STOP_SIGNAL=USR1"}, []syscall.Signal{syscall.SIGTERM}, 7},
		"it is deaf":              {"trap '' TERM; echo", []string{"IMAGELAB_SHUTDOWN_TIMEOUT=300ms"}, []syscall.Signal{syscall.SIGTERM}, 137},
		"a second signal kills":   {"trap '' TERM; echo", nil, []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 137},
		"it is stopped":           {"trap 'exit 8' TERM; kill -STOP $$; echo", nil, []syscall.Signal{syscall.SIGTERM}, 8},
		"no signal, it is killed": {"kill -KILL $$", nil, nil, 137},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := filepath.Join(t.TempDir(), "up")
			in := startCommand(t, []string{"sh", "-c", strings.Replace(test.script, "; echo", "; echo >"+up, 1) + "; while :; do sleep 0.01; done"}, test.environ...)
			if name == "it is stopped" {
				eventually(t, "stopped command", func() bool {
					facts := in.log.find("the command has started")
					if facts == nil {
						return false
					}
					stat, _ := os.ReadFile(fmt.Sprintf("/proc/%v/stat", facts["pid"]))
					return strings.Contains(string(stat), ") T ")
				})
			} else if test.signals != nil {
				eventually(t, "start of the script", func() bool { _, err := os.Stat(up); return err == nil })
			}
			for _, sig := range test.signals {
				in.signal(t, sig)
				eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
			}
			if code := in.wait(t); code != test.code {
				t.Errorf("exit %d, want %d; log:\n%s", code, test.code, in.log)
			}
		})
	}
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	t.Run("a failure that goes on is given up", func(t *testing.T) {
		t.Parallel()
		in := startCommand(t, []string{"sh", "-c", "exit 4"}, "IMAGELAB_RESTART=on-failure", "IMAGELAB_UPSTREAM=auto", "IMAGELAB_DRAIN_DELAY=2s")
		eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
		in.awaitState(t, givenUp)
		if code := in.wait(t); code != 4 {
			t.Errorf("exit %d, want 4", code)
		}
		if got := strings.Count(in.log.String(), `"msg":"the command has started"`); got != maxFailures {
			t.Errorf("%d starts, want %d", got, maxFailures)
		}
		if in.log.find("the command is given up, as it never got ready") == nil {
			t.Errorf("the log does not say that it is given up:\n%s", in.log)
		}
	})
	t.Run("success is no failure", func(t *testing.T) {
		t.Parallel()
		in := startCommand(t, []string{"true"}, "IMAGELAB_RESTART=on-failure")
		if code := in.wait(t); code != 0 {
			t.Errorf("exit %d, want 0", code)
		}
	})
	t.Run("a crash behind the front costs no other request", func(t *testing.T) {
		t.Parallel()
		in := startBefore(t, nil, "IMAGELAB_RESTART=on-failure")
		lost := underLoad(t, in, func() {
			for range 3 {
				pid := in.pid(t)
				time.Sleep(leastLife) // or it counts as a failed start
				_ = syscall.Kill(pid, syscall.SIGKILL)
				eventually(t, "next generation", func() bool { return in.pid(t) != pid })
			}
		})
		// What it was serving when it was killed is lost, which are as many as clients.
		if lost > 3*loadClients {
			t.Errorf("%d requests were lost in 3 crashes of %d clients", lost, loadClients)
		}
		if got := in.metric(t, `imagelab_command_starts_total{reason="restart"}`); got != "3" {
			t.Errorf("restarts = %s, want 3", got)
		}
		if got := in.metric(t, `imagelab_command_exits_total{code="137"}`); got != "3" {
			t.Errorf("exits by SIGKILL = %s, want 3", got)
		}
	})
}

const loadClients = 8

// underLoad runs f while clients ask without a pause, and returns how many requests were lost.
func underLoad(t *testing.T, in *instance, f func()) (lost int) {
	t.Helper()
	l := startLoad(host(in.app), loadClients, toAnyProgram)
	eventually(t, "load", func() bool { return l.answered.Load() > 2*loadClients })
	f()
	l.finished.Store(true)
	l.clients.Wait()
	for _, line := range l.lost {
		t.Log(line)
	}
	return len(l.lost)
}

func TestReloadLosesNoRequest(t *testing.T) {
	t.Parallel()
	reloads := 5
	if *soak {
		reloads = 50
	}
	in := startBefore(t, []string{"-late", "50ms"})
	lost := underLoad(t, in, func() {
		for range reloads {
			pid := in.pid(t)
			in.signal(t, syscall.SIGHUP)
			eventually(t, "next generation", func() bool { return in.pid(t) != pid })
			eventually(t, "end of the old one", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
		}
	})
	if lost != 0 {
		t.Errorf("%d requests were lost in %d reloads, want 0", lost, reloads)
	}
	if got := in.metric(t, `imagelab_command_starts_total{reason="reload"}`); got != fmt.Sprint(reloads) {
		t.Errorf("reloads = %s, want %d", got, reloads)
	}
	if got := in.metric(t, "imagelab_command_generation"); got != fmt.Sprint(reloads+1) {
		t.Errorf("generation = %s, want %d", got, reloads+1)
	}
}

// Nobody waits for a reload to end, so that the deadline of a stop is none for it.
func TestReloadLetsOldRequestsEnd(t *testing.T) {
	t.Parallel()
	in := startBefore(t, nil, "IMAGELAB_SHUTDOWN_TIMEOUT=100ms")
	old := in.pid(t)
	answer := make(chan string, 1)
	go func() {
		resp, err := client().Get(in.app + "/slow?for=1s")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	eventually(t, "request in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="upstream",server="app"}`) == "1"
	})
	in.signal(t, syscall.SIGHUP)
	eventually(t, "next generation", func() bool { return in.pid(t) != old })
	if got := <-answer; got != fmt.Sprint(old) {
		t.Errorf("the old request got %q, want the old generation, %d", got, old)
	}
}

// TestHistoryTellsRestartsFromReloads has both, and the end of the one that was restarted is not told of the reload.
func TestHistoryTellsRestartsFromReloads(t *testing.T) {
	t.Parallel()
	in := startBefore(t, nil, "IMAGELAB_RESTART=on-failure")
	marked := func(what string) func() bool {
		return func() bool {
			_, body := fetch(t, "GET", in.ops+"/snapshot?history=1", "")
			return strings.Contains(body, `"what":"`+what+`"`)
		}
	}
	_ = syscall.Kill(in.pid(t), syscall.SIGKILL)
	eventually(t, "mark of the restart", marked("restarted the program, start 2; the one before: killed"))
	in.awaitState(t, "ready")
	in.signal(t, syscall.SIGHUP)
	eventually(t, "mark of the reload", marked("reloaded the program, start 3"))
}

func TestReloadThatFailsKeepsTheOldGeneration(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad")
	in := startBefore(t, []string{"-bad-after", bad})
	if err := os.WriteFile(bad, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := in.pid(t)
	in.signal(t, syscall.SIGHUP)
	eventually(t, "line of the log", func() bool { return in.log.find("the command was not reloaded, the old one stays") != nil })
	if got := in.pid(t); got != old {
		t.Errorf("pid = %d, want the old one, %d", got, old)
	}
	in.awaitState(t, "ready")
	_ = os.Remove(bad)
	in.signal(t, syscall.SIGHUP)
	eventually(t, "next generation", func() bool { return in.pid(t) != old })
}

func TestCrashDuringAReload(t *testing.T) {
	t.Parallel()
	in := startBefore(t, []string{"-late", "500ms"})
	old := in.pid(t)
	in.signal(t, syscall.SIGHUP)
	eventually(t, "second start", func() bool { return in.metric(t, "imagelab_command_generation") == "2" })
	_ = syscall.Kill(old, syscall.SIGKILL)
	if got := in.pid(t); got == old { // waits for the new one
		t.Errorf("pid = %d, want that of the new generation", got)
	}
	in.awaitState(t, "ready")
	in.signal(t, syscall.SIGHUP)
	eventually(t, "third start", func() bool { return in.metric(t, "imagelab_command_generation") == "3" })
	in.awaitState(t, "ready")
	in.signal(t, syscall.SIGTERM)
	if code := in.wait(t); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
}

func TestStopDuringAReload(t *testing.T) {
	t.Parallel()
	slow := filepath.Join(t.TempDir(), "slow")
	script := `if [ -e "$0" ]; then exec sleep 1000; fi; : >"$0"; exec "$1" "$2"`
	in := startCommand(t, []string{"sh", "-c", script, slow, os.Args[0], testProgram}, "IMAGELAB_UPSTREAM=auto")
	in.awaitState(t, "ready")
	in.signal(t, syscall.SIGHUP)
	eventually(t, "second start", func() bool { return in.metric(t, "imagelab_command_generation") == "2" })
	answer := make(chan error, 1)
	go func() {
		resp, err := client().Get(in.app + "/slow?for=300ms")
		if err == nil {
			resp.Body.Close()
		}
		answer <- err
	}()
	eventually(t, "request in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="upstream",server="app"}`) == "1"
	})
	in.signal(t, syscall.SIGTERM)
	in.checkWholeStop(t, answer) // with the code of the one that served, and not of the one that never did
}

func TestStopWithAFrontLosesNoRequest(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"a port": nil, "a unix socket": {"-socket", filepath.Join(t.TempDir(), "s")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var environ []string
			if flags != nil {
				environ = []string{"IMAGELAB_UPSTREAM=unix://" + flags[1]}
			}
			in := startBefore(t, flags, environ...)
			answer := make(chan error, 1)
			go func() {
				resp, err := client().Get(in.app + "/slow?for=500ms")
				if err == nil {
					defer resp.Body.Close()
					if resp.StatusCode != 200 {
						err = fmt.Errorf("status %d", resp.StatusCode)
					}
				}
				answer <- err
			}()
			eventually(t, "request in flight", func() bool {
				return in.metric(t, `imagelab_http_requests_in_flight{route="upstream",server="app"}`) == "1"
			})
			in.signal(t, syscall.SIGTERM)
			in.checkWholeStop(t, answer)
		})
	}
}

func TestSocketOfAKilledCommandIsNotInTheWay(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	in := startBefore(t, []string{"-socket", socket}, "IMAGELAB_UPSTREAM=unix://"+socket, "IMAGELAB_RESTART=on-failure")
	old := in.pid(t)
	_ = syscall.Kill(old, syscall.SIGKILL)
	eventually(t, "next generation", func() bool { return in.metric(t, "imagelab_command_generation") == "2" })
	if got := in.pid(t); got == old {
		t.Errorf("pid = %d, want another one", got)
	}
	in.signal(t, syscall.SIGTERM)
	if code := in.wait(t); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
}

func TestRequestsWaitForAStart(t *testing.T) {
	t.Parallel()
	in := startCommand(t, []string{os.Args[0], testProgram, "-late", "500ms"}, "IMAGELAB_UPSTREAM=auto")
	if resp, body := fetch(t, "GET", in.ops+"/readyz", ""); resp.StatusCode != 503 || body != `{"status":"starting"}`+"\n" {
		t.Errorf("GET /readyz = %d %s, want 503, starting", resp.StatusCode, body)
	}
	in.pid(t) // waits
	in.awaitState(t, "ready")
}

func TestReadinessOfACommandFollowsItsProbe(t *testing.T) {
	t.Parallel()
	in := startBefore(t, nil, "IMAGELAB_PROBE=/health", "IMAGELAB_PROBE_INTERVAL=20ms")
	fetch(t, "GET", in.app+"/sick?is=true", "")
	in.awaitState(t, "failing")
	if got := in.metric(t, "imagelab_command_ready"); got != "0" {
		t.Errorf("imagelab_command_ready = %s, want 0", got)
	}
	fetch(t, "GET", in.app+"/sick?is=false", "")
	in.awaitState(t, "ready")
}

// A command that was not ready in time has failed, whatever it says.
func TestCommandThatIsNotReadyInTimeIsStopped(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{
		"trap 'exit 3' TERM":                     3,
		"trap 'exit 0' TERM":                     exitFailed,
		"trap 'exit 4' USR1; trap 'exit 5' TERM": 4,
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			environ := []string{"IMAGELAB_UPSTREAM=auto", "IMAGELAB_START_TIMEOUT=300ms"}
			if strings.Contains(script, "USR1") {
				environ = append(environ, "IMAGELAB_STOP_SIGNAL=USR1")
			}
			in := startCommand(t, []string{"sh", "-c", script + "; while :; do sleep 0.01; done"}, environ...)
			if code := in.wait(t); code != want {
				t.Errorf("exit %d, want %d", code, want)
			}
		})
	}
	t.Run("and is started again", func(t *testing.T) {
		t.Parallel()
		in := startCommand(t, []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done"},
			"IMAGELAB_UPSTREAM=auto", "IMAGELAB_START_TIMEOUT=300ms", "IMAGELAB_RESTART=on-failure")
		eventually(t, "second start", func() bool { return in.metric(t, "imagelab_command_generation") == "2" })
	})
}

// The command ends by itself, and only then a signal comes: it is the first one.
func TestSignalAfterTheEndOfTheCommandCutsNothing(t *testing.T) {
	t.Parallel()
	in := startBefore(t, nil, "IMAGELAB_DRAIN_DELAY=1s", "IMAGELAB_UPSTREAM_WAIT=0s")
	fetch(t, "GET", in.app+"/exit?code=5", "")
	eventually(t, "draining", func() bool { return in.log.find("draining") != nil })
	in.signal(t, syscall.SIGTERM)
	resp, _ := fetch(t, "GET", in.app+"/", "")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a request without a command = %d, want 503", resp.StatusCode)
	}
	if code := in.wait(t); code != 5 || strings.Contains(in.log.String(), "second signal") {
		t.Errorf("exit %d, want 5 and no second signal; log:\n%s", code, in.log)
	}
	last := in.log.find("stopped, as the command has ended, and requests were cut or not answered")
	if last == nil || last["failed"] != 1.0 {
		t.Errorf("the log does not say that one request has failed:\n%s", in.log)
	}
}

// A new generation ends while the one before it still answers: that answer has the time of a stop.
func TestEndOfTheNewGenerationLetsOldRequestsEnd(t *testing.T) {
	t.Parallel()
	in := startBefore(t, nil)
	old := in.pid(t)
	answer := make(chan error, 1)
	go func() {
		resp, err := client().Get(in.app + "/slow?for=4s")
		if err == nil {
			var body []byte
			if body, err = io.ReadAll(resp.Body); err == nil && string(body) != strconv.Itoa(old) {
				err = fmt.Errorf("%s %s", resp.Status, body)
			}
			resp.Body.Close()
		}
		answer <- err
	}()
	eventually(t, "request in flight", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="upstream",server="app"}`) == "1"
	})
	in.signal(t, syscall.SIGHUP)
	eventually(t, "next generation", func() bool { return in.pid(t) != old })
	_ = syscall.Kill(in.pid(t), syscall.SIGKILL)
	in.awaitState(t, "draining")
	if len(answer) > 0 {
		t.Error("the stop has begun when the old generation had answered, and not before")
	}
	if err := <-answer; err != nil {
		t.Errorf("the request of the old generation: %v", err)
	}
	if code := in.wait(t); code != 137 {
		t.Errorf("exit %d, want 137", code)
	}
}

// What the rest of a group needs to end is no life of the command.
func TestLeftoversKeepNoCommandFromBeingGivenUp(t *testing.T) {
	t.Parallel()
	in := startCommand(t, []string{"sh", "-c", `trap "" TERM; sleep 1000 & exit 3`}, "IMAGELAB_RESTART=always")
	starts := func() int { return strings.Count(in.log.String(), `"msg":"the command has started"`) }
	eventually(t, "third start", func() bool { return starts() > 2 })
	eventually(t, "end", func() bool { return in.log.find("the command is given up, as it never got ready") != nil })
	if code := in.wait(t); code != 3 || starts() != maxFailures {
		t.Errorf("exit %d after %d starts, want 3 after %d", code, starts(), maxFailures)
	}
}

// A process that is deaf and left in the group is killed at the deadline of the stop, and not leaveGrace later.
func TestLeftoversEndWithTheStop(t *testing.T) {
	t.Parallel()
	up := filepath.Join(t.TempDir(), "up")
	in := startCommand(t, []string{"sh", "-c", `(trap "" TERM; : >"$0"; while :; do sleep 0.01; done) & trap 'exit 3' TERM; wait`, up},
		"IMAGELAB_SHUTDOWN_TIMEOUT=300ms")
	eventually(t, "the deaf one", func() bool { _, err := os.Stat(up); return err == nil })
	in.signal(t, syscall.SIGTERM)
	if code := in.wait(t); code != 3 {
		t.Errorf("exit %d, want 3", code)
	}
	at := func(msg string) time.Time {
		line, _ := in.log.find(msg)["time"].(string)
		when, err := time.Parse(time.RFC3339, line)
		if err != nil {
			t.Fatalf("%q: %v in:\n%s", msg, err, in.log)
		}
		return when
	}
	took := at("the command has left processes in its group, which were ended").Sub(at("draining"))
	if took >= leaveGrace {
		t.Errorf("it took %v from the signal, want the timeout of the stop", took)
	}
}

// A command of another user needs CAP_KILL. Without it the log does not say that the command was killed.
func TestCommandThatMayNotBeKilled(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can start a command as another user")
	}
	log := &logBuffer{}
	in := launchArgs(t, log, []string{"setpriv", "--bounding-set=-kill", "--inh-caps=-kill", os.Args[0], "--",
		"setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "sleep", "1000"},
		"IMAGELAB_SHUTDOWN_TIMEOUT=300ms", "IMAGELAB_SANDBOX_COMMAND=", "IMAGELAB_SANDBOX=auto")
	in.log = log
	in.await(t)
	eventually(t, "start", func() bool { return log.find("the command is ready") != nil })
	pid := int(log.find("the command has started")["pid"].(float64))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	eventually(t, "sleep", func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return string(name) == "sleep\n"
	})
	in.signal(t, syscall.SIGTERM)
	eventually(t, "line of the log", func() bool {
		return log.find("the command cannot be killed: it runs as another user, and imagelab has no CAP_KILL") != nil
	})
	if strings.Contains(log.String(), "the command is killed") {
		t.Errorf("the log says that it was killed:\n%s", log)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if code := in.wait(t); code != 137 {
		t.Errorf("exit %d, want 137", code)
	}
}

// What waits for something of the command waits no longer than the stop.
func TestNothingOutlivesTheDeadlineOfTheStop(t *testing.T) {
	t.Parallel()
	c := &command{hurry: t.Context(), stopping: make(chan struct{})}
	ctx, cancel := c.until(time.Now().Add(time.Hour))
	defer cancel()
	if ctx.Err() != nil {
		t.Fatal("it is over before the stop")
	}
	c.stopBy = time.Now().Add(10 * time.Millisecond)
	close(c.stopping)
	select {
	case <-ctx.Done():
	case <-time.After(patience):
		t.Errorf("it goes on %v after the deadline", patience)
	}
}

func TestEnvironmentOfACommand(t *testing.T) {
	t.Parallel()
	in := startBefore(t, nil, "IMAGELAB_OPS_TOKEN=hidden", "MINE=kept", "IMAGELAB_UPSTREAM=auto")
	_, env := fetch(t, "GET", in.app+"/env", "")
	env = "\n" + env
	if strings.Contains(env, "\nIMAGELAB_") || !strings.Contains(env, "\nMINE=kept") || strings.Count(env, "\nPORT=") != 1 || strings.Contains(env, "PORT=0") {
		t.Errorf("the command's environment is\n%s", env)
	}
}

func TestCommandLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "pid")
	in := launchArgs(t, io.Discard, []string{os.Args[0], "--", "sh", "-c", "sleep 1000 & echo $! >" + out + "; exit 2"})
	if code := in.wait(t); code != 2 {
		t.Errorf("exit %d, want 2", code)
	}
	content, _ := os.ReadFile(out)
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the rest of the command's group lives on: %v", err)
	}
}

func TestCommandWithoutAFrontHasNoAppListener(t *testing.T) {
	t.Parallel()
	in := startCommand(t, []string{"sleep", "1000"})
	in.awaitState(t, "ready")
	if in.app != "" {
		t.Errorf("the app listener is at %s, want none", in.app)
	}
	for name, want := range map[string]string{"imagelab_command_up": "1", "imagelab_command_ready": "1", "imagelab_command_processes": "1"} {
		if got := in.metric(t, name); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	in.signal(t, syscall.SIGTERM)
	if code := in.wait(t); code != 143 {
		t.Errorf("exit %d, want 143", code)
	}
}

func TestCommandIsShown(t *testing.T) {
	t.Parallel()
	in := startBefore(t, nil, "IMAGELAB_RESTART=always")
	_ = syscall.Kill(in.pid(t), syscall.SIGKILL)
	eventually(t, "second start", func() bool { return in.metric(t, "imagelab_command_generation") == "2" })
	in.awaitState(t, "ready")
	eventually(t, "command in the snapshot", func() bool {
		_, body := fetch(t, "GET", in.ops+"/snapshot", "")
		return strings.Contains(body, `"command":{"up":true,"generation":2,`) && strings.Contains(body, `"last":"killed"`)
	})
}

// docs/command.md names every state and metric of a command.
func TestReferenceOfACommandIsWhole(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/command.md")
	if err != nil {
		t.Fatal(err)
	}
	in := startBefore(t, nil)
	_, metrics := fetch(t, "GET", in.ops+"/metrics", "")
	names := []string{starting.String(), ready.String(), restarting, failing, givenUp, draining.String()}
	for line := range strings.Lines(metrics) {
		if name, _, _ := strings.Cut(strings.TrimPrefix(line, "# HELP "), " "); strings.HasPrefix(name, "imagelab_command_") && strings.HasPrefix(line, "# HELP") {
			names = append(names, name)
		}
	}
	if len(names) < 12 {
		t.Errorf("only %q are there to be named", names)
	}
	for _, name := range names {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/command.md does not name %s", name)
		}
	}
}

// A command below a shell is stopped and continued as any other, though the shell knows imagelab alone.
func TestJobControlBelowAShell(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	reader, terminal, err := newTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var said logBuffer
	go func() { _, _ = io.Copy(&said, reader) }()
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env = append(defaults(t, sandboxed("--")), asProgram+"=1", "IMAGELAB_OPS_ADDR=", "IMAGELAB_LOG_LEVEL=error",
		"PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "PS1=prompt> ", "TERM=dumb", "IL="+os.Args[0])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	seen := 0
	// What is typed before the prompt is there may be echoed twice, by the terminal and by readline.
	for _, step := range []struct{ typed, want string }{
		{"", "prompt> "},
		{"$IL -- sed -u s/^/read:/\n", "sed -u s/^/read:/\r\n"},
		{"one\n", "read:one\r\n"},
		{"\x1a", "Stopped"},
		{"", "prompt> "},
		{"echo the shell goes on\n", "\nthe shell goes on\r\nprompt> "},
		{"fg\n", "sed -u s/^/read:/\r\n"},
		{"two\n", "read:two\r\n"},
		{"\x03", "prompt> "},
		{"echo code $?\n", "\ncode 130\r\nprompt> "},
		{"$IL -- sh -c 'echo in the background; exec sleep 1000' &\n", "[1] "},
		{"", "in the background\r\n"},
		{"echo the terminal is mine\n", "\nthe terminal is mine\r\nprompt> "},
		{"kill %1; wait %1; echo code $?\n", "\ncode 143\r\nprompt> "},
	} {
		if _, err := reader.WriteString(step.typed); err != nil {
			t.Fatal(err)
		}
		since := ""
		for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
			since = said.String()[seen:]
			if i := strings.Index(since, step.want); i >= 0 {
				seen += i + len(step.want)
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no %q after %q, but %q", step.want, step.typed, since)
			}
		}
	}
}
