package keyring

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring/keyringtest"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// TestC8_Linearizable: whatever is done to a key at the same time, there is an order of the
// calls that explains all answers, also while keys leave memory all the time.
func TestC8_Linearizable(t *testing.T) {
	g := newRig(t)
	g.repeat(func() {
		g.flush()
		g.evict()
	})
	keyringtest.Linearizable(t, times(300, 10_000), func(n int) keyringtest.Key { return newRigKey(t, g, n) })
}

// rigKey is a key of an engine, alone with its owner.
type rigKey struct {
	g     *rig
	entry store.Entry
	raw   string
}

func newRigKey(t *testing.T, g *rig, n int) *rigKey {
	raw, err := key.Random{}.Generate("ak_", 64, true)
	if err != nil {
		t.Fatal(err)
	}
	now := g.clock.ms.Load()
	return &rigKey{g, store.Entry{Key: &key.Key{
		ID: fmt.Sprint("key ", n), UserID: fmt.Sprint("owner ", n), ConfigID: key.DefaultConfig, Prefix: ptr("ak_"), Hash: key.HashOf(raw), Checksummed: true,
		Enabled: true, Permissions: key.Permissions{"api": {"read"}}, CreatedAt: now, UpdatedAt: now,
	}}, raw}
}

func (k *rigKey) Raw() string { return k.raw }

func (k *rigKey) Create() (bool, error) {
	result, err := k.g.Import(context.Background(), []store.Entry{{Key: k.entry.Key.Clone()}}, false)
	return err == nil && result[0].Status == Created, err
}

func (k *rigKey) Use(raw string) (string, error) {
	d, err := k.g.Verify(context.Background(), raw, &Request{Cost: 1, Require: []key.Permission{{Resource: "api", Action: "read"}}})
	return d.Outcome.Code(), err
}

func (k *rigKey) Get() (keyringtest.View, error) {
	return viewOf(k.g.Get(context.Background(), k.entry.Key.ID))
}

func (k *rigKey) List() (keyringtest.View, error) {
	page, err := k.g.List(context.Background(), store.List{Filter: store.Filter{UserID: k.entry.Key.UserID}, Limit: 2})
	if err != nil || len(page.Keys) == 0 {
		return keyringtest.View{}, err
	}
	return viewOf(page.Keys[0], nil)
}

func (k *rigKey) Change(c keyringtest.Change) (keyringtest.View, error) {
	p := Patch{}
	if c.Enabled != nil {
		p.Enabled = to(*c.Enabled)
	}
	if c.Name != nil {
		p.Name = to(*c.Name)
	}
	if c.Permitted != nil {
		p.Permissions = to(key.Permissions{})
		if *c.Permitted {
			p.Permissions = to(k.entry.Key.Permissions)
		}
	}
	return viewOf(k.g.Update(context.Background(), k.entry.Key.ID, p))
}

func (k *rigKey) Rotate(grace bool) (string, error) {
	r := Rotation{}
	if grace {
		r.Grace = 60_000
	}
	issued, err := k.g.Rotate(context.Background(), k.entry.Key.ID, r)
	_, err = there(err)
	return issued.Raw, err
}

func (k *rigKey) Delete() (bool, error) {
	return there(k.g.Delete(context.Background(), k.entry.Key.ID))
}

// there tells from an error whether there is a key.
func there(err error) (bool, error) {
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func viewOf(i Info, err error) (v keyringtest.View, _ error) {
	if v.Exists, err = there(err); v.Exists {
		v.Enabled, v.Permitted = i.Key.Enabled, len(i.Key.Permissions) > 0
		if i.Key.Name != nil {
			v.Name = *i.Key.Name
		}
	}
	return v, err
}
