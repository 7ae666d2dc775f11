package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// bars are what an attack may do to others.
type bars struct {
	ratio float64       // times the control's, of the p50
	p99   time.Duration // or twice the control's p99

	memory int64 // that meta9d grows by at most, beside what the attack stores
}

var strict = bars{ratio: 2, p99: 10 * time.Millisecond, memory: 128 << 20}

// misses says which bars the attack is past.
func (r result) misses(b bars) (list []string) {
	for _, of := range []struct {
		what                     string
		alone, attacked, control time.Duration
		p99, controlP99          time.Duration
	}{
		{"read", r.alone.readP50, r.attacked.readP50, r.control.readP50, r.attacked.readP99, r.control.readP99},
		{"write", r.alone.writeP50, r.attacked.writeP50, r.control.writeP50, r.attacked.writeP99, r.control.writeP99},
	} {
		is, may := times(of.attacked, of.alone), b.ratio*math.Max(1, times(of.control, of.alone))
		if !(is <= may) {
			list = append(list, fmt.Sprintf("%s p50 %.1f x, %.1f x is allowed", of.what, is, may))
		}
		if most := max(b.p99, time.Duration(b.ratio*float64(of.controlP99))); of.p99 > most {
			list = append(list, fmt.Sprintf("%s p99 %s ms, %s ms is allowed", of.what, ms(of.p99), ms(most)))
		}
	}
	if is, may := r.attacked.memory-r.stores, b.memory; is > may {
		list = append(list, fmt.Sprintf("%d MiB beside what is stored, %d MiB are allowed", is>>20, may>>20))
	}
	return list
}

func times(of, over time.Duration) float64 { return float64(of) / float64(over) }

const tableHead = `| attack of one VM | read p50, x alone (control) | write p50, x alone (control) | read p50, p99 ms (control's p99) | write p50, p99 ms (control's p99) | honest rate, of alone (control) | attack/s | memory, MiB | bars |
|---|---|---|---|---|---|---|---|---|
`

// row is the attack's line of the table.
func (r result) row() string {
	verdict := "ok"
	if m := r.misses(strict); len(m) > 0 {
		verdict = "MISSED: " + strings.Join(m, "; ")
	}
	a, c := r.attacked, r.control
	return fmt.Sprintf("| %s: %s | %.1f (%.1f) | %.1f (%.1f) | %s, %s (%s) | %s, %s (%s) | %.2f (%.2f) | %.0f | %d | %s |\n",
		r.name, r.doc,
		times(a.readP50, r.alone.readP50), times(c.readP50, r.alone.readP50),
		times(a.writeP50, r.alone.writeP50), times(c.writeP50, r.alone.writeP50),
		ms(a.readP50), ms(a.readP99), ms(c.readP99), ms(a.writeP50), ms(a.writeP99), ms(c.writeP99),
		a.rate/r.alone.rate, c.rate/r.alone.rate, a.attack, a.memory>>20, verdict)
}

func ms(d time.Duration) string {
	v := float64(d) / 1e6
	switch {
	case v < 1:
		return fmt.Sprintf("%.2f", v)
	case v < 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
