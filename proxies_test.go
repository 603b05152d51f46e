package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// streamProxies start proxies in front of both listeners.
var streamProxies = map[string]func(*testing.T, map[string]string) map[string]string{
	"nginx": func(t *testing.T, to map[string]string) map[string]string { return startNginx(t, to, "") },
	"nginx that asks for HTTP/1.1": func(t *testing.T, to map[string]string) map[string]string {
		return startNginx(t, to, `proxy_http_version 1.1; proxy_set_header Connection "";`)
	},
	"nginx that compresses": func(t *testing.T, to map[string]string) map[string]string {
		return startNginx(t, to, "gzip on; gzip_min_length 0; gzip_proxied any; gzip_types text/event-stream text/plain;")
	},
	"haproxy": startHaproxy,
}

// openStream gets a stream, as a browser does: compressed, if somebody compresses it.
func openStream(t *testing.T, url string) *bufio.Scanner {
	t.Helper()
	resp, err := client().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s = %s", url, resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return lines
}

// nextFrame returns when the next frame of /events was made.
func nextFrame(lines *bufio.Scanner) (made time.Time, err error) {
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var s shot
			err := json.Unmarshal([]byte(data), &s)
			if err == nil && s.Live.Time.IsZero() {
				continue // it is the history
			}
			return s.Live.Time, err
		}
	}
	return time.Time{}, lines.Err()
}

func TestStreamsPassProxiesAsTheyCome(t *testing.T) {
	t.Parallel()
	in := start(t, "IMAGELAB_FAULTS=true")
	for name, startInFront := range streamProxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			front := startInFront(t, map[string]string{"app": host(in.app), "ops": host(in.ops)})
			t.Run("lines", func(t *testing.T) {
				t.Parallel()
				lines := openStream(t, "http://"+front["app"]+"/stream/10m")
				for _, want := range []string{"0", "1", "2"} { // far less than any buffer
					if !lines.Scan() || lines.Text() != want {
						t.Fatalf("line = %q, %v, want %q while the stream goes on", lines.Text(), lines.Err(), want)
					}
				}
			})
			t.Run("events", func(t *testing.T) {
				t.Parallel()
				// All viewers get the same frames, so one without a proxy tells how many
				// the server has sent since.
				var mu sync.Mutex
				var sent []time.Time
				direct := openStream(t, in.ops+"/events")
				go func() {
					for {
						made, err := nextFrame(direct)
						if err != nil || made.IsZero() {
							return
						}
						mu.Lock()
						sent = append(sent, made)
						mu.Unlock()
					}
				}()
				lines := openStream(t, "http://"+front["ops"]+"/events")
				for n := range 8 {
					made, err := nextFrame(lines)
					if err != nil || made.IsZero() {
						t.Fatalf("frame %d: %v", n, err)
					}
					mu.Lock()
					behind := 0
					for _, later := range sent {
						if later.After(made) {
							behind++
						}
					}
					mu.Unlock()
					if behind > 1 {
						t.Errorf("frame %d came when %d later ones had been sent, want at most 1", n, behind)
					}
				}
			})
		})
	}
}
