package keyring

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// What entries of the audit log tell of.
const (
	ActionKeyCreated       = "key.created"
	ActionKeyUpdated       = "key.updated"
	ActionKeyRotated       = "key.rotated"
	ActionKeyRevoked       = "key.revoked" // disabled
	ActionKeyDeleted       = "key.deleted"
	ActionKeyExpired       = "key.expired" // deleted because its time is over
	ActionKeyLeakReported  = "key.leak_reported"
	ActionKeysImported     = "keys.imported"
	ActionOwnerCreated     = "owner.created"
	ActionOwnerUpdated     = "owner.updated"
	ActionOwnerDeleted     = "owner.deleted" // with all its keys, which are counted
	ActionOwnersImported   = "owners.imported"
	ActionCreditsForfeited = "credits.forfeited" // that were leased when a process ended without returning them
	ActionCallDenied       = "call.denied"       // of a caller who is known
	ActionCallsRefused     = "calls.refused"     // of callers whom nobody knows, by address
)

// entry returns an entry of the audit log about what the actor does now.
func (r *Engine) entry(by *Actor, action string) store.AuditEntry {
	a := store.AuditActor{Kind: string(by.Kind), ID: by.ID, Name: by.Name}
	if by.Address.IsValid() {
		a.Address = by.Address.String()
	}
	return store.AuditEntry{Time: r.clock().wall, Action: action, Actor: a}
}

// keyEntry returns an entry about a key that is there after the change.
func (r *Engine) keyEntry(by *Actor, action string, k *key.Key, changes map[string]key.FieldChange) ([]store.AuditEntry, error) {
	e := r.entry(by, action)
	e.KeyID, e.UserID = k.ID, k.UserID
	var err error
	e.Changes, err = changesJSON(changes)
	return []store.AuditEntry{e}, err
}

func changesJSON(changes map[string]key.FieldChange) (json.RawMessage, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	return json.Marshal(changes)
}

// noter makes the entries of the audit log for changes.
type noter func(changes []store.Change) ([]store.AuditEntry, error)

// noteCreated notes a key that was made.
func (s *Editor) noteCreated(changes []store.Change) ([]store.AuditEntry, error) {
	e := changes[0].Entry
	return s.engine.keyEntry(&s.actor, ActionKeyCreated, e.Key, keyChanges(nil, e))
}

// keyChanges returns in what a key differs, its credits included.
func keyChanges(before, after *store.Entry) map[string]key.FieldChange {
	var from *key.Key
	var credits key.Credits
	if before != nil {
		from, credits = before.Key, before.Credits
	}
	changes := key.Changes(from, after.Key)
	limited := func(c *key.Credits) json.RawMessage {
		if !c.Limited {
			return nil
		}
		return number(c.Remaining)
	}
	for name, c := range map[string]key.FieldChange{
		"remaining":      {From: limited(&credits), To: limited(&after.Credits)},
		"refillAmount":   {From: positive(credits.RefillAmount), To: positive(after.Credits.RefillAmount)},
		"refillInterval": {From: positive(credits.RefillInterval), To: positive(after.Credits.RefillInterval)},
	} {
		if string(c.From) != string(c.To) {
			changes[name] = c
		}
	}
	return changes
}

func number(n int64) json.RawMessage { return fmt.Append(nil, n) }

func positive(n int64) json.RawMessage {
	if n == 0 {
		return nil
	}
	return number(n)
}

// keyNote makes the entries about a change of a key.
type keyNote func(before, after *store.Entry) ([]store.AuditEntry, error)

// noteOf returns the note of a change of a key. Disabling a key has an action of its own.
func (s *Editor) noteOf(action string) keyNote {
	return func(before, after *store.Entry) ([]store.AuditEntry, error) {
		did := action
		if before.Key.Enabled && !after.Key.Enabled {
			did = ActionKeyRevoked
		}
		return s.engine.keyEntry(&s.actor, did, after.Key, keyChanges(before, after))
	}
}

// noteDeleted notes keys that are gone, and those that have lost previous raw keys whose
// grace was over.
func (r *Engine) noteDeleted(by *Actor) noter {
	return func(changes []store.Change) (list []store.AuditEntry, err error) {
		for _, c := range changes {
			e := r.entry(by, ActionKeyDeleted)
			e.KeyID, e.UserID = c.ID, c.UserID
			switch {
			case c.Expired:
				e.Action = ActionKeyExpired
			case !c.Deleted():
				e.Action, e.UserID = ActionKeyUpdated, c.Entry.Key.UserID
				kept := key.FieldChange{To: number(int64(len(c.Entry.Key.Previous)))}
				if e.Changes, err = changesJSON(map[string]key.FieldChange{"previousKeys": kept}); err != nil {
					return nil, err
				}
			}
			list = append(list, e)
		}
		return list, nil
	}
}

// noteMany notes what was imported in one entry.
func (s *Editor) noteMany(action string) noter {
	return func(changes []store.Change) ([]store.AuditEntry, error) {
		e := s.engine.entry(&s.actor, action)
		var ids []string
		for _, c := range changes {
			ids = append(ids, c.ID)
		}
		e.Count, e.IDsHash = int64(len(ids)), hashIDs(ids)
		return []store.AuditEntry{e}, nil
	}
}

// hashIDs returns the hash by which an entry names many.
func hashIDs(ids []string) string {
	h := sha256.New()
	for _, id := range ids {
		h.Write([]byte(id + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// noteOwner returns the note of a change of an owner, whose state before it is in before
// when the note is made.
func (s *Editor) noteOwner(before *key.Owner) noter {
	return func(changes []store.Change) (_ []store.AuditEntry, err error) {
		after := changes[0].Owner
		e := s.engine.entry(&s.actor, ActionOwnerUpdated)
		e.UserID = after.UserID
		fields := map[string]key.FieldChange{}
		if before.Revision == 0 {
			e.Action = ActionOwnerCreated
			fields["enabled"] = key.FieldChange{To: flag(after.Enabled)}
		} else if before.Enabled != after.Enabled {
			fields["enabled"] = key.FieldChange{From: flag(before.Enabled), To: flag(after.Enabled)}
		}
		tier := key.FieldChange{From: text(before.Tier), To: text(after.Tier)}
		if string(tier.From) != string(tier.To) {
			fields["tier"] = tier
		}
		e.Changes, err = changesJSON(fields)
		return []store.AuditEntry{e}, err
	}
}

func flag(b bool) json.RawMessage { return fmt.Append(nil, b) }

func text(s *string) json.RawMessage {
	if s == nil {
		return nil
	}
	b, _ := json.Marshal(*s) // a text has JSON
	return b
}

// noteOwnerDeleted notes an owner that is gone, with the number of its keys.
func (s *Editor) noteOwnerDeleted(changes []store.Change) ([]store.AuditEntry, error) {
	e := s.engine.entry(&s.actor, ActionOwnerDeleted)
	e.UserID, e.Count = changes[0].ID, changes[0].Keys
	return []store.AuditEntry{e}, nil
}

// noteForfeited notes what a process that did not end in order had leased.
func (r *Engine) noteForfeited(lost []store.Forfeit) (list []store.AuditEntry, err error) {
	for _, f := range lost {
		e := r.entry(&Actor{Kind: ActorSystem}, ActionCreditsForfeited)
		if f.Kind == store.KindKey {
			e.KeyID = f.ID
		} else {
			e.UserID = f.ID
		}
		if e.Changes, err = changesJSON(map[string]key.FieldChange{"leased": {From: number(f.Amount), To: number(0)}}); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// Audit returns a page of the audit log.
func (s *Service) Audit(ctx context.Context, q store.AuditQuery) (store.AuditPage, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return store.AuditPage{}, err
	}
	return st.Audit(ctx, q)
}

// DefaultAuditKeep is how long entries of the audit log are kept, in milliseconds.
const DefaultAuditKeep = 400 * int64(24*time.Hour/time.Millisecond)

// trimAudit removes entries of the audit log that are older than all configurations keep
// them, once this process has seen them that old for an hour.
func (r *Engine) trimAudit(ctx context.Context, st store.Store) error {
	before := r.keeping.auditCutoff(r.clock())
	for before > 0 && ctx.Err() == nil {
		n, err := st.TrimAudit(ctx, before, deleteBatch)
		if err != nil {
			return fmt.Errorf("removing old entries of the audit log: %w", err)
		}
		if n < deleteBatch {
			break
		}
	}
	return nil
}

// headEvery is how often the newest entry is told.
const headEvery = 24 * time.Hour

// AuditHead returns the newest entry of the audit log; the zero value: none.
func (r *Engine) AuditHead(ctx context.Context) (store.AuditPoint, error) {
	st, err := r.open(ctx)
	if err != nil {
		return store.AuditPoint{}, err
	}
	page, err := st.Audit(ctx, store.AuditQuery{Limit: 1})
	return page.Head, err
}

// tellAuditHead tells the monitor of the newest entry, if there is one.
func (r *Engine) tellAuditHead(ctx context.Context) error {
	head, err := r.AuditHead(ctx)
	if err != nil {
		return fmt.Errorf("reading the newest entry of the audit log: %w", err)
	}
	if head.ID > 0 {
		r.monitor.AuditHead(head)
	}
	return nil
}

// maxActorName is how long the name may be that an operator gives himself.
const maxActorName = 64

// CheckActorName checks the name that an operator gives himself for the audit log.
func CheckActorName(name string) error {
	if name == "" || len(name) > maxActorName || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' }) {
		return fmt.Errorf("must be 1 to %d printable ASCII characters", maxActorName)
	}
	return nil
}
