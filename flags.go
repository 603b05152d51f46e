package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"imagelab/internal/audit"
	"imagelab/internal/near"
	"imagelab/internal/probe"
)

// A mode is what one run of the binary does.
type mode string

const (
	modeServe       mode = "serve"
	modeCommand     mode = "command" // imagelab -- COMMAND
	modeHealthcheck mode = "healthcheck"
	modeAudit       mode = "audit"
	modeCompare     mode = "compare"
	modeVersion     mode = "version"
	modeSBOM        mode = "sbom"
	modeHelp        mode = "help"
)

// options are the flags and arguments of the modes that have any.
type options struct {
	probe   probe.Options
	header  error    // what is wrong with a --header
	targets []string // URLs of --healthcheck
	format  string   // of --audit and --compare
	audit   auditOptions
	peers   []peer   // of --compare
	command []string // behind --
	helpOn  mode     // of --help: the mode that it stands beside, or modeServe
}

// flagModes names the modes that a flag belongs to; the rest are modes
// themselves.
var flagModes = map[string][]mode{
	"timeout": {modeHealthcheck}, "method": {modeHealthcheck}, "header": {modeHealthcheck},
	"status": {modeHealthcheck}, "insecure": {modeHealthcheck},
	"format": {modeAudit, modeCompare}, "only": {modeAudit}, "skip": {modeAudit}, "fail-on": {modeAudit},
	"fail-on-warn": {modeAudit}, "fail-on-unknown": {modeAudit}, "ignore": {modeAudit}, "baseline": {modeAudit}, "root": {modeAudit},
	"walk-timeout": {modeAudit},
}

// newFlags makes the flag set that parses into opts.
func newFlags(opts *options) *flag.FlagSet {
	fs := flag.NewFlagSet("imagelab", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Bool("healthcheck", false, "probe each `URL`, or this container's own server; print one line, exit 0 or 1")
	fs.Bool("audit", false, "audit the container that this runs in; exit 1 if a check failed")
	fs.Bool("compare", false, "put the containers side by side whose ops listeners are at each `[NAME=]URL`; exit 1 if one could not be asked")
	fs.Bool("sbom", false, "print what is linked in, as CycloneDX JSON")
	fs.Bool("version", false, "print version, commit and Go version")
	fs.Bool("help", false, "print this; beside a mode, that mode's own flags")
	opts.probe.Timeout = probe.DefaultTimeout
	fs.Var((*timeoutFlag)(&opts.probe.Timeout), "timeout", "`duration` for everything, from the resolver to the end of the body")
	fs.StringVar(&opts.probe.Method, "method", http.MethodGet, "request `method`")
	fs.Var(headerFlag{&opts.probe.Headers, &opts.header}, "header", "a request header `\"Name: value\"`, any number of times; Host names the certificate, too")
	fs.Var(&opts.probe.Status, "status", "`range` of status codes that are healthy, such as 204 or 200-299")
	fs.BoolVar(&opts.probe.Insecure, "insecure", false, "do not verify https certificates")
	fs.StringVar(&opts.format, "format", "text", "`format` of the report: text, json or markdown; --audit has sarif and junit, too")
	fs.Var(listFlag{&opts.audit.checks.Only}, "only", "run these checks alone, `ids` with commas between")
	fs.Var(listFlag{&opts.audit.checks.Skip}, "skip", "leave these checks out, `ids` with commas between")
	fs.TextVar(&opts.audit.failOn.Severity, "fail-on", audit.Info, "least `severity` of a failure for exit code 1: info, low, medium, high or critical")
	fs.BoolVar(&opts.audit.failOn.Warn, "fail-on-warn", false, "exit 1 for a warning of that severity, too")
	fs.BoolVar(&opts.audit.failOn.Unknown, "fail-on-unknown", false, "exit 1 for a check that could not be decided, too")
	fs.StringVar(&opts.audit.ignore, "ignore", "", "`file` of findings that do not count, lines of \"ID [PATH] until YYYY-MM-DD: REASON\"")
	fs.StringVar(&opts.audit.baseline, "baseline", "", "`file` with an earlier report as JSON: only what is new or has changed since counts")
	fs.DurationVar(&opts.audit.walk, "walk-timeout", 0, "`duration` after which the walk over the files ends, and the report says what is missing; 0 is no bound")
	fs.StringVar(&opts.audit.root, "root", "", "audit the files below this `directory` and not a container; / is this machine")
	return fs
}

// parseArgs finds the mode and its options. With an error the mode is the one
// that was meant, as a probe reports a wrong command line in its own way.
func parseArgs(args []string) (mode, options, error) {
	if i := slices.Index(args, "--"); i >= 0 {
		// Behind a mode, -- only ends its flags.
		if m, opts, err := parseFlags(args[:i]); m == modeServe && err == nil {
			if opts.command = args[i+1:]; len(opts.command) == 0 {
				err = errors.New("-- without a command: want imagelab -- COMMAND [ARG...]")
			}
			return modeCommand, opts, err
		}
	}
	return parseFlags(args)
}

// parseFlags is parseArgs without a command.
func parseFlags(args []string) (mode, options, error) {
	opts := options{helpOn: modeServe}
	fs := newFlags(&opts)
	err := fs.Parse(args)
	urls := fs.Args()
	if err == nil && fs.Lookup(string(modeCompare)).Value.String() == "true" {
		urls, err = parseRest(fs)
	}

	chosen := []mode{}
	for _, m := range []mode{modeHealthcheck, modeAudit, modeCompare, modeSBOM, modeVersion, modeHelp} {
		if f := fs.Lookup(string(m)); f.Value.String() == "true" {
			chosen = append(chosen, m)
		}
	}
	m := modeServe
	if len(chosen) > 0 {
		m = chosen[0]
	}
	if err != nil {
		if err == flag.ErrHelp { // -h
			opts.helpOn = m
			return modeHelp, opts, nil
		}
		if m == modeServe && slices.ContainsFunc(args, meansHealthcheck) {
			m = modeHealthcheck
		}
		return m, opts, explainFlag(err)
	}
	if len(chosen) == 2 && chosen[1] == modeHelp && hasManual(m) {
		opts.helpOn = m
		return modeHelp, opts, nil
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
	formats := []string{"text", "json", "markdown"}
	if m == modeAudit {
		formats = append(formats, "sarif", "junit")
	}
	if slices.Contains(flagModes["format"], m) && !slices.Contains(formats, opts.format) {
		last := len(formats) - 1
		return m, opts, fmt.Errorf("--format %q: want %s or %s%s", opts.format, strings.Join(formats[:last], ", "), formats[last], near.Hint(opts.format, formats))
	}
	if m == modeCompare {
		if len(urls) == 0 {
			return m, opts, fmt.Errorf("--compare without anything to compare: %s", acceptedPeer)
		}
		opts.peers, err = parsePeers(urls)
		return m, opts, err
	}
	if fs.NArg() > 0 {
		return m, opts, fmt.Errorf("unexpected argument %q: settings are environment variables, only --healthcheck and --compare take arguments, and a command stands behind --%s",
			fs.Arg(0), flagHint(fs.Arg(0)))
	}
	if m == modeAudit {
		if opts.audit.walk < 0 {
			return m, opts, fmt.Errorf("--walk-timeout %v: want a duration of 0 or more, such as 5s", opts.audit.walk)
		}
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

// meansHealthcheck says whether arg is --healthcheck, with a value or without, or a slip
// of it: Docker has no use for the exit code of a wrong command line.
func meansHealthcheck(arg string) bool {
	name, isFlag := strings.CutPrefix(arg, "-")
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "-"), "=")
	_, meant := near.Word(name, []string{string(modeHealthcheck)})
	return isFlag && meant
}

// flagHint says which flag was probably meant with name, or nothing.
func flagHint(name string) string {
	var names []string
	newFlags(new(options)).VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if meant, found := near.Word(name, names); found {
		return ", did you mean --" + meant + "?"
	}
	return ""
}

// explainFlag adds to the error about an unknown flag which one was meant, or which
// variable. Other errors it returns as they are.
func explainFlag(err error) error {
	name, isUnknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !isUnknown {
		return err
	}
	hint := flagHint(name)
	for _, v := range variables() {
		setting := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if v.Name == setting || v.Name == prefix+setting {
			hint = ": settings are environment variables, this one is " + v.Name
		}
	}
	return fmt.Errorf("unknown flag --%s%s", probe.OneLine(name), hint)
}

func printVersion(w io.Writer) {
	fmt.Fprintf(w, "imagelab %s, commit %s, %s %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
