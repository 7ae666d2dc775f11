package durability

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta9/tests/daemon"
	"meta9/tests/testenv"
)

// TestFilesTaken deletes a file of the data folder under meta9d: health says so within
// 5 s though nobody writes, and a write is refused, not acknowledged and lost.
func TestFilesTaken(t *testing.T) {
	for _, name := range []string{"meta9.db", "meta9.log"} {
		t.Run(name, func(t *testing.T) {
			srv := testenv.Start(t, daemon.Options{})
			srv.NewVM(testenv.UUID(0), fmt.Sprintf(`{"uuid":%q}`, testenv.UUID(0)))
			c := srv.Conn("vms/" + testenv.UUID(0) + "/keys")
			defer c.Close()
			admin := srv.Conn("")
			defer admin.Close()
			if err := c.Swrite(0, []byte("v"), "k"); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(srv.Data(), name)); err != nil {
				t.Fatal(err)
			}
			gone := time.Now()
			testenv.Eventually(t, "health names the file", func() bool {
				ctl, err := admin.Sread(0, "ctl")
				return err == nil && strings.Contains(string(ctl), name)
			})
			if took := time.Since(gone); took > 5*time.Second {
				t.Errorf("health says so after %v", took)
			}
			if err := c.Swrite(0, []byte("w"), "k"); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("a write then: %v", err)
			}
			if v, err := c.Sread(0, "k"); err != nil || string(v) != "v" {
				t.Errorf("a read then: %q, %v", v, err)
			}
		})
	}
}
