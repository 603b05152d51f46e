package drain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Both ways to take a census see the same.
func TestCensusOfARealPort(t *testing.T) {
	t.Parallel()
	const kept, closed = 3, 200 // of which the kernel tells in more than one message
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
		if _, err := accepted.Write(make([]byte, 30_000)); err != nil {
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
	short := fstest.MapFS{"net/tcp": {Data: []byte(head +
		"1: 0100007F:1F40 0100007F:D2F1 03 00000000:00000000 01:00000063 00000000 0 0 0\n" + // no more than what is read
		"2: 0100007F:1F40 0100007F:D2F2 03 00000000:00000000 01:00000063 00000000 0 0\n")}}
	if got, err := readCensus(short, &net.TCPAddr{Port: 8000}); got.handshakes != 1 || err != nil {
		t.Errorf("readCensus() of short lines = %+v, %v, want the one handshake whose line is whole", got, err)
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
	for _, text := range []string{"TcpExt: A\nTcpExt: 1\n", "TcpExt: A SyncookiesSent\nTcpExt: 1\n", "TcpExt: SyncookiesSent\n"} {
		if _, err := cookiesSent(fstest.MapFS{"net/netstat": {Data: []byte(text)}}); err == nil {
			t.Errorf("cookiesSent() of %q = nil, want an error", text)
		}
	}
}

// sent is a /proc of a kernel that has sent so many SYN cookies.
func sent(n int) fstest.MapFS {
	return fstest.MapFS{"net/netstat": {Data: fmt.Appendf(nil, "TcpExt: SyncookiesSent\nTcpExt: %d\n", n)}}
}

func TestCookiesAreFreshUntilTheirClientsHaveGone(t *testing.T) {
	t.Parallel()
	var jar cookieJar
	check := func(n int, want bool) {
		t.Helper()
		if got, err := jar.fresh(sent(n)); got != want || err != nil {
			t.Errorf("fresh() = %t, %v, want %t", got, err, want)
		}
	}
	start := time.Unix(1_000_000, 0)
	jar.look(sent(5), start)
	check(5, false) // those that were sent before the start are another's
	check(6, true)
	for range 2 {
		jar.look(sent(6), start.Add(10*time.Second-1)) // too early to count
	}
	check(6, true)
	jar.look(sent(7), start.Add(10*time.Second))
	check(7, true)
	jar.look(sent(7), start.Add(20*time.Second))
	check(7, false)

	jar.look(fstest.MapFS{}, start.Add(30*time.Second))
	if _, err := jar.fresh(sent(7)); err == nil {
		t.Error("fresh() after a look that failed = nil, want its error")
	}
}

// dumped is a message of sock_diag(7), padded as the kernel does.
func dumped(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, make([]byte, unix.SizeofNlMsghdr-len(b))...)
	b = append(b, body...)
	return append(b, make([]byte, (unix.NLMSG_ALIGNTO-len(b)%unix.NLMSG_ALIGNTO)%unix.NLMSG_ALIGNTO)...)
}

// dumpedSocket is one of 127.0.0.1, with the client's port, as linux/inet_diag.h has it.
func dumpedSocket(state uint8, port uint16, expires, wqueue, inode uint32) []byte {
	m := diagMessage{family: unix.AF_INET, state: state, expires: expires, wqueue: wqueue, inode: inode}
	copy(m.id.src[:], []byte{127, 0, 0, 1})
	binary.BigEndian.PutUint16(m.id.dport[:], port)
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)))
}

func TestDumpOfSockets(t *testing.T) {
	t.Parallel()
	const family = unix.SOCK_DIAG_BY_FAMILY
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	handshake := dumpedSocket(tcpSynReceived, 1, 0, 0, 0)
	want := func(n, stale, undelivered int) [3]int { return [3]int{n, stale, undelivered} }
	number := func(errno unix.Errno) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno))) }
	for name, test := range map[string]struct {
		answer []byte
		want   [3]int
		done   bool
		err    error // or any, which errAny stands for
	}{
		"nothing":               {},
		"the end":               {answer: dumped(unix.NLMSG_DONE, make([]byte, 4)), done: true},
		"the end without more":  {answer: dumped(unix.NLMSG_DONE, nil), done: true},
		"a handshake":           {answer: dumped(family, handshake), want: want(1, 0, 0)},
		"two, and the end":      {answer: join(dumped(family, handshake), dumped(family, handshake), dumped(unix.NLMSG_DONE, nil)), want: want(2, 0, 0), done: true},
		"attributes behind it":  {answer: join(dumped(family, append(bytes.Clone(handshake), 1, 2, 3, 4, 5)), dumped(family, handshake)), want: want(2, 0, 0)},
		"the second interval":   {answer: dumped(family, dumpedSocket(tcpSynReceived, 1, staleTimer, 0, 0)), want: want(1, 0, 0)},
		"the third interval":    {answer: dumped(family, dumpedSocket(tcpSynReceived, 1, staleTimer+1, 0, 0)), want: want(1, 1, 0)},
		"a FIN alone":           {answer: dumped(family, dumpedSocket(tcpFinWait1, 1, 0, 1, 0))},
		"a byte and a FIN":      {answer: dumped(family, dumpedSocket(tcpFinWait1, 1, 0, 2, 0)), want: want(0, 0, 1)},
		"one that is open":      {answer: dumped(family, dumpedSocket(tcpFinWait1, 1, 0, 2, 77))},
		"two clients' bytes":    {answer: join(dumped(family, dumpedSocket(tcpLastAck, 1, 0, 2, 0)), dumped(family, dumpedSocket(tcpClosing, 2, 0, 2, 0))), want: want(0, 0, 2)},
		"half a socket":         {answer: dumped(family, handshake[:len(handshake)-4])},
		"half a header":         {answer: dumped(family, handshake)[:unix.SizeofNlMsghdr-1]},
		"half a message":        {answer: dumped(family, handshake)[:unix.SizeofNlMsghdr+8], err: errAny},
		"a message of no size":  {answer: make([]byte, unix.SizeofNlMsghdr), err: errAny},
		"an error":              {answer: dumped(unix.NLMSG_ERROR, number(unix.EPERM)), err: unix.EPERM},
		"an error and no cause": {answer: dumped(unix.NLMSG_ERROR, nil), err: errAny},
		"what is not known":     {answer: join(dumped(unix.NLMSG_NOOP, nil), dumped(family, handshake)), want: want(1, 0, 0)},
	} {
		all := census{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, undelivered: map[socketID]bool{}}
		done, err := all.addAll(test.answer)
		got := want(all.handshakes, all.stale, len(all.undelivered))
		if got != test.want || done != test.done || !errors.Is(err, test.err) && (test.err != errAny || err == nil) {
			t.Errorf("%s: %v, done %t, %v, want %v, done %t, %v", name, got, done, err, test.want, test.done, test.err)
		}
	}
}

var errAny = errors.New("any error")

// Where neither the kernel nor /proc answers, there is an error, and not a census of nothing.
func TestCensusThatCannotBeTakenIsAnError(t *testing.T) {
	t.Parallel()
	const noFamily = 255
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	if got, err := takeCensus(fstest.MapFS{}, noFamily, addr); err == nil {
		t.Errorf("takeCensus() = %+v, nil, want an error", got)
	}
	proc := fstest.MapFS{"net/tcp": {Data: []byte("1: 0100007F:0001 0100007F:D2F1 03 00000000:00000000 01:00000063 00000000 0 0 0 1 0\n")}}
	if got, err := takeCensus(proc, noFamily, addr); got.handshakes != 1 || err != nil {
		t.Errorf("takeCensus() with /proc alone = %+v, %v, want 1 handshake", got, err)
	}
}
