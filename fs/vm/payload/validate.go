package payload

import (
	"slices"
	"strconv"
	"strings"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
)

// Action is what a payload is for.
type Action uint8

// The actions, as `vmadm validate` has them.
const (
	ForCreate Action = iota
	ForUpdate
)

// Report is what is wrong with a payload by the rules of vmadm, which are stricter
// than those of Create and Update: hosts without SmartOS have no images, and
// properties of their own. Its JSON is vmadm's. A member of a list's object is named
// LIST.N.MEMBER.
type Report struct {
	BadBrand          string   `json:"bad_brand,omitempty"`          // nothing else is looked at then
	BadProperties     []string `json:"bad_properties,omitempty"`     // unknown, or not for this brand and action
	BadValues         []string `json:"bad_values,omitempty"`         // of the wrong kind, or past their limits
	MissingProperties []string `json:"missing_properties,omitempty"` // that the brand asks for
}

// OK says whether nothing is wrong.
func (r Report) OK() bool {
	return r.BadBrand == "" && len(r.BadProperties)+len(r.BadValues)+len(r.MissingProperties) == 0
}

// Brands are the names of the brands, in order.
func Brands() []string {
	names := make([]string, 0, len(brandNamed))
	for name := range brandNamed {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Validate checks a payload for VMs of a brand. It needs no VM and no store. meta9's
// own properties (docs/payload.md) are good for every brand. The error is Invalid: there
// is no brand, or the payload is no JSON object.
func Validate(a Action, brand string, payload []byte) (Report, error) {
	if brand == "" {
		return Report{}, errs.New(errs.Invalid, "brand: missing; there is %s", strings.Join(Brands(), ", "))
	}
	b, known := brandNamed[brand]
	if !known {
		return Report{BadBrand: brand}, nil
	}
	o, err := parseObject(payload, vm.DefaultLimits)
	if err != nil {
		return Report{}, err
	}
	v := validation{action: a, brand: b}
	for _, m := range o {
		v.property(m)
	}
	if a == ForCreate {
		for name, p := range table {
			if given, _ := o.Get(name); p.required&b != 0 && unset(given) {
				v.MissingProperties = append(v.MissingProperties, name)
			}
		}
		slices.Sort(v.MissingProperties)
		v.whole(o)
	}
	return v.Report, nil
}

// validation is a Report that is being made.
type validation struct {
	Report
	action Action
	brand  brands
}

// takes says whether VMs of the brand take the property.
func (v *validation) takes(p property) bool {
	if v.action == ForCreate {
		return p.create&v.brand != 0
	}
	return p.update&v.brand != 0
}

// bad notes the field that an error names before its colon.
func (v *validation) bad(err error) {
	if err == nil {
		return
	}
	field, _, _ := strings.Cut(errs.Detail(err), ": ")
	if !slices.Contains(v.BadValues, field) {
		v.BadValues = append(v.BadValues, field)
	}
}

// property checks one member of the payload.
func (v *validation) property(m ordjson.Member) {
	p, known := table[m.Name]
	if !known || !v.takes(p) {
		v.BadProperties = append(v.BadProperties, m.Name)
		return
	}
	if p.kind == objectsKind && m.Value.Kind == ordjson.Array {
		v.objects(m)
		return
	}
	_, space := vm.SpaceOf(strings.TrimPrefix(m.Name, "set_"))
	switch {
	case unset(m.Value):
	case space:
		_, err := readSettings(0, m.Name, m.Value)
		v.bad(err)
	case m.Name == vm.BinaryMember:
		_, err := readBinary(m.Value)
		v.bad(err)
	default:
		value, err := takeMember(table, "", m)
		if err == nil {
			err = checkMember(rules, "", ordjson.Member{Name: m.Name, Value: value})
		}
		if _, is := brandNamed[value.Text]; m.Name == "brand" && !is && err == nil {
			err = wrongValue(m.Name, "one of "+strings.Join(Brands(), ", "), value)
		}
		if prop := strings.TrimPrefix(m.Name, "set_"); prop == vm.PropRoutes && err == nil {
			err = checkRoutes(m.Value, ordjson.Value{})
		}
		v.bad(err)
	}
}

// objects checks the objects of a list, or of what adds to or updates one.
func (v *validation) objects(m ordjson.Member) {
	verb, name := splitVerb(m.Name)
	l := lists[name]
	for i, item := range m.Value.Items {
		field := m.Name + "." + strconv.Itoa(i) + "."
		if item.Kind != ordjson.Object {
			v.bad(wrongValue(strings.TrimSuffix(field, "."), isObject.must, item))
			continue
		}
		var taken ordjson.Members
		wrong := len(v.BadValues)
		for _, inner := range item.Members {
			p, known := members[name][inner.Name]
			if !known || v.action == ForUpdate && p.update&v.brand == 0 {
				v.BadProperties = append(v.BadProperties, field+inner.Name)
				continue
			}
			value, err := takeMember(members[name], field, inner)
			if err == nil {
				inner.Value = value
				err = checkMember(l.rules, field, inner)
			}
			v.bad(err)
			taken = append(taken, inner)
		}
		if l.List == vm.NICs && len(v.BadValues) == wrong {
			var old ordjson.Members
			if verb == "update_" {
				old = someNIC
			}
			_, err := spell(field, merge(old, taken), taken, old)
			v.bad(err)
		}
	}
}

// someNIC stands for the NIC that an update changes, of which nothing is known.
var someNIC = ordjson.Members{{Name: nicIPs, Value: ordjson.Value{Kind: ordjson.Array, Items: []ordjson.Value{ordjson.Str("192.0.2.1/24")}}}}

// whole checks what is between the properties of a new VM, once each is right.
func (v *validation) whole(o ordjson.Members) {
	if len(v.BadValues) > 0 {
		return
	}
	var props ordjson.Members
	for _, m := range o {
		if _, space := vm.SpaceOf(m.Name); space || m.Name == vm.BinaryMember || slices.Contains(v.BadProperties, m.Name) {
			continue
		}
		props = append(props, m)
	}
	if uuid, _ := props.Get(vm.PropUUID); unset(uuid) {
		props = props.With(vm.PropUUID, ordjson.Str(vm.NewUUID()))
	}
	_, err := newProps(props)
	v.bad(err)
}
