package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"meta9/session/listen"
)

// tallies count the connections of each listener; those of the VMs' own sockets are
// counted by the kind of socket, since the VMs may be many thousands.
type tallies struct {
	mu sync.Mutex
	of map[string]*listen.Tally
}

// kind is the tally of the VMs' sockets of a kind.
func (t *tallies) kind(name string) *listen.Tally {
	tally := new(listen.Tally)
	t.name("vm:"+name, tally)
	return tally
}

// name gives a tally its name, when the listener's address is known.
func (t *tallies) name(name string, tally *listen.Tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[string]*listen.Tally{}
	}
	t.of[name] = tally
}

// each calls f for all, by name.
func (t *tallies) each(f func(name string, st listen.TallyStats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]string, 0, len(t.of))
	for name := range t.of {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f(name, t.of[name].Stats())
	}
}

// status is a line of ctl for each: listener OPEN BEGUN REFUSED NAME.
func (t *tallies) status() string {
	var b strings.Builder
	t.each(func(name string, st listen.TallyStats) {
		fmt.Fprintf(&b, "listener %d %d %d %s\n", st.Open, st.Begun, st.Refused, unbroken(name))
	})
	return b.String()
}

var (
	listenerOpen    = prometheus.NewDesc("meta9_listener_connections", "Connections of a listener, or of the VMs' sockets of a kind.", []string{"listener"}, nil)
	listenerBegun   = prometheus.NewDesc("meta9_listener_accepted_total", "Connections that it has let in.", []string{"listener"}, nil)
	listenerRefused = prometheus.NewDesc("meta9_listener_refused_total", "Connections that it has not let in.", []string{"listener"}, nil)
)

// Describe and Collect make them a prometheus.Collector.
func (t *tallies) Describe(to chan<- *prometheus.Desc) {
	to <- listenerOpen
	to <- listenerBegun
	to <- listenerRefused
}

// Collect gives the figures of each.
func (t *tallies) Collect(to chan<- prometheus.Metric) {
	t.each(func(name string, st listen.TallyStats) {
		name = strings.ToValidUTF8(name, "?")
		to <- prometheus.MustNewConstMetric(listenerOpen, prometheus.GaugeValue, float64(st.Open), name)
		to <- prometheus.MustNewConstMetric(listenerBegun, prometheus.CounterValue, float64(st.Begun), name)
		to <- prometheus.MustNewConstMetric(listenerRefused, prometheus.CounterValue, float64(st.Refused), name)
	})
}
