package keyring

import (
	"context"
	"fmt"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// exportPage is how many records are read at a time.
const exportPage = 1000

// Export calls owner for every owner and then each for every key, as they can be
// imported: with their hashes. What is counted in memory is counted in, and what
// is leased and not spent remains. Records that come or go meanwhile may be there
// or not. An error of a function ends it.
func (s *Service) Export(ctx context.Context, owner func(OwnerRecord) error, each func(store.Entry) error) error {
	st, err := s.engine.open(ctx)
	if err != nil {
		return err
	}
	if err := s.engine.flush(ctx, st); err != nil {
		return err
	}
	if err := exportOwners(ctx, st, owner); err != nil {
		return err
	}
	q := store.List{Limit: exportPage}
	for {
		page, err := st.List(ctx, q)
		if err != nil {
			return fmt.Errorf("reading keys: %w", err)
		}
		for i := range page.Entries {
			if err := each(s.current(page.Entries[i])); err != nil {
				return err
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
	}
}

func exportOwners(ctx context.Context, st store.Store, owner func(OwnerRecord) error) error {
	for cursor := ""; ; {
		page, err := st.Owners(ctx, exportPage, cursor)
		if err != nil {
			return fmt.Errorf("reading owners: %w", err)
		}
		for i := range page.Owners {
			o := OwnerRecord{Owner: page.Owners[i].Owner}
			if o.Windows, err = st.Windows(ctx, store.OfOwner(o.UserID)); err != nil {
				return fmt.Errorf("reading what an owner has used: %w", err)
			}
			if err := owner(o); err != nil {
				return err
			}
		}
		if cursor = page.Next; cursor == "" {
			return nil
		}
	}
}

// current is an entry with what is counted in memory.
func (s *Service) current(e store.Entry) store.Entry {
	now := s.engine.clock().wall
	if in, rec := s.engine.cache.current(e.Key.ID); rec != nil {
		c := in.counters(rec)
		e.LastRequest, e.Windows = c.LastRequest, c.Windows
		e.Credits = s.balance(in, e.Credits, now)
		e.Key = e.Key.Clone()
		e.Key.Previous = rec.used(e.Key.Previous)
	} else {
		e.Credits = e.Credits.At(now)
	}
	e.Credits.Remaining = min(e.Credits.Balance(), key.MaxCount)
	e.Credits.Leased = 0
	return e
}
