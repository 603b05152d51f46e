package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// clocked is a connection that notes when its reads wake up.
type clocked struct {
	net.Conn
	wakes []time.Time
}

func (c *clocked) SetReadDeadline(t time.Time) error {
	c.wakes = append(c.wakes, t)
	return nil
}

// A wait is armed anew only if it would end too late, or within half of the period.
func TestWaitsAreNotArmedForNothing(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_000, 0)
	for _, tc := range []struct {
		name       string
		left       time.Duration // until the read wakes up
		period     time.Duration
		armedAgain bool
	}{
		{"just armed", time.Second, time.Second, false},
		{"more than half is left", 501 * time.Millisecond, time.Second, false},
		{"half is left", 500 * time.Millisecond, time.Second, true},
		{"it has passed", -time.Second, time.Second, true},
		{"a shorter period", time.Second, 900 * time.Millisecond, true},
	} {
		nc := &clocked{}
		c := newConn(New("", "", Options{}), nc)
		c.arm(at.Add(tc.left-time.Minute), time.Minute)
		c.arm(at, tc.period)
		if again := len(nc.wakes) == 2; again != tc.armedAgain {
			t.Errorf("%s: armed again is %v, want %v", tc.name, again, tc.armedAgain)
		}
		if last := nc.wakes[len(nc.wakes)-1]; last != c.wakeAt || tc.armedAgain && last != at.Add(tc.period) {
			t.Errorf("%s: it wakes up at %v, and knows of %v, want %v", tc.name, last, c.wakeAt, at.Add(tc.period))
		}
	}
}

// A wait for a header looks around each second, or as often as the header's own bound.
func TestPeriodOfAWait(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[time.Duration]time.Duration{
		0: tick, time.Millisecond: time.Millisecond, tick: tick, time.Minute: tick,
	} {
		c := newConn(New("", "", Options{HeaderTimeout: timeout}), &clocked{})
		c.x.c = c
		if got := c.x.period(); got != want {
			t.Errorf("with a bound of %v it is %v, want %v", timeout, got, want)
		}
	}
}

// A server is at fault if it is silent for the bound after it took the last of the request, and not
// while the request is not there. For 100 it is waited a second.
func TestWaitForAHeader(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second
	began := time.Unix(1_000, 0)
	for _, tc := range []struct {
		name               string
		limit, moved       time.Duration
		reading, expecting bool
		watch              func() error
		waited, next       time.Duration
		err                string
	}{
		{name: "at first", limit: limit, waited: time.Second, next: time.Second},
		{name: "less than a second is left", limit: limit, waited: limit - 300*time.Millisecond, next: 300 * time.Millisecond},
		{name: "next to nothing is left", limit: limit, waited: limit - 1, next: time.Millisecond},
		{name: "nothing is left", limit: limit, waited: limit, err: "silent"},
		{name: "the body was taken later", limit: limit, moved: 5 * time.Second, waited: 14 * time.Second, next: time.Second},
		{name: "the body was taken too long ago", limit: limit, moved: 5 * time.Second, waited: 15 * time.Second, err: "silent"},
		{name: "the client is waited for", limit: limit, reading: true, waited: time.Hour, next: time.Second},
		{name: "the client is there", limit: limit, watch: func() error { return nil }, waited: time.Second, next: time.Second},
		{name: "the client has gone", limit: limit, watch: func() error { return errReset }, waited: time.Second, err: "abandoned: reset"},
		{name: "no bound", waited: time.Hour, next: time.Second},
		{name: "100 may come", limit: time.Millisecond, expecting: true, waited: tick - 1, next: time.Millisecond},
		{name: "100 does not come", limit: limit, expecting: true, waited: tick, next: time.Second, err: errExpected.Error()},
	} {
		c := newConn(New("", "", Options{HeaderTimeout: tc.limit}), &clocked{})
		x := &Exchange{c: c, req: &Request{Watch: tc.watch}, began: began, expecting: tc.expecting}
		x.moved.Store(int64(tc.moved))
		x.reading.Store(tc.reading)
		next, err := x.onTick(began.Add(tc.waited))
		if said := fmt.Sprint(err); next != tc.next || said != cmp.Or(tc.err, "<nil>") {
			t.Errorf("%s: %v and %s, want %v and %q", tc.name, next, said, tc.next, tc.err)
		}
	}
}

// What a connection holds while it is idle is small, whatever it has carried.
func TestIdleConnectionsAreSmall(t *testing.T) {
	t.Parallel()
	c := newConn(New("", "", Options{}), nil)
	c.grow(bigBuffer)
	c.getBig()
	if c.big != nil {
		t.Error("a buffer of the header's that was large enough was replaced by a big one")
	}
	c.out = make([]byte, 0, 2*smallBuffer)
	c.rest()
	if len(c.buf) != smallBuffer || c.out == nil {
		t.Errorf("%d bytes to read into, and %d to write from, want %d and %d", len(c.buf), cap(c.out), smallBuffer, 2*smallBuffer)
	}
	c.out = make([]byte, 0, 2*smallBuffer+1)
	c.rest()
	if c.out != nil {
		t.Errorf("%d bytes are held of a large request, want none", cap(c.out))
	}
}

// Not beside others, as they would take of the same buffers.
func TestBigBuffersAreBounded(t *testing.T) {
	var taken []*[]byte
	for b := takeBig(); b != nil; b = takeBig() {
		taken = append(taken, b)
	}
	if len(taken) != mostBig {
		t.Errorf("%d big buffers were given, want %d", len(taken), mostBig)
	}
	for _, b := range taken {
		giveBig(b)
	}
	if b := takeBig(); b == nil {
		t.Error("none is given after all have come back")
	} else {
		giveBig(b)
	}
}

// An answer's body gets a big buffer where it fills a small one, and has a small one again where it may wait
// for long.
func TestAnswersHaveBuffersOfTheirSize(t *testing.T) {
	t.Parallel()
	of := func(n int) string { return strings.Repeat("x", n) }
	length := func(n int) string { return fmt.Sprintf("%sContent-Length: %d\r\n\r\n", ok, n) }
	for name, tc := range map[string]struct {
		parts         []string // each of which comes after the one before was read
		largest, last int
	}{
		"a length that fits":        {[]string{length(smallBuffer), of(smallBuffer)}, smallBuffer, smallBuffer},
		"a length that does not":    {[]string{length(smallBuffer + 1), of(smallBuffer + 1)}, bigBuffer, bigBuffer},
		"to the end, and short":     {[]string{ok + "\r\n", of(smallBuffer - 1)}, smallBuffer, smallBuffer},
		"to the end, and long":      {[]string{ok + "\r\n", of(100_000)}, bigBuffer, smallBuffer},
		"to the end, with a pause":  {[]string{ok + "\r\n", of(50_000), of(5)}, bigBuffer, smallBuffer},
		"chunks that are short":     {[]string{coded, strings.Repeat("5\r\nhello\r\n", 1000) + "0\r\n\r\n"}, smallBuffer, smallBuffer},
		"a chunk of a small buffer": {[]string{coded, "1000\r\n" + of(smallBuffer) + "\r\n0\r\n\r\n"}, smallBuffer, smallBuffer},
		"a long chunk, and a pause": {[]string{coded, "186a0\r\n" + of(100_000) + "\r\n", "5\r\nhello\r\n0\r\n\r\n"}, bigBuffer, smallBuffer},
	} {
		var answer []io.Reader
		for _, part := range tc.parts {
			answer = append(answer, strings.NewReader(part))
		}
		c := newConn(New("", "", Options{}), &cutShort{takes: 1 << 20, answer: io.MultiReader(answer...)})
		x, err := c.begin(&Request{Method: http.MethodGet}, false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.ReadHead(http.Header{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		largest := 0
		for err == nil {
			_, err = x.Next()
			largest = max(largest, len(c.buf))
		}
		if last := len(c.buf); err != io.EOF || largest != tc.largest || last != tc.last {
			t.Errorf("%s: %v, by at most %d bytes and %d at last, want the end, %d and %d", name, err, largest, last, tc.largest, tc.last)
		}
		x.Close()
	}
}

// cutShort is a connection that takes only so many bytes, and then has an answer, as when a
// server refuses a request by its first line.
type cutShort struct {
	net.Conn
	takes  int
	answer io.Reader
}

var errReset = errors.New("reset")

func (c *cutShort) Write(b []byte) (int, error) {
	if c.takes < len(b) {
		return c.takes, errReset
	}
	return len(b), nil
}
func (c *cutShort) Read(b []byte) (int, error)      { return c.answer.Read(b) }
func (c *cutShort) SetReadDeadline(time.Time) error { return nil }
func (c *cutShort) Close() error                    { return nil }

// An answer to a request that could not be sent whole counts; a request of which nothing has
// left can be sent again.
func TestRequestsThatAreRefusedInTheirHeader(t *testing.T) {
	t.Parallel()
	for takes, want := range map[int]bool{0: false, 1: true} {
		c := newConn(New("", "", Options{}), &cutShort{takes: takes, answer: strings.NewReader("HTTP/1.1 431 Too Large\r\n" + none)})
		x, err := c.begin(&Request{Method: http.MethodGet}, true, time.Now())
		if !want {
			var failure *Error
			if !errors.As(err, &failure) || failure.Reason != Closed || !failure.Untouched || !failure.Reused || !errors.Is(err, errReset) {
				t.Errorf("%d bytes sent: %+v, want closed, untouched and reused, by %v", takes, failure, errReset)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(x); got.err != nil || got.status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%d bytes sent: status %d, %v, want the answer", takes, got.status, got.err)
		}
	}
}
