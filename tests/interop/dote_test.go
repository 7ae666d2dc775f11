package interop

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kennylevinsen/qp"
	qpclient "github.com/kennylevinsen/qptools/client"
	"github.com/kennylevinsen/qptools/utils"

	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// dote is a 9P2000.e client made of qp's codec and qptools' Transport.
type dote struct {
	t    *testing.T
	conn net.Conn
	tr   *qpclient.Transport
	done chan error // what Serve gave: the server hung up, or sent what cannot be
}

func dialDote(t *testing.T, network, addr string) *dote {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	d := &dote{t: t, conn: conn, tr: qpclient.NewTransport(conn), done: make(chan error, 1)}
	d.tr.SetProtocol(qp.NineP2000Dote)
	go func() { d.done <- d.tr.Serve() }()
	return d
}

// send sends what make makes of a free tag. An error reply is an error.
func (d *dote) send(make func(qp.Tag) qp.Message) (qp.Message, error) {
	d.t.Helper()
	tag, err := d.tr.Tag()
	if err != nil {
		d.t.Fatal(err)
	}
	return d.exchange(make(tag))
}

// sendNoTag sends a message that goes under NOTAG.
func (d *dote) sendNoTag(m qp.Message) (qp.Message, error) {
	d.t.Helper()
	if err := d.tr.TakeTag(qp.NOTAG); err != nil {
		d.t.Fatal(err)
	}
	return d.exchange(m)
}

func (d *dote) exchange(m qp.Message) (qp.Message, error) {
	d.t.Helper()
	r, err := d.tr.Send(m)
	if err != nil {
		d.t.Fatal(err)
	}
	if e, ok := r.(*qp.ErrorResponse); ok {
		return nil, errors.New(e.Error)
	}
	return r, nil
}

// version negotiates and uses the msize that comes.
func (d *dote) version(msize uint32, version string) {
	d.t.Helper()
	r, err := d.sendNoTag(&qp.VersionRequest{Tag: qp.NOTAG, MessageSize: msize, Version: version})
	if err != nil {
		d.t.Fatal(err)
	}
	v := r.(*qp.VersionResponse)
	if v.Version != version || v.MessageSize > msize {
		d.t.Fatalf("asked for %s and %d, was granted %s and %d", version, msize, v.Version, v.MessageSize)
	}
	d.tr.SetMessageSize(v.MessageSize)
}

func (d *dote) session(key [8]byte) error {
	d.t.Helper()
	_, err := d.sendNoTag(&qp.SessionRequestDote{Tag: qp.NOTAG, Key: key})
	return err
}

func (d *dote) attach(fid qp.Fid, aname string) error {
	d.t.Helper()
	_, err := d.send(func(tag qp.Tag) qp.Message {
		return &qp.AttachRequest{Tag: tag, Fid: fid, AuthFid: qp.NOFID, Service: aname}
	})
	return err
}

// authenticate is what Erlang on Xen's client does: the message goes to an auth
// fid, which is clunked.
func (d *dote) authenticate(mumble string) error {
	d.t.Helper()
	if _, err := d.send(func(tag qp.Tag) qp.Message {
		return &qp.AuthRequest{Tag: tag, AuthFid: 0, Username: "root", Service: "/"}
	}); err != nil {
		return err
	}
	err := d.writeAt(0, 0, mumble)
	if _, cerr := d.send(func(tag qp.Tag) qp.Message { return &qp.ClunkRequest{Tag: tag, Fid: 0} }); err == nil {
		err = cerr
	}
	return err
}

func (d *dote) sread(fid qp.Fid, names ...string) (string, error) {
	d.t.Helper()
	r, err := d.send(func(tag qp.Tag) qp.Message {
		return &qp.SimpleReadRequestDote{Tag: tag, Fid: fid, Names: names}
	})
	if err != nil {
		return "", err
	}
	return string(r.(*qp.SimpleReadResponseDote).Data), nil
}

func (d *dote) swrite(value string, fid qp.Fid, names ...string) error {
	d.t.Helper()
	r, err := d.send(func(tag qp.Tag) qp.Message {
		return &qp.SimpleWriteRequestDote{Tag: tag, Fid: fid, Names: names, Data: []byte(value)}
	})
	if err != nil {
		return err
	}
	if n := r.(*qp.SimpleWriteResponseDote).Count; int(n) != len(value) {
		return fmt.Errorf("Rswrite of %d for %d bytes", n, len(value))
	}
	return nil
}

// open walks newfid from fid and opens it.
func (d *dote) open(fid, newfid qp.Fid, mode qp.OpenMode, names ...string) error {
	d.t.Helper()
	r, err := d.send(func(tag qp.Tag) qp.Message {
		return &qp.WalkRequest{Tag: tag, Fid: fid, NewFid: newfid, Names: names}
	})
	if err != nil {
		return err
	}
	if n := len(r.(*qp.WalkResponse).Qids); n != len(names) {
		return fmt.Errorf("walked %d of %q", n, names)
	}
	_, err = d.send(func(tag qp.Tag) qp.Message { return &qp.OpenRequest{Tag: tag, Fid: newfid, Mode: mode} })
	return err
}

func (d *dote) readAt(fid qp.Fid, offset uint64) (string, error) {
	d.t.Helper()
	r, err := d.send(func(tag qp.Tag) qp.Message {
		return &qp.ReadRequest{Tag: tag, Fid: fid, Offset: offset, Count: 1000}
	})
	if err != nil {
		return "", err
	}
	return string(r.(*qp.ReadResponse).Data), nil
}

func (d *dote) writeAt(fid qp.Fid, offset uint64, data string) error {
	d.t.Helper()
	_, err := d.send(func(tag qp.Tag) qp.Message {
		return &qp.WriteRequest{Tag: tag, Fid: fid, Offset: offset, Data: []byte(data)}
	})
	return err
}

func (d *dote) must(what string, err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%s: %v", what, err)
	}
}

// refused wants an Rerror that begins with text; .e may say more after a colon.
func (d *dote) refused(what, text string, err error) {
	d.t.Helper()
	if err == nil {
		d.t.Errorf("%s: no error", what)
	} else if got, _, _ := strings.Cut(err.Error(), ":"); got != text {
		d.t.Errorf("%s: error %q, want %q", what, err, text)
	}
}

func (d *dote) value(want string, fid qp.Fid, names ...string) {
	d.t.Helper()
	got, err := d.sread(fid, names...)
	d.must(fmt.Sprintf("Tsread %q", names), err)
	if got != want {
		d.t.Fatalf("Tsread %q: %.60q, want %.60q", names, got, want)
	}
}

// startVM is a meta9d with one VM.
func startVM(t *testing.T, o daemon.Options) (*testenv.Server, string) {
	t.Helper()
	srv := testenv.Start(t, o)
	srv.NewVM(testenv.UUID(0), oneLine(samplePayload(0)))
	return srv, testenv.UUID(0)
}

// onVM is a 9P2000.e client at fid 1, the VM's folder, over the VM's socket.
func onVM(t *testing.T, srv *testenv.Server, uuid string, msize uint32) *dote {
	t.Helper()
	d := dialDote(t, "unix", srv.VM(uuid))
	d.version(msize, qp.VersionDote)
	d.must("attach", d.attach(1, ""))
	return d
}

func TestMacros(t *testing.T) {
	srv, uuid := startVM(t, daemon.Options{})
	d := onVM(t, srv, uuid, 65536)

	d.value("blue", 1, "keys", "color")
	d.value("", 1, "keys", "empty")
	d.must("create", d.swrite("one", 1, "keys", "made"))
	d.value("one", 1, "keys", "made")
	d.must("replace", d.swrite("2", 1, "keys", "made"))
	d.value("2", 1, "keys", "made") // replaced whole, not overwritten from the left
	d.must("empty", d.swrite("", 1, "keys", "made"))
	d.value("", 1, "keys", "made")

	listing, err := d.sread(1, "keys")
	d.must("Tsread of a folder", err)
	stats, err := utils.Readdir([]byte(listing))
	d.must("its stat records", err)
	var names []string
	for _, s := range stats {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"color", "empty", "made", "user-script"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}

	_, err = d.sread(1, "keys", "none")
	d.refused("Tsread of nothing", "file does not exist", err)
	_, err = d.sread(9, "keys", "color")
	d.refused("Tsread of an unknown fid", "fid unknown or out of range", err)
	if d.swrite("x", 1, "sdc", "alias") == nil {
		t.Error("Tswrite of a derived file: no error")
	}
	if _, err = d.sread(1, strings.Split(strings.Repeat("a ", 17), " ")[:17]...); err == nil {
		t.Error("Tsread of 17 names: no error")
	}

	// A fid may be open or not, and none is used up.
	d.must("open", d.open(1, 2, qp.OREAD, "keys", "color"))
	d.value("blue", 2)
	d.must("Tswrite on the open fid", d.swrite("green", 2))
	d.value("green", 2)
	if got, err := d.readAt(2, 0); err != nil || got != "green" {
		t.Errorf("Tread after it: %q, %v", got, err)
	}
}

// TestMacroTooBig: a value that does not fit is an error, never a part.
func TestMacroTooBig(t *testing.T) {
	srv, uuid := startVM(t, daemon.Options{})
	d := onVM(t, srv, uuid, 65536)
	const msize, overhead = 4096, 11
	d.must("write", d.swrite(strings.Repeat("x", msize-overhead), 1, "keys", "fits"))
	d.must("write", d.swrite(strings.Repeat("x", msize-overhead+1), 1, "keys", "over"))

	small := onVM(t, srv, uuid, msize)
	small.value(strings.Repeat("x", msize-overhead), 1, "keys", "fits")
	_, err := small.sread(1, "keys", "over")
	small.refused("Tsread", "too big", err)
	small.value("blue", 1, "keys", "color")
}

// TestAskedDown: a client that can 9P2000.e works on when it is held to 9P2000.
func TestAskedDown(t *testing.T) {
	srv, uuid := startVM(t, daemon.Options{})
	d := dialDote(t, "unix", srv.VM(uuid))
	d.version(8192, qp.Version)
	d.must("attach", d.attach(1, ""))
	_, err := d.sread(1, "keys", "color")
	if err == nil {
		t.Error("Tsread without 9P2000.e: no error")
	}
	if err := d.swrite("x", 1, "keys", "color"); err == nil {
		t.Error("Tswrite without 9P2000.e: no error")
	}
	d.must("open", d.open(1, 2, qp.OREAD, "keys", "color"))
	if got, err := d.readAt(2, 0); err != nil || got != "blue" {
		t.Errorf("Tread: %q, %v", got, err)
	}
}

// hungUp waits until the server has closed d's connection.
func (d *dote) hungUp() {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		d.t.Fatal("the old transport is still up")
	}
}

const (
	mumbleSecret = "meta9-example-secret"
	mumbleConfig = "[mumble]\nsecret = \"" + mumbleSecret + "\"\n"
)

// goldenMumble is the message of docs/protocol.md, "MUMBLE": it names
// testenv.UUID's VM 446655440000.
const goldenMumble = "MUMBLE:AAHo9hM9AkDLEfHrdcC1gDKRVl3UnAECAwQFBgcIAKUYagAAAAAkADU1MGU4NDAwLWUyOWItNDFkNC1hNzE2LTQ0NjY1NTQ0MDAwMAYAc3dhcm0xAAAAAA==:"

// TestMumble authenticates over plain tcp, which proves nobody, and resumes the
// session that this began, there, by the key alone.
func TestMumble(t *testing.T) {
	srv := testenv.Start(t, daemon.Options{TCP: []string{""}, Config: mumbleConfig})
	srv.NewVM(testenv.UUID(446655440000), oneLine(samplePayload(446655440000)))
	addr := srv.TCPAddrs[0]
	now := uint32(time.Now().Unix())
	node := testenv.UUID(446655440000)

	nobody := dialDote(t, "tcp", addr)
	nobody.version(8192, qp.VersionDote)
	nobody.refused("attach of nobody", "authentication failed", nobody.attach(1, ""))
	for what, text := range map[string]string{
		"another secret": raw.Mumble("wrong", [8]byte{1}, now, 0, node, "swarm1"),
		"out of time":    raw.Mumble(mumbleSecret, [8]byte{1}, now-1000, 10, node, "swarm1"),
		"no such VM":     raw.Mumble(mumbleSecret, [8]byte{1}, now, 0, testenv.UUID(77), "swarm1"),
		"cut off":        goldenMumble[:60],
	} {
		nobody.refused(what, "authentication failed", nobody.authenticate(text))
	}

	first := dialDote(t, "tcp", addr)
	first.version(8192, qp.VersionDote)
	first.must("authenticate", first.authenticate(goldenMumble))
	first.must("attach", first.attach(1, "/keys"))
	first.must("open", first.open(1, 2, qp.OREAD, "color"))

	guess := dialDote(t, "tcp", addr)
	guess.version(8192, qp.VersionDote)
	guess.refused("a guessed key", "cannot recover", guess.session([8]byte{1, 2, 3, 4, 5, 6, 7, 9}))
	guess.refused("and nobody after it", "authentication failed", guess.attach(1, ""))

	second := dialDote(t, "tcp", addr)
	second.version(8192, qp.VersionDote)
	second.must("Tsession", second.session([8]byte{1, 2, 3, 4, 5, 6, 7, 8}))
	first.hungUp()
	if got, err := second.readAt(2, 0); err != nil || got != "blue" {
		t.Errorf("the open fid reads %q, %v", got, err)
	}
	second.must("attach again, authenticated as before", second.attach(3, ""))
	second.value("blue", 3, "keys", "color")
	if _, err := second.sread(3, "ctl"); err == nil {
		t.Error("the VM reads the admin's ctl")
	}
}
