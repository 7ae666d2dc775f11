package hostile

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meta9/mdbridge/mdata"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/httpunix"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

// Eight VMs speak whole sessions of everything that there is to speak, at once and at
// random: all dialects of 9P with sessions, take-overs and packets, the metadata
// protocol, QMP and HTTP, and bytes that are nothing. The bystander is served
// meanwhile, and what it costs is bounded and given back.

const (
	hostileVMs = 8
	speakers   = 6 // of each
)

// fuzzed is a target with eight hostile VMs, each with some keys.
type fuzzed struct {
	*target
	qmp  string
	said atomic.Int64 // sessions that were spoken
	ways [numWays]atomic.Int64
}

func newFuzzed(t *testing.T) *fuzzed {
	t.Helper()
	dir, err := os.MkdirTemp("", "m9q-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fuzzed{qmp: filepath.Join(dir, "qmp.sock")}
	srv := testenv.Start(t, daemon.Options{Config: "[session]\nlifetime = \"2s\"\n", Args: []string{"--qmp-listen", "unix:" + f.qmp}})
	f.target = &target{Server: srv, t: t}
	for i := range hostileVMs + 1 {
		srv.NewVM(testenv.UUID(i), fmt.Sprintf(`{"uuid":%q,"customer_metadata":{"key":%q,"a":"1","b":"2"},"internal_metadata":{"root_pw":"x"}}`, testenv.UUID(i), value))
	}
	f.bystander = f.attached(innocent)
	f.fds, _ = srv.FDs()
	f.rss, _ = srv.RSS()
	return f
}

// vms are the hostile ones: all but the bystander's.
func (f *fuzzed) vms() (list []int) {
	for i := range hostileVMs + 1 {
		if i != innocent {
			list = append(list, i)
		}
	}
	return list
}

// round has all speak for a while.
func (f *fuzzed) round(seed, n uint64, long time.Duration) {
	end := f.watch()
	var wg sync.WaitGroup
	until := time.Now().Add(long)
	for _, vm := range f.vms() {
		for i := range speakers {
			wg.Go(func() {
				s := speaker{f, storm{f.target, vm, rand.New(rand.NewPCG(seed, n<<16|uint64(vm)<<8|uint64(i)))}}
				for time.Now().Before(until) && !f.t.Failed() {
					if err := s.speak(); err != nil {
						f.t.Errorf("seed %d, round %d, VM %d, speaker %d: %v", seed, n, vm, i, err)
					}
					f.said.Add(1)
				}
			})
		}
	}
	wg.Wait()
	end()
}

// goroutines is how many meta9d has.
func (f *fuzzed) goroutines() (int, error) { return f.metric("go_goroutines") }

// metric is a figure of /metrics.
func (g *target) metric(name string) (int, error) {
	c := g.web()
	c.Timeout = 20 * time.Second
	defer c.CloseIdleConnections()
	r, err := c.Get("http://meta9d/metrics")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	for sc := bufio.NewScanner(r.Body); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), name+" "); ok {
			return strconv.Atoi(v)
		}
	}
	return 0, fmt.Errorf("no %s in /metrics", name)
}

func (g *target) web() *http.Client { return httpunix.Client(filepath.Join(g.Run(), "vminfo.sock")) }

// speaker is one of a hostile VM's programs.
type speaker struct {
	*fuzzed
	storm
}

const numWays = 7

// speak is one session, in one of the ways that there are. That the server hangs up is
// its right.
func (s speaker) speak() error {
	way := s.IntN(numWays)
	s.ways[way].Add(1)
	var err error
	switch way {
	case 0:
		err = s.storm.round(s.IntN(3) == 0)
	case 1:
		err = s.plain()
	case 2:
		err = s.mdata()
	case 3:
		err = s.monitor()
	case 4:
		err = s.get()
	case 5:
		err = s.noise()
	case 6:
		err = s.hold()
	}
	if errors.Is(err, errLeak) {
		return err
	}
	return nil
}

// plain is a session of the dialects that have none.
func (s speaker) plain() error {
	c, err := s.connect(false)
	if err != nil {
		return err
	}
	defer c.Close()
	m := maker{s.Rand, s.pick("9P2000", "9P2000.u", "9P2000.L", "9P2000.e")}
	for range 1 + s.IntN(3) { // a Tversion begins anew
		if _, _, err := c.Version(uint32(4096<<s.IntN(6)), m.version); err != nil {
			return err
		}
		if err := s.burst(c, m); err != nil {
			return err
		}
	}
	return nil
}

func (s speaker) pick(of ...string) string { return of[s.IntN(len(of))] }

// mdata asks by the metadata protocol, in both versions, rightly and not.
func (s speaker) mdata() error {
	c, err := net.Dial("unix", s.socketOf(s.storm.vm, "mdata.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	var out []byte
	for range 1 + s.IntN(20) {
		code, payload := s.pick("GET", "PUT", "DELETE", "KEYS", "NEGOTIATE", "V2", "FOO"), s.pick("key", "a", "sdc:uuid", "root_pw", "", "a2V5 dmFsdWU=", "\xff\xfe", "key value")
		switch s.IntN(4) {
		case 0:
			out = append(out, code+" "+payload+"\n"...)
		case 1:
			out = append(out, "V2 "+strconv.Itoa(s.IntN(100))+" deadbeef 1 "+code+"\n"...)
		default:
			out = mdata.AppendFrame(out, fmt.Appendf(nil, "%x", s.Uint32()), code, []byte(payload))
		}
	}
	return s.exchange(c, out)
}

// monitor is QMP, which is the admin's, by whoever has its socket.
func (s speaker) monitor() error {
	c, err := net.Dial("unix", s.qmp)
	if err != nil {
		return err
	}
	defer c.Close()
	out := `{"execute":"qmp_capabilities"}`
	for range s.IntN(10) {
		args := map[string]any{"uuid": testenv.UUID(s.storm.vm), "path": s.pick("/vms", "/vms/x", ""), "key": s.pick("a", "b", "%", ""), "value": s.pick("x", "", "\x00")}
		line, _ := json.Marshal(map[string]any{"id": s.IntN(10), "arguments": args, "execute": s.pick("query-status", "query-commands", "query-name", "vm-get", "metadata-get", "metadata-set", "metadata-list", "query-qmp-schema", "stop", "nonsense")})
		if s.IntN(5) == 0 {
			line = line[:s.IntN(len(line))]
		}
		out += string(line) + s.pick("", "\n", " ", "\xff")
	}
	return s.exchange(c, []byte(out))
}

// get asks by HTTP, for things that cost, and does not always wait for them.
func (s speaker) get() error {
	c := s.web()
	c.Timeout = time.Duration(20+s.IntN(500)) * time.Millisecond
	defer c.CloseIdleConnections()
	query := url.Values{}
	for range s.IntN(4) {
		query.Add(s.pick("alias", "state", "uuid", "fields", "since", "predicate"), s.pick("~(?:.{100}){20}", "~^[a-z]+$", "running", "*", "99999999999", `{"eq":["a",1]}`, "~(", strings.Repeat("x", s.IntN(3000))))
	}
	u := "http://meta9d" + s.pick("/vms", "/vms/"+testenv.UUID(s.storm.vm), "/events", "/ping", "/status", "/metrics", "/readyz", "/nothing", "/vms/..%2f") + "?" + query.Encode()
	req, err := http.NewRequest(s.pick("GET", "GET", "GET", "POST", "HEAD", "DELETE"), u, nil)
	if err != nil {
		return err
	}
	if s.IntN(5) == 0 {
		req.Header.Set("Origin", "http://elsewhere")
	}
	r, err := c.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.CopyN(io.Discard, r.Body, int64(s.IntN(1<<16)))
	return err
}

// noise is bytes without meaning, at one of the VM's sockets, some after a good
// beginning.
func (s speaker) noise() error {
	c, err := net.Dial("unix", s.socketOf(s.storm.vm, s.pick("9p.sock", "link.sock", "mdata.sock")))
	if err != nil {
		return err
	}
	defer c.Close()
	var out []byte
	if s.IntN(2) == 0 {
		out = raw.Frame(wire.Tversion, raw.NoTag, uint32(8192), "9P2000.L.e")
	}
	for range s.IntN(2000) {
		out = append(out, byte(s.Uint32()))
	}
	return s.exchange(c, out)
}

// hold opens many fids, truncates keys and reads events that do not come, and is gone,
// or stands still for a while.
func (s speaker) hold() error {
	c, err := s.connect(false)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := daemon.Hello(c, "9P2000.e", ""); err != nil {
		return err
	}
	var out []byte
	n := 1 + s.IntN(300)
	for i := range n {
		fid, tag := uint32(10+i), uint16(3*i%900)
		out = raw.Append(out, wire.Twalk, tag, uint32(0), fid, [][]string{{"events"}, {"keys", "a"}, {"keys"}}[s.IntN(3)])
		out = raw.Append(out, wire.Topen, tag+1, fid, []uint8{0, 1, 0x11}[s.IntN(3)])
		out = raw.Append(out, wire.Tread, tag+2, fid, uint64(0), uint32(s.IntN(1<<16)))
	}
	return s.exchange(c.Net, out)
}

// exchange sends, reads what comes for a moment, and hangs up.
func (s speaker) exchange(c net.Conn, out []byte) error {
	c.SetDeadline(time.Now().Add(time.Duration(5+s.IntN(100)) * time.Millisecond))
	if _, err := c.Write(out); err != nil {
		return err
	}
	in, err := io.ReadAll(io.LimitReader(c, int64(s.IntN(1<<17))))
	if strings.Contains(string(in), marker) {
		return errLeak
	}
	return err
}

// settled wants everything given back that the rounds took.
func (f *fuzzed) settled(goroutines int) {
	f.t.Helper()
	testenv.Eventually(f.t, "the goroutines of hostile connections end", func() bool {
		n, err := f.goroutines()
		return err == nil && n <= goroutines+20
	})
	f.survived()
}

// TestSessions is the short form of make soak SOAK=sessions.
func TestSessions(t *testing.T) {
	f := newFuzzed(t)
	goroutines, err := f.goroutines()
	if err != nil {
		t.Fatal(err)
	}
	f.round(*seed, 0, 4*time.Second)
	f.settled(goroutines)
	for way := range f.ways {
		if f.ways[way].Load() == 0 {
			t.Errorf("nobody spoke in way %d", way)
		}
	}
	t.Logf("%d sessions", f.said.Load())
}
