package main

import (
	"math"
	"testing"
	"time"
)

// The table is only as good as its arithmetic: medians, and where a bar is met.

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2},
	} {
		var figures []figure
		for _, v := range tt.in {
			figures = append(figures, figure{value: v})
		}
		if got := median(figures, func(f figure) float64 { return f.value }); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestSummary(t *testing.T) {
	var took []time.Duration
	for i := range 100 {
		took = append(took, time.Duration(100-i)) // unsorted
	}
	f, err := summary(took, 2*time.Second)
	if err != nil || f.value != 50 || f.p50 != 51 || f.p99 != 100 {
		t.Errorf("got %+v, %v", f, err)
	}
	if _, err := summary(nil, time.Second); err == nil {
		t.Error("nothing done is no error")
	}
}

// TestEcho: what a server that does nothing gets stands beside the bar.
func TestEcho(t *testing.T) {
	b := bar{entry: "a", text: "times b", bound: 5, at: ratio("a", "b"), echo: ratio("e", "b")}
	v := b.judge(map[string]figure{"a": {value: 8}, "b": {value: 2}, "e": {value: 9}})
	if v.State != "MISSED" || v.Echo != 4.5 || v.String() != "4.00 times b, >= 5: MISSED (an echo: 4.50)" {
		t.Errorf("%+v: %s", v, v)
	}
}

func TestBars(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bar   bar
		f     map[string]figure
		state string
	}{
		{"reached", bar{bound: 0.6, at: ratio("a", "b")}, map[string]figure{"a": {value: 6}, "b": {value: 10}}, "ok"},
		{"short of it", bar{bound: 0.6, at: ratio("a", "b")}, map[string]figure{"a": {value: 5.9}, "b": {value: 10}}, "MISSED"},
		{"under the roof", bar{bound: 5, most: true, at: value("a")}, map[string]figure{"a": {value: 5}}, "ok"},
		{"over the roof", bar{bound: 5, most: true, at: value("a")}, map[string]figure{"a": {value: 5.1}}, "MISSED"},
		{"no number", bar{bound: 5, at: func(map[string]figure) (float64, bool) { return math.NaN(), true }}, nil, "MISSED"},
		{"cannot be judged", bar{bound: 5, at: func(map[string]figure) (float64, bool) { return 9, false }}, nil, "not judged"},
	} {
		if got := tt.bar.judge(tt.f).State; got != tt.state {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.state)
		}
	}
}

// TestBarsNameEntries catches a bar that judges an entry its row has not.
func TestBarsNameEntries(t *testing.T) {
	for _, r := range rows() {
		f := map[string]figure{}
		for _, e := range r.entries {
			f[e.name] = figure{value: 1}
		}
		for _, b := range r.bars {
			if _, ok := f[b.entry]; !ok {
				t.Errorf("row %s: a bar beside %q, which is no entry", r.name, b.entry)
			}
			if got, _ := b.at(f); got != 1 {
				t.Errorf("row %s: bar %q of ones is %v: it looks at an entry that is not there", r.name, b.text, got)
			}
		}
	}
}

// What is compared is compared within a round: a machine that slows down in the
// middle of a run says nothing of the commits.
func TestBetter(t *testing.T) {
	figures := func(values ...float64) (list []figure) {
		for _, v := range values {
			list = append(list, figure{value: v})
		}
		return list
	}
	if got := better(figures(100, 50, 9), figures(100, 100, 10), false); got != 0.9 {
		t.Errorf("rates: %v", got)
	}
	if got := better(figures(100, 200, 10), figures(50, 100, 10), true); got != 0.5 {
		t.Errorf("times: %v", got)
	}
}

func TestJudgeBase(t *testing.T) {
	r := row{name: "r", base: "echo", entries: []entry{theirs("echo", nil), ours("m", nil)}}
	one := func(v float64) []figure { return []figure{{value: v}} }
	m := medians(map[way]map[string][]figure{
		{pinned: true}:             {"echo": one(10), "m": one(9)},
		{pinned: true, base: true}: {"m": one(10)},
		{}:                         {"echo": one(100), "m": one(120)},
		{base: true}:               {"m": one(100)},
	}, false, way{pinned: true})
	got := r.judge(m, "abc", 0.95)
	if len(got.Bars) != 1 || got.Bars[0].State != "MISSED" || got.Bars[0].Got != 0.9 {
		t.Errorf("bars: %+v", got.Bars)
	}
	if len(got.Lines) != 3 || got.Lines[2].Entry != "m@abc" || got.Lines[2].Ratio != 1 || got.Lines[1].Unpinned != 120 || got.Lines[1].UnpinnedRatio != 1.2 {
		t.Errorf("lines: %+v", got.Lines)
	}
}

func TestWays(t *testing.T) {
	b := &bench{options: options{pin: true}, other: &build{}}
	first := b.ways(row{}, ours("m", nil), 0)
	second := b.ways(row{}, ours("m", nil), 1)
	if len(first) != 4 || len(second) != 4 || first[0] != second[3] || first[0].base == second[0].base {
		t.Errorf("ways %v, then %v", first, second)
	}
	if got := b.ways(row{slow: true}, theirs("e", nil), 0); len(got) != 1 || got[0] != (way{}) {
		t.Errorf("of a slow row of somebody else: %v", got)
	}
}
