package guest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hugelgupf/p9/fsimpl/localfs"
	"github.com/hugelgupf/p9/p9"

	"meta9/tests/daemon"
	"meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// BenchmarkCat is how long a guest takes for 1,000 times `cat` of a key, over
// QEMU's user network, from meta9d, from diod and from p9's server over the same
// small file; QEMU's own virtio-9p is beside them. The servers take turns in one
// guest, and the fastest of the rounds counts, since whatever else the machine does
// only adds to it. meta9d is to be no slower than the faster of the two, within the
// twentieth that two runs of the same server differ by.
//
//	make bench-guest
func BenchmarkCat(b *testing.B) {
	const times, rounds = 1000, 5
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "motd"), []byte("hello"), 0o644); err != nil {
		b.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	h := serve(b, daemon.Options{TCP: []string{"as=admin"}})
	_, port, _ := net.SplitHostPort(h.TCPAddrs[0])
	options := map[string]string{
		"meta9d": "trans=tcp,aname=vms/" + uuid + "/keys,port=" + port,
		"diod":   "trans=tcp,access=user,uname=root,aname=" + dir + ",port=" + startDiod(b, dir),
		"p9":     "trans=tcp,port=" + startP9(b, dir),
		"virtio": "trans=virtio",
	}
	g := Boot(b, machine.Options{
		Connect: "tcp:" + h.TCPAddrs[0], Via: machine.User,
		QEMU: []string{"-virtfs", "local,path=" + dir + ",mount_tag=virtio,security_model=none"},
	})
	for name, o := range options {
		source := "10.0.2.2"
		if name == "virtio" {
			source = "virtio" // the mount_tag
		}
		g.Sh(b, fmt.Sprintf("mkdir -p /mnt/%[1]s; mount -t 9p -o version=9p2000.L,cache=none,%s %s /mnt/%[1]s", name, o, source))
	}
	took := map[string][]time.Duration{}
	for range b.N * rounds {
		for name := range options {
			begin := time.Now()
			g.Sh(b, fmt.Sprintf("i=0; while [ $i -lt %d ]; do cat /mnt/%s/motd; i=$((i + 1)); done >/dev/null", times, name))
			took[name] = append(took[name], time.Since(begin))
		}
	}
	fastest := func(name string) float64 { return slices.Min(took[name]).Seconds() }
	for name := range options {
		b.Logf("%s: %v", name, took[name])
		b.ReportMetric(fastest(name), name+"-s/1000")
	}
	if best := min(fastest("diod"), fastest("p9")); fastest("meta9d") > 1.05*best {
		b.Errorf("meta9d takes %.2f s, the faster peer %.2f s", fastest("meta9d"), best)
	}
}

// freePort is a loopback port that nobody listens on now.
func freePort(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// startDiod serves dir by diod and gives its port.
func startDiod(b *testing.B, dir string) string {
	testenv.NeedDebian(b, "/usr/sbin/diod", "diod")
	port := freePort(b)
	cmd := exec.Command("/usr/sbin/diod", "-f", "-n", "-N", "-c", "/dev/null", "-l", "127.0.0.1:"+port, "-e", dir)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testenv.Eventually(b, "diod listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return port
}

// startP9 serves dir by p9's server, as p9ufs does, and gives its port.
func startP9(b *testing.B, dir string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	s := p9.NewServer(localfs.Attacher(dir))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.Handle(c, c)
		}
	}()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
