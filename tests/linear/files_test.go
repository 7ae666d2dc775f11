package linear

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"meta9/session/wire"
	"meta9/tests/raw"
)

// files is a client of 9P that sends frames of its own making, in one dialect. In
// 9P2000.e it has a session, which it resumes after its transport was lost.
type files struct {
	worker
	version string
	admin   bool

	conn    *raw.Conn // nil: none
	peer    int       // the meta9d that conn leads to
	fid     uint32    // the last that was used
	files   int       // files of its own, for their names
	session [8]byte   // zeros: none
	kept    bool      // the session has an attach
	unsure  []pending // of the session, unanswered
	held    *pending  // a truncation that nothing has ended
	heldFid uint32
}

// pending is an operation without an answer, and when it was sent.
type pending struct {
	in   input
	call int64
}

// rootFid is the VM's folder, keysFid the folder of its keys.
const (
	rootFid = 0
	keysFid = 1
)

// errBroken is the end of a step whose transport was lost.
var errBroken = errors.New("the transport was lost")

func (c *files) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// settle writes down what nobody has answered: its meta9d is dead.
func (c *files) settle() {
	for _, p := range c.unsure {
		c.h.addOpen(p.call, c.peer, p.in)
	}
	if c.held != nil {
		c.h.addOpen(c.held.call, c.peer, c.held.in)
	}
	c.unsure, c.held = nil, nil
}

// ready connects if need be; false: the clients are to stop.
func (c *files) ready() bool {
	if c.conn != nil {
		return true
	}
	before := c.peer
	gen, ok := c.connect(c.dial, c.close)
	if !ok {
		c.conn = nil
		return false
	}
	if gen != before {
		c.settle()
	}
	c.peer = gen
	resumed, err := c.resumed()
	if err != nil {
		c.lose()
		return c.ready()
	}
	if c.kept && !resumed && gen == before {
		c.t.Errorf("%s: a session was not resumed, and meta9d was not killed", c.who)
	}
	if resumed {
		for _, p := range c.unsure { // begun commits were awaited, the rest was dropped
			c.h.add(p.call, c.h.now(), p.in, output{how: maybe})
		}
		c.unsure = nil
		c.endHold()
		return c.conn != nil || c.ready()
	}
	if !c.attach() {
		c.lose()
		return c.ready()
	}
	return true
}

func (c *files) dial() (err error) {
	socket := c.socket(c.vm, "9p.sock")
	if c.admin {
		socket = c.srv.Admin()
	}
	if c.conn, err = raw.Dial("unix", socket); err != nil {
		return err
	}
	if _, got, err := c.conn.Version(wire.MaxMsize, c.version); err != nil || got != c.version {
		c.conn.Close()
		return fmt.Errorf("version %q: %w", got, err)
	}
	return nil
}

// resumed asks for the session, if the dialect has any: one that meta9d does not know
// is announced by that. The error is that the transport was lost.
func (c *files) resumed() (bool, error) {
	if c.version != "9P2000.e" {
		return false, nil
	}
	if c.session == [8]byte{} {
		binary.LittleEndian.PutUint64(c.session[:], c.Uint64()|1)
	}
	_, err := c.conn.RPC(wire.Tsession, raw.NoTag, c.session[:])
	var refused *raw.Error
	if errors.As(err, &refused) {
		return false, nil
	}
	return err == nil, err
}

// attach begins anew; false: the transport was lost again.
func (c *files) attach() bool {
	aname := ""
	if c.admin {
		aname = "vms/" + uuid(c.vm)
	}
	fields := []any{uint32(rootFid), raw.NoFid, "nobody", aname}
	if c.linux() || c.version == "9P2000.u" {
		fields = append(fields, ^uint32(0))
	}
	c.fid = keysFid
	_, err := c.conn.RPC(wire.Tattach, 0, fields...)
	if err == nil {
		err = c.conn.Walk(rootFid, keysFid, "keys")
	}
	c.kept = err == nil && c.version == "9P2000.e"
	return err == nil
}

func (c *files) linux() bool { return c.version == "9P2000.L" }

// lose hangs up.
func (c *files) lose() {
	c.conn.Close()
	c.conn = nil
}

// answer is what came of one request.
type answer struct {
	call, ret int64
	reply     raw.Reply
	err       error // *raw.Error, or errBroken
	sent      bool  // of errBroken: the whole request may have been read
}

// notFound says whether the answer is that there is no such file.
func (a answer) notFound() bool {
	var e *raw.Error
	return errors.As(a.err, &e) && (e.Errno == 2 || e.Errno == 116 || e.Text == "file does not exist" || hasPrefix(e.Text, "file does not exist:"))
}

func (a answer) exists() bool {
	var e *raw.Error
	return errors.As(a.err, &e) && (e.Errno == 17 || hasPrefix(e.Text, "file already exists"))
}

func hasPrefix(s, prefix string) bool { return len(s) >= len(prefix) && s[:len(prefix)] == prefix }

// ask sends one request and waits for its answer; now and then the connection is
// lost on the way.
func (c *files) ask(t wire.Type, fields ...any) answer {
	a := answer{call: c.h.now(), sent: true}
	if c.conn == nil { // lost after the last answer
		return answer{err: errBroken}
	}
	frame := raw.Frame(t, 1, fields...)
	cut := -1
	if c.one(400) {
		c.drops.Add(1)
		cut = c.IntN(3)
	}
	switch cut {
	case 0: // a part of the request; it must not happen
		c.conn.Send(frame[:c.IntN(len(frame))])
		c.lose()
		a.err, a.sent = errBroken, false
		return a
	case 1: // nobody waits for the answer
		c.conn.Send(frame)
		c.lose()
		a.err = errBroken
		return a
	}
	err := c.conn.Send(frame)
	if cut == 2 { // no more requests; meta9d may answer still
		c.conn.Net.(interface{ CloseWrite() error }).CloseWrite()
	}
	if err == nil {
		a.reply, err = c.conn.Recv()
	}
	a.ret = c.h.now()
	if err != nil || cut == 2 {
		c.lose()
	}
	switch {
	case err != nil:
		a.err = errBroken
	case a.reply.Err() != nil:
		a.err = a.reply.Err()
	case a.reply.Type != t+1 || a.reply.Tag != 1:
		c.t.Errorf("%s: %v was answered by %v, tag %d", c.who, t, a.reply.Type, a.reply.Tag)
	}
	return a
}

// note writes down a change by its answer. What is told not to be there may only
// have been so for the file that the fid had: then the caller looks at that first.
func (c *files) note(in input, a answer) {
	switch {
	case a.err == nil:
		c.h.add(a.call, a.ret, in, output{})
	case a.err == errBroken && !a.sent:
	case a.err == errBroken && c.kept:
		c.unsure = append(c.unsure, pending{in, a.call})
	case a.err == errBroken:
		c.h.addOpen(a.call, c.peer, in)
	case a.exists() && in.kind == create:
		c.h.add(a.call, a.ret, in, output{how: exists})
	case a.notFound() && (in.kind == remove || in.kind == rename || in.kind == look):
		c.h.add(a.call, a.ret, in, output{how: absent})
	case a.notFound(): // the fid's file is gone; so nothing was done
	default:
		c.t.Errorf("%s: %s: %v", c.who, describe(in, output{}), a.err)
	}
}

// walk walks to a shared key and gives its fid. That a key is there or not is an
// observation, too.
func (c *files) walk(key int) (fid uint32, ok bool) {
	c.fid++
	a := c.ask(wire.Twalk, uint32(keysFid), c.fid, []string{keyName(key)})
	if a.err != errBroken {
		c.note(c.in(look, key), a)
	}
	return c.fid, a.err == nil
}

// The ways to open, in the words of 9P2000; Linux's differ from these.
const (
	forReading   = uint8(wire.ORead)
	forWriting   = uint8(wire.OWrite)
	truncating   = uint8(wire.OWrite | wire.OTrunc)
	forAppending = uint8(wire.OWrite | wire.OAppend)
)

func (c *files) open(fid uint32, mode uint8) answer {
	if !c.linux() {
		return c.ask(wire.Topen, fid, mode)
	}
	flags := map[uint8]uint32{forReading: 0, forWriting: 1, truncating: 0o1001, forAppending: 0o2001}[mode]
	return c.ask(wire.Tlopen, fid, flags)
}

// clunk gives a fid up that holds no truncation.
func (c *files) clunk(fid uint32) {
	c.ask(wire.Tclunk, fid)
}

// read reads a shared key by a fid of its own.
func (c *files) read(key int) {
	fid, ok := c.walk(key)
	if !ok {
		return
	}
	if a := c.open(fid, forReading); a.err == nil {
		if r := c.ask(wire.Tread, fid, uint64(0), uint32(wire.MaxMsize)); r.err == nil {
			c.h.add(a.call, r.ret, c.in(read, key), output{value: string(r.reply.Data())})
		} else if r.err != errBroken {
			c.t.Errorf("%s: Tread of %s: %v", c.who, keyName(key), r.err)
		}
	} else if a.err != errBroken {
		c.note(c.in(look, key), a) // its name leads to nothing
	}
	c.clunk(fid)
}

// overwrite writes a value as a shell's > does: the truncation is held until the
// write, which is the same commit.
func (c *files) overwrite(key int) {
	fid, ok := c.walk(key)
	if !ok {
		return
	}
	in := c.in(hold, key)
	in.hold = c.hold
	var a answer
	if c.linux() && c.one(2) { // as v9fs does it
		if a = c.open(fid, forWriting); a.err == nil {
			a = c.ask(wire.Tsetattr, fid, uint32(8), uint32(0), uint32(0), uint32(0), uint64(0), make([]byte, 32))
		}
	} else {
		a = c.open(fid, truncating)
	}
	c.note(in, a)
	end := in
	end.kind = drop
	switch {
	case a.err == nil, a.err == errBroken && a.sent:
		c.held, c.heldFid = &pending{end, a.call}, fid
	}
	if a.err == nil && !c.one(8) {
		c.write(fid, splice, key, 0)
	}
	if c.conn != nil {
		c.endHold()
		return
	}
	if !c.kept && c.held != nil {
		c.h.addOpen(c.held.call, c.peer, c.held.in)
		c.held = nil
	}
}

// endHold gives the fid up that holds a truncation, which applies it.
func (c *files) endHold() {
	if c.held == nil {
		return
	}
	in := c.held.in
	in.kind = clunk
	a := c.ask(wire.Tclunk, c.heldFid)
	var e *raw.Error
	switch {
	case a.err == nil:
		c.h.add(a.call, a.ret, in, output{})
		c.held = nil
	case a.err == errBroken:
		c.note(in, a)
		if !c.kept {
			c.h.addOpen(c.held.call, c.peer, c.held.in)
			c.held = nil
		}
	case errors.As(a.err, &e): // the open did not happen, or the clunk was done and its answer lost
		c.h.add(c.held.call, a.ret, c.held.in, output{})
		c.held = nil
	}
}

// write is one Twrite.
func (c *files) write(fid uint32, k kind, key, off int) {
	in := c.in(k, key)
	in.value, in.off = c.value(), off
	c.note(in, c.ask(wire.Twrite, fid, uint64(off), raw.Data(in.value)))
}

// patch writes into a value, or at its end.
func (c *files) patch(key int) {
	fid, ok := c.walk(key)
	if !ok {
		return
	}
	mode, k, off := forWriting, splice, c.IntN(16)
	if (c.linux() || c.version == "9P2000.u") && c.one(2) {
		mode, k, off = forAppending, extend, 0
	}
	if a := c.open(fid, mode); a.err == nil {
		c.write(fid, k, key, off)
	} else if a.err != nil && a.err != errBroken {
		c.note(c.in(look, key), a)
	}
	c.clunk(fid)
}

// make makes a shared key that is not there, and writes to it.
func (c *files) make(key int) {
	fid, a := c.create(keyName(key))
	if fid == 0 {
		return
	}
	c.note(c.in(create, key), a)
	if a.err == nil {
		c.write(fid, splice, key, 0)
	}
	c.clunk(fid)
}

// create makes a file that is open for writing then; fid 0: it was not asked for.
func (c *files) create(name string) (fid uint32, a answer) {
	c.fid++
	fid = c.fid
	if a := c.ask(wire.Twalk, uint32(keysFid), fid, []string{}); a.err != nil {
		return 0, a
	}
	switch {
	case c.linux():
		a = c.ask(wire.Tlcreate, fid, name, uint32(0o201), uint32(0o600), ^uint32(0))
	case c.version == "9P2000.u":
		a = c.ask(wire.Tcreate, fid, name, uint32(0o600), forWriting, "")
	default:
		a = c.ask(wire.Tcreate, fid, name, uint32(0o600), forWriting)
	}
	return fid, a
}

func (c *files) remove(key int) {
	if c.linux() {
		c.note(c.in(remove, key), c.ask(wire.Tunlinkat, uint32(keysFid), keyName(key), uint32(0)))
		return
	}
	if fid, ok := c.walk(key); ok {
		c.note(c.in(remove, key), c.ask(wire.Tremove, fid))
	}
}

// replace renames a file of its own over a shared key, as mv does.
func (c *files) replace(key int) {
	c.files++
	name := fmt.Sprintf("own-%x-%d", c.hold, c.files)
	in := c.in(replace, key)
	in.value = c.value()
	fid, a := c.create(name)
	if fid == 0 || a.err != nil {
		return
	}
	if a = c.ask(wire.Twrite, fid, uint64(0), raw.Data(in.value)); a.err != nil {
		return
	}
	c.clunk(fid)
	if c.linux() {
		c.note(in, c.ask(wire.Trenameat, uint32(keysFid), name, uint32(keysFid), keyName(key)))
		return
	}
	c.fid++
	fid = c.fid
	if a = c.ask(wire.Twalk, uint32(keysFid), fid, []string{name}); a.err != nil {
		return
	}
	if a = c.ask(wire.Twstat, fid, c.renaming(keyName(key))); a.notFound() {
		c.t.Errorf("%s: its own file is gone: %v", c.who, a.err)
	} else {
		c.note(in, a)
	}
	c.clunk(fid)
}

// renaming is the stat record of a Twstat that sets a name.
func (c *files) renaming(name string) []byte {
	const none = ^uint32(0)
	fields := []any{^uint16(0), none, ^uint8(0), none, ^uint64(0), none, none, none, ^uint64(0), name, "", "", ""}
	if c.version == "9P2000.u" {
		fields = append(fields, "", none, none, none)
	}
	record := raw.Frame(0, 0, fields...)[raw.HeaderLen:]
	n := uint16(len(record))
	b := binary.LittleEndian.AppendUint16(nil, n+2)
	return append(binary.LittleEndian.AppendUint16(b, n), record...)
}

// move renames a shared key to another, by their names.
func (c *files) move(key int) {
	in := c.in(rename, key)
	in.to = 1 - key
	c.note(in, c.ask(wire.Trenameat, uint32(keysFid), keyName(key), uint32(keysFid), keyName(in.to)))
}

// whole reads the VM as one object: all keys of one moment.
func (c *files) whole() {
	c.fid++
	fid := c.fid
	if a := c.ask(wire.Twalk, uint32(rootFid), fid, []string{"vm.json"}); a.err != nil {
		return
	}
	a := c.open(fid, forReading)
	if a.err != nil {
		return
	}
	r := c.ask(wire.Tread, fid, uint64(0), uint32(wire.MaxMsize))
	if r.err == nil {
		c.snapshot(snap, a.call, r.ret, r.reply.Data())
	}
	c.clunk(fid)
}

// snapshot notes all shared keys of a VM's JSON.
func (w *worker) snapshot(k kind, call, ret int64, b []byte) {
	var v struct {
		Keys map[string]string `json:"customer_metadata"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		w.t.Errorf("%s: the VM's JSON: %v: %.200q", w.who, err, b)
		return
	}
	var out output
	for i := range nKeys {
		out.all[i], out.there[i] = v.Keys[keyName(i)], false
		_, out.there[i] = v.Keys[keyName(i)]
	}
	w.h.add(call, ret, w.in(k, 0), out)
}

// sread and swrite are the macros of 9P2000.e.
func (c *files) sread(key int) {
	a := c.ask(wire.Tsread, uint32(keysFid), []string{keyName(key)})
	switch {
	case a.err == nil:
		c.h.add(a.call, a.ret, c.in(read, key), output{value: string(a.reply.Data())})
	case a.err != errBroken:
		c.note(c.in(look, key), a)
	}
}

func (c *files) swrite(key int) {
	in := c.in(put, key)
	in.value = c.value()
	c.note(in, c.ask(wire.Tswrite, uint32(keysFid), []string{keyName(key)}, raw.Data(in.value)))
}

func (c *files) step() {
	if !c.ready() {
		return
	}
	key := c.key()
	if byNames(c.vm) {
		c.byName(key)
		return
	}
	switch n := c.IntN(20); {
	case n < 8 && c.version == "9P2000.e":
		c.sread(key)
	case n < 8:
		c.read(key)
	case n < 10 && c.version == "9P2000.e":
		c.swrite(key)
	case n < 12:
		c.overwrite(key)
	case n < 14:
		c.patch(key)
	case n < 16:
		c.make(key)
	case n < 17:
		c.whole()
	case n < 18:
		c.remove(key)
	default:
		c.replace(key)
	}
}

// byName is a step in which one request names its key.
func (c *files) byName(key int) {
	switch n := c.IntN(10); {
	case c.version == "9P2000.e" && n < 5:
		c.sread(key)
	case c.version == "9P2000.e":
		c.swrite(key)
	case !c.linux(), n < 5:
		c.whole()
	case n < 9:
		c.move(key)
	default:
		c.remove(key)
	}
}
