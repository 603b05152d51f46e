package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestStopOverWire(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		tags        string
		least, most float64
	}{
		// Each client on a kept connection has a request on its way nearly always.
		"killed by the signal": {"", 10, 32},
		"stopped by Shutdown":  {"shutdown", 0, 32},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), "bare")
			build := exec.Command("go", "build", "-tags", tc.tags, "-o", program, "./bare")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			b := &bench{serverCPU: "0", work: t.TempDir()}
			s := &subject{name: "bare", command: []string{program, "{host}:{port}"}, path: "/health"}
			lost, err := b.stopOverWire(s)
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skipf("kernel: %v", err)
			}
			if err != nil || lost < tc.least || lost > tc.most {
				t.Errorf("lost %v, %v, want %v to %v", lost, err, tc.least, tc.most)
			}
			t.Logf("lost %v", lost)
		})
	}
}
