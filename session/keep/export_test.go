package keep

// Waiting is how many bytes the requests have that have no answer.
func (c *Calls) Waiting() int {
	c.k.conn.Lock()
	defer c.k.conn.Unlock()
	return c.k.conn.Bytes
}
