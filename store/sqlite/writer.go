package sqlite

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// queueSize is how many writes may wait; more callers wait for room.
	queueSize = 4096
	// batchSize is how many writes share a transaction at most.
	batchSize = 512
)

// hooks are for tests only.
type hooks struct {
	beforeCommit func() error // its error is the commit's
	noTidying    bool         // nothing is done behind the writes
}

// job is one write on its way through the queue.
type job struct {
	run    func(*writerConn) error // nil: a movement of credits
	note   store.Note              // of what run changes
	credit movement

	// ended is called in the goroutine of the writer when err is final, if run was.
	ended func(error)

	state    atomic.Int32
	done     chan struct{} // closed when err is final
	err      error
	panicked any // what run panicked with
}

const (
	queued    = iota
	begun     // the writer has taken it
	abandoned // its caller has gone before that
)

// writer owns the connection that writes. Its one goroutine runs what waits,
// in the order of arrival, in as few transactions as it can.
type writer struct {
	conn   *writerConn
	watch  *watch
	hooks  hooks
	owners *ownerCache
	feed   feed
	queue  chan *job
	ended  chan struct{}

	// doubt is why the connection must be opened anew before it is used again.
	doubt error

	unindexed atomic.Bool // keys may have been changed since they were indexed

	commits atomic.Int64 // transactions that ended well, for tests
}

func newWriter(c *writerConn, files *watch, h hooks, owners *ownerCache) *writer {
	return &writer{conn: c, watch: files, hooks: h, owners: owners, queue: make(chan *job, queueSize), ended: make(chan struct{})}
}

// write runs f inside a transaction and returns when that is durable. What f
// did is undone if f returns an error.
func (s *Store) write(ctx context.Context, f func(*writerConn) error) error {
	return s.submit(ctx, &job{run: f})
}

// writeFor is write for a function with a result. The result is touched by the
// caller only where the write has ended: a caller that stopped waiting shares
// nothing with the function that may still run.
func writeFor[T any](ctx context.Context, s *Store, f func(*writerConn) (T, error)) (T, error) {
	return changeFor(ctx, s, nil, f)
}

// changeFor is writeFor for changes that the audit log has a note of.
func changeFor[T any](ctx context.Context, s *Store, note store.Note, f func(*writerConn) (T, error)) (T, error) {
	var result, none T
	err := s.submit(ctx, &job{note: note, run: func(c *writerConn) (err error) {
		result, err = f(c)
		return err
	}})
	if err != nil {
		return none, err
	}
	return result, nil
}

// submit queues a job and waits for its end, or for the end of ctx. Then, if
// the job has not begun, it never will.
func (s *Store) submit(ctx context.Context, j *job) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if ctx.Err() != nil {
		return unavailable("nothing was written: %w", ctx.Err())
	}
	j.done = make(chan struct{})
	select {
	case s.writer.queue <- j:
	case <-ctx.Done():
		return unavailable("nothing was written, too many writes wait: %w", ctx.Err())
	case <-s.closing:
		return store.ErrClosed
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.state.CompareAndSwap(queued, abandoned) {
			return unavailable("nothing was written: %w", ctx.Err())
		}
		return unavailable("gave up waiting for a write that had begun: %w", ctx.Err())
	}
	if j.panicked != nil {
		panic(j.panicked) // where it belongs: with the caller whose function it was
	}
	return j.err
}

// close ends the writer once the queue is empty. Nobody may submit any more.
func (w *writer) close() error {
	close(w.queue)
	<-w.ended
	return w.conn.close()
}

func (w *writer) loop() {
	defer close(w.ended)
	batch := make([]*job, 0, batchSize)
	for j := range w.queue {
		batch = w.gather(append(batch, j))
		w.process(batch)
		clear(batch)
		batch = batch[:0]
	}
}

// gather adds what waits already. It never waits for more: a lone write is not
// held up, and under load the batch fills while the one before it is committed.
func (w *writer) gather(batch []*job) []*job {
	for len(batch) < batchSize {
		select {
		case j, ok := <-w.queue:
			if !ok {
				return batch
			}
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

// process runs a batch and tells everybody.
func (w *writer) process(batch []*job) {
	live := make([]*job, 0, len(batch))
	for _, j := range batch {
		if j.state.CompareAndSwap(queued, begun) {
			live = append(live, j)
		}
	}
	if len(live) == 0 {
		return
	}
	w.conn.changes, w.conn.owners = nil, nil
	if err := w.transact(live); err != nil {
		for _, j := range live {
			j.err = err // also of those that were refused: what they saw was undone
		}
	} else {
		if len(w.conn.changes) > 0 {
			w.unindexed.Store(true)
		}
		w.owners.forget(w.conn.owners)
		w.feed.publish(w.conn.changes)
	}
	w.feed.end()
	for _, j := range live {
		if j.ended != nil {
			j.ended(j.err)
		}
		close(j.done)
	}
}

// transact runs jobs in one transaction. An error is everybody's, and then
// nothing of the batch is stored.
func (w *writer) transact(jobs []*job) error {
	if w.doubt != nil {
		if err := w.watch.check(); err != nil { // or a new file would be made
			return err
		}
		if err := w.conn.reopen(); err != nil {
			return unavailable("the database failed (%w) and cannot be opened again: %w", w.doubt, err)
		}
		w.doubt = nil
	}
	if _, err := w.conn.exec("BEGIN IMMEDIATE"); err != nil {
		w.distrust(err)
		return failed("begin", err)
	}
	err := w.runAll(jobs)
	if err == nil {
		err = w.commit()
	}
	if err == nil {
		w.commits.Add(1)
		return nil
	}
	w.distrust(err)
	if _, rollbackErr := w.conn.exec("ROLLBACK"); rollbackErr != nil {
		// SQLite may have rolled back by itself; to be sure, begin afresh.
		w.doubt = err
	}
	return err
}

func (w *writer) distrust(err error) {
	if distrusted(err) {
		w.doubt = err
	}
}

func (w *writer) runAll(jobs []*job) error {
	l := newLedger(w.conn)
	for _, j := range jobs {
		if j.run == nil {
			if err := l.move(j); err != nil {
				return err
			}
			continue
		}
		// The job may read or write credits: what is pending must be there.
		if err := l.flush(); err != nil {
			return err
		}
		if err := w.runOne(j); err != nil {
			return err
		}
	}
	return l.flush()
}

// runOne runs a job inside a savepoint, so that its failure undoes its own work
// only. An error returned means that the transaction cannot go on.
func (w *writer) runOne(j *job) error {
	if _, err := w.conn.exec("SAVEPOINT job"); err != nil {
		return failed("savepoint", err)
	}
	before := len(w.conn.changes)
	j.err = w.call(j)
	if !harmless(j.err) {
		return j.err
	}
	if j.err == nil && j.panicked == nil {
		// What is wrong with reading is wrong with the transaction.
		if err := w.conn.noteOwners(w.conn.changes[before:]); err != nil {
			return err
		}
	} else {
		w.conn.changes = w.conn.changes[:before]
		if _, err := w.conn.exec("ROLLBACK TO job"); err != nil {
			return failed("undoing a write", err)
		}
	}
	if _, err := w.conn.exec("RELEASE job"); err != nil {
		return failed("release", err)
	}
	return nil
}

// call keeps a panic of a caller's function from ending the writer.
func (w *writer) call(j *job) error {
	defer func() {
		if p := recover(); p != nil {
			j.panicked = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
		}
	}()
	before := len(w.conn.changes)
	if err := j.run(w.conn); err != nil {
		return err
	}
	return w.conn.note(j.note, w.conn.changes[before:])
}

func (w *writer) commit() error {
	if err := w.watch.check(); err != nil {
		return err
	}
	if w.hooks.beforeCommit != nil {
		if err := w.hooks.beforeCommit(); err != nil {
			return failed("commit", err)
		}
	}
	w.feed.begin(w.conn.changes)
	if _, err := w.conn.exec("COMMIT"); err != nil {
		return failed("commit", err)
	}
	return nil
}
