package compare

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"imagelab/internal/audit"
)

// written is the comparison's text, line by line.
func written(t *testing.T, sides ...Side) []string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteText(&b, Compare(sides, noon)); err != nil {
		t.Fatal(err)
	}
	return strings.Split(b.String(), "\n")
}

// after returns the lines that start with prefix.
func after(lines []string, prefix string) []string {
	var found []string
	for _, line := range lines {
		if strings.HasPrefix(line, prefix) {
			found = append(found, line)
		}
	}
	return found
}

func named(s Side, name string) Side {
	s.Name = name
	return s
}

// at returns the column, counted from 0, at which s begins in the line.
func at(line, s string) int {
	before, _, found := strings.Cut(line, s)
	if !found {
		return -1
	}
	return utf8.RuneCountInString(before)
}

func TestValuesStandBelowTheirNames(t *testing.T) {
	t.Parallel()
	wordy := named(large(), "wordy")
	wordy.Report.Facts.Image.Distribution = strings.Repeat("Enterprise ", 20)
	lines := written(t, named(small(), "one"), wordy, named(large(), "three"))
	head, base := after(lines, "IMAGE"), after(lines, "  base")
	if len(head) != 1 || len(base) != 1 {
		t.Fatalf("%d headings and %d rows, want one of each in\n%s", len(head), len(base), strings.Join(lines, "\n"))
	}
	for name, value := range map[string]string{"one": "none", "wordy": "Enterprise", "three": "Alpine"} {
		if got, want := at(base[0], value), at(head[0], name); got != want {
			t.Errorf("%s begins in column %d, and its name %s in %d:\n%s\n%s", value, got, name, want, head[0], base[0])
		}
	}
}

// TestFifthSideHasRoom: the sides that follow below have a table of their own.
func TestFifthSideHasRoom(t *testing.T) {
	t.Parallel()
	const name = "A distribution whose name takes most of a line"
	last := named(small(), "five")
	last.Report.Facts.Image.Distribution = name
	lines := written(t, named(small(), "one"), named(small(), "two"), named(small(), "three"), named(small(), "four"), last)
	base := after(lines, "  base")
	if len(base) != 2 || !strings.Contains(base[1], name) {
		t.Errorf("rows = %q, want the name of the fifth whole in the second", base)
	}
}

func TestMarkOutlivesALongValue(t *testing.T) {
	t.Parallel()
	sides := []Side{named(small(), "one"), named(large(), "two"), named(large(), "three"), named(large(), "four")}
	for i := range 12 {
		sides[0].Report.Facts.WritableMounts = append(sides[0].Report.Facts.WritableMounts, fmt.Sprintf("/mount/%d", i))
	}
	row := after(written(t, sides...), "  writable")
	if len(row) != 1 || !strings.Contains(row[0], "… * ") {
		t.Errorf("row = %q, want a cut value and its mark", row)
	}
}

// TestLinesAreFilled: a line ends only where the next word would not fit.
func TestLinesAreFilled(t *testing.T) {
	t.Parallel()
	widest := 0
	for first := 1; first <= 8; first++ {
		a, b := small(), large()
		b.Report.Checks[1].Evidence = strings.Repeat("w", first) + strings.Repeat(" xyz", 60)
		lines := written(t, a, b)
		folded := 0
		for i, line := range lines[1:] {
			indent := strings.Repeat(" ", 36)
			if !strings.HasPrefix(line, indent+"xyz") {
				continue
			}
			folded++
			n := utf8.RuneCountInString(lines[i])
			widest = max(widest, n)
			if n+len(" xyz") <= columns {
				t.Errorf("a line of %d columns ends before a word of 3 that it has room for: %q", n, lines[i])
			}
		}
		if folded == 0 {
			t.Fatalf("no folded line in\n%s", strings.Join(lines, "\n"))
		}
	}
	if widest != columns {
		t.Errorf("the longest line has %d columns, want %d", widest, columns)
	}
}

func TestWordTooLongForALineIsCut(t *testing.T) {
	t.Parallel()
	a, b := small(), large()
	b.Report.Checks[1].Evidence = "/" + strings.Repeat("directory", 50)
	cut := 0
	for _, line := range written(t, a, b) {
		if n := utf8.RuneCountInString(line); n > columns {
			t.Errorf("a line of %d columns, want at most %d: %q", n, columns, line)
		}
		if strings.HasSuffix(line, "…") {
			cut++
		}
	}
	if cut != 1 {
		t.Errorf("%d lines end in …, want the one", cut)
	}
}

func TestNoHeadingOverNothing(t *testing.T) {
	t.Parallel()
	var markdown bytes.Buffer
	twins := []Side{small(), named(small(), "twin")}
	if err := WriteMarkdown(&markdown, Compare(twins, noon)); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(written(t, twins...), "\n")
	if strings.Contains(text, "DIFFER") || strings.Contains(markdown.String(), "differ\n") {
		t.Errorf("a heading for verdicts that differ where none does:\n%s\n%s", text, markdown.String())
	}
}

func TestDifferencesOfEachSeverity(t *testing.T) {
	t.Parallel()
	a, b := small(), large()
	a.Report.Checks, b.Report.Checks = nil, nil
	for s := audit.Info; s <= audit.Critical; s++ {
		a.Report.Checks = append(a.Report.Checks, audit.Result{ID: s.String(), Status: audit.Pass, Severity: s})
		b.Report.Checks = append(b.Report.Checks, audit.Result{ID: s.String(), Status: audit.Fail, Severity: s})
	}
	var ids []string
	for _, d := range Compare([]Side{a, b}, noon).Differences {
		ids = append(ids, d.ID)
	}
	if got, want := strings.Join(ids, " "), "critical high medium low info"; got != want {
		t.Errorf("differences = %s, want %s", got, want)
	}
}
