package apikey

import (
	"encoding/json"
	"net/http"
	"testing"
)

const selfServiceSite = `{
	log default {
		format apikey_redact
	}
}
{$SITE} {
	route /person/* {
		basic_auth {
			bob {$BOB}
		}
		uri strip_prefix /person
		apikey_api {
			user {http.auth.user.id}
		}
	}
	route /gated/* {
		apikey {
			secret required
		}
		respond "behind the gate: {http.auth.user.id}"
	}
	apikey_api
	respond "next handler"
}
`

// bobsHash is bcrypt of "password", at its lowest cost.
const bobsHash = "$2a$04$Nlah0BDtEbvXgQg6Z5pNvejchqGIZIkYF3y9AQ/bou5h.42gu6pV."

func TestSelfService_smoke(t *testing.T) {
	s := startGate(t, selfServiceSite, withEnv("BOB="+bobsHash))
	k := s.create(map[string]any{"permissions": []string{"read", "write"}})
	r := (&message{method: http.MethodPost, target: "/v1/auth/api-keys", fields: fieldsOf([]string{"X-API-Key: " + k.Raw})}).plain(t, s.URL)
	t.Log(r.status, r.header, r.body)
	var m struct{ ID, Key, Secret string }
	json.Unmarshal([]byte(r.body), &m)
	for _, c := range []struct {
		method, target string
		lines          []string
	}{
		{"GET", "/v1/auth/api-keys", []string{"X-API-Key: " + k.Raw}},
		{"GET", "/v1/auth/usage", []string{"X-API-Key: " + k.Raw}},
		{"GET", "/v1/auth/usage", nil},
		{"GET", "/v1/auth/usage/", nil},
		{"PUT", "/v1/auth/usage", nil},
		{"GET", "/gated/", []string{"X-API-Key: " + m.Key, "X-API-Secret: " + m.Secret}},
		{"DELETE", "/v1/auth/api-keys/" + m.ID, []string{"X-API-Key: " + k.Raw}},
		{"GET", "/gated/", []string{"X-API-Key: " + m.Key, "X-API-Secret: " + m.Secret}},
		{"GET", "/person/v1/auth/usage", []string{"Authorization: Basic Ym9iOnBhc3N3b3Jk"}},
		{"POST", "/person/v1/auth/api-keys", []string{"Authorization: Basic Ym9iOnBhc3N3b3Jk", "Content-Type: application/json"}},
	} {
		r := (&message{method: c.method, target: c.target, fields: fieldsOf(c.lines)}).plain(t, s.URL)
		t.Log(c, r.status, r.header, r.body)
	}
}
