package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const bodySite = `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	route /gated/* {
		uri strip_prefix /gated
		apikey
		apikey_api
	}
	apikey_api
	apikey_api {
		dialect better_auth
	}
}
`

// half is a POST whose headers were sent, and whose body the server waits for.
type half struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// begin sends the headers of a POST with a body of {}, and returns once the server
// has asked for the body.
func (s *server) begin(t *testing.T, target, raw string) *half {
	t.Helper()
	h := &half{t: t, conn: dial(t, s.URL)}
	h.conn.SetDeadline(time.Now().Add(testTimeout))
	t.Cleanup(func() { h.conn.Close() })
	h.r = bufio.NewReader(h.conn)
	fmt.Fprintf(h.conn, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nExpect: 100-continue\r\n%s\r\n"+
		"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n", target, strings.TrimPrefix(s.URL, "http://"), keyLine(raw))
	if r := h.answer(); r.StatusCode != http.StatusContinue {
		t.Fatalf("the body was not asked for: %s", r.Status)
	}
	return h
}

// end sends the body.
func (h *half) end() *reply {
	h.t.Helper()
	fmt.Fprint(h.conn, "{}")
	r, err := read(h.answer())
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *half) answer() *http.Response {
	h.t.Helper()
	r, err := http.ReadResponse(h.r, &http.Request{Method: http.MethodPost})
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// TestA3_body stops keys whose holders have begun to make another one: who sends the
// body after that makes none.
func TestA3_body(t *testing.T) {
	full(t)
	s := startGate(t, bodySite)
	for name, stop := range map[string]struct {
		method, path string
		fields       map[string]any
		status       int
		code         string
	}{
		"deleted":            {"DELETE", "/apikey/keys/{key}", nil, 204, "INVALID_API_KEY"},
		"disabled":           {"PATCH", "/apikey/keys/{key}", map[string]any{"enabled": false}, 200, "KEY_DISABLED"},
		"without permission": {"PATCH", "/apikey/keys/{key}", map[string]any{"permissions": []string{"read"}}, 200, "INSUFFICIENT_PERMISSIONS"},
		"owner disabled":     {"PUT", "/apikey/owners/{owner}", map[string]any{"enabled": false}, 200, "KEY_DISABLED"},
	} {
		for _, target := range []string{"/v1/auth/api-keys", "/gated/v1/auth/api-keys", "/api/auth/api-key/create"} {
			t.Run(name+target, func(t *testing.T) {
				s.t = t
				owner := strings.ReplaceAll(t.Name(), "/", "-")
				k := s.create(with(readWrite, "userId", owner))
				h := s.begin(t, target, k.Raw)
				s.admin(stop.method, strings.NewReplacer("{key}", k.ID, "{owner}", owner).Replace(stop.path), stop.fields, stop.status, nil)
				if r := h.end(); r.code != stop.code {
					t.Errorf("%d %s, want %s", r.status, r.body, stop.code)
				}
			})
		}
	}
	s.t = t
}

// TestRest_order sends bodies that are wrong: who may not call learns that, and not
// what is wrong with the body.
func TestRest_order(t *testing.T) {
	full(t)
	s := startGate(t, bodySite)
	good, reader := s.create(readWrite), s.create(map[string]any{"permissions": []string{"read"}})
	large := strings.Repeat(" ", 64<<10) + "{}"
	for _, row := range []struct {
		raw, body, contentType string
		status                 int
	}{
		{"", large, "application/json", 401},
		{"", "{}", "text/plain", 401},
		{"", "{", "application/json", 401},
		{reader.Raw, large, "application/json", 403},
		{reader.Raw, "{}", "text/plain", 403},
		{good.Raw, large, "application/json", 413},
		{good.Raw, "{}", "text/plain", 415},
		{good.Raw, "{", "application/json", 400},
	} {
		m := &message{method: "POST", target: "/v1/auth/api-keys", body: row.body, fields: []field{{"X-API-Key", row.raw}, {"Content-Type", row.contentType}}}
		if r := m.plain(t, s.URL); r.status != row.status {
			t.Errorf("%.9s, %.9s as %s: %d %s, want %d", row.raw, row.body, row.contentType, r.status, r.body, row.status)
		}
	}
}
