package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// store keeps blobs by the SHA-256 of their content, in files of that name under one directory. A blob is written to a
// temporary file, synced and renamed, so whatever ends the process leaves whole blobs and leftovers, and the leftovers
// go at the next start.
//
// The directory is the truth, and the index follows it: what others delete, change or put there is found out before it
// is served, before an upload is refused, and when the metrics are read.
type store struct {
	path     string // of the directory
	maxBlob  int64
	capacity int64 // bytes on the disk
	metrics  *metrics
	log      *slog.Logger
	lines    lineBudget // of trouble
	epoch    time.Time
	nextTemp atomic.Uint64

	maxUploads int64

	mu       sync.Mutex
	folder   *folder // nil while there is none
	err      error   // why there is none
	tried    time.Time
	blobs    map[string]*blob     // by hex digest
	stored   int64                // bytes on the disk that the blobs take
	reserved int64                // and those that uploads have taken
	uploads  map[*upload]struct{} // under way

	scanning sync.Mutex // held while the directory is read
	scanned  time.Time
}

// A blob is what the index knows of one file.
type blob struct {
	cost   int64 // bytes on the disk
	placed stamp // of the file, when an upload was given its name

	verifying sync.Mutex
	sound     stamp // of the file whose content was found to be what the name says
}

const (
	storeDir   = "imagelab-store" // under Config.DataDir
	tempPrefix = ".upload-"
	// blobUnit is the least that a blob takes, in bytes: a page of a tmpfs, the block of most file systems, and what
	// the kernel needs for the inode and the name of an empty one.
	blobUnit = 4096
	// maxBlobs bounds the index, and the time that it takes to read the directory.
	maxBlobs = 16384
	// clockTick is more than the kernel's clock for time stamps may stand still, which is 10 ms at the lowest HZ.
	clockTick = 20 * time.Millisecond
	// scanPause is the least time from one reading of the directory to the next.
	scanPause = 50 * time.Millisecond
	// openPause is the same for attempts to open a directory that cannot be opened.
	openPause = time.Second
)

// openStore opens the store under cfg.DataDir. Without that directory there is no store for now, and everything else
// works: the process needs to write nothing.
func openStore(cfg Config, maxUploads int64, reg prometheus.Registerer, m *metrics, log *slog.Logger) *store {
	st := &store{
		path:     filepath.Join(cfg.DataDir, storeDir),
		maxBlob:  int64(cfg.StoreMaxBlob),
		capacity: int64(cfg.StoreCapacity),
		metrics:  m,
		log:      log,
		epoch:    time.Now(),
		blobs:    map[string]*blob{},
		uploads:  map[*upload]struct{}{},

		maxUploads: maxUploads,
	}
	_, _ = st.current() // it has logged why not
	reg.MustRegister(st)
	return st
}

// current returns the store's directory, or errNoStore with the reason. Where there is none, it is tried again once a
// second: a data directory may be mounted late, and an earlier process may hold the lock until its end.
func (st *store) current() (*folder, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.folder != nil || time.Since(st.tried) < openPause {
		return st.folder, st.err
	}
	st.tried = time.Now()
	before := st.err
	d, err := st.open()
	if err != nil {
		st.err = fmt.Errorf("%w: %w", errNoStore, err)
		if before == nil || before.Error() != st.err.Error() {
			st.log.Warn("no store, POST /store answers 507: mount a tmpfs there, such as "+
				"--tmpfs /tmp:size=16m,mode=1777,noexec,nosuid,nodev, or set IMAGELAB_DATA_DIR",
				"dir", filepath.Dir(st.path), "uid", os.Geteuid(), "err", err)
		}
		return nil, st.err
	}
	st.folder, st.err = d, nil
	st.scan()
	if before != nil {
		st.log.Info("the store is there now", "dir", st.path, "blobs", len(st.blobs))
	}
	return d, nil
}

// gone gives up a directory that was deleted. Its blobs went with it; the next that needs one makes it anew.
func (st *store) gone(d *folder) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.folder != d {
		return
	}
	// Others may be at work in d still, so it is left to the garbage collector to close it.
	st.folder, st.tried = nil, time.Time{}
	clear(st.blobs)
	st.stored = 0
	st.log.Warn("the store's directory was deleted, and all blobs with it; it is made anew", "dir", st.path)
}

// complain logs trouble that clients may cause as often as they like. err may be nil.
func (st *store) complain(msg string, err error, more ...any) {
	held, ok := st.lines.take(time.Since(st.epoch))
	if !ok {
		return
	}
	if err != nil {
		more = append(more, "err", err)
	}
	st.log.Error(msg, append(more, "held_back", held)...)
}

// close gives up the directory, and with it the lock.
func (st *store) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.folder != nil {
		st.folder.root.Close()
		st.folder.dir.Close()
	}
}

// scan makes the index follow the whole directory. The caller holds mu.
func (st *store) scan() {
	st.scanned = time.Now()
	if st.folder == nil {
		return
	}
	names, err := st.folder.names()
	if err != nil {
		st.complain("the store's directory cannot be read, its figures may be old", err)
		return
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		if isDigest(name) {
			there[name] = true
			_, _ = st.follow(st.folder, name) // what cannot be looked at stays as it is known
		}
	}
	for digest := range st.blobs {
		if !there[digest] {
			st.drop(digest)
		}
	}
}

// rescan is scan for whoever does not hold mu. Those who ask at the same time share one, and each sees what was there
// when it asked.
func (st *store) rescan() {
	asked := time.Now()
	st.scanning.Lock()
	defer st.scanning.Unlock()
	st.mu.Lock()
	last := st.scanned
	st.mu.Unlock()
	if last.After(asked) {
		return
	}
	time.Sleep(time.Until(last.Add(scanPause)))
	st.mu.Lock()
	defer st.mu.Unlock()
	st.scan()
}

// follow makes the index follow one name, and returns its blob, nil if no regular file has it. The caller holds mu.
func (st *store) follow(d *folder, digest string) (*blob, error) {
	info, err := d.root.Lstat(digest)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !info.Mode().IsRegular():
		st.drop(digest)
		return nil, nil
	case err != nil:
		return nil, err
	}
	b := st.blobs[digest]
	if b == nil {
		b = &blob{}
		st.blobs[digest] = b
	}
	st.stored += costOf(info) - b.cost
	b.cost = costOf(info)
	return b, nil
}

// drop takes a blob out of the index. The caller holds mu.
func (st *store) drop(digest string) {
	if b := st.blobs[digest]; b != nil {
		st.stored -= b.cost
		delete(st.blobs, digest)
	}
}

// get opens a blob. fs.ErrNotExist says that there is none: no regular file, or one whose content is not what its name
// says, which is deleted. Any other error says nothing about the blob.
func (st *store) get(digest string) (*os.File, error) {
	if !isDigest(digest) {
		return nil, fs.ErrNotExist
	}
	d, err := st.current()
	if err != nil {
		return nil, err
	}
	st.mu.Lock()
	b, err := st.follow(d, digest)
	st.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case b == nil:
		return nil, fs.ErrNotExist
	}
	// Not blocking, as a FIFO may have taken its place meanwhile.
	f, err := d.root.OpenFile(digest, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	sound, err := b.verify(f, digest)
	if err == nil && !sound {
		st.discard(d, digest, f)
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// verify says whether the content of f is what the digest says. It reads the file unless it is the one that it read
// before, and nobody can have changed it since.
func (b *blob) verify(f *os.File, digest string) (bool, error) {
	b.verifying.Lock()
	defer b.verifying.Unlock()
	now := time.Now()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	found := stampOf(info)
	if found == b.sound {
		return true, nil
	}
	sum := sha256.New()
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(f, 0, found.size), *buf); err != nil {
		return false, err
	}
	if hex.EncodeToString(sum.Sum(nil)) != digest {
		return false, nil
	}
	// A change within the same tick of the clock would leave the stamp as it is. Such a young file is read again the
	// next time.
	if now.Sub(time.Unix(found.ctime.Unix())) > clockTick {
		b.sound = found
	}
	return true, nil
}

// discard deletes what has a digest's name and is something else, unless an upload has replaced it by now.
func (st *store) discard(d *folder, digest string, f *os.File) {
	st.mu.Lock()
	defer st.mu.Unlock()
	there, err := d.root.Lstat(digest)
	opened, failure := f.Stat()
	if err != nil || failure != nil || !os.SameFile(there, opened) {
		return
	}
	if err := d.root.Remove(digest); err != nil {
		st.complain("a blob's file was changed by another process, is not served, and cannot be deleted", err,
			"sha256", digest)
		return
	}
	st.drop(digest)
	st.complain("a blob's file was changed by another process and is deleted, as it is not what its name says", nil,
		"sha256", digest)
}

// remove deletes a blob; fs.ErrNotExist says that there is none. Readers that have it open read on.
func (st *store) remove(digest string) error {
	d, err := st.current()
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := d.root.Remove(digest); err != nil {
		return err
	}
	st.drop(digest)
	return d.dir.Sync()
}

// room is how many bytes on the disk the store may take now, for a new file or one that is there, and what bounds it.
// The caller holds mu.
func (st *store) room(newFile bool) (bytes int64, bound string) {
	if len(st.blobs) >= maxBlobs {
		return 0, fmt.Sprintf(", as there are %d blobs", maxBlobs)
	}
	bytes = max(0, st.capacity-st.stored-st.reserved)
	if st.folder == nil {
		return bytes, ""
	}
	switch left := st.folder.space(); {
	case newFile && !left.files:
		return 0, ", as the file system has no room for another file"
	case left.bounded && left.bytes < bytes:
		return left.bytes, ", as the file system has no room for more"
	}
	return bytes, ""
}

// fitting says in words what an upload may have now. proviso follows when nothing is known to keep a larger one out.
func (st *store) fitting(proviso string) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	bytes, bound := st.room(true)
	bytes = bytes / blobUnit * blobUnit
	if bytes >= st.maxBlob {
		bytes, bound = st.maxBlob, proviso
	}
	return fmt.Sprintf("at most %d bytes now%s", bytes, bound)
}

// The gauges of the store.
var (
	storeBytesDesc = prometheus.NewDesc(metricStoreBytes,
		"Bytes on the disk of blobs kept, and reserved by uploads under way.", nil, nil)
	storeBlobsDesc    = prometheus.NewDesc(metricStoreBlobs, "Blobs kept.", nil, nil)
	storeCapacityDesc = prometheus.NewDesc(metricStoreCapacity, "Bytes on the disk that the store may take.", nil, nil)
	storeFreeDesc     = prometheus.NewDesc(metricStoreFree,
		"Bytes that the file system below the store has left; absent without a store, or where there is no bound.", nil, nil)
)

// Describe and Collect are for prometheus.Registerer.
func (st *store) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{storeBytesDesc, storeBlobsDesc, storeCapacityDesc, storeFreeDesc} {
		descs <- desc
	}
}

func (st *store) Collect(metrics chan<- prometheus.Metric) {
	_, _ = st.current()
	st.mu.Lock()
	if time.Since(st.scanned) > time.Second {
		st.scan()
	}
	used, blobs, left := st.stored+st.reserved, len(st.blobs), space{}
	if st.folder != nil {
		left = st.folder.space()
	}
	st.mu.Unlock()
	gauge := func(desc *prometheus.Desc, value int64) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value))
	}
	gauge(storeBytesDesc, used)
	gauge(storeBlobsDesc, int64(blobs))
	gauge(storeCapacityDesc, st.capacity)
	if left.bounded {
		gauge(storeFreeDesc, left.bytes)
	}
}
