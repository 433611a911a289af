package keyring

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// foreign is a record from elsewhere: its raw key has no checksum.
func (g *rig) foreign(n int) (store.Entry, string) {
	raw := fmt.Sprintf("foreign-%024d-%024d", n, n)
	now := g.clock.ms.Load()
	return store.Entry{Key: &key.Key{
		ID: fmt.Sprintf("foreign %d", n), ConfigID: key.DefaultConfig, UserID: "alice", Hash: key.HashOf(raw),
		Enabled: true, RateLimitEnabled: true, CreatedAt: now, UpdatedAt: now,
	}}, raw
}

// imports checks the status of each record, and its field where it has one.
func (g *rig) imports(dryRun bool, batch []store.Entry, want ...string) {
	g.t.Helper()
	results, err := g.Import(context.Background(), batch, dryRun)
	if err != nil {
		g.t.Fatal(err)
	}
	var got []string
	for _, r := range results {
		status := string(r.Status)
		if r.Reason != nil {
			status += " " + r.Reason.Field
		}
		got = append(got, status)
	}
	if !reflect.DeepEqual(got, want) {
		g.t.Errorf("results %q, want %q", got, want)
	}
}

// TestImport_knownAtOnce: a raw key that was tried before, and found unknown, works
// as soon as it is imported; so does a former one.
func TestImport_knownAtOnce(t *testing.T) {
	g := newRig(t)
	e, raw := g.foreign(1)
	_, former := g.foreign(2)
	e.Key.Previous = []key.PreviousKey{{Hash: key.HashOf(former), Until: g.clock.ms.Load() + 1000}}
	issued := g.create(Draft{})
	for _, r := range []string{raw, former, issued.Raw} {
		g.verify(r)
	}
	g.want(raw, Invalid)
	g.imports(true, []store.Entry{e}, "created")
	g.want(raw, Invalid)
	g.imports(false, []store.Entry{e}, "created")
	g.want(raw, Allowed)
	g.want(former, Allowed)
	g.clock.advance(time.Second)
	g.want(former, Invalid)
	g.restart()
	g.want(raw, Allowed)
}

// TestImport_unknownHash: the same, where the filter was wrong and the hash is
// remembered as unknown.
func TestImport_unknownHash(t *testing.T) {
	g := newRig(t)
	e, raw := g.foreign(1)
	g.engine.cache.plain.Store(true)
	g.engine.cache.members.current.Load().add(e.Key.Hash)
	g.want(raw, Invalid)
	if _, ok := g.engine.cache.unknown.GetIfPresent(e.Key.Hash); !ok {
		t.Fatal("the hash is not remembered as unknown")
	}
	g.imports(false, []store.Entry{e}, "created")
	g.want(raw, Allowed)
}

// unreadable is a store whose keys cannot be read by their ID for a while.
type unreadable struct {
	store.Store
	err error
}

func (u *unreadable) Get(ctx context.Context, id string) (store.Entry, error) {
	if u.err != nil {
		return store.Entry{}, u.err
	}
	return u.Store.Get(ctx, id)
}

// TestImport_breaksOff: what was stored before an import broke off works, and
// another import mends what the first could not finish.
func TestImport_breaksOff(t *testing.T) {
	g := newRig(t)
	there, _ := g.foreign(1)
	deleted, deletedRaw := g.foreign(2)
	g.imports(false, []store.Entry{there, deleted}, "created", "created")
	g.want(deletedRaw, Allowed)
	if err := g.Delete(context.Background(), deleted.Key.ID); err != nil {
		t.Fatal(err)
	}
	fresh, freshRaw := g.foreign(3)
	_, former := g.foreign(4)
	fresh.Key.Previous = []key.PreviousKey{{Hash: key.HashOf(former), Until: g.clock.ms.Load() + 1000}}
	g.want(freshRaw, Invalid)
	batch := []store.Entry{there, deleted, fresh}

	st := g.engine.store.Load()
	away := &unreadable{st.Store, store.ErrUnavailable}
	g.engine.store.Store(&opened{away, st.at})
	if _, err := g.Import(context.Background(), batch, false); !errors.Is(err, store.ErrUnavailable) {
		t.Fatal(err)
	}
	g.want(freshRaw, Allowed)
	g.want(former, Allowed)
	away.err = nil
	g.imports(false, batch, "exists", "exists", "exists")
	g.want(deletedRaw, Allowed)
}

// TestImport_answerLost: a key that was stored works, also where nobody heard of that.
func TestImport_answerLost(t *testing.T) {
	g := newRig(t)
	e, raw := g.foreign(1)
	_, former := g.foreign(2)
	e.Key.Previous = []key.PreviousKey{{Hash: key.HashOf(former), Until: g.clock.ms.Load() + 1000}}
	g.want(raw, Invalid)
	if _, err := g.spy.Import(context.Background(), []store.Entry{e}, nil); err != nil {
		t.Fatal(err)
	}
	g.want(raw, Allowed)
	g.want(former, Allowed)
	g.imports(false, []store.Entry{e}, "exists")
}

// TestImport_rotated: a raw key without checksum works until its grace is over, in
// the next process and on the next server too, though the current one has a checksum.
func TestImport_rotated(t *testing.T) {
	g := newRig(t)
	e, raw := g.foreign(1)
	g.imports(false, []store.Entry{e}, "created")
	if _, err := g.Rotate(context.Background(), e.Key.ID, Rotation{Grace: 1000}); err != nil {
		t.Fatal(err)
	}
	g.want(raw, Allowed)
	g.restart()
	g.want(raw, Allowed)

	var records []store.Entry
	err := g.Export(context.Background(), func(OwnerRecord) error { return nil }, func(e store.Entry) error { records = append(records, e); return nil })
	if err != nil {
		t.Fatal(err)
	}
	other := newRig(t)
	other.imports(false, records, "created")
	other.want(raw, Allowed)
	other.clock.advance(time.Second)
	other.want(raw, Invalid)
}

// TestImport_conflicts: a dry run foresees what happens, and nothing that is there changes.
func TestImport_conflicts(t *testing.T) {
	g := newRig(t)
	there, thereRaw := g.foreign(1)
	there.Credits = key.Credits{Limited: true, Remaining: 5}
	formerRaw := ""
	there.Key.Previous = make([]key.PreviousKey, 1)
	_, formerRaw = g.foreign(10)
	there.Key.Previous[0] = key.PreviousKey{Hash: key.HashOf(formerRaw), Until: g.clock.ms.Load() + 9999}
	g.imports(false, []store.Entry{there}, "created")
	g.want(thereRaw, Allowed)
	before := g.get(there.Key.ID)

	again, _ := g.foreign(1)
	again.Key.UserID, again.Key.Enabled, again.Credits = "mallory", false, key.Credits{Limited: true, Remaining: 100}
	otherHash, _ := g.foreign(2)
	otherHash.Key.ID = there.Key.ID
	otherID, _ := g.foreign(3)
	otherID.Key.Hash = there.Key.Hash
	itsFormer, _ := g.foreign(4)
	itsFormer.Key.Hash = there.Key.Previous[0].Hash
	hasFormer, _ := g.foreign(5)
	hasFormer.Key.Previous = []key.PreviousKey{{Hash: there.Key.Hash}}
	fresh, _ := g.foreign(6)
	freshAgain, _ := g.foreign(6)
	freshOtherID, _ := g.foreign(6)
	freshOtherID.Key.ID = "another"
	freshOtherHash, _ := g.foreign(7)
	freshOtherHash.Key.ID = fresh.Key.ID
	batch := []store.Entry{again, otherHash, otherID, itsFormer, hasFormer, fresh, freshAgain, freshOtherID, freshOtherHash}
	want := []string{"exists", "conflict id", "conflict hash", "conflict hash", "conflict hash", "created", "exists", "conflict hash", "conflict id"}
	g.imports(true, batch, want...)
	if _, err := g.Get(context.Background(), fresh.Key.ID); err == nil {
		t.Error("a dry run made a key")
	}
	g.imports(false, batch, want...)
	if after := g.get(there.Key.ID); !reflect.DeepEqual(after, before) {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	if _, err := g.Owner(context.Background(), "mallory"); err == nil {
		t.Error("the owner of a record that was left out was made")
	}
}

// TestImport_refused: what is out of range spoils nothing else.
func TestImport_refused(t *testing.T) {
	bad := map[string]func(*store.Entry){
		"id":                  func(e *store.Entry) { e.Key.ID = "a\x00" },
		"userId":              func(e *store.Entry) { e.Key.UserID = ".." },
		"configId":            func(e *store.Entry) { e.Key.ConfigID = "nosuch" },
		"name":                func(e *store.Entry) { e.Key.Name = ptr("a\nb") },
		"prefix":              func(e *store.Entry) { e.Key.Prefix = ptr("a:") },
		"start":               func(e *store.Entry) { e.Key.Start = ptr("longer than twelve") },
		"metadata":            func(e *store.Entry) { e.Key.Metadata = []byte(`[]`) },
		"rateLimitMax":        func(e *store.Entry) { e.Key.RateLimitMax, e.Key.RateLimitTimeWindow = key.MaxCount+1, 1 },
		"rateLimitTimeWindow": func(e *store.Entry) { e.Key.RateLimitTimeWindow = -1 },
		"expiresAt":           func(e *store.Entry) { e.Key.ExpiresAt = key.MaxTime + 1 },
		"lastRequest":         func(e *store.Entry) { e.LastRequest = -1 },
		"rotatedAt":           func(e *store.Entry) { e.Key.RotatedAt = -1 },
		"disabledBy":          func(e *store.Entry) { e.Key.DisabledBy = key.DisabledByOwner },
		"previousKeys.hash":   func(e *store.Entry) { e.Key.Previous = []key.PreviousKey{{Hash: e.Key.Hash}} },
		"previousKeys.start":  func(e *store.Entry) { e.Key.Previous = []key.PreviousKey{{Start: "a b"}} },
		"previousKeys.until":  func(e *store.Entry) { e.Key.Previous = []key.PreviousKey{{Until: -1}} },
		"previousKeys.lastRequest": func(e *store.Entry) {
			e.Key.Previous = []key.PreviousKey{{LastRequest: -1}}
		},
		"rateState":      func(e *store.Entry) { e.Windows = []store.Window{{Unit: store.UnitRate, State: []byte("x")}} },
		"refillInterval": func(e *store.Entry) { e.Credits.RefillAmount = 5 },
		"remaining":      func(e *store.Entry) { e.Credits.Limited, e.Credits.Remaining = true, -1 },
		"spent":          func(e *store.Entry) { e.Credits.Spent = key.MaxCount + 1 },
	}
	for field, change := range bad {
		g := newRig(t)
		one, _ := g.foreign(1)
		broken, _ := g.foreign(2)
		change(&broken)
		two, raw := g.foreign(3)
		for _, dryRun := range []bool{true, false} {
			g.imports(dryRun, []store.Entry{one, broken, two}, "created", "invalid "+field, "created")
		}
		g.want(raw, Allowed)
	}
}

// TestImport_restsInMemory: a key that was deleted and is imported again counts on
// from what the record says, in the memory of the same process.
func TestImport_restsInMemory(t *testing.T) {
	g := newRig(t)
	issued := g.create(Draft{RateLimitMax: ptr(int64(2)), RateLimitTimeWindow: ptr(int64(60_000)), Remaining: ptr(int64(9))})
	g.want(issued.Raw, Allowed)
	var records []store.Entry
	err := g.Export(context.Background(), func(OwnerRecord) error { return nil }, func(e store.Entry) error { records = append(records, e); return nil })
	if err != nil || len(records) != 1 {
		t.Fatalf("%v, %d records", err, len(records))
	}
	if err := g.Delete(context.Background(), issued.Key.ID); err != nil {
		t.Fatal(err)
	}
	g.want(issued.Raw, Invalid)
	g.imports(false, records, "created")
	if i := g.get(issued.Key.ID); i.RequestCount != 1 || i.Credits.Remaining != 8 || i.Credits.Spent != 1 {
		t.Errorf("%d requests, credits %+v", i.RequestCount, i.Credits)
	}
	g.want(issued.Raw, Allowed)
	g.want(issued.Raw, RateLimited)
}

// TestImport_halfLimit: a change can leave half of a rate limit, which limits
// nothing; so such a key comes back.
func TestImport_halfLimit(t *testing.T) {
	for name, p := range map[string]Patch{
		"max":    {RateLimitTimeWindow: Field[int64]{Set: true}},
		"window": {RateLimitMax: Field[int64]{Set: true}},
	} {
		g := newRig(t)
		issued := g.create(Draft{RateLimitMax: ptr(int64(1)), RateLimitTimeWindow: ptr(int64(60_000))})
		g.update(issued.Key.ID, p)
		var records []store.Entry
		err := g.Export(context.Background(), func(OwnerRecord) error { return nil }, func(e store.Entry) error { records = append(records, e); return nil })
		if err != nil {
			t.Fatal(err)
		}
		other := newRig(t)
		other.imports(true, records, "created")
		other.imports(false, records, "created")
		k, want := other.get(issued.Key.ID).Key, g.get(issued.Key.ID).Key
		if k.RateLimitMax != want.RateLimitMax || k.RateLimitTimeWindow != want.RateLimitTimeWindow || k.RateLimitMax+k.RateLimitTimeWindow == 0 {
			t.Errorf("%s: %d in %d, want %d in %d", name, k.RateLimitMax, k.RateLimitTimeWindow, want.RateLimitMax, want.RateLimitTimeWindow)
		}
		other.want(issued.Raw, Allowed)
		other.want(issued.Raw, Allowed)
	}
}

// TestExport_leased: what is leased and not spent remains; what is spent is spent.
func TestExport_leased(t *testing.T) {
	g := newRig(t)
	g.lease = 10
	g.restart()
	issued := g.create(Draft{Remaining: ptr(int64(1000))})
	for range 7 {
		g.want(issued.Raw, Allowed)
	}
	var got key.Credits
	err := g.Export(context.Background(), func(OwnerRecord) error { return nil }, func(e store.Entry) error { got = e.Credits; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if got.Remaining != 993 || got.Spent != 7 || got.Leased != 0 || got.Granted != 1000 {
		t.Errorf("%+v", got)
	}
}

func TestImportOwners(t *testing.T) {
	g := newRig(t)
	ctx := context.Background()
	g.create(Draft{UserID: "there"})
	owner := func(id string, enabled bool, tier *string) OwnerRecord {
		return OwnerRecord{Owner: key.Owner{UserID: id, Enabled: enabled, Tier: tier, CreatedAt: 5, UpdatedAt: 7}}
	}
	imports := func(dryRun bool, batch []OwnerRecord, want ...string) {
		t.Helper()
		results, err := g.ImportOwners(ctx, batch, dryRun)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			got := string(r.Status)
			if r.Reason != nil {
				got += " " + r.Reason.Field
			}
			if got != want[i] {
				t.Errorf("%s: %s, want %s", batch[i].UserID, got, want[i])
			}
		}
	}
	window := owner("window", true, nil)
	window.Windows = []store.Window{{Unit: "day", State: []byte("x")}}
	batch := []OwnerRecord{
		owner("new", false, nil), owner("tiered", true, ptr("not configured")), owner("there", true, nil), owner("", true, nil), owner("t", true, ptr("")), window,
	}
	imports(true, batch, "created", "created", "exists", "invalid userId", "invalid tier", "invalid windows")
	if _, err := g.Owner(ctx, "new"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after a dry run: %v", err)
	}
	imports(false, batch, "created", "created", "exists", "invalid userId", "invalid tier", "invalid windows")
	imports(false, batch[:3], "exists", "exists", "exists")
	for _, dryRun := range []bool{true, false} {
		imports(dryRun, []OwnerRecord{owner("new", true, nil), owner("tiered", true, nil)}, "conflict enabled", "conflict tier")
	}
	o, err := g.Owner(ctx, "tiered")
	if err != nil || !o.Enabled || *o.Tier != "not configured" || o.CreatedAt != 5 || o.UpdatedAt != 7 {
		t.Errorf("%+v, %v", o, err)
	}
	e, raw := g.foreign(1)
	e.Key.UserID = "new"
	g.imports(false, []store.Entry{e}, "created")
	g.want(raw, Disabled)
}

// unsaved is a store that writes no counters of owners, and where n owners can be
// read.
type unsaved struct {
	store.Store
	n int
}

func (u *unsaved) SaveCounters(ctx context.Context, batch []store.Counters) error {
	if len(batch) > 0 && batch[0].Kind == store.KindOwner {
		return store.ErrUnavailable
	}
	return u.Store.SaveCounters(ctx, batch)
}

func (u *unsaved) Owner(ctx context.Context, id string) (store.OwnerInfo, error) {
	if u.n--; u.n < 0 {
		return store.OwnerInfo{}, store.ErrUnavailable
	}
	return u.Store.Owner(ctx, id)
}

// TestImportOwners_breaksOff: an owner that is stored has its windows, whatever
// fails afterwards and whatever was there before.
func TestImportOwners_breaksOff(t *testing.T) {
	g := newRig(t).with(tier("free", per(Day, 5)))
	used := g.create(Draft{})
	g.setTier("alice", ptr("free"))
	for range 3 {
		g.want(used.Raw, Allowed)
	}
	var records []OwnerRecord
	err := g.Export(context.Background(), func(o OwnerRecord) error { records = append(records, o); return nil }, func(store.Entry) error { return nil })
	if err != nil || len(records) != 1 || len(records[0].Windows) == 0 {
		t.Fatalf("%v, %+v", err, records)
	}

	// In the same process, where a deleted owner of that name is remembered.
	if err := g.DeleteOwner(context.Background(), "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.ImportOwners(context.Background(), records, false); err != nil {
		t.Fatal(err)
	}
	if n := g.drain(g.create(Draft{}).Raw); n != 2 {
		t.Errorf("%d pass here, want 2", n)
	}

	other := newRig(t).with(tier("free", per(Day, 5)))
	other.create(Draft{UserID: "there"})
	there := OwnerRecord{Owner: key.Owner{UserID: "there", Enabled: true}}
	st := other.engine.store.Load()
	other.engine.store.Store(&opened{&unsaved{Store: st.Store}, st.at})
	if _, err := other.ImportOwners(context.Background(), []OwnerRecord{there, records[0]}, false); !errors.Is(err, store.ErrUnavailable) {
		t.Fatal(err)
	}
	other.engine.store.Store(st)
	k := other.create(Draft{})
	if n := other.drain(k.Raw); n != 2 {
		t.Errorf("%d pass, want 2", n)
	}
}
