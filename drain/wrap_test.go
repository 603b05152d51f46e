package drain

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestEveryWayToAnswerSaysGoodbye(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		first   string // what comes before the final answer
	}{
		"nothing":      {handler: func(http.ResponseWriter, *http.Request) {}},
		"a status":     {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }},
		"another":      {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }},
		"bytes":        {handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }},
		"a string":     {handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }},
		"a reader":     {handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("x")) }},
		"a flush":      {handler: func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }},
		"early hints":  {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) }, first: "HTTP/1.1 103 Early Hints\r\n\r\n"},
		"its own word": {handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, test.handler)
			r.Draining()
			conn, answers := r.dial(t)
			_, _ = io.WriteString(conn, getRoot)
			early := make([]byte, len(test.first))
			if _, err := io.ReadFull(answers, early); err != nil || string(early) != test.first {
				t.Errorf("before the answer: %q, %v, want %q", early, err, test.first)
			}
			if _, last := answer(t, answers); !last {
				t.Error("the answer has no Connection: close")
			}
		})
	}
}

// Behind a body nobody knows whether there is a request, so its answer is the last.
func TestAnswerToABodyIsTheLast(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	r := run(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(entered)
		<-release
	})
	r.Draining()
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
	<-entered
	_, _ = io.WriteString(conn, getRoot)
	eventually(t, "request behind it", func() bool { all := r.ln.snapshot(); return len(all) == 1 && all[0].more() })
	close(release)
	if _, last := answer(t, answers); !last {
		t.Error("the answer has no Connection: close")
	}
}

func TestHandlersWithoutAServer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	Expendable(ctx)
	if Ending(ctx) != nil || !Room(ctx) || SetWriteBuffer(ctx, 1<<16) == nil {
		t.Errorf("Ending %v, Room %t, SetWriteBuffer %v, want nil, true and an error", Ending(ctx), Room(ctx), SetWriteBuffer(ctx, 1<<16))
	}
	until, cancel := UntilEnding(ctx)
	if err := until.Err(); err != nil {
		t.Errorf("UntilEnding() ends at once: %v", err)
	}
	cancel()
	if until.Err() == nil {
		t.Error("UntilEnding() goes on after its end")
	}
}

func TestHooksOfTheServerAreKept(t *testing.T) {
	t.Parallel()
	type key struct{}
	states := make(chan http.ConnState, 10)
	buffer := make(chan error, 1)
	r := run(t, func(w http.ResponseWriter, r *http.Request) {
		buffer <- SetWriteBuffer(r.Context(), 1<<16)
		fmt.Fprint(w, r.Context().Value(key{}))
	}, func(srv *http.Server) {
		srv.ConnState = func(_ net.Conn, s http.ConnState) { states <- s }
		srv.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, key{}, "theirs")
		}
	})
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	if body, _ := answer(t, answers); body != "theirs" {
		t.Errorf("the handler's context has %q, want what ConnContext has put there", body)
	}
	if err := <-buffer; err != nil {
		t.Errorf("SetWriteBuffer() = %v, want nil", err)
	}
	for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle} {
		select {
		case got := <-states:
			if got != want {
				t.Errorf("ConnState is told %v, want %v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("ConnState is not told %v", want)
		}
	}
}

// Without a handler it is http.DefaultServeMux, as with net/http, which has nothing here.
func TestNoHandlerIsTheDefaultOne(t *testing.T) {
	t.Parallel()
	r := run(t, nil, func(srv *http.Server) { srv.Handler = nil })
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("answer = %v, %v, want 404", resp, err)
	}
}

func TestOptionsStarReachesAHandlerThatWantsIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		request string
		theirs  bool // DisableGeneralOptionsHandler
		want    string
	}{
		{"OPTIONS *", false, ""}, {"OPTIONS *", true, "OPTIONS *"}, {"OPTIONS /", false, "OPTIONS /"}, {"PATCH *", false, "PATCH *"},
	} {
		r := run(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.RequestURI) },
			func(srv *http.Server) { srv.DisableGeneralOptionsHandler = test.theirs })
		conn, answers := r.dial(t)
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\n\r\n", test.request)
		if body, _ := answer(t, answers); body != test.want {
			t.Errorf("%s, their own handler %t: %q, want %q", test.request, test.theirs, body, test.want)
		}
	}
}

// runTLS serves h over TLS, with a certificate that httptest lends.
func runTLS(t *testing.T, h http.HandlerFunc) *running {
	t.Helper()
	lender := httptest.NewTLSServer(nil)
	t.Cleanup(lender.Close)
	ln, err := Listen(t.Context(), "127.0.0.1:0", Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{TLSConfig: &tls.Config{Certificates: lender.TLS.Certificates}, Handler: h}
	r := &running{Server: New(srv, ln), addr: ln.Addr().String(), serve: make(chan error, 1)}
	go func() { r.serve <- r.ServeTLS("", "") }()
	t.Cleanup(func() { srv.Close() })
	return r
}

func TestTLSWithoutHTTP2(t *testing.T) {
	t.Parallel()
	r := runTLS(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().NegotiatedProtocol; got == "h2" {
		t.Errorf("negotiated %q, want HTTP/1.1", got)
	}
	_, _ = io.WriteString(conn, getRoot)
	if body, last := answer(t, bufio.NewReader(conn)); body != "HTTP/1.1" || last {
		t.Errorf("answer = %q, last %t, want one of HTTP/1.1 that is kept alive", body, last)
	}
}

// Nobody knows what a client has sent below TLS that has sent no whole request.
func TestTLSWithoutARequestIsADoubt(t *testing.T) {
	t.Parallel()
	r := runTLS(t, hello)
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET")
	eventually(t, "connection that has sent something", func() bool {
		all := r.ln.snapshot()
		return len(all) == 1 && all[0].veiled.Load() && !unread(all[0].TCPConn)
	})
	go func() { _, _ = io.Copy(io.Discard, conn); conn.Close() }()
	if report := r.stop(t, patience); report.Lossy == nil || !strings.Contains(report.Lossy.Error(), "1 connections were closed whose client") {
		t.Errorf("Shutdown() = %+v, want a doubt", report)
	}
}

func TestWhoIsCutWithoutARequestIsCountedInTheDoubt(t *testing.T) {
	t.Parallel()
	r := run(t, hello)
	r.dial(t)
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	answer(t, answers)
	eventually(t, "silent and an idle connection", func() bool {
		n := map[Phase]int{}
		for _, c := range r.ln.snapshot() {
			n[c.current()]++
		}
		return n[Silent] == 1 && n[Idle] == 1
	})
	report := r.stop(t, time.Nanosecond)
	if report.Cut[Silent] != 1 || report.Cut[Idle] != 1 || !strings.Contains(fmt.Sprint(report.Lossy), "2 connections were closed when the time was up") {
		t.Errorf("Shutdown() = %+v, want a doubt about two", report)
	}
}

func TestWithoutAWriteTimeoutAClientMayTakeItsTime(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	r := runWith(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = w.Write(make([]byte, size))
	})
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, getRoot)
	eventually(t, "write that waits for its client", func() bool {
		all := r.ln.snapshot()
		return len(all) == 1 && all[0].stall.isOn()
	})
	if body, _ := answer(t, answers); len(body) != size {
		t.Errorf("got %d bytes, want %d", len(body), size)
	}
}
