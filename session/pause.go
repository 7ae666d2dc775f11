package session

import "slices"

// Linux's client repeats Tread until the buffer of a read(2) is full or nothing comes
// (p9_client_read in net/9p/client.c). A file that never ends, events for one, must
// say "nothing" there at the right moment, or the program sees no line until its
// buffer is full; and at no other moment, since to a program nothing is the end of
// the file. This is all that meta9 knows about it: to package fs a stream has bytes,
// or has none yet (fs.ErrWait).
//
//	a Tread got            the same read(2) goes on with
//	less than its count    the rest of the count, at the next offset
//	its whole count, of    nothing: its buffer is full. The next Tread is another
//	less than a message    read(2)'s, and waits: so read who reads byte by byte
//	a full message         anything: its buffer may be larger than what a message
//	                       holds, msize - 24
//
// The Tread with which it goes on is answered with 0 bytes if nothing is there, once;
// every other waits. In 9P2000 none is: a client that is not Linux would take it for
// the end, and the dialect does not tell which one asks (Plan 9 and Go's bufio.Scanner
// go on reading like that).

// Pause is what a fid of a stream knows of the read(2) of which it answered a Tread. A
// FidState has it too, so that it does not change: the fid gets another one.
//
// The answer of 0 bytes is given once, so that in a numbered dialect a Tread which
// changes nothing, and therefore runs again when its reply was lost, would wait: the
// program would not see what it has until the next event. So the answer is given
// again to the Tread that is asked anew, which has the same tag; unless a Tflush says
// that nobody asks.
type Pause struct {
	Due    bool   `json:"due,omitempty"`    // the Tread that goes on gets 0 bytes where there is nothing
	Offset uint64 `json:"offset,omitempty"` // of that Tread
	Count  int    `json:"count,omitempty"`  // its count
	Full   bool   `json:"full,omitempty"`   // or any greater count

	Number uint64 `json:"number,omitempty"` // of the request that got 0 bytes last; 0: none
	Tag    uint16 `json:"tag,omitempty"`
	Lost   bool   `json:"lost,omitempty"` // Tresume said that its reply was lost
}

// noteRead notes that a Tread of a stream at off, for count bytes, got n bytes.
func (c *conn) noteRead(f *fid, off uint64, n, count int) {
	f.pause = nil
	if !c.dialect.IsL() && !c.dialect.IsU() {
		return
	}
	full := count >= int(c.iounit())
	if n < count || full {
		f.pause = &Pause{Due: true, Offset: off + uint64(n), Count: count - n, Full: full}
	}
}

// pauses tells whether a Tread under tag that finds nothing gets 0 bytes, and notes that
// it does.
func (c *conn) pauses(f *fid, tag uint16, off uint64, count int) bool {
	p := f.pause
	if p == nil {
		return false
	}
	again := p.Lost && p.Tag == tag
	goesOn := p.Due && off == p.Offset && (count == p.Count || p.Full && count > p.Count)
	if !again && !goesOn {
		return false
	}
	f.pause = nil
	if c.dialect.Numbered() {
		f.pause = &Pause{Number: c.askedUnder(tag).number, Tag: tag}
	}
	return true
}

// losePauses notes which requests got no answer; numbers ascend.
func (s *session) losePauses(numbers []uint64) {
	for _, f := range s.fids {
		if p := f.pause; p != nil && p.Number != 0 {
			if _, named := slices.BinarySearch(numbers, p.Number); named {
				lost := *p
				lost.Lost = true
				f.pause = &lost
			}
		}
	}
}

// endPauses is for the Tflush of a Tread that was answered.
func (s *session) endPauses(oldtag uint16) {
	for _, f := range s.fids {
		if p := f.pause; p != nil && p.Number != 0 && p.Tag == oldtag {
			f.pause = nil
		}
	}
}
