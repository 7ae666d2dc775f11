package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"meta9/fs/errs"
	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
	"meta9/session/client"
)

// vmadmError is an error in vmadm's words, which scripts know. It is printed without
// anything added.
type vmadmError struct {
	text  string
	code  int
	about string // the VM that is not there; "": it is about something else
}

func (e vmadmError) Error() string { return e.text }

// readers is how many VMs are read at the same time.
const readers = 32

// Why there is no vminfod socket to ask.
var (
	errRemote    = errors.New("meta9d is reached over a network")
	errNotBeside = errors.New("there is no vminfo.sock beside meta9d's socket")
)

// vminfoSocket is meta9d's own vminfod socket, which stands beside the admin's. The
// error is errRemote, errNotBeside, or that of address.
func (a *app) vminfoSocket() (string, error) {
	addr, err := a.address()
	if err != nil {
		return "", err
	}
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix && strings.Contains(addr, ":") {
		return "", errRemote
	}
	socket := filepath.Join(filepath.Dir(path), "vminfo.sock")
	if _, err := os.Stat(socket); err != nil {
		return "", errNotBeside
	}
	return socket, nil
}

// fetch gives all VMs with at least these members: by one query of the vminfod
// socket, or, from afar, by reading each VM's file.
func (a *app) fetch(cmd *cobra.Command, fields []string) (vms []listed, err error) {
	if socket, err := a.vminfoSocket(); err == nil {
		return a.query(cmd.Context(), socket, fields)
	}
	err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
		vms, err = a.readVMs(ctx, c)
		return err
	})
	return vms, err
}

func (a *app) query(ctx context.Context, socket string, fields []string) ([]listed, error) {
	ctx, cancel := a.withTimeout(ctx)
	defer cancel()
	c, err := a.vminfo("unix:"+socket, "meta9 vm")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	a.progress.say("waiting for the server")
	text, err := c.VMs(ctx, vminfo.Query{Fields: fields})
	if err != nil {
		return nil, httpError(socket, err)
	}
	v, err := ordjson.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the server's JSON: %w", err)
	}
	vms := make([]listed, len(v.Items))
	for i := range v.Items {
		vms[i] = listed(v.Items[i].Members)
	}
	return vms, nil
}

// readVMs reads all VMs, several at a time, in the server's order.
func (a *app) readVMs(ctx context.Context, c *client.Client) ([]listed, error) {
	list, err := c.ReadDir(ctx, vmPath(""))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	vms := make([]listed, len(list))
	var all sync.WaitGroup
	next := make(chan int)
	for range min(readers, len(list)) {
		all.Go(func() {
			for i := range next {
				o, err := readVM(ctx, c, list[i].Name)
				if err != nil {
					stop(err)
				}
				vms[i] = o
			}
		})
	}
	for i := range list {
		a.progress.say(fmt.Sprintf("%d of %d VMs", i, len(list)))
		next <- i
	}
	close(next)
	all.Wait()
	there := vms[:0]
	for _, o := range vms {
		if o != nil {
			there = append(there, o)
		}
	}
	return there, context.Cause(ctx)
}

// readVM reads one VM; nil without an error: it was deleted meanwhile.
func readVM(ctx context.Context, c *client.Client, uuid string) (listed, error) {
	data, err := c.ReadFile(ctx, vmPath(uuid, "vm.json"))
	switch {
	case errors.Is(err, errs.NotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	v, err := ordjson.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: the server's JSON: %w", uuid, err)
	}
	return listed(v.Members), nil
}
