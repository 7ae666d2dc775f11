package vm

// About is what is known of a key beside its name and value.
type About struct {
	Space Space
	Name  string
	Mode  uint16 // permission bits
	Mtime int64  // Unix nanoseconds
	Muid  string
}

// told is the entry with what is said of it; the entry itself where it is so already.
func (a *About) told(e *Entry) *Entry {
	if e.Mode == a.Mode && e.Mtime == a.Mtime && e.Muid == a.Muid {
		return e
	}
	next := *e
	next.Mode, next.Mtime, next.Muid = a.Mode, a.Mtime, a.Muid
	return &next
}

// Describe tells a VM that was just made, and that nobody has seen, what its keys are. Of
// a key that is not there nothing is kept.
func (v *VM) Describe(all []About) {
	for i := range all {
		a := &all[i]
		if e := v.Get(a.Space, a.Name); e != nil {
			*e = *a.told(e)
		}
	}
}

// Describe makes the keys what is said of them; each that was something else is a Change.
func (e *Edit) Describe(all []About, st Stamp) {
	for i := range all {
		a := &all[i]
		old := e.Get(a.Space, a.Name)
		if old == nil {
			continue
		}
		if next := a.told(old); next != old {
			e.replace(a.Space, old, next, st)
		}
	}
}
