package drain

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestGoneTellsAClientThatHasLeftFromOneThatWaits(t *testing.T) {
	t.Parallel()
	half := make(chan bool)
	r := run(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		_ = http.NewResponseController(w).Flush() // what a client that has gone answers with a reset
		if r.URL.Path == "/waits" {
			fmt.Fprint(w, Gone(r.Context()))
			return
		}
		<-half
		gone := false
		for deadline := time.Now().Add(patience); !gone && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
			gone = Gone(r.Context())
		}
		half <- gone
	})
	for _, path := range []string{"/waits", "/closes", "/resets"} {
		conn, answers := r.dial(t)
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		switch path {
		case "/waits":
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if body, _ := answer(t, answers); body != "false" {
				t.Errorf("Gone of a client that waits = %q, want false", body)
			}
			continue
		case "/resets":
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
		half <- true
		if !<-half {
			t.Errorf("%s: Gone = false, want true", path)
		}
	}
	if Gone(t.Context()) {
		t.Error("Gone without a server = true, want false")
	}
}
