package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"imagelab/internal/compare"
	"imagelab/internal/probe"
	"imagelab/internal/sizes"
)

// servePlain answers GET /plain: what the dashboard says first, as text, for browsers without JavaScript and for
// terminals. It asks to be fetched again, as a browser does.
func (e *events) servePlain(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Refresh", "5")
	if !wantsBody(w, r, "text/plain; charset=utf-8") {
		return
	}
	_, frame := e.refresh(false)
	var all struct {
		Live  compare.Live `json:"live"`
		Peers []peerView   `json:"peers"`
	}
	_ = json.Unmarshal(frame, &all) // it is this process's own
	var b strings.Builder
	fmt.Fprintf(&b, "imagelab, %s, again in 5 s\n", all.Live.Time.Format(time.RFC3339))
	tellPlainly(&b, peerView{Name: all.Live.Variant, Live: &all.Live})
	for _, p := range all.Peers {
		tellPlainly(&b, p)
	}
	b.WriteString("\nThe rest: audit, metrics, snapshot, peers and config, beside this page.\n")
	_, _ = w.Write([]byte(b.String()))
}

// tellPlainly writes a paragraph about one side.
func tellPlainly(b *strings.Builder, v peerView) {
	name := v.Name
	if name == "" {
		name = "imagelab"
	}
	l := v.Live
	if l == nil {
		why := "it is being asked"
		switch d := v.Ended; {
		case d != nil && d.Seconds != nil:
			why = fmt.Sprintf("stopped %.0f s ago, %.0f requests cut, %.0f failed, %.0f too late", v.EndedSeconds, d.Requests, d.Failed, d.Late)
		case d != nil:
			why = fmt.Sprintf("stopped %.0f s ago", v.EndedSeconds)
		case v.Answers:
			why = "no figures: " + v.Error
		case v.Error != "":
			why = "down: " + v.Error
		}
		fmt.Fprintf(b, "\n%s: %s\n", name, why)
		return
	}
	fmt.Fprintf(b, "\n%s: %s for %s\n", name, probe.OneLine(l.State), time.Duration(l.StateSeconds)*time.Second)
	if n := l.Recent; n != nil && n.Requests > 0 {
		fmt.Fprintf(b, "  requests   %.0f in %.0f s, %.0f failed, %.0f refused\n", n.Requests, n.Seconds, n.Failed, n.Rejected)
	} else {
		b.WriteString("  requests   none in the last seconds\n")
	}
	fmt.Fprintf(b, "  in flight  %.0f, on %.0f connections\n", l.Requests.InFlight, l.Connections)
	if p := l.Process; p.MemoryBytes != nil {
		limit := "no limit"
		if p.MemoryLimitBytes != nil {
			limit = "a limit of " + sizes.Memory(*p.MemoryLimitBytes)
		}
		fmt.Fprintf(b, "  memory     %s, %s\n", sizes.Memory(*p.MemoryBytes), limit)
	}
	fmt.Fprintf(b, "  store      %s of %s\n", sizes.Memory(l.Store.Bytes), sizes.Memory(l.Store.CapacityBytes))
	if a := l.Audit; a != nil {
		fmt.Fprintf(b, "  audit      %d failed, %d warnings, %d not known\n", a.Fail, a.Warn, a.Unknown)
	}
	if c := l.Command; c != nil {
		fmt.Fprintf(b, "  command    start %d, %.0f restarts, the last one to end: %s\n", c.Generation, c.Restarts, probe.OneLine(c.Last))
	}
}
