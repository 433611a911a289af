package e2e

import (
	"fmt"
	"strings"
	"testing"
)

const guessSite = `{
	log default {
		format apikey_redact
	}
	servers {
		trusted_proxies static 127.0.0.1/32
		trusted_proxies_strict
	}
	apikey {
		guess_limit 3/24h
	}
}

{$SITE} {
	handle /v1/auth/* {
		apikey_api {
			extended
		}
	}
	handle /api/auth/* {
		apikey_api {
			dialect better_auth
		}
	}
	handle {
		apikey
		respond ok
	}
	handle_errors {
		respond /page/* "{http.apikey.error.code} {http.apikey.error.limit}"
	}
}
`

// guess sends a request with a key, as a proxy that writes X-Forwarded-For.
func (s *server) guess(target, raw, forwarded string) *reply {
	s.t.Helper()
	return s.get(target, keyLine(raw), "X-Forwarded-For: "+forwarded)
}

// exhaust sends wrong keys from an address until the limit is reached. Before the filter over
// all keys is there, they are not counted.
func (s *server) exhaust(forwarded string) {
	s.t.Helper()
	eventually(s.t, "the limit of guesses is reached", func() bool { return s.guess("/", "x", forwarded).status == 429 })
}

// TestD4_clientIP: the limit counts by Caddy's client_ip, for gates and APIs together.
func TestD4_clientIP(t *testing.T) {
	full(t)
	s := startGate(t, guessSite)
	valid := s.create(readWrite).Raw
	s.exhaust("203.0.113.1")
	unknown := testKey("ak_", 64)
	wrong := []string{"x", unknown, unknown[:60], "xx_" + unknown[3:]}

	for _, row := range []struct {
		name    string
		address func(i int) string
		limited bool
	}{
		{"one address", func(int) string { return "198.51.100.1" }, true},
		{"an address each", func(i int) string { return fmt.Sprintf("198.51.101.%d", i) }, false},
		{"rotation inside a /64", func(i int) string { return fmt.Sprintf("2001:db8:1:2:%x::%x", i*977, i) }, true},
		{"a /64 each", func(i int) string { return fmt.Sprintf("2001:db8:2:%x::1", i) }, false},
		{"mapped and not", func(i int) string { return [...]string{"198.51.100.2", "::ffff:198.51.100.2"}[i%2] }, true},
		{"a list whose beginning the client makes up", func(i int) string { return fmt.Sprintf("192.0.2.%d, 198.51.100.3", i) }, true},
		{"a list with a trusted proxy", func(i int) string { return fmt.Sprintf("192.0.2.%d, 198.51.100.4, 127.0.0.1", i) }, true},
		{"several lines", func(i int) string { return fmt.Sprintf("192.0.2.%d\r\nX-Forwarded-For: 198.51.100.5", i) }, true},
	} {
		for i := range 12 {
			want, code := 401, "INVALID_API_KEY"
			if row.limited && i >= 3 {
				want, code = 429, "RATE_LIMITED"
			}
			if r := s.guess("/", wrong[i%len(wrong)], row.address(i)); r.status != want || r.code != code {
				t.Errorf("%s, %d: %d %s, want %d", row.name, i, r.status, r.body, want)
			}
			if r := s.guess("/", valid, row.address(i)); r.status != 200 {
				t.Errorf("%s, %d: a valid key gets %d %s", row.name, i, r.status, r.body)
			}
		}
	}

	// The answer, which is the same wherever the limit is met.
	r := s.guess("/", unknown, "203.0.113.1")
	p, rate := r.problem(t), ratesOf(t, r.header)["guess"]
	if p.Code != "RATE_LIMITED" || p.Limit != "guess" || p.Scope != "address" || p.Type != quotaExceeded || fmt.Sprint(p.Violated) != "[guess]" ||
		p.Detail != "Too many invalid API keys came from this address." {
		t.Errorf("%s", r.body)
	}
	if rate.q != 3 || rate.w != 86_400 || rate.r != 0 || rate.t < 1 || rate.t > 86_400 || r.header.Get("Retry-After") != fmt.Sprint(p.RetryAfter) || r.header.Get("Www-Authenticate") != "" {
		t.Errorf("%v", r.header)
	}
	if r := s.guess("/page/", unknown, "203.0.113.1"); r.status != 429 || r.body != "RATE_LIMITED guess" {
		t.Errorf("an error page: %d %s", r.status, r.body)
	}
	if r := s.get("/", keyLine("x"), "Authorization: Bearer y", "X-Forwarded-For: 203.0.113.1"); r.status != 429 || ratesOf(t, r.header)["guess"].q != 3 {
		t.Errorf("two wrong keys: %d %s", r.status, r.body)
	}
	for _, target := range []string{"/v1/auth/api-keys", "/v1/auth/usage", "/api/auth/api-key/list"} {
		for _, raw := range wrong {
			if r := s.guess(target, raw, "203.0.113.1"); r.status != 429 || r.code != "RATE_LIMITED" || r.header.Get("Retry-After") == "" || ratesOf(t, r.header)["guess"].q != 3 {
				t.Errorf("%s: %d %s %v", target, r.status, r.body, r.header)
			}
		}
	}
	if r := s.guess("/v1/auth/api-keys", valid, "203.0.113.1"); r.status != 200 {
		t.Errorf("listing with a valid key: %d %s", r.status, r.body)
	}
	// Guesses at the API count for the gate.
	for _, target := range []string{"/v1/auth/api-keys", "/v1/auth/usage", "/api/auth/api-key/list"} {
		if r := s.guess(target, "x", "198.51.100.6"); r.status != 401 {
			t.Errorf("%s: %d %s", target, r.status, r.body)
		}
	}
	if r := s.guess("/", "x", "198.51.100.6"); r.status != 429 {
		t.Errorf("after guesses at the API: %d %s", r.status, r.body)
	}
	// The admin API has no client, so that what operators look at is never limited.
	for range 5 {
		var out struct{ Error struct{ Code string } }
		s.admin("POST", "/apikey/verify", map[string]any{"key": "x", "ip": "203.0.113.1"}, 200, &out)
		if out.Error.Code != "INVALID_API_KEY" {
			t.Fatalf("verify answers %q", out.Error.Code)
		}
	}
}

// TestD4_reload: a reload keeps the counts and brings its own limit. Where no proxy is trusted,
// what the client writes into X-Forwarded-For does not matter.
func TestD4_reload(t *testing.T) {
	full(t)
	s := startGate(t, guessSite)
	s.exhaust("203.0.113.1")
	s.reload(strings.Replace(guessSite, "3/24h", "4/24h", 1))
	for i, want := range []int{401, 429, 429} { // it had counted 3
		if r := s.guess("/", "x", "203.0.113.1"); r.status != want {
			t.Errorf("%d after the reload: %d %s, want %d", i, r.status, r.body, want)
		}
	}
	s.reload(strings.Replace(guessSite, "guess_limit 3/24h", "", 1))
	if r := s.guess("/", "x", "203.0.113.1"); r.status != 401 {
		t.Errorf("without the option: %d %s", r.status, r.body)
	}
	open := strings.NewReplacer("trusted_proxies static 127.0.0.1/32", "", "trusted_proxies_strict", "").Replace(guessSite)
	s.reload(open)
	for i := range 6 {
		want := 401
		if i >= 3 {
			want = 429
		}
		if r := s.guess("/", "x", fmt.Sprintf("198.51.100.%d", i)); r.status != want {
			t.Errorf("%d without a trusted proxy: %d %s, want %d", i, r.status, r.body, want)
		}
	}
}
