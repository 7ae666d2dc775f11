package residence

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strconv"

	"meta9/session"
)

// appendSession appends a session's body.
func appendSession(b []byte, st *session.State) ([]byte, error) {
	rest := *st
	rest.Kept = nil
	return appendWithKept(b, rest, st.Kept)
}

// appendWithKept appends the length of form's JSON, the JSON, and the kept replies.
func appendWithKept(b []byte, form any, kept []session.KeptReply) ([]byte, error) {
	text, err := json.Marshal(form)
	if err != nil {
		return b, err
	}
	b = binary.AppendUvarint(b, uint64(len(text)))
	return appendKept(append(b, text...), kept), nil
}

// appendChange does the same with a Change. It runs for each reply that changes a session,
// so it writes the JSON of the usual fids without encoding/json.
func appendChange(b []byte, ch *session.Change) []byte {
	var room [512]byte
	text := appendChangeJSON(room[:0], ch)
	b = binary.AppendUvarint(b, uint64(len(text)))
	return appendKept(append(b, text...), ch.Kept)
}

func appendKept(b []byte, kept []session.KeptReply) []byte {
	for _, k := range kept {
		b = binary.AppendUvarint(b, k.Number)
		b = binary.AppendUvarint(b, uint64(len(k.Frame)))
		b = append(b, k.Frame...)
	}
	return b
}

func appendChangeJSON(b []byte, ch *session.Change) []byte {
	b = strconv.AppendUint(append(b, `{"count":`...), ch.Count, 10)
	b = appendList(b, `,"fids":[`, len(ch.Fids), func(b []byte, i int) []byte { return appendFid(b, &ch.Fids[i]) })
	b = appendList(b, `,"gone":[`, len(ch.Gone), func(b []byte, i int) []byte { return strconv.AppendUint(b, uint64(ch.Gone[i]), 10) })
	b = appendList(b, `,"doubt":[`, len(ch.Doubt), func(b []byte, i int) []byte { return strconv.AppendUint(b, ch.Doubt[i], 10) })
	if t := ch.Tokens; t != nil {
		b = strconv.AppendUint(append(b, `,"tokens":{"now":`...), t.Now, 10)
		b = strconv.AppendUint(append(b, `,"before":`...), t.Before, 10)
		b = strconv.AppendUint(append(b, `,"sent":`...), t.Sent, 10)
		b = append(strconv.AppendBool(append(b, `,"used":`...), t.Used), '}')
	}
	return append(b, '}')
}

// appendList appends a member whose value is a list; nothing where it is empty.
func appendList(b []byte, begin string, n int, item func(b []byte, i int) []byte) []byte {
	if n == 0 {
		return b
	}
	b = append(b, begin...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, i)
	}
	return append(b, ']')
}

func appendFid(b []byte, f *session.FidState) []byte {
	n, h := f.Node, f.Handle
	if f.Auth || f.Stale || f.Rclose || f.Listing != (session.Listing{}) || f.Pause != nil || len(f.Locks) > 0 ||
		n == nil || n.Look != nil || h != nil && (h.Refused || h.Skips || h.Offset != 0 || h.Last != nil || h.Rest != nil || h.Old != nil) {
		text, _ := json.Marshal(f) // never fails: all its fields can be marshalled
		return append(b, text...)
	}
	b = strconv.AppendUint(append(b, `{"fid":`...), uint64(f.Fid), 10)
	b = append(b, `,"node":{"path":[`...)
	for i, name := range n.Path {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
	}
	b = strconv.AppendUint(append(b, `],"id":`...), n.ID, 10)
	b = strconv.AppendInt(append(b, `,"top":`...), int64(n.Top), 10)
	if len(n.As) > 0 {
		b = append(b, `,"as":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, n.As), '"')
	}
	b = append(b, '}')
	if h != nil {
		b = strconv.AppendUint(append(b, `,"handle":{"flags":`...), uint64(h.Flags), 10)
		b = strconv.AppendUint(append(b, `,"rev":`...), h.Rev, 10)
		if h.Held {
			b = append(b, `,"held":true`...)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendText appends a name as JSON.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // never fails
			return append(b, text...)
		}
	}
	b = append(b, '"')
	return append(append(b, s...), '"')
}
