// Package storetest is the suite that every store.Store passes. It knows the
// promises of package store and nothing of any engine.
package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Run runs the suite. Each call of open gives an opener of an empty store that
// nobody else uses; the suite may open it several times, one after another, and
// calls open from several tests at the same time.
func Run(t *testing.T, open func(t *testing.T) store.Opener) {
	t.Helper()
	groups := []struct {
		name  string
		tests []test
	}{
		{"Create", createTests},
		{"Import", importTests},
		{"Find", findTests},
		{"Update", updateTests},
		{"Changes", changeTests},
		{"Delete", deleteTests},
		{"Credits", creditTests},
		{"Counters", counterTests},
		{"Usage", usageTests},
		{"Owners", ownerTests},
		{"OwnerCounters", ownerCounterTests},
		{"Statistics", statisticsTests},
		{"Audit", auditTests},
		{"Outbox", outboxTests},
		{"List", listTests},
		{"Life", lifeTests},
		{"Concurrency", concurrencyTests},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, one := range g.tests {
				t.Run(one.name, func(t *testing.T) {
					t.Parallel()
					one.run(newEnv(t, open))
				})
			}
		})
	}
}

type test struct {
	name string
	run  func(*env)
}

// t0 is when the tests take place.
const t0 int64 = 1_800_000_000_000

// env is one open store under test.
type env struct {
	*testing.T
	ctx    context.Context
	opener store.Opener
	store  store.Store
	n      int // of keys made
}

func newEnv(t *testing.T, open func(t *testing.T) store.Opener) *env {
	t.Helper()
	e := &env{T: t, ctx: t.Context(), opener: open(t)}
	e.open()
	t.Cleanup(func() {
		e.ctx = context.Background()
		if _, err := e.store.Health(e.ctx); !errors.Is(err, store.ErrClosed) {
			e.checkAudit() // whatever the test did
		}
		if err := e.store.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func (e *env) open() {
	e.Helper()
	s, err := e.opener.Open(e.ctx)
	if err != nil {
		e.Fatalf("open: %v", err)
	}
	e.store = s
}

func (e *env) reopen() {
	e.Helper()
	e.must(e.store.Close())
	e.open()
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) wantErr(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("error %v, want %v", err, want)
	}
}

// newKey makes a plain key that is not stored yet.
func (e *env) newKey() *key.Key {
	e.n++
	return plainKey(e.n)
}

func plainKey(n int) *key.Key {
	return &key.Key{
		ID:          fmt.Sprintf("%024x", n),
		ConfigID:    key.DefaultConfig,
		UserID:      "alice",
		Hash:        hash("key", n),
		Checksummed: true,
		Enabled:     true,
		CreatedAt:   t0 + int64(n),
		UpdatedAt:   t0 + int64(n),
	}
}

func hash(kind string, n int) key.Hash {
	return sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
}

// create stores a plain key after change.
func (e *env) create(c key.Credits, change func(*key.Key)) store.Entry {
	e.Helper()
	k := e.newKey()
	if change != nil {
		change(k)
	}
	got, err := e.storeCreate(k, c)
	e.must(err)
	return got
}

func (e *env) get(id string) store.Entry {
	e.Helper()
	got, err := e.store.Get(e.ctx, id)
	e.must(err)
	return got
}

func limited(n int64) key.Credits { return key.NewCredits(&n, 0, 0, t0) }

func ptr[T any](v T) *T { return &v }

// fullKey has a value in every field.
func fullKey(n int) *key.Key {
	k := plainKey(n)
	k.ConfigID, k.UserID = "other", "Ünïcode 👩‍👩‍👧 владелец"
	k.Name = ptr("naïve \u202eRTL\u202c 名前 '; DROP TABLE keys; -- \"%_\\")
	k.Prefix, k.Start = ptr("ak_"), ptr("ak_0123456789")
	k.SecretHash = ptr(hash("secret", n))
	k.Previous = []key.PreviousKey{
		{Hash: hash("second", n), Start: "ak_9876543210", Until: t0 + 9, Checksummed: true, LastRequest: t0 - 3},
		{Hash: hash("first", n), Until: t0 - 9},
	}
	k.Checksummed, k.Enabled, k.DisabledBy = false, false, key.DisabledByOwner
	k.Permissions = key.Permissions{"files": {"write", "read"}, "*": {"*"}, "none": {}}
	k.Metadata = json.RawMessage(`{ "z": 1.50, "a" :[null, "\u0000", "é", 12345678901234567890] }`)
	k.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}
	k.ExpiresAt, k.CreatedAt, k.UpdatedAt, k.RotatedAt = t0+1000, t0, t0+1, t0+2
	k.RateLimitEnabled, k.RateLimitMax, k.RateLimitTimeWindow = true, 10, 60_000
	k.RateLimitAlgorithm = ratelimit.TokenBucket
	return k
}

// sameEntry compares entries and says what differs.
func (e *env) sameEntry(got, want store.Entry) {
	e.Helper()
	if diff := diffEntry(got, want); diff != "" {
		e.Fatal(diff)
	}
}

func diffEntry(got, want store.Entry) string {
	if (got.Key == nil) != (want.Key == nil) {
		return fmt.Sprintf("key: got %v, want %v", got.Key, want.Key)
	}
	if got.Key != nil {
		if d := diffStruct("key", *got.Key, *want.Key); d != "" {
			return d
		}
	}
	for _, d := range []string{
		diffStruct("credits", got.Credits, want.Credits),
		diffStruct("entry", struct {
			LastRequest int64
			Windows     []store.Window
		}{got.LastRequest, got.Windows}, struct {
			LastRequest int64
			Windows     []store.Window
		}{want.LastRequest, want.Windows}),
		diffStruct("owner", got.Owner, want.Owner),
	} {
		if d != "" {
			return d
		}
	}
	return ""
}

func diffStruct(name string, got, want any) string {
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if a, b := g.Field(i).Interface(), w.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			return fmt.Sprintf("%s.%s: got %s, want %s", name, g.Type().Field(i).Name, show(a), show(b))
		}
	}
	return ""
}

func show(v any) string {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer && !r.IsNil() {
		return fmt.Sprintf("&%#v", r.Elem().Interface())
	}
	return fmt.Sprintf("%#v", v)
}

// dump reads everything that the interface shows.
func (e *env) dump() map[string]store.Entry {
	e.Helper()
	all := map[string]store.Entry{}
	for _, entry := range e.pages(store.List{Limit: 500}) {
		all[entry.Key.ID] = entry
	}
	return all
}

// unchanged checks that nothing but the keys named differs from an earlier dump.
func (e *env) unchanged(before map[string]store.Entry, except ...string) {
	e.Helper()
	after := e.dump()
	for _, id := range except {
		delete(before, id)
		delete(after, id)
	}
	if len(before) != len(after) {
		e.Fatalf("%d other keys, want %d", len(after), len(before))
	}
	for id, want := range before {
		if d := diffEntry(after[id], want); d != "" {
			e.Fatalf("key %s was touched: %s", id, d)
		}
	}
}

// pages follows List to its end.
func (e *env) pages(q store.List) (all []store.Entry) {
	e.Helper()
	for {
		page, err := e.store.List(e.ctx, q)
		e.must(err)
		all = append(all, page.Entries...)
		if page.Next == "" {
			return all
		}
		if len(page.Entries) == 0 {
			e.Fatal("an empty page with a next one")
		}
		if page.Next == q.Cursor {
			e.Fatal("a page that comes again and again")
		}
		q.Cursor = page.Next
	}
}
