package audit

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// fixture is a recorded container that a test may change before it is audited.
type fixture struct {
	t      *testing.T
	files  fstest.MapFS
	denied map[string]error
	caps   map[string]bool // files with file capabilities
	sys    *System
}

// load reads testdata/POSTURE: the files of /proc, /sys and /etc under their own
// names, with newlines for the zero bytes of cmdline and environ. tree.txt has
// what files cannot hold, one line each:
//
//	PATH link TARGET
//	PATH dir MODE
//	PATH char|block MAJOR:MINOR
//	PATH socket MODE
//	PATH file MODE [ELF|FIRST LINE]
//	PATH owner UID:GID
//	PATH capability
//	PATH error|hidden|unreadable ERRNO   of its content, of what Lstat says, of its file capability
//	NAME call ERRNO
//	landlock abi VERSION
//	auditor pid PID UID
//
// testdata/README.md says how they are made.
func load(t *testing.T, posture string) *fixture {
	t.Helper()
	f := &fixture{t: t, files: fstest.MapFS{}, denied: map[string]error{}, caps: map[string]bool{}}
	for name, data := range recorded()[posture] {
		f.write(name, data)
	}
	f.sys = &System{
		FS: denyFS{f.files, f.denied},
		Stat: func(info fs.FileInfo) (FileStat, bool) {
			if st, ok := info.Sys().(*FileStat); ok {
				return *st, true
			}
			return FileStat{Nlink: 1}, true
		},
		FileCapability: func(name string) (bool, error) { return f.caps[name], f.denied["xattr "+name] },
		Syscall:        func(string) error { return syscall.EPERM },
		LandlockABI:    func() (int, error) { return 7, nil },
		Sleep:          func(ctx context.Context, d time.Duration) error { return ctx.Err() },
		Now:            func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
		PID:            12,
		EUID:           65532,
		Environ:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"},
		Tool:           "test",
	}
	f.tree(string(f.files["tree.txt"].Data))
	delete(f.files, "tree.txt")
	if own := f.files["proc/self/environ"]; own != nil {
		f.sys.Environ = strings.Split(strings.TrimRight(string(own.Data), "\x00"), "\x00")
	}
	return f
}

// recorded returns the files of each posture, read once for the hundreds of tests
// that start from them.
var recorded = sync.OnceValue(func() map[string]map[string]string {
	postures := map[string]map[string]string{}
	fsys := os.DirFS("testdata")
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		posture, rel, inside := strings.Cut(name, "/")
		if err != nil || !inside || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		if base := path.Base(rel); base == "cmdline" || base == "environ" {
			data = bytes.ReplaceAll(data, []byte("\n"), []byte("\x00"))
		}
		if postures[posture] == nil {
			postures[posture] = map[string]string{}
		}
		postures[posture][rel] = string(data)
		return err
	})
	if err != nil {
		panic(err)
	}
	return postures
})

func (f *fixture) tree(text string) {
	f.t.Helper()
	calls := map[string]error{}
	owners := map[string]*FileStat{}
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		fields := strings.SplitN(s.Text(), " ", 4)
		if strings.HasPrefix(s.Text(), "#") || len(fields) < 2 {
			continue
		}
		name, kind, arg := unescape(fields[0]), fields[1], ""
		if len(fields) > 2 {
			arg = fields[2]
		}
		switch kind {
		case "link":
			f.link(name, unescape(arg))
		case "socket":
			f.socket(name)
		case "owner":
			uid, gid, _ := strings.Cut(arg, ":")
			owners[name] = &FileStat{UID: f.number(uid), GID: f.number(gid), Nlink: 1}
		case "capability":
			f.caps[name] = true
		case "error":
			f.denied[name] = syscall.Errno(f.number(arg))
		case "hidden":
			f.denied["lstat "+name] = syscall.Errno(f.number(arg))
		case "unreadable":
			f.denied["xattr "+name] = syscall.Errno(f.number(arg))
		case "call":
			calls[name] = nil
			if n := f.number(arg); n != 0 {
				calls[name] = syscall.Errno(n)
			}
		case "abi":
			version := f.number(arg)
			f.sys.LandlockABI = func() (int, error) { return version, nil }
		case "pid":
			f.sys.PID, f.sys.EUID = f.number(arg), f.number(fields[3])
		case "dir":
			f.files[name] = &fstest.MapFile{Mode: fs.ModeDir | unixMode(f.t, arg)}
		case "char":
			f.device(name, fs.ModeDevice|fs.ModeCharDevice, arg)
		case "block":
			f.device(name, fs.ModeDevice, arg)
		case "file":
			content := ""
			if len(fields) > 3 {
				content = strings.Replace(fields[3], "ELF", "\x7fELF", 1)
			}
			f.write(name, content).Mode = unixMode(f.t, arg)
		default:
			f.t.Fatalf("tree.txt: kind %q", kind)
		}
	}
	if len(calls) > 0 {
		f.sys.Syscall = func(name string) error { return calls[name] }
	}
	for name, owner := range owners {
		if file := f.files[name]; file != nil && file.Sys == nil {
			file.Sys = owner
		}
	}
}

func (f *fixture) number(text string) int {
	f.t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// unixMode turns 04755 into what package fs uses.
func unixMode(t *testing.T, octal string) fs.FileMode {
	t.Helper()
	n, err := strconv.ParseUint(octal, 8, 32)
	if err != nil {
		t.Fatal(err)
	}
	mode := fs.FileMode(n & 0o777)
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

func (f *fixture) device(name string, mode fs.FileMode, numbers string) {
	major, minor, _ := strings.Cut(numbers, ":")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	if err1 != nil || err2 != nil {
		f.t.Fatalf("device numbers %q", numbers)
	}
	f.files[name] = &fstest.MapFile{Mode: mode | 0o666, Sys: &FileStat{Major: uint32(a), Minor: uint32(b), Nlink: 1}}
}

// write makes a file of mode 0444.
func (f *fixture) write(name, content string) *fstest.MapFile {
	file := &fstest.MapFile{Data: []byte(content), Mode: 0o444}
	f.files[name] = file
	return file
}

// file makes one of this mode, as 04755.
func (f *fixture) file(name, octal, content string) {
	f.write(name, content).Mode = unixMode(f.t, octal)
}

// owned makes one with an owner.
func (f *fixture) owned(name, octal string, uid, gid int) {
	file := f.write(name, "\x7fELF")
	file.Mode = unixMode(f.t, octal)
	file.Sys = &FileStat{UID: uid, GID: gid, Nlink: 1}
}

func (f *fixture) link(name, target string) {
	f.files[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

func (f *fixture) socket(name string) { f.files[name] = &fstest.MapFile{Mode: fs.ModeSocket | 0o660} }

// sub replaces text in a file, which has to hold it.
func (f *fixture) sub(name, old, with string) {
	f.t.Helper()
	file := f.files[name]
	if file == nil || !strings.Contains(string(file.Data), old) {
		f.t.Fatalf("%s does not hold %q", name, old)
	}
	file.Data = []byte(strings.ReplaceAll(string(file.Data), old, with))
}

// status sets a field of /proc/PID/status of PID 1 and of the auditor.
func (f *fixture) status(field, value string) {
	f.t.Helper()
	for _, name := range []string{"proc/1/status", "proc/self/status"} {
		f.statusOf(name, field, value)
	}
}

func (f *fixture) statusOf(name, field, value string) {
	f.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(string(f.files[name].Data)) {
		if !strings.HasPrefix(line, field+":") {
			b.WriteString(line)
		}
	}
	f.files[name].Data = []byte(b.String() + field + ":\t" + value + "\n")
}

// mount adds a line to mountinfo, given from the root of the mount on.
func (f *fixture) mount(line string) {
	m := f.files["proc/self/mountinfo"]
	lines, err := parseMountinfo(m.Data)
	if err != nil {
		f.t.Fatal(err)
	}
	point := unescape(strings.Fields(line)[1])
	parent := "1"
	if i := newMountTree(lines).over(point); i >= 0 {
		parent = lines[i].id
	}
	m.Data = append(m.Data, fmt.Sprintf("%d %s 254:0 %s\n", 9000+len(lines), parent, line)...)
}

// process adds one to /proc.
func (f *fixture) process(pid, ppid int, state, comm, cmdline string) {
	dir := "proc/" + strconv.Itoa(pid) + "/"
	f.write(dir+"stat", strconv.Itoa(pid)+" ("+comm+") "+state+" "+strconv.Itoa(ppid)+" 1 1 0\n")
	f.write(dir+"cmdline", strings.ReplaceAll(cmdline, " ", "\x00")+"\x00")
	f.write(dir+"status", string(f.files["proc/1/status"].Data))
}

// deny makes names unreadable.
func (f *fixture) deny(names ...string) {
	for _, name := range names {
		f.denied[name] = fs.ErrPermission
	}
}

func (f *fixture) run() *Report {
	f.t.Helper()
	r, err := Run(f.t.Context(), f.sys, Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// result returns the result of one check.
func (r *Report) result(t *testing.T, id string) Result {
	t.Helper()
	for _, c := range r.Checks {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("no check %q in the report", id)
	return Result{}
}

// denyFS is a file system of which some names give an error.
type denyFS struct {
	files  fstest.MapFS
	denied map[string]error
}

func (d denyFS) refuse(op, name string) error {
	if err := d.denied[name]; err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (d denyFS) Open(name string) (fs.File, error) {
	if err := d.refuse("open", name); err != nil {
		return nil, err
	}
	file, err := d.files.Open(name)
	if dir, ok := file.(fs.ReadDirFile); ok {
		return denyDir{dir, d, name}, err
	}
	if denied := d.denied["read "+name]; denied != nil {
		return denyFile{file, denied}, err
	}
	return file, err
}

// denyFile is a file that can be opened and not read.
type denyFile struct {
	fs.File
	err error
}

func (f denyFile) Read([]byte) (int, error) { return 0, f.err }

// denyDir is a directory that lists names which cannot be looked at, as one without
// the right to search it.
type denyDir struct {
	fs.ReadDirFile
	fsys denyFS
	name string
}

func (d denyDir) ReadDir(n int) ([]fs.DirEntry, error) {
	entries, err := d.ReadDirFile.ReadDir(n)
	for i, e := range entries {
		if denied := d.fsys.denied["lstat "+path.Join(d.name, e.Name())]; denied != nil {
			entries[i] = denyEntry{e, denied}
		}
	}
	return entries, err
}

type denyEntry struct {
	fs.DirEntry
	err error
}

func (e denyEntry) Info() (fs.FileInfo, error) { return nil, e.err }

func (d denyFS) ReadLink(name string) (string, error) {
	if err := d.refuse("readlink", name); err != nil {
		return "", err
	}
	return d.files.ReadLink(name)
}

// Lstat asks for no right on the file itself, only on what is above it.
func (d denyFS) Lstat(name string) (fs.FileInfo, error) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if err := d.refuse("lstat", dir); err != nil {
			return nil, err
		}
	}
	if err := d.denied["lstat "+name]; err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return d.files.Lstat(name)
}

// failed is Fails for failures of a severity alone.
func (r *Report) failed(least Severity) bool { return r.Fails(FailOn{Severity: least}) }
