package fs

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/store"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

const (
	maxParts  = 100  // of a transaction, and as many conditions
	maxValues = 2048 // JSON values of a transaction: more than 100 of both can have
)

// parseTxn makes a transaction of its JSON. space is where a key is looked for of which
// nothing else is said. Errors are Invalid, with the place in the text.
func parseTxn(line []byte, space func(name string) vm.Space) (*store.Transaction, error) {
	v, err := ordjson.ParseMax(line, maxValues)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s", errs.Detail(err))
	}
	if v.Kind != ordjson.Object {
		return nil, errs.New(errs.Invalid, `a transaction is {"if":[...],"do":[...]}`)
	}
	p := txnParser{space: space, t: new(store.Transaction), named: make(map[spaceKey]int)}
	for _, m := range v.Members {
		switch {
		case m.Name != "if" && m.Name != "do":
			return nil, errs.New(errs.Invalid, `unknown member %q; there is "if" and "do"`, vm.Clip(m.Name))
		case m.Value.Kind != ordjson.Array:
			return nil, errs.New(errs.Invalid, "%s is a list", m.Name)
		case len(m.Value.Items) > maxParts:
			return nil, errs.New(errs.Invalid, "%s has %d entries, %d is the limit", m.Name, len(m.Value.Items), maxParts)
		}
		read := p.condition
		if m.Name == "do" {
			read = p.part
		}
		for i, item := range m.Value.Items {
			if err := read(i, item); err != nil {
				return nil, errs.New(errs.Invalid, "%s[%d]: %s", m.Name, i, errs.Detail(err))
			}
		}
	}
	if len(p.t.If)+len(p.t.Do) == 0 {
		return nil, errs.New(errs.Invalid, "a transaction has conditions (if), changes (do), or both")
	}
	return p.t, nil
}

type txnParser struct {
	space func(name string) vm.Space
	t     *store.Transaction
	named map[spaceKey]int // which of Do is about the key
}

// spaceKey is a key that one of Do is about.
type spaceKey struct {
	space vm.Space
	name  string
}

// wrong is an error of one entry of a list; parseTxn adds which.
func wrong(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }

// condition reads {"key": NAME} and what must be true of it: "version", "rev", "value",
// "base64", or "absent": true.
func (p *txnParser) condition(_ int, v ordjson.Value) error {
	o, err := membersOf(v, "key", "space", "absent", "version", "rev", "value", "base64")
	if err != nil {
		return err
	}
	c := store.Condition{}
	if c.Name, err = o.text("key"); err != nil {
		return err
	}
	if c.Space, err = o.spaceOf(p.space, c.Name); err != nil {
		return err
	}
	if n, ok, err := o.number("version", 32); err != nil {
		return err
	} else if ok {
		version := uint32(n)
		c.Version = &version
	}
	if n, ok, err := o.number("rev", 64); err != nil {
		return err
	} else if ok {
		c.Rev = &n
	}
	if o.Index("value") >= 0 || o.Index("base64") >= 0 {
		value, err := o.value()
		if err != nil {
			return err
		}
		c.Value = &value
	}
	absent, ok := o.Get("absent")
	c.Absent = ok
	if ok && (absent.Kind != ordjson.True || c.Version != nil || c.Rev != nil || c.Value != nil) {
		return wrong(`"absent" is true, and then nothing else is asked of the key`)
	}
	p.t.If = append(p.t.If, c)
	return nil
}

// verbsOfTxn are what a part may be.
var verbsOfTxn = [...]struct {
	name string
	kind store.OpKind
	with []string
}{
	{"put", store.Put, []string{"value", "base64"}},
	{"append", store.Append, []string{"value", "base64"}},
	{"remove", store.Remove, nil},
	{"rename", store.Set, []string{"to"}},
}

// part reads {"put": NAME, "value": TEXT} and the like.
func (p *txnParser) part(i int, v ordjson.Value) error {
	if v.Kind != ordjson.Object {
		return errNoObject
	}
	for _, verb := range verbsOfTxn {
		if v.Members.Index(verb.name) < 0 {
			continue
		}
		o, err := membersOf(v, append(verb.with, verb.name, "space")...)
		if err != nil {
			return err
		}
		in := store.Intent{Kind: verb.kind}
		if in.Name, err = o.text(verb.name); err != nil {
			return err
		}
		if in.Space, err = o.spaceOf(p.space, in.Name); err != nil {
			return err
		}
		switch verb.kind {
		case store.Put, store.Append:
			in.Data, err = o.value()
		case store.Set:
			in.NewName, err = o.text("to")
		}
		if err != nil {
			return err
		}
		p.t.Do = append(p.t.Do, in)
		return p.name(i, &in)
	}
	return wrong(`one of "put", "append", "remove" and "rename" says what to do`)
}

// name notes the keys that a part is about, of which no other part may be.
func (p *txnParser) name(i int, in *store.Intent) error {
	for _, name := range [...]string{in.Name, in.NewName} {
		key := spaceKey{in.Space, name}
		if name == "" {
			continue
		}
		if other, ok := p.named[key]; ok {
			return wrong("the key %q is in do[%d] as well", vm.Clip(name), other)
		}
		p.named[key] = i
	}
	return nil
}

// members are those of one entry.
type members struct{ ordjson.Members }

var errNoObject = wrong("it is no object")

// membersOf is the members of v, an object that has no others than known.
func membersOf(v ordjson.Value, known ...string) (members, error) {
	if v.Kind != ordjson.Object {
		return members{}, errNoObject
	}
	for _, m := range v.Members {
		if !slices.Contains(known, m.Name) {
			return members{}, wrong("unknown member %q; there is %s", vm.Clip(m.Name), strings.Join(known, ", "))
		}
	}
	return members{v.Members}, nil
}

// text is a name.
func (o members) text(name string) (string, error) {
	if text := o.Text(name); text != "" {
		return text, nil
	}
	return "", wrong("%q is the name of a key", name)
}

// number is an unsigned number of so many bits, if it is given.
func (o members) number(name string, bits int) (n uint64, ok bool, err error) {
	v, ok := o.Get(name)
	if !ok {
		return 0, false, nil
	}
	n, err = strconv.ParseUint(v.Text, 10, bits)
	if v.Kind != ordjson.Number || err != nil {
		return 0, false, wrong("%q is a whole number of %d bits", name, bits)
	}
	return n, true, nil
}

// value is the bytes that "value" or "base64" gives.
func (o members) value() (string, error) {
	text, isText := o.Get("value")
	coded, isCoded := o.Get("base64")
	switch {
	case isText == isCoded:
		return "", wrong(`either "value" or "base64" says what it holds`)
	case isText && text.Kind == ordjson.String:
		return text.Text, nil
	case isText:
		return "", wrong(`"value" is a string`)
	case coded.Kind != ordjson.String:
		return "", wrong(`"base64" is a string`)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(coded.Text)
	if err != nil {
		return "", wrong(`"base64": %s`, err)
	}
	return string(data), nil
}

// spaceOf is the space that the entry names, or the one in which the name is looked for.
func (o members) spaceOf(usual func(string) vm.Space, name string) (vm.Space, error) {
	v, ok := o.Get("space")
	if !ok {
		return usual(name), nil
	}
	for s := range vm.NumSpaces {
		if v.Kind == ordjson.String && v.Text == s.String() {
			return s, nil
		}
	}
	return 0, wrong(`"space" is "keys" or "internal"`)
}
