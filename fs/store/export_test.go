package store

// Holds is how many Holds the cell keeps.
func (c *Cell) Holds() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.holds {
		n += l.Len()
	}
	return n
}
