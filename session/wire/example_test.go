package wire_test

import (
	"fmt"

	"meta9/session/wire"
)

// A script line becomes a frame, and a frame a line of a trace.
func Example() {
	m, _ := wire.Parse(`Tswrite tag 6 fid 7 names "keys" "root_pw" data "hunter2"`)
	frame, _ := wire.Append(nil, m, wire.E)
	fmt.Println(len(frame), "bytes")

	var got wire.Msg
	if err := wire.Decode(&got, frame, wire.E); err != nil {
		fmt.Println(err)
	}
	fmt.Println(got.Names, got.Count)
	fmt.Println(wire.Mask(&got, func(uint32) bool { return false }))

	fmt.Println(wire.Decode(&got, frame, wire.Plain))
	// Output:
	// 39 bytes
	// [keys root_pw] 7
	// Tswrite tag 6 fid 7 names "keys" "root_pw" data ***7
	// Operation not supported: Tswrite in 9P2000
}
