//go:build linux

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSystemLog(t *testing.T) {
	dir := t.TempDir()
	l := &systemLog{"meta9[7]: /m: ", filepath.Join(dir, "log"), filepath.Join(dir, "kmsg")}
	if err := os.WriteFile(l.kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	syslog, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: l.socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	l.Write([]byte("lost\n"))
	b := make([]byte, 100)
	n, err := syslog.Read(b)
	if got := string(b[:n]); err != nil || got != "<30>meta9[7]: /m: lost\n" {
		t.Errorf("syslog has %q, %v", got, err)
	}
	for range 10_000 { // nobody reads it
		l.Write([]byte("again\n"))
	}
	syslog.Close()
	if got, _ := os.ReadFile(l.kernel); len(got) != 0 {
		t.Errorf("the kernel's log has %d bytes, syslog was there", len(got))
	}
	l.Write([]byte("gone\n"))
	if got, _ := os.ReadFile(l.kernel); string(got) != "<30>meta9[7]: /m: gone\n" {
		t.Errorf("the kernel's log has %q", got)
	}
	l.kernel += ".none"
	if n, err := l.Write([]byte("x\n")); n != 2 || err != nil {
		t.Errorf("nowhere to write: %d, %v", n, err)
	}
}

// TestKeeperLog: text, and not more of it than is worth reading.
func TestKeeperLog(t *testing.T) {
	var b strings.Builder
	m := &mounting{app: &app{err: &b}, ready: -1}
	log := m.keeperLog()
	log.Warn().Err(os.ErrClosed).Int("fids", 3).Msg("lost")
	if got, want := b.String(), "lost error=\"file already closed\" fids=3\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for range 1000 {
		log.Info().Msg("lost again")
	}
	if n := strings.Count(b.String(), "\n"); n != linesAtOnce {
		t.Errorf("%d lines, want %d", n, linesAtOnce)
	}
}
