package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// purls are the package URLs of a bill of materials in CycloneDX JSON. The module paths
// are in lower case, which package-url wants of them and not every tool writes; so that a
// binary that does not know its own version is the same, imagelab is left out.
func purls(t *testing.T, bill []byte) []string {
	t.Helper()
	var b struct {
		Components []struct{ PURL string }
	}
	if err := json.Unmarshal(bill, &b); err != nil {
		t.Fatalf("%v in %.200s", err, bill)
	}
	var all []string
	for _, c := range b.Components {
		if c.PURL != "" && !strings.HasPrefix(c.PURL, "pkg:golang/imagelab") {
			all = append(all, strings.ToLower(c.PURL))
		}
	}
	slices.Sort(all)
	return all
}

// syft finds in the image what the bill of materials lists, and nothing else.
func TestSyftSeesTheSame(t *testing.T) {
	t.Parallel()
	syft, err := exec.LookPath("syft")
	if err != nil {
		leaveOut(t, "syft is missing: go install github.com/anchore/syft/cmd/syft@latest")
	}
	for _, p := range platforms {
		cmd := exec.Command(syft, "scan", "--quiet", "--platform", p.String(), "--output", "cyclonedx-json",
			"oci-dir:"+filepath.Join(theRelease(t), layoutFolder))
		cmd.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		found, err := cmd.Output()
		if err != nil {
			t.Fatalf("syft of %s: %v\n%s", p, err, &stderr)
		}
		bill, err := os.ReadFile(filepath.Join(theRelease(t), "imagelab-v9.8.7-"+nameOf(p)+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := purls(t, found), purls(t, bill); len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("syft finds in the image for %s\n%s\nand its bill of materials lists\n%s", p,
				strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// dive finds no byte of the image wasted.
func TestDiveFindsNothingWasted(t *testing.T) {
	t.Parallel()
	dive, err := exec.LookPath("dive")
	if err != nil {
		leaveOut(t, "dive is missing: go install github.com/wagoodman/dive/cmd/dive@latest")
	}
	// dive reads what docker save writes.
	ref, err := name.NewTag("imagelab:v9.8.7")
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.WriteToFile(saved, ref, hostImage(t)); err != nil {
		t.Fatal(err)
	}
	out := output(t, ".", dive, "--ci", "--source", "docker-archive", "--lowestEfficiency", "1",
		"--highestWastedBytes", "0", "--highestUserWastedPercent", "0", saved)
	if !bytes.Contains(out, []byte("PASS  highestWastedBytes")) {
		t.Errorf("dive says\n%s", out)
	}
}
