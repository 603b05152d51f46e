package main

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Each test that docs/stopping.md names is there.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/stopping.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources strings.Builder
	err = fs.WalkDir(os.DirFS("."), ".", func(path string, _ fs.DirEntry, err error) error {
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
	names := regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]*)`").FindAllStringSubmatch(string(page), -1)
	if len(names) == 0 {
		t.Error("docs/stopping.md names no test")
	}
	for _, name := range names {
		if !strings.Contains(sources.String(), "\nfunc "+name[1]+"(t *testing.T)") {
			t.Errorf("docs/stopping.md names %s, which is not there", name[1])
		}
	}
}
