package bolt_test

import (
	"testing"

	"go.uber.org/goleak"

	"meta9/fs/store"
	"meta9/fs/store/bolt"
	"meta9/fs/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *bolt.Engine {
	t.Helper()
	e, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(dir string) store.Engine { return open(t, dir) })
}
