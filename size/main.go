// Size says what the binary is made of and compares it and the images with the
// figures in docs/size.md. scripts/size.sh builds what it reads and runs it:
//
//	size -binary FILE -symbols FILE -deps FILE -against docs/size.md [-record] [-image NAME=BYTES]...
//
// It exits 1 if something has grown by more than the limit, or if the linker has
// to keep every exported method, and says what is to blame.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	set := flag.NewFlagSet("size", flag.ContinueOnError)
	set.SetOutput(stderr)
	binary := set.String("binary", "", "the product, without symbols")
	symbols := set.String("symbols", "", "the same with symbols")
	deps := set.String("deps", "", "what the linker printed for -dumpdep")
	against := set.String("against", "", "the document with the recorded figures")
	renew := set.Bool("record", false, "write that document anew instead of comparing")
	images := make(map[string]int64)
	set.Func("image", "`NAME=BYTES` of an image, less its base; may be repeated", func(s string) error {
		name, bytes, _ := strings.Cut(s, "=")
		n, err := strconv.ParseInt(bytes, 10, 64)
		images[name] = n
		return err
	})
	if err := set.Parse(args); err != nil {
		return 2
	}

	failures, err := gate(stdout, stderr, *binary, *symbols, *deps, *against, *renew, images)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 1
	}
	return min(failures, 1)
}

// recorded reads the document. With an error the figures are empty, so that a
// damaged document can be renewed like a missing one.
func recorded(path string) (*figures, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return &figures{}, err
	}
	f, err := parse(string(text))
	if err != nil {
		return &figures{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// gate prints the verdict and then the table, and returns the number of things that must
// not stay as they are.
func gate(stdout, stderr io.Writer, binary, symbols, deps, against string, renew bool, images map[string]int64) (int, error) {
	now, err := weigh(binary, symbols)
	if err != nil {
		return 0, err
	}
	now.images = images

	before, err := recorded(against)
	if err != nil && !renew {
		return 0, err
	}

	file, err := os.Open(deps)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	chains, err := reflectMethods(file)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", deps, err)
	}

	var failures, notes []string
	if renew {
		for name, bytes := range before.images {
			if _, weighed := now.images[name]; !weighed {
				notes = append(notes, fmt.Sprintf("image %s: not weighed, %s bytes stay recorded", name, commas(bytes)))
				now.images[name] = bytes
			}
		}
		if err := os.WriteFile(against, []byte(document(now)), 0o644); err != nil {
			return 0, err
		}
		notes = append(notes, "recorded in "+against)
	} else {
		failures, notes = compare(before, now)
	}
	// No record makes this right.
	if len(chains) > 0 {
		failures = append(failures, "the linker has to keep every exported method, as a method is looked up by a name\n"+
			"that only the running program knows. These do it (ReflectMethod; 0 may), and this reaches them:\n  "+
			strings.Join(chains, "\n  "))
	}

	switch {
	case len(failures) > 0:
		fmt.Fprintf(stdout, "FAILED: %d of what follows must not stay as it is\n", len(failures))
	case !renew:
		fmt.Fprintf(stdout, "PASSED: nothing has grown by more than %d %%\n", limit)
	}
	for _, f := range failures {
		fmt.Fprintf(stderr, "error: %s\n", f)
	}
	for _, n := range notes {
		fmt.Fprintln(stdout, n)
	}
	fmt.Fprintln(stdout)
	table(stdout, before, now)
	return len(failures), nil
}
