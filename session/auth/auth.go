// Package auth says who a signed MUMBLE message (session/mumble) may be here.
//
// Every refusal is the same errs.AuthFailed, so that nobody learns which part was
// wrong. Nothing here keeps state or locks; a Keyring may be used by any number of
// goroutines as long as nobody changes it.
package auth

import (
	"slices"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/session/mumble"
)

// Message is what a Keyring judges.
type Message = mumble.Message

// Keyring says which secrets sign messages and what a message may ask for.
type Keyring struct {
	// Secret signs for every VM and for the admin groups. Empty: it signs nothing.
	Secret []byte
	// VMSecret is the secret of one VM, which signs for that VM alone; it returns
	// nil when the VM has none. VMSecret itself may be nil.
	VMSecret func(uuid string) []byte
	// AdminGroups are the groups whose members are the admin.
	AdminGroups []string
	VMExists    func(uuid string) bool
	Now         func() time.Time
}

// Identity is who an accepted message proves its sender to be.
type Identity struct {
	Who         fs.Principal
	Node, Group string
	Key         [mumble.KeyLen]byte // the session key that it sets; all zero: no session is wanted
}

// Check judges the text that was written to an auth fid. The error is
// errs.AuthFailed and nothing more, whatever was wrong.
func (r *Keyring) Check(text []byte) (Identity, error) {
	m, mac, err := mumble.Parse(text)
	if err != nil {
		return Identity{}, errs.AuthFailed
	}
	who := r.who(m)
	signed := m.SignedBy(r.Secret, mac)
	if who.VM != "" && r.VMSecret != nil {
		own := m.SignedBy(r.VMSecret(who.VM), mac)
		signed = signed || own
	}
	if !signed || who.Nobody() || m.Expired(r.Now()) {
		return Identity{}, errs.AuthFailed
	}
	return Identity{Who: who, Node: m.Node, Group: m.Group, Key: m.Key}, nil
}

// who is the principal that m asks to be: the VM that its node names, which
// comes first because it may do less, or the admin by its group.
func (r *Keyring) who(m Message) fs.Principal {
	if uuid, err := vm.ParseUUID(m.Node); err == nil && r.VMExists(uuid) {
		return fs.Principal{VM: uuid}
	}
	return fs.Principal{Admin: slices.Contains(r.AdminGroups, m.Group)}
}
