package listen

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// Denied is a list of certificates that must not be accepted although an authority has
// signed them and they have not expired: somebody else knows their keys. The zero value
// denies none. Any goroutine may use it and load it anew.
type Denied struct {
	list atomic.Pointer[map[fingerprint]struct{}]
}

type fingerprint [sha256.Size]byte

// Load reads the list from a file, and tells how many it has: a SHA-256 fingerprint a
// line, in hexadecimal digits, with or without colons, as "openssl x509 -fingerprint
// -sha256 -noout" prints it; empty lines, and what follows #, say nothing. On an error,
// which names the line, the list stays what it was. No path is an empty list.
// Listener.Recheck ends what is open.
func (d *Denied) Load(path string) (int, error) {
	if path == "" {
		d.list.Store(nil)
		return 0, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("denied certificates: %w", err)
	}
	list := make(map[fingerprint]struct{})
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if i := strings.LastIndexByte(text, '='); i >= 0 { // sha256 Fingerprint=AB:CD:...
			text = text[i+1:]
		}
		text = strings.ReplaceAll(strings.TrimSpace(text), ":", "")
		if text == "" {
			continue
		}
		var f fingerprint
		if raw, err := hex.DecodeString(text); err != nil || copy(f[:], raw) != len(f) || len(raw) != len(f) {
			return 0, fmt.Errorf("denied certificates: %s, line %d: not a SHA-256 fingerprint, which has %d hexadecimal digits", path, n, 2*len(f))
		}
		list[f] = struct{}{}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("denied certificates: %s: %w", path, err)
	}
	d.list.Store(&list)
	return len(list), nil
}

// has tells whether one of the certificates is on the list: a client's, or one of an
// authority between it and ours. A nil list denies none.
func (d *Denied) has(chains [][]*x509.Certificate) bool {
	if d == nil {
		return false
	}
	now := d.list.Load()
	if now == nil {
		return false
	}
	list := *now
	for _, chain := range chains {
		for _, cert := range chain {
			if _, ok := list[sha256.Sum256(cert.Raw)]; ok {
				return true
			}
		}
	}
	return false
}
