package mdata

import "encoding/base64"

// sextets are the values of base64's digits in both alphabets, standard and
// url-safe; 64 for what is no digit.
var sextets = func() (t [256]byte) {
	for i := range t {
		t[i] = 64
	}
	for i := range 64 {
		t["ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i]] = byte(i)
	}
	t['-'], t['_'] = 62, 63
	return t
}()

// AppendDecoded appends the bytes that base64 text stands for. It never fails, as a
// SmartOS host does not: it takes both alphabets, with or without padding; the first
// '=' ends the text; other bytes that are no digit are passed over (Ruby's clients
// wrap lines); bits that make no whole byte are dropped.
func AppendDecoded(b, text []byte) []byte {
	if clean, err := base64.StdEncoding.AppendDecode(b, text); err == nil {
		return clean
	}
	var bits, n uint32
	for _, c := range text {
		if c == '=' {
			break
		}
		if sextets[c] == 64 {
			continue
		}
		bits, n = bits<<6|uint32(sextets[c]), n+6
		if n >= 8 {
			n -= 8
			b = append(b, byte(bits>>n))
		}
	}
	return b
}
