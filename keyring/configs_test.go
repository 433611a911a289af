package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// config returns the rules of a configuration.
func config(id string, change ...func(*Rules)) Rules {
	r := DefaultRules()
	r.ConfigID, r.Prefix = id, id+"_"
	for _, f := range change {
		f(&r)
	}
	return r
}

// configured gives the rig further configurations, as a reload does.
func (g *rig) configured(configs ...Rules) *rig {
	g.use(&Settings{Rules: DefaultRules(), Configs: configs})
	return g
}

// matches is a validator.
type matches struct{ *regexp.Regexp }

func (m matches) Valid(raw string) bool { return m.MatchString(raw) }

func validating(pattern string) func(*Rules) {
	return func(r *Rules) { r.Validators = []key.Validator{matches{regexp.MustCompile(pattern)}} }
}

func TestConfigs(t *testing.T) {
	g := newRig(t).configured(config("pub"), config("a.b-c_D"))
	if ids := g.Configs(); !slices.Equal(ids, []string{"default", "pub", "a.b-c_D"}) {
		t.Errorf("%q", ids)
	}
	for id, want := range map[string]bool{"default": true, "pub": true, "a.b-c_D": true, "PUB": false, "": false, "x": false} {
		if g.HasConfig(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
	_, err := g.Create(t.Context(), Draft{UserID: "alice", ConfigID: ptr("x")})
	want := &FieldError{"configId", NoSuchConfig, `must be a configuration of this server: "default", "pub", "a.b-c_D"`}
	if bad := (*FieldError)(nil); !errors.As(err, &bad) || *bad != *want {
		t.Errorf("%v", err)
	}
}

// Keys are made, changed, rotated and shown by the rules of their configuration.
func TestConfigRules(t *testing.T) {
	plain, strict := config("plain", func(r *Rules) {
		r.Prefix, r.Length, r.Start, r.RateLimiting, r.Checksum = "", 40, 0, false, false
	}), config("strict", func(r *Rules) {
		r.RequireName, r.Metadata, r.NameLength = true, false, Range{3, 5}
		r.Expiration = Expiration{Default: 60_000, Fixed: true}
		r.RateLimit = &ratelimit.Policy{Algorithm: ratelimit.TokenBucket, Max: 7, Window: 1000}
		r.Permissions = key.Permissions{"files": {"read"}}
	})
	g := newRig(t).configured(plain, strict)
	ctx := t.Context()

	p := g.create(Draft{ConfigID: ptr("plain"), Attributes: Attributes{Metadata: to(json.RawMessage(`{"a":1}`))}})
	if len(p.Raw) != 40 || p.Key.Prefix != nil || p.Start != nil || p.Key.RateLimitEnabled || p.Key.Checksummed || p.Key.ExpiresAt != 0 {
		t.Errorf("plain: %q %+v", p.Raw, p.Info)
	}
	if next, err := g.Rotate(ctx, p.Key.ID, Rotation{}); err != nil || len(next.Raw) != 40 || next.Start != nil {
		t.Errorf("rotated: %q, %v", next.Raw, err)
	}
	g.update(p.Key.ID, Patch{Name: to("longer name"), Attributes: Attributes{Metadata: to(json.RawMessage(`{"b":1}`))}, ExpiresIn: to(int64(5))})

	s := g.create(Draft{ConfigID: ptr("strict"), Name: ptr("abc")})
	k := s.Key
	if *k.Prefix != "strict_" || *s.Start != "strict" || !k.RateLimitEnabled || k.RateLimitMax != 7 ||
		k.RateLimitAlgorithm != ratelimit.TokenBucket || !slices.Equal(k.Permissions.List(), []string{"files:read"}) {
		t.Errorf("strict: %q %+v", s.Raw, k)
	}
	if want := g.clock.now().UnixMilli() + 60_000; k.ExpiresAt != want {
		t.Errorf("expires at %d, want %d", k.ExpiresAt, want)
	}
	for code, p := range map[string]Patch{
		NameRequired: {Name: cleared[string]()}, InvalidNameLength: {Name: to("ab")},
		MetadataDisabled: {Attributes: Attributes{Metadata: to(json.RawMessage(`{"a":1}`))}}, KeyDisabledExpiration: {ExpiresIn: to(int64(5))},
	} {
		_, err := g.Update(ctx, k.ID, p)
		if bad := (*FieldError)(nil); !errors.As(err, &bad) || bad.Code != code {
			t.Errorf("%s: %v", code, err)
		}
	}
	d := g.create(Draft{Attributes: Attributes{Metadata: to(json.RawMessage(`{"a":1}`))}})
	g.update(d.Key.ID, Patch{Name: to("a"), ExpiresIn: to(int64(5))})
}

// A gate of some configurations does not know the keys of others, whatever is
// wrong with them, and takes nothing.
func TestConfigIDs(t *testing.T) {
	g := newRig(t).configured(config("pub"), config("sec"))
	limited := Draft{Remaining: ptr(int64(5)), RateLimitMax: ptr(int64(5)), RateLimitTimeWindow: ptr(int64(60_000))}
	for _, id := range g.Configs() {
		limited.ConfigID = ptr(id)
		k := g.create(limited)
		off := g.create(Draft{ConfigID: ptr(id), Enabled: ptr(false)})
		for _, ids := range [][]string{nil, {"default"}, {"pub"}, {"sec"}, {"default", "sec"}, {"pub", "sec"}, {"default", "pub", "sec"}} {
			want, wantOff := Allowed, Disabled
			if ids != nil && !slices.Contains(ids, id) {
				want, wantOff = Invalid, Invalid
			}
			q := Request{Cost: 1, ConfigIDs: ids, DryRun: true}
			if d := g.want(k.Raw, want, q); want == Invalid && d.Limits != nil {
				t.Errorf("%s at %q: it shows %v", id, ids, d.Limits)
			}
			g.want(off.Raw, wantOff, q)
			if q.DryRun = false; want == Invalid {
				g.want(k.Raw, Invalid, q)
			}
		}
		now := g.get(k.Key.ID)
		if now.Credits.Remaining != 5 || now.RequestCount != 0 || now.LastRequest != 0 {
			t.Errorf("%s: %+v", id, now)
		}
	}
}

// A later gate of another configuration does not know the key either.
func TestConfigIDs_again(t *testing.T) {
	g := newRig(t).configured(config("pub"))
	k := g.create(Draft{ConfigID: ptr("pub"), Remaining: ptr(int64(5))})
	counted := Counted{}
	first := g.want(k.Raw, Allowed, Request{Cost: 1, Counted: &counted})
	again := func(ids ...string) Outcome {
		d, err := g.more(t.Context(), &first, &Request{Cost: 1, ConfigIDs: ids, Counted: &counted})
		if err != nil {
			t.Fatal(err)
		}
		return d.Outcome
	}
	if o := again("default", "pub"); o != Allowed {
		t.Errorf("own: %q", o.Code())
	}
	if o := again("default"); o != Invalid {
		t.Errorf("another: %q", o.Code())
	}
	u := g.keyUsage(k.Key.ID, 1)
	if day := u.Days[0]; day.Uses != (store.Uses{Denied: 1}) {
		t.Errorf("counted as %+v", day.Uses)
	}
}

// Validators judge the keys of their own configuration, and the answer does not
// depend on whether the gate names it.
func TestConfigValidators(t *testing.T) {
	even, odd := config("even", validating(`^even_[02468]`)), config("odd", validating(`^odd_[13579]`))
	even.Generator, odd.Generator = digits('2'), digits('3')
	g := newRig(t).configured(even, odd)
	e, o, d := g.create(Draft{ConfigID: ptr("even")}), g.create(Draft{ConfigID: ptr("odd")}), g.create(Draft{})
	for _, ids := range [][]string{nil, {"even"}, {"even", "odd"}} {
		g.want(e.Raw, Allowed, Request{ConfigIDs: ids})
	}
	g.want(o.Raw, Allowed)
	g.want(d.Raw, Allowed)

	// The validators become stricter: stored keys are judged by the new ones.
	even.Validators[0], odd.Validators[0] = matches{regexp.MustCompile(`^even_[08]`)}, matches{regexp.MustCompile(`^(odd|ak)_`)}
	g.configured(even, odd)
	for _, ids := range [][]string{nil, {"even"}, {"even", "odd"}, {"default", "even"}} {
		finds := g.spy.finds.Load()
		g.want(e.Raw, Invalid, Request{ConfigIDs: ids})
		g.want(strings.Replace(e.Raw, "_2", "_4", 1), Invalid, Request{ConfigIDs: ids})
		if n := g.spy.finds.Load() - finds; n != 0 && len(ids) == 1 {
			t.Errorf("%q: %d look-ups", ids, n)
		}
	}
	g.want(o.Raw, Allowed)
	g.want(o.Raw, Allowed, Request{ConfigIDs: []string{"odd"}})
	g.want(d.Raw, Allowed)
	g.want(d.Raw, Allowed, Request{ConfigIDs: []string{"default"}})
	g.want(d.Raw, Invalid, Request{ConfigIDs: []string{"odd"}}) // its validator likes it

	cut := e.Raw[:len(e.Raw)-1]
	for raw, want := range map[string]bool{e.Raw: true, o.Raw: true, "odd_1": false, "": false, "not a key": false, cut: false} {
		if got, err := g.Recognizes(t.Context(), raw); err != nil || got != want {
			t.Errorf("%.5s: %v, %v", raw, got, err)
		}
	}
}

// digits makes keys that begin with a digit.
type digits byte

func (d digits) Generate(prefix string, length int, checksum bool) (string, error) {
	return key.Random{}.Generate(prefix+string(d), length-1, checksum)
}

// Rate limits are enforced or not by configuration.
func TestConfigRateLimiting(t *testing.T) {
	off := config("off", func(r *Rules) { r.RateLimiting = false })
	g := newRig(t).configured(off, config("on"))
	limit := Draft{RateLimitEnabled: ptr(true), RateLimitMax: ptr(int64(2)), RateLimitTimeWindow: ptr(int64(60_000))}
	key := func(id string) string { limit.ConfigID = &id; return g.create(limit).Raw }
	free, held := key("off"), key("on")
	for range 2 {
		g.want(held, Allowed)
	}
	g.want(held, RateLimited)
	for range 5 {
		if d := g.want(free, Allowed); d.Limits != nil {
			t.Errorf("limits %v", d.Limits)
		}
	}
	// Switching over keeps what is counted.
	off.RateLimiting = true
	on := config("on", func(r *Rules) { r.RateLimiting = false })
	g.configured(off, on)
	g.want(held, Allowed)
	g.want(free, Allowed)
	g.want(free, Allowed)
	g.want(free, RateLimited)
	g.configured(config("on"), off)
	g.want(held, RateLimited)
}

func TestConfigSession(t *testing.T) {
	g := newRig(t).configured(config("pub", func(r *Rules) { r.Session = false }))
	pub, own := g.create(Draft{ConfigID: ptr("pub")}), g.create(Draft{})
	for raw, want := range map[string]bool{pub.Raw: false, own.Raw: true} {
		if d := g.want(raw, Allowed); d.Session() != want {
			t.Errorf("%s: %v", d.Key().ConfigID, !want)
		}
	}
	if d := g.want("nothing", Invalid); d.Session() {
		t.Error("a session of nobody")
	}
}

// Keys of a configuration that is gone live by the rules of "default". The log
// says so once.
func TestUnknownConfig(t *testing.T) {
	pub := config("pub", validating("^pub_"), func(r *Rules) { r.Start, r.RateLimiting, r.NameLength = 9, false, Range{1, 3} })
	g := newRig(t).configured(pub)
	var said []error
	g.engine.report = func(err error) { said = append(said, err) }
	k := g.create(Draft{
		ConfigID: ptr("pub"), RateLimitEnabled: ptr(true),
		Remaining: ptr(int64(9)), RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000)),
	})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, Allowed)
	g.configured()
	g.want(k.Raw, Allowed)
	g.want(k.Raw, RateLimited)
	g.want(k.Raw, Invalid, Request{ConfigIDs: []string{"default"}})
	g.want(k.Raw, RateLimited, Request{Cost: 1, ConfigIDs: []string{"pub"}})
	if i := g.update(k.Key.ID, Patch{Name: to("longer")}); *i.Start != "pub_"+k.Raw[4:6] || i.Key.ConfigID != "pub" || i.Credits.Remaining != 6 {
		t.Errorf("%+v", i)
	}
	if _, err := g.Create(t.Context(), Draft{UserID: "alice", ConfigID: ptr("pub")}); err == nil {
		t.Error("a key of no configuration is made")
	}
	if len(said) != 1 || said[0].Error() != `the configuration "pub" of a key does not exist: the rules of "default" apply` {
		t.Errorf("%v", said)
	}
	g.configured(pub)
	if i := g.get(k.Key.ID); *i.Start != k.Raw[:9] {
		t.Errorf("start %q", *i.Start)
	}
	g.want(k.Raw, Allowed)
}

// T2: each configuration keeps its expired keys as long as it says, and the longer
// time counts while an old and a new one are alive.
func TestT2_KeepByConfig(t *testing.T) {
	keep := func(d time.Duration) func(*Rules) {
		return func(r *Rules) { r.Expiration.Keep = d.Milliseconds() }
	}
	forever := config("forever", func(r *Rules) { r.Expiration.Keep = KeepForever })
	g := newRig(t).configured(config("hour", keep(time.Hour)), config("none", keep(0)), forever, config("gone", keep(0)))
	ids := map[string]string{}
	for _, id := range g.Configs() {
		ids[id] = g.create(Draft{ConfigID: ptr(id), ExpiresIn: to(int64(1))}).Key.ID
	}
	last := g.create(Draft{ConfigID: ptr("none")}).Key.ID
	settings := func(configs ...Rules) *Settings {
		return &Settings{Rules: config("default", keep(24*time.Hour)), Configs: configs}
	}
	defer g.engine.Attach(settings(config("hour", keep(time.Hour)), config("none", keep(0)), forever))()
	detach := g.engine.Attach(settings(config("hour", keep(2*time.Hour)), config("none", keep(0)), forever))
	step := func(after time.Duration, want ...string) {
		t.Helper()
		g.clock.advance(after)
		if err := g.engine.deleteKept(context.Background(), g.spy); err != nil {
			t.Fatal(err)
		}
		var left []string
		for config, id := range ids {
			if _, err := g.Get(t.Context(), id); err == nil {
				left = append(left, config)
			}
		}
		slices.Sort(left)
		if !slices.Equal(left, want) {
			t.Errorf("%q are left, want %q", left, want)
		}
	}
	all := []string{"default", "forever", "gone", "hour", "none"}
	step(time.Second, all...) // not yet expired
	step(10*time.Second, all...)
	step(time.Hour-10*time.Second, all...)
	step(10*time.Second, "default", "forever", "gone", "hour") // seen expired for an hour
	detach()
	step(0, "default", "forever", "gone")
	step(23*time.Hour, "forever")
	step(10_000*time.Hour, "forever")
	g.get(last)
}
