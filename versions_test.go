package apikey

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
)

// TestR1_caddy: go.mod asks for a Caddy that is new enough, and a build with an older one says so.
func TestR1_caddy(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", caddyModule).Output()
	if err != nil {
		t.Fatal(err)
	}
	if v, err := semver.NewVersion(strings.TrimSpace(string(out))); err != nil || v.LessThan(semver.MustParse(leastCaddy)) {
		t.Errorf("go.mod has Caddy %s: %v", out, err)
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
