package drain

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// control runs f on the descriptor of c; a closed c runs nothing.
func control(c syscall.Conn, f func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// unread says whether bytes wait in the kernel that nobody has read: a request that
// the server does not know of yet (tcp(7), SIOCINQ).
func unread(c syscall.Conn) bool {
	n := 0
	control(c, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCINQ) })
	return n > 0
}

// unsent is the number of bytes that the peer's kernel has not acknowledged; a FIN
// counts as one (tcp(7), SIOCOUTQ).
func unsent(c syscall.Conn) int {
	n := 0
	control(c, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
	return n
}

// tcpInfo is what the kernel knows of a socket, or nil (tcp(7), TCP_INFO).
func tcpInfo(c syscall.Conn) *unix.TCPInfo {
	var info *unix.TCPInfo
	control(c, func(fd int) {
		if got, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			info = got
		}
	})
	return info
}

// The states of a socket, as TCP_INFO and /proc/net/tcp number them (net/tcp_states.h).
const (
	tcpSynReceived = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpTimeWait    = 6
	tcpClose       = 7
	tcpLastAck     = 9
	tcpClosing     = 11
)

// finAcknowledged says whether the peer's kernel has everything that was sent, FIN
// included, or the connection is over.
func finAcknowledged(c syscall.Conn) bool {
	info := tcpInfo(c)
	return info == nil || info.State == tcpFinWait2 || info.State == tcpTimeWait || info.State == tcpClose
}

// queued is the number of connections that the kernel holds for Accept: for a
// listening socket tcpi_unacked is the length of that queue (net/ipv4/tcp.c,
// tcp_get_info).
func queued(ln syscall.Conn) int {
	if info := tcpInfo(ln); info != nil {
		return int(info.Unacked)
	}
	return 0
}

// bindToNothing keeps new SYNs from a listening socket, while handshakes that are
// under way and the queue go on.
//
// A socket that is bound to an interface gets no SYN from any other one, and the
// kernel does not ask whether there is an interface of that index (socket(7),
// SO_BINDTODEVICE). So nothing finds the listener any more, and clients are refused at
// once. The acknowledgement of a SYN cookie does not find it either. Since Linux 5.7
// that needs no privilege.
func bindToNothing(ln syscall.Conn) error {
	const noInterface = 1<<31 - 1
	err := os.ErrClosed
	control(ln, func(fd int) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noInterface)
	})
	return os.NewSyscallError("setsockopt SO_BINDTOIFINDEX", err)
}

// dropSYN attaches a classic BPF program to a listening socket that drops segments with
// SYN and without ACK. It is run on what starts with the TCP header, whose byte 13 has
// the flags (socket(7), SO_ATTACH_FILTER; RFC 9293, 3.1). It drops, so clients are
// refused at their second try. In recent kernels it needs CAP_NET_ADMIN.
func dropSYN(ln syscall.Conn) error {
	const syn, ack = 0x02, 0x10
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	err := os.ErrClosed
	control(ln, func(fd int) {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}

// A census counts the sockets of one port that no descriptor stands for.
type census struct {
	handshakes  int // under way: the kernel has answered a SYN, and waits for the ACK
	stale       int // of these, those that are not expected to end any more
	undelivered int // closed by this process, with bytes that the peer has not acknowledged
}

// staleAfter is how many times the kernel has answered a SYN anew, after 1 s and 2 s
// more, before its client counts as gone (tcp(7), tcp_synack_retries).
const staleAfter = 2

// tables are where the kernel lists the sockets of this network namespace
// (proc_pid_net(5)).
var tables = []string{"net/tcp", "net/tcp6"}

// takeCensus reads the kernel's tables below proc, which is /proc/self. A kernel
// without IPv6 has no second table.
func takeCensus(proc fs.FS, port int) (census, error) {
	var all census
	for i, table := range tables {
		content, err := fs.ReadFile(proc, table)
		if i > 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return census{}, err
		}
		all.add(content, port)
	}
	return all, nil
}

// add counts the lines of one table:
//
//	sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
//	0: 0100007F:1F40 0100007F:D2F0 04 00000A00:00000000 01:00000014 00000000 0 0 0 …
func (all *census) add(table []byte, port int) {
	local := fmt.Appendf(nil, ":%04X ", port)
	for line := range bytes.Lines(table) {
		// Most sockets are others', or connections; this finds them out cheaply.
		if len(line) < 40 || !bytes.Contains(line[:min(len(line), 50)], local) {
			continue
		}
		fields := bytes.Fields(line)
		if len(fields) < 10 || !bytes.HasSuffix(fields[1], local[:5]) {
			continue
		}
		state, _ := strconv.ParseUint(string(fields[3]), 16, 8)
		queue, _, _ := bytes.Cut(fields[4], []byte(":"))
		waiting, _ := strconv.ParseUint(string(queue), 16, 32)
		closed := string(fields[9]) == "0" // it has no inode any more
		switch state {
		case tcpSynReceived:
			all.handshakes++
			if again, _ := strconv.ParseUint(string(fields[6]), 16, 32); again >= staleAfter {
				all.stale++
			}
		case tcpFinWait1, tcpClosing, tcpLastAck:
			// One is the FIN alone: that the client has no more to come it also
			// learns from the length of its answer.
			if closed && waiting > 1 {
				all.undelivered++
			}
		}
	}
}

// cookiesSent is how many SYN cookies the kernel has sent in this network namespace
// (proc_pid_net(5), netstat, TcpExt SyncookiesSent).
func cookiesSent(proc fs.FS) (int, error) {
	content, err := fs.ReadFile(proc, "net/netstat")
	if err != nil {
		return 0, err
	}
	// Pairs of lines: names, then values.
	lines := strings.Split(string(content), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if at := slices.Index(names, "SyncookiesSent"); at >= 0 && at < len(values) {
			return strconv.Atoi(values[at])
		}
	}
	return 0, errors.New("net/netstat has no SyncookiesSent")
}

// portOf is the port that ln listens on.
func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

// A distance is how far away a client is, in time.
type distance struct {
	trip time.Duration // the smoothed round trip (tcpi_rtt)
	near bool          // client and server share a machine, or a rack
}

const (
	// nearTrip is the round trip below which nothing is expected to be lost on the way.
	nearTrip = 500 * time.Microsecond
	// farTrip is the most that is reckoned with, so that a client cannot claim more by
	// acknowledging late. It stands for those of which the kernel has measured none,
	// which is where a segment of the handshake was sent twice (RFC 6298, 3).
	farTrip = 400 * time.Millisecond
)

// distanceOf reads the distance from what the kernel has measured.
func distanceOf(info *unix.TCPInfo) distance {
	if info == nil || info.Rtt == 0 {
		return distance{trip: farTrip}
	}
	trip := min(time.Duration(info.Rtt)*time.Microsecond, farTrip)
	least := time.Duration(info.Min_rtt) * time.Microsecond
	return distance{trip: trip, near: 0 < least && least < nearTrip}
}

const (
	nearGrace   = 50 * time.Millisecond
	farGrace    = 1500 * time.Millisecond
	silentGrace = time.Second
)

// grace is how long such a client may be silent although it is about to speak. A
// client that is at work sends its next request one round trip after its answer left,
// later if a segment is lost: the retransmission timeout is up to three round trips
// plus 200 ms, and doubles (RFC 6298, 2; net/tcp.h, TCP_RTO_MIN). Two losses in a row
// are covered.
func (d distance) grace() time.Duration {
	if d.near {
		return nearGrace + 8*d.trip
	}
	return farGrace + 8*d.trip
}
