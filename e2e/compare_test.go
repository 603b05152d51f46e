package e2e

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCompareContainers(t *testing.T) {
	t.Parallel()
	scratch, alpine := neighbours(t)
	compare := func(args ...string) (stdout, stderr string, code int) {
		return try(t, append([]string{"run", "--rm", "--label", label(), "--network", "host"}, append(append(hardened, "imagelab:scratch", "--compare"), args...)...)...)
	}
	stdout, stderr, code := compare(scratch.ops, alpine.ops)
	if code != 0 || stderr != "" {
		t.Fatalf("--compare = %d, %s", code, stderr)
	}
	for _, want := range []string{
		"IMAGE               scratch                                 alpine\n",
		"VERDICTS THAT DIFFER", "shell-absent: No shell in the image", "The image of scratch is the smallest:", "Failed checks: scratch none; alpine ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	for line := range strings.Lines(stdout) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
			t.Errorf("a line of %d columns, want at most 100: %s", n, line)
		}
	}

	docker(t, "stop", alpine.name)
	stdout, stderr, code = compare("scratch="+scratch.ops, "alpine="+alpine.ops)
	if code != 1 || !strings.Contains(stderr, "connection refused") ||
		!strings.Contains(stdout, "alpine could not be compared: connection refused.") || !strings.Contains(stdout, "\nIMAGE               scratch\n") {
		t.Errorf("--compare with one that is down = %d, %q,\n%s\nwant 1, a line for it, and the rest", code, stderr, stdout)
	}
}
