package key

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// FuzzRaw holds the readers of raw keys against each other: what ends in a checksum is
// found in a text as a whole, and what is shown of a raw key is its beginning.
func FuzzRaw(f *testing.F) {
	raw, err := Random{}.Generate("ak_", 64, true)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", raw, raw[1:], raw[:66], raw + "x", "ak_000000", "\xff", strings.Repeat("0", MaxRawLen+1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckShape(s, true) == nil && !ChecksumFits(s) {
			t.Errorf("%q passes without its checksum", s)
		}
		if n := FindChecksum([]byte(s), 19); n < 0 || n > len(s) || n > 0 && !ChecksumFits(s[:n]) {
			t.Errorf("%q: a checksum is found in %d bytes", s, n)
		}
		if shown := Display(s); !strings.HasPrefix(s, shown) {
			t.Errorf("%q is shown as %q", s, shown)
		}
	})
}

// FuzzPermission: a permission that is read is written as the same text, but for the default
// resource, and is read from JSON alike.
func FuzzPermission(f *testing.F) {
	for _, s := range []string{"read", "files:read", "*", "*:*", "*:read", "a:b:c", ":", "a b:c", "a:\u2028", "\xff:a", "{args[0]}:a", strings.Repeat("a", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePermission(s)
		if err != nil {
			return
		}
		if text := p.String(); text != s && text != DefaultResource+":"+s {
			t.Errorf("%q is written as %q", s, text)
		}
		if again, err := ParsePermission(p.String()); err != nil || again != p {
			t.Errorf("%q is read again as %v: %v", p, again, err)
		}
		list, err := json.Marshal([]string{s})
		if err != nil {
			t.Fatal(err)
		}
		fromList, err := UnmarshalPermissions(list)
		if err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		object, err := json.Marshal(fromList)
		if err != nil {
			t.Fatal(err)
		}
		if fromObject, err := UnmarshalPermissions(object); err != nil || !reflect.DeepEqual(fromObject, fromList) {
			t.Errorf("%s is read as %v: %v", object, fromObject, err)
		}
	})
}
