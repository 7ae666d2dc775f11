package machine

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"

	"meta9/tests/guest/kernel"
)

// files are the guest's init and two commands for scripts:
//
//	mount9p [-p PORT] DIR [OPTIONS]   mounts the server; of options that contradict
//	                                  each other the later wins
//	as UID COMMAND...                 runs a command as another user
//
//go:embed files
var files embed.FS

// pack writes the guest's initramfs.
func (m *Machine) pack(o Options, k kernel.Kernel) error {
	programs, err := kernel.Programs()
	if err != nil {
		return err
	}
	f, err := os.Create(m.path("initrd"))
	if err != nil {
		return err
	}
	defer f.Close()
	a := archive{w: cpio.NewWriter(f), made: map[string]bool{"/": true}}
	a.dir("/root")
	a.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	a.text("/etc/group", "root:x:0:\n")
	a.text("/run9p/settings", o.settings())
	a.text("/run9p/script", o.Script)
	for name, to := range map[string]string{"init": "/init", "mount9p": "/bin/mount9p", "as": "/bin/as"} {
		b, err := files.ReadFile("files/" + name)
		if err != nil {
			return err
		}
		a.text(to, string(b))
	}
	a.copy("/bin/busybox", filepath.Join(programs, "busybox"))
	for _, module := range k.Modules {
		a.copy("/lib/modules/"+filepath.Base(module), module)
	}
	if o.Debian {
		a.tree(filepath.Join(programs, "debian"))
	}
	for _, to := range slices.Sorted(maps.Keys(o.Files)) {
		a.copy(to, o.Files[to])
	}
	if a.err == nil {
		a.err = a.w.Close()
	}
	if a.err != nil {
		return fmt.Errorf("the initramfs: %w", a.err)
	}
	return f.Close()
}

// packRoot writes an initramfs of all that is in a folder but in mounts, with owners, modes
// and links.
func (m *Machine) packRoot(root string) error {
	cmd := exec.Command("sh", "-c", `find . -xdev -print0 | cpio --null --create --quiet --format=newc`)
	cmd.Dir = root
	f, err := os.Create(m.path("initrd"))
	if err != nil {
		return err
	}
	defer f.Close()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = f, &said
	if err := cmd.Run(); err != nil || said.Len() > 0 {
		return fmt.Errorf("cpio of %s: %w\n%s", root, err, said.Bytes())
	}
	return f.Close()
}

// settings is the shell text that sets what init, mount9p and the script read.
func (o *Options) settings() string {
	ports := 2 // the script's output and its exit status
	via, port := o.Via, ""
	switch {
	case o.Connect == "":
		via = "none"
	case o.Via == Serial:
		ports += o.Ports
	case o.Via == User:
		_, port, _ = net.SplitHostPort(strings.TrimPrefix(o.Connect, "tcp:"))
	}
	env := map[string]string{"NP_VIA": via, "NP_PORT": port, "NP_PORTS": fmt.Sprint(ports), "NP_INPUT": ""}
	if o.Input {
		env["NP_INPUT"] = "1"
	}
	maps.Copy(env, o.Env)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "export %s='%s'\n", name, strings.ReplaceAll(env[name], "'", `'\''`))
	}
	return b.String()
}

// archive is an initramfs that is being written. After an error nothing more is.
type archive struct {
	w    *cpio.Writer
	made map[string]bool // folders that are in it
	err  error
}

func (a *archive) add(h cpio.Header, body []byte) {
	if a.err == nil {
		h.Name, h.Size = strings.TrimPrefix(h.Name, "/"), int64(len(body))
		a.err = a.w.WriteHeader(&h)
	}
	if a.err == nil {
		_, a.err = a.w.Write(body)
	}
}

// dir makes a folder with those that it is in.
func (a *archive) dir(name string) {
	if a.made[name] {
		return
	}
	a.dir(path.Dir(name))
	a.made[name] = true
	a.add(cpio.Header{Name: name, Mode: cpio.TypeDir | 0o755}, nil)
}

// text makes a file that may be run.
func (a *archive) text(name, text string) {
	a.dir(path.Dir(name))
	a.add(cpio.Header{Name: name, Mode: cpio.TypeReg | 0o755}, []byte(text))
}

// copy makes a file of the host's one.
func (a *archive) copy(name, from string) {
	b, err := os.ReadFile(from)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.text(name, string(b))
}

// tree makes all that is in a folder of the host's.
func (a *archive) tree(root string) {
	err := filepath.WalkDir(root, func(from string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(from, root)
		switch {
		case err != nil:
			return err
		case d.IsDir():
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(from)
			if err != nil {
				return err
			}
			a.dir(path.Dir(name))
			a.add(cpio.Header{Name: name, Mode: cpio.TypeSymlink | 0o777, Linkname: to}, []byte(to))
		default:
			a.copy(name, from)
		}
		return a.err
	})
	if a.err == nil {
		a.err = err
	}
}
