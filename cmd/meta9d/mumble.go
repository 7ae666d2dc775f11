package main

import (
	"bytes"
	"os"
	"time"

	"meta9/fs/vm"
	"meta9/session/auth"
)

// secretKey is the key in internal_metadata with the VM's own secret, with which its guest
// signs MUMBLE messages. Only the VM itself and the admin can read it.
const secretKey = "mumble_secret_pw"

// keyring says which secrets sign MUMBLE messages; nil: no secret is set.
func (d *daemon) keyring() (*auth.Keyring, error) {
	secret, err := d.cfg.Mumble.load()
	if len(secret) == 0 {
		return nil, err
	}
	return &auth.Keyring{
		Secret: secret, VMSecret: d.vmSecret, AdminGroups: d.cfg.Mumble.AdminGroups,
		VMExists: func(uuid string) bool { return d.vm(uuid) != nil },
		Now:      time.Now,
	}, nil
}

// load is the secret, from the settings or from its file; none: nobody authenticates.
func (m *mumble) load() ([]byte, error) {
	if m.SecretFile == "" {
		return []byte(m.Secret), nil
	}
	return secretIn("mumble.secret_file", m.SecretFile)
}

// secretIn is the secret in the file that a setting names.
func secretIn(setting, file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, misused("%s: %w", setting, err)
	}
	secret := bytes.TrimRight(b, "\r\n")
	if len(secret) < minSecret {
		return nil, misused("%s: %s: %w", setting, file, shortSecret(len(secret)))
	}
	return secret, nil
}

// vmSecret is the VM's own secret, unless it is too short to be one.
func (d *daemon) vmSecret(uuid string) []byte {
	v := d.vm(uuid)
	if v == nil {
		return nil
	}
	e := v.Get(vm.Internal, secretKey)
	if e == nil || len(e.Value) < minSecret {
		return nil
	}
	return []byte(e.Value)
}
