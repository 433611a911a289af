package apikey

import (
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
)

// TestR1_caddy: this build has a Caddy that is new enough, and one with an older Caddy says so.
func TestR1_caddy(t *testing.T) {
	if v, err := semver.NewVersion(versionOf(caddyModule)); err != nil || v.LessThan(semver.MustParse(leastCaddy)) {
		t.Errorf("this build has Caddy %v: %v", v, err)
	}
	for version, warns := range map[string]bool{
		leastCaddy: false, "v2.12.0": false, "v2.11.10": false, "v3.0.0": false, "(devel)": false, "": false, "unknown": false,
		"v2.11.8": true, "v2.9.1": true, "v2.11.9-beta.1": true, "v2.11.8-0.20260101000000-0123456789ab": true,
	} {
		if w := caddyWarning(version); (w != "") != warns || warns && !strings.Contains(w, version) {
			t.Errorf("%s: %q", version, w)
		}
	}
}
