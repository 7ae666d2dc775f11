package server

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"unicode/utf8"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/macro"
)

// author is the "by" of what this server changes.
const author = "qmp"

// queryVMs returns of every VM, or of one, what a table would show. The whole of a VM is
// in its vm.json, over 9P.
func queryVMs(c *conn, args arguments, r *reply) error {
	list := []map[string]any{}
	st := c.srv.cfg.Tree.Store()
	add := func(cell *store.Cell) bool {
		if m := cell.VM(); m != nil {
			list = append(list, describe(m))
		}
		return true
	}
	if _, one := args["uuid"]; one {
		cell, err := c.cell(args)
		if err != nil {
			return err
		}
		add(cell)
	} else {
		st.Cells(0, add)
	}
	r.ret = list
	return nil
}

// describe is a vmInfo.
func describe(m *vm.VM) map[string]any {
	d := map[string]any{"uuid": m.UUID, "keys": m.Count(), "bytes": m.Bytes(), "rev": m.Rev}
	if m.Alias() != "" {
		d["alias"] = m.Alias()
	}
	if m.State() != "" {
		d["state"] = m.State()
	}
	return d
}

// cell is the VM that the argument uuid names.
func (c *conn) cell(args arguments) (*store.Cell, error) {
	uuid, err := vm.ParseUUID(args.str("uuid"))
	if err != nil {
		return nil, err
	}
	cell := c.srv.cfg.Tree.Store().Cell(uuid)
	if cell == nil {
		return nil, errs.New(errs.Invalid, "VM '%s' not found", uuid)
	}
	return cell, nil
}

// vmCreate passes the payload on as its text: package payload checks it, not the schema.
func vmCreate(c *conn, args arguments, r *reply) error {
	made, err := c.submit(&store.Intent{Kind: store.CreateVM, Data: args.str("vm")})
	if err == nil {
		r.ret = map[string]any{"uuid": made.UUID()}
	}
	return err
}

// vmUpdate takes a patch in the shape of vmadm's (payload.Update).
func vmUpdate(c *conn, args arguments, _ *reply) error {
	cell, err := c.cell(args)
	if err != nil {
		return err
	}
	_, err = c.submit(&store.Intent{Kind: store.UpdateVM, Cell: cell, Data: args.str("update")})
	return err
}

// vmDelete also ends the connections of the VM, as any other deletion does.
func vmDelete(c *conn, args arguments, _ *reply) error {
	cell, err := c.cell(args)
	if err != nil {
		return err
	}
	_, err = c.submit(&store.Intent{Kind: store.DeleteVM, Cell: cell})
	return err
}

// submit waits until the change is durable. The client's next command waits too, as in a
// QEMU's monitor.
func (c *conn) submit(in *store.Intent) (*store.Cell, error) {
	in.By = author
	r := c.srv.cfg.Tree.Store().Do(in)
	return r.Cell, r.Err
}

// path is the path of the arguments' space, or of the key in it if there is one.
func (c *conn) path(args arguments) ([]string, error) {
	cell, err := c.cell(args)
	if err != nil {
		return nil, err
	}
	space := args.str("space")
	if space == "" {
		space = vm.Keys.String()
	}
	path := []string{"vms", cell.UUID(), space}
	if key, ok := args["key"]; ok {
		name := key.(string)
		if err := vm.ValidKey(name); err != nil {
			return nil, errs.New(errs.Invalid, "key: %s", errs.Detail(err))
		}
		path = append(path, vm.FileName(name))
	}
	return path, nil
}

// namedKey is err, with the key's name where err only says that there is no such key.
func namedKey(args arguments, err error) error {
	if errs.KindOf(err) == errs.NotFound {
		return errs.New(errs.Invalid, "Key '%s' not found", args.str("key"))
	}
	return err
}

// metadataGet returns UTF-8 as text and other values in base64, unless the client has
// asked for one of them.
func metadataGet(c *conn, args arguments, r *reply) error {
	path, err := c.path(args)
	if err != nil {
		return err
	}
	value, err := macro.Get(nil, c.root, path, maxValue)
	if err != nil {
		return namedKey(args, err)
	}
	encoding, text := args.str("encoding"), string(value)
	switch valid := utf8.Valid(value); {
	case encoding == "" && valid:
		encoding = "utf8"
	case encoding == "utf8" && !valid:
		return errs.New(errs.Invalid, "Key '%s' has a value that is not UTF-8; ask for encoding base64", args.str("key"))
	case encoding != "utf8":
		encoding, text = "base64", base64.StdEncoding.EncodeToString(value)
	}
	r.ret = map[string]any{"value": text, "encoding": encoding}
	return nil
}

// maxValue is more than any value can have.
const maxValue = math.MaxInt32

// metadataPut creates the key, or replaces its whole value.
func metadataPut(c *conn, args arguments, _ *reply) error {
	value := []byte(args.str("value"))
	if args.str("encoding") == "base64" {
		var err error
		if value, err = base64.StdEncoding.DecodeString(string(value)); err != nil {
			return errs.New(errs.Invalid, "Parameter 'value' is not base64: %v", err)
		}
	}
	path, err := c.path(args)
	if err != nil {
		return err
	}
	return wait(func(done func(error)) { macro.Put(c.root, path, value, done) })
}

// metadataDelete refuses a key that is not there, so that a misspelled name is noticed.
func metadataDelete(c *conn, args arguments, _ *reply) error {
	path, err := c.path(args)
	if err != nil {
		return err
	}
	return namedKey(args, wait(func(done func(error)) { macro.Delete(c.root, path, done) }))
}

// metadataTxn writes a transaction to the VM's txn, and returns what that answers.
func metadataTxn(c *conn, args arguments, r *reply) error {
	cell, err := c.cell(args)
	if err != nil {
		return err
	}
	at, err := macro.Find(c.root, []string{"vms", cell.UUID(), "txn"})
	if err != nil {
		return err
	}
	h, err := at.Open(fs.Read | fs.Write)
	if err != nil {
		return err
	}
	defer h.Drop()
	var line bytes.Buffer
	if err := json.Compact(&line, []byte(args.str("txn"))); err != nil {
		return errs.New(errs.Invalid, "txn: %v", err)
	}
	line.WriteByte('\n')
	err = wait(func(done func(error)) {
		h.Write(line.Bytes(), 0, at.By(), func(_ int, err error) { done(err) })
	})
	if err != nil {
		return err
	}
	answer, err := readWhole(h)
	r.ret = json.RawMessage(bytes.TrimSpace(answer))
	return err
}

// readWhole reads an open file from its beginning to its end.
func readWhole(h fs.Handle) (all []byte, err error) {
	for buf := make([]byte, 16<<10); ; {
		n, err := h.Read(buf, uint64(len(all)))
		if n == 0 || err != nil {
			return all, err
		}
		all = append(all, buf[:n]...)
	}
}

// wait waits for what f begins.
func wait(f func(done func(error))) error {
	result := make(chan error, 1)
	f(func(err error) { result <- err })
	return <-result
}

// metadataList returns the names of keys, not those of their files.
func metadataList(c *conn, args arguments, r *reply) error {
	path, err := c.path(args)
	if err != nil {
		return err
	}
	list := []map[string]any{}
	err = macro.List(c.root, path, func(st *fs.Stat) bool {
		if key, err := vm.KeyName(st.Name); err == nil {
			list = append(list, map[string]any{"name": key, "size": st.Length})
		}
		return true
	})
	r.ret = list
	return err
}
