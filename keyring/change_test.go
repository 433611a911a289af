package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// C2: a request that starts after a revocation was answered is refused.
func TestC2_RevokeThenUse(t *testing.T) {
	g := newRig(t)
	keys := times(200, 1000)
	issued := make([]Issued, keys)
	revoked := make([]atomic.Bool, keys)
	for i := range issued {
		issued[i] = g.create(Draft{})
	}
	for range times(4, 64) {
		g.repeat(func() {
			i := rand.IntN(keys)
			gone := revoked[i].Load() // before the request starts
			d, err := g.Verify(context.Background(), issued[i].Raw, &Request{Cost: 1})
			if err != nil {
				t.Error(err)
			}
			if gone && d.Outcome == Allowed {
				t.Errorf("key %d was let in after it was revoked", i)
			}
		})
	}
	for i := range issued {
		var err error
		switch i % 3 {
		case 0:
			_, err = g.Update(context.Background(), issued[i].Key.ID, Patch{Enabled: to(false)})
		case 1:
			err = g.Delete(context.Background(), issued[i].Key.ID)
		case 2:
			_, err = g.Rotate(context.Background(), issued[i].Key.ID, Rotation{})
		}
		if err != nil {
			t.Error(err)
		}
		revoked[i].Store(true)
	}
}

// C3: a key works for requests that start after it was made, even if its hash
// was asked for before.
func TestC3_CreateThenUse(t *testing.T) {
	g := newRig(t)
	known := &fixedGenerator{}
	rules := DefaultRules()
	rules.Generator = known
	s := NewService(g.engine, &Settings{Rules: rules}).As(Actor{Kind: ActorOperator})
	for i := range times(100, 1000) {
		raw, err := key.Random{}.Generate("ak_", 64, true)
		if err != nil {
			t.Fatal(err)
		}
		known.raw = raw
		g.want(raw, Invalid)
		end := g.repeat(func() { // keeps looking while the key is made
			g.Verify(context.Background(), raw, &Request{Cost: 0})
		})
		if _, err := s.Create(context.Background(), Draft{UserID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		g.want(raw, Allowed)
		end()
	}
}

type fixedGenerator struct{ raw string }

func (f *fixedGenerator) Generate(string, int, bool) (string, error) { return f.raw, nil }

// C4: a look-up that read the store before a change does not bring the old state
// back after it.
func TestC4_NoResurrection(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		change func(*rig, string) error
		want   Outcome
	}{
		"revoke": {func(g *rig, id string) error { _, err := g.Update(ctx, id, Patch{Enabled: to(false)}); return err }, Disabled},
		"delete": {func(g *rig, id string) error { return g.Delete(ctx, id) }, Invalid},
		"rotate": {func(g *rig, id string) error { _, err := g.Rotate(ctx, id, Rotation{}); return err }, Invalid},
		"disable owner": {func(g *rig, _ string) error {
			_, err := g.PutOwner(ctx, "alice", OwnerPatch{Enabled: to(false)})
			return err
		}, Disabled},
		"delete owner": {func(g *rig, _ string) error { return g.DeleteOwner(ctx, "alice") }, Invalid},
		"expire": {func(g *rig, id string) error {
			g.clock.advance(time.Hour)
			_, err := g.DeleteExpired(ctx)
			return err
		}, Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			k := g.create(Draft{ExpiresIn: to(int64(60))})
			read, resume := make(chan struct{}), make(chan struct{})
			var once sync.Once
			g.spy.onFind(func() { once.Do(func() { close(read); <-resume }) })
			late := make(chan Decision)
			go func() {
				d, _ := g.Verify(ctx, k.Raw, &Request{Cost: 1})
				late <- d
			}()
			<-read
			if err := c.change(g, k.Key.ID); err != nil {
				t.Fatal(err)
			}
			close(resume)
			<-late // began before the change: either answer is right
			g.want(k.Raw, c.want)
		})
	}
}

// C4: what has been changed stays changed while the key is used and its counters
// are written.
func TestC4_FlushKeepsChanges(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	k := g.create(Draft{RateLimitMax: ptr(int64(1_000_000)), RateLimitTimeWindow: ptr(int64(60_000))})
	end := g.repeat(func() {
		g.clock.advance(time.Millisecond)
		g.Verify(ctx, k.Raw, &Request{Cost: 1})
		if err := g.engine.flush(ctx, g.spy); err != nil {
			t.Error(err)
		}
	})
	for i := range 200 {
		name := fmt.Sprint("name ", i)
		g.update(k.Key.ID, Patch{Name: to(name)})
		if got := g.get(k.Key.ID); *got.Key.Name != name {
			t.Fatalf("%q, want %q", *got.Key.Name, name)
		}
	}
	if err := g.Delete(ctx, k.Key.ID); err != nil {
		t.Fatal(err)
	}
	end()
	if err := g.engine.flush(ctx, g.spy); err != nil {
		t.Error(err)
	}
	if _, err := g.Get(ctx, k.Key.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the deleted key: %v", err)
	}
}

// TestC4_ChangeWhileWriting: what is changed between the moment at which counters are read
// from memory and that at which they are written stays changed. A deletion waits for the
// write.
func TestC4_ChangeWhileWriting(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		change func(*rig, string) error
		want   Outcome
	}{
		"revoke": {func(g *rig, id string) error { _, err := g.Update(ctx, id, Patch{Enabled: to(false)}); return err }, Disabled},
		"rename": {func(g *rig, id string) error { _, err := g.Update(ctx, id, Patch{Name: to("x")}); return err }, Allowed},
		"rotate": {func(g *rig, id string) error { _, err := g.Rotate(ctx, id, Rotation{}); return err }, Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			k := g.create(Draft{Remaining: ptr(int64(9)), RateLimitMax: ptr(int64(9)), RateLimitTimeWindow: ptr(int64(60_000))})
			g.want(k.Raw, Allowed)
			stored := func() *key.Key {
				t.Helper()
				e, err := g.spy.Store.Get(ctx, k.Key.ID)
				if err != nil {
					t.Fatal(err)
				}
				return e.Key
			}
			var changed *key.Key
			var once sync.Once
			g.spy.onSave(func([]store.Counters, store.UsageBatch) {
				once.Do(func() {
					if err := c.change(g, k.Key.ID); err != nil {
						t.Error(err)
					}
					changed = stored()
				})
			})
			g.flush()
			g.restart()
			if after := stored(); changed == nil || !reflect.DeepEqual(after, changed) {
				t.Errorf("the change left %+v, and then there is %+v", changed, after)
			}
			g.want(k.Raw, c.want)
		})
	}
}

// C6: all keys of an owner stop and start together.
func TestC6_OwnerDisabled(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	var keys []Issued
	for range times(100, 1000) {
		keys = append(keys, g.create(Draft{}))
	}
	for _, k := range keys[:len(keys)/2] { // the others stay cold
		g.want(k.Raw, Allowed)
	}
	if _, err := g.PutOwner(ctx, "alice", OwnerPatch{Enabled: to(false)}); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		g.want(k.Raw, Disabled)
	}
	if _, err := g.PutOwner(ctx, "alice", OwnerPatch{Enabled: to(true)}); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		g.want(k.Raw, Allowed)
	}
	if err := g.DeleteOwner(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		g.want(k.Raw, Invalid)
	}
	k := g.create(Draft{}) // an owner of the same name is a new one
	g.want(k.Raw, Allowed)
}

func TestRotate(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	k := g.create(Draft{Remaining: ptr(int64(100)), RateLimitMax: ptr(int64(50)), RateLimitTimeWindow: ptr(int64(600_000))})
	g.want(k.Raw, Allowed)
	raws := []string{k.Raw}
	for range key.MaxPrevious + 2 {
		next, err := g.Rotate(ctx, k.Key.ID, Rotation{Grace: 60_000})
		if err != nil {
			t.Fatal(err)
		}
		if next.Key.ID != k.Key.ID || next.Raw == raws[len(raws)-1] {
			t.Fatalf("%+v", next)
		}
		raws = append(raws, next.Raw)
	}
	for i, raw := range raws {
		want := Allowed
		if i < 2 { // the latest five of seven old ones work, and the new one
			want = Invalid
		}
		g.want(raw, want)
	}
	if i := g.get(k.Key.ID); i.Credits.Remaining != 93 || i.RequestCount != 7 {
		t.Errorf("counters: %+v", i)
	}
	g.clock.advance(time.Minute)
	for i, raw := range raws {
		want := Invalid
		if i == len(raws)-1 {
			want = Allowed
		}
		g.want(raw, want)
	}
}

func TestRotateSecret(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{WithSecret: true})
	kept, err := g.Rotate(context.Background(), k.Key.ID, Rotation{})
	if err != nil {
		t.Fatal(err)
	}
	g.want(kept.Raw, Allowed, Request{CheckSecret: true, RequireSecret: true, Secret: k.Secret})
	changed, err := g.Rotate(context.Background(), k.Key.ID, Rotation{WithSecret: true})
	if err != nil {
		t.Fatal(err)
	}
	g.want(changed.Raw, InvalidSecret, Request{CheckSecret: true, Secret: k.Secret})
	g.want(changed.Raw, Allowed, Request{CheckSecret: true, Secret: changed.Secret})
}

// Windows and the time of the last use survive a clean restart.
func TestCountersSurviveRestart(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{RateLimitMax: ptr(int64(3)), RateLimitTimeWindow: ptr(int64(60_000))})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, Allowed)
	before := g.get(k.Key.ID)
	g.restart()
	if after := g.get(k.Key.ID); after.RequestCount != 2 || after.LastRequest != before.LastRequest {
		t.Errorf("%+v", after)
	}
	g.want(k.Raw, Allowed)
	g.want(k.Raw, RateLimited)
}

// A key that the cache lets go of is not counted anew.
func TestEvictionKeepsWindows(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{RateLimitMax: ptr(int64(200)), RateLimitTimeWindow: ptr(int64(60_000))})
	g.repeat(func() {
		g.flush()
		g.evict()
	})
	if passed := race(t, g, k.Raw, 16, 3200, 1); passed != 200 {
		t.Errorf("%d passed", passed)
	}
}

// TestQ37: what is written may leave memory, also while a window runs. Then it is read
// again.
func TestQ37(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	k := g.create(Draft{RateLimitMax: ptr(int64(5)), RateLimitTimeWindow: ptr(int64(60_000))})
	gone := g.create(Draft{UserID: "bob"})
	g.want(k.Raw, Allowed)
	g.want(gone.Raw, Allowed)
	if err := g.Delete(ctx, gone.Key.ID); err != nil {
		t.Fatal(err)
	}
	g.evict()
	if keys, owners := g.inMemory(); keys != 1 || owners != 0 || g.entry(k.Key.ID).rec.Load() != unloaded {
		t.Errorf("%d keys and %d owners are in memory, want the one whose window is not written, without its record", keys, owners)
	}
	g.flush()
	if keys, owners := g.inMemory(); keys != 0 || owners != 0 {
		t.Errorf("%d keys and %d owners are in memory, and nothing waits to be written", keys, owners)
	}
	if n := g.get(k.Key.ID).RequestCount; n != 1 {
		t.Errorf("%d are counted", n)
	}
	for range 4 {
		g.want(k.Raw, Allowed)
		g.forget(k.Key.ID)
	}
	g.want(k.Raw, RateLimited)
	g.want(gone.Raw, Invalid)
}

// T2: keys are deleted when they have been expired for longer than they are kept.
func TestT2_DeleteKept(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	k := g.create(Draft{ExpiresIn: to(int64(60))})
	forever := g.create(Draft{})
	keep := func(ms int64) func() {
		return g.engine.Attach(&Settings{Rules: Rules{Expiration: Expiration{Keep: ms}}})
	}
	g.want(k.Raw, Allowed)
	g.clock.advance(time.Hour)
	detachForever := keep(KeepForever)
	if err := g.engine.deleteKept(ctx, g.spy); err != nil {
		t.Fatal(err)
	}
	g.clock.advance(time.Hour)
	detachShort := keep(0)
	detachLong := keep(3 * 3600_000)
	step := func(name string, gone bool) {
		t.Helper()
		if err := g.engine.deleteKept(ctx, g.spy); err != nil {
			t.Fatal(err)
		}
		_, err := g.Get(ctx, k.Key.ID)
		if errors.Is(err, store.ErrNotFound) != gone {
			t.Fatalf("%s: %v", name, err)
		}
	}
	step("one configuration keeps for ever", false)
	g.want(k.Raw, Expired)
	detachForever()
	step("the longer one of two counts", false)
	detachLong()
	step("nothing is kept", true)
	g.want(k.Raw, Invalid)
	detachShort()
	g.want(forever.Raw, Allowed)
}

func TestCreateChecks(t *testing.T) {
	long := func(n int) string { return string(make([]byte, 0, n)) + fmt.Sprintf("%0*d", n, 0) }
	for _, c := range []struct {
		name  string
		d     Draft
		field string
		code  string
		rules func(*Rules)
	}{
		{"no owner", Draft{UserID: ""}, "userId", InvalidField, nil},
		{"dot", Draft{UserID: "."}, "userId", InvalidField, nil},
		{"dots", Draft{UserID: ".."}, "userId", InvalidField, nil},
		{"long owner", Draft{UserID: long(256)}, "userId", InvalidField, nil},
		{"control in owner", Draft{UserID: "a\nb"}, "userId", InvalidField, nil},
		{"not UTF-8", Draft{UserID: "a\xff"}, "userId", InvalidField, nil},
		{"empty name", Draft{UserID: "a", Name: ptr("")}, "name", InvalidNameLength, nil},
		{"long name", Draft{UserID: "a", Name: ptr(long(33))}, "name", InvalidNameLength, nil},
		{"control in name", Draft{UserID: "a", Name: ptr("a\r\nb")}, "name", InvalidField, nil},
		{"name required", Draft{UserID: "a"}, "name", NameRequired, func(r *Rules) { r.RequireName = true }},
		{"config", Draft{UserID: "a", ConfigID: ptr("nope")}, "configId", NoSuchConfig, nil},
		{"prefix", Draft{UserID: "a", Prefix: ptr("a b")}, "prefix", InvalidField, nil},
		{"long prefix", Draft{UserID: "a", Prefix: ptr(long(33))}, "prefix", InvalidPrefixLength, nil},
		{"empty prefix", Draft{UserID: "a", Prefix: ptr("")}, "prefix", InvalidPrefixLength, nil},
		{"metadata off", Draft{UserID: "a", Attributes: Attributes{Metadata: to(json.RawMessage(`{}`))}}, "metadata", MetadataDisabled, func(r *Rules) { r.Metadata = false }},
		{"metadata list", Draft{UserID: "a", Attributes: Attributes{Metadata: to(json.RawMessage(`[1]`))}}, "metadata", InvalidMetadataType, nil},
		{"metadata big", Draft{UserID: "a", Attributes: Attributes{Metadata: to(json.RawMessage(`{"a":"` + long(16<<10) + `"}`))}}, "metadata", InvalidField, nil},
		{"expires in 0", Draft{UserID: "a", ExpiresIn: to(int64(0))}, "expiresIn", InvalidField, nil},
		{"expires early", Draft{UserID: "a", ExpiresIn: to(int64(59))}, "expiresIn", ExpiresInTooSmall, func(r *Rules) { r.Expiration.Min = 60_000 }},
		{"expires late", Draft{UserID: "a", ExpiresIn: to(int64(61))}, "expiresIn", ExpiresInTooLarge, func(r *Rules) { r.Expiration.Max = 60_000 }},
		{"expires after 9999", Draft{UserID: "a", ExpiresIn: to(key.MaxCount)}, "expiresIn", ExpiresInTooLarge, nil},
		{"expiry fixed", Draft{UserID: "a", ExpiresIn: to(int64(60))}, "expiresIn", KeyDisabledExpiration, func(r *Rules) { r.Expiration.Fixed = true }},
		{"remaining", Draft{UserID: "a", Remaining: ptr(int64(-1))}, "remaining", InvalidField, nil},
		{"remaining big", Draft{UserID: "a", Remaining: ptr(key.MaxCount + 1)}, "remaining", InvalidField, nil},
		{"refill amount alone", Draft{UserID: "a", RefillAmount: ptr(int64(1))}, "refillInterval", RefillAmountAndInterval, nil},
		{"refill interval alone", Draft{UserID: "a", RefillInterval: ptr(int64(1))}, "refillAmount", RefillIntervalAndAmount, nil},
		{"refill of 0", Draft{UserID: "a", RefillAmount: ptr(int64(0)), RefillInterval: ptr(int64(1))}, "refillAmount", InvalidField, nil},
		{"rate alone", Draft{UserID: "a", RateLimitMax: ptr(int64(1))}, "rateLimitTimeWindow", InvalidField, nil},
		{"window alone", Draft{UserID: "a", RateLimitTimeWindow: ptr(int64(1))}, "rateLimitMax", InvalidField, nil},
		{"algorithm", Draft{UserID: "a", RateLimitAlgorithm: ptr("leaky")}, "rateLimitAlgorithm", InvalidField, nil},
		{"validator", Draft{UserID: "a"}, "prefix", InvalidField, func(r *Rules) { r.Validators = []key.Validator{nobody{}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, func(r *Rules) {
				if c.rules != nil {
					c.rules(r)
				}
			})
			_, err := g.Create(context.Background(), c.d)
			var bad *FieldError
			if !errors.As(err, &bad) || bad.Field != c.field || bad.Code != c.code {
				t.Fatalf("%#v", err)
			}
			l, err := g.List(context.Background(), store.List{Limit: 10})
			if err != nil || l.Total != 0 {
				t.Errorf("%d keys, %v", l.Total, err)
			}
		})
	}
}

type nobody struct{}

func (nobody) Valid(string) bool { return false }

func TestCreateDefaults(t *testing.T) {
	g := newRig(t, func(r *Rules) {
		r.Expiration.Default = 1000
		r.Permissions = key.Permissions{"api": {"read"}}
		r.Start = 4
	})
	k := g.create(Draft{})
	if k.Key.ExpiresAt != k.Key.CreatedAt+1000 || k.Key.Permissions.List()[0] != "api:read" || *k.Start != k.Raw[:4] ||
		*k.Key.Prefix != "ak_" || k.Key.Name != nil || !k.Key.RateLimitEnabled || k.Secret != "" {
		t.Errorf("%+v", k)
	}
	k = g.create(Draft{Prefix: ptr("x_"), Permissions: key.Permissions{}, ExpiresIn: to(int64(5))})
	if *k.Key.Prefix != "x_" || k.Raw[:2] != "x_" || len(k.Key.Permissions) != 0 || k.Key.ExpiresAt != k.Key.CreatedAt+5000 {
		t.Errorf("%+v", k)
	}
}

func TestRateLimitingOff(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000))})
	rules := DefaultRules()
	rules.RateLimiting = false
	off := NewService(g.engine, &Settings{Rules: rules}).As(Actor{Kind: ActorOperator})
	for range 5 {
		if d, err := off.Verify(context.Background(), k.Raw, &Request{Cost: 1}); err != nil || d.Outcome != Allowed {
			t.Fatalf("%q, %v", d.Outcome.Code(), err)
		}
	}
	made, err := off.Create(context.Background(), Draft{UserID: "a", RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000))})
	if err != nil || made.Key.RateLimitEnabled || made.Key.RateLimitMax != 1 {
		t.Errorf("%+v, %v", made.Key, err)
	}
}

func TestUpdateChecks(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Name: ptr("n"), Remaining: ptr(int64(5)), Attributes: Attributes{Metadata: to(json.RawMessage(`{"a":1}`))}})
	free := g.create(Draft{})
	before := g.get(k.Key.ID)
	for _, c := range []struct {
		id    string
		p     Patch
		field string
	}{
		{k.Key.ID, Patch{UserID: cleared[string]()}, "userId"},
		{k.Key.ID, Patch{UserID: to("")}, "userId"},
		{k.Key.ID, Patch{Enabled: cleared[bool]()}, "enabled"},
		{k.Key.ID, Patch{Name: to("")}, "name"},
		{k.Key.ID, Patch{RemainingDelta: to(int64(1)), Remaining: to(int64(1))}, "remainingDelta"},
		{k.Key.ID, Patch{RemainingDelta: to(key.MaxCount + 1)}, "remainingDelta"},
		{k.Key.ID, Patch{RemainingDelta: cleared[int64]()}, "remainingDelta"},
		{free.Key.ID, Patch{RemainingDelta: to(int64(1))}, "remainingDelta"},
		{k.Key.ID, Patch{RefillAmount: to(int64(1))}, "refillInterval"},
		{k.Key.ID, Patch{RateLimitMax: to(int64(1))}, "rateLimitTimeWindow"},
		{k.Key.ID, Patch{ExpiresIn: to(int64(0))}, "expiresIn"},
		{k.Key.ID, Patch{Attributes: Attributes{Metadata: to(json.RawMessage(`1`))}}, "metadata"},
	} {
		_, err := g.Update(context.Background(), c.id, c.p)
		var bad *FieldError
		if !errors.As(err, &bad) || bad.Field != c.field {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
	if _, err := g.Update(context.Background(), k.Key.ID, Patch{RemainingDelta: to(int64(-6))}); !errors.Is(err, ErrTooFewCredits) {
		t.Errorf("%v", err)
	}
	if after := g.get(k.Key.ID); after.Key.Revision != before.Key.Revision || after.Credits != before.Credits {
		t.Errorf("%+v", after)
	}
	got := g.update(k.Key.ID, Patch{Name: cleared[string](), Attributes: Attributes{Metadata: cleared[json.RawMessage]()}, Remaining: cleared[int64]()})
	if got.Key.Name != nil || got.Key.Metadata != nil || got.Credits.Limited {
		t.Errorf("%+v", got)
	}
}

// A top-up reaches a key that is known to be empty with the next request.
func TestTopUp(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{Remaining: ptr(int64(0))})
	g.want(k.Raw, UsageExceeded)
	g.update(k.Key.ID, Patch{RemainingDelta: to(int64(2))})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, Allowed)
	g.want(k.Raw, UsageExceeded)
	g.update(k.Key.ID, Patch{Remaining: cleared[int64]()})
	g.want(k.Raw, Allowed)
	g.update(k.Key.ID, Patch{Remaining: to(int64(1))})
	g.want(k.Raw, Allowed)
	g.want(k.Raw, UsageExceeded)
}

// TestDelete_only gives keys to somebody else while their owner deletes them: whoever
// comes first wins, and nobody deletes the key of somebody else.
func TestDelete_only(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	mine := func(k *key.Key) bool { return k.UserID == "alice" }
	for range 100 {
		id := g.create(Draft{UserID: "alice"}).Key.ID
		given := make(chan error, 1)
		go func() {
			_, err := g.Update(ctx, id, Patch{UserID: to("bob")})
			given <- err
		}()
		deleted, gave := g.only(nil, mine).Delete(ctx, id), <-given
		if (deleted == nil) == (gave == nil) {
			t.Fatalf("delete: %v, update: %v", deleted, gave)
		}
		for _, err := range []error{deleted, gave} {
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
	id := g.create(Draft{UserID: "bob"}).Key.ID
	if err := g.only(nil, mine).Delete(ctx, id); !errors.Is(err, store.ErrNotFound) || g.get(id).Key.UserID != "bob" {
		t.Errorf("error %v", err)
	}
}
