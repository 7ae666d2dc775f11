package main

import "testing"

// mountable tells whether who runs the tests may mount, by the kernel's 9P client or by FUSE.
func mountable(t *testing.T, byFUSE bool) bool {
	if byFUSE {
		return missingFUSE(t.Context()) == nil
	}
	return mayMount()
}
