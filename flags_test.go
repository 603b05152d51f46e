package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// invoke runs the program to its end.
func invoke(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, complaints logBuffer
	code = run(ctx, args, append([]string{inProcess}, environ...), &out, &complaints)
	if ctx.Err() != nil {
		t.Errorf("run(%q) did not end by itself, stderr:\n%s", args, &complaints)
	}
	return code, out.String(), complaints.String()
}

func TestModes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name           string
		args           []string
		environ        []string
		code           int
		stdout, stderr string // what each contains; empty means nothing at all
	}{
		{name: "help", args: []string{"--help"}, stdout: "Usage:"},
		{name: "help, single dash", args: []string{"-help"}, stdout: "Usage:"},
		{name: "help, short", args: []string{"-h"}, stdout: "Usage:"},
		{name: "help in spite of a bad configuration", args: []string{"--help"}, environ: []string{"PORT=abc"}, stdout: "Usage:"},
		{name: "version", args: []string{"--version"}, stdout: "imagelab v0.1.0, commit unknown, go1."},
		{name: "version in spite of a bad configuration", args: []string{"-version"}, environ: []string{"IMAGELAB_X=1"}, stdout: "imagelab v0.1.0"},
		{name: "sbom", args: []string{"--sbom"}, stdout: `"bomFormat": "CycloneDX"`},
		{name: "sbom with an argument", args: []string{"--sbom", "x"}, code: 2, stderr: `unexpected argument "x"`},
		{name: "sbom beside another mode", args: []string{"--sbom", "--version"}, code: 2, stderr: "--sbom and --version exclude each other"},
		{name: "unknown flag", args: []string{"--bogus"}, code: 2, stderr: "-bogus"},
		{name: "unknown short flag", args: []string{"-v"}, code: 2, stderr: "-v"},
		{name: "a mode as a command", args: []string{"serve"}, code: 2, stderr: `unexpected argument "serve"`},
		{name: "a variable as an argument", args: []string{"PORT=80"}, code: 2, stderr: `unexpected argument "PORT=80": settings are environment variables`},
		{name: "-- without a command", args: []string{"--"}, code: 2, stderr: "-- without a command: want imagelab -- COMMAND [ARG...]"},
		{name: "a command that is a flag", args: []string{"--", "--healthcheck"}, code: 127, stderr: "--healthcheck: not found in PATH"},
		{name: "argument of a mode without any", args: []string{"--version", "x"}, code: 2, stderr: `unexpected argument "x"`},
		{name: "empty argument", args: []string{""}, code: 2, stderr: `unexpected argument ""`},
		{name: "flag of another mode, serving", args: []string{"--timeout", "1s"}, code: 2, stderr: "--timeout belongs to --healthcheck"},
		{name: "flag of another mode, version", args: []string{"--version", "--insecure"}, code: 2, stderr: "--insecure belongs to --healthcheck"},
		{name: "unknown flag that is a slip", args: []string{"--audt"}, code: 2, stderr: "unknown flag --audt, did you mean --audit?"},
		{name: "unknown flag that is a slip, single dash", args: []string{"-verison"}, code: 2, stderr: "unknown flag --verison, did you mean --version?"},
		{name: "unknown flag that is a slip, with a value", args: []string{"--audit", "--formt=json"}, code: 2, stderr: "unknown flag --formt, did you mean --format?"},
		{name: "unknown flag that clears the screen", args: []string{"--\x1b[2J\n"}, code: 2, stderr: "unknown flag -- [2J \n"},
		{name: "slip in a severity", args: []string{"--audit", "--fail-on", "hihg"}, code: 2, stderr: "did you mean high?"},
		{name: "slip in a format", args: []string{"--audit", "--format", "jsno"}, code: 2, stderr: "want text, json, markdown, sarif or junit, did you mean json?"},
		{name: "slip in a check", args: []string{"--audit", "--skip", "memory-limits"}, code: 2, stderr: `no check "memory-limits", did you mean memory-limit?`},
		{name: "a mode without its dashes", args: []string{"audit"}, code: 2, stderr: "did you mean --audit?"},
		{name: "a command that nobody knows", args: []string{"gunicorn"}, code: 2, stderr: `unexpected argument "gunicorn": settings`},
		{name: "mistake in a mode names its own help", args: []string{"--audit", "x"}, code: 2, stderr: "Run imagelab --audit --help"},
		{name: "two modes", args: []string{"--version", "--help"}, code: 2, stderr: "--version and --help exclude each other"},
		{name: "bad value of a mode", args: []string{"--version=maybe"}, code: 2, stderr: `"maybe"`},
		{name: "a variable as a flag", args: []string{"--port=80"}, code: 2, stderr: "settings are environment variables, this one is PORT"},
		{name: "a variable without its prefix as a flag", args: []string{"--drain-delay", "1s"}, code: 2, stderr: "this one is IMAGELAB_DRAIN_DELAY"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(t, tc.environ, tc.args...)
			if code != tc.code {
				t.Errorf("run(%q) = %d, want %d", tc.args, code, tc.code)
			}
			for _, stream := range []struct{ name, got, want string }{{"stdout", stdout, tc.stdout}, {"stderr", stderr, tc.stderr}} {
				if !strings.Contains(stream.got, stream.want) || stream.want == "" && stream.got != "" {
					t.Errorf("run(%q) on %s = %q, want %q", tc.args, stream.name, stream.got, stream.want)
				}
			}
			if tc.code == exitUsage && (!strings.HasPrefix(stderr, "imagelab: ") || !strings.HasSuffix(stderr, " for what there is.\n")) {
				t.Errorf("run(%q) on stderr = %q, want what is wrong and where to look", tc.args, stderr)
			}
		})
	}
}

// Docker reserves 2, so a probe whose own command line is wrong is unhealthy.
func TestWrongProbeCommandLineIsUnhealthy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown flag", []string{"--healthcheck", "--bogus"}, "-bogus"},
		{"unknown flag in front", []string{"--bogus", "--healthcheck"}, "-bogus"},
		{"unknown flag in front of single dash", []string{"--bogus", "-healthcheck"}, "-bogus"},
		{"unknown flag in front of a value", []string{"--bogus", "--healthcheck=true"}, "-bogus"},
		{"value that is no bool", []string{"--healthcheck=maybe"}, `"maybe"`},
		{"another mode", []string{"--healthcheck", "--version"}, "--healthcheck and --version exclude each other"},
		{"a slip of the mode itself", []string{"--helthcheck"}, "unknown flag --helthcheck, did you mean --healthcheck?"},
		{"timeout without unit", []string{"--healthcheck", "--timeout", "5"}, "-timeout: want 5s"},
		{"timeout with another unit", []string{"--healthcheck", "--timeout", "2sec"}, "-timeout: want a duration such as 2s or 500ms"},
		{"status class", []string{"--healthcheck", "--status", "2xx"}, "-status: want a range such as 200-299"},
		{"secret in a header without colon", []string{"--healthcheck", "--header", "Authorization hidden", "--header", "A: b"},
			"unhealthy: --header: want \"Name: value\"\n"},
		{"header with a control character", []string{"--healthcheck", "--header", "A: \x01"}, `want "Name: value"`},
		{"timeout of zero", []string{"--healthcheck", "--timeout", "0s"}, "want a duration above 0"},
		{"negative timeout", []string{"--healthcheck", "--timeout=-1s"}, "want a duration above 0"},
		{"timeout without value", []string{"--healthcheck", "--timeout"}, "-timeout"},
		{"method with a space", []string{"--healthcheck", "--method", "GET /evil HTTP/1.1"}, "want a method such as GET or HEAD"},
		{"method with a line break", []string{"--healthcheck", "--method", "GET\r\nX: y"}, "want a method"},
		{"empty method", []string{"--healthcheck", "--method="}, "want a method"},
		{"header without colon", []string{"--healthcheck", "--header", "Host"}, `want "Name: value"`},
		{"header without name", []string{"--healthcheck", "--header", ": x"}, `want "Name: value"`},
		{"header with a space in its name", []string{"--healthcheck", "--header", "A B: x"}, `want "Name: value"`},
		{"header with a line break", []string{"--healthcheck", "--header", "A: x\r\nB: y"}, `want "Name: value"`},
		{"header of any length", []string{"--healthcheck", "--header", strings.Repeat("x", 5000)}, "unhealthy: "},
		{"flag of any length", []string{"--healthcheck", "--" + strings.Repeat("é", 5000)}, "unhealthy: "},
		{"flag that clears the screen", []string{"--healthcheck", "--\x1b[2J\u009b2J\n"}, "unhealthy: "},
		{"status that is none", []string{"--healthcheck", "--status", "ok"}, "want a status such as 204 or a range such as 200-399"},
		{"empty status", []string{"--healthcheck", "--status="}, "want a status"},
		{"status list", []string{"--healthcheck", "--status", "200,204"}, "want a status"},
		{"status out of range", []string{"--healthcheck", "--status", "200-600"}, "want a status"},
		{"status range turned round", []string{"--healthcheck", "--status", "399-200"}, "want a status"},
		{"status range without end", []string{"--healthcheck", "--status", "200-"}, "want a status"},
		{"flag after a URL", []string{"--healthcheck", "http://127.0.0.1:1/", "--timeout", "1s"}, "flags come before the URLs"},
		{"empty URL", []string{"--healthcheck", ""}, "want http://"},
		{"URL without scheme", []string{"--healthcheck", "localhost:8000/health"}, "want http://localhost:8000/health\n"},
		{"URL without scheme and path", []string{"--healthcheck", "localhost:8000"}, `"localhost:8000" is not a URL: want http://localhost:8000/` + "\n"},
		{"port", []string{"--healthcheck", "8000"}, "want http://127.0.0.1:8000/\n"},
		{"port with a colon", []string{"--healthcheck", ":8000"}, "want http://127.0.0.1:8000/\n"},
		{"port with a colon and a path", []string{"--healthcheck", ":8000/x"}, "want http://127.0.0.1:8000/x\n"},
		{"host", []string{"--healthcheck", "localhost"}, "want http://localhost/\n"},
		{"host that begins as a scheme does", []string{"--healthcheck", "http-server:80"}, "want http://http-server:80/\n"},
		{"address", []string{"--healthcheck", "127.0.0.1"}, "want http://127.0.0.1/\n"},
		{"address of IPv6", []string{"--healthcheck", "::1"}, "want http://[::1]/\n"},
		{"address of IPv6 with a port", []string{"--healthcheck", "[::1]:80"}, "want http://[::1]:80/\n"},
		{"one slash", []string{"--healthcheck", "HTTPS:/host"}, "want https://host\n"},
		{"no colon", []string{"--healthcheck", "http//host/x"}, "want http://host/x\n"},
		{"socket", []string{"--healthcheck", "/run/app.sock"}, "want unix:///run/app.sock\n"},
		{"socket with one slash", []string{"--healthcheck", "unix:/run/app.sock"}, "want unix:///run/app.sock\n"},
		{"socket without a slash", []string{"--healthcheck", "unix:run/app.sock"}, "want unix:///run/app.sock\n"},
		{"tcp without slashes", []string{"--healthcheck", "tcp:localhost:80"}, "want tcp://localhost:80\n"},
		{"tcp with a path", []string{"--healthcheck", "tcp://localhost:80/health"}, "has a path, and tcp:// only connects: want http://localhost:80/health\n"},
		{"what has no guess", []string{"--healthcheck", "?x"}, "want http://, https://, tcp://"},
		{"long and without a scheme", []string{"--healthcheck", strings.Repeat("x", 500)}, "xxx\" is not a URL: want http://xxx"},
		{"scheme misspelt", []string{"--healthcheck", "htp://localhost/"}, "has an unknown scheme: want http://"},
		{"host that is not ASCII", []string{"--healthcheck", "http://bücher.example/"}, "has a host that is not ASCII"},
		{"port above", []string{"--healthcheck", "http://localhost:65536/"}, "has a port out of range"},
		{"port of zero", []string{"--healthcheck", "tcp://localhost:0"}, "has a port out of range"},
		{"URL without scheme, by address", []string{"--healthcheck", "127.0.0.1:8000/health"}, "want http://"},
		{"path alone", []string{"--healthcheck", "/health"}, "want http://127.0.0.1:8000/health\n"},
		{"scheme of something else", []string{"--healthcheck", "ftp://localhost/"}, "want http://"},
		{"scheme alone", []string{"--healthcheck", "http://"}, "has no host"},
		{"port alone", []string{"--healthcheck", "http://:8000/"}, "has no host: want http://127.0.0.1:8000/\n"},
		{"path without a host", []string{"--healthcheck", "https:///x"}, "has no host: want https://127.0.0.1/x\n"},
		{"user without a host", []string{"--healthcheck", "http://me:hidden@"}, "\"http://xxxxx@\" has no host: want http://, "},
		{"port that is none", []string{"--healthcheck", "http://localhost:http/"}, "does not parse"},
		{"address without brackets", []string{"--healthcheck", "http://::1:8000/"}, "an IPv6 address has brackets"},
		{"line break in a URL", []string{"--healthcheck", "http://localhost/\r\nX: y"}, "has a control character"},
		{"tcp without port", []string{"--healthcheck", "tcp://localhost"}, "has no port"},
		{"unix without a slash", []string{"--healthcheck", "unix://app.sock"}, "unix:///path"},
		{"unix with a path that is none", []string{"--healthcheck", "unix:///app.sock:health"}, "want unix:///app.sock:/health"},
		{"one bad URL of two", []string{"--healthcheck", "tcp://127.0.0.1:1", "nonsense"}, `"nonsense" is not a URL: want http://nonsense/`},
		{"URL of any length", []string{"--healthcheck", "http://" + strings.Repeat("x", 5000)}, "unhealthy: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(t, nil, tc.args...)
			if code != 1 || !strings.Contains(stdout, tc.want) || strings.Contains(stdout, "hidden") {
				t.Errorf("run(%q) = %d %q, want 1 and %q", tc.args, code, stdout, tc.want)
			}
			checkVerdict(t, code, stdout, stderr)
		})
	}
}

// helpEntries returns what a help page says of each flag and variable, wrapped lines
// joined again.
func helpEntries(page string) map[string][]string {
	entries := map[string][]string{}
	name, text := "", ""
	for line := range strings.Lines(page + "\n\n") {
		rest, isEntry := strings.CutPrefix(line, "  ")
		isEntry = isEntry && (strings.HasPrefix(rest, "--") || rest != "" && rest[0] >= 'A' && rest[0] <= 'Z' && !strings.Contains(rest, "=") && !strings.HasPrefix(rest, "HEALTHCHECK"))
		if continued := strings.HasPrefix(line, "          "); !isEntry && continued && name != "" {
			text += " " + strings.TrimSpace(line)
			continue
		}
		if name != "" {
			entries[name] = append(entries[name], text)
		}
		name = ""
		if isEntry {
			fields := strings.Fields(rest)
			name, text = fields[0], strings.Join(fields[1:], " ")
		}
	}
	return entries
}

func TestHelpNamesEveryFlagAndVariableOnce(t *testing.T) {
	t.Parallel()
	_, page, _ := invoke(t, nil, "--help")
	entries := helpEntries(page)
	for name, want := range map[string]string{
		"--healthcheck": "probe", "--version": "commit", "--timeout": "(default 2s)", "--method": "(default GET)",
		"--header": "Name: value", "--status": "(default 200-399)", "--insecure": "certificates", "--format": "json or markdown",
	} {
		if got := strings.Join(entries[name], " "); !strings.Contains(got, want) {
			t.Errorf("--help on %s = %q, want %q", name, got, want)
		}
	}
	known := map[string]bool{}
	newFlags(new(options)).VisitAll(func(f *flag.Flag) { known["--"+f.Name] = true })
	for _, v := range variables() {
		known[v.Name] = true
		text := strings.Join(entries[v.Name], " ")
		if !strings.HasPrefix(text, v.Desc) || v.Default != "" && !strings.HasSuffix(text, "(default "+v.Default+")") {
			t.Errorf("--help on %s = %q, want %q and the default %q", v.Name, text, v.Desc, v.Default)
		}
	}
	for name := range known {
		if len(entries[name]) != 1 {
			t.Errorf("--help has %s %d times, want 1", name, len(entries[name]))
		}
	}
	for name := range entries {
		if !known[name] {
			t.Errorf("--help has %s, which does not exist", name)
		}
	}
	for _, group := range []string{"The app", "Listeners", "Stopping", "Limits", "The store", "Operators", "Demo"} {
		if !strings.Contains(page, "\n "+group+"\n") {
			t.Errorf("--help has no group %q", group)
		}
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"--audit", "--help"}, {"--healthcheck", "--help"}, {"--compare", "--help"}} {
		_, page, _ := invoke(t, nil, args...)
		for line := range strings.Lines(page) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > 100 || strings.TrimRight(line, " ") != line || strings.Contains(line, "%!") {
				t.Errorf("%q has the line %q, want at most 100 columns", args, line)
			}
		}
	}
}

func TestModesHaveHelpOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		args  []string
		flags []string
	}{
		{"audit", []string{"--audit", "--help"}, []string{"--baseline", "--fail-on", "--fail-on-unknown", "--fail-on-warn", "--format", "--ignore", "--only", "--root", "--skip", "--walk-timeout"}},
		{"audit, turned round", []string{"--help", "--audit"}, []string{"--baseline", "--fail-on", "--fail-on-unknown", "--fail-on-warn", "--format", "--ignore", "--only", "--root", "--skip", "--walk-timeout"}},
		{"audit, short", []string{"--audit", "-h"}, []string{"--baseline", "--fail-on", "--fail-on-unknown", "--fail-on-warn", "--format", "--ignore", "--only", "--root", "--skip", "--walk-timeout"}},
		{"audit, behind a flag of it", []string{"--audit", "--only", "nope", "--help"}, []string{"--baseline", "--fail-on", "--fail-on-unknown", "--fail-on-warn", "--format", "--ignore", "--only", "--root", "--skip", "--walk-timeout"}},
		{"compare", []string{"--compare", "--help"}, []string{"--format"}},
		{"compare, behind its URLs", []string{"--compare", "http://a:9000", "-help"}, []string{"--format"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, page, stderr := invoke(t, nil, tc.args...)
			got := slices.Sorted(maps.Keys(helpEntries(page)))
			if code != exitOK || stderr != "" || !slices.Equal(got, tc.flags) || !strings.Contains(page, "\nExamples:\n") {
				t.Errorf("run(%q) = %d, %q with %q, want 0 and %q in\n%s", tc.args, code, stderr, got, tc.flags, page)
			}
		})
	}
	_, page, _ := invoke(t, nil, "--healthcheck", "--help")
	for name := range helpEntries(page) {
		if !slices.Contains(flagModes[strings.TrimPrefix(name, "--")], modeHealthcheck) {
			t.Errorf("--healthcheck --help has %s", name)
		}
	}
	if !strings.Contains(page, "\n  --timeout duration ") {
		t.Errorf("--healthcheck --help has no --timeout:\n%s", page)
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, tc := range []struct{ name, environ, want string }{
		{"app", "PORT=" + port, `PORT="` + port + `": address already in use`},
		{"app, on all interfaces", "IMAGELAB_BIND_ADDRESS=\nPORT=" + port, `listen PORT="` + port + `": address already in use`},
		{"ops", "IMAGELAB_OPS_ADDR=127.0.0.1:" + port, `IMAGELAB_OPS_ADDR="127.0.0.1:` + port + `": address already in use`},
		{"address of another machine", "IMAGELAB_BIND_ADDRESS=192.0.2.1", `IMAGELAB_BIND_ADDRESS="192.0.2.1" PORT="0": cannot assign requested address`},
		{"name of another machine", "IMAGELAB_BIND_ADDRESS=no-such-host.invalid", `IMAGELAB_BIND_ADDRESS="no-such-host.invalid"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			log := &logBuffer{}
			code, stdout, stderr := invoke(t, defaults(t, strings.Split(tc.environ, "\n")))
			_, _ = log.Write([]byte(stderr))
			record := log.find("cannot start")
			if code != 1 || stdout != "" || record == nil || !strings.Contains(record["err"].(string), tc.want) {
				t.Errorf("run with %q = %d, stdout %q, log %q, want 1 and %q", tc.environ, code, stdout, stderr, tc.want)
			}
		})
	}
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		environ []string
		want    string // how the record begins
		not     string
	}{
		"json":  {nil, `{"time":"`, ""},
		"text":  {[]string{"IMAGELAB_LOG_FORMAT=text"}, "time=", ""},
		"error": {[]string{"IMAGELAB_LOG_LEVEL=error"}, `{"time":"`, "INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, stderr := invoke(t, defaults(t, append(tc.environ, "IMAGELAB_OPS_ADDR=192.0.2.1:1")))
			if !strings.HasPrefix(stderr, tc.want) || tc.not != "" && strings.Contains(stderr, tc.not) {
				t.Errorf("log = %q, want %q and no %q", stderr, tc.want, tc.not)
			}
		})
	}
}

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (reader, terminal *os.File) {
	t.Helper()
	reader, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	fd := int(reader.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return reader, terminal
}

func TestTerminalGetsText(t *testing.T) {
	t.Parallel()
	const (
		readable = `^\d\d:\d\d:\d\d\.\d{3} ERROR cannot start err="listen IMAGELAB_OPS_ADDR=.+$`
		json     = `^\{"time":".+\}$`
	)
	for _, tc := range []struct {
		name    string
		environ []string
		want    string // the line about the failed start
	}{
		{"unset", nil, readable},
		{"empty", []string{"IMAGELAB_LOG_FORMAT="}, readable},
		{"text", []string{"IMAGELAB_LOG_FORMAT=text"}, readable},
		{"json", []string{"IMAGELAB_LOG_FORMAT=json"}, json},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reader, terminal := openTerminal(t)
			lines := make(chan string, 100)
			go func() {
				defer close(lines)
				for scanner := bufio.NewScanner(reader); scanner.Scan(); {
					lines <- strings.TrimSuffix(scanner.Text(), "\r")
				}
			}()
			in := launch(t, terminal, nil, append(tc.environ, "IMAGELAB_OPS_ADDR=192.0.2.1:1")...)
			if code := in.wait(t); code != exitFailed {
				t.Errorf("exit code %d, want 1", code)
			}
			terminal.Close()
			for {
				select {
				case line, more := <-lines:
					if !more {
						t.Fatalf("no line about the failed start")
					}
					if !strings.Contains(line, "cannot start") {
						continue
					}
					if !regexp.MustCompile(tc.want).MatchString(line) {
						t.Errorf("the terminal shows %q, want %s", line, tc.want)
					}
					return
				case <-time.After(patience):
					t.Fatal("no line about the failed start")
				}
			}
		})
	}
}
