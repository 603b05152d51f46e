package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestPartOf(t *testing.T) {
	t.Parallel()
	for symbol, want := range map[string]string{
		"main.main":                       "main",
		"runtime.mallocgc":                "runtime",
		"net/http.(*conn).serve":          "net/http",
		"main.newServer.func1":            "main",
		"github.com/caarlos0/env/v11.get": "github.com/caarlos0/env/v11",
		"slices.SortFunc[go.shape.[]a/b.c,go.shape.*a/b.c]": "slices",
		"main.(*cache[net/http.Request]).get":               "main",
		"crypto/internal/entropy/v1%2e0%2e0.Samples":        "crypto/internal/entropy/v1.0.0",
		"vendor/golang.org/x/net/idna.idnaValues":           "vendor/golang.org/x/net/idna",
		"memeqbody":                                               assembly,
		"$f64.3ff0000000000000":                                   numbers,
		"type:.eq.net/http.socksAddr":                             made,
		"go:(*struct { io.Reader; io.WriterTo }).Read":            made,
		"go:itab.*net/http.response,net/http.ResponseWriter":      itabs,
		"go:itab.net/http.HandlerFunc,imagelab/internal/x.Server": itabs,
	} {
		if got := partOf(symbol); got != want {
			t.Errorf("partOf(%q) = %q, want %q", symbol, got, want)
		}
	}
}

// sample has a binary of 10,000 bytes and an image of 10,500.
func sample() *figures {
	return &figures{
		toolchain: "go1.26.8 linux/amd64",
		binary:    10_000,
		images:    map[string]int64{"scratch": 10_500},
		parts:     map[string]int64{"main": 2_000, "net/http": 3_000, "v1.0.0": 1_000, "(strings)": 4_000},
	}
}

func TestDocumentIsWhatParseReads(t *testing.T) {
	t.Parallel()
	text := document(sample())
	got, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("parse(document(f)) = %+v, want %+v", got, sample())
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	whole := document(sample())
	for name, tc := range map[string]struct{ text, want string }{
		"nothing":               {"", "no row"},
		"no toolchain":          {strings.Replace(whole, "| toolchain |", "toolchain", 1), "no row"},
		"an edited binary":      {strings.Replace(whole, "| binary | 10,000 |", "| binary | 9,000 |", 1), "sum up to 10,000 and not to the binary's 9,000 bytes"},
		"an edited package":     {strings.Replace(whole, "| 3,000 |", "| 2,000 |", 1), "sum up to 9,000"},
		"a row that is no size": {strings.Replace(whole, "| 3,000 |", "| big |", 1), "net/http: "},
		"a row of its own":      {strings.Replace(whole, "| binary |", "| library |", 1), `unknown row "library"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := parse(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("parse = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	// grow adds bytes to the parts and so to the binary and the image.
	grow := func(f *figures, by map[string]int64) {
		for part, n := range by {
			f.parts[part] += n
			f.binary += n
			f.images["scratch"] += n
		}
	}
	for name, tc := range map[string]struct {
		change          func(*figures)
		failures, notes []string // the beginning of each
	}{
		"the same": {
			func(*figures) {}, nil,
			[]string{"the binary: 10,000 → 10,000 bytes (+0.00 %)", "image scratch: 10,500 → 10,500 bytes"},
		},
		"growth up to the limit": {
			func(f *figures) { grow(f, map[string]int64{"main": 200}) }, nil,
			[]string{"the binary: 10,000 → 10,200 bytes (+2.00 %)", "image scratch: "},
		},
		"growth above the limit, the largest first": {
			func(f *figures) {
				grow(f, map[string]int64{"main": 100, "net/http": -200, "(strings)": 50, "text/template": 251})
			},
			[]string{"the binary grew by more than 2 %: 10,000 → 10,201 bytes (+2.01 %)\n" +
				"  text/template  new → 251 bytes\n" +
				"  main  2,000 → 2,100 bytes (+5.00 %)\n" +
				"  (strings)  4,000 → 4,050 bytes (+1.25 %)\n" +
				"If it is worth that: make size-record"},
			[]string{"image scratch: 10,500 → 10,701 bytes (+1.91 %)"},
		},
		"an image that grew beside the binary": {
			func(f *figures) { f.images["scratch"] += 211 },
			[]string{"image scratch grew by more than 2 %: 10,500 → 10,711 bytes (+2.01 %)\n" +
				"  the binary         10,000 → 10,000 bytes (+0.00 %)\n" +
				"  what is beside it  500 → 711 bytes (+42.20 %)\n"},
			[]string{"the binary: "},
		},
		"an image that is not recorded": {
			func(f *figures) { f.images["alpine"] = 1 },
			[]string{"image alpine is not recorded: make size-record"},
			[]string{"the binary: ", "image scratch: "},
		},
		"an image that was not weighed": {
			func(f *figures) { f.images = nil }, nil, []string{"the binary: "},
		},
		"shrinking is said": {
			func(f *figures) { grow(f, map[string]int64{"main": -201}) }, nil,
			[]string{"the binary shrank: 10,000 → 9,799 bytes (-2.01 %); record it: make size-record", "image scratch: "},
		},
		"another toolchain is said": {
			func(f *figures) { f.toolchain = "go1.27.0 linux/amd64" }, nil,
			[]string{"recorded with go1.26.8 linux/amd64, and this is go1.27.0 linux/amd64", "the binary: ", "image scratch: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := sample()
			tc.change(now)
			failures, notes := compare(sample(), now)
			begin(t, "failures", failures, tc.failures)
			begin(t, "notes", notes, tc.notes)
		})
	}
}

// begin reports lines that do not begin as they should.
func begin(t *testing.T, what string, got, want []string) {
	t.Helper()
	same := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		same = same && strings.HasPrefix(got[i], want[i])
	}
	if !same {
		t.Errorf("%s = %q, want %q", what, got, want)
	}
}

func TestReflectMethods(t *testing.T) {
	t.Parallel()
	const head = "# imagelab\n_ -> runtime.main\nruntime.main -> main.main\nmain.main -> imagelab/internal/x.Render\n"
	for name, tc := range map[string]struct {
		deps string
		want []string
	}{
		"none": {head + "main.main -> type:main.T <UsedInIface>\n", nil},
		"up to the first of ours": {
			head + "imagelab/internal/x.Render -> text/template.Execute\ntext/template.Execute -> text/template.eval <ReflectMethod>\n" +
				"text/template.eval <ReflectMethod> -> type:x <UsedInIface>\n",
			[]string{"text/template.eval <- text/template.Execute <- imagelab/internal/x.Render"},
		},
		"the nearest first, those of reflect last": {
			head + "main.main -> b.look <ReflectMethod>\nb.look <ReflectMethod> -> a.look <ReflectMethod>\nmain.main -> reflect.look <ReflectMethod>\n",
			[]string{"b.look <- main.main", "a.look <- b.look <- main.main", "reflect.look <- main.main"},
		},
		"ours itself, with both marks": {
			head + "main.main -> main.look <UsedInIface><ReflectMethod>\n", []string{"main.look"},
		},
		"the runtime's own": {
			head + "_ -> reflect.look <ReflectMethod>\n", []string{"reflect.look"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := reflectMethods(strings.NewReader(tc.deps))
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("reflectMethods = %q, %v, want %q", got, err, tc.want)
			}
		})
	}
	if _, err := reflectMethods(strings.NewReader("")); err == nil {
		t.Error("reflectMethods of nothing = nil, want an error: silence is no pass")
	}
}

// small is a program, and reflecting one that looks up a method by a name that the
// linker cannot know.
const (
	small      = "package main\n\nfunc main() { println(\"hello\") }\n"
	reflecting = `package main

import (
	"os"
	"reflect"
)

func main() { look(os.Args[0]) }

//go:noinline
func look(name string) { println(reflect.ValueOf(os.Stdout).MethodByName(name).IsValid()) }
`
)

// built returns the flags that name what was built of a program.
func built(t *testing.T, source string) []string {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"main.go": source, "go.mod": "module imagelab\n\ngo 1.26.0\n"} {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for out, ldflags := range map[string]string{"binary": "-s -w", "symbols": "-dumpdep"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", ldflags, "-o", out, ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, said)
		}
		if out == "symbols" {
			if err := os.WriteFile(path("deps"), said, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return []string{"-binary", path("binary"), "-symbols", path("symbols"), "-deps", path("deps")}
}

func TestPartsAreAllOfTheFile(t *testing.T) {
	t.Parallel()
	flags := built(t, small)
	f, err := weigh(flags[1], flags[3])
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(flags[1])
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for n := range maps.Values(f.parts) {
		sum += n
	}
	if sum != info.Size() || f.binary != info.Size() {
		t.Errorf("the parts sum up to %d, binary = %d, want the file's %d bytes", sum, f.binary, info.Size())
	}
	// All memory of the program that is not in the file would show in runtime.
	for part, least := range map[string]int64{"main": 1, "runtime": 100_000, sections[".gopclntab"]: 100_000, "(type descriptors)": 1_000, "(strings)": 1_000} {
		if n := f.parts[part]; n < least || n > sum/2 {
			t.Errorf("parts[%q] = %d, want at least %d and less than half of %d", part, n, least, sum)
		}
	}
	if !strings.HasSuffix(f.toolchain, " linux/amd64") {
		t.Errorf("toolchain = %q, want Go's version and linux/amd64", f.toolchain)
	}
}

func TestWeighRefusesSymbolsOfOtherCode(t *testing.T) {
	t.Parallel()
	if _, err := weigh(built(t, small)[1], built(t, reflecting)[3]); err == nil {
		t.Error("weigh = nil, want an error: the symbols are of another program")
	}
}

func TestTableShowsWhatIsLargeOrHasChanged(t *testing.T) {
	t.Parallel()
	before := &figures{binary: 1_000_000, parts: map[string]int64{
		"large": 900_000, "small": 5_000, "tiny": 8, "gone": 3_000, "grown": 2_000, "moved": 3_000, strings.Repeat("long/", 40): 20_000,
	}}
	now := &figures{binary: 1_000_000, toolchain: "go1.26.8 linux/amd64", parts: map[string]int64{
		"large": 900_000, "small": 5_000, "tiny": 16, "grown": 3_024, "moved": 3_100, "new": 2_000, strings.Repeat("long/", 40): 20_000,
	}}
	var out bytes.Buffer
	table(&out, before, now)
	var names []string
	for line := range strings.Lines(out.String()) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 100 {
			t.Errorf("a line of %d columns, want at most 100: %s", n, line)
		}
		fields := strings.Fields(line)
		names = append(names, fields[len(fields)-1])
	}
	want := []string{"package", "large", "...", "grown", "gone", "new", "bytes", "linux/amd64"}
	for i, name := range names {
		if len(names) != len(want) || !strings.HasPrefix(name, want[i]) {
			t.Fatalf("table has the lines of %q, want %q:\n%s", names, want, &out)
		}
	}
	if !strings.Contains(out.String(), "3 others, each below 1 % and changed by less than 1024 bytes") {
		t.Errorf("table does not count the rest:\n%s", &out)
	}
}

func TestTheMostGrownAreBlamed(t *testing.T) {
	t.Parallel()
	before, now := map[string]int64{}, map[string]int64{}
	for i := range int64(15) {
		name := fmt.Sprintf("p%02d", i)
		before[name], now[name] = 100, 100+i
	}
	lines := strings.Split(strings.TrimSpace(grown(before, now)), "\n")
	if len(lines) != 11 || !strings.HasPrefix(lines[0], "p14  100 → 114") || lines[10] != "  and 4 more, each by less" {
		t.Errorf("grown = %q, want ten and the number of the others", lines)
	}
}

// TestGate records a program, compares it with itself, and then with another one.
func TestGate(t *testing.T) {
	t.Parallel()
	doc := filepath.Join(t.TempDir(), "size.md")
	builtSmall, builtReflecting := built(t, small), built(t, reflecting)
	plain := func(more ...string) []string { return slices.Concat(builtSmall, []string{"-against", doc}, more) }
	other := func(more ...string) []string { return slices.Concat(builtReflecting, []string{"-against", doc}, more) }
	steps := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"nothing recorded", plain(), 1, "", "no such file"},
		{"record", plain("-record", "-image", "scratch=123456"), 0, "recorded in " + doc, ""},
		{"the same", plain("-image", "scratch=123456"), 0, "image scratch: 123,456 → 123,456 bytes", ""},
		{"an image grew", plain("-image", "scratch=130000"), 1, "", "image scratch grew by more than 2 %: 123,456 → 130,000 bytes"},
		{"the binary grew", other(), 1, "", "  reflect  "},
		{"a method by name", other(), 1, "", "reaches them:\n  main.look\n"},
		{"no record excuses that", other("-record"), 1, "image scratch: not weighed, 123,456 bytes stay recorded", "ReflectMethod"},
		{"the binary shrank", plain(), 0, "the binary shrank: ", ""},
		{"a wrong flag", []string{"-images"}, 2, "", "not defined"},
	}
	for _, s := range steps {
		var stdout, stderr bytes.Buffer
		code := run(s.args, &stdout, &stderr)
		verdict, _, _ := strings.Cut(stdout.String(), "\n")
		if wantVerdict := map[bool]string{true: "PASSED", false: "FAILED"}[code == 0]; stdout.Len() > 0 && !slices.Contains(s.args, "-record") && !strings.HasPrefix(verdict, wantVerdict) {
			t.Errorf("%s: the first line = %q, want %s", s.name, verdict, wantVerdict)
		}
		if code != s.code || !strings.Contains(stdout.String(), s.stdout) || !strings.Contains(stderr.String(), s.stderr) || (code == 0) != (stderr.Len() == 0) {
			t.Errorf("%s: run = %d, want %d\nstdout:\n%s\nwant %q\nstderr:\n%s\nwant %q", s.name, code, s.code, &stdout, s.stdout, &stderr, s.stderr)
		}
	}
	if err := os.WriteFile(doc, []byte("<<<<<<< merged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run(plain("-record"), new(bytes.Buffer), os.Stderr); code != 0 {
		t.Errorf("a damaged record is renewed: run = %d, want 0", code)
	}
}
