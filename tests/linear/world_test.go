// Package linear looks at meta9d from outside, as many clients of every kind see it
// at the same time, and asks whether one order of all that they did explains what
// each was told (linearizability; the search is porcupine's). meta9d is killed and
// started again, connections are lost with requests on the way, and sessions are
// resumed meanwhile. What was acknowledged is there after a kill, what was not is
// there or not, and what a numbered client asked for is done once.
//
// Two kinds of VMs take part. In those of "fids" the clients open files by walking
// to them, write parts of them, and hold truncations; a shared key is replaced by a
// file of one client's own. In those of "names" every request names its key, so
// that shared keys can be renamed to one another.
package linear

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var (
	seed    = flag.Uint64("seed", 20121217, "what the clients' choices and the moments of kills grow from")
	program = flag.String("meta9d", "", "the meta9d to look at in place of the tree's")
)

// nVMs is how many VMs there are; the odd ones are of names.
const nVMs = 4

// world is one meta9d after the other over one data folder, and its clients.
type world struct {
	t    *testing.T
	h    *history
	srv  *testenv.Server
	qmp  string // the socket of its QMP
	seed uint64

	mu   sync.Mutex
	dead []int64 // when each meta9d was gone, the present one not among them

	quit  chan struct{} // closed when the clients are to stop
	drops atomic.Int64  // connections that were lost on purpose
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, h: newHistory(), seed: seed, quit: make(chan struct{})}
	w.qmp = filepath.Join(t.TempDir(), "qmp.sock")
	w.srv = testenv.Start(t, daemon.Options{Bin: *program, Args: []string{"--qmp-listen", "unix:" + w.qmp}})
	for vm := range nVMs {
		w.srv.NewVM(uuid(vm), fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"other":"1"}}`, uuid(vm)))
	}
	return w
}

func uuid(vm int) string { return testenv.UUID(vm + 1) }

// socket is a VM's own socket of that name.
func (w *world) socket(vm int, name string) string {
	return filepath.Join(w.srv.Run(), uuid(vm), name)
}

// gen is which meta9d lives, or comes next.
func (w *world) gen() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dead)
}

// kill ends meta9d by SIGKILL and starts the next one, for the sake of those who cannot
// stop before they know what became of their request.
func (w *world) kill() {
	w.srv.Kill()
	w.mu.Lock()
	w.dead = append(w.dead, w.h.now())
	w.mu.Unlock()
	close(w.quit)
	w.srv.Restart()
}

// over says whether the clients are to stop.
func (w *world) over() bool {
	select {
	case <-w.quit:
		return true
	default:
		return false
	}
}

// connect calls dial until it succeeds, and tells which meta9d it has reached; false:
// the clients are to stop.
func (w *world) connect(dial func() error, hangUp func()) (gen int, ok bool) {
	for !w.over() {
		before := w.gen()
		if dial() == nil {
			if w.gen() == before {
				return before, true
			}
			hangUp()
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, false
}

// user is one client of a kind.
type user interface {
	step() // one thing that it does
	kind() string
	settle() // after meta9d was killed: what it has no answer to will get none
	close()
}

// worker is what the kinds of clients have in common.
type worker struct {
	*world
	*rand.Rand
	who  string
	vm   int
	hold uint64 // the bit of its truncations
	made int    // values, so that no two are the same
}

func (w *world) worker(vm, n int, who string) worker {
	return worker{world: w, Rand: rand.New(rand.NewPCG(w.seed, uint64(vm<<8+n))), who: who, vm: vm, hold: 1 << n}
}

func (w *worker) kind() string { return w.who }

// in is an operation on one of the shared keys.
func (w *worker) in(k kind, key int) input { return input{kind: k, vm: w.vm, key: key, who: w.who} }

// value is one that nobody has written before: mostly short, now and then long.
func (w *worker) value() string {
	w.made++
	v := fmt.Sprintf("%x.%d|", w.hold, w.made)
	switch n := w.IntN(100); {
	case n == 0:
		v += strings.Repeat("long,", 1+w.IntN(3000))
	case n < 40:
		v += strings.Repeat("x", w.IntN(40))
	}
	return v
}

// key is one of the shared keys. Where clients' requests are about several of them
// at a time two will do: the search for an order takes long.
func (w *worker) key() int {
	if byNames(w.vm) {
		return w.IntN(2)
	}
	return w.IntN(nKeys)
}

// one says yes once in n times.
func (w *worker) one(n int) bool { return w.IntN(n) == 0 }
