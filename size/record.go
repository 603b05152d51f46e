package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// preamble says in the document what it is.
const preamble = `# What the binary and the images weigh

` + "`make size`" + ` compares with these figures and fails when the binary or an image has grown by more than %d %%. It reads the
tables: ` + "`make size-record`" + ` writes this file, nobody else does. Images are counted without their base image.

`

// row is a line of a table: a name, of a package if in backquotes, and a value.
var row = regexp.MustCompile("(?m)^\\| (`?)(.+?)`? \\| (\\S.*?) \\|$")

const imagePrefix = "image "

// document returns docs/size.md; parse reads it.
func document(f *figures) string {
	var b strings.Builder
	fmt.Fprintf(&b, preamble, limit)
	b.WriteString("| what | bytes |\n|---|---:|\n")
	fmt.Fprintf(&b, "| toolchain | %s |\n", f.toolchain)
	fmt.Fprintf(&b, "| binary | %s |\n", commas(f.binary))
	for _, name := range slices.Sorted(maps.Keys(f.images)) {
		fmt.Fprintf(&b, "| %s%s | %s |\n", imagePrefix, name, commas(f.images[name]))
	}
	b.WriteString("\nThe binary, by package. What is in parentheses belongs to none.\n\n")
	b.WriteString("| package | bytes |\n|---|---:|\n")
	for _, part := range bySize(f.parts) {
		name := "`" + part + "`"
		if part[0] == '(' {
			name = part
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, commas(f.parts[part]))
	}
	return b.String()
}

// parse refuses a document whose parts are not all of the binary.
func parse(text string) (*figures, error) {
	f := &figures{images: make(map[string]int64), parts: make(map[string]int64)}
	var sum int64
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		quote, name, value := m[1], m[2], m[3]
		switch {
		case value == "bytes": // a table's head
			continue
		case name == "toolchain" && quote == "":
			f.toolchain = value
			continue
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(value, ",", ""), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		image, isImage := strings.CutPrefix(name, imagePrefix)
		switch {
		case quote != "" || name[0] == '(':
			f.parts[name] = n
			sum += n
		case name == "binary":
			f.binary = n
		case isImage:
			f.images[image] = n
		default:
			return nil, fmt.Errorf("unknown row %q", name)
		}
	}
	if f.toolchain == "" || f.binary <= 0 {
		return nil, errors.New("no row for the toolchain or for the binary: make size-record")
	}
	if sum != f.binary {
		return nil, fmt.Errorf("the packages sum up to %s and not to the binary's %s bytes: make size-record", commas(sum), commas(f.binary))
	}
	return f, nil
}

const (
	// shown is the share of the binary, in percent, from which a part has a line of its own.
	shown = 1
	// changed is the difference to the record, in bytes, from which it has one as well.
	changed = 1024
	// columns is what a line may have.
	columns = 100
)

// table prints the parts that are large or have changed, and how they differ from the
// record; the rest in one line.
func table(w io.Writer, before, now *figures) {
	line := func(bytes, recorded int64, name string) {
		diff := ""
		if recorded != 0 && bytes != recorded {
			diff = fmt.Sprintf("%+d", bytes-recorded)
		} else if recorded == 0 && before.binary != 0 {
			diff = "new"
		}
		head := fmt.Sprintf("%12s %6.2f %% %10s  ", commas(bytes), 100*float64(bytes)/float64(now.binary), diff)
		if over := len(head) + len(name) - columns; over > 0 {
			name = "..." + name[over+3:]
		}
		fmt.Fprintln(w, head+name)
	}
	fmt.Fprintf(w, "%12s %8s %10s  %s\n", "bytes", "share", "change", "package")
	all := maps.Clone(before.parts)
	if all == nil {
		all = map[string]int64{}
	}
	maps.Copy(all, now.parts)
	var few int
	var bytes, recorded int64
	for _, part := range bySize(all) {
		is, was := now.parts[part], before.parts[part]
		if is*100 >= now.binary*shown || before.binary != 0 && max(is-was, was-is) >= changed {
			line(is, was, part)
			continue
		}
		few++
		bytes += is
		recorded += was
	}
	if few > 0 {
		line(bytes, recorded, fmt.Sprintf("%d others, each below %d %% and changed by less than %d bytes", few, shown, changed))
	}
	line(now.binary, before.binary, "the file: "+now.toolchain)
}

// bySize returns the names of the parts, the largest first.
func bySize(parts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(parts), func(a, b string) int {
		return cmp.Or(cmp.Compare(parts[b], parts[a]), cmp.Compare(a, b))
	})
}

// commas groups the digits, as in 9,765,026.
func commas(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
