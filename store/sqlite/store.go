package sqlite

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// Store is an open database. It implements store.Store.
type Store struct {
	path    string // absolute, without symbolic links
	lock    *fileLock
	readers *readers
	lists   *readers
	lookups *lookups
	writer  *writer
	watch   *watch

	usage    usageJournal // of the writer
	unfolded atomic.Int64 // usage.size()

	foldNow, clearNow      chan struct{} // wake tidy
	tidied                 chan struct{} // closed when tidy has ended
	folds, indexes, clears attempts
	report                 func(error) // failures that no caller waits for

	backups chan struct{} // holds what the backup that exists has put into it

	foldPart    int   // foldSize; less in tests
	maxUnfolded int64 // the constant; less in tests

	mu       sync.RWMutex // guards closed against calls that begin
	closed   bool
	closing  chan struct{}  // closed with the store
	inflight sync.WaitGroup // calls that have begun
}

// enter begins a call; the caller calls leave at its end.
func (s *Store) enter() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return store.ErrClosed
	}
	s.inflight.Add(1)
	return nil
}

func (s *Store) leave() { s.inflight.Done() }

// Close implements store.Store. The readers are closed before the writer: the
// last connection to close folds the log into the database and removes it, and
// only one that can write is able to.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return store.ErrClosed
	}
	s.closed = true
	s.mu.Unlock()

	close(s.closing) // wakes those who wait for room in the queue, and ends tidy
	<-s.tidied
	s.inflight.Wait()
	err := errors.Join(s.closeReaders(), s.writer.close())
	return errors.Join(err, s.lock.release())
}

// closeReaders closes the readers that have been opened.
func (s *Store) closeReaders() (err error) {
	if s.lookups != nil {
		err = s.lookups.close()
	}
	for _, r := range []*readers{s.readers, s.lists} {
		if r != nil {
			err = errors.Join(err, r.close())
		}
	}
	return err
}

// Health implements store.Store. It asks a reader and the writer, and looks
// whether the files are still there; where the writer had lost trust in its
// connection, it is here that it tries again if nobody else writes.
func (s *Store) Health(ctx context.Context) (store.Status, error) {
	st := store.Status{Kind: "sqlite", Database: s.path, Backlog: s.Backlog()}
	if err := s.write(ctx, func(*writerConn) error { return nil }); err != nil {
		return store.Status{}, err
	}
	if err := s.enter(); err != nil {
		return store.Status{}, err
	}
	defer s.leave()
	if err := errors.Join(s.folds.persistent(), s.indexes.persistent(), s.clears.persistent()); err != nil {
		return store.Status{}, err
	}
	const query = `SELECT sqlite_version(),
		(SELECT coalesce(max(version_id), 0) FROM {p}` + schemaTable + ` WHERE is_applied),
		(SELECT coalesce(sum(n), 0) FROM (` + keyCounts + `)),
		(SELECT last FROM {p}revision),
		h.id, h.chain FROM (SELECT 1) LEFT JOIN (` + auditHead + `) h`
	stmt, err := s.readers.stmts.get(query)
	if err == nil {
		var head nullNumber // the log may be empty
		var chain nullText
		err = stmt.QueryRowContext(ctx).Scan(&st.Version, &st.Schema, &st.Keys, &st.Revision, &head, &chain)
		st.Audit = store.AuditPoint{ID: head.Int64, Chain: chain.String}
	}
	if err != nil {
		return store.Status{}, failed("health", err)
	}
	return st, nil
}

var _ store.Store = (*Store)(nil)
