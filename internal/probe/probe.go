// Package probe asks a server whether it is healthy, as a HEALTHCHECK does: once,
// in bounded time, and with one line to show for it.
//
// A program parses what it wants to probe and runs it:
//
//	target, err := probe.Parse("http://127.0.0.1:8000/health")
//	if err != nil {
//		fmt.Println(probe.Unhealthy(err))
//		os.Exit(1)
//	}
//	line, healthy := probe.Run(ctx, []probe.Target{target}, probe.Options{})
//	fmt.Println(line)
//	if !healthy {
//		os.Exit(1)
//	}
//
// What it promises:
//
//   - One deadline bounds everything: the resolver, the connection, TLS, the header
//     and the last byte of the body. It is 2 s unless Options.Timeout or the context
//     says otherwise.
//   - It follows no redirect: a redirect counts as the status that it is.
//   - It uses no proxy, whatever the environment says, and keeps no connection.
//   - It reads at most 64 KiB of header. A body may be long, but has to end in time.
//     What its content and transfer codings are does not matter.
//   - A certificate has to be of the host that the request names, which is that of a
//     Host header where Options.Headers have one. There is no client certificate.
//   - A body that breaks off is unhealthy, whatever the status.
//   - A verdict is one line of at most 200 bytes with its newline, "healthy: …" or
//     "unhealthy: …", of printable characters alone. A password of a URL is not in it.
//   - Healthy is exit code 0 and unhealthy is 1. There is no third: Docker reserves 2
//     (Dockerfile reference, HEALTHCHECK).
//
// The package logs nothing, writes nothing, and reads no environment variable. Only
// crypto/x509 does, for https: SSL_CERT_FILE and SSL_CERT_DIR name the authorities.
//
// It imports package early for its version and for Options.Begun. So a program that
// imports this package and is started with --healthcheck as its first argument probes
// once before main: see there.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"imagelab/internal/early"
)

// DefaultTimeout is below the 3s that Docker gives a HEALTHCHECK in the images of
// imagelab, so that the probe gets to say why.
const DefaultTimeout = 2 * time.Second

// MaxLine bounds a verdict, in bytes with its newline. Docker keeps 4096 bytes of a
// probe's output and shows them in one column: only a line helps there.
const MaxLine = 200

// Options say how to ask, and what is healthy. The zero value is what most want.
type Options struct {
	// Timeout bounds everything. Zero means that the context's own deadline does, and
	// DefaultTimeout when the context has none. When both are given the earlier counts.
	Timeout time.Duration

	// Method of the request, GET when empty. It is sent as it is: check it with IsToken.
	Method string

	// Headers are sent as they are, after the package's own: Host, User-Agent, Accept,
	// Connection, and where needed Authorization and Content-Length. A header given
	// here replaces the package's own of the same name.
	Headers Headers

	// Status is the range that is healthy. The zero value means 200-399.
	Status StatusRange

	// Insecure skips the verification of https certificates.
	Insecure bool

	// Begun is the probe of the one target that early.Take returned, or nil. Its
	// connection has carried the request already, so nothing is sent, and its time
	// counts from its own beginning. It serves one call, which closes it.
	Begun *early.Probe
}

// bound returns ctx with the deadline of all that o asks for. An earlier deadline
// of ctx stays, so to bound twice is to bound once.
func (o Options) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	began, timeout := time.Now(), o.Timeout
	if o.Begun != nil {
		began = o.Begun.Began
	}
	if timeout == 0 {
		if _, has := ctx.Deadline(); has {
			return context.WithCancel(ctx)
		}
		timeout = DefaultTimeout
	}
	end := began.Add(timeout)
	if earlier, has := ctx.Deadline(); has && !earlier.After(end) {
		return context.WithCancel(ctx) // a timer of its own might be the first, and leave ctx without a cause
	}
	return context.WithDeadlineCause(ctx, end, fmt.Errorf("no answer within %v", timeout))
}

// Run probes the targets side by side, all within one deadline. All must be healthy,
// and there must be one. The line is the verdict, without a newline:
//
//	healthy: 200 in 1.3ms http://127.0.0.1:8000/health
//	unhealthy: 1 of 2 failed: connection refused tcp://127.0.0.1:5432
//
// Of several failures it names the one whose target comes first.
func Run(ctx context.Context, targets []Target, opts Options) (line string, healthy bool) {
	if len(targets) == 0 {
		return Unhealthy(errors.New("nothing to probe")), false
	}
	began := time.Now()
	if opts.Begun != nil {
		began = opts.Begun.Began
	}
	ctx, cancel := opts.bound(ctx)
	defer cancel()

	details, reasons := make([]string, len(targets)), make([]error, len(targets))
	var probes sync.WaitGroup
	for i, target := range targets {
		probes.Go(func() { details[i], reasons[i] = target.ask(ctx, opts) })
	}
	probes.Wait()
	took := time.Since(began).Round(100 * time.Microsecond)
	failed, first := 0, 0
	for i := range targets {
		if reasons[i] == nil {
			continue
		}
		if failed++; failed == 1 {
			first = i
		}
	}
	several := len(targets) > 1
	if failed > 0 {
		reason := reasons[first].Error()
		if several {
			reason = fmt.Sprintf("%d of %d failed: %s", failed, len(targets), reason)
		}
		return verdict("unhealthy", reason, targets[first].Name), false
	}
	if several {
		return verdict("healthy", fmt.Sprintf("all %d in %v, first", len(targets), took), targets[0].Name), true
	}
	return verdict("healthy", fmt.Sprintf("%s in %v", details[0], took), targets[0].Name), true
}

// Unhealthy is the verdict where err kept the probe from being made, such as an
// error of Parse: one line, without a newline.
func Unhealthy(err error) string { return verdict("unhealthy", err.Error(), "") }

// maxName bounds what a verdict shows of a target's name, in bytes.
const maxName = 100

// verdict makes the line, whatever detail and name are. The name is cut in the middle
// when it is too long, and the detail at its end, so that both are seen.
func verdict(word, detail, name string) string {
	if name != "" {
		name = " " + shorten(OneLine(name), maxName)
	}
	line := word + ": " + OneLine(detail)
	if room := MaxLine - len("\n") - len(name); len(line) > room {
		line = strings.ToValidUTF8(line[:room-len("...")], "") + "..."
	}
	return line + name
}

// OneLine replaces each character that is not printable by a space. It keeps what a
// server or a resolver said from spreading over lines or steering a terminal.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// Reason returns what of a network error is worth a line: "dial tcp 127.0.0.1:8000:
// connect: connection refused" becomes "connection refused". Another error it
// returns as it is.
func Reason(err error) error {
	var op *net.OpError
	for errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Errorf("%s: %s", dns.Name, dns.Err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the server closed the connection")
	}
	return err
}
