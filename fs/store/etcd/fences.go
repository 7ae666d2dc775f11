//go:build !unfenced && !unsequenced

package etcd

// The two compares of each transaction. Tests are built without one of them, by the
// tags unfenced and unsequenced, to show that they fail then; nothing else is.
const (
	compareOwner    = true
	compareSequence = true
)
