package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// permissionSets are what parents have and children ask for, in all pairs.
var permissionSets = []key.Permissions{
	{},
	{"api": {"read"}},
	{"api": {"write"}},
	{"api": {"admin"}},
	{"api": {"read", "write"}},
	{"api": {"read", "write", "admin"}},
	{"api": {"*"}},
	{"files": {"read"}},
	{"files": {"*"}},
	{"api": {"read"}, "files": {"*"}},
	{"api": {"*"}, "files": {"read", "write"}},
	{"api": {"*"}, "*": {"*"}},
	{"*": {"*"}},
}

// grants returns what a key with these permissions may do, of everything that a
// gate could ask for here.
func grants(p key.Permissions) map[key.Permission]bool {
	all := map[key.Permission]bool{}
	for _, resource := range []string{"api", "files", "other"} {
		for _, action := range []string{"read", "write", "admin", "other"} {
			one := key.Permission{Resource: resource, Action: action}
			all[one] = p.Allows(one)
		}
	}
	return all
}

// exceeds returns what a child may do and its parent may not.
func exceeds(child, parent key.Permissions) (more []string) {
	mine := grants(parent)
	for one, may := range grants(child) {
		if may && !mine[one] {
			more = append(more, one.String())
		}
	}
	return more
}

func beyond(err error) string {
	var b *ScopeError
	if errors.As(err, &b) {
		return b.Field
	}
	return fmt.Sprint(err)
}

// TestA3_permissions makes children of all pairs of permission sets: what is
// asked for outright is refused where it exceeds the parent, and what the rules
// give is cut down to it.
func TestA3_permissions(t *testing.T) {
	for _, wanted := range permissionSets {
		g := newRig(t, func(r *Rules) { r.Permissions = wanted })
		for _, parent := range permissionSets {
			raw := g.create(Draft{Permissions: parent}).Raw
			d := g.verify(raw)
			within := g.ScopeOf(&d)

			child, err := g.within(within).Create(context.Background(), Draft{UserID: "alice", Permissions: wanted})
			switch more := exceeds(wanted, parent); {
			case more != nil && beyond(err) != "permissions":
				t.Errorf("%v makes %v: %s", parent, wanted, beyond(err))
			case more == nil && err == nil && exceeds(child.Key.Permissions, parent) != nil:
				t.Errorf("%v makes %v, which may do %v", parent, wanted, exceeds(child.Key.Permissions, parent))
			}

			child, err = g.within(within).Create(context.Background(), Draft{UserID: "alice"})
			if err != nil {
				t.Fatalf("%v, where the rules give %v: %v", parent, wanted, err)
			}
			got := grants(child.Key.Permissions)
			for one, may := range grants(wanted) {
				if want := may && grants(parent)[one]; got[one] != want {
					t.Errorf("%v, where the rules give %v: the child %v has %v: %v", parent, wanted, child.Key.Permissions, one, got[one])
				}
			}
		}
	}
}

// TestA3_allowed checks that nobody is refused what they have: without it the test
// above would hold where nothing can be made.
func TestA3_allowed(t *testing.T) {
	g := newRig(t)
	for _, parent := range permissionSets {
		d := g.verify(g.create(Draft{Permissions: parent}).Raw)
		if _, err := g.within(g.ScopeOf(&d)).Create(context.Background(), Draft{UserID: "alice", Permissions: parent}); err != nil {
			t.Errorf("%v makes the same: %v", parent, err)
		}
	}
}

// TestA4_permissions changes keys to all permission sets.
func TestA4_permissions(t *testing.T) {
	g := newRig(t)
	for _, parent := range permissionSets {
		d := g.verify(g.create(Draft{Permissions: parent}).Raw)
		within := g.ScopeOf(&d)
		for _, before := range []key.Permissions{{}, {"*": {"*"}}} {
			child := g.create(Draft{Permissions: before})
			for _, wanted := range permissionSets {
				_, err := g.within(within).Update(context.Background(), child.Key.ID, Patch{Permissions: to(wanted)})
				if more := exceeds(wanted, parent); more != nil {
					if beyond(err) != "permissions" {
						t.Errorf("%v changes %v to %v: %s", parent, before, wanted, beyond(err))
					}
					if now := g.get(child.Key.ID).Key.Permissions; exceeds(now, parent) != nil && len(exceeds(before, parent)) == 0 {
						t.Errorf("%v has changed a key to %v", parent, now)
					}
				}
			}
			if _, err := g.within(within).Update(context.Background(), child.Key.ID, Patch{Permissions: to(parent)}); err != nil {
				t.Errorf("%v changes a key to the same: %v", parent, err)
			}
			if _, err := g.within(within).Update(context.Background(), child.Key.ID, Patch{Permissions: cleared[key.Permissions]()}); err != nil {
				t.Errorf("%v takes all permissions away: %v", parent, err)
			}
		}
	}
}

// networks reads a list of networks.
func networks(t *testing.T, list ...string) []netip.Prefix {
	t.Helper()
	n, err := ParseAllowedIPs(list)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// limit is a rate limit for a draft or a patch.
type limit struct {
	max, window int64
	algorithm   string
}

func (l *limit) draft(d *Draft) {
	if l != nil {
		d.RateLimitMax, d.RateLimitTimeWindow, d.RateLimitAlgorithm = &l.max, &l.window, &l.algorithm
	}
}

// bounded are parents, and wishes with the field that is to blame for a refusal.
var bounded = []struct {
	name   string
	parent Draft
	limit  *limit // of the parent
	wish   func(*Draft)
	change Patch
	field  string // empty: it is granted
}{
	{"no end at all", Draft{}, nil, func(d *Draft) { d.ExpiresIn = to(int64(1e9)) }, Patch{ExpiresIn: to(int64(1e9))}, ""},
	{"before the end", Draft{ExpiresIn: to(int64(60))}, nil, func(d *Draft) { d.ExpiresIn = to(int64(59)) }, Patch{ExpiresIn: to(int64(59))}, ""},
	{"at the end", Draft{ExpiresIn: to(int64(60))}, nil, func(d *Draft) { d.ExpiresIn = to(int64(60)) }, Patch{ExpiresIn: to(int64(60))}, ""},
	{"after the end", Draft{ExpiresIn: to(int64(60))}, nil, func(d *Draft) { d.ExpiresIn = to(int64(61)) }, Patch{ExpiresIn: to(int64(61))}, "expiresIn"},
	{"never ending", Draft{ExpiresIn: to(int64(60))}, nil, nil, Patch{ExpiresIn: cleared[int64]()}, "expiresIn"},

	{"everywhere", Draft{}, nil, func(d *Draft) { d.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} }, Patch{AllowedIPs: cleared[[]netip.Prefix]()}, ""},
	{
		"a part of a network",
		Draft{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		nil,
		func(d *Draft) { d.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")} },
		Patch{AllowedIPs: to([]netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")})},
		"",
	},
	{
		"a wider network",
		Draft{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		nil,
		func(d *Draft) { d.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/23")} },
		Patch{AllowedIPs: to([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/23")})},
		"allowedIps",
	},
	{
		"another network beside",
		Draft{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		nil,
		func(d *Draft) {
			d.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("::/0")}
		},
		Patch{AllowedIPs: to([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("::/0")})},
		"allowedIps",
	},
	{"no network any more", Draft{AllowedIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, nil, nil, Patch{AllowedIPs: cleared[[]netip.Prefix]()}, "allowedIps"},

	{"a limit where there is none", Draft{}, nil, (&limit{1e9, 1000, "token_bucket"}).draft, (&limit{1e9, 1000, "token_bucket"}).patch(), ""},
	{"the same limit", Draft{}, &limit{10, 1000, "fixed_window"}, (&limit{10, 1000, "fixed_window"}).draft, (&limit{10, 1000, "fixed_window"}).patch(), ""},
	{"fewer, over longer", Draft{}, &limit{10, 1000, "fixed_window"}, (&limit{9, 1001, "sliding_window"}).draft, (&limit{9, 1001, "sliding_window"}).patch(), ""},
	{"more", Draft{}, &limit{10, 1000, "fixed_window"}, (&limit{11, 1000, "fixed_window"}).draft, (&limit{11, 1000, "fixed_window"}).patch(), "rateLimitMax"},
	{"over shorter", Draft{}, &limit{10, 1000, "fixed_window"}, (&limit{10, 999, "fixed_window"}).draft, (&limit{10, 999, "fixed_window"}).patch(), "rateLimitMax"},
	{"a looser algorithm", Draft{}, &limit{10, 1000, "sliding_window"}, (&limit{10, 1000, "token_bucket"}).draft, (&limit{10, 1000, "token_bucket"}).patch(), "rateLimitMax"},
	{"switched off", Draft{}, &limit{10, 1000, "fixed_window"}, func(d *Draft) { d.RateLimitEnabled = ptr(false) }, Patch{RateLimitEnabled: to(false)}, "rateLimitMax"},
	{"cleared", Draft{}, &limit{10, 1000, "fixed_window"}, nil, Patch{RateLimitMax: cleared[int64](), RateLimitTimeWindow: cleared[int64]()}, "rateLimitMax"},

	{"credits", Draft{}, nil, func(d *Draft) { d.Remaining = ptr(int64(5)) }, Patch{Remaining: to(int64(5))}, ""},
	{"no credits", Draft{Remaining: ptr(int64(5))}, nil, func(*Draft) {}, Patch{Remaining: cleared[int64]()}, "remaining"},
	{"few credits", Draft{Remaining: ptr(int64(5))}, nil, func(d *Draft) { d.Remaining = ptr(int64(1)) }, Patch{Remaining: to(int64(1))}, "remaining"},
	{"added credits", Draft{Remaining: ptr(int64(5))}, nil, nil, Patch{RemainingDelta: to(int64(1))}, "remaining"},
	{"refills", Draft{Remaining: ptr(int64(5))}, nil, nil, Patch{RefillAmount: to(int64(1)), RefillInterval: to(int64(1))}, "remaining"},
	{"another owner", Draft{}, nil, nil, Patch{UserID: to("bob")}, "userId"},
	{"a name", Draft{Remaining: ptr(int64(5)), ExpiresIn: to(int64(60))}, &limit{10, 1000, "fixed_window"}, nil, Patch{Name: to("new"), Enabled: to(false)}, ""},
}

func (l *limit) patch() Patch {
	return Patch{RateLimitMax: to(l.max), RateLimitTimeWindow: to(l.window), RateLimitAlgorithm: to(l.algorithm)}
}

func (g *rig) parent(d Draft, l *limit) *Scope {
	g.t.Helper()
	l.draft(&d)
	raw := g.create(d).Raw
	q := Request{Cost: 1}
	decision := g.want(raw, Allowed, q)
	return g.ScopeOf(&decision)
}

// TestA3_bounds makes keys that last longer, work from elsewhere or take more.
func TestA3_bounds(t *testing.T) {
	for _, row := range bounded {
		if row.wish == nil {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			g := newRig(t)
			d := Draft{UserID: "alice"}
			row.wish(&d)
			_, err := g.within(g.parent(row.parent, row.limit)).Create(context.Background(), d)
			if row.field == "" && err != nil || row.field != "" && beyond(err) != row.field {
				t.Errorf("%s, want %q", beyond(err), row.field)
			}
		})
	}
}

// TestA4_bounds changes keys in the same ways. The key that is changed is one that
// an operator has made with remaining credits and no other limit.
func TestA4_bounds(t *testing.T) {
	for _, row := range bounded {
		t.Run(row.name, func(t *testing.T) {
			g := newRig(t)
			id := g.create(Draft{Remaining: ptr(int64(7))}).Key.ID
			_, err := g.within(g.parent(row.parent, row.limit)).Update(context.Background(), id, row.change)
			if row.field == "" && err != nil || row.field != "" && beyond(err) != row.field {
				t.Errorf("%s, want %q", beyond(err), row.field)
			}
			if now := g.get(id); row.field != "" && (now.Key.UserID != "alice" || now.Key.ExpiresAt != 0 || now.Credits.Remaining != 7 || now.Key.RateLimitMax != 0 || now.Key.AllowedIPs != nil) {
				t.Errorf("it was changed all the same: %+v", now.Key)
			}
		})
	}
}

// TestA4_stronger changes keys that an operator has made stronger than the caller's:
// the caller may rename and stop them, but not have them work again, or longer.
func TestA4_stronger(t *testing.T) {
	read, write := key.Permissions{"api": {"read"}}, key.Permissions{"api": {"write"}}
	hour := to(int64(3600))
	changes := []struct {
		name   string
		change Patch
		field  string // that has the key work again, or longer; empty: none
	}{
		{"enabled", Patch{Enabled: to(true)}, "enabled"},
		{"enabled and renamed", Patch{Enabled: to(true), Name: to("new")}, "enabled"},
		{"longer", Patch{ExpiresIn: to(int64(3601))}, "expiresIn"},
		{"for ever", Patch{ExpiresIn: cleared[int64]()}, "expiresIn"},
		{"renamed", Patch{Name: to("new")}, ""},
		{"disabled", Patch{Enabled: to(false)}, ""},
		{"shorter", Patch{ExpiresIn: to(int64(60))}, ""},
	}
	for _, row := range []struct {
		name           string
		caller, target Draft
		limit          *limit // of the caller
		field          string // empty: the target is no stronger
	}{
		{"no stronger", Draft{Permissions: write}, Draft{Permissions: write}, nil, ""},
		{"permissions", Draft{Permissions: write}, Draft{Permissions: read}, nil, "permissions"},
		{"networks", Draft{AllowedIPs: networks(t, "0.0.0.0/0")}, Draft{}, nil, "allowedIps"},
		{"a limit", Draft{}, Draft{}, &limit{10, 1000, "fixed_window"}, "rateLimitMax"},
		{"another configuration", Draft{ConfigID: ptr("other")}, Draft{}, nil, "configId"},
		{"a key with credits", Draft{Remaining: ptr(int64(5))}, Draft{}, nil, "metered"},
	} {
		for _, c := range changes {
			t.Run(row.name+"/"+c.name, func(t *testing.T) {
				g := newRig(t)
				other := g.set.Rules
				other.ConfigID = "other"
				g.set.Configs = []Rules{other}
				row.target.ExpiresIn = hour
				k := g.create(row.target).Key
				if c.field == "enabled" {
					if _, err := g.within(&Scope{}).Update(context.Background(), k.ID, Patch{Enabled: to(false)}); err != nil {
						t.Fatal(err)
					}
				}
				before := g.get(k.ID).Key
				_, err := g.within(g.parent(row.caller, row.limit)).Update(context.Background(), k.ID, c.change)
				refused := row.field != "" && c.field != ""
				want := row.field
				if want == "metered" { // what is changed is to blame
					want = c.field
				}
				if !refused && err != nil || refused && beyond(err) != want {
					t.Errorf("%s, want %q", beyond(err), want)
				}
				if now := g.get(k.ID).Key; refused && (now.Enabled != before.Enabled || now.ExpiresAt != before.ExpiresAt || now.Name != before.Name) {
					t.Errorf("it was changed all the same: %+v", now)
				}
			})
		}
	}
}

// TestA4_end enables a key that ends later than the caller's.
func TestA4_end(t *testing.T) {
	g := newRig(t)
	within := g.parent(Draft{ExpiresIn: to(int64(60))}, nil)
	k := g.create(Draft{ExpiresIn: to(int64(3600))}).Key
	if _, err := g.within(&Scope{}).Update(context.Background(), k.ID, Patch{Enabled: to(false)}); err != nil { // as its owner does
		t.Fatal(err)
	}
	if _, err := g.within(within).Update(context.Background(), k.ID, Patch{Enabled: to(true)}); beyond(err) != "expiresIn" {
		t.Errorf("a key that ends later is enabled: %v", err)
	}
	if _, err := g.within(within).Update(context.Background(), k.ID, Patch{Enabled: to(true), ExpiresIn: to(int64(60))}); err != nil {
		t.Errorf("a key that now ends with the caller's is not enabled: %v", err)
	}
}

// TestA3_config makes keys of another configuration than that of the caller's key.
func TestA3_config(t *testing.T) {
	g := newRig(t)
	other := g.set.Rules
	other.ConfigID = "other"
	g.set.Configs = []Rules{other}
	for _, own := range []string{"default", "other"} {
		for _, wanted := range []string{"", "default", "other"} {
			d := Draft{UserID: "alice"}
			if wanted != "" {
				d.ConfigID = &wanted
			}
			k, err := g.within(g.parent(Draft{ConfigID: &own}, nil)).Create(context.Background(), d)
			got := "default"
			if wanted != "" {
				got = wanted
			}
			if got == own && (err != nil || k.Key.ConfigID != own) || got != own && beyond(err) != "configId" {
				t.Errorf("a key of %s makes one of %q: %v", own, wanted, err)
			}
		}
	}
}

// TestA3_defaults makes keys that say nothing: what the rules give is cut down to
// the bounds.
func TestA3_defaults(t *testing.T) {
	g := newRig(t, func(r *Rules) {
		r.Permissions = key.Permissions{"api": {"read", "write", "admin"}}
		r.Expiration.Default = time.Hour.Milliseconds()
		r.RateLimit = &ratelimit.Policy{Max: 100, Window: 1000}
	})
	allowed := networks(t, "192.0.2.0/24")
	within := &Scope{
		Permissions: key.Permissions{"api": {"write"}}, ExpiresAt: g.clock.now().Add(time.Minute).UnixMilli(), AllowedIPs: allowed,
		RateLimit: &ratelimit.Policy{Algorithm: ratelimit.SlidingWindow, Max: 5, Window: 2000},
	}
	k := g.createBy(g.within(within), Draft{}).Key
	if got := strings.Join(k.Permissions.List(), " "); got != "api:write" {
		t.Errorf("permissions %s", got)
	}
	if k.ExpiresAt != within.ExpiresAt {
		t.Errorf("ends at %d, want %d", k.ExpiresAt, within.ExpiresAt)
	}
	if len(k.AllowedIPs) != 1 || k.AllowedIPs[0] != allowed[0] {
		t.Errorf("allowed networks %v", k.AllowedIPs)
	}
	if p, _ := k.RatePolicy(); p != *within.RateLimit {
		t.Errorf("rate limit %+v", p)
	}

	// What is tighter than the bounds stays.
	within.ExpiresAt += time.Hour.Milliseconds()
	within.RateLimit = &ratelimit.Policy{Max: 100, Window: 1000}
	k = g.createBy(g.within(within), Draft{}).Key
	if want := g.clock.now().Add(time.Hour).UnixMilli(); k.ExpiresAt != want {
		t.Errorf("ends at %d, want %d", k.ExpiresAt, want)
	}
	if p, _ := k.RatePolicy(); p != *g.set.Rules.RateLimit {
		t.Errorf("rate limit %+v", p)
	}
}

// TestDraft_defaultName gives a name to keys whose maker does not, where the rules
// allow it.
func TestDraft_defaultName(t *testing.T) {
	g := newRig(t)
	if k := g.create(Draft{DefaultName: "Default Key"}).Key; k.Name == nil || *k.Name != "Default Key" {
		t.Errorf("name %v", k.Name)
	}
	if k := g.create(Draft{DefaultName: "Default Key", Name: ptr("mine")}).Key; *k.Name != "mine" {
		t.Errorf("name %v", *k.Name)
	}
	if k := g.create(Draft{}).Key; k.Name != nil {
		t.Errorf("name %q", *k.Name)
	}
	g = newRig(t, func(r *Rules) { r.NameLength = Range{1, 5} })
	if k := g.create(Draft{DefaultName: "Default Key"}).Key; k.Name != nil {
		t.Errorf("name %q against the rules", *k.Name)
	}
	g = newRig(t, func(r *Rules) { r.RequireName = true })
	var bad *FieldError
	if _, err := g.Create(context.Background(), Draft{UserID: "alice", DefaultName: "Default Key"}); !errors.As(err, &bad) || bad.Code != NameRequired {
		t.Errorf("a required name was left out: %v", err)
	}
}

// TestPatch_only checks that a key which somebody may not know of is not found,
// and not changed.
func TestPatch_only(t *testing.T) {
	g := newRig(t)
	id := g.create(Draft{}).Key.ID
	mine := func(k *key.Key) bool { return k.UserID == "bob" }
	if _, err := g.only(nil, mine).Update(context.Background(), id, Patch{Enabled: to(false)}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if !g.get(id).Key.Enabled {
		t.Error("the key was changed")
	}
}
