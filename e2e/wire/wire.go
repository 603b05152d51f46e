// Package wire is a long wire on one machine. It joins two network namespaces by
// a TUN device in each and a loop that carries IP packets from one to the other,
// late, and drops some. It stands in for netem, which many kernels lack. It needs
// CAP_SYS_ADMIN and CAP_NET_ADMIN.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	device = "wire" // the name of the TUN device in each namespace
	mtu    = 1500
	// queued is how many packets each queue holds: the kernel's and the loop's.
	// The kernel drops what its queue has no room for.
	queued = 10_000
)

// Wire is two ends and what is between them.
type Wire struct {
	Server, Client *End

	delay    time.Duration // of a packet, in either direction
	loss     float64
	carried  atomic.Int64
	dropped  atomic.Int64
	carriers sync.WaitGroup
}

// End is a network namespace with the loopback device and the end of a wire.
type End struct {
	Addr string // its IPv4 address on the wire, the same for every wire

	namespace *os.File
	tun       *os.File
}

// New makes a wire. Packets take rtt/2 in each direction and keep their order. The share loss of them (0 to 1) is
// dropped; the seed decides which. An error is errors.ErrUnsupported where the kernel, or its rules for this process,
// do not allow a namespace or a TUN device.
func New(rtt time.Duration, loss float64, seed uint64) (*Wire, error) {
	server, err := newEnd("10.77.0.1")
	if err != nil {
		return nil, err
	}
	client, err := newEnd("10.77.0.2")
	if err != nil {
		return nil, errors.Join(err, server.close())
	}
	w := &Wire{Server: server, Client: client, delay: rtt / 2, loss: loss}
	w.carry(client.tun, server.tun, rand.New(rand.NewPCG(seed, 0)))
	w.carry(server.tun, client.tun, rand.New(rand.NewPCG(seed, 1)))
	return w, nil
}

// Close cuts the wire. The namespaces are gone when the last process and the last connection in them are.
func (w *Wire) Close() error {
	err := errors.Join(w.Server.close(), w.Client.close())
	w.carriers.Wait()
	return err
}

// Packets is how many packets have arrived so far, and how many have been dropped, by chance or as the kernel did not
// take them.
func (w *Wire) Packets() (carried, dropped int64) { return w.carried.Load(), w.dropped.Load() }

type packet struct {
	due  time.Time
	data []byte
}

// carry moves packets in one direction. The delay is the same for all, so a queue in the order of their coming is one
// in the order of their going.
func (w *Wire) carry(from, to *os.File, random *rand.Rand) {
	queue := make(chan packet, queued)
	w.carriers.Go(func() {
		defer close(queue)
		buffer := make([]byte, mtu)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return // it has been closed
			}
			due := time.Now().Add(w.delay)
			if random.Float64() < w.loss {
				w.dropped.Add(1)
				continue
			}
			queue <- packet{due, bytes.Clone(buffer[:n])}
		}
	})
	w.carriers.Go(func() {
		for p := range queue {
			sleepUntil(p.due)
			switch _, err := to.Write(p.data); {
			case err == nil:
				w.carried.Add(1)
			case !errors.Is(err, os.ErrClosed):
				w.dropped.Add(1)
			}
		}
	})
}

// sleepUntil asks the kernel: a sleep of Go's own is up to a millisecond too long.
func sleepUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		rest := unix.NsecToTimespec(d.Nanoseconds())
		_ = unix.Nanosleep(&rest, nil) // signals interrupt it
	}
}

func newEnd(addr string) (*End, error) {
	e := &End{Addr: addr}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w: %w", errors.ErrUnsupported, err)
		}
		var err error
		if e.namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if e.tun, err = openTUN(); err != nil {
			return fmt.Errorf("TUN device: %w: %w", errors.ErrUnsupported, err)
		}
		return configure(addr)
	})
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *End) close() error {
	var errs []error
	for _, f := range []*os.File{e.tun, e.namespace} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// openTUN makes the device in the thread's namespace. It goes with the file.
func openTUN() (*os.File, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := ioctl(fd, "TUNSETIFF", unix.TUNSETIFF, device, func(r *unix.Ifreq) {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Only now: the poller is never woken by a file that had no device when it got it.
	return os.NewFile(uintptr(fd), path), nil
}

// configure gives the devices of the thread's namespace their addresses and brings them up.
func configure(addr string) error {
	// Without this the kernel looks for IPv6 routers on the wire.
	if err := sysctl("net.ipv6.conf."+device+".disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ip, mask := net.ParseIP(addr).To4(), net.CIDRMask(24, 32)
	up := func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) }
	for _, step := range []struct {
		name    string
		request uint
		device  string
		set     func(*unix.Ifreq)
	}{
		{"SIOCSIFFLAGS", unix.SIOCSIFFLAGS, "lo", up},
		{"SIOCSIFADDR", unix.SIOCSIFADDR, device, func(r *unix.Ifreq) { _ = r.SetInet4Addr(ip) }},
		{"SIOCSIFNETMASK", unix.SIOCSIFNETMASK, device, func(r *unix.Ifreq) { _ = r.SetInet4Addr(mask) }},
		{"SIOCSIFMTU", unix.SIOCSIFMTU, device, func(r *unix.Ifreq) { r.SetUint32(mtu) }},
		{"SIOCSIFTXQLEN", unix.SIOCSIFTXQLEN, device, func(r *unix.Ifreq) { r.SetUint32(queued) }},
		{"SIOCSIFFLAGS", unix.SIOCSIFFLAGS, device, up},
	} {
		if err := ioctl(fd, step.name, step.request, step.device, step.set); err != nil {
			return err
		}
	}
	return nil
}

// ioctl sends a request of netdevice(7) about a device.
func ioctl(fd int, name string, request uint, device string, set func(*unix.Ifreq)) error {
	r, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	set(r)
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		return fmt.Errorf("ioctl %s %s: %w", name, device, err)
	}
	return nil
}

// onThread runs f on an OS thread that does nothing else. It is never unlocked, so it ends with the goroutine, and the
// namespace that it is in comes to nobody else.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// Do runs f on a thread that is in the end's namespace: the sockets that f makes are in that end, for as long as they
// live. Goroutines that f starts are elsewhere.
func (e *End) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(e.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// Start starts a process in the end. It must not ask for Pdeathsig: the thread that is its parent ends at once.
func (e *End) Start(cmd *exec.Cmd) error { return e.Do(cmd.Start) }

// Dial makes a TCP connection from the end to an address there or at the other end. The address has no names in it,
// as Go looks these up on other threads.
func (e *End) Dial(addr string, timeout time.Duration) (conn net.Conn, err error) {
	err = e.Do(func() error {
		conn, err = net.DialTimeout("tcp", addr, timeout)
		return err
	})
	return conn, err
}

// Listen listens in the end for TCP connections.
func (e *End) Listen(addr string) (ln net.Listener, err error) {
	err = e.Do(func() error {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	return ln, err
}

// Sysctl sets a kernel parameter of the end, as net.ipv4.tcp_syncookies.
func (e *End) Sysctl(name, value string) error {
	return e.Do(func() error { return sysctl(name, value) })
}

// sysctl sets a parameter of the thread's namespace: /proc/sys/net is that of who opens it.
func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
}
