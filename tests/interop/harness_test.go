package interop

import "testing"

// TestHarness tries each adapter on a server of others, as far as that server
// goes: list, create, read, write, stat, remove.
func TestHarness(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			addr, aname := k.peer(t)
			c, err := k.dial("tcp", addr, aname)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			s := script{t, c, "tcp"}
			s.must("create", c.create("keys/a", "one"))
			s.value("keys/a", "one")
			s.must("write", c.write("keys/a", "two!"))
			s.value("keys/a", "two!")
			s.names("keys", "a")
			s.length("keys/a", 4)
			s.must("remove", c.remove("keys/a"))
			s.names("keys")
		})
	}
}
