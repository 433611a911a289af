package keyring

import (
	"slices"
	"strings"
	"testing"
)

// FuzzAllowedIPs: networks that are read have no bits beyond their length and no IPv4 in the
// form of IPv6, and are read again as the same.
func FuzzAllowedIPs(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "192.0.2.77/24", "2001:db8::1", "2001:db8::/32", "::ffff:192.0.2.1", "::ffff:192.0.2.1/120", "::ffff:0:0/95", "fe80::1%eth0", "0.0.0.0/0", "::/0", "1.2.3.4/33", "1,2", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list := strings.Split(text, " ")
		networks, err := ParseAllowedIPs(list)
		if err != nil {
			return
		}
		if len(networks) != len(list) {
			t.Fatalf("%d networks of %d", len(networks), len(list))
		}
		var texts []string
		for _, n := range networks {
			if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() || n.Addr().Zone() != "" {
				t.Errorf("%q is read as %v", text, n)
			}
			texts = append(texts, n.String())
		}
		if again, err := ParseAllowedIPs(texts); err != nil || !slices.Equal(again, networks) {
			t.Errorf("%v is read as %v: %v", texts, again, err)
		}
	})
}
