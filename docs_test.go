package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readPage returns a file of the project as text.
func readPage(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Who reads it reads it to the end.
func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	const most = 1200
	if n := len(strings.Fields(readPage(t, "README.md"))); n > most {
		t.Errorf("README.md has %d words, want at most %d: move what is looked up to docs/", n, most)
	}
}

// Each link of a page to a file leads to one, and where it names a heading, to that.
func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	link := regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)"\s]+)[)"]`)
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md") {
		for _, match := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			file, heading, _ := strings.Cut(match[1], "#")
			if strings.Contains(file, ":") {
				continue // of the web
			}
			links++
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, match[1], err)
			} else if heading != "" && !anchors(readPage(t, target))[heading] {
				t.Errorf("%s links to %s, a heading that %s does not have", page, match[1], target)
			}
		}
	}
	if links == 0 {
		t.Error("no page has a link")
	}
}

// anchors are the names that GitHub gives to the headings of a page.
func anchors(page string) map[string]bool {
	has := map[string]bool{}
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, match := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-")
		for again, next := 0, name; ; again++ {
			if again > 0 {
				next = fmt.Sprintf("%s-%d", name, again)
			}
			if !has[next] {
				has[next] = true
				break
			}
		}
	}
	return has
}

// docs/endpoints.md has each path that routes.go adds.
func TestEndpointsPageHasEveryRoute(t *testing.T) {
	t.Parallel()
	page := readPage(t, "docs/endpoints.md")
	routes := regexp.MustCompile(`\b(?:handle|handleStream|open|guarded|stream)\("(/[^"]*)"`).
		FindAllStringSubmatch(readPage(t, "routes.go"), -1)
	if len(routes) < 10 {
		t.Fatalf("routes.go adds %d routes by the look of it, want more", len(routes))
	}
	for _, route := range append(routes, []string{"", healthPath}) {
		path := strings.TrimSuffix(route[1], "{$}")
		if strings.HasPrefix(path, "/debug/pprof/") {
			path = "/debug/pprof/" // one row for all
		}
		if !regexp.MustCompile("(?m)^\\|.*[ `]" + regexp.QuoteMeta(path) + "`").MatchString(page) {
			t.Errorf("docs/endpoints.md has no row of %s", path)
		}
	}
}

// docs/layout.md names what is there, and each source of the program.
func TestLayoutPageIsTrue(t *testing.T) {
	t.Parallel()
	page := readPage(t, "docs/layout.md")
	named := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`"+`[^|]*) \|`).FindAllStringSubmatch(page, -1) {
		for _, path := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			named[strings.TrimSuffix(path[1], "/")] = true
			if _, err := os.Stat(path[1]); err != nil {
				t.Errorf("docs/layout.md names %s: %v", path[1], err)
			}
		}
	}
	for _, pattern := range []string{"*.go", "internal/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") && !named[file] {
				t.Errorf("docs/layout.md has no row that names %s", file)
			}
		}
	}
}

// Each test that a page names is there.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		sources.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"docs/stopping.md", "docs/publishing.md"} {
		names := regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`").FindAllStringSubmatch(readPage(t, file), -1)
		if len(names) == 0 {
			t.Errorf("%s names no test", file)
		}
		for _, name := range names {
			if !strings.Contains(sources.String(), "\nfunc "+name[1]+"(t *testing.T)") {
				t.Errorf("%s names %s, which is not there", file, name[1])
			}
		}
	}
}
