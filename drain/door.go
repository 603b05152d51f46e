package drain

import (
	"errors"
	"fmt"
	"time"
)

// A door closes the listener: it keeps new handshakes out, and is closed when none is under
// way and the kernel's queue is empty.
type door struct {
	ln       *Listener
	began    time.Time
	filtered bool  // new SYNs are dropped
	open     error // why they are neither dropped nor refused
	cookies  bool  // clients may be about to answer SYN cookies

	looked     time.Time // when the kernel's tables were read
	next       time.Time // when they are read again
	found      census
	blind      error // why they cannot be read
	calm       bool  // nothing was under way at the last look
	closed     bool
	unfinished int       // handshakes that were not waited for any longer
	asked      time.Time // when delivered was
	seen       bool      // the kernel's tables were read since
}

// shutDoor keeps new handshakes out, while those under way go on.
//
// Binding refuses clients at once, but hides the listener also from those that answer a
// SYN cookie, as the kernel keeps nothing of these. So where cookies were sent the
// filter comes first, and binding only where there is no filter.
func (l *Listener) shutDoor(began time.Time) *door {
	l.inherit()
	d := &door{ln: l, began: began}
	d.cookies, _ = l.cookies.fresh(l.proc)
	l.shut.Store(true)
	if d.cookies && dropSYN(l.tcp) == nil {
		d.filtered = true
		return d
	}
	if d.open = bindToNothing(l.tcp); d.open == nil {
		return d
	}
	if err := dropSYN(l.tcp); err != nil {
		d.open = errors.Join(d.open, err)
		return d
	}
	d.filtered, d.open = true, nil
	return d
}

// census counts what the kernel has of this listener's.
func (l *Listener) census() (census, error) {
	found, err := takeCensus(l.proc, l.family, l.addr())
	for id := range l.inherited {
		delete(found.undelivered, id)
	}
	return found, err
}

// look asks the kernel, if it is time to, and closes the door when nothing was under way
// twice: for a moment a connection is neither a handshake nor queued.
func (d *door) look() {
	now := time.Now()
	if now.Before(d.next) {
		return
	}
	d.looked = now
	found, err := d.ln.census()
	d.found = found
	waiting := 0
	if !d.closed {
		var queueErr error
		waiting, queueErr = queued(d.ln.tcp)
		err = errors.Join(err, queueErr)
		d.blind = nil // what was missing before does not matter
	}
	d.blind = errors.Join(d.blind, err)
	// Where sockets are many, it takes long.
	d.next = time.Now().Add(pauseAfter(time.Since(now), look))
	if d.closed {
		return
	}
	if d.underWay(now) || waiting > 0 {
		d.calm = false
		return
	}
	d.closed, d.unfinished = d.calm, d.found.handshakes
	d.calm = true
}

// underWay says whether handshakes are, or may be, that have to be waited for.
func (d *door) underWay(now time.Time) bool {
	if d.blind != nil || d.filtered && d.cookies {
		return now.Sub(d.began) < cookieWait
	}
	return d.found.handshakes > d.found.stale && now.Sub(d.began) < handshakeWait
}

// delivered says whether the clients of all connections that this process has closed
// have got everything; now is when it is first asked. Not all of them were closed by the
// drain, which waits.
func (d *door) delivered(now time.Time) bool {
	if d.asked.IsZero() {
		d.asked, d.next = now, now
	}
	d.look()
	d.seen = d.closed && d.looked.After(d.asked)
	return d.seen && len(d.found.undelivered) == 0
}

// lossy says what was not checked.
func (d *door) lossy() error {
	var all []error
	add := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if d.open != nil {
		add("new handshakes went on until the listener closed, and one that came at that moment was reset: %w", d.open)
	}
	if d.blind != nil {
		add("handshakes under way and answers on their way cannot be seen: %w", d.blind)
	}
	if fresh, err := d.ln.cookies.fresh(d.ln.proc); err != nil {
		add("whether the kernel has sent SYN cookies cannot be seen: %w", err)
	} else if fresh || d.cookies {
		add("the kernel has sent SYN cookies, and a handshake that was answered by one cannot be seen")
	}
	if d.unfinished > 0 {
		add("%d handshakes did not end within %v", d.unfinished, handshakeWait)
	}
	if n := d.ln.veiled.Load(); n > 0 {
		add("%d connections were closed whose client had sent something by TLS, but no whole request", n)
	}
	switch {
	case !d.closed:
		add("the time was up before the kernel's queue was empty")
	case !d.seen:
		add("the time was up before all answers were seen to have arrived")
	}
	return errors.Join(all...)
}
