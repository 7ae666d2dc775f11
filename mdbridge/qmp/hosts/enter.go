package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// The states of a VM that are not its QEMU's words.
const (
	stateStopped      = "stopped"      // it is gone
	stateUnresponsive = "unresponsive" // it is there and does not answer
)

// found is what a QEMU told of its VM.
type found struct {
	name, path, state string
	first             bool // since it is connected
}

// enter brings the VM up to date. One that is not there is made when its QEMU is
// first met; one that was deleted since stays so. A name becomes the alias of a VM
// that has none, without a link, so that it blocks nobody who asks for that alias.
func (h *Hosts) enter(uuid string, f found) error {
	if f.first && h.cfg.Tree.Store().Cell(uuid) == nil {
		if err := h.mayMake(uuid, f.path); err != nil {
			return err
		}
	}
	in := h.intent(uuid, f)
	if in == nil {
		return nil
	}
	err := h.cfg.Tree.Store().Do(in).Err
	if errors.Is(err, errs.NotFound) {
		return nil // deleted just now
	}
	return err
}

// mayMake says why the QEMU at a path may not make a VM now. A socket makes one, and
// another only when that was deleted: else whoever owns it makes any number, each with
// sockets of its own.
func (h *Hosts) mayMake(uuid, path string) error {
	st := h.cfg.Tree.Store()
	h.mu.Lock()
	defer h.mu.Unlock()
	if was, ok := h.made[path]; ok && was != uuid && st.Cell(was) != nil {
		return fmt.Errorf("not made: the QEMU at this socket has made VM %s; create this one, or delete that one", was)
	}
	if !h.making.Allow() {
		return fmt.Errorf("not made yet: QEMUs make more VMs than %d a second", makeRate)
	}
	n := 0
	st.Cells(0, func(c *store.Cell) bool {
		if v := c.VM(); v != nil && v.Text(vm.PropQMPSocket) != "" {
			n++
		}
		return true
	})
	if n >= h.cfg.VMs {
		return fmt.Errorf("not made: %d VMs have or had a QEMU, and qmp.vms in the settings is %d", n, max(h.cfg.VMs, 0))
	}
	maps.DeleteFunc(h.made, func(_, was string) bool { return st.Cell(was) == nil })
	h.made[path] = uuid
	return nil
}

// intent is what brings the VM up to date; nil: it is.
func (h *Hosts) intent(uuid string, f found) *store.Intent {
	props := map[string]any{vm.PropState: f.state, vm.PropQMPSocket: f.path}
	cell := h.cfg.Tree.Store().Cell(uuid)
	if cell == nil {
		if !f.first {
			return nil
		}
		props[vm.PropUUID] = uuid
		f.alias(props)
		return intent(store.CreateVM, nil, props)
	}
	v := cell.VM()
	if v == nil {
		return nil
	}
	if f.first && v.Alias() == "" {
		f.alias(props)
	} else if v.State() == f.state && v.Text(vm.PropQMPSocket) == f.path {
		return nil
	}
	return intent(store.UpdateVM, cell, props)
}

// alias makes the name the alias, if it can be one: QEMU takes names that no file
// has. names/ leads to it while no VM has that alias from the operator.
func (f found) alias(props map[string]any) {
	if vm.NewKey(f.name) == nil {
		props[vm.PropAlias], props[vm.PropUnlinkedAlias] = f.name, f.name
	}
}

// intent makes one of properties.
func intent(kind store.OpKind, cell *store.Cell, props map[string]any) *store.Intent {
	b, err := json.Marshal(props)
	if err != nil {
		return nil
	}
	return &store.Intent{Kind: kind, Cell: cell, Data: string(b), By: author}
}

// setState sets the state of a VM, if it is there.
func (h *Hosts) setState(uuid, state string) {
	cell := h.cfg.Tree.Store().Cell(uuid)
	if cell == nil {
		return
	}
	if v := cell.VM(); v == nil || v.State() == state {
		return
	}
	err := h.cfg.Tree.Store().Do(intent(store.UpdateVM, cell, map[string]any{vm.PropState: state})).Err
	if err != nil && !errors.Is(err, errs.NotFound) {
		h.cfg.Log.Error().Str("vm", uuid).Err(err).Msg("its state could not be set")
	}
}

// silent lets the VM say that its QEMU does not answer, until that does.
func (h *Hosts) silent(m *machine, path string) {
	if !m.setSilent() {
		return
	}
	h.cfg.Log.Warn().Str("vm", m.uuid).Str("socket", path).Msg("the QEMU does not answer")
	h.setState(m.uuid, stateUnresponsive)
}

// silentLeftOver is silent for the VMs whose QEMU was last at a path, where there is
// no greeting now.
func (h *Hosts) silentLeftOver(path string) {
	h.mu.Lock()
	var silent []string
	for _, was := range h.leftOvers[path] {
		if m := h.machines[was]; m == nil || !m.claimed() {
			silent = append(silent, was)
		}
	}
	h.mu.Unlock()
	for _, was := range silent {
		h.setState(was, stateUnresponsive)
	}
}

// note makes an event of the VM of one that its QEMU told. No more than a few are
// under way at a time: a QEMU that tells more has to wait.
func (h *Hosts) note(m *machine, name string) {
	cell := h.cfg.Tree.Store().Cell(m.uuid)
	if cell == nil {
		return
	}
	m.notes <- struct{}{}
	h.cfg.Tree.Store().Submit(&store.Intent{
		Kind: store.Note, Cell: cell, Event: store.QMP, Name: name[:min(len(name), vm.MaxName)], By: author,
		Done: func(store.Result) { <-m.notes },
	})
}

// findLeftOvers notes which VMs were running when they were last heard of, by the
// sockets of their QEMUs.
func (h *Hosts) findLeftOvers() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cfg.Tree.Store().Cells(0, func(c *store.Cell) bool {
		v := c.VM()
		if v == nil {
			return true
		}
		if path := v.Text(vm.PropQMPSocket); path != "" && v.State() != stateStopped {
			h.leftOvers[path] = append(h.leftOvers[path], v.UUID)
		}
		return true
	})
}

// stopLeftOvers stops those whose socket is gone.
func (h *Hosts) stopLeftOvers() {
	h.mu.Lock()
	var paths []string
	for path := range h.leftOvers {
		if _, there := socketAt(path); !there {
			paths = append(paths, path)
		}
	}
	h.mu.Unlock()
	for _, path := range paths {
		h.stopLeftOver(path, "")
	}
}

// stopLeftOver stops the VMs whose QEMU was last at a path where it is not now.
// The one of that UUID is there.
func (h *Hosts) stopLeftOver(path, uuid string) {
	h.mu.Lock()
	var stopped []string
	for _, was := range h.leftOvers[path] {
		if m := h.machines[was]; was != uuid && (m == nil || !m.claimed()) {
			stopped = append(stopped, was)
		}
	}
	delete(h.leftOvers, path)
	h.mu.Unlock()
	for _, was := range stopped {
		h.setState(was, stateStopped)
	}
}
