package main

import (
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
)

func TestPreconditionsByEveryMethod(t *testing.T) {
	t.Parallel()
	in := start(t)
	url := in.keep(t, "hello")
	etag := `"` + digestOf([]byte("hello")) + `"`
	const date = "Mon, 01 Jan 1990 00:00:00 GMT"
	for _, tc := range []struct {
		name    string
		headers []string
		read    int // the status for GET and HEAD
		write   int // and for DELETE
	}{
		{"none", nil, 200, 204},
		{"its tag", []string{"If-Match: " + etag}, 200, 204},
		{"any tag", []string{"If-Match: *"}, 200, 204},
		{"its tag among others", []string{`If-Match: "a,b", W/"c" ,` + etag}, 200, 204},
		{"its tag on another line", []string{`If-Match: "a"`, "If-Match: " + etag}, 200, 204},
		{"its tag, weak", []string{"If-Match: W/" + etag}, 412, 412},
		{"another tag", []string{`If-Match: "a"`}, 412, 412},
		{"no tag at all", []string{"If-Match: hello"}, 412, 412},
		{"a tag without end", []string{"If-Match: " + etag[:20]}, 412, 412},
		{"not its tag", []string{"If-None-Match: " + etag}, 304, 412},
		{"not its tag, weak", []string{"If-None-Match: W/" + etag}, 304, 412},
		{"not its tag, among others", []string{`If-None-Match: "a", "b",` + etag}, 304, 412},
		{"not its tag, on another line", []string{`If-None-Match: "a"`, "If-None-Match: " + etag}, 304, 412},
		{"not any tag", []string{"If-None-Match: *"}, 304, 412},
		{"not another tag", []string{`If-None-Match: "a"`}, 200, 204},
		{"another tag, and not its", []string{`If-Match: "a"`, "If-None-Match: " + etag}, 412, 412},
		// Nothing here has a date, so these must be ignored (RFC 9110, 13.1.3 and 13.1.4).
		{"unmodified since", []string{"If-Unmodified-Since: " + date}, 200, 204},
		{"modified since", []string{"If-Modified-Since: " + date}, 200, 204},
		{"a range of a tag that does not match", []string{"Range: bytes=1-3", `If-Match: "a"`}, 412, 412},
		{"a range", []string{"Range: bytes=1-3"}, 206, 204},
		{"a range beyond the end", []string{"Range: bytes=9-"}, 416, 204},
		{"a range beyond the end of its tag", []string{"Range: bytes=9-", "If-Range: " + etag}, 416, 204},
		{"a range of its tag", []string{"Range: bytes=1-3", "If-Range: " + etag}, 206, 204},
		{"a range of its tag, weak", []string{"Range: bytes=1-3", "If-Range: W/" + etag}, 200, 204},
		{"a range of another tag", []string{"Range: bytes=9-", `If-Range: "a"`}, 200, 204},
		{"a range of a date", []string{"Range: bytes=1-3", "If-Range: " + date}, 200, 204},
		{"a range of another unit", []string{"Range: lines=9-"}, 200, 204},
		{"a range of another case", []string{"Range: Bytes=1-3"}, 206, 204},
		{"two ranges", []string{"Range: bytes=0-0,-1"}, 206, 204},
		{"the last 0 bytes", []string{"Range: bytes=-0"}, 416, 204},
		{"the last 00 bytes, with a space", []string{"Range: bytes= -00"}, 416, 204},
		{"the last 0 bytes and the first", []string{"Range: bytes=-0,0-0"}, 206, 204},
		{"ranges of which one is beyond the end", []string{"Range: bytes=0-0,9-"}, 206, 204},
	} {
		t.Run(tc.name, func(t *testing.T) {
			header := http.Header{}
			for _, h := range tc.headers {
				name, value, _ := strings.Cut(h, ": ")
				header.Add(name, value)
			}
			send := func(method string) (*http.Response, string) {
				t.Helper()
				req, err := http.NewRequest(method, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header = header.Clone()
				resp, err := client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				return resp, string(body)
			}
			get, body := send("GET")
			if isJSON := strings.HasPrefix(body, `{"error":"`); get.StatusCode != tc.read || isJSON != (tc.read >= 400) {
				t.Errorf("GET = %d %q, want %d", get.StatusCode, body, tc.read)
			}
			size := get.Header.Get("Content-Range") == "bytes */5"
			if size != (tc.read == 416) || tc.read >= 400 && get.Header.Get("Cache-Control") != "" {
				t.Errorf("GET: header = %v", get.Header)
			}
			head, body := send("HEAD")
			if head.StatusCode != tc.read || body != "" {
				t.Errorf("HEAD = %d %q, want %d", head.StatusCode, body, tc.read)
			}
			for _, name := range []string{
				"Content-Type", "Content-Length", "Content-Range", "ETag", "Cache-Control", "Accept-Ranges",
			} {
				byGet, _, _ := strings.Cut(get.Header.Get(name), "boundary=")
				byHead, _, _ := strings.Cut(head.Header.Get(name), "boundary=")
				if byGet != byHead {
					t.Errorf("%s: %q by GET, %q by HEAD", name, byGet, byHead)
				}
			}
			resp, body := send("DELETE")
			isJSON := strings.HasPrefix(body, `{"error":"precondition-failed","want":`)
			if resp.StatusCode != tc.write || isJSON != (tc.write == 412) {
				t.Errorf("DELETE = %d %q, want %d", resp.StatusCode, body, tc.write)
			}
			if code, _ := in.post(t, strings.NewReader("hello")); (code == 201) != (tc.write == 204) {
				t.Errorf("POST after DELETE = %d", code)
			}
		})
	}
	// Without preconditions it would be 404, so they do not count (13.2.1).
	if got := status(t, "DELETE", in.app+"/store/"+digestOf(nil), "If-Match: *"); got != 404 {
		t.Errorf("DELETE of what is not there, if there is anything = %d, want 404", got)
	}
	// What POST acts on is /store, of which there is no version.
	for header, want := range map[string]int{"If-None-Match: *": 200, "If-Match: *": 412, "If-Match: " + etag: 412} {
		if resp, body := fetch(t, "POST", in.app+"/store", "hello", header); resp.StatusCode != want {
			t.Errorf("POST with %s = %d %q, want %d", header, resp.StatusCode, body, want)
		}
	}
}

// What is no range at all may be ignored or refused (RFC 9110, 14.2), but not with another kind of error.
func TestNonsenseInRangesIsNoOtherError(t *testing.T) {
	t.Parallel()
	in := start(t)
	url, empty := in.keep(t, "hello"), in.keep(t, "")
	for _, value := range []string{
		"bytes=x", "bytes=3-1", "lines=1-2", "bytes=", "bytes=-0", "bytes=0-99999999999999999999", "bytes=0-0,x",
	} {
		for _, url := range []string{url, empty} {
			if got := status(t, "GET", url, "Range: "+value); got != 200 && got != 206 && got != 416 {
				t.Errorf("GET with Range: %s = %d", value, got)
			}
		}
	}
}

func TestAnEmptyBlobIsSentWholeWhateverTheRange(t *testing.T) {
	t.Parallel()
	in := start(t)
	url := in.keep(t, "")
	for _, value := range []string{"bytes=-1", "bytes=-0", "bytes=0-", "bytes=0-0", "bytes=0-0,-1"} {
		if resp, body := fetch(t, "GET", url, "", "Range: "+value); resp.StatusCode != 200 || string(body) != "" || resp.Header.Get("Content-Range") != "" {
			t.Errorf("GET with Range: %s = %d, Content-Range %q, want 200 and none", value, resp.StatusCode, resp.Header.Get("Content-Range"))
		}
	}
}

func TestTwoRangesComeInTwoParts(t *testing.T) {
	t.Parallel()
	in := start(t)
	resp, body := fetch(t, "GET", in.keep(t, "hello"), "", "Range: bytes=0-0,-2")
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("Content-Type = %q, %v", resp.Header.Get("Content-Type"), err)
	}
	parts := multipart.NewReader(strings.NewReader(body), params["boundary"])
	for _, want := range []string{"bytes 0-0/5 h", "bytes 3-4/5 lo"} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(part)
		if got := part.Header.Get("Content-Range") + " " + string(content); got != want {
			t.Errorf("part = %q, want %q", got, want)
		}
	}
}
