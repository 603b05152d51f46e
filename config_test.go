package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEveryFieldIsAVariableWithADescription(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, v := range variables() {
		if v.Name == "" || v.Desc == "" || v.want == "" || seen[v.Name] {
			t.Errorf("Config.%s: env %q, desc %q, want %q: each is needed, and the first only once", v.field.Name, v.Name, v.Desc, v.want)
		}
		seen[v.Name] = true
		if _, lo := v.field.Tag.Lookup("min"); lo {
			if _, hi := v.field.Tag.Lookup("max"); !hi {
				t.Errorf("%s has a min and no max", v.Name)
			}
		}
	}
	if len(seen) != reflect.TypeFor[Config]().NumField() {
		t.Errorf("variables() has %d of %d fields", len(seen), reflect.TypeFor[Config]().NumField())
	}
}

func TestConfigurationPageHasEveryVariable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variables() {
		row := ""
		for line := range strings.Lines(string(page)) {
			if strings.HasPrefix(line, "|") && strings.Contains(line, "`"+v.Name+"`") {
				row = line
			}
		}
		if row == "" || v.Default != "" && !strings.Contains(row, "`"+v.Default+"`") {
			t.Errorf("docs/configuration.md on %s = %q, want a row of its table with the default `%s`", v.Name, row, v.Default)
		}
	}
}

func TestBadConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty, newline, abc, large := file("empty", ""), file("newline", "\r\n"), file("abc", "abc\n"), file("large", strings.Repeat("x", 2<<20))
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}

	const (
		port     = "want a port from 1 to 65535, or 0 for any free one"
		boolean  = "want true or false"
		duration = "want a duration such as 250ms or 8s, from "
		size     = "want a size such as 512KiB, 16MiB or 150MB, from 0B to 1TiB"
		ops      = "want host:port such as :9000 or 127.0.0.1:9000, or nothing for /-/ on the app listener"
		bind     = "want an IP address or a host name without a port, or nothing for all interfaces"
		upstream = "want a port of 127.0.0.1 such as 3000, http://host:port, unix:///path.sock, or with a command auto"
		networks = "want networks with commas between, such as 10.0.0.0/8,192.168.1.7,fd00::/8"
	)
	for _, tc := range []struct {
		name    string
		environ []string
		want    []string // lines, in order; each as the line begins
	}{
		{"port that is a word", []string{"PORT=http"}, []string{`PORT="http": ` + port}},
		{"port of a Kubernetes service link", []string{"PORT=tcp://10.0.0.1:80"}, []string{`PORT="tcp://10.0.0.1:80": ` + port}},
		{"port above", []string{"PORT=65536"}, []string{`PORT="65536": ` + port}},
		{"port below", []string{"PORT=-1"}, []string{`PORT="-1": ` + port}},
		{"port with a space", []string{"PORT= 80"}, []string{`PORT=" 80": ` + port}},
		{"port with a fraction", []string{"PORT=80.0"}, []string{`PORT="80.0": ` + port}},
		{"port of more than a number holds", []string{"PORT=99999999999999999999"}, []string{`PORT="99999999999999999999": ` + port}},
		{"ports that are equal", []string{"PORT=9000"}, []string{`PORT="9000" and IMAGELAB_OPS_ADDR=":9000" are the same port: want two ports`}},
		{"ports that are equal on one address", []string{"PORT=90", "IMAGELAB_BIND_ADDRESS=127.0.0.1", "IMAGELAB_OPS_ADDR=127.0.0.1:90"}, []string{`PORT="90" and IMAGELAB_OPS_ADDR="127.0.0.1:90" are the same port: want two ports`}},
		{"ops address without a port", []string{"IMAGELAB_OPS_ADDR=127.0.0.1"}, []string{`IMAGELAB_OPS_ADDR="127.0.0.1": ` + ops}},
		{"ops address that is a port", []string{"IMAGELAB_OPS_ADDR=9000"}, []string{`IMAGELAB_OPS_ADDR="9000": ` + ops}},
		{"ops address that is a URL", []string{"IMAGELAB_OPS_ADDR=http://127.0.0.1:9000/"}, []string{`IMAGELAB_OPS_ADDR="http://127.0.0.1:9000/": ` + ops}},
		{"ops port above", []string{"IMAGELAB_OPS_ADDR=:65536"}, []string{`IMAGELAB_OPS_ADDR=":65536": ` + ops}},
		{"bind address with a port", []string{"IMAGELAB_BIND_ADDRESS=127.0.0.1:80"}, []string{`IMAGELAB_BIND_ADDRESS="127.0.0.1:80": ` + bind}},
		{"bind address in brackets", []string{"IMAGELAB_BIND_ADDRESS=[::1]"}, []string{`IMAGELAB_BIND_ADDRESS="[::1]": ` + bind}},
		{"negative duration", []string{"IMAGELAB_DRAIN_DELAY=-1s"}, []string{`IMAGELAB_DRAIN_DELAY="-1s": ` + duration + "0s to 10m"}},
		{"duration of zero where it means never", []string{"IMAGELAB_READ_HEADER_TIMEOUT=0s"}, []string{`IMAGELAB_READ_HEADER_TIMEOUT="0s": ` + duration + "1ms to 1h"}},
		{"absurd duration", []string{"IMAGELAB_SHUTDOWN_TIMEOUT=87600h"}, []string{`IMAGELAB_SHUTDOWN_TIMEOUT="87600h": ` + duration + "0s to 1h"}},
		{"duration of more than a number holds", []string{"IMAGELAB_IDLE_TIMEOUT=99999999999h"}, []string{`IMAGELAB_IDLE_TIMEOUT="99999999999h": ` + duration}},
		{"duration without unit", []string{"IMAGELAB_READ_TIMEOUT=30"}, []string{`IMAGELAB_READ_TIMEOUT="30": ` + duration}},
		{"negative size", []string{"IMAGELAB_MAX_BODY=-1MiB"}, []string{`IMAGELAB_MAX_BODY="-1MiB": ` + size}},
		{"absurd size", []string{"IMAGELAB_MAX_BODY=2TiB"}, []string{`IMAGELAB_MAX_BODY="2TiB": ` + size}},
		{"size of more than a number holds", []string{"IMAGELAB_MAX_BODY=99999999EiB"}, []string{`IMAGELAB_MAX_BODY="99999999EiB": ` + size}},
		{"size of an unknown unit", []string{"IMAGELAB_MAX_BODY=1 loaf"}, []string{`IMAGELAB_MAX_BODY="1 loaf": ` + size}},
		{"size that is none", []string{"IMAGELAB_MAX_BODY=NaN"}, []string{`IMAGELAB_MAX_BODY="NaN": ` + size}},
		{"blob of more than the store", []string{"IMAGELAB_STORE_MAX_BLOB=2MiB", "IMAGELAB_STORE_CAPACITY=1MiB"}, []string{`IMAGELAB_STORE_MAX_BLOB="2MiB" is more than IMAGELAB_STORE_CAPACITY="1MiB": want at most that`}},
		{"negative number", []string{"IMAGELAB_MAX_CONNS=-1"}, []string{`IMAGELAB_MAX_CONNS="-1": want a number of connections, or 0 to derive it`}},
		{"absurd number", []string{"IMAGELAB_MAX_IN_FLIGHT=1000001"}, []string{`IMAGELAB_MAX_IN_FLIGHT="1000001": want a number of requests, or 0 to derive it`}},
		{"bool that is none", []string{"IMAGELAB_FAULTS=yes"}, []string{`IMAGELAB_FAULTS="yes": ` + boolean}},
		{"log level that is none", []string{"IMAGELAB_LOG_LEVEL=verbose"}, []string{`IMAGELAB_LOG_LEVEL="verbose": want debug, info, warn or error`}},
		{"log format that is none", []string{"IMAGELAB_LOG_FORMAT=xml"}, []string{`IMAGELAB_LOG_FORMAT="xml": want json or text`}},
		{"access log that is none", []string{"IMAGELAB_ACCESS_LOG=true"}, []string{`IMAGELAB_ACCESS_LOG="true": want errors, all or off`}},
		{"relative data directory", []string{"IMAGELAB_DATA_DIR=tmp"}, []string{`IMAGELAB_DATA_DIR="tmp": want an absolute path`}},
		{"upstream that is a word", []string{"IMAGELAB_UPSTREAM=app"}, []string{`IMAGELAB_UPSTREAM="app": ` + upstream}},
		{"upstream without a scheme", []string{"IMAGELAB_UPSTREAM=127.0.0.1:3000"}, []string{`IMAGELAB_UPSTREAM="127.0.0.1:3000": ` + upstream}},
		{"upstream over TLS", []string{"IMAGELAB_UPSTREAM=https://app:3000"}, []string{`IMAGELAB_UPSTREAM="https://app:3000": ` + upstream}},
		{"upstream with a path", []string{"IMAGELAB_UPSTREAM=http://app:3000/v1"}, []string{`IMAGELAB_UPSTREAM="http://app:3000/v1": ` + upstream}},
		{"upstream with a password", []string{"IMAGELAB_UPSTREAM=http://me:Zq7@app"}, []string{`IMAGELAB_UPSTREAM=(redacted): ` + upstream}},
		{"upstream of port 0", []string{"IMAGELAB_UPSTREAM=0"}, []string{`IMAGELAB_UPSTREAM="0": ` + upstream}},
		{"upstream above all ports", []string{"IMAGELAB_UPSTREAM=http://app:65536"}, []string{`IMAGELAB_UPSTREAM="http://app:65536": ` + upstream}},
		{"upstream that is a relative socket", []string{"IMAGELAB_UPSTREAM=unix://app.sock"}, []string{`IMAGELAB_UPSTREAM="unix://app.sock": ` + upstream}},
		{"upstream that is a socket of too long a path", []string{"IMAGELAB_UPSTREAM=unix:///" + strings.Repeat("x", 107)}, []string{`IMAGELAB_UPSTREAM="unix:///xxx`}},
		{"upstream that is the app listener", []string{"PORT=3000", "IMAGELAB_UPSTREAM=3000"}, []string{`IMAGELAB_UPSTREAM="3000" is where the app listener is, PORT="3000": want another port`}},
		{"upstream that is the app listener on an address", []string{"PORT=80", "IMAGELAB_BIND_ADDRESS=10.0.0.7", "IMAGELAB_UPSTREAM=http://10.0.0.7"}, []string{`IMAGELAB_UPSTREAM="http://10.0.0.7" is where the app listener is`}},
		{"upstream that is the ops listener", []string{"IMAGELAB_UPSTREAM=http://localhost:9000"}, []string{`IMAGELAB_UPSTREAM="http://localhost:9000" is where the ops listener is, IMAGELAB_OPS_ADDR=":9000": want another port`}},
		{"upstream of a command that is not there", []string{"IMAGELAB_UPSTREAM=auto"}, []string{`IMAGELAB_UPSTREAM="auto" needs a command`}},
		{"network that is none", []string{"IMAGELAB_TRUSTED_PROXIES=10.0.0.0/8,proxy"}, []string{`IMAGELAB_TRUSTED_PROXIES="10.0.0.0/8,proxy": ` + networks}},
		{"network that is an address within one", []string{"IMAGELAB_TRUSTED_PROXIES=10.0.0.7/8"}, []string{`IMAGELAB_TRUSTED_PROXIES="10.0.0.7/8": ` + networks}},
		{"unknown name", []string{"IMAGELAB_DRAIN_DELAI=1s"}, []string{"IMAGELAB_DRAIN_DELAI is not a variable of imagelab, did you mean IMAGELAB_DRAIN_DELAY?"}},
		{"slip in the name of a file", []string{"IMAGELAB_OPS_TOKENS_FILE=/x"}, []string{"IMAGELAB_OPS_TOKENS_FILE is not a variable of imagelab, did you mean IMAGELAB_OPS_TOKEN_FILE?"}},
		{"slip in FILE", []string{"IMAGELAB_OPS_TOKEN_FIEL=/x"}, []string{"IMAGELAB_OPS_TOKEN_FIEL is not a variable of imagelab, did you mean IMAGELAB_OPS_TOKEN_FILE?"}},
		{"slip in a short name", []string{"IMAGELAB_PPORF=true"}, []string{"IMAGELAB_PPORF is not a variable of imagelab, did you mean IMAGELAB_PPROF?"}},
		{"slip of lower case", []string{"imagelab_peers=x"}, []string{"imagelab_peers is not a variable of imagelab, did you mean IMAGELAB_PEERS?"}},
		{"slip of mixed case, and of another kind", []string{"Imagelab_Peer=x"}, []string{"Imagelab_Peer is not a variable of imagelab, did you mean IMAGELAB_PEERS?"}},
		{"slip in the prefix", []string{"IMAGLAB_PEERS=x"}, []string{"IMAGLAB_PEERS is not a variable of imagelab, did you mean IMAGELAB_PEERS?"}},
		{"prefix in two words", []string{"IMAGE_LAB_OPS_TOKEN=Zq7"}, []string{"IMAGE_LAB_OPS_TOKEN is not a variable of imagelab, did you mean IMAGELAB_OPS_TOKEN?"}},
		{"byte order mark before a name, as of an env file", []string{"\ufeffIMAGELAB_FAULTS=true"}, []string{" IMAGELAB_FAULTS is not a variable of imagelab, did you mean IMAGELAB_FAULTS?"}},
		{"word written out", []string{"IMAGELAB_OPS_ADDRESS=:1"}, []string{"IMAGELAB_OPS_ADDRESS is not a variable of imagelab, did you mean IMAGELAB_OPS_ADDR?"}},
		{"word abbreviated", []string{"IMAGELAB_BIND_ADDR=::"}, []string{"IMAGELAB_BIND_ADDR is not a variable of imagelab, did you mean IMAGELAB_BIND_ADDRESS?"}},
		{"prefix where there is none", []string{"IMAGELAB_PORT=80"}, []string{"IMAGELAB_PORT is not a variable of imagelab, did you mean PORT?"}},
		{"prefix where there is none, of a file", []string{"IMAGELAB_SECRET_FILE=/x"}, []string{"IMAGELAB_SECRET_FILE is not a variable of imagelab, did you mean SECRET_FILE?"}},
		{"slip over two lines", []string{"IMAGELAB_PEERS\n\x1b=1"}, []string{"IMAGELAB_PEERS   is not a variable"}},
		{"value over two lines", []string{"PORT=80\n81"}, []string{`PORT="80\n81": ` + port}},
		{"slip inside of Kubernetes", []string{"KUBERNETES_SERVICE_HOST=10.0.0.1", "IMAGELAB_FAULT=1"}, []string{"IMAGELAB_FAULT is not a variable"}},
		{"file and value", []string{"SECRET=hidden", "SECRET_FILE=" + abc}, []string{"SECRET and SECRET_FILE are both set: unset one"}},
		{"file and value, the value wrong as well", []string{"PORT=def", "PORT_FILE=" + abc}, []string{"PORT and PORT_FILE are both set: unset one"}},
		{"value beside a file that is missing, wrong as well", []string{"PORT=def", "PORT_FILE=/no/such"}, []string{"PORT and PORT_FILE are both set: unset one"}},
		{"file of UTF-16, as PowerShell writes it", []string{"SECRET_FILE=" + file("utf16", "\xff\xfea\x00b\x00\r\x00\n\x00")}, []string{"SECRET_FILE: " + strconv.Quote(dir+"/utf16") + " is UTF-16, as PowerShell's > writes it: want UTF-8; write it with "}},
		{"file of UTF-16, the big end first", []string{"PORT_FILE=" + file("utf16be", "\xfe\xff\x008\x000")}, []string{"PORT_FILE: " + strconv.Quote(dir+"/utf16be") + " is UTF-16, "}},
		{"file of UTF-32", []string{"SECRET_FILE=" + file("utf32", "\xff\xfe\x00\x00a\x00\x00\x00")}, []string{"SECRET_FILE: " + strconv.Quote(dir+"/utf32") + " is UTF-32, "}},
		{"file of UTF-32, the big end first", []string{"SECRET_FILE=" + file("utf32be", "\x00\x00\xfe\xff\x00\x00\x00a")}, []string{"SECRET_FILE: " + strconv.Quote(dir+"/utf32be") + " is UTF-32, "}},
		{"file of UTF-16 without a mark", []string{"SECRET_FILE=" + file("nul", "a\x00b\x00")}, []string{"SECRET_FILE: " + strconv.Quote(dir+"/nul") + " has NUL bytes, as UTF-16 and binary files do: want UTF-8"}},
		{"file that ends with NUL", []string{"IMAGELAB_OPS_TOKEN_FILE=" + file("nulend", "ab\x00")}, []string{"IMAGELAB_OPS_TOKEN_FILE: " + strconv.Quote(dir+"/nulend") + " has NUL bytes"}},
		{"file of a byte order mark", []string{"SECRET_FILE=" + file("mark", "\ufeff\r\n")}, []string{"SECRET_FILE: " + strconv.Quote(dir+"/mark") + " is empty"}},
		{"file that is missing", []string{"SECRET_FILE=/no/such"}, []string{fmt.Sprintf(`SECRET_FILE: "/no/such", read by uid %d: no such file or directory`, os.Geteuid())}},
		{"file that is missing, for each rule", []string{"IMAGELAB_DATA_DIR_FILE=/no/such", "IMAGELAB_OPS_ADDR_FILE=/no/such", "IMAGELAB_LOG_FORMAT_FILE=/no/such"},
			[]string{"IMAGELAB_OPS_ADDR_FILE: ", "IMAGELAB_LOG_FORMAT_FILE: ", "IMAGELAB_DATA_DIR_FILE: "}},
		{"file that is a directory", []string{"SECRET_FILE=" + dir}, []string{fmt.Sprintf("SECRET_FILE: %q is not a regular file", dir)}},
		{"file that is a pipe", []string{"PORT_FILE=" + dir + "/fifo"}, []string{fmt.Sprintf("PORT_FILE: %q is not a regular file", dir+"/fifo")}},
		{"file that never ends", []string{"SECRET_FILE=/dev/zero"}, []string{`SECRET_FILE: "/dev/zero" is not a regular file`}},
		{"file without content", []string{"SECRET_FILE=" + empty}, []string{fmt.Sprintf("SECRET_FILE: %q is empty", empty)}},
		{"file of a newline", []string{"IMAGELAB_OPS_TOKEN_FILE=" + newline}, []string{fmt.Sprintf("IMAGELAB_OPS_TOKEN_FILE: %q is empty", newline)}},
		{"file that is too large", []string{"SECRET_FILE=" + large}, []string{fmt.Sprintf("SECRET_FILE: %q has more than 1048576 bytes", large)}},
		{"value of a file", []string{"PORT_FILE=" + abc}, []string{fmt.Sprintf("PORT (in the file %q): ", abc) + port}},
		{"everything in one go", []string{"PORT=abc", "IMAGELAB_MAX_BODY=-1", "IMAGELAB_FAULT=1", "IMAGELAB_PPROF=on", "SECRET_FILE=/no/such", "IMAGELAB_DRAIN_DELAY=1"}, []string{
			"IMAGELAB_FAULT ", "SECRET_FILE: ", `PORT="abc"`, `IMAGELAB_DRAIN_DELAY="1"`, `IMAGELAB_MAX_BODY="-1"`, `IMAGELAB_PPROF="on"`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(t, tc.environ)
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			if code != 2 || stdout != "" || lines[0] != "imagelab: bad configuration:" || len(lines) != 1+len(tc.want) {
				t.Fatalf("run with %q = %d, stdout %q, stderr:\n%s\nwant 2 and %d errors", tc.environ, code, stdout, stderr, len(tc.want))
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(lines[i+1], "  "+want) {
					t.Errorf("run with %q: error %q, want %q", tc.environ, lines[i+1], want)
				}
			}
		})
	}
}

// asUser runs the program as the user of the images, for what root may do anyway.
func asUser(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	// Not the binary's own path, which other users may not walk.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(environ, asProgram+"=1")
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	}
	return execute(t, cmd)
}

// execute runs cmd to its end.
func execute(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	return executeWithin(t, patience, cmd)
}

// executeWithin is execute for what may take longer.
func executeWithin(t *testing.T, limit time.Duration, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer overdue.Stop()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String(), complaints.String()
}

func TestUnreadableFileSaysWhoMayReadIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, []byte("hidden"), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 { // then it is one's own
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for others to get there
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	reader := os.Geteuid()
	if reader == 0 {
		reader = 65532
	}
	want := fmt.Sprintf("SECRET_FILE: %q, owner %d:%d, mode %04o, read by uid %d: permission denied; make it readable",
		path, os.Geteuid(), info.Sys().(*syscall.Stat_t).Gid, info.Mode().Perm(), reader)
	code, _, stderr := asUser(t, []string{"SECRET_FILE=" + path})
	if code != 2 || !strings.Contains(stderr, want) || strings.Contains(stderr, "hidden") {
		t.Errorf("run = %d %q, want 2 %q", code, stderr, want)
	}
	code, stdout, stderr := asUser(t, []string{"PORT_FILE=" + path}, "--healthcheck")
	want = "unhealthy: " + strings.Replace(want, "SECRET_FILE", "PORT_FILE", 1)
	line := strings.TrimSuffix(stdout, "...\n")
	if code != 1 || !strings.HasPrefix(line, want) && !strings.HasPrefix(want, line) {
		t.Errorf("--healthcheck = %d %q, want 1 %q", code, stdout, want)
	}
	checkVerdict(t, code, stdout, stderr)
}

func TestServiceLinksAreNotMistakes(t *testing.T) {
	t.Parallel()
	// What a pod gets of Services named imagelab and imagelab-canary.
	environ := []string{"KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_PORT=tcp://10.0.0.1:443"}
	for _, prefix := range []string{"IMAGELAB", "IMAGELAB_CANARY"} {
		for _, link := range []string{
			"SERVICE_HOST=10.0.0.2", "SERVICE_PORT=8000", "SERVICE_PORT_HTTP=8000", "PORT=tcp://10.0.0.2:8000",
			"PORT_8000_TCP=tcp://10.0.0.2:8000", "PORT_8000_TCP_PROTO=tcp", "PORT_8000_TCP_PORT=8000", "PORT_8000_TCP_ADDR=10.0.0.2",
		} {
			environ = append(environ, prefix+"_"+link)
		}
	}
	start(t, environ...)
}

// warnings returns what the log warns of, by one key of its records.
func (b *logBuffer) warnings(key string) map[string]map[string]any {
	found := map[string]map[string]any{}
	for line := range strings.Lines(b.String()) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) == nil && record["level"] == "WARN" && record[key] != nil {
			found[fmt.Sprint(record[key])] = record
		}
	}
	return found
}

func TestStrangeNamesAreNamedInTheLog(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		environ []string
		want    []string // names; none means no warning
	}{
		{"a Dockerfile's own", []string{"IMAGELAB_VERSION=1.2"}, []string{"IMAGELAB_VERSION"}},
		{"several, in one line", []string{"IMAGELAB_HOME=/x", "IMAGELAB_BUILD=7"}, []string{"IMAGELAB_BUILD", "IMAGELAB_HOME"}},
		{"a Docker link", []string{
			"IMAGELAB_PORT=tcp://172.17.0.2:8000", "IMAGELAB_PORT_8000_TCP=tcp://172.17.0.2:8000", "IMAGELAB_PORT_8000_TCP_ADDR=172.17.0.2",
			"IMAGELAB_PORT_8000_TCP_PORT=8000", "IMAGELAB_PORT_8000_TCP_PROTO=tcp", "IMAGELAB_NAME=/a/imagelab", "IMAGELAB_ENV_ROCKET_SIZE=Medium",
		}, []string{"IMAGELAB_ENV_ROCKET_SIZE", "IMAGELAB_NAME"}},
		{"service links outside of Kubernetes", []string{"IMAGELAB_SERVICE_HOST=10.0.0.1", "IMAGELAB_SERVICE_PORT=80"}, nil},
		{"a port that is no link", []string{"IMAGELAB_METRICS_PORT=9000"}, []string{"IMAGELAB_METRICS_PORT"}},
		{"far from each of ours", []string{"IMAGELAB_FOO=1"}, []string{"IMAGELAB_FOO"}},
		{"the beginning of one of ours", []string{"IMAGELAB_IMAGE=x:y"}, []string{"IMAGELAB_IMAGE"}},
		{"the prefix alone", []string{"IMAGELAB_=x"}, []string{"IMAGELAB_"}},
		{"lower case", []string{"imagelab_version=1"}, []string{"imagelab_version"}},
		{"over two lines", []string{"IMAGELAB_LONG_\n\x1b[2J=1"}, []string{"IMAGELAB_LONG_  [2J"}},
		{"of other programs", []string{"GITLAB_TOKEN=Zq7", "MATLAB_HOME=/m", "IMAGE=x", "MY_IMAGELAB_THING=1", "PEERS=1", "DRAIN_DELAY=1"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := start(t, tc.environ...)
			found := in.log.warnings("names")
			var names []any
			for _, name := range tc.want {
				names = append(names, name)
			}
			if _, said := found[fmt.Sprint(names)]; said != (names != nil) || len(found) > 1 {
				t.Errorf("the log warns of %v, want %q", found, tc.want)
			}
		})
	}
}

func TestOddValuesAreNamedInTheLog(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ value, want string }{
		"nothing odd":                {"Zq7 a b", ""},
		"letters of more than ASCII": {"Zq7é", ""},
		"a space in front":           {" Zq7", "it begins with U+0020"},
		"a carriage return":          {"Zq7\r", "it ends with U+000D"},
		"a second line break":        {"Zq7\n\n", "it ends with U+000A"},
		"a no-break space":           {"Zq7\u00a0", "it ends with U+00A0"},
		"a space of no width":        {"\u200bZq7", "it begins with U+200B"},
		"a second byte order mark":   {"\ufeff\ufeffZq7", "it begins with U+FEFF"},
		"another encoding":           {"Zq7\xe9", "it is not UTF-8"},
		"quotes":                     {`"Zq7"`, "it is in quotes, which are part of it"},
		"two lines":                  {"Zq7\nZq7", "it has control characters, such as a line break"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(path, []byte(tc.value), 0o600); err != nil {
				t.Fatal(err)
			}
			in := start(t, "SECRET_FILE="+path)
			warning := in.log.warnings("found")[tc.want]
			if tc.want == "" && len(in.log.warnings("found")) > 0 || tc.want != "" && (warning["name"] != "SECRET" || warning["source"] != path) {
				t.Errorf("the log warns of %v, want SECRET, %s and %q", in.log.warnings("found"), path, tc.want)
			}
			if strings.Contains(in.log.String(), "Zq7") {
				t.Errorf("the log shows the secret:\n%s", in.log)
			}
		})
	}
	if found := start(t, "IMAGELAB_OPS_TOKEN=Zq7 ").log.warnings("found"); found["it ends with U+0020"]["source"] != "environment" {
		t.Errorf("the log warns of %v, want a space at the end of IMAGELAB_OPS_TOKEN", found)
	}
}

func TestVariablesOfACommandWithoutOneAreNamedInTheLog(t *testing.T) {
	t.Parallel()
	const says = "there is no command, so they set nothing; imagelab -- COMMAND has one"
	in := start(t, "IMAGELAB_UPSTREAM=http://127.0.0.1:1", "IMAGELAB_PROBE=http://127.0.0.1:1/", "IMAGELAB_RESTART=always")
	record := in.log.find(says)
	if got := fmt.Sprint(record["names"]); got != "[IMAGELAB_RESTART IMAGELAB_PROBE]" {
		t.Errorf("the log names %s", got)
	}
	with := startBefore(t, nil, "IMAGELAB_PROBE=/health")
	if record := with.log.find(says); record != nil {
		t.Errorf("with a command the log says %v", record)
	}
}

func TestTokenInAFileOfWindows(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("\ufeffcorrect horse\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := start(t, "IMAGELAB_OPS_TOKEN_FILE="+path)
	if resp, _ := fetch(t, "GET", in.ops+"/config", "", "Authorization: Bearer correct horse"); resp.StatusCode != 200 {
		t.Errorf("GET /config = %d, want 200", resp.StatusCode)
	}
}

// setting is one entry of GET /config.
type setting struct{ Value, Source string }

// config returns what GET /config says, by variable.
func (in *instance) config(t *testing.T) map[string]setting {
	t.Helper()
	resp, body := fetch(t, "GET", in.ops+"/config", "")
	var list []struct{ Name, Value, Source string }
	if err := json.Unmarshal([]byte(body), &list); err != nil || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("GET /config = %q %q, %v", resp.Header.Get("Content-Type"), body, err)
	}
	byName := map[string]setting{}
	for i, v := range list {
		if want := variables()[i].Name; v.Name != want {
			t.Errorf("GET /config: entry %d = %s, want %s", i, v.Name, want)
		}
		byName[v.Name] = setting{v.Value, v.Source}
	}
	return byName
}

func TestConfigSaysWhereValuesAreFrom(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "login")
	if err := os.WriteFile(path, []byte("me\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := start(t, "SECRET=hidden", "LAB_LOGIN_FILE="+path, "LAB_TOKEN=", "ROCKET_SIZE=", "IMAGELAB_IDLE_TIMEOUT=91s", "IMAGELAB_FAULTS_FILE=", "IMAGELAB_VARIANT=<&>").config(t)
	for name, want := range map[string]setting{
		"SECRET":                  {"(redacted)", "environment"},
		"LAB_LOGIN":               {"(redacted)", path},
		"LAB_TOKEN":               {"unknown", "default"}, // an empty value is the default
		"ROCKET_SIZE":             {"", "environment"},    // except where it is a value
		"IMAGELAB_OPS_TOKEN":      {"", "default"},
		"IMAGELAB_IDLE_TIMEOUT":   {"91s", "environment"},
		"IMAGELAB_MAX_BODY":       {"1MiB", "default"},
		"IMAGELAB_FAULTS":         {"false", "default"},
		"IMAGELAB_VARIANT":        {"<&>", "environment"},
		"IMAGELAB_BIND_ADDRESS":   {"127.0.0.1", "environment"},
		"IMAGELAB_STORE_MAX_BLOB": {"1MiB", "default"},
	} {
		if got[name] != want {
			t.Errorf("GET /config: %s = %+v, want %+v", name, got[name], want)
		}
	}
}

func TestEmptyValuesAreDefaults(t *testing.T) {
	t.Parallel()
	var environ []string
	for _, v := range variables() {
		if !v.empty {
			environ = append(environ, v.Name+"=", v.Name+"_FILE=")
		}
	}
	cfg, _, _, err := loadConfig(environ)
	want, _, _, _ := loadConfig(nil)
	if err != nil || !reflect.DeepEqual(cfg, want) {
		t.Errorf("loadConfig of empty values = %+v, %v, want %+v", cfg, err, want)
	}
}

func TestEveryVariableCanBeAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	values := map[string]string{
		"PORT": "0", "IMAGELAB_BIND_ADDRESS": "127.0.0.1", "IMAGELAB_OPS_ADDR": "127.0.0.1:0", "IMAGELAB_DATA_DIR": t.TempDir(),
		"ROCKET_SIZE": "of a file", "IMAGELAB_DRAIN_DELAY": "0s", "IMAGELAB_LOG_LEVEL": "debug",
		"IMAGELAB_PEERS": "other=http://127.0.0.1:1", "IMAGELAB_TRUSTED_PROXIES": "10.0.0.0/8",
		"IMAGELAB_STOP_SIGNAL": "QUIT", "IMAGELAB_SANDBOX": "off", "IMAGELAB_SANDBOX_COMMAND": "on,/data,5432",
	}
	var environ []string
	paths := map[string]string{}
	for _, v := range variables() {
		value, given := values[v.Name]
		switch {
		case given:
		case v.Name == "IMAGELAB_OPS_TOKEN", // or /config could not be asked so simply
			v.Name == "IMAGELAB_UPSTREAM": // or the app would not be there
			continue
		case v.Default != "":
			value = v.Default
		default:
			value = "any"
		}
		values[v.Name] = value
		paths[v.Name] = filepath.Join(dir, v.Name)
		if err := os.WriteFile(paths[v.Name], []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		environ = append(environ, v.Name+"=", v.Name+"_FILE="+paths[v.Name])
	}
	in := start(t, environ...)
	got := in.config(t)
	for name, path := range paths {
		want := setting{redacted, path}
		if got[name] != want {
			t.Errorf("GET /config: %s = %+v, want %+v", name, got[name], want)
		}
	}
	if _, body := fetch(t, "GET", in.app+"/", ""); body != "Hello from Docker! Rocket=of a file\n" {
		t.Errorf("GET / = %q, want the value of the file", body)
	}
}

func TestByteOrderMarkAndOneTrailingNewlineOfAFileAreNotItsValue(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"v": "v", "v\n": "v", "v\r\n": "v", "v\n\n": "v\n", "v\r\n\r\n": "v\r\n", "\nv": "\nv", "v\r": "v\r", " v ": " v ", " \n": " ",
		"\ufeffv": "v", "\ufeffv\r\n": "v", "\ufeff\ufeffv": "\ufeffv", "v\ufeff": "v\ufeff", "\xe9v\n": "\xe9v",
	} {
		t.Run(strconv.Quote(content), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "value")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, body := fetch(t, "GET", start(t, "ROCKET_SIZE_FILE="+path).app+"/", "")
			if body != "Hello from Docker! Rocket="+want+"\n" {
				t.Errorf("GET / with a file of %q = %q, want %q", content, body, want)
			}
		})
	}
}

func TestSecretsStayOutOfEveryOutput(t *testing.T) {
	t.Parallel()
	const secret, token = "Zq7-the-secret", "Zq7-the-token"
	clean := func(t *testing.T, what, output string) {
		t.Helper()
		if strings.Contains(output, "Zq7") {
			t.Errorf("%s shows a secret:\n%s", what, output)
		}
	}
	for name, environ := range map[string][]string{
		"beside a bad port":     {"PORT=abc"},
		"beside a bad size":     {"IMAGELAB_MAX_BODY=-1"},
		"given twice":           {"SECRET_FILE=/no/such", "IMAGELAB_OPS_TOKEN_FILE=/no/such"},
		"beside an unknown one": {"IMAGELAB_SECRET=x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(t, append([]string{"SECRET=" + secret, "IMAGELAB_OPS_TOKEN=" + token}, environ...))
			if code != 2 {
				t.Errorf("run = %d, want 2", code)
			}
			clean(t, "run", stdout+stderr)
		})
	}
	for _, args := range [][]string{{"--help"}, {"--version"}, {"--healthcheck", "tcp://127.0.0.1:1"}} {
		_, stdout, stderr := invoke(t, []string{"SECRET=" + secret, "IMAGELAB_OPS_TOKEN=" + token}, args...)
		clean(t, args[0], stdout+stderr)
	}
	t.Run("while it serves", func(t *testing.T) {
		t.Parallel()
		in := start(t, "SECRET="+secret, "IMAGELAB_OPS_TOKEN="+token, "IMAGELAB_LOG_LEVEL=debug", "IMAGELAB_ACCESS_LOG=all", "IMAGELAB_FAULTS=true", "IMAGELAB_PPROF=true")
		for _, path := range []string{"/config", "/metrics", "/livez", "/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/no/such"} {
			resp, body := fetch(t, "GET", in.ops+path, "", "Authorization: Bearer "+token)
			clean(t, path, fmt.Sprint(resp.Header, body))
		}
		for _, path := range []string{"/", "/proof", "/panic", "/status/500", "/no/such"} {
			resp, body := fetch(t, "GET", in.app+path, "", "Authorization: Bearer "+token)
			clean(t, path, fmt.Sprint(resp.Header, body))
		}
		_, body := fetch(t, "GET", in.ops+"/config", "", "Authorization: Bearer "+token+"?")
		clean(t, "a wrong token", body)
		in.cancel()
		in.wait(t)
		clean(t, "the log", in.log.String())
	})
}

// TestNoMessageHasTheContentOfAFile gives each variable a file that is none of its own, as
// a slip in a name does, and lets the start fail.
func TestNoMessageHasTheContentOfAFile(t *testing.T) {
	t.Parallel()
	const mark = "zq7-content"
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	busy := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	for form, content := range map[string]string{
		"a word":              mark,
		"a word and a line":   mark + "\n",
		"two lines":           "a: 1\n" + mark + ": 2\n",
		"an environment":      "PATH=/" + mark + "\x00SECRET=" + mark,
		"a path":              "/" + mark,
		"an address":          mark + ".invalid:" + busy,
		"a URL":               "http://me:" + mark + "@127.0.0.1:1/" + mark + "?" + mark,
		"URLs":                mark + "=http://127.0.0.1:1," + mark + "=http://127.0.0.1:1",
		"more than a message": strings.Repeat(mark, 100),
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, v := range variables() {
			t.Run(v.Name+" is "+form, func(t *testing.T) {
				t.Parallel()
				environ := []string{"PORT=" + busy, "IMAGELAB_BIND_ADDRESS=127.0.0.1", "IMAGELAB_OPS_ADDR=127.0.0.1:0", "IMAGELAB_DATA_DIR=" + t.TempDir()}
				if v.Name == "IMAGELAB_OPS_ADDR" {
					environ[0] = "PORT=0" // for this one to be what fails
				}
				file := []string{v.Name + "=", v.Name + "_FILE=" + path}
				check := func(environ []string, args ...string) (code int) {
					code, stdout, stderr := invoke(t, append(environ, file...), args...)
					if strings.Contains(stdout+stderr, mark) {
						t.Errorf("run %q shows the content: %s%s", args, stdout, stderr)
					}
					return code
				}
				if code := check(environ); code == 0 {
					t.Error("the start did not fail")
				}
				switch v.Name {
				case "PORT", "IMAGELAB_BIND_ADDRESS":
					if code := check([]string{"PORT=1"}, "--healthcheck"); code == 0 {
						t.Error("--healthcheck did not fail")
					}
				case "IMAGELAB_OPS_TOKEN":
					check(nil, "--compare", "http://127.0.0.1:1")
				case "IMAGELAB_IMAGE_BUDGET":
					check(nil, "--audit", "--only", "secrets-in-env")
				}
			})
		}
	}
}

// TestASecretInPlaceOfItsPathIsNotShown has the secret itself where its file should be named.
func TestASecretInPlaceOfItsPathIsNotShown(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"zq7", "zq7/zq7", "/zq7+zq7=", "/zq7/zq7==", "zq7\nzq7", "~/zq7", "file:///zq7", ".zq7", strings.Repeat("zq7", 2000), "http://me:zq7@h/",
	} {
		for _, args := range [][]string{nil, {"--healthcheck"}} {
			for _, name := range []string{"SECRET", "IMAGELAB_OPS_TOKEN", "PORT"} {
				code, stdout, stderr := invoke(t, []string{name + "_FILE=" + value}, args...)
				if strings.Contains(stdout+stderr, "zq7") {
					t.Errorf("%s_FILE=%q, run %q shows it: %s%s", name, value, args, stdout, stderr)
				}
				if args == nil && (code != exitUsage || !strings.Contains(stderr, name+"_FILE: ") || !strings.Contains(stderr, "the value is not shown: want the path of a file")) {
					t.Errorf("%s_FILE=%q: run = %d %s, want what is wrong", name, value, code, stderr)
				}
			}
		}
	}
	for _, path := range []string{"/no/such", "./no-such", "../no/such"} {
		if _, _, stderr := invoke(t, []string{"SECRET_FILE=" + path}); !strings.Contains(stderr, strconv.Quote(path)) {
			t.Errorf("SECRET_FILE=%s: run says %q, want the path", path, stderr)
		}
	}
}

// TestAFileMayBeCalledLikeASource: the source of a value is a path, whatever its name.
func TestAFileMayBeCalledLikeASource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"default", "environment"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("zq7"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Dir, cmd.Env = dir, []string{asProgram + "=1", "PORT_FILE=" + name}
		code, stdout, stderr := execute(t, cmd)
		if want := fmt.Sprintf(`PORT (in the file "./%s"): want a port`, name); code != exitUsage || !strings.Contains(stderr, want) || strings.Contains(stdout+stderr, "zq7") {
			t.Errorf("PORT_FILE=%s: run = %d %s, want %s", name, code, stderr, want)
		}
	}
}

// TestNoMessageHasThePasswordOfAURL has what people write where a URL or an address goes.
func TestNoMessageHasThePasswordOfAURL(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"http://me:zq7@h:9000", "a=http://me:zq7@h:9000", "http://me:z,zq7@h", "http://me:80/zq7@h", "http://me:a?zq7@h", "http://me:a#zq7@h", "http://me:a=zq7@h",
		"me:zq7@h:9000", "a=me:zq7@h", "https://zq7@h", "ftp://me:zq7@h", "http://me:%zq7@h", "http://me:zq7@h/?token=zq7", "http://h/?token=zq7", "http://h/#zq7", "//me:zq7@h",
		"http://ok:1,http://me:zq7@h,b=http://ok:2",
	} {
		for _, name := range []string{"IMAGELAB_PEERS", "IMAGELAB_OPS_ADDR", "IMAGELAB_OPS_HOSTS", "IMAGELAB_BIND_ADDRESS", "IMAGELAB_DATA_DIR", "PORT", "IMAGELAB_LOG_LEVEL"} {
			if name == "IMAGELAB_DATA_DIR" && strings.HasPrefix(value, "/") {
				continue // it is a path
			}
			code, stdout, stderr := invoke(t, []string{name + "=" + value})
			if code != exitUsage || strings.Contains(stdout+stderr, "zq7") || !strings.Contains(stderr, name+"=(redacted): want ") {
				t.Errorf("%s=%s: run = %d %s, want 2 and no password", name, value, code, stderr)
			}
		}
		code, stdout, stderr := invoke(t, nil, "--compare", value)
		if code != exitUsage || strings.Contains(stdout+stderr, "zq7") {
			t.Errorf("--compare %s = %d %s%s, want 2 and no password", value, code, stdout, stderr)
		}
	}
	for _, value := range []string{"me:zq7@h:9000", "ftp://me:zq7@h", "http://me:%zq7@h", "http://me:a/zq7@h", "unix://me:zq7@h", "tcp://me:zq7@h"} {
		code, stdout, stderr := invoke(t, nil, "--healthcheck", value)
		if code != exitFailed || strings.Contains(stdout+stderr, "zq7") {
			t.Errorf("--healthcheck %s = %d %s%s, want 1 and no password", value, code, stdout, stderr)
		}
	}
}

func FuzzLoadConfig(f *testing.F) {
	for _, seed := range []struct{ environ, secret, file string }{
		{"", "", ""},
		{"PORT=80\nIMAGELAB_OPS_ADDR=", "s", "f\n"},
		{"PORT=-1\nIMAGELAB_MAX_BODY=1e9\nIMAGELAB_TYPO=1", "a\nb", "\r\n"},
		{"IMAGELAB_OPS_ADDR=[::1]:80\nIMAGELAB_BIND_ADDRESS=::1", "\x00", "\n\n"},
		{"IMAGELAB_DRAIN_DELAY=1h2m3s\nIMAGELAB_LOG_LEVEL=info+4\nIMAGELAB_FAULTS=T", "%s%n", "\xff"},
		{"KUBERNETES_SERVICE_HOST=x\nIMAGELAB_PORT=tcp://x\nIMAGELAB__FILE=x\nIMAGELAB_=\n=\n==", "=", "="},
		{"IMAGELAB_STORE_MAX_BLOB=16777216TiB\nIMAGELAB_STORE_CAPACITY=.\nROCKET_SIZE=\nLAB_LOGIN=", "é", "é"},
	} {
		f.Add(seed.environ, seed.secret, seed.file)
	}
	const mark = "Zq7Zq7"
	f.Fuzz(func(t *testing.T, environ, secret, file string) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(mark+file), 0o600); err != nil {
			t.Fatal(err)
		}
		given := []string{"SECRET=" + mark + secret, "IMAGELAB_OPS_TOKEN_FILE=" + path}
		for _, line := range strings.Split(environ, "\n") {
			name, _, _ := strings.Cut(line, "=")
			if strings.HasSuffix(name, "_FILE") || strings.Contains(line, mark) {
				continue // files of this machine, or the mark itself
			}
			given = append(given, line)
		}
		cfg, vars, doubts, err := loadConfig(given)
		if strings.Contains(fmt.Sprint(doubts), mark) {
			t.Errorf("the doubts show a secret: %v", doubts)
		}
		if err != nil && strings.Contains(err.Error(), mark) {
			t.Errorf("the error shows a secret: %v", err)
		}
		shown, jsonErr := json.Marshal(vars)
		if jsonErr != nil || strings.Contains(string(shown), mark) {
			t.Errorf("/config shows a secret: %s, %v", shown, jsonErr)
		}
		if err == nil && (cfg.Port < 0 || cfg.Port > 65535 || cfg.ShutdownTimeout < 0 || cfg.ReadTimeout <= 0 || cfg.MaxBody < 0 || cfg.StoreMaxBlob > cfg.StoreCapacity || cfg.MaxConns < 0) {
			t.Errorf("loadConfig(%q) = %+v without an error", given, cfg)
		}
	})
}
