package keyring

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// EventType names what an Event tells. Caddy's events and webhooks have the same names.
type EventType string

const (
	EventKeyCreated  EventType = "apikey_key_created"
	EventKeyRotated  EventType = "apikey_key_rotated"
	EventKeyRevoked  EventType = "apikey_key_revoked" // disabled
	EventKeyDeleted  EventType = "apikey_key_deleted"
	EventKeyExpired  EventType = "apikey_key_expired"
	EventKeyExpiring EventType = "apikey_key_expiring" // soon
	EventKeyIdle     EventType = "apikey_key_idle"     // not used for long

	EventKeyExhausted     EventType = "apikey_key_exhausted"     // its last credit was used
	EventCreditsThreshold EventType = "apikey_credits_threshold" //nolint:gosec // the name of an event, not a credential
	EventOwnerDisabled    EventType = "apikey_owner_disabled"    // and all keys of the owner with it
	EventLeakReported     EventType = "apikey_leak_reported"     // somebody has reported a raw key
)

// EventTypes are all of them.
var EventTypes = []EventType{
	EventKeyCreated, EventKeyRotated, EventKeyRevoked, EventKeyDeleted, EventKeyExpired, EventKeyExpiring, EventKeyIdle,
	EventKeyExhausted, EventCreditsThreshold, EventOwnerDisabled, EventLeakReported,
}

// Event is something that happened to a key or an owner. It names them, and tells nothing
// else of them.
type Event struct {
	Type   EventType
	At     int64
	KeyID  string // empty: it is about none
	UserID string
	// Threshold is how many percent of the credits were used, of EventCreditsThreshold.
	Threshold int64
	// Within is how long before its end an expiring key was found, and after its last use
	// an idle one, in milliseconds.
	Within int64
}

// Data returns what an event tells beside its type and time, by the names of docs/events.md.
func (e *Event) Data() map[string]any {
	data := map[string]any{}
	for name, value := range map[string]string{"keyId": e.KeyID, "userId": e.UserID, "within": within(e.Within)} {
		if value != "" {
			data[name] = value
		}
	}
	if e.Threshold != 0 {
		data["threshold"] = e.Threshold
	}
	return data
}

// document returns how webhooks are told of an event.
func (e *Event) document() []byte {
	text, _ := json.Marshal(struct { // has nothing that has no JSON
		Type      EventType      `json:"type"`
		Timestamp string         `json:"timestamp"`
		Data      map[string]any `json:"data"`
	}{e.Type, time.UnixMilli(e.At).UTC().Format("2006-01-02T15:04:05.000Z"), e.Data()})
	return text
}

// within writes a duration in milliseconds, in days where that is exact.
func within(n int64) string {
	switch {
	case n == 0:
		return ""
	case n%msPerDay == 0:
		return fmt.Sprintf("%dd", n/msPerDay)
	}
	return (time.Duration(n) * time.Millisecond).String()
}

// eventsOf returns what is told of entries of the audit log.
func eventsOf(entries []store.AuditEntry) (events []Event) {
	for i := range entries {
		a := &entries[i]
		if t := eventOf(a); t != "" {
			events = append(events, Event{Type: t, At: a.Time, KeyID: a.KeyID, UserID: a.UserID})
		}
	}
	return events
}

// eventOf returns which event an entry of the audit log is, or none.
func eventOf(a *store.AuditEntry) EventType {
	switch a.Action {
	case ActionKeyCreated:
		return EventKeyCreated
	case ActionKeyRotated:
		return EventKeyRotated
	case ActionKeyRevoked:
		return EventKeyRevoked
	case ActionKeyLeakReported:
		return EventLeakReported
	case ActionKeyDeleted, ActionKeyExpired: // that its time was over was told when it was
		return EventKeyDeleted
	case ActionOwnerCreated, ActionOwnerUpdated:
		var changes map[string]key.FieldChange
		if json.Unmarshal(a.Changes, &changes) == nil && string(changes["enabled"].To) == "false" {
			return EventOwnerDisabled
		}
	}
	return ""
}

// recorded makes what is stored with a change, and keeps the events of it until they are
// told.
type recorded struct {
	set     *Settings
	entries noter
	events  []Event
}

// note is the store.Note of the change.
func (r *recorded) note(changes []store.Change) (store.Noted, error) {
	entries, err := r.entries(changes)
	if err != nil {
		return store.Noted{}, err
	}
	r.events = eventsOf(entries) // instead of those of an attempt that came to nothing
	return store.Noted{Audit: entries, Outbox: r.set.deliveries(r.events)}, nil
}

// happened tells listeners of events.
func (s *Settings) happened(events []Event) {
	if s == nil || len(events) == 0 {
		return
	}
	for _, l := range s.Listeners {
		l.Happened(events)
	}
}
