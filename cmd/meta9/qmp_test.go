package main

import (
	"strings"
	"testing"
)

func TestQMPCommand(t *testing.T) {
	for line, want := range map[string]string{
		` {"execute": "stop"} `:               `{"execute": "stop"}`,
		"stop":                                `{"execute":"stop"}`,
		" trace  enable=true ":                `{"arguments":{"enable":true},"execute":"trace"}`,
		`x a=text b=1.50 c={"d":[]} e= f="1"`: `{"arguments":{"a":"text","b":1.50,"c":{"d":[]},"e":"","f":"1"},"execute":"x"}`,
		"x a=b=c":                             `{"arguments":{"a":"b=c"},"execute":"x"}`,
	} {
		if got, err := qmpCommand(line); err != nil || string(got) != want {
			t.Errorf("%s: %s %v", line, got, err)
		}
	}
	for _, line := range []string{"", "  ", "x y", "x =1"} {
		if got, err := qmpCommand(line); err == nil {
			t.Errorf("%q: %s", line, got)
		}
	}
}

func TestCompleteWords(t *testing.T) {
	var shown strings.Builder
	complete := completeWords([]string{"query-status", "query-vms", "quit"}, &shown)
	for _, tt := range []struct {
		line string
		pos  int
		want string
		ok   bool
	}{
		{"q", 1, "qu", true},
		{"quer", 4, "query-", true},
		{"query-v x", 7, "query-vms  x", true},
		{"qui", 3, "quit ", true},
		{"x", 1, "", false},
		{"quit q", 6, "", false},
		{`{"q`, 3, "", false},
	} {
		if got, _, ok := complete(tt.line, tt.pos, '\t'); got != tt.want || ok != tt.ok {
			t.Errorf("%q: %q %v", tt.line, got, ok)
		}
	}
	if _, _, ok := complete("q", 1, 'u'); ok || shown.Len() != 0 {
		t.Errorf("shown %q", shown.String())
	}
	complete("query-", 6, '\t')
	if shown.String() != "query-status  query-vms\n" {
		t.Errorf("shown %q", shown.String())
	}
}
