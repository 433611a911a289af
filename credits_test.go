package apikey

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestCreditsOption(t *testing.T) {
	for in, want := range map[string]struct {
		json  string
		lease int64
	}{
		"credits strict":                 {`{"mode":"strict"}`, 0},
		"credits lease 1":                {`{"mode":"lease","max":1}`, 1},
		"credits lease 9007199254740991": {`{"mode":"lease","max":9007199254740991}`, 9007199254740991},
	} {
		var a App
		if err := a.UnmarshalCaddyfile(caddyfile.NewTestDispenser("apikey {\n" + in + "\n}")); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := json.Marshal(a.Credits)
		if err != nil || string(got) != want.json || a.Credits.lease() != want.lease {
			t.Errorf("%s: %s, %d, %v", in, got, a.Credits.lease(), err)
		}
	}
	if (*Credits)(nil).lease() != 0 || (*Credits)(nil).check() != nil {
		t.Error("strict is not the default")
	}
}

// What could never work is refused at load, in both forms of the configuration.
func TestCreditsOptionRefused(t *testing.T) {
	for _, in := range []string{
		"credits", "credits off", "credits lease", "credits lease 0", "credits lease -1", "credits lease 9007199254740992",
		"credits lease 9223372036854775808", "credits lease x", "credits lease 1.5", "credits lease 1 2", "credits strict 1",
		"credits strict\ncredits lease 5",
	} {
		err := new(App).UnmarshalCaddyfile(caddyfile.NewTestDispenser("apikey {\n" + in + "\n}"))
		if err == nil || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{`{"mode":"lease"}`, `{"max":5}`, `{"mode":"strict","max":5}`, `{"mode":"lease","max":-1}`, `{"mode":"x"}`} {
		var a App
		if err := json.Unmarshal([]byte(`{"credits":`+in+`}`), &a); err != nil || a.check() == nil {
			t.Errorf("%s is accepted (%v)", in, err)
		}
	}
}
