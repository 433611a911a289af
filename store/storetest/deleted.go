package storetest

import (
	"context"
	"fmt"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// LeaveDeleted makes owners with the names, keys, hashes and counters that the suite uses,
// and deletes them. A store that clears a deleted owner away behind its writes passes the
// suite beside them all the same, but for revisions.
func LeaveDeleted(ctx context.Context, s store.Store) error {
	var keys []*key.Key
	for n := range 12 {
		keys = append(keys, plainKey(n))
	}
	full := fullKey(100)
	full.UserID = "alice"
	keys = append(keys, full, fullKey(77))
	for i, k := range keys {
		if i%3 == 1 {
			k.Previous = []key.PreviousKey{{Hash: hash("former", i), Until: t0}}
			k.ExpiresAt = t0 + 1
		}
		if i%4 == 1 && k.UserID == "alice" {
			k.UserID = "bob"
		}
		if _, err := s.Create(ctx, k, limited(50), store.KeyLimit{}, nil); err != nil {
			return fmt.Errorf("making a key to be deleted: %w", err)
		}
		usage := store.UsageBatch{
			Writer: "earlier", Number: int64(i + 1), Used: []store.Used{used(k.ID, k.UserID, 20261120, 5, 5, 5)},
			Asked: []store.Asked{{KeyID: k.ID, Permission: "files:read"}},
		}
		counters := []store.Counters{keyCounters(k.ID, t0-5, []byte("earlier")), ownerCounted(k.UserID, "day", 9)}
		if err := s.SaveUsage(ctx, usage); err != nil {
			return err
		}
		if err := s.SaveCounters(ctx, counters); err != nil {
			return err
		}
	}
	if _, err := s.Delete(ctx, plainKey(3).ID, nil); err != nil { // whose usage stays till then
		return err
	}
	for _, owner := range []string{"alice", "bob", fullKey(1).UserID} {
		if _, err := s.DeleteOwner(ctx, owner, nil); err != nil {
			return fmt.Errorf("deleting an owner: %w", err)
		}
	}
	return nil
}
