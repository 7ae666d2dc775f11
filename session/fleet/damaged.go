package fleet

import (
	"maps"
	"slices"

	"meta9/fs/errs"
)

// noteDamaged notes why a VM that this host owns cannot be served: a record of it is damaged.
// It is noted until the VM is served here, or is this host's no longer (forgetDamaged).
func (f *Fleet) noteDamaged(uuid string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.damaged[uuid] = errs.Detail(why)
}

// noteDamagedAtStart notes what the store has found when it was opened.
func (f *Fleet) noteDamagedAtStart() {
	for _, d := range f.cfg.Store.Salvaged() {
		if d.VM != "" && f.damaged[d.VM] == "" {
			f.damaged[d.VM] = "damaged data: " + d.String()
		}
	}
}

// damagedNow lists the VMs of this host that are damaged as far as it knows.
func (f *Fleet) damagedNow() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.damaged))
}

// forgetDamaged forgets those of noted that are not mine, or are served by now. noted must be listed before
// mine is asked for: a VM that is noted later may be missing in mine, and is this host's all the same.
func (f *Fleet) forgetDamaged(noted []string, mine map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, uuid := range noted {
		if _, is := mine[uuid]; !is || f.cfg.Store.Cell(uuid) != nil {
			delete(f.damaged, uuid)
		}
	}
}

// Damaged counts the VMs that this host owns and does not serve, since a record of them is
// damaged; the first of them is named, and why says what is wrong with it.
func (f *Fleet) Damaged() (n int, first, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n = len(f.damaged); n > 0 {
		first = slices.Min(slices.Collect(maps.Keys(f.damaged)))
	}
	return n, first, f.damaged[first]
}
