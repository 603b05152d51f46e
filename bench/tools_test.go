package main

import (
	"strings"
	"testing"
)

func TestTimeAll(t *testing.T) {
	t.Parallel()
	all, err := timeAll(3, []tool{{Command: []string{"sleep", "0.02"}}, {Command: []string{"sh", "-c", "exit 1"}, Verdict: true}})
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range all {
		if got.Wall <= 0 || got.CPU <= 0 || got.Peak < 64<<10 {
			t.Errorf("program %d took %+v; want time, and at least 64 KiB", i, got)
		}
	}
	if all[0].Wall < 0.02 || all[0].CPU >= all[0].Wall {
		t.Errorf("20 ms of sleep took %+v", all[0])
	}
	for _, broken := range []tool{
		{Command: []string{"sh", "-c", "exit 1"}}, {Command: []string{"sh", "-c", "exit 2"}, Verdict: true},
		{Command: []string{"/does/not/exist"}, Verdict: true},
	} {
		if _, err := timeAll(1, []tool{broken}); err == nil || !strings.Contains(err.Error(), broken.Command[0]) {
			t.Errorf("%v: %v; want an error that names it", broken, err)
		}
	}
}
