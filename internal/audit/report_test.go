package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite docs/audit.md and the golden files")

// outputs are all forms of a report.
func outputs(t *testing.T, r *Report) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"json":     func(b *bytes.Buffer) error { return WriteJSON(b, r) },
		"markdown": func(b *bytes.Buffer) error { return WriteMarkdown(b, r) },
		"text":     func(b *bytes.Buffer) error { return WriteText(b, r, TextOptions{Width: 100}) },
		"colour":   func(b *bytes.Buffer) error { return WriteText(b, r, TextOptions{Color: true}) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		all[name] = b.String()
	}
	return all
}

// TestNoSecretInAnyOutput: names may be shown, values and contents never.
func TestNoSecretInAnyOutput(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	const canary = "canary5eCr3t"
	f.sys.Environ = append(f.sys.Environ, "DB_PASSWORD="+canary, "DATABASE_URL=postgres://u:"+canary+"@db/x", "PLAIN="+canary)
	f.write("proc/1/environ", "API_TOKEN="+canary+"\x00")
	f.write("proc/1/cmdline", "sleep\x00--password\x00"+canary+"\x00")
	f.process(7, 1, "S", "app", "app --password "+canary)
	f.write("root/.netrc", "machine x login y password "+canary+"\n")
	f.write("app/.env", "PASSWORD="+canary+"\n")
	f.write("key.pem", testKey)
	f.write("proc/self/status", "password "+canary)
	r := f.run()
	for _, id := range []string{"secrets-in-env", "secrets-in-files"} {
		if got := r.result(t, id); got.Status != Fail {
			t.Errorf("%s = %s, want fail: the test shows nothing otherwise", id, got.Status)
		}
	}
	key := strings.Split(testKey, "\n")[1]
	for format, out := range outputs(t, r) {
		if strings.Contains(out, canary) || strings.Contains(out, key) {
			t.Errorf("%s shows a secret", format)
		}
	}
}

// TestNamesCannotMoveTheTerminal: file names come from the image.
func TestNamesCannotMoveTheTerminal(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.file("bin/\x1b[2Jsh/\nsh", "0755", "\x7fELF")
	f.file("bin/|`*<b>/bash", "0755", "\x7fELF")
	r := f.run()
	for format, out := range outputs(t, r) {
		if format != "colour" && strings.Contains(out, "\x1b") || strings.Contains(out, "[2Jsh/\n") {
			t.Errorf("%s has a control character", format)
		}
		if format == "markdown" && strings.Contains(out, "<b>") {
			t.Error("markdown has markup from a file name")
		}
	}
}

func TestJSONFollowsTheSchema(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/audit.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	nothing := load(t, "hardened-scratch")
	clear(nothing.files)
	app := load(t, "kubernetes")
	app.sys.App = &App{Started: app.sys.Now(), StartSeconds: 0.02, Probes: &ProbeSummary{Seen: 3, Last: app.sys.Now(), MeanSeconds: 0.001, MaxSeconds: 0.002}}
	for name, f := range map[string]*fixture{
		"hardened": load(t, "hardened-scratch"), "alpine": load(t, "root-alpine"), "privileged": load(t, "privileged"),
		"kubernetes, serving": app, "nothing readable": nothing,
	} {
		r := f.run()
		var value any
		if err := json.Unmarshal([]byte(outputs(t, r)["json"]), &value); err != nil {
			t.Fatal(err)
		}
		for _, problem := range (validator{s}).check("$", s, value) {
			t.Errorf("%s: %s", name, problem)
		}
		var back Report
		if err := json.Unmarshal([]byte(outputs(t, r)["json"]), &back); err != nil || len(back.Checks) != len(r.Checks) || back.Checks[0].Severity != r.Checks[0].Severity {
			t.Errorf("%s: read back: %v", name, err)
		}
	}
	// The validator itself has to be able to say no.
	bad := map[string]any{"schema": 2.0, "checks": []any{map[string]any{"id": "X", "extra": true}}}
	if problems := (validator{s}).check("$", s, bad); len(problems) < 5 {
		t.Errorf("a bad report has only these problems: %v", problems)
	}
}

// validator knows the part of JSON Schema that docs/audit.schema.json uses, and
// complains of any other keyword.
type validator struct{ root map[string]any }

func (v validator) check(at string, schema map[string]any, value any) (problems []string) {
	say := func(format string, args ...any) { problems = append(problems, at+": "+fmt.Sprintf(format, args...)) }
	for keyword, arg := range schema {
		switch keyword {
		case "$schema", "$id", "$defs", "title", "description":
		case "$ref":
			name := strings.TrimPrefix(arg.(string), "#/$defs/")
			problems = append(problems, v.check(at, v.root["$defs"].(map[string]any)[name].(map[string]any), value)...)
		case "const":
			if value != arg {
				say("%v, want %v", value, arg)
			}
		case "enum":
			if !slices.Contains(arg.([]any), value) {
				say("%v is none of %v", value, arg)
			}
		case "type":
			types, many := arg.([]any)
			if !many {
				types = []any{arg}
			}
			if !slices.ContainsFunc(types, func(t any) bool { return isType(t.(string), value) }) {
				say("%v is not of type %v", value, arg)
			}
		case "minimum":
			if n, ok := value.(float64); ok && n < arg.(float64) {
				say("%v is below %v", n, arg)
			}
		case "pattern":
			if s, ok := value.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(s) {
				say("%q does not match %v", s, arg)
			}
		case "format":
			if s, ok := value.(string); ok {
				if _, err := time.Parse(time.RFC3339, s); err != nil {
					say("%q is not a date-time", s)
				}
			}
		case "items":
			items, _ := value.([]any)
			for i, item := range items {
				problems = append(problems, v.check(fmt.Sprintf("%s[%d]", at, i), arg.(map[string]any), item)...)
			}
		case "required":
			if object, ok := value.(map[string]any); ok {
				for _, name := range arg.([]any) {
					if _, ok := object[name.(string)]; !ok {
						say("no %v", name)
					}
				}
			}
		case "properties":
			object, _ := value.(map[string]any)
			for name, property := range object {
				if s, ok := arg.(map[string]any)[name].(map[string]any); ok {
					problems = append(problems, v.check(at+"."+name, s, property)...)
				} else if schema["additionalProperties"] == false {
					say("%s is not in the schema", name)
				}
			}
		case "additionalProperties": // with properties
		default:
			say("the validator does not know %s", keyword)
		}
	}
	return problems
}

func isType(name string, value any) bool {
	switch v := value.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case float64:
		return name == "number" || name == "integer" && v == math.Trunc(v)
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

func TestTableIsComplete(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Checks() {
		if seen[c.ID] || !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(c.ID) {
			t.Errorf("id %q is not new or not in kebab case", c.ID)
		}
		seen[c.ID] = true
		if c.Title == "" || c.Why == "" || len(c.References) == 0 || c.run == nil || c.Fix == (Fix{}) {
			t.Errorf("%s: title, why, references, fix and function are all needed", c.ID)
		}
		if strings.HasSuffix(c.Title, ".") || !strings.HasSuffix(c.Why, ".") {
			t.Errorf("%s: a title has no full stop, a why has one", c.ID)
		}
	}
	if len(seen) != 50 {
		t.Errorf("%d checks, want 50", len(seen))
	}
}

// TestFixNamesWhatWasFound: the snippets are ready to copy.
func TestFixNamesWhatWasFound(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.mount("/ /cache rw,relatime - tmpfs tmpfs rw")
	f.sys.Environ = append(f.sys.Environ, "DB_PASSWORD=hunter2")
	r := f.run()
	if got, want := r.result(t, "tmpfs-options").Fix.Compose, `tmpfs: ["/cache:size=16m,mode=1777,noexec,nosuid,nodev"]`; got != want {
		t.Errorf("tmpfs-options: compose %s, want %s", got, want)
	}
	if got, want := r.result(t, "secrets-in-env").Fix.Compose, "DB_PASSWORD_FILE: /run/secrets/DB_PASSWORD"; !strings.Contains(got, want) {
		t.Errorf("secrets-in-env: compose %s, want %s in it", got, want)
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	r := &Report{Checks: []Result{{Severity: Medium, Status: Fail}, {Severity: Critical, Status: Warn}, {Severity: Critical, Status: Unknown}}}
	for severity, want := range map[Severity]bool{Info: true, Medium: true, High: false, Critical: false} {
		if got := r.failed(severity); got != want {
			t.Errorf("Failed(%s) = %t, want %t", severity, got, want)
		}
	}
}

func TestSeverityText(t *testing.T) {
	t.Parallel()
	for s := Info; s <= Critical; s++ {
		text, err := s.MarshalText()
		var back Severity
		if err != nil || back.UnmarshalText(text) != nil || back != s {
			t.Errorf("%s does not come back", s)
		}
	}
	var s Severity
	if err := s.UnmarshalText([]byte("urgent")); err == nil || !strings.Contains(err.Error(), "critical") {
		t.Errorf("UnmarshalText(urgent) = %v, want an error that lists the names", err)
	}
}

// TestText compares with testdata/*.golden, which -update writes.
func TestText(t *testing.T) {
	t.Parallel()
	for _, posture := range []string{"hardened-scratch", "privileged"} {
		out := outputs(t, load(t, posture).run())
		for format, name := range map[string]string{"text": posture + ".txt", "markdown": posture + ".md"} {
			golden(t, "testdata/"+name+".golden", out[format])
		}
		for line := range strings.Lines(out["text"]) {
			// Lines to copy, and the counts.
			verbatim := strings.Contains(line, "compose") || strings.Contains(line, "kubernetes") ||
				strings.HasPrefix(line, "    #") || strings.HasPrefix(line, "50 checks")
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 && !verbatim {
				t.Errorf("%s: a line of %d columns: %s", posture, n, line)
			}
		}
		if !strings.Contains(out["colour"], "\x1b[") || strings.Contains(out["text"], "\x1b[") {
			t.Errorf("%s: colours where none were asked for, or none where they were", posture)
		}
	}
}

// TestDocsAreCurrent: docs/audit.md is made of the table.
func TestDocsAreCurrent(t *testing.T) {
	t.Parallel()
	doc := document()
	golden(t, "../../docs/audit.md", doc)
	for _, c := range Checks() {
		if !strings.Contains(doc, "\n### "+c.ID+"\n") {
			t.Errorf("docs/audit.md has no entry for %s", c.ID)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not current; run: go generate ./internal/audit", name)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := Run(ctx, load(t, "hardened-scratch").sys, Options{}); !errors.Is(err, context.Canceled) || r != nil {
		t.Errorf("Run(cancelled) = %v, %v", r, err)
	}
	f := load(t, "hardened-scratch")
	f.process(9, 1, "Z", "sleep", "")
	ctx, cancel = context.WithCancel(t.Context())
	f.sys.Sleep = func(ctx context.Context, d time.Duration) error { cancel(); return ctx.Err() }
	if _, err := Run(ctx, f.sys, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run(cancelled while waiting) = %v", err)
	}
}

func TestChecksThatDoNotWalkLeaveTheFilesAlone(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{"memory-limit": false, "secrets-in-env": false, "image-size": true, "shell-absent": true} {
		r, err := Run(t.Context(), load(t, "hardened-scratch").sys, Options{Only: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Facts.Image.Bytes != nil; got != want || r.Checks[0].Status == Unknown {
			t.Errorf("Run(only %s) walked = %t, verdict %s; want %t", id, got, r.Checks[0].Status, want)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	f := load(&testing.T{}, "root-alpine")
	for b.Loop() {
		if _, err := Run(b.Context(), f.sys, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
