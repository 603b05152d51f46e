package e2e

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// screenshots names the folder that the pictures of the README are written to.
const screenshots = "IMAGELAB_SCREENSHOTS"

// picture writes a screenshot of what the window shows into a folder of the test
// or, when the environment asks for it, into the one that it names.
func (p *page) picture(name string) {
	p.t.Helper()
	var png []byte
	if err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot(&png)); err != nil {
		p.t.Logf("no screenshot: %v", err)
		return
	}
	if err := os.WriteFile(filepath.Join(p.dir, "dashboard-"+name+".png"), png, 0o644); err != nil {
		p.t.Error(err)
	}
}

// limited are the limits of compose.yaml.
var limited = []string{"--memory", "64m", "--cpus", "1", "--ulimit", "core=0", "--ulimit", "nofile=8192"}

// neighbours starts both variants in a network of their own, each with the other
// one as its peer. Options are those of docker run for the alpine one, instead of
// the hardened ones.
func neighbours(t *testing.T, options ...string) (scratch, alpine *container) {
	t.Helper()
	needEngine(t)
	network := newName()
	docker(t, "network", "create", "--label", label(), network)
	t.Cleanup(func() { docker(t, "network", "rm", network) })
	if options == nil {
		options = append(options, hardened...)
	}
	scratch = startIn(t, network, "scratch", append([]string{"-e", "IMAGELAB_PEERS=alpine=http://alpine:9000"}, hardened...)...)
	alpine = startIn(t, network, "alpine", append([]string{"-e", "IMAGELAB_PEERS=scratch=http://scratch:9000"}, options...)...)
	return scratch, alpine
}

// startIn is start in a network of Docker's, where the audit finds what it finds
// in a real one. The ports are published, and stay the same when it is started
// again.
func startIn(t *testing.T, network, variant string, options ...string) *container {
	t.Helper()
	appPort, opsPort := freePort(t), freePort(t)
	c := &container{name: newName(), addr: "127.0.0.1:" + appPort, app: "http://127.0.0.1:" + appPort, ops: "http://127.0.0.1:" + opsPort}
	args := []string{
		"run", "-d", "--name", c.name, "--label", label(), "--network", network, "--network-alias", variant,
		"-p", "127.0.0.1:" + appPort + ":8000", "-p", "127.0.0.1:" + opsPort + ":9000", "-e", "IMAGELAB_FAULTS=true",
	}
	args = append(append(args, limited...), options...)
	t.Cleanup(func() { c.remove(t) })
	docker(t, append(args, "imagelab:"+variant)...)
	c.await(t)
	return c
}

// load sends requests, one after the other on each of a few connections, until
// the function that it returns is called.
func (c *container) load(t *testing.T, path string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			keep := &http.Client{Transport: &http.Transport{}, Timeout: patience}
			defer keep.CloseIdleConnections()
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, "GET", c.app+path, nil)
				if err != nil {
					return
				}
				if resp, err := keep.Do(req); err == nil {
					resp.Body.Close()
				} else {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(stop)
	return stop
}

// card is the selector of one variant's card.
func card(name string) string { return fmt.Sprintf(`.card[aria-label="%s"]`, name) }

func TestDashboardShowsBothVariantsLive(t *testing.T) {
	t.Parallel()
	scratch, alpine := neighbours(t)
	p := openPage(t, scratch.ops+"/", 1440)
	p.awaitText("#headline", "smaller than alpine")
	p.awaitText("#link", "Live")
	for _, name := range []string{"scratch", "alpine"} {
		p.awaitText(card(name), "ready")
		p.awaitText(card(name), "MB")
		p.awaitText(card(name), "failed")
		p.awaitText("#checks thead", name)
		p.awaitText("#limits thead", name)
	}
	if got := p.text("#self"); got != "scratch" {
		t.Errorf("the page says that it is of %q, want scratch", got)
	}

	t.Log("numbers move under load")
	stopScratch, stopAlpine := scratch.load(t, "/delay/2ms"), alpine.load(t, "/delay/5ms")
	requests := func(name string) float64 {
		text := p.text(card(name) + " .quick dd")
		n, _ := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSuffix(text, "/s"), ",", ""), 64)
		return n
	}
	for _, name := range []string{"scratch", "alpine"} {
		eventually(t, "moving numbers of "+name, func() bool { return requests(name) > 20 })
	}
	eventually(t, "lines of both in each chart", func() bool {
		return value[bool](p, `[...document.querySelectorAll(".chart svg")].every(s => [...s.querySelectorAll(".line")].every(l => l.getAttribute("d").includes("L")))`)
	})
	if os.Getenv(screenshots) != "" {
		time.Sleep(25 * time.Second) // lines worth a picture
	}
	for _, look := range []struct {
		scheme        string
		width, height int64
	}{{"light", 1440, 1150}, {"dark", 1440, 1150}, {"light-narrow", 360, 780}, {"dark-narrow", 360, 780}, {"light-medium", 768, 1024}} {
		scheme, _, narrow := strings.Cut(look.scheme, "-")
		if narrow && os.Getenv(screenshots) != "" {
			continue
		}
		p.scheme(scheme)
		p.run(p.sized(look.width, look.height))
		time.Sleep(1500 * time.Millisecond) // a frame, so that charts fit
		if over := value[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("at %d pixels the page is %d too wide", look.width, over)
		}
		p.picture(look.scheme)
	}
	p.run(p.sized(1440, 900))
	stopScratch()

	t.Log("what fails is said in words, and the memory is the container's")
	p.awaitText(card("scratch"), "of 64.0 MiB")
	p.awaitText(card("alpine")+" .quick", "none") // of its requests failed
	stopFailing := scratch.load(t, "/status/500")
	p.awaitText(card("scratch")+" .trouble", "% of the requests failed in the last")
	if got := p.text(card("alpine") + " .trouble"); got != "" {
		t.Errorf("alpine, where nothing failed, says %q", got)
	}
	stopFailing()
	stopAlpine()
	p.awaitText(card("scratch")+" .quick", "–") // of nothing

	t.Log("a quantile has no digit that is not known")
	stopSlow := scratch.load(t, "/delay/300ms")
	p.awaitText(card("scratch")+" .quick", "≤ 350 ms")
	stopSlow()

	t.Log("a peer that stops turns to down, keeps what was known, and comes back")
	docker(t, "stop", alpine.name)
	p.awaitText(card("alpine"), "down")
	p.awaitText(card("alpine"), "last seen")
	p.awaitText(card("alpine"), "MB")
	p.awaitText("#subline", "alpine is down")
	p.awaitText("#say", "alpine is down")
	docker(t, "start", alpine.name)
	p.awaitText(card("alpine"), "ready")
	p.awaitText("#say", "alpine is back")
}

func TestDashboardShowsTheFix(t *testing.T) {
	t.Parallel()
	// With its sandbox a writable root is only worth a warning.
	scratch, _ := neighbours(t, "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "-e", "IMAGELAB_SANDBOX=off")
	p := openPage(t, scratch.ops+"/", 1024)
	p.awaitText("#fixes-title", "Fix first")
	p.awaitText("#fixes", "Not met: The root filesystem is read-only")
	p.awaitText("#fixes .snippet pre", "read_only: true")
	p.awaitText("#subline", "alpine fails")

	p.run(chromedp.Click("#fixes .snippet button", chromedp.ByQuery))
	p.awaitText("#fixes .snippet button", "Copied")

	// With the keyboard alone.
	const toggle = `[data-check="rootfs-read-only"]`
	p.run(chromedp.Focus(toggle, chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	p.awaitText("#more-rootfs-read-only", "readOnlyRootFilesystem: true")
	p.awaitText("#more-rootfs-read-only", "--read-only")
	p.awaitText("#more-rootfs-read-only", "fail:")
	if !value[bool](p, fmt.Sprintf("document.activeElement === document.querySelector(%q) && document.activeElement.ariaExpanded === 'true'", toggle)) {
		t.Error("the unfolded check has lost the focus, or does not say that it is unfolded")
	}
	p.run(chromedp.KeyEvent(kb.Enter))
	eventually(t, "folded check", func() bool { return p.text("#more-rootfs-read-only") == "" })

	p.run(chromedp.SendKeys("#find", "seccomp", chromedp.ByQuery), chromedp.Click(`#filter [value=all]`, chromedp.ByQuery))
	eventually(t, "filtered table", func() bool { return value[int](p, "document.querySelectorAll('#checks .row').length") == 1 })
	p.run(chromedp.SendKeys("#find", " no such check", chromedp.ByQuery))
	p.awaitText("#no-checks", "No check matches")
}

func TestDashboardAsksForTheToken(t *testing.T) {
	t.Parallel()
	const token = "correct horse battery"
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_OPS_TOKEN=" + token}, hardened...)...)
	p := openPage(t, c.ops+"/", 1024, "401")
	p.awaitText("#token", "asks for its token")
	if got := p.text("#content"); got != "" {
		t.Errorf("without a token the page shows %q", got)
	}
	p.run(chromedp.SendKeys("#token-field", "wrong"+kb.Enter, chromedp.ByQuery))
	p.awaitText("#token-hint", "That was not it")
	p.run(chromedp.SendKeys("#token-field", token+kb.Enter, chromedp.ByQuery))
	p.awaitText(card("scratch"), "ready")
	p.awaitText("#headline", "scratch is")
	p.awaitText("#cards", "Nothing beside it")
	// It is kept for this tab.
	p.run(chromedp.Reload())
	p.awaitText(card("scratch"), "ready")
}

// Not beside tests that make and remove network interfaces: at each of them
// Chromium ends its connections (ERR_NETWORK_CHANGED).
func TestDashboardShowsTheDrainAndReconnects(t *testing.T) {
	scratchPort, alpinePort := freePort(t), freePort(t)
	options := func(peer, port string) []string {
		return append([]string{"-e", "IMAGELAB_FAULTS=true", "-e", "IMAGELAB_PEERS=" + peer + "=http://127.0.0.1:" + port}, hardened...)
	}
	scratch := startAt(t, "scratch", freePort(t), scratchPort, options("alpine", alpinePort)...)
	startAt(t, "alpine", freePort(t), alpinePort, options("scratch", scratchPort)...)
	// What the browser says of a server that is gone.
	p := openPage(t, scratch.ops+"/", 1024, "ERR_", "Failed to load resource")
	p.awaitText(card("alpine"), "ready")

	slow := make(chan error, 1)
	go func() {
		resp, err := client().Get(scratch.app + "/delay/4s")
		if err == nil {
			resp.Body.Close()
		}
		slow <- err
	}()
	eventually(t, "request in flight", func() bool {
		return scratch.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
	})
	stopped := make(chan struct{})
	go func() { defer close(stopped); _, _, _ = try(t, "stop", scratch.name) }()
	p.awaitText(card("scratch"), "draining")
	p.awaitText(card("scratch"), "1 request in flight")
	p.awaitText(card("scratch"), "0 connections cut")
	p.awaitText("#link", "Connection lost, trying again")
	p.awaitText(card("scratch"), "MB") // what was known stays
	<-stopped
	if err := <-slow; err != nil {
		t.Errorf("the request in flight was lost: %v", err)
	}
	docker(t, "start", scratch.name)
	p.awaitText("#link", "Live")
	p.awaitText(card("scratch"), "ready")
	p.awaitText(card("alpine"), "ready")
}

func TestDashboardOnTheAppListener(t *testing.T) {
	t.Parallel()
	needEngine(t)
	c := &container{name: newName()}
	port := freePort(t)
	c.app, c.ops = "http://127.0.0.1:"+port, "http://127.0.0.1:"+port+"/-"
	t.Cleanup(func() { c.remove(t) })
	docker(t, append(append([]string{"run", "-d", "--name", c.name, "--label", label(), "-p", "127.0.0.1:" + port + ":8000", "-e", "IMAGELAB_OPS_ADDR="}, hardened...), "imagelab:scratch")...)
	c.await(t)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText(card("scratch"), "ready")
	p.awaitText("#headline", "scratch is")
}

// accessible finds what axe-core would report of this page; that is in no Go
// module and no Debian package. The rules are those of WCAG 2.2, A and AA, that
// can be decided by looking, by the names that axe-core has for them.
//
//go:embed testdata/accessible.js
var accessible string

func TestDashboardIsAccessible(t *testing.T) {
	t.Parallel()
	scratch, _ := neighbours(t)
	p := openPage(t, scratch.ops+"/", 1440)
	p.awaitText("#headline", "smaller than alpine")
	p.awaitText(card("alpine"), "failed")
	eventually(t, "chart of both", func() bool { return value[int](p, `document.querySelectorAll(".chart .end").length`) >= 8 })

	if shift := value[float64](p, `new Promise(done => {
		let sum = 0;
		new PerformanceObserver(list => { for (const e of list.getEntries()) sum += e.value; }).observe({ type: "layout-shift", buffered: true });
		setTimeout(() => done(sum), 300);
	})`); shift > 0.1 {
		t.Errorf("the page has jumped by %.3f while it loaded, want at most 0.1 (web.dev/cls)", shift)
	}

	p.run(chromedp.Click(`#filter [value=all]`, chromedp.ByQuery), chromedp.Click(`[data-check="rootfs-read-only"]`, chromedp.ByQuery))
	p.awaitText("#more-rootfs-read-only", "compose")
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1440, 768, 360} {
			p.scheme(scheme)
			p.run(p.sized(width, 900))
			time.Sleep(1200 * time.Millisecond)
			for _, problem := range value[[]string](p, accessible) {
				t.Errorf("%s, %d pixels: %s", scheme, width, problem)
			}
		}
	}

	t.Log("each control has a name for a screen reader")
	roles := map[string]int{}
	for _, n := range p.accessibilityTree() {
		if n.Ignored {
			continue
		}
		roles[n.Role.Value]++
		switch n.Role.Value {
		case "button", "link", "radio", "searchbox", "textbox", "img", "image", "heading", "table", "columnheader", "rowheader", "article", "search":
			if strings.TrimSpace(n.Name.Value) == "" {
				t.Errorf("a %s without a name", n.Role.Value)
			}
		}
	}
	for _, role := range []string{"main", "banner", "contentinfo", "heading", "table", "columnheader", "rowheader", "status", "search"} {
		if roles[role] == 0 {
			t.Errorf("no %s in the accessibility tree: %v", role, roles)
		}
	}

	t.Log("all of it can be reached with the keyboard, and the focus is seen")
	p.run(p.sized(1440, 900), chromedp.Evaluate(`document.activeElement.blur(); scrollTo(0, 0)`, nil))
	want := value[int](p, `new Set([...document.querySelectorAll("a[href], button, input")].filter(e => e.checkVisibility()).map(e => e.type === "radio" ? e.name : e)).size`)
	seen := map[string]bool{}
	for range want + 5 {
		p.run(chromedp.KeyEvent(kb.Tab))
		focus := value[struct {
			ID      string
			Visible bool
		}](p, `(() => {
			const e = document.activeElement, look = e.type === "radio" ? e.nextElementSibling : e, style = getComputedStyle(look);
			e.probe ??= "control " + (window.probes = (window.probes || 0) + 1);
			return { ID: e === document.body ? "" : e.probe, Visible: e === document.body || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) };
		})()`)
		if focus.ID == "" {
			continue
		}
		seen[focus.ID] = true
		if !focus.Visible {
			t.Errorf("%s has no outline when it has the focus: %s", focus.ID, value[string](p, "document.activeElement.outerHTML"))
		}
	}
	if len(seen) < want {
		t.Errorf("the tabulator reaches %d controls, want %d", len(seen), want)
	}
}
