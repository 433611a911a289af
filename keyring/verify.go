package keyring

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// Verify decides about a request that carries raw, and takes what it costs. A
// refusal takes nothing. The error tells why the outcome is Unavailable, for the
// log; it is nil for every other outcome.
func (s *Service) Verify(ctx context.Context, raw string, q *Request) (d Decision, err error) {
	err = s.VerifyInto(ctx, raw, q, &d)
	return d, err
}

// VerifyInto is Verify for the way of every request: it writes into d, which is
// zero. By value, the copies of a decision alone would make the stack of each
// connection grow, after each garbage collection anew.
func (s *Service) VerifyInto(ctx context.Context, raw string, q *Request, d *Decision) error {
	began := s.began()
	err := s.verify(ctx, raw, q, d)
	s.limitGuess(d, q)
	s.decided(d, q, began)
	return err
}

func (s *Service) verify(ctx context.Context, raw string, q *Request, d *Decision) error {
	if key.CheckShape(raw, false) != nil {
		d.Outcome = Invalid
		return nil //nolint:nilerr // the outcome tells
	}
	rules := s.sole(q.ConfigIDs)
	if rules != nil {
		if err := d.validate(rules, raw); err != nil || d.Outcome != Allowed {
			return err
		}
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		d.refuse(Unavailable, unavailableWait, true)
		return err
	}
	if !s.checksumFits(raw) {
		d.Outcome = Invalid
		return nil
	}
	c := credential{hash: key.HashOf(raw)}
	if rules == nil {
		c.unjudged = raw
	}
	return s.decide(ctx, st, c, nil, q, d)
}

// validate asks the validators of a configuration about a raw key.
func (d *Decision) validate(r *Rules, raw string) error {
	ok, err := r.accepts(raw)
	switch {
	case err != nil:
		d.refuse(Unavailable, unavailableWait, true)
	case !ok:
		d.Outcome = Invalid
	}
	return err
}

// credential is what opens a key. unjudged is the raw key where the validators of
// its configuration have still to see it: which they are, only the record tells.
type credential struct {
	hash     key.Hash
	unjudged string
}

// checksumFits holds the checksum against raw, unless a key without one is stored.
func (s *Service) checksumFits(raw string) bool {
	return s.engine.cache.plain.Load() || key.ChecksumFits(raw)
}

// Checksums reports whether every key ends in a checksum: no stored one lacks it,
// and no configuration makes keys without.
func (s *Service) Checksums() bool {
	without := func(r Rules) bool { return !r.Checksum }
	return !s.engine.cache.plain.Load() && !without(s.set.Rules) && !slices.ContainsFunc(s.set.Configs, without)
}

// Recognizes reports whether a value of a request may be a key of this server: its
// checksum fits, or, where keys without a checksum are stored, one has it.
func (s *Service) Recognizes(ctx context.Context, raw string) (bool, error) {
	switch {
	case key.CheckShape(raw, false) != nil:
		return false, nil //nolint:nilerr // no, it is none
	case key.ChecksumFits(raw):
		return true, nil
	case !s.engine.cache.plain.Load():
		return false, nil
	}
	return s.Has(ctx, raw)
}

// Has reports whether a value is a key that is stored. Nothing is counted.
func (s *Service) Has(ctx context.Context, raw string) (bool, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return false, err
	}
	e, _, err := s.engine.find(ctx, st, key.HashOf(raw))
	return e != nil, err
}

// Prefixes returns the prefixes of new keys, of all configurations.
func (s *Service) Prefixes() []string { return s.prefixes }

// Extend decides about a request that an earlier gate has admitted and that meets another
// one: the record of the key is checked for the new demands, and what q costs more than
// before is taken. Where d admits the request, it replaces before; else Cancel takes
// before back. It writes into d, which is zero.
func (s *Service) Extend(ctx context.Context, before *Decision, q *Request, d *Decision) error {
	began := s.began()
	err := s.extend(ctx, before, q, d)
	s.decided(d, q, began)
	return err
}

func (s *Service) extend(ctx context.Context, before *Decision, q *Request, d *Decision) error {
	st, err := s.engine.open(ctx)
	if err != nil {
		d.refuse(Unavailable, unavailableWait, true)
		return err
	}
	return s.decide(ctx, st, credential{hash: before.hash}, before, q, d)
}

// decide finds the key and admits the request.
func (s *Service) decide(ctx context.Context, st *opened, c credential, before *Decision, q *Request, d *Decision) error {
	for {
		e, lookedUp, err := s.engine.find(ctx, st, c.hash)
		d.lookedUp = d.lookedUp || lookedUp
		if err != nil {
			d.refuse(Unavailable, unavailableWait, true)
			return err
		}
		if e == nil {
			d.Outcome = Invalid
			return nil
		}
		err = s.admit(ctx, st, e, c, before, q, d)
		if errors.Is(err, errEvicted) {
			*d = Decision{lookedUp: d.lookedUp}
			continue // the key was let go of between finding and counting: find it again
		}
		return err
	}
}

const (
	// unavailableWait is when a client should try again that met a store which
	// could not be asked.
	unavailableWait = int64(time.Second / time.Millisecond)
)

// Refusal is a decision that no key is behind.
func Refusal(o Outcome) (d Decision) {
	d.Outcome = o
	if o == Unavailable {
		d.refuse(o, unavailableWait, true)
	}
	return d
}

// Refused tells the observers of a refusal that a caller of this package has made itself,
// without asking about a key. An invalid key may become a refusal by the limit of guesses.
func (s *Service) Refused(d *Decision, q *Request) {
	s.limitGuess(d, q)
	s.decided(d, q, time.Time{})
}

// errEvicted is returned where the key left memory after it was found.
var errEvicted = errors.New("the key has left memory")

// find returns the key that a raw key opens, or nil for one that opens none. It asks
// the store only about raw keys that memory does not know, and reports whether it did.
func (r *Engine) find(ctx context.Context, st *opened, hash key.Hash) (_ *entry, lookedUp bool, err error) {
	if e := r.cache.find(hash); e != nil {
		return e, false, nil
	}
	if r.cache.excludes(hash) {
		return nil, false, nil
	}
	e, err := r.lookUp(ctx, st, hash)
	if ctx.Err() == nil { // else the client has gone, which says nothing of the store
		r.degrade(PartIdentity, err)
	}
	return e, true, err
}

// lookUp asks the store, once for all who ask at the same time.
func (r *Engine) lookUp(ctx context.Context, st *opened, hash key.Hash) (*entry, error) {
	for {
		began := r.cache.mark()
		found, err := r.lookups.ask(ctx, &r.cache.loads, string(hash[:]), func(ctx context.Context) (any, error) {
			return r.cache.load(ctx, st, hash)
		})
		if err != nil {
			return nil, err
		}
		if l := found.(loaded); r.cache.stands(l, hash, began) {
			return l.entry, nil
		}
	}
}

// admit checks the record of a key, then takes what the request costs beyond what
// earlier gates have taken. before is their decision, or nil.
func (s *Service) admit(ctx context.Context, st *opened, e *entry, c credential, before *Decision, q *Request, d *Decision) error {
	rec := e.rec.Load()
	switch {
	case rec == nil:
		d.Outcome = Invalid
		return nil
	case rec == unloaded:
		return errEvicted
	case s.engine.cache.lacks(rec):
		s.engine.cache.forget(c.hash)
		return errEvicted
	}
	rules := s.rulesFor(rec.key)
	counted := s.limited(rec, rules) || e.metered()
	var now instant
	if !counted || rec.key.ExpiresAt != 0 || len(rec.key.Previous) > 0 {
		now = s.engine.clock()
	} // else only charge needs the time, which it reads under its locks
	match := e.match(rec.key, c.hash, now.wall)
	if !match.OK {
		d.Outcome = Invalid
		return nil
	}
	if c.unjudged != "" {
		if err := d.validate(rules, c.unjudged); err != nil || d.Outcome != Allowed {
			return err
		}
	}
	d.at, d.hash, d.entry, d.rec, d.rules, d.plan = now.wall, c.hash, e, rec, rules, s.planFor(rec.owner)
	d.previous = match.Previous >= 0
	if d.Outcome = checkRecord(e, rec, now.wall, q); d.Outcome != Allowed {
		return nil
	}
	more := q.Cost
	if before != nil {
		more = max(0, q.Cost-before.Cost)
	}
	if counted && !q.RecordOnly {
		if q.EarlyData && q.Cost > 0 && s.restricts(d) {
			d.Outcome = TooEarly
			return nil
		}
		var err error
		if now, err = s.charge(ctx, st, d, more, q.DryRun); err != nil || d.Outcome != Allowed {
			return err
		}
	}
	if !q.DryRun && !q.RecordOnly {
		d.Cost = more
		d.noteUse(rec.uses[match.Previous+1], now)
		s.engine.queue.addStatistics(e)
	}
	if before != nil {
		d.extend(before)
	}
	return nil
}

// recordOutcomes are the outcomes that the record of a key decides alone, in the order in
// which they are checked.
var recordOutcomes = func() (all []Outcome) {
	for o := range outcomes {
		if outcomes[o].check != nil {
			all = append(all, Outcome(o))
		}
	}
	return all
}()

func isDisabled(_ *entry, rec *record, _ int64) bool {
	return !rec.key.Enabled || !rec.owner.cur.Load().Enabled
}

func isExpired(e *entry, rec *record, now int64) bool { return e.seenExpired(rec.key, now) }

// checkRecord checks everything about a key that needs no counting.
func checkRecord(e *entry, rec *record, now int64, q *Request) Outcome {
	k := rec.key
	switch {
	case !q.wants(k.ConfigID):
		return Invalid
	case q.EarlyData && q.CheckIP && k.AllowedIPs != nil:
		return TooEarly
	}
	for _, o := range recordOutcomes {
		if outcomes[o].check(e, rec, now) {
			return o
		}
	}
	switch {
	case !secretFits(k.SecretHash, q):
		return InvalidSecret
	case q.CheckIP && !k.AllowsIP(q.ClientIP):
		return IPNotAllowed
	case !k.Permissions.AllowsAll(q.Require):
		return Forbidden
	}
	for _, any := range q.RequireAny {
		if !k.Permissions.AllowsAny(any) {
			return Forbidden
		}
	}
	return Allowed
}

// match is key.Match, but a grace that has once been seen over stays over.
func (e *entry) match(k *key.Key, hash key.Hash, now int64) key.Match {
	m := k.Match(hash, max(now, e.graceOver.Load()))
	if m.GraceExpired {
		raise(&e.graceOver, now)
	}
	return m
}

// noteUse notes the use of a raw key. last holds the time of its last request.
func (d *Decision) noteUse(last *atomic.Int64, now instant) {
	d.use = use{last, now.wall, last.Load()}
	raise(last, now.wall)
}

// raise sets v to n unless it is higher already.
func raise(v *atomic.Int64, n int64) {
	for {
		old := v.Load()
		if old >= n || v.CompareAndSwap(old, n) {
			return
		}
	}
}

// seenExpired is key.Expired, but what has once been seen over stays over.
func (e *entry) seenExpired(k *key.Key, now int64) bool {
	if k.ExpiresAt == 0 {
		return false
	}
	if k.Expired(now) {
		e.expired.Store(k.ExpiresAt)
		return true
	}
	return e.expired.Load() == k.ExpiresAt
}

func secretFits(secret *key.Hash, q *Request) bool {
	switch {
	case !q.CheckSecret && !q.RequireSecret:
		return true
	case secret == nil:
		return !q.RequireSecret && q.Secret == ""
	default:
		return secret.Equal(key.HashOf(q.Secret))
	}
}
