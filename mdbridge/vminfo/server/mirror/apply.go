package mirror

import (
	"errors"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// change is one VM as it shall become.
type change struct {
	uuid string
	text []byte // the whole VM; nil: it is deleted
	done chan error
}

// put sends a change to the store, which makes them in this order. The window has at most
// one change of each VM, so that the store commits each one by itself.
func (m *Mirror) put(c *change) {
	if m.inside[c.uuid] || len(m.window) == maxWindow || m.bytes+len(c.text) > maxWindowBytes {
		m.flush()
	}
	in := m.intent(c)
	if in == nil {
		return
	}
	c.done = make(chan error, 1)
	in.Done = func(r store.Result) { c.done <- r.Err }
	m.window = append(m.window, c)
	m.bytes += len(c.text)
	m.inside[c.uuid] = true
	m.st.Submit(in)
}

// intent is the change as the store takes it; nil: the VM is like that already.
func (m *Mirror) intent(c *change) *store.Intent {
	in := &store.Intent{Cell: m.st.Cell(c.uuid), Data: string(c.text), By: author, Mirror: true}
	switch {
	case c.text == nil && in.Cell == nil:
		m.clash(c.uuid, nil)
		return nil
	case c.text == nil:
		in.Kind = store.DeleteVM
	case in.Cell == nil:
		in.Kind = store.CreateVM
	case same(in.Cell, c.text):
		return nil
	default:
		in.Kind = store.ReplaceVM
	}
	return in
}

// flush waits for all changes of the window, and handles those that were refused.
func (m *Mirror) flush() {
	window := m.window
	m.window, m.bytes = nil, 0
	clear(m.inside)
	for _, c := range window {
		m.clash(c.uuid, nil) // c is newer
		if err := <-c.done; err != nil {
			m.failed(c, err)
			continue
		}
		delete(m.refused, c.uuid)
	}
	if len(window) > 0 {
		m.retry()
	}
}

// failed handles a refused change. Where another VM has one of the VM's names, the VM is
// put without names; other refusals are logged once, and the VM stays as it was.
func (m *Mirror) failed(c *change, err error) {
	if errors.Is(err, errs.Exists) && c.text != nil { // another VM has the name
		m.clash(c.uuid, c.text)
		if bare, ok := withoutNames(c.text); ok {
			err = m.apply(&change{uuid: c.uuid, text: bare})
		}
		if err == nil {
			return
		}
	}
	m.refuse(c.uuid, err)
}

// clash keeps the text of a VM that waits for its names. nil: the VM waits no longer. Where too
// many wait, the VM is not kept: it gets its names with the next list.
func (m *Mirror) clash(uuid string, text []byte) {
	m.waiting += len(text) - len(m.clashes[uuid])
	delete(m.clashes, uuid)
	switch {
	case text == nil:
	case len(m.clashes) >= maxClashes || m.waiting > maxClashBytes:
		m.waiting -= len(text)
	default:
		m.clashes[uuid] = text
	}
}

// refuse says once that a VM is not taken, but for those past maxRefused.
func (m *Mirror) refuse(uuid string, err error) {
	if _, said := m.refused[uuid]; said || len(m.refused) >= maxRefused {
		return
	}
	m.refused[uuid] = struct{}{}
	m.addError("VM " + uuid + " is not taken: " + err.Error())
	if m.complaints.Allow() {
		m.log.Warn().Err(err).Str("vm", uuid).Msg("the mirror cannot take a VM")
	}
}

// apply applies one change and waits for it.
func (m *Mirror) apply(c *change) error {
	in := m.intent(c)
	if in == nil {
		return nil
	}
	return m.st.Do(in).Err
}

// retry puts VMs again with the names that another VM had.
func (m *Mirror) retry() {
	for uuid, text := range m.clashes {
		err := m.apply(&change{uuid: uuid, text: text})
		if err == nil {
			m.clash(uuid, nil)
			continue
		}
		if _, said := m.refused[uuid]; !said && len(m.refused) < maxRefused {
			m.refused[uuid] = struct{}{}
			m.addError("VM " + uuid + " is without its names: " + errs.Detail(err))
		}
	}
}

// withoutNames is the VM without the members that must be unique.
func withoutNames(text []byte) ([]byte, bool) {
	v, err := ordjson.Parse(text)
	if err != nil {
		return nil, false
	}
	var kept ordjson.Members
	for _, p := range v.Members {
		if p.Name != vm.PropAlias && p.Name != vm.PropVsockCID {
			kept = append(kept, p)
		}
	}
	v.Members = kept
	return v.AppendJSON(nil), true
}
