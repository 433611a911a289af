package apikey

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// filled returns rules with every field set.
func filled() KeyRules {
	text, number, many, yes, day := "x", 7, int64(8), true, caddy.Duration(24*time.Hour)
	return KeyRules{
		Prefix: &text, Length: 40, Checksum: &yes, Start: &number,
		GeneratorRaw: json.RawMessage(`{}`), ValidatorsRaw: []json.RawMessage{},
		NameLength: &Range{1, 2}, PrefixLength: &Range{1, 2}, RequireName: &yes, Metadata: &yes,
		Expiration: &Expiration{Default: &day, Min: &day, Max: &day, Fixed: &yes, Keep: &Keep{Forever: true}},
		RateLimit:  &RateLimit{}, RateLimiting: &yes, Permissions: []string{}, MaxKeys: &many,
	}
}

// TestConfigInherits goes through all fields, so that a new one that is not
// inherited fails: what a configuration does not say it takes from above, what it
// says it keeps.
func TestConfigInherits(t *testing.T) {
	above, own := filled(), filled()
	own.Length, own.GeneratorRaw, own.ValidatorsRaw, own.Permissions = 41, json.RawMessage(`{"a":1}`), []json.RawMessage{{}}, []string{"read"}
	inherits(t, above, own, KeyRules{}, func(c, from KeyRules) KeyRules { return c.inherit(&from) })
	inherits(t, *above.Expiration, *own.Expiration, Expiration{}, func(c, from Expiration) Expiration { return *c.inherit(&from) })
	if (*Expiration)(nil).inherit(nil) != nil {
		t.Error("an expiration of nothing")
	}
}

func inherits[T any](t *testing.T, above, own, none T, inherit func(c, from T) T) {
	t.Helper()
	got, kept, alone := inherit(none, above), inherit(own, above), inherit(own, none)
	for i := range reflect.TypeFor[T]().NumField() {
		name, value := reflect.TypeFor[T]().Field(i).Name, func(v T) any { return reflect.ValueOf(v).Field(i).Interface() }
		if reflect.ValueOf(above).Field(i).IsZero() {
			t.Fatalf("%s: filled does not fill it", name)
		}
		if !same(value(got), value(above)) {
			t.Errorf("%s is not taken from above", name)
		}
		if !same(value(kept), value(own)) || !same(value(alone), value(own)) {
			t.Errorf("%s is taken from above, though the configuration says it", name)
		}
	}
}

// same compares pointers as such, but what is merged by content.
func same(a, b any) bool {
	if e, ok := a.(*Expiration); ok {
		return reflect.DeepEqual(e, b)
	}
	if v := reflect.ValueOf(a); v.Kind() == reflect.Pointer {
		return a == b
	}
	return reflect.DeepEqual(a, b)
}

// TestConfigRules follows options of the Caddyfile to the rules they become.
func TestConfigRules(t *testing.T) {
	config, _, err := adapt([]byte(`{
		apikey {
			secret_prefix s_
			prefix ak_
			validate match _
			require_name
			expiration {
				default 90d
				max 365d
				keep 1d
			}
			rate_limit 100/1m sliding_window
			permissions read
			config pub {
				prefix pub_
				session off
				rate_limit 5/1s
				expiration {
					default off
					keep 1h
				}
			}
			config none {
				prefix off
				validate off
				require_name off
				rate_limit off
				permissions off
			}
		}
	}
	:8080`))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Apps struct{ Apikey json.RawMessage }
	}
	if err := json.Unmarshal(config, &c); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	app, cancel, err := loadApp(t, string(c.Apps.Apikey))
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	const day = 24 * 60 * 60 * 1000
	s := app.settings
	usual, pub, none := s.Rules, s.Configs[0], s.Configs[1]
	if usual.ConfigID != "default" || pub.ConfigID != "pub" || none.ConfigID != "none" || len(s.Configs) != 2 {
		t.Errorf("%+v", s)
	}
	if !usual.Session || pub.Session || !none.Session {
		t.Error("sessions")
	}
	if pub.Prefix != "pub_" || pub.SecretPrefix != "s_" || !pub.RequireName || len(pub.Validators) != 1 || pub.Permissions.List()[0] != "api:read" {
		t.Errorf("pub: %+v", pub)
	}
	if e := pub.Expiration; e.Default != 0 || e.Max != 365*day || e.Keep != day/24 {
		t.Errorf("pub: %+v", e)
	}
	if l := pub.RateLimit; *l != (ratelimit.Policy{Max: 5, Window: 1000}) {
		t.Errorf("pub: %+v", l)
	}
	if none.Prefix != "" || none.Validators != nil || none.RequireName || none.RateLimit != nil || none.Permissions != nil || none.Expiration != usual.Expiration {
		t.Errorf("none: %+v", none)
	}
}
