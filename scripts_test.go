package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A workshop is a copy of the scripts, and programs in the place of docker, go and
// busybox: nothing is built or started.
type workshop struct {
	root string
	path string // of the programs
	env  []string
}

func newWorkshop(t *testing.T) workshop {
	t.Helper()
	w := workshop{root: t.TempDir(), path: t.TempDir()}
	if err := os.CopyFS(filepath.Join(w.root, "scripts"), os.DirFS("scripts")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Dockerfile.alpine", "compose.yaml", "go.mod", "go.sum"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.root, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.program(t, "docker", "exit 0")
	w.program(t, "go", "exit 0")
	return w
}

// program puts a shell script into the PATH.
func (w workshop) program(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.path, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// command is the script, called from another folder.
func (w workshop) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(w.root, "scripts", name), args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + w.path + ":/usr/bin:/bin", "HOME=" + w.root}, w.env...)
	return cmd
}

// scriptPatience is for hundreds of processes, each of which is fast on an idle machine.
const scriptPatience = 5 * time.Minute

// run runs the script to its end.
func (w workshop) run(t *testing.T, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return executeWithin(t, scriptPatience, w.command(name, args...))
}

func TestScriptsSayWhatDockerLacksInOneLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, docker, want string }{
		{"not running", `echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?" >&2; exit 1`,
			"error: Docker does not run: start it with sudo systemctl start docker, or start Docker Desktop\n"},
		{"no permission", `printf 'permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock:\nGet "http://x": dial unix: connect: permission denied\n' >&2; exit 1`,
			"error: you may not use Docker: sudo usermod -aG docker "},
		{"another mistake", `printf 'error during connect: this is\n odd\n' >&2; exit 1`, "error: Docker does not answer: this is odd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkshop(t)
			w.program(t, "docker", tc.docker)
			for _, script := range [][]string{{"up.sh"}, {"history.sh"}, {"look.sh", "audit"}, {"compose.sh", "ps"}, {"base-images.sh"}} {
				code, stdout, stderr := w.run(t, script[0], script[1:]...)
				last := stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:]
				if code != 1 || stdout != "" || !strings.HasPrefix(last, tc.want) || strings.Count(stderr, "error") > strings.Count(tc.want, "error") {
					t.Errorf("%q = %d, %q, %q, want 1 and the one line %q", script, code, stdout, stderr, tc.want)
				}
			}
		})
	}
}

// A flag is no file: one was built once that was called --help.
func TestBuildRefusesWhatIsNoFile(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"-o"}, {}} {
		w := newWorkshop(t)
		code, _, stderr := w.run(t, "build.sh", args...)
		if code != 2 || !strings.Contains(stderr, "scripts/build.sh OUT") {
			t.Errorf("build.sh %q = %d, %q, want 2 and what is to be written", args, code, stderr)
		}
	}
}

func TestBuildSaysThatGoIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	cmd := w.command("build.sh", "x")
	if err := os.Remove(filepath.Join(w.path, "go")); err != nil {
		t.Fatal(err)
	}
	// Without the folder of this machine's Go.
	for _, name := range []string{"sh", "dirname"} {
		target, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(w.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Env = []string{"PATH=" + w.path}
	if code, _, stderr := executeWithin(t, scriptPatience, cmd); code != 1 || stderr != "error: go is missing: get it from https://go.dev/dl\n" {
		t.Errorf("build.sh = %d, %q, want 1 and that go is missing", code, stderr)
	}
}

// noRegistry is a docker that has no image and reaches no registry. It counts what it is
// asked to pull.
const noRegistry = `
case "$1 $2" in
"image inspect") exit 1 ;;
"pull "*)
	echo "$2" >>"$HOME/pulled"
	echo "Using default tag: latest"
	echo 'Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host' >&2
	exit 1 ;;
"import "*) cat >/dev/null ;;
esac`

// withoutRegistry is a workshop in which base images can be made in no time.
func withoutRegistry(t *testing.T) workshop {
	t.Helper()
	w := newWorkshop(t)
	w.program(t, "docker", noRegistry)
	// The toolchain is what tar finds in there.
	goroot := filepath.Join(w.root, "goroot")
	for _, name := range []string{"VERSION", "go.env", "bin/go", "pkg/x", "src/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(goroot, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(goroot, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.program(t, "go", `
case "$1 $2" in
"env GOROOT") echo "$HOME/goroot" ;;
"env GOMODCACHE") echo "$HOME/mod" ;;
"mod download") mkdir -p "$GOMODCACHE/cache/download" ;;
"build "*) [ -z "${NO_SPACE:-}" ] || { echo "write x: no space left on device" >&2; exit 1; }
	while [ $# -gt 0 ]; do [ "$1" != -o ] || : >"$2"; shift; done ;;
esac`)
	w.program(t, "busybox", "echo sh")

	var archive bytes.Buffer
	to := tar.NewWriter(&archive)
	if err := to.WriteHeader(&tar.Header{Name: "./etc/alpine-release", Mode: 0o644, Size: 7}); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Write([]byte("3.20.3\n")); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(w.root, "rootfs.tar")
	if err := os.WriteFile(rootfs, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(w.root, "ca.crt")
	if err := os.WriteFile(ca, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env = []string{"ALPINE_ROOTFS=" + rootfs, "BUSYBOX=" + filepath.Join(w.path, "busybox"), "SSL_CERT_FILE=" + ca}
	return w
}

func TestARegistryThatDoesNotAnswerIsSaidOnce(t *testing.T) {
	t.Parallel()
	w := withoutRegistry(t)
	code, _, stderr := w.run(t, "base-images.sh")
	pulled, _ := os.ReadFile(filepath.Join(w.root, "pulled"))
	chosen, _ := os.ReadFile(filepath.Join(w.root, ".tools/images.env"))
	if code != 0 || strings.Count(string(pulled), "\n") != 1 || strings.Count(stderr, "no registry answers") != 1 || strings.Contains(stderr, "Error response") {
		t.Errorf("base-images.sh = %d, asked for %q, and says\n%s\nwant one question and one line", code, pulled, stderr)
	}
	if want := "GO_IMAGE=imagelab-base/go\nALPINE_IMAGE=imagelab-base/alpine:3.20.3\nPROMETHEUS_IMAGE=imagelab-base/prometheus:v3.16.0\n"; string(chosen) != want {
		t.Errorf("images.env = %q, want %q", chosen, want)
	}
}

func TestAnImageThatCannotBePulledIsSaidInOneLine(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.program(t, "docker", strings.Replace(noRegistry, `Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host`, "pull access denied for nope", 1))
	w.env = []string{"GO_IMAGE=nope"}
	code, _, stderr := w.run(t, "base-images.sh")
	if want := "nope cannot be pulled: pull access denied for nope\nerror: GO_IMAGE=nope is not here and cannot be pulled\n"; code != 1 || stderr != want {
		t.Errorf("base-images.sh = %d, %q, want 1 and %q", code, stderr, want)
	}
}

func TestAFullDiskIsSaid(t *testing.T) {
	t.Parallel()
	w := withoutRegistry(t)
	w.env = append(w.env, "NO_SPACE=yes")
	code, _, stderr := w.run(t, "base-images.sh")
	if code != 1 || !strings.Contains(stderr, "error: making imagelab-base/prometheus:v3.16.0: the disk is full") || !strings.Contains(stderr, ".tools/log/base-prometheus.log") {
		t.Errorf("base-images.sh = %d and says\n%s\nwant 1, that the disk is full, and where the rest stands", code, stderr)
	}
}

func TestLongStepsShowASignOfLife(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.program(t, "docker", `
case "$1 $2" in
"image inspect") exit 1 ;;
"pull "*) while [ ! -e "$HOME/enough" ]; do sleep 0.1; done; echo denied >&2; exit 1 ;;
esac`)
	w.env = []string{"GO_IMAGE=slow"}
	reader, terminal := openTerminal(t)
	cmd := w.command("base-images.sh")
	cmd.Stderr = terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	overdue := time.AfterFunc(scriptPatience, func() { _ = cmd.Process.Kill() })
	defer overdue.Stop()
	shown := ""
	for buf := make([]byte, 4096); !strings.Contains(shown, "pulling slow … 0:0"); {
		n, err := reader.Read(buf)
		if err != nil {
			t.Fatalf("the terminal shows %q, %v, want a line that counts", shown, err)
		}
		shown += string(buf[:n])
	}
	if err := os.WriteFile(filepath.Join(w.root, "enough"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rest := bufio.NewScanner(reader)
	for rest.Scan() {
		shown = rest.Text()
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(shown, "error: GO_IMAGE=slow is not here") {
		t.Errorf("base-images.sh: %v, last line %q, want a failure in words", err, shown)
	}
}

func TestHistoryBeginsWithTheVerdict(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.program(t, "docker", `
case "$*" in
*"{{.Size}} imagelab:scratch") echo 10410000 ;;
*"{{.Size}} imagelab:alpine") echo 17990000 ;;
*base.name*scratch) echo nothing ;;
*base.name*alpine) echo alpine:3.24 ;;
history*) printf '%s\t%s\n' \
	0 'HEALTHCHECK &{["CMD" "/imagelab" "--healthcheck"] "5s" "3s" "2s" "0s" '"'\\\\x03'"'}' \
	0 'HEALTHCHECK &{["CMD-SHELL" "wget -q http://127.0.0.1:8000/health"] "5s" "3s" "2s" "0s" '"'\\\\x03'"'}' \
	0 'EXPOSE map[8000/tcp:{} 9000/tcp:{}]' \
	0 'ENTRYPOINT ["/imagelab"]' \
	10174626 'COPY /out/imagelab /imagelab # buildkit' \
	3072 'RUN |2 LAB_LOGIN=x LAB_TOKEN=y /bin/sh -c addgroup -S app && adduser -S app # buildkit' \
	0 '/bin/sh -c #(nop)  CMD ["/bin/sh"]' \
	7800000 '' \
	0 "LABEL a=$(printf %0200d 1)" ;;
esac`)
	code, stdout, stderr := w.run(t, "history.sh")
	lines := strings.Split(stdout, "\n")
	if want := "imagelab:scratch is the smaller one: 10.41 MB, 7.58 MB (42 %) below imagelab:alpine."; code != 0 || stderr != "" || lines[0] != want {
		t.Fatalf("history.sh = %d, %q, %q, want 0 and %q first", code, stderr, stdout, want)
	}
	for _, line := range lines {
		if utf8.RuneCountInString(line) > 100 {
			t.Errorf("history.sh has a line of more than 100 columns: %q", line)
		}
	}
	for _, want := range []string{
		"         -  EXPOSE 8000/tcp 9000/tcp\n",
		`         -  HEALTHCHECK --interval=5s --timeout=3s --start-period=2s CMD ["/imagelab",` + "\n                \"--healthcheck\"]\n",
		`         -  HEALTHCHECK --interval=5s --timeout=3s --start-period=2s CMD wget -q` + "\n                http://127.0.0.1:8000/health\n",
		"  10.17 MB  COPY /out/imagelab /imagelab\n",
		"    3.1 kB  RUN addgroup -S app && adduser -S app\n",
		"         -  CMD [\"/bin/sh\"]\n",
		"   7.80 MB  (an imported archive)\n",
		"imagelab:alpine: 17.99 MB on alpine:3.24\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("history.sh has no line %q in\n%s", want, stdout)
		}
	}
}

func TestLookingIntoTheStack(t *testing.T) {
	t.Parallel()
	const running = `
case "$1 $*" in
"ps "*service=scratch*) echo id-of-scratch ;;
"ps "*service=alpine*) echo id-of-alpine ;;
"exec "*) echo "$@" ;;
esac`
	for _, tc := range []struct {
		name, docker   string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"audit", running, []string{"audit"}, 0, "exec id-of-scratch /imagelab --audit\n", ""},
		{"audit of the other", running, []string{"audit", "alpine", "--format", "json"}, 0, "exec id-of-alpine /imagelab --audit --format json\n", ""},
		{"audit with a flag alone", running, []string{"audit", "--format=json"}, 0, "exec id-of-scratch /imagelab --audit --format=json\n", ""},
		{"audit of none", running, []string{"audit", "prometheus"}, 1, "", "error: no service prometheus: want scratch or alpine\n"},
		{"compare", running, []string{"compare", "--format", "markdown"}, 0,
			"exec id-of-scratch /imagelab --compare --format markdown scratch=http://scratch:9000 alpine=http://alpine:9000\n", ""},
		{"audit without a stack", "exit 0", []string{"audit"}, 1, "", "error: the service scratch does not run: make up starts it\n"},
		{"compare without a stack", "exit 0", []string{"compare"}, 1, "", "error: the service scratch does not run: make up starts it\n"},
		{"compare of half a stack", strings.Replace(running, "service=alpine", "service=none", 1), []string{"compare"}, 1, "", "error: the service alpine does not run: make up starts it\n"},
		{"neither", running, nil, 1, "", "error: want audit or compare: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkshop(t)
			w.program(t, "docker", tc.docker)
			code, stdout, stderr := w.run(t, "look.sh", tc.args...)
			if code != tc.code || stdout != tc.stdout || !strings.HasPrefix(stderr, tc.stderr) || (stderr == "") != (tc.stderr == "") {
				t.Errorf("look.sh %q = %d, %q, %q, want %d, %q, %q", tc.args, code, stdout, stderr, tc.code, tc.stdout, tc.stderr)
			}
		})
	}
}

func TestRunPrintsWhereThePageIs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, environ, want string }{
		{"as it is", "", "app         http://localhost:8000/\ndashboard   http://127.0.0.1:9000/\nmetrics     http://127.0.0.1:9000/metrics\n"},
		{"other ports, on all interfaces", "PORT=81\nIMAGELAB_OPS_ADDR=:91", "app         http://localhost:81/\ndashboard   http://localhost:91/\n"},
		{"one port", "IMAGELAB_OPS_ADDR=", "app         http://localhost:8000/\ndashboard   http://localhost:8000/-/\nmetrics     http://localhost:8000/-/metrics\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorkshop(t)
			w.env = strings.Fields(tc.environ)
			if err := os.WriteFile(filepath.Join(w.root, "imagelab"), []byte("#!/bin/sh\nexit 7\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := w.run(t, "run.sh")
			if code != 7 || !strings.HasPrefix(stderr, tc.want) {
				t.Errorf("run.sh = %d, %q, want the program's 7 and %q", code, stderr, tc.want)
			}
		})
	}
}

func TestMutateRefusesAPackageThatIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.program(t, "go", `[ "$1" != list ] || { echo "stat nope: directory not found" >&2; exit 1; }`)
	tools := filepath.Join(w.root, ".tools")
	if err := os.MkdirAll(filepath.Join(w.root, "docs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(tools, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		filepath.Join(w.root, "docs", "mutants.md"): "",
		filepath.Join(tools, "gremlins-v0.6.0"):     "#!/bin/sh\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := w.run(t, "mutate.sh", "./nope")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "error: no package ./nope: want a folder such as ./internal/compare") {
		t.Errorf("mutate.sh ./nope = %d, %q, %q", code, stdout, stderr)
	}
}

// TestPeersAreBuiltOnceAtTheVersionsOfTheirPage: the tools that the audit is compared with.
func TestPeersAreBuiltOnceAtTheVersionsOfTheirPage(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.program(t, "go", `
echo "$*" >>"$HOME/asked"
[ "$1" != build ] || while [ $# -gt 0 ]; do [ "$1" != -o ] || { echo "#!/bin/sh" >"$2"; chmod +x "$2"; }; shift; done`)
	if err := os.MkdirAll(filepath.Join(w.root, "e2e"), 0o700); err != nil {
		t.Fatal(err)
	}
	page := readPage(t, "docs/audit-peers.md")
	peers := regexp.MustCompile(`(?m)^peer (\S+) (\S+) "\$(\w+)"$`).FindAllStringSubmatch(readPage(t, "scripts/audit-peers.sh"), -1)
	if len(peers) == 0 {
		t.Fatal("audit-peers.sh builds no peer")
	}
	for round := range 2 {
		asked := filepath.Join(w.root, "asked")
		_ = os.Remove(asked)
		if code, _, stderr := w.run(t, "audit-peers.sh", "-v"); code != 0 {
			t.Fatalf("audit-peers.sh = %d, %s", code, stderr)
		}
		got := readPage(t, asked)
		for _, peer := range peers {
			version := regexp.MustCompile(`(?m)^` + peer[3] + `=(\S+)$`).FindStringSubmatch(readPage(t, "scripts/audit-peers.sh"))
			if version == nil || !regexp.MustCompile(peer[1]+`\S* (is )?`+regexp.QuoteMeta(version[1])).MatchString(page) {
				t.Errorf("docs/audit-peers.md does not name the version of %s, %q", peer[1], version)
				continue
			}
			if has := strings.Contains(got, "get "+peer[2]+"@"+version[1]+"\n"); has != (round == 0) {
				t.Errorf("round %d: %s %s was built: %t, want it once", round, peer[1], version[1], has)
			}
			if _, err := os.Stat(filepath.Join(w.root, ".tools", "peers", peer[1])); err != nil {
				t.Error(err)
			}
		}
		if want := " . -peers " + filepath.Join(w.root, ".tools", "peers") + " -v\n"; !strings.HasSuffix(got, want) {
			t.Errorf("audit-peers.sh asks for %q, want the tests with %q at the end", got, want)
		}
	}
}

func TestMakeHelpFitsIntoAHundredColumns(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := executeWithin(t, scriptPatience, exec.Command("make", "help"))
	if code != 0 || !strings.Contains(stdout, "make bench ") {
		t.Fatalf("make help = %d, %q, %q", code, stdout, stderr)
	}
	for line := range strings.Lines(stdout) {
		if len(line) > 101 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
