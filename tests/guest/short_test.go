package guest

import (
	"crypto/md5"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// short is what must work in every dialect, cache mode and transport.
var short = []step{
	{"ls", func(t *testing.T, m *mount) {
		out := m.ok(t, "ls -l")
		owner := "root"
		if m.version == "9p2000" {
			owner = `\d+` // names say nothing to v9fs; dfltuid= does
		}
		line := regexp.MustCompile(`(?m)^-rw-------\s+1 ` + owner + `\s+` + owner + `\s+5 .* motd$`)
		if !line.MatchString(out) {
			t.Errorf("ls -l prints %s", out)
		}
		m.says(t, "ls ..", "internal\nkeys\nnocloud\nsdc\ntxn\nvm.json")
	}},
	{"cat", func(t *testing.T, m *mount) {
		m.says(t, "cat motd", "hello")
		m.fails(t, "cat none", "No such file")
		m.says(t, "cat ../sdc/uuid", uuid)
	}},
	{"echo", func(t *testing.T, m *mount) {
		m.ok(t, "echo a long first value > new")
		m.stored(t, "new", "a long first value\n")
		m.ok(t, "echo two > new")
		m.stored(t, "new", "two\n")
		m.says(t, "cat new", "two")
	}},
	{"append", func(t *testing.T, m *mount) {
		m.ok(t, "echo one >> app; echo two >> app; cat app >/dev/null; echo three >> app")
		m.stored(t, "app", "one\ntwo\nthree\n")
		m.says(t, "cat app", "one\ntwo\nthree")
	}},
	{"empty", func(t *testing.T, m *mount) {
		m.ok(t, ": > empty")
		m.stored(t, "empty", "")
		m.ok(t, "echo full > empty; : > empty")
		m.stored(t, "empty", "")
		m.says(t, "stat -c %s empty", "0")
	}},
	{"truncate", func(t *testing.T, m *mount) {
		m.ok(t, "printf abcdef > cut && truncate -s 3 cut")
		m.stored(t, "cut", "abc")
		m.ok(t, "truncate -s 5 cut")
		m.stored(t, "cut", "abc\x00\x00")
		m.says(t, "wc -c <cut", "5")
	}},
	{"mv", func(t *testing.T, m *mount) {
		m.ok(t, "echo 1 > from && mv from to")
		m.stored(t, "to", "1\n")
		m.absent(t, "from")
		m.ok(t, "echo 2 > from && mv from to")
		m.stored(t, "to", "2\n")
		m.absent(t, "from")
		m.says(t, "cat to", "2")
	}},
	{"rm", func(t *testing.T, m *mount) {
		m.ok(t, "echo 1 > gone && rm gone")
		m.absent(t, "gone")
		m.fails(t, "rm gone", "No such file")
		m.fails(t, "cat gone", "No such file")
	}},
	{"1 MiB", func(t *testing.T, m *mount) {
		m.ok(t, "dd if=/dev/urandom of=/tmp/big bs=64k count=16 2>/dev/null && cp /tmp/big big")
		sum, _, _ := strings.Cut(m.ok(t, "md5sum /tmp/big"), " ")
		if m.cache == "loose" {
			m.ok(t, "sync")
		}
		if value, _ := m.host.value(t, "big"); fmt.Sprintf("%x", md5.Sum([]byte(value))) != sum {
			t.Errorf("the host has another value, of %d bytes", len(value))
		}
		m.ok(t, "cmp big /tmp/big")
		m.fails(t, "dd if=/dev/zero of=big seek=1048576 bs=1 count=1 conv=notrunc,fsync", "File too large")
		m.ok(t, "rm big")
	}},
	{"fsync", func(t *testing.T, m *mount) {
		m.ok(t, "rewrite synced durable && fsync synced && fsync -d synced && sync")
		m.stored(t, "synced", "durable")
	}},
	{"grep", func(t *testing.T, m *mount) {
		m.ok(t, "echo a needle here > hay")
		m.says(t, "grep -rl needle .", "./hay")
		m.ok(t, "rm hay")
		m.says(t, "grep -rl '^"+uuid+"$' ../sdc | sort", "../sdc/uuid\n../sdc/zonename")
	}},
	{"df", func(t *testing.T, m *mount) {
		out := strings.Fields(m.ok(t, "df -k . | tail -n 1"))
		want := "0"
		if m.linux() {
			want = "16384" // KiB: the VM's limit
		}
		if out[1] != want {
			t.Errorf("df tells of %s KiB, want %s", out[1], want)
		}
	}},
	{"host writes", hostWrites},
	{"find", func(t *testing.T, m *mount) {
		m.says(t, "find .. -name uuid -type f", "../sdc/uuid")
		m.says(t, "find .. -maxdepth 1 -type d | sort", "..\n../internal\n../keys\n../nocloud\n../sdc")
	}},
	{"kept", func(t *testing.T, m *mount) { // a new mount finds what the old one has written
		m.ok(t, "echo kept > kept")
		m.Sh(t, "umount "+m.dir)
		m.remount(t)
		m.says(t, "cat kept", "kept")
		m.stored(t, "kept", "kept\n")
	}},
}

// hostWrites: what the host writes is seen by the guest's next open; by FUSE when its
// event was read, and under cache=loose by its next mount.
func hostWrites(t *testing.T, m *mount) {
	m.put(t, "seen", "first")
	m.says(t, "cat seen", "first")
	for _, value := range []string{"second", "third, longer", "4"} {
		m.put(t, "seen", value)
		if m.cache == "loose" {
			m.Sh(t, "umount "+m.dir)
			m.remount(t)
		}
		m.says(t, "cat seen", value)
		if m.linux() || m.cache != "loose" {
			m.says(t, "stat -c %s seen", fmt.Sprint(len(value)))
		}
	}
}
