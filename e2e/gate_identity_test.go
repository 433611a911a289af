package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const identitySite = `{
	skip_install_trust
	auto_https disable_redirects
	log default {
		format apikey_redact
	}
}

(routes) {
	handle /protected/* {
		apikey {
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Key-Name {http.auth.user.key_name}
			identity_header X-Plan {http.auth.user.metadata.plan}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /optional/* {
		apikey {
			optional
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Key-Name {http.auth.user.key_name}
			identity_header X-Plan {http.auth.user.metadata.plan}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /preflight/* {
		apikey {
			preflight
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Key-Name {http.auth.user.key_name}
			identity_header X-Plan {http.auth.user.metadata.plan}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /error/* {
		apikey {
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Key-Name {http.auth.user.key_name}
			identity_header X-Plan {http.auth.user.metadata.plan}
		}
		error 418
	}
	handle /twice/* {
		route {
			apikey {
				identity_header X-User-Id {http.auth.user.id}
			}
			apikey {
				identity_header X-Key-Name {http.auth.user.key_name}
				identity_header X-Plan {http.auth.user.metadata.plan}
			}
			reverse_proxy {$UPSTREAM}
		}
	}
	handle /buffered/* {
		apikey {
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Key-Name {http.auth.user.key_name}
			identity_header X-Plan {http.auth.user.metadata.plan}
		}
		reverse_proxy {$UPSTREAM} {
			request_buffers 4096
		}
	}
	handle /denied/* {
		route {
			apikey {
				identity_header X-User-Id {http.auth.user.id}
				identity_header X-Key-Name {http.auth.user.key_name}
			}
			apikey admin {
				identity_header X-Plan {http.auth.user.metadata.plan}
			}
			reverse_proxy {$UPSTREAM}
		}
	}
	handle /matched/* {
		@gated not path /matched/open/*
		apikey @gated {
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Key-Name {http.auth.user.key_name}
			identity_header X-Plan {http.auth.user.metadata.plan}
		}
		reverse_proxy {$UPSTREAM}
	}
	route /self/* {
		uri strip_prefix /self
		apikey_api
		apikey {
			identity_header X-User-Id {http.auth.user.id}
			identity_header X-Key-Name {http.auth.user.key_name}
			identity_header X-Plan {http.auth.user.metadata.plan}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle_errors {
		reverse_proxy {$UPSTREAM}
	}
}

https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	import routes
}

{$SITE} {
	import routes
}
`

// forgery is one way for a client to say that it is somebody else.
type forgery struct {
	name    string
	fields  []field
	trailer []field
	quiet   bool
	only    string // reason why it is for HTTP/1 only: a server of HTTP/2 may refuse it
}

const forged = "mallory"

func forgeries() (all []forgery) {
	add := func(name string, fields ...field) { all = append(all, forgery{name: name, fields: fields}) }
	for _, spelling := range []string{
		"X-User-Id", "x-user-id", "X-USER-ID", "x-UsEr-iD", "X_User_Id", "x_user_id", "X.User.Id", "X-User_Id",
		"X_User-Id", "X.User-Id", "X-User.Id", "X_User.Id", "X.USER_ID", "X-Key-Name", "x-plan", "X_Plan", "X.Plan",
	} {
		add(spelling, field{spelling, forged})
	}
	add("twice", field{"X-User-Id", forged}, field{"X-User-Id", forged})
	add("twice, two spellings", field{"X-User-Id", forged}, field{"X_User_Id", forged})
	add("list", field{"X-User-Id", "a, " + forged})
	add("empty", field{"X-User-Id", ""})
	add("empty and full", field{"X-User-Id", ""}, field{"X-User-Id", forged})
	add("8 KiB", field{"X-User-Id", strings.Repeat(forged, 8192/len(forged))})
	add("placeholder", field{"X-User-Id", "{http.request.host}" + forged})
	add("not ASCII", field{"X-User-Id", "\xff\xfe" + forged})
	for _, list := range []string{
		"X-User-Id", "x-user-id", "close, X-User-Id", "X-User-Id, close", "close,X-User-Id,", ", ,x-USER-id, ",
		"X-User-Id,X-Key-Name,X-Plan", "close, X-User-Id\t", "X-User-Id, X-User-Id", "keep-alive, X_User_Id, X-User-Id, Content-Length",
	} {
		all = append(all, forgery{
			name: "Connection: " + list, only: "HTTP/2 and HTTP/3 have no Connection",
			fields: []field{{"Connection", list}, {"X-User-Id", forged}},
		})
	}
	all = append(all,
		forgery{
			name: "Connection, two lines", only: "HTTP/2 and HTTP/3 have no Connection",
			fields: []field{{"Connection", "close"}, {"connection", "X-User-Id"}, {"X-User-Id", forged}},
		},
		forgery{
			name: "Connection beside Upgrade", only: "HTTP/2 and HTTP/3 have no Connection",
			fields: []field{{"Connection", "Upgrade, X-User-Id"}, {"Upgrade", "x"}, {"X-User-Id", forged}},
		},
		forgery{
			name: "Proxy-Connection", only: "HTTP/2 and HTTP/3 have no Connection",
			fields: []field{{"Proxy-Connection", "X-User-Id"}, {"X-User-Id", forged}},
		},
		forgery{name: "obsolete folding", only: "HTTP/1 syntax", fields: []field{{"X-User-Id", "\r\n " + forged}}},
		forgery{name: "trailer", trailer: []field{{"X-User-Id", forged}}},
		forgery{name: "trailers", trailer: []field{{"x-user-id", forged}, {"X-Key-Name", forged}, {"X-Fine", "1"}}},
		forgery{name: "trailer and header", fields: []field{{"X-User-Id", forged}}, trailer: []field{{"X-User-Id", forged}}},
		forgery{name: "trailer, not announced", quiet: true, trailer: []field{{"X-User-Id", forged}}},
		forgery{
			name: "trailer, others announced", quiet: true,
			fields: []field{{"Trailer", "X-Fine"}}, trailer: []field{{"X-Fine", "1"}, {"X-User-Id", forged}},
		},
		forgery{name: "trailer, underscores", trailer: []field{{"X_User_Id", forged}, {"X.User.Id", forged}}},
		forgery{
			name: "trailer, underscores not announced", quiet: true,
			fields: []field{{"Trailer", "X-Fine"}}, trailer: []field{{"X_User_Id", forged}},
		},
	)
	return all
}

// identityRoute is a kind of route, and what the upstream must see there.
type identityRoute struct {
	name, path, method, key string
	want                    string // X-User-Id, X-Key-Name, X-Plan; empty: the upstream sees no request
	status                  int
}

func identityRoutes(full, bare, maker string) []identityRoute {
	return []identityRoute{
		{"protected", "/protected/", "POST", full, "alice laptop pro", 200},
		{"protected, bare key", "/protected/", "POST", bare, "bob - -", 200},
		{"optional", "/optional/", "POST", full, "alice laptop pro", 200},
		{"optional, bare key", "/optional/", "POST", bare, "bob - -", 200},
		{"optional without key", "/optional/", "POST", "", "- - -", 200},
		{"optional, invalid key", "/optional/", "POST", "nonsense", "- - -", 200},
		{"preflight", "/preflight/", "OPTIONS", "", "- - -", 200},
		{"preflight with key", "/preflight/", "OPTIONS", full, "- - -", 200},
		{"refused, error route", "/protected/", "POST", "", "- - -", 200},
		{"error behind, error route", "/error/", "POST", full, "alice laptop pro", 200},
		{"error behind, bare key", "/error/", "POST", bare, "bob - -", 200},
		{"two gates", "/twice/", "POST", full, "alice laptop pro", 200},
		{"two gates, bare key", "/twice/", "POST", bare, "bob - -", 200},
		{"refused by the second gate", "/denied/", "POST", full, "- - -", 200},
		{"buffered", "/buffered/", "POST", full, "alice laptop pro", 200},
		{"a matcher, the gate", "/matched/", "POST", full, "alice laptop pro", 200},
		{"a matcher, bare key", "/matched/", "POST", bare, "bob - -", 200},
		{"a matcher, left open", "/matched/open/", "POST", "", "- - -", 200},
		{"self-service", "/self/v1/auth/api-keys", "POST", maker, "", 201},
		{"self-service without key", "/self/v1/auth/api-keys", "POST", "", "", 401},
		{"behind self-service", "/self/", "POST", full, "alice laptop pro", 200},
		{"behind self-service without key", "/self/", "POST", "", "- - -", 200},
	}
}

// message is the request that tries a forgery on the route.
func (route *identityRoute) message(f *forgery, mark string) *message {
	m := &message{method: route.method, target: route.path, trailer: f.trailer, quiet: f.quiet, body: "{}"}
	m.fields = append(slices.Clone(f.fields), field{markHeader, mark}, field{"Content-Type", "application/json"})
	if route.key != "" {
		m.fields = append(m.fields, field{"X-API-Key", route.key})
	}
	if route.method == "OPTIONS" {
		m.fields = append(m.fields, field{"Origin", "https://a.example"}, field{"Access-Control-Request-Method", "PUT"})
	}
	return m
}

// TestS5_IdentityForging sends every forgery to every kind of route. The upstream
// sees each identity header once and only ours, or not at all.
func TestS5_IdentityForging(t *testing.T) {
	full(t)
	up := startUpstream(t)
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, identitySite, withEnv("TLS_PORT="+tlsPort, "UPSTREAM="+up.Addr))
	full := s.create(map[string]any{"userId": "alice", "name": "laptop", "metadata": map[string]any{"plan": "pro"}}).Raw
	bare := s.create(map[string]any{"userId": "bob"}).Raw
	maker := s.create(with(readWrite, "userId", "carol")).Raw
	s.create(map[string]any{"userId": forged})
	p := newProtocols(t, "localhost:"+tlsPort)
	p.ready(t)
	list := forgeries()
	if len(list) < 40 {
		t.Errorf("only %d forgeries", len(list))
	}
	for _, route := range identityRoutes(full, bare, maker) {
		for i, f := range list {
			for _, version := range []string{"h1.0", "h1", "h2", "h3"} {
				name := route.name + "/" + f.name + "/" + version
				m := route.message(&f, name)
				var r *reply
				switch version {
				case "h1.0":
					if f.trailer != nil && route.status == http.StatusCreated {
						continue // HTTP/1.0 has no chunks, so that the body would be missing
					}
					m.proto = "HTTP/1.0"
					r = m.plain(t, s.URL)
				case "h1":
					r = m.plain(t, s.URL)
				case "h2":
					var err error
					if r, err = m.frames(t, p.host); f.only != "" && (err != nil || r.status == http.StatusBadRequest) {
						if n := len(up.of(name)); n != 0 {
							t.Errorf("%s: refused, and the upstream has seen %d requests", name, n)
						}
						continue
					}
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				case "h3":
					if f.only != "" || f.quiet || i > 0 && route.name != "protected" && route.name != "refused, error route" {
						continue // its client cannot send the one, and takes long for the other
					}
					r = p.send(t, version, m)
				}
				if r.status != route.status {
					t.Errorf("%s: status %d, want %d", name, r.status, route.status)
				}
				checkIdentitySeen(t, name, up.of(name), route.want, route.key)
			}
		}
	}
	var owned struct{ Keys []any }
	if s.admin("GET", "/apikey/keys?userId="+forged, nil, http.StatusOK, &owned); len(owned.Keys) != 1 {
		t.Errorf("%s has %d keys: the self-service API was told another owner", forged, len(owned.Keys))
	}
}

// fold maps the spellings of a header name that servers take for the same one.
func fold(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

func checkIdentitySeen(t *testing.T, name string, got []seen, want, raw string) {
	t.Helper()
	values := strings.Fields(want)
	if len(got) != min(len(values), 1) {
		t.Errorf("%s: the upstream has seen %d requests", name, len(got))
	}
	if len(got) != 1 || values == nil {
		return
	}
	for i, header := range []string{"x-user-id", "x-key-name", "x-plan"} {
		var sent []string
		for _, h := range []http.Header{got[0].Header, got[0].Trailer} {
			for n, v := range h {
				if fold(n) == header {
					sent = append(sent, v...)
				}
			}
		}
		if w := fmt.Sprintf("[%s]", strings.Trim(values[i], "-")); w != fmt.Sprint(sent) {
			t.Errorf("%s: %s is %q, want %s", name, header, sent, values[i])
		}
	}
	if raw != "" && got[0].has(raw) {
		t.Errorf("%s: the upstream has seen the key", name)
	}
	if got[0].has(forged) {
		t.Errorf("%s: the upstream has seen the forgery: %v", name, got[0])
	}
}
