package guest

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hugelgupf/p9/fsimpl/localfs"
	"github.com/hugelgupf/p9/p9"

	"meta9/tests/daemon"
	"meta9/tests/guest/machine"
	"meta9/tests/testenv"
)

// check makes a bar that is missed a failure.
var check = flag.Bool("check", false, "BenchmarkCat fails where a bar is missed")

// catBars are how long the first may take, as a multiple of the second, by the loop.
var catBars = []struct {
	is, of string
	most   float64
}{
	{"cached", "keeper", 1.0 / 3},
	{"cached", "direct", 1.0 / 3},
	{"cached", "virtio", 1.1},
	{"direct", "diod", 1.05}, // the twentieth is what two runs of the same server differ by
	{"direct", "p9", 1.05},
}

// BenchmarkCat is how long a guest takes for 1,000 times `cat` of a key: by a mount by FUSE
// that keeps it (cached), by v9fs with cache=none, through meta9 mount (keeper) and without
// (direct), and by v9fs from diod and from p9's server over the same small file, all over
// QEMU's user network; and by v9fs from QEMU's own virtio-9p. All are mounted in one guest
// and take turns, and the fastest round of each counts, since whatever else the machine does
// only adds to it.
//
// cat is cat(1), a process each time. To make one takes an emulated processor longer than
// most of these mounts take to answer, and it hides them: so what counts is the loop, which
// is what cat asks of a file (open, read to the end, close) from one process.
//
//	make bench-guest GUEST=-check
func BenchmarkCat(b *testing.B) {
	const times, rounds, catRounds = 1000, 7, 2
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "motd"), []byte("hello"), 0o644); err != nil {
		b.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	h := serve(b, daemon.Options{TCP: []string{"as=vm:" + uuid}})
	_, port, _ := net.SplitHostPort(h.TCPAddrs[0])
	g := Boot(b, machine.Options{
		Connect: "tcp:" + h.TCPAddrs[0], Via: machine.User, Files: map[string]string{"/bin/meta9": Static(b, "cmd/meta9")},
		QEMU: []string{"-fsdev", "local,id=peer,path=" + dir + ",security_model=none", "-device", "virtio-9p-pci,fsdev=peer,mount_tag=virtio"},
	})
	v9fs := func(options string) string { return "mount -t 9p -o version=9p2000.L,cache=none," + options }
	mounts := []struct{ name, command string }{
		{"cached", "meta9 mount --fuse -o aname=keys tcp:10.0.2.2:" + port},
		{"keeper", "meta9 mount -o aname=keys tcp:10.0.2.2:" + port},
		{"direct", v9fs("trans=tcp,aname=keys,port="+port) + " 10.0.2.2"},
		{"virtio", v9fs("trans=virtio") + " virtio"},
		{"diod", v9fs("trans=tcp,access=user,uname=root,aname="+dir+",port="+startDiod(b, dir)) + " 10.0.2.2"},
		{"p9", v9fs("trans=tcp,port="+startP9(b, dir)) + " 10.0.2.2"},
	}
	for _, m := range mounts {
		g.Sh(b, fmt.Sprintf("mkdir -p /mnt/%[1]s; %s /mnt/%[1]s && cat /mnt/%[1]s/motd", m.name, m.command))
	}
	loop, cat := make(map[string][]time.Duration), make(map[string][]time.Duration)
	for round := range b.N * rounds {
		for i := range mounts {
			name := mounts[(round+i)%len(mounts)].name
			out := g.Sh(b, fmt.Sprintf("GODEBUG=asyncpreemptoff=1 cats %d /mnt/%s/motd", times, name))
			took, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			loop[name] = append(loop[name], time.Duration(took))
			if round >= b.N*catRounds {
				continue
			}
			begin := time.Now()
			g.Sh(b, fmt.Sprintf("i=0; while [ $i -lt %d ]; do cat /mnt/%s/motd; i=$((i + 1)); done >/dev/null", times, name))
			cat[name] = append(cat[name], time.Since(begin))
		}
	}
	for _, m := range mounts {
		b.Logf("%-6s loop %.2f s, cat %.2f s; all rounds: %.2f, %.2f", m.name,
			slices.Min(loop[m.name]).Seconds(), slices.Min(cat[m.name]).Seconds(), seconds(loop[m.name]), seconds(cat[m.name]))
		b.ReportMetric(slices.Min(loop[m.name]).Seconds(), m.name+"-s/1000")
	}
	for _, bar := range catBars {
		ratio := slices.Min(loop[bar.is]).Seconds() / slices.Min(loop[bar.of]).Seconds()
		b.Logf("%s is %.2f of %s; %.2f is allowed", bar.is, ratio, bar.of, bar.most)
		if *check && ratio > bar.most {
			b.Errorf("%s is %.2f of %s; %.2f is allowed", bar.is, ratio, bar.of, bar.most)
		}
	}
}

func seconds(all []time.Duration) (s []float64) {
	for _, d := range all {
		s = append(s, d.Seconds())
	}
	return s
}

// startDiod serves dir by diod and gives its port.
func startDiod(b *testing.B, dir string) string {
	testenv.NeedDebian(b, "/usr/sbin/diod", "diod")
	addrs, err := daemon.FreeAddrs(1)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/diod", "-f", "-n", "-N", "-c", "/dev/null", "-l", addrs[0], "-e", dir)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testenv.Eventually(b, "diod listens", func() bool {
		c, err := net.Dial("tcp", addrs[0])
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	_, port, _ := net.SplitHostPort(addrs[0])
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
