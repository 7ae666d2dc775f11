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
