package main

import (
	"encoding/xml"
	"strings"
	"testing"
)

// TestStarting: what a hook is given is a domain, or is refused.
func TestStarting(t *testing.T) {
	const domain = "<domain type='kvm'><name>it's</name><uuid>01B2C898-945F-11E1-A523-AF1AFBE22822</uuid><devices>"
	v, sock, err := new(app).starting(strings.NewReader(domain + channelXML("/run/x") + "</devices></domain>"))
	if err != nil || v.uuid != "01b2c898-945f-11e1-a523-af1afbe22822" || v.name != "it's" || sock != "/run/x" {
		t.Errorf("%v, %q, %v", v, sock, err)
	}
	for text, want := range map[string]string{
		"":                  "EOF",
		"no domain":         "EOF",
		"<domain></domain>": "is not a UUID",
		domain:              "unexpected EOF",
		domain + "<channel><source mode='connect' path='/p'/><target name='meta9'/></channel></devices></domain>": "connects to /p",
		strings.Repeat(" ", maxDomainXML+1): "more than 4194304 bytes",
	} {
		if _, _, err := new(app).starting(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

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
