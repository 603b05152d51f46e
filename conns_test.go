package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// connPair returns an accepted connection whose socket's deadlines pass early, and
// its client, which sends and reads nothing by itself.
func connPair(t *testing.T) (accepted, client net.Conn) {
	t.Helper()
	ln, err := listen(context.Background(), "app", "127.0.0.1:0", slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry(), newHealth(time.Now()), ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	ln.headerTimeout, ln.writeTimeout = 5*time.Millisecond, 100*time.Millisecond
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if accepted, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return accepted, client
}

func TestReadDeadlineIsTheLastOneSet(t *testing.T) {
	t.Parallel()
	const wait = 60 * time.Millisecond
	for name, before := range map[string]func(net.Conn){
		"one":               func(net.Conn) {},
		"sooner than known": func(c net.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Hour)) },
		"later than known":  func(c net.Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) },
		"after a wake":      func(c net.Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) },
	} {
		c, _ := connPair(t)
		before(c)
		now := time.Now()
		_ = c.SetReadDeadline(now.Add(wait))
		_, err := c.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().Before(now.Add(wait)) {
			t.Errorf("%s: Read = %v after %v; want a timeout not before %v", name, err, time.Since(now), wait)
		}
	}
}

func TestNoReadDeadlineAfterAWake(t *testing.T) {
	t.Parallel()
	c, client := connPair(t)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_ = c.SetReadDeadline(time.Time{})
	time.AfterFunc(20*time.Millisecond, func() { _, _ = io.WriteString(client, "x") })
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("Read = %v; want a byte", err)
	}
}

func TestWriteDeadlineCountsFromTheWrite(t *testing.T) {
	t.Parallel()
	c, _ := connPair(t)
	time.Sleep(150 * time.Millisecond) // the socket's own deadline passes
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatalf("a late Write = %v; want none", err)
	}
	full := make([]byte, chunk)
	var began time.Time
	var err error
	for range 1000 { // until nothing more fits between the two
		began = time.Now()
		if _, err = c.Write(full); err != nil {
			break
		}
	}
	if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < 95*time.Millisecond {
		t.Errorf("Write to a client that does not read = %v after %v; want a timeout after 100ms", err, took)
	}
}
