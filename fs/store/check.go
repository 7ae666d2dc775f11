package store

import "meta9/fs/vm"

// Stats is what Check found.
type Stats struct {
	VMs     int
	Keys    int
	Bytes   int64 // names and values
	Damaged int   // how often report was called
}

// Check reads all that an engine holds and reports what is wrong: a record whose
// format byte, checksum or fields are wrong, a name that is none, a value past
// what any store takes, entries without a VM, names that two VMs have, numbers
// past the high-water marks. It changes nothing. The error is the engine's, and
// means that not all could be read; Stats is of what could.
func Check(e Engine, report func(Damage)) (Stats, error) {
	var st Stats
	count := func(d Damage) {
		st.Damaged++
		report(d)
	}
	l := loader{engine: e, report: count, onVM: func(v *vm.VM) {
		st.VMs++
		st.Keys += v.Count()
		st.Bytes += v.Bytes()
	}}
	_, l.whole = e.(Shared)
	err := l.load()
	return st, err
}
