package audit

import (
	"slices"
	"strings"
)

// composeLines joins the compose fixes of the results into lines for one
// service: each key once, with the items of all lists and maps of that key.
// Lines that are only a comment come last.
func composeLines(results []Result) []string {
	var fixes []string
	for _, r := range results {
		fixes = append(fixes, r.Fix.Compose)
	}
	return joinYAML(strings.Join(fixes, "\n"))
}

// mergeLines joins the lines of one fix.
func mergeLines(text string) string {
	if !strings.Contains(text, "\n") {
		return text
	}
	return strings.Join(joinYAML(text), "\n")
}

// joinYAML joins lines of YAML in flow style: each key once.
func joinYAML(text string) []string {
	type entry struct {
		key, value string
		comment    string // with the # in front, or empty
	}
	var entries []entry
	var comments []string
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, "#") {
			if !slices.Contains(comments, line) {
				comments = append(comments, line)
			}
			continue
		}
		line, comment, _ := strings.Cut(line, "  # ")
		key, value, _ := strings.Cut(line, ": ")
		i := slices.IndexFunc(entries, func(e entry) bool { return e.key == key })
		if i < 0 {
			entries = append(entries, entry{key, value, comment})
			continue
		}
		entries[i].value = mergeFlow(entries[i].value, value)
		if entries[i].comment == "" {
			entries[i].comment = comment
		}
	}
	var lines []string
	for _, e := range entries {
		line := e.key + ": " + e.value
		if e.comment != "" {
			line += "  # " + e.comment
		}
		lines = append(lines, line)
	}
	return append(lines, comments...)
}

// mergeFlow joins two YAML lists, or two maps, in flow style, and the values of keys
// that both maps have. Of two scalars it keeps the first.
func mergeFlow(a, b string) string {
	if a == b || a == "" || b == "" || a[0] != b[0] || a[0] != '[' && a[0] != '{' {
		return a
	}
	items := flowItems(a)
	for _, item := range flowItems(b) {
		key, value, isPair := strings.Cut(item, ": ")
		i := slices.IndexFunc(items, func(have string) bool {
			name, _, _ := strings.Cut(have, ": ")
			return have == item || a[0] == '{' && isPair && name == key
		})
		switch {
		case i < 0:
			items = append(items, item)
		case items[i] != item:
			_, have, _ := strings.Cut(items[i], ": ")
			items[i] = key + ": " + mergeFlow(have, value)
		}
	}
	return a[:1] + strings.Join(items, ", ") + a[len(a)-1:]
}

// flowItems splits what is in the outer brackets at its commas, without those
// in strings and in inner brackets.
func flowItems(flow string) []string {
	var items []string
	depth, quoted, start := 0, false, 1
	for i := 1; i < len(flow); i++ {
		switch c := flow[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case depth > 0 && (c == ']' || c == '}'):
			depth--
		case depth == 0 && (c == ',' || c == ']' || c == '}'):
			if item := strings.TrimSpace(flow[start:i]); item != "" {
				items = append(items, item)
			}
			start = i + 1
		}
	}
	return items
}
