package bolt

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"meta9/fs/store"
)

// groupOf is one group of ops: keys and values in turn, "-" deletes.
func groupOf(number uint64, texts ...string) []store.Group {
	g := store.Group{Number: number}
	for i := 0; i < len(texts); i += 2 {
		op := store.Op{Key: []byte(texts[i])}
		if v := texts[i+1]; v != "-" {
			op.Value, op.Tail = []byte(v[:len(v)/2]), v[len(v)/2:]
		}
		g.Ops = append(g.Ops, op)
	}
	return []store.Group{g}
}

// logOf is a log's file with a segment's size and the records of each segment.
func logOf(segment int, parts ...[]byte) []byte {
	file := make([]byte, segments*segment)
	for i, p := range parts {
		copy(file[i*segment:], p)
	}
	return file
}

// wholeRecord appends a record with all its Tails.
func wholeRecord(b []byte, id logID, number, prev uint64, groups []store.Group) []byte {
	r, tails := appendRecord(nil, id, number, prev, groups)
	_ = pieces(r, 0, tails, func(p []byte) error {
		b = append(b, p...)
		return nil
	})
	return b
}

// TestLargeTails: a record has its large Tails where they belong, and they are not
// copied to get there.
func TestLargeTails(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", largeTail/8) // its half is a large Tail
	groups := groupOf(7, "a", large, "b", "small", "c", "-", "d", large, "e", large)
	b := wholeRecord(nil, testID, 7, 6, groups)
	if len(b)%blockSize != 0 {
		t.Errorf("%d bytes are not whole blocks", len(b))
	}
	r, ok := readRecord(b, testID)
	if !ok || r.number != 7 || r.blocks != int64(len(b)/blockSize) {
		t.Fatalf("read %v: batch %d, %d blocks", ok, r.number, r.blocks)
	}
	var got []string
	if err := r.ops(func(key, value []byte) { got = append(got, string(key), string(value)) }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", large, "b", "small", "c", "", "d", large, "e", large}; !slices.Equal(got, want) {
		t.Errorf("%d texts, of which some are wrong", len(got))
	}
	b[len(b)/2] ^= 1
	if _, ok := readRecord(b, testID); ok {
		t.Error("a changed bit of a Tail is not seen")
	}
	head, tails := appendRecord(nil, testID, 7, 6, groups)
	if len(tails) != 3 || len(head) > 3*len(large)/2+2*blockSize {
		t.Errorf("%d Tails, %d other bytes", len(tails), len(head))
	}
}

// numbers are those of the records.
func numbers(records []record) (list []uint64) {
	for _, r := range records {
		list = append(list, r.number)
	}
	return list
}

var testID = logID{1, 2, 3}

// chain is records of those numbers, each after the one before.
func chain(prev uint64, list ...uint64) (b []byte) {
	for _, n := range list {
		b = wholeRecord(b, testID, n, prev, groupOf(n, "key", string(bytes.Repeat([]byte{'v'}, int(n)*97))))
		prev = n
	}
	return b
}

func TestReadLog(t *testing.T) {
	const segment = 16 * blockSize
	forged := func(id logID) []byte {
		return wholeRecord(nil, id, 8, 7, groupOf(8, "k", "forged"))
	}
	overwritten := append(chain(6, 7), chain(3, 4, 5, 6)[blockSize:]...) // 7 lies over 4 of the round before
	for _, c := range []struct {
		name    string
		file    []byte
		after   uint64
		want    []uint64
		damaged bool
	}{
		{"nothing", logOf(segment), 3, nil, false},
		{"one round", logOf(segment, chain(3, 4, 5, 7)), 3, []uint64{4, 5, 7}, false},
		{"in the data file in part", logOf(segment, chain(3, 4, 5, 7)), 5, []uint64{7}, false},
		{"in the data file", logOf(segment, chain(3, 4, 5, 7)), 7, nil, false},
		{"both segments", logOf(segment, chain(6, 7, 8), chain(3, 4, 5, 6)), 3, []uint64{4, 5, 6, 7, 8}, false},
		{"the older is taken", logOf(segment, chain(6, 7, 8), chain(3, 4, 5, 6)), 6, []uint64{7, 8}, false},
		{"an older round behind", logOf(segment, overwritten), 6, []uint64{7}, false},
		{"torn, with an older round behind", logOf(segment, append(make([]byte, blockSize), chain(3, 4, 5, 6)[blockSize:]...)), 6, nil, false},
		{"another log's", logOf(segment, forged(logID{9}), chain(6, 7)), 6, []uint64{7}, false},
		{"the first is missing", logOf(segment, chain(4, 5)), 3, nil, true},
		{"one is missing between segments", logOf(segment, chain(7, 8), chain(3, 4, 5)), 3, []uint64{4, 5}, true},
		{"one is damaged in the middle", logOf(segment, flipped(chain(3, 4, 5, 6), blockSize+100)), 3, []uint64{4}, true},
		{"the last is damaged", logOf(segment, flipped(chain(3, 4, 5, 6), 2*blockSize+100)), 3, []uint64{4, 5}, false},
		{"the first is damaged", logOf(segment, flipped(chain(3, 4, 5, 6), 100)), 3, nil, true},
	} {
		records, err := readLog(c.file, testID, c.after)
		if got := numbers(records); !equal(got, c.want) || (err != nil) != c.damaged {
			t.Errorf("%s: %v, %v; want %v, damaged: %v", c.name, got, err, c.want, c.damaged)
		}
	}
}

func equal(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestRecordOps(t *testing.T) {
	groups := append(groupOf(1, "a", "", "b", "-", "", "value"), groupOf(1, "c", string(bytes.Repeat([]byte("x"), 9000)))...)
	b := wholeRecord(nil, testID, 1, 0, groups)
	if len(b)%blockSize != 0 || int64(len(b)) < logHead {
		t.Errorf("%d bytes", len(b))
	}
	r, ok := readRecord(b, testID)
	if !ok || r.number != 1 || r.blocks != int64(len(b))/blockSize {
		t.Fatalf("%+v, %v", r, ok)
	}
	var got []string
	if err := r.ops(func(key, value []byte) {
		if value == nil {
			value = []byte("-")
		}
		got = append(got, string(key), string(value))
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{"a", "", "b", "-", "", "value", "c", string(bytes.Repeat([]byte("x"), 9000))}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("%d texts, of which %d is %.20q", len(got), i, got[i:])
		}
	}
}

// FuzzLog reads a log that is laid out as the plan says, five bytes a record: which
// segment, which block, number, prev, and what became of it. What is read follows on
// from one to the next, and no body makes it panic.
func FuzzLog(f *testing.F) {
	f.Add([]byte{0, 0, 4, 3, 0, 0, 1, 5, 4, 0, 1, 0, 6, 5, 0}, []byte("\x01k\x02v"), uint64(3))
	f.Add([]byte{0, 0, 4, 3, 0, 0, 1, 5, 4, 1, 0, 2, 6, 5, 0}, []byte("\x01k\x00"), uint64(3))
	f.Add([]byte{1, 0, 4, 3, 2, 1, 1, 2, 1, 0, 0, 0, 200, 4, 3}, []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01k"), uint64(4))
	f.Fuzz(func(t *testing.T, plan, body []byte, after uint64) {
		const blocksEach = 8
		file := make([]byte, segments*blocksEach*blockSize)
		for ; len(plan) >= 5; plan = plan[5:] {
			r := wholeRecord(nil, testID, uint64(plan[2]), uint64(plan[3]), nil)
			n := copy(r[logHead:], body)
			binary.LittleEndian.PutUint64(r[40:], uint64(n))
			binary.LittleEndian.PutUint32(r[4:], crc32.Checksum(r[8:logHead+n], castagnoli))
			switch plan[4] % 4 {
			case 1: // a bit
				r[int(plan[2])%(logHead+n)] ^= 1
			case 2: // another log's
				r[8]++
			case 3: // a length that is not there
				binary.LittleEndian.PutUint64(r[40:], uint64(plan[3])<<56|uint64(plan[2]))
			}
			copy(file[(int(plan[0])%segments*blocksEach+int(plan[1])%blocksEach)*blockSize:], r)
		}
		records, _ := readLog(file, testID, after)
		last := after
		for _, r := range records {
			if r.prev != last || r.number <= last {
				t.Fatalf("batch %d, which names %d, after %d", r.number, r.prev, last)
			}
			last = r.number
			_ = r.ops(func(_, _ []byte) {})
		}
	})
}
