//go:build shutdown

package main

import (
	"context"
	"fmt"
	"net/http"
	"os/signal"
	"runtime"
	"syscall"
)

// serve is the plain one with what net/http's documentation advises for a stop,
// and with the count of its allocations at /metrics.
func serve(addr string) error {
	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintf(w, "go_memstats_mallocs_total %d\ngo_memstats_alloc_bytes_total %d\n", m.Mallocs, m.TotalAlloc)
	})
	server := http.Server{Addr: addr}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	done := make(chan error)
	go func() {
		<-stop.Done()
		done <- server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return <-done
}
