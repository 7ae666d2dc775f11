package store

import (
	"errors"
	"os"
)

// SyncDir makes durable which names are in a folder: a file that was created, renamed
// or removed there is so after a power loss too (fsync(2): a sync of the file alone does
// not do it).
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
