package e2e

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
	route /silent/* {
		apikey {
			session off
		}
		apikey_api {
			dialect better_auth
			base /silent
		}
	}
	route /spoken/* {
		apikey {
			session off
		}
		apikey
		apikey_api {
			dialect better_auth
			base /spoken
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
	full(t)
	s := startGate(t, sessionSite)
	for _, row := range []struct {
		name, target, owner, configID string
		status                        int
		logged                        bool
	}{
		{"a gate without a session", "/quiet/usage", "quinn", "default", 200, false},
		{"a gate with one behind it", "/loud/usage", "louis", "default", 200, true},
		{"no gate", "/team/api-key/list", "nora", "default", 200, true},
		{"a key of an organization", "/team/api-key/list", "org:acme", "team", 401, false},
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

// TestSelfService_getSession asks for a session behind gates that open none. What is
// refused is not charged.
func TestSelfService_getSession(t *testing.T) {
	full(t)
	s := startGate(t, sessionSite)
	k := s.create(with(readWrite, "userId", "sven", "remaining", 10))
	for _, row := range []struct {
		target, code string
		status, left int
	}{
		{"/silent/get-session", "INVALID_REFERENCE_ID_FROM_API_KEY", 401, 10},
		{"/silent/api-key/list", "", 200, 9},
		{"/spoken/get-session", "", 200, 8},
		{"/team/get-session", "", 200, 7},
	} {
		r := s.call("GET", row.target, "", keyLine(k.Raw))
		r.is(t, row.status, row.code)
		if strings.Contains(r.body, k.ID) != (row.status == 200) {
			t.Errorf("%s: %s", row.target, r.body)
		}
		if left := s.left(k.ID); left != int64(row.left) {
			t.Errorf("%s: %d are left, want %d", row.target, left, row.left)
		}
	}
}
