package keep

import (
	"fmt"
	"strings"
	"testing"

	"meta9/session/wire"
)

// TestFids: what requests and their replies tell of fids. A line is a request and
// its reply; what is known of a fid then is
//
//	NUM UNAME:ANAME/PATH QID [open FLAGS] [locked] [held]
func TestFids(t *testing.T) {
	var known fids
	known.reset()
	for _, step := range strings.Split(strings.TrimSpace(fidSteps), "\n\n") {
		lines := strings.Split(step, "\n")
		m, r := parse(t, lines[0]), parse(t, lines[1])
		known.learn(m, r)
		for _, want := range lines[2:] {
			var num uint32
			fmt.Sscan(want, &num)
			if got := known.describe(num); got != want {
				t.Errorf("%s\n\tknown: %s\n\twant:  %s", lines[0], got, want)
			}
		}
	}
	for num := range known.byNum {
		known.drop(num)
	}
	if len(known.held) != 0 {
		t.Errorf("held: %v", known.held)
	}
}

func parse(t *testing.T, line string) *wire.Msg {
	t.Helper()
	m, err := wire.Parse(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return m
}

func (t *fids) describe(num uint32) string {
	f := t.byNum[num]
	if f == nil {
		return fmt.Sprint(num, " -")
	}
	s := fmt.Sprintf("%d %s:%s/%s %d", num, f.attach.uname, f.attach.aname, strings.Join(f.Path, "/"), f.QID.Path)
	if f.Open {
		s += fmt.Sprintf(" open %#o", f.Flags)
	}
	if f.Locked {
		s += " locked"
	}
	if t.holds(num, f) {
		s += " held"
	}
	return s
}

const fidSteps = `
Tattach tag 1 fid 0 afid ~0 uname "nobody" aname "" n_uname ~0
Rattach tag 1 qid 128.0.1
0 nobody:/ 1

Tattach tag 1 fid 9 afid ~0 uname "x" aname "keys" n_uname 5
Rlerror tag 1 ecode 2
9 -

Twalk tag 1 fid 0 newfid 1 names "keys" "a"
Rwalk tag 1 qids 128.0.2 0.1.3
1 nobody:/keys/a 3

Twalk tag 1 fid 0 newfid 2 names "keys" "b"
Rwalk tag 1 qids 128.0.2
2 -

Twalk tag 1 fid 99 newfid 2 names
Rwalk tag 1 qids
2 -

Twalk tag 1 fid 1 newfid 2 names
Rwalk tag 1 qids
2 nobody:/keys/a 3

Twalk tag 1 fid 2 newfid 2 names ".." ".." ".." "keys"
Rwalk tag 1 qids 128.0.2 128.0.1 128.0.1 128.0.2
2 nobody:/keys 2

Tlopen tag 1 fid 1 flags 0x8241
Rlopen tag 1 qid 0.1.3 iounit 0
1 nobody:/keys/a 3 open 0100001 held

Twrite tag 1 fid 1 offset 0 data ""
Rwrite tag 1 count 0
1 nobody:/keys/a 3 open 0100001 held

Twrite tag 1 fid 1 offset 0 data "x"
Rlerror tag 1 ecode 28
1 nobody:/keys/a 3 open 0100001 held

Twrite tag 1 fid 1 offset 0 data "x"
Rwrite tag 1 count 1
1 nobody:/keys/a 3 open 0100001

Tsetattr tag 1 fid 1 valid 0x8 mode 0 uid ~0 gid ~0 size 3 atime 0 atime_nsec 0 mtime 0 mtime_nsec 0
Rsetattr tag 1
1 nobody:/keys/a 3 open 0100001

Tsetattr tag 1 fid 1 valid 0x8 mode 0 uid ~0 gid ~0 size 0 atime 0 atime_nsec 0 mtime 0 mtime_nsec 0
Rsetattr tag 1
1 nobody:/keys/a 3 open 0100001 held

Tfsync tag 1 fid 1 datasync 0
Rfsync tag 1
1 nobody:/keys/a 3 open 0100001

Tlock tag 1 fid 1 type 1 flags 0 start 0 length 0 proc_id 1 client_id "h"
Rlock tag 1 status 1
1 nobody:/keys/a 3 open 0100001

Tlock tag 1 fid 1 type 1 flags 0 start 5 length 1 proc_id 1 client_id "h"
Rlock tag 1 status 0
1 nobody:/keys/a 3 open 0100001 locked

Tlock tag 1 fid 1 type 2 flags 0 start 5 length 1 proc_id 1 client_id "h"
Rlock tag 1 status 0
1 nobody:/keys/a 3 open 0100001 locked

Tlock tag 1 fid 1 type 2 flags 0 start 0 length 0 proc_id 1 client_id "h"
Rlock tag 1 status 0
1 nobody:/keys/a 3 open 0100001

Trenameat tag 1 fid 2 name "a" newfid 2 newname "b"
Rrenameat tag 1
1 nobody:/keys/b 3 open 0100001
2 nobody:/keys 2

Trename tag 1 fid 1 newfid 0 name "c"
Rrename tag 1
1 nobody:/c 3 open 0100001

Twstat tag 1 fid 1 type ~0 dev ~0 qid ~0.~0.~0 mode ~0 atime ~0 mtime ~0 length ~0 name "d" uid "" gid "" muid ""
Rwstat tag 1
1 nobody:/d 3 open 0100001

Twstat tag 1 fid 1 type ~0 dev ~0 qid ~0.~0.~0 mode ~0 atime ~0 mtime ~0 length 0 name "" uid "" gid "" muid ""
Rwstat tag 1
1 nobody:/d 3 open 0100001 held

Tlcreate tag 1 fid 2 name "new" flags 0x8241 mode 0644 gid 0
Rlcreate tag 1 qid 0.1.7 iounit 0
2 nobody:/keys/new 7 open 0100001 held

Tclunk tag 1 fid 2
Rlerror tag 1 ecode 5
2 -

Twalk tag 1 fid 0 newfid 2 names "keys"
Rwalk tag 1 qids 128.0.2
2 nobody:/keys 2

Tcreate tag 1 fid 2 name "new" perm 0644 mode 0x51
Rcreate tag 1 qid 0.1.8 iounit 0
2 nobody:/keys/new 8 open 0101

Tremove tag 1 fid 2
Rremove tag 1
2 -

Twalk tag 1 fid 0 newfid 2 names "keys"
Rwalk tag 1 qids 128.0.2
2 nobody:/keys 2

Topen tag 1 fid 2 mode 0x10
Ropen tag 1 qid 0.1.9 iounit 0
2 nobody:/keys 9 open 0 held
`
