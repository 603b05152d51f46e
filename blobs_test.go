package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// storeFigures are the bytes and the blobs that the metrics tell.
func (in *instance) storeFigures(t *testing.T) string {
	t.Helper()
	return in.metric(t, "imagelab_store_bytes") + " " + in.metric(t, "imagelab_store_blobs")
}

// keep uploads content, which has to be kept as new, and returns the URL of the blob.
func (in *instance) keep(t *testing.T, content string) string {
	t.Helper()
	resp, body := fetch(t, "POST", in.app+"/store", content)
	if resp.StatusCode != 201 {
		t.Fatalf("POST = %d %q, want 201", resp.StatusCode, body)
	}
	return in.app + resp.Header.Get("Location")
}

// status asks and returns the status; the answer has to be JSON if it is an error.
func status(t *testing.T, method, url string, headers ...string) int {
	t.Helper()
	resp, body := fetch(t, method, url, "", headers...)
	isJSON := resp.Header.Get("Content-Type") == asJSON && (method == "HEAD" || strings.HasPrefix(body, `{"error":"`))
	if resp.StatusCode >= 400 && !isJSON {
		t.Errorf("%s = %d %s %q, want JSON", method, resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	return resp.StatusCode
}

// What others can do to a blob's file. Each leaves nothing that may be served under its digest.
var tampering = map[string]func(path string) error{
	"deleted":   os.Remove,
	"truncated": func(path string) error { return os.Truncate(path, 3) },
	"emptied":   func(path string) error { return os.Truncate(path, 0) },
	"extended": func(path string) error {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString("more")
		return err
	},
	"changed in place": func(path string) error { return os.WriteFile(path, []byte("HELLO"), 0o600) },
	"changed in place, and its times set back": func(path string) error {
		info, err := os.Stat(path)
		if err == nil {
			err = os.WriteFile(path, []byte("HELLO"), 0o600)
		}
		if err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime(), info.ModTime())
	},
	"replaced by another file": func(path string) error {
		other := path + ".new"
		if err := os.WriteFile(other, []byte("HELLO"), 0o600); err != nil {
			return err
		}
		return os.Rename(other, path)
	},
	"replaced by a FIFO":               instead(func(path string) error { return unix.Mkfifo(path, 0o600) }),
	"replaced by a directory":          instead(func(path string) error { return os.Mkdir(path, 0o700) }),
	"replaced by a directory of files": instead(func(path string) error { return os.MkdirAll(path+"/a/b", 0o700) }),
	"replaced by a link to nothing":    instead(func(path string) error { return os.Symlink("nothing", path) }),
	"replaced by a link to itself":     instead(func(path string) error { return os.Symlink(filepath.Base(path), path) }),
	"replaced by a link to the outside": instead(func(path string) error {
		return os.Symlink("/etc/passwd", path)
	}),
	"replaced by a link to another blob": instead(func(path string) error {
		if err := os.WriteFile(filepath.Dir(path)+"/"+digestOf([]byte("other")), []byte("other"), 0o600); err != nil {
			return err
		}
		return os.Symlink(digestOf([]byte("other")), path)
	}),
	"replaced by a socket": instead(func(path string) error {
		// Its own path may be too long for an address.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		defer dir.Close()
		return unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))})
	}),
}

// instead deletes the file first.
func instead(make func(string) error) func(string) error {
	return func(path string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return make(path)
	}
}

func TestStoreFollowsItsDirectory(t *testing.T) {
	t.Parallel()
	for name, tamper := range tampering {
		for _, state := range []string{"uploaded", "read", "found at the start"} {
			t.Run(name+", "+state, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				path := filepath.Join(dir, storeDir, digestOf([]byte("hello")))
				// begin makes an instance with a blob that was tampered with.
				begin := func() (*instance, string) {
					in := start(t, "IMAGELAB_DATA_DIR="+dir)
					url := in.keep(t, "hello")
					if state == "read" {
						eventually(t, "blob that is known to be sound", func() bool {
							info, err := os.Stat(path)
							return err == nil && status(t, "GET", url) == 200 && stampIsOld(info)
						})
						_ = status(t, "GET", url)
					}
					if state == "found at the start" {
						in.cancel()
						in.wait(t)
					}
					if err := tamper(path); err != nil {
						t.Fatal(err)
					}
					if state == "found at the start" {
						in = start(t, "IMAGELAB_DATA_DIR="+dir)
						url = in.app + "/store/" + filepath.Base(path)
					}
					return in, url
				}
				in, url := begin()
				for _, method := range []string{"GET", "HEAD", "DELETE", "GET"} {
					if got := status(t, method, url); got != 404 {
						t.Errorf("%s = %d, want 404", method, got)
					}
				}
				others := "0 0"
				if strings.HasSuffix(name, "another blob") {
					others = "4096 1"
				}
				eventually(t, "index without it", func() bool { return in.storeFigures(t) == others })
				if url := in.keep(t, "hello"); status(t, "GET", url) != 200 || status(t, "DELETE", url) != 204 {
					t.Error("what was uploaded again is not there")
				}
				in.cancel()
				in.wait(t)

				// The same again, and an upload is the first to find out.
				in, _ = begin()
				url = in.keep(t, "hello")
				if resp, body := fetch(t, "GET", url, ""); resp.StatusCode != 200 || body != "hello" {
					t.Errorf("GET of what was uploaded again = %d %q", resp.StatusCode, body)
				}
			})
		}
	}
}

// stampIsOld says whether a change of the file would be seen in its times.
func stampIsOld(info os.FileInfo) bool {
	ctime := stampOf(info).ctime
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &now)
	return now.Nano()-ctime.Nano() > int64(2*clockTick)
}

func TestStoreServesWhatOthersPutThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, "IMAGELAB_DATA_DIR="+dir)
	digest := digestOf([]byte("hello"))
	if err := os.WriteFile(filepath.Join(dir, storeDir, digest), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "blob", func() bool { return in.storeFigures(t) == "4096 1" })
	if resp, body := fetch(t, "GET", in.app+"/store/"+digest, ""); resp.StatusCode != 200 || body != "hello" {
		t.Errorf("GET = %d %q", resp.StatusCode, body)
	}
	if code, _ := in.post(t, strings.NewReader("hello")); code != 200 {
		t.Errorf("POST of it = %d, want 200", code)
	}
}

func TestFIFOsHoldNoThreads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := startProcess(t, nil, "IMAGELAB_DATA_DIR="+dir)
	threads := func() int {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", in.process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks)
	}
	before := threads()
	var clients sync.WaitGroup
	for i := range 60 {
		digest := digestOf([]byte{byte(i)})
		if err := unix.Mkfifo(filepath.Join(dir, storeDir, digest), 0o600); err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			if got := status(t, "GET", in.app+"/store/"+digest); got != 404 {
				t.Errorf("GET of a FIFO = %d, want 404", got)
			}
		})
	}
	clients.Wait()
	if after := threads(); after > before+20 {
		t.Errorf("threads = %d, %d before sixty FIFOs were asked for", after, before)
	}
}

func TestFullStoreTakesWhatOthersHaveMadeRoomFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, "IMAGELAB_DATA_DIR="+dir, "IMAGELAB_STORE_MAX_BLOB=8KiB", "IMAGELAB_STORE_CAPACITY=16KiB")
	for _, content := range []string{"a", "b"} {
		in.keep(t, strings.Repeat(content, 8192))
	}
	if code, answer := in.post(t, strings.NewReader("c")); code != 507 || answer.Want != "at most 0 bytes now" {
		t.Errorf("POST to a full store = %d %+v", code, answer)
	}
	for _, content := range []string{"a", "b"} {
		if err := os.Remove(filepath.Join(dir, storeDir, digestOf([]byte(strings.Repeat(content, 8192))))); err != nil {
			t.Fatal(err)
		}
	}
	in.keep(t, strings.Repeat("c", 8192))
	in.keep(t, strings.Repeat("d", 8192))
}

func TestLeftoversKeepNoStoreFromWorking(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, "IMAGELAB_DATA_DIR="+dir)
	url := in.keep(t, "hello")
	in.cancel()
	in.wait(t)
	at := func(name string) string { return filepath.Join(dir, storeDir, name) }
	for _, err := range []error{
		os.MkdirAll(at(".upload-1/full"), 0o700), os.MkdirAll(at(".upload-9/full"), 0o700), os.Mkdir(at(".upload-2"), 0o700),
		unix.Mkfifo(at(".upload-3"), 0o600), os.Symlink("/etc/passwd", at(".upload-4")),
		os.WriteFile(at(".upload-5"), []byte("half"), 0), os.WriteFile(at("a file of somebody else"), []byte("x"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	in = start(t, "IMAGELAB_DATA_DIR="+dir)
	if got := status(t, "GET", in.app+strings.TrimPrefix(url, url[:strings.Index(url, "/store/")])); got != 200 {
		t.Errorf("GET of what was stored before = %d, want 200", got)
	}
	in.keep(t, "another")
	names := map[string]bool{}
	files, _ := os.ReadDir(filepath.Join(dir, storeDir))
	for _, f := range files {
		names[f.Name()] = true
	}
	if len(names) != 5 || !names[".upload-1"] || !names[".upload-9"] || !names["a file of somebody else"] {
		t.Errorf("the directory has %v, want two blobs, and what is not the store's to delete", names)
	}
	if in.log.find("leftovers in the store's directory cannot be deleted, and take room there") == nil ||
		in.log.find("swept uploads that an earlier process did not finish")["files"] != 4. {
		t.Errorf("the log does not say what was swept and what stays:\n%s", in.log)
	}
}

func TestStoreOutlivesItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, storeDir)
	in := start(t, "IMAGELAB_DATA_DIR="+dir)
	url := in.keep(t, "hello")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if got := status(t, "GET", url); got != 404 {
		t.Errorf("GET after the directory was deleted = %d, want 404", got)
	}
	url = in.keep(t, "hello")
	if got := status(t, "GET", url); got != 200 || in.storeFigures(t) != "4096 1" {
		t.Errorf("GET = %d, bytes and blobs = %s", got, in.storeFigures(t))
	}
	if in.log.find("the store's directory was deleted, and all blobs with it; it is made anew") == nil {
		t.Errorf("the log does not say so:\n%s", in.log)
	}

	// A link could lead anywhere.
	elsewhere := t.TempDir()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	if code, answer := in.post(t, strings.NewReader("hello")); code != 507 || answer.Error != "store-unavailable" {
		t.Errorf("POST with a link in place of the directory = %d %+v, want 507", code, answer)
	}
	if got := status(t, "GET", url); got != 503 {
		t.Errorf("GET = %d, want 503", got)
	}
	if files, _ := os.ReadDir(elsewhere); len(files) > 0 {
		t.Errorf("the link was followed: %v", files)
	}
	if !strings.Contains(in.log.String(), "is not a directory but L") {
		t.Errorf("the log does not say why:\n%s", in.log)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "store again", func() bool {
		code, _ := in.post(t, strings.NewReader("hello"))
		return code == 201
	})
	if in.log.find("the store is there now") == nil {
		t.Errorf("the log does not say so:\n%s", in.log)
	}
}

func TestWhyThereIsNoStoreIsLogged(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		obstruct func(path string) error
		reason   string
		get      int // the status for a blob that may be there
	}{
		"a file": {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "is not a directory", 503},
		"a link": {func(path string) error {
			return os.Symlink(filepath.Dir(path), path)
		}, "is not a directory", 503},
		"somebody else's": {func(path string) error { return os.Mkdir(path, 0) }, "mode 0000", 503},
		"no data directory": {func(path string) error {
			return os.Remove(filepath.Dir(path))
		}, "no such file or directory", 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tc.obstruct(filepath.Join(dir, storeDir)); err != nil {
				t.Fatal(err)
			}
			in := startProcess(t, withoutOverride(), "IMAGELAB_DATA_DIR="+dir)
			code, answer := in.post(t, strings.NewReader("x"))
			if code != 507 || answer.Error != "store-unavailable" || answer.Want == "" {
				t.Errorf("POST = %d %+v, want 507", code, answer)
			}
			for _, method := range []string{"GET", "HEAD", "DELETE"} {
				if got := status(t, method, in.app+"/store/"+digestOf(nil)); got != tc.get {
					t.Errorf("%s = %d, want %d", method, got, tc.get)
				}
			}
			in.healthy(t, "without a store")
			if got := strings.Count(in.log.String(), tc.reason); got != 1 {
				t.Errorf("%q is in the log %d times, want once:\n%s", tc.reason, got, in.log)
			}
		})
	}
}

// withoutOverride runs a command for which the modes of files count, which they do not for root.
func withoutOverride() []string {
	if os.Geteuid() != 0 {
		return nil
	}
	return []string{"setpriv", "--bounding-set", "-dac_override,-dac_read_search"}
}

func TestStoreTellsErrorsApart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := startProcess(t, withoutOverride(), "IMAGELAB_DATA_DIR="+dir)
	url := in.keep(t, "hello")
	path := filepath.Join(dir, storeDir, digestOf([]byte("hello")))

	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 200 {
		if got := status(t, "GET", url); got != 503 {
			t.Fatalf("GET of a file that may not be read = %d, want 503", got)
		}
	}
	most := maxLines * (2 + int(time.Since(began)/time.Second))
	if got := strings.Count(in.log.String(), "a blob could not be had"); got == 0 || got > most {
		t.Errorf("two hundred such requests make %d lines of the log, want 1 to %d", got, most)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}

	// One connection that is open already.
	conn, answers := dial(t, host(in.app))
	on := func(request string) int {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		isJSON := resp.Header.Get("Content-Type") == asJSON && bytes.HasPrefix(body, []byte(`{"error":"`))
		if resp.StatusCode >= 400 && !isJSON {
			t.Errorf("%d %q, want JSON", resp.StatusCode, body)
		}
		if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return resp.StatusCode
	}
	get := "GET " + strings.TrimPrefix(url, in.app) + " HTTP/1.1\r\nHost: x\r\n\r\n"
	put := "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
	if got := on(get); got != 200 {
		t.Fatalf("GET = %d, want 200", got)
	}
	limit := func(what int, soft uint64) {
		t.Helper()
		var old unix.Rlimit
		if err := unix.Prlimit(in.process.Pid, what, nil, &old); err != nil {
			t.Fatal(err)
		}
		if err := unix.Prlimit(in.process.Pid, what, &unix.Rlimit{Cur: min(soft, old.Max), Max: old.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(unix.RLIMIT_NOFILE, 0)
	for request, want := range map[string]int{get: 503, put: 503, strings.Replace(get, "GET", "DELETE", 1): 503} {
		if got := on(request); got != want {
			t.Errorf("%.6s without descriptors = %d, want %d", request, got, want)
		}
	}
	limit(unix.RLIMIT_NOFILE, 1024)
	if got := on(get); got != 200 {
		t.Errorf("GET with descriptors = %d, want 200", got)
	}
	limit(unix.RLIMIT_FSIZE, 0)
	if got := on(put); got != 413 {
		t.Errorf("POST beyond the limit of a file's size = %d, want 413", got)
	}
	limit(unix.RLIMIT_FSIZE, 1<<40)
	if got := on(put); got != 201 {
		t.Errorf("POST within the limit of a file's size = %d, want 201", got)
	}
}

func TestDeleteLeavesReadersTheirBlob(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_STORE_MAX_BLOB=32MiB", "IMAGELAB_STORE_CAPACITY=32MiB")
	const size = 32 << 20 // more than the kernel takes
	resp, err := client().Post(in.app+"/store", "", io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	url := in.app + resp.Header.Get("Location")
	reader, err := client().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Body.Close()
	if got := status(t, "DELETE", url); got != 204 {
		t.Errorf("DELETE = %d, want 204", got)
	}
	if got := status(t, "GET", url); got != 404 {
		t.Errorf("GET = %d, want 404", got)
	}
	if n, err := io.Copy(io.Discard, reader.Body); n != size || err != nil {
		t.Errorf("the reader got %d bytes, %v, want all", n, err)
	}
}
