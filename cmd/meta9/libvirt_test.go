package main

import (
	"encoding/xml"
	"testing"
)

// TestChannelXML: a path stays what it is, whatever is in it.
func TestChannelXML(t *testing.T) {
	const path = `/run/it's <&">.sock`
	var is devices
	text := "<domain><devices>" + channelXML(path) + "</devices></domain>"
	if err := xml.Unmarshal([]byte(text), &is); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if got, err := is.sock(); got != path || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
