package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// oddSite is a TLS site whose paths have gates that look in different places.
const oddSite = `{
	skip_install_trust
	auto_https disable_redirects
	log default {
		format apikey_redact
	}
}

https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	handle /query/* {
		apikey {
			query api_key
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /cookie/* {
		apikey {
			from {http.request.cookie.key}
		}
		reverse_proxy {$UPSTREAM}
	}
	handle {
		apikey
		reverse_proxy {$UPSTREAM}
	}
}

{$SITE} {
	apikey
	respond ok
}
`

// oddRow is one way to send a key.
type oddRow struct {
	name string
	message
	status int
	code   string
	only   string // reason why the row is for HTTP/1 only
	keep   string // what must reach the upstream all the same
}

func head(lines ...string) message { return message{target: "/", fields: fieldsOf(lines)} }

func at(target string, lines ...string) message {
	return message{target: target, fields: fieldsOf(lines)}
}

// flip returns s with its character at i replaced by another base62 character.
func flip(s string, i int) string {
	c := byte('A')
	if s[i] == c {
		c = 'B'
	}
	return s[:i] + string(c) + s[i+1:]
}

func oddRows(k, other string) []oddRow {
	const (
		ok      = http.StatusOK
		bad     = http.StatusBadRequest
		no      = http.StatusUnauthorized
		missing = "MISSING_API_KEY"
		invalid = "INVALID_API_KEY"
		several = "AMBIGUOUS_API_KEY"
		basic   = "Authorization: Basic YWxpY2U6c2VjcmV0"
	)
	in := func(name, value string) message { return message{target: "/", fields: []field{{name, value}}} }
	long := "ak_" + strings.Repeat("a", 510)
	many := strings.Repeat("x=1&", 10_000)
	rows := []oddRow{
		{name: "header", message: head("X-API-Key: " + k), status: ok},
		{name: "lower case name", message: head("x-api-key: " + k), status: ok},
		{name: "upper case name", message: head("X-API-KEY: " + k), status: ok},
		{name: "blanks around", message: in("X-API-Key", " \t "+k+" \t"), status: ok},
		{name: "nothing", message: head(), status: no, code: missing},
		{name: "empty", message: in("X-API-Key", ""), status: no, code: missing},
		{name: "blanks only", message: in("X-API-Key", "  \t "), status: no, code: missing},
		{name: "empty line beside a key", message: head("X-API-Key: ", "X-API-Key: "+k), status: ok},
		{name: "HEAD", message: message{method: "HEAD", target: "/", fields: fieldsOf([]string{"X-API-Key: " + k})}, status: ok},

		{name: "Bearer", message: head("Authorization: Bearer " + k), status: ok},
		{name: "bearer", message: head("Authorization: bearer " + k), status: ok},
		{name: "BEARER", message: head("Authorization: BEARER " + k), status: ok},
		{name: "bEaReR, blanks", message: head("authorization: bEaReR    " + k + "  "), status: ok},
		{name: "Bearer without token", message: head("Authorization: Bearer"), status: no, code: missing},
		{name: "Bearer with blank token", message: head("Authorization: Bearer  "), status: no, code: missing},
		{name: "Bearer glued", message: head("Authorization: Bearer" + k), status: no, code: missing},
		{name: "Bearer tab", message: head("Authorization: Bearer\t" + k), status: no, code: missing},
		{name: "Bearer in header", message: head("X-API-Key: Bearer " + k), status: no, code: invalid},
		{name: "Bearer twice in one", message: head("Authorization: Bearer Bearer " + k), status: no, code: invalid},
		{name: "Bearer list", message: head("Authorization: Bearer " + k + ", Bearer " + k), status: no, code: invalid},
		{name: "other scheme", message: head("Authorization: Token " + k), status: no, code: missing},
		{name: "no scheme", message: head("Authorization: " + k), status: no, code: missing},
		{name: "Basic alone", message: head(basic), status: no, code: missing},
		{name: "Basic and header", message: head(basic, "X-API-Key: "+k), status: ok, keep: "Basic YWxpY2U6c2VjcmV0"},
		{name: "foreign token alone", message: head("Authorization: Bearer eyJhbGciOiJub25lIn0.e30."), status: no, code: invalid},
		{name: "foreign token and header", message: head("Authorization: Bearer eyJhbGciOiJub25lIn0.e30.", "X-API-Key: "+k), status: ok, keep: "Bearer eyJhbGciOiJub25lIn0.e30."},
		{name: "opaque token and header", message: head("Authorization: Bearer abcdefghijklmnopqrstuvwxyz012345", "X-API-Key: "+k), status: ok, keep: "Bearer abcdefghijklmnopqrstuvwxyz012345"},
		{name: "Bearer and header, equal", message: head("Authorization: Bearer "+k, "X-API-Key: "+k), status: ok},
		{name: "Bearer and header, different", message: head("Authorization: Bearer "+other, "X-API-Key: "+k), status: bad, code: several},
		{name: "Bearer and bad header", message: head("Authorization: Bearer "+k, "X-API-Key: nonsense"), status: ok, keep: "nonsense"},
		{name: "two Bearer lines, equal", message: head("Authorization: Bearer "+k, "Authorization: Bearer "+k), status: ok},
		{name: "two Bearer lines, different", message: head("Authorization: Bearer "+k, "Authorization: Bearer "+other), status: bad, code: several},
		{name: "Basic and Bearer lines", message: head(basic, "Authorization: Bearer "+k), status: ok, keep: "Basic YWxpY2U6c2VjcmV0"},

		{name: "two lines, equal", message: head("X-API-Key: "+k, "X-API-Key: "+k), status: ok},
		{name: "two lines, different", message: head("X-API-Key: "+k, "X-API-Key: "+other), status: bad, code: several},
		{name: "two lines, other case", message: head("X-API-Key: "+k, "x-api-key: "+other), status: bad, code: several},
		{name: "two lines, one bad", message: head("X-API-Key: nonsense", "X-API-Key: "+k), status: ok, keep: "nonsense"},
		{name: "comma list", message: head("X-API-Key: " + k + ", " + other), status: no, code: invalid},
		{name: "comma list of one", message: head("X-API-Key: " + k + ","), status: no, code: invalid},
		{name: "quoted", message: head(`X-API-Key: "` + k + `"`), status: no, code: invalid},
		{name: "blank inside", message: head("X-API-Key: " + k[:20] + " " + k[20:]), status: no, code: invalid},
		{name: "only prefix", message: head("X-API-Key: ak_"), status: no, code: invalid},
		{name: "wrong checksum", message: head("X-API-Key: " + flip(k, len(k)-1)), status: no, code: invalid},
		{name: "wrong character", message: head("X-API-Key: " + flip(k, 10)), status: no, code: invalid},
		{name: "truncated", message: head("X-API-Key: " + k[:len(k)-1]), status: no, code: invalid},
		{name: "one more", message: head("X-API-Key: " + k + "A"), status: no, code: invalid},
		{name: "unknown", message: head("X-API-Key: " + testKey("ak_", 64)), status: no, code: invalid},
		{name: "another prefix", message: head("X-API-Key: AK_" + k[3:]), status: no, code: invalid},
		{name: "512 characters", message: head("X-API-Key: " + long[:512]), status: no, code: invalid},
		{name: "513 characters", message: head("X-API-Key: " + long), status: no, code: invalid},
		{name: "513 characters with a checksum", message: head("X-API-Key: " + testKey("ak_", 510)), status: no, code: invalid},
		{name: "8 KiB", message: head("X-API-Key: " + strings.Repeat("a", 8<<10)), status: no, code: invalid},
		{name: "8 KiB Bearer beside a key", message: head("Authorization: Bearer "+strings.Repeat("a", 8<<10), "X-API-Key: "+k), status: ok},
		{name: "not ASCII", message: head("X-API-Key: \xff\xfe\xc3("), status: no, code: invalid},
		{name: "look-alike", message: head("X-API-Key: аk_" + k[3:]), status: no, code: invalid},
		{name: "percent-encoded header", message: head("X-API-Key: " + percentEncode(k)), status: no, code: invalid},
		{name: "underscores", message: head("X_API_Key: " + k), status: no, code: missing},
		{name: "dots", message: head("X.API.Key: " + k), status: no, code: missing},
		{name: "underscores beside a key", message: head("X_API_Key: "+other, "X-API-Key: "+k), status: ok},
		{name: "other header", message: head("X-API-Token: " + k), status: no, code: missing},
		{name: "trailer", message: message{method: "POST", target: "/", body: "b", trailer: []field{{"X-API-Key", k}}}, status: no, code: missing},
		{name: "trailer beside a key", message: message{method: "POST", target: "/", body: "b", fields: []field{{"X-API-Key", k}}, trailer: []field{{"X-Other", "1"}}}, status: ok},
		{name: "body", message: message{method: "POST", target: "/", body: "api_key=" + k, fields: []field{{"Content-Type", "application/x-www-form-urlencoded"}}}, status: no, code: missing},

		{name: "query, gate without query", message: at("/?api_key=" + k), status: no, code: missing},
		{name: "query", message: at("/query/?api_key=" + k), status: ok},
		{name: "query, empty", message: at("/query/?api_key="), status: no, code: missing},
		{name: "query, no value", message: at("/query/?api_key"), status: no, code: missing},
		{name: "query, other case", message: at("/query/?API_KEY=" + k), status: no, code: missing},
		{name: "query, between", message: at("/query/?a=%20+1&api_key=" + k + "&b=%zz&&=&c"), status: ok, keep: "a=%20+1&b=%zz&&=&c"},
		{name: "query, name percent-encoded", message: at("/query/?%61pi%5fkey=" + k), status: ok},
		{name: "query, value percent-encoded", message: at("/query/?api_key=" + percentEncode(k)), status: ok},
		{name: "query, twice equal", message: at("/query/?api_key=" + k + "&api_key=" + k), status: ok},
		{name: "query, twice different", message: at("/query/?api_key=" + k + "&api_key=" + other), status: bad, code: several},
		{name: "query, twice, one encoded", message: at("/query/?api_key=" + k + "&api%5Fkey=" + k), status: ok},
		{name: "query, empty and full", message: at("/query/?api_key=&api_key=" + k), status: ok},
		{name: "query and header", message: at("/query/?api_key="+k, "X-API-Key: "+k), status: ok},
		{name: "query and Bearer", message: at("/query/?api_key="+k, "Authorization: Bearer "+k), status: ok},
		{name: "query and foreign token", message: at("/query/?api_key="+k, "Authorization: Bearer foreign.token"), status: ok, keep: "Bearer foreign.token"},
		{name: "query, semicolon", message: at("/query/?a=1;api_key=" + k), status: no, code: missing},
		{name: "query, semicolon behind", message: at("/query/?api_key=" + k + ";a=1"), status: no, code: invalid},
		{name: "query, brackets", message: at("/query/?api_key[]=" + k), status: no, code: missing},
		{name: "query, double encoding", message: at("/query/?api_key=" + strings.ReplaceAll(percentEncode(k[:2]), "%", "%25") + k[2:]), status: no, code: invalid},
		{name: "query, header only", message: at("/query/", "X-API-Key: "+k), status: ok},
		{name: "query, 10,001 parameters", message: at("/query/?" + many[:10_000] + "api_key=" + k), status: ok},

		{name: "cookie", message: at("/cookie/", "Cookie: key="+k), status: ok},
		{name: "cookie among others", message: at("/cookie/", `Cookie: a="1 2"; key=`+k+`; b=x,y; c`), status: ok, keep: `a="1 2"; b=x,y; c`},
		{name: "cookie, two lines", message: at("/cookie/", "Cookie: a=1", "Cookie: key="+k), status: ok, keep: "a=1"},
		{name: "cookie, empty", message: at("/cookie/", "Cookie: key="), status: no, code: missing},
		{name: "cookie, bad", message: at("/cookie/", "Cookie: key=nonsense"), status: no, code: invalid},
		{name: "cookie, none", message: at("/cookie/"), status: no, code: missing},
		{name: "cookie, gate without", message: at("/", "Cookie: key="+k), status: no, code: missing},
		{name: "cookie gate, header", message: at("/cookie/", "X-API-Key: "+k), status: no, code: missing},
		{name: "cookie gate, Bearer", message: at("/cookie/", "Authorization: Bearer "+k), status: no, code: missing},
		{name: "cookie, two", message: at("/cookie/", "Cookie: key="+k+"; key="+other), status: bad, code: several},
		{name: "cookie, two equal", message: at("/cookie/", "Cookie: key="+k+"; key="+k), status: ok},
		{name: "cookie, two in other case", message: at("/cookie/", "Cookie: KEY="+k+"; key="+k), status: ok},

		{name: "HTTP/1.0", message: message{proto: "HTTP/1.0", target: "/", fields: []field{{"X-API-Key", k}}}, status: ok, only: "it is a version of HTTP/1"},
		{name: "HTTP/1.0 without key", message: message{proto: "HTTP/1.0", target: "/"}, status: no, code: missing, only: "it is a version of HTTP/1"},
		{name: "obsolete folding", message: message{target: "/", fields: []field{{"X-API-Key", k[:20] + "\r\n " + k[20:]}}}, status: no, code: invalid, only: "line folding is HTTP/1 syntax"},
		{name: "obsolete folding in front", message: message{target: "/", fields: []field{{"X-API-Key", "\r\n " + k}}}, status: ok, only: "line folding is HTTP/1 syntax"},
		{name: "NUL", message: message{target: "/", fields: []field{{"X-API-Key", k + "\x00"}}}, status: bad, only: "the clients refuse to send it"},
		{name: "blank before colon", message: message{target: "/", fields: []field{{"X-API-Key ", k}}}, status: bad, only: "HTTP/1 syntax"},
		{name: "trailer, not announced", message: message{method: "POST", target: "/", body: "b", quiet: true, trailer: []field{{"X-API-Key", k}}}, status: no, code: missing, only: "the clients always announce"},
		{name: "absolute form", message: message{target: "https://localhost/query/?api_key=" + k, fields: nil}, status: ok, only: "HTTP/1 syntax"},
	}
	return rows
}

// TestS2_OddKeys sends keys in every odd way, over all versions of HTTP: the
// answers are the same, and the upstream sees no key.
func TestS2_OddKeys(t *testing.T) {
	quick(t)
	up := startUpstream(t)
	tlsPort := port(t, freeAddr(t))
	s := startGate(t, oddSite, withEnv("TLS_PORT="+tlsPort, "UPSTREAM="+up.Addr))
	k, other := s.create(nil), s.create(nil)
	p := newProtocols(t, "localhost:"+tlsPort)
	p.ready(t)
	for i, row := range oddRows(k.Raw, other.Raw) {
		var first *reply
		for _, version := range versions {
			if row.only != "" && version != "h1" {
				continue
			}
			name := row.name + "/" + version
			m := row.message
			mark := fmt.Sprint(i, version)
			m.fields = append(slices.Clone(m.fields), field{markHeader, mark})
			r := p.send(t, version, &m)
			if r.status != row.status || r.code != row.code {
				t.Errorf("%s: %d %s, want %d %s", name, r.status, r.code, row.status, row.code)
			}
			if r.status == http.StatusUnauthorized && r.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no WWW-Authenticate", name)
			}
			if first == nil {
				first = r
			} else if r.body != first.body || r.header.Get("WWW-Authenticate") != first.header.Get("WWW-Authenticate") {
				t.Errorf("%s: other answer than h1: %q, %q", name, r.body, first.body)
			}
			checkUpstream(t, name, &row, up.of(mark), k.Raw, other.Raw)
		}
	}
}

// checkUpstream checks that an accepted request arrived once and without a key.
func checkUpstream(t *testing.T, name string, row *oddRow, got []seen, keys ...string) {
	t.Helper()
	want := 0
	if row.status == http.StatusOK {
		want = 1
	}
	if len(got) != want {
		t.Errorf("%s: the upstream has seen %d requests, want %d", name, len(got), want)
	}
	for i := range got {
		for _, raw := range keys {
			if got[i].has(raw) || got[i].has(percentEncode(raw)) {
				t.Errorf("%s: the upstream has seen the key: %v", name, got[i])
			}
		}
		if row.keep != "" && !got[i].has(row.keep) {
			t.Errorf("%s: the upstream has not seen %s: %v", name, row.keep, got[i])
		}
	}
}

// TestS7_SameBytes checks that nothing tells unknown, malformed, truncated and
// wrong-checksum keys apart, byte for byte.
func TestS7_SameBytes(t *testing.T) {
	full(t)
	s := startGate(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	k := s.create(nil).Raw
	var first string
	for name, raw := range map[string]string{
		"unknown":            testKey("ak_", 64),
		"malformed":          "no key!",
		"truncated":          k[:len(k)-3],
		"wrong checksum":     flip(k, len(k)-2),
		"wrong, 20 shared":   flip(k, 23),
		"too long":           strings.Repeat("a", 600),
		"not ASCII":          "\xff",
		"prefix alone":       "ak_",
		"unknown, checksum":  testKey("", 64),
		"a key and a letter": k + "x",
	} {
		for _, line := range []string{"X-API-Key: ", "Authorization: Bearer "} {
			r := s.get("/", line+raw)
			r.header.Del("Date")
			got := fmt.Sprint(r.status, r.header, r.body)
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("%s:\n%s\nelse\n%s", name, got, first)
			}
		}
	}
}
