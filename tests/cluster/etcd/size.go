package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rs/zerolog"

	"meta9/fs/store"
	"meta9/fs/store/etcd"
	"meta9/tests/cluster/members"
)

// size has hosts create VMs, one host after the other, and prints what these take: in etcd, when
// its members start anew, and when a host does.
func size(ctx context.Context, c config, m *members.Cluster, out io.Writer) error {
	per := c.vms / c.hosts
	fmt.Fprintf(out, "%d VMs of %d keys of %d bytes, of %d hosts; %d members\n", per*c.hosts, c.keys, valueSize, c.hosts, c.members)
	from := time.Now()
	for h := range c.hosts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := loadHost(m, h, per, c.keys); err != nil {
			return fmt.Errorf("host %d: %w", h, err)
		}
	}
	took := time.Since(from)
	fmt.Fprintf(out, "loaded in %.0f s, %.0f VMs/s\n", took.Seconds(), float64(per*c.hosts)/took.Seconds())
	keys := float64(per * c.hosts * c.keys)
	if err := weigh(ctx, m, keys, out); err != nil {
		return err
	}

	m.KillAll()
	from = time.Now()
	if err := m.Start(); err != nil {
		return err
	}
	fmt.Fprintf(out, "killed, and started anew in %.1f s\n", time.Since(from).Seconds())
	if err := weigh(ctx, m, keys, out); err != nil {
		return err
	}

	from = time.Now()
	s, err := openHost(m, c.hosts/2)
	if err != nil {
		return err
	}
	took, n := time.Since(from), s.Count()
	if err := s.Close(); err != nil {
		return err
	}
	if n != per {
		return fmt.Errorf("a host has %d VMs after its start, not %d", n, per)
	}
	fmt.Fprintf(out, "a host with %d of them has read them in %.2f s\n", n, took.Seconds())
	return nil
}

// weigh prints what each member takes.
func weigh(ctx context.Context, m *members.Cluster, keys float64, out io.Writer) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: m.Endpoints(), DialTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	for i, ep := range m.Endpoints() {
		st, err := client.Status(ctx, ep)
		if err != nil {
			return err
		}
		rss, err := m.Procs[i].RSS()
		if err != nil {
			return err
		}
		disk, err := folderSize(m.Configs[i].Dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  %s: database %.2f GiB (%.0f bytes a key), folder %.2f GiB, RSS %.2f GiB\n",
			m.Configs[i].Name, gib(st.DbSize), float64(st.DbSizeInUse)/keys, gib(disk), gib(rss))
	}
	return nil
}

func gib(n int64) float64 { return float64(n) / (1 << 30) }

func folderSize(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// openHost is the store of host h.
func openHost(m *members.Cluster, h int) (*store.Store, error) {
	e, err := etcd.Open(context.Background(), etcd.Config{
		Endpoints: m.Endpoints(), Fleet: "size", Host: fmt.Sprintf("host%d", h), Log: zerolog.Nop(),
	})
	if err != nil {
		return nil, err
	}
	s, err := store.Open(e, store.Config{FirstRev: uint64(time.Now().UnixMicro())})
	if err != nil {
		_ = e.Close()
	}
	return s, err
}

// loadHost has host h create n VMs.
func loadHost(m *members.Cluster, h, n, keys int) error {
	s, err := openHost(m, h)
	if err != nil {
		return err
	}
	defer s.Close()
	values := make(map[string]string, keys)
	for k := range keys {
		values[fmt.Sprintf("key%03d", k)] = strings.Repeat("x", valueSize)
	}
	const makers = 64
	failed := make([]error, makers)
	var running sync.WaitGroup
	for k := range makers {
		running.Go(func() {
			for i := k; i < n && failed[k] == nil; i += makers {
				payload, err := json.Marshal(map[string]any{
					"uuid":              fmt.Sprintf("33333333-3333-4333-8333-%012d", h*n+i),
					"customer_metadata": values,
				})
				if err != nil {
					failed[k] = err
					return
				}
				failed[k] = s.Do(&store.Intent{Kind: store.CreateVM, Data: string(payload)}).Err
			}
		})
	}
	running.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}
