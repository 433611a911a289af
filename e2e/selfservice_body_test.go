package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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

// stall sends a POST over a version of HTTP, whose body never comes, and returns the
// answer and how long it took.
func (p *protocols) stall(t *testing.T, version, target, raw string) (*reply, time.Duration) {
	t.Helper()
	began := time.Now()
	if version == "h1" {
		conn, err := tls.Dial("tcp", p.host, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(began.Add(testTimeout))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{", target, p.host, keyLine(raw))
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
		if err != nil {
			t.Fatal(err)
		}
		r, err := read(resp)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the connection is kept: %v", target, err)
		}
		return r, took
	}
	body, hold := io.Pipe()
	defer hold.Close()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+p.host+target, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", raw)
	req.Header.Set("Content-Type", "application/json")
	transport := p.h2
	if version == "h3" {
		transport = p.h3
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	r, err := read(resp)
	if err != nil {
		t.Fatal(err)
	}
	return r, time.Since(began)
}

// TestQ38_stalled begins calls whose bodies never come. Who may not call learns that at
// once, and who may call is let go of after 30 seconds.
func TestQ38_stalled(t *testing.T) {
	full(t)
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, `{
	log default {
		format apikey_redact
	}
}

https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	log {
		format apikey_redact
	}
	apikey_api {
		extended
	}
	apikey_api {
		dialect better_auth
	}
}
`, withEnv("TLS_PORT="+tlsPort))
	p := newProtocols(t, "localhost:"+tlsPort)
	p.ready(t)
	good, reader := s.create(readWrite), s.create(map[string]any{"permissions": []string{"read"}})
	poor := s.create(with(readWrite, "remaining", 0))
	const keys, create = "/v1/auth/api-keys", "/api/auth/api-key/create"
	for _, version := range versions {
		for _, row := range []struct {
			target, raw string
			status      int
		}{
			{keys, "", 401},
			{keys, "x", 401},
			{keys, reader.Raw, 403},
			{keys, poor.Raw, 429},
			{keys + "/self/rotate", reader.Raw, 403},
			{keys + "/none", good.Raw, 405},
			{keys + "/", good.Raw, 404},
			{create, "", 401},
			{create, "x", 401},
			{create, reader.Raw, 403},
			{create, poor.Raw, 429},
		} {
			if r, took := p.stall(t, version, row.target, row.raw); r.status != row.status || took > 20*time.Second {
				t.Errorf("%s %s with %.8q: %d %s after %s, want %d", version, row.target, row.raw, r.status, r.body, took, row.status)
			}
		}
	}
	t.Run("deadline", func(t *testing.T) {
		for _, version := range versions {
			for _, target := range []string{keys, create} {
				t.Run(version+target, func(t *testing.T) {
					t.Parallel()
					r, took := p.stall(t, version, target, good.Raw)
					if r.status != 408 || r.code != "REQUEST_TIMEOUT" || took < 29*time.Second {
						t.Errorf("%d %s after %s", r.status, r.body, took)
					}
				})
			}
		}
	})
	// The next calls are as good as ever, on the same connections where there are some.
	for _, version := range versions {
		if r := p.send(t, version, &message{method: "POST", target: keys, body: "{}", fields: fieldsOf([]string{keyLine(good.Raw)})}); r.status != 201 {
			t.Errorf("%s: %d %s", version, r.status, r.body)
		}
	}
}
