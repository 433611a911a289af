package e2e

import (
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
)

const secretSite = `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	log {
		format apikey_redact
	}
	route /gate/* {
		apikey {
			secret required
		}
		respond ok
	}
	route /gated/* {
		apikey {
			secret required
		}
		apikey_api {
			base /gated
			secret required
		}
	}
	route /ba/* {
		apikey_api {
			dialect better_auth
			base /ba
			secret required
		}
	}
	route /check/* {
		apikey_api {
			base /check
			secret
		}
	}
	route /off/* {
		apikey_api {
			base /off
		}
	}
	route /person/* {
		basic_auth {
			bob {$HASH}
		}
		apikey_api {
			base /person
			user {http.auth.user.id}
			secret required
			trusted_origins https://app.example.com
		}
	}
	apikey_api {
		secret required
	}
}
`

// TestSelfService_secret calls with the first half of a credential, and with both.
func TestSelfService_secret(t *testing.T) {
	full(t)
	s := startGate(t, secretSite, withEnv("HASH="+passwordHash))
	full := s.create(with(readWrite, "withSecret", true, "remaining", 100))
	bare := s.create(readWrite)
	secret := "X-API-Secret: " + full.Secret
	for _, row := range []struct {
		name, target string
		lines        []string
		status       int
		code         string
	}{
		{"both halves", "/v1/auth/usage", []string{keyLine(full.Raw), secret}, 200, ""},
		{"the key alone", "/v1/auth/usage", []string{keyLine(full.Raw)}, 401, "INVALID_SECRET"},
		{"a wrong secret", "/v1/auth/usage", []string{keyLine(full.Raw), secret + "x"}, 401, "INVALID_SECRET"},
		{"two secrets", "/v1/auth/usage", []string{keyLine(full.Raw), secret, secret}, 401, "INVALID_SECRET"},
		{"a key without a secret", "/v1/auth/usage", []string{keyLine(bare.Raw)}, 401, "INVALID_SECRET"},
		{"another's secret", "/v1/auth/usage", []string{keyLine(bare.Raw), secret}, 401, "INVALID_SECRET"},
		{"the gate has removed it", "/gated/usage", []string{keyLine(full.Raw), secret}, 200, ""},
		{"checked, both halves", "/check/usage", []string{keyLine(full.Raw), secret}, 200, ""},
		{"checked, the key alone", "/check/usage", []string{keyLine(full.Raw)}, 401, "INVALID_SECRET"},
		{"checked, a key without a secret", "/check/usage", []string{keyLine(bare.Raw)}, 200, ""},
		{"not looked at", "/off/usage", []string{keyLine(full.Raw)}, 200, ""},
		{"not looked at, a wrong one", "/off/usage", []string{keyLine(full.Raw), secret + "x"}, 200, ""},
		{"better_auth, both halves", "/ba/api-key/list", []string{keyLine(full.Raw), secret}, 200, ""},
		{"better_auth, the key alone", "/ba/api-key/list", []string{keyLine(full.Raw)}, 401, "INVALID_SECRET"},
		{"a person", "/person/usage", []string{signedIn("bob")}, 200, ""},
	} {
		if r := s.call("GET", row.target, "", row.lines...); r.status != row.status || r.code != row.code {
			t.Errorf("%s: %d %s, want %d %s", row.name, r.status, r.body, row.status, row.code)
		}
	}
	if left := s.left(full.ID); left != 99 {
		t.Errorf("%d are left: refused calls are charged", left)
	}
	secretMakes(t, s)
	awaitLog(t, s, "checks secrets less strictly than a gate")
	r := s.call("OPTIONS", "/person/api-keys", "", signedIn("bob"), "Origin: https://app.example.com", "Access-Control-Request-Method: POST")
	if got := r.header.Get("Access-Control-Allow-Headers"); got != "content-type, authorization, x-api-key, x-api-secret" {
		t.Errorf("a page may send %q", got)
	}
	if log := s.Log(); strings.Contains(log, full.Secret) || strings.Contains(log, full.Raw) {
		t.Error("a key or a secret stands in the log")
	}
}

// secretMakes makes a key that passes the gate, which needs both halves.
func secretMakes(t *testing.T, s *server) {
	k := s.create(with(readWrite, "withSecret", true))
	before := s.countKeys()
	s.call("POST", "/v1/auth/api-keys", "", keyLine(k.Raw)).is(t, 401, "INVALID_SECRET")
	if after := s.countKeys(); after != before {
		t.Errorf("%v are %v now", before, after)
	}
	var made rest.Created
	s.call("POST", "/v1/auth/api-keys", "", keyLine(k.Raw), "X-API-Secret: "+k.Secret).into(t, &made)
	s.call("GET", "/gate/", "", keyLine(made.Key), "X-API-Secret: "+made.Secret).is(t, 200, "")
}
