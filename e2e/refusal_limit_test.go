package e2e

import (
	"slices"
	"testing"
)

const limitSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		default_tier free
		tier free {
			limit 100/1m
			limit 3/day
			limit 7/10s
		}
	}
}

{$SITE} {
	handle /legacy/* {
		apikey {
			rate_headers legacy
		}
		respond ok
	}
	handle /five/* {
		apikey {
			cost 5
		}
		respond ok
	}
	handle /two/* {
		apikey
		route {
			apikey nobody:has
		}
	}
	handle {
		apikey
		respond ok
	}
}
`

// quotaExceeded is the type of problem of a 429 (draft-ietf-httpapi-ratelimit-headers).
const quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// TestQ13_limit: a 429 says which limit refused, in words and in members, and each
// item of the rate headers shows its own limit.
func TestQ13_limit(t *testing.T) {
	full(t)
	s := startGate(t, limitSite)
	ask := func(target string, k made, status int, limit, scope, detail string, violated ...string) rates {
		t.Helper()
		r := s.get(target, "X-API-Key: "+k.Raw)
		if r.status != status {
			t.Fatalf("%s: status %d, want %d: %s", target, r.status, status, r.body)
		}
		if status == 429 {
			p := r.problem(t)
			if p.Type != quotaExceeded || p.Limit != limit || p.Scope != scope || p.Detail != detail || !slices.Equal(p.Violated, violated) {
				t.Errorf("%s: got %s", target, r.body)
			}
			if _, ok := ratesOf(t, r.header)[limit]; !ok {
				t.Errorf("%s: %q is no limit of %v", target, limit, r.header)
			}
		}
		return ratesOf(t, r.header)
	}
	left := func(what string, all rates, want map[string]int64) {
		t.Helper()
		for name, n := range want {
			if all[name].r != n {
				t.Errorf("%s: %s has %d left, want %d", what, name, all[name].r, n)
			}
		}
	}
	k := s.create(map[string]any{"userId": "alice"})
	for i := range int64(3) {
		left("let in", ask("/", k, 200, "", "", ""), map[string]int64{"minute": 99 - i, "day": 2 - i, "10s": 6 - i})
	}
	const perDay = "The limit per day of the owner's tier is reached."
	all := ask("/", k, 429, "day", "owner", perDay, "day")
	left("the day is full", all, map[string]int64{"minute": 97, "day": 0, "10s": 4})
	if all["10s"].t > 10 || all["minute"].t > 60 || all["10s"].t == 0 || all["minute"].t <= all["10s"].t {
		t.Errorf("the resets: %+v", all)
	}
	// Several do not admit it; one never will, and so is the one to know.
	ask("/five/", k, 429, "day", "owner", perDay, "10s", "day")

	own := s.create(map[string]any{"userId": "bob", "rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000, "remaining": 2})
	ask("/", own, 200, "", "", "")
	all = ask("/", own, 429, "key", "key", "The rate limit of the API key is reached.", "key")
	left("the key is full", all, map[string]int64{"key": 0, "credits": 1, "day": 2})

	poor := s.create(map[string]any{"userId": "carol", "remaining": 0, "rateLimitMax": 5, "rateLimitTimeWindow": 3_600_000})
	all = ask("/", poor, 429, "credits", "key", "The API key has too few credits left.", "credits")
	left("without credits", all, map[string]int64{"key": 5, "credits": 0, "day": 3})
	if all["key"].t != 0 || all["credits"].t != 0 {
		t.Errorf("the resets: %+v", all)
	}

	// A later gate refuses: what the first one wrote does not hold any more.
	dave := s.create(map[string]any{"userId": "dave"})
	if r := s.get("/two/", "X-API-Key: "+dave.Raw); r.status != 403 || r.header.Get("RateLimit") != "" || r.header.Get("RateLimit-Policy") != "" {
		t.Errorf("refused by a second gate: %d %v", r.status, r.header)
	}
	left("after it", ask("/", dave, 200, "", "", ""), map[string]int64{"day": 2})
}

// TestQ14_credits: where waiting never helps, the legacy headers show no reset, and
// there is no Retry-After.
func TestQ14_credits(t *testing.T) {
	full(t)
	s := startGate(t, limitSite)
	for _, row := range []struct {
		name   string
		fields map[string]any
		status int
		waits  bool
	}{
		{"credits that never come back", map[string]any{"remaining": 0}, 429, false},
		{"credits to come", map[string]any{"remaining": 0, "refillAmount": 1, "refillInterval": 3_600_000}, 429, true},
		{"let in with the last credit", map[string]any{"remaining": 1}, 200, false},
		{"a rate limit", map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000}, 200, true},
	} {
		row.fields["userId"] = row.name
		k := s.create(row.fields)
		h := s.get("/legacy/", "X-API-Key: "+k.Raw)
		if h.status != row.status || h.header.Get("X-RateLimit-Remaining") != "0" {
			t.Errorf("%s: %d %v", row.name, h.status, h.header)
		}
		reset := h.header.Values("X-RateLimit-Reset")
		if (reset != nil) != row.waits || row.waits && reset[0] != "3600" {
			t.Errorf("%s: X-RateLimit-Reset %q", row.name, reset)
		}
		if retry := h.header.Get("Retry-After"); (retry != "") != (row.waits && row.status == 429) {
			t.Errorf("%s: Retry-After %q", row.name, retry)
		}
	}
}
