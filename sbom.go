package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"imagelab/internal/sbom"
)

// sbomMode is --sbom. It returns the exit code.
func sbomMode(stdout, stderr io.Writer) int {
	info, _ := debug.ReadBuildInfo()
	if err := sbom.Write(stdout, info, version); err != nil {
		fmt.Fprintf(stderr, "imagelab: %v\n", err)
		return exitFailed
	}
	return exitOK
}
