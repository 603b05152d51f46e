package drain

import (
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"
)

// A handler that has taken a connection over may end its side, and goes on to read.
func TestAHijackedConnectionIsHalfClosedAsAnyOther(t *testing.T) {
	t.Parallel()
	read := make(chan string, 1)
	r := run(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		rest, err := io.ReadAll(rw)
		if err != nil {
			t.Error(err)
		}
		read <- string(rest)
	})
	conn, answers := r.dial(t)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := answers.ReadByte(); err != io.EOF {
		t.Fatalf("the client reads %v, want the end", err)
	}
	_, _ = io.WriteString(conn, "goodbye")
	conn.Close()
	if got := <-read; got != "goodbye" {
		t.Errorf("the handler read %q behind the end of its own side, want what the client has sent", got)
	}
}

// Without a length, and without chunks, the end of the connection is that of the answer.
func TestResetKeepsHalfAnAnswerFromLookingWhole(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]error{"/": nil, "/reset": syscall.ECONNRESET} {
		r := run(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			if r.URL.Path == "/reset" {
				Reset(r.Context())
			}
			panic(http.ErrAbortHandler)
		})
		conn, answers := r.dial(t)
		_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.0\r\n\r\n")
		if _, err := io.ReadAll(answers); !errors.Is(err, want) {
			t.Errorf("GET %s ends with %v, want %v", path, err, want)
		}
	}
	Reset(t.Context()) // which is of no server
}
