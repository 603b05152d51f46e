package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"

	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imagelab/drain"
	"imagelab/internal/upstream"
)

// front passes requests on to an upstream, whatever their path. docs/front.md says what it
// does when that fails.
type front struct {
	backend  backend
	wait     time.Duration // Config.UpstreamWait
	trusted  prefixList
	patience time.Duration // Config.ReadTimeout
	maxBody  int64         // Config.MaxBody if it is set, or more than there can be
	metrics  *frontMetrics
	failed   func() // is told of each request that the upstream has failed
	log      *slog.Logger
	lines    lineBudget
	epoch    time.Time
	passages sync.Pool
}

// newFront makes the front of a backend. The upstream has bounds of its own, so that
// Config.MaxBody counts only if boundsBodies says that it was asked for.
func newFront(b backend, cfg Config, boundsBodies bool, failed func(), m *frontMetrics, log *slog.Logger) *front {
	f := &front{
		backend: b, wait: cfg.UpstreamWait, trusted: cfg.TrustedProxies, patience: cfg.ReadTimeout, maxBody: math.MaxInt64,
		metrics: m, failed: failed, log: log.With("server", "app"), epoch: time.Now(),
	}
	if boundsBodies {
		f.maxBody = int64(cfg.MaxBody)
	}
	f.passages.New = func() any { return newPassage(f) }
	return f
}

// newPool makes the connections to an upstream.
func newPool(network, address string, cfg Config) *upstream.Pool {
	return upstream.New(network, address, upstream.Options{
		Idle: cfg.UpstreamIdle, DialTimeout: max(cfg.UpstreamWait, time.Second), HeaderTimeout: cfg.UpstreamTimeout,
	})
}

// ServeHTTP passes one request on, and its answer back.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := f.passages.Get().(*passage)
	p.begin(w, r)
	defer p.end()
	p.serve()
}

// passage is one request on its way. It is used again: what it hands to internal/upstream
// as functions is made once.
type passage struct {
	f     *front
	w     http.ResponseWriter
	r     *http.Request
	req   upstream.Request
	to    *destination
	x     *upstream.Exchange
	body  clientBody
	began time.Duration // since f.epoch

	trusted    bool // the client is one of Config.TrustedProxies
	expects100 bool
	committed  bool // the answer's header is written
	alone      int  // seconds in which nothing has come for a client that sends no more
}

func newPassage(f *front) *passage {
	p := &passage{f: f}
	p.req.Watch = p.watch
	p.req.BeforeWait = p.flush
	p.req.UnblockBody = p.unblockBody
	p.req.Trailer = p.trailer
	return p
}

func (p *passage) begin(w http.ResponseWriter, r *http.Request) {
	p.w, p.r = w, r
	p.began = time.Since(p.f.epoch)
	p.to, p.x = nil, nil
	p.trusted, p.expects100, p.committed, p.alone = false, false, false, 0
}

// end gives back what the request has taken, also after a panic.
func (p *passage) end() {
	if p.x != nil {
		p.x.Close()
	}
	if p.to != nil {
		p.to.release()
	}
	p.w, p.r, p.to, p.x = nil, nil, nil, nil
	p.body = clientBody{}
	p.req.Header, p.req.Body = nil, nil
	p.f.passages.Put(p)
}

func (p *passage) flush() { _ = http.NewResponseController(p.w).Flush() }

func (p *passage) unblockBody() { p.body.unblock() }

// mostTries is how often a request is sent at most.
const mostTries = 3

// serve passes the request on, a second time if nothing can have come of the first. A kept
// connection that had ended does not count: a program that dies closes those as well as the
// one after them.
func (p *passage) serve() {
	if p.r.ContentLength > p.f.maxBody {
		p.refuseLength()
		return
	}
	p.request()
	failed := 0 // on new connections
	for tries := 1; ; tries++ {
		err := p.send()
		if err == nil {
			var status int
			if status, err = p.head(); err == nil {
				p.answer(status)
				return
			}
		}
		var failure *upstream.Error
		if !errors.As(err, &failure) || !failure.Reused {
			failed++
		}
		if failed > 1 || tries == mostTries || !p.mayRepeat(err) {
			p.refuse(err)
			return
		}
		p.f.metrics.repeated.Inc()
		p.letGo()
	}
}

// letGo ends a try.
func (p *passage) letGo() {
	if p.x != nil {
		p.x.Close()
		p.x = nil
	}
	if p.to != nil {
		p.to.release()
		p.to = nil
	}
}

// mayRepeat says whether the request can be sent once more. The connection ended without a
// byte of an answer, and either no byte of the request has left, or it is idempotent and has no
// body.
func (p *passage) mayRepeat(err error) bool {
	var failure *upstream.Error
	if !errors.As(err, &failure) || failure.Reason != upstream.Closed || p.r.Context().Err() != nil {
		return false
	}
	return failure.Untouched || !p.req.Once
}

// isIdempotent says whether to act on a request twice is to act on it once (RFC 9110, 9.2.2).
func isIdempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// send sends the request to a destination, and waits for one that is not there.
func (p *passage) send() error {
	from := time.Now()
	d, err := p.f.backend.acquire(endedContext)
	if err == nil {
		p.to = d
		p.x, err = d.pool.Begin(context.Background(), &p.req)
	}
	if err == nil || !isNotThere(err) {
		return err
	}
	return p.sendLater(err, from.Add(p.f.wait))
}

// endedContext is that of somebody who does not wait.
var endedContext = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// isNotThere says whether no destination took the request.
func isNotThere(err error) bool {
	var failure *upstream.Error
	return !errors.As(err, &failure) || failure.Reason == upstream.NotThere
}

// sendLater waits for a destination until a moment, or until the server waits for its streams
// to end. The error is why it has to.
func (p *passage) sendLater(err error, until time.Time) error {
	p.f.metrics.waiting.Inc()
	defer p.f.metrics.waiting.Dec()
	ending, cancel := untilEnding(p.r)
	defer cancel()
	ctx, cancel := context.WithDeadline(ending, until)
	defer cancel()
	for ctx.Err() == nil {
		if p.to != nil {
			p.to.awaitAccepting(ctx)
		}
		p.letGo()
		if drain.Gone(p.r.Context()) {
			panic(http.ErrAbortHandler)
		}
		d, failure := p.f.backend.acquire(ctx)
		if failure != nil {
			return err
		}
		p.to = d
		p.x, failure = d.pool.Begin(ctx, &p.req)
		if failure == nil || !isNotThere(failure) {
			return failure
		}
		if ctx.Err() == nil { // then it says more than that the time is up
			err = failure
		}
	}
	return err
}

// head waits for the header of the final answer, and passes on those before it.
func (p *passage) head() (status int, err error) {
	h := p.w.Header()
	for {
		status, err = p.x.ReadHead(h)
		switch {
		case err != nil:
			return 0, err
		case status == http.StatusContinue:
			if p.r.ProtoAtLeast(1, 1) {
				p.w.WriteHeader(status)
			}
			p.x.SendBody()
		case status >= 200 || status == http.StatusSwitchingProtocols:
			p.f.metrics.header.Observe((time.Since(p.f.epoch) - p.began).Seconds())
			return status, nil
		case p.r.ProtoAtLeast(1, 1): // RFC 9110, 15.2
			p.w.WriteHeader(status)
		}
		clear(h)
	}
}

// noType keeps net/http from guessing the type of an answer that has none.
var noType = []string(nil)

// trail passes the trailers on. net/http gives a small body a length instead, unless it has been
// flushed, and has a field of the header for each trailer that was announced.
func (p *passage) trail(h http.Header) {
	trailer := p.x.Trailer()
	if len(trailer) > 0 && p.r.ProtoAtLeast(1, 1) {
		p.flush()
	}
	for _, line := range h["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for name, values := range trailer {
		h[http.TrailerPrefix+name] = values
	}
}

// answer passes the final answer on. Half of one is made to look like that.
func (p *passage) answer(status int) {
	if status == http.StatusSwitchingProtocols {
		p.tunnel()
		return
	}
	h := p.w.Header()
	if _, typed := h["Content-Type"]; !typed {
		h["Content-Type"] = noType
	}
	if !p.x.HasWholeRequest() {
		// An early answer. Nobody knows where the next request would begin.
		h["Connection"] = []string{"close"}
	}
	if !p.r.ProtoAtLeast(1, 1) {
		delete(h, "Trailer") // there can be none
	}
	if isEventStream(h) {
		defer p.endWithServer()()
	}
	p.w.WriteHeader(status)
	p.committed = true
	for {
		piece, err := p.x.Next()
		if len(piece) > 0 {
			p.alone = 0
			if _, err := p.w.Write(piece); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		switch {
		case err == io.EOF:
			p.trail(h)
			return
		case err != nil:
			if isEventStream(h) && p.isEnding() {
				return
			}
			p.cut(err)
		}
	}
}

// cut ends half an answer, of which the client gets what has come.
func (p *passage) cut(err error) {
	p.fail(err)
	p.flush()
	if !p.r.ProtoAtLeast(1, 1) {
		drain.Reset(p.r.Context()) // the end of the connection is that of the answer
	}
	panic(http.ErrAbortHandler)
}

// isEventStream says whether the answer goes on until somebody leaves, and can be resumed by
// its client (HTML, server-sent events).
func isEventStream(h http.Header) bool {
	for _, value := range h["Content-Type"] {
		kind, _, _ := strings.Cut(value, ";")
		return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
	}
	return false
}

// endWithServer ends the wait for more of a stream when the server waits for its streams to
// end, or another destination has taken the place of this one.
func (p *passage) endWithServer() (stop func()) {
	interrupt, ending, quit, done := p.x.Interrupter(), drain.Ending(p.r.Context()), p.to.quit, make(chan struct{})
	go func() {
		select {
		case <-ending:
		case <-quit:
		case <-done:
			return
		}
		interrupt()
	}()
	return func() { close(done) }
}

// isEnding says whether streams are to end.
func (p *passage) isEnding() bool {
	select {
	case <-drain.Ending(p.r.Context()):
		return true
	case <-p.to.quit:
		return true
	default:
		return false
	}
}

// errClientGone ends the wait for an answer that nobody would read.
var errClientGone = errors.New("the client has gone")

// goneAfter is for how many seconds an answer that has begun, or one of HTTP/1.0, may be
// silent when its client sends no more, before the client is taken for gone.
const goneAfter = 5

// watch is asked every second while the upstream is waited for. A client that has ended its
// side may have gone, or wait for its answer (RFC 9112, 9.6). 102 finds out: the kernel of
// one that has gone answers with a reset.
func (p *passage) watch() error {
	if p.r.Context().Err() == nil {
		return nil
	}
	if drain.Gone(p.r.Context()) {
		return errClientGone
	}
	if p.committed || !p.r.ProtoAtLeast(1, 1) {
		if p.alone++; p.alone > goneAfter {
			return errClientGone
		}
		return nil
	}
	p.w.WriteHeader(http.StatusProcessing)
	return nil
}

// requestBody prepares the body to be sent, if there is one.
func (p *passage) requestBody() {
	r, req := p.r, &p.req
	req.Body, req.Length, req.Expects100 = nil, 0, false
	req.States = len(r.Header["Content-Length"]) > 0
	req.Once = r.ContentLength != 0 || !isIdempotent(r.Method)
	if r.ContentLength == 0 {
		return
	}
	rc := http.NewResponseController(p.w)
	// Otherwise the rest of the body is thrown away at the first byte of an answer.
	_ = rc.EnableFullDuplex()
	p.body = clientBody{from: r.Body, rc: rc, patience: p.f.patience, left: p.f.patience, room: p.f.maxBody}
	req.Body, req.Length = &p.body, r.ContentLength
	req.Expects100 = hasToken(r.Header["Expect"], "100-continue") && r.ProtoAtLeast(1, 1)
}

// clientBody is the body of a request, from a client that has patience for each 64 KiB of it.
// The time in which the upstream takes no more is not the client's.
type clientBody struct {
	from     io.Reader
	rc       *http.ResponseController
	patience time.Duration
	left     time.Duration // of patience
	came     int           // of the 64 KiB
	room     int64         // bytes that may come
	begun    bool
	unwanted atomic.Bool
}

// unblock ends a Read that waits, and the next.
func (b *clientBody) unblock() {
	b.unwanted.Store(true)
	_ = b.rc.SetReadDeadline(past)
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func (b *clientBody) Read(p []byte) (int, error) {
	began := time.Now()
	if b.begun { // the server's own deadline is for the first, and net/http lifts both behind the last
		_ = b.rc.SetReadDeadline(began.Add(b.left))
		if b.unwanted.Load() { // since before that
			_ = b.rc.SetReadDeadline(past)
		}
	}
	b.begun = true
	n, err := b.from.Read(p)
	b.left -= time.Since(began)
	if b.came += n; b.came >= bodyChunk {
		b.came, b.left = 0, b.patience
	}
	if b.room -= int64(n); b.room < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// bodyChunk is what a client has to send of a body within Config.ReadTimeout.
const bodyChunk = 64 << 10

// problem is how a failure is answered.
type problem struct {
	status int
	code   string
	why    string
}

// problems are the answers to what can go wrong before an answer has begun. docs/front.md has
// the table.
var problems = map[upstream.Reason]problem{
	upstream.NotThere: {http.StatusServiceUnavailable, "upstream-not-there",
		"the upstream took no connection for as long as a request waits"},
	upstream.Closed: {http.StatusBadGateway, "upstream-closed",
		"the upstream closed the connection without an answer"},
	upstream.Cut: {http.StatusBadGateway, "upstream-cut",
		"the upstream closed the connection within the header of its answer"},
	upstream.Silent: {http.StatusGatewayTimeout, "upstream-silent",
		"the upstream sent no answer in time"},
	upstream.Malformed: {http.StatusBadGateway, "upstream-malformed",
		"what the upstream sent is not an answer of HTTP/1.1"},
	upstream.HeaderTooBig: {http.StatusBadGateway, "upstream-header-too-big",
		"the header of the upstream's answer is too big"},
}

// refuse answers what could not be passed on.
func (p *passage) refuse(err error) {
	reason := p.fail(err)
	clear(p.w.Header())
	if p.req.Body != nil && !p.x.HasWholeRequest() {
		p.w.Header()["Connection"] = []string{"close"} // nobody knows where the next request begins
	}
	switch reason {
	case upstream.Abandoned:
		panic(http.ErrAbortHandler)
	case upstream.BodyFailed:
		p.refuseBody(err)
		return
	case upstream.NotThere:
		p.w.Header().Set("Retry-After", "1")
	}
	answer := problems[reason]
	writeProblem(p.w, answer.status, answer.code, answer.why)
}

// errTooLarge ends a body that is longer than it may be.
var errTooLarge = errors.New("body too large")

func (p *passage) refuseLength() {
	p.f.metrics.tooLarge.Inc()
	writeError(p.w, http.StatusRequestEntityTooLarge, "body-too-large", atMost(p.f.maxBody))
}

// refuseBody answers a client that has not sent what it has announced.
func (p *passage) refuseBody(err error) {
	switch {
	case errors.Is(err, errTooLarge):
		p.refuseLength()
	case errors.Is(err, os.ErrDeadlineExceeded):
		writeError(p.w, http.StatusRequestTimeout, "body-too-slow", "64 KiB of a body within IMAGELAB_READ_TIMEOUT")
	case errors.Is(err, io.ErrUnexpectedEOF), drain.Gone(p.r.Context()):
		panic(http.ErrAbortHandler) // the client has gone
	default:
		writeError(p.w, http.StatusBadRequest, "bad-body", "a whole, well-formed body")
	}
}

// fail counts and logs why a request was not passed on, or its answer not to the end.
func (p *passage) fail(err error) upstream.Reason {
	reason := upstream.NotThere
	var failure *upstream.Error
	if errors.As(err, &failure) {
		reason = failure.Reason
	}
	p.f.metrics.failures[reason].Inc()
	if reason == upstream.Abandoned || reason == upstream.BodyFailed {
		return reason // the client's doing
	}
	p.f.failed()
	if held, ok := p.f.lines.take(time.Since(p.f.epoch)); ok {
		consequence := "a request was not passed on"
		if p.committed {
			consequence = "an answer was cut"
		}
		p.f.log.Warn(consequence, "reason", reason.String(), "method", p.r.Method, "path", p.r.URL.Path,
			"err", err, "held_back", held)
	}
	return reason
}
