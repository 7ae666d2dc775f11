package upstream_test

import (
	"net"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/mdbridge/mdata"
	"meta9/mdbridge/mdata/mdatatest"
)

// answering is a service that has these values, and this list of keys.
func answering(t *testing.T, value, keys string) place {
	path := listen(t, func(c net.Conn) {
		mdatatest.Talk(c, func(line string) string {
			command, rest := mdata.Command([]byte(line))
			if string(command) == mdata.Negotiate {
				return mdata.V2OK + "\n"
			}
			f, ok := mdata.ParseFrame(rest)
			switch {
			case !ok:
				return mdata.Invalid + "\n"
			case string(f.Code) == mdata.Keys:
				return string(mdata.AppendFrame(nil, f.ID, mdata.Success, []byte(keys)))
			}
			return string(mdata.AppendFrame(nil, f.ID, mdata.Success, []byte(value)))
		})
		c.Close()
	})
	return shown(t, path)
}

// TestManyKeys: a list of a million names is refused, before anything is asked for each.
func TestManyKeys(t *testing.T) {
	root := answering(t, "v", strings.Repeat("k\n", 1<<20))
	err := listing(root, []string{"keys"}, func(*fs.Stat) {})
	if errs.KindOf(err) != errs.TooBig || !strings.Contains(err.Error(), "names") {
		t.Errorf("%.200v", err)
	}
}

// TestOpenValues: open keys of a service have bounded bytes together, and what is closed
// makes room.
func TestOpenValues(t *testing.T) {
	root := answering(t, strings.Repeat("v", 9<<20), "k")
	at, err := root.find("keys", "k")
	if err != nil {
		t.Fatal(err)
	}
	var open []opened
	for len(open) < 9 {
		var h opened
		if h, err = at.open(fs.Read); err != nil {
			break
		}
		open = append(open, h)
	}
	if errs.KindOf(err) != errs.NoSpace || len(open) != 7 {
		t.Fatalf("%d are open: %v", len(open), err)
	}
	for i, h := range open {
		if i%2 == 0 {
			h.Drop()
		} else if err := wait(func(done func(error)) { h.Clunk(fs.Author{}, done) }); err != nil {
			t.Error(err)
		}
	}
	for range open {
		h, err := at.open(fs.Read)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 1)
		if n, err := h.Read(p, 9<<20-1); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
}
