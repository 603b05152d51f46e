package drain

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A door that could not be shut is never said to be.
func TestDoorThatCannotBeShutIsOpen(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	ln.Close() // so that the kernel takes neither the binding nor the filter
	if err := bindToNothing(ln.tcp); !errors.Is(err, os.ErrClosed) {
		t.Errorf("bindToNothing() = %v, want that the listener is closed", err)
	}
	if err := dropSYN(ln.tcp); !errors.Is(err, os.ErrClosed) {
		t.Errorf("dropSYN() = %v, want that the listener is closed", err)
	}
	if d := ln.shutDoor(time.Now()); d.open == nil || d.filtered {
		t.Errorf("shutDoor() = open %v, filtered %t, want it open and not filtered", d.open, d.filtered)
	}
}

// The filter alone keeps new handshakes out, for kernels that do not take the binding.
func TestFilterKeepsHandshakesOut(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if err := dropSYN(ln.tcp); err != nil {
		t.Skipf("kernel: this process may attach no filter: %v", err)
	}
	if conn, err := net.DialTimeout("tcp", ln.Addr().String(), 200*time.Millisecond); err == nil {
		conn.Close()
		t.Error("a new handshake passes the filter")
	}
}
