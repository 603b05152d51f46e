package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const megabyte = 1_000_000

// file is one entry of an image's file system.
type file struct {
	header  tar.Header
	content []byte
}

// imageFiles is an image as docker save writes it.
type imageFiles struct {
	config []byte
	files  map[string]file // by path, without a slash at either end
}

// saved reads an image, with its layers one on top of the other.
func saved(t *testing.T, image string) imageFiles {
	t.Helper()
	needEngine(t)
	entries := untar(t, []byte(docker(t, "save", image)))
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(entries["manifest.json"].content, &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("docker save %s: manifest.json = %s, %v", image, entries["manifest.json"].content, err)
	}
	img := imageFiles{config: entries[manifest[0].Config].content, files: map[string]file{}}
	for _, layer := range manifest[0].Layers {
		f := entries[layer]
		if f.header.Typeflag == tar.TypeSymlink { // a layer that two images share
			f = entries[path.Join(path.Dir(layer), f.header.Linkname)]
		}
		for name, f := range untar(t, f.content) {
			// A whiteout deletes (OCI image layer specification).
			if hidden, ok := strings.CutPrefix(path.Base(name), ".wh."); ok {
				delete(img.files, path.Join(path.Dir(name), hidden))
				continue
			}
			img.files[name] = f
		}
	}
	return img
}

// untar reads an archive, which may be compressed.
func untar(t *testing.T, archive []byte) map[string]file {
	t.Helper()
	var r io.Reader = bytes.NewReader(archive)
	if bytes.HasPrefix(archive, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = unzipped
	}
	files := map[string]file{}
	for entries := tar.NewReader(r); ; {
		h, err := entries.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(entries)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.Trim(path.Clean("/"+h.Name), "/")] = file{*h, content}
	}
}

// importEmpty makes an image that holds nothing.
func importEmpty(t *testing.T, name string) {
	t.Helper()
	var archive bytes.Buffer
	if err := tar.NewWriter(&archive).Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker", "import", "--change", "LABEL "+label(), "-", name)
	cmd.Stdin = &archive
	if _, stderr, err := execute(t, cmd); err != nil {
		t.Fatalf("docker import: %v: %s", err, stderr)
	}
}

func TestImageConfiguration(t *testing.T) {
	t.Parallel()
	needEngine(t)
	probes := map[string][]string{
		"scratch": {"CMD", "/imagelab", "--healthcheck"},
		"alpine":  {"CMD-SHELL", `exec wget -q -Y off -O /dev/null "http://127.0.0.1:${PORT:-8000}/health"`},
	}
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			config := inspect[struct {
				User, StopSignal string
				Env, Entrypoint  []string
				Labels           map[string]string
				Healthcheck      *struct{ Test []string }
			}](t, "imagelab:"+variant, ".Config")
			if config.User != "65532:65532" {
				t.Errorf("User = %q, want 65532:65532", config.User)
			}
			if config.StopSignal != "SIGTERM" {
				t.Errorf("StopSignal = %q, want SIGTERM", config.StopSignal)
			}
			if !slices.Equal(config.Entrypoint, []string{"/imagelab"}) {
				t.Errorf("Entrypoint = %q, want /imagelab", config.Entrypoint)
			}
			if config.Healthcheck == nil || !slices.Equal(config.Healthcheck.Test, probes[variant]) {
				t.Errorf("Healthcheck = %+v, want %q", config.Healthcheck, probes[variant])
			}
			for _, want := range []string{"ROCKET_SIZE=Medium", "IMAGELAB_VARIANT=" + variant} {
				if !slices.Contains(config.Env, want) {
					t.Errorf("Env = %q, want %s in it", config.Env, want)
				}
			}
			for _, name := range []string{
				"org.opencontainers.image.title", "org.opencontainers.image.description", "org.opencontainers.image.version",
				"org.opencontainers.image.revision", "org.opencontainers.image.licenses", "org.lab.login", "org.lab.token",
			} {
				if config.Labels[name] == "" {
					t.Errorf("label %s is missing", name)
				}
			}
		})
	}
}

func TestImageSizes(t *testing.T) {
	t.Parallel()
	needEngine(t)
	base := inspect[map[string]string](t, "imagelab:alpine", ".Config.Labels")["org.opencontainers.image.base.name"]
	binary := len(saved(t, "imagelab:scratch").files["imagelab"].content)
	// bench compares it with a bare server of the same machine and compiler.
	if limit := 1124 * megabyte / 100; binary > limit {
		t.Errorf("size of the binary = %d, want at most %d", binary, limit)
	}
	for _, tc := range []struct {
		image string
		limit int
	}{
		{"imagelab:scratch", binary + 3*megabyte/10},
		{"imagelab:alpine", inspect[int](t, base, ".Size") + binary + megabyte/10},
	} {
		got := inspect[int](t, tc.image, ".Size")
		t.Logf("%s: %d bytes", tc.image, got)
		if got > tc.limit {
			t.Errorf("size of %s = %d, want at most %d", tc.image, got, tc.limit)
		}
	}
}

func TestScratchImageHoldsNothingElse(t *testing.T) {
	t.Parallel()
	img := saved(t, "imagelab:scratch")
	want := map[string]string{ // mode and owner
		"etc":                               "drwxr-xr-x 0:0",
		"etc/group":                         "-rw-r--r-- 0:0",
		"etc/passwd":                        "-rw-r--r-- 0:0",
		"etc/ssl":                           "drwxr-xr-x 0:0",
		"etc/ssl/certs":                     "drwxr-xr-x 0:0",
		"etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- 0:0",
		"imagelab":                          "-rwxr-xr-x 0:0",
		"tmp":                               "dtrwxrwxrwx 0:0",
	}
	got := map[string]string{}
	for name, f := range img.files {
		if name != "" {
			got[name] = fmt.Sprintf("%v %d:%d", f.header.FileInfo().Mode(), f.header.Uid, f.header.Gid)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("/%s = %q, want %q", name, got[name], want[name])
		}
		delete(got, name)
	}
	for name, mode := range got {
		t.Errorf("/%s = %q, want no such file", name, mode)
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		if got := bytes.Count(img.files[name].content, []byte("\n")); got != 2 {
			t.Errorf("lines of /%s = %d, want 2", name, got)
		}
	}
}

func TestBinaryIsTheSameInBothImages(t *testing.T) {
	t.Parallel()
	sums := map[[sha256.Size]byte]bool{}
	for _, variant := range variants {
		binary := saved(t, "imagelab:"+variant).files["imagelab"]
		if len(binary.content) == 0 {
			t.Fatalf("imagelab:%s has no /imagelab", variant)
		}
		sums[sha256.Sum256(binary.content)] = true
	}
	if len(sums) != 1 {
		t.Errorf("binaries = %d different ones, want the same", len(sums))
	}
}

// TestBuild builds both images twice from a copy of the project. There are two
// secrets: one that the build's environment and a build argument have, and one in
// the files beside the source.
func TestBuild(t *testing.T) {
	t.Parallel()
	needEngine(t)
	copied := t.TempDir()
	copyProject(t, copied)
	inEnvironment, inFile := rand.Text(), rand.Text()
	for _, name := range []string{"deploy/secrets/demo.txt", ".env.local", "secret.txt", "internal/secret.txt.swp"} {
		write(t, filepath.Join(copied, name), inFile)
	}
	names := map[string]string{}
	override := "services:\n"
	for _, variant := range variants {
		names[variant] = newName()
		override += fmt.Sprintf("  %s:\n    image: %s\n    build:\n      labels: {imagelab.e2e: %q, imagelab.e2e.build: %q}\n      args: {SECRET: %s}\n",
			variant, names[variant], owner, owner, inEnvironment)
	}
	write(t, filepath.Join(copied, "override.yaml"), override)
	t.Cleanup(func() {
		if ids := strings.Fields(docker(t, "image", "ls", "-q", "--no-trunc", "--filter", "label=imagelab.e2e.build="+owner)); len(ids) > 0 {
			for _, id := range ids {
				try(t, "image", "rm", "-f", id)
			}
		}
	})
	build := func() string {
		cmd := composeCommand(t, "-p", newName(), "--project-directory", copied,
			"-f", filepath.Join(copied, "compose.yaml"), "-f", filepath.Join(copied, "override.yaml"),
			"--progress", "plain", "build", "scratch", "alpine")
		cmd.Env = environ("SECRET="+inEnvironment, "LAB_LOGIN=someone", "LAB_TOKEN=t-1", "VERSION=v9.8.7", "COMMIT=abcdef",
			"SOURCE=https://example.com/source", "DOCUMENTATION=https://example.com/docs")
		stdout, stderr, err := execute(t, cmd)
		if err != nil {
			t.Fatalf("compose build: %v\n%s%s", err, stdout, stderr)
		}
		return stdout + stderr
	}

	build()
	for _, variant := range variants {
		labels := inspect[map[string]string](t, names[variant], ".Config.Labels")
		for name, want := range map[string]string{
			"org.lab.login": "someone", "org.lab.token": "t-1",
			"org.opencontainers.image.version": "v9.8.7", "org.opencontainers.image.revision": "abcdef",
			"org.opencontainers.image.source": "https://example.com/source", "org.opencontainers.image.documentation": "https://example.com/docs",
			"org.opencontainers.image.licenses": "MIT",
		} {
			if labels[name] != want {
				t.Errorf("%s: label %s = %q, want %q", variant, name, labels[name], want)
			}
		}
		if got := docker(t, "run", "--rm", "--label", label(), names[variant], "--version"); !strings.Contains(got, "v9.8.7") {
			t.Errorf("%s: --version = %q, want v9.8.7 in it", variant, got)
		}
		places := map[string]string{
			"docker history": docker(t, "history", "--no-trunc", "--format", "{{json .}}", names[variant]),
			"docker inspect": docker(t, "inspect", names[variant]),
		}
		img := saved(t, names[variant])
		places["its configuration"] = string(img.config)
		for name, f := range img.files {
			places["/"+name] = string(f.content)
		}
		for place, text := range places {
			for kind, secret := range map[string]string{"environment": inEnvironment, "files": inFile} {
				if strings.Contains(text, secret) {
					t.Errorf("%s: the secret in the %s of the build is in %s", variant, kind, place)
				}
			}
		}
	}

	main := filepath.Join(copied, "main.go")
	source, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	write(t, main, string(source)+"\nvar _ = \""+rand.Text()+"\"\n")
	output := build()
	for _, step := range []struct {
		what, pattern string
		cached        bool
	}{
		{"the dependencies", `RUN go mod download`, true},
		{"the code", `COPY \. \.`, false},
	} {
		ids := regexp.MustCompile(`(?m)^(#\d+) \[.*\] ` + step.pattern).FindStringSubmatch(output)
		if ids == nil {
			t.Fatalf("second build: no step %s in\n%s", step.pattern, output)
		}
		if got := strings.Contains(output, "\n"+ids[1]+" CACHED"); got != step.cached {
			t.Errorf("second build: %s cached = %t, want %t:\n%s", step.what, got, step.cached, output)
		}
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// copyProject copies what a build reads, and what may lie beside it.
func copyProject(t *testing.T, to string) {
	t.Helper()
	from := root(t)
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // an editor's, gone meanwhile
		case err != nil:
			return err
		case d.IsDir() && (rel == ".git" || rel == ".tools" || rel == "e2e"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !info.Mode().IsRegular() || info.Size() > megabyte:
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}
