package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TestAdded: NETWORKS_REQUIRED refuses keys that may do everything from everywhere, and
// no others.
func TestAdded(t *testing.T) {
	p, keys := serve(t, filepath.Join(t.TempDir(), "keys.db"), time.Now)
	client := &admin.Client{Base: p.URL}
	for _, test := range []struct{ flags, code string }{
		{"--permission=*:*", "NETWORKS_REQUIRED"},
		{"--permission=*:* --allowed-ip=192.0.2.0/24", ""},
		{"--permission=files:*", ""},
		{"", ""},
		{"--permission=*:* --disabled", "KEY_DISABLED"},
	} {
		raw, _, err := p.run("", append([]string{"create", "--owner=alice"}, strings.Fields(test.flags)...)...)
		if err != nil {
			t.Fatal(err)
		}
		raw = strings.TrimSpace(raw)
		d, err := keys.Verify(t.Context(), raw, &keyring.Request{Cost: 1})
		if err != nil || d.Outcome.Code() != test.code {
			t.Errorf("%s: %q, %v", test.flags, d.Outcome.Code(), err)
		}
		a, err := client.Verify(t.Context(), admin.VerifyKey{Key: raw})
		switch {
		case err != nil || a.Value.Valid != (test.code == ""):
			t.Errorf("%s: %+v, %v", test.flags, a.Value, err)
		case test.code != "" && a.Value.Error.Code != test.code:
			t.Errorf("%s: the answer says %s", test.flags, a.Value.Error.Code)
		}
	}
}
