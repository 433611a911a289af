package key

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestParsePermission(t *testing.T) {
	good := map[string]Permission{
		"read": {"api", "read"}, "files:read": {"files", "read"}, "files:*": {"files", "*"}, "*:*": {"*", "*"},
		"a:b:c": {"a", "b:c"}, "ключ:чтение": {"ключ", "чтение"},
	}
	for s, want := range good {
		if got, err := ParsePermission(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ":", "a:", ":b", "*", "*:read", "a b", "a:b c", "a:\n", "a:\x00", "a:\xff", strings.Repeat("a", 129)} {
		if got, err := ParsePermission(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestPermissionsAllow(t *testing.T) {
	ps := func(s ...string) Permissions {
		p, err := ParsePermissions(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		has  Permissions
		want string
		ok   bool
	}{
		{nil, "read", false},
		{ps(), "read", false},
		{ps("read"), "read", true},
		{ps("read"), "write", false},
		{ps("files:read"), "read", false},
		{ps("files:*"), "files:anything", true},
		{ps("files:*"), "file:anything", false},
		{ps("*:*"), "files:read", true},
		{ps("files:read", "files:write"), "files:*", false},
		{ps("files:*"), "*:*", false},
		{ps("*:*"), "*:*", true},
	} {
		want, _ := ParsePermission(c.want)
		if got := c.has.Allows(want); got != c.ok {
			t.Errorf("%v allows %s: %v", c.has, c.want, got)
		}
		if got := c.has.AllowsAny([]Permission{want}); got != c.ok {
			t.Errorf("%v allows any of %s: %v", c.has, c.want, got)
		}
		if got := c.has.Covers(ps(c.want)); got != c.ok {
			t.Errorf("%v covers %s: %v", c.has, c.want, got)
		}
	}
	if !Permissions(nil).AllowsAll(nil) || Permissions(nil).AllowsAny(nil) {
		t.Error("all of none is true, any of none is false")
	}
	if !ps("read").Covers(nil) {
		t.Error("nothing is covered by everything")
	}
}

func TestPermissions_part(t *testing.T) {
	ps := func(list ...string) Permissions { p, _ := ParsePermissions(list); return p }
	for _, row := range []struct {
		has, of     Permissions
		part, union string
	}{
		{ps(), ps("read"), "", "api:read"},
		{ps("read", "write"), ps("read"), "api:read", "api:read api:write"},
		{ps("read"), ps("read", "files:read"), "api:read", "api:read files:read"},
		{ps("files:read", "files:write", "read"), ps("files:*"), "files:read files:write", "api:read files:* files:read files:write"},
		{ps("files:*"), ps("files:read", "read"), "files:read", "api:read files:* files:read"},
		{ps("files:*", "read"), ps("*:*"), "api:read files:*", "*:* api:read files:*"},
		{ps("*:*"), ps("*:*", "read"), "*:* api:read", "*:* api:read"},
	} {
		if got := strings.Join(row.has.Part(row.of).List(), " "); got != row.part {
			t.Errorf("%v of %v: %s, want %s", row.has, row.of, got, row.part)
		}
		if got := strings.Join(row.has.Union(row.of).List(), " "); got != row.union {
			t.Errorf("%v and %v: %s, want %s", row.has, row.of, got, row.union)
		}
	}
	if ps("read").Part(nil) != nil {
		t.Error("a part of nothing is something")
	}
}

func TestUnmarshalPermissions(t *testing.T) {
	for raw, want := range map[string][]string{
		`{"files":["read","write","read"],"x":[]}`: {"files:read", "files:write"},
		`["files:read","read","read"]`:             {"api:read", "files:read"},
		`[]`:                                       {},
		`{}`:                                       {},
	} {
		got, err := UnmarshalPermissions(json.RawMessage(raw))
		if err != nil || !slices.Equal(got.List(), want) {
			t.Errorf("%s: %v, %v", raw, got.List(), err)
		}
	}
	for _, raw := range []string{`1`, `"read"`, `[1]`, `{"a":"b"}`, `{"a":[1]}`, `{"":["b"]}`, `{"a:b":["c"]}`, `{"*":["read"]}`, `[""]`} {
		if got, err := UnmarshalPermissions(json.RawMessage(raw)); err == nil {
			t.Errorf("%s is %v", raw, got)
		}
	}
	if got, err := UnmarshalPermissions(json.RawMessage("null")); got != nil || err != nil {
		t.Errorf("null is %v, %v", got, err)
	}
}

// T1: valid if and only if now < expiresAt.
func TestT1_ExpiryEdge(t *testing.T) {
	k := Key{ExpiresAt: epoch}
	for offset, want := range map[int64]bool{-1: false, 0: true, 1: true} {
		if got := k.Expired(epoch + offset); got != want {
			t.Errorf("%+d ms: %v", offset, got)
		}
	}
	if (&Key{}).Expired(MaxTime) {
		t.Error("a key without an expiry has expired")
	}
}

func TestMatch(t *testing.T) {
	k := Key{Hash: HashOf("new"), Previous: []PreviousKey{{Hash: HashOf("older"), Until: epoch}, {Hash: HashOf("old"), Until: epoch}}}
	for _, c := range []struct {
		raw  string
		now  int64
		want Match
	}{
		{"new", epoch, Match{OK: true, Previous: -1}},
		{"other", epoch, Match{Previous: -1}},
		{"older", epoch - 1, Match{OK: true}},
		{"old", epoch - 1, Match{OK: true, Previous: 1}},
		{"old", epoch, Match{Previous: 1, GraceExpired: true}},
	} {
		if got := k.Match(HashOf(c.raw), c.now); got != c.want {
			t.Errorf("%s at %d: %+v", c.raw, c.now-epoch, got)
		}
	}
}

// TestQ28_Rotate: no previous raw key outlives the last rotation, and no rotation
// prolongs one.
func TestQ28_Rotate(t *testing.T) {
	const hour = int64(3_600_000)
	type rotation struct{ at, grace int64 }
	for _, c := range []struct {
		name      string
		rotations []rotation
		want      []int64 // until when each of the raw keys works, the oldest first
	}{
		{"once", []rotation{{0, hour}}, []int64{hour}},
		{"without a grace", []rotation{{0, 0}}, nil},
		{"a shorter grace ends all of them", []rotation{{0, 7 * hour}, {hour, hour}}, []int64{2 * hour, 2 * hour}},
		{"a longer grace prolongs none", []rotation{{0, 2 * hour}, {hour, 7 * hour}}, []int64{2 * hour, 8 * hour}},
		{"none ends all of them", []rotation{{0, 7 * hour}, {hour, 7 * hour}, {2 * hour, 0}}, nil},
		{"over before", []rotation{{0, hour}, {hour, hour}}, []int64{2 * hour}},
		{
			"a sixth ends the oldest",
			[]rotation{{0, hour}, {1, hour}, {2, hour}, {3, hour}, {4, hour}, {5, hour}},
			[]int64{1 + hour, 2 + hour, 3 + hour, 4 + hour, 5 + hour},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := Key{Hash: HashOf("first")}
			for i, r := range c.rotations {
				before := k.Clone()
				k.Rotate(r.grace, epoch+r.at-1, epoch+r.at)
				k.Hash = HashOf(string(rune('a' + i)))
				if n := len(k.Previous); n > 0 && (k.Previous[n-1].Hash != before.Hash || k.Previous[n-1].LastRequest != epoch+r.at-1) {
					t.Errorf("the replaced raw key is %+v", k.Previous[n-1])
				}
				if k.RotatedAt != epoch+r.at {
					t.Errorf("rotated at %d", k.RotatedAt-epoch)
				}
			}
			var got []int64
			for _, p := range k.Previous {
				got = append(got, p.Until-epoch)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestAllowsIP(t *testing.T) {
	k := Key{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}}
	for ip, want := range map[string]bool{
		"192.0.2.255": true, "192.0.3.0": false, "::ffff:192.0.2.1": true, "2001:db8::1": true, "2001:db9::1": false, "2001:db8::1%eth0": true,
	} {
		if got := k.AllowsIP(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	if k.AllowsIP(netip.Addr{}) {
		t.Error("an unknown address is allowed")
	}
	if !(&Key{}).AllowsIP(netip.Addr{}) {
		t.Error("a key without networks is bound to some")
	}
	if (&Key{AllowedIPs: []netip.Prefix{}}).AllowsIP(netip.MustParseAddr("192.0.2.1")) {
		t.Error("an empty list allows an address")
	}
}

// TestQ27_Permissions reads permissions that are typed as text.
func TestQ27_Permissions(t *testing.T) {
	for text, want := range map[string]string{
		"read": "", "files:read": "", "files:*": "", "*:*": "", "a.b-c_d:e+f": "", "a:b:c": "",
		"read,write": "files:read files:write", "read write": "files:read files:write", "read\twrite": "files:read files:write",
		"a\u00a0b": "files:read files:write", "files/read": "files:read files:write", "{need}": "files:read files:write",
		"{http.request.host}:call": "files:read files:write", "read}": "files:read files:write",
		"{args[0]}": "imported without that argument", "files:{args[0]}": "imported without that argument", "*": "ambiguous", "": "bytes",
	} {
		_, err := ParsePermission(text)
		_, listErr := UnmarshalPermissions([]byte(`[` + strconv.Quote(text) + `]`))
		for _, err := range []error{err, listErr} {
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
		}
	}
	// In the form of a map, every word stands alone and means itself.
	if _, err := UnmarshalPermissions([]byte(`{"files/x":["a,b","{c}"]}`)); err != nil {
		t.Error(err)
	}
}
