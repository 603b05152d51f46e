package drain

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDistance(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		info         *unix.TCPInfo
		want         distance
		idle, silent time.Duration
	}{
		"not known":              {nil, distance{trip: 400 * ms}, 4700 * ms, 6700 * ms},
		"not measured":           {&unix.TCPInfo{Min_rtt: 1}, distance{trip: 400 * ms}, 4700 * ms, 6700 * ms},
		"one machine":            {&unix.TCPInfo{Rtt: 40, Min_rtt: 20}, distance{40 * time.Microsecond, true}, 300*ms + 320*time.Microsecond, time.Second},
		"a busy machine":         {&unix.TCPInfo{Rtt: 80_000, Min_rtt: 499}, distance{80 * ms, true}, 500 * ms, time.Second},
		"just not a rack":        {&unix.TCPInfo{Rtt: 1000, Min_rtt: 500}, distance{trip: ms}, 1508 * ms, 3508 * ms},
		"no least trip":          {&unix.TCPInfo{Rtt: 1000}, distance{trip: ms}, 1508 * ms, 3508 * ms},
		"across the world":       {&unix.TCPInfo{Rtt: 300_000, Min_rtt: 250_000}, distance{trip: 300 * ms}, 3900 * ms, 5900 * ms},
		"what nobody can be off": {&unix.TCPInfo{Rtt: 900_000, Min_rtt: 250_000}, distance{trip: 400 * ms}, 4700 * ms, 6700 * ms},
	} {
		got := distanceOf(test.info)
		if got != test.want || got.idleGrace() != test.idle || got.silentGrace() != test.silent {
			t.Errorf("%s: %+v, graces %v and %v, want %+v, %v and %v",
				name, got, got.idleGrace(), got.silentGrace(), test.want, test.idle, test.silent)
		}
	}
}

// The binding alone keeps new handshakes out, and needs no privilege.
func TestBindingKeepsHandshakesOut(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	switch err := bindToNothing(ln.tcp); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOPROTOOPT):
		t.Skipf("kernel: this process may not bind to an interface: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	if conn, err := net.DialTimeout("tcp", ln.Addr().String(), patience); err == nil {
		conn.Close()
		t.Error("a new handshake finds the listener")
	}
}

// What is asked of a closed socket has an answer, which holds up no drain.
func TestClosedSocket(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	_ = c.TCPConn.Close()
	if tcpInfo(c.TCPConn) != nil || unread(c.TCPConn) || unsent(c.TCPConn) != 0 || !finAcknowledged(c.TCPConn) {
		t.Errorf("TCP_INFO %v, unread %t, unsent %d, acknowledged %t, want nothing, and that it is over",
			tcpInfo(c.TCPConn), unread(c.TCPConn), unsent(c.TCPConn), finAcknowledged(c.TCPConn))
	}
	if n, err := queued(c.TCPConn); err == nil {
		t.Errorf("queued() = %d, nil, want an error", n)
	}
}

func TestFINIsAcknowledged(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *conn, client net.Conn){
		"by a client that is still there": func(c *conn, _ net.Conn) { _ = c.TCPConn.CloseWrite() },
		"by one that closes first": func(c *conn, client net.Conn) {
			client.Close()
			_ = c.TCPConn.CloseWrite()
		},
		"by one that closes afterwards": func(c *conn, client net.Conn) {
			_ = c.TCPConn.CloseWrite()
			client.Close()
		},
		"by one that is gone": func(_ *conn, client net.Conn) {
			_ = client.(*net.TCPConn).SetLinger(0)
			client.Close()
		},
	} {
		c, client := connPair(t)
		if finAcknowledged(c.TCPConn) {
			t.Errorf("%s: before there is a FIN", name)
		}
		end(c, client)
		eventually(t, "acknowledged FIN, "+name, func() bool { return finAcknowledged(c.TCPConn) })
	}
}

func TestHandshakesAreWaitedFor(t *testing.T) {
	t.Parallel()
	began := time.Unix(1_000_000, 0)
	for name, test := range map[string]struct {
		door   door
		after  time.Duration
		expect bool
	}{
		"none":                           {door{}, 0, false},
		"one":                            {door{found: census{handshakes: 1}}, handshakeWait - 1, true},
		"one, for as long as any takes":  {door{found: census{handshakes: 1}}, handshakeWait, false},
		"one that is stale":              {door{found: census{handshakes: 1, stale: 1}}, 0, false},
		"one of two is stale":            {door{found: census{handshakes: 2, stale: 1}}, 0, true},
		"cookies that get in":            {door{filtered: true, cookies: true}, cookieWait - 1, true},
		"cookies that got in":            {door{filtered: true, cookies: true}, cookieWait, false},
		"cookies that do not get in":     {door{cookies: true}, 0, false},
		"a filter":                       {door{filtered: true}, 0, false},
		"some that cannot be seen":       {door{blind: errAny}, cookieWait - 1, true},
		"some that could not be seen":    {door{blind: errAny}, cookieWait, false},
		"one of a kernel that is silent": {door{blind: errAny, found: census{handshakes: 1}}, cookieWait, false},
	} {
		test.door.began = began
		if got := test.door.underWay(began.Add(test.after)); got != test.expect {
			t.Errorf("%s: underWay() = %t, want %t", name, got, test.expect)
		}
	}
	if handshakeWait != 3500*time.Millisecond {
		t.Errorf("handshakes are waited for %v, want two repetitions, after 1 s and 2 s more", handshakeWait)
	}
}

func TestLossySaysWhatWasNotSeen(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	c.ln.inherit()
	seen := door{ln: c.ln, closed: true, seen: true}
	if err := seen.lossy(); err != nil {
		t.Errorf("lossy() of a drain that saw everything = %v, want nil", err)
	}
	for want, change := range map[string]func(*door){
		"new handshakes went on until the listener closed, and one that came at that moment was reset: any error": func(d *door) {
			d.open = errAny
		},
		"handshakes under way and answers on their way cannot be seen: any error": func(d *door) { d.blind = errAny },
		"1 handshakes did not end within 3.5s":                                    func(d *door) { d.unfinished = 1 },
		"the time was up before the kernel's queue was empty":                     func(d *door) { d.closed = false },
		"the time was up before all answers were seen to have arrived":            func(d *door) { d.seen = false },
		"the kernel has sent SYN cookies, and a handshake that was answered by one cannot be seen": func(d *door) {
			d.cookies = true
		},
	} {
		d := seen
		change(&d)
		if err := d.lossy(); err == nil || err.Error() != want {
			t.Errorf("lossy() = %v, want %s", err, want)
		}
	}
	c.ln.veiled.Add(1)
	const veiled = "1 connections were closed whose client had sent something by TLS, but no whole request"
	if err := seen.lossy(); err == nil || err.Error() != veiled {
		t.Errorf("lossy() = %v, want %s", err, veiled)
	}
}

// The binding refuses at once; the filter is for answers to SYN cookies, which the binding
// would keep out.
func TestDoorIsShutByTheFilterOnlyWhereThereWereCookies(t *testing.T) {
	t.Parallel()
	for _, cookies := range []bool{false, true} {
		c, _ := connPair(t)
		tried, _ := connPair(t)
		if bindToNothing(tried.ln.tcp) != nil || dropSYN(tried.ln.tcp) != nil {
			t.Skip("kernel: this process may not use both")
		}
		c.ln.inherit()
		if cookies {
			c.ln.cookies.older = -1 // as if one had been sent since
		}
		if d := c.ln.shutDoor(time.Now()); d.open != nil || d.filtered != cookies {
			t.Errorf("cookies %t: open %v, filtered %t", cookies, d.open, d.filtered)
		}
	}
}
