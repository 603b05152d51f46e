package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// The parts of SARIF 2.1.0 (OASIS) that are written.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool struct {
			Driver sarifDriver `json:"driver"`
		} `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifRule struct {
		ID         string         `json:"id"`
		Short      sarifText      `json:"shortDescription"`
		Full       sarifText      `json:"fullDescription"`
		Help       sarifText      `json:"help"`
		Properties map[string]any `json:"properties"`
	}
	sarifResult struct {
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Kind         string             `json:"kind"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Justification string `json:"justification"`
	}
)

// WriteSARIF writes the report as SARIF 2.1.0, as code scanners take it: a rule for
// each check, a result for each that applies. Who shows only what has a place shows
// the root where nothing else is affected.
func WriteSARIF(w io.Writer, r *Report) error {
	var run sarifRun
	run.Tool.Driver = sarifDriver{Name: "imagelab", Version: r.Tool, Rules: []sarifRule{}}
	run.Results = []sarifResult{}
	for i, c := range r.Checks {
		help := c.Why
		for _, line := range []string{c.Fix.Docker, c.Fix.Compose, c.Fix.Kubernetes} {
			if line != "" {
				help += "\n" + line
			}
		}
		// What GitHub sorts by: 0 to 10, from 9 on critical.
		score := [...]string{Info: "1.0", Low: "3.0", Medium: "5.5", High: "8.0", Critical: "9.5"}[c.Severity]
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: c.ID, Short: sarifText{c.Title}, Full: sarifText{c.Why}, Help: sarifText{help},
			Properties: map[string]any{"security-severity": score, "tags": append([]string{"security", string(c.Subject)}, c.References...)},
		})
		if c.Status == NotApplicable {
			continue
		}
		result := sarifResult{RuleID: c.ID, RuleIndex: i, Kind: "fail", Level: "error", Message: sarifText{c.said()}}
		switch c.Status {
		case Pass:
			result.Kind, result.Level = "pass", "none"
		case Warn:
			result.Level = "warning"
		case Unknown:
			result.Kind, result.Level = "open", "none"
		}
		if c.Ignored != nil {
			result.Suppressions = []sarifSuppression{{"external", c.Ignored.Reason + " (until " + c.Ignored.Expires + ")"}}
		}
		paths := []string{"."}
		if len(c.Affected) > 0 && strings.HasPrefix(c.Affected[0], "/") {
			paths = c.Affected
		}
		for _, name := range paths {
			var at sarifLocation
			at.Physical.Artifact.URI = uriPath(strings.TrimPrefix(name, "/"))
			result.Locations = append(result.Locations, at)
		}
		run.Results = append(run.Results, result)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}})
}

// uriPath escapes what a relative reference may not hold (RFC 3986).
func uriPath(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if ch := name[i]; strings.IndexByte(alphanumerics+"-._~/@+=,", ch) >= 0 {
			b.WriteByte(ch)
		} else {
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	if b.Len() == 0 {
		return "."
	}
	return b.String()
}

// said is evidence and reason in one line.
func (c Result) said() string {
	switch {
	case c.Reason == "":
		return c.Evidence
	case c.Evidence == "":
		return c.Reason
	}
	return c.Evidence + "; " + c.Reason
}

// WriteJUnit writes the report as the XML of JUnit that CI systems take: a suite for
// each subject, a case for each check. A failure that counts is one, whatever does
// not apply or is ignored is skipped, and what could not be decided is an error where
// it counts. Warnings that do not count are in the output of their case.
func WriteJUnit(w io.Writer, r *Report, on FailOn) error {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"imagelab audit\">\n")
	for _, subject := range subjects() {
		var cases strings.Builder
		n, failures, errs, skipped := 0, 0, 0, 0
		for _, c := range r.Checks {
			if c.Subject != subject {
				continue
			}
			n++
			fmt.Fprintf(&cases, "    <testcase classname=\"%s\" name=\"%s\" time=\"0\">\n", subject, escapeXML(c.ID+": "+c.Title))
			text := escapeXML(c.said())
			switch counts := r.counts(c, on); {
			case c.Status == NotApplicable:
				skipped++
				fmt.Fprintf(&cases, "      <skipped message=\"%s\"/>\n", text)
			case c.Ignored != nil:
				skipped++
				fmt.Fprintf(&cases, "      <skipped message=\"%s\"/>\n", escapeXML("ignored until "+c.Ignored.Expires+": "+c.Ignored.Reason))
			case counts && c.Status == Unknown:
				errs++
				fmt.Fprintf(&cases, "      <error type=\"unknown\" message=\"%s\"/>\n", text)
			case counts:
				failures++
				fmt.Fprintf(&cases, "      <failure type=\"%s\" message=\"%s\">%s</failure>\n", c.Severity, text,
					escapeXML(c.Why+"\n"+c.Fix.Docker+"\n"+c.Fix.Compose+"\n"+c.Fix.Kubernetes))
			default:
				fmt.Fprintf(&cases, "      <system-out>%s: %s</system-out>\n", c.Status, text)
			}
			cases.WriteString("    </testcase>\n")
		}
		if n > 0 {
			fmt.Fprintf(&b, "  <testsuite name=\"%s\" tests=\"%d\" failures=\"%d\" errors=\"%d\" skipped=\"%d\">\n%s  </testsuite>\n",
				subject, n, failures, errs, skipped, cases.String())
		}
	}
	b.WriteString("</testsuites>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// escapeXML also replaces what XML 1.0 has no way to write.
func escapeXML(s string) string {
	s = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\n", "&#10;", "\t", "&#9;").Replace(s)
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0xFFFE || r == 0xFFFF {
			return '?'
		}
		return r
	}, s)
}
