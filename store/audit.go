package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gowebpki/jcs"
)

// AuditEntry is one entry of the audit log: who changed what. It holds no raw key, no
// secret and no hash.
type AuditEntry struct {
	ID     int64 // 1 for the first, then without a gap
	Time   int64
	Action string // such as "key.created"
	Actor  AuditActor
	KeyID  string // empty: about none
	UserID string // empty: about none
	// Changes is a JSON object that has {"from": …, "to": …} for each field; nil: none.
	Changes json.RawMessage
	// Count and IDsHash are those of an entry about many keys or owners, or many calls: how
	// many, and the SHA-256 in hex of their IDs, each followed by a line feed.
	Count   int64
	IDsHash string

	// Chain is the SHA-256 in hex over the Chain of the entry before, if there is one, and
	// Canonical. Whoever has kept one of them can tell whether anything before it was
	// changed since.
	Chain string
}

// AuditActor is who did what an AuditEntry tells of.
type AuditActor struct {
	Kind    string `json:"kind"`
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"` // that an operator has given himself
	Address string `json:"address,omitempty"`
}

// AuditPoint is an entry of the audit log, by its ID and Chain; the zero value is none.
type AuditPoint struct {
	ID    int64
	Chain string
}

// Noted is what is stored with changes, in their transaction.
type Noted struct {
	Audit  []AuditEntry // ID and Chain are set by the store
	Outbox []Delivery
}

// Note makes what is stored with changes. It runs while other writes wait: it must not call
// the store. A nil Note makes nothing.
type Note func(changes []Change) (Noted, error)

// AuditQuery asks for a page of the audit log, the newest entries first. Zero fields do not
// narrow.
type AuditQuery struct {
	KeyID  string
	UserID string
	Actor  string // the kind, the ID or the name of the actor
	Action string
	Since  int64 // not before this time
	Until  int64 // before this time
	Limit  int
	Cursor string // AuditPage.Next of the page before; empty for the first
}

// AuditPage is a page of the audit log. It may hold fewer entries than were asked for,
// even none, while there is a next one.
type AuditPage struct {
	Entries []AuditEntry
	Next    string     // URL-safe; empty on the last page
	Head    AuditPoint // the newest entry of all
	Anchor  AuditPoint // the newest entry that was removed for its age
}

// auditTime is how times are written in an entry: RFC 3339 with milliseconds, in UTC.
const auditTime = "2006-01-02T15:04:05.000Z"

// auditDocument is an entry as it is chained and stored.
type auditDocument struct {
	ID      int64           `json:"id"`
	Time    string          `json:"time"`
	Action  string          `json:"action"`
	Actor   AuditActor      `json:"actor"`
	KeyID   string          `json:"keyId,omitempty"`
	UserID  string          `json:"userId,omitempty"`
	Changes json.RawMessage `json:"changes,omitempty"`
	Count   int64           `json:"count,omitempty"`
	IDsHash string          `json:"idsSha256,omitempty"`
}

// Canonical returns the entry without its Chain as canonical JSON (RFC 8785). What is empty
// is left out.
func (e *AuditEntry) Canonical() ([]byte, error) {
	text, err := json.Marshal(auditDocument{
		e.ID, time.UnixMilli(e.Time).UTC().Format(auditTime), e.Action, e.Actor, e.KeyID, e.UserID, e.Changes, e.Count, e.IDsHash,
	})
	if err == nil {
		text, err = jcs.Transform(text)
	}
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return text, nil
}

// ParseAuditEntry reads what Canonical has written.
func ParseAuditEntry(canonical []byte, chain string) (AuditEntry, error) {
	var d auditDocument
	if err := json.Unmarshal(canonical, &d); err != nil {
		return AuditEntry{}, fmt.Errorf("audit: %w", err)
	}
	at, err := time.Parse(auditTime, d.Time)
	if err != nil {
		return AuditEntry{}, fmt.Errorf("audit: entry %d: %w", d.ID, err)
	}
	return AuditEntry{d.ID, at.UnixMilli(), d.Action, d.Actor, d.KeyID, d.UserID, d.Changes, d.Count, d.IDsHash, chain}, nil
}

// Link returns the Chain of an entry that follows another one, the zero point for the
// first. canonical is that of the entry.
func Link(before AuditPoint, canonical []byte) string {
	h := sha256.New()
	h.Write([]byte(before.Chain))
	h.Write(canonical)
	return hex.EncodeToString(h.Sum(nil))
}

// Point returns where in the log the entry is.
func (e *AuditEntry) Point() AuditPoint { return AuditPoint{e.ID, e.Chain} }
