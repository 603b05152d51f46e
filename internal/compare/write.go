package compare

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// columns is what a line of the text may have: a terminal beside something
	// else, a pull request's comment, a log's viewer.
	columns = 100
	// labels is the width of the first column.
	labels = 18
	// abreast is how many sides stand beside each other; the next ones follow
	// below, as a narrower column shows nothing.
	abreast = 4
)

// WriteText writes the comparison as a table of at most 100 columns, the better
// value of a row marked with *; then the verdicts that differ, and a summary.
func WriteText(w io.Writer, c Comparison) error {
	var b strings.Builder
	b.WriteString("imagelab compare · " + c.Time.Format("2006-01-02T15:04:05Z07:00") + "\n\n")
	for _, t := range c.Targets {
		what := strings.TrimSpace(t.Variant + " " + t.Version)
		if t.Error != "" {
			what = "ERROR " + t.Error
		}
		wrap(&b, "  "+fit(t.Name, labels-4)+"  ", t.URL+"  "+what)
	}
	if len(c.Rows) > 0 {
		n := len(c.Rows[0].Values)
		for from := 0; from < n; from += abreast {
			c.table(&b, from, min(from+abreast, n))
		}
	}
	if len(c.Differences) > 0 {
		b.WriteString("\nVERDICTS THAT DIFFER\n")
		for _, d := range c.Differences {
			b.WriteString("\n")
			wrap(&b, "  "+fit(d.Severity.String(), 8)+"  ", d.ID+": "+d.Title)
			for _, v := range d.Verdicts {
				wrap(&b, strings.Repeat(" ", 12)+fit(v.Name, 12)+"  "+fit(string(v.Status), 8)+"  ", v.Reason)
			}
		}
	}
	b.WriteString("\nSUMMARY\n")
	for _, sentence := range c.Summary {
		wrap(&b, "  ", sentence)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table writes the rows of the sides from and up to to.
func (c Comparison) table(b *strings.Builder, from, to int) {
	width := (columns-labels-2)/(to-from) - 2
	line := func(label string, cells []string) {
		out := "  " + fit(label, labels-2)
		for _, cell := range cells {
			out += "  " + fit(cell, width)
		}
		b.WriteString(strings.TrimRight(out, " ") + "\n")
	}
	var names []string
	for _, v := range c.Rows[0].Values[from:to] {
		names = append(names, v.Name)
	}
	group := ""
	for _, r := range c.Rows {
		if r.Group != group {
			group = r.Group
			b.WriteString("\n")
			out := fit(strings.ToUpper(group), labels)
			for _, name := range names {
				out += "  " + fit(name, width)
			}
			b.WriteString(strings.TrimRight(out, " ") + "\n")
		}
		var cells []string
		for _, v := range r.Values[from:to] {
			cell := v.Text
			if v.Better {
				cell = strings.TrimRight(fit(cell, min(width-2, utf8.RuneCountInString(cell))), " ") + " *"
			}
			cells = append(cells, cell)
		}
		line(r.Label, cells)
	}
	if c.marked() {
		b.WriteString("\n  * better, where image or settings decide; what a process measures is traffic's\n")
	}
}

func (c Comparison) marked() bool {
	for _, r := range c.Rows {
		for _, v := range r.Values {
			if v.Better {
				return true
			}
		}
	}
	return false
}

// fit makes s exactly width characters wide.
func fit(s string, width int) string {
	n := utf8.RuneCountInString(s)
	if n <= width {
		return s + strings.Repeat(" ", width-n)
	}
	return string([]rune(s)[:width-1]) + "…"
}

// wrap writes s after head, breaking lines between words, the next ones indented
// by the width of head. A word that is too long for a line gets its own.
func wrap(b *strings.Builder, head, s string) {
	indent := utf8.RuneCountInString(head)
	used := indent
	b.WriteString(head)
	for i, word := range strings.Fields(s) {
		if most := columns - indent; utf8.RuneCountInString(word) > most {
			word = fit(word, most)
		}
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > columns:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			used = indent
		default:
			b.WriteString(" ")
			used++
		}
		b.WriteString(word)
		used += n
	}
	b.WriteString("\n")
}

// WriteJSON writes the comparison as indented JSON.
func WriteJSON(w io.Writer, c Comparison) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(c)
}

// WriteMarkdown writes the comparison as GitHub-flavoured Markdown, the better
// value of a row in bold.
func WriteMarkdown(w io.Writer, c Comparison) error {
	var b strings.Builder
	b.WriteString("# imagelab compare\n")
	for _, sentence := range c.Summary {
		b.WriteString("\n- " + escape(sentence))
	}
	b.WriteString("\n")
	if len(c.Rows) > 0 {
		b.WriteString("\n| |")
		for _, v := range c.Rows[0].Values {
			b.WriteString(" " + escape(v.Name) + " |")
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(c.Rows[0].Values)) + "\n")
		for _, r := range c.Rows {
			b.WriteString("| " + r.Group + ": " + escape(r.Label) + " |")
			for _, v := range r.Values {
				cell := escape(v.Text)
				if v.Better {
					cell = "**" + cell + "**"
				}
				b.WriteString(" " + cell + " |")
			}
			b.WriteString("\n")
		}
	}
	if len(c.Differences) > 0 {
		b.WriteString("\n## Verdicts that differ\n\n| check | severity | where | verdict | found |\n|---|---|---|---|---|\n")
		for _, d := range c.Differences {
			for _, v := range d.Verdicts {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", escape(d.ID), d.Severity, escape(v.Name), escape(string(v.Status)), escape(v.Reason))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// escape keeps what a stranger's server said from being read as markup.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "<", "&lt;", ">", "&gt;", "[", `\[`).Replace(s)
}
