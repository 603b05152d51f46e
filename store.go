package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// store keeps blobs by the SHA-256 of their content, in files of that name under
// one directory. A blob is written to a temporary file, synced and renamed, so
// whatever ends the process leaves whole blobs and leftovers, and the leftovers
// go at the next start.
type store struct {
	root     *os.Root // nil when the data directory cannot be written to
	dir      *os.File // the same directory: locked, and synced after a rename
	maxBlob  int64
	capacity int64
	metrics  *metrics
	log      *slog.Logger
	nextTemp atomic.Uint64

	maxUploads int64
	uploads    atomic.Int64 // under way

	mu    sync.Mutex
	used  int64            // bytes of blobs, and reserved by uploads under way
	blobs map[string]int64 // size by hex digest
}

const (
	storeDir   = "imagelab-store" // under Config.DataDir
	tempPrefix = ".upload-"
	// maxBlobs bounds the index, as the capacity does not bound the number of
	// empty or one-byte blobs.
	maxBlobs = 16384
)

// Why an upload is not kept. The texts are the error codes that clients see.
var (
	errBlobTooLarge = errors.New("blob-too-large")
	errStoreFull    = errors.New("store-full")
	errNoStore      = errors.New("store-unavailable")
)

// openStore opens the store under cfg.DataDir and sweeps it. Without a writable
// directory there is no store, and everything else works: the process needs to
// write nothing.
func openStore(cfg Config, maxUploads int64, reg prometheus.Registerer, m *metrics, log *slog.Logger) *store {
	st := &store{
		maxBlob:  int64(cfg.StoreMaxBlob),
		capacity: int64(cfg.StoreCapacity),
		metrics:  m,
		log:      log,
		blobs:    make(map[string]int64),

		maxUploads: maxUploads,
	}
	if err := st.open(cfg.DataDir); err != nil {
		log.Warn("no store, POST /store answers 507: mount a tmpfs there, such as --tmpfs /tmp:size=16m,mode=1777,noexec,nosuid,nodev, or set IMAGELAB_DATA_DIR",
			"dir", cfg.DataDir, "uid", os.Geteuid(), "err", err)
		st.root = nil
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metricStoreBytes, Help: "Bytes of blobs kept, and reserved by uploads under way.",
		}, func() float64 { st.mu.Lock(); defer st.mu.Unlock(); return float64(st.used) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metricStoreBlobs, Help: "Blobs kept.",
		}, func() float64 { st.mu.Lock(); defer st.mu.Unlock(); return float64(len(st.blobs)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metricStoreCapacity, Help: "Bytes that the store may keep.",
		}, func() float64 { return float64(st.capacity) }),
	)
	return st
}

func (st *store) open(dataDir string) error {
	path := filepath.Join(dataDir, storeDir)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	st.root = root
	if st.dir, err = root.Open("."); err != nil {
		return err
	}
	// The lock ends with the process, however it ends, and leaves no file.
	if err := syscall.Flock(int(st.dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is another process's store: %w", path, err)
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	swept := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := root.Remove(e.Name()); err != nil {
				return err
			}
			swept++
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && isDigest(e.Name()) {
			st.blobs[e.Name()] = info.Size()
			st.used += info.Size()
		}
	}
	if swept > 0 {
		st.log.Info("swept uploads that an earlier process did not finish", "files", swept)
	}
	// Found out now, with a cure in the log, and not by the first client.
	f, name, err := st.createTemp()
	if err != nil {
		return err
	}
	f.Close()
	return root.Remove(name)
}

// isDigest says whether name is a SHA-256 in lower-case hex.
func isDigest(name string) bool {
	return len(name) == 2*sha256.Size && strings.Trim(name, "0123456789abcdef") == ""
}

func (st *store) createTemp() (*os.File, string, error) {
	name := tempPrefix + strconv.FormatUint(st.nextTemp.Add(1), 10)
	f, err := st.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	return f, name, err
}

// reserve takes n bytes of the capacity, or says that they are not there.
func (st *store) reserve(n int64) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.used+n > st.capacity || len(st.blobs) >= maxBlobs {
		return errStoreFull
	}
	st.used += n
	return nil
}

func (st *store) release(n int64) {
	st.mu.Lock()
	st.used -= n
	st.mu.Unlock()
}

// free is what an upload may have now.
func (st *store) free() int64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.blobs) >= maxBlobs {
		return 0
	}
	return max(0, min(st.maxBlob, st.capacity-st.used))
}

// An upload is one body on its way into the store.
type upload struct {
	st       *store
	file     *os.File
	name     string
	hash     hash.Hash
	size     int64
	reserved int64
}

// Write takes a part of the body. Capacity is reserved before the disk is used:
// by the declared length at once, beyond it part by part.
func (u *upload) Write(p []byte) (int, error) {
	if need := u.size + int64(len(p)) - u.reserved; need > 0 {
		if err := u.st.reserve(need); err != nil {
			return 0, err
		}
		u.reserved += need
	}
	n, err := u.file.Write(p)
	u.hash.Write(p[:n])
	u.size += int64(n)
	return n, err
}

// put streams body into the store. declared is its length, -1 when unknown.
// created is false when the content was there already.
func (st *store) put(body io.Reader, declared int64) (digest string, size int64, created bool, err error) {
	switch {
	case st.root == nil:
		return "", 0, false, errNoStore
	case declared > st.maxBlob:
		return "", 0, false, errBlobTooLarge
	}
	u := &upload{st: st, hash: sha256.New()}
	if declared > 0 {
		if err := st.reserve(declared); err != nil {
			return "", 0, false, err
		}
		u.reserved = declared
	}
	kept := false
	defer func() {
		if !kept {
			st.release(u.reserved)
		}
	}()
	if u.file, u.name, err = st.createTemp(); err != nil {
		return "", 0, false, err
	}
	defer func() {
		u.file.Close()
		if !kept {
			_ = st.root.Remove(u.name) // what fails here is swept at the next start
		}
	}()
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(u, body, *buf); err != nil {
		return "", 0, false, err
	}
	digest = hex.EncodeToString(u.hash.Sum(nil))
	if st.has(digest) {
		return digest, u.size, false, nil
	}
	if err := u.file.Sync(); err != nil {
		return "", 0, false, err
	}
	kept, err = st.commit(u, digest)
	return digest, u.size, kept, err
}

func (st *store) has(digest string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	_, known := st.blobs[digest]
	return known
}

// commit gives a complete upload its name, unless another upload of the same
// content was faster.
func (st *store) commit(u *upload, digest string) (created bool, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if _, known := st.blobs[digest]; known {
		return false, nil
	}
	if len(st.blobs) >= maxBlobs {
		return false, errStoreFull
	}
	if err := st.root.Rename(u.name, digest); err != nil {
		return false, err
	}
	st.blobs[digest] = u.size
	st.used += u.size - u.reserved
	return true, st.dir.Sync()
}

// copyBuffers hold what is on the way between a socket and a file.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// get opens a blob; fs.ErrNotExist says that there is none.
func (st *store) get(digest string) (*os.File, error) {
	if st.root == nil || !isDigest(digest) {
		return nil, fs.ErrNotExist
	}
	return st.root.Open(digest)
}

// remove deletes a blob; fs.ErrNotExist says that there is none. Readers that
// have it open read on.
func (st *store) remove(digest string) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	size, known := st.blobs[digest]
	if !known {
		return fs.ErrNotExist
	}
	if err := st.root.Remove(digest); err != nil {
		return err
	}
	delete(st.blobs, digest)
	st.used -= size
	return nil
}

// servePut answers POST /store. Slow uploads may not hold every place.
func (st *store) servePut(w http.ResponseWriter, r *http.Request) {
	defer st.uploads.Add(-1)
	if st.uploads.Add(1) > st.maxUploads {
		st.metrics.rejected.WithLabelValues("uploads").Inc()
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "overloaded", "a new try in a second")
		return
	}
	body := maxBytesReader(w, r.Body, st.maxBlob)
	digest, size, created, err := st.put(body, r.ContentLength)
	if err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			passOver(w, r)
		}
		st.refuse(w, err)
		return
	}
	code := http.StatusOK
	if created {
		code = http.StatusCreated
	}
	w.Header().Set("Location", "/store/"+digest)
	writeJSON(w, code, fmt.Appendf(nil, `{"sha256":%q,"bytes":%d}`+"\n", digest, size))
}

// passOver reads on for a while in a body that is not wanted: a client that is
// still sending when the connection closes sees a reset in place of the answer.
// One that asks first (Expect: 100-continue) gets the answer at once.
func passOver(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Expect") != "" {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, r.Body, 2<<20)
}

// refuse answers an upload that was not kept, with what would be.
func (st *store) refuse(w http.ResponseWriter, err error) {
	var tooLarge *http.MaxBytesError
	code, status := err.Error(), http.StatusInsufficientStorage
	want := fmt.Sprintf("at most %d bytes now", st.free())
	switch {
	case err == errBlobTooLarge || errors.As(err, &tooLarge):
		code, status = errBlobTooLarge.Error(), http.StatusRequestEntityTooLarge
		want = fmt.Sprintf("at most %d bytes", st.maxBlob)
	case err == errStoreFull:
	case err == errNoStore:
		want = "a writable data directory"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = errStoreFull.Error()
		want = "less, or nothing until blobs are deleted: the file system is full"
	case errors.Is(err, os.ErrDeadlineExceeded):
		code, status, want = "too-slow", http.StatusRequestTimeout, "the whole body within IMAGELAB_READ_TIMEOUT"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		code, status, want = "incomplete", http.StatusBadRequest, "the whole body"
	default:
		var system syscall.Errno
		if !errors.As(err, &system) { // the body's framing, not the disk
			code, status, want = "bad-body", http.StatusBadRequest, "a well-formed body"
			break
		}
		st.log.Error("upload not kept", "err", err)
		code, status, want = "internal", http.StatusInternalServerError, ""
	}
	st.metrics.storeRejected.WithLabelValues(code).Inc()
	writeError(w, status, code, want)
}

func (st *store) serveGet(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("sha256")
	f, err := st.get(digest)
	if err != nil {
		serveNotFound(w, r)
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("ETag", `"`+digest+`"`)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	// The content is a stranger's: it must not run in this origin.
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (st *store) serveDelete(w http.ResponseWriter, r *http.Request) {
	switch err := st.remove(r.PathValue("sha256")); {
	case errors.Is(err, fs.ErrNotExist):
		serveNotFound(w, r)
	case err != nil:
		st.log.Error("blob not deleted", "err", err)
		writeError(w, http.StatusInternalServerError, "internal", "")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
