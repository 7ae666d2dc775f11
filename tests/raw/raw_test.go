package raw

import (
	"encoding/hex"
	"testing"

	"meta9/session/wire"
)

// TestGolden holds the builder to the frames that LING's, qp's and libstyxe's codecs
// agree on (docs/protocol.md, "Messages of 9P2000.e"), so that it is a witness of its own.
func TestGolden(t *testing.T) {
	for _, tt := range []struct {
		frame []byte
		want  string
	}{
		{Frame(wire.Tversion, NoTag, uint32(8192), "9P2000.e"), "1500000064ffff0020000008003950323030302e65"},
		{Frame(wire.Tsession, NoTag, []byte{1, 2, 3, 4, 5, 6, 7, 8}), "0f00000096ffff0102030405060708"},
		{Frame(wire.Rsession, NoTag), "0700000097ffff"},
		{Frame(wire.Tsread, 5, uint32(7), []string{"vm", "meta"}), "170000009805000700000002000200766d04006d657461"},
		{Frame(wire.Tsread, 5, uint32(7), []string{}), "0d000000980500070000000000"},
		{Frame(wire.Rsread, 5, Data("hello")), "100000009905000500000068656c6c6f"},
		{Frame(wire.Tswrite, 6, uint32(7), []string{"vm", "meta"}, Data("world!")), "210000009a06000700000002000200766d04006d65746106000000776f726c6421"},
		{Frame(wire.Rswrite, 6, uint32(6)), "0b0000009b060006000000"},
		{Frame(wire.Rerror, NoTag, "cannot recover"), "170000006bffff0e0063616e6e6f74207265636f766572"},
	} {
		if got := hex.EncodeToString(tt.frame); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// TestMumble is the message of docs/protocol.md, "MUMBLE".
func TestMumble(t *testing.T) {
	const want = "MUMBLE:AAHo9hM9AkDLEfHrdcC1gDKRVl3UnAECAwQFBgcIAKUYagAAAAAkADU1MGU4NDAwLWUyOWItNDFkNC1hNzE2LTQ0NjY1NTQ0MDAwMAYAc3dhcm0xAAAAAA==:"
	got := Mumble("meta9-example-secret", [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, 1780000000, 0, "550e8400-e29b-41d4-a716-446655440000", "swarm1")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
