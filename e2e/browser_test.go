package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// page is one page in a browser of its own. What the browser complains of is
// collected, and fails the test at its end.
type page struct {
	t   *testing.T
	ctx context.Context
	dir string // that pictures are written to

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
	p := &page{t: t, ctx: ctx, dir: os.Getenv(screenshots), expected: append(expected, "ERR_NETWORK_CHANGED")}
	if p.dir == "" {
		p.dir = t.ArtifactDir()
	}
	own, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			p.complain("exception: %s %s", e.ExceptionDetails.Text, e.ExceptionDetails.Exception.Description)
		case *runtime.EventConsoleAPICalled:
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

// startBrowser starts headless Chromium with more flags, until the test's end.
func startBrowser(t *testing.T, flags ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path := browser()
	if path == "" {
		leaveOut(t, "no chromium: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.WSURLReadTimeout(patience),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, append(options, flags...)...)
	t.Cleanup(stop)
	// The protocol of a newer browser has values that the library does not know.
	ctx, stop = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); stop() }) // it waits for the browser's end
	return ctx
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
	p.run(chromedp.Evaluate(expression, &v, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }))
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
