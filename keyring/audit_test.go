package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// audit returns the entries of the audit log after an ID, the oldest first, and checks that
// each follows the one before.
func (g *rig) audit(after int64) (all []store.AuditEntry) {
	g.t.Helper()
	q := store.AuditQuery{Limit: 500}
	for {
		page, err := g.Audit(context.Background(), q)
		if err != nil {
			g.t.Fatal(err)
		}
		all = append(all, page.Entries...)
		if q.Cursor = page.Next; q.Cursor != "" {
			continue
		}
		slices.Reverse(all)
		before := page.Anchor
		for i := range all {
			text, err := all[i].Canonical()
			if err != nil || all[i].Chain != store.Link(before, text) || all[i].ID != before.ID+1 {
				g.t.Fatalf("entry %d does not follow %d: %v", all[i].ID, before.ID, err)
			}
			before = all[i].Point()
		}
		return slices.DeleteFunc(all, func(e store.AuditEntry) bool { return e.ID <= after })
	}
}

func auditLine(e store.AuditEntry) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s%s %s %s %s %d", e.Action, e.Actor.Kind, e.Actor.ID, e.Actor.Name, e.KeyID, e.UserID, e.Changes, e.Count))
}

// TestA10_everyDoor: each change by each door is one entry, with who made it, and nothing that
// was refused or changed nothing is.
func TestA10_everyDoor(t *testing.T) {
	g := newRig(t)
	ctx, began := context.Background(), g.clock.now().UnixMilli()
	set := &Settings{Rules: DefaultRules(), Tiers: []Tier{tier("free", per(minute, 2))}}
	set.Rules.Expiration.Keep = 0
	g.use(set)
	defer g.engine.Attach(set)()
	bob := g.As(Actor{Kind: ActorOperator, Name: "bob", Address: netip.MustParseAddr("192.0.2.1")})
	wantSince := int64(0)
	want := func(lines ...string) {
		t.Helper()
		var got []string
		for _, e := range g.audit(wantSince) {
			got, wantSince = append(got, auditLine(e)), e.ID
		}
		if !slices.Equal(got, lines) {
			t.Errorf("%q\nwant %q", got, lines)
		}
	}
	none := func(err error) {
		t.Helper()
		if err == nil {
			t.Error("not refused")
		}
	}
	k := g.createBy(bob, Draft{
		UserID: "alice", Name: ptr("ci"), Remaining: ptr(int64(5)), Attributes: Attributes{Metadata: to(json.RawMessage(`{"secret plan":"x","b":1}`))},
		Permissions: key.Permissions{"files": {"read"}}, WithSecret: true, ExpiresIn: to(int64(60)),
	})
	id := k.Key.ID
	end := time.UnixMilli(k.Key.ExpiresAt).UTC().Format("2006-01-02T15:04:05.000Z")
	want(`key.created operator bob ` + id + ` alice {"configId":{"from":null,"to":"default"},"enabled":{"from":null,"to":true},"expiresAt":{"from":null,"to":"` + end +
		`"},"metadata":{"from":null,"to":["b","secret plan"]},"name":{"from":null,"to":"ci"},"permissions":{"from":null,"to":{"files":["read"]}},"prefix":{"from":null,"to":"` + *k.Key.Prefix +
		`"},"rateLimitEnabled":{"from":null,"to":true},"remaining":{"from":null,"to":5},"userId":{"from":null,"to":"alice"}} 0`)

	person := g.As(Actor{Kind: ActorPerson, ID: "alice", Scope: &Scope{}})
	if _, err := person.Update(ctx, id, Patch{Enabled: to(false)}); err != nil {
		t.Fatal(err)
	}
	want(`key.revoked person alice ` + id + ` alice {"disabledBy":{"from":null,"to":"owner"},"enabled":{"from":true,"to":false}} 0`)
	_, err := person.Update(ctx, id, Patch{UserID: to("bob")})
	none(err)
	g.update(id, Patch{Enabled: to(true), RemainingDelta: to(int64(3)), RefillAmount: to(int64(9)), RefillInterval: to(int64(1000)), Name: cleared[string](), Attributes: Attributes{Metadata: to(json.RawMessage(`{"b":2}`))}})
	want(`key.updated operator  ` + id + ` alice {"disabledBy":{"from":"owner","to":null},"enabled":{"from":false,"to":true},"metadata":{"from":["b","secret plan"],"to":["b"]},"name":{"from":"ci","to":null},"refillAmount":{"from":null,"to":9},"refillInterval":{"from":null,"to":1000},"remaining":{"from":5,"to":8}} 0`)
	_, err = g.Update(ctx, id, Patch{RemainingDelta: to(int64(-99))})
	none(err)
	if _, err := g.As(Actor{Kind: ActorKey, ID: id}).Rotate(ctx, id, Rotation{Grace: 60_000, WithSecret: true}); err != nil {
		t.Fatal(err)
	}
	want(`key.rotated key ` + id + ` ` + id + ` alice {"previousKeys":{"from":null,"to":1}} 0`)
	if _, err := g.EndGrace(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := g.EndGrace(ctx, id); err != nil { // nothing to end
		t.Fatal(err)
	}
	want(`key.updated operator  ` + id + ` alice {"previousKeys":{"from":1,"to":null}} 0`)

	for range 2 { // the second one changes nothing
		if _, err := g.PutOwner(ctx, "alice", OwnerPatch{Tier: to("free"), Enabled: to(false)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.PutOwner(ctx, "carol", OwnerPatch{}); err != nil {
		t.Fatal(err)
	}
	want(`owner.updated operator   alice {"enabled":{"from":true,"to":false},"tier":{"from":null,"to":"free"}} 0`, `owner.created operator   carol {"enabled":{"from":null,"to":true}} 0`)
	_, err = g.PutOwner(ctx, "alice", OwnerPatch{Tier: to("nosuch")})
	none(err)

	one, _ := g.foreign(1)
	two, _ := g.foreign(2)
	g.imports(true, []store.Entry{one}, "created") // a dry run
	g.imports(false, []store.Entry{one, two, one}, "created", "created", "exists")
	g.imports(false, []store.Entry{one}, "exists")
	if _, err := g.ImportOwners(ctx, []OwnerRecord{{Owner: key.Owner{UserID: "dora", Enabled: true, CreatedAt: 1, UpdatedAt: 1}}}, false); err != nil {
		t.Fatal(err)
	}
	want(`keys.imported operator     2`, `owners.imported operator     1`)

	for range 370 { // an hour after it expired
		g.clock.advance(10 * time.Second)
		if err := g.engine.deleteKept(ctx, g.engine.store.Load()); err != nil {
			t.Fatal(err)
		}
	}
	want(`key.expired system  ` + id + ` alice  0`)
	if err := g.Delete(ctx, one.Key.ID); err != nil {
		t.Fatal(err)
	}
	none(g.Delete(ctx, one.Key.ID))
	if err := g.DeleteOwner(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	want(`key.deleted operator  `+one.Key.ID+` alice  0`, `owner.deleted operator   alice  1`)

	e := g.audit(0)[0]
	if e.Actor.Address != "192.0.2.1" || e.Time != began {
		t.Errorf("%+v", e)
	}
	secrets := []string{k.Raw[len(*k.Key.Prefix):], k.Secret, fmt.Sprintf("%x", k.Key.Hash), fmt.Sprintf("%x", *k.Key.SecretHash)}
	for _, e := range g.audit(0) {
		text, _ := e.Canonical()
		for _, s := range secrets {
			if strings.Contains(string(text), s[:10]) {
				t.Errorf("%s shows a part of %s", text, s)
			}
		}
	}
}

// TestA10_forfeited: credits that a crash has lost are in the log, before anything else of the
// next process.
func TestA10_forfeited(t *testing.T) {
	g := newRig(t).leasing(100)
	k := g.create(Draft{Remaining: ptr(int64(1000))})
	g.warm(k.Raw, k.Key.ID)
	leased := g.stored(k.Key.ID).Leased
	g.crash()
	if all := g.audit(1); len(all) != 1 || auditLine(all[0]) != fmt.Sprintf(`credits.forfeited system  %s  {"leased":{"from":%d,"to":0}} 0`, k.Key.ID, leased) {
		t.Errorf("%+v", all)
	}
}

// TestA10_denied: denied calls of known callers are entries of their own, others are summed by
// address, once a minute. Both are bounded, and nobody waits for them.
func TestA10_denied(t *testing.T) {
	g := newRig(t)
	ctx, st := context.Background(), g.engine.store.Load()
	write := func(want ...string) {
		t.Helper()
		before := int64(len(g.audit(0)))
		if err := g.engine.writeDenials(ctx, st, false); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range g.audit(before) {
			got = append(got, auditLine(e)+" "+e.Actor.Address)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
	}
	g.clock.advance(time.Hour)
	write()
	one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	g.Denied(Denied{By: Actor{Kind: ActorKey, ID: "k", Address: one}, Code: "INSUFFICIENT_PERMISSIONS", Call: "POST /v1/auth/api-keys"})
	for range 3 {
		g.Denied(Denied{By: Actor{Address: other}, Code: "INVALID_API_KEY"})
	}
	g.Denied(Denied{By: Actor{Address: one}, Code: "INVALID_API_KEY"})
	write(`call.denied key k k  {"call":{"from":null,"to":"POST /v1/auth/api-keys"},"code":{"from":null,"to":"INSUFFICIENT_PERMISSIONS"}} 0 192.0.2.1`)
	g.clock.advance(30 * time.Second)
	g.Denied(Denied{By: Actor{Address: one}, Code: "INVALID_API_KEY"})
	write()
	g.clock.advance(30 * time.Second)
	write(`calls.refused system     2 192.0.2.1`, `calls.refused system     3 2001:db8::1`)
	for i := range maxStrangers + 5 {
		g.Denied(Denied{By: Actor{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}})
	}
	g.clock.advance(time.Minute)
	if list := g.engine.denials.take(g.engine.clock(), false); len(list) != maxStrangers+1 || list[maxStrangers].Count != 5 || list[maxStrangers].Actor.Address != "" {
		t.Errorf("%d entries, the last one %+v", len(list), list[len(list)-1])
	}
	for range maxDenials + 7 {
		g.Denied(Denied{By: Actor{Kind: ActorPerson, ID: "p"}})
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := g.engine.writeDenials(gone, st, false); err == nil {
		t.Error("no error")
	}
	list := g.engine.denials.take(g.engine.clock(), false)
	var n int64
	for _, e := range list {
		n += max(e.Count, 1)
	}
	if len(list) > maxDenials+1 || n != maxDenials+7 {
		t.Errorf("%d entries about %d calls", len(list), n)
	}
	g.Denied(Denied{By: Actor{Kind: ActorPerson, ID: "p"}})
	g.Denied(Denied{By: Actor{Address: one}})
	before := int64(len(g.audit(0)))
	g.restart() // writes what waits
	if all := g.audit(before); len(all) != 2 {
		t.Errorf("%+v", all)
	}
}

// TestAuditKeep: entries go when all configurations agree that they are old, and this process
// has seen them so for an hour.
func TestAuditKeep(t *testing.T) {
	g := newRig(t)
	ctx, st := context.Background(), g.engine.store.Load()
	day := 24 * time.Hour
	short, long := &Settings{Rules: DefaultRules(), AuditKeep: 10 * day.Milliseconds()}, &Settings{Rules: DefaultRules(), AuditKeep: KeepForever}
	detach, detachLong := g.engine.Attach(short), g.engine.Attach(long)
	defer detach()
	g.create(Draft{})
	left := func(d time.Duration, want int) {
		t.Helper()
		for range 400 { // more than an hour, as the loops do it
			g.clock.advance(10 * time.Second)
			g.engine.keeping.look(g.engine.clock())
		}
		g.clock.advance(d)
		if err := g.engine.trimAudit(ctx, st); err != nil {
			t.Fatal(err)
		}
		if n := len(g.audit(0)); n != want {
			t.Errorf("%d entries are left, want %d", n, want)
		}
	}
	left(11*day, 1) // for ever
	detachLong()
	left(0, 0)
	g.create(Draft{})
	left(9*day, 1)
	left(2*day, 1) // the clock has leaped
	left(0, 0)
}

// TestA10_kill kills a process that changes keys: what is changed is in the log, and what is
// in the log is changed.
func TestA10_kill(t *testing.T) {
	g := newRig(t)
	k := g.create(Draft{})
	var j journal
	var seen int64
	for range kills() {
		g.stop()
		j.round(t, g, k, 0, 8)
		g.start()
		last := map[string]string{} // action by key
		for _, e := range g.audit(seen) {
			seen = e.ID
			if e.KeyID == "" {
				continue
			}
			if before, known := last[e.KeyID]; known == (e.Action == ActionKeyCreated) || before == ActionKeyDeleted {
				t.Errorf("key %s: %s after %q", e.KeyID, e.Action, before)
			}
			last[e.KeyID] = e.Action
		}
		for id, word := range j.last {
			action := map[string]string{"created": ActionKeyCreated, "revoked": ActionKeyRevoked, "deleted": ActionKeyDeleted}[word]
			if action != "" && last[id] != action {
				t.Errorf("key %s was answered as %s, the log has %q", id, word, last[id])
			}
		}
		for id, action := range last {
			info, err := g.Get(context.Background(), id)
			was := ActionKeyCreated
			switch {
			case errors.Is(err, store.ErrNotFound):
				was = ActionKeyDeleted
			case err != nil:
				t.Fatal(err)
			case !info.Key.Enabled:
				was = ActionKeyRevoked
			}
			if was != action {
				t.Errorf("key %s: the log says %s, the record %s", id, action, was)
			}
		}
	}
	t.Logf("%d kills, %d changes answered, %d entries", kills(), j.acknowledged, seen)
}
