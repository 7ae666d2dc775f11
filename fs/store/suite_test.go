package store_test

import (
	"sync"
	"testing"

	"go.uber.org/goleak"

	"meta9/fs/store"
	"meta9/fs/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	storetest.RunVolatile(t, func(string) store.Engine { return store.NewMemory() })
}

// TestDisk runs the suite on the engine that the other tests use.
func TestDisk(t *testing.T) { storetest.Run(t, disks()) }

// TestFailpoints has every call of the engine fail once.
func TestFailpoints(t *testing.T) { storetest.RunFailpoints(t, disks()) }

// disks opens a Disk for each folder.
func disks() func(dir string) store.Engine {
	var mu sync.Mutex
	disks := make(map[string]*storetest.Disk)
	return func(dir string) store.Engine {
		mu.Lock()
		defer mu.Unlock()
		if disks[dir] == nil {
			disks[dir] = storetest.NewDisk()
		}
		return disks[dir]
	}
}
