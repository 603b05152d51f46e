// Command grafana writes the dashboard to dashboards/imagelab.json:
//
//	cd deploy && go run ./grafana grafana/dashboards/imagelab.json
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	content, err := generate()
	if err == nil && len(os.Args) != 2 {
		err = fmt.Errorf("want the file to write")
	}
	if err == nil {
		err = os.WriteFile(os.Args[1], content, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "grafana:", err)
		os.Exit(1)
	}
}

// row is a line of panels, three to a line, under a title.
type row struct {
	title  string
	panels []panel
}

// panel is one chart. Units are Grafana's.
type panel struct {
	title, what, unit string
	queries           []query
}

type query struct{ expr, legend string }

// The instances that are chosen at the top, and their requests without probes.
const (
	chosen = `instance=~"$instance"`
	asked  = chosen + `,server="app",route!="/health"`
)

var rows = []row{
	{"What clients get", []panel{
		{"Requests", "Answers by status code, without /health.", "reqps", []query{
			{`sum by (code) (rate(imagelab_http_requests_total{` + asked + `}[$__rate_interval]))`, "{{code}}"},
		}},
		{"Errors", "The part of the requests that got 5xx; the budget is 0.1 %.", "percentunit", []query{
			{`sum by (instance) (rate(imagelab_http_requests_total{` + asked + `,code=~"5.."}[$__rate_interval])) / sum by (instance) (rate(imagelab_http_requests_total{` + asked + `}[$__rate_interval]))`, "{{instance}}"},
		}},
		{"Latency", "From a request's header to the end of its response, without streams.", "s", []query{
			{`histogram_quantile(0.5, sum by (le) (rate(imagelab_http_request_duration_seconds_bucket{` + asked + `}[$__rate_interval])))`, "median"},
			{`histogram_quantile(0.99, sum by (le) (rate(imagelab_http_request_duration_seconds_bucket{` + asked + `}[$__rate_interval])))`, "p99"},
		}},
	}},
	{"How fast the budgets burn", []panel{
		{"Errors, five minutes and an hour", "1.44 % in both wakes somebody.", "percentunit", []query{
			{`service:imagelab_http_errors:ratio_rate5m`, "{{variant}}{{service}} 5m"},
			{`service:imagelab_http_errors:ratio_rate1h`, "{{variant}}{{service}} 1h"},
		}},
		{"Slow requests, five minutes and an hour", "Above 250 ms. 14.4 % in both wakes somebody.", "percentunit", []query{
			{`service:imagelab_http_slow:ratio_rate5m`, "{{variant}}{{service}} 5m"},
			{`service:imagelab_http_slow:ratio_rate1h`, "{{variant}}{{service}} 1h"},
		}},
		{"Alerts", "Those that fire now.", "short", []query{
			{`count by (alertname) (ALERTS{alertstate="firing",alertname=~"Imagelab.+"})`, "{{alertname}}"},
		}},
	}},
	{"Why", []panel{
		{"Requests in flight, and the cap", "At the cap the rest get 503.", "short", []query{
			{`sum by (instance) (imagelab_http_requests_in_flight{` + chosen + `,server="app"})`, "{{instance}}"},
			{`imagelab_http_requests_in_flight_max{` + chosen + `,server="app"}`, "{{instance}} cap"},
		}},
		{"Connections, and the cap", "Near the cap idle and slow ones make room.", "short", []query{
			{`imagelab_connections{` + chosen + `,server="app"}`, "{{instance}}"},
			{`imagelab_connections_max{` + chosen + `,server="app"}`, "{{instance}} cap"},
		}},
		{"Turned away", "Requests refused before their handler, and uploads that were not kept.", "reqps", []query{
			{`sum by (reason) (rate(imagelab_http_requests_rejected_total{` + chosen + `}[$__rate_interval]))`, "{{reason}}"},
			{`sum by (reason) (rate(imagelab_store_rejected_total{` + chosen + `}[$__rate_interval]))`, "store: {{reason}}"},
		}},
		{"Upstream", "With IMAGELAB_UPSTREAM: what could not be passed on, and what waits.", "short", []query{
			{`sum by (reason) (rate(imagelab_upstream_failures_total{` + chosen + `}[$__rate_interval]))`, "{{reason}}"},
			{`imagelab_upstream_waiting{` + chosen + `}`, "{{instance}} waiting"},
		}},
		{"Time to the upstream's header", "99 of 100 requests; the wait for an upstream that is not there included.", "s", []query{
			{`histogram_quantile(0.99, sum by (le, instance) (rate(imagelab_upstream_header_seconds_bucket{` + chosen + `}[$__rate_interval])))`, "{{instance}}"},
		}},
		{"The command", "Starts by reason. One that crashes is started again.", "short", []query{
			{`sum by (reason) (increase(imagelab_command_starts_total{` + chosen + `}[$__rate_interval]))`, "{{reason}}"},
		}},
	}},
	{"Limits", []panel{
		{"Memory, and the limit", "The cgroup's working set, with what the tmpfs holds.", "bytes", []query{
			{`imagelab_cgroup_memory_working_set_bytes{` + chosen + `}`, "{{instance}}"},
			{`imagelab_cgroup_memory_limit_bytes{` + chosen + `}`, "{{instance}} limit"},
		}},
		{"Processors, and the limit", "", "short", []query{
			{`rate(process_cpu_seconds_total{` + chosen + `,job="imagelab"}[$__rate_interval])`, "{{instance}}"},
			{`imagelab_cgroup_cpu_limit_cores{` + chosen + `}`, "{{instance}} limit"},
		}},
		{"Throttled", "The part of the quota's periods that was used up.", "percentunit", []query{
			{`rate(imagelab_cgroup_cpu_throttled_periods_total{` + chosen + `}[$__rate_interval]) / rate(imagelab_cgroup_cpu_periods_total{` + chosen + `}[$__rate_interval])`, "{{instance}}"},
		}},
		{"The store", "Bytes on the disk, of its capacity.", "percentunit", []query{
			{`imagelab_store_bytes{` + chosen + `} / imagelab_store_capacity_bytes{` + chosen + `}`, "{{instance}}"},
		}},
		{"Descriptors, and the limit", "", "short", []query{
			{`process_open_fds{` + chosen + `,job="imagelab"}`, "{{instance}}"},
			{`process_max_fds{` + chosen + `,job="imagelab"}`, "{{instance}} limit"},
		}},
		{"Log lines that nobody has read", "", "short", []query{
			{`increase(imagelab_log_lines_dropped_total{` + chosen + `}[$__rate_interval])`, "{{instance}}"},
		}},
	}},
	{"Life", []panel{
		{"State", "1 for the current one.", "short", []query{
			{`imagelab_state{` + chosen + `} == 1`, "{{instance}} {{state}}"},
		}},
		{"Uptime", "A release starts it anew, and so does a crash.", "s", []query{
			{`time() - process_start_time_seconds{` + chosen + `,job="imagelab"}`, "{{instance}}"},
		}},
		{"Cut by a stop", "Connections that still had requests at the deadline; seen with IMAGELAB_LAST_SCRAPE alone.", "short", []query{
			{`sum by (instance, reason) (max_over_time(imagelab_drain_cut_connections_total{` + chosen + `,server="app"}[15m]))`, "{{instance}} {{reason}}"},
		}},
		{"Audit", "Checks by verdict.", "short", []query{
			{`sum by (instance, verdict) (imagelab_audit_checks{` + chosen + `,verdict!="pass"})`, "{{instance}} {{verdict}}"},
		}},
		{"Audit checks that fail", "0 fails, 0.5 is a warning.", "short", []query{
			{`min by (id) (imagelab_audit_check{` + chosen + `}) < 1`, "{{id}}"},
		}},
		{"Releases", "Instances by version and image.", "short", []query{
			{`count by (version, image_variant) (imagelab_build_info{` + chosen + `})`, "{{version}} {{image_variant}}"},
		}},
	}},
}

// generate is the dashboard as Grafana imports it. It asks for a Prometheus, and for no name of one.
func generate() ([]byte, error) {
	name, kind := "${datasource}", "prometheus"
	source := common.DataSourceRef{Type: &kind, Uid: &name}
	all, values := "All", `label_values(imagelab_build_info, instance)`
	//lint:ignore SA1019 a file in this version is what every Grafana reads
	b := dashboard.NewDashboardBuilder("imagelab").
		Uid("imagelab").
		Tags([]string{"imagelab"}).
		Refresh("10s").
		Time("now-1h", "now").
		Timezone("browser").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Prometheus").Type("prometheus")).
		WithVariable(dashboard.NewQueryVariableBuilder("instance").
			Label("Instance").
			Datasource(source).
			Query(dashboard.StringOrMap{String: &values}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
			Sort(dashboard.VariableSortAlphabeticalAsc).
			Multi(true).
			IncludeAll(true).
			AllValue(".+").
			Current(dashboard.VariableOption{
				Text:  dashboard.StringOrArrayOfString{String: &all},
				Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
			}))
	for _, r := range rows {
		b.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			chart := timeseries.NewPanelBuilder().
				Title(p.title).
				Description(p.what).
				Datasource(source).
				Unit(p.unit).
				Min(0).
				FillOpacity(10).
				ShowPoints(common.VisibilityModeNever).
				Span(8).
				Height(8)
			for i, q := range p.queries {
				chart.WithTarget(prometheus.NewDataqueryBuilder().
					RefId(string(rune('A' + i))).
					Expr(q.expr).
					LegendFormat(q.legend).
					Datasource(source).
					Range())
			}
			b.WithPanel(chart)
		}
	}
	d, err := b.Build()
	if err != nil {
		return nil, err
	}
	content, err := json.MarshalIndent(d, "", "  ")
	return append(content, '\n'), err
}
