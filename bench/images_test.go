package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteTar(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("content"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := writeTar(&archive, map[string]string{"/z/link": link, "/bin/file": file}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(r)
		got = append(got, strings.Join([]string{h.Name, h.FileInfo().Mode().String(), h.Linkname, string(content)}, " "))
	}
	want := []string{"bin/file -rwxr-xr-x  content", "z/link Lrwxrwxrwx file "}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("archive:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := writeTar(io.Discard, map[string]string{"/x": filepath.Join(dir, "missing")}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing file: %v; want an error that names it", err)
	}
}

func TestWithLibraries(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	if err := withLibraries(files, "/shell", "sh"); err != nil {
		t.Fatal(err)
	}
	if files["/shell"] == "" {
		t.Errorf("files = %v, want /shell", files)
	}
	for name, from := range files {
		if info, err := os.Lstat(from); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is %s: %v; want a plain file, as links would lead out of the image", name, from, err)
		}
	}
	if err := withLibraries(files, "/x", "no-such-program"); err == nil {
		t.Error("a program that is not there: no error")
	}
}
