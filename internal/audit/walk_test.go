package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWalkCounts(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.file("bin/app", "0755", "\x7fELF")
	f.file("bin/script", "0755", "#!/bin/x\n")
	f.file("bin/text", "0755", "plain")
	f.file("lib/libc.so", "0755", "\x7fELF")
	f.file("lib/libc.so.6", "0755", "\x7fELF")
	f.file("etc/conf", "0644", "#!/bin/x\n")
	f.file("etc/empty", "0755", "")
	f.link("bin/link", "/bin/app")
	image := f.run().Facts.Image
	// The root, bin, lib, etc and the mount points' parents that the recording has.
	if *image.Files != 7 || *image.Executables != 2 || *image.Bytes != 4+9+5+4+4+9 {
		t.Errorf("files %d, executables %d, bytes %d; want 7, 2, 35", *image.Files, *image.Executables, *image.Bytes)
	}
	more := load(t, "hardened-scratch")
	more.tree("a dir 0755\na/b dir 0755\na/b/c dir 0755")
	if got, want := *more.run().Facts.Image.Directories, *load(t, "hardened-scratch").run().Facts.Image.Directories+3; got != want {
		t.Errorf("directories = %d with three more, want %d", got, want)
	}
}

// TestWalkOfAWideDirectory reads more entries than one portion.
func TestWalkOfAWideDirectory(t *testing.T) {
	t.Parallel()
	for _, n := range []int{dirPortion, 2*dirPortion + 1} {
		f := load(t, "hardened-scratch")
		for i := range n {
			f.write(fmt.Sprintf("wide/%04d", i), "x")
		}
		if got := *f.run().Facts.Image.Files; got != n {
			t.Errorf("files = %d, want %d", got, n)
		}
	}
}

// TestWalkMeetsWhatIsNotThere: what ends between its listing and its reading is
// no more, and what cannot be read is said.
func TestWalkMeetsWhatIsNotThere(t *testing.T) {
	t.Parallel()
	const file = "etc/passwd.bak"
	for _, tc := range []struct {
		name   string
		edit   func(*fixture)
		unread int
	}{
		{"a file that goes", func(f *fixture) { f.denied[file] = fs.ErrNotExist }, 0},
		{"a file that may not be read", func(f *fixture) { f.deny(file) }, 1},
		{"a file that is listed and goes", func(f *fixture) { f.denied["lstat "+file] = fs.ErrNotExist }, 0},
		{"a file in a directory that may be listed alone", func(f *fixture) { f.denied["lstat "+file] = fs.ErrPermission }, 1},
		{"a file that opens and cannot be read", func(f *fixture) { f.denied["read "+file] = syscall.EIO }, 1},
		{"a directory that goes", func(f *fixture) { f.denied["etc"] = fs.ErrNotExist }, 0},
		{"a directory that cannot be read", func(f *fixture) { f.denied["etc"] = syscall.EIO }, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, "hardened-scratch")
			f.write(file, "a plain file")
			tc.edit(f)
			r := f.run()
			if got := r.result(t, "secrets-in-files"); got.Status != Pass || got.Incomplete != tc.unread || r.Facts.Image.Unreadable != tc.unread {
				t.Errorf("secrets-in-files = %s, incomplete %d, unreadable %d; want pass, %d", got.Status, got.Incomplete, r.Facts.Image.Unreadable, tc.unread)
			}
		})
	}
}

// TestExecutableThatCannotBeReadCounts, and one with the name of a secret is named.
func TestExecutableThatCannotBeReadCounts(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.file("bin/app", "0711", "\x7fELF")
	f.file("root/id_rsa", "0700", "x")
	f.deny("bin/app", "root/id_rsa")
	r := f.run()
	if *r.Facts.Image.Executables != 2 || r.Facts.Image.Unreadable != 2 {
		t.Errorf("executables %d, unreadable %d, want 2 and 2", *r.Facts.Image.Executables, r.Facts.Image.Unreadable)
	}
	if got := r.result(t, "secrets-in-files"); got.Status != Fail || !strings.Contains(got.Evidence, "/root/id_rsa") || strings.Contains(got.Evidence, "/bin/app") {
		t.Errorf("secrets-in-files = %s, %q", got.Status, got.Evidence)
	}
}

// TestLinksAreToolsWhereTheyLeadToOne, but not where that is the auditor.
func TestLinksAreToolsWhereTheyLeadToOne(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.link("proc/1/exe", "/app")
	f.file("bin/busybox.static", "0755", "\x7fELF")
	f.file("etc/notes", "0644", "x")
	f.link("bin/sh", "/bin/busybox.static")
	f.link("bin/bash", "/etc/notes")
	f.link("bin/ash", "/imagelab")
	f.link("bin/app", "/bin/busybox.static")
	f.files["imagelab"].Data = []byte("\x7fELF")
	image := f.run().Facts.Image
	if got := strings.Join(image.Shells.Paths, " "); got != "/bin/sh" {
		t.Errorf("shells = %s, want /bin/sh alone", got)
	}
}

// TestToolsGoByName, except where distributions name scripts after tools.
func TestToolsGoByName(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	for _, name := range []string{"usr/bin/python3.12", "opt/node18/bin/node", "usr/bin/pythonic", "usr/share/doc/perl", "etc/init.d/ruby", "usr/lib/apt/methods/php"} {
		f.file(name, "0755", "\x7fELF")
	}
	if got, want := strings.Join(f.run().Facts.Image.Interpreters.Paths, " "), "/opt/node18/bin/node /usr/bin/python3.12"; got != want {
		t.Errorf("interpreters = %s, want %s", got, want)
	}
}

// TestWalkEndsWithItsContext in the middle of a directory, too.
func TestWalkEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	for i := range 100 {
		f.file(fmt.Sprintf("bin/%02d", i), "0755", "\x7fELF")
	}
	ctx, cancel := context.WithCancel(t.Context())
	looked := 0
	f.sys.FileCapability = func(string) (bool, error) {
		looked++
		cancel()
		return false, nil
	}
	if r, err := Run(ctx, f.sys, Options{}); !errors.Is(err, context.Canceled) || r != nil || looked != 1 {
		t.Errorf("Run = %v, %v after %d files, want %v after one", r, err, looked, context.Canceled)
	}
}

// TestRootThatCannotBeLookedAt leaves the contents unknown.
func TestRootThatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.denied["lstat ."] = syscall.EIO
	if got := f.run().result(t, "image-size"); got.Status != Unknown || !strings.HasPrefix(got.Reason, "/: ") {
		t.Errorf("image-size = %s, %q, want unknown and the root as the reason", got.Status, got.Reason)
	}
}

// TestWalkTimeout: what the walk has not reached is said with each verdict on it, and
// the rest of the report is whole.
func TestWalkTimeout(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	f.sys.WalkTimeout = time.Nanosecond
	seen := 0
	f.sys.Progress = func(int) { seen++ }
	r := f.run()
	got := r.result(t, "setuid-files")
	if got.Status != Unknown || got.Incomplete == 0 || !strings.Contains(got.Reason, "stopped after 1ns") {
		t.Errorf("setuid-files = %s, incomplete %d, %q; want it to be unknown and incomplete, for the time", got.Status, got.Incomplete, got.Reason)
	}
	if got := r.result(t, "run-as-non-root"); got.Status != Fail {
		t.Errorf("run-as-non-root = %s, want what needs no walk", got.Status)
	}
	f.sys.WalkTimeout = time.Hour
	if got := f.run().result(t, "setuid-files"); got.Incomplete != 0 || seen == 0 {
		t.Errorf("within its time: incomplete %d, told %d times", got.Incomplete, seen)
	}
}

// TestWalkTimeoutWithinADirectory: the directory that was not read to its end is one that was not read.
func TestWalkTimeoutWithinADirectory(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	f.sys.WalkTimeout = 10 * time.Millisecond
	f.sys.Progress = func(int) { time.Sleep(2 * f.sys.WalkTimeout) }
	if got := f.run().result(t, "setuid-files"); got.Status == Pass || got.Incomplete != 1 {
		t.Errorf("setuid-files = %s, incomplete %d, %q; want it to be incomplete for the one directory", got.Status, got.Incomplete, got.Reason)
	}
}

// TestWalkKeepsSome: of many things the first are kept, and all are counted.
func TestWalkKeepsSome(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	for i := range maxAffected + 1 {
		f.file(fmt.Sprintf("many/%03d", i), "04755", "\x7fELF")
	}
	if got := f.run().result(t, "setuid-files"); len(got.Affected) != maxAffected || got.More != 1 {
		t.Errorf("%d are named and %d more, want %d and 1", len(got.Affected), got.More, maxAffected)
	}
}
