package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// servePut answers POST /store.
func (st *store) servePut(w http.ResponseWriter, r *http.Request) {
	// What is asked for is not there before it is stored, so no version of it can match (RFC 9110, 13.1.1).
	if precondition(r, "") != 0 {
		refusePrecondition(w)
		return
	}
	body := maxBytesReader(w, r.Body, st.maxBlob)
	hurry := func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) }
	digest, size, created, err := st.put(body, r.ContentLength, hurry)
	if err != nil {
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

// refuse answers an upload that was not kept, with what would be.
func (st *store) refuse(w http.ResponseWriter, err error) {
	if err == errBusy {
		st.metrics.rejected.WithLabelValues("uploads").Inc()
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "overloaded", "a new try in a second")
		return
	}
	code, status, want := st.reason(err)
	st.metrics.storeRejected.WithLabelValues(code).Inc()
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeError(w, status, code, want)
}

// reason says why an upload was not kept.
func (st *store) reason(err error) (code string, status int, want string) {
	if errors.Is(err, errBody) {
		return st.reasonOfBody(err)
	}
	code, status, want = reasonOfDisk(err)
	switch {
	case err == errBlobTooLarge:
		return err.Error(), http.StatusRequestEntityTooLarge, fmt.Sprintf("at most %d bytes", st.maxBlob)
	case errors.Is(err, errStoreFull):
		code := errStoreFull.Error()
		return code, http.StatusInsufficientStorage, st.fitting("") + strings.TrimPrefix(err.Error(), code)
	case err == errTooSlow:
		return err.Error(), http.StatusRequestTimeout, fmt.Sprintf("%d bytes a second, as others wait", uploadPace)
	case code == "store-unavailable":
		status = http.StatusInsufficientStorage
	case errors.Is(err, fs.ErrNotExist):
		code, status = "store-unavailable", http.StatusServiceUnavailable
		want = "a new try: others have deleted the upload's file meanwhile"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		want = st.fitting(", though the file system has just refused as much")
		return errStoreFull.Error(), http.StatusInsufficientStorage, want
	case errors.Is(err, syscall.EFBIG):
		return errBlobTooLarge.Error(), http.StatusRequestEntityTooLarge, "less: this system allows no file of that size"
	}
	if !errors.Is(err, errNoStore) { // that is in the log
		st.complain("upload not kept", err)
	}
	return code, status, want
}

// reasonOfBody is reason for what went wrong on the way here.
func (st *store) reasonOfBody(err error) (code string, status int, want string) {
	var tooLarge *http.MaxBytesError
	var system syscall.Errno
	switch {
	case errors.As(err, &tooLarge):
		return errBlobTooLarge.Error(), http.StatusRequestEntityTooLarge, fmt.Sprintf("at most %d bytes", st.maxBlob)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTooSlow.Error(), http.StatusRequestTimeout,
			fmt.Sprintf("the whole body within IMAGELAB_READ_TIMEOUT, and %d bytes a second when others wait", uploadPace)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.As(err, &system):
		return "incomplete", http.StatusBadRequest, "the whole body"
	}
	return "bad-body", http.StatusBadRequest, "a well-formed body"
}

// reasonOfDisk tells what the operator can end, and what ends by itself, from all else.
func reasonOfDisk(err error) (code string, status int, want string) {
	switch {
	case errors.Is(err, errNoStore), errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return "store-unavailable", http.StatusServiceUnavailable, "a data directory that can be used"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return "overloaded", http.StatusServiceUnavailable, "a new try in a second"
	}
	return "internal", http.StatusInternalServerError, ""
}

func (st *store) serveGet(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("sha256")
	f, err := st.get(digest)
	if err != nil {
		st.serveTrouble(w, r, err)
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("ETag", etagOf(digest))
	switch precondition(r, etagOf(digest)) {
	case http.StatusPreconditionFailed:
		refusePrecondition(w)
		return
	case http.StatusNotModified:
		h.Set("Cache-Control", blobCaching)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	// They are met, and http.ServeContent would read the first line of each alone.
	r.Header.Del("If-Match")
	r.Header.Del("If-None-Match")
	r.Header.Set("Range", plainRange(r.Header.Get("Range"), digest))
	h.Set("Cache-Control", blobCaching)
	// The content is a stranger's: it must not run in this origin.
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(&jsonRangeError{ResponseWriter: w}, r, "", time.Time{}, f)
}

// plainRange returns the Range header with what http.ServeContent does not know of RFC 9110, 14.1 and 14.2. Another
// unit must be ignored, and this one's case does not matter. The last 0 bytes are no range that can be satisfied.
// No range is part of an empty blob, which is sent whole.
func plainRange(header, digest string) string {
	unit, ranges, _ := strings.Cut(header, "=")
	if !strings.EqualFold(unit, "bytes") || digest == digestOfNothing {
		return ""
	}
	specs := strings.Split(ranges, ",")
	for i, spec := range specs {
		if spec = strings.TrimSpace(spec); len(spec) > 1 && strings.Trim(spec[1:], "0") == "" && spec[0] == '-' {
			specs[i] = beyondAnyEnd
		}
	}
	return "bytes=" + strings.Join(specs, ",")
}

const (
	beyondAnyEnd    = "9223372036854775807-"
	digestOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

const blobCaching = "public, max-age=31536000, immutable"

func etagOf(digest string) string { return `"` + digest + `"` }

func (st *store) serveDelete(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("sha256")
	f, err := st.get(digest)
	if err == nil {
		f.Close()
		if precondition(r, etagOf(digest)) != 0 {
			w.Header().Set("ETag", etagOf(digest))
			refusePrecondition(w)
			return
		}
		err = st.remove(digest)
	}
	if err != nil {
		st.serveTrouble(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveTrouble answers a request for a blob that cannot be had. Only one that does not exist is not found.
func (st *store) serveTrouble(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		serveNotFound(w, r)
		return
	}
	code, status, want := reasonOfDisk(err)
	if !errors.Is(err, errNoStore) { // that is in the log
		st.complain("a blob could not be had", err)
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeError(w, status, code, want)
}

// precondition evaluates If-Match and If-None-Match for a resource with this entity tag, "" for one that does not exist
// (RFC 9110, 13.2.2). It returns 0, or the status to answer with. The conditions on dates do not count, as nothing here
// has a date (13.1.3, 13.1.4).
func precondition(r *http.Request, etag string) int {
	if list := strings.Join(r.Header.Values("If-Match"), ","); list != "" && !matches(list, etag, false) {
		return http.StatusPreconditionFailed
	}
	if list := strings.Join(r.Header.Values("If-None-Match"), ","); list != "" && matches(list, etag, true) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return http.StatusNotModified
		}
		return http.StatusPreconditionFailed
	}
	return 0
}

// matches says whether a list of entity tags, or *, holds etag, which is a strong one. Weak tags in the list count only
// in the weak comparison (RFC 9110, 8.8.3.2).
func matches(list, etag string, weak bool) bool {
	for list = strings.Trim(list, " \t,"); list != ""; list = strings.TrimLeft(list, " \t,") {
		if list == "*" {
			return etag != ""
		}
		tag, isWeak := strings.CutPrefix(list, "W/")
		if !strings.HasPrefix(tag, `"`) {
			return false
		}
		end := strings.IndexByte(tag[1:], '"') + 2
		if end < 2 {
			return false
		}
		if tag[:end] == etag && (weak || !isWeak) {
			return true
		}
		list = tag[end:]
	}
	return false
}

func refusePrecondition(w http.ResponseWriter) {
	writeError(w, http.StatusPreconditionFailed, "precondition-failed", "If-Match and If-None-Match that hold")
}

// jsonRangeError makes the 416 of http.ServeContent an answer like the others. Its Content-Range stays.
type jsonRangeError struct {
	http.ResponseWriter
	replaced bool
}

func (e *jsonRangeError) WriteHeader(code int) {
	if code != http.StatusRequestedRangeNotSatisfiable {
		e.ResponseWriter.WriteHeader(code)
		return
	}
	e.replaced = true
	e.Header().Del("Content-Length")
	want := "bytes=first-last"
	if size, known := strings.CutPrefix(e.Header().Get("Content-Range"), "bytes */"); known {
		want = "a range within " + size + " bytes"
	}
	writeError(e.ResponseWriter, code, "range-not-satisfiable", want)
}

func (e *jsonRangeError) Write(p []byte) (int, error) {
	if e.replaced {
		return len(p), nil
	}
	return e.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile.
func (e *jsonRangeError) ReadFrom(src io.Reader) (int64, error) {
	return io.Copy(e.ResponseWriter, src)
}
