package durability

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestSyncBeforeReply watches the system calls of meta9d while clients write,
// and holds every Rswrite against the fdatasyncs: after its Tswrite was read
// and before the reply is written, one must have begun and returned with
// success; and with one client alone nothing may have been written to the
// database since.
func TestSyncBeforeReply(t *testing.T) {
	testenv.NeedDebian(t, "strace", "strace")
	for _, clients := range []int{1, 16} {
		t.Run(fmt.Sprintf("clients=%d", clients), func(t *testing.T) {
			const each = 20
			calls := traced(t, clients, each)
			replies, unsynced := judge(calls, clients == 1)
			if want := clients*each + 1; replies != want { // one made the VM
				t.Errorf("the trace has %d replies to %d Tswrites", replies, want)
			}
			for _, u := range unsynced {
				t.Error(u)
			}
		})
	}
}

// traced runs meta9d under strace, has clients write, and gives the calls.
func traced(t *testing.T, clients, each int) []call {
	file := filepath.Join(t.TempDir(), "trace")
	srv := testenv.Start(t, daemon.Options{Bin: plainBinary(t), Wrap: []string{
		"strace", "-D", "-f", "-xx", "-s", "8", "-o", file,
		"-e", "trace=read,recvfrom,write,writev,sendto,pwrite64,fdatasync,fsync,msync",
	}})
	srv.NewVM(testenv.UUID(0), fmt.Sprintf(`{"uuid":%q}`, testenv.UUID(0)))
	var wg sync.WaitGroup
	for i := range clients {
		c := srv.Conn("vms/" + testenv.UUID(0) + "/keys")
		wg.Go(func() {
			for n := range each {
				if err := c.Swrite(0, value("traced", n), fmt.Sprintf("key%d", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := srv.Stop(20 * time.Second); err != nil {
		t.Error(err)
	}
	ended := regexp.MustCompile(fmt.Sprintf(`(?m)^%d +\+\+\+ exited`, srv.PID()))
	var b []byte
	testenv.Eventually(t, "strace has written all", func() bool {
		b, _ = os.ReadFile(file)
		return ended.Match(b)
	})
	return parse(t, b)
}

// plainBinary is meta9d without the race detector, whose runtime strace slows
// beyond patience.
func plainBinary(t *testing.T) string {
	bin, err := daemon.Build(t.TempDir(), "meta9d")
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// call is a system call; begin and end are positions in the trace, which has
// one order for all threads.
type call struct {
	name       string
	fd         int
	data       []byte // the first bytes read or written
	result     int
	begin, end int
}

var (
	whole   = regexp.MustCompile(`^(\d+) +(\w+)\((\d+)(.*)\) += (-?\d+)`)
	begun   = regexp.MustCompile(`^(\d+) +(\w+)\((\d+)(.*) <unfinished \.\.\.>$`)
	resumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)`)
	hexes   = regexp.MustCompile(`\\x([0-9a-f]{2})`)
)

// parse reads strace's output into calls, in the order of their ends.
func parse(t *testing.T, trace []byte) []call {
	var calls []call
	open := map[string]call{} // by thread
	sc := bufio.NewScanner(bytes.NewReader(trace))
	for n := 0; sc.Scan(); n++ {
		line := sc.Text()
		if m := begun.FindStringSubmatch(line); m != nil {
			open[m[1]] = call{name: m[2], fd: atoi(m[3]), data: unhex(m[4]), begin: n}
		} else if m := resumed.FindStringSubmatch(line); m != nil {
			c, ok := open[m[1]]
			if !ok || c.name != m[2] {
				t.Fatalf("line %d of the trace resumes what was not begun: %s", n, line)
			}
			delete(open, m[1])
			c.data, c.result, c.end = append(c.data, unhex(m[3])...), atoi(m[4]), n
			calls = append(calls, c)
		} else if m := whole.FindStringSubmatch(line); m != nil {
			calls = append(calls, call{name: m[2], fd: atoi(m[3]), data: unhex(m[4]), result: atoi(m[5]), begin: n, end: n})
		}
	}
	return calls
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err) // the expression has only digits
	}
	return n
}

// unhex gives the bytes of the first string among strace's arguments.
func unhex(args string) []byte {
	_, rest, _ := strings.Cut(args, `"`)
	text, _, _ := strings.Cut(rest, `"`)
	var b []byte
	for _, m := range hexes.FindAllStringSubmatch(text, -1) {
		v, _ := strconv.ParseUint(m[1], 16, 8)
		b = append(b, byte(v))
	}
	return b
}

// carries tells whether the bytes that went over a socket begin with a message
// of type m.
func (c call) carries(m wire.Type) bool {
	return c.result > 4 && len(c.data) > 4 && wire.Type(c.data[4]) == m
}

func (c call) reads() bool  { return c.name == "read" || c.name == "recvfrom" }
func (c call) writes() bool { return c.name == "write" || c.name == "writev" || c.name == "sendto" }

// notes tells whether the call writes meta9.acked, which says what is durable already, and
// is itself not synced.
func (c call) notes() bool {
	return c.name == "pwrite64" && bytes.HasPrefix(c.data, []byte("m9ak"))
}

// judge walks through the calls in the order of their ends. Every Rswrite needs
// an fdatasync that lies between its Tswrite and itself; with strict also no
// write to the database may have begun or ended after that fdatasync began, and no
// note of what is durable may come before that.
func judge(calls []call, strict bool) (replies int, unsynced []string) {
	asked := map[int]int{} // socket: where its last Tswrite had been read
	var syncs []call       // the good fdatasyncs
	wrote := -1            // where the last write to the database ended
	for _, c := range calls {
		switch {
		case c.name == "fdatasync" && c.result == 0:
			syncs = append(syncs, c)
		case c.notes():
			if synced := lastBefore(syncs, c.begin); strict && len(asked) > 0 && wrote >= synced.begin {
				unsynced = append(unsynced, fmt.Sprintf("the note at %d: written to at %d, the last fdatasync is %d to %d", c.begin, wrote, synced.begin, synced.end))
			}
		case c.name == "pwrite64":
			wrote = c.end
		case c.reads() && c.carries(wire.Tswrite):
			asked[c.fd] = c.end
		case c.writes() && c.carries(wire.Rswrite):
			replies++
			from, ok := asked[c.fd]
			if !ok {
				unsynced = append(unsynced, fmt.Sprintf("an Rswrite at %d on fd %d that nobody asked for", c.begin, c.fd))
				continue
			}
			delete(asked, c.fd)
			synced := lastBefore(syncs, c.begin)
			if wrong := condemn(from, wrote, synced, strict); wrong != "" {
				unsynced = append(unsynced, fmt.Sprintf("the Rswrite at %d, asked for at %d: %s", c.begin, from, wrong))
			}
		}
	}
	return replies, unsynced
}

// lastBefore is the last of the calls that ended before a position.
func lastBefore(calls []call, at int) call {
	for _, c := range slices.Backward(calls) {
		if c.end < at {
			return c
		}
	}
	return call{begin: -1, end: -1}
}

// condemn says what is wrong with a reply that was asked for at from and left
// after the fdatasync synced.
func condemn(from, wrote int, synced call, strict bool) string {
	switch {
	case synced.begin <= from:
		return fmt.Sprintf("the last fdatasync is %d to %d", synced.begin, synced.end)
	case strict && wrote >= synced.begin:
		return fmt.Sprintf("written to at %d, after the fdatasync at %d began", wrote, synced.begin)
	case strict && wrote <= from:
		return "nothing was written"
	}
	return ""
}
