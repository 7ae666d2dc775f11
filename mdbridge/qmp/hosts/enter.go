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

// The states of a VM that matter here; but for the first they are not its QEMU's words.
const (
	stateRunning      = "running"      // QEMU's own
	stateStopped      = "stopped"      // the QEMU is gone
	stateUnresponsive = "unresponsive" // the QEMU is there and does not answer
)

// found is what a QEMU said about its VM.
type found struct {
	name, path, state string
	first             bool // since it is connected
}

// enter updates the VM. It makes a VM that is not there only when its QEMU has just
// connected; a VM that was deleted since is not made again. The QEMU's name becomes the
// alias of a VM that has none, but is not reserved: another VM may still get that alias.
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

// mayMake is the error why the QEMU at a path may not make a VM now. A socket may make
// one VM, and another only when that one was deleted: else the process behind it could
// make any number.
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
		return fmt.Errorf("not made: %d VMs have or had a QEMU, and qmp.vms in the settings is %d", n, h.cfg.VMs)
	}
	maps.DeleteFunc(h.made, func(_, was string) bool { return st.Cell(was) == nil })
	h.made[path] = uuid
	return nil
}

// intent is the change that updates the VM; nil: there is nothing to change.
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

// alias makes the name the VM's alias, if it can be one: QEMU allows names that no file
// can have. names/ shows it while no VM has that alias from the operator.
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

// setSilent sets the VM's state to unresponsive until its QEMU answers.
func (h *Hosts) setSilent(m *machine, path string) {
	if !m.setSilent() {
		return
	}
	h.cfg.Log.Warn().Str("vm", m.uuid).Str("socket", path).Msg("the QEMU does not answer")
	h.setState(m.uuid, stateUnresponsive)
}

// setEarlierSilent is setSilent for the VMs whose QEMU was at a path before the restart,
// where no greeting comes now.
func (h *Hosts) setEarlierSilent(path string) {
	h.mu.Lock()
	var silent []string
	for _, was := range h.earlier[path] {
		if m := h.machines[was]; m == nil || !m.claimed() {
			silent = append(silent, was)
		}
	}
	h.mu.Unlock()
	for _, was := range silent {
		h.setState(was, stateUnresponsive)
	}
}

// note makes an event of the VM from a QEMU's event. At most maxNotes are on their way to
// the store: then the next one waits, and with it the QEMU.
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

// findEarlier fills Hosts.earlier from the states in the store.
func (h *Hosts) findEarlier() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cfg.Tree.Store().Cells(0, func(c *store.Cell) bool {
		v := c.VM()
		if v == nil {
			return true
		}
		if path := v.Text(vm.PropQMPSocket); path != "" && v.State() != stateStopped {
			h.earlier[path] = append(h.earlier[path], v.UUID)
		}
		return true
	})
}

// stopEarlier sets to stopped the earlier VMs whose socket is gone.
func (h *Hosts) stopEarlier() {
	h.mu.Lock()
	var paths []string
	for path := range h.earlier {
		if _, there := socketAt(path); !there {
			paths = append(paths, path)
		}
	}
	h.mu.Unlock()
	for _, path := range paths {
		h.stopEarlierAt(path, "")
	}
}

// stopEarlierAt sets to stopped the earlier VMs of a path, but for uuid, whose QEMU is
// there.
func (h *Hosts) stopEarlierAt(path, uuid string) {
	h.mu.Lock()
	var stopped []string
	for _, was := range h.earlier[path] {
		if m := h.machines[was]; was != uuid && (m == nil || !m.claimed()) {
			stopped = append(stopped, was)
		}
	}
	delete(h.earlier, path)
	h.mu.Unlock()
	for _, was := range stopped {
		h.setState(was, stateStopped)
	}
}
