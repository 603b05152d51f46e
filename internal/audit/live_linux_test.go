package audit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLiveFileCapability(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(name, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	live := Live()
	if has, err := live.FileCapability(name[1:]); has || err != nil {
		t.Errorf("FileCapability(a plain file) = %t, %v, want false", has, err)
	}
	if has, err := live.FileCapability(name[1:] + "-missing"); has || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("FileCapability(no file) = %t, %v, want false and %v", has, err, fs.ErrNotExist)
	}
	// CAP_NET_BIND_SERVICE in the permitted set, of version 2 (capabilities(7)).
	capability := []byte{0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(name, "security.capability", capability, 0); err != nil {
		t.Skipf("file capabilities cannot be set here, for want of a right or of the kernel's support: %v", err)
	}
	if has, err := live.FileCapability(name[1:]); !has || err != nil {
		t.Errorf("FileCapability(a file with one) = %t, %v, want true", has, err)
	}
}

// Each call is made in a way that the kernel refuses even to root: an answer without an error would have done
// something.
func TestLiveCallsDoNothing(t *testing.T) {
	t.Parallel()
	live := Live()
	for _, name := range callNames() {
		var errno unix.Errno
		if err := live.Syscall(name); !errors.As(err, &errno) || errno == 0 {
			t.Errorf("%s = %v, want an errno", name, err)
		}
	}
}

func TestLiveStat(t *testing.T) {
	t.Parallel()
	live := Live()
	info, err := fs.Stat(live.FS, "dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if st, known := live.Stat(info); !known || st.Major != 1 || st.Minor != 3 || st.Nlink < 1 || st.Ino == 0 {
		t.Errorf("Stat(/dev/null) = %+v, %t, want device 1:3", st, known)
	}
	if _, known := live.Stat(noStat{}); known {
		t.Error("Stat knows what is no file of the kernel's")
	}
}

// noStat is information on a file that has nothing of stat(2).
type noStat struct{ fs.FileInfo }

func (noStat) Sys() any { return nil }

func TestLiveSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	live := Live()
	if err := live.Sleep(t.Context(), time.Millisecond); err != nil {
		t.Errorf("Sleep(1 ms) = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := live.Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("Sleep(cancelled) = %v, want %v", err, context.Canceled)
	}
}
