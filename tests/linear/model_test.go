package linear

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// nKeys is how many keys of a VM the clients share.
const nKeys = 3

// state is what a VM's shared keys are, as the model has it. It is compared by ==.
type state [nKeys]keyState

type keyState struct {
	there bool
	value string
	held  uint64 // whose truncations of it are held, by their numbers as bits
}

// kind is what an operation does to the state.
type kind uint8

const (
	look    kind = iota // whether the key is there, no more
	read                // the value of one key
	snap                // all keys at one moment
	begin               // the same before anybody else was there
	put                 // the whole value, created if need be
	replace             // the file by another one, of that value
	create              // an empty value where there is none
	remove              // the key, which must be there
	forget              // the key, if it is there
	rename              // the key to another, which it replaces
	splice              // bytes at an offset of a value that is there
	extend              // bytes at its end
	hold                // a truncation that the next change of the key applies
	drop                // that truncation ends and comes to nothing
	clunk               // that truncation is applied if nothing else has done so
	swap                // a transaction: if the key has the value want, it and another get one value
)

var kindNames = [...]string{"look", "read", "snap", "begin", "put", "replace", "create", "remove", "forget", "rename", "splice", "extend", "hold", "drop", "clunk", "swap"}

// input is an operation as it was asked for.
type input struct {
	kind  kind
	vm    int
	key   int
	to    int    // rename, swap
	want  string // swap
	off   int    // splice
	value string // put, replace, splice, extend, swap
	hold  uint64 // hold, drop, clunk: its bit; read: those of the same connection, which sees its own
	spare uint64 // of a change: truncations that may have come after it, and so stay held
	who   string // the client's kind, for a report
}

// output is what the client was told.
type output struct {
	how   how
	value string        // read
	all   [nKeys]string // snap
	there [nKeys]bool   // snap
}

type how uint8

const (
	done    how = iota // it was done
	absent             // there is no such key
	exists             // there is such a key
	differs            // the key has not the value that was wanted
	maybe              // nobody said: done or not
)

var howNames = [...]string{"done", "absent", "exists", "differs", "maybe"}

// model is the sequential tree that meta9d must look like. Whatever was not answered
// has happened or not, so that an operation may lead to two states.
var model = func() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init:              func() []any { return []any{state{}} },
		Step:              func(s, in, out any) []any { return step(s.(state), in.(input), out.(output)) },
		Partition:         partition,
		Hash:              func(s any) uint64 { return maphash.Comparable(hashSeed, s.(state)) },
		DescribeOperation: describeAny,
	}
	return m.ToModel()
}()

var hashSeed = maphash.MakeSeed()

// partition takes apart what can be judged apart, so that a search looks at few
// operations at a time: the VMs, and the keys of VMs where no request is about two
// of them. What a client saw of all keys at one moment is then said of each. (That it
// was one moment shows in the VMs of names.)
func partition(history []porcupine.Operation) [][]porcupine.Operation {
	of := make([][]porcupine.Operation, nVMs*nKeys)
	add := func(key int, op porcupine.Operation) {
		i := op.Input.(input).vm*nKeys + key
		of[i] = append(of[i], op)
	}
	for _, op := range history {
		in := op.Input.(input)
		switch {
		case byNames(in.vm):
			add(0, op)
		case in.kind == begin:
			all := op.Output.(output)
			for key := range nKeys {
				in.key = key
				op.Output = output{}
				if in.kind, in.value = put, all.all[key]; !all.there[key] {
					in.kind = forget
				}
				op.Input = in
				add(key, op)
			}
		case in.kind == snap:
			all := op.Output.(output)
			for key := range nKeys {
				in.kind, in.key = read, key
				op.Input, op.Output = in, output{value: all.all[key]}
				if !all.there[key] {
					op.Output = output{how: absent}
				}
				add(key, op)
			}
		default:
			add(in.key, op)
		}
	}
	return slices.DeleteFunc(of, func(ops []porcupine.Operation) bool { return len(ops) == 0 })
}

// byNames says whether the VM is one in which each request names its key.
func byNames(vm int) bool { return vm%2 == 1 }

// step gives the states that s may become by in where the client was told out: none,
// where that answer cannot be.
func step(s state, in input, out output) []any {
	switch out.how {
	case absent:
		return only(s, !s[in.key].there)
	case exists:
		return only(s, s[in.key].there)
	case differs:
		return only(s, !s[in.key].holds(in.want))
	case maybe:
		return append(apply(s, in, out), s)
	}
	return apply(s, in, out)
}

func (k keyState) holds(value string) bool { return k.there && k.value == value }

func only(s state, ok bool) []any {
	if !ok {
		return nil
	}
	return []any{s}
}

// apply gives what s may become where in was done; none: it cannot be, or not with
// that answer.
func apply(s state, in input, out output) []any {
	k := &s[in.key]
	switch in.kind {
	case look:
		return only(s, k.there)
	case read:
		value := k.value
		if k.held&in.hold != 0 {
			value = ""
		}
		return only(s, k.there && value == out.value)
	case snap:
		for i := range s {
			if s[i].there != out.there[i] || s[i].there && s[i].value != out.all[i] {
				return nil
			}
		}
	case replace:
		*k = keyState{there: true, value: in.value}
	case begin:
		for i := range s {
			s[i] = keyState{there: out.there[i], value: out.all[i]}
		}
	case create:
		if k.there {
			return nil
		}
		*k = keyState{there: true}
	case remove, forget:
		if in.kind == remove && !k.there {
			return nil
		}
		*k = keyState{}
	case rename:
		if !k.there {
			return nil
		}
		if in.to != in.key {
			s[in.to], *k = *k, keyState{}
		}
	case swap:
		if !k.holds(in.want) {
			return nil
		}
		s[in.to] = keyState{there: true, value: in.value}
		*k = s[in.to]
	case hold:
		if !k.there {
			return nil
		}
		k.held |= in.hold
	case drop:
		k.held &^= in.hold
	case put, splice, extend:
		return change(s, in)
	case clunk:
		if k.held&in.hold != 0 {
			return change(s, in)
		}
	}
	return []any{s}
}

// change is a commit to one key, which applies the truncations that are held first,
// and ends them; but for any of those in spare, if they came later.
func change(s state, in input) (all []any) {
	held := s[in.key].held
	spare := held & in.spare
	for later := spare; ; later = (later - 1) & spare { // every subset
		next := s
		k := &next[in.key]
		if held != later {
			k.value = ""
		}
		k.held = later
		if write(k, in) {
			all = append(all, next)
		}
		if later == 0 {
			return all
		}
	}
}

// write makes the value what a change makes of it.
func write(k *keyState, in input) bool {
	switch in.kind {
	case clunk:
		return true
	case put:
		k.there, k.value = true, in.value
		return true
	case extend:
		k.value += in.value
		return k.there
	}
	if gap := in.off - len(k.value); gap > 0 {
		k.value += strings.Repeat("\x00", gap)
	}
	end := min(in.off+len(in.value), len(k.value))
	k.value = k.value[:in.off] + in.value + k.value[end:]
	return k.there
}

func describe(in input, out output) string {
	var b strings.Builder
	fmt.Fprintf(&b, "vm %d %s", in.vm, kindNames[in.kind])
	switch in.kind {
	case snap, begin:
		for i, v := range out.all {
			if out.there[i] {
				fmt.Fprintf(&b, " %s=%s", keyName(i), brief(v))
			}
		}
	case rename:
		fmt.Fprintf(&b, " %s to %s", keyName(in.key), keyName(in.to))
	case swap:
		fmt.Fprintf(&b, " %s from %s, with %s, to %s", keyName(in.key), brief(in.want), keyName(in.to), brief(in.value))
	case put, replace, extend:
		fmt.Fprintf(&b, " %s %s", keyName(in.key), brief(in.value))
	case splice:
		fmt.Fprintf(&b, " %s at %d %s", keyName(in.key), in.off, brief(in.value))
	case hold, drop, clunk:
		fmt.Fprintf(&b, " %s (%b)", keyName(in.key), in.hold)
	default:
		fmt.Fprintf(&b, " %s", keyName(in.key))
	}
	fmt.Fprintf(&b, " by %s: %s", in.who, howNames[out.how])
	if in.kind == read && out.how == done {
		fmt.Fprintf(&b, " %s", brief(out.value))
	}
	return b.String()
}

// describeAny is describe as porcupine calls it.
func describeAny(in, out any) string { return describe(in.(input), out.(output)) }

// brief is a value for people: its length, and its beginning.
func brief(v string) string { return fmt.Sprintf("%d:%.40q", len(v), v) }

// keyName is the name of the i-th shared key.
func keyName(i int) string { return string(rune('a' + i)) }
