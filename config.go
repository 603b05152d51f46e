package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/dustin/go-humanize"

	"imagelab/internal/early"
)

// Config is everything that can be set, each field by one environment variable.
//
// Tags: env names the variable, envDefault what an unset or empty one means,
// desc explains it in --help and docs/configuration.md, want says what is accepted, min
// and max bound numbers, durations and sizes (both inclusive), secret keeps the
// value out of every output, and empty:"set" says that an empty value is a value
// and not the default. group begins a section of --help, which goes on until the
// next one.
//
// Every variable X can be given as X_FILE, the path of a file that holds it.
type Config struct {
	Port       int    `group:"The app" env:"PORT" envDefault:"8000" min:"0" max:"65535" want:"a port from 1 to 65535, or 0 for any free one" desc:"port of the app listener"`
	RocketSize string `env:"ROCKET_SIZE" envDefault:"Small" empty:"set" desc:"what GET / says; both images set Medium"`
	LabLogin   string `env:"LAB_LOGIN" envDefault:"unknown" desc:"login that GET /proof signs"`
	LabToken   string `env:"LAB_TOKEN" envDefault:"unknown" desc:"token that GET /proof signs; public by nature"`
	Secret     string `env:"SECRET" secret:"true" desc:"key of GET /proof; without it /proof answers 400"`

	BindAddress string `group:"Listeners" env:"IMAGELAB_BIND_ADDRESS" want:"an IP address or a host name without a port, or nothing for all interfaces" desc:"address that the app listener binds"`
	OpsAddr     string `env:"IMAGELAB_OPS_ADDR" envDefault:":9000" empty:"set" want:"host:port such as :9000 or 127.0.0.1:9000, or nothing for /-/ on the app listener" desc:"address of the ops listener; empty mounts its paths under /-/ of the app listener"`
	OpsToken    string `env:"IMAGELAB_OPS_TOKEN" secret:"true" desc:"bearer token that the ops listener asks for, except on /livez and /readyz"`

	OpsHosts hostList `env:"IMAGELAB_OPS_HOSTS" want:"host names with commas between, such as ops.example.com or *.example.com, in ASCII, without scheme and port" desc:"other names by which the ops paths may be asked without a token, with commas between"`

	LogLevel  slog.Level `group:"The log" env:"IMAGELAB_LOG_LEVEL" envDefault:"info" want:"debug, info, warn or error" desc:"least level that is logged"`
	LogFormat string     `env:"IMAGELAB_LOG_FORMAT" envDefault:"json" oneof:"json text" desc:"format of the log on stderr; unset, it is text on a terminal"`
	AccessLog string     `env:"IMAGELAB_ACCESS_LOG" envDefault:"errors" oneof:"errors all off" desc:"requests that are logged; errors means status 500 and up, 20 a second at most"`

	DrainDelay        time.Duration `group:"Stopping" env:"IMAGELAB_DRAIN_DELAY" envDefault:"250ms" min:"0s" max:"10m" desc:"after SIGTERM, how long new connections are still served while /readyz says draining"`
	ShutdownTimeout   time.Duration `env:"IMAGELAB_SHUTDOWN_TIMEOUT" envDefault:"8s" min:"0s" max:"1h" desc:"after the delay, how long requests in flight may take before they are cut"`
	LastScrape        time.Duration `env:"IMAGELAB_LAST_SCRAPE" envDefault:"0s" min:"0s" max:"10m" desc:"after a stop that has cut requests, how long the ops listener waits for one more GET /metrics"`
	ReadHeaderTimeout time.Duration `group:"Limits" env:"IMAGELAB_READ_HEADER_TIMEOUT" envDefault:"5s" min:"1ms" max:"1h" desc:"how long a client may take to send a request's header"`
	ReadTimeout       time.Duration `env:"IMAGELAB_READ_TIMEOUT" envDefault:"30s" min:"1ms" max:"24h" desc:"how long a client may take to send a whole request"`
	WriteTimeout      time.Duration `env:"IMAGELAB_WRITE_TIMEOUT" envDefault:"30s" min:"1ms" max:"24h" desc:"how long a client may take to accept 64 KiB of a response"`
	IdleTimeout       time.Duration `env:"IMAGELAB_IDLE_TIMEOUT" envDefault:"90s" min:"1ms" max:"24h" desc:"how long a kept-alive connection may be idle; keep it above the balancer's own"`

	MaxConns    int      `env:"IMAGELAB_MAX_CONNS" envDefault:"0" min:"0" max:"1000000" want:"a number of connections, or 0 to derive it" desc:"connections of the app listener; 0 derives it from the memory and descriptor limits"`
	MaxInFlight int      `env:"IMAGELAB_MAX_IN_FLIGHT" envDefault:"0" min:"0" max:"1000000" want:"a number of requests, or 0 to derive it" desc:"requests served at once, the rest get 503; 0 means three quarters of the connections"`
	MaxBody     ByteSize `env:"IMAGELAB_MAX_BODY" envDefault:"1MiB" min:"0B" max:"1TiB" desc:"largest request body, except for /store"`

	Restart       string        `group:"The command" env:"IMAGELAB_RESTART" envDefault:"never" oneof:"never on-failure always" desc:"whether a command that has ended is started again; five starts in a row that fail end it for good"`
	Probe         string        `env:"IMAGELAB_PROBE" want:"a URL as --healthcheck takes it, or with IMAGELAB_UPSTREAM a path such as /health" desc:"what says that the command is ready; unset, that its upstream accepts a connection, or without one that it runs"`
	ProbeInterval time.Duration `env:"IMAGELAB_PROBE_INTERVAL" envDefault:"5s" min:"10ms" max:"1h" desc:"how often IMAGELAB_PROBE is asked of a command that was ready"`
	StartTimeout  time.Duration `env:"IMAGELAB_START_TIMEOUT" envDefault:"60s" min:"10ms" max:"24h" desc:"how long the command may take to get ready before it is stopped"`
	StopSignal    stopSignal    `env:"IMAGELAB_STOP_SIGNAL" want:"a signal such as SIGTERM, QUIT or 15" desc:"what the command gets for a stop; unset, the signal that came"`

	Upstream        upstreamAddr  `group:"The front" env:"IMAGELAB_UPSTREAM" want:"a port of 127.0.0.1 such as 3000, http://host:port, unix:///path.sock, or with a command auto" desc:"where requests are passed on to; unset, the built-in app answers"`
	UpstreamWait    time.Duration `env:"IMAGELAB_UPSTREAM_WAIT" envDefault:"10s" min:"0s" max:"10m" desc:"how long a request waits for an upstream that takes no connections, before 503"`
	UpstreamTimeout time.Duration `env:"IMAGELAB_UPSTREAM_TIMEOUT" envDefault:"60s" min:"1ms" max:"24h" desc:"how long the upstream may take for an answer's header, before 504; what follows it may take as long as it likes"`
	UpstreamIdle    time.Duration `env:"IMAGELAB_UPSTREAM_IDLE" envDefault:"1s" min:"0s" max:"1h" desc:"how long a connection to the upstream is kept for its next request; keep it below what the upstream allows"`
	TrustedProxies  prefixList    `env:"IMAGELAB_TRUSTED_PROXIES" want:"networks with commas between, such as 10.0.0.0/8,192.168.1.7,fd00::/8" desc:"networks of proxies whose X-Forwarded fields are believed"`

	DataDir       string   `group:"The store" env:"IMAGELAB_DATA_DIR" envDefault:"/tmp" want:"an absolute path" desc:"the one directory that is written to; meant to be a tmpfs"`
	StoreMaxBlob  ByteSize `env:"IMAGELAB_STORE_MAX_BLOB" envDefault:"1MiB" min:"0B" max:"1TiB" desc:"largest body that POST /store takes"`
	StoreCapacity ByteSize `env:"IMAGELAB_STORE_CAPACITY" envDefault:"8MiB" min:"0B" max:"1TiB" desc:"bytes on the disk that /store takes in all; each blob takes whole pages of 4 KiB"`

	Sandbox        string         `group:"The sandbox" env:"IMAGELAB_SANDBOX" envDefault:"auto" oneof:"auto require off" desc:"whether this process gives up what it does not need: auto does as far as the kernel allows, require exits 1 if any of it is refused"`
	SandboxCommand commandSandbox `env:"IMAGELAB_SANDBOX_COMMAND" want:"on, or paths that it may write below and TCP ports that it may connect to, with commas between, such as on,/var/cache/app,5432" desc:"what the command is confined to; on is the data directory and the tmpfs mounts, and without a port it may connect to all; unset, to nothing"`

	Faults      bool     `group:"Demo" env:"IMAGELAB_FAULTS" envDefault:"false" want:"true or false" desc:"serve /delay, /status, /panic, /stream, /headers and /echo, to try drain, alerts and timeouts"`
	Pprof       bool     `group:"Operators" env:"IMAGELAB_PPROF" envDefault:"false" want:"true or false" desc:"serve /debug/pprof/ on the ops listener; under /-/ only with IMAGELAB_OPS_TOKEN"`
	ImageBudget ByteSize `env:"IMAGELAB_IMAGE_BUDGET" envDefault:"150MB" min:"0B" max:"1TiB" desc:"image size up to which the audit only warns"`
	Peers       peerList `env:"IMAGELAB_PEERS" want:"up to 8 [NAME=]URL of other ops listeners with commas between, such as alpine=http://alpine:9000, each under a name of its own" desc:"other imagelabs that the dashboard shows beside this one, as NAME=URL with commas between"`
	Variant     string   `env:"IMAGELAB_VARIANT" desc:"name of the image variant, shown in metrics; the images set scratch and alpine"`
}

// ByteSize is a number of bytes, written as 16MiB, 150MB or plain 1024.
type ByteSize int64

// UnmarshalText reads a size. The units are those of go-humanize: kB, MB, GB
// are powers of 1000, KiB, MiB, GiB powers of 1024.
func (b *ByteSize) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<60 {
		return errors.New("not a size")
	}
	*b = ByteSize(n)
	return nil
}

func (b ByteSize) String() string { return humanize.IBytes(uint64(b)) }

// variable describes one field of Config, and after loadConfig where its value
// came from.
type variable struct {
	Name    string `json:"name"`
	Value   string `json:"value"`  // after loadConfig, redacted where it is a secret or comes from a file
	Source  string `json:"source"` // "default", "environment", or the path that X_FILE names
	Default string `json:"-"`
	Desc    string `json:"-"`
	group   string // the section of --help that begins here
	want    string
	secret  bool
	empty   bool // an empty value is a value
	oneof   []string
	field   reflect.StructField
}

// redacted stands for a secret that is set.
const redacted = "(redacted)"

// variables lists the fields of Config in their order.
func variables() []variable {
	var vars []variable
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		v := variable{
			Name:    f.Tag.Get("env"),
			Default: f.Tag.Get("envDefault"),
			Desc:    f.Tag.Get("desc"),
			group:   f.Tag.Get("group"),
			want:    f.Tag.Get("want"),
			secret:  f.Tag.Get("secret") == "true",
			empty:   f.Tag.Get("empty") == "set",
			oneof:   strings.Fields(f.Tag.Get("oneof")),
			field:   f,
		}
		if v.want == "" {
			v.want = v.accepted()
		}
		vars = append(vars, v)
	}
	return vars
}

// accepted derives what the variable takes from its type and bounds.
func (v variable) accepted() string {
	lo, hi := v.field.Tag.Get("min"), v.field.Tag.Get("max")
	switch {
	case len(v.oneof) > 0:
		last := len(v.oneof) - 1
		return strings.Join(v.oneof[:last], ", ") + " or " + v.oneof[last]
	case v.field.Type == reflect.TypeFor[time.Duration]():
		return fmt.Sprintf("a duration such as 250ms or 8s, from %s to %s", lo, hi)
	case v.field.Type == reflect.TypeFor[ByteSize]():
		return fmt.Sprintf("a size such as 512KiB, 16MiB or 150MB, from %s to %s", lo, hi)
	}
	return "text"
}

// loadConfig reads Config from environ ("NAME=value" each). The error lists
// everything that is wrong, a line each, by variable name and with what would
// have been accepted; it never shows a secret's value. The doubts are what is no
// error and may be a mistake all the same.
func loadConfig(environ []string) (Config, []variable, []doubt, error) {
	return loadConfigFor(environ, false)
}

// loadConfigFor is loadConfig, with a command to supervise or without.
func loadConfigFor(environ []string, hasCommand bool) (Config, []variable, []doubt, error) {
	vars := variables()
	given := env.ToMap(environ)
	errs, doubts := unknownNames(given, vars)

	for i := range vars {
		v := &vars[i]
		v.Value, v.Source = v.Default, "default"
		value, source, err := lookup(given, v.Name)
		if err != nil {
			errs = append(errs, err)
			// The field keeps its default, so that its own rule says nothing
			// on top of this.
			delete(given, v.Name)
			continue
		}
		if source == "default" || value == "" && !v.empty {
			delete(given, v.Name)
			continue
		}
		v.Value, v.Source = value, source
		given[v.Name] = value
		if odd := oddity(value); odd != "" {
			doubts = append(doubts, doubt{"a value may not be what was meant", []any{"name", v.Name, "source", source, "found", odd}})
		}
	}

	if !hasCommand {
		doubts = append(doubts, withoutCommand(vars)...)
	}

	var cfg Config
	err := env.ParseWithOptions(&cfg, env.Options{Environment: given})
	setEmpty(&cfg, vars)
	errs = append(errs, validate(cfg, vars, unparsed(err), hasCommand)...)
	for i := range vars {
		if (vars[i].secret || vars[i].fromFile()) && vars[i].Value != "" {
			vars[i].Value = redacted
		}
	}
	return cfg, vars, doubts, errors.Join(errs...)
}

// lookup returns the value of the variable name from environ, from the file
// that name_FILE points at, or neither. A byte order mark at the beginning of a
// file and one newline at its end are not part of the value. The source is as in variable.
func lookup(environ map[string]string, name string) (value, source string, err error) {
	value, isSet := environ[name]
	path, isFile := environ[name+"_FILE"]
	switch {
	case isSet && value != "" && isFile && path != "":
		return "", "", fmt.Errorf("%s and %s_FILE are both set: unset one", name, name)
	case isFile && path != "":
		value, err = readValue(path)
		if err != nil {
			return "", "", fmt.Errorf("%s_FILE: %w", name, err)
		}
		if !strings.Contains(path, "/") {
			path = "./" + path // a file may be called "default"
		}
		return value, path, nil
	case isSet:
		return value, "environment", nil
	}
	return "", "default", nil
}

// maxValue bounds what is read for one variable, so that X_FILE=/dev/zero is an
// error and not the end of the memory.
const maxValue = 1 << 20

// readValue reads the file of an X_FILE variable.
func readValue(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", explain(path, nil, err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%q is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", explain(path, info, err)
	}
	defer file.Close()
	// What the kernel makes, such as /proc/kmsg, has no size before it is read.
	content, err := io.ReadAll(io.LimitReader(file, maxValue+1))
	if err != nil {
		return "", explain(path, info, err)
	}
	if len(content) > maxValue {
		return "", fmt.Errorf("%q has more than %d bytes", path, maxValue)
	}
	value, err := decode(content)
	if err != nil {
		return "", fmt.Errorf("%q %w", path, err)
	}
	if value == "" {
		return "", fmt.Errorf("%q is empty, want the value in it", path)
	}
	return value, nil
}

// explain says who owns an unreadable file, as a secret that the container's
// user may not read is the most common mistake with them. Another is the secret
// itself where its path should be: what does not look like a path is not shown.
func explain(path string, info fs.FileInfo, err error) error {
	reason := err
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		reason = pathErr.Err
	}
	if !isPath(path) {
		return fmt.Errorf("%w, read by uid %d; the value is not shown: want the path of a file, which begins with / or ./", reason, os.Geteuid())
	}
	if info == nil || !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%q, read by uid %d: %w", path, os.Geteuid(), reason)
	}
	owner := "unknown"
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
	}
	return fmt.Errorf("%q, owner %s, mode %04o, read by uid %d: %w; make it readable to that uid, for example with chmod 0444",
		path, owner, info.Mode().Perm(), os.Geteuid(), reason)
}

// isPath says whether text is a path and hardly a secret; one in base64 may begin
// with a slash, and has + and = as no path does.
func isPath(text string) bool {
	rooted := strings.HasPrefix(text, "/") || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../")
	return rooted && !strings.ContainsAny(text, "+=")
}

// unparsed lists the Go fields whose values the parser did not take.
func unparsed(err error) []string {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return nil
	}
	var fields []string
	for _, err := range all.Errors {
		var parse env.ParseError
		if errors.As(err, &parse) {
			fields = append(fields, parse.Name)
		}
	}
	return fields
}

// refuse is the error for a value that the variable does not take.
func (v variable) refuse() error { return fmt.Errorf("%s: want %s", v.shown(), v.want) }

// shown is the variable for a message: NAME="value", without the value where that
// may be a secret. What comes from a file may, as the path may be a wrong one. So
// may what has a character that stands before or behind a URL's password or token.
func (v variable) shown() string {
	switch {
	case v.fromFile():
		return fmt.Sprintf("%s (in the file %q)", v.Name, v.Source)
	case v.secret || strings.ContainsAny(v.Value, "@?#"):
		return v.Name + "=" + redacted
	}
	return v.Name + "=" + strconv.Quote(v.Value)
}

// fromFile says whether the value is that of a file.
func (v variable) fromFile() bool {
	return v.Source != "" && v.Source != "default" && v.Source != "environment"
}

// named returns the variable of that name.
func named(vars []variable, name string) variable {
	return vars[slices.IndexFunc(vars, func(v variable) bool { return v.Name == name })]
}

// setEmpty empties the fields for which an empty value is not the default; the
// parser cannot tell the two apart.
func setEmpty(cfg *Config, vars []variable) {
	for _, v := range vars {
		if v.empty && v.Value == "" && v.Source != "default" {
			reflect.ValueOf(cfg).Elem().FieldByIndex(v.field.Index).SetString("")
		}
	}
}

// validate returns an error for each variable in the fields that did not parse,
// and for each that breaks a rule that its type does not have.
func validate(cfg Config, vars []variable, unparsed []string, hasCommand bool) []error {
	var errs []error
	refused := map[string]bool{}
	for _, v := range vars {
		if slices.Contains(unparsed, v.field.Name) || !v.inBounds(reflect.ValueOf(cfg).FieldByIndex(v.field.Index)) || !v.wellFormed() {
			errs = append(errs, v.refuse())
			refused[v.Name] = true
		}
	}
	if !refused["PORT"] && !refused["IMAGELAB_OPS_ADDR"] && cfg.OpsAddr != "" {
		host, port, _ := net.SplitHostPort(cfg.OpsAddr)
		same := host == "" || cfg.BindAddress == "" || host == cfg.BindAddress
		if same && cfg.Port != 0 && port == strconv.Itoa(cfg.Port) {
			errs = append(errs, fmt.Errorf("%s and %s are the same port: want two ports, or an empty IMAGELAB_OPS_ADDR for /-/ on the app listener",
				named(vars, "PORT").shown(), named(vars, "IMAGELAB_OPS_ADDR").shown()))
		}
	}
	if !refused["IMAGELAB_STORE_MAX_BLOB"] && !refused["IMAGELAB_STORE_CAPACITY"] && cfg.StoreMaxBlob > cfg.StoreCapacity {
		errs = append(errs, fmt.Errorf("%s is more than %s: want at most that",
			named(vars, "IMAGELAB_STORE_MAX_BLOB").shown(), named(vars, "IMAGELAB_STORE_CAPACITY").shown()))
	}
	if !refused["IMAGELAB_UPSTREAM"] {
		errs = append(errs, upstreamErrors(cfg, vars, hasCommand, refused)...)
	}
	if !refused["IMAGELAB_SANDBOX"] && !refused["IMAGELAB_SANDBOX_COMMAND"] {
		errs = append(errs, sandboxErrors(cfg, vars, hasCommand)...)
	}
	if hasCommand && !refused["IMAGELAB_PROBE"] {
		errs = append(errs, commandErrors(cfg, vars, refused)...)
	}
	return errs
}

// wellFormed checks the text of addresses and paths.
func (v variable) wellFormed() bool {
	switch v.Name {
	case "PORT":
		_, valid := early.ParsePort(v.Value)
		return valid
	case "IMAGELAB_BIND_ADDRESS":
		return !strings.ContainsAny(v.Value, " /[]") && (!strings.Contains(v.Value, ":") || net.ParseIP(v.Value) != nil)
	case "IMAGELAB_OPS_ADDR":
		host, port, err := net.SplitHostPort(v.Value)
		_, valid := early.ParsePort(port)
		return v.Value == "" || err == nil && valid && !strings.ContainsAny(host, " /")
	case "IMAGELAB_DATA_DIR":
		return strings.HasPrefix(v.Value, "/")
	}
	return true
}

// inBounds compares a number, a duration or a size with the min and max tags,
// and a word with the oneof tag.
func (v variable) inBounds(value reflect.Value) bool {
	if len(v.oneof) > 0 {
		return slices.Contains(v.oneof, value.String())
	}
	lo, bounded := v.field.Tag.Lookup("min")
	if !bounded {
		return true
	}
	return v.bound(lo) <= value.Int() && value.Int() <= v.bound(v.field.Tag.Get("max"))
}

// bound reads a min or max tag in the field's own type.
func (v variable) bound(text string) int64 {
	switch v.field.Type {
	case reflect.TypeFor[time.Duration]():
		d, _ := time.ParseDuration(text)
		return int64(d)
	case reflect.TypeFor[ByteSize]():
		var b ByteSize
		_ = b.UnmarshalText([]byte(text))
		return int64(b)
	}
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}
