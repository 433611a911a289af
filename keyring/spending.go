package keyring

import "github.com/caddy-apikey/caddy-apikey/store"

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

// toldSpent tells listeners of credits that were used. Webhooks have it from the store.
func (r *Engine) toldSpent(spent store.Spent) {
	r.keeping.settings().happened(r.spentEvents(spent))
}
