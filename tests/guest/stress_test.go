package guest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/guest/machine"
)

// TestWriters: what writers of a guest may rely on, in one boot.
func TestWriters(t *testing.T) {
	h := serve(t, daemon.Options{Memory: true})
	g := Boot(t, machine.Options{Connect: h.socket()})
	for _, s := range []struct {
		name string
		do   func(t *testing.T, h *host, g *Guest)
	}{
		{"echo never empty", echoNeverEmpty},
		{"late truncation", lateTruncation},
		{"two writers", twoWriters},
	} {
		t.Run(s.name, func(t *testing.T) { s.do(t, h, g) })
	}
}

// echoNeverEmpty: while the guest does `echo v > key` 2,000 times, a reader on the
// host sees whole values only, each no older than the one before.
func echoNeverEmpty(t *testing.T, h *host, g *Guest) {
	const times = 2000
	for _, cache := range []string{"none", "mmap"} {
		t.Run(cache, func(t *testing.T) {
			m := g.mount(t, h, "9p2000.L", cache)
			m.ok(t, "echo v0 of 0 > key")
			done, err := m.Start(m.dir+"/keys", 0, fmt.Sprintf(
				`i=0; while [ $i -lt %d ]; do i=$((i + 1)); echo "v$i of $((i * i))" > key || exit 1; done`, times))
			if err != nil {
				t.Fatal(err)
			}
			reads, seen, last := 0, 0, 0
			for running := true; running; reads++ {
				select {
				case r := <-done:
					if r.Status != 0 {
						t.Fatalf("exit %d: %s", r.Status, r.Output)
					}
					running = false
				default:
				}
				if reads%32 == 0 {
					time.Sleep(time.Millisecond) // the guest needs a processor, too
				}
				value, _ := h.value(t, "key")
				n := whole(value)
				if n < last {
					t.Fatalf("read %d is %q, after value %d", reads, value, last)
				}
				if n > last {
					seen++
				}
				last = n
			}
			if last != times || seen < times/20 {
				t.Errorf("in %d reads %d values were seen, the last is %d", reads, seen, last)
			}
			t.Logf("%d reads, %d of %d values seen", reads, seen, times)
		})
	}
}

// whole is the number of a value that echoNeverEmpty writes, -1 for anything
// else.
func whole(value string) int {
	number, _, _ := strings.Cut(strings.TrimPrefix(value, "v"), " ")
	n, err := strconv.Atoi(number)
	if err != nil || value != fmt.Sprintf("v%d of %d\n", n, n*n) {
		return -1
	}
	return n
}

// lateTruncation: under cache=loose the kernel writes through another fid than
// the one that it has truncated. What was written and fsynced is on the host, and
// the truncation of a file that another process has open does not come after it.
func lateTruncation(t *testing.T, h *host, g *Guest) {
	m := g.mount(t, h, "9p2000.L", "loose")
	m.ok(t, "echo first > key; sync")
	for i := range 30 {
		value := strings.Repeat(fmt.Sprintf("value %d ", i), i%7+1)
		m.ok(t, "rewrite key '"+value+"'")
		if got, _ := h.value(t, "key"); got != value {
			t.Fatalf("fsynced %q, on the host is %q", value, got)
		}
	}
	// A process has truncated it and keeps it open; another writes and fsyncs; then
	// the first closes.
	m.ok(t, "rm -f /tmp/go; (exec 3>key; touch /tmp/open; until [ -e /tmp/go ]; do sleep 0.1; done; exec 3>&-; touch /tmp/closed) >/dev/null 2>&1 & until [ -e /tmp/open ]; do sleep 0.1; done")
	m.ok(t, "rewrite key 'the last word'")
	if got, _ := h.value(t, "key"); got != "the last word" {
		t.Errorf("fsynced, and on the host is %q", got)
	}
	m.ok(t, "touch /tmp/go; until [ -e /tmp/closed ]; do sleep 0.1; done; sync")
	if got, _ := h.value(t, "key"); got != "the last word" {
		t.Errorf("the late close made it %q", got)
	}
	m.says(t, "cat key", "the last word")
}

// twoWriters: two writers that lock lose nothing, in one mount by flock(1) on a
// descriptor, in two mounts by a process that holds the lock.
func twoWriters(t *testing.T, h *host, g *Guest) {
	const each = 50
	one := g.mount(t, h, "9p2000.L", "none")
	two := *one
	two.dir += "-2"
	two.remount(t)
	defer g.Sh(t, "umount "+two.dir)
	count := func(name string, second *mount, step string) {
		one.ok(t, "echo 0 > count; : > lock")
		loop := fmt.Sprintf("for n in $(seq %d); do %s || exit 1; done", each, step)
		other, err := g.Start(second.dir+"/keys", 0, loop)
		if err != nil {
			t.Fatal(err)
		}
		one.ok(t, loop)
		if r := <-other; r.Status != 0 {
			t.Fatalf("%s: exit %d: %s", name, r.Status, r.Output)
		}
		if got, _ := h.value(t, "count"); got != fmt.Sprintln(2*each) {
			t.Errorf("%s: counted to %q", name, got)
		}
	}
	const increment = `v=$(cat count); echo $((v + 1)) > count`
	count("one mount", one, `( flock 9 || exit 1; `+increment+` ) 9>lock`)
	count("two mounts", &two, `flock lock sh -c '`+increment+`'`)
}

// TestKilled: a live update of meta9d is a pause to writers on a mount of v9fs alone. Every
// echo that returned 0 is there after SIGKILL of meta9d, whose mount gives EIO at once, can
// be unmounted, and mounted anew.
func TestKilled(t *testing.T) {
	const writers, rounds = 4, 5
	h := serve(t, daemon.Options{})
	g := Boot(t, machine.Options{Connect: h.socket()})
	m := g.mount(t, h, "9p2000.L", "none")
	for round := range rounds {
		done, err := g.Start(m.dir+"/keys", 0, fmt.Sprintf(`rm -f /tmp/acked*
for w in $(seq %d); do (
  i=0; while true; do i=$((i + 1))
    echo "%d.$i" > key$w$((i %% 3)) || exit; echo $i > /tmp/acked$w
  done ) & done; wait`, writers, round))
		if err != nil {
			t.Fatal(err)
		}
		acked := func(more int) {
			m.ok(t, fmt.Sprintf("until [ \"$(cat /tmp/acked1 2>/dev/null || echo 0)\" -gt %d ]; do sleep 0.1; done", more))
		}
		acked(10)
		h.LiveUpdate()
		acked(20 + 17*round)
		select {
		case r := <-done:
			t.Fatalf("round %d: a live update has ended the writers: %s", round, r.Output)
		default:
		}
		h.Restart()
		h.admin = h.Conn("vms/" + uuid)
		<-done // all have got an error
		out, _, err := g.Run("/", 0, "cat "+m.dir+"/keys/motd")
		if err != nil || !strings.Contains(out, "Input/output error") {
			t.Errorf("without its server the mount says %q, %v", out, err)
		}
		total := 0
		for w := 1; w <= writers; w++ {
			acked, err := strconv.Atoi(strings.TrimSpace(g.Sh(t, fmt.Sprintf("cat /tmp/acked%d 2>/dev/null || echo 0", w))))
			if err != nil {
				t.Fatal(err)
			}
			total += acked
			for i := max(1, acked-2); i <= acked; i++ {
				key, value := fmt.Sprintf("key%d%d", w, i%3), fmt.Sprintf("%d.%d\n", round, i)
				next := fmt.Sprintf("%d.%d\n", round, i+3) // under way when it was killed
				if got, _ := h.value(t, key); got != value && got != next {
					t.Errorf("round %d: %s is %q, acknowledged was %q", round, key, got, value)
				}
			}
		}
		t.Logf("round %d: %d values acknowledged", round, total)
		g.Sh(t, "umount "+m.dir)
		m.remount(t)
	}
}
