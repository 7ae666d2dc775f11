package hostile

import (
	"fmt"
	"strings"
	"testing"

	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// TestAdminHasRoom: a guest that has filled its VM with keys cannot keep the admin from
// internal/, nor have what is kept for the admin.
func TestAdminHasRoom(t *testing.T) {
	s := testenv.Start(t, daemon.Options{Memory: true, Config: "[limits]\nvm_keys = 30\n"})
	uuid := testenv.UUID(1)
	s.NewVM(uuid, fmt.Sprintf(`{"uuid":%q}`, uuid))
	guest, err := raw.Dial("unix", s.VM(uuid))
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	if err := daemon.Hello(guest, "9P2000.e", ""); err != nil {
		t.Fatal(err)
	}
	fill := func() (n int) {
		for ; n < 100; n++ {
			if err := guest.Swrite(0, []byte("x"), "keys", fmt.Sprint("k", n)); err != nil {
				if !strings.HasPrefix(err.Error(), "No space left on device") {
					t.Error(err)
				}
				break
			}
		}
		return n
	}
	if n := fill(); n != 30 {
		t.Fatalf("the guest has made %d keys, 30 is its limit", n)
	}
	admin := s.Conn("vms/" + uuid)
	for i := range 10 {
		if err := admin.Swrite(0, []byte("x"), "internal", fmt.Sprint("op", i)); err != nil {
			t.Fatalf("the admin is locked out: %v", err)
		}
	}
	if err := guest.Swrite(0, []byte("x"), "keys", "one-more"); err == nil {
		t.Error("the guest has a key of the admin's")
	}
}
