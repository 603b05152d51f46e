package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/heapprofiler"
	cdppage "github.com/chromedp/cdproto/page"
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
	docker(t, append(args, imageOf(variant))...)
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

// accessibleNow checks what the page shows at this moment, in both schemes.
func (p *page) accessibleNow(state string) {
	p.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		p.scheme(scheme)
		for _, problem := range value[[]string](p, accessible) {
			p.t.Errorf("%s, %s: %s", state, scheme, problem)
		}
	}
}

func TestDashboardShowsBothVariantsLive(t *testing.T) {
	t.Parallel()
	scratch, alpine := neighbours(t)
	p := openPage(t, scratch.ops+"/", 1440)
	p.awaitText("#headline", "Serving well, but alpine fails 3 checks")
	p.awaitText("#link", "Live")
	for _, name := range []string{"scratch", "alpine"} {
		p.awaitText(card(name), "ready")
		p.awaitText(card(name), "In flight")
		p.awaitText("#checks thead", name)
		p.awaitText("#limits thead", name)
	}
	p.awaitText("#limits", "Image size")
	p.awaitText("#marks", "scratch started")
	if got := p.text("#self"); got != "scratch" {
		t.Errorf("the page says that it is of %q, want scratch", got)
	}
	if got := p.text("#limits"); strings.Contains(got, "seccomp") {
		t.Errorf("the table of differences shows what is the same: %q", got)
	}
	p.run(chromedp.Click("#same", chromedp.ByQuery))
	p.awaitText("#limits", "seccomp")

	t.Log("numbers move under load")
	stopScratch, stopAlpine := scratch.load(t, "/delay/2ms"), alpine.load(t, "/delay/5ms")
	requests := func(name string) float64 {
		text := value[string](p, fmt.Sprintf("[...document.querySelectorAll(%q)].at(-1)?.innerText ?? ''", card(name)+" .quick dd"))
		n, _ := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSuffix(text, "/s"), ",", ""), 64)
		return n
	}
	for _, name := range []string{"scratch", "alpine"} {
		eventually(t, "moving numbers of "+name, func() bool { return requests(name) > 20 })
	}
	eventually(t, "lines of both in each chart", func() bool {
		return value[bool](p, `[...document.querySelectorAll(".chart svg")].every(s => [...s.querySelectorAll(".line")].every(l => /[LH]/.test(l.getAttribute("d"))))`)
	})
	if os.Getenv(screenshots) != "" {
		time.Sleep(40 * time.Second) // lines worth a picture
		stop := scratch.load(t, "/status/404")
		time.Sleep(5 * time.Second)
		stop()
		time.Sleep(12 * time.Second)
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
		p.run(p.sized(look.width, look.height), chromedp.Evaluate("scrollTo(0, 0)", nil))
		time.Sleep(1500 * time.Millisecond) // a frame, so that charts fit
		if over := value[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("at %d pixels the page is %d too wide", look.width, over)
		}
		p.picture(look.scheme)
	}
	stopAlpine() // pictures take longer than a load lasts
	stopAlpine = alpine.load(t, "/delay/5ms")
	p.run(p.sized(1440, 900))
	stopScratch()

	t.Log("what fails is the headline, and the memory is the container's")
	p.awaitText(card("scratch"), "of 64.0 MiB")
	p.awaitText(card("alpine")+" .quick", "none") // of its requests failed
	stopFailing := scratch.load(t, "/status/500")
	p.awaitText("#headline", "scratch answers ")
	p.awaitText("#headline", "% of its requests with 5xx, for ")
	p.awaitText("#subline", "in the container's log")
	p.awaitText(card("scratch")+" .trouble", "✕")
	p.awaitText("#charts", "5xx")
	if got := p.text(card("alpine") + " .trouble"); got != "" {
		t.Errorf("alpine, where nothing failed, says %q", got)
	}
	if title, icon := value[string](p, "document.title"), value[string](p, "document.getElementById('icon').href"); !strings.HasPrefix(title, "✕ scratch answers") || !strings.Contains(icon, "icon-bad") {
		t.Errorf("title %q, icon %s, want those of trouble", title, icon)
	}
	p.accessibleNow("failing")
	if os.Getenv(screenshots) != "" {
		time.Sleep(5 * time.Second)
		p.scheme("light")
		p.run(p.sized(1440, 1150), chromedp.Evaluate("scrollTo(0, 0)", nil))
		time.Sleep(1500 * time.Millisecond)
		p.picture("failing")
	}
	stopFailing()
	stopAlpine()
	p.awaitText(card("scratch")+" .quick", "–") // of nothing
	p.awaitText("#headline", "Serving well")

	t.Log("a quantile has no digit that is not known")
	stopSlow := scratch.load(t, "/delay/300ms")
	p.awaitText(card("scratch")+" .quick", "≤ 350 ms")
	p.awaitText(card("scratch")+" .quick", "p99 in 10 s")
	stopSlow()

	t.Log("the crosshair is one for all charts, by keyboard and pointer, and a table is behind each chart")
	p.run(chromedp.Focus("#at", chromedp.ByQuery))
	for range 5 {
		p.run(chromedp.KeyEvent(kb.ArrowLeft))
	}
	p.awaitText("#at-text", "s ago")
	eventually(t, "crosshair in each chart", func() bool {
		return value[bool](p, `[...document.querySelectorAll(".chart svg")].every(s => s.querySelector(".cursor"))`)
	})
	if got := value[string](p, "document.getElementById('at').getAttribute('aria-valuetext')"); !strings.Contains(got, "scratch ") || !strings.Contains(got, "p99") {
		t.Errorf("the crosshair reads %q, want values of each side", got)
	}
	p.run(chromedp.KeyEvent(kb.Escape))
	eventually(t, "no crosshair", func() bool { return p.text("#at-text") == "now" })
	p.run(chromedp.Evaluate(`(() => { const s = document.querySelector(".chart svg"), b = s.getBoundingClientRect();
		s.scrollIntoView({ block: "center" });
		s.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: b.left + b.width / 2, clientY: s.getBoundingClientRect().top + 50 })); })()`, nil))
	p.awaitText("#at-text", "s ago")
	p.run(chromedp.Evaluate(`document.querySelector(".chart svg").dispatchEvent(new PointerEvent("pointerleave"))`, nil))
	p.run(chromedp.Click(".chart summary", chromedp.ByQuery))
	p.awaitText(".chart table", "the highest in each half minute")
	p.awaitText(".chart table", "5xx")

	t.Log("a peer that stops turns to down, keeps what was known, and comes back")
	docker(t, "stop", alpine.name)
	p.awaitText("#headline", "alpine is down for ")
	p.awaitText("#subline", "docker logs")
	p.awaitText(card("alpine"), "down")
	p.awaitText(card("alpine"), "last seen")
	p.awaitText(card("alpine"), "These figures are from before")
	p.awaitText("#marks", "alpine down: ")
	p.awaitText("#say", "alpine is down")
	p.accessibleNow("a peer is down")
	docker(t, "start", alpine.name)
	p.awaitText(card("alpine"), "ready")
	p.awaitText("#say", "alpine is back")
	p.awaitText("#headline", "Serving well")

	t.Log("taken out by hand")
	if resp, _ := fetch(t, "POST", scratch.ops+"/readyz/disable", ""); resp.StatusCode != 503 {
		t.Fatalf("POST /readyz/disable = %d", resp.StatusCode)
	}
	p.awaitText("#headline", "scratch was taken out by hand")
	p.awaitText("#subline", "readyz/enable")
	p.awaitText("#marks", "scratch disabled")
	p.accessibleNow("disabled")
	fetch(t, "POST", scratch.ops+"/readyz/enable", "")
	p.awaitText("#headline", "Serving well")
}

func TestDashboardShowsAFullStore(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_STORE_CAPACITY=64KiB", "-e", "IMAGELAB_STORE_MAX_BLOB=64KiB"}, hardened...)...)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText("#headline", "well")
	for i := range 20 {
		fetch(t, "POST", c.app+"/store", strings.Repeat("x", 4000+i))
	}
	p.awaitText("#headline", "scratch has a full store: ")
	p.awaitText("#headline", "uploads refused in the last ")
	p.awaitText("#subline", "IMAGELAB_STORE_CAPACITY")
	p.accessibleNow("full store")
	// It is still full when nobody tries.
	eventually(t, "a headline without refusals", func() bool {
		got := p.text("#headline")
		return strings.Contains(got, "has a full store") && !strings.Contains(got, "refused")
	})
}

func TestDashboardShowsWhatWasBefore(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_FAULTS=true"}, hardened...)...)
	stop := c.load(t, "/status/503")
	eventually(t, "failures in the history", func() bool {
		_, body := fetch(t, "GET", c.ops+"/snapshot?history=1", "")
		var live struct{ History struct{ Rows [][]float64 } }
		if err := json.Unmarshal([]byte(body), &live); err != nil {
			t.Fatalf("GET /snapshot = %q: %v", body, err)
		}
		failing := 0
		for _, r := range live.History.Rows {
			if r[4] > 0 { // 5xx
				failing++
			}
		}
		return failing >= 3
	})
	stop()
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText(card("scratch"), "ready")
	rows := value[[]float64](p, "sides[0].rows.map(r => r[FAILED])")
	failed := 0
	for _, r := range rows {
		if r > 0 {
			failed++
		}
	}
	if failed < 2 {
		t.Errorf("a page that was opened later knows of %d seconds with failures, want some: %v", failed, rows)
	}
	p.awaitText("#charts", "5xx")
	p.awaitText("#marks", "started")
}

func TestDashboardOfASupervisedProgram(t *testing.T) {
	t.Parallel()
	needEngine(t)
	port := freePort(t)
	c := &container{name: newName(), ops: "http://127.0.0.1:" + port}
	t.Cleanup(func() { c.remove(t) })
	docker(t, slices.Concat([]string{"run", "-d", "--name", c.name, "--label", label(), "--no-healthcheck", "--network", "host", "-e", "IMAGELAB_OPS_ADDR=127.0.0.1:" + port,
		"-e", "IMAGELAB_RESTART=always"}, hardened, []string{imageOf("alpine"), "--", "sh", "-c", "sleep 4; exit 3"})...)
	c.await(t)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText(card("alpine")+" .program", "Generation")
	p.awaitText(card("alpine")+" .program", "exit 3")
	eventually(t, "restarts", func() bool {
		text := strings.ReplaceAll(p.text(card("alpine")+" .program"), "\n", " ")
		return strings.Contains(text, "Restarts 1") || strings.Contains(text, "Restarts 2")
	})
	p.awaitText("#marks", "of the command; the one before: exit 3")
	p.accessibleNow("a program that restarts")
}

func TestDashboardWithoutJavaScript(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", hardened...)
	p := openPage(t, "about:blank", 1024, "request to elsewhere", "favicon.ico")
	p.run(emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(c.ops+"/"))
	eventually(t, "plain figures", func() bool {
		var text string // an error is of a page that is being left
		_ = chromedp.Run(p.ctx, chromedp.Evaluate("document.body.innerText", &text))
		return strings.Contains(text, "scratch: ready for ") && strings.Contains(text, "in flight")
	})
}

func TestDashboardWithAClockThatIsOff(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_FAULTS=true"}, hardened...)...)
	p := openPage(t, "about:blank", 1024, "request to elsewhere")
	p.run(chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := cdppage.AddScriptToEvaluateOnNewDocument("{ const now = Date.now; Date.now = () => now() - 3600e3; }").Do(ctx)
		return err
	}), chromedp.Navigate(c.ops+"/"))
	p.awaitText(card("scratch"), "ready")
	c.load(t, "/delay/2ms")
	p.awaitText("#headline", "well")
	eventually(t, "a line up to now", func() bool {
		return value[bool](p, "sides[0].rows.length > 3 && Math.abs(sides[0].rows.at(-1)[TIME] - now()) < 5 && sides[0].marks.every(m => Math.abs(m.time - now()) < 600)")
	})
	p.awaitText("#charts", "p99 ≤ ")
}

func TestDashboardWithEightPeers(t *testing.T) {
	t.Parallel()
	peer, port := start(t, "alpine", hardened...), freePort(t)
	var peers []string
	for i := range 8 {
		peers = append(peers, fmt.Sprintf("peer-with-a-long-name-%d=%s", i, peer.ops))
	}
	c := startAt(t, "scratch", freePort(t), port, append([]string{"-e", "IMAGELAB_PEERS=" + strings.Join(peers, ",")}, hardened...)...)
	for _, width := range []int64{1440, 360} {
		p := openPage(t, c.ops+"/", width)
		for i := range 8 {
			p.awaitText(card(fmt.Sprintf("peer-with-a-long-name-%d", i)), "ready")
		}
		if over := value[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("at %d pixels the page is %d too wide", width, over)
		}
		looks := value[[]string](p, `[...document.querySelectorAll(".card")].map(c => getComputedStyle(c).getPropertyValue("--dash"))`)
		slices.Sort(looks)
		if len(slices.Compact(looks)) != 9 {
			t.Errorf("nine sides are drawn in the dashes %q, want nine", looks)
		}
		p.accessibleNow("eight peers")
	}
}

func TestDashboardInForcedColours(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_FAULTS=true"}, hardened...)...)
	p := openPage(t, c.ops+"/", 1024)
	c.load(t, "/delay/2ms")
	p.awaitText("#charts", "p99 ≤ ")
	p.run(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "forced-colors", Value: "active"}, {Name: "prefers-reduced-motion", Value: "reduce"}}))
	eventually(t, "lines in the colour of text", func() bool {
		return value[bool](p, `(() => { const ink = getComputedStyle(document.body).color;
			return [...document.querySelectorAll(".chart .line, .chart .key-line")].every(l => getComputedStyle(l).stroke === ink); })()`)
	})
	for _, problem := range value[[]string](p, accessible) {
		t.Errorf("forced colours: %s", problem)
	}
	if moving := value[int](p, `document.getAnimations().length`); moving > 0 {
		t.Errorf("%d animations run for somebody who asked for less motion", moving)
	}
}

// TestDashboardKeepsItsSize feeds an hour's worth of frames, with a clock that goes with them.
func TestDashboardKeepsItsSize(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", hardened...)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText(card("scratch"), "ready")
	p.run(chromedp.Evaluate(`
		window.clockAhead = 0;
		{ const real = Date.now; Date.now = () => real() + clockAhead * 1e3; }
		window.template = JSON.stringify({ live: sides[0].live, peers: [] });
		// feed shows n seconds. Two of a hundred are of a trouble, so that its words come and go.
		window.feed = async n => {
			for (let i = 0; i < n; i++) {
				clockAhead++;
				const frame = JSON.parse(template), live = frame.live, t = now();
				live.time = new Date(t * 1e3).toISOString();
				live.uptime_seconds += clockAhead;
				live.state = clockAhead % 300 < 3 ? "disabled" : "ready";
				live.recent = { seconds: 10, requests: 100, failed: clockAhead % 100 < 2 ? 9 : 0, rejected: 0, store_full: 0 };
				live.history = { rows: [[t, 10, 1, 2, live.recent.failed, 3, 8, 12, 0, .5, 0, 2e7 + clockAhead % 97 * 1e4, clockAhead % 7, 4]], marks: clockAhead % 300 === 0 ? [{ time: t, what: "disabled" }] : [] };
				take("data: " + JSON.stringify(frame));
				drawAll();
				if (i % 50 === 49) await new Promise(done => setTimeout(done));
			}
		};`, nil))
	type size struct {
		Heap, Nodes float64
		Rows, Marks int
	}
	measure := func() (s size) {
		p.run(chromedp.ActionFunc(func(ctx context.Context) error {
			if err := heapprofiler.CollectGarbage().Do(ctx); err != nil {
				return err
			}
			var counters struct{ Nodes float64 }
			if err := chromedp.FromContext(ctx).Target.Execute(ctx, "Memory.getDOMCounters", nil, &counters); err != nil {
				return err
			}
			var heap struct{ UsedSize float64 }
			err := chromedp.FromContext(ctx).Target.Execute(ctx, "Runtime.getHeapUsage", nil, &heap)
			s.Heap, s.Nodes = heap.UsedSize, counters.Nodes
			return err
		}))
		s.Rows, s.Marks = value[int](p, "sides[0].rows.length"), value[int](p, "sides[0].marks.length")
		return s
	}
	value[any](p, "feed(700)")
	before := measure()
	value[any](p, "feed(1450)")
	value[any](p, "feed(1450)")
	after := measure()
	t.Logf("after 700 seconds %+v, after an hour %+v", before, after)
	if after.Heap > 1.15*before.Heap || after.Nodes > 1.15*before.Nodes || after.Rows > 620 || after.Marks > 60 {
		t.Errorf("after 700 seconds %+v, after an hour %+v, want the same", before, after)
	}
}

func TestDashboardShowsTheFix(t *testing.T) {
	t.Parallel()
	// With its sandbox a writable root is only worth a warning.
	scratch, _ := neighbours(t, "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "-e", "IMAGELAB_SANDBOX=off")
	p := openPage(t, scratch.ops+"/", 1024)
	p.awaitText("#fixes-title", "To fix")
	p.awaitText("#fixes", "Not met: The root filesystem is read-only")
	p.awaitText("#fixes", "Shell found: /bin/")
	p.awaitText("#fixes .snippet pre", "read_only: true")
	p.awaitText("#headline", "alpine fails")

	p.run(chromedp.Click("#fixes .snippet button", chromedp.ByQuery))
	p.awaitText("#fixes .snippet button", "Copied")
	p.run(chromedp.Click("#copy-all", chromedp.ByQuery))
	p.awaitText("#copy-all", "Copied")
	p.run(chromedp.Click(`#kinds [value=kubernetes]`, chromedp.ByQuery))
	p.awaitText("#fixes .snippet pre", "readOnlyRootFilesystem: true")
	p.run(chromedp.Click(`#kinds [value=docker]`, chromedp.ByQuery))
	p.awaitText("#fixes .snippet pre", "--read-only")
	p.awaitText("#fixes", "docker build -f Dockerfile.scratch")
	if got := p.text("#fixes"); strings.Contains(got, "readOnlyRootFilesystem") {
		t.Errorf("the lines for Docker are %q", got)
	}
	p.accessibleNow("fixes")

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
	p.awaitText("#no-checks", "No check matches “seccomp no such check”")
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
	p.awaitText("#token-error", "That is not the token")
	if !value[bool](p, `document.querySelector("#token-field[aria-invalid=true]") === document.activeElement`) {
		t.Error("the field is not the one that has the focus, or is not said to be wrong")
	}
	p.accessibleNow("wrong token")
	p.run(chromedp.SendKeys("#token-field", token+kb.Enter, chromedp.ByQuery))
	p.awaitText(card("scratch"), "ready")
	p.awaitText("#headline", "well")
	if got := p.text("#content"); strings.Contains(got, "IMAGELAB_PEERS") {
		t.Errorf("a single variant is told what else there is: %q", got)
	}
	t.Log("the links of the footer have no token of their own")
	p.run(chromedp.Click(`footer a[href=config]`, chromedp.ByQuery))
	p.awaitText("#raw-text", "IMAGELAB_OPS_TOKEN")
	p.accessibleNow("an answer in a dialog")
	p.run(chromedp.KeyEvent(kb.Escape))
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
	p.awaitText("#headline", "scratch is draining")
	p.awaitText(card("scratch"), "of at most 8.3 s, waiting for 1 request in flight and ")
	p.awaitText(card("scratch"), "Stopped cleanly, 0 lost")
	p.awaitText("#link", "Connection lost, trying again")
	p.awaitText("#headline", "scratch has stopped. Stopped cleanly, 0 lost")
	p.awaitText(card("scratch"), "These figures are from before") // what was known stays
	p.accessibleNow("stopped")
	<-stopped
	if err := <-slow; err != nil {
		t.Errorf("the request in flight was lost: %v", err)
	}
	docker(t, "start", scratch.name)
	p.awaitText("#link", "Live")
	p.awaitText(card("scratch"), "ready")
	p.awaitText(card("alpine"), "ready")
	p.awaitText("#marks", "scratch Stopped cleanly, 0 lost")
	p.awaitText("#headline", "Serving well")

	t.Log("a kill leaves no last word")
	docker(t, "kill", scratch.name)
	p.awaitText("#headline", "No word from scratch for ")
	p.awaitText("#link", "Connection lost")
	p.accessibleNow("connection lost")
	docker(t, "start", scratch.name)
	p.awaitText("#link", "Live")
}

func TestDashboardShowsWhatTheDrainCut(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_FAULTS=true", "-e", "IMAGELAB_SHUTDOWN_TIMEOUT=2s"}, hardened...)...)
	p := openPage(t, c.ops+"/", 1024, "ERR_", "Failed to load resource")
	p.awaitText(card("scratch"), "ready")
	go func() {
		if resp, err := client().Get(c.app + "/delay/50s"); err == nil {
			resp.Body.Close()
		}
	}()
	eventually(t, "request in flight", func() bool {
		return c.metric(t, `imagelab_http_requests_in_flight{route="/delay/{duration}",server="app"}`) == "1"
	})
	docker(t, "kill", "--signal", "TERM", c.name)
	p.awaitText("#headline", "Stopped, 1 request cut after")
	p.awaitText(card("scratch"), "Stopped, 1 request cut after")
}

func TestDashboardOnTheAppListener(t *testing.T) {
	t.Parallel()
	needEngine(t)
	c := &container{name: newName()}
	port := freePort(t)
	c.app, c.ops = "http://127.0.0.1:"+port, "http://127.0.0.1:"+port+"/-"
	t.Cleanup(func() { c.remove(t) })
	docker(t, append(append([]string{"run", "-d", "--name", c.name, "--label", label(), "-p", "127.0.0.1:" + port + ":8000", "-e", "IMAGELAB_OPS_ADDR="}, hardened...), imageOf("scratch"))...)
	c.await(t)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText(card("scratch"), "ready")
	p.awaitText("#headline", "well")
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
	p.awaitText("#headline", "Serving well")
	p.awaitText("#fixes", "Shell found")
	eventually(t, "chart of both", func() bool { return value[int](p, `document.querySelectorAll(".chart .end").length`) >= 8 })

	if shift := value[float64](p, `new Promise(done => {
		let sum = 0;
		new PerformanceObserver(list => { for (const e of list.getEntries()) sum += e.value; }).observe({ type: "layout-shift", buffered: true });
		setTimeout(() => done(sum), 300);
	})`); shift > 0.1 {
		t.Errorf("the page has jumped by %.3f while it loaded, want at most 0.1 (web.dev/cls)", shift)
	}

	p.run(chromedp.Click(`#filter [value=all]`, chromedp.ByQuery), chromedp.Click(`[data-check="rootfs-read-only"]`, chromedp.ByQuery))
	p.awaitText("#more-rootfs-read-only", "Compose")
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
	want := value[int](p, `new Set([...document.querySelectorAll("a[href], button, input, summary")].filter(e => e.checkVisibility()).map(e => e.type === "radio" ? e.name : e)).size`)
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
