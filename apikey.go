// Package apikey turns Caddy into a gateway that lets requests in by API key.
//
// The app (module apikey) keeps the keys; the gate (directive apikey) checks
// them; the admin API and the command line manage them. State lives as long as
// the process uses a store and outlives reloads of the configuration.
package apikey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/redact"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func init() {
	caddy.RegisterModule(&App{})
}

// App is the Caddy app "apikey": where keys live and how they are made. It is
// optional: without it, the gate works with everything at its default.
type App struct {
	// StoreRaw is where keys live: a module of the namespace apikey.stores.
	// Default: {"store": "sqlite"}.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=apikey.stores inline_key=store"`

	// TablePrefix stands in front of every table name. Default: none.
	TablePrefix string `json:"table_prefix,omitempty"`

	// Headers are the request headers where a key may sit. Default: X-API-Key.
	Headers []string `json:"headers,omitempty"`

	// Bearer also accepts "Authorization: Bearer <key>". Default: true.
	Bearer *bool `json:"bearer,omitempty"`

	// SecretPrefix stands in front of new secrets. Default: "clsk_".
	SecretPrefix *string `json:"secret_prefix,omitempty"`

	// Credits say how credits are taken from keys. Default: {"mode": "strict"}.
	Credits *Credits `json:"credits,omitempty"`

	Plans
	KeyRules

	// Configs are named configurations beside "default", which is what KeyRules
	// describe. Default: none.
	Configs []Config `json:"configs,omitempty"`

	ctx      caddy.Context // kept for Start, which asks it for the logs
	logger   *zap.Logger
	exposed  exposed
	secrets  secrets
	settings *keyring.Settings
	opener   store.Opener
	ring     *keyring.Ring // stays after Cleanup: an admin call may have found the app just before
	joined   bool          // the pool entry is acquired
	detach   func()
}

// rings holds one keyring per store that a configuration uses. The key is the
// store's identity and nothing else: two configurations with other options for
// the same store must share its counters.
var rings = caddy.NewUsagePool()

// pooled adapts a ring to the pool.
type pooled struct {
	*keyring.Ring
	tablePrefix string
}

// Destruct implements caddy.Destructor. A reload holds a lock of Caddy's that its
// whole admin endpoint waits for, and a disk may be slow: there the store is
// closed beside it.
func (p pooled) Destruct() error {
	finish := p.Shut()
	if caddy.Exiting() {
		return finish()
	}
	go func() {
		if err := finish(); err != nil {
			report(err)
		}
	}()
	return nil
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "apikey", New: func() caddy.Module { return new(App) }}
}

// Provision checks the configuration and joins the state of its store. It
// touches no file: that is Start's, so that "caddy validate" beside a running
// server disturbs nothing. Only a reload opens the store here (see join).
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	if err := a.check(); err != nil {
		return err
	}
	if err := a.checkDefaultTier(); err != nil {
		return err
	}
	a.settings = &keyring.Settings{Lease: a.Credits.lease()}
	a.provisionPlans(a.settings)
	err := a.provisionRules(ctx, a.settings)
	if err != nil {
		return err
	}
	if a.opener, err = a.provisionStore(ctx); err != nil {
		return err
	}
	return a.join()
}

// join takes the pool entry of the store.
func (a *App) join() error {
	entry, shared, err := rings.LoadOrNew(a.opener.Identity(), func() (caddy.Destructor, error) {
		return pooled{keyring.New(a.opener, now, report), a.TablePrefix}, nil
	})
	if err != nil {
		return err
	}
	// From here on Cleanup has an entry to give back.
	a.ring, a.joined = entry.(pooled).Ring, true
	a.logger.Debug("joined the state of the store", zap.Bool("shared", shared))
	if in := entry.(pooled).tablePrefix; in != a.TablePrefix {
		return fmt.Errorf("table_prefix: the store is in use with %q; stop the server to change it", in)
	}
	if caddy.ActiveContext().Context == nil {
		return nil
	}
	// This is a reload. Caddy starts apps in random order, so the HTTP servers may
	// answer for the new configuration before our Start: they must find the store
	// open, and must not begin at all where it cannot be opened.
	return a.ring.Open(context.Background())
}

// report logs what no caller waits for: failures of the background work, and
// owners and keys whose tier or configuration is not configured. The logger is asked for each time, because
// this outlives the configuration that began it.
func report(err error) {
	var unknown *keyring.UnknownTier
	if errors.As(err, &unknown) {
		caddy.Log().Named("apikey").Warn("an owner's tier is not configured",
			zap.String("user_id", unknown.UserID), zap.String("tier", unknown.Tier), zap.String("instead", unknown.Instead))
		return
	}
	var gone *keyring.UnknownConfig
	if errors.As(err, &gone) {
		caddy.Log().Named("apikey").Warn("the configuration of a key is not configured",
			zap.String("config", gone.ConfigID), zap.String("instead", key.DefaultConfig))
		return
	}
	caddy.Log().Named("apikey").Error("background work failed", zap.Error(err))
}

func (a *App) provisionStore(ctx caddy.Context) (store.Opener, error) {
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"store":"sqlite"}`)
	}
	mod, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return nil, fmt.Errorf("loading the store module: %w", err)
	}
	s, ok := mod.(Store)
	if !ok {
		return nil, fmt.Errorf("store module %T does not implement apikey.Store", mod)
	}
	return s.Opener(a.TablePrefix)
}

// Start opens the store, if no earlier configuration has.
func (a *App) Start() error {
	if err := a.ring.Open(context.Background()); err != nil {
		return err
	}
	a.detach = a.ring.Attach(a.settings)
	logs, err := redact.Uncovered(a.ctx, a.exposed, a.Service().Checksums())
	warnUncovered(a.logger, logs, err)
	a.secrets.warn(a.logger)
	if warning := sqlite.LibcWarning(); warning != "" {
		a.logger.Warn(warning)
	}
	return nil
}

// Stop leaves everything running: on a clean exit the HTTP servers still drain
// after this, and their requests need the keys. Cleanup lets go.
func (a *App) Stop() error { return nil }

// Cleanup leaves the state of the store, which closes it where nobody else uses
// it. It is called even if Provision failed half-way.
func (a *App) Cleanup() error {
	if a.detach != nil {
		a.detach()
	}
	if !a.joined {
		return nil
	}
	a.joined = false
	_, err := rings.Delete(a.opener.Identity())
	return err
}

// check reports what could never work. It looks at the fields alone, so that the
// Caddyfile can call it after each option and name the line.
func (a *App) check() error {
	if err := checkPlaces(a.Headers, ""); err != nil {
		return err
	}
	if a.SecretPrefix != nil && !key.ValidPrefix(*a.SecretPrefix) {
		return fmt.Errorf("secret_prefix: must be at most %d of a-z A-Z 0-9 _ -", key.MaxPrefixLen)
	}
	if err := sqlite.CheckTablePrefix(a.TablePrefix); err != nil {
		return err
	}
	if err := a.Credits.check(); err != nil {
		return err
	}
	if err := a.checkPlans(); err != nil {
		return err
	}
	return errors.Join(a.KeyRules.check(), a.checkConfigs())
}

// Service returns the keys under the rules of this configuration. The state behind
// it is shared; it ends when no configuration uses the store any more.
func (a *App) Service() *keyring.Service { return keyring.NewService(a.ring, a.settings) }

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
	_ caddy.Destructor   = pooled{}
)
