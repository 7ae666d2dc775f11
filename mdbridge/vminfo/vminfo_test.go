package vminfo_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meta9/fs/vm/ordjson"
	"meta9/mdbridge/vminfo"
)

const date = `"date":"2026-11-21T05:02:14.167Z"`

func TestParseEvent(t *testing.T) {
	good := `{"type":"modify",` + date + `,"zonename":"z","uuid":"u","vm":{"alias":"a"},"changes":[{"prettyPath":"x","path":["x"],"action":"added","newValue":1}],"rev":7}`
	ev, err := vminfo.ParseEvent([]byte(good))
	if err != nil || ev.Alias() != "a" || ev.Rev != 7 || len(ev.Changes) != 1 || ev.Changes[0].OldValue != nil || string(ev.Changes[0].NewValue) != "1" {
		t.Errorf("%+v, %v", ev, err)
	}
	for _, bad := range []string{
		"", "7", "[]", "null", "{}", `{"type":"delete"}`, `{"type":"delete","date":"yesterday"}`, `{` + date + `}`, `{"type":"create",` + date + `}`,
	} {
		if ev, err := vminfo.ParseEvent([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, ev)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"type":"ready",` + date + `,"uuid":"u","vms":"[]"}`))
	f.Add([]byte(`{"type":"modify",` + date + `,"vm":{"alias":1},"changes":[{}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		ev, err := vminfo.ParseEvent(line)
		if err != nil {
			return
		}
		_ = ev.Alias()
		if ev.Type == "" || ev.Date.IsZero() {
			t.Errorf("%+v", ev)
		}
	})
}

func TestUUIDOf(t *testing.T) {
	for in, want := range map[string]string{
		`{"uuid":"u"}`: "u", `{"a":{"uuid":"x"},"b":["uuid"],"c":"uuid","uuid":"u","d":1}`: "u", `{"a":1}`: "",
		`{"uuid":7}`: "", `{"uuid":{}}`: "", `{"UUID":"u"}`: "", `[]`: "", `7`: "", ``: "", `{"a":`: "", `{"uuid"`: "",
	} {
		if got := vminfo.UUIDOf([]byte(in)); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestQuery(t *testing.T) {
	q, err := vminfo.ParseQuery("fields=a,b&state=running&alias=~%5Ex")
	if err != nil || len(q.Filters) != 2 || !q.Wants("a") || q.Wants("c") || q.All() {
		t.Fatalf("%+v, %v", q, err)
	}
	again, err := vminfo.ParseQuery(q.String())
	if err != nil || again.String() != q.String() {
		t.Errorf("%s, then %s", q, again)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		`"a b"`: "a b", `1.50`: "1.50", `true`: "true", `false`: "false", `null`: "", `[1,"x",null]`: "1,x,", `{"a":1}`: `{"a":1}`,
	} {
		v, err := ordjson.Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if got := vminfo.Text(v); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
}

// TestClient: what a service may answer, and what the client makes of it.
func TestClient(t *testing.T) {
	body := ""
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.UserAgent(), "me - ") {
			t.Errorf("user agent %q", r.UserAgent())
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "nope"):
			w.WriteHeader(http.StatusNotFound)
		case strings.HasSuffix(r.URL.Path, "silence"):
			panic(http.ErrAbortHandler)
		case strings.HasSuffix(r.URL.Path, "elsewhere"):
			w.Header().Set("Location", "/vms/nope")
			w.WriteHeader(http.StatusFound)
		}
		_, _ = io.WriteString(w, body)
	}))
	defer web.Close()
	c, err := vminfo.New(web.URL, "me")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	var status *vminfo.StatusError
	if _, err := c.VM(ctx, "nope"); !errors.As(err, &status) || err.Error() != "bad statusCode: 404" {
		t.Error(err)
	}
	if _, err := c.VM(ctx, "elsewhere"); !errors.As(err, &status) || err.Error() != "bad statusCode: 302" {
		t.Errorf("a redirection: %v", err)
	}
	if _, err := c.VM(ctx, "silence"); err == nil || !strings.Contains(err.Error(), "closed before an answer") {
		t.Errorf("no answer: %v", err)
	}
	for _, tt := range []struct{ body, wrong string }{
		{`{"type":"ready",` + date + `}` + "\n" + `{"type":"delete",` + date + `}` + "\n", "EOF"},
		{`{"type":"ready",` + date + `}` + "\n{half", "unexpected EOF"},
		{`{"type":"delete",` + date + `}` + "\n", "not ready"},
		{"<html>\n", "no event"},
		{strings.Repeat("nonsense", 1<<14), "no event"}, // before its end, which may never come
		{"\n", "no event"},
		{"", "EOF"},
	} {
		body = tt.body
		s, err := c.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = s.Next()
		}
		if !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%q: %v", tt.body, err)
		}
		s.Close()
	}
	body = `[{"uuid":"u"}]`
	if b, err := c.VMs(ctx, vminfo.Query{}); err != nil || cmp.Diff(body, string(b)) != "" {
		t.Errorf("%s, %v", b, err)
	}
}
