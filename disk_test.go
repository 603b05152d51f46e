package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onTmpfsOf runs imagelab with its data on a tmpfs of its own, which nobody else sees and which ends with it. options
// are mount's; prepare is run in a shell before, in the store's directory.
func onTmpfsOf(t *testing.T, options, prepare string, environ ...string) *instance {
	t.Helper()
	unshare := []string{"unshare", "-m"}
	if os.Geteuid() != 0 {
		unshare = []string{"unshare", "-rm"}
	}
	if out, err := exec.Command(unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no mount namespace: %v, %s", err, out)
	}
	dir := t.TempDir()
	script := fmt.Sprintf(`mount -t tmpfs -o %s none %s && mkdir -m 700 %[2]s/%s && (cd %[2]s/%[3]s && %s) && exec "$0"`,
		options, dir, storeDir, prepare)
	environ = append(environ, "IMAGELAB_DATA_DIR="+dir, "TEST_DATA_DIR="+dir)
	return startProcess(t, append(unshare, "sh", "-c", script), environ...)
}

// inside runs a shell command in the mount namespace of the instance, in its data directory.
func (in *instance) inside(t *testing.T, command string) {
	t.Helper()
	dir := ""
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", in.process.Pid))
	for entry := range strings.SplitSeq(string(environ), "\x00") {
		if value, ok := strings.CutPrefix(entry, "TEST_DATA_DIR="); ok {
			dir = value
		}
	}
	if err != nil || dir == "" {
		t.Fatalf("data directory of the instance: %q, %v", dir, err)
	}
	args := []string{"-t", fmt.Sprint(in.process.Pid), "-m"}
	if os.Geteuid() != 0 {
		args = append(args, "-U", "--preserve-credentials")
	}
	args = append(args, "sh", "-c", "cd "+dir+" && "+command)
	if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v, %s", command, err, out)
	}
}

func TestStoreCountsWhatTheDiskCounts(t *testing.T) {
	t.Parallel()
	const none = "at most 0 bytes now"
	const diskFull = none + ", as the file system has no room for more"
	for name, tc := range map[string]struct {
		options, capacity string
		fit               int    // blobs of 6 bytes
		want              string // what the refusal of one more says
		bytes, free       string
	}{
		"pages of the capacity": {"size=4m", "1MiB", 256, none, "1.048576e+06", "3.145728e+06"},
		"pages of the disk":     {"size=1m", "64MiB", 256, diskFull, "1.048576e+06", "0"},
		"inodes": {"size=1m,nr_inodes=100", "64MiB", 98, none + ", as the file system has no room for another file",
			"401408", "647168"},
		"a tmpfs that has no size":    {"size=0", "1MiB", 256, none, "1.048576e+06", ""},
		"what was there at the start": {"size=1m", "64MiB", 206, diskFull, "843776", "0"},
		"what others put on the disk": {"size=1m", "64MiB", 206, diskFull, "843776", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prepare := "true"
			if strings.HasPrefix(name, "what was") {
				prepare = "dd if=/dev/zero of=ballast bs=4096 count=50 2>/dev/null"
			}
			in := onTmpfsOf(t, tc.options, prepare, "IMAGELAB_STORE_MAX_BLOB=256KiB", "IMAGELAB_STORE_CAPACITY="+tc.capacity)
			if strings.HasPrefix(name, "what others") {
				in.inside(t, "dd if=/dev/zero of=ballast bs=4096 count=50 2>/dev/null")
			}
			conn, answers := dial(t, host(in.app))
			post := func(content string) (int, string) {
				const request = "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
				if _, err := fmt.Fprintf(conn, request, len(content), content); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				return resp.StatusCode, string(body)
			}
			content := func(i int) string { return fmt.Sprintf("%06d", i) }
			stored := 0
			for ; stored < 1000; stored++ {
				code, body := post(content(stored))
				if code == 201 {
					continue
				}
				if want := fmt.Sprintf(`{"error":"store-full","want":%q}`+"\n", tc.want); code != 507 || body != want {
					t.Errorf("POST to a full store = %d %s, want %s", code, body, want)
				}
				break
			}
			if stored != tc.fit {
				t.Errorf("%d blobs were kept, want %d", stored, tc.fit)
			}
			for series, want := range map[string]string{
				"imagelab_store_bytes":                 tc.bytes,
				"imagelab_store_blobs":                 fmt.Sprint(tc.fit),
				"imagelab_store_filesystem_free_bytes": tc.free,
			} {
				if got := in.metric(t, series); got != want {
					t.Errorf("%s = %q, want %q", series, got, want)
				}
			}
			for i := range stored {
				if i%50 == 0 && status(t, "GET", in.app+"/store/"+digestOf([]byte(content(i)))) != 200 {
					t.Errorf("blob %d is lost", i)
				}
			}
			if got := status(t, "DELETE", in.app+"/store/"+digestOf([]byte(content(0)))); got != 204 {
				t.Errorf("DELETE in a full store = %d, want 204", got)
			}
			in.keep(t, "in its place")
		})
	}
}

func TestDiskThatFillsUpInTheMiddle(t *testing.T) {
	t.Parallel()
	in := onTmpfsOf(t, "size=1m", "true", "IMAGELAB_STORE_MAX_BLOB=4MiB", "IMAGELAB_STORE_CAPACITY=64MiB")
	kept := in.keep(t, strings.Repeat("a", 600<<10))
	for name, body := range map[string]io.Reader{
		"length declared":     bytes.NewReader(make([]byte, 600<<10)),
		"length not declared": chunked{bytes.NewReader(make([]byte, 600<<10))},
	} {
		code, answer := in.post(t, body)
		want := fmt.Sprintf("at most %d bytes now, as the file system has no room for more", (1024-600)<<10)
		if code != 507 || answer.Want != want {
			t.Errorf("%s: POST = %d %+v, want %q", name, code, answer, want)
		}
	}
	in.keep(t, strings.Repeat("b", (1024-600)<<10))
	if got := status(t, "GET", kept); got != 200 {
		t.Errorf("GET of what was stored before = %d, want 200", got)
	}
	if got := in.storeFigures(t); got != "1.048576e+06 2" {
		t.Errorf("bytes and blobs = %s, want the whole disk and 2", got)
	}
}

func TestStoreOnADiskThatCannotBeWrittenTo(t *testing.T) {
	t.Parallel()
	blob := "printf hello >" + digestOf([]byte("hello"))
	const empty = "rm imagelab-store/ballast"
	const fill = "cat /dev/zero >ballast 2>/dev/null || true"
	for name, tc := range map[string]struct{ options, prepare, obstruct, free string }{
		"read-only while it runs":        {"size=1m", blob, "mount -o remount,ro .", "mount -o remount,rw ."},
		"read-only at the start":         {"size=1m", blob + " && mount -o remount,ro ..", "true", "mount -o remount,rw ."},
		"full at the start":              {"size=1m", blob + " && " + fill, "true", empty},
		"without inodes at the start":    {"size=1m,nr_inodes=4", blob + " && : >ballast", "true", empty},
		"without inodes while it runs":   {"size=1m,nr_inodes=4", blob, ": >ballast", "rm ballast"},
		"full, all of it, while it runs": {"size=1m", blob, fill, "rm ballast"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := onTmpfsOf(t, tc.options, tc.prepare)
			in.inside(t, tc.obstruct)
			readOnly := strings.HasPrefix(name, "read-only")
			code, answer := in.post(t, strings.NewReader("x"))
			want := "store-full"
			if readOnly {
				want = "store-unavailable"
			}
			if code != 507 || answer.Error != want || answer.Want == "" {
				t.Errorf("POST = %d %+v, want 507 %s", code, answer, want)
			}
			url := in.app + "/store/" + digestOf([]byte("hello"))
			if resp, body := fetch(t, "GET", url, ""); resp.StatusCode != 200 || body != "hello" {
				t.Errorf("GET of what is stored = %d %q", resp.StatusCode, body)
			}
			if got := status(t, "DELETE", url); readOnly && got != 503 || !readOnly && got != 204 {
				t.Errorf("DELETE = %d", got)
			}
			in.inside(t, tc.free)
			in.keep(t, "x")
			in.healthy(t, "on such a disk")
		})
	}
}

// What a crash of the machine leaves is decided by the order of system calls: the content is on the disk before it has
// its name, and the name is before the client hears of it.
func TestBlobsAreOnTheDiskBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("strace", "-qq", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("no strace, or it may not trace: %v, %s", err, out)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	in := startProcess(t, []string{"strace", "-f", "-qq", "-y", "-s", "40", "-o", trace,
		"-e", "trace=fsync,renameat,renameat2,unlinkat,write,sendto"})
	// strace leaves it running when it is killed.
	pid := int(in.log.find("started")["pid"].(float64))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	url := in.keep(t, "hello")
	if got := status(t, "DELETE", url); got != 204 {
		t.Errorf("DELETE = %d, want 204", got)
	}
	digest := digestOf([]byte("hello"))
	steps := []struct{ name, pattern string }{
		{"content written", `write\(.*\.upload-\d+>, "hello"`},
		{"content synced", `fsync\(.*\.upload-\d+>`},
		{"blob named", `renameat2?\(.*"\.upload-\d+".*"` + digest},
		{"name synced", `fsync\(.*` + storeDir + `>`},
		{"answer", `write\(.*"HTTP/1\.1 201`},
		{"blob deleted", `unlinkat\(.*"` + digest},
		{"deletion synced", `fsync\(.*` + storeDir + `>`},
		{"answer", `write\(.*"HTTP/1\.1 204`},
	}
	var missing string
	found := func() bool {
		file, err := os.Open(trace)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		left := slices.Clone(steps)
		for lines.Scan() && len(left) > 0 {
			if regexp.MustCompile(left[0].pattern).MatchString(lines.Text()) {
				left = left[1:]
			}
		}
		missing = ""
		if len(left) > 0 {
			missing = left[0].name
		}
		return len(left) == 0
	}
	// The last line may come a moment after the answer.
	for deadline := time.Now().Add(patience); !found(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			content, _ := os.ReadFile(trace)
			t.Fatalf("%q does not follow on the steps before it in\n%s", missing, content)
		}
	}
}
