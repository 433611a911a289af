package e2e

import (
	"encoding/json"
	"net/http"
	"testing"
)

// The session of a caller names the address that Caddy takes for the client's, for keys
// and for people.
func TestQ54_SessionNamesTheAddress(t *testing.T) {
	full(t)
	s := startGate(t, `{
	servers {
		trusted_proxies static 127.0.0.1/32
		trusted_proxies_strict
	}
}
{$SITE} {
	route /person/* {
		basic_auth {
			olga `+passwordHash+`
		}
		uri strip_prefix /person
		apikey_api {
			dialect better_auth
			user {http.auth.user.id}
		}
	}
	route /behind/* {
		apikey {
			keep_key
		}
		uri strip_prefix /behind
		apikey_api {
			dialect better_auth
		}
	}
	apikey_api {
		dialect better_auth
	}
}
`)
	k := s.create(map[string]any{"permissions": []string{"api:read"}})
	for _, tt := range []struct {
		name, path, forwarded, want string
		person                      bool
	}{
		{"directly", "/api/auth/get-session", "", "127.0.0.1", false},
		{"behind a gate", "/behind/api/auth/get-session", "", "127.0.0.1", false},
		{"through a proxy", "/api/auth/get-session", "203.0.113.7", "203.0.113.7", false},
		{"through a proxy, with an invented address", "/api/auth/get-session", "192.0.2.1, 203.0.113.7", "203.0.113.7", false},
		{"IPv6", "/api/auth/get-session", "2001:DB8::1", "2001:db8::1", false},
		{"a person", "/person/api/auth/get-session", "", "127.0.0.1", true},
		{"a person through a proxy", "/person/api/auth/get-session", "203.0.113.7", "203.0.113.7", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, s.URL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.forwarded != "" {
				req.Header.Set("X-Forwarded-For", tt.forwarded)
			}
			if tt.person {
				req.SetBasicAuth("olga", "password")
			} else {
				req.Header.Set("X-Api-Key", k.Raw)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var got struct{ Session struct{ IPAddress *string } }
			if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("%d, %v", resp.StatusCode, err)
			}
			if ip := got.Session.IPAddress; ip == nil || *ip != tt.want {
				t.Errorf("got %v, want %s", ip, tt.want)
			}
		})
	}
}
