package fs_test

import (
	"fmt"
	"strings"
	"testing"

	"meta9/fs"
	"meta9/fs/budget"
	"meta9/fs/errs"
	"meta9/fs/store"
)

// TestManyListings has a guest list one small folder as seen by ever more owners: each
// listing is in the VM's account however small, and past a number there are no more, for
// the guest, until some end.
func TestManyListings(t *testing.T) {
	b := budget.New(budget.Limits{})
	st, err := store.Open(store.NewMemory(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	tree := fs.New(st, fs.Config{Budget: b})
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payloadA, By: "setup"}); r.Err != nil {
		t.Fatal(r.Err)
	}
	const size = 100 // bytes of an entry; all of them are far below what other files may have uncounted
	form := &fs.Form{
		ID: 1, Owner: true, Size: func(*fs.Stat) int { return size },
		Append: func(b []byte, _ uint64, st *fs.Stat) []byte {
			return fmt.Appendf(b, "%-100s", fmt.Sprintf("%s %d", st.Name, st.UID))
		},
	}
	guest, admin := tree.View(fs.Principal{VM: vmA}), tree.View(fs.Principal{Admin: true})
	defer guest.Close()
	defer admin.Close()
	list := func(v *fs.View, aname string) (h fs.Handle, err error) {
		r, err := v.Attach("", aname)
		if err != nil {
			t.Fatal(err)
		}
		if h, err = r.Open(fs.Read); err != nil {
			t.Fatal(err)
		}
		text, _, err := h.(fs.Lister).Listing(form, nil)
		if err == nil && !strings.Contains(text, "motd ") {
			t.Fatalf("%s: %q", aname, text)
		}
		return h, err
	}
	account := b.Account(vmA)
	defer account.Close()
	var open []fs.Handle
	for i := range 1000 {
		h, err := list(guest, fmt.Sprintf("uid=%d/keys", i))
		if err != nil {
			if errs.KindOf(err) != errs.Again {
				t.Error(err)
			}
			break
		}
		open = append(open, h)
	}
	if n := len(open); n < 64 || n > 256 {
		t.Fatalf("%d listings are open", n)
	}
	if used, least := account.Used(), int64(len(open)*2*size); used < least {
		t.Errorf("%d bytes are counted, of at least %d", used, least)
	}
	if _, err := list(admin, "uid=5000/vms/"+vmA+"/keys"); err != nil {
		t.Error("the admin's:", err)
	}
	if _, err := list(guest, "uid=1/keys"); err != nil {
		t.Error("one that is there already:", err)
	}
	h, err := list(guest, "uid=6000/keys")
	if err == nil {
		t.Error("there is one more than before")
	}
	open[0].Drop()
	if _, _, err := h.(fs.Lister).Listing(form, nil); err != nil {
		t.Error("after one has ended:", err)
	}
	guest.Close()
	if used := account.Used(); used != 0 {
		t.Errorf("%d bytes are counted after the end", used)
	}
}
