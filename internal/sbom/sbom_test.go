package sbom

import (
	"encoding/json"
	"errors"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func buildInfo() *debug.BuildInfo {
	return &debug.BuildInfo{
		GoVersion: "go1.26.8 X:nodwarf5",
		Main:      debug.Module{Path: "imagelab", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "github.com/KimMachineGun/automemlimit", Version: "v1.0.1", Sum: "h1:a="},
			{Path: "example.com/old", Version: "v2.0.0+incompatible", Sum: "h1:b="},
			{
				Path: "example.com/gone", Version: "v1.0.0",
				Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.1", Sum: "h1:c="},
			},
		},
		Settings: []debug.BuildSetting{
			{Key: "-ldflags", Value: "-s"}, {Key: "-tags", Value: "a,b"},
			{Key: "GOARCH", Value: "arm"}, {Key: "GOARM", Value: "7"},
		},
	}
}

func TestSBOMListsWhatIsLinkedIn(t *testing.T) {
	t.Parallel()
	b, err := newBOM(buildInfo(), "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range append(b.Components, b.Metadata.Component) {
		line := c.PURL
		for _, p := range c.Properties {
			line += " " + p.Name + "=" + p.Value
		}
		got = append(got, line)
	}
	want := []string{
		"pkg:golang/stdlib@1.26.8",
		"pkg:golang/github.com/kimmachinegun/automemlimit@v1.0.1 imagelab:go.sum=h1:a=",
		"pkg:golang/example.com/old@v2.0.0%2Bincompatible imagelab:go.sum=h1:b=",
		"pkg:golang/example.com/fork@v1.0.1 imagelab:go.sum=h1:c=",
		"pkg:golang/imagelab@v1.2.3 cdx:gomod:build:tag=a cdx:gomod:build:tag=b " +
			"cdx:gomod:build:env:GOARCH=arm cdx:gomod:build:env:GOARM=7",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("--sbom lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The serial number is of the content: the same for the same, another for another.
func TestSBOMSerialNumberFollowsTheContent(t *testing.T) {
	t.Parallel()
	serial := func(version string) string {
		t.Helper()
		var out strings.Builder
		if err := Write(&out, buildInfo(), version); err != nil {
			t.Fatal(err)
		}
		var b bom
		if err := json.Unmarshal([]byte(out.String()), &b); err != nil {
			t.Fatal(err)
		}
		return b.SerialNumber
	}
	one, again, other := serial("v1.2.3"), serial("v1.2.3"), serial("v1.2.4")
	if one != again || one == other {
		t.Errorf("serial numbers %s and %s of the same, %s of another", one, again, other)
	}
	version8 := regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if !version8.MatchString(one) {
		t.Errorf("serial number %s, want a UUID of version 8", one)
	}
}

func TestSBOMSaysWhyThereIsNone(t *testing.T) {
	t.Parallel()
	err := Write(new(strings.Builder), nil, "v1")
	if err == nil || err.Error() != "sbom: the binary has no build info" {
		t.Errorf("Write without build info = %v", err)
	}
	full := errors.New("no space")
	if err := Write(failingWriter{full}, buildInfo(), "v1"); !errors.Is(err, full) {
		t.Errorf("Write to a full disk = %v, want %v", err, full)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
