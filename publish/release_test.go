package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// scratchFolder is removed when all tests have ended.
var scratchFolder string

func TestMain(m *testing.M) {
	var err error
	if scratchFolder, err = os.MkdirTemp("", "imagelab-publish-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(scratchFolder)
	os.Exit(code)
}

// released is the folder of a release that is made once for all tests, of the project's
// folder as it is.
var released = sync.OnceValues(func() (string, error) {
	folder := filepath.Join(scratchFolder, "dist")
	return folder, example("..").write(folder, io.Discard)
})

func theRelease(t *testing.T) string {
	t.Helper()
	folder, err := released()
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// example is the release of the sources in root.
func example(root string) release {
	return release{
		root: root, version: "v9.8.7", commit: "abcdef",
		source: "https://example.com/x", documentation: "https://example.com/x#readme",
		created: time.Unix(1767225600, 0).UTC(),
	}
}

// needDocker leaves the test out where there is no engine, except in CI.
func needDocker(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		leaveOut(t, fmt.Sprintf("no docker: %v, %s", err, bytes.TrimSpace(out)))
	}
}

func leaveOut(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// checkout is the index of the project in a folder of its own. The index and not HEAD, so
// that what is about to be committed is tested.
func checkout(t *testing.T, folder string) string {
	t.Helper()
	output(t, "..", "git", "checkout-index", "--all", "--prefix="+folder+"/")
	return folder
}

// tree has the checksum of each file below folder.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(folder, path))
		files[path] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Two clones in two folders give the same release: every archive, bill of materials,
// layer, configuration, manifest and index.
func TestReleaseIsReproducible(t *testing.T) {
	t.Parallel()
	var trees []map[string]string
	for _, clone := range []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "somewhere", "else", "b")} {
		folder := filepath.Join(t.TempDir(), "dist")
		if err := example(checkout(t, clone)).write(folder, io.Discard); err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree(t, folder))
	}
	// 2 files a platform, digest, checksums; index.json, oci-layout, and of the image a first
	// layer, and for each platform a second one, a configuration and a manifest.
	if n, want := len(trees[0]), 2*len(platforms)+2+2+1+3*len(platforms); n != want {
		t.Errorf("a release has %d files, want %d: %v", n, want, trees[0])
	}
	if !reflect.DeepEqual(trees[0], trees[1]) {
		t.Errorf("two clones give\n%v\nand\n%v", trees[0], trees[1])
	}
}

// A release that differs in nothing but its time has another image.
func TestTimeOfTheReleaseIsInTheImage(t *testing.T) {
	t.Parallel()
	digest := func(created time.Time) v1.Hash {
		t.Helper()
		r := example("..")
		r.created = created
		image, err := r.image(platforms[0], []byte("binary"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := digest(time.Unix(1, 0))
	if again, other := digest(time.Unix(1, 0)), digest(time.Unix(2, 0)); one != again || one == other {
		t.Errorf("images %s and %s of the same time, %s of another", one, again, other)
	}
}

func TestChecksumsAndArchives(t *testing.T) {
	t.Parallel()
	folder := theRelease(t)
	output(t, folder, "sha256sum", "--check", "--strict", "SHA256SUMS")
	for _, p := range platforms {
		base := filepath.Join(folder, "imagelab-v9.8.7-"+nameOf(p))
		file, err := os.Open(base + ".tar.gz")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		unzipped, err := gzip.NewReader(file)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		files := contents(t, unzipped, func(h *tar.Header) { names = append(names, h.Name) })
		if want := []string{"imagelab-v9.8.7/", "imagelab-v9.8.7/imagelab", "imagelab-v9.8.7/LICENSE", "imagelab-v9.8.7/THIRD_PARTY.md",
			"imagelab-v9.8.7/README.md", "imagelab-v9.8.7/CHANGELOG.md"}; !slices.Equal(names, want) {
			t.Errorf("%s.tar.gz holds %q, want %q", base, names, want)
		}
		// GNU tar misses an end that Go's reader does not.
		output(t, folder, "tar", "-tzf", base+".tar.gz")
		if p.Architecture != runtime.GOARCH {
			continue
		}
		binary := filepath.Join(t.TempDir(), "imagelab")
		if err := os.WriteFile(binary, files["imagelab-v9.8.7/imagelab"], 0o755); err != nil {
			t.Fatal(err)
		}
		if version := output(t, ".", binary, "--version"); !bytes.HasPrefix(version, []byte("imagelab v9.8.7, commit abcdef, ")) {
			t.Errorf("--version of the archive's binary = %s", version)
		}
		bill, err := os.ReadFile(base + ".cdx.json")
		if err != nil {
			t.Fatal(err)
		}
		if own := output(t, ".", binary, "--sbom"); !bytes.Equal(own, bill) {
			t.Errorf("the binary says of itself\n%s\nand the release\n%s", own, bill)
		}
	}
}

// contents are the files of a tar archive; each header is shown to see.
func contents(t *testing.T, packed io.Reader, see func(*tar.Header)) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(packed); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		see(h)
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = content
	}
}

func TestReleaseKeepsWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := run([]string{"release", folder}, func(string) string { return "" }, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("a release into a folder with a file of somebody's: %v, want it refused by the file's name", err)
	}
	if _, err := os.Stat(filepath.Join(folder, "thesis.txt")); err != nil {
		t.Error(err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args  []string
		epoch string
		want  string
	}{
		{nil, "", "want release FOLDER, or push FOLDER IMAGE"},
		{[]string{"release", t.TempDir()}, "today", `SOURCE_DATE_EPOCH="today": want seconds since 1970`},
		{[]string{"push", t.TempDir(), "Im age"}, "", "IMAGE=Im age: "},
		{[]string{"push", t.TempDir(), "localhost:1/x:y"}, "", "holds no release"},
	} {
		err := run(tc.args, func(name string) string {
			return map[string]string{"SOURCE_DATE_EPOCH": tc.epoch}[name]
		}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("publish %q with SOURCE_DATE_EPOCH=%s: %v, want %q", tc.args, tc.epoch, err, tc.want)
		}
	}
}

// localRegistry is a registry of this test, host:port.
func localRegistry(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// What is pushed to a registry comes back the same, for each platform its own.
func TestPushAndPull(t *testing.T) {
	t.Parallel()
	folder := theRelease(t)
	image := localRegistry(t) + "/you/imagelab:v9.8.7"
	var said strings.Builder
	if err := run([]string{"push", folder, image}, func(string) string { return "" }, &said); err != nil {
		t.Fatal(err)
	}
	digest, err := os.ReadFile(filepath.Join(folder, "imagelab-v9.8.7.digest"))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSuffix(image, ":v9.8.7") + "@" + string(digest); said.String() != want {
		t.Errorf("push says %q, want %q", said.String(), want)
	}
	ref, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range manifest.Manifests {
		got = append(got, m.Platform.String())
	}
	if want := []string{"linux/amd64", "linux/arm64", "linux/arm/v7"}; !slices.Equal(got, want) {
		t.Errorf("the index has %q, want %q", got, want)
	}
	for _, p := range platforms {
		pulled, err := remote.Image(ref, remote.WithPlatform(p))
		if err != nil {
			t.Fatal(err)
		}
		files := contents(t, mutate.Extract(pulled), func(*tar.Header) {})
		// The machine that an ELF file is for, elf(5).
		want := map[string]byte{"amd64": 62, "arm64": 183, "arm": 40}[p.Architecture]
		if binary := files["imagelab"]; len(binary) < 20 || binary[18] != want {
			t.Errorf("the image for %s holds a binary for another machine, or none", p)
		}
	}
}

// hostImage is the image of this machine's platform.
func hostImage(t *testing.T) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(theRelease(t), layoutFolder))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		if m.Platform.Architecture == runtime.GOARCH {
			image, err := index.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return image
		}
	}
	leaveOut(t, "no image is for "+runtime.GOARCH)
	return nil
}

// No layer has a file that an earlier one has: nothing is wasted, and nothing is hidden.
func TestLayersHaveNothingTwice(t *testing.T) {
	t.Parallel()
	layers, err := hostImage(t).Layers()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, l := range layers {
		unpacked, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		packed, err := io.ReadAll(unpacked)
		if err != nil {
			t.Fatal(err)
		}
		if end := make([]byte, 1024); !bytes.HasSuffix(packed, end) {
			t.Error("a layer has not the end that tar(5) wants, two blocks of zeros")
		}
		contents(t, bytes.NewReader(packed), func(h *tar.Header) {
			if seen[h.Name] {
				t.Errorf("%s is in two layers", h.Name)
			}
			seen[h.Name] = true
		})
	}
}

// files are the names of an image's files, with mode and owner.
func files(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	all := map[string]string{}
	contents(t, mutate.Extract(image), func(h *tar.Header) {
		all[strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")] = fmt.Sprintf("%c %o %d:%d", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid)
	})
	return all
}

// The image that is published is the one that Dockerfile.scratch makes: the same files with
// the same modes and owners, users, and configuration.
func TestImageIsThatOfTheDockerfile(t *testing.T) {
	t.Parallel()
	needDocker(t)
	if err := exec.Command("docker", "image", "inspect", "imagelab:scratch").Run(); err != nil {
		leaveOut(t, "no image imagelab:scratch: make images builds it")
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	output(t, ".", "docker", "save", "-o", saved, "imagelab:scratch")
	built, err := tarball.ImageFromPath(saved, nil)
	if err != nil {
		t.Fatal(err)
	}
	ours := hostImage(t)
	if got, want := files(t, ours), files(t, built); !reflect.DeepEqual(got, want) {
		t.Errorf("the image has\n%v\nand Dockerfile.scratch makes\n%v", got, want)
	}
	for _, file := range []string{"etc/passwd", "etc/group"} {
		got := contents(t, mutate.Extract(ours), func(*tar.Header) {})[file]
		want := contents(t, mutate.Extract(built), func(*tar.Header) {})[file]
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nand Dockerfile.scratch makes\n%s", file, got, want)
		}
	}
	got, want := configOf(t, ours), configOf(t, built)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the image is configured as\n%+v\nand Dockerfile.scratch makes\n%+v", got, want)
	}
}

// configOf is an image's configuration, without what differs from build to build.
func configOf(t *testing.T, image v1.Image) map[string]any {
	t.Helper()
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(file.Config)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(encoded, &config); err != nil {
		t.Fatal(err)
	}
	for label := range config["Labels"].(map[string]any) {
		if strings.HasPrefix(label, "com.docker.compose.") {
			delete(config["Labels"].(map[string]any), label)
		}
	}
	for _, label := range []string{"version", "revision", "source", "documentation"} {
		if _, has := config["Labels"].(map[string]any)["org.opencontainers.image."+label]; !has {
			t.Errorf("label %s is missing", label)
		}
		delete(config["Labels"].(map[string]any), "org.opencontainers.image."+label)
	}
	return config
}

// An engine pulls the image, runs it, and its health check says that it is healthy.
func TestEngineRunsWhatIsPulled(t *testing.T) {
	t.Parallel()
	needDocker(t)
	image := localRegistry(t) + "/imagelab:v9.8.7"
	if err := run([]string{"push", theRelease(t), image}, func(string) string { return "" }, io.Discard); err != nil {
		t.Fatal(err)
	}
	output(t, ".", "docker", "pull", "-q", image)
	t.Cleanup(func() { output(t, ".", "docker", "image", "rm", "-f", image) })
	id := strings.TrimSpace(string(output(t, ".", "docker", "run", "-d", "--read-only", "--tmpfs", "/tmp", image)))
	t.Cleanup(func() { output(t, ".", "docker", "rm", "-f", "-v", id) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		health := strings.TrimSpace(string(output(t, ".", "docker", "inspect", "-f", "{{.State.Health.Status}}", id)))
		if health == "healthy" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the container is %s, want healthy", health)
		}
	}
	output(t, ".", "docker", "stop", id)
	if code := strings.TrimSpace(string(output(t, ".", "docker", "inspect", "-f", "{{.State.ExitCode}}", id))); code != "0" {
		t.Errorf("exit code %s after docker stop, want 0", code)
	}
}
