package keyring

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	msPerDay = int64(24 * time.Hour / time.Millisecond)
	// allUsed is the threshold that is reached with the last credit.
	allUsed = 100
)

// DefaultIdle is the Idle of a Subscription that does not say.
const DefaultIdle = 90 * msPerDay

// DefaultThresholds and DefaultExpiring are those of a Subscription that does not say.
var (
	DefaultThresholds = []int64{80, allUsed}
	DefaultExpiring   = []int64{14 * msPerDay, 3 * msPerDay}
)

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

// subscriptions returns those of the listeners and of all webhooks.
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
			list = append(list, store.Delivery{
				ID: "msg_" + rand.Text(), Event: string(e.Type), URL: w.URL, Body: e.document(),
				State: store.DeliveryPending, NextAttempt: e.At, CreatedAt: e.At,
			})
		}
	}
	return list
}
