package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

// notRun ends what was written from a hypervisor's documentation, and never tried.
const notRun = "# From the documentation; it was not run by those who wrote it.\n"

// attaching is a VM that is to get its channel, and what is known of its host.
type attaching struct {
	*app
	uuid, name string // name is the VM's alias, or the UUID
	file       string // name as far as it can be part of a path, else the UUID
	uri        string // libvirt's
	qemu       [2]int // its version; 0: not known
}

// hypervisors are the ways to attach, by the words of --for.
var hypervisors = map[string]func(v *attaching) string{
	"libvirt": (*attaching).forLibvirt, "qemu": (*attaching).forQEMU, "proxmox": (*attaching).forProxmox,
	"firecracker": (*attaching).forFirecracker, "cloud-hypervisor": (*attaching).forCloudHypervisor,
}

var hypervisorNames = []string{"libvirt", "qemu", "proxmox", "firecracker", "cloud-hypervisor"}

func newVMAttach(a *app) *cobra.Command {
	var hypervisor, version, uri string
	var live bool
	cmd := &cobra.Command{
		Use:   "attach [--for HYPERVISOR] [--live] VM",
		Short: "say how a VM gets its channel, or give it one while it runs",
		Long: `Print the lines that give VM (a UUID or an alias) its channel: for the host's shell,
for the hypervisor, and for the guest. The hypervisor is the one that is found here,
unless --for names it. The lines are right for the version of QEMU that the VM runs
in, or that is installed. With --live the channel is made now, in the running VM;
that can be done with libvirt's.`,
		Example: `meta9 vm attach web0
meta9 vm attach --live web0
meta9 vm attach --for firecracker web0`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, ok := hypervisors[hypervisor]
			if hypervisor != "" && !ok {
				return misused("--for %s: there are %s", hypervisor, strings.Join(hypervisorNames, ", "))
			}
			v := &attaching{app: a, uri: uri}
			if version != "" {
				if v.qemu = qemuVersion(version); v.qemu[0] == 0 {
					return misused("--qemu-version %s: it is a version such as 9.2", version)
				}
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				if err := v.find(ctx, c, args[0]); err != nil {
					return v.orDomain(ctx, args[0], err)
				}
				d, err := v.domain(ctx)
				if hypervisor == "libvirt" && err != nil {
					return err
				}
				if !ok {
					hypervisor = v.hypervisor(d)
				}
				if live {
					if hypervisor != "libvirt" {
						return fmt.Errorf("--live: %s is no domain of a libvirt that is found here (%v). A domain's VM has its UUID: 'meta9 host adopt --libvirt DOMAIN' makes it. Without --live the lines for %s are printed", v.name, err, hypervisor)
					}
					return v.attachLive(ctx, c, d)
				}
				fmt.Fprint(a.out, v.lines(d, hypervisor))
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&hypervisor, "for", "", "the `HYPERVISOR`: "+strings.Join(hypervisorNames, ", ")+" (default: what is found)")
	f.BoolVar(&live, "live", false, "do it now, in the running VM, and for its next starts")
	f.StringVar(&version, "qemu-version", "", "write for QEMU `VERSION` (default: the VM's, or that of the QEMU that is installed)")
	f.StringVar(&uri, "connect", systemLibvirt, "ask the libvirt at `URI`")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(hypervisorNames, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// orDomain is err, or says that what is no VM is a domain that can become one.
func (v *attaching) orDomain(ctx context.Context, name string, err error) error {
	if errors.As(err, new(noVMError)) {
		if _, absent := domainUUIDs(ctx, v.uri, []string{name}); absent == nil {
			return fmt.Errorf("%s is a domain of libvirt's, and no VM yet: 'meta9 host adopt --libvirt %[1]s' makes it one and gives it its channel", name)
		}
	}
	return err
}

// systemLibvirt is the URI of the host's own libvirt.
const systemLibvirt = "qemu:///system"

// lines are the lines that attach the VM; d is its domain, if it has one.
func (v *attaching) lines(d *domain, hypervisor string) string {
	if d != nil {
		v.file = cmp.Or(d.file(), v.uuid)
	}
	return fmt.Sprintf("# VM %s (%s), for %s\n%s", v.name, v.uuid, hypervisor, hypervisors[hypervisor](v))
}

// attachLines are those of a VM for the hypervisor that is found here.
func (a *app) attachLines(ctx context.Context, c *client.Client, uuid string) (string, error) {
	v := &attaching{app: a, uri: systemLibvirt}
	if err := v.find(ctx, c, uuid); err != nil {
		return "", err
	}
	d, _ := v.domain(ctx) // without a libvirt there is none
	return v.lines(d, v.hypervisor(d)), nil
}

// plainName is what can be part of a path and of a command line as it is.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// find looks the VM up, by its UUID or its alias.
func (v *attaching) find(ctx context.Context, c *client.Client, name string) error {
	uuid, props, err := findVM(ctx, c, name)
	if err != nil {
		return err
	}
	v.uuid, v.name, v.file = uuid, props.Text(vm.PropAlias), uuid
	if v.name == "" || v.name == props.Text(vm.PropUnlinkedAlias) { // that one may be another VM's
		v.name = uuid
	}
	if plainName.MatchString(v.name) {
		v.file = v.name
	}
	if v.qemu[0] == 0 {
		if text, err := c.ReadFile(ctx, vmPath(uuid, "qmp", "version")); err == nil {
			v.qemu = saidVersion(text)
		}
	}
	if v.qemu[0] == 0 {
		v.qemu = installedQEMU(ctx)
	}
	return nil
}

// noVMError is that there is no VM of that name or UUID.
type noVMError string

func (e noVMError) Error() string {
	return fmt.Sprintf("there is no VM %s: 'meta9 vm list' has those that are known, and 'meta9 vm create' makes one", string(e))
}

// findVM is the UUID and the properties of a VM, by its UUID or its alias.
func findVM(ctx context.Context, c *client.Client, name string) (uuid string, props ordjson.Members, err error) {
	file := "/names/" + vm.FileName(name) + "/vm.json"
	if given, err := vm.ParseUUID(name); err == nil {
		file = vmPath(given, "vm.json")
	}
	text, err := c.ReadFile(ctx, file)
	if errors.Is(err, errs.NotFound) {
		return "", nil, noVMError(name)
	}
	if err != nil {
		return "", nil, about(name, err)
	}
	obj, err := ordjson.Parse(text)
	if err != nil || obj.Kind != ordjson.Object {
		return "", nil, fmt.Errorf("the server's vm.json of %s: %w", name, err)
	}
	uuid, err = vm.ParseUUID(obj.Members.Text(vm.PropUUID))
	return uuid, obj.Members, err
}

// hypervisor is the one that is found here. The domain d is nil where libvirt has none.
func (v *attaching) hypervisor(d *domain) string {
	if d != nil {
		return "libvirt"
	}
	if _, err := os.Stat("/etc/pve/qemu-server"); err == nil {
		return "proxmox"
	}
	return "qemu"
}

// saidVersion is the version in what query-version returned.
func saidVersion(text []byte) [2]int {
	var is struct {
		QEMU struct{ Major, Minor int } `json:"qemu"`
	}
	if json.Unmarshal(text, &is) != nil {
		return [2]int{}
	}
	return [2]int{is.QEMU.Major, is.QEMU.Minor}
}

var versionNumber = regexp.MustCompile(`\b(\d{1,3})\.(\d{1,3})\b`)

// qemuVersion is the version in a text such as "QEMU emulator version 7.2.22".
func qemuVersion(text string) (v [2]int) {
	if m := versionNumber.FindStringSubmatch(text); m != nil {
		v[0], _ = strconv.Atoi(m[1])
		v[1], _ = strconv.Atoi(m[2])
	}
	return v
}

// installedQEMU is the version of the QEMU of this host, for its own processor.
func installedQEMU(ctx context.Context) [2]int {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64", "ppc64le": "ppc64", "s390x": "s390x"}[runtime.GOARCH]
	for _, program := range []string{"qemu-system-" + arch, "kvm", "/usr/libexec/qemu-kvm"} {
		if out, err := exec.CommandContext(ctx, program, "--version").Output(); err == nil {
			return qemuVersion(string(out))
		}
	}
	return [2]int{}
}

// reconnect is the option of -chardev socket by which QEMU connects again each second:
// reconnect-ms is there from 9.2 on, where reconnect became deprecated; 10.2 removed it.
func (v *attaching) reconnect() (option, says string) {
	switch is := v.qemu; {
	case is[0] == 0:
		return "reconnect=1", "QEMU before 10.2; from 9.2 on reconnect-ms=1000 (no QEMU was found here)"
	case is[0] > 9 || is[0] == 9 && is[1] >= 2:
		return "reconnect-ms=1000", fmt.Sprintf("QEMU 9.2 and later; this one is %d.%d", is[0], is[1])
	default:
		return "reconnect=1", fmt.Sprintf("QEMU before 9.2; this one is %d.%d", is[0], is[1])
	}
}

// property is the line that sets the VM's property of a channel.
func (v *attaching) property(text string) string {
	return fmt.Sprintf("meta9 vm update %s %s\n", v.uuid, text)
}

// inGuest is what the guest's root does when the virtio-serial port is there.
const inGuest = `
# In the guest, as root. Its package meta9-guest mounts by itself; without it, copy this host's
# /usr/bin/meta9 into the guest, which is static, and there:
mkdir -p /metadata && meta9 mount /metadata
`

func (v *attaching) forQEMU() string {
	sock := "/run/vm/" + v.file + ".meta9"
	option, says := v.reconnect()
	return v.property("9p_chardev="+sock+",link") + `mkdir -p /run/vm

# Then start its QEMU with these arguments too. QEMU owns the socket; any version:
-device virtio-serial-pci -chardev socket,id=meta9,path=` + sock + `,server=on,wait=off -device virtserialport,chardev=meta9,name=meta9

# Or while it runs, in its monitor (HMP), if it has a virtio-serial-pci:
chardev-add socket,id=meta9,path=` + sock + `,server=on,wait=off
device_add virtserialport,id=meta9,chardev=meta9,name=meta9

# Or meta9d owns the socket, which must be QEMU's to open (9p_owner); no property is needed.
# ` + says + `:
-device virtio-serial-pci -chardev socket,id=meta9,path=` + v.run() + `/` + v.uuid + `/link.sock,` + option + ` -device virtserialport,chardev=meta9,name=meta9
` + inGuest
}

// run is meta9d's run folder, as far as its address shows it.
func (v *attaching) run() string {
	addr, err := v.address()
	if err == nil {
		addr, err = filepath.Abs(strings.TrimPrefix(addr, "unix:"))
	}
	if dir, ok := strings.CutSuffix(addr, "/admin.sock"); err == nil && ok {
		return dir
	}
	return "/run/meta9"
}

func (v *attaching) forProxmox() string {
	sock := "/run/meta9-vm/" + v.file + ".meta9"
	return notRun + v.property("9p_chardev="+sock+",link") + `mkdir -p /run/meta9-vm
VMID=$(basename -s .conf "$(grep -l 'uuid=` + v.uuid + `' /etc/pve/qemu-server/*.conf)")   # or set VMID yourself
qm set "$VMID" --args '-device virtio-serial-pci,id=meta9bus -chardev socket,id=meta9,path=` + sock + `,server=on,wait=off -device virtserialport,bus=meta9bus.0,chardev=meta9,name=meta9'
qm shutdown "$VMID" && qm start "$VMID"   # args are read at a start
` + inGuest
}

// vsockPort is the port that guests without a virtio-serial port connect to.
const vsockPort = 564

func (v *attaching) onVsock(sock string) string {
	return v.property(fmt.Sprintf("9p_listen=%s_%d vsock_unprivileged=true", sock, vsockPort)) +
		"# vsock_unprivileged: such a socket does not tell root in the guest from other users, so any\n" +
		"# user of the guest may have the VM's metadata. 9p_owner must be the user of the VM's process.\n"
}

// vsockGuest is what the guest's root does.
var vsockGuest = fmt.Sprintf(`
# In the guest, as root (2 is the host's CID):
mkdir -p /metadata && meta9 mount vsock:2:%d /metadata
`, vsockPort)

func (v *attaching) forFirecracker() string {
	sock := "/run/firecracker/" + v.file + ".vsock"
	return notRun + v.onVsock(sock) + `
# Before the VM is started, by its API socket (with the jailer, paths are those in its folder):
curl --unix-socket /run/firecracker/` + v.file + `.api -X PUT http://localhost/vsock \
  -H 'Content-Type: application/json' -d '{"guest_cid":3,"uds_path":"` + sock + `"}'
` + vsockGuest
}

func (v *attaching) forCloudHypervisor() string {
	sock := "/run/cloud-hypervisor/" + v.file + ".vsock"
	return notRun + v.onVsock(sock) + `
# Then start it with this argument too:
--vsock cid=3,socket=` + sock + `
` + vsockGuest
}
