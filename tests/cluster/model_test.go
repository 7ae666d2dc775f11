package cluster

import (
	"fmt"
	"hash/maphash"

	"github.com/anishathalye/porcupine"
)

// nKeys is how many keys of a VM the clients share.
const nKeys = 3

// content is what a VM's shared keys are, as the model has it. It is compared by ==.
type content [nKeys]struct {
	there bool
	value string
}

// kind is what an operation does.
type kind uint8

const (
	read   kind = iota // the value of one key
	put                // the whole value, created if need be
	extend             // bytes at the end of a value that is there
	remove             // the key, which must be there
	rename             // the key to another, which it replaces
	swap               // a transaction: if the key has the value want, it and another get one value
)

var kindNames = [...]string{"read", "put", "append", "remove", "rename", "swap"}

// input is an operation as it was asked for.
type input struct {
	kind    kind
	vm      int
	key, to int
	want    string // swap
	value   string
	who     string // who asked, for a report
}

// output is what was told.
type output struct {
	how   how
	value string // read
}

type how uint8

const (
	done    how = iota // it was done
	absent             // there is no such key
	differs            // the key has not the value that was wanted
	maybe              // nobody said: done or not
)

var howNames = [...]string{"done", "absent", "differs", "maybe"}

// model is one VM as if nobody did anything at the same time. What nobody has told of has
// happened or not: then an operation leads to two states.
var model = func() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init:              func() []any { return []any{content{}} },
		Step:              func(s, in, out any) []any { return next(s.(content), in.(input), out.(output)) },
		Hash:              func(s any) uint64 { return maphash.Comparable(hashSeed, s.(content)) },
		DescribeOperation: describeAny,
	}
	return m.ToModel()
}()

var hashSeed = maphash.MakeSeed()

func next(s content, in input, out output) []any {
	k := s[in.key]
	switch out.how {
	case absent:
		return only(s, !k.there)
	case differs:
		return only(s, !k.there || k.value != in.want)
	case maybe:
		return append(after(s, in, out), s)
	}
	return after(s, in, out)
}

func only(s content, ok bool) []any {
	if !ok {
		return nil
	}
	return []any{s}
}

// after is what s becomes where in was done, or nothing if it cannot have been.
func after(s content, in input, out output) []any {
	k := &s[in.key]
	if in.kind != put && !k.there {
		return nil
	}
	switch in.kind {
	case read:
		return only(s, k.value == out.value)
	case put:
		k.there, k.value = true, in.value
	case extend:
		k.value += in.value
	case remove:
		k.there, k.value = false, ""
	case rename:
		was := *k
		k.there, k.value = false, ""
		s[in.to] = was
	case swap:
		if k.value != in.want {
			return nil
		}
		k.value = in.value
		s[in.to] = *k
	}
	return []any{s}
}

func describe(in input, out output) string {
	text := fmt.Sprintf("%s of %s by %s: %s", kindNames[in.kind], keyName(in.key), in.who, howNames[out.how])
	switch in.kind {
	case read:
		text += fmt.Sprintf(" %.60q", out.value)
	case put, extend:
		text += fmt.Sprintf(" %.60q", in.value)
	case rename:
		text += " to " + keyName(in.to)
	case swap:
		text += fmt.Sprintf(" from %.60q to %.60q, and %s", in.want, in.value, keyName(in.to))
	}
	return text
}

// describeAny is describe as porcupine calls it.
func describeAny(in, out any) string { return describe(in.(input), out.(output)) }

func keyName(i int) string { return string(rune('a' + i)) }
