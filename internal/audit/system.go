package audit

import (
	"context"
	"io/fs"
	"time"
)

// A System is what the audit sees of a container: its files, and what files
// cannot say. Nil functions stand for what is not known.
type System struct {
	// FS is the root file system with /proc, /sys and /dev in it. It has to be
	// an fs.ReadLinkFS, as os.DirFS is.
	FS fs.FS
	// Stat returns what fs.FileInfo has no method for.
	Stat func(fs.FileInfo) (FileStat, bool)
	// FileCapability reports whether the file has the extended attribute
	// security.capability; the name is as for FS.
	FileCapability func(name string) (bool, error)
	// Syscall makes one of the calls that the seccomp check tries, by name, with
	// arguments that no kernel accepts. Without a filter the error says so, with one
	// that refuses the call it is EPERM or whatever the filter gives.
	Syscall func(name string) error
	// LandlockABI returns the version of Landlock, 0 where the kernel has none.
	LandlockABI func() (int, error)
	// Sleep waits, or returns the error of ctx before that.
	Sleep func(ctx context.Context, d time.Duration) error
	// Now is the clock.
	Now func() time.Time

	// Detached means that FS is a tree of files in which nothing runs, and which
	// nothing is mounted on. Only the checks on files then apply.
	Detached bool

	PID     int      // of the auditor
	EUID    int      // of the auditor
	Environ []string // of the auditor, as NAME=value

	// PublicEnv names variables that look like secrets and are none, by the
	// contract of the program that runs the audit.
	PublicEnv []string
	// ImageBudget is the largest image that image-size only warns of, in bytes.
	// 0 means 150 MB.
	ImageBudget int64
	// WalkTimeout bounds the walk over the root filesystem; what it has not reached is
	// counted as unread. 0 means no bound.
	WalkTimeout time.Duration
	// Progress is told now and then how many files the walk has seen.
	Progress func(files int)
	// Variant names the image in the report.
	Variant string
	// Tool is the version of the program that runs the audit.
	Tool string
	// App is what the auditor knows of itself where it is the container's
	// program, and not one that was started beside it or in its place. PID 1 may
	// then be the auditor and is judged all the same.
	App *App
	// Sandbox is what the auditor has confined itself or its command to; nil is
	// nothing, or not known.
	Sandbox *SandboxFacts

	outer *outer // what Remember has noted
	kept  *kept  // what Keep has
}

// FileStat is the part of stat(2) that fs.FileInfo has no method for.
type FileStat struct {
	Dev, Ino, Nlink uint64
	UID, GID        int
	Major, Minor    uint32 // of a device node
}

// App is what a serving program says of itself.
type App struct {
	Started      time.Time     `json:"started"`
	StartSeconds float64       `json:"start_seconds"` // from main to ready
	Probes       *ProbeSummary `json:"probes,omitempty"`
}

// ProbeSummary is about the health probes that a serving program has answered.
type ProbeSummary struct {
	Seen        int64     `json:"seen"`
	Failed      int64     `json:"failed"`
	Last        time.Time `json:"last,omitzero"`
	MeanSeconds float64   `json:"mean_seconds"` // latency, as the server saw it
	MaxSeconds  float64   `json:"max_seconds"`
}
