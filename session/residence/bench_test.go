package residence_test

import (
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/session"
	"meta9/session/redial/redialtest"
	"meta9/session/residence"
	"meta9/session/wire"
)

// bencher is a client over a unix socket of a server on a data folder, with a journal or
// without.
type bencher struct {
	testing.TB
	nc    net.Conn
	frame []byte
	reply [8192]byte
}

func newBencher(b testing.TB, d wire.Dialect, journal bool) *bencher {
	var j *residence.Journal
	stores, sessions := store.Config{Log: zerolog.Nop()}, session.Config{Log: zerolog.Nop()}
	if journal {
		run := "/dev/shm/m9-bench-" + strconv.Itoa(os.Getpid())
		j = openJournal(b, run)
		stores.Journal, sessions.Journal = j, j
		b.Cleanup(func() { j.End(true); os.RemoveAll(run) })
	}
	e, err := bolt.Open(b.TempDir(), bolt.Options{})
	if err != nil {
		b.Fatal(err)
	}
	st, err := store.Open(e, stores)
	if err != nil {
		b.Fatal(err)
	}
	sessions.Tree = fs.New(st, fs.Config{Log: zerolog.Nop()})
	srv := session.New(sessions)
	for _, in := range []*store.Intent{
		{Kind: store.CreateVM, Data: `{"uuid":"` + vmUUID + `"}`},
		{Kind: store.Put, Name: "color", Data: "blue"},
	} {
		if in.Kind == store.Put {
			in.Cell = st.Cell(vmUUID)
		}
		if r := st.Do(in); r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	if journal {
		if err := j.Begin(residence.Place{Rev: st.Rev()}, srv, sessions.Tree); err != nil {
			b.Fatal(err)
		}
	}
	ours, theirs := redialtest.Pair(b)
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(ours, session.Peer{Who: fs.Principal{VM: vmUUID}, Via: "pair", Resumes: true})
	}()
	b.Cleanup(func() { theirs.Close(); <-served; st.Close() })
	c := &bencher{TB: b, nc: theirs}
	c.do(wire.Plain, &wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: 8192, Version: d.String()})
	c.do(d, &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: [8]byte{1}})
	c.do(d, &wire.Msg{Type: wire.Tattach, Afid: wire.NoFid, NUname: wire.NoUID})
	c.do(d, &wire.Msg{Type: wire.Twalk, Newfid: 1, Names: []string{"keys", "color"}})
	c.do(d, &wire.Msg{Type: wire.Topen, Fid: 1, Mode: wire.ORdWr})
	return c
}

func (c *bencher) do(d wire.Dialect, m *wire.Msg) {
	var err error
	if c.frame, err = wire.Append(c.frame[:0], m, d); err != nil {
		c.Fatal(err)
	}
	if _, err := c.nc.Write(c.frame); err != nil {
		c.Fatal(err)
	}
	if _, err := c.nc.Read(c.reply[:]); err != nil {
		c.Fatal(err)
	}
}

// BenchmarkJournal does the same with a journal and without, in turns, so that what else
// the machine does takes from both, and gives the medians: of walk+clunk pairs, reads, durable writes.
func BenchmarkJournal(b *testing.B) {
	for _, d := range []wire.Dialect{wire.E, wire.EN2} {
		for name, do := range map[string]func(c *bencher){
			"walk": func(c *bencher) {
				c.do(d, &wire.Msg{Type: wire.Twalk, Newfid: 2, Names: []string{"keys", "color"}})
				c.do(d, &wire.Msg{Type: wire.Tclunk, Fid: 2})
			},
			"read":  func(c *bencher) { c.do(d, &wire.Msg{Type: wire.Tread, Fid: 1, Count: 4096}) },
			"write": func(c *bencher) { c.do(d, &wire.Msg{Type: wire.Twrite, Fid: 1, Count: 4, Data: []byte("blue")}) },
		} {
			b.Run(d.String()+"/"+name, func(b *testing.B) {
				off, on := newBencher(b, d, false), newBencher(b, d, true)
				var took [2][]time.Duration
				const round = 50
				for b.Loop() {
					for i, c := range []*bencher{off, on} {
						begin := time.Now()
						for range round {
							do(c)
						}
						took[i] = append(took[i], time.Since(begin))
					}
				}
				var median [2]float64
				for i := range took {
					slices.Sort(took[i])
					median[i] = float64(took[i][len(took[i])/2]) / round
				}
				b.ReportMetric(median[0], "off-ns")
				b.ReportMetric(median[1], "on-ns")
				b.ReportMetric(median[0]/median[1], "rate")
			})
		}
	}
}
