package main

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A drain stops a server without losing a request that a client has sent or is
// about to send on a connection that it has. net/http's Shutdown loses three
// kinds: what sits in the kernel's accept queue (closing a listener resets it),
// what comes on connections that were just accepted (go.dev/issue/75591), and
// what comes on a kept-alive connection as it is closed (go.dev/issue/23829).

// drainTimes are the parts of a drain.
type drainTimes struct {
	delay time.Duration // new connections are still served
	// quiet is how long no connection must have come before the listener closes;
	// handshakes that were under way are over by then.
	quiet time.Duration
	// grace is how long a kept-alive connection must have been idle before it
	// is closed: a client that is at work sends its next request sooner.
	grace   time.Duration
	timeout time.Duration // after the delay, what is left is cut
}

// appDrain are the times of the app listener.
func appDrain(cfg Config) drainTimes {
	return drainTimes{delay: cfg.DrainDelay, quiet: 20 * time.Millisecond, grace: 30 * time.Millisecond, timeout: cfg.ShutdownTimeout}
}

// opsDrain are those of the ops listener, which are shorter: a scraper comes
// every few seconds, and comes again; a scrape takes milliseconds, and by then
// Docker's patience is nearly over.
func opsDrain() drainTimes {
	return drainTimes{quiet: 5 * time.Millisecond, grace: 5 * time.Millisecond, timeout: time.Second}
}

const (
	// silentGrace is the chance that a connection gets to send its first byte.
	silentGrace = time.Second
	// drainPoll is how often a drain looks at its connections.
	drainPoll = 2 * time.Millisecond
)

// errDrained is what Accept returns when its queue is empty and stays so.
var errDrained = errors.New("listener drained")

// stopper is what the drains of one process share: the signals that end them at
// once, and what they had to cut.
type stopper struct {
	signals <-chan os.Signal
	second  atomic.Pointer[os.Signal] // the signal that ended the drain
	cut     atomic.Int64              // connections with a request that was cut
}

// abort notes the second signal.
func (st *stopper) abort(s os.Signal) { st.second.Store(&s) }

// aborted says whether a second signal has come.
func (st *stopper) aborted() bool { return st.second.Load() != nil }

// drain stops the server. For the delay it goes on accepting, while each response
// asks its client to leave. Then the listener stops, streams are told to end,
// and connections close as they fall idle. What is not done by the timeout is
// cut, and so is everything when a second signal comes.
func (s *server) drain(stop *stopper, times drainTimes) {
	began := time.Now()
	s.draining.Store(true)
	s.sleep(stop, times.delay)

	deadline := time.Now().Add(times.timeout)
	if err := s.ln.stop(times.quiet); err != nil {
		s.log.Warn("new handshakes go on until the listener closes, and one that comes at that moment is reset", "err", err)
	}
	end := sync.OnceFunc(func() { close(s.ending) })
	for time.Now().Before(deadline) && !stop.aborted() {
		s.settle(times)
		if s.served.Load() {
			end()
			if s.ln.count() == 0 {
				break
			}
		}
		s.sleep(stop, drainPoll)
	}
	end()
	cut := s.cutRest()
	stop.cut.Add(int64(cut))
	took := time.Since(began)
	s.metrics.drainDuration.WithLabelValues(s.name).Set(took.Seconds())
	s.log.Info("drained", "duration_seconds", took.Seconds(), "cut", cut)
}

// sleep waits for d or for a second signal.
func (s *server) sleep(stop *stopper, d time.Duration) {
	if d <= 0 || stop.aborted() {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case sig := <-stop.signals:
		stop.abort(sig)
	}
}

// settle sends away the connections that have nothing to finish.
//
// How long one has been idle is measured in looks, too: where the processor is
// scarce, a client's next request and this loop are late together.
func (s *server) settle(times drainTimes) {
	looks := int(times.quiet / drainPoll)
	for _, c := range s.ln.snapshot() {
		waited := c.waited()
		if waited < drainPoll {
			c.looks = 0
		}
		c.looks++
		if c.looks >= looks && (c.in(idle) && waited >= times.grace || c.in(silent) && waited >= silentGrace) {
			c.leave(drained)
		}
	}
}

// cutRest closes what is left, counts and logs it by phase, and returns how many
// connections had a request.
func (s *server) cutRest() int {
	requests, byPhase := 0, map[phase]int{}
	for _, c := range s.ln.snapshot() {
		byPhase[phase(c.phase.Load())]++
		if !c.in(silent, idle, lingering) || c.in(silent, idle) && c.hasInput() {
			requests++
		}
	}
	_ = s.http.Close()
	for _, c := range s.ln.snapshot() {
		c.Close() // hijacked connections are not the server's any more
	}
	for p, n := range byPhase {
		s.metrics.cut.WithLabelValues(s.name, p.String()).Add(float64(n))
		s.log.Warn("connections were cut at the end of the drain", "phase", p.String(), "connections", n)
	}
	return requests
}

// stop makes Accept return errDrained once the kernel's queue is empty, and has
// been for the quiet time. New handshakes are kept out first, as under load the
// queue would never be. Where that cannot be done, the first moment at which it is
// empty has to do.
func (l *listener) stop(quiet time.Duration) error {
	err := l.dropNewHandshakes()
	l.leaky.Store(err != nil)
	l.stopping.Store(int64(quiet))
	_ = l.SetDeadline(time.Now().Add(quiet)) // wakes the Accept that waits
	return err
}

// dropNewHandshakes keeps new SYNs from the listening socket, while handshakes
// that are under way and the queue go on.
//
// A socket that is bound to an interface gets no SYN from any other one, and the
// kernel does not ask whether there is an interface of that index (socket(7),
// SO_BINDTODEVICE). So nothing finds the listener any more, and clients are refused
// at once. Since Linux 5.7 that needs no privilege. Before, a filter does not
// either, but it needs CAP_NET_ADMIN in recent versions.
func (l *listener) dropNewHandshakes() error {
	const noInterface = 1<<31 - 1
	err := os.ErrClosed
	control(l.TCPListener, func(fd int) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noInterface)
	})
	if err == nil {
		return nil
	}
	return l.filterNewHandshakes()
}

// filterNewHandshakes attaches a classic BPF program to the listening socket that
// drops segments with SYN and without ACK. It is run on what starts with the TCP
// header, whose byte 13 has the flags (socket(7), SO_ATTACH_FILTER; RFC 9293, 3.1).
// It drops, so clients are refused at their second try.
func (l *listener) filterNewHandshakes() error {
	const syn, ack = 0x02, 0x10
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	var err error
	control(l.TCPListener, func(fd int) {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}

// queued is the number of connections that the kernel holds for Accept: for a
// listening socket tcpi_unacked is the length of that queue (linux/tcp.h,
// tcp_get_info). Only an empty queue may be closed.
func (l *listener) queued() int {
	n := 0
	control(l.TCPListener, func(fd int) {
		if info, err := unix.GetsockoptTCPInfo(fd, syscall.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int(info.Unacked)
		}
	})
	return n
}
