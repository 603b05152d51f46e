package audit

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A program that confines itself hides from its own audit what the container was
// started with, and shuts itself out of the image. So a System remembers the one
// before that, and keeps the other.

// SandboxFacts are what a serving program has confined itself to, or its command.
type SandboxFacts struct {
	Mode        string           `json:"mode"`         // auto, require or off
	Of          string           `json:"of"`           // what is confined: server, command, or empty for nothing
	LandlockABI int              `json:"landlock_abi"` // 0 is none
	Applied     []string         `json:"applied"`
	Refused     []SandboxRefusal `json:"refused"`
	Write       []string         `json:"write"` // where it may write
	// ImageRead is when the image was last read, as its files cannot be read any more.
	ImageRead *time.Time `json:"image_read,omitempty"`
}

// SandboxRefusal is what the kernel, or a profile around the container, has not allowed.
type SandboxRefusal struct {
	Part   string `json:"part"`
	Reason string `json:"reason"`
}

// String says it in a line.
func (s *SandboxFacts) String() string {
	if s.Of == "" {
		return "none"
	}
	list := func(words []string) string { return printable(cmp.Or(strings.Join(words, " "), "nothing")) }
	text := s.Of + ": " + list(s.Applied)
	if slices.Contains(s.Applied, "files") {
		text += " · writes " + list(firstFew(s.Write))
	}
	var refused []string
	for _, r := range s.Refused {
		if !slices.Contains(refused, r.Part) {
			refused = append(refused, r.Part)
		}
	}
	if len(refused) > 0 {
		text += " · refused " + list(refused)
	}
	if s.ImageRead != nil {
		text += " · image read " + s.ImageRead.UTC().Format(time.RFC3339)
	}
	return text
}

// has says whether the judged program itself is confined so.
func (s *SandboxFacts) has(part string) bool {
	return s != nil && s.Of == "server" && slices.Contains(s.Applied, part)
}

// outer is what the process had before it confined itself.
type outer struct {
	status map[string]string
	calls  map[string]error
}

// Remember notes what the process will change by confining itself: no_new_privs and
// the seccomp mode, and which calls are refused. Runs judge that, and so what the
// container was started with.
func (s *System) Remember() {
	o := &outer{status: map[string]string{}, calls: map[string]error{}}
	now := parse(&container{sys: s}, "/proc/self/status", parseStatus)
	for _, field := range []string{"NoNewPrivs", "Seccomp", "Seccomp_filters"} {
		if value, ok := now.value[field]; ok {
			o.status[field] = value
		}
	}
	if try := s.Syscall; try != nil {
		for _, call := range triedCalls {
			o.calls[call.name] = try(call.name)
		}
		s.Syscall = func(name string) error { return o.calls[name] }
	}
	s.outer = o
}

// statusOf reads the status of a process. That of the auditor is as it was before the
// auditor confined itself.
func (c *container) statusOf(dir string) part[status] {
	p := parse(c, dir+"/status", parseStatus)
	if c.sys.outer != nil && p.err == nil && (dir == "/proc/self" || dir == procDir(c.sys.PID)) {
		for field, value := range c.sys.outer.status {
			p.value[field] = value
		}
	}
	return p
}

// kept is what a run has read of the image.
type kept struct {
	tree    *tree
	image   ImageFacts
	devices []device
	runtime string
	at      time.Time
}

// Complete says whether the report has all of the image that Keep needs.
func (r *Report) Complete() bool { return r.kept != nil }

// Keep has later runs take what r, a report of this system that is complete, has found in
// the image: its files cannot be read any more.
func (s *System) Keep(r *Report) { s.kept = r.kept }

// sandboxFacts are those of the auditor, with the time of what is kept.
func (c *container) sandboxFacts() *SandboxFacts {
	if c.sys.Sandbox == nil || c.sys.kept == nil {
		return c.sys.Sandbox
	}
	facts := *c.sys.Sandbox
	facts.ImageRead = &c.sys.kept.at
	return &facts
}

// keep returns what Keep needs, or nil where it was not read.
func (c *container) keep(f Facts, at time.Time) *kept {
	if c.sys.kept != nil {
		return c.sys.kept
	}
	devices, err := c.devices()
	if c.tree.err != nil || err != nil && !isAbsent(err) {
		return nil
	}
	return &kept{c.tree.value, f.Image, devices, f.Host.Runtime, at}
}

// keptFrom says whether the process is the auditor, which its sandbox keeps from writing
// to the file and to the directories above it.
func (c *container) keptFrom(pid int, name string) bool {
	return pid == c.sys.PID && c.sandboxed() != "" &&
		!slices.ContainsFunc(c.sys.Sandbox.Write, func(dir string) bool { return under(name, dir) })
}

// sandboxed names where the program may write in spite of what mounts and owners allow,
// for evidence; it is empty where the program is not confined.
func (c *container) sandboxed() string {
	if !c.sys.Sandbox.has("files") || slices.Contains(c.sys.Sandbox.Write, "/") {
		return ""
	}
	if len(c.sys.Sandbox.Write) == 0 {
		return "the program has confined itself, and writes nowhere"
	}
	return "the program has confined itself, and writes only below " + strings.Join(firstFew(c.sys.Sandbox.Write), ", ")
}
