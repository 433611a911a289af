package sqlite

import (
	"context"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// OpenUntidied opens a database. Nothing is done behind its writes but by Clear.
func OpenUntidied(t testing.TB, path string) *Untidied {
	t.Helper()
	o, err := New(Options{Path: path})
	must(t, err)
	o.hooks.noTidying = true
	s, err := o.Open(t.Context())
	must(t, err)
	return &Untidied{s.(*Store)}
}

// Untidied is a store behind whose writes nothing is done.
type Untidied struct{ *Store }

// Clear clears some of what deleted owners have left.
func (s *Untidied) Clear(ctx context.Context) (more bool, err error) { return s.clearSome(ctx) }

// UntidiedOpener opens databases behind whose writes nothing is done. The first one has
// deleted owners in it.
type UntidiedOpener struct {
	*Opener
	LeaveDeleted func(context.Context, store.Store) error
}

// Open implements store.Opener.
func (o *UntidiedOpener) Open(ctx context.Context) (store.Store, error) {
	o.hooks.noTidying = true
	s, err := o.Opener.Open(ctx)
	if err != nil || o.LeaveDeleted == nil {
		return s, err
	}
	if err := o.LeaveDeleted(ctx, s); err != nil {
		return nil, err
	}
	o.LeaveDeleted = nil
	return s, s.(*Store).write(ctx, func(w *writerConn) error {
		_, err := w.exec(`UPDATE {p}revision SET last = 0`) // the suite begins with 1
		return err
	})
}
