package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"meta9/fs/backup"
)

func sample(t testing.TB, n int) []byte {
	var b bytes.Buffer
	w := backup.NewWriter(&b)
	for i := range n {
		w.Record(fmt.Appendf(nil, "key%d", i), []byte("head"), strings.Repeat("x", i))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 300} {
		i := 0
		got, err := backup.Read(bytes.NewReader(sample(t, n)), func(key, value []byte) error {
			if string(key) != fmt.Sprintf("key%d", i) || string(value) != "head"+strings.Repeat("x", i) {
				t.Errorf("record %d is %q, %q", i, key, value)
			}
			i++
			return nil
		})
		if err != nil || got != uint64(n) || i != n {
			t.Errorf("%d records: %d, %d calls, %v", n, got, i, err)
		}
	}
}

// TestDamage: what was cut at any place, or altered in any byte, is no backup.
func TestDamage(t *testing.T) {
	whole := sample(t, 5)
	refused := func(what string, b []byte) {
		t.Helper()
		if _, err := backup.Read(bytes.NewReader(b), nil); !errors.Is(err, backup.ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range whole {
		refused(fmt.Sprintf("cut at %d", i), whole[:i])
		b := bytes.Clone(whole)
		b[i] ^= 1
		refused(fmt.Sprintf("byte %d", i), b)
	}
	refused("more", append(bytes.Clone(whole), 'x'))
	refused("twice", append(bytes.Clone(whole), whole...))
}

func TestErrorsOfOthers(t *testing.T) {
	mine := errors.New("mine")
	if _, err := backup.Read(bytes.NewReader(sample(t, 2)), func(_, _ []byte) error { return mine }); err != mine {
		t.Error(err)
	}
	w := backup.NewWriter(full{})
	w.Record([]byte("k"), make([]byte, 1<<20), "")
	if w.Err() == nil || w.Close() == nil {
		t.Error("a full disk was not noticed")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no room") }

// FuzzRead: whatever it is, reading it ends, and what is whole has the records that it
// says.
func FuzzRead(f *testing.F) {
	f.Add(sample(f, 3))
	f.Add(sample(f, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := uint64(0)
		records, err := backup.Read(bytes.NewReader(b), func(key, _ []byte) error {
			if len(key) == 0 {
				t.Error("an empty key")
			}
			n++
			return nil
		})
		if n != records && err == nil {
			t.Errorf("%d records, %d calls", records, n)
		}
	})
}
