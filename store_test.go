package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// metric returns the value of one series as it stands in the exposition, or "".
func (in *instance) metric(t *testing.T, series string) string {
	t.Helper()
	_, body := fetch(t, "GET", in.ops+"/metrics", "")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func TestStoreKeepsContentByItsHash(t *testing.T) {
	t.Parallel()
	in := start(t)
	const content = "hello"
	digest := digestOf([]byte(content))
	url := in.app + "/store/" + digest

	for _, want := range []int{201, 200} {
		resp, body := fetch(t, "POST", in.app+"/store", content)
		if resp.StatusCode != want || resp.Header.Get("Location") != "/store/"+digest ||
			body != fmt.Sprintf(`{"sha256":"%s","bytes":5}`+"\n", digest) {
			t.Errorf("POST = %d %q at %q, want %d", resp.StatusCode, body, resp.Header.Get("Location"), want)
		}
	}
	for _, tc := range []struct {
		name, method string
		headers      []string
		code         int
		body         string
	}{
		{"whole", "GET", nil, 200, content},
		{"head", "HEAD", nil, 200, ""},
		{"range", "GET", []string{"Range: bytes=1-3"}, 206, "ell"},
		{"suffix", "GET", []string{"Range: bytes=-2"}, 206, "lo"},
		{"range beyond the end", "GET", []string{"Range: bytes=9-"}, 416, ""},
		{"known to the client", "GET", []string{`If-None-Match: "` + digest + `"`}, 304, ""},
		{"other version", "GET", []string{`If-None-Match: "x"`}, 200, content},
	} {
		resp, body := fetch(t, tc.method, url, "", tc.headers...)
		if resp.StatusCode != tc.code || tc.code != 416 && body != tc.body {
			t.Errorf("%s: %s = %d %q, want %d %q", tc.name, tc.method, resp.StatusCode, body, tc.code, tc.body)
		}
		if got := resp.Header.Get("ETag"); tc.code < 400 && got != `"`+digest+`"` {
			t.Errorf("%s: ETag = %s", tc.name, got)
		}
	}
	if got := in.metric(t, "imagelab_store_bytes") + " " + in.metric(t, "imagelab_store_blobs"); got != "4096 1" {
		t.Errorf("bytes and blobs = %s, want a page and 1", got)
	}
	for _, want := range []int{204, 404} {
		if resp, _ := fetch(t, "DELETE", url, ""); resp.StatusCode != want {
			t.Errorf("DELETE = %d, want %d", resp.StatusCode, want)
		}
	}
	if got := in.metric(t, "imagelab_store_bytes") + " " + in.metric(t, "imagelab_store_blobs"); got != "0 0" {
		t.Errorf("after DELETE bytes and blobs = %s, want 0 0", got)
	}
	for _, name := range []string{digest, "x", strings.ToUpper(digest), "..%2f" + digest, "%2e%2e", ".upload-1"} {
		if resp, _ := fetch(t, "GET", in.app+"/store/"+name, ""); resp.StatusCode != 404 {
			t.Errorf("GET /store/%s = %d, want 404", name, resp.StatusCode)
		}
	}
}

// chunked hides the length of a body.
type chunked struct{ io.Reader }

func TestStoreRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_STORE_MAX_BLOB=8KiB", "IMAGELAB_STORE_CAPACITY=16KiB")
	content := func(n int, c string) io.Reader { return strings.NewReader(strings.Repeat(c, n)) }
	for _, tc := range []struct {
		name        string
		body        io.Reader
		code        int
		error, want string
	}{
		{"over the blob limit, length not declared", chunked{content(8193, "b")}, 413, "blob-too-large", "at most 8192 bytes"},
		{"first", content(8192, "a"), 201, "", ""},
		{"over the blob limit", content(8193, "b"), 413, "blob-too-large", "at most 8192 bytes"},
		{"one that takes a page", content(1, "c"), 201, "", ""},
		{"over the capacity", content(4097, "d"), 507, "store-full", "at most 4096 bytes now"},
		{"over the capacity, length not declared", chunked{content(4097, "d")}, 507, "store-full", "at most 4096 bytes now"},
		{"what is there already, in chunks that do not fit", chunked{content(8192, "a")}, 507, "store-full", "at most 4096 bytes now"},
		{"an empty one, which takes a page as well", content(0, ""), 201, "", ""},
		{"nothing more", content(1, "e"), 507, "store-full", "at most 0 bytes now"},
		{"not even of length 0", chunked{content(0, "")}, 507, "store-full", "at most 0 bytes now"},
	} {
		code, answer := in.post(t, tc.body)
		if code != tc.code || answer.Error != tc.error || answer.Want != tc.want {
			t.Errorf("%s: POST = %d %v, want %d %s (%s)", tc.name, code, answer, tc.code, tc.error, tc.want)
		}
	}
	if _, body := fetch(t, "GET", in.app+"/store/"+digestOf(bytes.Repeat([]byte("a"), 8192)), ""); body != strings.Repeat("a", 8192) {
		t.Errorf("the first blob is %q now", body)
	}
	for series, want := range map[string]string{
		"imagelab_store_bytes":                                   "16384",
		"imagelab_store_blobs":                                   "3",
		"imagelab_store_capacity_bytes":                          "16384",
		`imagelab_store_rejected_total{reason="blob-too-large"}`: "2",
		`imagelab_store_rejected_total{reason="store-full"}`:     "5",
	} {
		if got := in.metric(t, series); got != want {
			t.Errorf("%s = %s, want %s", series, got, want)
		}
	}
}

// A storeAnswer is what POST /store says.
type storeAnswer struct{ Error, Want, SHA256 string }

// post uploads a body.
func (in *instance) post(t *testing.T, body io.Reader) (int, storeAnswer) {
	t.Helper()
	resp, err := client().Post(in.app+"/store", "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer storeAnswer
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.Header.Get("Content-Type") != asJSON {
		t.Fatalf("POST /store = %d, not JSON: %v", resp.StatusCode, err)
	}
	return resp.StatusCode, answer
}

func TestStoreWithoutADirectoryRefusesAndTheRestServes(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_DATA_DIR=/proc/nowhere")
	if resp, body := fetch(t, "POST", in.app+"/store", "x"); resp.StatusCode != 507 || !strings.Contains(body, "store-unavailable") {
		t.Errorf("POST = %d %q, want 507 store-unavailable", resp.StatusCode, body)
	}
	if resp, _ := fetch(t, "GET", in.app+"/store/"+digestOf(nil), ""); resp.StatusCode != 404 {
		t.Errorf("GET = %d, want 404", resp.StatusCode)
	}
	if resp, _ := fetch(t, "GET", in.app+"/health", ""); resp.StatusCode != 200 {
		t.Errorf("GET /health = %d, want 200", resp.StatusCode)
	}
	if !strings.Contains(in.log.String(), "mount a tmpfs") {
		t.Errorf("the log names no cure:\n%s", in.log)
	}
}

func TestStoreIsOneProcessesAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, "IMAGELAB_DATA_DIR="+dir)
	second := start(t, "IMAGELAB_DATA_DIR="+dir)
	if resp, _ := fetch(t, "POST", first.app+"/store", "x"); resp.StatusCode != 201 {
		t.Errorf("POST to the first = %d, want 201", resp.StatusCode)
	}
	if resp, _ := fetch(t, "POST", second.app+"/store", "x"); resp.StatusCode != 507 {
		t.Errorf("POST to the second = %d, want 507", resp.StatusCode)
	}
	url := second.app + "/store/" + digestOf([]byte("x"))
	if got := status(t, "GET", url); got != 503 {
		t.Errorf("GET from the second = %d, want 503: it may be there", got)
	}
	first.cancel()
	first.wait(t)
	eventually(t, "store for the second, once the first has ended", func() bool { return status(t, "GET", url) == 200 })
}

func TestStoreMakesOneBlobOfConcurrentUploadsOfOneContent(t *testing.T) {
	t.Parallel()
	in := start(t)
	content := make([]byte, 256<<10)
	_, _ = rand.Read(content)
	var created, known atomic.Int32
	var uploads sync.WaitGroup
	for range 20 {
		uploads.Go(func() {
			resp, err := client().Post(in.app+"/store", "", chunked{bytes.NewReader(content)})
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			switch resp.StatusCode {
			case 201:
				created.Add(1)
			case 200:
				known.Add(1)
			default:
				t.Errorf("POST = %d, want 201 or 200", resp.StatusCode)
			}
		})
	}
	uploads.Wait()
	if created.Load() != 1 || known.Load() != 19 {
		t.Errorf("created %d, known %d, want 1 and 19", created.Load(), known.Load())
	}
	if got := in.metric(t, "imagelab_store_bytes") + " " + in.metric(t, "imagelab_store_blobs"); got != fmt.Sprint(len(content), " 1") {
		t.Errorf("bytes and blobs = %s", got)
	}
	// More than one chunk, sent by the kernel.
	if _, body := fetch(t, "GET", in.app+"/store/"+digestOf(content), ""); body != string(content) {
		t.Errorf("GET returns %d bytes that differ, want the %d that were stored", len(body), len(content))
	}
}

func TestStoreGivesBackWhatAnUploadThatBreaksOffReserved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := start(t, "IMAGELAB_DATA_DIR="+dir, "IMAGELAB_STORE_CAPACITY=1MiB")
	for _, head := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		conn, _ := dial(t, host(in.app))
		fmt.Fprintf(conn, "POST /store HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", head)
		fmt.Fprintf(conn, "4000\r\n%s\r\n", strings.Repeat("x", 0x4000)) // chunk or not, it takes room
		eventually(t, "reservation", func() bool { return in.metric(t, "imagelab_store_bytes") != "0" })
		conn.Close()
		eventually(t, "release", func() bool { return in.metric(t, "imagelab_store_bytes") == "0" })
	}
	if left, _ := os.ReadDir(filepath.Join(dir, storeDir)); len(left) != 0 {
		t.Errorf("%d files are left", len(left))
	}
}

func TestKillDuringUploadsLeavesOnlyWholeBlobs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	environ := []string{"IMAGELAB_DATA_DIR=" + dir, "IMAGELAB_STORE_CAPACITY=1GiB"}
	in := startProcess(t, nil, environ...)
	var kept sync.Map
	var uploads sync.WaitGroup
	var begun atomic.Int32
	for range 16 {
		uploads.Go(func() {
			for {
				content := make([]byte, 40<<10)
				_, _ = rand.Read(content)
				begun.Add(1)
				resp, err := client().Post(in.app+"/store", "", bytes.NewReader(content))
				if err != nil {
					return
				}
				resp.Body.Close()
				if resp.StatusCode == http.StatusCreated {
					kept.Store(digestOf(content), true)
				}
			}
		})
	}
	eventually(t, "a thousand uploads", func() bool { return begun.Load() > 1000 })
	in.signal(t, syscall.SIGKILL)
	in.wait(t)
	uploads.Wait()

	again := startProcess(t, nil, environ...)
	found := map[string]bool{}
	files, err := os.ReadDir(filepath.Join(dir, storeDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, storeDir, f.Name()))
		if err != nil || digestOf(content) != f.Name() {
			t.Errorf("%s holds %d bytes of another hash, %v", f.Name(), len(content), err)
		}
		found[f.Name()] = true
	}
	kept.Range(func(digest, _ any) bool {
		if !found[digest.(string)] {
			t.Errorf("%s was answered 201 and is gone", digest)
		}
		return true
	})
	if got := again.metric(t, "imagelab_store_blobs"); got != fmt.Sprint(len(files)) {
		t.Errorf("blobs after the start = %s, want %d", got, len(files))
	}
}

// A body of 1 GiB goes through a process whose heap may have 20 MiB.
func TestUploadsStream(t *testing.T) {
	t.Parallel()
	in := startProcess(t, nil, "IMAGELAB_STORE_MAX_BLOB=1GiB", "IMAGELAB_STORE_CAPACITY=2GiB")
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	req, err := http.NewRequest("POST", in.app+"/store", bufio.NewReaderSize(io.LimitReader(zeros{}, size), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 201 {
		t.Errorf("POST of %d bytes = %d, want 201", size, resp.StatusCode)
	}
	// go_memstats_sys_bytes never falls: it is the most that was ever held.
	var most float64
	if _, err := fmt.Sscan(in.metric(t, "go_memstats_sys_bytes"), &most); err != nil || most > 48<<20 {
		t.Errorf("memory for %d bytes = %.0f (%v), want less than 48 MiB", size, most, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
