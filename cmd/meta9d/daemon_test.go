package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs/store"
	"meta9/fs/store/storetest"
	"meta9/rarelog/logtest"
)

// TestStoreFails: a disk that fails is said to the log and to systemd, and the
// daemon goes on until it is told to end.
func TestStoreFails(t *testing.T) {
	sock := filepath.Join(shortDir(t), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", sock)
	st, err := store.Open(&storetest.Failing{Engine: storetest.NewDisk(), Nth: 1, Err: errors.New("the disk\nis gone")}, store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log := &logtest.Log{}
	d := &daemon{store: st, log: zerolog.New(log), upgrades: newUpgrades()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		d.wait(ctx)
		close(ended)
	}()
	if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: payload}); r.Err == nil {
		t.Fatal("the engine did not fail")
	}
	b := make([]byte, 1000)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := c.Read(b)
	if said := string(b[:n]); !strings.HasPrefix(said, "STATUS=") || !strings.Contains(said, "is gone") || strings.Contains(said, "\n") {
		t.Errorf("said %q, %v", said, err)
	}
	select {
	case <-ended:
		t.Error("it ended by itself")
	default:
	}
	cancel()
	<-ended
	if !strings.Contains(log.String(), "is gone") {
		t.Errorf("log: %s", log)
	}
}
