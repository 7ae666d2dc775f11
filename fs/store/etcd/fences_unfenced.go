//go:build unfenced && !unsequenced

package etcd

const (
	compareOwner    = false
	compareSequence = true
)
