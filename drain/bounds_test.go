package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stuff writes to a client that reads nothing until its kernel takes no more.
func stuff(t *testing.T, c *conn) {
	t.Helper()
	for range 1000 {
		_ = c.TCPConn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.TCPConn.Write(make([]byte, chunk)); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("a client that reads nothing takes everything")
}

func TestTimeInAPhaseCountsFromItsBeginning(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	c.ln.epoch = c.ln.epoch.Add(-time.Hour)
	c.enter(Idle)
	if got := c.waited(); got < 0 || got > patience {
		t.Errorf("waited() = %v, want the time since the phase began", got)
	}
}

func TestWhatIsReadDecidesThePhase(t *testing.T) {
	t.Parallel()
	type state struct {
		phase                 Phase
		veiled, ahead, unseen bool
	}
	for name, test := range map[string]struct {
		phase Phase
		plain bool
		read  string
		want  state
	}{
		"the first byte":                {Silent, true, "G", state{phase: Reading}},
		"an empty line at first":        {Silent, true, "\r\n", state{phase: Reading}},
		"the first byte below TLS":      {Silent, false, "G", state{phase: Silent, veiled: true}},
		"the next request":              {Idle, true, "G", state{phase: Reading}},
		"the next request below TLS":    {Idle, false, "G", state{phase: Reading}},
		"an empty line between":         {Idle, true, "\r\n", state{phase: Idle}},
		"half a header":                 {Reading, true, "ET", state{phase: Reading}},
		"a byte behind a request":       {Active, true, "G", state{phase: Active, ahead: true}},
		"a body, or more":               {Active, true, "GE", state{phase: Active, unseen: true}},
		"what a handler has taken":      {Hijacked, true, "G", state{phase: Hijacked}},
		"what comes behind the last":    {Lingering, true, "GE", state{phase: Lingering}},
		"a veiled one that takes shape": {Silent, false, "GET", state{phase: Silent, veiled: true}},
	} {
		c, _ := connPair(t)
		c.plain = test.plain
		c.enter(test.phase)
		c.afterRead([]byte(test.read))
		got := state{c.current(), c.veiled.Load(), c.ahead.Load(), c.pipeline.unseen}
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// net/http asks for less than its buffer takes if there is something in it.
func TestWhatNetHTTPHoldsIsARequestUnlessBlank(t *testing.T) {
	t.Parallel()
	const room = 4096
	for name, test := range map[string]struct {
		phase Phase
		tail  string
		held  int
		want  Phase
	}{
		"nothing":                        {Idle, "\r\n", 0, Idle},
		"nothing, behind a body":         {Idle, "lo", 0, Idle},
		"an empty line":                  {Idle, "\r\n", 2, Idle},
		"a bare line feed":               {Idle, "o\n", 1, Idle},
		"a byte":                         {Idle, "\nG", 1, Reading},
		"two bytes":                      {Idle, "GE", 2, Reading},
		"a byte behind a line feed":      {Idle, "\nG", 2, Reading},
		"more than is known":             {Idle, "\r\n", 3, Reading},
		"before the first request":       {Silent, "\x00\x00", 0, Silent},
		"while a request is being read":  {Reading, "GE", 2, Reading},
		"while one is being served":      {Active, "GE", 2, Active},
		"less than its buffer was known": {Idle, "GE", -100, Idle},
	} {
		c, _ := connPair(t)
		c.enter(test.phase)
		c.pipeline.room, c.pipeline.ended = room, 1
		copy(c.tail[:], test.tail)
		c.beforeRead(room - test.held)
		if got := c.current(); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		begun := test.want == Idle || test.want == Silent
		if want := max(room, room-test.held); begun && (c.pipeline.room != want || c.pipeline.ended != 0) {
			t.Errorf("%s: %+v, want a new count for a buffer of %d", name, c.pipeline, want)
		}
	}
}

func TestWhenAWriteIsGivenUp(t *testing.T) {
	t.Parallel()
	const timeout = 20 * time.Second
	for name, test := range map[string]struct {
		began, stalled time.Duration // ago; 0 for no stall
		taken          int64
		full           bool          // the client has not got everything
		by             time.Duration // from now on; 0 for no deadline of a handler
		want           bool
		wantStall      time.Duration // how long ago it began, roughly; 0 for none
	}{
		"the deadline of an earlier write":         {began: -time.Hour, want: true},
		"a client that has just stopped":           {began: time.Second, want: true, wantStall: time.Second},
		"a client that stopped long ago":           {began: time.Minute, wantStall: time.Minute},
		"no more than a moment":                    {began: time.Millisecond, want: true},
		"more than a moment":                       {began: time.Millisecond + 1, want: true, wantStall: time.Millisecond + 1},
		"the last moment":                          {began: timeout - 1, want: true, wantStall: timeout - 1},
		"the end":                                  {began: timeout, wantStall: timeout},
		"a stall of many writes":                   {began: time.Second, stalled: time.Minute, full: true, wantStall: time.Minute},
		"one that has taken nearly enough":         {began: time.Second, stalled: time.Minute, full: true, taken: chunk - 1, wantStall: time.Minute},
		"one that has taken enough":                {began: time.Second, stalled: time.Minute, full: true, taken: chunk, want: true, wantStall: time.Nanosecond},
		"one that has got everything by now":       {began: -time.Hour, stalled: time.Minute, want: true},
		"one that has, and a write that waited":    {began: time.Second, stalled: time.Minute, want: true},
		"one that has not, and a write that waits": {began: -time.Hour, stalled: time.Minute, full: true, want: true, wantStall: time.Minute},
		"a handler's deadline that has passed":     {began: -time.Hour, by: -time.Minute},
		"a handler's deadline to come":             {began: -time.Hour, by: time.Minute, want: true},
		"one that passes later than the timeout":   {began: time.Minute, by: time.Minute, wantStall: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := connPair(t)
			c.ln.epoch = c.ln.epoch.Add(-time.Hour)
			c.ln.writeTimeout = timeout
			if test.full {
				stuff(t, c)
			}
			now := time.Since(c.ln.epoch)
			if test.stalled != 0 {
				c.stall.begin(now - test.stalled)
				c.stall.taken.Store(test.taken)
			}
			if test.by != 0 {
				c.writeBy = time.Now().Add(test.by)
			}
			if got := c.mayGoOn(now-test.began, now); got != test.want {
				t.Errorf("mayGoOn() = %t, want %t", got, test.want)
			}
			if c.stall.isOn() != (test.wantStall != 0) {
				t.Fatalf("stall = %t, want %t", c.stall.isOn(), test.wantStall != 0)
			}
			since := now - time.Duration(c.stall.since.Load())
			if test.wantStall != 0 && (since > test.wantStall || since < test.wantStall-patience) {
				t.Errorf("the stall began %v ago, want %v", since, test.wantStall)
			}
		})
	}
}

// file has n bytes.
func file(t *testing.T, n int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(n); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFilesAreSentWhole(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ size, limit, want int64 }{
		{1000, 0, 0}, {1000, 10, 10}, {1000, 1000, 1000}, {1000, 1001, 1000}, {0, 1, 0},
		{3 * chunk, chunk, chunk}, {3 * chunk, chunk + 1, chunk + 1}, {3*chunk + 5, 4 * chunk, 3*chunk + 5},
	} {
		c, client := connPair(t)
		c.ln.writeTimeout = patience
		got := make(chan int64)
		go func() {
			n, _ := io.Copy(io.Discard, client)
			got <- n
		}()
		whole := &io.LimitedReader{R: file(t, test.size), N: test.limit}
		n, err := c.ReadFrom(whole)
		if n != test.want || err != nil || whole.N != test.limit-test.want {
			t.Errorf("ReadFrom(%d of %d) = %d, %v, %d left, want %d", test.limit, test.size, n, err, whole.N, test.want)
		}
		if c.broken.Load() || test.want > 0 && c.stall.isOn() != (test.want < test.limit) {
			t.Errorf("ReadFrom(%d of %d): broken %t, stall %t", test.limit, test.size, c.broken.Load(), c.stall.isOn())
		}
		_ = c.TCPConn.CloseWrite()
		if n := <-got; n != test.want {
			t.Errorf("the client got %d, want %d", n, test.want)
		}
	}
}

// A client that was slow before has to take a whole chunk of a file to count as quick.
func TestStallGoesOnOverFiles(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		size  int64
		stall bool
	}{{10, true}, {chunk, false}} {
		c, _ := connPair(t)
		c.ln.writeTimeout = patience
		c.stall.begin(1)
		if _, err := c.ReadFrom(&io.LimitedReader{R: file(t, test.size), N: test.size}); err != nil {
			t.Fatal(err)
		}
		if got := c.stall.isOn(); got != test.stall {
			t.Errorf("after %d bytes the stall is %t, want %t", test.size, got, test.stall)
		}
	}
}

func TestFileForAClientThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	size := int64(1000 * chunk)
	n, err := c.ReadFrom(&io.LimitedReader{R: file(t, size), N: size})
	if n == size || !errors.Is(err, os.ErrDeadlineExceeded) || !c.broken.Load() {
		t.Errorf("ReadFrom = %d, %v, broken %t, want a timeout", n, err, c.broken.Load())
	}
}

func TestHowLongALastWordIsWaitedFor(t *testing.T) {
	t.Parallel()
	const grace = 700 * time.Millisecond
	start := time.Unix(1_000_000, 0)
	for name, test := range map[string]struct {
		words        lastWords
		began, heard time.Duration // ago
		acknowledged bool
		unsent       int
		enough       bool // outside of a drain
		arrived      bool // in one
	}{
		"a client that closes":                   {words: lastWords{closed: true, idle: true}, acknowledged: true, enough: true, arrived: true},
		"one that closes before it has all":      {words: lastWords{closed: true}, unsent: 2, began: time.Minute, enough: true},
		"one that closes with the FIN to come":   {words: lastWords{closed: true, idle: true}, unsent: 1, began: grace, enough: true},
		"one that has closed for long":           {words: lastWords{closed: true, idle: true}, unsent: 1, began: grace + 1, enough: true, arrived: true},
		"one that has its answer":                {acknowledged: true, arrived: true},
		"an idle one":                            {words: lastWords{idle: true}, acknowledged: true, began: grace, heard: grace},
		"an idle one, for long":                  {words: lastWords{idle: true}, acknowledged: true, began: grace + 1, heard: grace + 1, arrived: true},
		"one that has not got all":               {unsent: 2, began: 3 * time.Second, heard: 3 * time.Second},
		"one that sends":                         {words: lastWords{sending: true}, acknowledged: true, began: 2 * time.Second, heard: grace},
		"one that has sent for long":             {words: lastWords{sending: true}, acknowledged: true, began: 2*time.Second + 1, arrived: true},
		"one that has paused":                    {words: lastWords{sending: true}, acknowledged: true, began: grace + 1, heard: grace + 1, arrived: true},
		"one that sends, with the FIN to come":   {words: lastWords{sending: true}, unsent: 1, began: grace + 1, heard: grace},
		"an idle one that sends":                 {words: lastWords{idle: true, sending: true}, acknowledged: true, began: grace + 1},
		"five seconds of silence":                {words: lastWords{sending: true}, unsent: 2, began: 5 * time.Second, heard: 5 * time.Second},
		"more of it":                             {words: lastWords{sending: true}, unsent: 2, began: 5*time.Second + 1, heard: 5*time.Second + 1, enough: true},
		"half a minute":                          {words: lastWords{sending: true}, unsent: 2, began: 30 * time.Second},
		"more than that":                         {words: lastWords{sending: true}, unsent: 2, began: 30*time.Second + 1, enough: true},
		"a gibibyte":                             {words: lastWords{sending: true, size: 1 << 30}, unsent: 2},
		"more than a gibibyte":                   {words: lastWords{sending: true, size: 1<<30 + 1}, unsent: 2, enough: true},
		"everything but the FIN, for short":      {unsent: 1, began: grace},
		"everything but the FIN, and its client": {unsent: 1, began: grace + 1, arrived: true},
	} {
		w := test.words
		w.grace, w.began, w.heard = grace, start.Add(-test.began), start.Add(-test.heard)
		if got := w.areEnough(start); got != test.enough {
			t.Errorf("%s: areEnough() = %t, want %t", name, got, test.enough)
		}
		if got := w.haveArrived(start, test.acknowledged, test.unsent); got != test.arrived {
			t.Errorf("%s: haveArrived() = %t, want %t", name, got, test.arrived)
		}
	}
	if minFINWait != 400*time.Millisecond {
		t.Errorf("a client far behind a near proxy has %v, want 400ms", minFINWait)
	}
}

func TestWhatComesBehindTheLastAnswerIsCounted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		phase       Phase
		body, ahead bool
		sends       string
		want        int64
	}{
		"idle":                {phase: Idle},
		"idle, and a request": {phase: Idle, sends: "G", want: 1},
		"nothing known of it": {phase: Silent},
		"its first request":   {phase: Silent, sends: "G", want: 1},
		"served":              {phase: Active},
		"served, and a request that net/http knows": {phase: Active, ahead: true, want: 1},
		"served, and a request":                     {phase: Active, sends: "G", want: 1},
		"served, and what may be its body":          {phase: Active, body: true, sends: "G"},
		"half a header":                             {phase: Reading, sends: "G"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, client := connPair(t)
			c.ln.draining.Store(true)
			c.enter(test.phase)
			c.mayHaveBody.Store(test.body)
			c.answered.Store(true)
			c.ahead.Store(test.ahead)
			if _, err := io.WriteString(client, test.sends); err != nil {
				t.Fatal(err)
			}
			eventually(t, "input", func() bool { return unread(c.TCPConn) == (test.sends != "") })
			if err := client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if got := c.ln.late.Load(); got != test.want {
				t.Errorf("late = %d, want %d", got, test.want)
			}
		})
	}
}

func TestWhoMakesRoom(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	const at = time.Hour
	for name, test := range map[string]struct {
		phase             Phase
		phaseAge          time.Duration
		stalled, awaiting time.Duration // ago; 0 for not
		full              bool
		order             int
		age               time.Duration
	}{
		"the last answer, just now":       {phase: Lingering, phaseAge: 20*ms - 1},
		"the last answer":                 {phase: Lingering, phaseAge: 20 * ms, order: hasAnswer, age: 20 * ms},
		"half a header, just now":         {phase: Reading, phaseAge: 20*ms - 1},
		"half a header":                   {phase: Reading, phaseAge: 20 * ms, order: slowHeader, age: 20 * ms},
		"idle, just now":                  {phase: Idle, phaseAge: 20*ms - 1},
		"idle":                            {phase: Idle, phaseAge: 20 * ms, order: idle, age: 20 * ms},
		"silent, just now":                {phase: Silent, phaseAge: 250*ms - 1},
		"silent":                          {phase: Silent, phaseAge: 250 * ms, order: silent, age: 250 * ms},
		"served":                          {phase: Active, phaseAge: time.Minute},
		"does not read, just now":         {phase: Active, stalled: 500*ms - 1, full: true},
		"does not read":                   {phase: Active, stalled: 500 * ms, full: true, order: slowToRead, age: 500 * ms},
		"did not read, and has":           {phase: Active, stalled: time.Minute},
		"did not read, has, and is slow":  {phase: Active, stalled: time.Minute, awaiting: time.Minute, order: slowToSend, age: time.Minute},
		"does not send, just now":         {phase: Active, awaiting: 500*ms - 1},
		"does not send":                   {phase: Active, awaiting: 500 * ms, order: slowToSend, age: 500 * ms},
		"does not read what was answered": {phase: Active, full: true},
		"hijacked":                        {phase: Hijacked, phaseAge: time.Minute},
	} {
		c, _ := connPair(t)
		c.enter(test.phase)
		c.since.Store(int64(at - test.phaseAge))
		if test.stalled != 0 {
			c.stall.begin(at - test.stalled)
		}
		if test.awaiting != 0 {
			c.awaiting.Store(int64(at - test.awaiting))
		}
		if test.full {
			stuff(t, c)
		}
		order, since := c.yields(at)
		if order != test.order || order != stay && since != at-test.age {
			t.Errorf("%s: order %d, since %v, want %d and %v", name, order, since, test.order, at-test.age)
		}
	}
}

// crowd is a listener with so many connections that are being served, of which so many
// are above the cap.
func crowd(t *testing.T, o Options, n, above int) *Listener {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	for i := range n {
		c := &conn{ln: ln}
		c.phase.Store(int32(Active))
		c.above.Store(i < above)
		ln.conns[c] = struct{}{}
	}
	ln.above = above
	return ln
}

// someone is a connection of the listener.
func (l *Listener) someone(above bool) *conn {
	for _, c := range l.snapshot() {
		if c.above.Load() == above {
			return c
		}
	}
	return nil
}

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options   Options
		n         int
		above, ok bool
	}{
		"no cap":             {Options{}, 5, false, true},
		"nobody":             {Options{MaxConns: 2}, 0, false, true},
		"the last one":       {Options{MaxConns: 2}, 1, false, true},
		"one too many":       {Options{MaxConns: 2}, 2, false, false},
		"the last spare one": {Options{MaxConns: 2, Spare: 2}, 3, true, true},
		"beyond the spare":   {Options{MaxConns: 2, Spare: 2}, 4, false, false},
	} {
		ln := crowd(t, test.options, test.n, 0)
		ln.fullSince = time.Now().Add(-2 * roomPatience) // its patience has ended
		if above, ok := ln.makeRoom(); above != test.above || ok != test.ok {
			t.Errorf("%s: makeRoom() = %t, %t, want %t, %t", name, above, ok, test.above, test.ok)
		}
	}
}

func TestNewConnectionWaitsForRoom(t *testing.T) {
	t.Parallel()
	ln := crowd(t, Options{MaxConns: 2}, 2, 0)
	let := make(chan bool, 1)
	go func() {
		_, ok := ln.makeRoom()
		let <- ok
	}()
	eventually(t, "somebody that waits", ln.pressed.Load)
	ln.forget(ln.someone(false))
	if !<-let || ln.pressed.Load() {
		t.Error("a new connection is refused although there was room in time")
	}
}

func TestRoomIsOnlyBelowTheCap(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		n, above int
		moves    bool
	}{{3, 1, false}, {2, 1, true}, {4, 2, false}, {3, 2, true}} {
		ln := crowd(t, Options{MaxConns: 2, Spare: 2}, test.n, test.above)
		c := ln.someone(true)
		left := test.above
		if test.moves {
			left--
		}
		if got := ln.takeIn(c); got != test.moves || ln.above != left {
			t.Errorf("%+v: takeIn() = %t, %d above, want %t, %d", test, got, ln.above, test.moves, left)
		}
	}
	ln := crowd(t, Options{MaxConns: 2, Spare: 2}, 4, 2)
	ln.forget(ln.someone(true))
	if ln.above != 1 {
		t.Errorf("when one of two has gone, %d are above the cap, want 1", ln.above)
	}
}

func TestRoomIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, pressed := range map[string]bool{"while nobody else waits": false, "while others wait outside": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eventually(t, "answer that there is room", func() bool {
				ln := crowd(t, Options{MaxConns: 1, Spare: 1}, 2, 1)
				ln.pressed.Store(pressed)
				ctx := context.WithValue(t.Context(), ctxKey{}, ln.someone(true))
				other := ln.someone(false)
				// A slow machine may be late, and then tries again.
				timer := time.AfterFunc(20*time.Millisecond, func() { ln.forget(other) })
				defer timer.Stop()
				return Room(ctx)
			})
		})
	}
}

func TestRoomIsNotWaitedForWhenItsClientHasGone(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []Kind
	ln := crowd(t, Options{MaxConns: 1, Spare: 1, Observe: func(e Event) {
		mu.Lock()
		seen = append(seen, e.Kind)
		mu.Unlock()
	}}, 2, 1)
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, ln.someone(true)))
	cancel()
	if Room(ctx) {
		t.Error("Room() = true although there is none")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 1 || seen[0] != Refused {
		t.Errorf("events = %v, want one refusal", seen)
	}
}

func TestOnlySoManyRefusedClientsAreHeardOut(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ before, after int64 }{{maxRefusals - 1, maxRefusals}, {maxRefusals, maxRefusals}} {
		c, client := connPair(t)
		c.ln.refusals.Store(test.before)
		c.ln.refuse(c.TCPConn)
		if got := c.ln.refusals.Load(); got != test.after {
			t.Errorf("after one more than %d, %d are heard out, want %d", test.before, got, test.after)
		}
		client.Close()
		eventually(t, "end of it", func() bool { return c.ln.refusals.Load() == test.before })
	}
}

func TestAcceptHasResumedAfterAWhile(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		failed  time.Duration // ago; 0 for never
		resumed bool
	}{{0, false}, {time.Millisecond, false}, {time.Minute, true}} {
		seen := make(chan Kind, 10)
		ln, err := Listen(t.Context(), "127.0.0.1:0", Options{Observe: func(e Event) { seen <- e.Kind }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		if test.failed != 0 {
			ln.failed = time.Now().Add(-test.failed)
		}
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
		close(seen)
		if got := <-seen == AcceptResumed; got != test.resumed {
			t.Errorf("failed %v ago: resumed %t, want %t", test.failed, got, test.resumed)
		}
		if news := !ln.failed.IsZero(); news != (test.failed != 0 && !test.resumed) {
			t.Errorf("failed %v ago: still news %t", test.failed, news)
		}
	}
	var pauses []time.Duration
	for pause := time.Duration(0); len(pauses) < 9; {
		pause = longer(pause)
		pauses = append(pauses, pause/time.Millisecond)
	}
	if want := [9]time.Duration{5, 10, 20, 40, 80, 160, 320, 500, 500}; [9]time.Duration(pauses) != want {
		t.Errorf("pauses = %d ms, want %d", pauses, want)
	}
}

// The kernel is asked for SYN cookies as long as connections come.
func TestCookiesAreLookedAtAsConnectionsCome(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	ln.inherit()
	ln.epoch = ln.epoch.Add(-time.Hour)
	long := time.Now().Add(-time.Hour)
	ln.cookies.looked = long
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := ln.Accept(); err != nil {
		t.Fatal(err)
	}
	if ln.cookies.looked.Equal(long) {
		t.Error("the last look is an hour ago, and a connection has come since")
	}
}

func TestClientsAreSentAwayWhenTheyAreSilent(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	info := func(ack, data uint32) *unix.TCPInfo { // 1 ms off: graces of 1508 and 3508 ms
		return &unix.TCPInfo{Rtt: 1000, Min_rtt: 1000, Last_ack_recv: ack, Last_data_recv: data}
	}
	for name, test := range map[string]struct {
		info   *unix.TCPInfo
		start  bool
		waited time.Duration
		want   bool
	}{
		"at work":                 {info(1507, 9000), false, 9000 * ms, false},
		"at work, by its data":    {info(9000, 1507), false, 9000 * ms, false},
		"has just been served":    {info(9000, 9000), false, 1508*ms - 1, false},
		"silent":                  {info(1508, 1508), false, 1508 * ms, true},
		"has just connected":      {info(3507, 3507), true, 9000 * ms, false},
		"has sent nothing so far": {info(3508, 3508), true, 3508 * ms, true},
	} {
		if got := hasBeenSilent(test.info, test.start, test.waited); got != test.want {
			t.Errorf("%s: hasBeenSilent() = %t, want %t", name, got, test.want)
		}
	}
}

func TestIdleConnectionIsLookedAtBeforeItIsSentAway(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	c.enter(Idle)
	eventually(t, "long silence", func() bool {
		info := tcpInfo(c.TCPConn)
		return info != nil && hasBeenSilent(info, false, c.waited())
	})
	for i := range leastLooks {
		if c.asked != stays {
			t.Fatalf("sent away after %d looks, want %d", i, leastLooks)
		}
		c.ln.dismissIdle()
	}
	if c.asked != drained {
		t.Errorf("not sent away after %d looks", leastLooks)
	}
}

func TestOnlookersHaveASecond(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		n, onlookers int
		since        time.Duration
		want         bool
	}{
		"nobody":                 {0, 0, 0, true},
		"an onlooker":            {1, 1, time.Second, false},
		"one, after a second":    {1, 1, time.Second + 1, true},
		"another, after an hour": {2, 1, time.Hour, false},
	} {
		ln := crowd(t, Options{}, test.n, 0)
		for _, c := range ln.snapshot()[:test.onlookers] {
			c.expendable.Store(true)
		}
		if got := ln.onlyExpendable(test.since); got != test.want {
			t.Errorf("%s: onlyExpendable() = %t, want %t", name, got, test.want)
		}
	}
}

// The documentation says how often a drain looks, and what that may cost.
func TestHowOftenADrainLooks(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(strings.ReplaceAll(string(doc), "\n//", "\n")), " ")
	for _, want := range []string{
		fmt.Sprintf("a look at all connections every %d ms, or twice as long as that takes", poll.Milliseconds()),
		fmt.Sprintf("the kernel's list of the port's sockets every %d ms, or twice as long as that takes", look.Milliseconds()),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("doc.go does not say %q", want)
		}
	}
	for took, want := range map[time.Duration]time.Duration{0: look, look / 2: look, look: 2 * look, time.Second: 2 * time.Second} {
		if got := pauseAfter(took, look); got != want {
			t.Errorf("pauseAfter(%v) = %v, want %v", took, got, want)
		}
	}
}

func TestByteThatCameBehindARequestIsTheNextOnes(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	c.enter(Active)
	c.ahead.Store(true)
	connState(c, http.StateIdle)
	if !c.pipeline.behind() || c.ahead.Load() || !c.phaseIs(Idle) {
		t.Errorf("behind %t, ahead %t, %v, want a request that has begun", c.pipeline.behind(), c.ahead.Load(), c.current())
	}
}

func TestDoubtfulWhereHeadersCannotBeTold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		p       pipeline
		chunked bool
		minor   int
		want    bool
	}{
		"a length":                          {p: pipeline{blurred: true}, minor: 1},
		"a coding":                          {p: pipeline{blurred: true}, chunked: true, minor: 1},
		"a coding, and a header with both":  {p: pipeline{blurred: true, twice: 1, coded: 1}, chunked: true, minor: 1, want: true},
		"a length, and a header with both":  {p: pipeline{blurred: true, twice: 1, coded: 1}, minor: 1},
		"HTTP/1.0":                          {p: pipeline{blurred: true}},
		"HTTP/1.0, and a coding":            {p: pipeline{blurred: true, coded: 1}, want: true},
		"HTTP/1.1, and another's coding":    {p: pipeline{blurred: true, coded: 1}, minor: 1},
		"not seen":                          {p: pipeline{unseen: true}, minor: 1},
		"not seen, with a coding":           {p: pipeline{unseen: true}, chunked: true, minor: 1, want: true},
		"not seen, of HTTP/1.0":             {p: pipeline{unseen: true}, want: true},
		"seen, with both":                   {p: pipeline{begun: 2, twice: 2, coded: 2}, chunked: true, minor: 1, want: true},
		"seen, with both in another header": {p: pipeline{begun: 2, twice: 3, coded: 3}, chunked: true, minor: 1},
	} {
		r := &http.Request{ProtoMajor: 1, ProtoMinor: test.minor}
		if test.chunked {
			r.TransferEncoding = []string{"chunked"}
		}
		if got := test.p.isDoubtful(r); got != test.want {
			t.Errorf("%s: isDoubtful() = %t, want %t", name, got, test.want)
		}
	}
}
