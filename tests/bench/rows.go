package main

import (
	"fmt"
	"math"
)

// row is one question put to several servers.
type row struct {
	name    string
	title   string
	unit    string
	base    string // the entry that others are shown as a ratio of; "" for none
	slow    bool   // three rounds are enough, and nothing is pinned: it is about a process as a whole
	free    bool   // nothing is pinned: it is about several processes
	less    bool   // a smaller figure is a better one
	entries []entry
	bars    []bar
}

// entry is one server, or one way of asking it, in a row.
type entry struct {
	name    string
	measure func(*bench) (figure, error)
	ours    bool   // it is about meta9d, so that another commit's can stand beside it
	needs   string // of ours: a folder of its source without which it cannot be measured; "": none
}

func ours(name string, measure func(*bench) (figure, error)) entry {
	return entry{name: name, measure: measure, ours: true}
}

func theirs(name string, measure func(*bench) (figure, error)) entry {
	return entry{name: name, measure: measure}
}

// bar is what a row has to reach. at tells how far the figures got: got is
// to be at least least, or with most at most that; ok is false where the bar
// cannot be judged.
type bar struct {
	entry string // beside which the bar is shown
	text  string
	most  bool
	bound float64
	at    func(map[string]figure) (got float64, ok bool)
	echo  func(map[string]figure) (got float64, ok bool) // at for a server that does nothing, shown beside it; nil: none
}

func rows() []row {
	return append([]row{
		reads("read32", "32 reads in flight on one connection", 1, 32, 0.93),
		reads("read1", "one read at a time", 1, 1, 0.93),
		reads("read64", "64 connections, one read at a time each", 64, 1, 0.93),
		linux32(),
		byPath(),
		byProtocol(),
		durable(),
		txn(),
		large(),
		many(),
		beside(),
		streams(),
		idle(),
		parked(),
		heap(),
		coldStart(),
		fleetStart(),
		fleetMemory(),
		etcdWrite(),
		etcdBatch(),
		etcdRead(),
		etcdStart(),
	}, lists()...)
}

func rowNames() []string {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	return names
}

// loaded is an entry that puts a load on a server.
func loaded(name, server string, conns, depth int, p prepare) entry {
	s, _ := serverOf(server) // b.load says what is wrong with it
	return entry{name: name, measure: func(b *bench) (figure, error) { return b.load(server, conns, depth, p) }, ours: s.serve == nil}
}

// ratio is how a figure stands to another.
func ratio(of, over string) func(map[string]figure) (float64, bool) {
	return func(f map[string]figure) (float64, bool) { return f[of].value / f[over].value, true }
}

// overBest is ratio to the largest of others.
func overBest(of string, over ...string) func(map[string]figure) (float64, bool) {
	return func(f map[string]figure) (float64, bool) {
		best := 0.0
		for _, name := range over {
			best = math.Max(best, f[name].value)
		}
		return f[of].value / best, true
	}
}

// value is a figure itself.
func value(of string) func(map[string]figure) (float64, bool) {
	return func(f map[string]figure) (float64, bool) { return f[of].value, true }
}

// reads are Treads on open fids, beside the echo, which is the limit.
func reads(name, title string, conns, depth int, least float64) row {
	r := row{name: name, title: title, unit: "reads/s", base: sEcho}
	for _, s := range append([]string{sEcho, sMeta9}, foreign...) {
		r.entries = append(r.entries, loaded(s, s, conns, depth, openRead))
	}
	r.bars = []bar{{entry: sMeta9, text: "of the echo", bound: least, at: ratio(sMeta9, sEcho)}}
	return r
}

// linux32 is what Linux's dialect costs, beside p9's server, which speaks no other.
func linux32() row {
	r := row{name: "linux32", title: "9P2000.L, 32 reads in flight on one connection", unit: "reads/s", base: sEcho}
	for _, s := range []string{sEcho, sMeta9L, sStatic, sLocal} {
		r.entries = append(r.entries, loaded(s, s, 1, 32, openRead))
	}
	r.bars = []bar{
		{entry: sMeta9L, text: "of the echo", bound: 0.55, at: ratio(sMeta9L, sEcho)},
		{entry: sMeta9L, text: "times p9's server", bound: 3.5, at: overBest(sMeta9L, sStatic, sLocal), echo: overBest(sEcho, sStatic, sLocal)},
	}
	return r
}

// byPath reads a key by its name: one Tsread against the four messages that
// others need, and against an HTTP GET.
func byPath() row {
	const macro, four, suffix = "meta9d Tsread", "meta9d 4 messages", " 4 messages"
	r := row{name: "bypath", title: "a key by path, one at a time", unit: "keys/s", base: macro, entries: []entry{
		loaded(sEcho, sEcho, 1, 1, byMacro),
		loaded(macro, sMeta9, 1, 1, byMacro),
		loaded(four, sMeta9, 1, 1, byWalk),
		loaded(sHTTP, sHTTP, 1, 1, byGet),
	}}
	var peers []string
	for _, s := range foreign {
		peers = append(peers, s+suffix)
		r.entries = append(r.entries, loaded(s+suffix, s, 1, 1, byWalk))
	}
	r.bars = []bar{
		{entry: macro, text: "times the best peer", bound: 5, at: overBest(macro, peers...), echo: overBest(sEcho, peers...)},
		{entry: macro, text: "times net/http", bound: 1.5, at: ratio(macro, sHTTP), echo: ratio(sEcho, sHTTP)},
		{entry: macro, text: "of the echo", bound: 0.95, at: ratio(macro, sEcho)},
	}
	return r
}

// durable are Tswrites, each answered when it is on the disk.
func durable() row {
	const one, many, disk = "1 connection", "64 connections", "fdatasync"
	return row{
		name: "durable", title: "durable Tswrite to meta9d, one at a time each, beside the disk's fdatasync", unit: "writes/s", base: one,
		entries: []entry{
			ours(one, func(b *bench) (figure, error) { return b.inTurn(sMeta9, byWrite, syncSize) }),
			theirs(disk, (*bench).syncs),
			loaded(many, sMeta9, 64, 1, byWrite),
		},
		bars: []bar{
			{entry: many, text: "times one connection", bound: 3, at: ratio(many, one)},
			{entry: one, text: "times the time of an fdatasync", bound: 1.6, most: true, at: func(f map[string]figure) (float64, bool) {
				return f[disk].value / f[one].value, f[disk].value < syncless
			}},
			{entry: many, text: "times the disk's fdatasyncs", bound: 10, at: func(f map[string]figure) (float64, bool) {
				return f[many].value / f[disk].value, f[disk].value < syncless
			}},
		},
	}
}

// txn is ten keys changed by one transaction, in one round trip and one commit.
func txn() row {
	const one, ten = "1 key", "10 keys"
	return row{
		name: "txn", title: "a durable Tswrite of a key, and one of a transaction with 10", unit: "writes/s", base: one,
		entries: []entry{loaded(one, sMeta9, 1, 1, byWrite), loaded(ten, sMeta9, 1, 1, byTxn)},
		bars:    []bar{{entry: ten, text: "times the time of a key", bound: 1.3, most: true, at: ratio(one, ten)}},
	}
}

// large is one byte written into a value of 1 MiB: it costs what it costs the disk
// to take the value anew.
func large() row {
	const splice, disk = "1 byte", "fdatasync of 1 MiB"
	return row{
		name: "large", title: "a durable Twrite of 1 byte into a value of 1 MiB, beside the disk's fdatasync of as much", unit: "writes/s", base: splice,
		entries: []entry{
			ours(splice, func(b *bench) (figure, error) { return b.inTurn(sMeta9, bySplice, largeValue) }),
			theirs(disk, (*bench).syncs),
		},
		bars: []bar{{entry: splice, text: "times the time of its fdatasync", bound: 3, most: true, at: func(f map[string]figure) (float64, bool) {
			return f[disk].value / f[splice].value, f[disk].value < syncless
		}}},
	}
}

// many is what the number of a VM's keys costs a write.
func many() row {
	const few, most = "100 keys", "4,096 keys"
	return row{
		name: "many", title: "64 connections write to a VM of few keys, and to one that has all it may", unit: "writes/s", base: few,
		entries: []entry{loaded(few, sMeta9, 64, 1, byWrite), loaded(most, sMany, 64, 1, byWrite)},
		bars:    []bar{{entry: most, text: "of those to " + few, bound: 0.9, at: ratio(most, few)}},
	}
}

// beside is how long reads take while the keys that they read are written all the
// time.
func beside() row {
	const alone, writers, echo, echoWriters = "64 read", "64 read, 64 write", sBursts + ", 64 read", sBursts + ", 64 read, 64 write"
	return row{
		name: "beside", title: "Tsread of 100 keys of one VM by 64 connections, while 64 write them", unit: "ms at p99", base: alone, less: true,
		entries: []entry{
			ours(alone, func(b *bench) (figure, error) { return b.readsBeside(sMeta9, 0) }),
			ours(writers, func(b *bench) (figure, error) { return b.readsBeside(sMeta9, 64) }),
			theirs(echo, func(b *bench) (figure, error) { return b.readsBeside(sBursts, 0) }),
			theirs(echoWriters, func(b *bench) (figure, error) { return b.readsBeside(sBursts, 64) }),
		},
		bars: []bar{{entry: writers, text: "times those without writers", bound: 3, most: true, at: ratio(writers, alone), echo: ratio(echoWriters, echo)}},
	}
}

// verdict says where the figures stand to a bar.
type verdict struct {
	Entry string  `json:"entry"`
	Text  string  `json:"bar"`
	Got   float64 `json:"got"`
	Bound float64 `json:"bound"`
	Most  bool    `json:"at_most,omitempty"`
	State string  `json:"state"`          // "ok", "MISSED", or "not judged"
	Echo  float64 `json:"echo,omitempty"` // what a server got that does nothing
}

func (b bar) judge(f map[string]figure) verdict {
	got, ok := b.at(f)
	v := verdict{Entry: b.entry, Text: b.text, Got: got, Bound: b.bound, Most: b.most, State: "ok"}
	switch {
	case !ok:
		v.State = "not judged"
	case b.most && !(got <= b.bound), !b.most && !(got >= b.bound):
		v.State = "MISSED"
	}
	if b.echo != nil {
		v.Echo, _ = b.echo(f)
	}
	return v
}

func (v verdict) String() string {
	sign := ">="
	if v.Most {
		sign = "<="
	}
	text := fmt.Sprintf("%.2f %s, %s %g: %s", v.Got, v.Text, sign, v.Bound, v.State)
	if v.Echo != 0 {
		text += fmt.Sprintf(" (an echo: %.2f)", v.Echo)
	}
	return text
}

// judge holds a row's figures against its bars, and against those of the commit
// base, "" for none.
func (r row) judge(m measured, base string, least float64) result {
	f, u := m.figures[m.main], m.figures[way{}]
	out := result{Row: r.name, Title: r.title, Unit: r.unit, Base: r.base, Pinned: m.main.pinned}
	add := func(e string, w way) {
		got, ok := m.figures[w][e]
		if !ok {
			return
		}
		l := line{Entry: e, Value: got.value, P50: got.p50, P99: got.p99}
		if w.base {
			l.Entry += "@" + base
		}
		if over := f[r.base].value; over != 0 {
			l.Ratio = l.Value / over
		}
		if w.pinned {
			l.Unpinned = m.figures[way{base: w.base}][e].value
			if over := u[r.base].value; over != 0 {
				l.UnpinnedRatio = l.Unpinned / over
			}
		}
		out.Lines = append(out.Lines, l)
	}
	for _, e := range r.entries {
		add(e.name, m.main)
		add(e.name, way{pinned: m.main.pinned, base: true})
	}
	for _, b := range r.bars {
		if len(f) == len(r.entries) {
			out.Bars = append(out.Bars, b.judge(f))
		}
	}
	for _, e := range r.entries {
		if got, ok := m.ratios[m.main.pinned][e.name]; ok {
			text := "times as good as " + base
			if m.main.pinned {
				text += fmt.Sprintf(" (unpinned %.2f)", m.ratios[false][e.name])
			}
			b := bar{entry: e.name, text: text, bound: least, at: func(map[string]figure) (float64, bool) { return got, true }}
			out.Bars = append(out.Bars, b.judge(nil))
		}
	}
	return out
}
