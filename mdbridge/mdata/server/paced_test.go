package server_test

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"meta9/fs"
	"meta9/fs/cpu"
	"meta9/fs/store"
	"meta9/mdbridge/mdata/server"
)

// TestEndlessLine: a line without an end is read in the VM's part of the CPUs.
func TestEndlessLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(store.NewMemory(), store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		s := server.New(server.Config{Tree: fs.New(st, fs.Config{Log: zerolog.Nop()})})
		const other = "e4e6a97e-cb36-4b18-95c9-8eb0d0d77880"
		for _, uuid := range []string{uuid, other} {
			if r := st.Do(&store.Intent{Kind: store.CreateVM, Data: `{"uuid":"` + uuid + `"}`}); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		ours, theirs := net.Pipe()
		go s.Serve(theirs, fs.Principal{VM: uuid}, via)
		line := []byte(strings.Repeat("x", 64<<10))
		time.Sleep(time.Second) // the daemon's clock begins at 0, which stands for long ago
		from := time.Now()
		for range 1000 {
			var place cpu.Place // a VM that is alone need not rest
			place.Take(st.Cell(other).CPU())
			place.Give()
			if _, err := ours.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(from); took < 10*time.Millisecond {
			t.Errorf("64 MiB took %v beside another VM", took)
		}
		ours.Close()
		synctest.Wait()
	})
}
