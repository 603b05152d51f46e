package main

import (
	"flag"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// helpColumns is what a line of --help may have.
	helpColumns = 100
	// helpIndent is where descriptions begin: beside the longest name.
	helpIndent = 32
)

// A manual is what --help says of a mode beyond its flags.
type manual struct {
	usage    string
	about    string
	examples []example
	exits    string
}

type example struct{ what, command string }

// manuals are those of the modes with flags of their own, and of the server.
func manuals() map[mode]manual {
	return map[mode]manual{
		modeServe: {
			usage: "imagelab [MODE] [FLAG ...] [URL ...] | imagelab -- COMMAND [ARG ...]",
			about: "Without a mode it serves until SIGTERM, SIGINT, SIGQUIT or SIGHUP, as the variables say. With a command it is that " +
				"program's init, and with IMAGELAB_UPSTREAM its front.",
			examples: []example{
				{"serve on other ports", "PORT=8080 IMAGELAB_OPS_ADDR=127.0.0.1:9090 imagelab"},
				{"before any program, as PID 1", "imagelab -- redis-server"},
				{"and as its front, which it is restarted behind without a lost request", "IMAGELAB_UPSTREAM=auto imagelab -- gunicorn app:app"},
				{"the health probe of any image", `HEALTHCHECK CMD ["/imagelab", "--healthcheck", "http://127.0.0.1:8080/"]`},
				{"audit a container that runs", "docker exec CONTAINER /imagelab --audit"},
			},
			exits: "0 clean stop. 1 failed, or requests were cut at the deadline. 2 bad configuration or command line. " +
				"128 + n stopped at once by a second signal n. With a command its own code, or 128 + n for signal n; 127 not found, 126 not to be run.",
		},
		modeHealthcheck: {
			usage: "imagelab --healthcheck [FLAG ...] [URL ...]",
			about: "Probes all URLs side by side and prints one line of at most 200 bytes. A URL is http://, https://, tcp://HOST:PORT " +
				"(a connection is enough) or unix:///PATH.sock[:/HTTP/PATH]. All must pass. Without one it asks the server that PORT and " +
				"IMAGELAB_BIND_ADDRESS configure for /health. Flags come before URLs.",
			examples: []example{
				{"the server of this container", "imagelab --healthcheck"},
				{"an HTTP server of another kind", "imagelab --healthcheck --timeout 1s --status 200-299 http://127.0.0.1:8080/ready"},
				{"a database, and a program behind a socket", "imagelab --healthcheck tcp://127.0.0.1:5432 unix:///run/app.sock:/health"},
			},
			exits: "0 healthy. 1 not healthy, or a wrong command line.",
		},
		modeAudit: {
			usage: "imagelab --audit [FLAG ...]",
			about: "Decides from inside how well the container is hardened, and says how to fix what it finds. It needs no privilege and " +
				"changes nothing. It reads the variables IMAGELAB_IMAGE_BUDGET and IMAGELAB_VARIANT.",
			examples: []example{
				{"a container that runs, with imagelab in it", "docker exec CONTAINER /imagelab --audit"},
				{"any image", "docker run --rm -v ./imagelab:/imagelab:ro --entrypoint /imagelab IMAGE --audit"},
				{"two checks alone, for another program", "imagelab --audit --only run-as-non-root,rootfs-read-only --format json"},
			},
			exits: "0 no failed check. 1 a check failed. 2 wrong command line.",
		},
		modeCompare: {
			usage: "imagelab --compare [FLAG ...] [NAME=]URL ...",
			about: "Asks each ops listener for its report and what it measures, and prints them side by side, * at the better value. What " +
				"traffic decides is not judged. The token that it sends is IMAGELAB_OPS_TOKEN. Flags may come after URLs.",
			examples: []example{
				{"two containers", "imagelab --compare scratch=http://localhost:9000 alpine=http://localhost:9001"},
				{"for a pull request", "imagelab --compare --format markdown http://localhost:9000 http://localhost:9001"},
				{"one whose ops paths are on its app listener", "imagelab --compare a=http://a:9000 b=http://b:8000/-/"},
			},
			exits: "0 compared. 1 one of them could not be asked. 2 wrong command line.",
		},
	}
}

// hasManual says whether MODE --help prints a page of its own.
func hasManual(m mode) bool {
	_, has := manuals()[m]
	return has
}

// printHelp writes what m is for and its own flags; for the server, which has none, all
// flags and variables. Flags and variables come from what parses them.
func printHelp(w io.Writer, m mode) {
	var h help
	page := manuals()[m]
	h.text("Usage: " + page.usage)
	h.text("")
	h.text(page.about)
	if m == modeServe {
		h.modes()
		for _, owners := range [][]mode{{modeHealthcheck}, {modeAudit}, {modeAudit, modeCompare}} {
			h.flags("Flags of --"+joinModes(owners), func(of []mode) bool { return slices.Equal(of, owners) })
		}
		h.variables()
	} else {
		h.flags("Flags", func(of []mode) bool { return slices.Contains(of, m) })
	}
	h.heading("Examples")
	for _, e := range page.examples {
		h.text("  # " + e.what)
		h.text("  " + e.command)
	}
	h.heading("Exit codes")
	name := "imagelab"
	if m != modeServe {
		name += " --" + string(m)
	}
	h.entry(name, page.exits)
	if m == modeServe {
		for _, other := range []mode{modeHealthcheck, modeAudit, modeCompare} {
			h.entry("imagelab --"+string(other), manuals()[other].exits)
		}
		h.entry("imagelab --sbom", "0 printed. 1 could not be written, or the binary has no build info. 2 wrong command line.")
	}
	_, _ = io.WriteString(w, h.out.String())
}

// help is a page in the making.
type help struct{ out strings.Builder }

// text writes a paragraph.
func (h *help) text(s string) {
	indent := len(s) - len(strings.TrimLeft(s, " "))
	h.out.WriteString(s[:indent])
	h.wrap(indent, s[indent:])
}

func (h *help) heading(s string) { h.out.WriteString("\n" + s + ":\n") }

// entry writes a name and beside it, or below where it is long, what it means.
func (h *help) entry(name, meaning string) {
	h.out.WriteString("  " + name)
	room := helpIndent - 2 - utf8.RuneCountInString(name)
	if room < 2 {
		h.out.WriteString("\n")
		room = helpIndent
	}
	h.out.WriteString(strings.Repeat(" ", room))
	h.wrap(helpIndent, meaning)
}

// wrap writes s from the column indent on, and breaks lines between words.
func (h *help) wrap(indent int, s string) {
	used := indent
	for i, word := range strings.Fields(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+n > helpColumns:
			h.out.WriteString("\n" + strings.Repeat(" ", indent))
			used = indent
		default:
			h.out.WriteString(" ")
			used++
		}
		h.out.WriteString(word)
		used += n
	}
	h.out.WriteString("\n")
}

// modes writes the flags that are modes.
func (h *help) modes() {
	h.flags("Modes; each of the first three has more to say with --help behind it", func(of []mode) bool { return of == nil })
}

// flags writes the flags of the modes that belong there.
func (h *help) flags(title string, belong func(of []mode) bool) {
	h.heading(title)
	newFlags(new(options)).VisitAll(func(f *flag.Flag) {
		if !belong(flagModes[f.Name]) {
			return
		}
		arg, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		h.entry(strings.TrimSpace("--"+f.Name+" "+arg), usage)
	})
}

// variables writes those of Config, by their groups.
func (h *help) variables() {
	h.heading("Variables; each also as NAME_FILE, the path of a file that holds the value")
	for _, v := range variables() {
		if v.group != "" {
			h.out.WriteString("\n " + v.group + "\n")
		}
		meaning := v.Desc
		if v.Default != "" {
			meaning += " (default " + v.Default + ")"
		}
		h.entry(v.Name, meaning)
	}
}
