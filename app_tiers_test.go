package apikey

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

func TestTierCaddyfile(t *testing.T) {
	var a App
	err := a.UnmarshalCaddyfile(caddyfile.NewTestDispenser(`apikey {
		default_tier free
		time_zone Asia/Shanghai
		tier free {
			limit 10/1m
			limit 1000/day
			permissions read
		}
		tier pro {
			limit 5/10s
			limit 9007199254740991/month
			permissions files:read
			permissions files:write
		}
		tier open
	}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"tiers":[` +
		`{"name":"free","limits":[{"max":10,"per":"1m"},{"max":1000,"per":"day"}],"permissions":["read"]},` +
		`{"name":"pro","limits":[{"max":5,"per":"10s"},{"max":9007199254740991,"per":"month"}],"permissions":["files:read","files:write"]},` +
		`{"name":"open"}],"default_tier":"free","time_zone":"Asia/Shanghai"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var back App
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(back); err != nil || string(again) != want {
		t.Errorf("read and written again: %s, %v", again, err)
	}
	s := new(keyring.Settings)
	back.provisionPlans(s)
	if s.Zone.String() != "Asia/Shanghai" || s.DefaultTier != "free" || s.Tiers[0].Limits[0] != (keyring.TierLimit{Max: 10, Unit: 60_000, Text: "1m"}) ||
		s.Tiers[1].Limits[1].Unit != keyring.Month || s.Tiers[2].Permissions != nil {
		t.Errorf("%+v", s)
	}
}

// TestTierCaddyfileErrors: what could never work is refused, and the line is named.
func TestTierCaddyfileErrors(t *testing.T) {
	for _, c := range []struct{ in, want, line string }{
		{"tier", "wrong argument count", "2"},
		{"tier a b", "wrong argument count", "2"},
		{"tier \"a b\"", "printable characters without spaces", "2"},
		{"tier \"\"", "1 to 64", "2"},
		{"tier " + strings.Repeat("x", 65), "1 to 64", "2"},
		{"tier a\u202eb", "printable", "2"},
		{"tier a\ntier b\ntier a", "tier a already specified", "4"},
		{"tier a {\nlimits 1/1m\n}", `unknown option "limits": did you mean limit?`, "3"},
		{"tier a {\nlimit\n}", "wrong argument count", "3"},
		{"tier a {\nlimit 10\n}", "must be <max>/<duration>", "3"},
		{"tier a {\nlimit 0/1m\n}", "the maximum must be from 1 to 9007199254740991", "3"},
		{"tier a {\nlimit 9007199254740992/1m\n}", "the maximum must be from 1", "3"},
		{"tier a {\nlimit x/1m\n}", "must be an integer", "3"},
		{"tier a {\nlimit 1/week\n}", "must be a duration such as 1m or 1h, or day, or month", "3"},
		{"tier a {\nlimit 1/\n}", "must be a duration", "3"},
		{"tier a {\nlimit 1/0s\n}", "whole number of milliseconds, at least 1", "3"},
		{"tier a {\nlimit 1/1500us\n}", "whole number of milliseconds, at least 1", "3"},
		{"tier a {\nlimit 1/-1m\n}", "whole number of milliseconds, at least 1", "3"},
		{"tier a {\nlimit 1/day\nlimit 2/day\n}", "day already specified", "4"},
		{"tier a {\nlimit 1/1m\nlimit 2/60s\n}", "60s already specified", "4"},
		{"tier a {\npermissions a:\n}", "permissions", "3"},
		{"default_tier free\ntier gold", `there is no tier "free"`, "2"},
		{"default_tier a\ndefault_tier a", "default_tier already specified", "3"},
		{"time_zone Mars/Olympus", `"Mars/Olympus" is not a name in the IANA`, "2"},
		{"time_zone Local", `"Local" is not a name in the IANA`, "2"},
		{"time_zone ../../etc/passwd", "is not a name in the IANA", "2"},
	} {
		var a App
		err := a.UnmarshalCaddyfile(caddyfile.NewTestDispenser("apikey {\n" + c.in + "\n}"))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ":"+c.line) {
			t.Errorf("%q: %v, want %q in line %s", c.in, err, c.want, c.line)
		}
	}
	for _, in := range []string{
		`{"tiers":[{"name":"a","limits":[{"max":1,"per":"week"}]}]}`, `{"tiers":[{"name":"a","limits":[{"max":1,"per":1.5}]}]}`,
		`{"tiers":[{"name":"a","limits":[{"max":1,"per":null}]}]}`, `{"tiers":[{"name":"a","limits":[{"max":1}]}]}`, `{"tiers":[{}]}`,
	} {
		var a App
		if err := json.Unmarshal([]byte(in), &a); err == nil {
			err = a.check()
			if err == nil {
				t.Errorf("%s is accepted", in)
			}
		}
	}
}

func TestPeriods(t *testing.T) {
	for in, want := range map[string]string{
		`"1m"`: "1m", `"1d"`: "1d", `60000000000`: "1m0s", `"1h30m"`: "1h30m", `"+1m"`: "1m0s", `"1000µs"`: "1ms", `"day"`: "day",
	} {
		var p Period
		if err := json.Unmarshal([]byte(in), &p); err != nil || p.text != want {
			t.Errorf("%s: %+v, %v", in, p, err)
		}
	}
}
