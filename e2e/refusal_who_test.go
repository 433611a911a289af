package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const whoSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		tier free {
			limit 2/1h
		}
		config pub {
			session off
		}
	}
}

{$SITE} {
	log {
		format apikey_redact json
	}
	log_append who {http.auth.candidate.id}
	log_append whose {http.auth.user.id}
	handle /perm/* {
		apikey nobody:has
		respond ok
	}
	handle /own/* {
		apikey {
			config default
		}
		respond ok
	}
	handle /twice/* {
		apikey
		route {
			apikey nobody:has
			respond ok
		}
	}
	handle /cost/* {
		apikey {
			cost {http.vars.cost}
		}
		respond ok
	}
	handle /optional/* {
		apikey {
			optional
			preflight
		}
		respond ok
	}
	handle /basic/* {
		basic_auth {
			bob $2a$04$2DbWC8BFD2Of1F0I7veXpeShJe1fwc/FRsaWHpH5E85K.zg7ABaj.
		}
		route {
			apikey
			respond ok
		}
	}
	handle /open/* {
		respond ok
	}
	handle {
		apikey
		respond "[{http.auth.user.id}][{http.auth.candidate.id}]"
	}
	handle_errors {
		respond "{http.apikey.error.code} {http.apikey.error.limit} user[{http.auth.user.id}{http.auth.user.key_id}{http.auth.user.key_name}{http.auth.user.tier}{http.auth.user.config}{http.auth.user.permissions}{http.auth.user.metadata.a}] candidate[{http.auth.candidate.id} {http.auth.candidate.key_id} {http.auth.candidate.key_name} {http.auth.candidate.tier} {http.auth.candidate.config}]"
	}
}
`

// TestQ12_candidate: after a refusal, error routes and the access log tell whose key it
// was, and identify nobody.
func TestQ12_candidate(t *testing.T) {
	full(t)
	s := startGate(t, whoSite)
	s.admin("PUT", "/apikey/owners/carol", map[string]any{"tier": "free"}, 200, nil)
	key := func(fields map[string]any) made {
		k := s.create(map[string]any{"userId": "carol", "name": "laptop", "permissions": []string{"files:read"}, "metadata": map[string]any{"a": "b"}})
		if fields != nil {
			s.admin("PATCH", "/apikey/keys/"+k.ID, fields, 200, nil)
		}
		return k
	}
	plain := key(nil)
	off := key(map[string]any{"enabled": false})
	far := key(map[string]any{"allowedIps": []string{"192.0.2.1"}})
	empty := key(map[string]any{"remaining": 0})
	slow := key(map[string]any{"rateLimitMax": 1, "rateLimitTimeWindow": 3_600_000})
	s.get("/", "X-API-Key: "+slow.Raw)
	pub := s.create(map[string]any{"userId": "carol", "name": "laptop", "configId": "pub"})
	n := 0
	check := func(target string, lines []string, status int, body string, keyID, owner, outcome, limit, userID string) {
		t.Helper()
		n++
		mark := fmt.Sprint("mark-", n)
		r := s.get(target, append([]string{"User-Agent: " + mark}, lines...)...)
		if r.status != status || r.body != body {
			t.Errorf("%s: got %d %s\nwant %d %s", target, r.status, r.body, status, body)
		}
		entry := accessEntry(t, s, mark)
		want := map[string]any{"key_id": keyID, "owner": owner, "outcome": outcome, "limit": limit}
		if got := fmt.Sprint(entry["apikey"]); got != fmt.Sprint(want) {
			t.Errorf("%s: field apikey is %s, want %v", target, got, want)
		}
		if entry["user_id"] != userID {
			t.Errorf("%s: user_id is %v, want %q", target, entry["user_id"], userID)
		}
		who := owner
		if status == 200 {
			who = ""
		}
		if entry["who"] != who || entry["whose"] != userID {
			t.Errorf("%s: log_append wrote %v and %v, want %q and %q", target, entry["who"], entry["whose"], who, userID)
		}
	}
	refused := func(target string, k made, lines []string, status int, code, limit, outcomeConfig string) {
		t.Helper()
		body := fmt.Sprintf("%s %s user[] candidate[carol %s laptop free %s]", code, limit, k.ID, outcomeConfig)
		check(target, append([]string{"X-API-Key: " + k.Raw}, lines...), status, body, k.ID, "carol", strings.ToLower(code), limit, "")
	}
	refused("/", off, nil, 401, "KEY_DISABLED", "", "default")
	refused("/", far, nil, 403, "IP_NOT_ALLOWED", "", "default")
	refused("/perm/", plain, nil, 403, "INSUFFICIENT_PERMISSIONS", "", "default")
	refused("/", empty, nil, 429, "USAGE_EXCEEDED", "credits", "default")
	refused("/", slow, nil, 429, "RATE_LIMITED", "key", "default")
	refused("/own/", pub, nil, 401, "INVALID_API_KEY", "", "pub")
	refused("/perm/", pub, nil, 403, "INSUFFICIENT_PERMISSIONS", "", "pub")
	refused("/optional/", off, nil, 401, "KEY_DISABLED", "", "default")
	refused("/twice/", plain, nil, 403, "INSUFFICIENT_PERMISSIONS", "", "default")
	// Basic has identified bob in front of the gate.
	refused("/basic/", off, []string{"Authorization: Basic Ym9iOnNlY3JldA=="}, 401, "KEY_DISABLED", "", "default")
	check("/basic/", []string{"Authorization: Basic Ym9iOnNlY3JldA=="}, 401, "MISSING_API_KEY  user[bob] candidate[    ]", "", "", "missing_api_key", "", "bob")
	// Nobody's key.
	nobody := "  user[] candidate[    ]"
	check("/", nil, 401, "MISSING_API_KEY"+nobody, "", "", "missing_api_key", "", "")
	check("/", []string{"X-API-Key: " + testKey("ak_", 64)}, 401, "INVALID_API_KEY"+nobody, "", "", "invalid_api_key", "", "")
	check("/", []string{"X-API-Key: " + plain.Raw, "X-API-Key: " + off.Raw}, 400, "AMBIGUOUS_API_KEY"+nobody, "", "", "ambiguous_api_key", "", "")
	// A configuration error has no code.
	check("/cost/", []string{"X-API-Key: " + plain.Raw}, 500, fmt.Sprintf("  user[] candidate[carol %s laptop free default]", plain.ID), plain.ID, "carol", "internal", "", "")
	// Let in.
	check("/", []string{"X-API-Key: " + plain.Raw}, 200, "[carol][]", plain.ID, "carol", "allowed", "", "carol")
	check("/optional/", nil, 200, "ok", "", "", "allowed", "", "")
	// The tier is used up by now: slow and plain.
	refused("/", plain, nil, 429, "RATE_LIMITED", "hour", "default")

	s.get("/open/", "User-Agent: no-gate")
	if entry := accessEntry(t, s, "no-gate"); entry["apikey"] != nil {
		t.Errorf("a request that met no gate: %v", entry["apikey"])
	}
}

const laterSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		config pub
	}
}

{$SITE} {
	log {
		format apikey_redact json
	}
	handle /v1/auth/* {
		apikey
		apikey_api
	}
	handle {
		apikey
		route {
			route /perm/* {
				apikey nobody:has
			}
			route /secret/* {
				apikey {
					secret required
				}
			}
			route /cost/* {
				apikey {
					cost 3
				}
			}
			route /pub/* {
				apikey {
					config pub
				}
			}
			route /broken/* {
				apikey {
					cost {http.vars.none}
				}
			}
			route /second/* {
				apikey {
					headers X-Other
				}
			}
			route /session/* {
				apikey nobody:has {
					session off
				}
			}
			respond ok
		}
	}
	handle_errors {
		respond "[{http.auth.user.id}{http.auth.user.key_id}{http.auth.user.permissions}] [{http.auth.candidate.id}] {http.apikey.error.code}"
	}
}
`

// TestQ16_laterGate: what an earlier gate has let in is not identified any more, once a
// later gate, or the self-service API, refuses it.
func TestQ16_laterGate(t *testing.T) {
	full(t)
	s := startGate(t, laterSite)
	for i, row := range []struct {
		method, target string
		lines          []string
		status         int
		code           string
	}{
		{"GET", "/perm/", nil, 403, "INSUFFICIENT_PERMISSIONS"},
		{"GET", "/secret/", nil, 401, "INVALID_SECRET"},
		{"GET", "/cost/", nil, 429, "RATE_LIMITED"},
		{"GET", "/pub/", nil, 401, "INVALID_API_KEY"},
		{"GET", "/broken/", nil, 500, ""},
		{"GET", "/second/", []string{"X-Other: " + testKey("ak_", 64)}, 400, "AMBIGUOUS_API_KEY"},
		{"GET", "/session/", nil, 403, "INSUFFICIENT_PERMISSIONS"},
		{"POST", "/v1/auth/api-keys", nil, 403, "INSUFFICIENT_PERMISSIONS"},
		{"GET", "/", nil, 200, ""},
	} {
		k := s.create(map[string]any{"permissions": []string{"api:read"}, "rateLimitMax": 2, "rateLimitTimeWindow": 3_600_000})
		mark := fmt.Sprint("mark-", i)
		m := message{method: row.method, target: row.target, fields: fieldsOf(append(row.lines, "X-API-Key: "+k.Raw, "User-Agent: "+mark))}
		r := m.plain(t, s.URL)
		if r.status != row.status {
			t.Errorf("%s: status %d, want %d: %s", row.target, r.status, row.status, r.body)
		}
		if want := "[] [alice] " + row.code; row.method == "GET" && row.status != 200 && r.body != want {
			t.Errorf("%s: got %s, want %s", row.target, r.body, want)
		}
		outcome, userID := strings.ToLower(row.code), ""
		switch row.status {
		case 200:
			outcome, userID = "allowed", "alice"
		case 500:
			outcome = "internal"
		}
		entry := accessEntry(t, s, mark)
		field, _ := entry["apikey"].(map[string]any)
		if entry["user_id"] != userID || field["key_id"] != k.ID || field["owner"] != "alice" || field["outcome"] != outcome {
			t.Errorf("%s: the log has user_id %q and %v", row.target, entry["user_id"], field)
		}
		if n := s.state(k.ID).RequestCount; n != int64(btoi(row.status == 200)) {
			t.Errorf("%s: %d requests are counted", row.target, n)
		}
	}
}

// accessEntry waits for the access log's entry about a request with a User-Agent.
func accessEntry(t *testing.T, s *server, agent string) (entry map[string]any) {
	t.Helper()
	eventually(t, "the access log has "+agent, func() bool {
		for line := range strings.Lines(s.Log()) {
			if !strings.Contains(line, `"http.log.access`) || !strings.Contains(line, `"`+agent+`"`) {
				continue
			}
			entry = nil
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			return true
		}
		return false
	})
	return entry
}
