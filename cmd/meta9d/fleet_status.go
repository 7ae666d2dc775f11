package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"meta9/fs/errs"
)

// fleetTrouble is what keeps this host from being sure of its VMs, or from changing them;
// nil: nothing does.
func (d *daemon) fleetTrouble() error {
	switch {
	case d.without != nil:
		return errors.New(d.without.String())
	case d.fleet == nil:
		return nil
	}
	st := d.fleet.Status()
	switch err := d.etcd.Trouble(); {
	case !st.Sure && st.Why != nil:
		return fmt.Errorf("the lease is lost: %s", detail(st.Why))
	case !st.Sure:
		return errors.New("the lease is lost: etcd does not answer")
	case err != nil && errs.KindOf(err) != errs.TooLarge:
		return fmt.Errorf("the last change failed: %s", detail(err))
	}
	return nil
}

// trouble is what is wrong beside the store, for ctl's health; nil: nothing is.
func (d *daemon) trouble() error {
	if err := d.fleetTrouble(); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	if d.fleet == nil {
		return nil
	}
	if n, first, why := d.fleet.Damaged(); n > 0 {
		more := ""
		if n > 1 {
			more = fmt.Sprintf("; and %d more like it", n-1)
		}
		return fmt.Errorf("fleet: VM %s is not served, a record of it in etcd is damaged: %s%s", first, why, more)
	}
	return nil
}

// fleetStatus is what ctl says of the fleet.
func (d *daemon) fleetStatus() string {
	s := &d.cfg.Cluster
	if s.off() {
		return ""
	}
	name, _ := s.host() // it was found before
	how := "ok"
	if err := d.fleetTrouble(); err != nil {
		how = oneLine(err)
	}
	b := fmt.Appendf(nil, "fleet_host %s\nfleet_etcd %s\n", name, how)
	if d.without != nil {
		return string(b)
	}
	st := d.fleet.Status()
	b = fmt.Appendf(b, "fleet_reads %s\n", s.Reads)
	if !st.Sure {
		b = fmt.Appendf(b, "fleet_stale_since %s\n", stamp(st.StaleSince))
	}
	engine := d.etcd.Stats()
	damaged, first, _ := d.fleet.Damaged()
	if damaged > 0 {
		b = fmt.Appendf(b, "fleet_damaged_vm %s\n", first)
	}
	for _, f := range []struct {
		name string
		is   int64
	}{
		{"fenced", one(st.Fenced)},
		{"draining", one(st.Draining)},
		{"damaged", int64(damaged)},
		{"expected", int64(st.Expected)},
		{"claiming", int64(st.Claiming)},
		{"giving", int64(st.Giving)},
		{"taken", st.Taken},
		{"claimed", st.Claimed},
		{"given", st.Given},
		{"refused", st.Refused},
		{"failed", st.Failed},
		{"lost", st.Lost},
		{"sessions", st.Sessions},
		{"sessions_lost", st.SessionsLost},
		{"sent_again", int64(engine.Unsure)},
		{"fenced_writes", int64(engine.Fenced)},
		{"lapses", st.Lapses},
	} {
		b = fmt.Appendf(b, "fleet_%s %d\n", f.name, f.is)
	}
	return string(b)
}

// stamp is a time for people and programs.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// fresh is why what this host answers may be old, where such answers are refused
// (cluster.reads); nil: they are not.
func (d *daemon) fresh() func() error {
	if d.member == nil || d.cfg.Cluster.Reads != readsRefuse {
		return nil
	}
	return d.member.Fresh
}

// freshHTTP refuses what would be told of VMs where it may be old.
func (d *daemon) freshHTTP(h http.Handler) http.Handler {
	fresh := d.fresh()
	if fresh == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metrics", "/healthz", "/readyz", "/status", "/ping":
		default:
			if err := fresh(); err != nil {
				w.Header().Set("Retry-After", "1")
				http.Error(w, errs.Detail(err), http.StatusServiceUnavailable)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// staleStatus is what a VM's ctl says of a host whose answers may be old.
func (d *daemon) staleStatus() string {
	if d.member == nil {
		return ""
	}
	since, stale := d.member.Since()
	if !stale {
		return ""
	}
	return "stale_since " + stamp(since) + "\n"
}

// fleetMetrics are those of a host of a fleet.
func (d *daemon) fleetMetrics(gauge, counter func(name, help string, is func() float64)) {
	if d.member == nil {
		return
	}
	gauge("fleet_lease", "1 while this host surely has its lease in etcd; else what it answers may be old.", func() float64 { return float64(one(d.fleet.Status().Sure)) })
	gauge("fleet_stale_since_seconds", "Since when what this host answers may be old, in seconds since 1970; 0: it is not.", func() float64 {
		if since, stale := d.member.Since(); stale {
			return float64(since.UnixMilli()) / 1000
		}
		return 0
	})
	counter("fleet_lapses_total", "Times without the lease that are over: what was answered then may have been old.", func() float64 { return float64(d.fleet.Status().Lapses) })
	counter("fleet_came_total", "VMs that came from other hosts, or were nobody's.", func() float64 { st := d.fleet.Status(); return float64(st.Taken + st.Claimed) })
	counter("fleet_given_total", "VMs that were given to other hosts, or to nobody.", func() float64 { return float64(d.fleet.Status().Given) })
	counter("fleet_lost_total", "VMs that another host has taken without being given them.", func() float64 { return float64(d.fleet.Status().Lost) })
	counter("fleet_failed_total", "Hand-overs of VMs that came to nothing.", func() float64 { return float64(d.fleet.Status().Failed) })
	counter("fleet_sent_again_total", "Transactions that etcd was sent again, since nobody knew what had become of them.", func() float64 { return float64(d.etcd.Stats().Unsure) })
	counter("fleet_fenced_writes_total", "Transactions that etcd has refused, since the VM had another owner by then.", func() float64 { return float64(d.etcd.Stats().Fenced) })
	counter("fleet_sessions_lost_total", "Sessions that could not go with their VMs.", func() float64 { return float64(d.fleet.Status().SessionsLost) })
}
