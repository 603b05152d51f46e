package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"io"
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

// serveFile serves a file that is kept compressed. A client that takes no gzip gets it
// decompressed, and so does one that says nothing: that it could take any coding is the
// theory (RFC 9110, 12.5.3), and wget, curl and urllib show what they get.
func serveFile(name string, content []byte, cache string) http.HandlerFunc {
	digest := sha256.Sum256(content)
	tag := hex.EncodeToString(digest[:8])
	// A gzip file ends with the length of what is in it (RFC 1952, 2.3.1).
	length := int(binary.LittleEndian.Uint32(content[len(content)-4:]))
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", cache)
		h.Set("Vary", "Accept-Encoding")
		h.Set("Content-Security-Policy", dashboardPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		coding := chooseCoding(r.Header.Values("Accept-Encoding"))
		if coding == "" {
			h.Set("Cache-Control", "no-store")
			writeError(w, http.StatusNotAcceptable, "not-acceptable", "Accept-Encoding: gzip or identity")
			return
		}
		etag := `"` + tag + "-" + coding + `"` // each coding is a representation of its own (RFC 9110, 8.8.3)
		h.Set("ETag", etag)
		if matchesETag(r.Header.Values("If-None-Match"), etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", fileTypes[path.Ext(name)])
		if coding == codingGzip {
			h.Set("Content-Encoding", coding)
			h.Set("Content-Length", strconv.Itoa(len(content)))
			_, _ = w.Write(content)
			return
		}
		h.Set("Content-Length", strconv.Itoa(length))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return
		}
		plain, err := gzip.NewReader(bytes.NewReader(content))
		if err != nil {
			panic(err) // the file is no gzip
		}
		_, _ = io.Copy(w, plain)
	}
}

// The codings that a file can be sent in.
const (
	codingGzip     = "gzip"
	codingIdentity = "identity"
)

// chooseCoding reads Accept-Encoding (RFC 9110, 12.5.3) and returns the coding that is
// sent: gzip where the client asks for it and does not like identity better, and "" where
// it refuses both. What is malformed counts as not said, so that it gets no coding that
// was not asked for.
func chooseCoding(values []string) string {
	weights := map[string]float64{}
	for member := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding, weight, ok := parseCoding(member)
		if !ok {
			continue
		}
		if given, again := weights[coding]; !again || weight < given {
			weights[coding] = weight
		}
	}
	others, othersSaid := weights["*"]
	zip, said := weights[codingGzip]
	if !said {
		zip = others
	}
	identity, said := weights[codingIdentity]
	switch {
	case zip > 0 && zip >= identity:
		return codingGzip
	case said && identity == 0, !said && othersSaid && others == 0:
		return ""
	}
	return codingIdentity
}

// parseCoding reads one member of Accept-Encoding, such as "gzip;q=0.5". x-gzip is another
// name of gzip (RFC 9110, 8.4.1.3).
func parseCoding(member string) (coding string, weight float64, ok bool) {
	coding, parameter, weighted := strings.Cut(member, ";")
	coding = strings.ToLower(strings.Trim(coding, " \t"))
	if coding == "x-gzip" {
		coding = codingGzip
	}
	if !weighted {
		return coding, 1, coding != ""
	}
	name, value, _ := strings.Cut(strings.Trim(parameter, " \t"), "=")
	if !strings.EqualFold(name, "q") || !isWeight(value) {
		return "", 0, false
	}
	weight, err := strconv.ParseFloat(value, 64)
	return coding, weight, err == nil && weight <= 1 && coding != ""
}

// isWeight says whether text is a digit and at most three more behind a point, as a
// qvalue is (RFC 9110, 12.4.2).
func isWeight(text string) bool {
	whole, fraction, _ := strings.Cut(text, ".")
	return len(whole) == 1 && len(fraction) <= 3 && strings.Trim(whole+fraction, "0123456789") == ""
}

// matchesETag reads If-None-Match, which compares weakly (RFC 9110, 13.1.2).
func matchesETag(values []string, etag string) bool {
	for one := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == etag || one == "*" {
			return true
		}
	}
	return false
}
