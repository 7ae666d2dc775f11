// Package txn tests transactions of the real meta9d from outside: many who count in
// one key, and readers of every kind who must never find a part without the rest.
// tests/durability has them under SIGKILL, tests/guest the recipes over v9fs.
package txn

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"meta9/mdbridge/mdata"
	"meta9/session/wire"
	"meta9/tests/daemon"
	"meta9/tests/raw"
	"meta9/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var adds = flag.Int("adds", 1000, "how often TestCounter adds 1, over all clients")

var uuid = testenv.UUID(1)

// serve starts a meta9d with one VM.
func serve(t *testing.T, o daemon.Options) *testenv.Server {
	t.Helper()
	s := testenv.Start(t, o)
	s.NewVM(uuid, `{"uuid":"`+uuid+`","alias":"one","customer_metadata":{"n":"0"}}`)
	return s
}

// guest is a 9P2000.e connection of the VM's.
func guest(t *testing.T, s *testenv.Server) *raw.Conn {
	t.Helper()
	c, err := raw.Dial("unix", s.VM(uuid))
	if err == nil {
		err = daemon.Hello(c, "9P2000.e", "")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// canceled tells whether a condition did not hold.
func canceled(err error) bool {
	var refused *raw.Error
	return errors.As(err, &refused) && strings.HasPrefix(refused.Text, "Operation canceled: ")
}

// TestCounter: 64 clients, guests and admins, add to one key by compare and set; each
// try is two round trips, and none is lost.
func TestCounter(t *testing.T) {
	s := serve(t, daemon.Options{})
	var left, tries atomic.Int64
	left.Store(int64(*adds))
	var clients sync.WaitGroup
	for i := range 64 {
		c := s.Conn("vms/" + uuid)
		if i%2 == 0 {
			c = guest(t, s)
		}
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				n, err := add(c)
				tries.Add(n)
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	got, err := s.Conn("vms/"+uuid).Sread(0, "keys", "n")
	if err != nil || string(got) != strconv.Itoa(*adds) {
		t.Errorf("the sum is %s, want %d (%v)", got, *adds, err)
	}
	t.Logf("%d adds, %d tries", *adds, tries.Load())
	if tries.Load() == int64(*adds) {
		t.Error("nobody was ever in another's way")
	}
}

// add adds 1 to n, and gives how often it had to try.
func add(c *raw.Conn) (tries int64, err error) {
	for {
		tries++
		b, err := c.Sread(0, "keys", "n")
		if err != nil {
			return tries, err
		}
		n, err := strconv.Atoi(string(b))
		if err != nil {
			return tries, err
		}
		line := fmt.Sprintf(`{"if":[{"key":"n","value":"%d"}],"do":[{"put":"n","value":"%d"}]}`, n, n+1)
		if err := c.Swrite(0, []byte(line), "txn"); err == nil || !canceled(err) {
			return tries, err
		}
	}
}

// TestRoundTrip: by Tswrite ten keys are changed by one request, as meta9d counts them, and
// a transaction whose condition does not hold is one, too.
func TestRoundTrip(t *testing.T) {
	s := serve(t, daemon.Options{})
	c, counter := guest(t, s), s.Conn("")
	requests := func() (n int) {
		t.Helper()
		ctl, err := counter.Sread(0, "ctl")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(ctl), "\nrequests ")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatalf("ctl has no requests: %v\n%s", err, ctl)
		}
		return n
	}
	before := requests()
	reading := requests() - before // what it takes to ask
	var puts []string
	for i := range 10 {
		puts = append(puts, fmt.Sprintf(`{"put":"k%d","value":"v"}`, i))
	}
	for _, line := range []string{
		`{"do":[` + strings.Join(puts, ",") + `]}`,
		`{"if":[{"key":"k0","absent":true}],"do":[{"put":"k0","value":"w"}]}`,
	} {
		before := requests()
		if err := c.Swrite(0, []byte(line), "txn"); err != nil && !canceled(err) {
			t.Fatal(err)
		}
		if n := requests() - before - reading; n != 1 {
			t.Errorf("%d requests: %.60s", n, line)
		}
	}
	if b, err := c.Sread(0, "keys", "k9"); string(b) != "v" {
		t.Errorf("k9 is %q, %v", b, err)
	}
}

// TestWhole: while transactions give ten keys one number, and put or remove two keys
// together, no reader finds a key behind one that it read before, or one of the two
// without the other, by any way of reading.
func TestWhole(t *testing.T) {
	addrs, err := daemon.FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, daemon.Options{Memory: true, Args: []string{"--http", addrs[0]}})
	writer := guest(t, s)
	const rounds = 300
	done := make(chan struct{})
	write := func(n int) error {
		line := fmt.Appendf(nil, `{"do":[`)
		for _, key := range keys {
			line = fmt.Appendf(line, `{"put":%q,"value":"%d"},`, key, n)
		}
		two := `{"put":"one","value":"1"},{"put":"two","value":"2"}]}`
		if n%2 == 1 {
			two = `{"remove":"one"},{"remove":"two"}]}`
		}
		return writer.Swrite(0, append(line, two...), "txn")
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	fill(t, writer)
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for name, read := range map[string]reader{
		"a long listing":       pages(longGuest(t, s, "9P2000.e")),
		"a long listing in .L": pages(longGuest(t, s, "9P2000.L")),
		"files":                files(guest(t, s), "keys"),
		"a listing":            listing(guest(t, s)),
		"vm.json":              object(guest(t, s)),
		"nocloud":              files(s.Conn("vms/"+uuid), "nocloud"),
		"mdata":                protocol(t, filepath.Join(s.Run(), uuid, "mdata.sock")),
		"HTTP":                 api("http://" + addrs[0] + "/vms"),
		"HTTP of it":           api("http://" + addrs[0] + "/vms/" + uuid),
	} {
		readers.Go(func() {
			looks := 0
			for ended := false; !ended || looks == 0; looks++ {
				select {
				case <-done:
					ended = true
				default:
				}
				if err := read(); err != nil {
					t.Errorf("%s, at look %d: %v", name, looks, err)
					return
				}
			}
			t.Logf("%s: %d looks", name, looks)
		})
	}
	for n := 1; n <= rounds; n++ {
		if err := write(n); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	readers.Wait()
}

// keys get one number together; user-data and vendor-data show in nocloud/ as well.
var keys = []string{"user-data", "a", "b", "c", "d", "e", "f", "g", "h", "z"}

// reader looks once at all that a transaction changes, and judges it.
type reader func() error

// files reads the keys one after the other: each is as new as the one before.
func files(c *raw.Conn, folder string) reader {
	return func() error {
		last := -1
		for _, key := range keys {
			if folder == "nocloud" && key != keys[0] {
				folder = "keys"
			}
			b, err := c.Sread(0, folder, key)
			if err != nil {
				return err
			}
			if last, err = after(key, string(b), last); err != nil {
				return err
			}
		}
		return nil
	}
}

// fillers are so many that the folder takes many messages to list.
const fillers = 400

// fill puts them between the first of the keys and the last.
func fill(t *testing.T, c *raw.Conn) {
	t.Helper()
	line := []byte(`{"do":[{"remove":"z"}]}`)
	for i := range fillers {
		if i%100 == 0 {
			if err := c.Swrite(0, line, "txn"); err != nil {
				t.Fatal(err)
			}
			line = []byte(`{"do":[`)
		} else {
			line = append(line, ',')
		}
		line = fmt.Appendf(line, `{"put":"filler%d%s","value":""}`, i, strings.Repeat("x", 180))
		if i%100 == 99 {
			line = append(line, "]}"...)
		}
	}
	if err := c.Swrite(0, line, "txn"); err != nil {
		t.Fatal(err)
	}
}

// longGuest is a connection of the VM's with keys/ open as fid 1.
func longGuest(t *testing.T, s *testenv.Server, dialect string) (*raw.Conn, string) {
	t.Helper()
	c, err := raw.Dial("unix", s.VM(uuid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, _, err = c.Version(wire.MaxMsize, dialect); err != nil {
		t.Fatal(err)
	}
	if dialect == "9P2000.L" {
		_, err = c.RPC(wire.Tattach, 1, uint32(0), raw.NoFid, "", "", uint32(0))
	} else {
		err = c.Attach(0, "")
	}
	if err == nil {
		err = c.Walk(0, 1, "keys")
	}
	if err == nil && dialect == "9P2000.L" {
		_, err = c.RPC(wire.Tlopen, 1, uint32(1), uint32(0))
	} else if err == nil {
		err = c.Open(1, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, dialect
}

// pages lists keys/ in many messages. A transaction gives its keys consecutive revisions,
// which are their files' qid.version: so the listing shows each key at the same distance
// from the first.
func pages(c *raw.Conn, dialect string) reader {
	return func() error {
		versions := map[string]uint32{}
		messages := 0
		for at := uint64(0); ; messages++ {
			var b []byte
			var err error
			if dialect == "9P2000.L" {
				var r raw.Reply
				if r, err = c.RPC(wire.Treaddir, 1, uint32(1), at, uint32(8<<10)); err == nil {
					b = r.Data()
				}
			} else {
				b, err = c.Read(1, at, 8<<10)
			}
			if err != nil {
				return err
			}
			if len(b) == 0 {
				break
			}
			for len(b) > 0 {
				if dialect == "9P2000.L" { // qid[13] offset[8] type[1] name[s]
					n := 24 + int(binary.LittleEndian.Uint16(b[22:]))
					versions[string(b[24:n])] = binary.LittleEndian.Uint32(b[1:])
					at, b = binary.LittleEndian.Uint64(b[13:]), b[n:]
					continue
				}
				var d wire.Dir
				was := len(b)
				if d, b, err = wire.DecodeDir(b, wire.E); err != nil {
					return err
				}
				versions[d.Name] = d.QID.Version
				at += uint64(was - len(b))
			}
		}
		if len(versions) < fillers+len(keys) || messages < 10 {
			return fmt.Errorf("%d keys in %d messages", len(versions), messages)
		}
		first := versions[keys[0]]
		for i, key := range append(keys[:len(keys):len(keys)], "one", "two") {
			if v, ok := versions[key]; ok && v != first+uint32(i) {
				return fmt.Errorf("%s has version %d, %d after that of %s: they are of two moments", key, v, v-first, keys[0])
			}
		}
		_, one := versions["one"]
		_, two := versions["two"]
		if one != two {
			return both(1)
		}
		return nil
	}
}

// after is the number of a key, which must not be less than the one before.
func after(key, text string, last int) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && n < last {
		err = fmt.Errorf("%s is %d after a %d", key, n, last)
	}
	return n, err
}

// listing looks for one and two in the folder, which fits a message.
func listing(c *raw.Conn) reader {
	return func() error {
		b, err := c.Sread(0, "keys")
		if err != nil {
			return err
		}
		found := 0
		for len(b) > 0 {
			var d wire.Dir
			if d, b, err = wire.DecodeDir(b, wire.E); err != nil {
				return err
			}
			if d.Name == "one" || d.Name == "two" {
				found++
			}
		}
		return both(found)
	}
}

func both(found int) error {
	if found == 1 {
		return errors.New("one of two keys is there that come and go together")
	}
	return nil
}

// object reads vm.json.
func object(c *raw.Conn) reader {
	return func() error {
		b, err := c.Sread(0, "vm.json")
		if err != nil {
			return err
		}
		return same(b)
	}
}

// same judges a VM's JSON: all keys have one number.
func same(vm []byte) error {
	var o struct {
		Keys map[string]string `json:"customer_metadata"`
	}
	if err := json.Unmarshal(vm, &o); err != nil {
		return err
	}
	found := 0
	for _, key := range keys {
		if o.Keys[key] != o.Keys[keys[0]] {
			return fmt.Errorf("%s is %s, and %s is %s", key, o.Keys[key], keys[0], o.Keys[keys[0]])
		}
	}
	for _, key := range []string{"one", "two"} {
		if _, ok := o.Keys[key]; ok {
			found++
		}
	}
	return both(found)
}

// protocol speaks the metadata protocol: KEYS, and GET of one key after the other.
func protocol(t *testing.T, sock string) reader {
	t.Helper()
	c, err := mdata.Dial(t.Context(), sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func() error {
		list, err := c.Keys(t.Context())
		if err != nil {
			return err
		}
		found := 0
		for _, key := range list {
			if key == "one" || key == "two" {
				found++
			}
		}
		last := -1
		for _, key := range keys {
			b, err := c.Get(t.Context(), key)
			if err != nil {
				return err
			}
			if last, err = after(key, string(b), last); err != nil {
				return err
			}
		}
		return both(found)
	}
}

// api asks vminfod's HTTP API.
func api(url string) reader {
	return func() error {
		resp, err := http.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			return err
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("%s: %s", resp.Status, b)
		case b[0] != '[':
			return same(b)
		}
		var list []json.RawMessage
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		for _, vm := range list {
			if err := same(vm); err != nil {
				return err
			}
		}
		return nil
	}
}
