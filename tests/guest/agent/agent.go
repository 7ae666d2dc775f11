// Package agent is how a test on the host has commands run in its guest: lines of
// JSON over a virtio-serial port, Requests one way and Replies the other.
package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// Request is a command that the host sends.
type Request struct {
	ID    int    `json:"id"`    // of its Reply; not 0
	Shell string `json:"shell"` // for sh -c
	Dir   string `json:"dir"`   // where it runs
	UID   uint32 `json:"uid"`   // the user and the group it runs as
}

// Reply is what came of it. Replies come in any order.
type Reply struct {
	ID     int    `json:"id"`
	Output []byte `json:"output"` // standard output and standard error
	Status int    `json:"status"` // the exit status; 128 and the signal
}

// Serve runs what comes on standard input, each in a process of its own, until the
// input ends. It begins with a Reply of ID 0, which says that the guest is up.
func Serve() {
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	reply := func(r Reply) {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Encode(r); err != nil {
			os.Exit(1)
		}
	}
	reply(Reply{})
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		var req Request
		if err := json.Unmarshal(in.Bytes(), &req); err != nil {
			fmt.Fprintf(os.Stderr, "guesttool: %v\n", err)
			continue
		}
		go func() { reply(req.run()) }()
	}
}

// run runs the command; what it leaves running in the background does not keep it.
func (q Request) run() Reply {
	cmd := exec.Command("/bin/sh", "-c", q.Shell)
	cmd.Dir = q.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: q.UID, Gid: q.UID}}
	file, err := os.CreateTemp("", "out")
	if err != nil {
		return Reply{ID: q.ID, Output: []byte(err.Error()), Status: 255}
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	r := Reply{ID: q.ID}
	r.Output, _ = os.ReadFile(file.Name())
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		r.Status = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	case errors.As(err, &exit):
		r.Status = exit.ExitCode()
	case err != nil:
		r.Output, r.Status = append(r.Output, err.Error()...), 255
	}
	return r
}
