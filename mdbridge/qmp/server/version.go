package server

import (
	"fmt"

	"meta9/mdbridge/qmp"
)

// version is what the greeting and query-version say, in the form of QEMU's.
type version struct {
	QEMU struct {
		Major int `json:"major"`
		Minor int `json:"minor"`
		Micro int `json:"micro"`
	} `json:"qemu"`
	Package string `json:"package"`
}

// newVersion takes "v1.2.3" and what may follow apart; of another form only the
// text is told, and the numbers are 0.
func newVersion(text string) version {
	v := version{Package: "meta9 " + text}
	_, _ = fmt.Sscanf(text, "v%d.%d.%d", &v.QEMU.Major, &v.QEMU.Minor, &v.QEMU.Micro)
	return v
}

func (v version) json() []byte {
	b, err := qmp.Marshal(v)
	if err != nil {
		return []byte("{}")
	}
	return b
}
