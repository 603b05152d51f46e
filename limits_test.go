package main

import (
	"fmt"
	"net"
	"sync"
	"testing"
)

// Every descriptor has one owner: connections, blobs that requests have open, and the rest.
func TestSharesFitIntoTheDescriptors(t *testing.T) {
	t.Parallel()
	for _, files := range []uint64{128, 256, 1024, 4096, 65536, 1 << 20, 0} {
		for _, heap := range []uint64{0, 16 << 20, 56 << 20, 1 << 40} {
			for _, maxConns := range []int{0, 16, 100_000} {
				t.Run(fmt.Sprintf("%d descriptors, %d bytes, %d connections", files, heap, maxConns), func(t *testing.T) {
					t.Parallel()
					lim, fits := share(maxConns, 0, heap, connCost, files)
					blobs := lim.inFlight // a request has one open at most
					if used := ownFiles + lim.conns + lim.spare + lim.opsConns + int(blobs); files > 0 && used > int(files) {
						t.Errorf("share() = %+v, which takes %d descriptors of %d", lim, used, files)
					}
					if maxConns == 0 && heap > 0 && uint64(lim.conns)*connCost > heap {
						t.Errorf("%d connections take more than %d bytes", lim.conns, heap)
					}
					if lim.conns < minConns || lim.spare < 2 || lim.opsConns < minConns || lim.uploads < 1 || lim.uploads > lim.inFlight {
						t.Errorf("share() = %+v, want some of each", lim)
					}
					if maxConns > 0 && lim.conns != min(maxConns, fits) {
						t.Errorf("connections = %d, want the %d asked for, or the %d that fit", lim.conns, maxConns, fits)
					}
					if files > 2048 && maxConns == 0 && heap == 0 && lim.conns < int(min(files, 20_000))/2 {
						t.Errorf("connections = %d of %d descriptors, want about half", lim.conns, files)
					}
				})
			}
		}
	}
}

// With everybody taking what they may, an upload still finds a descriptor.
func TestUploadsFindDescriptors(t *testing.T) {
	t.Parallel()
	in := startProcess(t, []string{"/bin/sh", "-c", `ulimit -n 256 && exec "$0"`}, "IMAGELAB_READ_HEADER_TIMEOUT=1h")
	for _, addr := range []string{host(in.app), host(in.ops)} {
		for range 200 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			fmt.Fprint(conn, "GET /livez HTTP/1.1\r\n")
		}
	}
	var clients sync.WaitGroup
	for client := range 16 {
		clients.Go(func() {
			for i := range 20 {
				resp, body := fetch(t, "POST", in.app+"/store", fmt.Sprintf("blob %d of client %d", i, client))
				if resp.StatusCode != 201 {
					t.Errorf("POST /store = %d %s, want 201", resp.StatusCode, body)
				}
			}
		})
	}
	clients.Wait()
	if got := in.metric(t, `imagelab_accept_errors_total{server="app"}`); got != "0" {
		t.Errorf("failures to accept = %s, want none", got)
	}
}
