package durability

import (
	"fmt"
	"testing"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestAddressSpace runs meta9d with 1.6 GB of address space (ulimit -v), of which the
// data file is to take no more than it needs: it starts, and grows past what it has
// mapped at first. (Go's runtime takes 1.2 GB of it, unused.)
func TestAddressSpace(t *testing.T) {
	t.Setenv("CGO_ENABLED", "0")                    // as make build has it
	bin, err := daemon.Build(t.TempDir(), "meta9d") // the race detector wants terabytes
	if err != nil {
		t.Fatal(err)
	}
	srv := testenv.Start(t, daemon.Options{Bin: bin, Wrap: []string{"sh", "-c", `ulimit -v 1600000 && exec "$0" "$@"`}})
	const vms, keys = 2, 10 // values of 1 MiB
	value := make([]byte, 1<<20)
	for i := range vms {
		uuid := testenv.UUID(i)
		srv.NewVM(uuid, fmt.Sprintf(`{"uuid":%q}`, uuid))
		c := srv.Conn("vms/" + uuid + "/keys")
		for k := range keys {
			if err := c.Swrite(0, value, fmt.Sprint("k", k)); err != nil {
				t.Fatalf("VM %d, key %d: %v", i, k, err)
			}
		}
		c.Close()
	}
	srv.Restart()
	c := srv.Conn("vms/" + testenv.UUID(vms-1) + "/keys")
	if v, err := c.Sread(0, fmt.Sprint("k", keys-1)); err != nil || len(v) != len(value) {
		t.Errorf("after a restart: %d bytes, %v", len(v), err)
	}
}
