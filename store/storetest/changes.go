package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// The tests make changes through these, which hold each change against what it says.

func (e *env) storeCreate(k *key.Key, c key.Credits) (store.Entry, error) {
	change, err := e.store.Create(e.ctx, k, c, store.KeyLimit{}, note)
	return changedKey(change, k.ID, err)
}

func (e *env) storeUpdate(id string, f func(*store.Entry) error) (store.Entry, error) {
	change, err := e.store.Update(e.ctx, id, f, note)
	return changedKey(change, id, err)
}

func changedKey(c store.Change, id string, err error) (store.Entry, error) {
	switch {
	case err != nil:
		return store.Entry{}, err
	case c.Entry == nil || c.Owner != nil || c.Subject != store.OfKey(id) || c.Revision == 0 || c.Revision != c.Entry.Key.Revision:
		return store.Entry{}, fmt.Errorf("the change of key %s is %+v", id, c)
	}
	return *c.Entry, nil
}

func (e *env) storePutOwner(userID string, now int64, f func(*key.Owner) error) (store.OwnerInfo, error) {
	c, err := e.store.PutOwner(e.ctx, userID, now, f, note)
	switch {
	case err != nil:
		return store.OwnerInfo{}, err
	case c.Owner == nil || c.Entry != nil || c.Subject != store.OfOwner(userID) || c.Revision == 0 || c.Revision != c.Owner.Revision:
		return store.OwnerInfo{}, fmt.Errorf("the change of owner %s is %+v", userID, c)
	}
	return *c.Owner, nil
}

func (e *env) storeDelete(id string) error {
	c, err := e.store.Delete(e.ctx, id, note)
	if err == nil && (!c.Deleted() || c.Subject != store.OfKey(id) || c.Revision == 0) {
		return fmt.Errorf("the deletion of key %s is %+v", id, c)
	}
	return err
}

// storeDeleteExpired returns the keys that were deleted.
func (e *env) storeDeleteExpired(x store.Expired, limit int) (ids []string, err error) {
	changes, err := e.store.DeleteExpired(e.ctx, x, limit, note)
	for _, c := range changes {
		if c.Kind == store.KindKey && c.Deleted() {
			ids = append(ids, c.ID)
		}
	}
	return ids, errors.Join(err, rising(changes))
}

// storeDeleteOwner returns how many keys were deleted.
func (e *env) storeDeleteOwner(userID string) (keys int64, err error) {
	c, err := e.store.DeleteOwner(e.ctx, userID, note)
	if err == nil && (c.Subject != store.OfOwner(userID) || !c.Deleted() || c.Revision == 0) {
		return 0, fmt.Errorf("the deletion of owner %s is %+v", userID, c)
	}
	return c.Keys, err
}

func (e *env) storeImport(batch []store.Entry) (added []bool, err error) {
	changes, err := e.store.Import(e.ctx, batch, note)
	for i, c := range changes {
		if added = append(added, c.Revision != 0); added[i] {
			_, bad := changedKey(c, batch[i].Key.ID, nil)
			err = errors.Join(err, bad)
		}
	}
	return added, errors.Join(err, rising(changes))
}

func (e *env) storeImportOwners(batch []store.OwnerEntry) (added []bool, err error) {
	changes, err := e.store.ImportOwners(e.ctx, batch, note)
	for i, c := range changes {
		if added = append(added, c.Revision != 0); added[i] && (c.Subject != store.OfOwner(batch[i].UserID) || c.Owner.Revision != c.Revision) {
			err = fmt.Errorf("the change of owner %s is %+v", batch[i].UserID, c)
		}
	}
	return added, errors.Join(err, rising(changes))
}

// rising reports changes whose revisions do not grow; 0 is none.
func rising(changes []store.Change) error {
	last := int64(0)
	for _, c := range changes {
		if c.Revision == 0 {
			continue
		}
		if c.Revision <= last {
			return fmt.Errorf("revision %d after %d", c.Revision, last)
		}
		last = c.Revision
	}
	return nil
}

var changeTests = []test{
	{"every change is told once, in order, before the write returns", func(e *env) {
		var mu sync.Mutex
		var told []store.Change
		subscribe := func() (cancel func()) {
			return e.store.Subscribe(func(changes []store.Change) {
				mu.Lock()
				told = append(told, changes...)
				mu.Unlock()
			})
		}
		cancel := subscribe()
		want := func(name string, subjects ...store.Subject) {
			e.Helper()
			mu.Lock()
			defer mu.Unlock()
			var got []store.Subject
			for _, c := range told {
				got = append(got, c.Subject)
			}
			if !slices.Equal(got, subjects) {
				e.Errorf("%s: told of %v, want %v", name, got, subjects)
			}
			told = nil
		}
		a := e.create(limited(5), func(k *key.Key) { k.ExpiresAt = t0 })
		b := e.create(limited(5), func(k *key.Key) { k.Previous = []key.PreviousKey{{Hash: hash("old", 1), Until: t0}} })
		ka, kb := store.OfKey(a.Key.ID), store.OfKey(b.Key.ID)
		want("create", ka, kb)
		e.change(b.Key.ID, func(k *key.Key) { k.Enabled = false })
		want("update", kb)
		e.topUp(b.Key.ID, 3)
		want("credits", kb)
		e.change(b.Key.ID, func(*key.Key) {})
		want("no change")
		_, err := e.storeUpdate(b.Key.ID, func(en *store.Entry) error { en.Credits.Remaining++; return errors.New("mine") })
		if err == nil {
			e.Error("no error")
		}
		_, err = e.storeCreate(plainKey(1), key.Credits{}) // exists
		e.wantErr(err, store.ErrExists)
		want("errors")
		e.take(b.Key.ID, 1, t0)
		e.must(e.store.SaveCounters(e.ctx, []store.Counters{keyCounters(b.Key.ID, t0, []byte("x"))}))
		want("use")
		_, err = e.storePutOwner("alice", t0, func(o *key.Owner) error { o.Enabled = false; return nil })
		e.must(err)
		want("owner", store.OfOwner("alice"))
		_, err = e.storeImport([]store.Entry{{Key: plainKey(1)}, {Key: plainKey(77)}})
		e.must(err)
		_, err = e.storeImportOwners([]store.OwnerEntry{ownerEntry("alice"), ownerEntry("bob")})
		e.must(err)
		want("import", store.OfKey(plainKey(77).ID), store.OfOwner("bob"))
		_, err = e.storeDeleteExpired(expiredBefore(t0+1), 10)
		e.must(err)
		want("expired, and a previous raw key", ka, kb)
		e.must(e.storeDelete(b.Key.ID))
		want("delete", kb)
		_, err = e.storeDeleteOwner("alice")
		e.must(err)
		want("owner deleted", store.OfOwner("alice"))
		cancel()
		e.create(limited(1), nil)
		want("cancelled")
	}},
	{"revisions grow over the whole store, and over restarts", func(e *env) {
		var mu sync.Mutex
		var told []store.Change
		e.store.Subscribe(func(changes []store.Change) {
			mu.Lock()
			told = append(told, changes...)
			mu.Unlock()
		})
		var made sync.Map
		e.parallel(200, func(i int) error {
			k := plainKey(i + 1)
			k.UserID = fmt.Sprint("owner ", i%7)
			entry, err := e.storeCreate(k, key.Credits{})
			if err != nil {
				return err
			}
			if i%3 == 0 {
				entry, err = e.storeUpdate(k.ID, func(en *store.Entry) error {
					en.Key = en.Key.Clone()
					en.Key.Name = ptr("new")
					return nil
				})
			}
			made.Store(k.ID, entry.Key.Revision)
			return err
		})
		if err := rising(told); err != nil || len(told) != 267 {
			e.Errorf("%d changes, %v", len(told), err)
		}
		for id, entry := range e.dump() {
			if revision, _ := made.Load(id); entry.Key.Revision != revision {
				e.Errorf("key %s has revision %d, its change %d", id, entry.Key.Revision, revision)
			}
		}
		last := told[len(told)-1].Revision
		st, err := e.store.Health(e.ctx)
		e.must(err)
		e.must(e.storeDelete(told[len(told)-1].ID)) // its revision does not come again
		e.reopen()
		if again := e.create(key.Credits{}, func(k *key.Key) { k.ID, k.Hash = "again", hash("again", 1) }); st.Revision != last || again.Key.Revision != last+2 {
			e.Errorf("revision %d, then %d after a restart; health has %d", last, again.Key.Revision, st.Revision)
		}
	}},
}
