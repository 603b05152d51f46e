package main

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// dashboardFiles are the files of web/, compressed. The page is handwritten; go
// generate names what it refers to by content and writes web/dist.
//
//go:generate go test . -run TestDashboardFilesAreCurrent -update
//go:embed web/dist
var dashboardFiles embed.FS

// dashboardPolicy lets the page run its own script and style and talk to its own
// server, nothing else; no text can become markup or code.
const dashboardPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// dashboard returns the page, and a handler for the files that it refers to, by
// the {name} of the path: they are one route, as their names change with their
// content and would be another series of the metrics in each release. They hold
// no data.
func dashboard() (page, assets http.HandlerFunc) {
	byName := map[string]http.HandlerFunc{}
	files, err := fs.Glob(dashboardFiles, "web/dist/*.gz")
	if err != nil {
		panic(err) // the pattern is wrong
	}
	for _, file := range files {
		content, err := dashboardFiles.ReadFile(file)
		if err != nil {
			panic(err) // it has just been listed
		}
		name := strings.TrimSuffix(path.Base(file), ".gz")
		if name == "index.html" {
			page = serveFile(name, content, "no-cache")
		} else {
			byName[name] = serveFile(name, content, "public, max-age=31536000, immutable")
		}
	}
	return page, func(w http.ResponseWriter, r *http.Request) {
		serve, known := byName[r.PathValue("name")]
		if !known {
			serve = serveNotFound
		}
		serve(w, r)
	}
}

// fileTypes are the media types of the dashboard's files.
var fileTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// serveFile serves a file that is kept compressed. A client that takes no gzip
// is told so; who says nothing takes everything (RFC 9110, 12.5.3).
func serveFile(name string, content []byte, cache string) http.HandlerFunc {
	digest := sha256.Sum256(content)
	etag := `"` + hex.EncodeToString(digest[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", cache)
		h.Set("ETag", etag)
		h.Set("Vary", "Accept-Encoding")
		h.Set("Content-Security-Policy", dashboardPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		switch {
		case !acceptsGzip(r.Header.Values("Accept-Encoding")):
			h.Set("Cache-Control", "no-store")
			writeError(w, http.StatusNotAcceptable, "not-acceptable", "Accept-Encoding: gzip")
		case matchesETag(r.Header.Get("If-None-Match"), etag):
			w.WriteHeader(http.StatusNotModified)
		default:
			h.Set("Content-Type", fileTypes[path.Ext(name)])
			h.Set("Content-Encoding", "gzip")
			h.Set("Content-Length", strconv.Itoa(len(content)))
			_, _ = w.Write(content)
		}
	}
}

// acceptsGzip reads Accept-Encoding.
func acceptsGzip(values []string) bool {
	if len(values) == 0 {
		return true
	}
	for one := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding, weight, _ := strings.Cut(strings.ReplaceAll(one, " ", ""), ";")
		if q, isNumber := strings.CutPrefix(strings.ToLower(weight), "q="); isNumber && strings.Trim(q, "0.") == "" {
			continue
		}
		if strings.EqualFold(coding, "gzip") || strings.EqualFold(coding, "x-gzip") || coding == "*" {
			return true
		}
	}
	return false
}

// matchesETag reads If-None-Match, which compares weakly (RFC 9110, 13.1.2).
func matchesETag(given, etag string) bool {
	for one := range strings.SplitSeq(given, ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == etag || one == "*" {
			return true
		}
	}
	return false
}
