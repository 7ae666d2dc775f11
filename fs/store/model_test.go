package store_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
)

// model is the store as one would write it without a disk, without batches and
// without care for speed: each intent is done on a copy of everything, one after
// the other.
type model struct {
	limits vm.Limits
	total  int64
	vms    map[string]*modelVM // by uuid
}

type modelVM struct {
	born  int
	alias string
	keys  [vm.NumSpaces]map[string]modelEntry
}

// modelEntry is a key. born is the intent that made it, which stands for the ID
// that the model cannot know.
type modelEntry struct {
	born  int
	value string
	mode  uint16
	mtime *int64 // if it was set by hand
	holds []int
}

// modelOp is an intent in the model's words.
type modelOp struct {
	n      int // which, from 1
	uuid   string
	vmBorn int       // which VM of that uuid
	born   int       // which key, if it is meant by its ID
	hold   int       // FlushHold
	parts  []modelOp // Txn
	part   bool      // of a Txn
	in     store.Intent
}

func (m *model) clone() *model {
	next := *m
	next.vms = make(map[string]*modelVM)
	for uuid, v := range m.vms {
		next.vms[uuid] = v.clone()
	}
	return &next
}

func (v *modelVM) clone() *modelVM {
	next := *v
	for sp := range v.keys {
		next.keys[sp] = maps.Clone(v.keys[sp])
	}
	return &next
}

func (v *modelVM) bytes() (n int64) {
	for _, keys := range v.keys {
		for name, e := range keys {
			n += int64(len(name) + len(e.value))
		}
	}
	return n
}

func (v *modelVM) count() int { return len(v.keys[vm.Keys]) + len(v.keys[vm.Internal]) }

func (m *model) bytes() (n int64) {
	for _, v := range m.vms {
		n += v.bytes()
	}
	return n
}

// do gives the state after the op, or the same state and the kind of error.
// Invalid stands for any error.
func (m *model) do(op modelOp) (*model, errs.Kind) {
	if op.in.Kind == store.CreateVM {
		return m.createVM(op)
	}
	if v := m.vms[op.uuid]; v == nil || v.born != op.vmBorn {
		if op.born != 0 {
			return m, errs.Gone
		}
		return m, errs.NotFound
	}
	if op.in.Kind == store.Txn {
		return m.transact(op)
	}
	next, kind := m, errs.Kind(0)
	for _, step := range op.steps() {
		if next, kind = next.step(step); kind != 0 {
			return m, kind
		}
	}
	return next, 0
}

// transact does all parts or none. What a part needs beside the limits of a value is
// only counted at the end.
func (m *model) transact(op modelOp) (*model, errs.Kind) {
	for _, c := range op.in.Txn.If {
		e, there := m.vms[op.uuid].keys[c.Space][c.Name]
		if there == c.Absent || c.Value != nil && *c.Value != e.value {
			return m, errs.Canceled
		}
	}
	next := m.clone()
	after := next.vms[op.uuid]
	for _, part := range op.parts {
		if kind := next.change(after, part); kind != 0 {
			return m, kind
		}
		if kind := m.checkValues(after); kind != 0 {
			return m, kind
		}
	}
	if kind := m.check(m.vms[op.uuid], after); kind != 0 {
		return m, kind
	}
	return next, 0
}

// steps are the parts of an op that each keep the limits: a rename comes after
// the rest of a Set.
func (op modelOp) steps() []modelOp {
	if op.in.Kind != store.Set || op.in.NewName == "" {
		return []modelOp{op}
	}
	first, second := op, op
	first.in.NewName = ""
	second.in.Length, second.in.Mode, second.in.Mtime = nil, nil, nil
	return []modelOp{first, second}
}

func (m *model) step(op modelOp) (*model, errs.Kind) {
	next := m.clone()
	if kind := next.change(next.vms[op.uuid], op); kind != 0 {
		return m, kind
	}
	if after := next.vms[op.uuid]; after != nil {
		if kind := m.check(m.vms[op.uuid], after); kind != 0 {
			return m, kind
		}
	}
	return next, 0
}

// check finds the rule that a change of one VM breaks.
func (m *model) check(before, after *modelVM) errs.Kind {
	if kind := m.checkValues(after); kind != 0 {
		return kind
	}
	more := after.bytes() - before.bytes()
	switch {
	case after.count() > m.limits.Keys && after.count() > before.count(),
		after.bytes() > m.limits.Bytes && more > 0,
		m.total > 0 && m.bytes()+more > m.total && more > 0:
		return errs.NoSpace
	}
	for _, other := range m.vms {
		if other.born != after.born && other.alias == after.alias && other.alias != "" {
			return errs.Exists
		}
	}
	return 0
}

func (m *model) checkValues(v *modelVM) errs.Kind {
	for _, keys := range v.keys {
		for _, e := range keys {
			if len(e.value) > m.limits.Value {
				return errs.TooLarge
			}
		}
	}
	return 0
}

func (m *model) createVM(op modelOp) (*model, errs.Kind) {
	var p struct {
		UUID, Alias string
		Keys        map[string]string `json:"customer_metadata"`
	}
	if json.Unmarshal([]byte(op.in.Data), &p) != nil {
		return m, errs.Invalid
	}
	v := &modelVM{born: op.n, alias: p.Alias}
	for sp := range v.keys {
		v.keys[sp] = make(map[string]modelEntry)
	}
	for name, value := range p.Keys {
		v.keys[vm.Keys][name] = modelEntry{born: op.n, value: value, mode: 0o600}
	}
	kind := m.check(&modelVM{}, v)
	if kind == 0 && m.vms[p.UUID] != nil {
		kind = errs.Exists
	}
	if kind != 0 {
		return m, kind
	}
	next := m.clone()
	next.vms[p.UUID] = v
	return next, 0
}

func (m *model) change(v *modelVM, op modelOp) errs.Kind {
	switch op.in.Kind {
	case store.DeleteVM:
		delete(m.vms, op.uuid)
		return 0
	case store.UpdateVM:
		return v.update(op)
	case store.Put, store.Create:
		return v.put(op)
	case store.Append:
		if _, there := v.keys[op.in.Space][op.in.Name]; !there && op.part {
			return v.put(op)
		}
	case store.FlushHold:
		v.flush(op)
		return 0
	}
	name, kind := v.find(op)
	if kind != 0 {
		return kind
	}
	return v.changeKey(op, name)
}

func (v *modelVM) put(op modelOp) errs.Kind {
	in, keys := op.in, v.keys[op.in.Space]
	e, there := keys[in.Name]
	switch {
	case there && in.Kind == store.Create && in.Exclusive:
		return errs.Exists
	case there && in.Kind == store.Create:
		return 0
	case !there:
		e = modelEntry{born: op.n, mode: 0o600}
	}
	keys[in.Name] = e.with(in.Data)
	return 0
}

// with is the entry with another value, by an intent.
func (e modelEntry) with(value string) modelEntry {
	e.value, e.mtime, e.holds = value, nil, nil
	return e
}

func (v *modelVM) flush(op modelOp) {
	for _, keys := range v.keys {
		for name, e := range keys {
			if slices.Contains(e.holds, op.hold) {
				keys[name] = e.with("")
			}
		}
	}
}

// find is the name of the key that the op is about.
func (v *modelVM) find(op modelOp) (string, errs.Kind) {
	if op.born == 0 {
		if _, ok := v.keys[op.in.Space][op.in.Name]; !ok {
			return "", errs.NotFound
		}
		return op.in.Name, 0
	}
	for name, e := range v.keys[op.in.Space] {
		if e.born == op.born {
			return name, 0
		}
	}
	return "", errs.Gone
}

func (v *modelVM) changeKey(op modelOp, name string) errs.Kind {
	in, keys := op.in, v.keys[op.in.Space]
	e := keys[name]
	value := e.value
	if len(e.holds) > 0 {
		value = ""
	}
	switch in.Kind {
	case store.Remove:
		delete(keys, name)
	case store.Splice, store.Append:
		off := in.Off
		if in.Kind == store.Append {
			off = uint64(len(value))
		}
		switch {
		case in.Data == "":
		case off > 1000:
			return errs.TooLarge
		default:
			keys[name] = e.with(modelSplice(value, int(off), in.Data))
		}
	case store.Set:
		return v.set(in, name, value)
	}
	return 0
}

func modelSplice(old string, off int, data string) string {
	b := []byte(old)
	for len(b) < off+len(data) {
		b = append(b, 0)
	}
	copy(b[off:], data)
	return string(b)
}

func (v *modelVM) set(in store.Intent, name, value string) errs.Kind {
	keys := v.keys[in.Space]
	e := keys[name]
	renames := in.NewName != "" && in.NewName != name
	switch {
	case in.Length == nil && in.Mode == nil && in.Mtime == nil && !renames:
		return 0
	case in.Length != nil && *in.Length > 1000:
		return errs.TooLarge
	case renames && strings.TrimSpace(in.NewName) != in.NewName:
		return errs.Invalid
	case in.Length != nil:
		e = e.with(modelSplice(value, int(*in.Length), "")[:*in.Length])
	case len(e.holds) > 0:
		e = e.with("")
	}
	if in.Mode != nil {
		e.mode = *in.Mode
	}
	if in.Mtime != nil {
		e.mtime = in.Mtime
	}
	if renames {
		delete(keys, name)
		name = in.NewName
	}
	keys[name] = e
	return 0
}

func (v *modelVM) update(op modelOp) errs.Kind {
	var p struct {
		Alias  *string
		Set    map[string]string `json:"set_customer_metadata"`
		Remove []string          `json:"remove_customer_metadata"`
	}
	if json.Unmarshal([]byte(op.in.Data), &p) != nil {
		return errs.Invalid
	}
	if p.Alias != nil {
		v.alias = *p.Alias
	}
	keys := v.keys[vm.Keys]
	for _, name := range p.Remove {
		if _, given := p.Set[name]; !given {
			delete(keys, name)
		}
	}
	for name, value := range p.Set {
		e, there := keys[name]
		switch {
		case there && e.value == value:
			continue
		case !there:
			e = modelEntry{born: op.n, mode: 0o600}
		}
		keys[name] = e.with(value)
	}
	return 0
}

// entry calls fn for the key that was born so, if it is there, and keeps what it
// returns.
func (m *model) entry(uuid string, born int, fn func(modelEntry) modelEntry) {
	if m.vms[uuid] == nil {
		return
	}
	for _, keys := range m.vms[uuid].keys {
		for name, e := range keys {
			if e.born == born {
				keys[name] = fn(e)
			}
		}
	}
}

// held says whether that hold is still on some key.
func (m *model) held(hold int) bool {
	for _, v := range m.vms {
		for _, keys := range v.keys {
			for _, e := range keys {
				if slices.Contains(e.holds, hold) {
					return true
				}
			}
		}
	}
	return false
}
