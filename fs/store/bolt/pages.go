package bolt

import (
	"fmt"
	"strings"

	"go.etcd.io/bbolt"
)

// checkPages looks at the head of every page. bbolt takes memory by the number of
// overflow pages that a head names, 32 bits of it, and so must not meet one that
// is damaged.
func checkPages(tx *bbolt.Tx, pageSize int) error {
	const firstPage = 2 // after the two meta pages
	pages := int(tx.Size()) / pageSize
	for id := firstPage; id < pages; id++ {
		p, err := tx.Page(id)
		switch {
		case err != nil:
			return fmt.Errorf("page %d: %w", id, err)
		case p.Type == "free":
			continue
		case p.Type == "meta" || strings.HasPrefix(p.Type, "unknown"):
			return fmt.Errorf("page %d: damaged: its type is %s", id, p.Type)
		case p.OverflowCount >= pages-id:
			return fmt.Errorf("page %d: damaged: it goes on for %d pages", id, p.OverflowCount)
		}
		id += p.OverflowCount
	}
	return nil
}

// checkTree finds pages that are in use twice, or both free and in use, and keys
// that are out of order. The heads must have been checked.
func checkTree(tx *bbolt.Tx) error {
	var first error
	n := 0
	for err := range tx.Check() {
		if n++; first == nil {
			first = err
		}
	}
	if n > 1 {
		return fmt.Errorf("%w (and %d more)", first, n-1)
	}
	return first
}
