package main

import (
	"os"
	"testing"
	"time"

	"meta9/tests/testenv"
)

// TestMain is also the attacker's process, since what a test starts is itself.
func TestMain(m *testing.M) {
	if os.Getenv(attackEnv) != "" {
		main()
		return
	}
	testenv.Main(m)
}

// TestFair is the short form of make bench-fair: a few attacks, one round each. Its
// bars leave room for a machine that does other things, and are far below what
// these attacks did without a scheduler, which was a hundredfold and more; and below
// the 242 MiB that large ones took.
func TestFair(t *testing.T) {
	o := options{guests: 30, rounds: 1, time: time.Second, meta9d: testenv.Binary(t, "meta9d")}
	for _, a := range attacks {
		switch a.name {
		case "listing", "chmods", "dials", "large":
		default:
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			var missed []string
			for range 3 { // whatever else runs on this machine
				r, err := o.measure(a)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(r.row())
				if missed = r.misses(generous); missed == nil {
					return
				}
			}
			t.Error(missed)
		})
	}
}

var generous = bars{ratio: 10, p99: 100 * time.Millisecond, memory: 160 << 20}

func TestMisses(t *testing.T) {
	ms := time.Millisecond
	quiet := figures{readP50: ms, readP99: 2 * ms, writeP50: ms, writeP99: 2 * ms}
	for _, tt := range []struct {
		name              string
		attacked, control figures
		misses            int
	}{
		{"as alone", quiet, quiet, 0},
		{"within all", figures{readP50: 2 * ms, readP99: 10 * ms, writeP50: 2 * ms, writeP99: 10 * ms}, quiet, 0},
		{"past all", figures{readP50: 3 * ms, readP99: 11 * ms, writeP50: 3 * ms, writeP99: 11 * ms}, quiet, 4},
		{
			"as slow as the control",
			figures{readP50: 18 * ms, readP99: 90 * ms, writeP50: 18 * ms, writeP99: 90 * ms},
			figures{readP50: 9 * ms, readP99: 45 * ms, writeP50: 9 * ms, writeP99: 45 * ms},
			0,
		},
		{
			"a control that was faster than alone gives nothing",
			figures{readP50: 2 * ms, readP99: ms, writeP50: 2 * ms, writeP99: ms},
			figures{readP50: ms / 2, readP99: ms, writeP50: ms / 2, writeP99: ms},
			0,
		},
		{"no figures", figures{}, figures{}, 0},
		{"too much memory", figures{memory: 137 << 20}, figures{}, 1},
		{"as much memory as is allowed", figures{memory: 136 << 20}, figures{}, 0},
	} {
		r := result{attack: attack{stores: 8 << 20}, alone: quiet, attacked: tt.attacked, control: tt.control}
		if got := r.misses(strict); len(got) != tt.misses {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
	if got := (result{}).misses(strict); len(got) != 2 {
		t.Errorf("nothing was measured: %q", got)
	}
}

func TestMedian(t *testing.T) {
	m := median([]figures{{readP50: 3, rate: 1, memory: 7}, {readP50: 1, rate: 9, memory: 8}, {readP50: 2, rate: 5, memory: 6}})
	if m.readP50 != 2 || m.rate != 5 || m.memory != 8 {
		t.Errorf("%+v", m)
	}
}
