package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"imagelab/internal/audit"
	"imagelab/internal/probe"
)

// A mode is what one run of the binary does.
type mode string

const (
	modeServe       mode = "serve"
	modeHealthcheck mode = "healthcheck"
	modeAudit       mode = "audit"
	modeCompare     mode = "compare"
	modeVersion     mode = "version"
	modeHelp        mode = "help"
)

// options are the flags and arguments of the modes that have any.
type options struct {
	probe   probe.Options
	header  error    // what is wrong with a --header
	targets []string // URLs of --healthcheck
	format  string   // of --audit and --compare
	audit   auditOptions
	peers   []peer // of --compare
}

// flagModes names the modes that a flag belongs to; the rest are modes
// themselves.
var flagModes = map[string][]mode{
	"timeout": {modeHealthcheck}, "method": {modeHealthcheck}, "header": {modeHealthcheck},
	"status": {modeHealthcheck}, "insecure": {modeHealthcheck},
	"format": {modeAudit, modeCompare}, "only": {modeAudit}, "skip": {modeAudit}, "fail-on": {modeAudit},
}

// newFlags makes the flag set that parses into opts.
func newFlags(opts *options) *flag.FlagSet {
	fs := flag.NewFlagSet("imagelab", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Bool("healthcheck", false, "probe the `URL`s, or this container's own server, and exit 0 or 1")
	fs.Bool("audit", false, "audit the container that this runs in, and exit 1 if a check failed")
	fs.Bool("compare", false, "compare the reports that ops listeners serve at the `URL`s, each as [NAME=]URL, and exit 1 if one could not be had")
	fs.Bool("version", false, "print version, commit and Go version")
	fs.Bool("help", false, "print this")
	opts.probe.Timeout = probe.DefaultTimeout
	fs.Var((*timeoutFlag)(&opts.probe.Timeout), "timeout", "with --healthcheck: `duration` for everything, from the resolver to the end of the body")
	fs.StringVar(&opts.probe.Method, "method", http.MethodGet, "with --healthcheck: request `method`")
	fs.Var(headerFlag{&opts.probe.Headers, &opts.header}, "header", "with --healthcheck: a request header `\"Name: value\"`, any number of times; Host names the certificate, too")
	fs.Var(&opts.probe.Status, "status", "with --healthcheck: `range` of status codes that are healthy, such as 204 or 200-299")
	fs.BoolVar(&opts.probe.Insecure, "insecure", false, "with --healthcheck: do not verify https certificates")
	fs.StringVar(&opts.format, "format", "text", "with --audit and --compare: `format` of the report, text, json or markdown")
	fs.Var(listFlag{&opts.audit.checks.Only}, "only", "with --audit: run these checks alone, `ids` with commas between")
	fs.Var(listFlag{&opts.audit.checks.Skip}, "skip", "with --audit: leave these checks out, `ids` with commas between")
	fs.TextVar(&opts.audit.failOn, "fail-on", audit.Info, "with --audit: least `severity` of a failure for exit code 1: info, low, medium, high or critical")
	return fs
}

// parseArgs finds the mode and its options. With an error the mode is the one
// that was meant, as a probe reports a wrong command line in its own way.
func parseArgs(args []string) (mode, options, error) {
	var opts options
	fs := newFlags(&opts)
	err := fs.Parse(args)
	urls := fs.Args()
	if err == nil && fs.Lookup(string(modeCompare)).Value.String() == "true" {
		urls, err = parseRest(fs)
	}

	chosen := []mode{}
	for _, m := range []mode{modeHealthcheck, modeAudit, modeCompare, modeVersion, modeHelp} {
		if f := fs.Lookup(string(m)); f.Value.String() == "true" {
			chosen = append(chosen, m)
		}
	}
	m := modeServe
	if len(chosen) > 0 {
		m = chosen[0]
	}
	if err != nil {
		if m == modeServe && slices.ContainsFunc(args, meansHealthcheck) {
			m = modeHealthcheck
		}
		if err == flag.ErrHelp { // -h
			return modeHelp, opts, nil
		}
		return m, opts, err
	}
	if len(chosen) > 1 {
		return m, opts, fmt.Errorf("--%s and --%s exclude each other", chosen[0], chosen[1])
	}
	fs.Visit(func(f *flag.Flag) {
		if owners, owned := flagModes[f.Name]; owned && !slices.Contains(owners, m) {
			err = fmt.Errorf("--%s belongs to --%s", f.Name, joinModes(owners))
		}
	})
	if err != nil {
		return m, opts, err
	}
	if m == modeHealthcheck {
		opts.targets = urls
		if opts.header != nil {
			return m, opts, opts.header
		}
		if opts.probe.Timeout <= 0 {
			return m, opts, fmt.Errorf("--timeout %v: want a duration above 0, such as 2s", opts.probe.Timeout)
		}
		if !probe.IsToken(opts.probe.Method) {
			return m, opts, fmt.Errorf("--method %q: want a method such as GET or HEAD", opts.probe.Method)
		}
		return m, opts, nil
	}
	if slices.Contains(flagModes["format"], m) && !slices.Contains([]string{"text", "json", "markdown"}, opts.format) {
		return m, opts, fmt.Errorf("--format %q: want text, json or markdown", opts.format)
	}
	if m == modeCompare {
		if len(urls) == 0 {
			return m, opts, fmt.Errorf("--compare without anything to compare: %s", acceptedPeer)
		}
		opts.peers, err = parsePeers(urls)
		return m, opts, err
	}
	if fs.NArg() > 0 {
		return m, opts, fmt.Errorf("unexpected argument %q: settings are environment variables, only --healthcheck and --compare take arguments", fs.Arg(0))
	}
	if m == modeAudit {
		return m, opts, opts.audit.checks.Validate()
	}
	return m, opts, nil
}

// parseRest parses the flags that stand between and after the arguments, and returns
// the arguments.
func parseRest(fs *flag.FlagSet) (arguments []string, err error) {
	for err == nil && fs.NArg() > 0 {
		rest := fs.Args()
		if !strings.HasPrefix(rest[0], "-") || rest[0] == "-" {
			arguments = append(arguments, rest[0])
			rest = rest[1:]
		}
		err = fs.Parse(rest)
	}
	return arguments, err
}

// joinModes is "audit or --compare".
func joinModes(modes []mode) string {
	var words []string
	for _, m := range modes {
		words = append(words, string(m))
	}
	return strings.Join(words, " or --")
}

// meansHealthcheck says whether arg is --healthcheck, with a value or without.
func meansHealthcheck(arg string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return name == string(modeHealthcheck)
}

func printVersion(w io.Writer) {
	fmt.Fprintf(w, "imagelab %s, commit %s, %s %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// printHelp writes the flags and every variable, both from what parses them.
func printHelp(w io.Writer) {
	fmt.Fprint(w, `Usage:
  imagelab                                    serve until SIGTERM or SIGINT
  imagelab --healthcheck [FLAGS] [URL ...]    probe, print one line, exit 0 or 1
  imagelab --audit [FLAGS]                    audit this container, exit 0 or 1
  imagelab --compare [FLAGS] [NAME=]URL ...   compare what ops listeners report
  imagelab --version | --help

URLs to probe are http://, https://, tcp://host:port (a connection is enough) and
unix:///path/of.sock[:/http/path]; all must pass. Without a URL the probe asks the
server that PORT and IMAGELAB_BIND_ADDRESS configure for /health.

Flags:
`)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	newFlags(new(options)).VisitAll(func(f *flag.Flag) {
		arg, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(t, "  --%s\t%s\n", strings.TrimSpace(f.Name+" "+arg), usage)
	})
	t.Flush()
	fmt.Fprint(w, "\nVariables (each also as NAME_FILE, the path of a file that holds the value):\n")
	for _, v := range variables() {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", v.Name, v.Default, v.Desc)
	}
	t.Flush()
	fmt.Fprint(w, `
Exit codes: 0 clean stop; 1 failed, or requests were cut at the deadline; 2 bad
configuration or usage; 128 + n stopped at once by a second signal n.
--healthcheck: 0 healthy, 1 not. --audit: 0 no failed check, 1 a failed check, 2 usage.
--compare: 0, 1 one of the URLs could not be asked, 2 usage.
`)
}
