// Command publish makes what is handed out, and pushes it:
//
//	publish release FOLDER       archives, bills of materials, the image, checksums
//	publish push FOLDER IMAGE    the image in FOLDER to a registry, as IMAGE
//
// The same sources, toolchain and variables always give the same bytes, in any folder.
//
//	VERSION, COMMIT         of the binary and the image's labels
//	SOURCE, DOCUMENTATION   URLs for the image's labels; default none
//	SOURCE_DATE_EPOCH       seconds since 1970, the time of all that has one; default 0
//
// It is run in its own folder, below the project's.
package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string, getenv func(string) string, stdout io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "release":
		epoch, err := strconv.ParseInt(cmp.Or(getenv("SOURCE_DATE_EPOCH"), "0"), 10, 64)
		if err != nil || epoch < 0 {
			return fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970, such as 1767225600", getenv("SOURCE_DATE_EPOCH"))
		}
		return release{
			root:          "..",
			version:       cmp.Or(getenv("VERSION"), "v0.1.0"),
			commit:        cmp.Or(getenv("COMMIT"), "unknown"),
			source:        getenv("SOURCE"),
			documentation: getenv("DOCUMENTATION"),
			created:       time.Unix(epoch, 0).UTC(),
		}.write(args[1], stdout)
	case len(args) == 3 && args[0] == "push":
		return push(args[1], args[2], stdout)
	}
	return fmt.Errorf("%q: want release FOLDER, or push FOLDER IMAGE", args)
}
