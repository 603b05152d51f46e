package audit

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

var record = flag.Bool("record", false, "do not test, but write what an audit of this container reads, as a tar")

// TestMain is also the recorder: scripts/record.sh has this program run in containers.
func TestMain(m *testing.M) {
	flag.Parse()
	if !*record {
		os.Exit(m.Run())
	}
	if err := recordContainer(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// recordContainer audits the container that it runs in, and writes what that has read.
func recordContainer(w io.Writer) error {
	sys := Live()
	r := &recorder{fsys: sys.FS, files: map[string][]byte{}, lines: map[string]string{}}
	sys.FS = r
	capable, call, abi := sys.FileCapability, sys.Syscall, sys.LandlockABI
	sys.FileCapability = func(name string) (bool, error) {
		has, err := capable(name)
		switch {
		case err != nil:
			r.line(name, "unreadable", err)
		case has:
			r.lines["capability "+name] = name + " capability"
		}
		return has, err
	}
	sys.Syscall = func(name string) error {
		err := call(name)
		errno, _ := errors.AsType[syscall.Errno](err)
		r.lines["call "+name] = fmt.Sprintf("%s call %d", name, int(errno))
		return err
	}
	if n, err := abi(); err == nil {
		r.lines["landlock"] = fmt.Sprintf("landlock abi %d", n)
	}
	r.lines["auditor"] = fmt.Sprintf("auditor pid %d %d", sys.PID, sys.EUID)
	if _, err := Run(context.Background(), sys, Options{}); err != nil {
		return err
	}
	// What a verdict may need that this run did not.
	for _, call := range triedCalls {
		_ = sys.Syscall(call.name)
	}
	for _, name := range []string{"proc/self/environ", "proc/self/cgroup", "proc/1/cgroup", "proc/1/mountinfo"} {
		_, _ = fs.ReadFile(r, name)
	}
	return r.write(w)
}

// recorder is a file system that notes what is read of it.
type recorder struct {
	fsys fs.FS

	files map[string][]byte
	lines map[string]string // of tree.txt
}

// isKept says whether the content of the file is kept, and not its beginning alone.
func isKept(name string) bool {
	top, _, inside := strings.Cut(name, "/")
	return inside && slices.Contains([]string{"proc", "sys", "etc", "run"}, top)
}

// line notes an error, and nothing where there is no such file.
func (r *recorder) line(name, kind string, err error) {
	if errno, is := errors.AsType[syscall.Errno](err); is && errno != syscall.ENOENT {
		r.lines[kind+" "+name] = fmt.Sprintf("%s %s %d", escape(name), kind, int(errno))
	}
}

// escape writes a name without the spaces that tree.txt has between its words.
func escape(name string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\n", `\012`, "\t", `\011`).Replace(name)
}

// note keeps what Lstat says.
func (r *recorder) note(name string, info fs.FileInfo) {
	if name == "proc/self" || name == "proc/thread-self" { // links, which the replay has as directories
		return
	}
	st, _ := fileStat(info)
	mode := unixOctal(info.Mode())
	word := escape(name)
	switch m := info.Mode(); {
	case m.IsDir():
		r.lines[name] = fmt.Sprintf("%s dir %s", word, mode)
	case m&fs.ModeSymlink != 0:
		_, _ = r.ReadLink(name)
	case m&fs.ModeDevice != 0:
		kind := "block"
		if m&fs.ModeCharDevice != 0 {
			kind = "char"
		}
		r.lines[name] = fmt.Sprintf("%s %s %d:%d", word, kind, st.Major, st.Minor)
	case m&fs.ModeSocket != 0:
		r.lines[name] = word + " socket " + mode
	case m.IsRegular() && r.lines[name] == "" && r.files[name] == nil:
		r.lines[name] = fmt.Sprintf("%s file %s", word, mode)
	}
	if st.UID != 0 || st.GID != 0 {
		r.lines["owner "+name] = fmt.Sprintf("%s owner %d:%d", word, st.UID, st.GID)
	}
}

func unixOctal(m fs.FileMode) string {
	n := uint32(m.Perm())
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&flag != 0 {
			n |= bit
		}
	}
	return fmt.Sprintf("%04o", n)
}

func (r *recorder) Lstat(name string) (fs.FileInfo, error) {
	info, err := fs.Lstat(r.fsys, name)
	if err != nil {
		r.line(name, "hidden", err)
		return nil, err
	}
	r.note(name, info)
	return info, nil
}

func (r *recorder) ReadLink(name string) (string, error) {
	target, err := fs.ReadLink(r.fsys, name)
	if err != nil {
		r.line(name, "error", err)
		return "", err
	}
	r.lines[name] = fmt.Sprintf("%s link %s", escape(name), escape(target))
	return target, nil
}

func (r *recorder) Open(name string) (fs.File, error) {
	f, err := r.fsys.Open(name)
	if err != nil {
		r.line(name, "error", err)
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return f, nil
	}
	if dir, ok := f.(fs.ReadDirFile); ok && info.IsDir() {
		return recordedDir{dir, r, name}, nil
	}
	if !info.Mode().IsRegular() {
		return f, nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRead))
	if err != nil {
		r.line(name, "error", err)
		return r.fsys.Open(name)
	}
	r.note(name, info)
	switch {
	case isKept(name):
		r.files[name] = data
		delete(r.lines, name)
	case bytes.HasPrefix(data, []byte("\x7fELF")):
		r.lines[name] = fmt.Sprintf("%s file %s ELF", escape(name), unixOctal(info.Mode()))
	default:
		first, _, _ := bytes.Cut(data[:min(len(data), 80)], []byte("\n"))
		r.lines[name] = strings.TrimRight(fmt.Sprintf("%s file %s %s", escape(name), unixOctal(info.Mode()), first), " ")
	}
	return fstest.MapFS{"f": {Data: data, Mode: info.Mode(), Sys: info.Sys()}}.Open("f")
}

// recordedDir notes the entries that are looked at: of /proc only the processes.
type recordedDir struct {
	fs.ReadDirFile
	r    *recorder
	name string
}

func (d recordedDir) ReadDir(n int) ([]fs.DirEntry, error) {
	entries, err := d.ReadDirFile.ReadDir(n)
	for _, e := range entries {
		name := path.Join(d.name, e.Name())
		if info, err := e.Info(); err == nil && d.name != "proc" {
			d.r.note(name, info)
		}
	}
	return entries, err
}

// write writes the tar: the files, and tree.txt for the rest.
func (r *recorder) write(w io.Writer) error {
	tree := "# What files cannot hold: PATH KIND, and for each kind its own (see tree_test.go).\n" +
		strings.Join(slices.Sorted(maps.Values(r.lines)), "\n") + "\n"
	r.files["tree.txt"] = []byte(tree)
	t := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		data := r.files[name]
		if base := path.Base(name); base == "cmdline" || base == "environ" {
			data = bytes.ReplaceAll(data, []byte("\x00"), []byte("\n"))
		}
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
	}
	return t.Close()
}
