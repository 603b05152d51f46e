package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// emulators are QEMU's, of Debian's qemu-user-static, for what this machine is not.
var emulators = map[string]string{"linux-arm64": "qemu-aarch64-static", "linux-armv7": "qemu-arm-static", "linux-amd64": "qemu-x86_64-static"}

// patience is how long anything may take under emulation on a busy machine.
const patience = 2 * time.Minute

// A lockedBuffer is written by a process and read by a test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The released binary of each platform serves, probes, audits, drains and supervises.
func TestEveryPlatformWorks(t *testing.T) {
	t.Parallel()
	for _, p := range platforms {
		t.Run(nameOf(p), func(t *testing.T) {
			t.Parallel()
			// This machine needs no emulator for its own.
			command := []string{unpacked(t, filepath.Join(theRelease(t), "imagelab-v9.8.7-"+nameOf(p)+".tar.gz"))}
			if p.Architecture != runtime.GOARCH {
				emulator, err := exec.LookPath(emulators[nameOf(p)])
				if err != nil {
					leaveOut(t, emulators[nameOf(p)]+" is missing: apt-get install qemu-user-static")
				}
				command = []string{emulator, command[0]}
			}
			start := func(args ...string) *exec.Cmd {
				args = append(slices.Clone(command[1:]), args...)
				cmd := exec.CommandContext(t.Context(), command[0], args...)
				// Without the test's own IMAGELAB_SANDBOX=require: QEMU has no Landlock.
				cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "IMAGELAB_") })
				return cmd
			}
			finish := func(cmd *exec.Cmd, wantCode int, wantOutput string) []byte {
				t.Helper()
				timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
				defer timer.Stop()
				out, err := cmd.Output()
				if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				if code := cmd.ProcessState.ExitCode(); code != wantCode || !bytes.Contains(out, []byte(wantOutput)) {
					t.Errorf("%q = %d, %s; want %d, %q", cmd.Args, code, out, wantCode, wantOutput)
				}
				return out
			}

			finish(start("--version"), 0, "imagelab v9.8.7, commit abcdef, ")
			finish(start("--", "sh", "-c", "exit 7"), 7, "")

			// The root of an image that holds nothing but the binary.
			root := t.TempDir()
			if err := os.WriteFile(filepath.Join(root, "imagelab"), []byte("x"), 0o755); err != nil {
				t.Fatal(err)
			}
			var report struct {
				Checks []struct{ ID, Status string }
			}
			if err := json.Unmarshal(finish(start("--audit", "--root", root, "--format", "json"), 0, `"shell-absent"`), &report); err != nil {
				t.Fatal(err)
			}
			for _, c := range report.Checks {
				if c.Status == "unknown" {
					t.Errorf("--audit does not know %s", c.ID)
				}
			}
			if len(report.Checks) == 0 {
				t.Error("--audit has no check")
			}

			server := start()
			server.Env = append(server.Env, "PORT=0", "IMAGELAB_BIND_ADDRESS=127.0.0.1", "IMAGELAB_OPS_ADDR=127.0.0.1:0",
				"IMAGELAB_FAULTS=true", "IMAGELAB_LOG_FORMAT=json")
			log := new(lockedBuffer)
			server.Stderr = log
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(patience, func() { _ = server.Process.Kill() })
			defer timer.Stop()
			address := func(server string) string {
				listening := regexp.MustCompile(`"msg":"listening","server":"` + server + `","addr":"([^"]+)"`)
				eventually(t, "the listener "+server, log, func() bool { return listening.MatchString(log.String()) })
				return "http://" + listening.FindStringSubmatch(log.String())[1]
			}
			app, ops := address("app"), address("ops")
			finish(start("--healthcheck", app+"/health"), 0, "healthy: 200 in ")

			// A request that is under way when the stop begins is answered.
			answer := make(chan error, 1)
			go func() {
				body, err := get(app + "/delay/3s")
				if want := `{"delayed":"3s"}`; err == nil && strings.TrimSpace(body) != want {
					err = fmt.Errorf("got %s, want %s", body, want)
				}
				answer <- err
			}()
			eventually(t, "the request under way", log, func() bool {
				metrics, err := get(ops + "/metrics")
				if err != nil {
					t.Fatal(err)
				}
				return regexp.MustCompile(`(?m)^imagelab_http_requests_in_flight{[^}]*"/delay/{duration}"[^}]*} 1$`).MatchString(metrics)
			})
			if err := server.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-answer; err != nil {
				t.Errorf("the request under way at SIGTERM: %v", err)
			}
			if err := server.Wait(); err != nil {
				t.Errorf("after SIGTERM: %v", err)
			}
			if !strings.Contains(log.String(), `"msg":"stopped, no request was lost"`) {
				t.Errorf("the log does not say that no request was lost:\n%s", log)
			}
		})
	}
}

// eventually waits for a condition, and shows the log if it does not come.
func eventually(t *testing.T, what string, log *lockedBuffer, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s; the log:\n%s", what, log)
		}
	}
}

// get is what a GET of the URL answers, if that is 200.
func get(url string) (string, error) {
	client := http.Client{Timeout: patience}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s = %s", url, resp.Status)
	}
	return string(body), err
}

// unpacked is the path of the binary of an archive.
func unpacked(t *testing.T, archive string) string {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "imagelab")
	content := contents(t, unzipped, func(*tar.Header) {})["imagelab-v9.8.7/imagelab"]
	if err := os.WriteFile(binary, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return binary
}
