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

// kubernetesLines joins the Kubernetes fixes into a strategic merge patch of a
// Deployment: each key once, those of the pod above those of the container. What is
// set elsewhere, such as for the kubelet, stands as a comment.
func kubernetesLines(results []Result) []string {
	var pod, container, comments []string
	for _, r := range results {
		for line := range strings.SplitSeq(r.Fix.Kubernetes, "\n") {
			code, comment, _ := strings.Cut(line, "  # ")
			key, _, _ := strings.Cut(code, ": ")
			switch {
			case code == "":
			case strings.HasPrefix(line, "# no field"): // there is nothing to set
			case strings.HasPrefix(line, "#"):
				comments = append(comments, line)
			case strings.HasPrefix(comment, "in the kubelet"):
				comments = append(comments, "# "+code+" "+comment)
			case key == "volumes" || strings.HasPrefix(comment, "field of the pod"):
				pod = append(pod, code)
			default:
				container = append(container, line)
			}
		}
	}
	if len(pod)+len(container) == 0 {
		return nil
	}
	// Pod Security wants the profile in the pod, also where the runtime has it in effect.
	if slices.ContainsFunc(container, func(line string) bool { return strings.HasPrefix(line, "securityContext: ") }) {
		container = append(container, "securityContext: {seccompProfile: {type: RuntimeDefault}}")
	}
	lines := []string{"spec:", "  template:", "    spec:"}
	for _, line := range joinYAML(strings.Join(pod, "\n")) {
		lines = append(lines, spread("      ", line)...)
	}
	if len(container) > 0 {
		lines = append(lines, "      containers:", "      - name: APP")
		for _, line := range joinYAML(strings.Join(container, "\n")) {
			lines = append(lines, spread("        ", line)...)
		}
	}
	slices.Sort(comments)
	return append(lines, slices.Compact(comments)...)
}

// spread writes a line of which the value is a map or a list as one line for each of
// its items, below the key.
func spread(indent, line string) []string {
	code, comment, commented := strings.Cut(line, "  # ")
	key, value, _ := strings.Cut(code, ": ")
	items := flowItems(value)
	if len(items) < 2 {
		return []string{indent + line}
	}
	head := indent + key + ":"
	if commented {
		head += "  # " + comment
	}
	lines := []string{head}
	for _, item := range items {
		if value[0] == '[' {
			item = "- " + item
		}
		lines = append(lines, indent+"  "+item)
	}
	return lines
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
	if flow == "" || flow[0] != '[' && flow[0] != '{' {
		return nil
	}
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
