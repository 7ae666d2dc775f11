package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"meta9/fs"
	"meta9/session/wire"
)

// key is what a client shows to get its session back: the published form's eight
// bytes, or the draft's node, group and four bytes.
type key struct {
	set         bool
	draft       bool
	bytes       [wire.KeyLen]byte
	node, group string
}

// keyOf is the key that a Tsession shows. One of zeros asks that nothing be resumed (LING
// doc/mumble.md): it is not set, is never entered and so never found.
func keyOf(m *wire.Msg) key {
	if m.Key == [wire.KeyLen]byte{} {
		return key{draft: m.Draft}
	}
	return key{set: true, draft: m.Draft, bytes: m.Key, node: m.Node, group: m.Group}
}

// message is the Tsession that shows the key.
func (k *key) message() *wire.Msg {
	return &wire.Msg{Type: wire.Tsession, Tag: wire.NoTag, Key: k.bytes, Draft: k.draft, Node: k.node, Group: k.group}
}

// KeyID is a session's key and who may show it. A Server keeps at most one session for each.
type KeyID struct {
	key   key
	scope string
}

// scopeOf tells who may show a key. On foreign channels, which prove nobody, that is everybody;
// elsewhere each principal has keys of its own.
func scopeOf(who fs.Principal, foreign bool) string {
	if foreign {
		return "foreign"
	}
	return who.String()
}

// indexID is where the table has a session: a keyed hash of who may find it and
// of its key. Looking one up tells nothing of the keys that are there, however
// exactly the time is taken.
type indexID [sha256.Size]byte

// indexer makes indexIDs that nobody else can.
type indexer struct{ secret [32]byte }

func newIndexer() *indexer {
	x := new(indexer)
	_, _ = rand.Read(x.secret[:]) // never fails (crypto/rand)
	return x
}

// id is where a key leads.
func (x *indexer) id(k *key, who fs.Principal, foreign bool) (id indexID) {
	h := hmac.New(sha256.New, x.secret[:])
	form := []byte{0}
	if k.draft {
		form[0] = 1
	}
	h.Write(form)
	part(h, scopeOf(who, foreign))
	part(h, k.node)
	part(h, k.group)
	h.Write(k.bytes[:])
	h.Sum(id[:0])
	return id
}

// part adds a string and its length.
func part(h hash.Hash, s string) {
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s))))
	h.Write([]byte(s))
}
