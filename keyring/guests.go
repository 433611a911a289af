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

// guarded is a store whose panics are errors, and whose calls a Monitor is told of. Panics
// are store.ErrUnavailable: what the store did before is not known.
type guarded struct {
	store.Store
	monitor Monitor
	now     func() time.Time
}

// ended tells of a call when it has ended. Defer it.
func (g guarded) ended(operation string, began time.Time, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %w", store.ErrUnavailable, panicked("the store", p))
	}
	g.monitor.StoreCalled(operation, g.now().Sub(began), *err)
}

func (r *Engine) openGuarded(ctx context.Context) (g guarded, err error) {
	g.monitor, g.now = r.monitor, r.now
	defer g.ended("open", g.now(), &err)
	g.Store, err = r.opener.Open(ctx)
	return g, err
}

func (g guarded) Find(ctx context.Context, hash key.Hash) (e store.Entry, err error) {
	defer g.ended("find", g.now(), &err)
	return g.Store.Find(ctx, hash)
}

func (g guarded) Get(ctx context.Context, id string) (e store.Entry, err error) {
	defer g.ended("get", g.now(), &err)
	return g.Store.Get(ctx, id)
}

func (g guarded) List(ctx context.Context, q store.List) (p store.Page, err error) {
	defer g.ended("list", g.now(), &err)
	return g.Store.List(ctx, q)
}

func (g guarded) Create(ctx context.Context, k *key.Key, credits key.Credits, limit store.KeyLimit, note store.Note) (c store.Change, err error) {
	defer g.ended("create", g.now(), &err)
	return g.Store.Create(ctx, k, credits, limit, note)
}

func (g guarded) Import(ctx context.Context, batch []store.Entry, note store.Note) (all []store.Change, err error) {
	defer g.ended("import", g.now(), &err)
	return g.Store.Import(ctx, batch, note)
}

func (g guarded) Update(ctx context.Context, id string, change func(*store.Entry) error, note store.Note) (c store.Change, err error) {
	defer g.ended("update", g.now(), &err)
	return g.Store.Update(ctx, id, change, note)
}

func (g guarded) Delete(ctx context.Context, id string, note store.Note) (c store.Change, err error) {
	defer g.ended("delete", g.now(), &err)
	return g.Store.Delete(ctx, id, note)
}

func (g guarded) DeleteExpired(ctx context.Context, x store.Expired, limit int, note store.Note) (all []store.Change, err error) {
	defer g.ended("delete_expired", g.now(), &err)
	return g.Store.DeleteExpired(ctx, x, limit, note)
}

func (g guarded) MoveCredits(ctx context.Context, account store.Subject, m key.Move, now int64) (t store.Taken, err error) {
	defer g.ended("move_credits", g.now(), &err)
	return g.Store.MoveCredits(ctx, account, m, now)
}

func (g guarded) ForfeitLeases(ctx context.Context, holder string, note store.ForfeitNote) (n int64, err error) {
	defer g.ended("forfeit_leases", g.now(), &err)
	return g.Store.ForfeitLeases(ctx, holder, note)
}

func (g guarded) Account(ctx context.Context, account store.Subject) (a store.Account, err error) {
	defer g.ended("account", g.now(), &err)
	return g.Store.Account(ctx, account)
}

func (g guarded) UpdateAccount(ctx context.Context, account store.Subject, change func(*key.Credits) error) (a store.Account, err error) {
	defer g.ended("update_account", g.now(), &err)
	return g.Store.UpdateAccount(ctx, account, change)
}

func (g guarded) SaveCounters(ctx context.Context, batch []store.Counters) (err error) {
	defer g.ended("save_counters", g.now(), &err)
	return g.Store.SaveCounters(ctx, batch)
}

func (g guarded) Windows(ctx context.Context, s store.Subject) (list []store.Window, err error) {
	defer g.ended("windows", g.now(), &err)
	return g.Store.Windows(ctx, s)
}

func (g guarded) SaveUsage(ctx context.Context, b store.UsageBatch) (err error) {
	defer g.ended("save_usage", g.now(), &err)
	return g.Store.SaveUsage(ctx, b)
}

func (g guarded) Usage(ctx context.Context, s store.Subject, first, last int32) (days []store.DayUses, err error) {
	defer g.ended("usage", g.now(), &err)
	return g.Store.Usage(ctx, s, first, last)
}

func (g guarded) Owner(ctx context.Context, userID string) (o store.OwnerInfo, err error) {
	defer g.ended("owner", g.now(), &err)
	return g.Store.Owner(ctx, userID)
}

func (g guarded) Owners(ctx context.Context, limit int, cursor string) (p store.OwnerPage, err error) {
	defer g.ended("owners", g.now(), &err)
	return g.Store.Owners(ctx, limit, cursor)
}

func (g guarded) PutOwner(ctx context.Context, userID string, now int64, change func(*key.Owner) error, note store.Note) (c store.Change, err error) {
	defer g.ended("put_owner", g.now(), &err)
	return g.Store.PutOwner(ctx, userID, now, change, note)
}

func (g guarded) ImportOwners(ctx context.Context, batch []store.OwnerEntry, note store.Note) (all []store.Change, err error) {
	defer g.ended("import_owners", g.now(), &err)
	return g.Store.ImportOwners(ctx, batch, note)
}

func (g guarded) DeleteOwner(ctx context.Context, userID string, note store.Note) (c store.Change, err error) {
	defer g.ended("delete_owner", g.now(), &err)
	return g.Store.DeleteOwner(ctx, userID, note)
}

func (g guarded) Audit(ctx context.Context, q store.AuditQuery) (p store.AuditPage, err error) {
	defer g.ended("audit", g.now(), &err)
	return g.Store.Audit(ctx, q)
}

func (g guarded) AppendAudit(ctx context.Context, noted store.Noted) (err error) {
	defer g.ended("append_audit", g.now(), &err)
	return g.Store.AppendAudit(ctx, noted)
}

func (g guarded) TrimAudit(ctx context.Context, before int64, limit int) (n int, err error) {
	defer g.ended("trim_audit", g.now(), &err)
	return g.Store.TrimAudit(ctx, before, limit)
}

func (g guarded) ClaimDeliveries(ctx context.Context, url string, now, until int64, limit int) (claimed []store.Delivery, next int64, err error) {
	defer g.ended("claim_deliveries", g.now(), &err)
	return g.Store.ClaimDeliveries(ctx, url, now, until, limit)
}

func (g guarded) EndDeliveries(ctx context.Context, delivered []string, failed []store.Delivery) (err error) {
	defer g.ended("end_deliveries", g.now(), &err)
	return g.Store.EndDeliveries(ctx, delivered, failed)
}

func (g guarded) RetryDelivery(ctx context.Context, id string, now int64) (d store.Delivery, err error) {
	defer g.ended("retry_delivery", g.now(), &err)
	return g.Store.RetryDelivery(ctx, id, now)
}

func (g guarded) Deliveries(ctx context.Context, q store.DeliveryQuery) (p store.DeliveryPage, err error) {
	defer g.ended("deliveries", g.now(), &err)
	return g.Store.Deliveries(ctx, q)
}

func (g guarded) ExpireDeliveries(ctx context.Context, pending, dead int64, limit int) (n int, err error) {
	defer g.ended("expire_deliveries", g.now(), &err)
	return g.Store.ExpireDeliveries(ctx, pending, dead, limit)
}

func (g guarded) Mark(ctx context.Context, name string) (m store.Mark, ok bool, err error) {
	defer g.ended("mark", g.now(), &err)
	return g.Store.Mark(ctx, name)
}

func (g guarded) SetMark(ctx context.Context, name string, m store.Mark, outbox []store.Delivery) (err error) {
	defer g.ended("set_mark", g.now(), &err)
	return g.Store.SetMark(ctx, name, m, outbox)
}

func (g guarded) Passed(ctx context.Context, m store.Moment, after store.Mark, until int64, limit int) (list []store.Passed, err error) {
	defer g.ended("passed", g.now(), &err)
	return g.Store.Passed(ctx, m, after, until, limit)
}

// reportSpending is ReportSpending, with a panic as an error.
func (g guarded) reportSpending(s store.Spending) (err error) {
	defer g.ended("report_spending", g.now(), &err)
	g.Store.ReportSpending(s)
	return nil
}

// follow is Subscribe, with a panic as an error.
func (g guarded) follow(f func([]store.Change)) (cancel func(), err error) {
	defer g.ended("subscribe", g.now(), &err)
	return g.Subscribe(f), nil
}

func (g guarded) EachHash(ctx context.Context, f func(key.Hash)) (err error) {
	defer g.ended("each_hash", g.now(), &err)
	return g.Store.EachHash(ctx, f)
}

func (g guarded) HasPlainKeys(ctx context.Context) (plain bool, err error) {
	defer g.ended("has_plain_keys", g.now(), &err)
	return g.Store.HasPlainKeys(ctx)
}

func (g guarded) Health(ctx context.Context) (s store.Status, err error) {
	defer g.ended("health", g.now(), &err)
	return g.Store.Health(ctx)
}

// ErrNoBackup is returned where the store does not implement store.Backuper.
var ErrNoBackup = errors.New("this store makes no backups: use those of its database")

func (g guarded) Backup(ctx context.Context) (b *store.Backup, err error) {
	defer g.ended("backup", g.now(), &err)
	if s, ok := g.Store.(store.Backuper); ok {
		return s.Backup(ctx)
	}
	return nil, ErrNoBackup
}

func (g guarded) Close() (err error) {
	defer g.ended("close", g.now(), &err)
	return g.Store.Close()
}

// Figures is that of store.Statistics, where the store keeps them.
func (g guarded) Figures(ctx context.Context, now int64, until []int64) (f store.Figures, err error) {
	s, ok := g.Store.(store.Statistics)
	if !ok {
		return f, errors.ErrUnsupported
	}
	defer g.ended("figures", g.now(), &err)
	return s.Figures(ctx, now, until)
}

// AskedPermissions is that of store.Statistics, where the store keeps them.
func (g guarded) AskedPermissions(ctx context.Context, id string) (all []string, err error) {
	s, ok := g.Store.(store.Statistics)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	defer g.ended("asked_permissions", g.now(), &err)
	return s.AskedPermissions(ctx, id)
}

// backlog is that of store.Statistics, where the store keeps them.
func (g guarded) backlog() int {
	if s, ok := g.Store.(store.Statistics); ok {
		return s.Backlog()
	}
	return 0
}
