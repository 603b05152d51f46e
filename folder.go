package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A folder is the store's directory as it was opened. It stays the same directory when it is moved, and takes no file
// any more when it is deleted.
type folder struct {
	root *os.Root
	dir  *os.File // the same directory: locked, listed, and synced after a change
}

// open opens and sweeps the directory, and makes it where there is none.
func (st *store) open() (*folder, error) {
	if err := os.Mkdir(st.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// In a directory that all may write to, a link may be somebody else's.
	info, err := os.Lstat(st.path)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory but %v", st.path, info.Mode())
	}
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(st.path)
	if err != nil {
		return nil, ownedBy(info, err)
	}
	d := &folder{root: root}
	if d.dir, err = root.Open("."); err == nil {
		err = d.lock(info)
	}
	if err != nil {
		root.Close()
		return nil, ownedBy(info, err)
	}
	st.sweep(d)
	// Found out now, with a cure in the log, and not by the first client. What is there is served all the same.
	f, name, err := st.createTemp(d)
	if err == nil {
		f.Close()
		err = root.Remove(name)
	}
	if err != nil {
		st.log.Warn("the store cannot be written to, POST /store answers 507 until that ends",
			"dir", st.path, "uid", os.Geteuid(), "err", ownedBy(info, err))
	}
	return d, nil
}

// ownedBy adds to an error whose the directory is, as that is why it cannot be used, most of the time.
func ownedBy(info fs.FileInfo, err error) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w (owner %d:%d, mode %04o)", err, stat.Uid, stat.Gid, info.Mode().Perm())
}

// lock makes the directory, which was found to be info, this process's own. The lock ends with the process, however
// that ends, and leaves no file.
func (d *folder) lock(info fs.FileInfo) error {
	opened, err := d.dir.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, opened) {
		return fmt.Errorf("%s was replaced while it was opened", d.dir.Name())
	}
	if err := syscall.Flock(int(d.dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is another process's store: %w", d.root.Name(), err)
	}
	return nil
}

// sweep deletes what uploads of an earlier process have left. What cannot be deleted stays, and does no harm.
func (st *store) sweep(d *folder) {
	names, err := d.names()
	swept, stay := 0, 0
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if failure := d.root.Remove(name); failure != nil {
			err = failure
			stay++
			continue
		}
		swept++
	}
	if swept > 0 {
		st.log.Info("swept uploads that an earlier process did not finish", "files", swept)
	}
	if err != nil {
		st.log.Warn("leftovers in the store's directory cannot be deleted, and take room there",
			"dir", st.path, "files", stay, "err", err)
	}
}

// names lists the directory.
func (d *folder) names() ([]string, error) {
	if _, err := d.dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return d.dir.Readdirnames(-1)
}

// isDigest says whether name is a SHA-256 in lower-case hex.
func isDigest(name string) bool {
	return len(name) == 2*sha256.Size && strings.Trim(name, "0123456789abcdef") == ""
}

// tempName is a name for a file that is not a blob yet. An earlier process may have used it.
func (st *store) tempName() string { return fmt.Sprint(tempPrefix, st.nextTemp.Add(1)) }

// createTemp makes a file for an upload, under a name that nothing has.
func (st *store) createTemp(d *folder) (*os.File, string, error) {
	for {
		name := st.tempName()
		f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
	}
}

// A stamp tells one state of a file from any other (inode(7)): whoever writes to a file changes its ctime, which nobody
// can set.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// costOf is what a file takes on the disk, in bytes (inode(7), st_blocks).
func costOf(info fs.FileInfo) int64 {
	return max(blobUnit, info.Sys().(*syscall.Stat_t).Blocks*512)
}

// costOfBytes is what a file of n bytes will take at least.
func costOfBytes(n int64) int64 { return (max(n, 1) + blobUnit - 1) / blobUnit * blobUnit }

func stampOf(info fs.FileInfo) stamp {
	s := info.Sys().(*syscall.Stat_t)
	return stamp{uint64(s.Dev), s.Ino, s.Size, s.Mtim, s.Ctim}
}

// A space is what a file system has left.
type space struct {
	bytes   int64
	bounded bool // otherwise bytes means nothing: a tmpfs without a size does not say
	files   bool // there is an inode for another file
}

// space asks the file system (statfs(2)).
func (d *folder) space() space {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(d.dir.Fd()), &s); err != nil {
		return space{files: true}
	}
	unit := int64(s.Frsize)
	if unit == 0 {
		unit = int64(s.Bsize)
	}
	return space{bytes: int64(s.Bavail) * unit, bounded: s.Blocks > 0, files: s.Files == 0 || s.Ffree > 0}
}
