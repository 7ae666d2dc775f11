package server

import (
	"encoding/json"
	"maps"
	"slices"

	"meta9/mdbridge/qmp"
)

// command is one that the server knows.
type command struct {
	name string
	args *typ // an object
	ret  *typ
	// run does it, with arguments that were checked against args, and sets r.ret.
	// An error is answered as GenericError, with its text.
	run func(c *conn, args arguments, r *reply) error
}

// Types of more than one command.
var (
	spaceType    = enum("keys", "internal")
	encodingType = enum("utf8", "base64")

	nameInfo    = object(need("name", strType))
	versionInfo = object(
		need("qemu", object(need("major", intType), need("minor", intType), need("micro", intType))),
		need("package", strType))
	statusInfo = object(
		need("running", boolType), need("singlestep", boolType), need("status", strType),
		need(own("vms"), intType), need(own("bytes"), intType), need(own("rev"), intType), may(own("error"), strType))
	vmInfo = object(
		need("uuid", strType), may("alias", strType), may("state", strType),
		need("keys", intType), need("bytes", intType), need("rev", intType))
	keyInfo = object(need("name", strType), need("size", intType))
	keyOf   = []member{need("uuid", strType), need("key", strType), may("space", spaceType)}
)

// own is how a member of ours is called in an object of QEMU's (section 6).
func own(name string) string { return "__org.meta9_" + name }

// newCommands are all commands by name.
func newCommands() map[string]*command {
	all := make(map[string]*command)
	for _, c := range []command{
		{qmp.Capabilities, object(may("enable", array(enum()))), emptyType, negotiate},
		{"guest-sync-delimited", object(need("id", intType)), intType, guestSync},
		{"query-commands", emptyType, array(nameInfo), queryCommands},
		{"query-qmp-schema", emptyType, array(anyType), querySchema},
		{"query-sessions", emptyType, array(anyType), querySessions},
		{"query-status", emptyType, statusInfo, queryStatus},
		{"query-version", emptyType, versionInfo, queryVersion},
		{"query-vms", object(may("uuid", strType)), array(vmInfo), queryVMs},
		{"quit", emptyType, emptyType, quit},
		{"trace", object(need("enable", boolType)), emptyType, trace},
		{"vm-create", object(need("vm", freeObject)), object(need("uuid", strType)), vmCreate},
		{"vm-update", object(need("uuid", strType), need("update", freeObject)), emptyType, vmUpdate},
		{"vm-delete", object(need("uuid", strType)), emptyType, vmDelete},
		{"metadata-get", object(append(keyOf[:3:3], may("encoding", encodingType))...), object(need("value", strType), need("encoding", encodingType)), metadataGet},
		{"metadata-put", object(append(keyOf[:3:3], need("value", strType), may("encoding", encodingType))...), emptyType, metadataPut},
		{"metadata-delete", object(keyOf...), emptyType, metadataDelete},
		{"metadata-txn", object(need("uuid", strType), need("txn", freeObject)), anyType, metadataTxn},
		{"metadata-list", object(need("uuid", strType), may("space", spaceType)), array(keyInfo), metadataList},
	} {
		all[c.name] = &c
	}
	return all
}

// negotiate is qmp_capabilities. There is nothing to enable. What happens from now
// on is told, once it was answered.
func negotiate(c *conn, _ arguments, r *reply) error {
	ring := c.srv.cfg.Tree.Store().Ring()
	t := &teller{ring: ring, rev: ring.Last(), limit: newLimiter()} // what happens from now on
	r.after = func() { c.negotiated(t) }
	return nil
}

// guestSync answers behind a sentinel, so that the client can throw away what came
// before (section 2.6).
func guestSync(_ *conn, args arguments, r *reply) error {
	r.ret, r.sync = args["id"], true
	return nil
}

// queryCommands tells the names; qmp-shell asks for them at once.
func queryCommands(c *conn, _ arguments, r *reply) error {
	list := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(c.srv.commands)) {
		list = append(list, map[string]any{"name": name})
	}
	r.ret = list
	return nil
}

// querySchema describes the same table that runs and checks the commands, so that
// it cannot say anything else.
func querySchema(c *conn, _ arguments, r *reply) error {
	r.ret = schema(c.srv.commands)
	return nil
}

// querySessions says what the files in sessions/ say. This package knows no
// sessions: it is given the texts.
func querySessions(c *conn, _ arguments, r *reply) error {
	list := []json.RawMessage{}
	if c.srv.cfg.Sessions != nil {
		list = append(list, c.srv.cfg.Sessions()...)
	}
	r.ret = list
	return nil
}

// queryStatus is QEMU's, of the daemon: io-error is what a QEMU is in whose disk
// has failed.
func queryStatus(c *conn, _ arguments, r *reply) error {
	st := c.srv.cfg.Tree.Store()
	status := map[string]any{
		"running": true, "singlestep": false, "status": "running",
		own("vms"): st.Count(), own("bytes"): st.Bytes(), own("rev"): st.Rev(),
	}
	if err := st.Err(); err != nil {
		status["running"], status["status"], status[own("error")] = false, "io-error", err.Error()
	}
	r.ret = status
	return nil
}

// queryVersion says again what the greeting said.
func queryVersion(c *conn, _ arguments, r *reply) error {
	r.ret = c.srv.version
	return nil
}

// quit ends the daemon once that was answered. SHUTDOWN follows when it ends.
func quit(c *conn, _ arguments, r *reply) error {
	r.after = func() {
		c.srv.quitting.Store(true)
		if c.srv.cfg.Quit != nil {
			c.srv.cfg.Quit()
		}
	}
	return nil
}

// trace is for the moment when somebody looks on: the setting stays what it is.
func trace(c *conn, args arguments, _ *reply) error {
	on, _ := args["enable"].(bool)
	if c.srv.cfg.Trace != nil {
		c.srv.cfg.Trace(on)
	}
	return nil
}
