package drain

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// Both ways to take a census see the same.
func TestCensusOfARealPort(t *testing.T) {
	t.Parallel()
	const kept, closed = 3, 5
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for i := range kept + closed {
		d := net.Dialer{Control: smallBuffer}
		client, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { accepted.Close() })
		if _, err := accepted.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if i >= kept {
			accepted.Close()
		}
	}
	want := closed
	addr := ln.Addr().(*net.TCPAddr)
	if got, err := askForCensus(unix.AF_INET, addr); len(got.undelivered) != want || err != nil {
		t.Errorf("askForCensus() = %+v, %v, want %+v", got, err, want)
	}
	if got, err := readCensus(os.DirFS("/proc/self"), addr); len(got.undelivered) != want || err != nil {
		t.Errorf("readCensus() = %+v, %v, want %+v", got, err, want)
	}
	// Another address with the same port is another's.
	addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: addr.Port}
	if got, err := askForCensus(unix.AF_INET, addr); len(got.undelivered) != 0 || err != nil {
		t.Errorf("askForCensus(%v) = %+v, %v, want nothing", addr, got, err)
	}
	if got, err := readCensus(os.DirFS("/proc/self"), addr); len(got.undelivered) != 0 || err != nil {
		t.Errorf("readCensus(%v) = %+v, %v, want nothing", addr, got, err)
	}
}

func TestCensusOfManySockets(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	const n = 1000
	for i := range n {
		fmt.Fprintf(&table, "%4d: 0100007F:1F40 0100007F:%04X 03 00000000:00000000 01:00000063 00000000     0        0 0 1 0\n", i, i)
	}
	got, err := readCensus(fstest.MapFS{"net/tcp": {Data: []byte(table.String())}}, &net.TCPAddr{Port: 8000})
	if got.handshakes != n || err != nil {
		t.Errorf("readCensus() = %+v, %v, want %d handshakes", got, err, n)
	}
}

func TestCensus(t *testing.T) {
	t.Parallel()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	table := head +
		"   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0 100 0 0 10 0\n" +
		"   1: 0100007F:1F40 0100007F:D2F0 03 00000000:00000000 01:00000063 00000000     0        0 0 1 0\n" +
		"   2: 0100007F:1F40 0100007F:D2F1 03 00000000:00000000 01:00000063 00000002     0        0 0 1 0\n" +
		"   3: 0100007F:1F40 0100007F:D2F2 04 00000A00:00000000 01:00000014 00000000     0        0 0 2 0\n" +
		"   4: 0100007F:1F40 0100007F:D2F3 04 00000001:00000000 01:00000014 00000000     0        0 0 2 0\n" +
		"   5: 0100007F:1F40 0100007F:D2F4 01 00000A00:00000000 01:00000014 00000000     0        0 77 2 0\n" +
		"   6: 0100007F:1F41 0100007F:1F40 03 00000000:00000000 01:00000063 00000000     0        0 0 1 0\n" +
		"12345: 0100007F:1F40 0100007F:D2F5 06 00000000:00000000 03:00000063 00000000     0        0 0 3 0\n" +
		"   8: 0100007F:1F40 0100007F:D2F6 09 00000A00:00000000 01:00000014 00000000     0        0 0 2 0\n"
	table6 := head +
		"   0: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000100007F:D2F7 03 00000000:00000000 01:00000063 00000000     0        0 0 1 0\n"
	got, err := readCensus(fstest.MapFS{"net/tcp": {Data: []byte(table)}, "net/tcp6": {Data: []byte(table6)}}, &net.TCPAddr{Port: 8000})
	if got.handshakes != 3 || got.stale != 1 || len(got.undelivered) != 2 || err != nil {
		t.Errorf("readCensus() = %+v, %v, want 3 handshakes, 1 of them stale, and 2 undelivered", got, err)
	}
	if _, err := readCensus(fstest.MapFS{"net/tcp": {Data: []byte(table)}}, &net.TCPAddr{Port: 8000}); err != nil {
		t.Errorf("readCensus() without IPv6 = %v, want nil", err)
	}
	if _, err := readCensus(fstest.MapFS{}, &net.TCPAddr{Port: 8000}); err == nil {
		t.Error("readCensus() without /proc = nil, want an error")
	}
}

func TestCookiesSent(t *testing.T) {
	t.Parallel()
	proc := fstest.MapFS{"net/netstat": {Data: []byte("TcpExt: A SyncookiesSent B\nTcpExt: 1 22 3\nIpExt: C\nIpExt: 4\n")}}
	if got, err := cookiesSent(proc); got != 22 || err != nil {
		t.Errorf("cookiesSent() = %d, %v, want 22", got, err)
	}
	if _, err := cookiesSent(fstest.MapFS{"net/netstat": {Data: []byte("TcpExt: A\nTcpExt: 1\n")}}); err == nil {
		t.Error("cookiesSent() without a count = nil, want an error")
	}
}
