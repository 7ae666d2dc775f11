package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"meta9/fs/vm"
	"meta9/fs/vm/ordjson"
	"meta9/session/client"
)

// domain is a VM of libvirt's, as virsh, its command line, describes it.
type domain struct {
	name      string
	state     string // "running", "paused", "shut off", ...
	transient bool   // it is gone when it is shut off, and has no configuration
	sock      string // path of the host's end of its channel meta9; "": it has no such channel
}

// virsh runs a command of virsh, and gives what it prints.
func virsh(ctx context.Context, uri string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", uri}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("virsh %s: %w", args[0], context.Cause(ctx))
		}
		if errors.Is(err, exec.ErrNotFound) {
			return "", errors.New("there is no virsh here, by which libvirt is asked (Debian: libvirt-clients)")
		}
		if text := strings.TrimSpace(said.String()); text != "" {
			err = errors.New(strings.TrimPrefix(strings.ReplaceAll(text, "\n", "; "), "error: "))
		}
		return "", fmt.Errorf("virsh %s: %w", args[0], err)
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

// domainUUIDs are the UUIDs of domains, by their names or UUIDs; of all where none is named.
func domainUUIDs(ctx context.Context, uri string, domains []string) (uuids []string, err error) {
	var texts []string
	if len(domains) == 0 {
		said, err := virsh(ctx, uri, "list", "--all", "--uuid")
		if err != nil {
			return nil, err
		}
		texts = strings.Fields(said)
	}
	for _, domain := range domains {
		info, err := dominfo(ctx, uri, domain)
		if err != nil {
			return nil, err
		}
		texts = append(texts, info["UUID"])
	}
	for _, text := range texts {
		uuid, err := vm.ParseUUID(text)
		if err != nil {
			return nil, fmt.Errorf("virsh: %w", err)
		}
		uuids = append(uuids, uuid)
	}
	return uuids, nil
}

// dominfo is what virsh says of a domain, by its name or its UUID (domuuid takes no UUID).
func dominfo(ctx context.Context, uri, domain string) (map[string]string, error) {
	said, err := virsh(ctx, uri, "dominfo", "--", domain)
	if err != nil {
		return nil, err
	}
	info := make(map[string]string)
	for line := range strings.Lines(said) {
		name, value, _ := strings.Cut(line, ":")
		info[name] = strings.TrimSpace(value)
	}
	return info, nil
}

// devices is what of a domain's XML is asked.
type devices struct {
	Channels []struct {
		Source struct {
			Mode string `xml:"mode,attr"`
			Path string `xml:"path,attr"`
		} `xml:"source"`
		Target struct {
			Name string `xml:"name,attr"`
		} `xml:"target"`
	} `xml:"devices>channel"`
	Controllers []struct {
		Type string `xml:"type,attr"`
	} `xml:"devices>controller"`
}

// devices are the domain's, as it runs or, with inactive, as it will be started.
func (v *attaching) devices(ctx context.Context, how ...string) (is devices, err error) {
	text, err := virsh(ctx, v.uri, append([]string{"dumpxml", v.uuid}, how...)...)
	if err == nil {
		err = xml.Unmarshal([]byte(text), &is)
	}
	return is, err
}

// sock is the path of the channel meta9; "": there is none.
func (is *devices) sock() (string, error) {
	for _, c := range is.Channels {
		switch {
		case c.Target.Name != "meta9":
		case c.Source.Mode != "bind":
			return "", fmt.Errorf("it has a channel meta9 that connects to %s: it needs no other", c.Source.Path)
		default:
			return c.Source.Path, nil
		}
	}
	return "", nil
}

// serial tells that there is a controller for channels. libvirt makes one where a domain
// is defined with a channel, but not where it is to attach one.
func (is *devices) serial() bool {
	for _, c := range is.Controllers {
		if c.Type == "virtio-serial" {
			return true
		}
	}
	return false
}

// domain asks libvirt for the VM's; nil with an error that says why there is none.
func (v *attaching) domain(ctx context.Context) (*domain, error) {
	info, err := dominfo(ctx, v.uri, v.uuid)
	if err != nil {
		return nil, err
	}
	d := &domain{name: info["Name"], state: info["State"], transient: info["Persistent"] == "no"}
	is, err := v.devices(ctx)
	if err != nil {
		return nil, err
	}
	if d.sock, err = is.sock(); err != nil {
		return nil, fmt.Errorf("domain %s: %w", d.name, err)
	}
	return d, nil
}

// on tells that the domain has a QEMU.
func (d *domain) on() bool { return d.state != "shut off" && d.state != "crashed" }

// file is the domain's name as far as it can be part of a path, else "".
func (d *domain) file() string {
	if plainName.MatchString(d.name) {
		return d.name
	}
	return ""
}

// libvirtSock is the path of the channel's socket: libvirt makes it, in a folder that its
// QEMUs' user owns.
func (v *attaching) libvirtSock() string {
	return "/var/lib/libvirt/qemu/" + v.file + ".meta9"
}

// serialXML is the controller of channels.
const serialXML = "<controller type='virtio-serial'/>\n"

// channelXML is the device that libvirt attaches.
func channelXML(sock string) string {
	var path strings.Builder
	_ = xml.EscapeText(&path, []byte(sock)) // a Builder takes all
	return "<channel type='unix'><source mode='bind' path='" + path.String() + "'/><target type='virtio' name='meta9'/></channel>\n"
}

func (v *attaching) forLibvirt() string {
	sock := v.libvirtSock()
	return `# No reboot is needed where the domain has a virtio-serial controller, as those of virt-install
# and virt-manager have. Any version of libvirt and QEMU. This does the same as all up to the guest:
#     meta9 vm attach --live ` + v.uuid + `
` + v.property("9p_chardev="+sock+",link") + `cat >meta9-channel.xml <<'.'
` + channelXML(sock) + `.
virsh attach-device ` + v.uuid + ` meta9-channel.xml --live --config   # without --live while it is shut off
` + inGuest
}

// attachLive gives the domain its channel and tells meta9d of it, or leaves both as they
// were.
func (v *attaching) attachLive(ctx context.Context, c *client.Client, d *domain) error {
	if !d.on() {
		return fmt.Errorf("the domain %s is %s: start it, or attach the channel for its next start by the lines that 'meta9 vm attach %s' prints", d.name, d.state, v.uuid)
	}
	done, err := v.attach(ctx, c, d)
	if err == nil {
		fmt.Fprintf(v.err, "VM %s: %s.\n%s", v.name, done, inGuest)
	}
	return err
}

// attach gives the domain its channel, at once if it is on and for its next starts, and
// tells meta9d of it.
func (v *attaching) attach(ctx context.Context, c *client.Client, d *domain) (done string, err error) {
	_, props, err := findVM(ctx, c, v.uuid)
	if err != nil {
		return "", err
	}
	before := props.Text(vm.Prop9PChardev)
	sock := d.sock
	if sock == "" {
		v.file = cmp.Or(d.file(), v.uuid)
		sock = v.libvirtSock()
	}
	if before != sock+",link" {
		if err := v.setChardev(ctx, c, sock+",link"); err != nil {
			return "", err
		}
	}
	attached, err := v.attachDevices(ctx, d, sock)
	switch {
	case errors.Is(err, client.ErrUnknown): // what libvirt makes of it must find the property
		return "", err
	case err != nil && !attached && d.sock == "":
		return "", errors.Join(err, v.setChardev(ctx, c, before))
	case errors.Is(err, errNoController):
		return "", fmt.Errorf("it will have its channel when it is shut down and started again: %w", err)
	case err != nil:
		return "", err
	case d.sock != "" && before == sock+",link":
		return "it has its channel already, " + sock, nil
	case d.sock != "":
		return "its channel was there already, and meta9d knows of it now: " + sock, nil
	case d.on():
		return "it has its channel now, " + sock, nil
	}
	return "it will have its channel when it is started, " + sock, nil
}

// setChardev sets the VM's 9p_chardev, or removes it for "".
func (v *attaching) setChardev(ctx context.Context, c *client.Client, text string) error {
	value := ordjson.Str(text)
	if text == "" {
		value = ordjson.Value{Kind: ordjson.Null}
	}
	change := ordjson.Value{Kind: ordjson.Object, Members: ordjson.Members{{Name: vm.Prop9PChardev, Value: value}}}
	return about(v.uuid, verb(ctx, c, vmPath(v.uuid, "ctl"), "update", change.AppendJSON(nil)))
}

// errNoController is why a domain that is on cannot get a channel: libvirt attaches
// channels to a running domain, but not their controller.
var errNoController = errors.New("it has no virtio-serial controller, which libvirt cannot add while it runs")

// attachDevices gives the domain what it has not yet of a channel and its controller, for
// its next starts and now. attached tells that it has one of them, whatever comes after.
func (v *attaching) attachDevices(ctx context.Context, d *domain, sock string) (attached bool, err error) {
	if !d.transient {
		if attached, err = v.attachConfig(ctx, d, sock); err != nil {
			return attached, err
		}
	}
	if !d.on() || d.sock != "" {
		return attached, nil
	}
	is, err := v.devices(ctx)
	if err == nil && !is.serial() {
		err = errNoController
	}
	if err == nil {
		err = v.attachDevice(ctx, channelXML(sock), "--live")
	}
	return attached || err == nil, err
}

// attachConfig is attachDevices for the domain's next starts.
func (v *attaching) attachConfig(ctx context.Context, d *domain, sock string) (attached bool, err error) {
	var how []string
	if d.on() {
		how = []string{"--inactive"}
	}
	is, err := v.devices(ctx, how...)
	if err != nil {
		return false, err
	}
	if has, err := is.sock(); has != "" || err != nil {
		return has != "", err
	}
	if !is.serial() {
		if err := v.attachDevice(ctx, serialXML, "--config"); err != nil {
			return false, err
		}
	}
	err = v.attachDevice(ctx, channelXML(sock), "--config")
	return err == nil, err
}

// attachDevice attaches one device, where flag says.
func (v *attaching) attachDevice(ctx context.Context, text, flag string) error {
	dir, err := os.MkdirTemp("", "meta9-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "device.xml") // virsh reads files alone
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_, err = virsh(ctx, v.uri, "attach-device", v.uuid, file, flag)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", client.ErrUnknown, err)
	}
	return err
}
