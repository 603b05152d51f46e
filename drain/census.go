package drain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A census counts the sockets of one address that no descriptor stands for.
type census struct {
	addr        *net.TCPAddr
	handshakes  int               // under way: the kernel has answered a SYN, and waits for the ACK
	stale       int               // of these, those that are not expected to end any more
	undelivered map[socketID]bool // closed, with bytes that the peer has not acknowledged
}

// A socketID names a connection of the port by its other end, in the kernel's own words.
type socketID string

// takeCensus asks the kernel for the sockets of addr, which is that of every interface if
// it is unspecified, and of the listener's family. Where the kernel does not answer, such as below a strict seccomp
// profile, it reads its tables below proc, which is /proc/self. That takes as much longer
// as there are other sockets.
func takeCensus(proc fs.FS, family uint8, addr *net.TCPAddr) (census, error) {
	all, err := askForCensus(family, addr)
	if err == nil {
		return all, nil
	}
	all, procErr := readCensus(proc, addr)
	if procErr != nil {
		return census{}, errors.Join(err, procErr)
	}
	return all, nil
}

// has says whether a socket with the local address ip counts.
func (all *census) has(ip net.IP) bool {
	return all.addr.IP == nil || all.addr.IP.IsUnspecified() || all.addr.IP.Equal(ip)
}

// The kernel answers a SYN anew after 1 s, 2 s more, 4 s more and so on (tcp(7),
// tcp_synack_retries). When it has done so twice the client counts as gone.
const (
	staleAfter = 2
	staleTimer = 2000 // milliseconds; only the third interval is longer
)

// The states of a socket, as the kernel numbers them everywhere (net/tcp_states.h).
const (
	tcpSynReceived = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpClose       = 7
	tcpLastAck     = 9
	tcpClosing     = 11
)

// add counts a socket: its state, whether its handshake is stale, the bytes that its peer
// has not acknowledged, and its inode, which is 0 when it was closed.
func (all *census) add(id socketID, state uint64, stale bool, unacknowledged, inode uint64) {
	switch state {
	case tcpSynReceived:
		all.handshakes++
		if stale {
			all.stale++
		}
	case tcpFinWait1, tcpClosing, tcpLastAck:
		// One byte is the FIN alone: that no more is to come the client also learns
		// from the length of its answer.
		if inode == 0 && unacknowledged > 1 {
			all.undelivered[id] = true
		}
	}
}

// askForCensus has the sockets dumped by sock_diag(7).
func askForCensus(family uint8, addr *net.TCPAddr) (census, error) {
	all := census{addr: addr, undelivered: map[socketID]bool{}}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return census{}, os.NewSyscallError("socket NETLINK_SOCK_DIAG", err)
	}
	defer unix.Close(fd)
	// The kernel answers at once, or never.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	if err := all.dump(fd, family); err != nil {
		return census{}, err
	}
	return all, nil
}

// The messages of linux/inet_diag.h.
type (
	diagID struct {
		sport, dport [2]byte // big-endian
		src, dst     [16]byte
		iface        uint32
		cookie       [2]uint32
	}
	diagRequest struct {
		unix.NlMsghdr
		family, protocol, ext, pad uint8
		states                     uint32 // a bit for each
		id                         diagID
	}
	diagMessage struct {
		family, state, timer, retrans       uint8
		id                                  diagID
		expires, rqueue, wqueue, uid, inode uint32
	}
)

// dump adds the sockets of one family.
func (all *census) dump(fd int, family uint8) error {
	request := diagRequest{
		NlMsghdr: unix.NlMsghdr{
			Len: uint32(unsafe.Sizeof(diagRequest{})), Type: unix.SOCK_DIAG_BY_FAMILY,
			Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP,
		},
		family: family, protocol: unix.IPPROTO_TCP,
		states: 1<<tcpSynReceived | 1<<tcpFinWait1 | 1<<tcpLastAck | 1<<tcpClosing,
	}
	binary.BigEndian.PutUint16(request.id.sport[:], uint16(all.addr.Port))
	bytesOf := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	if err := unix.Sendto(fd, bytesOf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto NETLINK_SOCK_DIAG", err)
	}
	buf := make([]byte, 8<<10) // the kernel sends no more at once (linux/netlink.h, NLMSG_GOODSIZE)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return os.NewSyscallError("recvfrom NETLINK_SOCK_DIAG", err)
		}
		if done, err := all.addAll(buf[:n]); done || err != nil {
			return err
		}
	}
}

// addAll adds the sockets of one answer of the kernel, and says whether it is the last.
func (all *census) addAll(rest []byte) (done bool, err error) {
	for len(rest) >= unix.SizeofNlMsghdr {
		h := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
		if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(rest) {
			return false, errors.New("NETLINK_SOCK_DIAG: a message without an end")
		}
		body := rest[unix.SizeofNlMsghdr:h.Len]
		switch h.Type {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errors.New("NETLINK_SOCK_DIAG: an error without a number")
			}
			errno := -int32(binary.NativeEndian.Uint32(body))
			return false, fmt.Errorf("NETLINK_SOCK_DIAG: %w", unix.Errno(errno))
		}
		if len(body) >= int(unsafe.Sizeof(diagMessage{})) {
			m := (*diagMessage)(unsafe.Pointer(&body[0]))
			// The count of retransmissions has those that the client has asked for by
			// another SYN, so the timer has to tell.
			ip := net.IP(m.id.src[:])
			if m.family == unix.AF_INET {
				ip = ip[:net.IPv4len]
			}
			if all.has(ip) {
				id := socketID(string(m.id.dst[:]) + string(m.id.dport[:]))
				all.add(id, uint64(m.state), m.expires > staleTimer, uint64(m.wqueue), uint64(m.inode))
			}
		}
		rest = rest[min(len(rest), (int(h.Len)+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	}
	return false, nil
}

// readCensus reads the kernel's tables (proc_pid_net(5)). A kernel without IPv6 has no
// second one.
func readCensus(proc fs.FS, addr *net.TCPAddr) (census, error) {
	all := census{addr: addr, undelivered: map[socketID]bool{}}
	for i, table := range []string{"net/tcp", "net/tcp6"} {
		content, err := fs.ReadFile(proc, table)
		if i > 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return census{}, err
		}
		all.read(content)
	}
	return all, nil
}

// read counts the lines of one table:
//
//	sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
//	0: 0100007F:1F40 0100007F:D2F0 04 00000A00:00000000 01:00000014 00000000 0 0 0 …
func (all *census) read(table []byte) {
	local := fmt.Appendf(nil, ":%04X", all.addr.Port)
	for line := range bytes.Lines(table) {
		// Most sockets are others', or connections; this finds them out cheaply.
		if !bytes.Contains(line[:min(len(line), 50)], local) {
			continue
		}
		fields := bytes.Fields(line)
		if len(fields) < 10 || !bytes.HasSuffix(fields[1], local) || !all.has(tableIP(fields[1])) {
			continue
		}
		queue, _, _ := bytes.Cut(fields[4], []byte(":"))
		all.add(socketID(fields[2]), number(fields[3], 16), number(fields[6], 16) >= staleAfter, number(queue, 16), number(fields[9], 10))
	}
}

// tableIP reads the address of a table: words of four bytes in the machine's own order.
func tableIP(field []byte) net.IP {
	text, _, _ := bytes.Cut(field, []byte(":"))
	var ip net.IP
	for ; len(text) >= 8; text = text[8:] {
		ip = binary.NativeEndian.AppendUint32(ip, uint32(number(text[:8], 16)))
	}
	return ip
}

func number(text []byte, base int) uint64 {
	n, _ := strconv.ParseUint(string(text), base, 64)
	return n
}

// A cookieJar knows whether the kernel has sent SYN cookies lately, in this network
// namespace: for any listener.
type cookieJar struct {
	mu      sync.Mutex
	looked  time.Time
	older   int // how many had been sent at the look before
	newer   int // at the last look
	problem error
}

// cookieAge is how far apart two looks are. A client that has not answered a cookie by
// then has gone.
const cookieAge = 10 * time.Second

// look notes how many there are now, if the last look is long enough ago.
func (j *cookieJar) look(proc fs.FS, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := j.looked.IsZero()
	if !first && now.Sub(j.looked) < cookieAge {
		return
	}
	j.looked = now
	sent, err := cookiesSent(proc)
	if err != nil {
		j.problem = err
		return
	}
	j.older, j.newer = j.newer, sent
	if first {
		j.older = sent
	}
}

// fresh says whether cookies were sent whose answers may still come.
func (j *cookieJar) fresh(proc fs.FS) (bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	sent, err := cookiesSent(proc)
	return sent > j.older, errors.Join(err, j.problem)
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
