package mdata

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meta9/tests/httpunix"
	"meta9/tests/testenv"
)

// httpSock is the VM's socket that serves nocloud/ by HTTP.
func (h host) httpSock() string { return filepath.Join(h.Run(), recorded, "http.sock") }

// guestfwd does what QEMU's user networking does with guestfwd=tcp:ADDRESS-cmd:...: each
// connection to the address is one to the socket.
func guestfwd(t *testing.T, socket string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			guest, err := l.Accept()
			if err != nil {
				return
			}
			host, err := net.Dial("unix", socket)
			if err != nil {
				guest.Close()
				continue
			}
			go func() {
				io.Copy(host, guest)
				host.(*net.UnixConn).CloseWrite()
			}()
			go func() {
				io.Copy(guest, host)
				guest.Close()
				host.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// guestfwdOne does what QEMU does with guestfwd=tcp:ADDRESS-chardev:ID: all connections to
// the address, one after the other, go through one connection to the socket.
func guestfwdOne(t *testing.T, socket string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		host.Close()
	})
	var guest atomic.Pointer[net.Conn] // that is connected now
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := host.Read(buf)
			if err != nil {
				return
			}
			(*guest.Load()).Write(buf[:n])
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			guest.Store(&c)
			io.Copy(host, c)
			c.Close()
		}
	}()
	return l.Addr().String()
}

// TestCloudInitHTTP: Debian's cloud-init takes its seed from the VM's http.sock.
func TestCloudInitHTTP(t *testing.T) {
	h := cloudHost(t, `,"nocloud_http":true`)
	want := map[string]any{
		"found": true, "instance-id": recorded, "hostname": "cust-host",
		"public-keys": []any{"ssh-rsa AAAA test@x"}, "user-data": "#cloud-config\nhostname: by-user-data\n",
		"vendor-data": "#cloud-config\n{}\n",
	}
	for form, forward := range map[string]func(*testing.T, string) string{"cmd": guestfwd, "chardev": guestfwdOne} {
		seen := python(t, "datasource.py", "nocloud-net", "http://"+forward(t, h.httpSock())+"/", t.TempDir())
		delete(seen, "network")
		delete(seen, "interfaces")
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("%s (-want +got):\n%s", form, diff)
		}
	}
}

// TestNoCloudHTTP: the socket is there when the VM's property says so, shows nocloud/ and
// nothing else, changes nothing, and answers nobody who does not ask for its address.
func TestNoCloudHTTP(t *testing.T) {
	h := cloudHost(t, "")
	if _, err := os.Stat(h.httpSock()); err == nil {
		t.Error("a VM that does not ask for it has the socket")
	}
	set := func(on bool) {
		t.Helper()
		if err := h.Ctl(fmt.Sprintf(`update %s {"nocloud_http":%v}`, recorded, on)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Ctl(`update ` + recorded + ` {"nocloud_http":"yes"}`); err == nil {
		t.Error("a property that is no boolean was taken")
	}
	set(true)
	testenv.Eventually(t, "the socket is there", func() bool { _, err := os.Stat(h.httpSock()); return err == nil })

	client := httpunix.Client(h.httpSock())
	client.Timeout = 20 * time.Second
	defer client.CloseIdleConnections()
	ask := func(method, path, host string, body io.Reader, header ...string) (code int, text string, length int64) {
		t.Helper()
		r, err := http.NewRequest(method, "http://10.0.2.100"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Set(name, value)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.ContentLength
	}

	files := h.Conn("vms/" + recorded)
	for _, name := range []string{"meta-data", "user-data", "vendor-data", "network-config"} {
		want, err := files.Sread(0, "nocloud", name)
		if err != nil {
			t.Fatal(err)
		}
		if code, text, _ := ask("GET", "/"+name, "10.0.2.100", nil); code != 200 || text != string(want) {
			t.Errorf("%s: %d %q, wanted %q", name, code, text, want)
		}
		if code, text, n := ask("HEAD", "/"+name, "10.0.2.100", nil); code != 200 || text != "" || n != int64(len(want)) {
			t.Errorf("HEAD %s: %d %q, %d bytes", name, code, text, n)
		}
	}
	// It is as it is now, also when it is large.
	large := strings.Repeat("#cloud-config\n", 70_000)
	if err := files.Swrite(0, []byte(large), "keys", "cloud-init:user-data"); err != nil {
		t.Fatal(err)
	}
	if code, text, _ := ask("GET", "/user-data", "[fd00::1]:80", nil); code != 200 || text != large {
		t.Errorf("%d, %d bytes", code, len(text))
	}

	for _, c := range []struct {
		code               int
		method, path, host string
		body, header       string
	}{
		{405, "POST", "/user-data", "10.0.2.100", "", ""},
		{405, "PUT", "/user-data", "10.0.2.100", "x", ""},
		{405, "DELETE", "/user-data", "10.0.2.100", "", ""},
		{405, "OPTIONS", "/user-data", "10.0.2.100", "", ""},
		{400, "GET", "/user-data", "10.0.2.100", "x", ""},
		{403, "GET", "/user-data", "metadata.example.com", "", ""},
		{403, "GET", "/user-data", "10.0.2.100", "", "Origin: http://10.0.2.100"},
		{403, "GET", "/user-data", "10.0.2.100", "", "Sec-Fetch-Site: none"},
		{403, "GET", "/user-data", "10.0.2.100", "", "X-Forwarded-For: 10.0.0.1"},
		{404, "GET", "/", "10.0.2.100", "", ""},
		{404, "GET", "/vm.json", "10.0.2.100", "", ""},
		{404, "GET", "/vms", "10.0.2.100", "", ""},
		{404, "GET", "/keys/root_pw", "10.0.2.100", "", ""},
		{404, "GET", "/../keys/root_pw", "10.0.2.100", "", ""},
	} {
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		var header []string
		if c.header != "" {
			header = []string{c.header}
		}
		if code, text, _ := ask(c.method, c.path, c.host, body, header...); code != c.code || strings.Contains(text, "cloud-config") {
			t.Errorf("%+v: %d %.100q", c, code, text)
		}
	}

	// One VM has at most so many connections; who sends no head is cut off in the end.
	client.CloseIdleConnections()
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	testenv.Eventually(t, "one connection too many is closed", func() bool {
		c, err := net.Dial("unix", h.httpSock())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		return err == io.EOF
	})
	if n := len(held); n < 10 || n > 20 {
		t.Errorf("%d connections", n)
	}
	if _, err := fmt.Fprintf(held[0], "GET /meta-data HTTP/1.1\r\nHost: 10.0.2.100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	held[0].SetReadDeadline(time.Now().Add(20 * time.Second))
	if resp, err := http.ReadResponse(bufio.NewReader(held[0]), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("%+v, %v", resp, err)
	}

	// It goes with the property, and so do its connections.
	set(false)
	testenv.Eventually(t, "the socket is gone", func() bool { _, err := os.Stat(h.httpSock()); return os.IsNotExist(err) })
	for _, c := range held[1:2] {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection is still there: %v", err)
		}
	}
	if c, err := net.Dial("unix", h.VM(recorded)); err != nil {
		t.Errorf("the VM's other sockets: %v", err)
	} else {
		c.Close()
	}

	// A VM that is deleted has no connections.
	set(true)
	testenv.Eventually(t, "the socket is there", func() bool { _, err := os.Stat(h.httpSock()); return err == nil })
	c, err := net.Dial("unix", h.httpSock())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "HEAD /meta-data HTTP/1.1\r\nHost: 10.0.2.100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, &http.Request{Method: "HEAD"}); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%+v, %v", resp, err)
	}
	if err := h.Ctl("delete " + recorded); err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("a connection of a VM that is gone: %v", err)
	}
}
