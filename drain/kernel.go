package drain

import (
	"errors"
	"os"
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

// unstarted is the number of bytes that this kernel has not sent yet, as the peer's takes
// no more (SIOCOUTQNSD, Linux 3.2).
func unstarted(c syscall.Conn) int {
	n := 0
	control(c, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQNSD) })
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

// finAcknowledged says whether the peer's kernel has everything that was sent, FIN
// included, or the connection is over: a descriptor never sees TIME_WAIT, which is CLOSE
// to it (net/ipv4/tcp_minisocks.c, tcp_time_wait).
func finAcknowledged(c syscall.Conn) bool {
	info := tcpInfo(c)
	return info == nil || info.State == tcpFinWait2 || info.State == tcpClose
}

// queued is the number of connections that the kernel holds for Accept: for a
// listening socket tcpi_unacked is the length of that queue (net/ipv4/tcp.c,
// tcp_get_info).
func queued(ln syscall.Conn) (int, error) {
	info := tcpInfo(ln)
	if info == nil {
		return 0, errors.New("TCP_INFO of the listener cannot be had")
	}
	return int(info.Unacked), nil
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
	// nearGrace is more than near clients need: behind a proxy that ends TCP connections
	// itself the client may be far, and only the proxy is near.
	nearGrace   = 300 * time.Millisecond
	nearTripMax = 25 * time.Millisecond
	farGrace    = 1500 * time.Millisecond
	nearSilence = time.Second
	farSilence  = 3500 * time.Millisecond
)

// idleGrace is how long such a client may be silent between two requests although it is
// at work. It sends the next one a round trip after its answer left, and later if a
// segment is lost: the retransmission timeout is up to three round trips plus 200 ms, and
// doubles (RFC 6298, 2; net/tcp.h, TCP_RTO_MIN). Two losses in a row are covered.
func (d distance) idleGrace() time.Duration {
	if d.near {
		// What makes such a round trip long is a busy machine, or a delayed ACK.
		return nearGrace + 8*min(d.trip, nearTripMax)
	}
	return farGrace + 8*d.trip
}

// silentGrace is the same before the first request. A client that has just connected may
// still be starting; and one whose SYN was lost waits for 3 s before it repeats a request
// (RFC 6298, 5.7).
func (d distance) silentGrace() time.Duration {
	if d.near {
		return nearSilence
	}
	return farSilence + 8*d.trip
}
