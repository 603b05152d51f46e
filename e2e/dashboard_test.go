package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
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

// accessibleNow checks what the page shows at this moment, in both schemes, wide and narrow, and keeps a picture of each.
func (p *page) accessibleNow(state string) {
	p.t.Helper()
	for _, width := range []int64{1440, 360} {
		p.run(p.sized(width, 900))
		for _, scheme := range []string{"light", "dark"} {
			p.scheme(scheme)
			// Charts fit themselves to a new width before the next picture of the window but one.
			value[any](p, "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))")
			for _, problem := range value[[]string](p, accessible) {
				p.t.Errorf("%s, %s, %d pixels: %s", state, scheme, width, problem)
			}
		}
		if os.Getenv(screenshots) == "" {
			p.scheme("light")
			p.picture(fmt.Sprintf("%s-%d", strings.ReplaceAll(state, " ", "-"), width))
		}
	}
	p.run(p.sized(p.width, 900))
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

	t.Log("a peer that is killed is down, keeps what was known, and comes back")
	docker(t, "kill", alpine.name)
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
	p.awaitText("#headline", "scratch has a full store, for ")
	p.awaitText("#headline", "uploads refused in the last ")
	p.awaitText("#headline", " KiB of 64 KiB")
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
	p.awaitText("#marks", "restarted the program, start ")
	p.awaitText("#marks", "; the one before: exit 3")
	p.awaitText("#headline", "alpine has ") // a program that is being started again, or has restarted its program
	eventually(t, "a headline while the program runs", func() bool {
		return strings.Contains(p.text("#headline"), "alpine has restarted its program ") && strings.Contains(p.text(card("alpine")), "ready, in trouble")
	})
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
	p.awaitText("#limits", "Image size") // all parts are drawn
	p.awaitText("#checks", "Severity")
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
			var counters struct {
				Nodes float64 `json:"nodes"`
			}
			if err := chromedp.FromContext(ctx).Target.Execute(ctx, "Memory.getDOMCounters", nil, &counters); err != nil {
				return err
			}
			var heap struct {
				UsedSize float64 `json:"usedSize"`
			}
			err := chromedp.FromContext(ctx).Target.Execute(ctx, "Runtime.getHeapUsage", nil, &heap)
			s.Heap, s.Nodes = heap.UsedSize, counters.Nodes
			return err
		}))
		s.Rows, s.Marks = value[int](p, "sides[0].rows.length"), value[int](p, "sides[0].marks.length")
		return s
	}
	value[any](p, "feed(1000)")
	before := measure()
	value[any](p, "feed(1300)")
	value[any](p, "feed(1300)")
	after := measure()
	t.Logf("after 1000 seconds %+v, after an hour %+v", before, after)
	if before.Heap < 1e5 || before.Nodes < 100 {
		t.Errorf("a page of %v bytes and %v nodes was not measured", before.Heap, before.Nodes)
	}
	// Both go up and down with the browser's own collections; a leak is of each of the 2600 frames.
	if after.Heap > before.Heap+2600*1000 || after.Nodes > before.Nodes+2600/2 || after.Rows > 620 || after.Marks > 60 {
		t.Errorf("after 1000 seconds %+v, after an hour %+v, want the same", before, after)
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

func TestDashboardWhenTheTokenChanges(t *testing.T) {
	t.Parallel()
	app, ops := freePort(t), freePort(t)
	with := func(token string) []string { return append([]string{"-e", "IMAGELAB_OPS_TOKEN=" + token}, hardened...) }
	before := startAt(t, "scratch", app, ops, with("the first one")...)
	p := openPage(t, before.ops+"/", 1024, "401", "ERR_", "Failed to load resource")
	p.run(chromedp.SendKeys("#token-field", "the first one"+kb.Enter, chromedp.ByQuery))
	p.awaitText(card("scratch"), "ready")
	docker(t, "stop", before.name)
	startAt(t, "scratch", app, ops, with("another one")...)
	p.awaitText("#token-error", "That is not the token")
	if got := p.text("#content"); got != "" {
		t.Errorf("without its token the page shows %q", got)
	}
	if got := value[string](p, "document.title"); !strings.HasPrefix(got, "! The token is asked for") {
		t.Errorf("the title is %q, want that there is something to do", got)
	}
	p.accessibleNow("another token")
	p.run(chromedp.SendKeys("#token-field", "another one"+kb.Enter, chromedp.ByQuery))
	p.awaitText("#link", "Live")
	p.awaitText(card("scratch"), "ready")
	p.awaitText("#headline", "well")
}

// Not beside tests that make and remove network interfaces: at each of them
// Chromium ends its connections (ERR_NETWORK_CHANGED).
func TestDashboardShowsTheDrainAndReconnects(t *testing.T) {
	scratchPort, alpinePort := freePort(t), freePort(t)
	options := func(peer, port string) []string {
		return append([]string{"-e", "IMAGELAB_FAULTS=true", "-e", "IMAGELAB_SHUTDOWN_TIMEOUT=2m", "-e", "IMAGELAB_READ_TIMEOUT=2m", "-e", "IMAGELAB_PEERS=" + peer + "=http://127.0.0.1:" + port}, hardened...)
	}
	scratch := startAt(t, "scratch", freePort(t), scratchPort, options("alpine", alpinePort)...)
	startAt(t, "alpine", freePort(t), alpinePort, options("scratch", scratchPort)...)
	// What the browser says of a server that is gone.
	p := openPage(t, scratch.ops+"/", 1024, "ERR_", "Failed to load resource")
	p.awaitText(card("alpine"), "ready")

	slow := make(chan error, 1)
	body, rest := io.Pipe() // the request is in flight until the test has looked at everything
	go func() {
		resp, err := client().Post(scratch.app+"/echo", "text/plain", body)
		if err == nil {
			resp.Body.Close()
		}
		slow <- err
	}()
	eventually(t, "request in flight", func() bool {
		return scratch.metric(t, `imagelab_http_requests_in_flight{route="/echo",server="app"}`) == "1"
	})
	stopped := make(chan struct{})
	go func() { defer close(stopped); _, _, _ = try(t, "stop", "-t", "150", scratch.name) }()
	p.awaitText("#headline", "scratch is draining for ")
	p.awaitText("#subline", "finishes what it has")
	p.awaitText(card("scratch"), "of at most 2 min, waiting for 1 request in flight and ")
	p.accessibleNow("draining")
	p.awaitText("#headline", "scratch is draining for ")
	rest.Close()
	p.awaitText(card("scratch"), "Stopped cleanly, 0 lost")
	p.awaitText("#link", "Connection lost, trying again")
	p.awaitText("#headline", "scratch stopped cleanly, 0 lost, ")
	p.awaitText("#headline", " s ago")
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
	p.awaitText("#headline", "scratch stopped with 1 request cut after 2.")
	p.awaitText("#subline", "IMAGELAB_SHUTDOWN_TIMEOUT")
	p.awaitText(card("scratch"), "Stopped with 1 request cut after")
	if got := value[string](p, "document.title"); !strings.HasPrefix(got, "✕ scratch stopped with 1 request cut") {
		t.Errorf("the title is %q, want what was cut", got)
	}
	p.accessibleNow("a request was cut")
}

// TestDashboardShowsWhatTheProgramFailed has a program that takes a connection, reads, and closes it without an answer.
func TestDashboardShowsWhatTheProgramFailed(t *testing.T) {
	t.Parallel()
	needEngine(t)
	c := &container{name: newName()}
	appPort, opsPort := freePort(t), freePort(t)
	c.app, c.ops = "http://127.0.0.1:"+appPort, "http://127.0.0.1:"+opsPort
	t.Cleanup(func() { c.remove(t) })
	docker(t, slices.Concat([]string{"run", "-d", "--name", c.name, "--label", label(), "--no-healthcheck", "--network", "host",
		"-e", "PORT=" + appPort, "-e", "IMAGELAB_BIND_ADDRESS=127.0.0.1", "-e", "IMAGELAB_OPS_ADDR=127.0.0.1:" + opsPort,
		"-e", "IMAGELAB_UPSTREAM=auto", "-e", "IMAGELAB_SHUTDOWN_TIMEOUT=50s"},
		hardened, []string{imageOf("alpine"), "--", "sh", "-c", "trap 'sleep 12; exit 0' TERM; nc -ll -p $PORT -e sleep 15 & while :; do sleep 1; done"})...)
	c.await(t)
	p := openPage(t, c.ops+"/", 1024, "ERR_", "Failed to load resource")
	p.awaitText(card("alpine"), "ready")
	go func() {
		if resp, err := client().Post(c.app+"/", "text/plain", strings.NewReader("x")); err == nil {
			resp.Body.Close()
		}
	}()
	eventually(t, "request in flight", func() bool {
		return c.metric(t, `imagelab_http_requests_in_flight{route="upstream",server="app"}`) == "1"
	})
	docker(t, "kill", "--signal", "TERM", c.name)
	p.awaitText(card("alpine")+" .drain", "waiting for 1 request in flight")
	p.awaitText(card("alpine")+" .drain", "waiting for the program to end")
	p.awaitText("#headline", "alpine stopped with 1 request failed by the program, ")
	p.awaitText(card("alpine"), "Stopped with 1 request failed by the program")
	p.accessibleNow("failed by the program")
}

// TestDashboardShowsHowAPeerStopped asks for the last words of a peer: nobody who asks it each second hears them.
func TestDashboardShowsHowAPeerStopped(t *testing.T) {
	t.Parallel()
	peer := start(t, "alpine", append([]string{"-e", "IMAGELAB_FAULTS=true", "-e", "IMAGELAB_SHUTDOWN_TIMEOUT=2s"}, hardened...)...)
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_PEERS=alpine=" + peer.ops}, hardened...)...)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText(card("alpine"), "ready")
	for range 3 {
		docker(t, "stop", peer.name)
		p.awaitText("#headline", "alpine stopped cleanly, 0 lost, ")
		p.awaitText(card("alpine")+" .pill", "stopped")
		p.awaitText(card("alpine"), "Stopped cleanly, 0 lost, ")
		p.awaitText("#say", "alpine stopped cleanly, 0 lost")
		docker(t, "start", peer.name)
		p.awaitText(card("alpine"), "ready")
	}
	p.awaitText("#marks", "alpine Stopped cleanly, 0 lost")

	t.Log("what it cut")
	go func() {
		if resp, err := client().Get(peer.app + "/delay/50s"); err == nil {
			resp.Body.Close()
		}
	}()
	p.awaitText(card("alpine"), "In flight\n1")
	docker(t, "stop", peer.name)
	p.awaitText("#headline", "alpine stopped with 1 request cut after 2.")
	p.accessibleNow("a peer has cut a request")
	docker(t, "start", peer.name)
	p.awaitText(card("alpine"), "ready")

	t.Log("of a drain that nobody has seen the end of nothing is claimed")
	go func() {
		if resp, err := client().Get(peer.app + "/delay/50s"); err == nil {
			resp.Body.Close()
		}
	}()
	p.awaitText(card("alpine"), "In flight\n1")
	docker(t, "kill", "--signal", "TERM", peer.name)
	docker(t, "kill", peer.name)
	p.awaitText("#headline", "alpine is down for ")
	if got := p.text(card("alpine")); strings.Contains(got, "Stopped") {
		t.Errorf("the card of a peer that was killed says %q", got)
	}
	docker(t, "start", peer.name)
	p.awaitText(card("alpine"), "ready")

	t.Log("after a minute it is down, however it has stopped")
	docker(t, "stop", peer.name)
	p.awaitText("#headline", "alpine stopped cleanly, 0 lost, ")
	for deadline := time.Now().Add(2 * patience); !strings.Contains(p.text("#headline"), "alpine is down for 6"); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("two minutes after its stop the headline is %q", p.text("#headline"))
		}
	}
	p.awaitText("#subline", "alpine stopped cleanly, 0 lost, ")
}

// TestDashboardShowsWhatIsShort has too little of one thing after the other.
func TestDashboardShowsWhatIsShort(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		options []string
		cause   func(t *testing.T, c *container)
		head    []string // parts of the headline
		todo    string
	}{
		{"memory", []string{"--memory", "64m", "--tmpfs", "/tmp:size=60m,mode=1777", "-e", "IMAGELAB_STORE_CAPACITY=58MiB"}, func(t *testing.T, c *container) {
			for i := range 58 {
				var live struct {
					Process struct {
						Used  float64 `json:"memory_bytes"`
						Limit float64 `json:"memory_limit_bytes"`
					}
				}
				_, body := fetch(t, "GET", c.ops+"/snapshot", "")
				if err := json.Unmarshal([]byte(body), &live); err != nil {
					t.Fatal(err)
				}
				if live.Process.Used > .92*live.Process.Limit {
					return
				}
				fetch(t, "POST", c.app+"/store", strings.Repeat(string(rune('A'+i)), 1000<<10))
			}
		}, []string{"scratch uses 9", " % of its memory limit, for "}, "raise the limit"},
		{"processor", []string{"--cpus", "0.2"}, func(t *testing.T, c *container) { c.load(t, "/") },
			[]string{"scratch waits for its processor quota, ", " s in each second, for "}, "Raise cpus"},
		{"room", []string{"-e", "IMAGELAB_MAX_IN_FLIGHT=2"}, func(t *testing.T, c *container) { c.load(t, "/delay/200ms") },
			[]string{"scratch refused ", " requests in the last ", " s for want of room, for "}, "Raise IMAGELAB_MAX_CONNS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, "scratch", append([]string{"-e", "IMAGELAB_FAULTS=true", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"}, tc.options...)...)
			p := openPage(t, c.ops+"/", 1024)
			p.awaitText(card("scratch"), "ready")
			tc.cause(t, c)
			for _, part := range tc.head {
				p.awaitText("#headline", part)
			}
			p.awaitText("#subline", tc.todo)
			p.accessibleNow("short of " + tc.name)
		})
	}
}

func TestDashboardOfLittleTraffic(t *testing.T) {
	t.Parallel()
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_FAULTS=true"}, hardened...)...)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText("#subline", "No requests: scratch.")
	p.awaitText("#headline", "well")
	fetch(t, "GET", c.app+"/status/500", "")
	p.awaitText(card("scratch")+" .quick", "✕ 100 % of 1")
	p.awaitText("#headline", "scratch answers 100 % of its requests with 5xx, for ")
	p.awaitText("#subline", "No requests: scratch.")
}

// TestDashboardOfAHostilePeer has a peer that says what it should not, and others that make no sense.
func TestDashboardOfAHostilePeer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("<script>alert(1)</script>", 40)
	text := func(s string) string {
		b, _ := json.Marshal(s)
		return string(b)
	}
	report := `{"schema":1,"checks":[{"id":"constructor","title":` + text(long) + `,"status":"constructor","severity":"high","evidence":` + text(long) + `}],"facts":{"sandbox":{"of":"process"}}}`
	row := func(v string) string { return "[" + strings.Repeat(v+",", 13) + v + "]" }
	history := func(rows string) string {
		return `{"columns":["time","2xx","3xx","4xx","5xx","p50","p90","p99","rejected","cpu","throttled","memory","in_flight","connections"],"rows":` + rows + `,"marks":[{"time":1e300,"what":` + text(long) + `}]}`
	}
	live := func(state, more string) string {
		return `{"schema":2,"time":"0001-01-01T00:00:00Z","state":` + text(state) + `,"version":` + text(long) + `,"uptime_seconds":-1e300` + more + `}`
	}
	huge := `,"requests":{"in_flight":1e300,"total":1e300},"connections":1e300,"process":{"memory_bytes":1e300,"memory_limit_bytes":1},"recent":{"seconds":1e-300,"requests":1e300,"failed":1e300,"store_full":-1e300},"store":{"bytes":1e300,"capacity_bytes":1e300},"latency":{"bounds":[3,2,1],"counts":[1]}`
	var peers []string
	for i, answers := range []map[string]string{
		{"/snapshot": live("constructor", ""), "/audit": report},
		{"/snapshot": live(long, `,"history":`+history(`[[1],"x"]`)), "/audit": `{"schema":1}`},
		{"/snapshot": live("ready", huge+`,"history":`+history("["+row("1e300")+","+row("-1e300")+","+row("null")+"]")), "/audit": `{"schema":1,"checks":null}`},
		{"/snapshot": live("draining", `,"command":{"last":`+text(long)+`,"generation":-5},"drain":{"deadline_seconds":-1}`), "/audit": "{"},
		{"/snapshot": "<html>"},
		{"/snapshot": `{"schema":7}`},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, known := answers[r.URL.Path]; known {
				fmt.Fprint(w, body)
				return
			}
			http.NotFound(w, r)
		}))
		t.Cleanup(srv.Close)
		peers = append(peers, fmt.Sprintf("evil%d=%s", i, srv.URL))
	}
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	peers = append(peers, "silent="+silent.URL)
	c := start(t, "scratch", append([]string{"-e", "IMAGELAB_FAULTS=true", "-e", "IMAGELAB_PEERS=" + strings.Join(peers, ",")}, hardened...)...)
	p := openPage(t, c.ops+"/", 1024)
	p.awaitText(card("scratch"), "ready")
	p.awaitText(card("evil0"), "constructor")
	p.awaitText(card("evil2"), "In flight")
	p.awaitText(card("evil3"), "draining")
	p.awaitText(card("evil4"), "no figures")
	p.awaitText(card("evil4"), "/snapshot is not what an imagelab serves")
	p.awaitText(card("evil5"), "use the same version for both")
	p.awaitText(card("silent"), "no answer within 2s")
	p.awaitText("#checks", "constructor")

	t.Log("the rest goes on")
	c.load(t, "/delay/2ms")
	p.awaitText("#charts", "p99 ≤ ")
	p.awaitText(card("scratch")+" .quick", "none")
	p.accessibleNow("hostile peers")
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
