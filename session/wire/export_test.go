package wire

// MinSize is the size in bytes of the smallest frame of type t in dialect d, its
// size field included; false when d has no such type.
func MinSize(t Type, d Dialect) (uint32, bool) {
	s, ok := spanOf(t, d)
	return s.min, ok
}
