// Package order tells why porcupine found no order of operations that explains what clients
// were told.
package order

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// Blame says how long the longest order is that was found, how it ends, and which
// operations could not follow; describe is the model's DescribeOperation.
func Blame(ops []porcupine.Operation, info porcupine.LinearizationInfo, describe func(in, out any) string) string {
	var best []int
	for _, ids := range info.PartialLinearizations()[0] {
		if len(ids) > len(best) {
			best = ids
		}
	}
	sorted := slices.Sorted(slices.Values(best))
	var b strings.Builder
	line := func(id int) {
		op := ops[id]
		fmt.Fprintf(&b, "  %12d to %12d  %s\n", op.Call, op.Return, describe(op.Input, op.Output))
	}
	fmt.Fprintf(&b, "an order of %d of %d; its end:\n", len(best), len(ops))
	for _, id := range best[max(0, len(best)-12):] {
		line(id)
	}
	var left []int
	for id := range ops {
		if _, in := slices.BinarySearch(sorted, id); !in {
			left = append(left, id)
		}
	}
	slices.SortFunc(left, func(a, b int) int { return int(ops[a].Return - ops[b].Return) })
	b.WriteString("after which none of these can come (the first to have ended must):\n")
	for _, id := range left[:min(8, len(left))] {
		line(id)
	}
	return b.String()
}
