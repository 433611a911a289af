package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
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
	only    string // reason why it is for HTTP/1 only
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
		forgery{name: "trailer, not announced", quiet: true, only: "the clients always announce", trailer: []field{{"X-User-Id", forged}}},
		forgery{
			name: "trailer, others announced", quiet: true, only: "the clients always announce",
			fields: []field{{"Trailer", "X-Fine"}}, trailer: []field{{"X-Fine", "1"}, {"X-User-Id", forged}},
		},
		forgery{name: "trailer, underscores", only: "the clients refuse to send it", trailer: []field{{"X_User_Id", forged}, {"X.User.Id", forged}}},
		forgery{
			name: "trailer, underscores not announced", quiet: true, only: "the clients always announce",
			fields: []field{{"Trailer", "X-Fine"}}, trailer: []field{{"X_User_Id", forged}},
		},
	)
	return all
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
	p := newProtocols(t, "localhost:"+tlsPort)
	p.ready(t)
	list := forgeries()
	if len(list) < 40 {
		t.Errorf("only %d forgeries", len(list))
	}
	for _, route := range []struct {
		name, path, method, key string
		want                    string // X-User-Id, X-Key-Name, X-Plan
		status                  int
	}{
		{"protected", "/protected/", "POST", full, "alice laptop pro", 200},
		{"protected, bare key", "/protected/", "POST", bare, "bob - -", 200},
		{"optional", "/optional/", "POST", full, "alice laptop pro", 200},
		{"optional without key", "/optional/", "POST", "", "- - -", 200},
		{"preflight", "/preflight/", "OPTIONS", "", "- - -", 200},
		{"preflight with key", "/preflight/", "OPTIONS", full, "- - -", 200},
		{"refused, error route", "/protected/", "POST", "", "- - -", 200},
		{"error behind, error route", "/error/", "POST", full, "alice laptop pro", 200},
		{"two gates", "/twice/", "POST", full, "alice laptop pro", 200},
		{"buffered", "/buffered/", "POST", full, "alice laptop pro", 200},
	} {
		for i, f := range list {
			for _, version := range versions {
				if f.only != "" && version != "h1" || version == "h3" && route.name != "protected" && route.name != "refused, error route" {
					continue // HTTP/3 takes the same way as HTTP/2
				}
				m := message{method: route.method, target: route.path, trailer: f.trailer, quiet: f.quiet}
				m.fields = append(m.fields, f.fields...)
				mark := fmt.Sprint(route.name, i, version)
				m.fields = append(m.fields, field{markHeader, mark})
				if route.key != "" {
					m.fields = append(m.fields, field{"X-API-Key", route.key})
				}
				if route.method == "OPTIONS" {
					m.fields = append(m.fields, field{"Origin", "https://a.example"}, field{"Access-Control-Request-Method", "PUT"})
				}
				if f.trailer != nil {
					m.body = "body"
				}
				var r *reply
				if version == "h1" {
					r = m.plain(t, s.URL)
				} else {
					r = p.send(t, version, &m)
				}
				name := route.name + "/" + f.name + "/" + version
				if r.status != route.status {
					t.Errorf("%s: status %d, want %d", name, r.status, route.status)
				}
				checkIdentitySeen(t, name, up.of(mark), route.want, route.key)
			}
		}
	}
}

// fold maps the spellings of a header name that servers take for the same one.
func fold(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

func checkIdentitySeen(t *testing.T, name string, got []seen, want, raw string) {
	t.Helper()
	if len(got) != 1 {
		t.Errorf("%s: the upstream has seen %d requests", name, len(got))
		return
	}
	values := strings.Fields(want)
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

// TestS4_IdentityMixup checks under load that the upstream is told the owner of
// the key that was sent, while clients go away at random.
func TestS4_IdentityMixup(t *testing.T) {
	full(t)
	keys, requests := 200, 20_000
	if testing.Short() {
		requests = 2_000
	}
	var served, wrong atomic.Int64
	check := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if id := r.Header.Values("X-User-Id"); len(id) != 1 || id[0] != r.Header.Get("X-Want") {
			wrong.Add(1)
		}
		io.WriteString(w, "ok")
	})
	addr := serve(t, check)
	s := startGate(t, "{$SITE} {\n\tapikey {\n\t\tidentity_header X-User-Id {http.auth.user.id}\n\t}\n\treverse_proxy {$UPSTREAM}\n}\n",
		withEnv("UPSTREAM="+addr))
	raws := make([]string, keys)
	for i := range raws {
		raws[i] = s.create(map[string]any{"userId": fmt.Sprint("user", i)}).Raw
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var left atomic.Int64
	left.Store(int64(requests))
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				i := rand.IntN(keys)
				ctx, cancel := context.WithCancel(context.Background())
				req, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
				req.Header.Set("X-API-Key", raws[i])
				req.Header.Set("X-Want", fmt.Sprint("user", i))
				if rand.IntN(5) == 0 {
					go cancel() // some time soon
				}
				if resp, err := client.Do(req); err == nil {
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					// A server that is given no time to look a key up says so.
					if resp.StatusCode != http.StatusOK && ctx.Err() == nil && !strings.Contains(string(body), "STORE_UNAVAILABLE") {
						t.Errorf("status %d: %s", resp.StatusCode, body)
					}
				}
				cancel()
			}
		})
	}
	all.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d of %d requests came with another identity", wrong.Load(), served.Load())
	}
	if served.Load() < int64(requests)/2 {
		t.Errorf("only %d of %d requests arrived", served.Load(), requests)
	}
}

// serve runs a handler on the loopback interface and returns its address.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}
