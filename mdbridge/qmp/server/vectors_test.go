package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"meta9/mdbridge/qmp/qmptest"
)

// TestVectors sends what was sent to a QEMU 7.2 and compares: errors as they are,
// of what was returned only the id. What differs on purpose is listed.
func TestVectors(t *testing.T) {
	differs := map[string]string{
		`"enable":["nonsense"]`: "QEMU calls the element null",
		"\xff":                  "QEMU takes a sentinel for a stray byte as well",
		"[[[[[[":                "QEMU swallows the next command",
	}
	c := newWorld(t, Config{}).connect()
	c.line()
	compared := 0
	for _, ex := range qmptest.Vectors(t, "../testdata/qmp-1.txt") {
		skip := !knownHere(ex.Send) || strings.Contains(ex.Send, `"query-commands"`)
		for part := range differs {
			skip = skip || strings.Contains(ex.Send, part)
		}
		if skip {
			continue
		}
		compared++
		c.send(ex.Send + "\n")
		for _, want := range ex.Recv {
			if got := c.line(); !alike(t, want, got) {
				t.Errorf("line %d: %s\nQEMU: %s\nours: %s", ex.Line, ex.Send, want, got)
			}
		}
	}
	if compared < 35 {
		t.Errorf("only %d exchanges were compared", compared)
	}
}

// knownHere tells whether all commands in a text are ours too, or nobody's.
func knownHere(text string) bool {
	for _, name := range []string{"stop", "cont", "system_powerdown", "human-monitor-command", "device_add", "eject", "balloon", "query-name", "query-uuid"} {
		if strings.Contains(text, ":\""+name+`"`) || strings.Contains(text, ":'"+name+"'") {
			return false
		}
	}
	return true
}

// alike compares an answer with QEMU's.
func alike(t *testing.T, want, got string) bool {
	t.Helper()
	var w, g map[string]any
	if err := errors.Join(json.Unmarshal([]byte(want), &w), json.Unmarshal([]byte(got), &g)); err != nil {
		t.Errorf("%s\n%s\n%v", want, got, err)
	}
	if w["return"] != nil && g["return"] != nil {
		w["return"], g["return"] = nil, nil
	}
	return fmt.Sprint(w) == fmt.Sprint(g)
}
