package session_test

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/redial/redialtest"
)

const (
	vmOne   = "550e8400-e29b-41d4-a716-446655440000"
	vmTwo   = "550e8400-e29b-41d4-a716-446655440001"
	secret  = "meta9-example-secret"
	patient = 10 * time.Second // how long a test waits for what must come
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server over a store in memory that has two VMs.
type world struct {
	t       testing.TB
	disk    *storetest.Disk
	engine  *storetest.Recorder
	store   *store.Store
	tree    *fs.Tree
	server  *session.Server
	log     *logBuffer
	budget  *budget.Budget
	served  sync.WaitGroup
	passing func(h *session.Handed) // changes what is handed over; nil: nothing does
	left    bool                    // its connections are another world's: what they hold here goes with the process
}

// newWorld makes a world; change, if not nil, changes the server's settings.
func newWorld(t testing.TB, change func(*session.Config)) *world {
	w := openWorld(t, storetest.NewDisk(), change)
	for _, uuid := range []string{vmOne, vmTwo} {
		w.do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `","alias":"vm-` + uuid[35:] + `"}`})
	}
	return w
}

// openWorld makes a world over what the disk has.
func openWorld(t testing.TB, disk *storetest.Disk, change func(*session.Config)) *world {
	w := &world{t: t, disk: disk, engine: &storetest.Recorder{Engine: disk}, log: new(logBuffer)}
	var st *store.Store
	cfg := session.Config{
		Log: zerolog.New(w.log), Lifetime: time.Hour, Budget: budget.New(budget.Limits{}),
		Silence: 10 * time.Millisecond, // so that connections of all tests sleep, and are woken
		Auth: &auth.Keyring{
			Secret: []byte(secret), AdminGroups: []string{"swarm1"},
			VMExists: func(uuid string) bool { return st.Cell(uuid) != nil }, Now: time.Now,
		},
	}
	if change != nil {
		change(&cfg)
	}
	var journal store.Journal
	if cfg.Journal != nil {
		journal = cfg.Journal.(store.Journal) // a journal that the store did not tell would hold nothing
	}
	st, err := store.Open(w.engine, store.Config{Log: zerolog.Nop(), Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	w.store = st
	w.budget = cfg.Budget
	w.tree = fs.New(st, fs.Config{Log: zerolog.Nop(), Budget: w.budget})
	cfg.Tree = w.tree
	w.server = session.New(cfg)
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := w.server.Drain(ctx); err != nil {
		w.t.Errorf("drain: %v", err)
	}
	w.served.Wait()
	if err := w.store.Close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
	if w.left {
		return
	}
	w.until("an empty account", func() bool { // changes that nobody awaits end by themselves
		st := w.budget.Stats()
		return st.Used == 0 && st.Admin == 0 && st.Waiting == 0
	})
}

func (w *world) do(in *store.Intent) store.Result {
	w.t.Helper()
	res := w.store.Do(in)
	if res.Err != nil {
		w.t.Fatal(res.Err)
	}
	return res
}

// put sets a key of the first VM as an admin would.
func (w *world) put(name, value string) {
	w.t.Helper()
	w.do(&store.Intent{Kind: store.Put, Cell: w.store.Cell(vmOne), Name: name, Data: value, By: "admin"})
}

// remove takes a key of the first VM away.
func (w *world) remove(name string) {
	w.t.Helper()
	w.do(&store.Intent{Kind: store.Remove, Cell: w.store.Cell(vmOne), Name: name, By: "admin"})
}

// value is a key of the first VM; "-" when there is none.
func (w *world) value(name string) string {
	e := w.store.Cell(vmOne).VM().Get(0, name)
	if e == nil {
		return "-"
	}
	return e.Value
}

// serve serves one end of a connection.
func (w *world) serve(nc net.Conn, p session.Peer) {
	w.served.Add(1)
	go underListener(func() { w.server.Go(nc, p, w.served.Done) })
}

// until waits for a figure of the server's to become what it must.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patient); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s never came: %+v", what, w.server.Stats())
		}
	}
}

// peers are who may be at the other end of a connection in a script.
var peers = map[string]session.Peer{
	"vm":     {Who: fs.Principal{VM: vmOne}, Via: "unix:one", Resumes: true},
	"vm2":    {Who: fs.Principal{VM: vmTwo}, Via: "unix:two", Resumes: true},
	"admin":  {Who: fs.Principal{Admin: true}, Via: "unix:admin", Resumes: true},
	"tcp":    {Via: "tcp::564", Addr: "192.0.2.1"},
	"tcp2":   {Via: "tcp::564", Addr: "192.0.2.2"},
	"nobody": {Via: "unix:nobody", Resumes: true},
}

// transports are the kinds of connections that every script runs over.
var transports = map[string]func(testing.TB) (server, client net.Conn){
	"pipe": func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	"unix": redialtest.Pair,
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// underListener calls fn with as much of the stack in use as meta9d has under Serve.
//
//go:noinline
func underListener(fn func()) {
	var frames [320]byte
	fn()
	runtime.KeepAlive(&frames)
}
