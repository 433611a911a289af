package admin

import (
	"encoding/json"

	"github.com/gowebpki/jcs"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/store"
)

func listAudit(c *api.Call, in ListAudit) (AuditLog, error) {
	q := store.AuditQuery{
		KeyID: api.Or(in.KeyID, ""), UserID: api.Or(in.UserID, ""), Actor: api.Or(in.Actor, ""), Action: api.Or(in.Action, ""),
		Since: filterTime(in.Since), Until: filterTime(in.Until),
		Limit: int(api.Or(in.Limit, defaultLimit)), Cursor: api.Or(in.Cursor, ""),
	}
	page, err := c.Keys.Audit(c.Context(), q)
	if err != nil {
		return AuditLog{}, err
	}
	log := AuditLog{Entries: make([]AuditEntry, len(page.Entries)), NextCursor: api.MaybeText(page.Next), Head: pointOf(page.Head), Anchor: pointOf(page.Anchor)}
	for i, e := range page.Entries {
		log.Entries[i] = AuditEntry{
			ID: e.ID, Time: api.TimeOf(e.Time), Action: e.Action, Actor: AuditActor(e.Actor), KeyID: e.KeyID, UserID: e.UserID,
			Changes: e.Changes, Count: e.Count, IDsHash: e.IDsHash, Chain: e.Chain,
		}
	}
	return log, nil
}

func pointOf(p store.AuditPoint) *AuditPoint {
	if p.ID == 0 {
		return nil
	}
	return &AuditPoint{p.ID, p.Chain}
}

// CanonicalEntry returns what the chain of an entry is made of beside the chain of the one
// before: the entry as it is answered, without its own chain, as canonical JSON (RFC 8785).
func CanonicalEntry(answered json.RawMessage) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(answered, &members); err != nil {
		return nil, err
	}
	delete(members, "chain")
	text, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	return jcs.Transform(text)
}

// ChainOf returns the chain of an entry.
func ChainOf(before string, canonical []byte) string {
	return store.Link(store.AuditPoint{Chain: before}, canonical)
}
