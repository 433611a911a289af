package apikey

import (
	"strings"
	"testing"
)

const sessionSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		config team
	}
}

{$SITE} {
	log {
		format apikey_redact
	}
	route /quiet/* {
		apikey {
			session off
		}
		apikey_api {
			base /quiet
		}
	}
	route /loud/* {
		apikey {
			session off
		}
		apikey
		apikey_api {
			base /loud
		}
	}
	route /team/* {
		apikey_api {
			dialect better_auth
			base /team
			user {http.auth.user.id}
			organization {vars.org} {
				role {vars.role}
				config team
			}
		}
	}
}
`

// TestSelfService_session looks into the access log for who a key stood for.
func TestSelfService_session(t *testing.T) {
	s := startGate(t, sessionSite)
	for _, row := range []struct {
		name, target, owner, configID string
		status                        int
		logged                        bool
	}{
		{"a gate without a session", "/quiet/usage", "quinn", "default", 200, false},
		{"a gate with one behind it", "/loud/usage", "louis", "default", 200, true},
		{"no gate", "/team/api-key/list", "nora", "default", 200, true},
		{"a key of an organization", "/team/api-key/list", "acme", "team", 401, false},
	} {
		k := s.create(with(readWrite, "userId", row.owner, "configId", row.configID))
		if r := s.call("GET", row.target+"?mark="+row.owner, "", keyLine(k.Raw)); r.status != row.status {
			t.Errorf("%s: %d %s, want %d", row.name, r.status, r.body, row.status)
		}
		awaitLog(t, s, "mark="+row.owner)
		if logged := strings.Contains(s.Log(), `"user_id":"`+row.owner+`"`); logged != row.logged {
			t.Errorf("%s: the access log names the owner: %v", row.name, logged)
		}
	}
}
