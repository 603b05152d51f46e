package audit

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteMarkdown writes the report as GitHub-flavoured Markdown: facts and counts,
// a section for what failed or warns with the lines that fix it, and a table of
// all verdicts.
func WriteMarkdown(w io.Writer, r *Report) error {
	var b strings.Builder
	b.WriteString("# imagelab audit")
	if r.Variant != "" {
		b.WriteString(": " + escapeMarkdown(r.Variant))
	}
	fmt.Fprintf(&b, "\n\n%s.", r.Summary.sentence(r))
	if !r.Time.IsZero() {
		fmt.Fprintf(&b, " %s.", r.Time.Format(time.RFC3339))
	}
	b.WriteString("\n\n| | |\n|---|---|\n")
	for _, row := range r.Facts.rows() {
		fmt.Fprintf(&b, "| %s | %s |\n", row[0], escapeMarkdown(row[1]))
	}
	for _, section := range []struct {
		title  string
		status Status
	}{{"Failed", Fail}, {"Warnings", Warn}, {"Not known", Unknown}} {
		results := r.with(section.status)
		if len(results) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n", section.title)
		for _, c := range results {
			markdownFinding(&b, c)
		}
	}
	b.WriteString("\n## All checks\n\n| check | verdict | severity | evidence |\n|---|---|---|---|\n")
	for _, c := range r.Checks {
		text := strings.TrimSuffix(c.Evidence+"; "+c.Reason, "; ")
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.ID, c.Status, c.Severity, escapeMarkdown(strings.TrimPrefix(text, "; ")))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func markdownFinding(b *strings.Builder, c Result) {
	fmt.Fprintf(b, "\n### %s: %s\n\nSeverity %s.", c.ID, c.Title, c.Severity)
	if c.Evidence != "" {
		fmt.Fprintf(b, " Found: %s.", escapeMarkdown(c.Evidence))
	}
	if c.Reason != "" {
		fmt.Fprintf(b, " Note: %s.", escapeMarkdown(c.Reason))
	}
	fmt.Fprintf(b, "\n\n%s\n", c.Why)
	if c.Status != Unknown {
		markdownFix(b, c.Fix)
	}
}

// markdownFix writes the fix as code blocks to copy.
func markdownFix(b *strings.Builder, f Fix) {
	for _, block := range []struct{ title, language, code string }{
		{"Docker", "sh", f.Docker}, {"Compose", "yaml", f.Compose}, {"Kubernetes", "yaml", f.Kubernetes},
	} {
		if block.code == "" {
			continue
		}
		if strings.Contains(block.code, "FROM ") || strings.Contains(block.code, "RUN ") || strings.Contains(block.code, "COPY ") {
			block.language = "dockerfile"
		}
		fmt.Fprintf(b, "\n%s:\n\n```%s\n%s\n```\n", block.title, block.language, block.code)
	}
}

// escapeMarkdown keeps names from the container from being read as markup.
func escapeMarkdown(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "<", "&lt;", ">", "&gt;", "[", `\[`).Replace(s)
}
