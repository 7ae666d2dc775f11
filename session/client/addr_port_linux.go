package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"meta9/session/packet"
)

// Where Linux has ports by name. udev makes the links; a guest without it has
// only what the driver says.
const (
	portLinks = "/dev/virtio-ports"
	portClass = "/sys/class/virtio-ports"
)

// dialPort opens the virtio-serial port of a name.
func dialPort(name string) dialer {
	find := func() (string, error) { return findPort(portLinks, portClass, name) }
	guest := new(packet.Guest)
	return func(ctx context.Context) (net.Conn, error) {
		return openDevice(ctx, guest, find, fileAddr{"virtio", name})
	}
}

// findPort finds the device of a port, by the links or else in the class.
func findPort(links, class, name string) (string, error) {
	link := filepath.Join(links, name)
	if _, err := os.Stat(link); err == nil {
		return link, nil
	}
	var names []string
	files, _ := filepath.Glob(class + "/*/name")
	for _, file := range files {
		b, _ := os.ReadFile(file)
		found := strings.TrimSuffix(string(b), "\n")
		if found == name {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(file))), nil
		}
		names = append(names, found)
	}
	if names == nil {
		return "", fmt.Errorf("%w %q: this machine has none, or no module virtio_console", errNoPort, name)
	}
	return "", fmt.Errorf("%w %q; there are %q", errNoPort, name, names)
}
