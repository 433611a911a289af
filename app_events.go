package apikey

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/internal/webhook"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Notices say when events are emitted before something happens. Each crossing is reported once.
type Notices struct {
	// Thresholds are percentages of the credits that were granted last, from 1 to 100, at
	// which the event apikey_credits_threshold is emitted. An empty list is none.
	// Default: [80, 100].
	Thresholds []int64 `json:"thresholds,omitzero"`
	// Expiring is how long before the end of a key the event apikey_key_expiring is emitted,
	// once for each duration. An empty list is never. Default: ["14d", "3d"].
	Expiring []caddy.Duration `json:"expiring,omitzero"`
	// Idle is after how long without use the event apikey_key_idle is emitted, a duration of
	// at least one hour. It is judged by the hour. 0 is never. Default: "90d".
	Idle *caddy.Duration `json:"idle,omitempty"`
}

// Webhook is an address that events are sent to.
type Webhook struct {
	// URL is where events are sent: https, or http to this machine. Redirects are not
	// followed. Required.
	URL string `json:"url,omitempty"`
	// Secret signs what is sent: "whsec_" followed by the base64 of 24 to 64 random bytes.
	// It may be a global placeholder, such as {env.WEBHOOK_SECRET}. Required.
	Secret string `json:"secret,omitempty"`
	// Events are the events that are sent, such as apikey_key_created. Default: all.
	Events []string `json:"events,omitempty"`
	Notices
}

const (
	leastIdle = time.Hour
	// maxWebhooks and maxNotices are more than anybody needs, and few enough for a change to
	// write a delivery for each.
	maxWebhooks = 16
	maxNotices  = 16
)

func (n *Notices) check() error {
	if len(n.Thresholds) > maxNotices || len(n.Expiring) > maxNotices {
		return fmt.Errorf("thresholds and expiring: at most %d values each", maxNotices)
	}
	for i, t := range n.Thresholds {
		if t < 1 || t > 100 {
			return errors.New("thresholds: must be integers from 1 to 100")
		}
		if slices.Contains(n.Thresholds[:i], t) {
			return fmt.Errorf("thresholds: %d already specified", t)
		}
	}
	for i, d := range n.Expiring {
		if err := checkMillis("expiring", d); err != nil {
			return err
		}
		if slices.Contains(n.Expiring[:i], d) {
			return fmt.Errorf("expiring: %v already specified", time.Duration(d))
		}
	}
	if n.Idle != nil && *n.Idle != 0 && time.Duration(*n.Idle) < leastIdle {
		return errors.New("idle: must be a duration of at least 1h, or 0 for never")
	}
	return nil
}

// checkMillis checks a duration that is kept in milliseconds.
func checkMillis(name string, d caddy.Duration) error {
	if d < caddy.Duration(time.Millisecond) || time.Duration(d)%time.Millisecond != 0 {
		return fmt.Errorf("%s: must be a whole number of milliseconds, at least 1", name)
	}
	return nil
}

// subscription is what keyring.Settings have of the notices.
func (n *Notices) subscription() keyring.Subscription {
	s := keyring.Subscription{Thresholds: n.Thresholds, Idle: keyring.DefaultIdle}
	if n.Thresholds == nil {
		s.Thresholds = keyring.DefaultThresholds
	}
	for _, d := range n.Expiring {
		s.Expiring = append(s.Expiring, millis(d))
	}
	if n.Expiring == nil {
		s.Expiring = keyring.DefaultExpiring
	}
	if n.Idle != nil {
		s.Idle = millis(*n.Idle)
	}
	return s
}

func (w *Webhook) check() error {
	if err := webhook.CheckURL(w.URL); err != nil {
		return fmt.Errorf("webhook: the URL %w", err)
	}
	if w.Secret == "" {
		return errors.New("webhook: needs a secret")
	}
	if !strings.Contains(w.Secret, "{") { // else it is checked when the placeholder has its value
		if _, err := webhook.ParseSecret(w.Secret); err != nil {
			return fmt.Errorf("webhook: the secret %w", err)
		}
	}
	for _, name := range w.Events {
		if !slices.Contains(keyring.EventTypes, keyring.EventType(name)) {
			return fmt.Errorf("webhook: %w", unknownEvent(name))
		}
	}
	if err := w.Notices.check(); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return nil
}

func unknownEvent(name string) error {
	var all []string
	for _, t := range keyring.EventTypes {
		all = append(all, string(t))
	}
	return fmt.Errorf("unknown event %q: %s", name, near.OneOf(name, all...))
}

func (a *App) checkWebhooks() error {
	if len(a.Webhooks) > maxWebhooks {
		return fmt.Errorf("webhook: at most %d", maxWebhooks)
	}
	for i := range a.Webhooks {
		w := &a.Webhooks[i]
		if err := w.check(); err != nil {
			return err
		}
		if slices.ContainsFunc(a.Webhooks[:i], func(o Webhook) bool { return o.URL == w.URL }) {
			return errors.New("webhook: two have the same URL")
		}
	}
	return nil
}

// provisionWebhooks compiles the webhooks into the settings, and returns where they are sent.
func (a *App) provisionWebhooks(set *keyring.Settings) (endpoints []webhook.Endpoint, err error) {
	set.Events = a.Notices.subscription()
	for i := range a.Webhooks {
		w := &a.Webhooks[i]
		text, err := caddy.NewReplacer().ReplaceOrErr(w.Secret, true, true)
		if err != nil {
			return nil, fmt.Errorf("webhook for %s: the secret: %w", webhook.HostOf(w.URL), err)
		}
		secret, err := webhook.ParseSecret(text)
		if err != nil {
			return nil, fmt.Errorf("webhook for %s: the secret %w", webhook.HostOf(w.URL), err)
		}
		endpoints = append(endpoints, webhook.Endpoint{URL: w.URL, Secret: secret})
		s := w.Notices.subscription()
		for _, name := range w.Events {
			s.Events = append(s.Events, keyring.EventType(name))
		}
		set.Webhooks = append(set.Webhooks, keyring.Webhook{URL: w.URL, Subscription: s})
	}
	return endpoints, nil
}
