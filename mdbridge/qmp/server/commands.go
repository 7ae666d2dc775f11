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

	nameInfo    = object(required("name", strType))
	versionInfo = object(
		required("qemu", object(required("major", intType), required("minor", intType), required("micro", intType))),
		required("package", strType))
	statusInfo = object(
		required("running", boolType), required("singlestep", boolType), required("status", strType),
		required(prefixed("vms"), intType), required(prefixed("bytes"), intType), required(prefixed("rev"), intType), optional(prefixed("error"), strType))
	vmInfo = object(
		required("uuid", strType), optional("alias", strType), optional("state", strType),
		required("keys", intType), required("bytes", intType), required("rev", intType))
	keyInfo = object(required("name", strType), required("size", intType))
	keyOf   = []member{required("uuid", strType), required("key", strType), optional("space", spaceType)}
)

// prefixed is the name of a member that is meta9's in an object of QEMU's (section 6).
func prefixed(name string) string { return "__org.meta9_" + name }

// newCommands are all commands by name.
func newCommands() map[string]*command {
	all := make(map[string]*command)
	for _, c := range []command{
		{qmp.Capabilities, object(optional("enable", array(enum()))), emptyType, negotiate},
		{"guest-sync-delimited", object(required("id", intType)), intType, guestSync},
		{"query-commands", emptyType, array(nameInfo), queryCommands},
		{"query-qmp-schema", emptyType, array(anyType), querySchema},
		{"query-sessions", emptyType, array(anyType), querySessions},
		{"query-status", emptyType, statusInfo, queryStatus},
		{"query-version", emptyType, versionInfo, queryVersion},
		{"query-vms", object(optional("uuid", strType)), array(vmInfo), queryVMs},
		{"quit", emptyType, emptyType, quit},
		{"trace", object(required("enable", boolType)), emptyType, trace},
		{"vm-create", object(required("vm", freeObject)), object(required("uuid", strType)), vmCreate},
		{"vm-update", object(required("uuid", strType), required("update", freeObject)), emptyType, vmUpdate},
		{"vm-delete", object(required("uuid", strType)), emptyType, vmDelete},
		{"metadata-get", object(append(keyOf[:3:3], optional("encoding", encodingType))...), object(required("value", strType), required("encoding", encodingType)), metadataGet},
		{"metadata-put", object(append(keyOf[:3:3], required("value", strType), optional("encoding", encodingType))...), emptyType, metadataPut},
		{"metadata-delete", object(keyOf...), emptyType, metadataDelete},
		{"metadata-txn", object(required("uuid", strType), required("txn", freeObject)), anyType, metadataTxn},
		{"metadata-list", object(required("uuid", strType), optional("space", spaceType)), array(keyInfo), metadataList},
	} {
		all[c.name] = &c
	}
	return all
}

// tellsOfVMs are the commands that are answered with what VMs have.
var tellsOfVMs = map[string]bool{"query-vms": true, "metadata-get": true, "metadata-list": true}

// negotiate is qmp_capabilities. There is nothing to enable. The client gets the events
// from now on, after the answer.
func negotiate(c *conn, _ arguments, r *reply) error {
	ring := c.srv.cfg.Tree.Store().Ring()
	t := &eventReader{ring: ring, rev: ring.Last(), limit: newLimiter()} // what happens from now on
	r.after = func() { c.negotiated(t) }
	return nil
}

// guestSync answers with a sentinel first, so that the client can drop all that came
// before it (section 2.6).
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

// querySchema describes the table by which commands are checked and run.
func querySchema(c *conn, _ arguments, r *reply) error {
	r.ret = schema(c.srv.commands)
	return nil
}

// querySessions returns the texts of the files in sessions/, which Config.Sessions gives:
// this package does not know sessions.
func querySessions(c *conn, _ arguments, r *reply) error {
	list := []json.RawMessage{}
	if c.srv.cfg.Sessions != nil {
		list = append(list, c.srv.cfg.Sessions()...)
	}
	r.ret = list
	return nil
}

// queryStatus is QEMU's query-status, about the daemon: io-error where the store has
// failed, as a QEMU whose disk has failed says.
func queryStatus(c *conn, _ arguments, r *reply) error {
	st := c.srv.cfg.Tree.Store()
	status := map[string]any{
		"running": true, "singlestep": false, "status": "running",
		prefixed("vms"): st.Count(), prefixed("bytes"): st.Bytes(), prefixed("rev"): st.Rev(),
	}
	if err := st.Err(); err != nil {
		status["running"], status["status"], status[prefixed("error")] = false, "io-error", err.Error()
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

// trace turns tracing on or off for this process; the configuration stays as it is.
func trace(c *conn, args arguments, _ *reply) error {
	on, _ := args["enable"].(bool)
	if c.srv.cfg.Trace != nil {
		c.srv.cfg.Trace(on)
	}
	return nil
}
