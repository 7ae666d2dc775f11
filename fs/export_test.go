package fs

// OpenStats tells how many VMs have files open for reading, and what the old
// values that they pin cost.
func (t *Tree) OpenStats() (tables int, oldBytes, oldCount int64) {
	t.opens.mu.Lock()
	defer t.opens.mu.Unlock()
	for _, table := range t.opens.tables {
		oldBytes += table.oldBytes.Load()
		oldCount += table.oldCount.Load()
	}
	return len(t.opens.tables), oldBytes, oldCount
}

// PinCost is what an old value costs beside its bytes.
const PinCost = pinCost
