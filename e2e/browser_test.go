package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdp "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"golang.org/x/sys/unix"
)

// page is one page in a browser of its own. What the browser complains of is
// collected, and fails the test at its end.
type page struct {
	t   *testing.T
	ctx context.Context
	dir string // that pictures are written to

	width int64 // of the window

	mu       sync.Mutex
	problems []string
	// expected are parts of complaints that the test provokes, such as a status, or
	// that the machine does: containers bring network interfaces, and take them.
	expected []string
}

// browser is the name of a Chromium on this machine, or "".
func browser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// openPage opens a URL in headless Chromium, in a window of that width.
func openPage(t *testing.T, address string, width int64, expected ...string) *page {
	t.Helper()
	ctx := startBrowser(t)
	p := &page{t: t, ctx: ctx, width: width, dir: os.Getenv(screenshots), expected: append(expected, "ERR_NETWORK_CHANGED")}
	if p.dir == "" {
		p.dir = t.ArtifactDir()
	}
	own, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *cdp.EventExceptionThrown:
			p.complain("exception: %s %s", e.ExceptionDetails.Text, e.ExceptionDetails.Exception.Description)
		case *cdp.EventConsoleAPICalled:
			p.complain("console.%s: %v", e.Type, e.Args)
		case *log.EventEntryAdded: // what violates the policy comes here, too
			if e.Entry.Level != log.LevelVerbose && e.Entry.Level != log.LevelInfo {
				p.complain("%s from %s: %s %s", e.Entry.Level, e.Entry.Source, e.Entry.Text, e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			u, err := url.Parse(e.Request.URL)
			if err != nil || u.Host != own.Host {
				p.complain("request to elsewhere: %s", e.Request.URL)
			}
		}
	})
	t.Cleanup(func() { // before the browser ends
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Errorf("the browser says: %s", problem)
		}
		if t.Failed() {
			p.picture("failed")
		}
	})
	p.run(log.Enable(), network.Enable(), p.sized(width, 900), chromedp.Navigate(address))
	return p
}

// startBrowser starts headless Chromium with more flags, until the test's end. What the browser itself says is logged
// if the test fails.
func startBrowser(t *testing.T, flags ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path := browser()
	if path == "" {
		leaveOut(t, "no chromium: apt-get install chromium")
	}
	said := &words{}
	t.Cleanup(func() { // after the browser's end
		if t.Failed() {
			t.Logf("the browser's own output: %s", said)
		}
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.WSURLReadTimeout(patience), chromedp.CombinedOutput(said),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 8*patience)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, append(options, flags...)...)
	t.Cleanup(stop)
	// The protocol of a newer browser has values that the library does not know.
	ctx, stop = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); stop() }) // it waits for the browser's end

	// The library asks the kernel to kill the browser when its parent ends (Pdeathsig, prctl(2)), and to the kernel the
	// parent is the thread that has started it. Such a thread ends when a test changes its network namespace, as those
	// over a wire do. So this thread serves nothing else until the browser has ended.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- chromedp.Run(ctx)
		<-ctx.Done()
	}()
	if err := <-started; err != nil {
		t.Fatalf("browser: %v", err)
	}
	return ctx
}

// words keeps what is written to it.
type words struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

// String leaves out that there is no D-Bus here.
func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for line := range strings.Lines(w.text.String()) {
		if !strings.Contains(line, ":dbus/") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestBrowserOutlivesThreads starts a browser from a thread that ends, as those of the tests over a wire do that run
// beside these: a goroutine that ends locked to its thread takes the thread with it.
func TestBrowserOutlivesThreads(t *testing.T) {
	t.Parallel()
	var ctx context.Context
	thread := onEndingThread(func() { ctx = startBrowser(t) })
	eventually(t, "end of the thread", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", thread))
		return os.IsNotExist(err)
	})
	var sum int
	if err := chromedp.Run(ctx, chromedp.Evaluate("1 + 1", &sum)); err != nil || sum != 2 {
		t.Errorf("after the thread has ended the browser says %d, %v, want 2", sum, err)
	}
}

// onEndingThread runs f on a thread that ends soon after, and returns its number.
func onEndingThread(f func()) (thread int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if thread = unix.Gettid(); thread == os.Getpid() { // the first one stays, and is kept busy here
			thread = onEndingThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
	return thread
}

func (p *page) complain(format string, args ...any) {
	problem := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.expected {
		if strings.Contains(problem, part) {
			return
		}
	}
	p.problems = append(p.problems, problem)
}

func (p *page) run(actions ...chromedp.Action) {
	p.t.Helper()
	if err := chromedp.Run(p.ctx, actions...); err != nil {
		p.t.Fatalf("browser: %v", err)
	}
}

func (p *page) sized(width, height int64) chromedp.Action {
	return emulation.SetDeviceMetricsOverride(width, height, 1, width < 500)
}

// scheme chooses the colours, light or dark, without animations.
func (p *page) scheme(name string) {
	p.t.Helper()
	p.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}))
}

// value is that of a JavaScript expression, or of its promise.
func value[T any](p *page, expression string) T {
	p.t.Helper()
	var v T
	p.run(chromedp.Evaluate(expression, &v, func(e *cdp.EvaluateParams) *cdp.EvaluateParams { return e.WithAwaitPromise(true) }))
	return v
}

// text is what a selector shows, if it is shown.
func (p *page) text(selector string) string {
	p.t.Helper()
	return value[string](p, fmt.Sprintf("(e => e?.checkVisibility() ? e.innerText : '')(document.querySelector(%q))", selector))
}

// awaitText waits until a selector shows a text.
func (p *page) awaitText(selector, want string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		got := p.text(selector)
		if strings.Contains(got, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s shows %q, want %q", selector, got, want)
		}
	}
}

// axNode is one node of the accessibility tree.
type axNode struct {
	Ignored    bool
	Role, Name axValue
}

// axValue is a text; values of other types are of no interest here.
type axValue struct{ Value string }

func (v *axValue) UnmarshalJSON(b []byte) error {
	var whole struct{ Value any }
	err := json.Unmarshal(b, &whole)
	v.Value, _ = whole.Value.(string)
	return err
}

// accessibilityTree is what a screen reader gets. The library's own types for it
// do not know each value of each browser.
func (p *page) accessibilityTree() []axNode {
	p.t.Helper()
	var tree struct{ Nodes []axNode }
	p.run(chromedp.ActionFunc(func(ctx context.Context) error {
		var raw json.RawMessage
		if err := chromedp.FromContext(ctx).Target.Execute(ctx, "Accessibility.getFullAXTree", nil, (*rawResult)(&raw)); err != nil {
			return err
		}
		return json.Unmarshal(raw, &tree)
	}))
	return tree.Nodes
}

// rawResult keeps the answer as it is.
type rawResult json.RawMessage

func (r *rawResult) UnmarshalJSON(b []byte) error { *r = append((*r)[:0], b...); return nil }
