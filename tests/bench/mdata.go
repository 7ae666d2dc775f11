package main

import (
	"bufio"
	"bytes"
	"fmt"

	"meta9/mdbridge/mdata"
	"meta9/tests/raw"
)

// byMdata reads a key by a GET of the Joyent metadata protocol. The first reply
// is read with care; all others have its length.
func byMdata(_ *instance, c *raw.Conn, i int) (s script, err error) {
	get := mdata.AppendFrame(nil, []byte("0a1b2c3d"), mdata.Get, []byte(fileName(i)))
	if err := c.Send(get); err != nil {
		return s, err
	}
	reply, err := bufio.NewReader(c.Net).ReadBytes('\n')
	if err != nil {
		return s, err
	}
	_, rest := mdata.Command(bytes.TrimSuffix(reply, []byte("\n")))
	f, ok := mdata.ParseFrame(rest)
	if value := mdata.AppendDecoded(nil, f.Payload); !ok || string(value) != fileValue() {
		return s, fmt.Errorf("GET gave %.80q", reply)
	}
	return script{frames: [][]byte{get}, bare: len(reply)}, nil
}

// byProtocol reads a key by the Joyent metadata protocol, beside Tsread of the
// same key and beside the echo, which is the limit.
func byProtocol() row {
	const get, macro = "meta9d GET", "meta9d Tsread"
	return row{
		name: "mdata", title: "a key over mdata.sock, one at a time", unit: "keys/s", base: sEcho,
		entries: []entry{
			loaded(sEcho, sEcho, 1, 1, byMacro),
			loaded(macro, sMeta9, 1, 1, byMacro),
			loaded(get, sMdata, 1, 1, byMdata),
		},
		bars: []bar{{entry: get, text: "of the echo", bound: 0.6, at: ratio(get, sEcho)}},
	}
}
