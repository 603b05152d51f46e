package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/caarlos0/env/v11"

	"imagelab/internal/compare"
)

// compareMode prints the comparison of what the peers say of themselves. The exit
// code is 1 when one of them could not be asked; the others are compared all the
// same. Of environ it reads IMAGELAB_OPS_TOKEN.
func compareMode(ctx context.Context, peers []peer, format string, environ []string, stdout, stderr io.Writer) int {
	token, _, err := lookup(env.ToMap(environ), "IMAGELAB_OPS_TOKEN")
	if err != nil {
		fmt.Fprintf(stderr, "imagelab: %v\n", err)
		return exitUsage
	}
	confineOnce(environ, peers)
	sides := askPeers(ctx, peers, "snapshot", token, peerTimeout)
	result := compare.Compare(sides, time.Now())
	switch format {
	case "json":
		err = compare.WriteJSON(stdout, result)
	case "markdown":
		err = compare.WriteMarkdown(stdout, result)
	default:
		err = compare.WriteText(stdout, result)
	}
	if err != nil {
		fmt.Fprintf(stderr, "imagelab: write the comparison: %v\n", err)
		return exitFailed
	}
	code := exitOK
	for _, s := range sides {
		if s.Err != nil {
			fmt.Fprintf(stderr, "imagelab: %s %s: %v\n", s.Name, s.URL, s.Err)
			code = exitFailed
		}
	}
	return code
}
