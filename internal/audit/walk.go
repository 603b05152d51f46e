package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// tree is what one walk over the root filesystem found. It never enters a mount
// point, so it is what the image brought and what was written over it since.
type tree struct {
	files, directories int   // hard links count once
	bytes              int64 // sum of the sizes of regular files
	executables        int

	tools         [toolKinds]finding
	worldWritable finding
	setuid        finding
	capable       finding // with file capabilities
	secrets       finding

	devices []device // nodes, at most maxPaths that are not the usual ones

	cut         bool // the time was over before the walk was
	unreadDirs  int  // what is in them is missing everywhere
	unreadFiles int  // content not searched
	unreadAttrs int  // file capability not known
}

// A finding is a number of files or directories, of which the first few are
// kept.
type finding struct {
	count int
	some  []found // at most maxAffected; by path, once the walk is over
}

type found struct {
	path string // absolute
	note string // may be empty
}

// maxPaths is how many are shown in a line, maxAffected how many are kept.
const (
	maxPaths    = 12
	maxAffected = 100
)

func (f *finding) add(name, note string) {
	f.count++
	if len(f.some) < maxAffected {
		f.some = append(f.some, found{"/" + name, note})
	}
}

// String lists the paths, and says how many more there are.
func (f *finding) String() string {
	var list []string
	for _, s := range f.some[:min(len(f.some), maxPaths)] {
		text := s.path
		if s.note != "" {
			text += " (" + s.note + ")"
		}
		list = append(list, text)
	}
	text := strings.Join(list, ", ")
	if more := f.count - len(list); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// maxHardLinks bounds the memory for files with more than one name. Beyond it a
// second name counts as a second file.
const maxHardLinks = 1 << 16

// walker holds what the walk needs beside its result.
type walker struct {
	*tree
	c      *container
	mounts map[string]bool // mount points, as names of FS
	seen   map[[2]uint64]bool
	buf    []byte
}

// walk fills c.tree. The only error is that of ctx.
func (c *container) walk(ctx context.Context) error {
	if c.mountLines.err != nil {
		c.tree.err = fmt.Errorf("the root filesystem cannot be told from the mounts on it: %w", c.mountLines.err)
		return nil
	}
	w := walker{tree: &tree{}, c: c, mounts: map[string]bool{}, seen: map[[2]uint64]bool{}, buf: make([]byte, maxRead)}
	for _, m := range c.mountLines.value {
		if m.point != "/" {
			w.mounts[strings.TrimPrefix(m.point, "/")] = true
		}
	}
	root, err := fs.Lstat(c.sys.FS, ".")
	if err != nil {
		c.tree.err = readError("/", err)
		return nil
	}
	w.directory(".", root)

	whole := ctx
	if c.sys.WalkTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.sys.WalkTimeout)
		defer cancel()
	}
	// A list instead of recursion, and directories in portions: neither depth
	// nor width of the tree costs file descriptors or much memory.
	pending := []string{"."}
	for len(pending) > 0 {
		if err := whole.Err(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			w.cut = true
			w.unreadDirs += len(pending)
			break
		}
		dir := pending[len(pending)-1]
		pending, err = w.list(ctx, dir, pending[:len(pending)-1])
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist):
		case whole.Err() != nil:
			return whole.Err()
		case ctx.Err() != nil: // in the middle of the directory, which may have been the last one
			w.cut = true
			w.unreadDirs++
		case dir == ".":
			c.tree.err = readError("/", err)
			return nil
		default:
			w.unreadDirs++
		}
	}
	w.sort()
	c.tree.value = w.tree
	return nil
}

// sort puts the findings in the order of their paths, as the kernel lists
// directories in any order.
func (t *tree) sort() {
	findings := []*finding{&t.worldWritable, &t.setuid, &t.capable, &t.secrets}
	for kind := range t.tools {
		findings = append(findings, &t.tools[kind])
	}
	for _, f := range findings {
		// The stable sort: for some hundred paths it is as fast, and its code is 8 kB smaller.
		slices.SortStableFunc(f.some, func(a, b found) int { return cmp.Compare(a.path, b.path) })
	}
}

// dirPortion is how many entries of a directory are read at a time.
const dirPortion = 512

// list visits what is in dir, and returns pending with its directories added.
func (w *walker) list(ctx context.Context, dir string, pending []string) ([]string, error) {
	f, err := w.c.sys.FS.Open(dir)
	if err != nil {
		return pending, err
	}
	defer f.Close()
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return pending, fmt.Errorf("%s: not a directory", dir)
	}
	for {
		entries, err := d.ReadDir(dirPortion)
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if w.mounts[name] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return pending, err
			}
			if w.c.sys.Progress != nil {
				w.c.sys.Progress(w.files)
			}
			info, err := e.Info()
			if err != nil {
				if !errors.Is(err, fs.ErrNotExist) {
					w.unreadFiles++
				}
				continue
			}
			switch {
			case info.IsDir():
				w.directory(name, info)
				pending = append(pending, name)
			case info.Mode()&fs.ModeSymlink != 0:
				w.link(name)
			case info.Mode().IsRegular():
				w.file(name, info)
			case info.Mode()&fs.ModeDevice != 0 && len(w.devices) < maxPaths:
				w.device(name, info)
			}
		}
		if err == io.EOF {
			return pending, nil
		}
		if err != nil {
			return pending, err
		}
	}
}

func (w *walker) directory(name string, info fs.FileInfo) {
	w.directories++
	if info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		if name == "." {
			name = ""
		}
		w.worldWritable.add(name, "directory without the sticky bit")
	}
}

// device keeps a node that has come with the image, or that an engine has put there.
func (w *walker) device(name string, info fs.FileInfo) {
	st, known := w.c.fileStat(info)
	d := device{"/" + name, info.Mode()&fs.ModeCharDevice == 0, st.Major, st.Minor}
	if known && d.status() != Pass {
		w.devices = append(w.devices, d)
	}
}

// link counts a symbolic link as a tool where it leads to an executable, as
// busybox's do.
func (w *walker) link(name string) {
	kind, ok := toolKindOf(name)
	if !ok {
		return
	}
	target, info, err := resolve(w.c.sys.FS, name)
	if err == nil && isExecutable(info) && target != w.c.exe {
		w.tools[kind].add(name, "")
	}
}

func (w *walker) file(name string, info fs.FileInfo) {
	if w.c.isOwnFootprint("/" + name) {
		return
	}
	stat, known := w.c.fileStat(info)
	firstName := true
	if known && stat.Nlink > 1 {
		id := [2]uint64{stat.Dev, stat.Ino}
		firstName = !w.seen[id]
		if len(w.seen) < maxHardLinks {
			w.seen[id] = true
		}
	}
	if kind, ok := toolKindOf(name); ok && isExecutable(info) {
		w.tools[kind].add(name, "")
	}
	if !firstName {
		return
	}

	w.files++
	w.bytes += info.Size()
	mode := info.Mode()
	if mode&0o002 != 0 {
		w.worldWritable.add(name, "")
	}
	// A setgid file without g+x means mandatory locking, not a change of group.
	// One that nobody may execute lifts nobody.
	if mode&fs.ModeSetuid != 0 && mode&0o111 != 0 || mode&fs.ModeSetgid != 0 && mode&0o010 != 0 {
		w.setuid.add(name, "")
	}
	if mode&0o111 != 0 && w.c.sys.FileCapability != nil {
		switch has, err := w.c.sys.FileCapability(name); {
		case err != nil:
			w.unreadAttrs++
		case has:
			w.capable.add(name, "")
		}
	}
	w.content(name, info)
}

// content opens the file where its first bytes, or all of it, decide something.
func (w *walker) content(name string, info fs.FileInfo) {
	candidate := isExecutable(info) && !isSharedObject(name)
	search := info.Size() >= minSecret && info.Size() <= maxRead && !isOpaque(name)
	if !candidate && !search {
		return
	}
	f, err := w.c.sys.FS.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		w.unreadFiles++
		if candidate {
			w.executables++ // what else would have the x bit
		}
		if kind := secretName(name); kind != "" {
			w.secrets.add(name, kind+", not readable by the auditor")
		}
		return
	}
	defer f.Close()
	// The first read is a whole page and decides whether there is a second.
	n, err := io.ReadFull(f, w.buf[:4096])
	elf := bytes.HasPrefix(w.buf[:n], []byte("\x7fELF"))
	if candidate && (elf || bytes.HasPrefix(w.buf[:n], []byte("#!"))) {
		w.executables++
	}
	if elf || !search {
		return
	}
	if err == nil {
		var more int
		more, err = io.ReadFull(f, w.buf[n:])
		n += more
	}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		w.unreadFiles++
		return
	}
	if kind := secretIn(name, w.buf[:n]); kind != "" {
		w.secrets.add(name, kind)
	}
}

// minSecret is the least size of a file that is searched: no key or token is
// shorter, and a file of settings that holds one is not either.
const minSecret = 8

// isOpaque says whether the name is one of a file in which no key can be seen:
// compressed, a picture, a library, a message catalogue. Not opening them is
// half of the time on an image such as Debian's.
func isOpaque(name string) bool {
	switch path.Ext(name) {
	case ".gz", ".xz", ".bz2", ".zst", ".zip", ".deb", ".rpm", ".apk", ".mo", ".png", ".jpg", ".gif", ".woff2", ".pyc", ".a", ".o":
		return true
	}
	return isSharedObject(name)
}

// isOwnFootprint says whether the file is the auditor's executable, brought into
// a container whose program is another one. Where it is the program itself, it
// is a part of the image as any other file.
func (c *container) isOwnFootprint(name string) bool {
	if name != c.exe || c.sys.PID == 1 || c.sys.App != nil {
		return false
	}
	program, err := c.programPath(c.mainProcess())
	return err != nil || program != c.exe
}

func (c *container) fileStat(info fs.FileInfo) (FileStat, bool) {
	if c.sys.Stat == nil {
		return FileStat{}, false
	}
	return c.sys.Stat(info)
}

// isExecutable says whether anyone may execute the file. Empty files, such as
// Docker's /.dockerenv, do not count.
func isExecutable(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && info.Mode()&0o111 != 0 && info.Size() > 0
}

// isSharedObject goes by the name, such as libc.so or libc.so.6: some
// distributions give libraries the x bit.
func isSharedObject(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, ".so") || strings.Contains(base, ".so.")
}
