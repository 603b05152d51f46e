// Command drain is a net/http service that stops without losing a request, with nothing of
// imagelab but its package drain. It listens on the address that is its argument, and
// prints in the end what the stop has done.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"imagelab/drain"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: drain HOST:PORT")
	}
	if err := serve(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func serve(addr string) error {
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	ln, err := drain.Listen(stop, addr, drain.Options{MaxConns: 1000, WriteTimeout: 30 * time.Second})
	if err != nil {
		return err
	}
	srv := drain.New(&http.Server{
		Handler:           http.HandlerFunc(answer),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       90 * time.Second,
	}, ln)
	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	select {
	case err := <-served:
		return err
	case <-stop.Done():
	}

	// A balancer would get some time here to notice: srv.Draining().
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	report := srv.Shutdown(ctx)
	if !report.Lossless() {
		fmt.Printf("%d requests cut, %d late, not checked: %v\n", report.Requests, report.Late, report.Lossy)
		return fmt.Errorf("stopped after %v", report.Took)
	}
	fmt.Println("no request was lost")
	return <-served
}

// answer reads what comes and says how much it was.
func answer(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, "the whole body, please", http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s, %d bytes\n", r.Method, n)
}
