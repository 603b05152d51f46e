// Tests of what is handed out: that the binary's bill of materials is true,
// and that whoever builds the same sources gets the same binary.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/xeipuuv/gojsonschema"
)

// build builds the sources in folder for a Linux of that kind ("arm64", "arm/7"), and
// returns the binary's path.
func build(t *testing.T, folder, platform string, environ ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "imagelab")
	arch, arm, _ := strings.Cut(platform, "/")
	cmd := exec.Command(filepath.Join(folder, "scripts/build.sh"), out)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "GOARM="+arm, "GOFLAGS=")
	cmd.Env = append(cmd.Env, "VERSION=v9.8.7", "COMMIT=abcdef")
	cmd.Env = append(cmd.Env, environ...)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/build.sh for %s: %v\n%s", platform, err, output)
	}
	return out
}

// output runs a command in folder and returns its output.
func output(t *testing.T, folder, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = folder
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, &stderr)
	}
	return out
}

func TestSBOMIsValidCycloneDX(t *testing.T) {
	t.Parallel()
	document := output(t, "..", build(t, "..", runtime.GOARCH), "--sbom")
	const library = "github.com/CycloneDX/cyclonedx-go"
	folder := strings.TrimSpace(string(output(t, ".", "go", "list", "-m", "-f", "{{.Dir}}", library)))
	loader := gojsonschema.NewSchemaLoader()
	for id, file := range map[string]string{
		"http://cyclonedx.org/schema/spdx.schema.json":     "spdx.schema.json",
		"http://cyclonedx.org/schema/jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		content, err := os.ReadFile(filepath.Join(folder, "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := loader.AddSchema(id, gojsonschema.NewBytesLoader(content)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	content, err := os.ReadFile(filepath.Join(folder, "schema/bom-1.6.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := loader.Compile(gojsonschema.NewBytesLoader(content))
	if err != nil {
		t.Fatal(err)
	}
	result, err := schema.Validate(gojsonschema.NewBytesLoader(document))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range result.Errors() {
		t.Errorf("--sbom is against the schema of CycloneDX 1.6: %v", e)
	}
}

func TestSBOMAgreesWithTheBuildInfo(t *testing.T) {
	t.Parallel()
	binary := build(t, "..", runtime.GOARCH)
	document := output(t, "..", binary, "--sbom")
	if again := output(t, "..", binary, "--sbom"); !bytes.Equal(document, again) {
		t.Errorf("--sbom printed twice differs:\n%s\n%s", document, again)
	}
	var b cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(document), cdx.BOMFileFormatJSON).Decode(&b); err != nil {
		t.Fatal(err)
	}
	self := b.Metadata.Component
	if self.Name != "imagelab" || self.Version != "v9.8.7" || self.PackageURL != "pkg:golang/imagelab@v9.8.7" {
		t.Errorf("--sbom is of %s %s, %s, want imagelab v9.8.7", self.Name, self.Version, self.PackageURL)
	}
	var got []string
	refs := map[string]bool{b.Metadata.Component.BOMRef: true}
	for _, c := range *b.Components {
		line := c.Name + " " + c.Version
		if c.Properties != nil {
			line += " " + (*c.Properties)[0].Value
		}
		got = append(got, line)
		if refs[c.BOMRef] {
			t.Errorf("bom-ref %q twice", c.BOMRef)
		}
		refs[c.BOMRef] = true
		if want := "pkg:golang/" + strings.ToLower(c.Name) + "@" + c.Version; c.PackageURL != want {
			t.Errorf("purl of %s = %q, want %q", c.Name, c.PackageURL, want)
		}
	}
	info, err := buildinfo.ReadFile(binary) // what go version -m prints
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"stdlib " + strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range info.Deps {
		want = append(want, m.Path+" "+m.Version+" "+m.Sum)
	}
	if len(info.Deps) == 0 || !slices.Equal(got, want) {
		t.Errorf("--sbom lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBinaryIsReproducible(t *testing.T) {
	t.Parallel()
	// The index and not HEAD, so that what is about to be committed is tested.
	clones := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "somewhere", "else", "b")}
	for _, clone := range clones {
		output(t, "..", "git", "checkout-index", "--all", "--prefix="+clone+"/")
	}
	// One of them is a repository, as a clone is, and the other a bare archive.
	output(t, clones[0], "git", "init", "-q")
	output(t, clones[0], "git", "add", ".")
	output(t, clones[0], "git", "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qm", "x")
	for _, platform := range []string{"amd64", "arm64", "arm/7"} {
		t.Run(platform, func(t *testing.T) {
			var sums []string
			for i, clone := range clones {
				var environ []string
				if i == 1 && platform == runtime.GOARCH {
					// With a cache of its own, as the other would hand out what it has compiled.
					environ = []string{"GOCACHE=" + t.TempDir()}
				}
				content, err := os.ReadFile(build(t, clone, platform, environ...))
				if err != nil {
					t.Fatal(err)
				}
				sums = append(sums, fmt.Sprintf("%x", sha256.Sum256(content)))
			}
			if sums[0] != sums[1] {
				t.Errorf("two clones build different binaries: %s and %s", sums[0], sums[1])
			}
		})
	}
}

// The version that is said until a tag exists stands in several files.
func TestVersionIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	const version = `(v[0-9]+\.[0-9]+\.[0-9]+)`
	found := map[string]string{}
	for file, pattern := range map[string]string{
		"internal/early/early.go": `var Version = "` + version + `"`,
		"scripts/build.sh":        `VERSION:-` + version + `}`,
		"Makefile":                `VERSION := .*,` + version + `\)`,
		"Dockerfile.scratch":      `(?s)ARG VERSION=` + version + `.*LABEL`,
		"Dockerfile.alpine":       `(?s)ARG VERSION=` + version + `.*LABEL`,
		"CHANGELOG.md":            `## \[` + version + `\]`,
	} {
		content, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		match := regexp.MustCompile(pattern).FindSubmatch(content)
		if match == nil {
			t.Fatalf("%s has no %s", file, pattern)
		}
		found[string(match[1])] += file + " "
	}
	if len(found) != 1 {
		t.Errorf("versions differ: %v", found)
	}
}
