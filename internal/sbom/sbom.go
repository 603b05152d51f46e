// Package sbom writes the bill of materials of a Go binary: what is linked in, as its build
// info has it.
package sbom

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"runtime/debug"
	"strings"
)

// A bom is a CycloneDX 1.6 document, as far as build info can fill one
// (https://cyclonedx.org/docs/1.6/json/). It says nothing of licences, which
// build info does not know, and has no time, so that one binary always prints
// the same.
type bom struct {
	Format       string           `json:"bomFormat"`
	SpecVersion  string           `json:"specVersion"`
	SerialNumber string           `json:"serialNumber,omitempty"`
	Version      int              `json:"version"`
	Metadata     bomMetadata      `json:"metadata"`
	Components   []bomComponent   `json:"components"`
	Compositions []bomComposition `json:"compositions"`
}

type bomMetadata struct {
	Component bomComponent `json:"component"`
}

type bomComponent struct {
	Ref        string        `json:"bom-ref"`
	Type       string        `json:"type"`
	Name       string        `json:"name"`
	Version    string        `json:"version"`
	Scope      string        `json:"scope,omitempty"`
	PURL       string        `json:"purl"`
	Properties []bomProperty `json:"properties,omitempty"`
}

type bomProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A bomComposition says how much is known of what is listed.
type bomComposition struct {
	Aggregate    string   `json:"aggregate"`
	Dependencies []string `json:"dependencies"`
}

// Write writes the bill of materials of the binary that info is of, whose own version is
// version, as indented CycloneDX JSON. The same arguments always give the same bytes. It
// fails without info, and when w does.
func Write(w io.Writer, info *debug.BuildInfo, version string) error {
	if info == nil {
		return errors.New("sbom: the binary has no build info")
	}
	b, err := newBOM(info, version)
	if err != nil {
		return err
	}
	out, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	if _, err := w.Write(append(out, '\n')); err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	return nil
}

// newBOM lists the standard library and each module of info. Its serial number is
// derived from all the rest (RFC 9562, version 8).
func newBOM(info *debug.BuildInfo, version string) (bom, error) {
	self := bomComponent{Type: "application", Name: info.Main.Path, Version: version, Properties: buildProperties(info)}
	self.PURL = purl(info.Main.Path, version)
	self.Ref = self.PURL
	b := bom{Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: bomMetadata{self}}

	// Behind the version a toolchain may name its experiments.
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	b.Components = append(b.Components, newComponent("stdlib", goVersion, ""))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Components = append(b.Components, newComponent(m.Path, m.Version, m.Sum))
	}
	// Build info tells which modules are linked in, but not which of them needs which.
	b.Compositions = []bomComposition{{"unknown", []string{self.Ref}}}

	content, err := json.Marshal(b)
	if err != nil {
		return bom{}, fmt.Errorf("sbom: %w", err)
	}
	id := sha256.Sum256(content)
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	b.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	return b, nil
}

// newComponent is a linked module. Its checksum is a property: h1 is a hash over
// the hashes of its files (golang.org/x/mod/sumdb/dirhash), and no file has it.
func newComponent(path, version, h1 string) bomComponent {
	c := bomComponent{Type: "library", Name: path, Version: version, Scope: "required", PURL: purl(path, version)}
	c.Ref = c.PURL
	if h1 != "" {
		c.Properties = []bomProperty{{"imagelab:go.sum", h1}}
	}
	return c
}

// buildProperties are those settings of the build that decide what is in the binary,
// by the names of the taxonomy cdx:gomod.
func buildProperties(info *debug.BuildInfo) []bomProperty {
	var of []bomProperty
	for _, s := range info.Settings {
		switch s.Key {
		case "-compiler":
			of = append(of, bomProperty{"cdx:gomod:build:compiler", s.Value})
		case "-tags":
			for tag := range strings.SplitSeq(s.Value, ",") {
				of = append(of, bomProperty{"cdx:gomod:build:tag", tag})
			}
		case "CGO_ENABLED", "GOOS", "GOARCH", "GOAMD64", "GOARM", "GOARM64":
			of = append(of, bomProperty{"cdx:gomod:build:env:" + s.Key, s.Value})
		}
	}
	return of
}

// purl is the package URL of a Go module, whose path the type golang has in lower case
// (https://github.com/package-url/purl-spec).
func purl(path, version string) string {
	segments := strings.Split(strings.ToLower(path), "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	// PathEscape leaves + alone, which some readers take for a space.
	return "pkg:golang/" + strings.Join(segments, "/") + "@" + strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
}
