package audit

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// confined makes the fixture's PID 1 the auditor, which has confined itself to /tmp.
func confined(f *fixture) {
	f.sys.PID = 1
	f.sys.App = &App{}
	f.sys.Sandbox = &SandboxFacts{Mode: "auto", Of: "server", LandlockABI: 7, Applied: []string{"no_new_privs", "files"}, Write: []string{"/tmp"}}
}

func result(t *testing.T, r *Report, id string) Result {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c Result) bool { return c.ID == id })
	if i < 0 {
		t.Fatalf("no check %s", id)
	}
	return r.Checks[i]
}

func TestChecksOfAProgramThatConfinesItself(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		check, name, posture string
		edit                 func(*fixture)
		want                 Status
		says                 string
	}{
		{"rootfs-read-only", "it cannot write there", "root-alpine", confined, Warn, "writes only below /tmp"},
		{"rootfs-read-only", "it may write nowhere", "root-alpine", func(f *fixture) { confined(f); f.sys.Sandbox.Write = nil }, Warn, "writes nowhere"},
		{"rootfs-read-only", "it may write everywhere", "root-alpine", func(f *fixture) { confined(f); f.sys.Sandbox.Write = []string{"/"} }, Fail, ""},
		{"rootfs-read-only", "its files are not confined", "root-alpine", func(f *fixture) { confined(f); f.sys.Sandbox.Applied = nil }, Fail, ""},
		{"rootfs-read-only", "its command is", "root-alpine", func(f *fixture) { confined(f); f.sys.Sandbox.Of = "command" }, Fail, ""},
		{"rootfs-read-only", "a read-only root", "hardened-scratch", confined, Pass, ""},
		{"no-new-privileges", "it has set it itself", "root-alpine", confined, Warn, "has set it itself"},
		{"no-new-privileges", "an auditor beside a program that has", "hardened-scratch", func(f *fixture) { startedAlike(f); f.statusOf("proc/self/status", "NoNewPrivs", "0") }, Warn, "which the program has set itself"},
		{"app-binary-immutable", "it cannot write its program", "hardened-scratch", func(f *fixture) { writableApp("0555", 65532, 0)(f); confined(f) }, Warn, "writes only below /tmp"},
		{"app-binary-immutable", "its program is where it may write", "hardened-scratch", func(f *fixture) { writableApp("0555", 65532, 0)(f); confined(f); f.sys.Sandbox.Write = []string{"/"} }, Fail, "owner"},
		{"setuid-files", "without effect", "root-alpine", func(f *fixture) { confined(f); f.file("bin/su", "04755", "\x7fELF") }, Warn, "no_new_privs"},
	} {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			t.Parallel()
			f := load(t, tc.posture)
			tc.edit(f)
			got := result(t, f.run(), tc.check)
			if got.Status != tc.want || !strings.Contains(got.Evidence, tc.says) {
				t.Errorf("%s: %s, want %s and %q", got.Status, got.Evidence, tc.want, tc.says)
			}
		})
	}
}

// What a program has set itself is no setting of a pod.
func TestSandboxIsNoPodSecurity(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.status("NoNewPrivs", "0")
	confined(f)
	if got := f.run().PodSecurity; got == nil || !slices.Contains(got.Why, "no-new-privileges") {
		t.Errorf("Pod Security = %+v, want it kept from restricted by no-new-privileges", got)
	}
}

func TestRememberJudgesWhatTheContainerWasStartedWith(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	for _, name := range []string{"proc/1/status", "proc/self/status"} {
		f.statusOf(name, "NoNewPrivs", "0")
		f.statusOf(name, "Seccomp", "0")
	}
	f.sys.Syscall = func(string) error { return syscall.EINVAL }
	f.sys.Remember()
	confined(f)
	// The filter is there now, and refuses all that is tried.
	f.sys.PID = 1
	for _, name := range []string{"proc/1/status", "proc/self/status"} {
		f.statusOf(name, "NoNewPrivs", "1")
		f.statusOf(name, "Seccomp", "2")
	}
	r := f.run()
	if got := result(t, r, "seccomp-filter"); got.Status != Fail {
		t.Errorf("seccomp-filter = %s: %s, want fail, as the container has none", got.Status, got.Evidence)
	}
	if got := result(t, r, "no-new-privileges"); got.Status != Warn {
		t.Errorf("no-new-privileges = %s: %s, want a warning", got.Status, got.Evidence)
	}
	if f.sys.Syscall("keyctl") != syscall.EINVAL {
		t.Error("a call is tried again")
	}
}

func TestKeepTakesTheImageFromTheReport(t *testing.T) {
	t.Parallel()
	f := load(t, "root-alpine")
	f.file("bin/su", "04755", "\x7fELF")
	taken := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.sys.Now = func() time.Time { return taken }
	confined(f)
	before := f.run()
	if !before.Complete() {
		t.Fatal("the report is not complete")
	}
	f.sys.Keep(before)
	f.sys.Now = func() time.Time { return taken.Add(time.Hour) }
	for _, name := range []string{".", "etc", "dev"} {
		f.deny(name) // as the sandbox does
	}
	after := f.run()
	if !reflect.DeepEqual(after.Facts.Image, before.Facts.Image) {
		t.Errorf("image facts are %+v, want %+v", after.Facts.Image, before.Facts.Image)
	}
	for i, c := range after.Checks {
		if c.Status != before.Checks[i].Status {
			t.Errorf("%s = %s %s %s, want %s as before", c.ID, c.Status, c.Evidence, c.Reason, before.Checks[i].Status)
		}
	}
	if at := after.Facts.Sandbox.ImageRead; at == nil || !at.Equal(taken) {
		t.Errorf("the image was read at %v, want %v", at, taken)
	}
	if before.Facts.Sandbox.ImageRead != nil {
		t.Error("the first report says that its image cannot be read again")
	}
	if !after.Time.Equal(taken.Add(time.Hour)) {
		t.Errorf("the report is of %v", after.Time)
	}

	// What has not seen the image is not kept.
	g := load(t, "root-alpine")
	g.deny(".")
	if g.run().Complete() {
		t.Error("a report without the image is complete")
	}
	if r, err := Run(context.Background(), load(t, "root-alpine").sys, Options{Only: []string{"secrets-in-env"}}); err != nil || r.Complete() {
		t.Errorf("a report of one check is complete, %v", err)
	}
}

func TestSandboxRow(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, facts := range map[string]SandboxFacts{
		"none":            {Mode: "off"},
		"server: nothing": {Of: "server"},
		"server: no_new_privs files · writes /tmp · refused tcp others · image read 2026-01-02T03:04:05Z": {
			Of: "server", Applied: []string{"no_new_privs", "files"}, Write: []string{"/tmp"}, ImageRead: &at,
			Refused: []SandboxRefusal{{"tcp", "old"}, {"others", "old"}, {"others", "older"}},
		},
		"command: files · writes nothing": {Of: "command", Applied: []string{"files"}},
	} {
		f := Facts{Sandbox: &facts}
		rows := f.rows()
		if got := rows[len(rows)-1]; got != [2]string{"sandbox", want} {
			t.Errorf("row %q, want %q", got, want)
		}
	}
}

// TestRememberedStatus: a run judges what the process was started with, and nobody else's state.
func TestRememberedStatus(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.sys.PID = 7
	f.write("proc/7/status", string(f.files["proc/self/status"].Data))
	tried := 0
	f.sys.Syscall = func(string) error {
		tried++
		return syscall.EPERM
	}
	f.sys.Remember()
	for _, dir := range []string{"self", "7", "1"} {
		f.statusOf("proc/"+dir+"/status", "Seccomp_filters", "99")
	}
	c := &container{sys: f.sys}
	for dir, want := range map[string]string{"/proc/self": "1", "/proc/7": "1", "/proc/1": "99"} {
		if got := c.statusOf(dir).value["Seccomp_filters"]; got != want {
			t.Errorf("%s has %s filters, want %s", dir, got, want)
		}
	}
	if tried != len(triedCalls) {
		t.Errorf("%d calls were tried, want %d", tried, len(triedCalls))
	}
	if err := f.sys.Syscall("keyctl"); err != syscall.EPERM || tried != len(triedCalls) {
		t.Errorf("afterwards keyctl = %v, tried %d times in all, want what it was before", err, tried)
	}
	f.sys.Syscall = nil
	f.sys.Remember() // on another system there is nothing to try
}

// TestDetached: of a directory the contents are judged, and nothing that runs.
func TestDetached(t *testing.T) {
	t.Parallel()
	f := load(t, "hardened-scratch")
	f.sys.Detached = true
	for _, c := range f.run().Checks {
		i := slices.IndexFunc(checks, func(of Check) bool { return of.ID == c.ID })
		judged := checks[i].walks && c.ID != "device-nodes"
		if nothingRuns := strings.HasPrefix(c.Evidence+c.Reason, "nothing runs here"); nothingRuns == judged {
			t.Errorf("%s = %s, %s%s", c.ID, c.Status, c.Evidence, c.Reason)
		}
	}
}

// TestListed: words with commas, in lines that are not longer than they may be.
func TestListed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		words string
		width int
		want  string
	}{
		{"one", 80, "  one"},
		{"one two three", 80, "  one, two, three"},
		{"one two three", 11, "  one, two,\n  three"},
		{"one two three", 10, "  one,\n  two,\n  three"},
		{"longer-than-that x", 5, "  longer-than-that,\n  x"},
	} {
		if got := listed(strings.Fields(tc.words), tc.width); got != tc.want {
			t.Errorf("%q in %d columns: %q, want %q", tc.words, tc.width, got, tc.want)
		}
	}
}
