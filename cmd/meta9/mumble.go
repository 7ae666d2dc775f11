package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"

	"meta9/fs/vm"
	"meta9/session/mumble"
)

// signing is what the flags of mumble say.
type signing struct {
	secret string // a file
	group  string
	key    string // hexadecimal
	ttl    time.Duration
}

// newMumble is `meta9 mumble`. It asks no server: the secret never leaves the host.
func newMumble(a *app) *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use:   "mumble VM --secret FILE",
		Short: "make a message that authenticates a VM over tcp",
		Long: `Print a ready-made MUMBLE message, signed with the secret in FILE: whoever shows it
to meta9d is VM, a UUID; or an alias, for which meta9d is asked. The secret stays on the host, the message goes to the
guest, for 'meta9 --mumble' or META9_MUMBLE. With --group the message is of
that group, which may be the admin's; then VM may be any name.

The message is as good as a password until its time is over (--ttl). It carries the
key of one session, so that two clients at once need a message each.`,
		Example: `meta9 mumble web0 --secret /etc/meta9/mumble.secret --ttl 24h
META9_MUMBLE=$(meta9 mumble web0 --secret secret) meta9 --addr tcp:host:564 ls keys`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			node := args[0]
			if _, err := vm.ParseUUID(node); err != nil && s.group == "" && s.secret != "" {
				if node, err = a.byAlias(cmd, node); err != nil {
					return misused("%s is not the UUID of a VM, and there is no --group; as an alias: %w", args[0], err)
				}
			}
			text, err := s.message(node)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.secret, "secret", "", "the secret, in `FILE`; a newline at its end is no part of it")
	f.StringVar(&s.group, "group", "", "the message's group is `NAME`")
	f.StringVar(&s.key, "session-key", "", "the session's key: 16 hexadecimal `DIGITS` (default: at random)")
	f.DurationVar(&s.ttl, "ttl", 0, "the message is good for `TIME` (default: for ever)")
	return cmd
}

// message makes the message of node.
func (s *signing) message(node string) (string, error) {
	if s.secret == "" {
		return "", misused("--secret FILE is needed")
	}
	if _, err := vm.ParseUUID(node); err != nil && s.group == "" {
		return "", misused("%s: not the UUID of a VM, and there is no --group", node)
	}
	if len(node) > mumble.MaxID || len(s.group) > mumble.MaxID {
		return "", misused("a name and a group have at most %d bytes", mumble.MaxID)
	}
	if s.ttl < 0 || s.ttl.Seconds() > math.MaxUint32 || s.ttl > 0 && s.ttl < time.Second {
		return "", misused("--ttl: from 1s to %d s", uint32(math.MaxUint32))
	}
	secret, err := os.ReadFile(s.secret)
	if err != nil {
		return "", err
	}
	if secret = bytes.TrimRight(secret, "\r\n"); len(secret) == 0 {
		return "", fmt.Errorf("%s: no secret in it", s.secret)
	}
	m := mumble.Message{Node: node, Group: s.group, Time: uint32(time.Now().Unix()), TTL: uint32(s.ttl.Seconds())}
	if err := s.readKey(m.Key[:]); err != nil {
		return "", err
	}
	return m.Sign(secret), nil
}

// readKey fills in the session's key. At random unless told, for whoever knows it
// may take the session over.
func (s *signing) readKey(key []byte) error {
	if s.key == "" {
		_, err := rand.Read(key)
		return err
	}
	b, err := hex.DecodeString(s.key)
	if err != nil || len(b) != len(key) {
		return misused("--session-key: %d hexadecimal digits", 2*len(key))
	}
	copy(key, b)
	return nil
}
