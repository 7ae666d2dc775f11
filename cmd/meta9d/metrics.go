package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"meta9/cmd/version"
	"meta9/fs/store"
)

// newCommits is a histogram of how long the engine takes to make a batch durable: from a
// disk with a cache that power does not end to one that is in trouble.
func newCommits() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "meta9_commit_seconds",
		Help:    "How long the engine took to make a batch of changes durable.",
		Buckets: []float64{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 10},
	})
}

// timed is the engine, with commits that are measured. What the engine can do beside them
// it still can.
func timed(e store.Engine, took prometheus.Histogram) store.Engine {
	switch e := e.(type) {
	case store.Shared:
		return timedShared{e, took}
	case store.Looker:
		return timedLooker{timedEngine{e.(store.Engine), took}, e}
	}
	return timedEngine{e, took}
}

type timedEngine struct {
	store.Engine
	took prometheus.Histogram
}

func (t timedEngine) Apply(groups []store.Group) []error { return measured(t.Engine, t.took, groups) }

type timedLooker struct {
	timedEngine
	store.Looker
}

type timedShared struct {
	store.Shared
	took prometheus.Histogram
}

func (t timedShared) Apply(groups []store.Group) []error { return measured(t.Shared, t.took, groups) }

func measured(e store.Engine, took prometheus.Histogram, groups []store.Group) []error {
	began := time.Now()
	failed := e.Apply(groups)
	took.Observe(time.Since(began).Seconds())
	return failed
}

// commitStatus says in ctl how many batches of changes were made durable, how long that took
// on average, and what 99 of 100 did not take longer than, in microseconds.
func (d *daemon) commitStatus() string {
	var m dto.Metric
	_ = d.commits.Write(&m) // a histogram has no errors
	h := m.GetHistogram()
	n := h.GetSampleCount()
	if n == 0 {
		return "commits 0\n"
	}
	longest := h.GetBucket()[len(h.GetBucket())-1] // also of what took longer than the last says
	for _, b := range h.GetBucket() {
		if 100*b.GetCumulativeCount() >= 99*n {
			longest = b
			break
		}
	}
	return fmt.Sprintf("commits %d\ncommit_mean_us %.0f\ncommit_p99_us %.0f\n", n, 1e6*h.GetSampleSum()/float64(n), 1e6*longest.GetUpperBound())
}

// buildInfo is a gauge whose labels say which program runs.
func buildInfo() prometheus.Gauge {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "meta9_build_info", Help: "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version.String(), "go": runtime.Version()},
	})
	build.Set(1)
	return build
}

// metrics are the daemon's figures for Prometheus, read when it asks for them.
func (d *daemon) metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge := func(name, help string, is func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "meta9_" + name, Help: help}, is))
	}
	counter := func(name, help string, is func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "meta9_" + name, Help: help}, is))
	}
	r.MustRegister(buildInfo(), d.commits, &d.tallies)
	gauge("bytes_limit", "Bytes that all names and values may have; 0: no limit.", func() float64 { return float64(d.cfg.Limits.Bytes) })
	gauge("connections_limit", "9P connections that there may be.", func() float64 { return float64(d.cfg.Limits.Conns) })
	gauge("memory_in_flight_limit_bytes", "Bytes that the requests of all VMs may hold.", func() float64 { return float64(d.cfg.Limits.Memory) })
	gauge("vms", "VMs.", func() float64 { return float64(d.store.Count()) })
	gauge("bytes", "Bytes of all names and values.", func() float64 { return float64(d.store.Bytes()) })
	gauge("revision", "The newest revision.", func() float64 { return float64(d.store.Rev()) })
	gauge("storage_failed", "1 when nothing is written any more.", func() float64 { return float64(one(d.store.Err() != nil)) })
	gauge("connections", "9P connections.", func() float64 { return float64(d.server.Stats().Conns) })
	gauge("sessions", "Sessions, live and parked.", func() float64 { return float64(d.server.Stats().Sessions) })
	gauge("parked_sessions", "Sessions whose transport is lost.", func() float64 { return float64(d.server.Stats().Parked) })
	counter("requests_total", "9P requests.", func() float64 { return float64(d.server.Stats().Requests) })
	counter("cpu_waits_total", "Times that a VM's requests waited for its turn, since others were at work or it had all CPUs.", func() float64 { return float64(d.store.CPU().Stats().Waits) })
	counter("cpu_late_total", "Times that they did so for 10 s and got EAGAIN.", func() float64 { return float64(d.store.CPU().Stats().Late) })
	counter("cpu_rests_total", "Times that a VM had to rest, since it had more than its part of the CPUs or of commits while others were at work.", func() float64 { return float64(d.store.CPU().Stats().Rests) })
	counter("request_errors_total", "9P requests that got an error.", func() float64 { return float64(d.server.Stats().Errors) })
	counter("refused_connections_total", "9P connections over a limit.", func() float64 { return float64(d.server.Stats().Refused) })
	counter("session_key_misses_total", "Session keys that led nowhere, from peers that had proved nothing.", func() float64 { return float64(d.server.Stats().Misses) })
	counter("mumble_refused_total", "MUMBLE messages that proved nobody.", func() float64 { return float64(d.server.Stats().AuthFailures) })
	counter("guests_set_back_total", "Links of guests that went back in time, whose sessions were ended.", func() float64 { return float64(d.server.Stats().Past) })
	counter("sessions_restored_total", "Sessions of the last meta9d that were restored at the start.", func() float64 { return float64(d.restored.Sessions) })
	counter("sessions_not_restored_total", "Sessions of the last meta9d that could not be restored.", func() float64 { return float64(d.restored.Lost) })
	gauge("memory_in_flight_bytes", "Bytes that the requests of all VMs hold.", func() float64 { return float64(d.budget.Stats().Used) })
	gauge("memory_in_flight_most_bytes", "Bytes that the requests of the VM hold that holds most.", func() float64 { return float64(d.budget.Stats().Most) })
	gauge("memory_waiting", "Requests that wait for memory.", func() float64 { return float64(d.budget.Stats().Waiting) })
	counter("memory_waits_total", "Requests that had to wait for memory.", func() float64 { return float64(d.budget.Stats().Waits) })
	counter("memory_refused_total", "Requests that waited for memory in vain.", func() float64 { return float64(d.budget.Stats().Refused) })
	counter("stuck_connections_total", "9P connections closed since they held memory that others waited for, and did not move.", func() float64 { return float64(d.server.Stats().Stuck) })
	gauge("mdata_connections", "Connections of the metadata protocol.", func() float64 { return float64(d.mdata.Stats().Conns) })
	counter("mdata_requests_total", "Requests of the metadata protocol.", func() float64 { return float64(d.mdata.Stats().Requests) })
	d.qmpMetrics(gauge)
	d.fleetMetrics(gauge, counter)
	d.libvirtMetrics(gauge, counter)
	d.mirrorMetrics(gauge)
	gauge("event_listeners", "Clients of /events.", func() float64 { return float64(d.vminfo.Stats().Listeners) })
	counter("event_listeners_dropped_total", "Clients of /events that were too slow.", func() float64 { return float64(d.vminfo.Stats().Dropped) })
	counter("vm_changes_total", "Changes of VMs.", func() float64 { return float64(d.vminfo.Stats().Events) })
	counter("http_requests_total", "HTTP requests.", func() float64 { return float64(d.vminfo.Stats().Requests) })
	return r
}

// one is 1 for true.
func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
