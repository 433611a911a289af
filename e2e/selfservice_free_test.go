package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/rest"
)

const freeSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		tier small {
			limit 3/day
		}
	}
}

(people) {
	basic_auth {
		bob {$HASH}
		eve {$HASH}
	}
}

{$SITE} {
	handle /person/* {
		import people
		apikey_api {
			base /person
			user {http.auth.user.id}
		}
	}
	handle /api/auth/* {
		apikey_api {
			dialect better_auth
		}
	}
	handle /v1/auth/* {
		apikey_api {
			extended
		}
		respond "next"
	}
	handle {
		apikey
		respond ok
	}
}
`

// drain uses a key at the gate until it is refused.
func (s *server) drain(raw, code string) {
	s.t.Helper()
	for range 100 {
		if r := s.get("/", keyLine(raw)); r.status != 200 {
			r.is(s.t, 429, code)
			return
		}
	}
	s.t.Fatal("the key has no end")
}

// TestQ32_revocation drains keys in every way there is. Their owners still see what they
// have and end them, which costs nothing and is in no statistics; nothing else works.
func TestQ32_revocation(t *testing.T) {
	full(t)
	s := startGate(t, freeSite, withEnv("HASH="+passwordHash))
	s.admin("PUT", "/apikey/owners/full", map[string]any{"tier": "small"}, 200, nil)
	for name, row := range map[string]struct {
		fields map[string]any
		code   string
	}{
		"credits":       {map[string]any{"remaining": 2}, "USAGE_EXCEEDED"},
		"rate limit":    {map[string]any{"rateLimitMax": 2, "rateLimitTimeWindow": 3_600_000}, "RATE_LIMITED"},
		"limit of tier": {map[string]any{"userId": "full"}, "RATE_LIMITED"},
	} {
		for how, end := range map[string]struct{ method, target, body string }{
			"rest, self":          {"DELETE", "/v1/auth/api-keys/self", ""},
			"rest, by ID":         {"DELETE", "/v1/auth/api-keys/{id}", ""},
			"better_auth, self":   {"POST", "/api/auth/api-key/delete", `{"keyId":"self"}`},
			"better_auth, by ID":  {"POST", "/api/auth/api-key/delete", `{"keyId":"{id}"}`},
			"rest, self, encoded": {"DELETE", "/v1/auth/api-keys/%73elf", ""},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				s.t = t
				k := s.create(with(with(readWrite, "userId", t.Name()), pairs(row.fields)...))
				s.drain(k.Raw, row.code)
				uses, st := s.usesToday(k.ID), s.state(k.ID)
				for _, free := range []string{"/v1/auth/usage", "/v1/auth/api-keys", "/api/auth/api-key/list", "/api/auth/api-key/get?id=self"} {
					r := s.get(free, keyLine(k.Raw))
					r.is(t, 200, "")
					if got := r.header.Get("RateLimit-Policy"); got != `"self-service";q=60;w=60` {
						t.Errorf("%s: RateLimit-Policy %q", free, got)
					}
				}
				if got, now := s.usesToday(k.ID), s.state(k.ID); got != uses || !reflect.DeepEqual(now, st) {
					t.Errorf("free calls are counted: %+v %+v, before %+v %+v", got, now, uses, st)
				}
				for _, dear := range []struct{ method, target, body string }{
					{"POST", "/v1/auth/api-keys", ""},
					{"PATCH", "/v1/auth/api-keys/self", `{"name":"x"}`},
					{"POST", "/v1/auth/api-keys/self/rotate", ""},
					{"POST", "/api/auth/api-key/create", "{}"},
					{"POST", "/api/auth/api-key/update", `{"keyId":"self","name":"x"}`},
					{"GET", "/api/auth/get-session", ""},
				} {
					s.call(dear.method, dear.target, dear.body, keyLine(k.Raw)).is(t, 429, row.code)
				}
				withID := strings.NewReplacer("{id}", k.ID)
				s.call(end.method, withID.Replace(end.target), withID.Replace(end.body), keyLine(k.Raw)).is(t, 200, "")
				if r := s.get("/", keyLine(k.Raw)); r.status != 401 {
					t.Errorf("the key is not ended: %d %s", r.status, r.body)
				}
			})
		}
	}
	s.t = t
}

// pairs are fields as with takes them.
func pairs(fields map[string]any) (all []any) {
	for name, value := range fields {
		all = append(all, name, value)
	}
	return all
}

// TestQ32_budget makes free calls until there are too many. Each key and each person has
// a budget; nobody can drain one so that a key can no longer end itself.
func TestQ32_budget(t *testing.T) {
	full(t)
	s := startGate(t, freeSite, withTestClock(), withEnv("HASH="+passwordHash))
	k, sister, other := s.create(readWrite), s.create(readWrite), s.create(with(readWrite, "userId", "other"))
	spend := func(who, usage string, first int) {
		t.Helper()
		for i := first; i < 60; i++ {
			r := s.get(usage, who)
			r.is(t, 200, "")
			if want := fmt.Sprintf(`"self-service";r=%d;t=`, 59-i); !strings.HasPrefix(r.header.Get("RateLimit"), want) {
				t.Fatalf("call %d: RateLimit %q, want %s", i, r.header.Get("RateLimit"), want)
			}
		}
		r := s.get(usage, who)
		r.is(t, 429, "RATE_LIMITED")
		wait := secondsOf(t, r.header.Get("Retry-After"))
		if wait < time.Second || wait > time.Minute || !strings.HasPrefix(r.header.Get("RateLimit"), `"self-service";r=0`) || !strings.Contains(r.body, "list, revoke and show usage") {
			t.Errorf("Retry-After %s, RateLimit %q, %s", wait, r.header.Get("RateLimit"), r.body)
		}
	}
	s.call("DELETE", "/v1/auth/api-keys/none", "", keyLine(k.Raw)).is(t, 404, "KEY_NOT_FOUND") // counts as well
	s.call("GET", "/api/auth/api-key/list", "", keyLine(k.Raw)).is(t, 200, "")
	spend(keyLine(k.Raw), "/v1/auth/usage", 2)
	for _, target := range []string{"/v1/auth/api-keys", "/api/auth/api-key/list", "/api/auth/api-key/get?id=self"} {
		s.get(target, keyLine(k.Raw)).is(t, 429, "RATE_LIMITED")
	}
	s.call("DELETE", "/v1/auth/api-keys/"+sister.ID, "", keyLine(k.Raw)).is(t, 429, "RATE_LIMITED")
	s.call("POST", "/api/auth/api-key/delete", `{"keyId":"`+sister.ID+`"}`, keyLine(k.Raw)).is(t, 429, "RATE_LIMITED")
	// Nothing of this touches what is charged, other keys, or people.
	s.rest(k.Raw, "")
	s.get("/", keyLine(k.Raw)).is(t, 200, "")
	s.get("/v1/auth/usage", keyLine(sister.Raw)).is(t, 200, "")
	s.get("/v1/auth/usage", keyLine(other.Raw)).is(t, 200, "")
	spend(signedIn("bob"), "/person/usage", 0)
	s.get("/person/usage", signedIn("eve")).is(t, 200, "")
	s.call("POST", "/person/api-keys", "", signedIn("bob")).is(t, 201, "")
	// Reloading the configuration gives nobody a new budget; time does.
	s.reload(strings.Replace(freeSite, "respond ok", "respond OK", 1))
	s.get("/v1/auth/usage", keyLine(k.Raw)).is(t, 429, "RATE_LIMITED")
	s.setClock(time.Minute)
	s.get("/v1/auth/usage", keyLine(k.Raw)).is(t, 200, "")
	spend(keyLine(k.Raw), "/v1/auth/usage", 1)
	s.call("DELETE", "/v1/auth/api-keys/self", "", keyLine(k.Raw)).is(t, 200, "")
	s.get("/", keyLine(k.Raw)).is(t, 401, "KEY_DISABLED")
	s.call("DELETE", "/v1/auth/api-keys/self", "", signedIn("eve")).is(t, 401, "MISSING_API_KEY")
	s.call("DELETE", "/person/api-keys/self", "", signedIn("eve")).is(t, 404, "KEY_NOT_FOUND")
}

// TestQ35_paths sends what is nearly a call of the API: it says that there is none,
// changes nothing and charges nothing. What lies elsewhere is for the next handler.
func TestQ35_paths(t *testing.T) {
	full(t)
	s := startGate(t, `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	apikey_api
	respond "next: {uri}"
}
`)
	k := s.create(with(readWrite, "remaining", 100))
	const keys = "/v1/auth/api-keys"
	for _, target := range []string{
		keys + "/", keys + "//", keys + "/{id}/", keys + "//{id}", keys + "/{id}//", keys + "/./{id}", keys + "/%2e/{id}", keys + "/{id}/rotate", keys + "/{id}/rotate/",
		keys + "/{id}/x", keys + "/{id}/..", keys + "/{id}/%2e%2e", keys + "/..", keys + "/%2e%2e", keys + "/%2E", keys + "%2f{id}", "/v1/auth%2fapi-keys/{id}", keys + "/x/../{id}",
		"/v1/auth/API-KEYS/{id}", "/V1/Auth/api-keys/{id}", "/v1//auth/api-keys/{id}", "//v1/auth/api-keys/{id}", "/v1/auth//api-keys", "/v1/auth/./usage", "/v1/auth/x/../api-keys",
		"/v1/%61uth//api-keys/{id}", "/x/../v1/auth/api-keys/{id}",
		keys + "/{id}%2f/", keys + "/openapi.json/", "/v1/auth/usage/", "/v1/auth/usage//", "/v1/auth/usage/{id}", "/v1/auth/usage%2f", "/v1/auth/usage/%2e",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			target := strings.ReplaceAll(target, "{id}", k.ID)
			r := s.call(method, target, "", keyLine(k.Raw))
			if method == "HEAD" {
				if r.status != 404 {
					t.Errorf("HEAD %s: %d", target, r.status)
				}
				continue
			}
			var e rest.Error
			if err := json.Unmarshal([]byte(r.body), &e); err != nil || r.status != 404 || e.Code != "NOT_FOUND" || r.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %s: %d %q", method, target, r.status, r.body)
			}
		}
	}
	for _, target := range []string{
		"/v1/auth/", "/v1/auth", "/v1/auth/api-keysx", "/v1/auth/api-keys.json", "/v1/auth/usages", "/v1/auth/other/api-keys", "/x/v1/auth/usage", "/v1/auth/usage;x", "/v1/auth/../api-keys/x",
	} {
		if r := s.call("DELETE", target, "", keyLine(k.Raw)); r.status != 200 || r.body != "next: "+target {
			t.Errorf("%s: %d %q", target, r.status, r.body)
		}
	}
	if st := s.state(k.ID); *st.Remaining != 100 || st.LastRequest != nil {
		t.Errorf("%+v", st)
	}
	s.call("GET", "/v1/auth/usage", "", keyLine(k.Raw)).is(t, http.StatusOK, "")
}
