package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestUploadsWhoseFilesOthersTakeAreNotKept(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(file string) error{
		"the file is deleted":      os.Remove,
		"the directory is deleted": func(file string) error { return os.RemoveAll(filepath.Dir(file)) },
		"the file is replaced": instead(func(file string) error {
			return os.WriteFile(file, []byte("HELLO"), 0o600)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			in := start(t, "IMAGELAB_DATA_DIR="+dir)
			conn, answers := dial(t, host(in.app))
			fmt.Fprint(conn, "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell")
			var files []string
			eventually(t, "file of the upload", func() bool {
				files, _ = filepath.Glob(filepath.Join(dir, storeDir, tempPrefix+"*"))
				info, err := os.Stat(strings.Join(files, ""))
				return err == nil && info.Size() == 4
			})
			if err := take(files[0]); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, "o")
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			isJSON := bytes.HasPrefix(body, []byte(`{"error":"store-unavailable"`))
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !isJSON {
				t.Errorf("POST = %d %q, want 503 and a new try", resp.StatusCode, body)
			}
			url := in.keep(t, "hello")
			if resp, body := fetch(t, "GET", url, ""); resp.StatusCode != 200 || body != "hello" {
				t.Errorf("GET after the new try = %d %q", resp.StatusCode, body)
			}
			eventually(t, "figures of one blob", func() bool { return in.storeFigures(t) == "4096 1" })
		})
	}
}

// What has not come is not here.
func TestDeclaredLengthsTakeNoRoom(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_READ_TIMEOUT=1h", "IMAGELAB_MAX_IN_FLIGHT=100")
	for range 20 {
		conn, _ := dial(t, host(in.app))
		fmt.Fprint(conn, "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n")
	}
	eventually(t, "uploads", func() bool {
		return in.metric(t, `imagelab_http_requests_in_flight{route="/store",server="app"}`) == "20"
	})
	if got := in.metric(t, "imagelab_store_bytes"); got != "0" {
		t.Errorf("bytes = %s with nothing but headers, want 0", got)
	}
	for i := range 8 {
		in.keep(t, strings.Repeat(string(rune('a'+i)), 1<<20))
	}
}

func TestUploadsThatFallBehindGiveWay(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	for name, tc := range map[string]struct {
		first  int // bytes of the body that come at once
		drip   bool
		places string
	}{
		"room held by one byte less than all":       {first: size - 1, places: "100"},
		"room held by one byte less, and a trickle": {first: size - 4000, drip: true, places: "100"},
		"places held by silence":                    {places: "8"},
		"places held by a trickle":                  {drip: true, places: "8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := start(t, "IMAGELAB_READ_TIMEOUT=1h", "IMAGELAB_STORE_MAX_BLOB=64KiB", "IMAGELAB_STORE_CAPACITY=256KiB",
				"IMAGELAB_MAX_IN_FLIGHT="+tc.places)
			kept := in.keep(t, "hello")
			var told atomic.Int32 // that they were too slow
			for i := range 4 {
				conn, answers := dial(t, host(in.app))
				length := size
				if i == 3 {
					length = size - 4096 // the page of hello
				}
				fmt.Fprintf(conn, "POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", length)
				if _, err := io.CopyN(conn, zeros{}, int64(max(0, tc.first-size+length))); err != nil {
					t.Fatal(err)
				}
				if tc.drip {
					go trickle(conn)
				}
				go func() {
					if resp, err := http.ReadResponse(answers, nil); err == nil && resp.StatusCode == 408 {
						told.Add(1)
					}
				}()
			}
			eventually(t, "uploads", func() bool {
				return in.metric(t, `imagelab_http_requests_in_flight{route="/store",server="app"}`) == "4"
			})
			content := make([]byte, size)
			for range 3 {
				_, _ = rand.Read(content)
				eventually(t, "room for others", func() bool {
					code, _ := in.post(t, bytes.NewReader(content))
					return code == 201
				})
			}
			// Whether they hold places or room, as many had to go.
			eventually(t, "word to those who were too slow", func() bool { return told.Load() >= 1 })
			if got := in.metric(t, `imagelab_store_rejected_total{reason="too-slow"}`); got == "" {
				t.Error("nobody was counted as too slow")
			}
			if got := status(t, "GET", kept); got != 200 {
				t.Errorf("GET of what was stored before = %d, want 200", got)
			}
		})
	}
}

// trickle sends a byte again and again, until the connection ends.
func trickle(conn net.Conn) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := conn.Write([]byte("x")); err != nil {
			return
		}
	}
}

func TestOfUploadsThatDoNotFitTogetherAsManyAreKeptAsDo(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_MAX_IN_FLIGHT=100")
	var kept atomic.Int32
	var uploads sync.WaitGroup
	for i := range 14 {
		uploads.Go(func() {
			code, answer := in.post(t, chunked{bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 1<<20))})
			switch {
			case code == 201:
				kept.Add(1)
			case code != 507 || !strings.HasPrefix(answer.Want, "at most "):
				t.Errorf("POST = %d %+v, want 201 or 507", code, answer)
			}
		})
	}
	uploads.Wait()
	if kept.Load() != 8 || in.storeFigures(t) != "8.388608e+06 8" {
		t.Errorf("%d MiB of 14 were kept, bytes and blobs = %s, want the 8 that there is room for",
			kept.Load(), in.storeFigures(t))
	}
}
