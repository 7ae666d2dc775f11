package etcd

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/store"
)

// The names of keys, below the prefix. SPACE is the digit of a space, and NAME the
// key's own name.
//
//	fleet             which fleet has the prefix
//	ids               the next block of IDs
//	mark/HOST         the host's own record
//	creations/HOST    empty; what makes a VM for the host compares its revision
//	starts/HOST       how many processes of the host have begun to serve
//	by/HOST/UUID      empty: what a host loads at its start
//	own/UUID          owner
//	q/UUID            sequence
//	v/UUID            the VM's record
//	k/UUID/GEN/SPACE NAME  an entry's record
//	res/UUID/N        what goes with a VM that is given away
//	host/HOST         store.HostInfo, while the host lives: under its lease
//	fenced/HOST       the Boot of a host that may not live
//	ask/HOST/UUID     ask, under the lease of the host that asks
//	alias/NAME        the UUID of the VM that has the alias
const (
	keyFleet   = "fleet"
	keyIDs     = "ids"
	firstPiece = "000000" // the first N
)

func (e *Engine) key(parts ...string) string { return e.cfg.Prefix + strings.Join(parts, "/") }

// entries returns the prefix of the keys of a VM's entries.
func (e *Engine) entries(uuid string, gen uint64) string {
	return e.key("k", uuid, strconv.FormatUint(gen, 10)) + "/"
}

// The parts of a record's key as a store names it: 'v', the UUID's bytes, a tag, the name.
const (
	uuidBytes = 16
	keyHead   = 1 + uuidBytes + 1
	markKey   = "m"
)

// keyOf returns the etcd key of a record of that VM.
func (e *Engine) keyOf(uuid string, gen uint64, key []byte) (string, error) {
	if len(key) < keyHead || key[0] != 'v' || uuidText(key[1:1+uuidBytes]) != uuid {
		return "", errs.New(errs.IO, "the key %q is not VM %s's", key, uuid)
	}
	tag := key[keyHead-1]
	if tag == 0 {
		return e.key("v", uuid), nil
	}
	return e.entries(uuid, gen) + strconv.Itoa(int(tag)-1) + string(key[keyHead:]), nil
}

// recordKey returns the store's key of an entry's record; rest is the part of the etcd key
// after GEN.
func recordKey(uuid, rest string) []byte {
	if rest == "" || rest[0] < '0' || rest[0] > '9' {
		return append(vmKey(uuid, 0xff), rest...) // the store reports that it cannot be meta9's
	}
	return append(vmKey(uuid, rest[0]-'0'+1), rest[1:]...)
}

// vmKey returns the store's key of a VM's record (tag 0), or the prefix of the keys of its
// entries.
func vmKey(uuid string, tag byte) []byte {
	raw, _ := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	return append(append([]byte{'v'}, raw...), tag)
}

func uuidText(raw []byte) string {
	h := hex.EncodeToString(raw)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// owner says which host owns a VM. It is JSON, so that people can read it in etcd.
type owner struct {
	Host  string `json:"host"` // "": nobody's
	Epoch uint64 `json:"epoch"`
	Mark  uint64 `json:"mark,omitempty"` // store.Gift.Mark of the last hand-over

	// Of a process that has taken the VM over from one before it at the same host:
	Served uint64 `json:"served,omitempty"` // the epoch of the last one that has served the VM, until this one does
	Starts uint64 `json:"starts,omitempty"` // what starts/HOST was then; it grows when this one serves
}

// servedBy returns the epoch of the last process that has served the VM, if the owner's process
// has ended before it served; 0: it has served. starts is the present value of starts/HOST.
func (o owner) servedBy(starts uint64) uint64 {
	if o.Starts != starts {
		return 0
	}
	return o.Served
}

func (o owner) text() string {
	b, _ := json.Marshal(o) // a string and two numbers
	return string(b)
}

func readOwner(b []byte) (o owner, err error) {
	if err := json.Unmarshal(b, &o); err != nil || o.Epoch == 0 {
		return o, store.Damaged(errs.New(errs.IO, "who owns it is not readable: %q", b))
	}
	return o, nil
}

// sequence is what every transaction of a VM writes.
type sequence struct {
	Number uint64 // store.Group's, of the newest whole group
	Gen    uint64 // the generation of the current entries
	Step   uint64 // counts the VM's transactions, so that no two write the same
}

// text has a checksum, because with a wrong GEN the VM would seem to have no entries.
func (s sequence) text(uuid string) string {
	t := fmt.Sprintf("%d %d %d", s.Number, s.Gen, s.Step)
	return fmt.Sprintf("%s %08x", t, crc32.Checksum([]byte(uuid+" "+t), castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func readSequence(uuid string, b []byte) (s sequence, err error) {
	if _, err := fmt.Sscanf(string(b), "%d %d %d", &s.Number, &s.Gen, &s.Step); err != nil || s.text(uuid) != string(b) {
		return sequence{}, store.Damaged(errs.New(errs.IO, "its sequence is damaged: %q", b))
	}
	return s, nil
}
