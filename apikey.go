// Package apikey is a plugin that makes Caddy a gateway for API keys.
//
// The app (module apikey) configures where keys are stored and how they are
// created. The gate (directive apikey) admits requests with a valid key. The
// self-service API (directive apikey_api), the admin API and the command line
// manage keys. The state of a store outlives reloads of the configuration.
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
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func init() {
	caddy.RegisterModule(&App{})
}

// App is the Caddy app "apikey". It configures where keys are stored and how they
// are created and verified. It is optional: without it, the gate and the
// self-service API use the defaults.
type App struct {
	// StoreRaw is the store of the keys: a module of the namespace apikey.stores.
	// Default: {"store": "sqlite"}.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=apikey.stores inline_key=store"`

	// TablePrefix is the prefix of all table names. Default: none.
	TablePrefix string `json:"table_prefix,omitempty"`

	// Headers are the request headers that may carry a key; an empty list is none.
	// Default: X-API-Key.
	Headers []string `json:"headers,omitzero"`

	// Authorization lists the schemes of the header Authorization that may carry a
	// key; an empty list is none. See CredentialSources. Default: Bearer.
	Authorization []string `json:"authorization,omitzero"`

	// SecretPrefix is the prefix of new secrets. Default: "clsk_".
	SecretPrefix *string `json:"secret_prefix,omitempty"`

	// Credits configures how credits are taken from keys.
	// Default: {"mode": "strict"}.
	Credits *Credits `json:"credits,omitempty"`

	// CacheSize is how many bytes of memory the keys that were used lately may take,
	// from 1 MiB to 1 TiB. A key that is not in memory costs a lookup in the store.
	// Default: 67108864 (64 MiB), enough for about 40,000 keys.
	CacheSize int64 `json:"cache_size,omitempty"`

	// Audit is about the audit log. Default: entries are kept for 400 days.
	Audit *Audit `json:"audit,omitempty"`

	// GuessLimit limits how many invalid keys may come from an IPv4 address or an IPv6 network
	// of 64 bits. Beyond it they are refused with RATE_LIMITED instead of INVALID_API_KEY,
	// while valid keys are let in. An empty object is no limit. Default: none.
	GuessLimit *GuessLimit `json:"guess_limit,omitempty"`

	// Notices are about the events of Caddy's event app. Webhooks have their own.
	Notices

	// Webhooks are where events are sent, each URL once. Default: none.
	Webhooks []Webhook `json:"webhooks,omitempty"`

	Plans
	KeyRules

	// Configs are named configurations in addition to "default", which the options
	// above describe. Default: none.
	Configs []Config `json:"configs,omitempty"`

	ctx      caddy.Context // kept for Start, which asks it for the logs
	logger   *zap.Logger
	handlers []handler
	identity identity // the identity headers of all gates
	settings *keyring.Settings
	opener   store.Opener
	first    bool            // no other configuration used the store before this one
	engine   *keyring.Engine // kept after Cleanup, for admin calls that have found the app before
	joined   bool            // the pool entry is acquired
	service  *keyring.Service
	detach   func()
	events   *emitter
}

const (
	minCacheSize = 1 << 20
	maxCacheSize = 1 << 40
)

var errCacheSize = errors.New("cache_size: must be a number of bytes from 1MiB to 1TiB, such as 64MiB")

// rings holds one keyring per store in use. The key is the identity of the store
// only: configurations with different options for the same store share its
// counters.
var rings = caddy.NewUsagePool()

// pooled adapts an engine to the pool.
type pooled struct {
	*keyring.Engine
	tablePrefix string
}

// Destruct implements caddy.Destructor. A reload holds a lock that the whole admin
// endpoint of Caddy waits for, and a disk may be slow, so during a reload the
// store is closed in the background.
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

// Provision compiles the settings and joins the state of the store. It opens no
// file, so that "caddy validate" does not disturb a running server: that is left
// to Start, and on a reload to openOnReload.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	a.settings = &keyring.Settings{
		Lease: a.Credits.lease(), CacheSize: a.CacheSize, AuditKeep: a.Audit.keep(), GuessLimit: a.GuessLimit.policy(), Observers: []keyring.Observer{metrics},
	}
	err := a.provisionPlans(a.settings)
	if err != nil {
		return err
	}
	endpoints, err := a.provisionWebhooks(a.settings)
	if err != nil {
		return err
	}
	if err = a.provisionRules(ctx, a.settings); err != nil {
		return err
	}
	if a.opener, err = a.provisionStore(ctx); err != nil {
		return err
	}
	if err = a.join(); err != nil {
		return err
	}
	a.service = keyring.NewService(a.engine, a.settings)
	if a.events, err = newEmitter(ctx, a.service, a.settings.Events, endpoints); err != nil {
		return err
	}
	a.settings.Listeners = []keyring.Listener{a.events}
	return a.registerMetrics(ctx)
}

// Validate implements caddy.Validator.
func (a *App) Validate() error {
	if err := a.check(); err != nil {
		return err
	}
	if err := a.checkDefaultTier(); err != nil {
		return err
	}
	for i := range a.Configs {
		if err := a.Configs[i].checkInherited(&a.KeyRules); err != nil {
			return err
		}
	}
	return checkUsable(a.settings)
}

// join takes the pool entry of the store.
func (a *App) join() error {
	entry, shared, err := rings.LoadOrNew(a.opener.Identity(), func() (caddy.Destructor, error) {
		engine := keyring.New(a.opener, now, report)
		engine.SetMonitor(metrics)
		return pooled{engine, a.TablePrefix}, nil
	})
	if err != nil {
		return err
	}
	// From here on, Cleanup has an entry to release.
	a.engine, a.joined, a.first = entry.(pooled).Engine, true, !shared
	a.logger.Debug("joined the state of the store", zap.Bool("shared", shared))
	if in := entry.(pooled).tablePrefix; in != a.TablePrefix {
		return fmt.Errorf("table_prefix: the store is in use with %q; stop the server to change it", in)
	}
	return nil
}

// report logs failures of background work, and owners and keys whose tier or
// configuration is not configured. It asks for the logger each time, because the
// background work outlives the configuration that started it.
func report(err error) {
	var unknown *keyring.UnknownTier
	if errors.As(err, &unknown) {
		caddy.Log().Named("apikey").Warn("the tier of an owner is not configured; using another one",
			zap.String("user_id", unknown.UserID), zap.String("tier", unknown.Tier), zap.String("instead", unknown.Instead))
		return
	}
	var gone *keyring.UnknownConfig
	if errors.As(err, &gone) {
		caddy.Log().Named("apikey").Warn("the configuration of a key does not exist; using the rules of another one",
			zap.String("config", gone.ConfigID), zap.String("instead", key.DefaultConfig))
		return
	}
	caddy.Log().Named("apikey").Error("background work failed", zap.Error(err))
}

func (a *App) provisionStore(ctx caddy.Context) (store.Opener, error) {
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"store":"sqlite"}`)
	}
	if err := checkInlineModule("apikey.stores", "store", a.StoreRaw); err != nil {
		return nil, err
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

// Start opens the store, unless an earlier configuration has opened it.
func (a *App) Start() error {
	if err := a.engine.Open(context.Background()); err != nil {
		return err
	}
	a.detach = a.engine.Attach(a.settings)
	a.events.start()
	a.warn()
	if a.first {
		go a.announce()
	}
	return nil
}

// announce logs the versions, where keys are stored, how many there are, how to create one, and
// the newest entry of the audit log.
// The keys are counted in the background, which Start does not wait for.
func (a *App) announce() {
	n, err := a.engine.KeysAtOpen(a.ctx)
	if err != nil {
		return // the configuration has ended
	}
	a.logger.Info("opened the store of API keys", append(versionFields(),
		zap.String("store", a.opener.Identity()), zap.Int64("keys", n),
		zap.String("create_key", "caddy apikey create --owner <userId>"))...)
	if head, err := a.engine.AuditHead(a.ctx); err == nil && head.ID > 0 {
		logHead(a.logger, head)
	}
}

// Stop does nothing. On a clean exit the HTTP servers may drain after it, and
// their requests need the keys. Cleanup releases the store.
func (a *App) Stop() error { return nil }

// Cleanup releases the state of the store, which closes the store if nothing else
// uses it. Caddy also calls it after Provision or Validate has failed.
func (a *App) Cleanup() error {
	if a.detach != nil {
		a.detach()
	}
	if a.events != nil {
		a.events.close()
		a.events = nil
	}
	if !a.joined {
		return nil
	}
	a.joined = false
	_, err := rings.Delete(a.opener.Identity())
	return err
}

// check validates each field on its own. The Caddyfile parser calls it after each
// option, so that an error names the line of the option.
func (a *App) check() error {
	if err := checkHeaders(a.Headers); err != nil {
		return err
	}
	if err := checkSchemes(a.Authorization); err != nil {
		return err
	}
	if a.SecretPrefix != nil && !key.ValidPrefix(*a.SecretPrefix) {
		return fmt.Errorf("secret_prefix: must be at most %d characters of a-z A-Z 0-9 _ -", key.MaxPrefixLen)
	}
	if err := sqlite.CheckTablePrefix(a.TablePrefix); err != nil {
		return err
	}
	if err := a.Credits.check(); err != nil {
		return err
	}
	if a.CacheSize != 0 && (a.CacheSize < minCacheSize || a.CacheSize > maxCacheSize) {
		return errCacheSize
	}
	if err := a.Audit.check(); err != nil {
		return err
	}
	if err := a.GuessLimit.check(); err != nil {
		return err
	}
	if err := a.Notices.check(); err != nil {
		return err
	}
	if err := a.checkWebhooks(); err != nil {
		return err
	}
	if err := a.checkPlans(); err != nil {
		return err
	}
	return errors.Join(a.KeyRules.check(), a.checkConfigs())
}

// Service returns the keyring with the rules of this configuration. Its state is
// shared with other configurations that use the same store, and is closed when
// none uses it any more.
func (a *App) Service() *keyring.Service { return a.service }

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
	_ caddy.Destructor   = pooled{}
)
