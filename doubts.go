package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"imagelab/internal/near"
	"imagelab/internal/probe"
)

// A doubt is what is no error and may be a mistake all the same: a constant message and
// what it is about, never a value.
type doubt struct {
	message string
	about   []any // keys and values, as slog takes them
}

// logDoubts warns of each.
func logDoubts(doubts []doubt, log *slog.Logger) {
	for _, d := range doubts {
		log.Warn(d.message, d.about...)
	}
}

// prefix is what the names begin with that are imagelab's alone.
const prefix = "IMAGELAB_"

// unknownNames looks at the names that could be meant for imagelab and are none of its
// variables. A slip of one is an error, as a default would otherwise stay in force
// without a word. Any other is a doubt: Docker makes such names for links, and a
// Dockerfile may have a use for IMAGELAB_VERSION.
func unknownNames(given map[string]string, vars []variable) (slips []error, doubts []doubt) {
	var known []string
	for _, v := range vars {
		known = append(known, v.Name, v.Name+"_FILE")
	}
	_, kubernetes := given["KUBERNETES_SERVICE_HOST"]
	var strangers []string
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if slices.Contains(known, name) || isServiceLink(name, given[name], kubernetes) {
			continue
		}
		if meant, slip := meantVariable(name, known); slip {
			slips = append(slips, fmt.Errorf("%s is not a variable of imagelab, did you mean %s?", probe.OneLine(name), meant))
		} else if strings.HasPrefix(strings.ToUpper(name), prefix) {
			strangers = append(strangers, probe.OneLine(name))
		}
	}
	if len(strangers) > 0 {
		doubts = []doubt{{"not variables of imagelab, so they set nothing; --help lists all", []any{"names", strangers}}}
	}
	return slips, doubts
}

// withoutCommand doubts what is set about a command where there is none: somebody may believe
// that IMAGELAB_PROBE looks after a server that runs elsewhere.
func withoutCommand(vars []variable) []doubt {
	var names []string
	group := ""
	for _, v := range vars {
		if v.group != "" {
			group = v.group
		}
		if group == "The command" && v.Source != "default" {
			names = append(names, v.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []doubt{{"there is no command, so they set nothing; imagelab -- COMMAND has one", []any{"names", names}}}
}

// meantVariable returns the one of known that name is a slip of. Names that have no
// likeness to IMAGELAB_ belong to other programs, whatever they look like.
func meantVariable(name string, known []string) (string, bool) {
	upper := strings.ToUpper(name)
	if !strings.Contains(upper, "LAB") && !strings.Contains(upper, "IMAGE") {
		return "", false
	}
	rest, prefixed := strings.CutPrefix(upper, prefix)
	if prefixed && slices.Contains(known, rest) { // the app's own have no prefix
		return rest, true
	}
	// What all names have in common says nothing about how near they are.
	var names []string
	for _, k := range known {
		if k, ours := strings.CutPrefix(k, prefix); ours {
			if !prefixed {
				k = prefix + k
			}
			names = append(names, k)
		}
	}
	meant, slip := near.Word(rest, names)
	if prefixed {
		meant = prefix + meant
	}
	return meant, slip
}

// isServiceLink says whether Kubernetes made the variable: for a Service named
// imagelab, or imagelab-SOMETHING, every pod of the namespace gets
// IMAGELAB_SERVICE_HOST, IMAGELAB_PORT, IMAGELAB_PORT_8000_TCP_ADDR and so on
// (kubernetes.io/docs/concepts/services-networking/service, environment variables).
// Docker makes some of them too, for a link of that name, as does whatever imitates
// either: so a name that could be a typing error counts only with a link's value.
func isServiceLink(name, value string, kubernetes bool) bool {
	if !strings.HasPrefix(name, prefix) {
		return false
	}
	for _, mark := range []string{"_SERVICE_PORT_", "_TCP", "_UDP", "_SCTP"} {
		if strings.Contains(name, mark) {
			return true
		}
	}
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_SERVICE_PORT") {
		return true
	}
	return strings.HasSuffix(name, "_PORT") && (kubernetes || strings.Contains(value, "://"))
}

// howToWrite says how a file gets its value and nothing else.
const howToWrite = `want UTF-8; write it with printf %s "VALUE" > FILE, or in PowerShell with Set-Content -NoNewline -Encoding ascii FILE "VALUE"`

// marks are the byte order marks of what is not UTF-8. That of UTF-32, the little end
// first, begins with that of UTF-16.
var marks = [...]struct{ mark, encoding string }{
	{"\xff\xfe\x00\x00", "UTF-32"},
	{"\x00\x00\xfe\xff", "UTF-32"},
	{"\xff\xfe", "UTF-16"},
	{"\xfe\xff", "UTF-16"},
}

// utf8Mark is what many programs on Windows put before UTF-8.
const utf8Mark = "\ufeff"

// decode returns the value in a file, less one byte order mark of UTF-8 at the
// beginning and one newline, with or without its carriage return, at the end. The error
// is about a file that no value is in as it was meant, and never shows it.
func decode(content []byte) (string, error) {
	for _, m := range marks {
		if bytes.HasPrefix(content, []byte(m.mark)) {
			return "", fmt.Errorf("is %s, as PowerShell's > writes it: %s", m.encoding, howToWrite)
		}
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return "", errors.New("has NUL bytes, as UTF-16 and binary files do: " + howToWrite)
	}
	value := strings.TrimPrefix(string(content), utf8Mark)
	value, crlf := strings.CutSuffix(value, "\r\n")
	if !crlf {
		value = strings.TrimSuffix(value, "\n")
	}
	return value, nil
}

// oddity says what of a value was hardly meant to be part of it, without showing the
// value; "" when there is nothing of the kind.
func oddity(value string) string {
	if value == "" {
		return ""
	}
	if !utf8.ValidString(value) {
		return "it is not UTF-8"
	}
	first, _ := utf8.DecodeRuneInString(value)
	last, _ := utf8.DecodeLastRuneInString(value)
	switch {
	case isInvisible(first):
		return fmt.Sprintf("it begins with %U", first)
	case isInvisible(last):
		return fmt.Sprintf("it ends with %U", last)
	case utf8.RuneCountInString(value) > 1 && first == last && strings.ContainsRune(`"'`, first):
		return "it is in quotes, which are part of it"
	case strings.ContainsFunc(value, unicode.IsControl):
		return "it has control characters, such as a line break"
	}
	return ""
}

// isInvisible says whether an editor or a copied text may have left the character there
// without anybody seeing it.
func isInvisible(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
