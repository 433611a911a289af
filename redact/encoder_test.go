package redact

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
	"pgregory.net/rapid"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// testKey returns a key with a checksum that stays the same from run to run.
func testKey(prefix string, length int) string {
	digits := "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := []byte(prefix)
	for i := range length - 6 {
		b = append(b, digits[(i*i+7*i+length)%62])
	}
	sum, sums := crc32.ChecksumIEEE(b), [6]byte{}
	for i := 5; i >= 0; i-- {
		sums[i] = digits[sum%62]
		sum /= 62
	}
	return string(b) + string(sums[:])
}

// percentEncode encodes every character, as nobody needs to but anybody may.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func testContext(t testing.TB) caddy.Context {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	return ctx
}

func newEncoder(t testing.TB, e Encoder) *Encoder {
	t.Helper()
	if err := e.Provision(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return &e
}

func newTestMasker(headers, query []string) *masker {
	return (&masks{headers: headers, query: query}).masker()
}

func maskLine(m *masker, line string) string {
	var out buffer.Buffer
	writeMasked(&out, []byte(line), m.find([]byte(line)))
	return out.String()
}

func TestMaskLine(t *testing.T) {
	k := testKey("ak_", 64)
	shortest := testKey("", key.MinLength)
	longest := testKey(strings.Repeat("p", 32), 480)
	secret := testKey("clsk_", 48)
	q := strings.ReplaceAll(k, "_", "%5F")

	m := newTestMasker([]string{"X-Other-Key"}, []string{"api_key", "t"})
	for _, tt := range []struct{ name, in, want string }{
		{"header", `{"headers":{"X-Api-Key":["abc"],"Accept":["*/*"]}}`, `{"headers":{"X-Api-Key":["REDACTED"],"Accept":["*/*"]}}`},
		{"secret header", `{"X-Api-Secret":["abc"]}`, `{"X-Api-Secret":["REDACTED"]}`},
		{"configured header", `{"x-other_key":["abc"]}`, `{"x-other_key":["REDACTED"]}`},
		{"another spelling", `{"X_api.Key":["abc"],"x.API_KEY":["d"]}`, `{"X_api.Key":["REDACTED"],"x.API_KEY":["REDACTED"]}`},
		{"several values", `{"X-Api-Key":["abc","d","","e\"f]"],"B":["b"]}`, `{"X-Api-Key":["REDACTED","REDACTED","","REDACTED"],"B":["b"]}`},
		{"string value", `{"X-Api-Key":"abc","b":1}`, `{"X-Api-Key":"REDACTED","b":1}`},
		{"escaped quote in the value", `{"X-Api-Key":["a\"b\\"],"b":"c"}`, `{"X-Api-Key":["REDACTED"],"b":"c"}`},
		{"unicode in the value", `{"X-Api-Key":["ключ\u0007\ufffd"]}`, `{"X-Api-Key":["REDACTED"]}`},
		{"8 KiB", `{"X-Api-Key":["` + strings.Repeat("a b", 2731) + `"]}`, `{"X-Api-Key":["REDACTED"]}`},
		{"no value", `{"X-Api-Key":[],"a":"b"}`, `{"X-Api-Key":[],"a":"b"}`},
		{"number", `{"X-Api-Key":-12.5e3,"a":[1]}`, `{"X-Api-Key":"REDACTED","a":[1]}`},
		{"null", `{"X-Api-Key":null,"x-api-secret":true}`, `{"X-Api-Key":null,"x-api-secret":true}`},
		{"object", `{"X-Api-Key":{"a":"b","c":[1,{"d":"e"}],"f":null},"g":"h"}`, `{"X-Api-Key":{"a":"REDACTED","c":["REDACTED",{"d":"REDACTED"}],"f":null},"g":"h"}`},
		{"blanks", `{"X-Api-Key" : [ "abc" , "d" ] }`, `{"X-Api-Key" : [ "REDACTED" , "REDACTED" ] }`},
		{"fastcgi", `{"env":{"HTTP_X_API_KEY":"abc, d"}}`, `{"env":{"HTTP_X_API_KEY":"REDACTED"}}`},
		{"placeholder as a field", `{"http.request.header.X-API-Key":"abc"}`, `{"http.request.header.X-API-Key":"REDACTED"}`},
		{"other header with that ending", `{"My-X-Api-Key":["abc"]}`, `{"My-X-Api-Key":["abc"]}`},
		{"other header with that start", `{"X-Api-Key-Id":["abc"]}`, `{"X-Api-Key-Id":["abc"]}`},
		{"name as a value", `{"Vary":["X-Api-Key"],"a":"b"}`, `{"Vary":["X-Api-Key"],"a":"b"}`},
		{"name at the end of a text", `{"msg":"set X-API-Key:","a":"b"}`, `{"msg":"set X-API-Key:","a":"b"}`},
		{"header in text", `{"msg":"got X-API-Key: a b c","a":"b"}`, `{"msg":"got X-API-Key: REDACTED","a":"b"}`},
		{"header dump", `{"msg":"GET / HTTP/1.1\r\nX-Api-Key: a b\r\nAccept: c"}`, `{"msg":"GET / HTTP/1.1\r\nX-Api-Key: REDACTED\r\nAccept: c"}`},
		{"header dump with an escaped quote", `{"msg":"X-Api-Key: a\"b\\","c":"d"}`, `{"msg":"X-Api-Key: REDACTED","c":"d"}`},
		{"header as Go prints it", `{"msg":"map[Accept:[c] X-Api-Key:[a b] Z:[z]]"}`, `{"msg":"map[Accept:[c] X-Api-Key:[REDACTED] Z:[z]]"}`},
		{"header as Go quotes it", `{"msg":"map[string][]string{\"X-Api-Key\":[]string{\"a\"}} X-Api-Key:[\"a\" \"b\"] c"}`, `{"msg":"map[string][]string{\"X-Api-Key\":[]string{\"REDACTED\"}} X-Api-Key:[\"REDACTED\" \"REDACTED\"] c"}`},
		{"JSON in JSON", `{"msg":"{\"X-Api-Key\":[\"a\\\"b\",\"c\"],\"d\":\"e\"}"}`, `{"msg":"{\"X-Api-Key\":[\"REDACTED\",\"REDACTED\"],\"d\":\"e\"}"}`},
		{"JSON in JSON in JSON", `{"msg":"{\"m\":\"{\\\"X-Api-Key\\\":\\\"a\\\\\\\"b\\\"}\"}"}`, `{"msg":"{\"m\":\"{\\\"X-Api-Key\\\":\\\"REDACTED\\\"}\"}"}`},
		{"JSON in JSON, cut off", `{"msg":"{\"X-Api-Key\":[\"a\\","b":"c"}`, `{"msg":"{\"X-Api-Key\":[\"REDACTED","b":"c"}`},
		{"header with =", `{"msg":"X-API-Key=abc def"}`, `{"msg":"X-API-Key=REDACTED def"}`},

		{"query", `{"uri":"/x?api_key=abc&b=1"}`, `{"uri":"/x?api_key=REDACTED&b=1"}`},
		{"query in another case", `{"uri":"/x?API_Key=abc"}`, `{"uri":"/x?API_Key=REDACTED"}`},
		{"query, name encoded", `{"uri":"/x?api%5Fkey=abc&%61pi_%6bey=d&e=f"}`, `{"uri":"/x?api%5Fkey=REDACTED&%61pi_%6bey=REDACTED&e=f"}`},
		{"query, repeated", `{"uri":"/x?api_key=a&api_key=b&t=c"}`, `{"uri":"/x?api_key=REDACTED&api_key=REDACTED&t=REDACTED"}`},
		{"query, semicolon", `{"uri":"/x?a=1;api_key=b+c;d=2&e=3"}`, `{"uri":"/x?a=1;api_key=REDACTED&e=3"}`},
		{"query, value encoded", `{"uri":"/x?api_key=a%26b%3D%20c=+&e=3"}`, `{"uri":"/x?api_key=REDACTED&e=3"}`},
		{"query, plus before the name", `{"uri":"/x?a=b+api_key=c"}`, `{"uri":"/x?a=b+api_key=REDACTED"}`},
		{"query, odd value", `{"uri":"/x?api_key=a\"b\\c'd#e<f>&g=h"}`, `{"uri":"/x?api_key=REDACTED&g=h"}`},
		{"query, empty", `{"uri":"/x?api_key=&b=1&api_key"}`, `{"uri":"/x?api_key=&b=1&api_key"}`},
		{"query, similar name", `{"uri":"/x?my_api_key=a&api_keys=b&at=c"}`, `{"uri":"/x?my_api_key=a&api_keys=b&at=c"}`},
		{"query, HTML escapes", `{"uri":"/x?a=1\u0026api_key=b\u0026c=2&amp;t=3&amp;d=4"}`, `{"uri":"/x?a=1\u0026api_key=REDACTED\u0026c=2&amp;t=REDACTED&amp;d=4"}`},
		{"query in an error", `{"error":"Get \"http://h/x?api_key=abc\": EOF"}`, `{"error":"Get \"http://h/x?api_key=REDACTED\": EOF"}`},
		{"query in a nested URL", `{"uri":"/login?next=%2Fx%3Fapi_key%3Da%20b%26c%3Dd&e=f"}`, `{"uri":"/login?next=%2Fx%3Fapi_key%3DREDACTED%26c%3Dd&e=f"}`},
		{"fragment and Location", `{"Location":["https://h/cb#t=a&b=c"]}`, `{"Location":["https://h/cb#t=REDACTED&b=c"]}`},
		{"query string in fastcgi", `{"QUERY_STRING":"api_key=abc"}`, `{"QUERY_STRING":"api_key=REDACTED"}`},
		{"query after an escape", `{"msg":"a\tapi_key=b\nc"}`, `{"msg":"a\tapi_key=REDACTED\nc"}`},

		{"key alone", k, "REDACTED"},
		{"key at the start of a field", `{"a":"` + k + ` x"}`, `{"a":"REDACTED x"}`},
		{"key at the end of a field", `{"a":"x ` + k + `","b":1}`, `{"a":"x REDACTED","b":1}`},
		{"key as a name", `{"` + k + `":1}`, `{"REDACTED":1}`},
		{"several keys", `{"a":"` + k + `,` + shortest + `","b":["` + secret + `"]}`, `{"a":"REDACTED,REDACTED","b":["REDACTED"]}`},
		{"keys without a gap", `{"a":"` + k + secret + shortest + `"}`, `{"a":"REDACTEDREDACTEDREDACTED"}`},
		{"longest key", `{"a":"` + longest + `"}`, `{"a":"REDACTED"}`},
		{"longest key in a longer run", `{"a":"x_` + longest + `-tail"}`, `{"a":"x_REDACTED-tail"}`},
		{"key behind key characters", `{"a":"Bearer_` + k + `","b":"prefix-` + k + `"}`, `{"a":"Bearer_REDACTED","b":"prefix-REDACTED"}`},
		{"key before key characters", `{"a":"` + k + `_tail","b":"` + k + `-1","c":"` + k + `x"}`, `{"a":"REDACTED_tail","b":"REDACTED-1","c":"REDACTEDx"}`},
		{"key behind escapes", `{"a":"\n` + k + `\n\u0026` + k + `"}`, `{"a":"\nREDACTED\n\u0026REDACTED"}`},
		{"key in a URL", `{"uri":"/k/` + k + `/x?y=` + k + `&z=%3D` + k + `"}`, `{"uri":"/k/REDACTED/x?y=REDACTED&z=%3DREDACTED"}`},
		{"key percent-encoded", `{"uri":"/?y=` + q + `&z=` + "%61k%5f" + k[3:60] + percentEncode(k[60:61]) + k[61:] + `%2F"}`, `{"uri":"/?y=REDACTED&z=REDACTED%2F"}`},
		{"key wholly percent-encoded", `{"uri":"/?y=` + percentEncode(k) + `%20"}`, `{"uri":"/?y=REDACTED%20"}`},
		{"too short", `{"a":"` + testKey("", 31) + `"}`, `{"a":"` + testKey("", 31) + `"}`},
		{"wrong checksum", `{"a":"` + k[:66] + `!"}`, `{"a":"` + k[:66] + `!"}`},
		{"UUID, digest, number", `{"a":"6f1c3b62-8f60-4f0a-9e0d-0f2c53f1a9d7","b":"` + strings.Repeat("0a1b2c3d", 8) + `","c":` + strings.Repeat("1234567890", 40) + `}`, ``},

		{"console", "2026/11/21 21:30:00.000\tERROR\thttp.log.error\tX-API-Key: abc\t{\"X-Api-Key\": [\"abc\"], \"uri\": \"/?api_key=d\"}", "2026/11/21 21:30:00.000\tERROR\thttp.log.error\tX-API-Key: REDACTED\t{\"X-Api-Key\": [\"REDACTED\"], \"uri\": \"/?api_key=REDACTED\"}"},
		{"console, key in message and name", "INFO\t" + k + "\tgot " + k + ".\t{}\n", "INFO\tREDACTED\tgot REDACTED.\t{}\n"},
		{"console, quotes", "X-API-Key: \"a b\" c\td\"e \"X-Api-Key\": \"a\\\"b\"", "X-API-Key: \"REDACTED\" c\td\"e \"X-Api-Key\": \"REDACTED\""},
		{"console, URL in quotes", "Get \"http://h/?api_key=abc\": EOF\t{}", "Get \"http://h/?api_key=REDACTED\": EOF\t{}"},
		{"console, stack trace", "a\t{}\nmain.main(" + k + ")\n\tx.go:1 X-Api-Key: a\n\tb", "a\t{}\nmain.main(REDACTED)\n\tx.go:1 X-Api-Key: REDACTED\n\tb"},
		{"logfmt", `msg="a b" X-API-Key="c d" uri="/?api_key=e" f=g`, `msg="a b" X-API-Key="REDACTED" uri="/?api_key=REDACTED" f=g`},
		{"journald", "<6>{\"msg\":\"X-API-Key:\",\"a\":\"b\"}", "<6>{\"msg\":\"X-API-Key:\",\"a\":\"b\"}"},
		{"empty", "", ""},
		{"blank lines", "\n\t\t\n", "\n\t\t\n"},
		{"nothing behind the name", "X-API-Key: ", "X-API-Key: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "" {
				tt.want = tt.in
			}
			if got := maskLine(m, tt.in); got != tt.want {
				t.Errorf("line  %s\ngot   %s\nwant  %s", tt.in, got, tt.want)
			}
			if strings.HasPrefix(tt.in, "{") && json.Valid([]byte(tt.in)) && !json.Valid([]byte(maskLine(m, tt.in))) {
				t.Errorf("%s is no longer JSON", maskLine(m, tt.in))
			}
		})
	}
}

// Every spelling of a header name that a server takes for X-API-Key.
func TestMaskEverySpelling(t *testing.T) {
	m := newTestMasker(nil, nil)
	n := 0
	for _, x := range []string{"X", "x"} {
		for _, api := range []string{"API", "api", "Api", "aPi"} {
			for _, end := range []string{"Key", "KEY", "key", "kEy", "Secret", "SECRET", "secret"} {
				for _, a := range []string{"-", "_", "."} {
					for _, b := range []string{"-", "_", "."} {
						name := x + a + api + b + end
						in := `{"headers":{"` + name + `":["a","b"]},"msg":"` + name + `: c"}`
						want := `{"headers":{"` + name + `":["REDACTED","REDACTED"]},"msg":"` + name + `: REDACTED"}`
						if got := maskLine(m, in); got != want {
							t.Errorf("got %s, want %s", got, want)
						}
						n++
					}
				}
			}
		}
	}
	if n != 504 {
		t.Errorf("%d spellings tried", n)
	}
}

// Escape sequences stay whole even if somebody makes their letters part of
// something whose checksum fits.
func TestMaskKeepsEscapes(t *testing.T) {
	m := newTestMasker(nil, nil)
	for _, escape := range []string{"t", "ufffd"} {
		line := `{"a":"\` + testKey(escape, 40) + `"}`
		if got := maskLine(m, line); got != line {
			t.Errorf("got %s, want %s", got, line)
		}
	}
}

// Whoever sends long runs of key characters must not make logging expensive,
// and must not get a key past the encoder by it either.
func TestMaskBudget(t *testing.T) {
	m := newTestMasker(nil, []string{"q"})
	k := testKey("ak_", 64)
	junk := strings.Repeat("0", 256<<10)
	for _, line := range []string{
		`{"a":"` + junk + "x" + k + `"}`,
		`{"a":"` + junk + `x","b":"\n` + k + `"}`,
		`{"a":"` + strings.Repeat("X-API-Key:", 25<<10) + k + `"}`,
		`{"a":"` + strings.Repeat(`\\`, 128<<10) + k + `"}`,
		`{"a":"?q=` + strings.Repeat(`\\`, 128<<10) + `&q=` + k + `"}`,
		`{"a":"` + strings.Repeat(`?q=\"a`, 40<<10) + k + `"}`,
		`{"a":"` + strings.Repeat(`%3D`, 90<<10) + k + `"}`,
		`{"X-API-Key":[` + strings.Repeat(`\`, 256<<10) + k,
		`{"X-API-Key":[` + strings.Repeat(`\" `, 90<<10) + k,
	} {
		start := time.Now()
		got := maskLine(m, line)
		if strings.Contains(got, k) || json.Valid([]byte(line)) && !json.Valid([]byte(got)) {
			t.Errorf("%.60s: got %.200s", line, got)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%.60s took %v", line, d)
		}
	}
	// A long token that anybody may log stays: 4 KiB of random characters.
	long, err := key.Random{}.Generate("", 480, false)
	if err != nil {
		t.Fatal(err)
	}
	line := `{"a":"` + strings.Repeat(long, 8) + `"}`
	if got := maskLine(m, line); got != line {
		t.Errorf("got %.100s", got)
	}
}

func TestEncoder(t *testing.T) {
	k, secret := testKey("ak_", 64), testKey("clsk_", 48)
	request := &http.Request{
		Method: "GET", Proto: "HTTP/2.0", Host: "api.example.com",
		RemoteAddr: "192.0.2.1:1234", RequestURI: "/v1?api_key=plain0&b=1",
		Header: http.Header{
			"X-Api-Key":    {k, "plain1"},
			"X_api.key":    {`pla"in2`},
			"X-Api-Secret": {secret},
			"X-Tenant-Key": {"plain3"},
			"Referer":      {"https://example.com/?api_key=plain4"},
			"User-Agent":   {"agent/" + k},
		},
		TLS: &tls.ConnectionState{ServerName: "api.example.com"},
	}
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			e := newEncoder(t, Encoder{
				WrappedRaw: json.RawMessage(`{"format":"` + format + `"}`),
				Headers:    []string{"X-Tenant-Key"},
				Query:      []string{"api_key"},
			})
			var out bytes.Buffer
			core := zapcore.NewCore(e, zapcore.AddSync(&out), zapcore.DebugLevel)
			log := zap.New(core).Named("http.log."+k).
				With(zap.String("with", k), zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: request})).
				WithLazy(zap.String("lazy", "id "+secret))

			log.Error("failed: "+k, zap.Error(errors.New("Get \"http://b/?api_key=plain5\": X-API-Key: plain6")),
				zap.Dict("a", zap.Dict("b", zap.Strings("c", []string{k, "clean"}))))
			log.Debug("upstream", zap.Any("headers", request.Header), zap.Reflect("r", map[string]any{"X-API-Key": "plain7", "n": []string{k}}),
				zap.Namespace("ns"), zap.ByteString("bytes", []byte(k)), zap.Stringer("url", &url.URL{Path: "/", RawQuery: "api_key=plain8"}))

			if n := strings.Count(out.String(), "\n"); n != 2 {
				t.Errorf("%d lines instead of 2", n)
			}
			for _, leak := range []string{k, k[3:40], secret, "plain", "in2"} {
				if strings.Contains(out.String(), leak) {
					t.Errorf("%q in\n%s", leak, &out)
				}
			}
			for _, kept := range []string{"clean", "agent/REDACTED", "/v1?api_key=REDACTED&b=1", "api.example.com"} {
				if !strings.Contains(out.String(), kept) {
					t.Errorf("no %q in\n%s", kept, &out)
				}
			}
			for line := range strings.Lines(out.String()) {
				if format == "json" && !json.Valid([]byte(line)) {
					t.Errorf("not JSON: %s", line)
				}
			}
		})
	}
}

// Lines without a key are what the wrapped encoder makes of them.
func TestEncoderClean(t *testing.T) {
	ent, fields := accessLog("/v1/items?page=2", nil)
	for format, plain := range map[string]zapcore.Encoder{"json": new(logging.JSONEncoder), "console": new(logging.ConsoleEncoder)} {
		if err := plain.(caddy.Provisioner).Provision(testContext(t)); err != nil {
			t.Fatal(err)
		}
		e := newEncoder(t, Encoder{WrappedRaw: json.RawMessage(`{"format":"` + format + `"}`)})
		want, err := plain.EncodeEntry(ent, fields)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.EncodeEntry(ent, fields)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("%s: got %s, want %s", format, got, want)
		}
		if n := testing.AllocsPerRun(100, func() { e.mask.masker().find(want.Bytes()) }); n > 0 {
			t.Errorf("%s: %v allocations", format, n)
		}
	}
}

// Inside and around Caddy's other wrapping encoders.
func TestEncoderNested(t *testing.T) {
	k := testKey("ak_", 64)
	for name, raw := range map[string]string{
		"around filter":   `{"format":"apikey_redact","wrap":{"format":"filter","wrap":{"format":"json"},"fields":{"b":{"filter":"delete"}}}}`,
		"inside filter":   `{"format":"filter","wrap":{"format":"apikey_redact","wrap":{"format":"json"}},"fields":{"b":{"filter":"delete"}}}`,
		"around append":   `{"format":"apikey_redact","wrap":{"format":"append","fields":{"host":"x"}}}`,
		"inside append":   `{"format":"append","wrap":{"format":"apikey_redact"},"fields":{"host":"x"}}`,
		"around journald": `{"format":"apikey_redact","wrap":{"format":"journald","wrap":{"format":"console"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			outer := struct {
				Raw json.RawMessage `caddy:"namespace=caddy.logging.encoders inline_key=format"`
			}{json.RawMessage(raw)}
			mod, err := testContext(t).LoadModule(&outer, "Raw")
			if err != nil {
				t.Fatal(err)
			}
			if c, ok := mod.(caddy.ConfiguresFormatterDefault); !ok {
				t.Errorf("%T does not pass on the writer", mod)
			} else if err := c.ConfigureDefaultFormat(caddy.StderrWriter{}); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			log := zap.New(zapcore.NewCore(mod.(zapcore.Encoder), zapcore.AddSync(&out), zapcore.DebugLevel)).With(zap.String("w", k))
			log.Info("one "+k, zap.String("b", k), zap.Strings("X-Api-Key", []string{"abc"}))
			log.Info("two")
			if s := out.String(); strings.Contains(s, k) || strings.Contains(s, "abc") || strings.Count(s, "\n") != 2 || !strings.Contains(s, "two") {
				t.Errorf("got %s", s)
			}
		})
	}
}

func TestEncoderProvision(t *testing.T) {
	for _, e := range []*Encoder{
		{Headers: []string{""}},
		{Headers: []string{"X API"}},
		{Headers: []string{"X-Ä"}},
		{Query: []string{""}},
		{Query: []string{"a&b"}},
		{Query: []string{"a\n"}},
		{WrappedRaw: json.RawMessage(`{"format":"nothing"}`)},
	} {
		if err := e.Provision(testContext(t)); err == nil {
			t.Errorf("%+v was accepted", e)
		}
	}
}

func TestEncoderCaddyfile(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"bare", `apikey_redact`, `{}`},
		{"json", `apikey_redact json`, `{"wrap":{"format":"json"}}`},
		{"console and names", "apikey_redact console {\n headers X-A X-B\n headers X-C\n query api_key \"a b\"\n}", `{"wrap":{"format":"console"},"headers":["X-A","X-B","X-C"],"query":["api_key","a b"]}`},
		{"wrap", "apikey_redact {\n wrap json {\n time_format iso8601\n }\n headers X-A\n}", `{"wrap":{"format":"json","time_format":"iso8601"},"headers":["X-A"]}`},
		{"wrap filter", "apikey_redact {\n wrap filter {\n wrap console\n a delete\n }\n}", `{"wrap":{"fields":{"a":{"filter":"delete"}},"format":"filter","wrap":{"format":"console"}}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e Encoder
			if err := e.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.in)); err != nil {
				t.Fatal(err)
			}
			if got := string(caddyconfig.JSON(&e, nil)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if err := e.Provision(testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEncoderCaddyfileErrors(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"unknown format", `apikey_redact xml`, "allowed are json and console"},
		{"two formats", `apikey_redact json console`, "only one format"},
		{"unknown subdirective", "apikey_redact {\n header X-A\n}", "allowed are headers, query and wrap"},
		{"no header", "apikey_redact {\n headers\n}", "needs one or more names"},
		{"no parameter", "apikey_redact {\n query\n}", "needs one or more names"},
		{"bad header", "apikey_redact {\n headers X-A X:B\n}", `"X:B" is not a header name: allowed are`},
		{"bad parameter", "apikey_redact {\n query a%5Fb\n}", "must be given decoded"},
		{"wrap twice", "apikey_redact {\n wrap json\n wrap json\n}", "given twice"},
		{"wrap and format", "apikey_redact json {\n wrap json\n}", "given twice"},
		{"wrap nothing", "apikey_redact {\n wrap\n}", "needs the name of an encoder"},
		{"wrap unknown", "apikey_redact {\n wrap xml\n}", "caddy.logging.encoders.xml"},
		{"wrap no encoder", "apikey_redact {\n wrap filter.delete\n}", "is not an encoder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := new(Encoder).UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want one with %q", err, tt.want)
			}
		})
	}
}

// Whatever stands around a key, and wherever it is logged, it does not survive.
func TestNothingSurvives(t *testing.T) {
	encoders := map[string]*Encoder{}
	for _, format := range []string{"json", "console"} {
		encoders[format] = newEncoder(t, Encoder{
			WrappedRaw: json.RawMessage(`{"format":"` + format + `"}`), Query: []string{"api_key"},
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]string{"json", "console"}).Draw(t, "format")
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-zA-Z0-9_-]{0,40}`), rapid.StringMatching(`[\\"%&=:?\[\]{}\t\n ,uXn0-9-]{0,20}`))
		var keys, canaries []string
		withKey := func(label string) string {
			k, err := key.Random{}.Generate(
				rapid.StringMatching(`[a-zA-Z0-9_-]{0,32}`).Draw(t, label+" prefix"),
				rapid.OneOf(rapid.Just(64), rapid.IntRange(key.MinLength, 200)).Draw(t, label+" length"), true)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k)
			s := k
			before := text.Draw(t, label+" before")
			if rapid.Bool().Draw(t, label+" encoded") {
				before += "/" // lest a "%" there should take part in it
				s = strings.NewReplacer("_", "%5F", "-", "%2d", "a", "%61").Replace(k)
			}
			return before + s + text.Draw(t, label+" after")
		}
		header := func(label string) string {
			c := fmt.Sprintf("<canary%d>", len(canaries))
			canaries = append(canaries, c)
			return text.Draw(t, label+" before") + c + text.Draw(t, label+" after")
		}
		query := func(label string) string {
			c := fmt.Sprintf("canary.%d", len(canaries))
			canaries = append(canaries, c)
			return "/" + url.PathEscape(text.Draw(t, label+" path")) + "?" + url.QueryEscape(text.Draw(t, label+" name")) + "=1&api%5Fkey=" + c + url.QueryEscape(text.Draw(t, label+" after"))
		}
		var out bytes.Buffer
		log := zap.New(zapcore.NewCore(encoders[format], zapcore.AddSync(&out), zapcore.DebugLevel)).
			With(zap.String("with", withKey("with")))
		log.Info(withKey("message"),
			zap.Any("reflected", map[string][]string{text.Draw(t, "name"): {withKey("reflected")}}),
			zap.Error(errors.New(withKey("error"))),
			zap.Dict("request", zap.String("uri", query("uri")), zap.Dict("headers",
				zap.Strings("X-Api-Key", []string{header("h1"), header("h2")}),
				zap.Strings("x_api.secret", []string{header("h3")}),
				zap.Strings("Referer", []string{"http://h" + query("referer")}))))
		line := out.String()
		for _, k := range keys {
			if rest := k[len(k)-key.MinLength:]; strings.Contains(line, rest) {
				t.Fatalf("%s survives in %s", k, line)
			}
		}
		for _, c := range canaries {
			if strings.Contains(line, c) {
				t.Fatalf("%s survives in %s", c, line)
			}
		}
		if format == "json" && (!json.Valid(out.Bytes()) || strings.Count(line, "\n") != 1) {
			t.Fatalf("not one line of JSON: %s", line)
		}
	})
}

func FuzzEncoder(f *testing.F) {
	k := testKey("ak_", 64)
	for _, s := range []string{
		"", k, `{"X-Api-Key":["a\"b"],"uri":"/?api_key=c&d"}`, `{"a":"{\"X-Api-Key\":[\"a\\"}`, "a\tX-API-Key: b\t{}\n", `{"x.api.key":{"a":[1,"b",{}]}}`,
		`{"X-Api-Key":1e5}`, `?api%5Fkey%3D` + k + `%26\u0026`, `X-API-Key:["a" \"b\"`, `{"a":"\t` + k + `\ufffd"}`, `\\\"X_API_KEY\\\":\\\"`, `{"":"X-API-Key:[\""}`,
	} {
		f.Add([]byte(s))
	}
	publish(f, everyPlace())
	e := newEncoder(f, Encoder{WrappedRaw: json.RawMessage(`{"format":"json"}`), Headers: []string{"k"}, Query: []string{"api_key", "q"}})
	f.Fuzz(func(t *testing.T, data []byte) {
		maskLine(e.mask.masker(), string(data))
		var compact bytes.Buffer
		if json.Compact(&compact, data) == nil && compact.Bytes()[0] == '{' {
			if got := maskLine(e.mask.masker(), compact.String()); !json.Valid([]byte(got)) {
				t.Errorf("%s\nbecame %s", &compact, got)
			}
		}
		buf, err := e.EncodeEntry(zapcore.Entry{Message: string(data)}, []zap.Field{
			zap.Strings("X-Api-Key", []string{string(data)}), zap.ByteString("b", data),
		})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Header []string `json:"X-Api-Key"`
		}
		if err := json.Unmarshal(buf.Bytes(), &got); err != nil {
			t.Errorf("%s: %v", buf, err)
		}
		if len(data) > 0 && (len(got.Header) != 1 || got.Header[0] != redacted) {
			t.Errorf("header value %q in %s", got.Header, buf)
		}
		if bytes.Count(buf.Bytes(), []byte("\n")) != 1 {
			t.Errorf("not one line: %q", buf)
		}
	})
}

// accessLog returns an entry as Caddy's access log has it, some 700 bytes in JSON.
func accessLog(uri string, header http.Header) (zapcore.Entry, []zap.Field) {
	r := &http.Request{
		Method: "GET", Proto: "HTTP/2.0", Host: "api.example.com", RemoteAddr: "192.0.2.17:51812", RequestURI: uri,
		Header: http.Header{
			"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
			"Accept":          {"application/json"},
			"Accept-Encoding": {"gzip, br"},
			"X-Request-Id":    {"6f1c3b62-8f60-4f0a-9e0d-0f2c53f1a9d7"},
		},
		TLS: &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, NegotiatedProtocol: "h2", ServerName: "api.example.com"},
	}
	// One at a time: encoding a map is in no order.
	var fields []zap.Field
	fields = append(fields, zap.Dict("request", zap.String("remote_ip", "192.0.2.17"), zap.String("uri", uri), zap.String("host", r.Host),
		zap.Dict("headers",
			zap.Strings("User-Agent", r.Header["User-Agent"]), zap.Strings("Accept", r.Header["Accept"]),
			zap.Strings("Accept-Encoding", r.Header["Accept-Encoding"]), zap.Strings("X-Request-Id", r.Header["X-Request-Id"]),
			zap.Strings("X-Api-Key", header["X-Api-Key"])),
		zap.Object("tls", caddyhttp.LoggableTLSConnState(*r.TLS))))
	fields = append(fields, zap.Int("bytes_read", 0), zap.String("user_id", ""), zap.Duration("duration", 1234567),
		zap.Int("size", 5120), zap.Int("status", 200),
		zap.Dict("resp_headers", zap.Strings("Server", []string{"Caddy"}), zap.Strings("Content-Type", []string{"application/json"}), zap.Strings("Alt-Svc", []string{`h3=":443"; ma=2592000`})))
	return zapcore.Entry{LoggerName: "http.log.access.log0", Message: "handled request", Time: time.Unix(1795296600, 123456789)}, fields
}

func BenchmarkEncoder(b *testing.B) {
	plain := new(logging.JSONEncoder)
	if err := plain.Provision(testContext(b)); err != nil {
		b.Fatal(err)
	}
	e := newEncoder(b, Encoder{WrappedRaw: json.RawMessage(`{"format":"json"}`), Query: []string{"api_key"}})
	clean, cleanFields := accessLog("/v1/items?page=2&sort=name", nil)
	dirty, dirtyFields := accessLog("/v1/items?page=2&api_key=abc", http.Header{"X-Api-Key": {testKey("ak_", 64)}})
	for _, bb := range []struct {
		name   string
		enc    zapcore.Encoder
		ent    zapcore.Entry
		fields []zap.Field
	}{
		{"encode/plain", plain, clean, cleanFields},
		{"encode/clean", e, clean, cleanFields},
		{"encode/redacted", e, dirty, dirtyFields},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buf, err := bb.enc.EncodeEntry(bb.ent, bb.fields)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(buf.Len()))
				buf.Free()
			}
		})
	}
	b.Run("encode/with every kind of place", func(b *testing.B) {
		publish(b, everyPlace())
		b.ReportAllocs()
		for b.Loop() {
			buf, err := e.EncodeEntry(clean, cleanFields)
			if err != nil {
				b.Fatal(err)
			}
			buf.Free()
		}
	})
	buf, _ := plain.EncodeEntry(clean, cleanFields)
	dirtyBuf, _ := plain.EncodeEntry(dirty, dirtyFields)
	for name, line := range map[string][]byte{
		"find/clean": buf.Bytes(), "find/redacted": dirtyBuf.Bytes(),
		"find/16KiB worst":  []byte(`{"a":"` + strings.Repeat("0z", 8<<10) + `"}`),
		"find/16KiB random": []byte(`{"a":"` + testKey("", 16<<10) + `x"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				e.mask.masker().find(line)
			}
		})
	}
}
