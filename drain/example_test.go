package drain_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"imagelab/drain"
)

// A request that is being served when the stop comes is answered.
func Example() {
	ln, err := drain.Listen(context.Background(), "127.0.0.1:0", drain.Options{})
	if err != nil {
		log.Fatal(err)
	}
	begun := make(chan struct{})
	srv := drain.New(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		time.Sleep(50 * time.Millisecond)
		fmt.Fprintln(w, "here you are")
	})}, ln)
	served := make(chan error)
	go func() { served <- srv.Serve() }()

	answer := make(chan string)
	go func() {
		resp, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()

	<-begun // a SIGTERM comes
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	report := srv.Shutdown(ctx)

	fmt.Print(<-answer)
	fmt.Println("lossless:", report.Lossless(), "error:", <-served)
	// Output:
	// here you are
	// lossless: true error: <nil>
}

// A handler that goes on until its client leaves watches Ending.
func ExampleEnding() {
	ln, err := drain.Listen(context.Background(), "127.0.0.1:0", drain.Options{})
	if err != nil {
		log.Fatal(err)
	}
	begun := make(chan struct{})
	srv := drain.New(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "first line")
		_ = http.NewResponseController(w).Flush()
		close(begun)
		select {
		case <-drain.Ending(r.Context()):
			fmt.Fprintln(w, "last line")
		case <-r.Context().Done():
		}
	})}, ln)
	go func() { _ = srv.Serve() }()
	go func() {
		<-begun
		srv.Shutdown(context.Background())
	}()

	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Print(string(body))
	// Output:
	// first line
	// last line
}
