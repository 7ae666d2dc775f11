package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// AckedName is the file that says which batch was acknowledged last. It is written when
// that batch is durable, and never synced: what it says was true when it was written,
// and so whatever is left of it is. After a kill that is the newest batch; after a loss
// of power it may be an older one, or none.
//
// A record that a loss of power cut off, and the newest one damaged later, look alike in
// the log. This tells them apart.
const AckedName = "meta9.acked"

// The file, little-endian, written at once and smaller than a sector:
//
//	 0  magic   "m9ak"
//	 4  CRC32C  of the rest
//	 8  id      of the log
//	24  number  of the batch
const (
	ackedMagic = "m9ak"
	ackedSize  = 32
)

// openAcked makes the file, or takes the one of an earlier log. Without it the log
// works as well, so that whoever finds no room for it goes on: nil.
func openAcked(dir string) *os.File {
	f, err := os.OpenFile(filepath.Join(dir, AckedName), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil
	}
	return f
}

// note says that the batch of that number is durable. What cannot be written leaves
// what was there, which is true as well.
func (l *logFile) note(number uint64) {
	if l.acked == nil {
		return
	}
	var b [ackedSize]byte
	copy(b[:], ackedMagic)
	copy(b[8:], l.id[:])
	binary.LittleEndian.PutUint64(b[24:], number)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	_, _ = l.acked.WriteAt(b[:], 0)
}

// checkAcked says whether a log that ends with the batch of that number has all that
// was acknowledged.
func checkAcked(dir string, id logID, newest uint64) error {
	b, err := os.ReadFile(filepath.Join(dir, AckedName))
	if err != nil || len(b) != ackedSize || string(b[:4]) != ackedMagic || logID(b[8:24]) != id ||
		binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:], castagnoli) {
		return nil
	}
	if acked := binary.LittleEndian.Uint64(b[24:]); acked > newest {
		return fmt.Errorf("damaged: it ends with batch %d, and batch %d was acknowledged (if you put the files back from a backup, remove %s)", newest, acked, AckedName)
	}
	return nil
}
