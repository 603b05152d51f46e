package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"sync"
	"testing"
	"time"

	"imagelab/e2e/load"
	"imagelab/e2e/wire"
)

// TestEarlyAnswersOverAWire has clients that are far away send whole bodies that nobody wants, before they read.
func TestEarlyAnswersOverAWire(t *testing.T) {
	t.Parallel()
	const rtt = 100 * time.Millisecond
	seed := rand.Uint64()
	w, err := wire.New(rtt, 0.01, seed)
	if errors.Is(err, errors.ErrUnsupported) {
		leaveOut(t, "kernel: "+err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command(buildImagelab(t))
	cmd.Env = environ("PORT=8000", "IMAGELAB_OPS_ADDR=:9000", "IMAGELAB_DATA_DIR="+t.TempDir())
	if err := w.Server.Start(cmd); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	eventually(t, "listening program", func() bool {
		conn, err := w.Server.Dial("127.0.0.1:8000", patience)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})

	post := func(form string, size int64) error {
		conn, err := w.Client.Dial(w.Server.Addr+":8000", load.Patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(load.Patience))
		if _, err := fmt.Fprintf(conn, form+"Content-Length: %d\r\n\r\n", size); err != nil {
			return err
		}
		if _, err := io.CopyN(conn, zeros{}, size); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && resp.StatusCode != http.StatusNotFound {
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
		return err
	}
	var clients sync.WaitGroup
	for i, form := range []string{"POST /nope HTTP/1.0\r\n", "POST /nope HTTP/1.1\r\nHost: x\r\n", "POST /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"} {
		for _, size := range []int64{1000, 100_000, 300_000, 1_000_000} {
			clients.Go(func() {
				for range 3 {
					if err := post(form, size); err != nil {
						t.Errorf("seed %d, form %d, %d bytes: %v", seed, i, size, err)
					}
				}
			})
		}
	}
	clients.Wait()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
