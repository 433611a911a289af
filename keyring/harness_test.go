package keyring

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// times is how often a test does what it does: now and then in its short form,
// which runs with the others, or as often as the reliability bar asks for in the
// long one. CONTRIBUTING.md has the command.
func times(short, long int) int {
	if os.Getenv("APIKEY_LONG") != "" {
		return long
	}
	return short
}

// fakeClock is a clock that tests set.
type fakeClock struct {
	ms atomic.Int64
	// later is a lock: who holds it finds the clock an hour ahead.
	later atomic.Pointer[sync.Mutex]
}

func (c *fakeClock) now() time.Time {
	t := time.UnixMilli(c.ms.Load())
	if mu := c.later.Load(); mu != nil {
		if !mu.TryLock() {
			return t.Add(time.Hour)
		}
		mu.Unlock()
	}
	return t
}

func (c *fakeClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// spy is a store that counts calls and can be stopped at one of them.
type spy struct {
	store.Store
	store.Statistics
	finds, gets, takes, saves atomic.Int64
	mu                        sync.Mutex
	afterFind                 func()                                   // runs when the row has been read, before it is returned
	beforeSave                func([]store.Counters, store.UsageBatch) // of one of which there is none
	failTake                  error
	afterPassed               func()         // runs when keys were found whose time has come
	afterMove                 func(key.Move) // runs when the movement is durable, before it is answered
	stall                     atomic.Pointer[stall]
	panics                    atomic.Bool // in whatever requests need
	failReads                 atomic.Bool // Find, Get and Windows
	failWrites                atomic.Bool // of what requests take and count
	failHealth                atomic.Bool
}

func (s *spy) Health(ctx context.Context) (store.Status, error) {
	if s.failHealth.Load() {
		return store.Status{}, store.ErrUnavailable
	}
	return s.Store.Health(ctx)
}

// write reports how a write of what requests take or count fails.
func (s *spy) write() error {
	s.mayPanic()
	if s.failWrites.Load() {
		return fmt.Errorf("%w: no space", store.ErrUnavailable)
	}
	return nil
}

func (s *spy) mayPanic() {
	if s.panics.Load() {
		panic("canary")
	}
}

// stall stops the writes of what is counted, of one kind, or whoever has read all
// hashes.
type stall struct {
	kind    string        // "counters", "usage" or "hashes"
	release chan struct{} // closed when they go on
	waiting atomic.Int64
}

// stop begins a stall.
func (s *spy) stop(kind string) *stall {
	st := &stall{kind: kind, release: make(chan struct{})}
	s.stall.Store(st)
	return st
}

// wait waits where there is a stall of that kind.
func (s *spy) wait(kind string) {
	if st := s.stall.Load(); st != nil && st.kind == kind {
		st.waiting.Add(1)
		<-st.release
	}
}

func (s *spy) Find(ctx context.Context, hash key.Hash) (store.Entry, error) {
	s.mayPanic()
	s.finds.Add(1)
	if s.failReads.Load() {
		return store.Entry{}, store.ErrUnavailable
	}
	e, err := s.Store.Find(ctx, hash)
	s.mu.Lock()
	hook := s.afterFind
	s.mu.Unlock()
	if hook != nil {
		hook()
	}
	return e, err
}

func (s *spy) Get(ctx context.Context, id string) (store.Entry, error) {
	s.gets.Add(1)
	if s.failReads.Load() {
		return store.Entry{}, store.ErrUnavailable
	}
	return s.Store.Get(ctx, id)
}

func (s *spy) Windows(ctx context.Context, of store.Subject) ([]store.Window, error) {
	if s.failReads.Load() {
		return nil, store.ErrUnavailable
	}
	return s.Store.Windows(ctx, of)
}

func (s *spy) onFind(hook func()) {
	s.mu.Lock()
	s.afterFind = hook
	s.mu.Unlock()
}

func (s *spy) onSave(hook func([]store.Counters, store.UsageBatch)) {
	s.mu.Lock()
	s.beforeSave = hook
	s.mu.Unlock()
}

func (s *spy) save(batch []store.Counters, usage store.UsageBatch) {
	s.mu.Lock()
	hook := s.beforeSave
	s.mu.Unlock()
	if hook != nil {
		hook(batch, usage)
	}
}

func (s *spy) onMove(hook func(key.Move)) {
	s.mu.Lock()
	s.afterMove = hook
	s.mu.Unlock()
}

func (s *spy) MoveCredits(ctx context.Context, account store.Subject, m key.Move, now int64) (store.Taken, error) {
	s.takes.Add(1)
	if err := s.write(); err != nil {
		return store.Taken{}, err
	}
	if s.failTake != nil {
		return store.Taken{}, s.failTake
	}
	t, err := s.Store.MoveCredits(ctx, account, m, now)
	s.mu.Lock()
	hook := s.afterMove
	s.mu.Unlock()
	if hook != nil {
		hook(m)
	}
	return t, err
}

func (s *spy) onPassed(hook func()) {
	s.mu.Lock()
	s.afterPassed = hook
	s.mu.Unlock()
}

func (s *spy) Passed(ctx context.Context, m store.Moment, after store.Mark, until int64, limit int) ([]store.Passed, error) {
	list, err := s.Store.Passed(ctx, m, after, until, limit)
	s.mu.Lock()
	hook := s.afterPassed
	s.mu.Unlock()
	if hook != nil && len(list) > 0 {
		hook()
	}
	return list, err
}

func (s *spy) SaveCounters(ctx context.Context, batch []store.Counters) error {
	s.saves.Add(1)
	if err := s.write(); err != nil {
		return err
	}
	s.wait("counters")
	s.save(batch, store.UsageBatch{})
	return s.Store.SaveCounters(ctx, batch)
}

func (s *spy) SaveUsage(ctx context.Context, b store.UsageBatch) error {
	if err := s.write(); err != nil {
		return err
	}
	s.wait("usage")
	s.save(nil, b)
	return s.Store.SaveUsage(ctx, b)
}

func (s *spy) EachHash(ctx context.Context, f func(key.Hash)) error {
	s.mayPanic()
	err := s.Store.EachHash(ctx, f)
	s.wait("hashes")
	return err
}

// spyOpener opens a spy.
type spyOpener struct {
	store.Opener
	opened *spy
}

func (o *spyOpener) Open(ctx context.Context) (store.Store, error) {
	st, err := o.Opener.Open(ctx)
	if err != nil {
		return nil, err
	}
	o.opened = &spy{Store: st, Statistics: st.(store.Statistics)}
	return o.opened, nil
}

// rig is an engine over a real store, with a clock that tests set.
type rig struct {
	t       testing.TB
	path    string
	clock   *fakeClock
	engine  *Engine
	spy     *spy
	lease   int64 // of the settings, from the next start on
	*Editor       // an operator's
}

func newRig(t testing.TB, change ...func(*Rules)) *rig {
	t.Helper()
	g := &rig{t: t, path: filepath.Join(t.TempDir(), "keys.db"), clock: new(fakeClock)}
	g.clock.ms.Store(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC).UnixMilli())
	g.start(change...)
	t.Cleanup(g.stop)
	return g
}

func (g *rig) start(change ...func(*Rules)) {
	g.t.Helper()
	opener, err := sqlite.New(sqlite.Options{Path: g.path})
	if err != nil {
		g.t.Fatal(err)
	}
	so := &spyOpener{Opener: opener}
	g.engine = New(so, g.clock.now, func(err error) { g.t.Error(err) })
	for _, d := range []*time.Duration{&g.engine.lookupTimeout, &g.engine.lookups.silence, &g.engine.lookups.patience, &g.engine.accounts.timeout} {
		*d = time.Minute // the machine may be busy
	}
	if err := g.engine.Open(context.Background()); err != nil {
		g.t.Fatal(err)
	}
	g.spy = so.opened
	// What a look-up costs depends on whether the filter is there.
	for g.engine.cache.members.current.Load() == nil {
		runtime.Gosched()
	}
	rules := DefaultRules()
	for _, f := range change {
		f(&rules)
	}
	g.use(&Settings{Rules: rules, Lease: g.lease})
}

func (g *rig) stop() {
	if err := g.engine.Close(); err != nil {
		g.t.Error(err)
	}
}

// restart closes the engine and opens another one on the same file.
func (g *rig) restart() {
	g.t.Helper()
	g.stop()
	g.start()
}

// repeat calls f without a pause, until the function it returns is called or the
// test ends, however it does.
func (g *rig) repeat(f func()) (end func()) {
	var stop atomic.Bool
	var work sync.WaitGroup
	work.Go(func() {
		for !stop.Load() {
			f()
		}
	})
	end = func() {
		stop.Store(true)
		work.Wait()
	}
	g.t.Cleanup(end)
	return end
}

func (g *rig) create(d Draft) Issued {
	g.t.Helper()
	return g.createBy(g.Editor, d)
}

func (g *rig) createBy(e *Editor, d Draft) Issued {
	g.t.Helper()
	if d.UserID == "" {
		d.UserID = "alice"
	}
	issued, err := e.Create(context.Background(), d)
	if err != nil {
		g.t.Fatal(err)
	}
	return issued
}

func (g *rig) update(id string, p Patch) Info {
	g.t.Helper()
	i, err := g.Update(context.Background(), id, p)
	if err != nil {
		g.t.Fatal(err)
	}
	return i
}

func (g *rig) rotate(id string, r Rotation) Issued {
	g.t.Helper()
	issued, err := g.Rotate(context.Background(), id, r)
	if err != nil {
		g.t.Fatal(err)
	}
	return issued
}

func (g *rig) get(id string) Info {
	g.t.Helper()
	i, err := g.Get(context.Background(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return i
}

// verify asks with a cost of 1 unless q says otherwise.
func (g *rig) verify(raw string, q ...Request) Decision {
	g.t.Helper()
	request := Request{Cost: 1}
	if len(q) > 0 {
		request = q[0]
	}
	d, err := g.Verify(context.Background(), raw, &request)
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

func (g *rig) want(raw string, o Outcome, q ...Request) Decision {
	g.t.Helper()
	d := g.verify(raw, q...)
	if d.Outcome != o {
		g.t.Fatalf("outcome %q, want %q", d.Outcome.Code(), o.Code())
	}
	return d
}

func ptr[T any](v T) *T { return &v }

func to[T any](v T) Field[T] { return Field[T]{Set: true, Value: &v} }

func cleared[T any]() Field[T] { return Field[T]{Set: true} }

// more is Extend by value.
func (g *rig) more(ctx context.Context, before *Decision, q *Request) (d Decision, err error) {
	err = g.Extend(ctx, before, q, &d)
	return d, err
}

// evict lets all keys that may leave memory leave it, and their owners.
func (g *rig) evict() {
	c := &g.engine.cache
	for hash := range c.keys.Keys() {
		if e, ok := c.keys.Invalidate(hash); ok {
			c.unpin(e)
		}
	}
}

// entry returns a key in memory, or nil.
func (g *rig) entry(id string) *entry { return g.engine.cache.get(id) }

// inMemory returns how many keys and owners are in memory.
func (g *rig) inMemory() (keys, owners int) {
	c := &g.engine.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID), len(c.owners)
}

// use gives the engine other settings.
func (g *rig) use(s *Settings) {
	g.Editor = NewService(g.engine, s).As(Actor{Kind: ActorOperator})
}

// within returns an editor of somebody with a scope.
func (g *rig) within(scope *Scope) *Editor { return g.As(Actor{Kind: ActorPerson, Scope: scope}) }

// only returns an editor of somebody who may know of some keys.
func (g *rig) only(scope *Scope, only func(*key.Key) bool) *Editor {
	return g.As(Actor{Kind: ActorPerson, Scope: scope, Only: only})
}
