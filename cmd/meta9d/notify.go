package main

import (
	"net"
	"os"
)

// notify tells systemd how the service is (sd_notify(3)): "READY=1",
// "STOPPING=1", "STATUS=...". Where nobody asked for it, nothing happens; nor
// does anything depend on its being heard.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
