package redact

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// publish publishes places for the duration of a test.
func publish(t testing.TB, p Places) {
	t.Helper()
	t.Cleanup(Publish(p))
}

// everyPlace is one of each kind.
func everyPlace() Places {
	return Places{
		Headers: []string{"X-Acme-Key", "Authorization"}, Query: []string{"access_key"}, Cookies: []string{"k-1"},
		From: []string{"{http.request.uri.path.1}"},
	}
}

// Values in the places of gates are masked whatever they hold, and nothing beside them.
func TestQ43_PlacesOfGates(t *testing.T) {
	publish(t, everyPlace())
	m := newTestMasker(nil, nil)
	for _, tt := range []struct{ name, in, want string }{
		{"header", `{"headers":{"X-Acme-Key":["a","b"],"X-Other":["c"]}}`, `{"headers":{"X-Acme-Key":["REDACTED","REDACTED"],"X-Other":["c"]}}`},
		{"header, other spellings", `{"X_Acme.KEY":["a"],"HTTP_X_ACME_KEY":"b"}`, `{"X_Acme.KEY":["REDACTED"],"HTTP_X_ACME_KEY":"REDACTED"}`},
		{"default headers", `{"X-Api-Key":["a"]}`, `{"X-Api-Key":["REDACTED"]}`},
		{"any scheme", `{"Authorization":["ApiKey abc","Basic dTpw"]}`, `{"Authorization":["REDACTED","REDACTED"]}`},
		{"parameter", `{"uri":"/a?x=1&access_key=b&y=2"}`, `{"uri":"/a?x=1&access_key=REDACTED&y=2"}`},
		{"parameter, other spellings", `{"uri":"/a?ACCESS-Key=b&access%5Fkey=c&access.key=d"}`, `{"uri":"/a?ACCESS-Key=REDACTED&access%5Fkey=REDACTED&access.key=REDACTED"}`},
		{"parameter of another name", `{"uri":"/a?my_access_key=b"}`, ``},
		{"cookie", `{"Cookie":["a=1; k-1=b; c=2"]}`, `{"Cookie":["a=1; k-1=REDACTED; c=2"]}`},
		{"cookie, other spellings", `{"cookie":["K_1=b;k.1=c=d"]}`, `{"cookie":["K_1=REDACTED;k.1=REDACTED"]}`},
		{"cookie in quotes", `{"Cookie":["k-1=\"b\"; c=2"]}`, `{"Cookie":["k-1=REDACTED; c=2"]}`},
		{"cookie that is set", `{"Set-Cookie":["k-1=b; Path=/"]}`, `{"Set-Cookie":["k-1=REDACTED; Path=/"]}`},
		{"cookie of another name", `{"Cookie":["xk-1=b; k-12=c"]}`, ``},
		{"no cookie", `{"X-Other":["k-1=b"]}`, ``},
		{"cookie in text", `{"msg":"Cookie: a=1; k-1=b"}`, `{"msg":"Cookie: a=1; k-1=REDACTED"}`},
		{"segment", `{"uri":"/v1/b!/c/d?e=/f/g"}`, `{"uri":"/v1/REDACTED/c/d?e=/f/g"}`},
		{"last segment", `{"uri":"/v1/b"}`, `{"uri":"/v1/REDACTED"}`},
		{"no such segment", `{"uri":"/v1"}`, ``},
		{"empty segment", `{"uri":"/v1//c"}`, ``},
		{"segment, encoded slash", `{"uri":"/v1%2fb/c"}`, `{"uri":"/v1%2fREDACTED/c"}`},
		{"segment, quote inside", `{"uri":"/v1/a\"b/c"}`, `{"uri":"/v1/REDACTED/c"}`},
		{"segment in a URL", `{"Referer":["https://example.com/v1/b?q"]}`, `{"Referer":["https://example.com/v1/REDACTED?q"]}`},
		{"segment in a header", `{"X-Original-Uri":["/v1/b"]}`, `{"X-Original-Uri":["/v1/REDACTED"]}`},
		{"segment in text", `{"msg":"Get \"http://h:1/v1/b\": EOF","e":"GET /v1/b HTTP/1.1"}`, `{"msg":"Get \"http://h:1/v1/REDACTED\": EOF","e":"GET /v1/REDACTED HTTP/1.1"}`},
		{"long segments elsewhere", `{"uri":"/api/v1/` + strings.Repeat("aB0%5f", 5) + `/index-of-this-page.html"}`, `{"uri":"/api/REDACTED/REDACTED/index-of-this-page.html"}`},
		{"no path", `{"type":"a/b/c","Accept":["*/*"],"agent":"Mozilla/5.0/x"}`, ``},
		{"console", "INFO\tGET /v1/b\t{\"uri\": \"/v1/b\", \"Cookie\": [\"k-1=c\"]}", "INFO\tGET /v1/REDACTED\t{\"uri\": \"/v1/REDACTED\", \"Cookie\": [\"k-1=REDACTED\"]}"},
		{"logfmt", `uri=/v1/b Cookie="a=1; k-1=c" access_key=d`, `uri=/v1/REDACTED Cookie="a=1; k-1=REDACTED" access_key=REDACTED`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "" {
				tt.want = tt.in
			}
			got := maskLine(m, tt.in)
			if got != tt.want {
				t.Errorf("line  %s\ngot   %s\nwant  %s", tt.in, got, tt.want)
			}
			if strings.HasPrefix(tt.in, "{") && !json.Valid([]byte(got)) {
				t.Errorf("%s is no longer JSON", got)
			}
		})
	}
}

// Encoders open before handlers, and outlive them.
func TestQ43_PublishedLate(t *testing.T) {
	e := newEncoder(t, Encoder{WrappedRaw: json.RawMessage(`{"format":"json"}`)})
	var out bytes.Buffer
	log := zap.New(zapcore.NewCore(e, zapcore.AddSync(&out), zapcore.DebugLevel)).With(zap.Strings("X-Acme-Key", []string{"<with>"}))
	line := func() string {
		out.Reset()
		log.Info("handled request", zap.Object("request", caddyhttp.LoggableHTTPRequest{
			ShouldLogCredentials: true,
			Request: &http.Request{RequestURI: "/v1/<path>?access_key=<query>", Header: http.Header{
				"Authorization": {"ApiKey <scheme>"}, "X-Acme-Key": {"<header>"}, "Cookie": {"k-1=<cookie>"},
			}},
		}))
		return out.String()
	}
	canaries := []string{"<with>", "<path>", "<query>", "<scheme>", "<header>", "<cookie>"}
	shown := func(want bool) {
		t.Helper()
		got := line()
		for _, c := range canaries {
			if strings.Contains(got, c) != want {
				t.Errorf("%s is shown: %v\n%s", c, !want, got)
			}
		}
	}
	shown(true)
	first := Publish(everyPlace())
	shown(false)
	second := Publish(everyPlace()) // a reload: the next configuration reads the same places
	first()
	shown(false)
	second()
	shown(true)
}

// What is published counts as covered, and what no encoder can mask does not.
func TestQ43_Uncovered(t *testing.T) {
	places := everyPlace()
	places.Query = append(places.Query, "a%b") // no encoder finds this name
	places.From = append(places.From, "{http.request.orig_uri.path.3}", "{http.request.uri.path}", "{http.vars.key}")
	publish(t, places)
	for _, tt := range []struct {
		encoder   string
		checksums bool
		want      []Log
	}{
		{`{"format":"apikey_redact"}`, true, []Log{{"default", Places{Query: []string{"a%b"}}}}},
		{`{"format":"apikey_redact"}`, false, []Log{{"default", Places{Query: []string{"a%b"}, From: []string{"{http.request.uri.path}", "{http.vars.key}"}}}}},
	} {
		ctx := contextOf(t, `"default":{FILE,"encoder":`+tt.encoder+`}`)
		var requests []Requests
		for _, from := range places.From { // one for each handler
			p := places
			p.From = []string{from}
			requests = append(requests, Requests{p, true})
		}
		got, err := Uncovered(ctx, requests, tt.checksums)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("checksums %v: got %+v, %v, want %+v", tt.checksums, got, err, tt.want)
		}
	}
}

// Every placeholder that reads one segment of a path, and no other.
func TestSegmentOf(t *testing.T) {
	for placeholder, want := range map[string]int{
		"{http.request.uri.path.0}": 0, "{http.request.uri.path.12}": 12, "{http.request.orig_uri.path.1}": 1,
		"{http.request.uri.path}": -1, "{http.request.uri.path.file}": -1, "{http.request.uri.path.-1}": -1, "{http.request.uri.query.1}": -1,
		"{http.request.host.labels.1}": -1, "{http.vars.path.1}": -1, "http.request.uri.path.1": -1,
	} {
		if n, ok := segmentOf(placeholder); ok != (want >= 0) || ok && n != want {
			t.Errorf("%s: got %d, %v", placeholder, n, ok)
		}
	}
}

// Long lines that look like nothing but paths and cookies stay cheap.
func TestPlacesBudget(t *testing.T) {
	publish(t, everyPlace())
	m := newTestMasker(nil, nil)
	for _, piece := range []string{"/", "://", "/a", " /", `\"/`, `\\`, "k-1=", "Cookie:", "%2f", `"/":`, "Cookie: k-1=;"} {
		line := `{"uri":"` + strings.Repeat(piece, 256<<10/len(piece)) + `"}`
		start := time.Now()
		m.find([]byte(line))
		if d := time.Since(start); d > time.Second {
			t.Errorf("%q took %v", piece, d)
		}
	}
}
