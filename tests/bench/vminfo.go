package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"meta9/tests/httpunix"
)

// lists are the rows about all VMs at once: 10,000 of 100 keys.
func lists() []row {
	const list, curl, vms, ready = "meta9 vm list", "curl /vms", "GET /vms", "net/http, ready-made"
	return []row{
		{
			name: "vmlist", title: "meta9 vm list beside curl /vms, 10,000 VMs (a tenth if -short)", unit: "s", base: curl, slow: true, less: true,
			entries: []entry{ours(list, (*bench).vmList), ours(curl, (*bench).curlVMs)},
			bars:    []bar{{entry: list, text: "times curl /vms", most: true, bound: 1.5, at: ratio(list, curl)}},
		},
		{
			name: "vms", title: "GET /vms of 10,000 VMs (a tenth if -short) beside net/http serving the same bytes", unit: "MB/s", base: ready, slow: true,
			entries: []entry{ours(vms, (*bench).getVMs), theirs(ready, (*bench).getReadyMade)},
			bars:    []bar{{entry: vms, text: "of net/http", bound: 0.5, at: ratio(vms, ready)}},
		},
	}
}

// manyVMs is a meta9d on many VMs, which the row's entries share.
func (b *bench) manyVMs() (*instance, error) {
	name := b.key("many VMs")
	if in := b.running[name]; in != nil {
		return in, nil
	}
	d, err := b.onScale(someVMs)
	if err != nil {
		return nil, err
	}
	in := &instance{proc: d.Proc, socket: filepath.Join(d.Run(), "vminfo.sock"), daemon: d}
	b.running[name] = in
	return in, nil
}

// command times a command whose output goes nowhere, once it has shown that it has
// all VMs in it.
func (b *bench) command(perVM string, name string, args ...string) (figure, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return figure{}, fmt.Errorf("%s: %w", name, err)
	}
	if n := bytes.Count(out, []byte(perVM)); n != b.scaled(scaleVMs) {
		return figure{}, fmt.Errorf("%s printed %d VMs, not %d", name, n, b.scaled(scaleVMs))
	}
	var took []time.Duration
	begin := time.Now()
	for time.Since(begin) < b.time {
		start := time.Now()
		if err := exec.Command(name, args...).Run(); err != nil {
			return figure{}, fmt.Errorf("%s: %w", name, err)
		}
		took = append(took, time.Since(start))
	}
	f, err := summary(took, time.Since(begin))
	f.value = f.p50.Seconds()
	return f, err
}

func (b *bench) vmList() (figure, error) {
	in, err := b.manyVMs()
	if err != nil {
		return figure{}, err
	}
	meta9, err := b.build().client()
	if err != nil {
		return figure{}, err
	}
	return b.command("22222222-2222-4222-", meta9, "--addr", in.daemon.Admin(), "vm", "list")
}

func (b *bench) curlVMs() (figure, error) {
	in, err := b.manyVMs()
	if err != nil {
		return figure{}, err
	}
	return b.command(`"uuid":"22222222-2222-4222-`, "curl", "-sS", "--unix-socket", in.socket, "http://localhost/vms")
}

// getVMs reads /vms again and again on one connection.
func (b *bench) getVMs() (figure, error) {
	in, err := b.manyVMs()
	if err != nil {
		return figure{}, err
	}
	return b.download(in.socket)
}

// getReadyMade is the same from a server that does nothing but send the bytes.
func (b *bench) getReadyMade() (figure, error) {
	in, err := b.manyVMs()
	if err != nil {
		return figure{}, err
	}
	_, text, err := httpunix.Get(httpunix.Client(in.socket), "/vms")
	if err != nil {
		return figure{}, err
	}
	dir, err := b.dirFor("ready")
	if err != nil {
		return figure{}, err
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return figure{}, err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = io.WriteString(w, text)
	})}
	defer srv.Close()
	go srv.Serve(l)
	return b.download(socket)
}

// download measures how fast /vms comes. The first time is not counted.
func (b *bench) download(socket string) (figure, error) {
	c := httpunix.Client(socket)
	defer c.CloseIdleConnections()
	var total int64
	var begin time.Time
	for round := 0; round < 2 || time.Since(begin) < b.time; round++ {
		if round == 1 {
			begin = time.Now()
		}
		resp, err := c.Get("http://localhost/vms")
		if err != nil {
			return figure{}, err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		switch {
		case err != nil:
			return figure{}, err
		case resp.StatusCode != http.StatusOK:
			return figure{}, errors.New(resp.Status)
		case round > 0:
			total += n
		}
	}
	return figure{value: float64(total) / 1e6 / time.Since(begin).Seconds()}, nil
}
