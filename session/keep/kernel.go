package keep

import (
	"io"

	"meta9/fs/errs"
	"meta9/session/redial"
	"meta9/session/wire"
)

const (
	// maxFirst is how many bytes the first frame, a Tversion, may have.
	maxFirst = 512

	// maxBytes is how many bytes of requests without an answer a client may have. With
	// more, or with redial.MaxRequests, the next one waits, but for a Tflush: it makes room.
	maxBytes = 8 << 20
)

// version is a Tversion of the client's that waits for an answer.
type version struct {
	tag     uint16
	dialect wire.Dialect
	msize   uint32
}

// readClient reads requests from the client at down until it is gone.
func (k *Keeper) readClient(down io.Reader) error {
	frames := redial.NewFrames(down)
	for {
		frame, err := frames.Next(k.maxFrame())
		if err != nil {
			return err
		}
		_, typ, tag, _ := wire.Split(frame)
		var answer []byte
		if typ == wire.Tversion {
			answer, err = k.answerVersion(frame)
		} else {
			answer, err = k.addRequest(&redial.Request{Tag: tag, Type: typ, Frame: frame})
		}
		k.answer(answer)
		if err != nil {
			return err
		}
	}
}

// maxFrame is the size in bytes of the largest frame that the client may send now.
func (k *Keeper) maxFrame() uint32 {
	k.conn.Lock()
	defer k.conn.Unlock()
	if !k.begun {
		return maxFirst
	}
	_, msize, _ := k.conn.Session()
	return max(msize, maxFirst)
}

// addRequest queues a request when there is room for it. answer is for the client, at once.
func (k *Keeper) addRequest(r *redial.Request) (answer []byte, err error) {
	k.conn.Lock()
	defer k.conn.Unlock()
	for (k.conn.Len() >= redial.MaxRequests || k.conn.Bytes >= maxBytes && r.Type != wire.Tflush) && !k.clientGone {
		k.changed.Wait()
	}
	switch {
	case !k.begun:
		return nil, errs.New(errs.Protocol, "%s before Tversion", r.Type)
	case k.conn.Get(r.Tag) != nil || r.Tag == wire.NoTag:
		return nil, errs.New(errs.Protocol, "%s under tag %d, which is in use", r.Type, r.Tag)
	case !r.Type.Counted():
		return wire.AppendError(nil, r.Tag, errs.Unsupported, k.base), nil
	case r.Type == wire.Tflush:
		return k.flush(r), nil
	}
	if answer = k.refuse(r); answer == nil {
		k.conn.Send(r)
	}
	return answer, nil
}

// flush queues a Tflush. If its request was not sent yet it is answered at once, so that a
// program can be killed while there is no server. conn is held.
func (k *Keeper) flush(r *redial.Request) (answer []byte) {
	if wire.Decode(&k.m, r.Frame, k.base) == nil {
		r.Old = k.conn.Get(k.m.Oldtag)
	}
	if k.conn.Flush(r) {
		k.changed.Broadcast()
		answer, _ = wire.Append(nil, &wire.Msg{Type: wire.Rflush, Tag: r.Tag}, k.base) // it always fits
	}
	return answer
}

// answer gives frames to the client.
func (k *Keeper) answer(frames []byte) {
	if len(frames) == 0 {
		return
	}
	k.answering.Lock()
	defer k.answering.Unlock()
	k.deliver(frames)
}

// answerVersion answers a Tversion. The first is answered at once if its version is the one
// that Dial has used. Any other needs a new session, on another transport, and nothing is
// read from the client until then.
func (k *Keeper) answerVersion(frame []byte) (answer []byte, err error) {
	k.conn.Lock()
	defer k.conn.Unlock()
	if err := wire.Decode(&k.m, frame, wire.None); err != nil {
		return nil, err
	}
	v := &version{tag: k.m.Tag, dialect: clientDialect(k.m.Version), msize: min(k.m.Msize, wire.MaxMsize)}
	_, msize, _ := k.conn.Session()
	switch {
	case v.msize < wire.MinMsize:
		return wire.AppendError(nil, v.tag, errs.New(errs.Invalid, "msize %d, %d is the least", v.msize, wire.MinMsize), wire.None), nil
	case v.dialect == wire.Unknown:
		return v.answer(msize), nil
	case !k.begun && v.dialect == k.base && v.msize >= msize:
		k.begun = true
		return v.answer(msize), nil
	}
	k.asked = v
	k.conn.Renew(terms(v.dialect, v.msize))
	for k.asked != nil && !k.clientGone {
		k.changed.Wait()
	}
	return nil, nil
}

// answer is the Rversion, where the session has an msize.
func (v *version) answer(msize uint32) []byte {
	m := wire.Msg{Type: wire.Rversion, Tag: v.tag, Msize: min(msize, v.msize), Version: v.dialect.String()}
	frame, _ := wire.Append(nil, &m, wire.None) // it always fits
	return frame
}
