package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// image is one whose size is a row's.
type image struct{ name, tag string }

// imported are the images that this run has made; they go when it ends.
const imported = "imagelab-bench:"

// importImage makes an image of the files, which map a path in the image to one
// here, and of nothing else. Changes are instructions as in a Dockerfile.
func importImage(tag string, files map[string]string, changes ...string) error {
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	load := exec.Command("docker", append(args, "-", tag)...)
	pipe, err := load.StdinPipe()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	load.Stdout, load.Stderr = &out, &out
	if err := load.Start(); err != nil {
		return err
	}
	err = errors.Join(writeTar(pipe, files), pipe.Close())
	if err := errors.Join(load.Wait(), err); err != nil {
		return fmt.Errorf("docker import %s: %w\n%s", tag, err, &out)
	}
	return nil
}

func writeTar(w io.Writer, files map[string]string) error {
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := addFile(archive, strings.TrimPrefix(name, "/"), files[name]); err != nil {
			return err
		}
	}
	return archive.Close()
}

func addFile(archive *tar.Writer, name, from string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&os.ModeSymlink != 0 {
		if target, err = os.Readlink(from); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name = name
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(archive, f)
	return err
}

// withLibraries adds a program of this machine and what ldd(1) says it loads.
func withLibraries(files map[string]string, name, program string) error {
	where, err := exec.LookPath(program)
	if err == nil {
		where, err = filepath.EvalSymlinks(where)
	}
	if err != nil {
		return err
	}
	files[name] = where
	out, _ := exec.Command("ldd", where).Output() // fails for a static program
	for _, word := range strings.Fields(string(out)) {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		if files[word], err = filepath.EvalSymlinks(word); err != nil {
			return err
		}
	}
	return nil
}

// flaskFiles are python3-flask, all that it depends on, and the service, without
// a distribution around them: the smallest image that this machine can make of it.
func flaskFiles(app string) (map[string]string, error) {
	out, err := exec.Command("apt-cache", "depends", "--recurse", "--installed", "--no-recommends", "--no-suggests",
		"--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", "python3-flask").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-cache depends python3-flask: %w: %s", err, stderr(err))
	}
	args := []string{"-L"}
	for line := range strings.Lines(string(out)) {
		// Others are indented, or virtual: <python3:any>. dpkg is there for
		// scripts of the installation, jquery for pages of older versions.
		if name := strings.TrimSpace(line); name != "" && line[0] != ' ' && line[0] != '<' && !slices.Contains([]string{"dpkg", "libjs-jquery"}, name) {
			args = append(args, name)
		}
	}
	if out, err = exec.Command("dpkg", args...).Output(); err != nil {
		return nil, fmt.Errorf("dpkg %s: %w: %s", strings.Join(args, " "), err, stderr(err))
	}
	files := map[string]string{"/app.py": app}
	for _, name := range []string{"/bin", "/lib", "/lib64"} { // into /usr, in today's Debian
		if info, err := os.Lstat(name); err == nil && info.Mode()&os.ModeSymlink != 0 {
			files[name] = name
		}
	}
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		if slices.ContainsFunc([]string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/"}, func(dir string) bool { return strings.HasPrefix(name, dir) }) {
			continue // as in Debian's images
		}
		info, err := os.Lstat(name)
		if err != nil || info.IsDir() {
			continue
		}
		dir, err := filepath.EvalSymlinks(path.Dir(name))
		if err != nil {
			return nil, err
		}
		files[path.Join(dir, path.Base(name))] = name
	}
	return files, nil
}

func (b *bench) removeImages() {
	out, _ := exec.Command("docker", "images", "-q", "-f", "reference="+imported+"*").Output()
	if ids := strings.Fields(string(out)); len(ids) > 0 {
		_ = exec.Command("docker", append([]string{"rmi", "-f"}, ids...)...).Run()
	}
}

// imageSize adds an image's bytes, compressed bytes and layers.
func (b *bench) imageSize(name, tag string) error {
	out, err := exec.Command("docker", "image", "inspect", "-f", "{{.Size}} {{len .RootFS.Layers}}", tag).Output()
	if err != nil {
		return fmt.Errorf("docker image inspect %s: %w: %s(make images builds imagelab's)", tag, err, stderr(err))
	}
	var size, layers float64
	if _, err := fmt.Sscan(string(out), &size, &layers); err != nil {
		return err
	}
	b.add("image-bytes", name, size)
	b.add("image-layers", name, layers)

	save := exec.Command("docker", "save", tag)
	saved, err := save.StdoutPipe()
	if err != nil {
		return err
	}
	if err := save.Start(); err != nil {
		return err
	}
	var compressed counter
	zip := gzip.NewWriter(&compressed)
	_, err = io.Copy(zip, saved)
	if err := errors.Join(err, zip.Close(), save.Wait()); err != nil {
		return fmt.Errorf("docker save %s: %w", tag, err)
	}
	b.add("image-compressed", name, float64(compressed))
	return nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
