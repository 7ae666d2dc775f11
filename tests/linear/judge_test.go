package linear

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// The judge must be able to condemn: hand-made histories, good and bad.
func TestJudge(t *testing.T) {
	op := func(call, ret int64, in input, out output) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: call, Return: ret}
	}
	ok := output{}
	reads := func(v string) output { return output{value: v} }
	p := func(v string) input { return input{kind: put, value: v} }
	r := input{kind: read}
	h := input{kind: hold, hold: 1}
	for _, tt := range []struct {
		name string
		good bool
		ops  []porcupine.Operation
	}{
		{"a put is read", true, []porcupine.Operation{op(0, 1, p("v"), ok), op(2, 3, r, reads("v"))}},
		{"a put is lost", false, []porcupine.Operation{op(0, 1, p("v"), ok), op(2, 3, r, output{how: absent})}},
		{"an old value", false, []porcupine.Operation{op(0, 1, p("v"), ok), op(2, 3, p("w"), ok), op(4, 5, r, reads("v"))}},
		{"back in time", false, []porcupine.Operation{op(0, 1, p("v"), ok), op(2, 9, p("w"), ok), op(3, 4, r, reads("w")), op(5, 6, r, reads("v"))}},
		{"unanswered and not there", true, []porcupine.Operation{op(0, 1, p("v"), ok), op(2, 3, p("w"), output{how: maybe}), op(4, 5, r, reads("v"))}},
		{"unanswered and there", true, []porcupine.Operation{op(0, 1, p("v"), ok), op(2, 3, p("w"), output{how: maybe}), op(4, 5, r, reads("w"))}},
		{"unanswered, there and gone", false, []porcupine.Operation{
			op(0, 1, p("v"), ok), op(2, 3, p("w"), output{how: maybe}), op(4, 5, r, reads("w")), op(6, 7, r, reads("v")),
		}},
		{"done twice", false, []porcupine.Operation{
			op(0, 1, p("v"), ok), op(2, 9, p("w"), ok), op(3, 4, r, reads("w")), op(5, 6, p("x"), ok), op(7, 8, r, reads("w")),
		}},
		{"a snapshot of two moments", false, []porcupine.Operation{
			op(0, 1, p("v"), ok), op(2, 3, input{kind: put, key: 1, value: "w"}, ok),
			op(0, 5, input{kind: snap}, output{there: [nKeys]bool{false, true}, all: [nKeys]string{"", "w"}}),
		}},
		{"a held truncation is applied first", true, []porcupine.Operation{
			op(0, 1, p("long"), ok), op(2, 3, h, ok), op(4, 5, r, reads("long")), op(6, 7, input{kind: splice, value: "v"}, ok), op(8, 9, r, reads("v")),
		}},
		{"a truncation that came later", true, []porcupine.Operation{
			op(0, 1, p("long"), ok), op(2, 9, p("longer"), ok), op(3, 4, h, ok), op(5, 6, r, reads("long")),
			op(7, 8, input{kind: splice, value: "v"}, ok), op(10, 11, r, reads("v")),
		}},
		{"a truncation that came before", false, []porcupine.Operation{
			op(0, 1, p("long"), ok), op(2, 3, h, ok), op(4, 5, p("longer"), ok), op(7, 8, input{kind: splice, value: "v"}, ok), op(10, 11, r, reads("v")),
		}},
		{"a held truncation is lost", false, []porcupine.Operation{
			op(0, 1, p("long"), ok), op(2, 3, h, ok), op(4, 5, input{kind: splice, value: "v"}, ok), op(6, 7, r, reads("vong")),
		}},
		{"a held truncation shows", false, []porcupine.Operation{op(0, 1, p("long"), ok), op(2, 3, h, ok), op(4, 5, r, reads(""))}},
		{"a truncation ends with its connection", true, []porcupine.Operation{
			op(0, 1, p("long"), ok), op(2, 3, h, ok), op(4, 9, input{kind: drop, hold: 1}, ok),
			op(5, 6, input{kind: extend, value: "er"}, ok), op(7, 8, r, reads("longer")),
		}},
		{"removed twice", false, []porcupine.Operation{op(0, 1, p("v"), ok), op(2, 3, input{kind: remove}, ok), op(4, 5, input{kind: remove}, ok)}},
		{"made twice", false, []porcupine.Operation{op(0, 1, input{kind: create}, ok), op(2, 3, input{kind: create}, ok)}},
		{"moved", true, []porcupine.Operation{
			op(0, 1, p("v"), ok), op(2, 3, input{kind: rename, to: 1}, ok), op(4, 5, input{kind: read, key: 1}, reads("v")), op(6, 7, r, output{how: absent}),
		}},
	} {
		for i, op := range tt.ops { // of a VM that is judged as a whole
			in := op.Input.(input)
			in.vm = 1
			tt.ops[i].Input = in
		}
		spare(tt.ops)
		if got := porcupine.CheckOperations(model, tt.ops); got != tt.good {
			t.Errorf("%s: judged %v", tt.name, got)
		}
	}
}
