package auth_test

import (
	"strings"
	"testing"
	"time"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/session/auth"
)

// The message of docs/protocol.md, "MUMBLE".
const (
	secret = "meta9-example-secret"
	node   = "550e8400-e29b-41d4-a716-446655440000"
	golden = "MUMBLE:AAHo9hM9AkDLEfHrdcC1gDKRVl3UnAECAwQFBgcIAKUYagAAAAAkADU1MGU4NDAwLWUyOWItNDFkNC1hNzE2LTQ0NjY1NTQ0MDAwMAYAc3dhcm0xAAAAAA==:"
)

var example = auth.Message{
	Key:  [8]byte{1, 2, 3, 4, 5, 6, 7, 8},
	Time: 1780000000, Node: node, Group: "swarm1",
}

func at(sec int64) time.Time { return time.Unix(sec, 0) }

func TestKeyring(t *testing.T) {
	const other = "660e8400-e29b-41d4-a716-446655440000"
	r := &auth.Keyring{
		Secret: []byte(secret),
		VMSecret: func(uuid string) []byte {
			return map[string][]byte{node: []byte("its own")}[uuid]
		},
		AdminGroups: []string{"ops"},
		VMExists:    func(uuid string) bool { return uuid == node || uuid == other },
		Now:         func() time.Time { return at(5000) },
	}
	vm, admin := fs.Principal{VM: node}, fs.Principal{Admin: true}
	for what, c := range map[string]struct {
		m      auth.Message
		secret string
		want   fs.Principal // nobody: refused
	}{
		"a VM":                            {auth.Message{Node: node}, secret, vm},
		"a VM in upper case":              {auth.Message{Node: strings.ToUpper(node)}, secret, vm},
		"a VM by its own secret":          {auth.Message{Node: node}, "its own", vm},
		"a VM in an admin group":          {auth.Message{Node: node, Group: "ops"}, secret, vm},
		"an admin group":                  {auth.Message{Node: "host1", Group: "ops"}, secret, admin},
		"an admin group by a VM's secret": {auth.Message{Node: "host1", Group: "ops"}, "its own", fs.Principal{}},
		"a VM by another's secret":        {auth.Message{Node: other}, "its own", fs.Principal{}},
		"a VM by no secret":               {auth.Message{Node: other}, "", fs.Principal{}},
		"no such VM":                      {auth.Message{Node: "770e8400-e29b-41d4-a716-446655440000"}, secret, fs.Principal{}},
		"no such group":                   {auth.Message{Node: "host1", Group: "dev"}, secret, fs.Principal{}},
		"nothing":                         {auth.Message{}, secret, fs.Principal{}},
		"expired":                         {auth.Message{Node: node, Time: 1000, TTL: 60}, secret, fs.Principal{}},
	} {
		id, err := r.Check([]byte(c.m.Sign([]byte(c.secret))))
		if id.Who != c.want || (err == nil) == c.want.Nobody() {
			t.Errorf("%s: %v, %v", what, id.Who, err)
		}
		if err != nil && err != error(errs.AuthFailed) {
			t.Errorf("%s: the error says too much: %v", what, err)
		}
	}
}

func TestKeyringTellsIdentity(t *testing.T) {
	r := &auth.Keyring{Secret: []byte(secret), VMExists: func(string) bool { return true }, Now: time.Now}
	got, err := r.Check([]byte(golden))
	want := auth.Identity{Who: fs.Principal{VM: node}, Node: node, Group: "swarm1", Key: example.Key}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}
