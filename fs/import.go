package fs

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// importVM is the verb `import [replace] {"vm":VM,"keys":KEYS}`: it makes the VM, whole or
// not at all, and exactly as it is said, with nothing filled in. KEYS is what is known of
// the keys beside their values, as an export has it:
// {"customer_metadata":{NAME:{"mode":"0600","mtime":"2026-01-31T12:00:00Z","by":"admin"}}}.
// A VM that is there already is an error, unless it is to be replaced.
func importVM(call Call, done func(error)) {
	text, replace := strings.CutPrefix(call.Arg, "replace ")
	in, uuid, err := readImport(text)
	if err != nil {
		done(err)
		return
	}
	in.Kind = store.CreateVM
	if cell := call.View.tree.store.Cell(uuid); cell != nil && replace {
		in.Kind, in.Cell = store.ReplaceVM, cell
	}
	call.submit(in, done)
}

// readImport reads the object.
func readImport(text string) (in *store.Intent, uuid string, err error) {
	v, err := ordjson.Parse([]byte(text))
	if err != nil {
		return nil, "", err
	}
	is := v.Member("vm")
	if uuid, err = vm.ParseUUID(is.Members.Text(vm.PropUUID)); err != nil {
		return nil, "", errs.New(errs.Invalid, "import: the VM's uuid: %v", err)
	}
	in = &store.Intent{Data: string(is.AppendJSON(nil)), Exact: true}
	for _, m := range v.Member("keys").Members {
		space, ok := vm.SpaceOf(m.Name)
		if !ok {
			return nil, "", errs.New(errs.Invalid, "import: keys: there is no %.32q", m.Name)
		}
		for _, key := range m.Value.Members {
			about, err := readAbout(key.Value)
			if err != nil {
				return nil, "", errs.New(errs.Invalid, "import: key %.64q: %v", key.Name, err)
			}
			about.Space, about.Name = space, key.Name
			in.About = append(in.About, about)
		}
	}
	return in, uuid, nil
}

// longestBy is the longest name of an author that is taken, in bytes.
const longestBy = 255

// readAbout reads what is known of one key.
func readAbout(v ordjson.Value) (a vm.About, err error) {
	mode, err := strconv.ParseUint(v.Members.Text("mode"), 8, 16)
	if err != nil || mode > 0o7777 {
		return a, errs.New(errs.Invalid, "mode: it is octal, up to 7777")
	}
	at, err := time.Parse(time.RFC3339Nano, v.Members.Text("mtime"))
	if first, last := time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64); err != nil || at.Before(first) || at.After(last) {
		return a, errs.New(errs.Invalid, "mtime: it is a time such as 2026-01-31T12:00:00Z")
	}
	a = vm.About{Mode: uint16(mode), Mtime: at.UnixNano(), Muid: v.Members.Text("by")}
	if len(a.Muid) > longestBy || !utf8.ValidString(a.Muid) || strings.ContainsFunc(a.Muid, unicode.IsControl) {
		return a, errs.New(errs.Invalid, "by: it is a name of at most %d bytes", longestBy)
	}
	return a, nil
}
