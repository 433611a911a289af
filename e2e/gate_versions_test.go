package e2e

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// versionsSite has gates with different demands.
const versionsSite = `{
	skip_install_trust
	auto_https disable_redirects
	log default {
		format apikey_redact
	}
	apikey {
		tier small {
			limit 1/1h
		}
		config other {
			prefix ot_
		}
	}
}

https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	log {
		format apikey_redact
	}
	handle /read/* {
		apikey files:read {
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /secret/* {
		apikey {
			secret required
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /optional/* {
		apikey {
			optional
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /free/* {
		apikey {
			cost 0
			rate_headers both
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /twice/* {
		route {
			apikey {
				identity_header X-User-Id {http.auth.user.id}
			}
			apikey files:read
			reverse_proxy {$UPSTREAM}
		}
	}
	handle {
		apikey {
			config default
			rate_headers both
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy {$UPSTREAM}
	}
}

{$SITE} {
	apikey
	respond ok
}
`

// versionRow is a request that every version of HTTP is to decide alike.
type versionRow struct {
	name   string
	target string
	lines  func() []string // with a key of its own, where requests change what is decided
	status int
	code   string
	early  string // the code in early data, where it is another one
}

func versionRows(s *server) []versionRow {
	const (
		ok      = http.StatusOK
		no      = http.StatusUnauthorized
		denied  = http.StatusForbidden
		full    = http.StatusTooManyRequests
		invalid = "INVALID_API_KEY"
		early   = "TOO_EARLY"
	)
	// Several rows have the same key, or one for each request.
	always := func(lines ...string) func() []string { return func() []string { return lines } }
	of := func(k made) func() []string { return always(keyLine(k.Raw)) }
	fresh := func(used int, fields map[string]any) func() []string {
		return func() []string {
			line := keyLine(s.create(fields).Raw)
			for range used {
				s.get("/", line)
			}
			return []string{line}
		}
	}
	k, other := s.create(nil), s.create(nil)
	off, past := s.create(nil), withChecksum("ak_"+strings.Repeat("p", 58))
	s.admin("PATCH", "/apikey/keys/"+off.ID, map[string]any{"enabled": false}, ok, nil)
	s.admin("POST", "/apikey/keys/import", map[string]any{"keys": []any{map[string]any{
		"id": "past", "userId": "alice", "hash": fmt.Sprintf("%x", sha256.Sum256([]byte(past))), "checksummed": true, "expiresAt": "2020-01-01T00:00:00Z",
	}}}, ok, nil)
	ofDisabled := s.create(map[string]any{"userId": "dora"})
	s.admin("PUT", "/apikey/owners/dora", map[string]any{"enabled": false}, ok, nil)
	s.admin("PUT", "/apikey/owners/small", map[string]any{"tier": "small"}, ok, nil)
	small := s.create(map[string]any{"userId": "small"})
	s.get("/", keyLine(small.Raw))
	reader := s.create(map[string]any{"permissions": []string{"files:read"}})
	paired := s.create(map[string]any{"withSecret": true})
	here := s.create(map[string]any{"allowedIps": []string{"127.0.0.1", "::1"}})
	elsewhere := s.create(map[string]any{"allowedIps": []string{"192.0.2.1"}})
	foreign := s.create(map[string]any{"configId": "other"})
	limit := map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000}
	credit := map[string]any{"remaining": 1}
	return []versionRow{
		{name: "valid", target: "/", lines: of(k), status: ok},
		{name: "Bearer", target: "/", lines: always("Authorization: Bearer " + k.Raw), status: ok},
		{name: "no key", target: "/", lines: always(), status: no, code: "MISSING_API_KEY"},
		{name: "empty", target: "/", lines: always("X-API-Key: "), status: no, code: "MISSING_API_KEY"},
		{name: "unknown", target: "/", lines: always(keyLine(testKey("ak_", 64))), status: no, code: invalid},
		{name: "malformed", target: "/", lines: always("X-API-Key: no key!"), status: no, code: invalid},
		{name: "wrong checksum", target: "/", lines: always(keyLine(flip(k.Raw, len(k.Raw)-1))), status: no, code: invalid},
		{name: "two different keys", target: "/", lines: always(keyLine(k.Raw), "Authorization: Bearer "+other.Raw), status: 400, code: "AMBIGUOUS_API_KEY"},
		{name: "the same key twice", target: "/", lines: always(keyLine(k.Raw), "Authorization: Bearer "+k.Raw), status: ok},
		{name: "of another configuration", target: "/", lines: of(foreign), status: no, code: invalid},
		{name: "disabled", target: "/", lines: of(off), status: no, code: "KEY_DISABLED"},
		{name: "disabled owner", target: "/", lines: of(ofDisabled), status: no, code: "KEY_DISABLED"},
		{name: "expired", target: "/", lines: always(keyLine(past)), status: no, code: "KEY_EXPIRED"},
		{name: "lacks a permission", target: "/read/", lines: of(k), status: denied, code: "INSUFFICIENT_PERMISSIONS"},
		{name: "has the permission", target: "/read/", lines: of(reader), status: ok},
		{name: "no secret", target: "/secret/", lines: of(paired), status: no, code: "INVALID_SECRET"},
		{name: "wrong secret", target: "/secret/", lines: always(keyLine(paired.Raw), "X-API-Secret: "+k.Raw), status: no, code: "INVALID_SECRET"},
		{name: "secret", target: "/secret/", lines: always(keyLine(paired.Raw), "X-API-Secret: "+paired.Secret), status: ok},
		{name: "allowed address", target: "/", lines: of(here), status: ok, early: early},
		{name: "other address", target: "/", lines: of(elsewhere), status: denied, code: "IP_NOT_ALLOWED", early: early},
		{name: "within its limit", target: "/", lines: fresh(0, limit), status: ok, early: early},
		{name: "over its limit", target: "/", lines: fresh(1, limit), status: full, code: "RATE_LIMITED", early: early},
		{name: "over its limit, at no cost", target: "/free/", lines: fresh(1, limit), status: ok},
		{name: "over the limit of the tier", target: "/", lines: of(small), status: full, code: "RATE_LIMITED", early: early},
		{name: "a credit", target: "/", lines: fresh(0, credit), status: ok, early: early},
		{name: "no credits", target: "/", lines: fresh(1, credit), status: full, code: "USAGE_EXCEEDED", early: early},
		{name: "no credits, at no cost", target: "/free/", lines: fresh(1, credit), status: ok},
		{name: "optional, no key", target: "/optional/", lines: always(), status: ok},
		{name: "optional, valid", target: "/optional/", lines: of(k), status: ok},
		{name: "optional, malformed", target: "/optional/", lines: always("X-API-Key: no key!"), status: no, code: invalid},
		{name: "two gates", target: "/twice/", lines: of(reader), status: ok},
		{name: "refused by the second gate", target: "/twice/", lines: of(k), status: denied, code: "INSUFFICIENT_PERMISSIONS"},
	}
}

// TestS2_SameDecision sends each request over every version of HTTP, in early data, and
// with the header by which a proxy tells of early data: status, code, body and headers
// are the same, and so is what the application is told.
func TestS2_SameDecision(t *testing.T) {
	full(t)
	up := startUpstream(t)
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, versionsSite, withEnv("TLS_PORT="+tlsPort, "UPSTREAM="+up.Addr))
	p := newProtocols(t, "localhost:"+tlsPort)
	p.ready(t)
	early := newEarlyData(s, p.host)
	for i, row := range versionRows(s) {
		var first, firstEarly string
		for _, version := range []string{"h1.0", "h1", "h2", "h3", "h1.0, Early-Data", "h1, Early-Data", "h2, Early-Data", "h3, Early-Data", "0-RTT"} {
			name := row.name + "/" + version
			mark := fmt.Sprintf("%d-%s", i, strings.ReplaceAll(version, ", ", "-"))
			target := row.target + "?mark=" + mark
			lines := append(slices.Clone(row.lines()), markHeader+": "+mark)
			var r *reply
			protocol, told, _ := strings.Cut(version, ", ")
			if told != "" {
				lines = append(lines, told+": 1")
			}
			switch m := (&message{target: target, fields: fieldsOf(lines)}); protocol {
			case "0-RTT":
				r = early.get(target, lines...)
			case "h1.0":
				m.proto = "HTTP/1.0"
				r = p.send(t, "h1", m)
			default:
				r = p.send(t, protocol, m)
			}
			status, code, same := row.status, row.code, &first
			if (told != "" || protocol == "0-RTT") && row.early != "" {
				status, code, same = http.StatusTooEarly, row.early, &firstEarly
			}
			if r.status != status || r.code != code {
				t.Errorf("%s: %d %s, want %d %s", name, r.status, r.body, status, code)
			}
			got := decisionOf(r, up.of(mark))
			if *same == "" {
				*same = got
			}
			if got != *same {
				t.Errorf("%s:\n%s\nelse\n%s", name, got, *same)
			}
		}
	}
}

// passing are numbers that depend on when a request comes.
var passing = regexp.MustCompile(`(t=|"retryAfter":|X-Ratelimit-Reset: |Retry-After: )\d+`)

// decisionOf returns what client and application are told of a decision.
func decisionOf(r *reply, got []seen) string {
	var b strings.Builder
	fmt.Fprintln(&b, r.status, r.body)
	for _, name := range []string{
		"Cache-Control", "Content-Type", "Www-Authenticate", "Retry-After", "Ratelimit-Policy", "Ratelimit",
		"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset",
	} {
		for _, value := range r.header.Values(name) {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	for _, request := range got {
		fmt.Fprintln(&b, "upstream:", request.Method, request.Header["X-User-Id"], request.Header["X-Api-Key"], request.Header["Authorization"])
	}
	return passing.ReplaceAllString(b.String(), "${1}n")
}
