package keyring

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
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
	EventCreditsThreshold EventType = "apikey_credits_threshold" //nolint:gosec // so much of the credits was used
	EventOwnerDisabled    EventType = "apikey_owner_disabled"    // and all keys of the owner with it
	EventLeakReported     EventType = "apikey_leak_reported"     // somebody has reported a raw key
)

const (
	// msPerDay is in milliseconds, as are all durations here.
	msPerDay = int64(24 * time.Hour / time.Millisecond)
	// allUsed is the threshold that is the last credit.
	allUsed = 100
)

// EventTypes are all of them.
var EventTypes = []EventType{
	EventKeyCreated, EventKeyRotated, EventKeyRevoked, EventKeyDeleted, EventKeyExpired, EventKeyExpiring, EventKeyIdle,
	EventKeyExhausted, EventCreditsThreshold, EventOwnerDisabled, EventLeakReported,
}

// What a Subscription should have where nobody says.
const DefaultIdle = 90 * msPerDay

var (
	DefaultThresholds = []int64{80, allUsed}
	DefaultExpiring   = []int64{14 * msPerDay, 3 * msPerDay}
)

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

// eventDocument is how webhooks are told of an event.
type eventDocument struct {
	Type      EventType `json:"type"`
	Timestamp string    `json:"timestamp"`
	Data      eventData `json:"data"`
}

type eventData struct {
	KeyID     string `json:"keyId,omitempty"`
	UserID    string `json:"userId,omitempty"`
	Threshold int64  `json:"threshold,omitempty"`
	Within    string `json:"within,omitempty"`
}

// Data returns what an event tells beside its type and time, by the names that webhooks use.
func (e *Event) Data() map[string]any {
	data := map[string]any{}
	for name, value := range map[string]any{"keyId": e.KeyID, "userId": e.UserID, "within": within(e.Within)} {
		if value != "" {
			data[name] = value
		}
	}
	if e.Threshold != 0 {
		data["threshold"] = e.Threshold
	}
	return data
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

// Subscription says which events somebody is told of.
type Subscription struct {
	Events     []EventType // nil: all
	Thresholds []int64     // in percent of the credits that were granted last
	Expiring   []int64     // how long before the end, in milliseconds
	Idle       int64       // after how long without use, in milliseconds; 0: never
}

// Wants reports whether the subscriber is told of an event.
func (s *Subscription) Wants(e *Event) bool {
	if s.Events != nil && !slices.Contains(s.Events, e.Type) {
		return false
	}
	switch e.Type {
	case EventCreditsThreshold:
		return slices.Contains(s.Thresholds, e.Threshold)
	case EventKeyExpiring:
		return slices.Contains(s.Expiring, e.Within)
	case EventKeyIdle:
		return s.Idle == e.Within
	}
	return true
}

// Webhook is where events are sent.
type Webhook struct {
	URL string
	Subscription
}

// subscriptions returns those of the observers and of all webhooks.
func (s *Settings) subscriptions() []*Subscription {
	all := []*Subscription{&s.Events}
	for i := range s.Webhooks {
		all = append(all, &s.Webhooks[i].Subscription)
	}
	return all
}

// subscribed returns what subscriptions have of something, sorted, each value once.
func (s *Settings) subscribed(of func(*Subscription) []int64) (all []int64) {
	for _, one := range s.subscriptions() {
		all = append(all, of(one)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// thresholds returns those that somebody wants to know of, and the last credit.
func (s *Settings) thresholds() []int64 {
	return s.subscribed(func(s *Subscription) []int64 { return append([]int64{allUsed}, s.Thresholds...) })
}

// deliveries returns the events that webhooks are sent.
func (s *Settings) deliveries(events []Event) (list []store.Delivery) {
	if s == nil {
		return nil
	}
	for i := range events {
		e := &events[i]
		for _, w := range s.Webhooks {
			if !w.Wants(e) {
				continue
			}
			body, _ := json.Marshal(eventDocument{ // has nothing that has no JSON
				e.Type, time.UnixMilli(e.At).UTC().Format("2006-01-02T15:04:05.000Z"),
				eventData{e.KeyID, e.UserID, e.Threshold, within(e.Within)},
			})
			list = append(list, store.Delivery{
				ID: "msg_" + rand.Text(), Event: string(e.Type), URL: w.URL, Body: body,
				State: store.DeliveryPending, NextAttempt: e.At, CreatedAt: e.At,
			})
		}
	}
	return list
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

// happened tells observers of events.
func (s *Settings) happened(events []Event) {
	if s == nil || len(events) == 0 {
		return
	}
	for _, o := range s.Observers {
		o.Happened(events)
	}
}

// spending reports the use of credits by the settings that hold.
type spending struct{ engine *Engine }

// Thresholds implements store.Spending.
func (s spending) Thresholds() []int64 {
	if c := s.engine.keeping.current.Load(); c != nil {
		return c.thresholds
	}
	return nil
}

// Report implements store.Spending.
func (s spending) Report(spent store.Spent) []store.Delivery {
	return s.engine.keeping.settings().deliveries(s.engine.spentEvents(spent))
}

// spentEvents returns what is told of credits that were used.
func (r *Engine) spentEvents(spent store.Spent) (events []Event) {
	e := Event{At: r.clock().wall, UserID: spent.UserID}
	if spent.Kind == store.KindKey {
		e.KeyID = spent.ID
	}
	for _, t := range spent.Reached {
		e.Type, e.Threshold = EventCreditsThreshold, t
		events = append(events, e)
		if t == allUsed && e.KeyID != "" {
			e.Type, e.Threshold = EventKeyExhausted, 0
			events = append(events, e)
		}
	}
	return events
}

// toldSpent tells observers of credits that were used. Webhooks have it from the store.
func (r *Engine) toldSpent(spent store.Spent) {
	r.keeping.settings().happened(r.spentEvents(spent))
}

// current are the settings of the newest configuration.
type current struct {
	*Settings
	thresholds []int64
}

// settings returns those of the newest configuration; nil: there is none.
func (k *keeping) settings() *Settings {
	if c := k.current.Load(); c != nil {
		return c.Settings
	}
	return nil
}

// newest returns the settings that were attached last. The caller holds keeping.mu.
func (k *keeping) newest() *current {
	if len(k.attached) == 0 {
		return nil
	}
	s := k.attached[len(k.attached)-1]
	return &current{s, s.thresholds()}
}
