package keyring

import (
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// entry is one key in memory: its record, and beside it what use changes. The cache has
// at most one of each key, so that a key is never counted twice side by side.
type entry struct {
	id     string
	userID string                 // the owner, also while there is no record; guarded by cache.mu
	rec    atomic.Pointer[record] // nil: the key is deleted; unloaded: it has left memory
	// present is the use of the present raw key, which the record has as well.
	present atomic.Pointer[presentUse]

	// expired is the expiry that was once seen to be over: a clock that steps
	// back does not revive a key.
	expired atomic.Int64
	// graceOver is the latest time at which the grace of a previous raw key was seen
	// to be over.
	graceOver atomic.Int64
	// lastRequest is that of raw keys whose uses the record does not hold.
	lastRequest atomic.Int64
	counts      atomic.Pointer[dayCounts] // of the day of the last request
	asked       atomic.Pointer[asked]

	pending pending
	windows windows
	account atomic.Pointer[account] // nil: as long as the key is in memory, it had no credits

	refs int // guarded by cache.mu: raw keys that the cache finds it by, and pins
}

// metered reports whether requests with the key take credits.
func (e *entry) metered() bool {
	a := e.account.Load()
	return a != nil && a.limited.Load()
}

// ensureAccount returns the account of the key, and makes it where there is none.
func (e *entry) ensureAccount() *account {
	if a := e.account.Load(); a != nil {
		return a
	}
	e.account.CompareAndSwap(nil, &account{id: e.id})
	return e.account.Load()
}

// updateCredits takes over credits that the store has reported.
func (e *entry) updateCredits(c key.Credits) {
	if c.Limited || e.account.Load() != nil {
		e.ensureAccount().update(c)
	}
}

// presentUse is when a raw key was last used.
type presentUse struct {
	hash key.Hash
	last atomic.Int64
}

// record is an immutable key with what is derived from it once.
type record struct {
	key         *key.Key
	owner       *ownerEntry
	policy      ratelimit.Policy
	limited     bool // policy holds
	permissions string
	// hasMetadata: the key has metadata, which may not be in memory.
	hasMetadata bool
	metadata    atomic.Pointer[map[string]string] // top-level fields as text; nil: not read yet
	// uses are the last requests of the raw keys: that of the present one, then those
	// of key.Previous. A raw key takes its own along from record to record.
	uses []*atomic.Int64
}

// unloaded is the record of entries that are in memory only until what has been counted
// for them is written.
var unloaded = &record{key: new(key.Key)}

// loaded reports whether there is a record.
func (rec *record) loaded() bool { return rec != nil && rec != unloaded }

// setRecord makes k the record of the key.
func (e *entry) setRecord(k *key.Key, o *ownerEntry, hasMetadata bool) {
	old, present := e.rec.Load(), e.present.Load()
	if present == nil || present.hash != k.Hash {
		present = &presentUse{hash: k.Hash}
		raise(&present.last, old.usesOf(k.Hash).Load())
	}
	rec := &record{key: k, owner: o, permissions: strings.Join(k.Permissions.List(), " "), hasMetadata: hasMetadata}
	rec.uses = []*atomic.Int64{&present.last}
	for _, p := range k.Previous {
		uses := old.usesOf(p.Hash)
		uses.CompareAndSwap(0, p.LastRequest)
		rec.uses = append(rec.uses, uses)
	}
	rec.policy, rec.limited = k.RatePolicy()
	gone := []*atomic.Int64{}
	if p := e.present.Swap(present); p != nil {
		gone = append(gone, &p.last)
	}
	e.rec.Store(rec)
	if old != nil {
		gone = append(gone, old.uses...)
	}
	for _, uses := range gone {
		if !slices.Contains(rec.uses, uses) { // of a raw key that is gone
			raise(&e.lastRequest, uses.Load())
		}
	}
}

// revision returns that of the record; 0 for none.
func (rec *record) revision() int64 {
	if rec == nil {
		return 0
	}
	return rec.key.Revision
}

// usesOf returns what holds the last request of a raw key; for one that is not of this
// record, a new one.
func (rec *record) usesOf(h key.Hash) *atomic.Int64 {
	if rec.loaded() {
		if m := rec.key.Match(h, 0); m.OK {
			return rec.uses[m.Previous+1]
		}
	}
	return new(atomic.Int64)
}

// used returns previous raw keys with their last requests.
func (rec *record) used(previous []key.PreviousKey) []key.PreviousKey {
	previous = slices.Clone(previous)
	for i := range previous {
		p := &previous[i]
		p.LastRequest = max(p.LastRequest, rec.usesOf(p.Hash).Load())
	}
	return previous
}

// last returns the time of the last request with any raw key.
func (e *entry) last(rec *record) int64 {
	last := e.lastRequest.Load()
	if p := e.present.Load(); p != nil {
		last = max(last, p.last.Load())
	}
	for _, uses := range rec.uses {
		last = max(last, uses.Load())
	}
	return last
}

// incomplete reports whether the metadata of the key is not in memory.
func (rec *record) incomplete() bool { return rec.hasMetadata && rec.key.Metadata == nil }

// fields returns the top-level fields of the metadata as text. ok is false where the
// metadata is not in memory.
func (rec *record) fields() (_ map[string]string, ok bool) {
	switch fields := rec.metadata.Load(); {
	case fields != nil:
		return *fields, true
	case rec.incomplete():
		return nil, false
	case !rec.hasMetadata:
		return nil, true
	}
	return rec.setFields(rec.key.Metadata), true
}

func (rec *record) setFields(metadata json.RawMessage) map[string]string {
	fields := flatten(metadata)
	rec.metadata.Store(&fields)
	return fields
}

// counters are what use has changed of the key.
func (e *entry) counters(rec *record) store.Counters {
	return store.Counters{
		Subject: store.OfKey(e.id), LastRequest: e.last(rec), Previous: rec.previousUses(),
		Windows: e.windows.encode(),
	}
}

// previousUses returns the last requests of previous raw keys that the store does
// not have.
func (rec *record) previousUses() (list []store.PreviousUse) {
	for i, p := range rec.key.Previous {
		if last := rec.uses[i+1].Load(); last != p.LastRequest {
			list = append(list, store.PreviousUse{Hash: p.Hash, LastRequest: last})
		}
	}
	return list
}

// flatten returns the top-level fields of a JSON object as text: strings as they
// are, everything else as JSON.
func flatten(metadata json.RawMessage) map[string]string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(metadata, &fields) != nil {
		return nil
	}
	text := make(map[string]string, len(fields))
	for name, raw := range fields {
		var s string
		switch {
		case string(raw) == "null":
		case json.Unmarshal(raw, &s) == nil:
			text[name] = s
		default:
			text[name] = string(raw)
		}
	}
	return text
}

// ownerEntry is one owner in memory, shared by all its keys, so that a change of the
// owner reaches all of them at once.
type ownerEntry struct {
	id      string
	cur     atomic.Pointer[key.Owner] // nil: only its windows are known
	pending pending
	windows windows

	refs int // guarded by cache.mu: entries that point here, and pins
}

const (
	// entrySize is what an entry takes beside what its record points to: itself, its
	// record, an owner of its own, and their places in the cache and in maps.
	entrySize = int(unsafe.Sizeof(entry{})+unsafe.Sizeof(presentUse{})+unsafe.Sizeof(record{})+unsafe.Sizeof(key.Key{})+unsafe.Sizeof(ownerEntry{})+unsafe.Sizeof(key.Owner{})) + 560
	// previousSize is what a previous raw key takes.
	previousSize = int(unsafe.Sizeof(key.PreviousKey{})) + 16
)

// size returns about how many bytes an entry takes.
func (e *entry) size() uint32 {
	rec := e.rec.Load()
	if rec == nil {
		return uint32(entrySize)
	}
	k := rec.key
	n := entrySize + k.TextSize() + len(rec.permissions)*3 +
		len(k.Metadata)*2 + len(k.AllowedIPs)*int(unsafe.Sizeof(k.AllowedIPs[0])) + len(k.Previous)*previousSize
	if k.SecretHash != nil {
		n += len(k.SecretHash)
	}
	if rec.limited {
		n += int(unsafe.Sizeof(window{}))
	}
	if e.account.Load() != nil {
		n += int(unsafe.Sizeof(account{}))
	}
	return uint32(n) //nolint:gosec // a key has some KiB at most
}
