package apikey

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Audit is about the audit log, which has an entry for each change of keys and owners.
type Audit struct {
	// Keep is how long entries are kept, a duration of at least one day, or "forever".
	// Older ones are deleted in the background, once this process has seen them that old for
	// an hour. Default: "400d".
	Keep *Keep `json:"keep,omitempty"`
}

const leastAuditKeep = 24 * time.Hour

func (a *Audit) check() error {
	if a == nil || a.Keep == nil || a.Keep.Forever || time.Duration(a.Keep.Duration) >= leastAuditKeep {
		return nil
	}
	return errors.New(`audit keep: must be a duration of at least 1d, or "forever"`)
}

// keep is in milliseconds, as keyring.Settings have it.
func (a *Audit) keep() int64 {
	switch {
	case a == nil || a.Keep == nil:
		return keyring.DefaultAuditKeep
	case a.Keep.Forever:
		return keyring.KeepForever
	}
	return time.Duration(a.Keep.Duration).Milliseconds()
}

// unmarshalAudit reads audit keep <duration>|forever.
func (a *App) unmarshalAudit(d *caddyfile.Dispenser) error {
	if err := once(d, a.Audit != nil); err != nil {
		return err
	}
	a.Audit = new(Audit)
	if !d.NextArg() || d.Val() != "keep" {
		return d.Errf("audit: must be: audit keep <duration>|%s", forever)
	}
	return readKeep(d, &a.Audit.Keep)
}

func logHead(l *zap.Logger, head store.AuditPoint) {
	l.Info("the newest entry of the audit log", zap.Int64("entry", head.ID), zap.String("chain", head.Chain))
}
