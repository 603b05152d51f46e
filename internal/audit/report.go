package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Schema is the version of the report's JSON form, docs/audit.schema.json. A new
// field leaves it, a changed or removed one raises it.
const Schema = 1

// Report is the result of one audit.
type Report struct {
	Schema  int       `json:"schema"`
	Tool    string    `json:"tool"`
	Time    time.Time `json:"time"`
	Variant string    `json:"variant"`
	Summary Summary   `json:"summary"`
	Checks  []Result  `json:"checks"` // in the order of the table
	Facts   Facts     `json:"facts"`
	// PodSecurity is nil where a check that decides on it was not selected.
	PodSecurity *PodSecurity `json:"pod_security,omitempty"`
	Baseline    *Changes     `json:"baseline,omitempty"` // what changed, where there is one to compare with

	kept *kept // for Keep
}

// Result is the verdict of one check.
type Result struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"`
	Subject    Subject  `json:"subject"`
	Severity   Severity `json:"severity"` // of a failure
	Status     Status   `json:"status"`
	Evidence   string   `json:"evidence"`             // what was read, where
	Reason     string   `json:"reason,omitempty"`     // why it is not decided, or not in full
	Incomplete int      `json:"incomplete,omitempty"` // files and directories that could not be read
	Affected   []string `json:"affected,omitempty"`   // paths, mount points or variables, the first 100
	More       int      `json:"more,omitempty"`       // how many of these there are beyond
	Ignored    *Ignored `json:"ignored,omitempty"`    // why it does not count
	Why        string   `json:"why"`
	Fix        Fix      `json:"fix"`
	References []string `json:"references"`
}

// Summary counts the verdicts.
type Summary struct {
	Pass          int `json:"pass"`
	Fail          int `json:"fail"`
	Warn          int `json:"warn"`
	Unknown       int `json:"unknown"`
	NotApplicable int `json:"not_applicable"`
}

func (s *Summary) add(status Status) {
	switch status {
	case Pass:
		s.Pass++
	case Fail:
		s.Fail++
	case Warn:
		s.Warn++
	case Unknown:
		s.Unknown++
	case NotApplicable:
		s.NotApplicable++
	}
}

// WriteJSON writes the report as indented JSON, as docs/audit.schema.json
// describes it.
func WriteJSON(w io.Writer, r *Report) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// printable escapes what would move a terminal's cursor or break a line.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// plural returns "1 file", "2 files"; the plural is the singular with an s
// unless it is given.
func plural(n int, singular string, forms ...string) string {
	word := singular
	switch {
	case n == 1:
	case len(forms) > 0:
		word = forms[0]
	default:
		word += "s"
	}
	return strconv.Itoa(n) + " " + word
}
