package sqlite

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Look-ups that are made at the same time share a read transaction, which is a third of
// the work of a lone look-up: the group commit's twin. One of their callers, the leader,
// reads for all of them. A lone caller has nobody to wait for, and no goroutine to wake,
// which would cost about as much as the look-up.

const (
	// finderCount is how many connections look keys up. More do not help: each has a
	// page cache of its own.
	finderCount = 2
	// lookupBatch is how many look-ups share a transaction at most.
	lookupBatch = 16
	// secondFinder is how many look-ups wait before the second connection is used too:
	// with the first one alone they share more.
	secondFinder = lookupBatch
	// slowBatch is after what time the look-ups of a batch are answered one by one, as on
	// a disk that has to be read: who waits tells by the answers that the store is there.
	slowBatch = 10 * time.Millisecond
)

// lookup is one look-up of a key.
type lookup struct {
	id   string // empty: by hash
	hash key.Hash

	// Guarded by lookups.mu:
	taken bool // a leader reads for it
	leads bool // turn has the connection to lead with
	// turn gets a connection, with which its caller has to lead, or nil when the look-up
	// is done. Each look-up gets one of them, unless its caller leads without.
	turn chan *finder

	err                        error
	num, revision, lastRequest int64
	doc                        string
	credits                    creditsRow
	windows                    []store.Window
	owner                      ownerRecord
	uses                       []previousUse
}

// previousUse is the last use of a previous raw key.
type previousUse struct {
	hash []byte
	last int64
}

// freeLookups are ready to be used again. Their channels are empty.
var freeLookups = sync.Pool{New: func() any { return &lookup{turn: make(chan *finder, 1)} }}

// lookups are the connections that look keys up, and who waits for them.
type lookups struct {
	owners  ownerCache
	callers atomic.Int64 // inside run

	mu      sync.Mutex
	free    []*finder
	waiting []*lookup // in the order of arrival

	batches atomic.Int64  // transactions, for tests
	reading func(*lookup) // for tests; nil: nothing
}

func openLookups(path, prefix string) (*lookups, error) {
	q := &lookups{}
	for range finderCount {
		f := &finder{path: path, prefix: prefix}
		if err := f.open(); err != nil {
			return nil, errors.Join(err, q.close())
		}
		q.free = append(q.free, f)
	}
	return q, nil
}

// close closes the connections. Nobody may look up any more.
func (q *lookups) close() (err error) {
	for _, f := range q.free {
		err = errors.Join(err, f.close())
	}
	return err
}

// run returns when l is done, or at the end of ctx, unless the caller reads at that
// moment. Then l must not be used again.
func (q *lookups) run(ctx context.Context, l *lookup) (done bool) {
	others := q.callers.Add(1) > 1
	defer q.callers.Add(-1)
	q.mu.Lock()
	q.waiting = append(q.waiting, l)
	if others {
		// Those who have just been served may be about to ask again.
		q.mu.Unlock()
		runtime.Gosched()
		q.mu.Lock()
	}
	f := q.mayLead(l)
	q.mu.Unlock()
	if f == nil {
		select {
		case f = <-l.turn:
		case <-ctx.Done():
			q.abandon(l)
			return false
		}
		if f == nil {
			return true
		}
		runtime.Gosched()
	}
	q.lead(f, l)
	return true
}

// mayLead returns a connection if the caller of l has to lead. It is called with mu locked.
func (q *lookups) mayLead(l *lookup) *finder {
	switch n := len(q.free); {
	case l.leads:
		return <-l.turn
	case l.taken || n == 0 || n < finderCount && len(q.waiting) < secondFinder:
		return nil
	default:
		f := q.free[n-1]
		q.free = q.free[:n-1]
		q.remove(l)
		return f
	}
}

func (q *lookups) remove(l *lookup) {
	if i := slices.Index(q.waiting, l); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
}

// abandon forgets a look-up whose caller does not wait any more.
func (q *lookups) abandon(l *lookup) {
	q.mu.Lock()
	leads := l.leads
	q.remove(l)
	q.mu.Unlock()
	if leads {
		q.release(<-l.turn)
	}
}

// lead reads for l and for those who wait.
func (q *lookups) lead(f *finder, l *lookup) {
	defer q.release(f)
	q.mu.Lock()
	n := min(len(q.waiting), lookupBatch-1)
	f.batch = append(append(f.batch[:0], l), q.waiting[:n]...)
	q.waiting = slices.Delete(q.waiting, 0, n)
	for _, l := range f.batch {
		l.taken = true
	}
	q.mu.Unlock()
	q.batches.Add(1)
	if err := q.read(f); err != nil {
		for _, l := range f.batch {
			if l != nil {
				l.err = err
			}
		}
	}
	answer(f.batch[1:])
	clear(f.batch)
}

// answer tells followers that their look-ups are done, and forgets them: each is its
// caller's again.
func answer(followers []*lookup) {
	for i, l := range followers {
		if l != nil {
			followers[i] = nil
			l.turn <- nil
		}
	}
}

// release gives the connection to who waits first, or keeps it for who comes.
func (q *lookups) release(f *finder) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.free = append(q.free, f)
		return
	}
	next := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	next.leads = true
	next.turn <- f
}

// read reads for all of a batch, in one transaction. An error is everybody's. A
// connection that nobody can rely on any more is replaced: now, or by the next batch.
func (q *lookups) read(f *finder) (err error) {
	if f.db == 0 {
		if err := f.open(); err != nil {
			return failed("opening the database for look-ups again", err)
		}
	}
	defer func() {
		if p := recover(); p != nil {
			f.forget()
			err = unavailable("reading keys: %v\n\n%s", p, debug.Stack())
		}
	}()
	// Before the transaction: what is read in it may be older than a change that is
	// counted later.
	changes := q.owners.changes()
	if len(f.batch) > 1 {
		if err := f.exec(f.begin); err != nil {
			return failed("beginning to read keys", err)
		}
	}
	began := time.Now()
	for i, l := range f.batch {
		if q.reading != nil {
			q.reading(l)
		}
		l.err = f.read(l, &q.owners, changes)
		if i > 0 && time.Since(began) > slowBatch {
			answer(f.batch[1 : i+1])
		}
	}
	if f.end() != nil {
		f.forget() // it would show the same moment for ever
	}
	return nil
}

// find runs a look-up.
func (s *Store) find(ctx context.Context, hash key.Hash, id string) (e store.Entry, err error) {
	if err := s.enter(); err != nil {
		return e, err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return e, unavailable("reading a key: %w", err)
	}
	l := freeLookups.Get().(*lookup)
	l.hash, l.id = hash, id
	if !s.lookups.run(ctx, l) {
		return e, unavailable("reading a key, too many look-ups wait: %w", ctx.Err())
	}
	if err = l.err; err == nil {
		e, err = l.entry()
	}
	*l = lookup{turn: l.turn}
	freeLookups.Put(l)
	return e, err
}

// entry decodes what was read. It runs in the goroutine of the caller. What cannot have been
// written by this package is an error.
func (l *lookup) entry() (e store.Entry, err error) {
	k, err := key.ParseDocument(l.doc)
	if err != nil {
		return e, damagedKey(l.num, err)
	}
	owner, ok := l.owner.of(k.UserID)
	if !ok {
		return e, damagedKey(l.num, errOtherOwner)
	}
	k.Revision = l.revision
	for _, u := range l.uses {
		used(k, u.hash, u.last)
	}
	e = store.Entry{Key: k, LastRequest: l.lastRequest, Windows: l.windows, Owner: owner}
	e.Credits, err = l.credits.orNone()
	return e, err
}

// Find implements store.Store.
func (s *Store) Find(ctx context.Context, hash key.Hash) (store.Entry, error) {
	e, err := s.find(ctx, hash, "")
	if errors.Is(err, store.ErrNotFound) {
		// A caller may know the key by another of its raw keys.
		return published(ctx, s, store.Entry{}, err)
	}
	if err != nil {
		return store.Entry{}, err
	}
	previous := func(p key.PreviousKey) bool { return p.Hash.Equal(hash) }
	if !e.Key.Hash.Equal(hash) && !slices.ContainsFunc(e.Key.Previous, previous) {
		// Only a damaged index leads from a hash to another key.
		return store.Entry{}, unavailable("finding a key: the index of hashes is damaged")
	}
	return e, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, id string) (store.Entry, error) {
	if id == "" || len(id) > boundSize {
		return store.Entry{}, store.ErrNotFound // no key has it
	}
	e, err := s.find(ctx, key.Hash{}, id)
	return published(ctx, s, e, err)
}
