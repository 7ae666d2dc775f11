package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/session"
	"meta9/session/auth"
	"meta9/session/listen"
	"meta9/session/wire"
)

// handed is a net.Listener that gives the connections that a test makes.
type handed struct {
	conns chan net.Conn
	done  chan struct{}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error   { close(h.done); return nil }
func (h *handed) Addr() net.Addr { return &vsock.Addr{ContextID: 2, Port: 564} }

// fromGuest is a connection that comes from a CID, as a vsock listener has it.
type fromGuest struct {
	net.Conn
	cid, port uint32
}

func (c fromGuest) RemoteAddr() net.Addr { return &vsock.Addr{ContextID: c.cid, Port: c.port} }

// TestAskForAuthByVsock: clients that send Tauth first (diodcat, py9p) get in over vsock,
// with and without a MUMBLE secret: the channel proves its peer, and Tauth is an error
// (attach(5)). The kernel's part of vsock is not here: this machine has no guests that
// speak it. Tests of the other channels are in tests/interop.
func TestAskForAuthByVsock(t *testing.T) {
	for name, keys := range map[string]*auth.Keyring{
		"no secret": nil,
		"a secret":  {Secret: []byte("0123456789abcdef"), VMExists: func(string) bool { return true }, Now: time.Now},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := store.Open(store.NewMemory(), store.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			tree := fs.New(st, fs.Config{}) // it observes the store: before the first Submit
			made := st.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + vmUUID + `","vsock_cid":5,"customer_metadata":{"color":"blue"}}`})
			if made.Err != nil {
				t.Fatal(made.Err)
			}
			d := &daemon{store: st, server: session.New(session.Config{Tree: tree, Auth: keys, Log: zerolog.Nop()}), opened: make(chan struct{})}
			close(d.opened)
			h := &handed{make(chan net.Conn), make(chan struct{})}
			l := listen.Config{Handle: d.serve, VM: d.vm, ByCID: d.byCID}.Serve(h, listen.Addr{Net: listen.Vsock, Port: 564})
			defer l.Close()
			for _, dialect := range []wire.Dialect{wire.Plain, wire.U, wire.L} {
				far, near := net.Pipe()
				defer far.Close()
				h.conns <- fromGuest{near, 5, 700}
				c := greetIn(t, far, dialect)
				auth := c.roundtrip(&wire.Msg{Type: wire.Tauth, Tag: 1, Afid: 1, Uname: "glenda", NUname: wire.NoUID})
				if plain := auth.Type == wire.Rerror && strings.HasPrefix(auth.Ename, errs.NotFound.Text()); !plain && auth.Type != wire.Rlerror {
					t.Errorf("%s: Tauth is answered by %s", dialect, auth)
				}
				c.call(&wire.Msg{Type: wire.Tattach, Tag: 1, Afid: wire.NoFid, Uname: "glenda", Aname: "keys", NUname: wire.NoUID})
				c.call(&wire.Msg{Type: wire.Twalk, Tag: 1, Newfid: 1, Names: []string{"color"}})
			}
		})
	}
}
