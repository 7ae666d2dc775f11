//go:build unsequenced && !unfenced

package etcd

const (
	compareOwner    = true
	compareSequence = false
)
