// Package probetest has servers to probe, which answer byte by byte as no honest
// server would, and the check of a verdict.
package probetest

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"imagelab/internal/probe"
)

// CheckVerdict checks that line, without its newline, is one that Docker can show,
// that no terminal obeys, and that says whether the target was healthy.
func CheckVerdict(t testing.TB, line string, healthy bool) {
	t.Helper()
	word := "unhealthy: "
	if healthy {
		word = "healthy: "
	}
	if !strings.HasPrefix(line, word) || len(line)+len("\n") > probe.MaxLine {
		t.Errorf("verdict = %q (%d bytes), want %q and at most %d bytes with a newline", line, len(line), word, probe.MaxLine)
	}
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("verdict = %q, want nothing but printable characters", line)
	}
}

// An Answer gets a connection whose request has been read.
type Answer = func(conn net.Conn, request string)

// Serve accepts connections on a free port, reads a request's header from
// each, and hands it to answer together with the connection, which it closes
// afterwards.
func Serve(t testing.TB, network, addr string, answer Answer) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				var request strings.Builder
				r := bufio.NewReader(conn)
				for !strings.HasSuffix(request.String(), "\r\n\r\n") {
					b, err := r.ReadByte()
					if err != nil {
						return
					}
					request.WriteByte(b)
				}
				answer(conn, request.String())
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	return ln
}

// Say answers with text and ends.
func Say(text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) { _, _ = io.WriteString(conn, text) }
}

// Hold waits until the client has gone.
func Hold(conn net.Conn, _ string) { _, _ = io.Copy(io.Discard, conn) }

// ForEver answers with first, and then repeats text until the client has gone.
func ForEver(first, text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) {
		_, err := io.WriteString(conn, first)
		for err == nil {
			_, err = io.WriteString(conn, text)
		}
	}
}
