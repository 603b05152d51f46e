package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// An upload is one body on its way into the store. What it has of the store is what it has brought, and what it brings
// has to keep a pace: one that falls behind keeps its place, and its bytes, only until another needs them.
type upload struct {
	st    *store
	hurry func() // ends a Read of the body that is waiting
	hash  hash.Hash
	size  int64
	err   error // that is the disk's or the store's, and not the body's

	folder *folder
	file   *os.File
	name   string

	// Guarded by st.mu.
	reserved int64     // bytes on the disk
	paid     time.Time // until when it has kept pace
	whole    bool      // the body is here
	evicted  bool
}

const (
	// uploadPace is how many bytes a second an upload has to bring, when there is no room for all.
	uploadPace = 32 << 10
	// uploadCredit is how long it may bring nothing, at most.
	uploadCredit = time.Second
)

// Why an upload is not kept. The texts of the first are the error codes that clients see.
var (
	errBlobTooLarge = errors.New("blob-too-large")
	errStoreFull    = errors.New("store-full")
	errTooSlow      = errors.New("too-slow")
	errBusy         = errors.New("all places for uploads are taken")
	errNoStore      = errors.New("no store")
	errBody         = errors.New("body")
)

// put streams body into the store. declared is its length, -1 when unknown; hurry ends a Read of it that is waiting,
// with an error, and may be called by any goroutine. created is false when the content was there already.
func (st *store) put(
	body io.Reader, declared int64, hurry func(),
) (digest string, size int64, created bool, err error) {
	u := &upload{st: st, hurry: hurry, hash: sha256.New(), paid: time.Now().Add(uploadCredit)}
	if err := st.enter(u); err != nil {
		return "", 0, false, err
	}
	defer st.leave(u)
	if err := st.admit(u, declared); err != nil {
		return "", 0, false, err
	}
	if err := st.begin(u); err != nil {
		return "", 0, false, err
	}
	defer func() {
		if u.name != "" {
			_ = u.folder.root.Remove(u.name) // what fails here is swept at the next start
		}
	}()
	buf := copyBuffers.Get().(*[]byte)
	_, err = io.CopyBuffer(u, body, *buf)
	copyBuffers.Put(buf)
	if err == nil {
		err = st.finish(u)
	} else if u.err == nil {
		err = fmt.Errorf("%w: %w", errBody, err)
	}
	if err == nil {
		digest = hex.EncodeToString(u.hash.Sum(nil))
		created, err = st.keep(u, digest)
	}
	if failure := u.file.Close(); err == nil {
		err = failure
	}
	return digest, u.size, created, err
}

// copyBuffers hold what is on the way between a socket and a file.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// enter takes one of the places for uploads, from one that has fallen behind if need be.
func (st *store) enter(u *upload) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if int64(len(st.uploads)) >= st.maxUploads && !st.evict(func(*upload) bool { return true }) {
		return errBusy
	}
	st.uploads[u] = struct{}{}
	return nil
}

// leave gives back what the upload has not turned into a blob.
func (st *store) leave(u *upload) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.uploads, u)
	st.reserved -= u.reserved
	u.reserved = 0
}

// evict ends the upload that is most behind, of those that qualify, and says whether there was one. The caller holds
// mu.
func (st *store) evict(qualifies func(*upload) bool) bool {
	var slowest *upload
	for u := range st.uploads {
		if !u.whole && qualifies(u) && (slowest == nil || u.paid.Before(slowest.paid)) {
			slowest = u
		}
	}
	if slowest == nil || time.Now().Before(slowest.paid) {
		return false
	}
	slowest.evicted = true
	delete(st.uploads, slowest)
	slowest.giveUp()
	slowest.hurry()
	return true
}

// giveUp frees at once what the upload has on the disk. The caller holds mu.
func (u *upload) giveUp() {
	u.st.reserved -= u.reserved
	u.reserved = 0
	if u.file != nil {
		_ = u.file.Truncate(0) // what fails here is freed when the file is removed
	}
}

// admit refuses at once what cannot be kept. A declared length takes nothing: what has not come is not here.
func (st *store) admit(u *upload, declared int64) error {
	if declared > st.maxBlob {
		return errBlobTooLarge
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.makeRoom(u, costOfBytes(declared))
}

// makeRoom sees to it that n bytes more are free: what others have deleted in the directory counts, and uploads that
// have fallen behind go. The caller holds mu, which is given up meanwhile.
func (st *store) makeRoom(u *upload, n int64) error {
	fits := func() bool {
		room, _ := st.room(u.file == nil)
		return n <= room
	}
	if fits() {
		return nil
	}
	st.mu.Unlock()
	st.rescan()
	st.mu.Lock()
	for !fits() {
		hopeless := st.stored+u.reserved+n > st.capacity
		if hopeless || !st.evict(func(other *upload) bool { return other != u && other.reserved > 0 }) {
			u.giveUp() // at once, so that of many uploads that do not fit together some are kept
			return errStoreFull
		}
	}
	return nil
}

// begin makes the upload's file, and the directory where it was deleted.
func (st *store) begin(u *upload) (err error) {
	for range 2 {
		if u.folder, err = st.current(); err != nil {
			return err
		}
		var f *os.File
		if f, u.name, err = st.createTemp(u.folder); err == nil {
			st.mu.Lock()
			u.file = f
			st.mu.Unlock()
			return nil
		}
		u.name = ""
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		st.gone(u.folder)
	}
	return err
}

// Write takes a part of the body. Room is reserved before the disk is used.
func (u *upload) Write(p []byte) (n int, err error) {
	defer func() { u.err = err }()
	came := time.Now()
	if err := u.reserve(int64(len(p))); err != nil {
		return 0, err
	}
	n, err = u.file.Write(p)
	u.hash.Write(p[:n])
	u.size += int64(n)
	// The time that the disk takes is not the client's.
	u.st.mu.Lock()
	u.paid = u.paid.Add(time.Since(came))
	u.st.mu.Unlock()
	return n, err
}

// reserve takes the room for n bytes more of the body.
func (u *upload) reserve(n int64) error {
	st := u.st
	st.mu.Lock()
	defer st.mu.Unlock()
	limit := time.Now().Add(uploadCredit)
	if u.paid = u.paid.Add(time.Duration(n) * time.Second / uploadPace); u.paid.After(limit) {
		u.paid = limit
	}
	need := costOfBytes(u.size+n) - u.reserved
	if need > 0 && !u.evicted {
		if err := st.makeRoom(u, need); err != nil {
			return err
		}
	}
	if u.evicted { // perhaps while mu was given up
		return errTooSlow
	}
	st.reserved += max(0, need)
	u.reserved += max(0, need)
	return nil
}

// finish ends the body: from now on the upload waits for the disk alone. An empty one takes room as well.
func (st *store) finish(u *upload) error {
	if err := u.reserve(0); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	u.whole = !u.evicted
	if u.evicted {
		return errTooSlow
	}
	return nil
}

// keep turns a whole upload into a blob, unless there is one of this content.
func (st *store) keep(u *upload, digest string) (created bool, err error) {
	// What cannot be read may be replaced.
	if f, err := st.get(digest); err == nil {
		f.Close()
		return false, nil
	}
	if err := u.file.Sync(); err != nil {
		return false, err
	}
	info, err := u.file.Stat()
	if err != nil {
		return false, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.folder != u.folder {
		return false, fs.ErrNotExist
	}
	b, err := st.follow(u.folder, digest)
	if err != nil {
		return false, err
	}
	if b != nil && b.placed != (stamp{}) {
		if there, err := u.folder.root.Lstat(digest); err == nil && stampOf(there) == b.placed {
			return false, nil // another upload of the same content was faster
		}
	}
	if len(st.blobs) >= maxBlobs {
		return false, errStoreFull
	}
	if room, _ := st.room(false); costOf(info)-u.reserved > room { // such as on a tmpfs with huge pages
		return false, fmt.Errorf("%w; this one takes %d on the disk", errStoreFull, costOf(info))
	}
	err = st.place(u, digest, info)
	return err == nil, err
}

// place gives a synced upload its name. written is its file. The caller holds mu.
func (st *store) place(u *upload, digest string, written fs.FileInfo) error {
	root := u.folder.root
	err := root.Rename(u.name, digest)
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) {
		// A directory has the name. It is not ours to delete.
		aside := st.tempName()
		for _, taken := root.Lstat(aside); taken == nil; _, taken = root.Lstat(aside) {
			aside = st.tempName()
		}
		if err = root.Rename(digest, aside); err == nil {
			st.complain("a directory had the name of a blob and was renamed", nil, "sha256", digest, "name", aside)
			err = root.Rename(u.name, digest)
		}
	}
	if err != nil {
		return err
	}
	u.name = ""
	there, err := root.Lstat(digest)
	if err == nil && !os.SameFile(there, written) {
		err = fs.ErrNotExist // others have replaced the upload's file
	}
	if err == nil {
		err = u.folder.dir.Sync()
	}
	if err != nil {
		// It may be gone after a crash, so the next upload of this content must not find it.
		_ = root.Remove(digest)
		st.drop(digest)
		return err
	}
	st.reserved -= u.reserved
	u.reserved = 0
	b, err := st.follow(u.folder, digest)
	if b != nil {
		b.placed = stampOf(there)
	}
	return err
}
