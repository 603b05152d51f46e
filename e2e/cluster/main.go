// Command cluster tries what deploy/ has for an orchestrator: updates, a broken image and the
// like, under the load of clients that never retry. It prints a table, and exits 1 when a request
// was lost, or something else is not as it should be. make k8s and make swarm run it.
//
//	cluster kubernetes     where KUBECTL and KUBECONFIG say
//	cluster swarm          with this machine's engine, which has to be a manager
//	cluster load ADDRESS   the clients alone, until SIGTERM
//	cluster serve          a program like anybody's own, on PORT: it knows nothing of a stop
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"imagelab/e2e/load"
)

// patience is how long something may take that should take seconds.
const patience = 4 * time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "serve" {
		return http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, r.Body)
		}))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) == 1 && args[0] == "kubernetes":
		return kubernetes(ctx)
	case len(args) == 1 && args[0] == "swarm":
		return swarm(ctx)
	case len(args) == 2 && args[0] == "load":
		l := start(args[1])
		<-ctx.Done()
		return json.NewEncoder(os.Stdout).Encode(finish(l))
	}
	return errors.New("want kubernetes, swarm, load ADDRESS, or serve")
}

// start begins to load a service, by GET and POST; half of the clients keep their connection.
func start(address string) *load.Load {
	return load.Clients{
		Number: 12,
		Dial:   func() (net.Conn, error) { return dial(address) },
		Requests: []string{
			"GET / HTTP/1.1\r\nHost: app\r\n\r\n",
			"POST /store HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello",
		},
		Statuses: []int{200, 201},
	}.Start()
}

// dial connects to one of the addresses of the name, and to no other if that fails. The pause
// keeps twelve clients from using up the ports of this machine.
func dial(address string) (net.Conn, error) {
	time.Sleep(20 * time.Millisecond)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), load.Patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{Timeout: load.Patience}).DialContext(ctx, "tcp", net.JoinHostPort(addresses[0], port))
}

// counts is what became of the requests of a load.
type counts struct {
	Answered int64
	Lost     []string // of requests that had been sent
	Refused  []string // connections
	TimedOut []string // connections and requests
}

func finish(l *load.Load) counts {
	l.Finish()
	_, answered := l.Wait()
	c := counts{Answered: answered}
	for _, line := range l.Lost() {
		switch {
		case strings.Contains(line, "refused"):
			c.Refused = append(c.Refused, line)
		case strings.Contains(line, "timeout"):
			c.TimedOut = append(c.TimedOut, line)
		default:
			c.Lost = append(c.Lost, line)
		}
	}
	return c
}

// table is what was tried.
type table struct{ failed []string }

func newTable() *table {
	fmt.Println("| under load | answered | lost | refused | timed out | seconds |\n|---|---:|---:|---:|---:|---:|")
	return &table{}
}

// add prints a line.
func (t *table) add(what string, c counts, took time.Duration) {
	fmt.Printf("| %s | %d | %d | %d | %d | %.0f |\n", what, c.Answered, len(c.Lost), len(c.Refused), len(c.TimedOut), took.Seconds())
	for _, lines := range [][]string{c.Lost, c.Refused, c.TimedOut} {
		for _, line := range lines {
			fmt.Fprintln(os.Stderr, "  ", line)
		}
		if len(lines) > 0 {
			t.failed = append(t.failed, what)
		}
	}
	if c.Answered == 0 {
		t.failed = append(t.failed, what+": nothing was answered")
	}
}

func (t *table) err() error {
	if len(t.failed) > 0 {
		return fmt.Errorf("not as it should be: %s", strings.Join(t.failed, "; "))
	}
	return nil
}

// command runs a program, and returns what it printed.
func command(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return text, nil
}

// await repeats a look until it says yes.
func await(ctx context.Context, what string, look func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		yes, err := look()
		if yes {
			return nil
		}
		if errors.Is(err, errUnexpected) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no %s in %v: %v", what, patience, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// errUnexpected ends what await waits for.
var errUnexpected = errors.New("unexpected")
