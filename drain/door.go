package drain

import (
	"errors"
	"fmt"
	"time"
)

// A door is the listener's way to its end: new handshakes are kept out, and it is closed
// when none is under way and the kernel's queue is empty.
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
}

// shutDoor keeps new handshakes out, while those under way go on.
//
// Binding refuses clients at once, but hides the listener also from those that answer a
// SYN cookie, as the kernel keeps nothing of these. So where cookies were sent the
// filter comes first, and binding only where there is no filter.
func (l *Listener) shutDoor(began time.Time) *door {
	d := &door{ln: l, began: began, cookies: l.cookiesRisen()}
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

// cookiesRisen says whether the kernel has sent SYN cookies since the listener was made.
func (l *Listener) cookiesRisen() bool {
	sent, err := cookiesSent(l.proc)
	return err == nil && sent > l.cookies
}

// look reads the kernel's tables, if it is time to, and closes the door when nothing
// was under way twice: for a moment a connection is in neither table nor queue.
func (d *door) look() {
	now := time.Now()
	if now.Before(d.next) {
		return
	}
	d.looked = now
	found, err := takeCensus(d.ln.proc, portOf(d.ln))
	d.found = found
	if err != nil || !d.closed { // what was missing in between does not matter
		d.blind = err
	}
	// Where sockets are many, the tables are long.
	d.next = time.Now().Add(max(look, 4*time.Since(now)))
	if d.closed {
		return
	}
	underWay := d.found.handshakes > d.found.stale && now.Sub(d.began) < handshakeWait
	if d.blind != nil || d.filtered && d.cookies {
		underWay = now.Sub(d.began) < cookieWait
	}
	if underWay || queued(d.ln.tcp) > 0 {
		d.calm = false
		return
	}
	d.closed, d.unfinished = d.calm, d.found.handshakes
	d.calm = true
}

// delivered says whether the clients of all connections that this process has closed
// have got everything; now is when it is first asked. Not all of them were closed by the
// drain, which waits.
func (d *door) delivered(now time.Time) bool {
	if d.asked.IsZero() {
		d.asked = now
	}
	d.look()
	return d.closed && d.looked.After(d.asked) && d.found.undelivered == 0
}

// lossy says what was not checked.
func (d *door) lossy(served bool) error {
	var all []error
	if d.open != nil {
		all = append(all, fmt.Errorf("new handshakes went on until the listener closed, and one that came at that moment was reset: %w", d.open))
	}
	if d.blind != nil {
		all = append(all, fmt.Errorf("handshakes under way and answers on their way cannot be seen: %w", d.blind))
	}
	switch {
	case d.ln.cookiesErr != nil:
		all = append(all, fmt.Errorf("whether the kernel has sent SYN cookies cannot be seen: %w", d.ln.cookiesErr))
	case d.ln.cookiesRisen():
		all = append(all, errors.New("the kernel has sent SYN cookies, and a handshake that was answered by one cannot be seen"))
	}
	if d.unfinished > 0 {
		all = append(all, fmt.Errorf("%d handshakes did not end within %v", d.unfinished, handshakeWait))
	}
	if !d.closed && !served {
		all = append(all, errors.New("the time was up before the kernel's queue was empty"))
	}
	return errors.Join(all...)
}
