package keep

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"meta9/fs/errs"
	"meta9/session/wire"
)

const (
	readAhead = 32 << 10 // of either side, in bytes
	batchSize = 64 << 10 // frames that are written at once, and the last of them

	// probeTime is how long a server may be silent while it owes an answer before it
	// is asked whether it is there; deadTime, before the transport counts as lost.
	// Blocking reads are owed for ever, and a server may be slow.
	probeTime = 15 * time.Second
	deadTime  = 45 * time.Second

	// stallTime is how long a peer may leave a frame half sent, or not take what is
	// written to it.
	stallTime = 45 * time.Second

	// byeTime is how long the end of the session is waited for.
	byeTime = time.Second
)

// probeTag is the tag of the keeper's own Tflush.
const probeTag = wire.NoTag - 1

// link is one transport, greeted.
type link struct {
	nc      net.Conn
	rd      *bufio.Reader
	dialect wire.Dialect
	in      []byte

	// Keeper.mu guards the rest.
	heard  time.Time   // when something came last
	watch  *time.Timer // nil: nothing is owed
	bye    bool        // the session is to end
	served bool        // something was answered
}

var (
	errSilent = errors.New("the server is silent")
	errBye    = errors.New("the session has ended")
)

// carry reads and writes l until it ends, and says why.
func (k *Keeper) carry(l *link) error {
	k.mu.Lock()
	k.up, l.heard = l, time.Now()
	if k.wish != nil || k.gone { // since before it was there to be hung up
		k.hangUp()
	}
	k.mu.Unlock()
	written := make(chan struct{})
	go func() {
		defer close(written)
		k.writeAll(l)
	}()
	err := k.readAll(l)
	k.mu.Lock()
	k.up = nil
	if l.watch != nil {
		l.watch.Stop()
	}
	k.moved.Broadcast()
	k.mu.Unlock()
	l.nc.Close()
	<-written
	return err
}

// readAll takes replies until l ends.
func (k *Keeper) readAll(l *link) error {
	for {
		frame, err := l.next(k.msize)
		if err != nil {
			return err
		}
		out, err := k.replied(l, frame)
		if err != nil {
			return err
		}
		if out != nil {
			k.answer(out)
		}
	}
}

// next reads one frame, which lives until the next.
func (l *link) next(msize uint32) ([]byte, error) {
	header, err := l.rd.Peek(wire.HeaderLen)
	if err != nil {
		return nil, ended(err)
	}
	size, _, _, _ := wire.Split(header)
	if size < wire.HeaderLen || size > msize {
		return nil, errs.New(errs.Protocol, "the server sent a frame of %d bytes, msize is %d", size, msize)
	}
	if int(size) > cap(l.in) {
		l.in = make([]byte, size)
	}
	if l.rd.Buffered() < int(size) {
		_ = l.nc.SetReadDeadline(time.Now().Add(stallTime))
		defer l.nc.SetReadDeadline(time.Time{})
	}
	_, err = io.ReadFull(l.rd, l.in[:size])
	return l.in[:size], ended(err)
}

// ended says in words what io.EOF means here.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server closed it")
	}
	return err
}

// replied takes in a reply and gives what the client is to get of it. An error ends
// the transport: a server that breaks the protocol cannot be understood from there
// on.
func (k *Keeper) replied(l *link, frame []byte) ([]byte, error) {
	_, typ, tag, _ := wire.Split(frame)
	k.mu.Lock()
	defer k.mu.Unlock()
	l.heard = time.Now()
	r := k.byTag[tag]
	switch {
	case l.bye && tag == wire.NoTag:
		return nil, errBye
	case r == nil || r.Number == 0:
		return nil, errs.New(errs.Protocol, "the server answered under tag %d, which asked nothing", tag)
	case typ != r.Type+1 && typ != wire.Rerror && typ != wire.Rlerror:
		return nil, errs.New(errs.Protocol, "the server answered %s with %s", r.Type, typ)
	}
	if err := k.takeIn(r, frame); err != nil {
		return nil, err
	}
	l.served = true
	k.remove(r)
	switch {
	case r.Old == nil:
	case typ == wire.Rflush:
		k.remove(r.Old)
	default: // a server that knows no Tflush (LING): what was to be flushed is still wanted
		r.Old.Flushed = false
	}
	k.moved.Broadcast()
	if r == k.probing {
		return nil, nil
	}
	return k.translate(frame, l.dialect), nil
}

// takeIn learns what a request and its reply say of fids.
func (k *Keeper) takeIn(r *request, frame []byte) error {
	if learners[r.Type] == nil && r.Type != wire.Tclunk && r.Type != wire.Tremove {
		return nil
	}
	if err := wire.Decode(&k.r, frame, k.base); err != nil {
		return err
	}
	if wire.Decode(&k.m, r.Frame, k.base) == nil { // or the server has refused it
		k.learn(&k.m, &k.r)
	}
	return nil
}

// translate makes a reply one of the client's dialect. Of all replies only an
// error can differ, in its text: plain 9P2000 has no detail in it, which Linux
// would not understand.
func (k *Keeper) translate(frame []byte, from wire.Dialect) []byte {
	if _, typ, _, _ := wire.Split(frame); typ != wire.Rerror || k.base.Detail() || !from.Detail() {
		return frame
	}
	if wire.Decode(&k.r, frame, from) != nil {
		return frame
	}
	if kind := errs.FromText(k.r.Ename); kind != 0 {
		return wire.AppendError(nil, k.r.Tag, kind, k.base)
	}
	return frame
}

// writeAll sends what is queued until l ends.
func (k *Keeper) writeAll(l *link) {
	buf := make([]byte, 0, batchSize)
	for last := false; !last; {
		var frames, answers []byte
		var from uint64
		frames, answers, from, last = k.batch(l, buf[:0])
		if len(answers) > 0 {
			k.answer(answers)
		}
		if len(frames) == 0 {
			continue
		}
		_ = l.nc.SetWriteDeadline(time.Now().Add(stallTime))
		if n, err := l.nc.Write(frames); err != nil {
			if n == 0 {
				k.notSent(from)
			}
			l.nc.Close()
			return
		}
	}
}

// batch waits for requests and gives their frames, of which from is the first's
// number, and answers to those that are not to be sent.
func (k *Keeper) batch(l *link, buf []byte) (frames, answers []byte, from uint64, last bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.up == l && !l.bye && len(k.Queued) == 0 {
		k.moved.Wait()
	}
	switch {
	case k.up != l:
		return nil, nil, 0, true
	case l.bye:
		m := wire.Msg{Type: wire.Tversion, Tag: wire.NoTag, Msize: k.msize, Version: l.dialect.String()}
		frames, _ = wire.Append(buf, &m, l.dialect)
		return frames, nil, k.Count + 1, true
	}
	from = k.Count + 1
	for len(k.Queued) > 0 && len(buf) < batchSize {
		if a := k.refuse(k.Queued[0]); a != nil {
			answers = append(answers, a...)
		} else {
			buf = append(buf, k.Send().Frame...)
		}
	}
	k.guard(l)
	return buf, answers, from, false
}

// notSent takes a batch back of which not a byte has left.
func (k *Keeper) notSent(from uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Unsend(from)
}

// hangUp lets the session end, and the transport with it. mu is held.
func (k *Keeper) hangUp() {
	if l := k.up; l != nil && !l.bye {
		l.bye = true
		time.AfterFunc(byeTime, func() { l.nc.Close() })
		k.moved.Broadcast()
	}
}

// guard sees to it that somebody looks whether the server is still there, while it
// owes something. mu is held.
func (k *Keeper) guard(l *link) {
	if l.watch == nil && len(k.Sent) > 0 {
		l.heard = time.Now()
		l.watch = time.AfterFunc(probeTime, func() { k.look(l) })
	}
}

// look probes a server that is silent, and gives it up in the end.
func (k *Keeper) look(l *link) {
	k.mu.Lock()
	defer k.mu.Unlock()
	silent := time.Since(l.heard)
	switch {
	case k.up != l:
	case len(k.Sent) == 0:
		l.watch = nil
	case silent >= deadTime:
		l.nc.Close()
	default:
		if silent >= probeTime && k.byTag[probeTag] == nil {
			k.probe()
		}
		l.watch.Reset(probeTime)
	}
}

// probe asks the server to forget nothing, which it answers at once.
func (k *Keeper) probe() {
	frame := []byte{9, 0, 0, 0, byte(wire.Tflush), 0, 0, 0, 0}
	binary.LittleEndian.PutUint16(frame[5:], probeTag)
	binary.LittleEndian.PutUint16(frame[7:], probeTag)
	k.probing = &request{Tag: probeTag, Type: wire.Tflush, Frame: frame}
	k.add(k.probing)
	k.moved.Broadcast()
}
