package hosts

import (
	"errors"
	"path/filepath"
	"strings"

	"meta9/mdbridge/qmp"
)

// The monitors that a manager of QEMUs keeps for itself. It does not expect another
// client: it would find its monitor taken when it is restarted, and hang.
var (
	errLibvirt = errors.New("this is libvirt's own monitor, which libvirtd would lose at its next restart; " +
		"give the domain a socket for meta9d (-qmp by <qemu:commandline>, docs/libvirt.md)")
	errProxmox = errors.New("this is Proxmox's own monitor, without which qm hangs; " +
		"give the VM a socket for meta9d (-qmp by args:, docs/proxmox.md)")
)

// othersMonitor says whose monitor is at a path, where that or what it leads to shows it.
// libvirt's is LIB/domain-ID-NAME/monitor.sock, be it the system's
// (/var/lib/libvirt/qemu) or a user's (~/.config/libvirt/qemu/lib), and was
// LIB/NAME.monitor; Proxmox's is /run/qemu-server/VMID.qmp.
func othersMonitor(path string) error {
	paths := []string{path}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		paths = append(paths, real)
	}
	for _, p := range paths {
		dir, base := filepath.Split(p)
		switch {
		case strings.Contains(dir, "/libvirt/") && (base == "monitor.sock" || strings.HasSuffix(base, ".monitor")):
			return errLibvirt
		case strings.HasSuffix(dir, "/run/qemu-server/") && strings.HasSuffix(base, ".qmp"):
			return errProxmox
		}
	}
	return nil
}

// libvirtLabel is the name of the character device that libvirt's monitor is in a QEMU.
const libvirtLabel = "charmonitor"

// isAt tells whether the socket of a character device (unix:PATH,server=on) is the one that
// is connected to, also where a link leads to it.
func (l *link) isAt(filename string) bool {
	if strings.Contains(filename, l.path) {
		return true
	}
	_, path, _ := strings.Cut(filename, "unix:")
	if i := strings.LastIndex(path, ",server"); i >= 0 {
		path = path[:i]
	}
	theirs, err := filepath.EvalSymlinks(path)
	if err != nil || path == "" {
		return false
	}
	ours, err := filepath.EvalSymlinks(l.path)
	return err == nil && ours == theirs
}

// checkMonitor refuses libvirt's monitor at a path that does not show it. A QEMU says
// where its sockets are: one that has libvirt's, and none at this path, is seen from
// another place than its own, and this one may be libvirt's.
func (l *link) checkMonitor(c *qmp.Client) error {
	var devices []struct{ Label, Filename string }
	err := l.ask(c, "query-chardev", &devices)
	var failed *qmp.Error
	switch {
	case errors.As(err, &failed):
		return nil // one that has no such command has no libvirt
	case err != nil:
		return err
	}
	libvirts, ours := false, false
	for _, d := range devices {
		here := l.isAt(d.Filename)
		libvirts = libvirts || d.Label == libvirtLabel
		if here && d.Label == libvirtLabel {
			return refusal{errLibvirt, nil}
		}
		ours = ours || here
	}
	if libvirts && !ours {
		return refusal{errLibvirt, nil}
	}
	return nil
}
