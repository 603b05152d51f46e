package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write web/dist anew")

// built makes the files of web/dist from those of web: what the page refers to
// gets a name by its content, and all is compressed.
func built(t *testing.T) map[string][]byte {
	t.Helper()
	page := withoutComments(readFile(t, "web/index.html"))
	files := map[string][]byte{}
	for _, name := range []string{"style.css", "app.js", "icon.svg", "icon-warn.svg", "icon-bad.svg"} {
		content := withoutComments(readFile(t, "web/"+name))
		switch path.Ext(name) {
		case ".css":
			content = []byte(tightCSS.Replace(string(content)))
		case ".js":
			content = tightJS.ReplaceAllFunc(content, func(found []byte) []byte {
				if found[0] == '"' || found[0] == '`' {
					return found
				}
				if found = bytes.TrimSpace(found); bytes.HasPrefix(found, []byte("//")) {
					return nil
				}
				if found[len(found)-1] == '}' {
					return found[len(found)-1:]
				}
				return found
			})
		}
		digest := sha256.Sum256(content)
		ext := path.Ext(name)
		hashed := strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(digest[:4]) + ext
		if n := bytes.Count(page, []byte(`"`+name+`"`)); n == 0 {
			t.Fatalf("web/index.html does not refer to %q", name)
		}
		page = bytes.ReplaceAll(page, []byte(`"`+name+`"`), []byte(`"assets/`+hashed+`"`))
		files[hashed] = content
	}
	files["index.html"] = page
	return files
}

// tightCSS leaves out the spaces beside punctuation.
var tightCSS = strings.NewReplacer(" { ", "{", " {", "{", "; }", "}", " }", "}", "; ", ";", ": ", ":", ", ", ",", ",\n", ",", ";\n", ";", "{\n", "{", "}\n", "}")

// tightJS finds texts, which stay as they are; comments behind code, which go; semicolons before a brace, which go; and
// punctuation, whose spaces go, with the line's end where a statement cannot end there. It knows no template in a
// template, and no space in a regular expression: web/app.js has none.
var tightJS = regexp.MustCompile("\"(?:[^\"\\\\\n]|\\\\.)*\"|`[^`]*`|[ \t]*// [^\n]*|;\\s*\\}[ \t]*|" +
	"[ \t]*(?:=>|[=<>!&|?:;,{(\\[*%+-])\\s*|[ \t]*[})\\]][ \t]*")

// withoutComments leaves out what is for readers of the source alone: lines that are a comment, and indentation. No text of
// the page goes over several lines.
func withoutComments(content []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(content) {
		line = bytes.TrimLeft(line, " \t")
		if len(bytes.TrimSpace(line)) > 0 && !bytes.HasPrefix(line, []byte("//")) && !bytes.HasPrefix(line, []byte("/*")) {
			b.Write(line)
		}
	}
	return b.Bytes()
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func decompress(t *testing.T, content []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// compressed is gzip by zopfli where that is installed, which saves 4 %.
func compressed(t *testing.T, content []byte) []byte {
	t.Helper()
	if zopfli, err := exec.LookPath("zopfli"); err == nil {
		file := filepath.Join(t.TempDir(), "content")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(zopfli, "-c", "--i50", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDashboardFilesAreCurrent compares what is embedded with its source; go
// generate writes it. The compressed bytes may differ between versions of Go.
func TestDashboardFilesAreCurrent(t *testing.T) {
	t.Parallel()
	want := built(t)
	if *update {
		if err := os.RemoveAll("web/dist"); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("web/dist", 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range want {
			if err := os.WriteFile(filepath.Join("web/dist", name+".gz"), compressed(t, content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	got := map[string][]byte{}
	files, err := fs.Glob(os.DirFS("."), "web/dist/*")
	if err != nil {
		t.Fatal(err)
	}
	total, sent := 0, 0
	for _, file := range files {
		content := readFile(t, file)
		sent += len(content)
		got[strings.TrimSuffix(path.Base(file), ".gz")] = decompress(t, content)
	}
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Fatalf("web/dist has %v, want %v: run go generate", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for name, content := range want {
		if !bytes.Equal(got[name], content) {
			t.Errorf("web/dist/%s.gz is not what web/ has: run go generate", name)
		}
		total += len(content)
	}
	if total > 70_000 || sent > 20_000 {
		t.Errorf("the page has %d bytes, %d compressed, want at most 70000 and 20000: go generate uses zopfli if it is installed", total, sent)
	}
}

// fetchPage gets a file of the dashboard as a browser would, without undoing the
// compression.
func fetchPage(t *testing.T, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	return fetch(t, "GET", url, "", append([]string{"Accept-Encoding: gzip, deflate, br"}, headers...)...)
}

func TestDashboardIsServed(t *testing.T) {
	t.Parallel()
	own := start(t)
	shared := start(t, "IMAGELAB_OPS_ADDR=")
	for name, base := range map[string]string{"ops listener": own.ops + "/", "app listener": shared.app + "/-/"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := fetchPage(t, base)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Encoding") != "gzip" {
				t.Fatalf("GET %s = %d, %v, want 200 and gzip", base, resp.StatusCode, resp.Header)
			}
			for key, want := range map[string]string{
				"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
				"Referrer-Policy": "no-referrer", "Content-Security-Policy": dashboardPolicy,
			} {
				if got := resp.Header.Get(key); got != want {
					t.Errorf("%s = %q, want %q", key, got, want)
				}
			}
			page := string(decompress(t, []byte(body)))
			for _, inline := range []string{"<style", "style=", "onclick", "http://", "https://", "<script>"} {
				if strings.Contains(page, inline) {
					t.Errorf("the page has %q in it", inline)
				}
			}
			refs := regexp.MustCompile(`(?:href|src)="([^"#]+\.(?:css|js|svg))"`).FindAllStringSubmatch(page, -1)
			if len(refs) < 3 {
				t.Fatalf("the page refers to %v", refs)
			}
			for _, ref := range refs {
				resp, _ := fetchPage(t, base+ref[1])
				if resp.StatusCode != 200 || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
					t.Errorf("GET %s = %d, Cache-Control %q", ref[1], resp.StatusCode, resp.Header.Get("Cache-Control"))
				}
			}
			if resp, body := fetchPage(t, base, "If-None-Match: W/"+resp.Header.Get("ETag")); resp.StatusCode != 304 || body != "" {
				t.Errorf("with its ETag = %d %q, want 304 and nothing", resp.StatusCode, body)
			}
		})
	}
}

// fetchRaw sends a GET or HEAD with exactly these header lines.
func fetchRaw(t *testing.T, method, addr, path string, lines ...string) (*http.Response, string) {
	t.Helper()
	conn, answer := dial(t, addr)
	request := method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	for _, line := range lines {
		request += line + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(answer, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s with %q: %v", method, path, lines, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s with %q: %v", method, path, lines, err)
	}
	return resp, string(body)
}

func TestPageComesInACodingThatTheClientTakes(t *testing.T) {
	t.Parallel()
	in := start(t)
	page := string(built(t)["index.html"])
	const none = "" // 406
	for _, tc := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"nothing said, as by curl and wget", nil, "identity"},
		{"nothing wanted", []string{"Accept-Encoding:"}, "identity"},
		{"nothing but commas", []string{"Accept-Encoding: , ,"}, "identity"},
		{"a browser", []string{"Accept-Encoding: gzip, deflate, br, zstd"}, "gzip"},
		{"Prometheus", []string{"Accept-Encoding: gzip"}, "gzip"},
		{"capitals", []string{"accept-encoding: GZIP"}, "gzip"},
		{"the old name", []string{"Accept-Encoding: x-gzip"}, "gzip"},
		{"anything", []string{"Accept-Encoding: *"}, "gzip"},
		{"identity", []string{"Accept-Encoding: identity"}, "identity"},
		{"another coding", []string{"Accept-Encoding: br"}, "identity"},
		{"a name that only begins like gzip", []string{"Accept-Encoding: gzipped"}, "identity"},
		{"with a weight", []string{"Accept-Encoding: br;q=1.0, gzip;q=0.8"}, "gzip"},
		{"spaces and tabs", []string{"Accept-Encoding: \tgzip \t;\t Q=0.001 "}, "gzip"},
		{"two lines", []string{"Accept-Encoding: br", "Accept-Encoding: gzip"}, "gzip"},
		{"refused in a second line", []string{"Accept-Encoding: *", "Accept-Encoding: gzip;q=0"}, "identity"},
		{"gzip refused", []string{"Accept-Encoding: gzip;q=0, br"}, "identity"},
		{"gzip refused at length", []string{"Accept-Encoding: gzip; q=0.000"}, "identity"},
		{"anything but gzip", []string{"Accept-Encoding: gzip;q=0, *"}, "identity"},
		{"anything but gzip, by its old name", []string{"Accept-Encoding: *, x-gzip;q=0"}, "identity"},
		{"identity liked better", []string{"Accept-Encoding: gzip;q=0.5, identity"}, "identity"},
		{"gzip liked better", []string{"Accept-Encoding: identity;q=0.5, gzip"}, "gzip"},
		{"liked alike", []string{"Accept-Encoding: identity, gzip"}, "gzip"},
		{"compressed or not at all", []string{"Accept-Encoding: gzip, identity;q=0"}, "gzip"},
		{"anything compressed", []string{"Accept-Encoding: identity;q=0, *"}, "gzip"},
		{"nothing but identity", []string{"Accept-Encoding: identity, *;q=0"}, "identity"},
		{"nothing at all", []string{"Accept-Encoding: *;q=0"}, none},
		{"no identity, and no gzip either", []string{"Accept-Encoding: br, identity;q=0"}, none},
		{"neither", []string{"Accept-Encoding: gzip;q=0, identity;q=0"}, none},
		{"a weight that is none", []string{"Accept-Encoding: gzip;q=high"}, "identity"},
		{"no weight", []string{"Accept-Encoding: gzip;q="}, "identity"},
		{"no parameter", []string{"Accept-Encoding: gzip;"}, "identity"},
		{"a weight above one", []string{"Accept-Encoding: gzip;q=2"}, "identity"},
		{"a negative weight", []string{"Accept-Encoding: gzip;q=-1"}, "identity"},
		{"a weight in hex", []string{"Accept-Encoding: gzip;q=0x1"}, "identity"},
		{"another parameter", []string{"Accept-Encoding: gzip;level=9"}, "identity"},
		{"a malformed refusal", []string{"Accept-Encoding: identity;q=none"}, "identity"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			get, body := fetchRaw(t, "GET", host(in.ops), "/", tc.lines...)
			head, _ := fetchRaw(t, "HEAD", host(in.ops), "/", tc.lines...)
			checkHeadIsGet(t, head, get)
			if get.Header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("Vary = %q, want Accept-Encoding", get.Header.Get("Vary"))
			}
			if tc.want == none {
				want := `{"error":"not-acceptable","want":"Accept-Encoding: gzip or identity"}` + "\n"
				if get.StatusCode != 406 || body != want || get.Header.Get("ETag") != "" {
					t.Errorf("GET / = %d %q, want 406 %q", get.StatusCode, body, want)
				}
				return
			}
			if n := get.ContentLength; n != int64(len(body)) {
				t.Errorf("Content-Length = %d, of %d bytes", n, len(body))
			}
			got := "identity"
			if coding := get.Header.Get("Content-Encoding"); coding != "" {
				got = coding
				body = string(decompress(t, []byte(body)))
			}
			if get.StatusCode != 200 || got != tc.want || body != page {
				t.Errorf("GET / = %d, coding %s, %d bytes, want 200, %s and the page", get.StatusCode, got, len(body), tc.want)
			}
		})
	}
}

// checkHeadIsGet compares the headers of both answers. HEAD may leave out what is known
// only with the body (RFC 9110, 9.3.2).
func checkHeadIsGet(t *testing.T, head, get *http.Response) {
	t.Helper()
	if head.StatusCode != get.StatusCode {
		t.Errorf("HEAD = %d, GET = %d", head.StatusCode, get.StatusCode)
	}
	for key := range head.Header {
		if got, want := head.Header.Values(key), get.Header.Values(key); key != "Date" && !slices.Equal(got, want) {
			t.Errorf("HEAD has %s %q, GET %q", key, got, want)
		}
	}
	for key := range get.Header {
		if !slices.Contains([]string{"Date", "Content-Length"}, key) && head.Header.Values(key) == nil {
			t.Errorf("GET has %s %q, HEAD has none", key, get.Header.Values(key))
		}
	}
}

func TestEachCodingOfThePageHasAnETagOfItsOwn(t *testing.T) {
	t.Parallel()
	in := start(t)
	etags := map[string]string{}
	for coding, other := range map[string]string{"gzip": "identity", "identity": "gzip"} {
		accept := "Accept-Encoding: " + coding
		resp, _ := fetchRaw(t, "GET", host(in.ops), "/", accept)
		etag := resp.Header.Get("ETag")
		if etags[coding] = etag; etag == "" || etag == etags[other] {
			t.Fatalf("ETag of %s = %q, of %s %q, want two", coding, etag, other, etags[other])
		}
		for _, tc := range []struct {
			lines []string
			code  int
		}{
			{[]string{accept, "If-None-Match: " + etag}, 304},
			{[]string{accept, "If-None-Match: W/" + etag}, 304},
			{[]string{accept, `If-None-Match: "x", ` + etag}, 304},
			{[]string{accept, `If-None-Match: "x"`, "If-None-Match: " + etag}, 304},
			{[]string{accept, "If-None-Match: *"}, 304},
			{[]string{accept, `If-None-Match: "x"`}, 200},
			{[]string{"Accept-Encoding: " + other, "If-None-Match: " + etag}, 200},
		} {
			for _, method := range []string{"GET", "HEAD"} {
				resp, body := fetchRaw(t, method, host(in.ops), "/", tc.lines...)
				if resp.StatusCode != tc.code || resp.StatusCode == 304 && (body != "" || resp.Header.Get("ETag") != etag) {
					t.Errorf("%s / with %q = %d, %d bytes, ETag %q, want %d", method, tc.lines,
						resp.StatusCode, len(body), resp.Header.Get("ETag"), tc.code)
				}
			}
		}
	}
}

func TestPageNeedsNoTokenAndShowsNothing(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_OPS_TOKEN=correct horse")
	if resp, _ := fetchPage(t, in.ops+"/"); resp.StatusCode != 200 {
		t.Errorf("GET / without a token = %d, want 200", resp.StatusCode)
	}
	for _, path := range []string{"/events", "/snapshot", "/peers", "/audit"} {
		if resp, _ := fetch(t, "GET", in.ops+path, ""); resp.StatusCode != 401 {
			t.Errorf("GET %s without a token = %d, want 401", path, resp.StatusCode)
		}
	}
}

// TestPageMayDoLittle spells the policy out, as what is not in it is allowed: no
// fallback of default-src covers who may frame the page, what a form may send to, or
// another base.
func TestPageMayDoLittle(t *testing.T) {
	t.Parallel()
	resp, _ := fetchPage(t, start(t).ops+"/")
	got := map[string]string{}
	for directive := range strings.SplitSeq(resp.Header.Get("Content-Security-Policy"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), " ")
		got[name] = value
	}
	want := map[string]string{
		"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'", "connect-src": "'self'",
		"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
		"require-trusted-types-for": "'script'", "trusted-types": "'none'",
	}
	if !maps.Equal(got, want) {
		t.Errorf("Content-Security-Policy = %v, want %v", got, want)
	}
}
