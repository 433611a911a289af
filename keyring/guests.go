package keyring

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Stores, generators and validators are modules of others. A panic or a slow answer of
// one is the error of the request that met it, and not the end of the process. None but
// the store is called inside a transaction, which other writes wait for.

// generatorTimeout bounds how long a request waits for a raw key to be generated.
const generatorTimeout = 2 * time.Second

// recovered makes an error of a panic. Defer it.
func recovered(module string, err *error) {
	if p := recover(); p != nil {
		*err = panicked(module, p)
	}
}

// panicked returns the error for a panic. Its value is only told where it is one of the
// runtime: another might contain a key.
func panicked(module string, p any) error {
	if _, ok := p.(runtime.Error); !ok {
		p = fmt.Sprintf("%T", p)
	}
	return fmt.Errorf("%s panicked: %v\n\n%s", module, p, debug.Stack())
}

// askGenerator generates a raw key, and stops waiting for it after a while.
func (r *Rules) askGenerator(prefix string) (string, error) {
	type answer struct {
		raw string
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		var a answer
		defer func() { answered <- a }()
		defer recovered("the generator", &a.err)
		a.raw, a.err = r.Generator.Generate(prefix, r.Length, r.Checksum)
	}()
	timeout := time.NewTimer(generatorTimeout)
	defer timeout.Stop()
	select {
	case a := <-answered:
		return a.raw, a.err
	case <-timeout.C:
		return "", fmt.Errorf("the generator has not answered for %v", generatorTimeout)
	}
}

// askValidator asks one validator.
func askValidator(v key.Validator, raw string) (ok bool, err error) {
	defer recovered("a validator", &err)
	return v.Valid(raw), nil
}

// guarded is a store whose panics are errors. They are store.ErrUnavailable: what the
// store did before is not known.
type guarded struct{ store.Store }

func (guarded) recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %w", store.ErrUnavailable, panicked("the store", p))
	}
}

func openGuarded(ctx context.Context, o store.Opener) (g guarded, err error) {
	defer guarded{}.recovered(&err)
	g.Store, err = o.Open(ctx)
	return g, err
}

func (g guarded) Find(ctx context.Context, hash key.Hash) (e store.Entry, err error) {
	defer g.recovered(&err)
	return g.Store.Find(ctx, hash)
}

func (g guarded) Get(ctx context.Context, id string) (e store.Entry, err error) {
	defer g.recovered(&err)
	return g.Store.Get(ctx, id)
}

func (g guarded) List(ctx context.Context, q store.List) (p store.Page, err error) {
	defer g.recovered(&err)
	return g.Store.List(ctx, q)
}

func (g guarded) Create(ctx context.Context, k *key.Key, credits key.Credits, limit store.KeyLimit) (c store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.Create(ctx, k, credits, limit)
}

func (g guarded) Import(ctx context.Context, batch []store.Entry) (all []store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.Import(ctx, batch)
}

func (g guarded) Update(ctx context.Context, id string, change func(*store.Entry) error) (c store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.Update(ctx, id, change)
}

func (g guarded) Delete(ctx context.Context, id string) (c store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.Delete(ctx, id)
}

func (g guarded) DeleteExpired(ctx context.Context, x store.Expired, limit int) (all []store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.DeleteExpired(ctx, x, limit)
}

func (g guarded) MoveCredits(ctx context.Context, account store.Subject, m key.Move, now int64) (t store.Taken, err error) {
	defer g.recovered(&err)
	return g.Store.MoveCredits(ctx, account, m, now)
}

func (g guarded) ForfeitLeases(ctx context.Context, holder string) (err error) {
	defer g.recovered(&err)
	return g.Store.ForfeitLeases(ctx, holder)
}

func (g guarded) Account(ctx context.Context, account store.Subject) (a store.Account, err error) {
	defer g.recovered(&err)
	return g.Store.Account(ctx, account)
}

func (g guarded) UpdateAccount(ctx context.Context, account store.Subject, change func(*key.Credits) error) (a store.Account, err error) {
	defer g.recovered(&err)
	return g.Store.UpdateAccount(ctx, account, change)
}

func (g guarded) SaveCounters(ctx context.Context, batch []store.Counters) (err error) {
	defer g.recovered(&err)
	return g.Store.SaveCounters(ctx, batch)
}

func (g guarded) Windows(ctx context.Context, s store.Subject) (list []store.Window, err error) {
	defer g.recovered(&err)
	return g.Store.Windows(ctx, s)
}

func (g guarded) SaveUsage(ctx context.Context, b store.UsageBatch) (err error) {
	defer g.recovered(&err)
	return g.Store.SaveUsage(ctx, b)
}

func (g guarded) Usage(ctx context.Context, s store.Subject, first, last int32) (days []store.DayUses, err error) {
	defer g.recovered(&err)
	return g.Store.Usage(ctx, s, first, last)
}

func (g guarded) Owner(ctx context.Context, userID string) (o store.OwnerInfo, err error) {
	defer g.recovered(&err)
	return g.Store.Owner(ctx, userID)
}

func (g guarded) Owners(ctx context.Context, limit int, cursor string) (p store.OwnerPage, err error) {
	defer g.recovered(&err)
	return g.Store.Owners(ctx, limit, cursor)
}

func (g guarded) PutOwner(ctx context.Context, userID string, now int64, change func(*key.Owner) error) (c store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.PutOwner(ctx, userID, now, change)
}

func (g guarded) ImportOwners(ctx context.Context, batch []store.OwnerEntry) (all []store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.ImportOwners(ctx, batch)
}

func (g guarded) DeleteOwner(ctx context.Context, userID string) (c store.Change, err error) {
	defer g.recovered(&err)
	return g.Store.DeleteOwner(ctx, userID)
}

// follow is Subscribe, with a panic as an error.
func (g guarded) follow(f func([]store.Change)) (cancel func(), err error) {
	defer g.recovered(&err)
	return g.Subscribe(f), nil
}

func (g guarded) EachHash(ctx context.Context, f func(key.Hash)) (err error) {
	defer g.recovered(&err)
	return g.Store.EachHash(ctx, f)
}

func (g guarded) HasPlainKeys(ctx context.Context) (plain bool, err error) {
	defer g.recovered(&err)
	return g.Store.HasPlainKeys(ctx)
}

func (g guarded) Health(ctx context.Context) (s store.Status, err error) {
	defer g.recovered(&err)
	return g.Store.Health(ctx)
}

// ErrNoBackup is returned where the store does not implement store.Backuper.
var ErrNoBackup = errors.New("this store makes no backups: use those of its database")

func (g guarded) Backup(ctx context.Context) (b *store.Backup, err error) {
	defer g.recovered(&err)
	if s, ok := g.Store.(store.Backuper); ok {
		return s.Backup(ctx)
	}
	return nil, ErrNoBackup
}

func (g guarded) Close() (err error) {
	defer g.recovered(&err)
	return g.Store.Close()
}
