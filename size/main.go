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

	failures, err := gate(stdout, *binary, *symbols, *deps, *against, *renew, images)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 1
	}
	for _, f := range failures {
		fmt.Fprintf(stderr, "error: %s\n", f)
	}
	return min(len(failures), 1)
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

// gate prints the table and the verdict, and returns what must not stay as it is.
func gate(stdout io.Writer, binary, symbols, deps, against string, renew bool, images map[string]int64) ([]string, error) {
	now, err := weigh(binary, symbols)
	if err != nil {
		return nil, err
	}
	now.images = images

	before, err := recorded(against)
	if err != nil && !renew {
		return nil, err
	}

	file, err := os.Open(deps)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	chains, err := reflectMethods(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", deps, err)
	}

	table(stdout, before, now)
	var failures []string
	if renew {
		for name, bytes := range before.images {
			if _, weighed := now.images[name]; !weighed {
				fmt.Fprintf(stdout, "image %s: not weighed, %s bytes stay recorded\n", name, commas(bytes))
				now.images[name] = bytes
			}
		}
		if err := os.WriteFile(against, []byte(document(now)), 0o644); err != nil {
			return nil, err
		}
		fmt.Fprintf(stdout, "recorded in %s\n", against)
	} else {
		var notes []string
		failures, notes = compare(before, now)
		for _, n := range notes {
			fmt.Fprintln(stdout, n)
		}
	}
	// No record makes this right.
	if len(chains) > 0 {
		failures = append(failures, "the linker has to keep every exported method, as a method is looked up by a name\n"+
			"that only the running program knows. These do it (ReflectMethod; 0 may), and this reaches them:\n  "+
			strings.Join(chains, "\n  "))
	}
	return failures, nil
}
