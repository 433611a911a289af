package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// credentialSite has a gate for each way to carry a key, in front of an upstream that
// remembers what it has seen.
const credentialSite = `{
	servers {
		expected_underscore_headers api_key
	}
	log default {
		format apikey_redact
	}
}
{$SITE} {
	handle /basic/* {
		apikey {
			authorization Bearer Basic
			secret
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /scheme/* {
		apikey {
			authorization ApiKey
			headers off
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /optional/* {
		apikey {
			optional
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /underscore/* {
		apikey {
			headers api_key
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /either/* {
		@basic header Authorization Basic*
		route {
			basic_auth @basic {
				bob {$HASH}
			}
			@other not header Authorization Basic*
			apikey @other
			reverse_proxy {$UPSTREAM}
		}
	}
	handle /query/* {
		apikey {
			query key
		}
		reverse_proxy {$UPSTREAM}
	}
	handle /twice/* {
		route {
			apikey {
				headers X-API-Key X-Other-Key
			}
			apikey
			reverse_proxy {$UPSTREAM}
		}
	}
	handle {
		apikey
		reverse_proxy {$UPSTREAM}
	}
}
`

// credentialRow is one request: its answer, what of it must not reach the upstream, and
// what must.
type credentialRow struct {
	name   string
	target string
	lines  []string
	status int
	code   string
	keep   []string
}

func basicAuth(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// checkCredentials sends the rows. Whatever the answer, the upstream sees no key.
func checkCredentials(t *testing.T, s *server, up *upstream, rows []credentialRow, secrets ...string) {
	t.Helper()
	for _, row := range rows {
		mark := t.Name() + row.name
		r := s.get(row.target, append(slices.Clone(row.lines), markHeader+": "+mark)...)
		if r.status != row.status || r.code != row.code {
			t.Errorf("%s: %d %s, want %d %s", row.name, r.status, r.body, row.status, row.code)
		}
		got := up.of(mark)
		if (len(got) == 1) != (row.status == http.StatusOK) {
			t.Errorf("%s: the upstream has seen %d requests", row.name, len(got))
		}
		for i := range got {
			for _, secret := range secrets {
				if got[i].has(secret) || got[i].has(percentEncode(secret)) || got[i].has(base64.StdEncoding.EncodeToString([]byte(secret+":"))) {
					t.Errorf("%s: a credential has reached the upstream: %v", row.name, got[i])
				}
			}
			for _, keep := range row.keep {
				if !got[i].has(keep) {
					t.Errorf("%s: %s has not reached the upstream: %v", row.name, keep, got[i])
				}
			}
		}
	}
}

func startCredentials(t *testing.T) (s *server, up *upstream) {
	up = startUpstream(t)
	return startGate(t, credentialSite, withEnv("UPSTREAM="+up.Addr, "HASH="+passwordHash)), up
}

const (
	foreignKey = "sk-ant-api03-0123456789abcdefghijklmnop"
	jwt        = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJqYW5lIn0.sig"
)

// TestQ1_equalValues: one key in several places is one candidate, removed from all.
func TestQ1_equalValues(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k, other := s.create(nil), s.create(nil)
	x, bearer := keyLine(k.Raw), "Authorization: Bearer "+k.Raw
	checkCredentials(t, s, up, []credentialRow{
		{name: "header and Bearer", target: "/", lines: []string{x, bearer}, status: 200},
		{name: "twice each", target: "/", lines: []string{x, x, bearer, bearer}, status: 200},
		{name: "in a header that no gate reads", target: "/", lines: []string{x, "X-Goog-Api-Key: " + k.Raw}, status: 200},
		{name: "in a cookie and the query too", target: "/?a=1&b=" + k.Raw, lines: []string{x, "Cookie: c=1; d=" + k.Raw}, status: 200, keep: []string{"?a=1", "c=1"}},
		{name: "in the query, encoded", target: "/?b=" + percentEncode(k.Raw), lines: []string{x}, status: 200},
		{name: "as a Basic user too", target: "/", lines: []string{x, basicAuth(k.Raw, "")}, status: 200},
		{name: "two keys", target: "/", lines: []string{x, "Authorization: Bearer " + other.Raw}, status: 400, code: "AMBIGUOUS_API_KEY"},
		{name: "two keys, twice each", target: "/", lines: []string{x, x, keyLine(other.Raw), bearer}, status: 400, code: "AMBIGUOUS_API_KEY"},
	}, k.Raw, other.Raw)
}

// TestQ2_foreignValues: a value that is no key of ours goes on, whatever its place.
func TestQ2_foreignValues(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k := s.create(nil)
	x, bearer, cut := keyLine(k.Raw), "Authorization: Bearer "+k.Raw, k.Raw[:len(k.Raw)-4]
	checkCredentials(t, s, up, []credentialRow{
		{name: "foreign header", target: "/", lines: []string{bearer, keyLine(foreignKey)}, status: 200, keep: []string{foreignKey}},
		{name: "foreign Bearer", target: "/", lines: []string{x, "Authorization: Bearer " + foreignKey}, status: 200, keep: []string{"Bearer " + foreignKey}},
		{name: "foreign header alone", target: "/", lines: []string{keyLine(foreignKey)}, status: 401, code: "INVALID_API_KEY"},
		{name: "two foreign values", target: "/", lines: []string{keyLine(foreignKey), "Authorization: Bearer " + jwt}, status: 401, code: "INVALID_API_KEY"},
		{name: "a cut key beside the key", target: "/", lines: []string{bearer, keyLine(cut)}, status: 200},
		{name: "foreign parameter", target: "/query/?key=" + foreignKey, lines: []string{x}, status: 200, keep: []string{"key=" + foreignKey}},
		{name: "at the second gate too", target: "/twice/", lines: []string{bearer, keyLine(foreignKey)}, status: 200, keep: []string{foreignKey}},
		{name: "found by the first gate only", target: "/twice/", lines: []string{"X-Other-Key: " + k.Raw, "Authorization: Bearer " + jwt}, status: 200, keep: []string{"Bearer " + jwt}},
	}, k.Raw, cut)
}

// TestQ3_opaqueBearer: beside a key, an opaque Bearer token counts only if it is stored,
// also where keys without our checksum exist.
func TestQ3_opaqueBearer(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k := s.create(nil)
	const plain, opaque = "imported-without-checksum-1234567890", "opaque-token-of-the-application-0123"
	s.admin("POST", "/apikey/keys/import", map[string]any{"keys": []any{map[string]any{
		"id": "plain", "userId": "bob", "hash": fmt.Sprintf("%x", sha256.Sum256([]byte(plain))),
	}}}, 200, nil)
	x := keyLine(k.Raw)
	checkCredentials(t, s, up, []credentialRow{
		{name: "the imported key", target: "/", lines: []string{"Authorization: Bearer " + plain}, status: 200},
		{name: "a token beside a key", target: "/", lines: []string{x, "Authorization: Bearer " + opaque}, status: 200, keep: []string{"Bearer " + opaque}},
		{name: "the imported key beside a key", target: "/", lines: []string{x, "Authorization: Bearer " + plain}, status: 400, code: "AMBIGUOUS_API_KEY"},
		{name: "a token alone", target: "/", lines: []string{"Authorization: Bearer " + opaque}, status: 401, code: "INVALID_API_KEY"},
		{name: "a token at an optional gate", target: "/optional/", lines: []string{"Authorization: Bearer " + opaque}, status: 200, keep: []string{"Bearer " + opaque}},
		{name: "the imported key at an optional gate", target: "/optional/", lines: []string{"Authorization: Bearer " + plain}, status: 200},
	}, k.Raw, plain)
}

// TestQ4_optionalBesideTokens: for an optional gate, somebody else's token is no key.
func TestQ4_optionalBesideTokens(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k := s.create(nil)
	checkCredentials(t, s, up, []credentialRow{
		{name: "nothing", target: "/optional/", status: 200},
		{name: "a JWT", target: "/optional/", lines: []string{"Authorization: Bearer " + jwt}, status: 200, keep: []string{"Bearer " + jwt}},
		{name: "a key", target: "/optional/", lines: []string{"Authorization: Bearer " + k.Raw}, status: 200},
		{name: "a JWT beside a key", target: "/optional/", lines: []string{"Authorization: Bearer " + jwt, keyLine(k.Raw)}, status: 200, keep: []string{"Bearer " + jwt}},
		{name: "a bad key", target: "/optional/", lines: []string{"Authorization: Bearer " + k.Raw[:40]}, status: 401, code: "INVALID_API_KEY"},
		{name: "a bad key that is complete", target: "/optional/", lines: []string{"Authorization: Bearer " + testKey("ak_", 64)}, status: 401, code: "INVALID_API_KEY"},
		{name: "a foreign value in our header", target: "/optional/", lines: []string{keyLine(foreignKey)}, status: 401, code: "INVALID_API_KEY"},
		{name: "both", target: "/optional/", lines: []string{keyLine(foreignKey), "Authorization: Bearer " + jwt}, status: 401, code: "INVALID_API_KEY"},
	}, k.Raw)
}

// TestQ5_headersOff: "off" is no header; and a scheme of another name carries the key.
func TestQ5_headersOff(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k := s.create(nil)
	checkCredentials(t, s, up, []credentialRow{
		{name: "a header called Off", target: "/scheme/", lines: []string{"Off: " + k.Raw}, status: 401, code: "MISSING_API_KEY"},
		{name: "the default header", target: "/scheme/", lines: []string{keyLine(k.Raw)}, status: 401, code: "MISSING_API_KEY"},
		{name: "the scheme", target: "/scheme/", lines: []string{"Authorization: apikey " + k.Raw}, status: 200},
		{name: "the default scheme", target: "/scheme/", lines: []string{"Authorization: Bearer " + k.Raw}, status: 401, code: "MISSING_API_KEY"},
	}, k.Raw)
	if got := s.get("/scheme/").header["Www-Authenticate"]; !slices.Equal(got, []string{"ApiKey"}) {
		t.Errorf("WWW-Authenticate %q", got)
	}
}

// TestQ6_underscores: a header that the server expects may carry a key, and its spelling
// with a hyphen may not.
func TestQ6_underscores(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k := s.create(nil)
	checkCredentials(t, s, up, []credentialRow{
		{name: "underscore", target: "/underscore/", lines: []string{"api_key: " + k.Raw}, status: 200},
		{name: "hyphen", target: "/underscore/", lines: []string{"api-key: " + k.Raw}, status: 401, code: "MISSING_API_KEY"},
	}, k.Raw)
	for config, want := range map[string]string{
		"{$SITE} {\n\tapikey {\n\t\theaders api_key\n\t}\n}\n":                                                                "Api_key can never match",
		"{\n\tservers {\n\t\texpected_underscore_headers api_*\n\t}\n}\n{$SITE} {\n\tapikey {\n\t\theaders api-key\n\t}\n}\n": "Api-Key can never match",
		"{$SITE} {\n\tapikey {\n\t\tfrom {http.request.header.api.key}\n\t}\n}\n":                                             "Api.key can never match",
	} {
		l := newLife(t, config)
		l.failsToStart(want)
	}
}

// TestQ7_basic: clients that speak only Basic send the key as the user, with the secret
// or nothing for the password, or as the password.
func TestQ7_basic(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k, other := s.create(nil), s.create(nil)
	two := s.create(map[string]any{"withSecret": true})
	checkCredentials(t, s, up, []credentialRow{
		{name: "user", target: "/basic/", lines: []string{basicAuth(k.Raw, "")}, status: 200},
		{name: "password", target: "/basic/", lines: []string{basicAuth("git", k.Raw)}, status: 200},
		{name: "user and secret", target: "/basic/", lines: []string{basicAuth(two.Raw, two.Secret)}, status: 200},
		{name: "the secret is missing", target: "/basic/", lines: []string{basicAuth(two.Raw, "")}, status: 401, code: "INVALID_SECRET"},
		{name: "a wrong secret", target: "/basic/", lines: []string{basicAuth(two.Raw, two.Secret+"x")}, status: 401, code: "INVALID_SECRET"},
		{name: "the secret in the header", target: "/basic/", lines: []string{basicAuth(two.Raw, ""), "X-API-Secret: " + two.Secret}, status: 200},
		{name: "the secret twice", target: "/basic/", lines: []string{basicAuth(two.Raw, two.Secret), "X-API-Secret: " + two.Secret}, status: 200},
		{name: "two secrets", target: "/basic/", lines: []string{basicAuth(two.Raw, two.Secret), "X-API-Secret: x"}, status: 401, code: "INVALID_SECRET"},
		{name: "both halves are keys", target: "/basic/", lines: []string{basicAuth(k.Raw, other.Raw)}, status: 400, code: "AMBIGUOUS_API_KEY"},
		{name: "both halves are the same", target: "/basic/", lines: []string{basicAuth(k.Raw, k.Raw)}, status: 200},
		{name: "neither", target: "/basic/", lines: []string{basicAuth("alice", "secret")}, status: 401, code: "INVALID_API_KEY"},
		{name: "no base64", target: "/basic/", lines: []string{"Authorization: Basic !"}, status: 401, code: "MISSING_API_KEY"},
		{name: "scheme in another case", target: "/basic/", lines: []string{strings.Replace(basicAuth(k.Raw, ""), "Basic", "bAsIc", 1)}, status: 200},
		{name: "somebody else's password beside a key", target: "/basic/", lines: []string{keyLine(k.Raw), basicAuth("alice", "secret")}, status: 200, keep: []string{basicAuth("alice", "secret")[len("Authorization: "):]}},
		{name: "a gate without Basic", target: "/", lines: []string{basicAuth(k.Raw, "")}, status: 401, code: "MISSING_API_KEY"},
	}, k.Raw, two.Raw, two.Secret)
	if got := s.get("/basic/").header["Www-Authenticate"]; !slices.Equal(got, []string{"Bearer", `Basic realm="api"`}) {
		t.Errorf("WWW-Authenticate %q", got)
	}
	if got := s.get("/basic/", keyLine("x")).header["Www-Authenticate"]; !slices.Equal(got, []string{`Bearer error="invalid_token"`, `Basic realm="api"`}) {
		t.Errorf("WWW-Authenticate %q", got)
	}
}

// TestQ8_either: either Basic or a key, by matchers that do not look where the gate has
// removed the key.
func TestQ8_either(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k := s.create(map[string]any{"remaining": 10})
	checkCredentials(t, s, up, []credentialRow{
		{name: "a key", target: "/either/", lines: []string{"Authorization: Bearer " + k.Raw}, status: 200},
		{name: "a key in the header", target: "/either/", lines: []string{keyLine(k.Raw)}, status: 200},
		{name: "a password", target: "/either/", lines: []string{signedIn("bob")}, status: 200},
		{name: "a wrong password", target: "/either/", lines: []string{basicAuth("bob", "x")}, status: 401},
		{name: "nothing", target: "/either/", status: 401, code: "MISSING_API_KEY"},
		{name: "a wrong key", target: "/either/", lines: []string{keyLine("x")}, status: 401, code: "INVALID_API_KEY"},
	}, k.Raw)
	if left := s.left(k.ID); left != 8 {
		t.Errorf("%d credits are left, want 8", left)
	}
}

// TestQ9_secretAlwaysRemoved: the secret and the key reach no upstream, whether the gate
// looks at them or not, and not as trailers either.
func TestQ9_secretAlwaysRemoved(t *testing.T) {
	full(t)
	s, up := startCredentials(t)
	k := s.create(map[string]any{"withSecret": true})
	secret := "X-API-Secret: " + k.Secret
	checkCredentials(t, s, up, []credentialRow{
		{name: "no option secret", target: "/", lines: []string{keyLine(k.Raw), secret}, status: 200},
		{name: "optional, without a key", target: "/optional/", lines: []string{secret}, status: 200},
	}, k.Raw, k.Secret)
	for i, trailer := range [][]field{{{"X-API-Secret", k.Secret}}, {{"X-API-Key", k.Raw}, {"X-Kept", "1"}}, {{"X-Anything", k.Raw}}} {
		mark := fmt.Sprint(t.Name(), i)
		m := message{method: "POST", target: "/", body: "b", fields: fieldsOf([]string{keyLine(k.Raw), markHeader + ": " + mark}), trailer: trailer}
		if r := m.plain(t, s.URL); r.status != 200 {
			t.Errorf("trailer %d: %d %s", i, r.status, r.body)
		}
		for _, got := range up.of(mark) {
			if got.has(k.Raw) || got.has(k.Secret) {
				t.Errorf("trailer %d has reached the upstream: %v", i, got)
			}
			if i == 1 && got.Trailer.Get("X-Kept") != "1" {
				t.Errorf("somebody else's trailer is gone: %v", got)
			}
		}
		if len(up.of(mark)) != 1 {
			t.Errorf("trailer %d: %d requests", i, len(up.of(mark)))
		}
	}
}
