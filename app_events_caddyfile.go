package apikey

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// unmarshalWebhook reads webhook <url> { ... }.
func (a *App) unmarshalWebhook(d *caddyfile.Dispenser) error {
	var w Webhook
	if err := readString(d, &w.URL); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "secret":
			err = readString(d, &w.Secret)
		case "events":
			if err = once(d, w.Events != nil); err == nil {
				if w.Events = d.RemainingArgs(); len(w.Events) == 0 {
					err = d.ArgErr()
				}
			}
		default:
			var known bool
			if known, err = w.Notices.unmarshalOption(d); err == nil && !known {
				err = unknownOption(d, inWebhook)
			}
		}
		if err != nil {
			return err
		}
	}
	a.Webhooks = append(a.Webhooks, w)
	return nil
}

// unmarshalOption reads thresholds <percent...>|off, expiring <duration...>|off or
// idle <duration>|off. It reports whether it is one of them.
func (n *Notices) unmarshalOption(d *caddyfile.Dispenser) (known bool, err error) {
	switch d.Val() {
	case "thresholds":
		return true, readNotices(d, &n.Thresholds, func(s string) (int64, error) {
			t, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return 0, d.Err("thresholds: must be integers from 1 to 100")
			}
			return t, nil
		})
	case "expiring":
		return true, readNotices(d, &n.Expiring, func(s string) (caddy.Duration, error) {
			t, err := caddy.ParseDuration(s)
			if err != nil {
				return 0, d.Errf("expiring: must be durations such as 14d, not %q", s)
			}
			return caddy.Duration(t), nil
		})
	case "idle":
		var text string
		if err := readOnce(d, n.Idle != nil, &text); err != nil {
			return true, err
		}
		n.Idle = new(caddy.Duration)
		if text == "off" {
			return true, nil
		}
		t, err := caddy.ParseDuration(text)
		if err != nil || t == 0 {
			return true, d.Errf("idle: must be a duration such as 90d, or off, not %q", text)
		}
		*n.Idle = caddy.Duration(t)
		return true, nil
	}
	return false, nil
}

// readNotices reads one or more values, or off.
func readNotices[T any](d *caddyfile.Dispenser, to *[]T, parse func(string) (T, error)) error {
	if err := once(d, *to != nil); err != nil {
		return err
	}
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*to = []T{}
	if len(args) == 1 && args[0] == "off" {
		return nil
	}
	for _, s := range args {
		v, err := parse(s)
		if err != nil {
			return err
		}
		*to = append(*to, v)
	}
	return nil
}
