package main

import (
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"imagelab/drain"
	"imagelab/internal/audit"
	"imagelab/internal/probe"
	"imagelab/internal/upstream"
)

// metrics is everything that the process measures of itself. Label sets are
// closed: no name, path or method of a client's making becomes a label.
type metrics struct {
	requests      *prometheus.CounterVec   // server, route, method, code
	duration      *prometheus.HistogramVec // server, route, method
	inFlight      *prometheus.GaugeVec     // server, route
	conns         *prometheus.GaugeVec     // server
	connsClosed   *prometheus.CounterVec   // server, reason
	acceptErrors  *prometheus.CounterVec   // server
	rejected      *prometheus.CounterVec   // reason
	panics        prometheus.Counter
	probes        *prometheus.CounterVec // status
	probeDuration prometheus.Histogram
	actorUp       *prometheus.GaugeVec   // actor
	drainDuration *prometheus.GaugeVec   // server
	cut           *prometheus.CounterVec // server, reason
	reaped        prometheus.Counter
	storeRejected *prometheus.CounterVec // reason
	connsMax      *prometheus.GaugeVec   // server
	inFlightMax   *prometheus.GaugeVec   // server
	uploadsMax    prometheus.Gauge

	recent *tally // what the dashboard's history is made of
}

// The metrics that the dashboard's figures are made of, see collect. The last are
// client_golang's own.
const (
	metricRequests      = "imagelab_http_requests_total"
	metricRejected      = "imagelab_http_requests_rejected_total"
	metricPanics        = "imagelab_http_panics_total"
	metricInFlight      = "imagelab_http_requests_in_flight"
	metricDuration      = "imagelab_http_request_duration_seconds"
	metricConns         = "imagelab_connections"
	metricProbeDuration = "imagelab_health_probe_duration_seconds"
	metricStoreBytes    = "imagelab_store_bytes"
	metricStoreCapacity = "imagelab_store_capacity_bytes"
	metricStoreBlobs    = "imagelab_store_blobs"
	metricStoreFree     = "imagelab_store_filesystem_free_bytes"
	metricStoreRejected = "imagelab_store_rejected_total"
	metricDrainDuration = "imagelab_drain_duration_seconds"
	metricDrainCut      = "imagelab_drain_cut_connections_total"
	metricStarts        = "imagelab_command_starts_total"
	metricAuditChecks   = "imagelab_audit_checks"
	metricResident      = "process_resident_memory_bytes"
	metricHeap          = "go_memstats_heap_inuse_bytes"
	metricCPU           = "process_cpu_seconds_total"
	metricOpenFiles     = "process_open_fds"
	metricGoroutines    = "go_goroutines"

	// Of cgroupMetrics, and absent where the kernel does not tell.
	metricMemory       = "imagelab_cgroup_memory_bytes"
	metricWorkingSet   = "imagelab_cgroup_memory_working_set_bytes"
	metricMemoryLimit  = "imagelab_cgroup_memory_limit_bytes"
	metricCPULimit     = "imagelab_cgroup_cpu_limit_cores"
	metricCPUThrottled = "imagelab_cgroup_cpu_throttled_seconds_total"
)

// durationBuckets are the bounds of the request durations, in seconds: those of
// client_golang and some between, as a quantile is known no better than by the
// bucket that it is in. They are less than a factor of two apart. The search starts at
// the least one, so that the ones above cost a fast request nothing. Native histograms know quantiles better; they took about 50 ns more a
// request and 8 kB more a series.
var durationBuckets = [...]float64{
	.00005, .000075, .0001, .00015, .00025, .00035, .0005, .00075,
	.001, .0015, .0025, .0035, .005, .0075,
	.01, .015, .025, .035, .05, .075,
	.1, .15, .25, .35, .5, .75,
	1, 1.5, 2.5, 3.5, 5, 7.5, 10,
}

// newMetrics registers the process's metrics with reg.
// dropped counts the log lines that nobody read.
func newMetrics(reg prometheus.Registerer, h *health, variant string, dropped *atomic.Int64) *metrics {
	m := &metrics{
		recent: new(tally),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricRequests,
			Help: "Requests answered, by listener, route pattern, method and status code.",
		}, []string{"server", "route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    metricDuration,
			Help:    "Time from a request's header to the end of its response; without streams, which last as long as somebody listens.",
			Buckets: durationBuckets[:],
		}, []string{"server", "route", "method"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricInFlight,
			Help: "Requests being served now.",
		}, []string{"server", "route"}),
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricConns,
			Help: "Connections open now.",
		}, []string{"server"}),
		connsClosed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imagelab_connections_closed_total",
			Help: "Connections closed to stay below the cap: evicted while they waited, or refused.",
		}, []string{"server", "reason"}),
		acceptErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imagelab_accept_errors_total",
			Help: "Failures to accept a connection, such as too many open files.",
		}, []string{"server"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricRejected,
			Help: "Requests turned away before their handler, by reason.",
		}, []string{"reason"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricPanics,
			Help: "Panics recovered in handlers.",
		}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imagelab_health_probes_total",
			Help: "Requests to /health, by the status that they were told.",
		}, []string{"status"}),
		probeDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    metricProbeDuration,
			Help:    "Time that the server spent on requests to /health.",
			Buckets: []float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .01, .1},
		}),
		actorUp: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imagelab_actor_up",
			Help: "Whether an actor of the process runs (1) or has returned (0).",
		}, []string{"actor"}),
		drainDuration: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricDrainDuration,
			Help: "How long the drain took; absent before its end.",
		}, []string{"server"}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricDrainCut,
			Help: "Connections cut at the end of the drain, by what they were doing.",
		}, []string{"server", "reason"}),
		reaped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "imagelab_reaped_total",
			Help: "Orphaned processes reaped as PID 1.",
		}),
		storeRejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricStoreRejected,
			Help: "Uploads that were not kept, by reason.",
		}, []string{"reason"}),
		connsMax: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imagelab_connections_max",
			Help: "Connections that may be open at once, a few spare ones for health probes aside.",
		}, []string{"server"}),
		inFlightMax: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imagelab_http_requests_in_flight_max",
			Help: "Requests that may be served at once, probes aside; absent for a server without a cap.",
		}, []string{"server"}),
		uploadsMax: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "imagelab_uploads_max",
			Help: "Requests in flight that may be uploads.",
		}),
	}
	// Not "variant": scrape configurations call targets that, and Prometheus would
	// make exported_variant of it.
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "imagelab_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "goversion": runtime.Version(), "image_variant": variant},
	})
	build.Set(1)
	reg.MustRegister(
		// What the Go runtime and the kernel say: client_golang has these two
		// collectors made already, and to make them takes time and memory.
		prometheus.DefaultGatherer.(prometheus.Collector), build,
		m.requests, m.duration, m.inFlight, m.conns, m.connsClosed, m.acceptErrors, m.rejected, m.panics,
		m.probes, m.probeDuration, m.actorUp, m.drainDuration, m.cut, m.reaped, m.storeRejected,
		m.connsMax, m.inFlightMax, m.uploadsMax,
	)
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "imagelab_log_lines_dropped_total",
		Help: "Log lines dropped because nobody read the log.",
	}, func() float64 { return float64(dropped.Load()) }))
	for _, s := range []string{"starting", "ready", "disabled", "draining"} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "imagelab_state",
			Help:        "The state of the process: 1 for the current one, 0 for the others.",
			ConstLabels: prometheus.Labels{"state": s},
		}, func() float64 {
			if h.readiness() == s {
				return 1
			}
			return 0
		}))
	}
	return m
}

// commandMetrics are those of the supervised command.
type commandMetrics struct {
	reg    prometheus.Registerer
	starts *prometheus.CounterVec
	exits  *prometheus.CounterVec
}

func newCommandMetrics(reg prometheus.Registerer) *commandMetrics {
	m := &commandMetrics{
		reg: reg,
		starts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricStarts,
			Help: "Starts of the command, by reason: the first one, a restart, or a reload.",
		}, []string{"reason"}),
		exits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imagelab_command_exits_total",
			Help: "Ends of the command, by exit code, which is 128 + n for signal n.",
		}, []string{"code"}),
	}
	for _, reason := range []string{"start", "restart", "reload"} {
		m.starts.WithLabelValues(reason)
	}
	reg.MustRegister(m.starts, m.exits)
	return m
}

// register adds what is read from the command when it is asked for.
func (m *commandMetrics) register(c *command) {
	gauge := func(name, help string, value func() float64) {
		m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	is := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	gauge("imagelab_command_up", "Whether the command runs.", func() float64 { return is(c.facts().up) })
	gauge("imagelab_command_ready", "Whether the command is ready.", func() float64 { return is(c.state() == ready.String()) })
	gauge("imagelab_command_generation", "Number of the latest start of the command.", func() float64 { return float64(c.facts().generation) })
	gauge("imagelab_command_uptime_seconds", "Time since the latest start of the command; 0 if it does not run.",
		func() float64 { return c.facts().uptime.Seconds() })
	m.reg.MustRegister(commandUsage{c})
}

// commandUsage are the metrics of all processes of the command's groups, from one look.
type commandUsage struct{ *command }

var (
	commandCPU = prometheus.NewDesc("imagelab_command_cpu_seconds_total",
		"Processor time of the command, its group and those they have waited for, over all generations.", nil, nil)
	commandMemory = prometheus.NewDesc("imagelab_command_resident_memory_bytes",
		"Resident memory of the command's group; pages that processes share count for each.", nil, nil)
	commandFDs = prometheus.NewDesc("imagelab_command_open_fds",
		"Open descriptors of those of the command's group that this process may look at.", nil, nil)
	commandProcesses = prometheus.NewDesc("imagelab_command_processes", "Processes of the command's group.", nil, nil)
)

func (commandUsage) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{commandCPU, commandMemory, commandFDs, commandProcesses} {
		to <- d
	}
}

func (u commandUsage) Collect(to chan<- prometheus.Metric) {
	usage, _ := u.usage(os.DirFS("/proc"))
	to <- prometheus.MustNewConstMetric(commandCPU, prometheus.CounterValue, usage.Spent.Seconds())
	to <- prometheus.MustNewConstMetric(commandMemory, prometheus.GaugeValue, float64(usage.Resident))
	to <- prometheus.MustNewConstMetric(commandFDs, prometheus.GaugeValue, float64(usage.Descriptors))
	to <- prometheus.MustNewConstMetric(commandProcesses, prometheus.GaugeValue, float64(usage.Processes))
}

// frontMetrics are those of requests that are passed on.
type frontMetrics struct {
	header   prometheus.Histogram
	failures [upstream.Reasons]prometheus.Counter
	repeated prometheus.Counter
	waiting  prometheus.Gauge
	tooLarge prometheus.Counter // one of metrics.rejected
}

func newFrontMetrics(reg prometheus.Registerer, all *metrics) *frontMetrics {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imagelab_upstream_failures_total",
		Help: "Requests that were not passed on, or whose answer was cut, by reason.",
	}, []string{"reason"})
	m := &frontMetrics{
		tooLarge: all.rejected.WithLabelValues("body"),
		header: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "imagelab_upstream_header_seconds",
			Help:    "Time from a request's header to that of the upstream's answer, the wait for an upstream that is not there included.",
			Buckets: durationBuckets[:],
		}),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "imagelab_upstream_repeated_total",
			Help: "Requests that were sent a second time, as the connection had ended without an answer.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "imagelab_upstream_waiting",
			Help: "Requests that wait for an upstream that takes no connections.",
		}),
	}
	for reason := range upstream.Reasons {
		m.failures[reason] = failures.WithLabelValues(reason.String())
	}
	reg.MustRegister(failures, m.header, m.repeated, m.waiting)
	return m
}

// caps says what the servers allow themselves. ops is false where the ops paths
// are on the app listener.
func (m *metrics) caps(lim limits, ops bool) {
	m.connsMax.WithLabelValues("app").Set(float64(lim.conns))
	m.inFlightMax.WithLabelValues("app").Set(float64(lim.inFlight))
	m.uploadsMax.Set(float64(lim.uploads))
	if ops {
		m.connsMax.WithLabelValues("ops").Set(float64(lim.opsConns))
	}
}

// cgroupMetrics exposes what the kernel counts for the process's cgroup. It reads
// at a scrape, and what is not known is absent.
type cgroupMetrics struct{ usage func() audit.Usage }

var (
	memoryDesc = prometheus.NewDesc(metricMemory,
		"Memory charged to the cgroup: processes, tmpfs, socket buffers and page cache.", nil, nil)
	workingSetDesc = prometheus.NewDesc(metricWorkingSet,
		"Memory charged to the cgroup without inactive page cache; this has to stay below the limit.", nil, nil)
	memoryLimitDesc = prometheus.NewDesc(metricMemoryLimit,
		"Memory that the cgroup may use; absent without a limit.", nil, nil)
	cpuLimitDesc = prometheus.NewDesc(metricCPULimit,
		"Processors that the cgroup may use; absent without a quota.", nil, nil)
	cpuPeriodsDesc = prometheus.NewDesc("imagelab_cgroup_cpu_periods_total",
		"Periods of the quota in which the cgroup had something to run.", nil, nil)
	cpuThrottledPeriodsDesc = prometheus.NewDesc("imagelab_cgroup_cpu_throttled_periods_total",
		"Periods in which the quota was used up.", nil, nil)
	cpuThrottledDesc = prometheus.NewDesc(metricCPUThrottled,
		"Time that the cgroup's threads have waited for the next period.", nil, nil)
)

// Describe is for prometheus.Collector.
func (c cgroupMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		memoryDesc, workingSetDesc, memoryLimitDesc, cpuLimitDesc, cpuPeriodsDesc, cpuThrottledPeriodsDesc, cpuThrottledDesc,
	} {
		descs <- d
	}
}

// Collect is for prometheus.Collector.
func (c cgroupMetrics) Collect(metrics chan<- prometheus.Metric) {
	u := c.usage()
	known := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64) {
		metrics <- prometheus.MustNewConstMetric(desc, kind, value)
	}
	for desc, bytes := range map[*prometheus.Desc]*int64{
		memoryDesc: u.MemoryBytes, workingSetDesc: u.WorkingSetBytes, memoryLimitDesc: u.MemoryLimitBytes,
	} {
		if bytes != nil {
			known(desc, prometheus.GaugeValue, float64(*bytes))
		}
	}
	if u.CPUs != nil {
		known(cpuLimitDesc, prometheus.GaugeValue, *u.CPUs)
	}
	if t := u.Throttling; t != nil {
		known(cpuPeriodsDesc, prometheus.CounterValue, float64(t.Periods))
		known(cpuThrottledPeriodsDesc, prometheus.CounterValue, float64(t.ThrottledPeriods))
		known(cpuThrottledDesc, prometheus.CounterValue, t.ThrottledSeconds)
	}
}

// newMetricsHandler serves reg as Prometheus text, OpenMetrics or protobuf.
// Failures to gather or encode are logged and counted in
// promhttp_metric_handler_errors_total; what could be gathered is still served.
func newMetricsHandler(reg *prometheus.Registry, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry:          reg,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelError),
		EnableOpenMetrics: true,
	})
}

// track wraps an actor for run.Group.Add so that imagelab_actor_up follows it.
func (m *metrics) track(name string) func(execute func() error, interrupt func(error)) (func() error, func(error)) {
	up := m.actorUp.WithLabelValues(name)
	return func(execute func() error, interrupt func(error)) (func() error, func(error)) {
		return func() error {
			up.Set(1)
			defer up.Set(0)
			return execute()
		}, interrupt
	}
}

// connections makes the hook for a listener's connections.
func (m *metrics) connections(server string, log *slog.Logger) func(drain.Event) {
	log = log.With("server", server)
	open, failures := m.conns.WithLabelValues(server), m.acceptErrors.WithLabelValues(server)
	closed := func(reason string) { m.connsClosed.WithLabelValues(server, reason).Inc() }
	var failing atomic.Bool
	return func(e drain.Event) {
		switch e.Kind {
		case drain.Opened:
			open.Inc()
		case drain.Closed:
			open.Dec()
		case drain.Evicted:
			closed("evicted")
		case drain.EvictedForFDs:
			closed("descriptors")
		case drain.Refused:
			closed("refused")
		case drain.AcceptFailed:
			failures.Inc()
			if !failing.Swap(true) {
				log.Error("cannot accept connections, trying again until it works", "err", probe.Reason(e.Err))
			}
		case drain.AcceptResumed:
			failing.Store(false)
			log.Info("accepting connections again")
		}
	}
}

// routeMetrics measures one route of one listener. Looking a series up by its
// labels for every request costs more than serving /health does, so the series
// are kept in a list, which is so short that a map would be slower. It is copied
// when one is added, and read without a lock.
type routeMetrics struct {
	server, route string
	m             *metrics
	inFlight      prometheus.Gauge
	recent        *tally     // nil for what is not the app's traffic
	untimed       bool       // its requests last as long as somebody listens
	mu            sync.Mutex // held while series is replaced
	series        atomic.Pointer[[]series]
}

type series struct {
	method   string
	code     int
	count    prometheus.Counter
	duration prometheus.Observer // nil on an untimed route
}

// isTraffic says whether a route of a listener is for the app's requests: health probes are not, nor are the ops paths that
// may be mounted there.
func isTraffic(server, route string) bool {
	return server == "app" && route != healthPath && !strings.HasPrefix(route, "/-/")
}

func (m *metrics) route(server, route string) *routeMetrics {
	rm := &routeMetrics{server: server, route: route, m: m, inFlight: m.inFlight.WithLabelValues(server, route)}
	if isTraffic(server, route) {
		rm.recent = m.recent
	}
	rm.series.Store(new([]series))
	return rm
}

// enter and leave count what is in flight.
func (rm *routeMetrics) enter() {
	rm.inFlight.Inc()
	if rm.recent != nil {
		rm.recent.inFlight.Add(1)
	}
}

func (rm *routeMetrics) leave() {
	rm.inFlight.Dec()
	if rm.recent != nil {
		rm.recent.inFlight.Add(-1)
	}
}

// observe counts one answered request. One that is untimed is no part of the durations.
func (rm *routeMetrics) observe(method string, code int, took time.Duration, untimed bool) {
	s := rm.find(methodLabel(method), code)
	s.count.Inc()
	if rm.recent != nil {
		rm.recent.observe(code, took, s.duration == nil || untimed)
	}
	if s.duration != nil && !untimed {
		s.duration.Observe(took.Seconds())
	}
}

func (rm *routeMetrics) find(method string, code int) *series {
	known := *rm.series.Load()
	for i := range known {
		if s := &known[i]; s.code == code && s.method == method {
			return s
		}
	}
	s := series{
		method: method, code: code,
		count: rm.m.requests.WithLabelValues(rm.server, rm.route, method, strconv.Itoa(code)),
	}
	if !rm.untimed {
		s.duration = rm.m.duration.WithLabelValues(rm.server, rm.route, method)
	}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	more := append(slices.Clip(*rm.series.Load()), s)
	rm.series.Store(&more)
	return &s
}

// methodLabel keeps made-up methods from making series (CVE-2022-21698).
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return "other"
}
