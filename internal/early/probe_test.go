package early_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"imagelab/internal/early"
	"imagelab/internal/probe"
	"imagelab/internal/probe/probetest"
)

// What was begun here is ended by package probe, whose every deadline is the same moment.
func TestProbeEndsWhatWasBegunWithTheReasonWhy(t *testing.T) {
	t.Parallel()
	endless := probetest.ForEver("HTTP/1.1 200 OK\r\n\r\n", "x")
	for name, answer := range map[string]probetest.Answer{
		"silent": probetest.Hold, "never ends": endless,
		"closed": func(net.Conn, string) {},
	} {
		url := "http://" + probetest.Serve(t, "tcp", "127.0.0.1:0", answer).Addr().String() + "/"
		want := "unhealthy: no answer within 20ms " + url
		if name == "closed" {
			want = "unhealthy: no HTTP answer: the server closed the connection " + url
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, err := probe.Parse(url)
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				opts := probe.Options{Timeout: 20 * time.Millisecond, Begun: early.Begin(url)}
				if name == "closed" {
					opts.Timeout = time.Minute
				}
				if line, healthy := probe.Run(context.Background(), []probe.Target{target}, opts); healthy || !strings.HasPrefix(line, want) {
					t.Fatalf("Run = %q, %v, want %q", line, healthy, want)
				}
			}
		})
	}
}
