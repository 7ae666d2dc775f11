package session

import (
	"meta9/session/wire"
)

// asked says which request a reply is for, in a numbered dialect.
type asked struct {
	number uint64 // 1 is the session's first; 0: not counted
	once   bool   // its reply is kept: it must not run again
}

// numbers is what a session of a numbered dialect remembers of its requests, so
// that a client whose transport was lost can ask what became of them. The monitor
// guards it.
//
// Of the replies that must not be lost, those of the last maxKept tags are kept. A
// client has at most so many tags in flight and gets replies in the order in which
// they were given, so that it can miss no others.
type numbers struct {
	count uint64           // requests that came
	kept  map[uint16]*kept // by tag: at least until it is used again
	given uint64           // replies that were kept, ever

	// Of the dialects with tokens (wire.Dialect.Tokens).
	undone uint64 // up to this number, requests without a kept reply were not done, because the server was killed
	tokens Tokens
}

// Tokens tell a client that went back in time, or that runs twice, from the one that the
// session is now with: each Rresume gives it the next.
type Tokens struct {
	Now    uint64 `json:"now"`
	Before uint64 `json:"before"` // good as long as the Rresume with Now may have been lost
	Used   bool   `json:"used"`   // a request has come since
	// Sent is how many requests the client had sent then: those beyond the count never
	// came, and will not under these numbers.
	Sent uint64 `json:"sent"`
}

const maxKept = wire.MaxNumbers

// kept is a reply that may have been lost.
type kept struct {
	number uint64 // of the request
	given  uint64 // of numbers.given: the smaller, the older
	frame  []byte
}

// countRequest gives the request that has just come its number.
func (c *conn) countRequest(m *wire.Msg) {
	if !c.dialect.Numbered() || !m.Type.Counted() {
		return
	}
	n := &c.sess.numbers
	var number uint64
	if h := c.handing; h != nil && len(h.counted) > 0 { // it came to an earlier process
		number, h.counted = h.counted[0], h.counted[1:]
	} else {
		n.count = max(n.count, n.tokens.Sent) + 1
		number = n.count
		if n.tokens.Now != 0 && !n.tokens.Used {
			n.tokens.Used = true
			c.sess.noted.otherTokens()
		}
	}
	c.now, c.nowTag = asked{number: number, once: !m.Type.Again()}, m.Tag
}

// askedUnder returns the request that a reply under tag is for: one that waits, or the one
// that has just come.
func (c *conn) askedUnder(tag uint16) (a asked) {
	if r := c.waiting[tag]; r != nil {
		return r.asked
	}
	if tag == c.nowTag {
		a = c.now
	}
	return a
}

// keepReply keeps the reply that begins at from in the output, if it must not be lost.
func (c *conn) keepReply(tag uint16, from int) {
	if !c.dialect.Numbered() {
		return
	}
	if a := c.askedUnder(tag); a.once {
		c.sess.numbers.keepReply(tag, a.number, c.out[from:])
		c.sess.paysKept()
		if g := c.sess.noted.gather(); g != nil {
			g.fresh = append(g.fresh, tag)
		}
	}
}

// keepReply keeps a reply in place of the last one under its tag.
func (n *numbers) keepReply(tag uint16, number uint64, frame []byte) {
	k := n.kept[tag]
	if k == nil {
		if n.kept == nil {
			n.kept = make(map[uint16]*kept)
		}
		if len(n.kept) >= maxKept {
			n.forgetOldest()
		}
		k = new(kept)
		n.kept[tag] = k
	}
	n.given++
	k.number, k.given, k.frame = number, n.given, append(k.frame[:0], frame...)
}

// forgetOldest drops the oldest reply. Only a client that uses more tags than it may gets
// here; the search looks at all replies.
func (n *numbers) forgetOldest() {
	var oldest uint16
	given := n.given + 1
	for tag, k := range n.kept {
		if k.given < given {
			oldest, given = tag, k.given
		}
	}
	delete(n.kept, oldest)
}

// keptBytes is about what a kept reply takes beside its frame, keptFrame the most with
// it.
const (
	keptBytes = 120
	keptFrame = keptBytes + wire.MaxKept
)

// size is the memory that the kept replies take.
func (n *numbers) size() (bytes int64) {
	for _, k := range n.kept {
		bytes += keptBytes + int64(cap(k.frame))
	}
	return bytes
}
