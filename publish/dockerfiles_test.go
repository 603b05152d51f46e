package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/opencontainers/go-digest"
)

// anyImage knows every base image, and says of each the same, so that no registry is asked.
type anyImage struct{}

func (anyImage) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config := `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/bin:/bin"]},"rootfs":{"type":"layers","diff_ids":[]}}`
	return ref, digest.FromString(ref), []byte(config), nil
}

// check is what docker build --check finds, by BuildKit's own rules.
func check(t *testing.T, name string, dockerfile []byte) []lint.Warning {
	t.Helper()
	source := llb.NewSourceMap(nil, name, "Dockerfile", dockerfile)
	source.Definition = new(llb.Definition)
	results, err := dockerfile2llb.DockerfileLint(t.Context(), dockerfile, dockerfile2llb.ConvertOpt{
		MetaResolver: anyImage{},
		SourceMap:    source,
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if results.Error != nil {
		t.Fatalf("%s: %s", name, results.Error.Message)
	}
	return results.Warnings
}

func TestDockerfilesPassBuildKitsCheck(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../examples/*/Dockerfile")
	if err != nil || len(files) == 0 {
		t.Fatalf("no example has a Dockerfile: %v", err)
	}
	for _, file := range append(files, "../Dockerfile.scratch", "../Dockerfile.alpine") {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range check(t, file, content) {
			t.Errorf("%s: %s: %s", file, w.RuleName, w.Detail)
		}
	}
	// The check is not a dummy.
	found := check(t, "bad", []byte("from scratch\nMAINTAINER x\nCMD echo\n"))
	var rules []string
	for _, w := range found {
		rules = append(rules, w.RuleName)
	}
	if got := strings.Join(rules, " "); !strings.Contains(got, "MaintainerDeprecated") || !strings.Contains(got, "JSONArgsRecommended") {
		t.Errorf("the check finds %q in a bad Dockerfile", got)
	}
}
