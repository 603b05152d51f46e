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
	page := readFile(t, "web/index.html")
	files := map[string][]byte{}
	for _, name := range []string{"style.css", "app.js", "icon.svg"} {
		content := readFile(t, "web/"+name)
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
			if err := os.WriteFile(filepath.Join("web/dist", name+".gz"), b.Bytes(), 0o644); err != nil {
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
	total := 0
	for _, file := range files {
		got[strings.TrimSuffix(path.Base(file), ".gz")] = decompress(t, readFile(t, file))
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
	if total > 60_000 {
		t.Errorf("the page has %d bytes, want at most 60000", total)
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

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		values []string
		want   bool
	}{
		{"nothing said", nil, true},
		{"a browser", []string{"gzip, deflate, br, zstd"}, true},
		{"anything", []string{"*"}, true},
		{"with a weight", []string{"br;q=1.0, GZIP;q=0.8"}, true},
		{"two headers", []string{"br", "gzip"}, true},
		{"identity", []string{"identity"}, false},
		{"empty", []string{""}, false},
		{"refused", []string{"gzip;q=0, br"}, false},
		{"refused at length", []string{"gzip; q=0.000"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := acceptsGzip(tc.values); got != tc.want {
				t.Errorf("acceptsGzip(%q) = %v, want %v", tc.values, got, tc.want)
			}
		})
	}
}

func TestNoGzipIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	resp, body := fetch(t, "GET", in.ops+"/", "", "Accept-Encoding: identity")
	if want := `{"error":"not-acceptable","want":"Accept-Encoding: gzip"}` + "\n"; resp.StatusCode != 406 || body != want {
		t.Errorf("GET / = %d %q, want 406 %q", resp.StatusCode, body, want)
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
