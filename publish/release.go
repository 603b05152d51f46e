package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"imagelab/internal/sbom"
)

// platforms are those that a release is for.
var platforms = []v1.Platform{
	{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm64"},
	{OS: "linux", Architecture: "arm", Variant: "v7"},
}

// A release is what one version hands out.
type release struct {
	root                  string // the project's folder
	version, commit       string
	source, documentation string // URLs; may be empty
	created               time.Time
}

// nameOf is how the names of files say p: "linux-armv7".
func nameOf(p v1.Platform) string {
	if p.Architecture == "arm" {
		return p.OS + "-arm" + p.Variant
	}
	return p.OS + "-" + p.Architecture
}

// write makes the release in folder, which it empties of an earlier one:
//
//	imagelab-VERSION-PLATFORM.tar.gz     the binary, its licences, the README
//	imagelab-VERSION-PLATFORM.cdx.json   the binary's bill of materials
//	imagelab-VERSION.digest              the digest of the image's index
//	SHA256SUMS                           of all these, as sha256sum -c reads it
//	image/                               the image of all platforms, an OCI layout
func (r release) write(folder string, stdout io.Writer) error {
	if err := makeRoom(folder); err != nil {
		return err
	}
	var images []platformImage
	for _, p := range platforms {
		binary, err := r.build(p)
		if err != nil {
			return err
		}
		base := filepath.Join(folder, "imagelab-"+r.version+"-"+nameOf(p))
		archive, err := r.archive(binary)
		if err != nil {
			return err
		}
		bill, err := r.bill(binary)
		if err != nil {
			return fmt.Errorf("%s: %w", nameOf(p), err)
		}
		if err := errors.Join(os.WriteFile(base+".tar.gz", archive, 0o644), os.WriteFile(base+".cdx.json", bill, 0o644)); err != nil {
			return err
		}
		image, err := r.image(p, binary)
		if err != nil {
			return err
		}
		images = append(images, platformImage{p, image})
	}
	index := r.index(images)
	if _, err := layout.Write(filepath.Join(folder, layoutFolder), index); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "imagelab-"+r.version+".digest"), []byte(digest.String()+"\n"), 0o644); err != nil {
		return err
	}
	sums, err := sumsOf(folder)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\nthe image is %s, in %s\n", bytes.TrimSpace(sums), digest, filepath.Join(folder, layoutFolder))
	return os.WriteFile(filepath.Join(folder, "SHA256SUMS"), sums, 0o644)
}

// makeRoom makes the folder, and removes an earlier release from it. It touches nothing in a
// folder that holds anything else.
func makeRoom(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != layoutFolder && name != "SHA256SUMS" && !strings.HasPrefix(name, "imagelab-") {
			return fmt.Errorf("%s holds %s, which is of no release: want an empty folder, or one that a release was made in", folder, name)
		}
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// build returns the binary for p.
func (r release) build(p v1.Platform) ([]byte, error) {
	dir, err := os.MkdirTemp("", "imagelab-release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "imagelab")
	cmd := exec.Command(filepath.Join(r.root, "scripts/build.sh"), out)
	cmd.Env = append(os.Environ(), "GOOS="+p.OS, "GOARCH="+p.Architecture, "GOARM="+strings.TrimPrefix(p.Variant, "v"),
		"GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "VERSION="+r.version, "COMMIT="+r.commit)
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("scripts/build.sh for %s: %w\n%s", nameOf(p), err, output)
	}
	return os.ReadFile(out)
}

// bill is the binary's bill of materials: what its own --sbom prints, which only a machine
// of its kind can ask it for.
func (r release) bill(binary []byte) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, err
	}
	var bill bytes.Buffer
	err = sbom.Write(&bill, info, r.version)
	return bill.Bytes(), err
}

// archive is a .tar.gz of the binary and of what has to go with it.
func (r release) archive(binary []byte) ([]byte, error) {
	folder := "imagelab-" + r.version + "/"
	entries := []entry{{name: folder, mode: 0o755}, {name: folder + "imagelab", mode: 0o755, content: binary}}
	for _, file := range []string{"LICENSE", "THIRD_PARTY.md", "README.md", "CHANGELOG.md"} {
		content, err := os.ReadFile(filepath.Join(r.root, file))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name: folder + file, mode: 0o644, content: content})
	}
	packed, err := pack(entries, r.created)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	// Its header has neither a name nor a time.
	compressor, err := gzip.NewWriterLevel(&archive, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = compressor.Write(packed)
	if err := errors.Join(err, compressor.Close()); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

// An entry is a file of an archive, or a folder if its name ends with a slash.
type entry struct {
	name    string
	mode    int64
	content []byte
}

// pack is a tar archive of the entries, all of them root's and of that time.
func pack(entries []entry, at time.Time) ([]byte, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", e.name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// sumsOf lists the checksums of the files in folder, in the order of their names.
func sumsOf(folder string) ([]byte, error) {
	files, err := fs.Glob(os.DirFS(folder), "imagelab-*")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var sums bytes.Buffer
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), file)
	}
	return sums.Bytes(), nil
}
