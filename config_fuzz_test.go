package apikey

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/dunglas/httpsfv"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// foreign is what leaves the Caddyfile: another file, the environment, or a here-document,
// which would take in the rest of the file.
var foreign = regexp.MustCompile(`import|\{\$|<<`)

// FuzzCaddyfile puts options into the app, the gate and the self-service API. What adapts is
// a configuration that is read without an unknown field, and written as it was read.
func FuzzCaddyfile(f *testing.F) {
	files, err := filepath.Glob("testdata/caddyfile/*/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		f.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		source, _, _ := bytes.Cut(text, []byte("\n----------\n"))
		f.Add(string(source), byte(3))
	}
	for _, option := range []string{
		"prefix ak_", "length 64", "expiration {\nkeep forever\n}", "tier a {\nlimit 5 1m\npermissions read\n}", "time_zone Asia/Shanghai", "rate_limit 5 1m",
		"require files:read", "cost {http.request.header.X}", "identity_headers off", "dialect rest", "base_path /v1", "config a {\nprefix b_\n}",
	} {
		for place := range byte(3) {
			f.Add(option, place)
		}
	}
	f.Fuzz(func(t *testing.T, text string, place byte) {
		if foreign.MatchString(text) {
			t.Skip()
		}
		source := text
		switch place % 4 {
		case 0:
			source = "{\n\tapikey {\n" + text + "\n}\n}\n:80 {\n\tapikey\n}\n"
		case 1:
			source = ":80 {\n\tapikey {\n" + text + "\n}\n}\n"
		case 2:
			source = ":80 {\n\tapikey_api {\n" + text + "\n}\n}\n"
		}
		config, _, err := adapt([]byte(source))
		if err != nil {
			return
		}
		var c struct {
			Apps map[string]json.RawMessage `json:"apps"`
		}
		if err := json.Unmarshal(config, &c); err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		if app, ok := c.Apps["apikey"]; ok {
			roundTrip(t, app, new(App))
		}
		eachHandler(c.Apps["http"], func(name string, config json.RawMessage) {
			switch name {
			case "apikey":
				roundTrip(t, config, new(Gate))
			case "apikey_api":
				roundTrip(t, config, new(SelfService))
			}
		})
	})
}

// roundTrip reads a configuration of a module as Caddy does, and writes it again.
func roundTrip(t *testing.T, config json.RawMessage, module any) {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		t.Fatalf("%s: %v", config, err)
	}
	delete(fields, "handler")
	plain, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.StrictUnmarshalJSON(plain, module); err != nil {
		t.Fatalf("%s: %v", plain, err)
	}
	again, err := json.Marshal(module)
	if err != nil {
		t.Fatal(err)
	}
	if !sameJSON(t, again, plain) {
		t.Errorf("%s\nis written as %s", plain, again)
	}
}

// eachHandler calls f for each HTTP handler in a configuration.
func eachHandler(config json.RawMessage, f func(name string, config json.RawMessage)) {
	var list []json.RawMessage
	var object map[string]json.RawMessage
	switch {
	case json.Unmarshal(config, &list) == nil:
		for _, element := range list {
			eachHandler(element, f)
		}
	case json.Unmarshal(config, &object) == nil:
		var name string
		if json.Unmarshal(object["handler"], &name) == nil {
			f(name, config)
		}
		for _, value := range object {
			eachHandler(value, f)
		}
	}
}

// FuzzPeriod: a period, a time to keep and a time zone are read from JSON as they are
// written, and a period has a name that a rate header can hold.
func FuzzPeriod(f *testing.F) {
	for _, s := range []string{"1m", "day", "month", "1d12h", "0.5s", "1ms", "1us", "-1h", "1e9h", "9223372036s", "", "forever", "30d", "UTC", "Local", "Europe/Berlin", "../x", "\x00", "00001m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parsePeriod(s); err == nil {
			if p.unit == 0 || !plain.MatchString(p.text) {
				t.Errorf("%q is %+v", s, p)
			}
			rereads(t, p, new(Period), func(again *Period) bool { return again.unit == p.unit && again.text == p.text })
		}
		var k Keep
		if text, err := json.Marshal(s); err == nil && json.Unmarshal(text, &k) == nil {
			rereads(t, k, new(Keep), func(again *Keep) bool { return *again == k })
		}
		if n, err := parseCost(s); err == nil && n < 0 {
			t.Errorf("a cost of %d", n)
		}
		plans := Plans{TimeZone: s}
		if zone, err := plans.zone(); err == nil {
			if s != "" && zone.String() != s {
				t.Errorf("%q is the zone %s", s, zone)
			}
			const now = 1_800_000_000_000
			if day := ratelimit.Day(now, zone); day.Start > now || day.End <= now {
				t.Errorf("%s: the day is %+v", zone, day)
			}
		}
	})
}

func rereads[T any](t *testing.T, value any, into *T, same func(*T) bool) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil || !same(into) {
		t.Errorf("%s is read as %+v: %v", text, *into, err)
	}
}

// FuzzRateHeaders reads the rate headers with a parser of structured fields (RFC 9651): an
// item for each limit, with its numbers.
func FuzzRateHeaders(f *testing.F) {
	f.Add("1m", int64(100), int64(60_000), int64(42), int64(17_000))
	f.Add("day", int64(1)<<53-1, int64(0), int64(1)<<53-1, int64(0))
	f.Add("0.5s", int64(-1), int64(1)<<62, int64(-1)<<62, int64(1))
	f.Fuzz(func(t *testing.T, period string, quota, window, remaining, reset int64) {
		p, err := parsePeriod(period)
		if err != nil {
			t.Skip()
		}
		limits := []keyring.Limit{
			{Name: "key", Quota: quota, Window: window, Remaining: remaining, Reset: reset},
			{Name: p.text, Quota: remaining, Window: reset, Remaining: quota, Reset: window},
		}
		for i := range limits { // what the limiter hands out is not negative
			l := &limits[i]
			l.Quota, l.Window, l.Remaining, l.Reset = max(l.Quota, 0), max(l.Window, 0), max(l.Remaining, 0), max(l.Reset, 0)
		}
		h := http.Header{}
		writeRateHeaders(h, rateBoth, &keyring.Decision{Limits: limits}, false)
		for name, parameters := range map[string]string{"Ratelimit-Policy": "qw", "Ratelimit": "rt"} {
			list, err := httpsfv.UnmarshalList(h[name])
			if err != nil || len(list) != len(limits) {
				t.Fatalf("%s: %q: %v", name, h[name], err)
			}
			for i, member := range list {
				item := member.(httpsfv.Item)
				if item.Value != limits[i].Name {
					t.Errorf("%s: %q names %v", name, h[name], item.Value)
				}
				first, second := limits[i].Quota, limits[i].Window
				if name == "Ratelimit" {
					first, second = limits[i].Remaining, limits[i].Reset
				}
				if got, _ := item.Params.Get(parameters[:1]); got != min(first, maxInteger) {
					t.Errorf("%s: %q: %s is %v, want %d", name, h[name], parameters[:1], got, first)
				}
				if got, ok := item.Params.Get(parameters[1:]); ok != (second > 0) || ok && got != min(seconds(second), maxInteger) {
					t.Errorf("%s: %q: %s is %v, want %d ms", name, h[name], parameters[1:], got, second)
				}
			}
		}
		for _, name := range rateHeaderNames[2:] {
			if text := h.Get(name); strings.Trim(text, "0123456789") != "" {
				t.Errorf("%s: %q", name, text)
			}
		}
	})
}
