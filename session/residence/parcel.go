package residence

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	tree "meta9/fs"
	"meta9/fs/store"
	"meta9/session"
)

// A parcel holds the sessions of one VM, and the events that their readers have not read
// yet. It goes with the VM to another host. It contains session keys, so it is encrypted
// (AES-GCM) with a key that only the hosts have.
//
//	version[1] nonce[12] sealed
//
// What is sealed is items: kind[1] uvarint length, deflated body. The kinds are those of a
// file, kindTail (at most one) and kindSession, and so are the bodies.
const (
	parcelVersion = 1

	// maxParcel bounds the bytes of a parcel, and maxInflated the bytes after it was
	// inflated. Sessions that do not fit are lost.
	maxParcel   = 16 << 20
	maxInflated = 256 << 20
)

// Parcel is a parcel that is being made. It belongs to one goroutine at a time.
type Parcel struct {
	Sessions int // how many are in it
	Lost     int // how many did not fit

	items    []byte
	inflated int
	after    uint64 // all readers have read the events up to this revision
	reads    bool   // somebody reads events
}

// NewParcel makes a parcel of the sessions of a VM.
func NewParcel(t *tree.Tree, uuid string, all iter.Seq[session.State]) *Parcel {
	p := new(Parcel)
	readers := make(map[uint64]uint64)
	for st := range all {
		body, err := appendSession(nil, &st)
		if err != nil || !p.add(kindSession, body) {
			p.Lost++
			continue
		}
		st.Readers(readers)
		p.Sessions++
	}
	for path, at := range readers {
		if of, is := t.EventsOf(path); is && of == uuid && (!p.reads || at < p.after) {
			p.after, p.reads = at, true
		}
	}
	return p
}

// add adds an item; false: it does not fit.
func (p *Parcel) add(kind byte, body []byte) bool {
	if len(body) > maxInflated-p.inflated {
		return false
	}
	var b bytes.Buffer
	z, _ := flate.NewWriter(&b, flate.BestSpeed) // a valid level does not fail
	_, _ = z.Write(body)                         // a buffer does not fail
	_ = z.Close()
	item := binary.AppendUvarint([]byte{kind}, uint64(b.Len()))
	if len(p.items)+len(item)+b.Len() > maxParcel {
		return false
	}
	p.items = append(append(p.items, item...), b.Bytes()...)
	p.inflated += len(body)
	return true
}

// Seal returns the encrypted parcel, with the events of the VM's ring that somebody has
// not read yet. It opens only with the same key and the same about. nil: there is nothing
// to send.
func (p *Parcel) Seal(key, about []byte, ring store.Tail) []byte {
	if p.Sessions == 0 {
		return nil
	}
	if p.reads {
		for len(ring.Events) > 0 && ring.Events[0].Rev <= p.after {
			ring.Events = ring.Events[1:]
		}
		ring.VM, ring.After = "", min(max(ring.After, p.after), ring.Last)
		if body, err := tailBody(&ring); err == nil {
			p.add(kindTail, body) // if it does not fit, the readers are told that events are lost
		}
	}
	seal, err := newSeal(key)
	if err != nil {
		return nil
	}
	b := make([]byte, 1+seal.NonceSize(), 1+seal.NonceSize()+len(p.items)+seal.Overhead())
	b[0] = parcelVersion
	_, _ = rand.Read(b[1:]) // never fails (crypto/rand)
	return seal.Seal(b, b[1:], p.items, about)
}

func newSeal(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Opened is the content of a parcel.
type Opened struct {
	Tail     *store.Tail // nil: none
	Sessions []session.State
	Lost     int   // how many sessions cannot be read
	Why      error // of the first that cannot be read
}

// OpenParcel decrypts and reads what Seal has made.
func OpenParcel(key, about []byte, sealed string) (o Opened, err error) {
	seal, err := newSeal(key)
	if err != nil {
		return o, err
	}
	switch n := seal.NonceSize(); {
	case len(sealed) < 1+n:
		return o, errCut
	case sealed[0] != parcelVersion:
		return o, fmt.Errorf("its format %d is not known to this version", sealed[0])
	default:
		items, err := seal.Open(nil, []byte(sealed[1:1+n]), []byte(sealed[1+n:]), about)
		if err != nil {
			return o, errors.New("it does not open: it is damaged, of another hand-over, or sealed with another key (cluster.key_file)")
		}
		o.read(items)
		return o, nil
	}
}

// read reads the items.
func (o *Opened) read(items []byte) {
	room := int64(maxInflated)
	for len(items) > 0 {
		kind := items[0]
		size, n := binary.Uvarint(items[1:])
		if n <= 0 || size > uint64(len(items)-1-n) {
			o.lost(errSession)
			return
		}
		packed := items[1+n : 1+n+int(size)]
		items = items[1+n+int(size):]
		body, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), room+1))
		if room -= int64(len(body)); err == nil && room < 0 {
			err = errTooLarge
		}
		var rec any
		if err == nil {
			rec, err = readRecord(kind, body)
		}
		if err != nil {
			o.lost(err)
			continue
		}
		switch rec := rec.(type) {
		case *store.Tail:
			o.Tail = rec
		case *session.State:
			o.Sessions = append(o.Sessions, *rec)
		default:
			o.lost(errStrange)
		}
	}
}

func (o *Opened) lost(why error) {
	if o.Lost++; o.Why == nil {
		o.Why = why
	}
}
