package durability

import "testing"

// The trace's judge must be able to condemn: hand-made traces, good and bad.
func TestJudge(t *testing.T) {
	const (
		asks    = `7 read(9, "\x20\x00\x00\x00\x9a\x00\x00", 4096) = 32` + "\n"
		answers = `7 write(9, "\x0b\x00\x00\x00\x9b\x00\x00", 11) = 11` + "\n"
		stores  = `8 pwrite64(4, "\x00"..., 4096, 0) = 4096` + "\n"
		notes   = `8 pwrite64(5, "\x6d\x39\x61\x6b\x00"..., 32, 0) = 32` + "\n"
		syncs   = `8 fdatasync(4) = 0` + "\n"
	)
	for _, tt := range []struct {
		name, trace string
		good        bool
	}{
		{"in order", asks + stores + syncs + answers, true},
		{"in order, the sync in two parts", asks + stores + "8 fdatasync(4 <unfinished ...>\n8 <... fdatasync resumed>) = 0\n" + answers, true},
		{"no sync", asks + stores + answers, false},
		{"a sync of before", syncs + asks + stores + answers, false},
		{"too late", asks + stores + answers + syncs, false},
		{"not yet returned", asks + stores + "8 fdatasync(4 <unfinished ...>\n" + answers + "8 <... fdatasync resumed>) = 0\n", false},
		{"failed", asks + stores + "8 fdatasync(4) = -1 EIO (Input/output error)\n" + answers, false},
		{"written after the sync", asks + stores + syncs + stores + answers, false},
		{"noted after the sync", asks + stores + syncs + notes + answers, true},
		{"noted before the sync", asks + stores + notes + syncs + answers, false},
		{"only noted", asks + syncs + notes + answers, false},
		{"nothing written", asks + syncs + answers, false},
		{"the request read in two parts", "7 read(9 <unfinished ...>\n" + syncs + `7 <... read resumed>, "\x20\x00\x00\x00\x9a\x00\x00", 4096) = 32` + "\n" + stores + answers, false},
	} {
		replies, unsynced := judge(parse(t, []byte(tt.trace)), true)
		if replies != 1 {
			t.Errorf("%s: %d replies seen", tt.name, replies)
		}
		if good := len(unsynced) == 0; good != tt.good {
			t.Errorf("%s: judged %v: %v", tt.name, good, unsynced)
		}
	}
}
