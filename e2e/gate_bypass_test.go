package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

// lineUpstream is an upstream that remembers the head of each request as it was sent:
// an HTTP server would read a path in its own way.
type lineUpstream struct {
	Addr string

	mu    sync.Mutex
	heads [][]string // the lines of each
}

func startLineUpstream(t testing.TB) *lineUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	up := &lineUpstream{Addr: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go up.serve(conn)
		}
	}()
	return up
}

// serve answers one request.
func (up *lineUpstream) serve(conn net.Conn) {
	defer conn.Close()
	var head []string
	for r := textproto.NewReader(bufio.NewReader(conn)); ; {
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		if line == "" {
			break
		}
		head = append(head, line)
	}
	up.mu.Lock()
	up.heads = append(up.heads, head)
	up.mu.Unlock()
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// take returns the heads since it was called last.
func (up *lineUpstream) take() [][]string {
	up.mu.Lock()
	defer up.mu.Unlock()
	heads := up.heads
	up.heads = nil
	return heads
}

// bypassSites protect a site except /health, each with plain HTTP and TLS.
func bypassSites(t *testing.T) map[string]string {
	sites := map[string]string{
		"the recipe": strings.Replace(recipe(t, "Leave one path open"), "{$SITE}", "{$SITE}, https://localhost:{$TLS_PORT}", 1),
		"two branches": `{$SITE}, https://localhost:{$TLS_PORT} {
	handle /health {
		reverse_proxy {$UPSTREAM}
	}
	handle {
		apikey {
			preflight
		}
		reverse_proxy {$UPSTREAM}
	}
}
`,
		"a matcher": `{$SITE}, https://localhost:{$TLS_PORT} {
	@protected not path /health
	apikey @protected
	reverse_proxy {$UPSTREAM}
}
`,
	}
	for name, site := range sites {
		global, rest, ok := strings.Cut(site, "{\n\tlog default {")
		if !ok {
			global, rest = "", "\n\t\tformat apikey_redact\n\t}\n}\n\n"+site
		}
		sites[name] = global + "{\n\tskip_install_trust\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\tlog default {" + strings.Replace(rest, "{$TLS_PORT} {\n", "{$TLS_PORT} {\n\ttls internal\n", 1)
	}
	return sites
}

var bypassTargets = []string{
	"/", "/admin", "/health", "/HEALTH", "/Health", "//health", "/health/", "/health//", "/health/.", "/health/..", "/health/../admin",
	"/health/..;/admin", "/health;/../admin", "/health;x", "/health;x=1/admin", "/health%2e%2e/admin", "/health/%2e%2e/admin",
	"/health/%2E%2E/admin", "/health%2f..%2fadmin", "/health%2F%2e%2e%2Fadmin", "/health/..%2fadmin", "/health\\..\\admin",
	"/health%5c..%5cadmin", "/health%00", "/health%00/admin", "/health%0a", "/health%0d%0aX: y", "/health%20", "/health%09",
	"/health.", "/health..", "/health.json", "/health?x=/admin", "/admin?/health", "/admin#/health", "/admin/../health",
	"/admin/..%2fhealth", "/admin/%2e%2e/health", "/./health", "/%2e/health", "/%68ealth", "/%48EALTH", "/%2568ealth", "/healt%68",
	"/he%61lth/../admin", "/health%ff", "/héalth", "/ｈealth", "/health/x", "/healthz", "/xhealth", "///health///..//admin", "/%2fhealth",
	"/%2f/admin", "/.//admin", "/..//admin", "/../admin", "/..%2f..%2fadmin", "*", "http://127.0.0.1/admin", "http://127.0.0.1/health",
	"http://x/health/../admin", "http://127.0.0.1", "health", "?/health", "/health%", "/health%zz", "/:@/health", "/@health",
	"//x/health", "//127.0.0.1/admin", "http:/health", "http:///health", "/health\tx", "/health HTTP/1.1", "/admin/%2e%2e%2fhealth", "/a/b/../../health/../a",
}

// bypass sends requests without a key to one site.
type bypass struct {
	*testing.T
	s      *server
	secure string
	up     *lineUpstream
	strict bool // the request line must be that of /health itself
	opened int
}

// try sends a request. What arrives at the upstream must be for /health.
func (b *bypass) try(m *message, over string) {
	b.Helper()
	if over == "h2" {
		m.frames(b.T, b.secure) //nolint:errcheck // a request that the server refuses as malformed is fine here
	} else {
		raw(dial(b.T, b.s.URL), m.wire("127.0.0.1"), m.verb()) //nolint:errcheck // as above
	}
	b.check(fmt.Sprintf("%s %s over %s", m.verb(), m.target, over))
}

func (b *bypass) check(name string) {
	b.Helper()
	for _, head := range b.up.take() {
		method, rest, _ := strings.Cut(head[0], " ")
		target, proto, _ := strings.Cut(rest, " ")
		u, err := url.ParseRequestURI(target)
		if err != nil || proto != "HTTP/1.1" || !strings.EqualFold(path.Clean("/"+u.Path), "/health") {
			b.Errorf("%s went through without a key, as %q", name, head[0])
		} else if p, _, _ := strings.Cut(target, "?"); b.strict && p != "/health" {
			b.Errorf("%s went through as %s %s", name, method, target)
		}
		b.opened++
	}
}

// TestS8_RouteBypass asks for odd paths of sites that protect everything but /health,
// and compares the request lines that a raw upstream gets. What arrives without a key is
// for /health, and with the documented recipe its request line is exactly that.
func TestS8_RouteBypass(t *testing.T) {
	full(t)
	if len(bypassTargets) < 60 {
		t.Errorf("only %d targets", len(bypassTargets))
	}
	for name, site := range bypassSites(t) {
		t.Run(name, func(t *testing.T) {
			up := startLineUpstream(t)
			tlsPort := port(t, freeAddr(t))
			s := startGate(t, site, withEnv("UPSTREAM="+up.Addr, "TLS_PORT="+tlsPort))
			b := &bypass{T: t, s: s, secure: "localhost:" + tlsPort, up: up, strict: name == "the recipe"}
			newProtocols(t, b.secure).ready(t)
			up.take()
			b.paths()
			b.methods()
			b.headers()
			b.smuggled()
			if b.opened == 0 {
				t.Error("nothing was open")
			}
			k := s.create(nil)
			if r := s.get("/admin", keyLine(k.Raw)); r.status != 200 || len(up.take()) != 1 {
				t.Errorf("with a key: %d", r.status)
			}
		})
	}
}

func (b *bypass) paths() {
	for _, target := range bypassTargets {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST"} {
			b.try(&message{method: method, target: target}, "h1")
		}
		b.try(&message{target: target, proto: "HTTP/1.0"}, "h1.0")
		b.try(&message{target: target, proto: "HTTP/1.0", noHost: true}, "h1.0")
		b.try(&message{target: target}, "h2")
		b.try(&message{method: "OPTIONS", target: target}, "h2")
	}
}

func (b *bypass) methods() {
	for _, method := range []string{"TRACE", "CONNECT", "get", "PROPFIND", "PRI", "BREW", "DELETE", "PATCH", "PUT", "QUERY", "options", strings.Repeat("A", 40)} {
		for _, target := range []string{"/admin", "127.0.0.1:80", "/health/../admin"} {
			b.try(&message{method: method, target: target}, "h1")
			b.try(&message{method: method, target: target}, "h2")
		}
	}
}

func (b *bypass) headers() {
	for _, lines := range [][]string{
		{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"},
		{"X-Original-URL: /health"},
		{"X-Rewrite-URL: /health"},
		{"X-Forwarded-Uri: /health"},
		{"X-Forwarded-Prefix: /health"},
		{"X-HTTP-Method-Override: OPTIONS"},
		{"X-Forwarded-For: 127.0.0.1"},
		{"Forwarded: for=127.0.0.1;host=health"},
		{"Host: health"},
		{"Content-Length: 0", "Transfer-Encoding: chunked"},
		{"Expect: 100-continue"},
		{"Range: bytes=0-1"},
		{"Origin: https://a"},
		{"Access-Control-Request-Method: GET"},
		{"Origin: https://a", "Access-Control-Request-Method: GET"},
	} {
		b.try(&message{target: "/admin", fields: fieldsOf(lines)}, "h1")
		b.try(&message{target: "/admin", fields: fieldsOf(lines), proto: "HTTP/1.0"}, "h1.0")
		b.try(&message{target: "/admin", fields: fieldsOf(lines)}, "h2")
	}
}

// smuggled hides a request behind another one, where it is a request of its own.
func (b *bypass) smuggled() {
	for name, head := range map[string]string{
		"length and chunks": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks twice":      "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"two lengths":       "Content-Length: 0\r\nContent-Length: 30\r\n\r\n",
		"a list of lengths": "Content-Length: 0, 30\r\n\r\n",
		"no length":         "\r\n",
		"chunk extension":   "Transfer-Encoding: chunked\r\n\r\n0;\n\r\n\r\n",
		"a bare line feed":  "X: y\nContent-Length: 30\r\n\r\n",
		"obsolete coding":   "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	} {
		text := "POST /health HTTP/1.1\r\nHost: x\r\n" + head + "GET /admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
		raw(dial(b.T, b.s.URL), []byte(text), "POST") //nolint:errcheck // a refused connection is fine here
		b.check("smuggled with " + name)
	}
}

// TestS8_Preflight sends what is and what nearly is a CORS preflight request. Only one
// passes without a key, and only where the gate has the option; it gets no identity and
// is not charged.
func TestS8_Preflight(t *testing.T) {
	full(t)
	up := startUpstream(t)
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, `{
	skip_install_trust
	auto_https disable_redirects
	default_bind 127.0.0.1
	log default {
		format apikey_redact
	}
}
{$SITE}, https://localhost:{$TLS_PORT} {
	tls internal
	handle /without/* {
		apikey
		reverse_proxy {$UPSTREAM}
	}
	handle /twice/* {
		route {
			apikey {
				preflight
			}
			apikey
			reverse_proxy {$UPSTREAM}
		}
	}
	handle {
		apikey {
			preflight
			identity_header X-User-Id {http.auth.user.id}
		}
		reverse_proxy {$UPSTREAM}
	}
}
`, withEnv("UPSTREAM="+up.Addr, "TLS_PORT="+tlsPort))
	p := newProtocols(t, "localhost:"+tlsPort)
	p.ready(t)
	k := s.create(map[string]any{"remaining": 10, "rateLimitMax": 10, "rateLimitTimeWindow": 3_600_000})
	origin, method := field{"Origin", "https://a.example"}, field{"Access-Control-Request-Method", "PUT"}
	for i, row := range []struct {
		method, target string
		fields         []field
		status         int
	}{
		{"OPTIONS", "/", []field{origin, method}, 200},
		{"OPTIONS", "/", []field{origin, method, {"X-API-Key", k.Raw}}, 200},
		{"OPTIONS", "/", []field{origin, method, {"Authorization", "Bearer " + k.Raw}}, 200},
		{"OPTIONS", "/", []field{origin, method, {"X-API-Key", "nonsense"}}, 200},
		{"OPTIONS", "/", []field{origin, method, {"X-User-Id", forged}}, 200},
		{"OPTIONS", "/", []field{origin}, 401},
		{"OPTIONS", "/", []field{method}, 401},
		{"OPTIONS", "/", []field{{"Origin", ""}, method}, 401},
		{"OPTIONS", "/", []field{origin, {"Access-Control-Request-Method", ""}}, 401},
		{"OPTIONS", "/", nil, 401},
		{"GET", "/", []field{origin, method}, 401},
		{"HEAD", "/", []field{origin, method}, 401},
		{"options", "/", []field{origin, method}, 401},
		{"POST", "/", []field{origin, method, {"X-HTTP-Method-Override", "OPTIONS"}}, 401},
		{"OPTIONS", "/without/", []field{origin, method}, 401},
		{"OPTIONS", "/twice/", []field{origin, method}, 401},
	} {
		for _, version := range []string{"h1.0", "h1", "h2", "h3"} {
			mark := fmt.Sprint("preflight", i, version)
			m := &message{method: row.method, target: row.target, fields: append(slices.Clone(row.fields), field{markHeader, mark})}
			if version == "h1.0" {
				m.proto = "HTTP/1.0"
			}
			r := p.send(t, strings.TrimSuffix(version, ".0"), m)
			got := up.of(mark)
			if r.status != row.status || len(got) != btoi(row.status == http.StatusOK) {
				t.Errorf("%s %s %v over %s: status %d, want %d; %d at the upstream", row.method, row.target, row.fields, version, r.status, row.status, len(got))
			}
			if len(got) > 0 && (got[0].has(k.Raw) || got[0].Header["X-User-Id"] != nil) {
				t.Errorf("%v over %s: the upstream has seen a key or an identity: %v", row.fields, version, got[0].Header)
			}
		}
	}
	if st := s.state(k.ID); *st.Remaining != 10 || st.RequestCount != 0 || st.LastRequest != nil {
		t.Errorf("preflights were charged or counted: %+v", st)
	}
}
