package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// startProgram runs the binary on this machine, its ops listener on loopback and without
// a token, as compose.yaml publishes it. It returns the port of that.
func startProgram(t *testing.T, given ...string) (opsPort string) {
	t.Helper()
	opsPort = freePort(t)
	cmd := exec.Command(buildImagelab(t))
	cmd.Env = environ(append([]string{
		"PORT=" + freePort(t), "IMAGELAB_BIND_ADDRESS=127.0.0.1", "IMAGELAB_OPS_ADDR=127.0.0.1:" + opsPort, "IMAGELAB_DATA_DIR=" + t.TempDir(),
	}, given...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	})
	eventually(t, "ready program", func() bool {
		resp, err := client().Get("http://127.0.0.1:" + opsPort + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return opsPort
}

// names lead to 127.0.0.1 in the browser: of another site, of the attacker's that has been
// bound to the operator's machine (DNS rebinding), and of a service.
const names = "MAP other.example 127.0.0.1, MAP rebound.example 127.0.0.1, MAP alpine 127.0.0.1"

// attack is what a page can do to a server of another origin. It returns what it could read.
const attack = `async target => {
	const read = [], disable = target + "/readyz/disable";
	const patience = new Promise(done => setTimeout(done, 10000));
	const either = (...all) => Promise.race([patience, ...all]);
	const on = (object, ...names) => names.map(n => new Promise(done => object.addEventListener(n, done)));

	await fetch(disable, { method: "POST", mode: "no-cors" }).catch(() => {});
	await fetch(disable, { method: "POST" }).catch(() => {});
	await fetch(disable, { method: "DELETE", headers: { "X-Own": "1" } }).catch(() => {});
	navigator.sendBeacon(disable, "x");
	const frame = document.createElement("iframe");
	frame.name = "hidden";
	document.body.append(frame);
	const form = document.createElement("form");
	Object.assign(form, { method: "post", action: disable, target: "hidden" });
	document.body.append(form);
	const loaded = on(frame, "load");
	form.submit();
	await either(...loaded);

	for (const path of ["/", "/config", "/snapshot", "/metrics", "/peers"])
		for (const mode of ["cors", "no-cors"]) {
			const body = await fetch(target + path, { mode }).then(a => a.text()).catch(() => "");
			if (body) read.push(mode + " " + path);
		}
	await new Promise(done => {
		const x = new XMLHttpRequest();
		x.onloadend = () => { if (x.responseText) read.push("XMLHttpRequest"); done(); };
		x.open("GET", target + "/config");
		x.send();
	});
	for (const [tag, path] of [["img", "/icon.svg"], ["img", "/config"], ["script", "/config"], ["iframe", "/"]]) {
		const e = document.createElement(tag);
		const ended = on(e, "load", "error");
		e.src = target + path;
		document.body.append(e);
		const event = await either(...ended);
		if (tag !== "iframe" && event?.type === "load") read.push(tag + " " + path);
		try { if (e.contentDocument?.body.innerText) read.push("frame"); } catch {}
	}
	const events = new EventSource(target + "/events");
	if ((await either(...on(events, "message", "error")))?.type === "message") read.push("EventSource");
	events.close();
	const socket = new WebSocket(target.replace("http", "ws") + "/events");
	if ((await either(...on(socket, "open", "error")))?.type === "open") read.push("WebSocket");
	return read;
}`

// TestAPageOfAnotherOriginCanDoNothing lets real pages attack the ops listener in the
// browser of its operator.
func TestAPageOfAnotherOriginCanDoNothing(t *testing.T) {
	t.Parallel()
	ctx := startBrowser(t, chromedp.Flag("host-resolver-rules", names))
	opsPort := startProgram(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>other</title><a href="http://localhost:%[1]s/" id="page">page</a> <a href="http://localhost:%[1]s/metrics" id="metrics">metrics</a>`, opsPort)
	}))
	t.Cleanup(other.Close)
	_, otherPort, _ := strings.Cut(strings.TrimPrefix(other.URL, "http://"), ":")
	p := &page{t: t, ctx: ctx}
	ops := "http://127.0.0.1:" + opsPort
	posts := func(code int) string {
		c := &container{ops: ops}
		return c.metric(t, fmt.Sprintf(`imagelab_http_requests_total{code="%d",method="POST",route="/readyz/disable",server="ops"}`, code))
	}

	for _, way := range []struct{ from, to string }{
		{"other.example", "127.0.0.1"}, {"other.example", "alpine"}, {"127.0.0.1", "localhost"}, {"localhost", "localhost"},
	} {
		before := posts(http.StatusForbidden)
		p.run(chromedp.Navigate("http://" + way.from + ":" + otherPort + "/"))
		if read := value[[]string](p, fmt.Sprintf("(%s)('http://%s:%s')", attack, way.to, opsPort)); len(read) > 0 {
			t.Errorf("a page of %s has read of %s: %q", way.from, way.to, read)
		}
		if resp, body := fetch(t, "GET", ops+"/readyz", ""); resp.StatusCode != http.StatusOK {
			t.Fatalf("a page of %s has closed %s: GET /readyz = %d %s", way.from, way.to, resp.StatusCode, body)
		}
		if after := posts(http.StatusForbidden); after == before {
			t.Errorf("no request of a page of %s got to %s, so nothing was tried", way.from, way.to)
		}
	}
	if got := posts(http.StatusServiceUnavailable) + posts(http.StatusOK); got != "" {
		t.Errorf("%s requests of other origins were served", got)
	}

	t.Log("a link leads to the page, and to figures")
	p.run(chromedp.Navigate("http://other.example:"+otherPort+"/"), chromedp.Click("#page", chromedp.ByQuery))
	p.awaitText("#link", "Live")
	p.run(chromedp.Navigate("http://localhost:"+otherPort+"/"), chromedp.Click("#metrics", chromedp.ByQuery))
	p.awaitText("body", "imagelab_build_info")
}

// TestANameThatIsBoundAnewIsRefused is DNS rebinding: to the browser, the page and the ops
// listener are one origin.
func TestANameThatIsBoundAnewIsRefused(t *testing.T) {
	t.Parallel()
	ctx := startBrowser(t, chromedp.Flag("host-resolver-rules", names))
	opsPort := startProgram(t)
	p := &page{t: t, ctx: ctx}
	p.run(chromedp.Navigate("http://rebound.example:" + opsPort + "/"))
	p.awaitText("body", "IMAGELAB_OPS_HOSTS")
	for _, request := range []string{"GET /", "GET /config", "GET /metrics", "GET /events", "GET /snapshot", "GET /peers", "GET /audit", "POST /readyz/disable"} {
		method, path, _ := strings.Cut(request, " ")
		if got := value[int](p, fmt.Sprintf("fetch(%q, { method: %q }).then(a => a.status)", path, method)); got != http.StatusMisdirectedRequest {
			t.Errorf("%s of a name that is bound anew = %d, want 421", request, got)
		}
	}
	if resp, body := fetch(t, "GET", "http://127.0.0.1:"+opsPort+"/readyz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("GET /readyz = %d %s, want 200", resp.StatusCode, body)
	}
}

// TestThePageWorksByEachNameOfTheOperator has the names by which operators come, among them
// one that the browser does not trust, so that it sends no Sec-Fetch-Site.
func TestThePageWorksByEachNameOfTheOperator(t *testing.T) {
	t.Parallel()
	ctx := startBrowser(t, chromedp.Flag("host-resolver-rules", names))
	opsPort := startProgram(t, "IMAGELAB_OPS_HOSTS=*.example")
	p := &page{t: t, ctx: ctx}
	for _, host := range []string{"127.0.0.1", "localhost", "alpine", "other.example"} {
		p.run(chromedp.Navigate("http://" + host + ":" + opsPort + "/"))
		p.awaitText("#link", "Live")
		for _, request := range []struct {
			method, path string
			want         int
		}{
			{"GET", "config", 200}, {"GET", "snapshot", 200}, {"GET", "peers", 200}, {"GET", "metrics", 200},
			{"POST", "readyz/disable", 503}, {"POST", "readyz/enable", 200},
		} {
			got := value[int](p, fmt.Sprintf("fetch(%q, { method: %q }).then(a => a.status)", request.path, request.method))
			if got != request.want {
				t.Errorf("%s %s of the page at %s = %d, want %d", request.method, request.path, host, got, request.want)
			}
		}
	}
}
