package admin

import (
	"errors"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// MaxImportBody is the longest body of an import.
const MaxImportBody = 4 << 20

// MaxImport is how many records one import may hold.
const MaxImport = 500

// ImportKeys is the body of POST /apikey/keys/import.
type ImportKeys struct {
	Owners []api.Each[OwnerRecord] `json:"owners,omitzero" max:"500" doc:"imported before the keys"`
	Keys   []api.Each[KeyRecord]   `json:"keys,omitzero" max:"500"`
	DryRun *bool                   `json:"dryRun,omitzero" doc:"answer the same, and write nothing; default false"`
}

// Imported is the answer to an import: the results of the owners and then those
// of the keys, in the order in which they were sent.
type Imported struct {
	Results   []ImportResult `json:"results"`
	Created   int64          `json:"created"`
	Exists    int64          `json:"exists"`
	Conflicts int64          `json:"conflicts"`
	Invalid   int64          `json:"invalid"`
}

// ImportResult tells what became of one record.
type ImportResult struct {
	Kind   string  `json:"kind" enum:"owner|key"`
	ID     *string `json:"id" doc:"of the key, or the owner's userId; null where it is not one"`
	Status string  `json:"status" enum:"created|exists|conflict|invalid" doc:"only what is created changes anything"`
	Error  string  `json:"error,omitempty" doc:"why there is a conflict, or what is invalid"`
	Field  string  `json:"field,omitempty" doc:"the field that is to blame"`
}

func importKeys(c *api.Call, in ImportKeys) (Imported, error) {
	if n := len(in.Owners) + len(in.Keys); n == 0 || n > MaxImport {
		return Imported{}, api.BadRequest("there must be 1 to 500 keys and owners")
	}
	dryRun := api.Or(in.DryRun, false)
	out := Imported{Results: make([]ImportResult, 0, len(in.Owners)+len(in.Keys))}
	owners, err := batchOf(c, in.Owners, onceEach(in.Owners))
	if err != nil {
		return Imported{}, err
	}
	done, err := edit(c, func(e *keyring.Editor) ([]keyring.Imported, error) {
		return e.ImportOwners(c.Context(), owners.good, dryRun)
	})
	if err != nil {
		return Imported{}, err
	}
	owners.report(&out, "owner", done, func(r *OwnerRecord) string { return r.UserID })
	keys, err := batchOf(c, in.Keys, shutOwners(in.Owners, out.Results).entry)
	if err != nil {
		return Imported{}, err
	}
	if done, err = edit(c, func(e *keyring.Editor) ([]keyring.Imported, error) { return e.Import(c.Context(), keys.good, dryRun) }); err != nil {
		return Imported{}, err
	}
	keys.report(&out, "key", done, func(r *KeyRecord) string { return r.ID })
	return out, nil
}

// batch is a list of records on its way to the keyring. Those that could not be
// read stay behind.
type batch[W, R any] struct {
	sent []api.Each[W]
	good []R
	bad  []*keyring.Imported // by place in sent; nil: it is in good
}

func batchOf[W, R any](c *api.Call, sent []api.Each[W], read func(*W, int64) (R, error)) (batch[W, R], error) {
	b := batch[W, R]{sent: sent, bad: make([]*keyring.Imported, len(sent))}
	now := c.Keys.Now()
	for i := range sent {
		err := sent[i].Err
		if err == nil {
			var r R
			if r, err = read(&sent[i].Value, now); err == nil {
				b.good = append(b.good, r)
				continue
			}
		}
		if b.bad[i], err = resultOf(err); err != nil {
			return b, err
		}
	}
	return b, nil
}

// resultOf returns the result for a record that stays behind, or the error that
// is none of the record's.
func resultOf(err error) (*keyring.Imported, error) {
	if shut, ok := errors.AsType[*shutError](err); ok {
		return &keyring.Imported{Status: shut.status, Reason: &keyring.FieldError{Field: "userId", Message: shut.Error()}}, nil
	}
	if bad, ok := errors.AsType[*keyring.FieldError](err); ok {
		return &keyring.Imported{Status: keyring.Refused, Reason: &keyring.FieldError{Field: bad.Field, Message: bad.Error()}}, nil
	}
	if bad, ok := errors.AsType[*api.Error](err); ok {
		return &keyring.Imported{Status: keyring.Refused, Reason: &keyring.FieldError{Message: bad.Message}}, nil
	}
	return nil, err
}

// report adds the results of a batch to an answer.
func (b *batch[W, R]) report(out *Imported, kind string, done []keyring.Imported, id func(*W) string) {
	for i := range b.sent {
		r := ImportResult{Kind: kind}
		if name := id(&b.sent[i].Value); keyring.CheckUserID(name) == nil {
			r.ID = &name
		}
		if bad := b.bad[i]; bad != nil {
			r.Status, r.Field, r.Error = string(bad.Status), bad.Reason.Field, bad.Reason.Message
		} else {
			r.Status = string(done[0].Status)
			if why := done[0].Reason; why != nil {
				r.Field, r.Error = why.Field, why.Error()
			}
			done = done[1:]
		}
		out.count(r)
	}
}

func (out *Imported) count(r ImportResult) {
	out.Results = append(out.Results, r)
	switch keyring.ImportStatus(r.Status) {
	case keyring.Created:
		out.Created++
	case keyring.Exists:
		out.Exists++
	case keyring.Conflict:
		out.Conflicts++
	default:
		out.Invalid++
	}
}
