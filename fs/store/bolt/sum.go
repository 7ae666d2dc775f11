package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"unsafe"

	"go.etcd.io/bbolt"
)

// What bbolt's file says of itself does not show that a page is an older one, which a
// disk that lost a write leaves: every key and value in it is whole. So the file holds,
// in a bucket of its own, a sum over all keys and values, written in every transaction:
//
//	0  format  1
//	1  CRC32C  of the rest
//	5  transaction, number, count of keys, sum: uint64 each, little-endian
//
// A sum of another transaction than the file's newest is not used if the number of the
// newest batch has gone on as well: then a meta9d without sums has written the file.
var (
	sumBucket = []byte("meta9-sum")
	sumKey    = []byte("sum")
)

const (
	sumFormat = 1
	sumSize   = 5 + 4*8
)

// tally is what keys and values come to, in any order.
type tally struct{ count, sum uint64 }

func (t *tally) add(key, value []byte, tail string) {
	t.count++
	t.sum += termOf(key, value, tail)
}

func (t *tally) remove(key, value []byte) {
	t.count--
	t.sum -= termOf(key, value, "")
}

// termOf is a number that no other key or value is likely to have.
func termOf(key, value []byte, tail string) uint64 {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	if tail != "" {
		sum = crc32.Update(sum, castagnoli, unsafe.Slice(unsafe.StringData(tail), len(tail)))
	}
	// The finish of splitmix64, without which sums of checksums would cancel out.
	x := uint64(sum)<<32 | uint64(uint32(len(key)<<24+len(value)+len(tail)))
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// writer is a transaction of the data file under way.
type writer struct {
	*bbolt.Bucket
	tally
}

// put writes one key; a nil value deletes it.
func (w *writer) put(key, value []byte, tail string) error {
	var err error
	if old := w.Get(key); old != nil {
		w.remove(key, old)
	}
	switch {
	case value == nil:
		err = w.Delete(key)
	default:
		w.add(key, value, tail)
		if tail != "" {
			whole := make([]byte, 0, len(value)+len(tail))
			value = append(append(whole, value...), tail...)
		}
		err = w.Put(key, value)
	}
	if err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	return nil
}

// putSum writes the sum of the transaction, as the last of it.
func (w *writer) putSum() error {
	tx := w.Tx()
	sums, err := tx.CreateBucketIfNotExists(sumBucket)
	if err != nil {
		return err
	}
	b := make([]byte, 5, sumSize)
	b[0] = sumFormat
	for _, n := range []uint64{uint64(tx.ID()), w.Sequence(), w.count, w.tally.sum} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
	return sums.Put(sumKey, b)
}

// checkSum compares what walk has given with the sum that the file holds; nil: it holds
// none, as a meta9d without sums wrote it.
func (r *reader) checkSum(b []byte) error {
	if b == nil {
		if r.sums.there {
			return damaged(r.root, "the sum of all keys is not there")
		}
		return nil
	}
	if len(b) != sumSize || b[0] != sumFormat || binary.LittleEndian.Uint32(b[1:]) != crc32.Checksum(b[5:], castagnoli) {
		return damaged(r.root, "the sum of all keys is not whole")
	}
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(b[5+8*i:]) }
	txid, number, count, sum := at(0), at(1), at(2), at(3)
	switch {
	case txid < r.txid && number < r.main.sequence:
		return nil
	case txid != r.txid || number != r.main.sequence:
		return damaged(r.root, "it is of batch %d and transaction %d, and the sum of all keys of batch %d and transaction %d", r.main.sequence, r.txid, number, txid)
	case count != r.keyed.count:
		return fmt.Errorf("damaged: %d keys are there, and %d were written: a page is one of an older state, or missing", r.keyed.count, count)
	case sum != r.keyed.sum:
		return fmt.Errorf("damaged: the %d keys are not all as they were written last: one is damaged, or a page is one of an older state", count)
	}
	return nil
}
