package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"imagelab/e2e/load"
	"imagelab/e2e/wire"
)

//go:embed report.lua
var reportLua string

// figures are what wrk says of a run, see report.lua.
type figures struct {
	Requests, Microseconds float64
	P50, P99, P999         float64 // microseconds
}

func (f figures) rate() float64 { return f.Requests / (f.Microseconds / 1e6) }

// saturate sends as much as the connections bear, on the load's own processor.
// wrk never sends a request twice.
func (b *bench) saturate(url string, conns int, d time.Duration, options ...string) (figures, error) {
	return b.saturateFrom(b.loadCPU, url, conns, d, options...)
}

// saturateFrom is saturate from other processors, as taskset takes them; "" is all.
func (b *bench) saturateFrom(cpus, url string, conns int, d time.Duration, options ...string) (figures, error) {
	args := []string{"wrk", "-t1", "-c", strconv.Itoa(conns), "-d", fmt.Sprintf("%.0fs", max(1, d.Seconds())), "--timeout", "10s", "-s", b.lua}
	args = append(append(args, options...), url)
	if cpus != "" {
		args = append([]string{"taskset", "-c", cpus}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return figures{}, fmt.Errorf("wrk %s: %w\n%s", url, err, out)
	}
	var f figures
	last := bytes.LastIndexByte(out, '{')
	if last < 0 {
		return f, fmt.Errorf("wrk %s: no figures in\n%s", url, out)
	}
	return f, json.Unmarshal(out[last:], &f)
}

// steady sends at a fixed rate, whether or not the answers keep up, so that a
// server that stalls is charged for all that had to wait.
func steady(url string, rate int, d time.Duration) *vegeta.Metrics {
	attacker := vegeta.NewAttacker(vegeta.Redirects(vegeta.NoFollow), vegeta.Timeout(10*time.Second))
	targets := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: url})
	var m vegeta.Metrics
	for result := range attacker.Attack(targets, vegeta.Rate{Freq: rate, Per: time.Second}, d, "") {
		m.Add(result)
	}
	m.Close()
	return &m
}

const slowNote = "2,000 clients send a byte of a header each second, in a container with a limit of 32 MiB and no swap, and a healthy one sends 500 requests a second. imagelab's store is full. Killed for its memory, a server answers nothing."

// beside sends a healthy client's requests while slow clients hold connections,
// and counts those that got no answer.
func beside(slow int, in *instance, d time.Duration) float64 {
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	var held sync.WaitGroup // each has sent something, or was refused
	held.Add(slow)
	for range slow {
		clients.Go(func() {
			for first := true; ctx.Err() == nil; first = false {
				sendSlowly(ctx, in, func() {
					if first {
						held.Done()
					}
				})
			}
		})
	}
	held.Wait()
	m := steady(in.url, 500, d)
	return math.Round((1 - m.Success) * float64(m.Requests))
}

// sendSlowly is one connection of a slow client, which ends when the server closes
// it. What was begun is called when the first bytes are sent, or cannot be.
func sendSlowly(ctx context.Context, in *instance, begun func()) {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+in.port, time.Second)
	if err == nil {
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX-Slow: ", in.path)
	}
	begun()
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			_, err = conn.Write([]byte("x"))
		}
	}
	select { // as people come back
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// stopUnderLoad sends what 32 clients can, half of them on kept connections and
// half on new ones, stops the server meanwhile, and counts the requests that were
// not answered. wrk could not tell these from refused connections.
func (b *bench) stopUnderLoad(s *subject) (lost float64, err error) {
	in, err := b.start(s)
	if err != nil {
		return 0, err
	}
	target := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodPost, URL: in.url})
	counts := make(chan float64)
	var attackers []*vegeta.Attacker
	for _, kept := range []bool{true, false} {
		attacker := vegeta.NewAttacker(vegeta.Redirects(vegeta.NoFollow), vegeta.Timeout(10*time.Second),
			vegeta.KeepAlive(kept), vegeta.Workers(16), vegeta.MaxWorkers(16))
		attackers = append(attackers, attacker)
		results := attacker.Attack(target, vegeta.Rate{}, 0, "") // no pause, no end
		go func() {
			n, answered := 0.0, false
			for r := range results {
				answered = answered || r.Code != 0
				if r.Code == 0 && !strings.Contains(r.Error, "connection refused") {
					n++
				}
			}
			if !answered {
				n = math.NaN()
			}
			counts <- n
		}()
	}
	time.Sleep(time.Second) // the load before the signal, not a condition
	in.stop()
	for _, attacker := range attackers {
		attacker.Stop()
	}
	for range attackers {
		lost += <-counts
	}
	if math.IsNaN(lost) {
		return 0, errors.New("answered nothing before it was stopped")
	}
	return lost, nil
}

// roundTrip is that of the wire which servers are stopped over.
const roundTrip = 50 * time.Millisecond

// stopOverWire is stopUnderLoad over a wire. An error is errors.ErrUnsupported
// where there can be none.
func (b *bench) stopOverWire(s *subject) (lost float64, err error) {
	w, err := wire.New(roundTrip, 0, 0)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	in, err := b.startIn(w.Server, s)
	if err != nil {
		return 0, err
	}
	defer in.kill()
	l := load.Clients{
		Number: 32,
		Dial: func() (net.Conn, error) {
			time.Sleep(rand.N(roundTrip)) // so that the clients do not march in step
			return w.Client.Dial(net.JoinHostPort(in.host, in.port), load.Patience)
		},
		Requests: []string{"GET " + in.path + " HTTP/1.1\r\nHost: x\r\n\r\n"},
	}.Start()
	time.Sleep(time.Second) // the load before the signal, not a condition
	if lost := l.Lost(); len(lost) > 0 || l.Fewest() == 0 {
		return 0, fmt.Errorf("before the stop: %d answers for a client, lost %q", l.Fewest(), lost)
	}
	l.ServerStops()
	in.stop()
	l.Wait()
	return float64(len(l.Lost())), nil
}
