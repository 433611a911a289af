package keyring

import (
	"context"
	"errors"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// ImportStatus is what became of a record that was to be imported.
type ImportStatus string

const (
	Created  ImportStatus = "created"
	Exists   ImportStatus = "exists"   // it is here already; what is here stays as it is
	Conflict ImportStatus = "conflict" // something else is here in its place, and stays
	Refused  ImportStatus = "invalid"
)

// Imported is the answer for one record.
type Imported struct {
	Status ImportStatus
	Reason *FieldError // nil for Created and Exists
}

func conflict(field, message string) Imported {
	return Imported{Conflict, &FieldError{field, InvalidField, message}}
}

// Import adds keys as they were elsewhere: with their IDs, hashes, counters and
// credits. The rules for new keys (lengths, expiration, what is required) do not
// bind them, so that what was exported can always come back. Nothing that exists
// is changed. A dry run answers the same and writes nothing. Revisions,
// versions and owners of the entries are not looked at.
func (s *Editor) Import(ctx context.Context, batch []store.Entry, dryRun bool) ([]Imported, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return nil, err
	}
	take := s.importKeys
	if dryRun {
		take = foresee
	}
	return importGood(batch, s.checkEntry, func(good []store.Entry) ([]Imported, error) { return take(ctx, st, good) })
}

// importGood takes what of a batch can be taken, and answers for all of it.
func importGood[T any](batch []T, check func(*T) error, take func([]T) ([]Imported, error)) ([]Imported, error) {
	results := make([]Imported, len(batch))
	var good []T
	var at []int // places of the good ones in the batch
	for i := range batch {
		err := check(&batch[i])
		if bad, ok := errors.AsType[*FieldError](err); ok {
			results[i] = Imported{Refused, bad}
			continue
		}
		if err != nil {
			return nil, err
		}
		good, at = append(good, batch[i]), append(at, i)
	}
	some, err := take(good)
	if err != nil {
		return nil, err
	}
	for n, i := range at {
		results[i] = some[n]
	}
	return results, nil
}

// importKeys stores keys.
func (s *Editor) importKeys(ctx context.Context, st *opened, batch []store.Entry) ([]Imported, error) {
	ctx = context.WithoutCancel(ctx)
	record := s.record(s.noteMany(ActionKeysImported))
	changes, err := st.Import(ctx, batch, record.note)
	if err != nil {
		return nil, err
	}
	s.changed(record, made(changes)...)
	results := make([]Imported, len(batch))
	for i := range batch {
		if changes[i].Revision != 0 {
			results[i].Status = Created
		} else if results[i], err = whatIsThere(ctx, st, batch[i].Key); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// made returns those of the changes of an import that were made.
func made(changes []store.Change) []store.Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c store.Change) bool { return c.Revision == 0 })
}

// whatIsThere tells why a key could not be added.
func whatIsThere(ctx context.Context, st store.Store, k *key.Key) (Imported, error) {
	e, err := st.Get(ctx, k.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return conflict("hash", "a raw key of this record belongs to a key with another id"), nil
	case err != nil:
		return Imported{}, err
	case e.Key.Hash.Equal(k.Hash):
		return Imported{Status: Exists}, nil
	default:
		return conflict("id", "belongs to a key with another raw key"), nil
	}
}

// foresee answers as importKeys would, and writes nothing.
func foresee(ctx context.Context, st *opened, batch []store.Entry) ([]Imported, error) {
	results := make([]Imported, len(batch))
	ids, hashes := map[string]key.Hash{}, map[key.Hash]bool{} // of this batch
	for i := range batch {
		k := batch[i].Key
		var err error
		if results[i], err = foreseeOne(ctx, st, k, ids, hashes); err != nil {
			return nil, err
		}
		if results[i].Status == Created {
			ids[k.ID] = k.Hash
			for _, h := range hashesOf(k) {
				hashes[h] = true
			}
		}
	}
	return results, nil
}

func foreseeOne(ctx context.Context, st store.Store, k *key.Key, ids map[string]key.Hash, hashes map[key.Hash]bool) (Imported, error) {
	if h, ok := ids[k.ID]; ok {
		if h.Equal(k.Hash) {
			return Imported{Status: Exists}, nil
		}
		return conflict("id", "belongs to a key with another raw key"), nil
	}
	_, err := st.Get(ctx, k.ID)
	if !errors.Is(err, store.ErrNotFound) {
		return whatIsThere(ctx, st, k)
	}
	for _, h := range hashesOf(k) {
		if !hashes[h] {
			_, err = st.Find(ctx, h)
		}
		if hashes[h] || err == nil {
			return whatIsThere(ctx, st, k)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return Imported{}, err
		}
	}
	return Imported{Status: Created}, nil
}

// hashesOf returns the hashes of all raw keys of a key.
func hashesOf(k *key.Key) []key.Hash {
	list := []key.Hash{k.Hash}
	for _, f := range k.Previous {
		list = append(list, f.Hash)
	}
	return list
}

// maxName is the longest name that a configuration can allow.
const maxName = 1000

// checkEntry checks a whole record, and writes its metadata in compact form.
func (s *Service) checkEntry(e *store.Entry) error {
	k := e.Key
	if err := checkID("id", k.ID); err != nil {
		return err
	}
	if err := s.checkOwner(k.UserID, k.ConfigID); err != nil {
		return err
	}
	if _, err := s.rulesOf(&k.ConfigID); err != nil {
		return err
	}
	if err := checkWords(k); err != nil {
		return err
	}
	if err := checkRateCounts(orNil(k.RateLimitMax), orNil(k.RateLimitTimeWindow)); err != nil {
		return err
	}
	if !k.DisabledBy.Valid(k.Enabled) {
		return invalid("disabledBy", "must be owner, operator or leak, and only beside enabled false")
	}
	if !k.Enabled && k.DisabledBy == "" {
		k.DisabledBy = key.DisabledByOperator
	}
	if err := checkTimes(k, e.LastRequest); err != nil {
		return err
	}
	if err := checkPrevious(k); err != nil {
		return err
	}
	if rate := e.Window(store.UnitRate); len(rate) > 0 && new(ratelimit.State).UnmarshalBinary(rate) != nil {
		return invalid("rateState", "must be an exported value")
	}
	return checkCredits(&e.Credits)
}

func checkWords(k *key.Key) error {
	if k.Name != nil {
		if _, err := atMost(maxName, "name")(*k.Name); err != nil {
			return err
		}
	}
	if k.Prefix != nil && !key.ValidPrefix(*k.Prefix) {
		return invalid("prefix", "must be at most %d of a-z A-Z 0-9 _ -", key.MaxPrefixLen)
	}
	if k.Start != nil {
		if err := checkStart("start", *k.Start); err != nil {
			return err
		}
	}
	return AttributesOf(k).Put(k, nil)
}

func checkStart(field, start string) error {
	if len(start) > key.DisplayLen || start != "" && key.CheckShape(start, false) != nil {
		return invalid(field, "must be at most %d of a-z A-Z 0-9 _ -", key.DisplayLen)
	}
	return nil
}

func checkTimes(k *key.Key, lastRequest int64) error {
	for _, t := range []struct {
		field string
		at    int64
	}{
		{"expiresAt", k.ExpiresAt},
		{"createdAt", k.CreatedAt},
		{"updatedAt", k.UpdatedAt},
		{"rotatedAt", k.RotatedAt},
		{"lastRequest", lastRequest},
	} {
		if t.at < 0 || t.at > key.MaxTime {
			return invalid(t.field, "must lie in the years 1970 to 9999")
		}
	}
	return nil
}

// checkPrevious also keeps one raw key from being in a record twice.
func checkPrevious(k *key.Key) error {
	if len(k.Previous) > key.MaxPrevious {
		return invalid("previousKeys", "must be at most %d", key.MaxPrevious)
	}
	seen := []key.Hash{k.Hash}
	for _, p := range k.Previous {
		if slices.Contains(seen, p.Hash) {
			return invalid("previousKeys.hash", "must be there only once, and not be that of the key")
		}
		if p.Until < 0 || p.Until > key.MaxTime {
			return invalid("previousKeys.until", "must lie in the years 1970 to 9999")
		}
		if p.LastRequest < 0 || p.LastRequest > key.MaxTime {
			return invalid("previousKeys.lastRequest", "must lie in the years 1970 to 9999")
		}
		if err := checkStart("previousKeys.start", p.Start); err != nil {
			return err
		}
		seen = append(seen, p.Hash)
	}
	return nil
}

// checkCredits also makes the sum of the ledger.
func checkCredits(c *key.Credits) error {
	if err := checkRefill(orNil(c.RefillAmount), orNil(c.RefillInterval)); err != nil {
		return err
	}
	for _, n := range []struct {
		field string
		value int64
	}{
		{"remaining", c.Remaining},
		{"peak", c.Peak},
		{"spent", c.Spent},
		{"forfeited", c.Forfeited},
		{"refillFrom", c.RefillFrom},
		{"lastRefillAt", c.LastRefillAt},
	} {
		if err := checkCount(n.field, &n.value, 0); err != nil {
			return err
		}
	}
	c.Peak = max(c.Peak, c.Remaining)
	c.Granted = c.Remaining + c.Spent + c.Forfeited
	return nil
}

// orNil is nil for 0.
func orNil(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}
