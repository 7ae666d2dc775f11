package guest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// long is the rest: what is tried with 9p2000.L and cache=none.
var long = []step{
	{"dd", func(t *testing.T, m *mount) {
		m.ok(t, "dd if=/dev/urandom of=/tmp/src bs=1000 count=50 2>/dev/null")
		m.ok(t, "head -c 300 /tmp/src >/tmp/few; dd if=/tmp/few of=odd bs=1 2>/dev/null; cmp odd /tmp/few")
		for _, bs := range []int{333, 777, 4096, 131072} {
			m.ok(t, fmt.Sprintf("dd if=/tmp/src of=odd bs=%d 2>/dev/null; cmp odd /tmp/src", bs))
			m.ok(t, fmt.Sprintf("dd if=odd bs=%d 2>/dev/null | cmp - /tmp/src", bs))
		}
		m.ok(t, "printf 0123456789 > odd; printf abc | dd of=odd bs=1 seek=4 conv=notrunc 2>/dev/null")
		m.stored(t, "odd", "0123abc789")
		m.ok(t, "printf x | dd of=odd bs=1 seek=12 conv=notrunc 2>/dev/null")
		m.stored(t, "odd", "0123abc789\x00\x00x")
	}},
	{"mkdir", func(t *testing.T, m *mount) {
		m.fails(t, "mkdir d", "Operation not permitted")
		m.fails(t, "mkdir ../d", "Operation not permitted")
		m.fails(t, "mkdir ../sdc/d", "Read-only file system")
		m.fails(t, "mkdir ../keys", "File exists")
		m.fails(t, "rmdir ../keys", "Directory not empty")
		m.fails(t, "rm -r ../sdc", "Read-only file system")
	}},
	{"refused", func(t *testing.T, m *mount) {
		m.fails(t, "echo x > ../vm.json", "Permission denied")
		m.fails(t, "echo x > ../sdc/uuid", "Permission denied")
		m.fails(t, "echo x > ../sdc/new", "Read-only file system")
		m.fails(t, "echo x > ../new", "Operation not permitted")
		m.fails(t, "echo x > root_pw", "Operation not permitted")
		m.fails(t, "ln -s motd l", "Operation not permitted")
		m.fails(t, "mkfifo p", "Operation not permitted")
		m.fails(t, "ln motd l", "Operation not permitted")
		m.fails(t, "echo x > "+strings.Repeat("n", 256), "File name too long")
		m.fails(t, "cat ../ctl", "No such file")
	}},
	{"mv elsewhere", func(t *testing.T, m *mount) { // EXDEV: mv copies and removes
		m.ok(t, "echo secret > plain && mv plain ../internal/root_pw")
		m.absent(t, "plain")
		m.says(t, "cat ../internal/root_pw", "secret")
		m.ok(t, "rm ../internal/root_pw")
	}},
	{"chmod", func(t *testing.T, m *mount) {
		m.ok(t, "echo x > mode && chmod 640 mode")
		m.says(t, "stat -c %a mode", "640")
		if d := m.host.stat(t, "mode"); d.Mode != 0o640 {
			t.Errorf("the host sees mode %o", d.Mode)
		}
		m.ok(t, "chown 0:0 mode")
		m.fails(t, "chown 1000 mode", "Operation not permitted")
	}},
	{"touch", func(t *testing.T, m *mount) {
		before := time.Now().Unix()
		m.ok(t, "touch touched")
		m.stored(t, "touched", "")
		m.ok(t, "echo v > touched; touch -d '2020-01-02 03:04:05' touched")
		m.says(t, "stat -c '%Y %s' touched", "1577934245 2")
		if d := m.host.stat(t, "touched"); d.Mtime != 1577934245 {
			t.Errorf("the host sees mtime %d", d.Mtime)
		}
		m.ok(t, "touch touched")
		if d := m.host.stat(t, "touched"); int64(d.Mtime) < before {
			t.Errorf("after touch the host sees mtime %d", d.Mtime)
		}
		m.stored(t, "touched", "v\n")
	}},
	{"stat", func(t *testing.T, m *mount) {
		m.ok(t, "printf 12345 > st")
		d := m.host.stat(t, "st")
		m.says(t, "stat -c '%i %s %h %u %g %F %a' st", fmt.Sprintf("%d 5 1 0 0 regular file 600", ino(d.QID.Path)))
		m.says(t, "stat -c '%F %a %u' ..", "directory 755 0")
		m.says(t, "stat -f -c '%S %c' .", "1024 4096")
	}},
	{"cp and diff", func(t *testing.T, m *mount) {
		m.ok(t, "rm -rf /tmp/copy; echo 1 > c1; echo 2 > c2; cp -r . /tmp/copy && diff -r . /tmp/copy")
		m.ok(t, "echo changed > /tmp/copy/c1; cp -r /tmp/copy/. . && diff -r . /tmp/copy")
		m.stored(t, "c1", "changed\n")
		m.ok(t, "rm -rf /tmp/all; cp -a .. /tmp/all && diff -r .. /tmp/all")
	}},
	{"grep whole", func(t *testing.T, m *mount) { // nothing that blocks is in its way
		m.ok(t, "grep -r "+uuid+" .. >/dev/null")
		m.ok(t, "find .. -type f -exec cat {} + >/dev/null")
		m.ok(t, "tar -cf /tmp/all.tar .. 2>/dev/null && tar -tf /tmp/all.tar | grep keys/motd")
	}},
	{"tools", func(t *testing.T, m *mount) {
		m.ok(t, "echo x > raw && direct raw 'past the cache'")
		m.stored(t, "raw", "past the cache")
		m.ok(t, "rm -f once; excl once")
		m.fails(t, "excl once", "file exists")
		m.says(t, "xattr motd", "operation not supported operation not supported operation not supported")
		m.fails(t, "mmapset raw P", m.either("invalid argument", "no such device")) // what cache=none means
	}},
	{"operations", func(t *testing.T, m *mount) { m.ok(t, "fsx fsx -seed 20121217 -steps 100") }},
	{"refusals", func(t *testing.T, m *mount) { m.ok(t, "posix .") }},
	{"names", escapedNames},
	{"1000 keys", manyKeys},
	{"100 processes", parallel},
	{"events", events},
	{"removed while open", func(t *testing.T, m *mount) {
		m.ok(t, "echo before > open")
		out := m.ok(t, `exec 3<open 4>>open; rm open; cat <&3; echo after >&4 || echo refused`)
		if !strings.HasPrefix(out, "before\n") || !strings.Contains(out, "refused") {
			t.Errorf("got %q", out)
		}
		m.absent(t, "open")
	}},
	{"flock", flocked},
	{"two mounts", twoMounts},
	{"two users", twoUsers},
	{"interrupted", func(t *testing.T, m *mount) { // Tflush
		wait := m.either("cat ../events", "dd if=../events")
		m.fails(t, "timeout 1 "+wait, "")
		m.says(t, "cat motd", "hello")
		m.ok(t, "timeout -s KILL 1 "+wait+"; true")
		m.says(t, "cat motd", "hello")
	}},
	{"full", func(t *testing.T, m *mount) {
		m.fails(t, "for i in $(seq 17); do : > fill$i; truncate -s 1048576 fill$i || exit 1; done", "No space left")
		m.ok(t, "rm fill*; echo room > again")
		m.stored(t, "again", "room\n")
	}},
}

// ino is what v9fs makes of a qid path.
func ino(path uint64) uint64 { return path + 2 }

// escapedNames: keys whose names a file cannot have come with their escapes, and
// nothing but the canonical spelling names one.
func escapedNames(t *testing.T, m *mount) {
	for key, file := range map[string]string{
		"a/b": "a%2Fb", "100%": "100%25", ".": "%2E", "..": "%2E%2E", "a%2Fb": "a%252Fb",
		"...": "...", ".hidden": ".hidden", "with a blank": "with a blank", "grün": "grün",
		"q'\"$`\\*?[]{}()<>|&;!#~^=+,:@-_": "q'\"$`\\*?[]{}()<>|&;!#~^=+,:@-_",
		strings.Repeat("n", 255):           strings.Repeat("n", 255),
		strings.Repeat("/", 85):            strings.Repeat("%2F", 85),
	} {
		quoted := "'" + strings.ReplaceAll(file, "'", `'\''`) + "'"
		m.ok(t, "echo v > ./"+quoted)
		m.stored(t, file, "v\n")
		m.ok(t, "find . | grep -qxF -e ./"+quoted) // ls writes ? for what is not ASCII
		m.says(t, "cat ./"+quoted, "v")
		if json, err := m.host.admin.Sread(0, "vm.json"); err != nil || !strings.Contains(string(json), fmt.Sprintf("%q", key)) {
			t.Errorf("vm.json has no key %q (%v)", key, err)
		}
		m.ok(t, "rm ./"+quoted)
	}
	m.fails(t, "echo x > a%2fb", "Invalid argument")
	m.fails(t, "echo x > %41", "Invalid argument")
	m.fails(t, "echo x > 'blank '", "Invalid argument")
	m.fails(t, `echo x > "$(printf 'a\001b')"`, "Invalid argument")
	m.fails(t, "cat %6Dotd", "No such file")
}

func manyKeys(t *testing.T, m *mount) {
	m.ok(t, "for i in $(seq 1000); do echo $i > many$i || exit 1; done")
	m.says(t, "ls | grep -c ^many", "1000")
	m.stored(t, "many1", "1\n")
	m.stored(t, "many1000", "1000\n")
	m.says(t, "cat many* | sort -n | md5sum", strings.TrimSpace(m.ok(t, "seq 1000 | md5sum")))
	m.ok(t, "rm many*")
	m.says(t, "ls | grep -c ^many; true", "0")
}

// parallel: 100 processes at once, each with a key of its own and one that all
// append to.
func parallel(t *testing.T, m *mount) {
	m.ok(t, `: > log
for i in $(seq 100); do
  ( echo v$i > par$i && echo line$i >> log && cat par$i >/dev/null && mv par$i moved$i ) &
done
wait`)
	m.says(t, "ls | grep -c ^moved", "100")
	value, _ := m.host.value(t, "log")
	lines := map[string]bool{}
	for line := range strings.Lines(value) {
		lines[line] = true
	}
	if len(lines) != 100 || strings.Count(value, "\n") != 100 {
		t.Errorf("of 100 appended lines %d are there", len(lines))
	}
	for i := 1; i <= 100; i += 33 {
		m.stored(t, fmt.Sprintf("moved%d", i), fmt.Sprintf("v%d\n", i))
	}
	m.ok(t, "rm moved* log")
}

// events: each line comes as it happens, and what came before was not there.
func events(t *testing.T, m *mount) {
	m.ok(t, m.either("cat ../events", "dd if=../events bs=64k")+" >/tmp/events 2>/tmp/dd & echo $! >/tmp/events.pid; sleep 0.5")
	m.fails(t, "test -s /tmp/events", "")
	for i := range 3 {
		m.host.put(t, "watched", fmt.Sprint(i))
		deadline := time.Now().Add(20 * time.Second)
		for strings.TrimSpace(m.ok(t, "grep -c watched /tmp/events; true")) != fmt.Sprint(i+1) {
			if time.Now().After(deadline) {
				t.Fatalf("event %d has not come: %s", i, m.ok(t, "cat /tmp/events"))
			}
		}
	}
	m.ok(t, "echo own > watched; sleep 0.2")
	m.ok(t, "kill $(cat /tmp/events.pid)")
	m.says(t, "grep -c watched /tmp/events", "4")
	m.says(t, "nonblock ../events", "resource temporarily unavailable")
}

// flocked: processes of one mount, then of two, wait for each other.
func flocked(t *testing.T, m *mount) {
	m.ok(t, "echo 0 > count; : > lock")
	m.ok(t, `for i in $(seq 4); do (
  for n in $(seq 10); do (
    flock 9 || exit 1
    v=$(cat count); echo $((v + 1)) > count
  ) 9>lock; done
) & done; wait`)
	m.stored(t, "count", "40\n")
	m.ok(t, "exec 9>lock; flock 9; (exec 8>lock; flock -n 8) && exit 1; flock -u 9; exec 8>lock; flock -n 8")
	m.ok(t, "exec 9<lock; flock -s 9; exec 8<lock; flock -s -n 8 || exit 1; exec 7<lock; ! flock -n 7")
}

// twoMounts sees the writes and the locks of one mount through another.
func twoMounts(t *testing.T, m *mount) {
	other := *m
	other.dir, other.port = m.dir+"-2", 1
	other.remount(t)
	defer m.Sh(t, "umount "+other.dir)
	m.ok(t, "echo one > shared")
	other.comesTo(t, "cat shared", "one")
	other.ok(t, "echo two > shared")
	m.comesTo(t, "cat shared", "two")
	m.ok(t, "mv shared renamed")
	other.comesTo(t, "[ -e shared ] || echo gone", "gone")
	other.ok(t, "rm renamed; : > lock")
	// The processes below it close the file as well, which frees nothing.
	m.ok(t, "flock lock sh -c 'sh -c true; touch /tmp/held; while [ -e /tmp/held ]; do sleep 0.1; done' >/dev/null 2>&1 & until [ -e /tmp/held ]; do sleep 0.1; done")
	other.fails(t, "exec 9>lock; flock -n 9", "resource temporarily unavailable")
	ch, err := m.Start(other.dir+"/keys", 0, "exec 9>lock; flock 9; echo got it")
	if err != nil {
		t.Fatal(err)
	}
	m.ok(t, "sleep 0.3")
	select {
	case r := <-ch:
		t.Fatalf("a lock that is held was had: %s", r.Output)
	default:
	}
	m.ok(t, "rm /tmp/held")
	select {
	case r := <-ch:
		if r.Status != 0 {
			t.Errorf("flock: exit %d: %s", r.Status, r.Output)
		}
	case <-time.After(15 * time.Second): // Linux asks again after 30
		t.Error("a lock was free, and who waited did not get it")
	}
	ranges(t, m, &other)
}

// ranges: fcntl locks of parts of a file, between two mounts.
func ranges(t *testing.T, m, other *mount) {
	m.ok(t, "echo 0123456789 > part; rm -f /tmp/stop; (lockf part 2 3 sh -c 'touch /tmp/has; until [ -e /tmp/stop ]; do sleep 0.1; done'; touch /tmp/ended) >/dev/null 2>&1 & until [ -e /tmp/has ]; do sleep 0.1; done")
	other.says(t, "lockf part 0 2 echo free", "free")
	other.says(t, "lockf part 5 0 echo free", "free")
	m.ok(t, "touch /tmp/stop; until [ -e /tmp/ended ]; do sleep 0.1; done; rm -f /tmp/has /tmp/ended /tmp/stop")
	other.says(t, "lockf part 0 0 echo free", "free")
}

// twoUsers: the guest's kernel enforces the modes, and the host knows no users.
func twoUsers(t *testing.T, m *mount) {
	other := *m
	other.dir, other.port = m.dir+"-users", 1
	other.remount(t, "access=user")
	defer m.Sh(t, "umount "+other.dir)
	as := func(shell string) (string, int) {
		out, status, err := m.Run(other.dir+"/keys", 1000, shell)
		if err != nil {
			t.Fatal(err)
		}
		return out, status
	}
	other.ok(t, "echo private > theirs")
	if out, status := as("cat theirs"); status == 0 || !strings.Contains(out, "Permission denied") {
		t.Errorf("user 1000 reads a file of mode 600: exit %d: %s", status, out)
	}
	other.ok(t, "chmod 644 theirs")
	if out, status := as("cat theirs"); status != 0 || out != "private\n" {
		t.Errorf("user 1000 cannot read a file of mode 644: exit %d: %s", status, out)
	}
	if out, status := as("echo x > theirs"); status == 0 {
		t.Errorf("user 1000 writes a file of mode 644: %s", out)
	}
	other.ok(t, "chmod 666 theirs")
	if out, status := as("echo from 1000 > theirs"); status != 0 {
		t.Errorf("user 1000 cannot write a file of mode 666: exit %d: %s", status, out)
	}
	m.stored(t, "theirs", "from 1000\n")
	if out, status := as("echo x > made"); status == 0 {
		t.Errorf("user 1000 makes a file in a folder of mode 755: %s", out)
	}
}
