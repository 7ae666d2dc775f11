package fs

import (
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Look is the owner and the permission bits that a mount shows for files. It changes no
// rights here, which come from the channel alone; a guest's kernel uses it to tell its own
// users apart. Each of the three is what the attach asks for, or else the VM's property
// (9p_uid, 9p_gid, 9p_mode), or else 0, 0 and the file's own mode.
type Look struct {
	UID  *uint32 `json:"uid,omitempty"`
	GID  *uint32 `json:"gid,omitempty"`
	Mode *uint16 `json:"mode,omitempty"` // 0 to 0777
}

// lookOptions are the elements with which an aname may begin: uid=1000/mode=0640/keys.
// Nothing in a root is called so.
var lookOptions = map[string]struct {
	set  func(l *Look, value string) bool
	rule string
}{
	"uid":  {func(l *Look, s string) bool { return setID(&l.UID, s) }, "a number from 0 to 4294967294"},
	"gid":  {func(l *Look, s string) bool { return setID(&l.GID, s) }, "a number from 0 to 4294967294"},
	"mode": {func(l *Look, s string) bool { return setMode(&l.Mode, s) }, "three or four octal digits, up to 0777"},
}

func setID(to **uint32, text string) bool {
	id, ok := vm.ParseID(text)
	*to = &id
	return ok
}

func setMode(to **uint16, text string) bool {
	mode, ok := vm.ParseMode(text)
	*to = &mode
	return ok
}

// cutLook takes the options from the beginning of an aname's names; nil: there are
// none. errs.Invalid: an option has no such value.
func cutLook(names []string) (look *Look, rest []string, err error) {
	for len(names) > 0 {
		name, value, _ := strings.Cut(names[0], "=")
		option, ok := lookOptions[name]
		if !ok || name == names[0] {
			break
		}
		if look == nil {
			look = new(Look)
		}
		if !option.set(look, value) {
			return nil, nil, errs.New(errs.Invalid, "aname %s: %s is %s", names[0], name, option.rule)
		}
		names = names[1:]
	}
	return look, names, nil
}

// Show puts the Look's owner and mode into st, which a Handle of this place has filled.
// Ref.Stat and Ref.List do so themselves.
func (r *Ref) Show(st *Stat) {
	p, ok := r.perm()
	if !ok {
		p.UID, p.GID = st.UID, st.GID // an entry of vms/ has its VM's
	}
	show(st, r.look.over(p))
}

// over is p with what the Look says, which may be nil.
func (l *Look) over(p vm.Perm) vm.Perm {
	if l == nil {
		return p
	}
	if l.UID != nil {
		p.UID = *l.UID
	}
	if l.GID != nil {
		p.GID = *l.GID
	}
	if l.Mode != nil {
		p.Mode, p.HasMode = *l.Mode&0o777, true // a State may say anything
	}
	return p
}

// show gives st an owner, and a mode that fits what it is.
func show(st *Stat, p vm.Perm) {
	st.UID, st.GID = p.UID, p.GID
	switch {
	case !p.HasMode || st.OwnMode:
	case st.IsDir():
		st.Mode = p.Mode | p.Mode&0o444>>2 // who may read it may look names up in it
	case st.Mode&0o222 == 0:
		st.Mode = p.Mode & 0o444 // nobody writes it
	default:
		st.Mode = p.Mode
	}
}

// perm is what the properties of the VM say whose this place is; false: it is no
// VM's.
func (r *Ref) perm() (vm.Perm, bool) {
	for at := r; at != nil; at = at.parent {
		if d, ok := at.node.(*vmDir); ok {
			return r.view.perm(d.cell.VM()), true
		}
	}
	return vm.Perm{}, false
}

// perm is m.Perm, remembered until the VM changes or another is asked for.
func (v *View) perm(m *vm.VM) vm.Perm {
	if m == nil {
		return vm.Perm{}
	}
	p := &v.asks().perms
	if p.id != m.ID || p.rev != m.Rev {
		p.id, p.rev, p.perm = m.ID, m.Rev, m.Perm()
	}
	return p.perm
}
