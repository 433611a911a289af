package apikey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// noConfig is a configuration in this process that uses nothing.
var noConfig = sync.OnceValues(func() (caddy.Context, error) {
	return caddy.ProvisionContext(&caddy.Config{Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output":"discard"}`)}},
	}}})
})

// loadApp provisions an app in this process. It is cleaned up by the cancel
// function, or, where provisioning fails, by Caddy at once.
func loadApp(t testing.TB, raw string) (*App, context.CancelFunc, error) {
	t.Helper()
	parent, err := noConfig()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancelCtx := caddy.NewContext(parent)
	cancel := sync.OnceFunc(cancelCtx)
	t.Cleanup(cancel)
	mod, err := ctx.LoadModuleByID("apikey", json.RawMessage(raw))
	if err != nil {
		return nil, cancel, err
	}
	return mod.(*App), cancel, nil
}

// TestFinding2_cleanupWithoutEntry: Caddy cleans up what failed to be provisioned.
// That must give back an entry of the pool only where one was taken.
func TestFinding2_cleanupWithoutEntry(t *testing.T) {
	db := filepath.Join(t.TempDir(), "a.db")
	identity := "sqlite:" + db
	config := func(more string) string {
		return fmt.Sprintf(`{"store":{"store":"sqlite","path":%q}%s}`, db, more)
	}
	references := func(want int) {
		t.Helper()
		if n, _ := rings.References(identity); n != want {
			t.Errorf("%d references to the entry, want %d", n, want)
		}
	}
	app, cancel, err := loadApp(t, config(""))
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	references(1)
	for _, bad := range []string{
		`,"length":5`, `,"headers":["X Y"]`, `,"table_prefix":"other_"`, `,"table_prefix":"1 "`, `,"validators":[{"validator":"match","pattern":"["}]`,
	} {
		if _, _, err := loadApp(t, config(bad)); err == nil {
			t.Errorf("%s was not refused", bad)
		}
		references(1)
	}
	if err := new(App).Cleanup(); err != nil {
		t.Error(err)
	}
	if _, err := app.Service().Health(t.Context()); err != nil {
		t.Errorf("the store was closed: %v", err)
	}

	// Old and new live side by side; either may end first.
	next, cancelNext, err := loadApp(t, config(`,"length":80`))
	if err != nil {
		t.Fatal(err)
	}
	references(2)
	if next.engine != app.engine {
		t.Error("two keyrings for one store")
	}
	if err := next.Start(); err != nil {
		t.Fatal(err)
	}
	if err := app.Stop(); err != nil {
		t.Fatal(err)
	}
	cancel()
	references(1)
	if _, err := next.Service().Health(t.Context()); err != nil {
		t.Errorf("the store was closed: %v", err)
	}
	if err := next.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Service().Health(t.Context()); err != nil {
		t.Errorf("Stop closed the store, but requests drain after it: %v", err)
	}
	cancelNext()
	references(0)
	// Whoever still holds the app gets an error, never a panic.
	for name, a := range map[string]*App{"old": app, "new": next} {
		if _, err := a.Service().Health(t.Context()); !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s app after its end: %v", name, err)
		}
		if d, err := a.Service().Verify(t.Context(), "ak_x", &keyring.Request{}); d.Outcome != keyring.Unavailable || err == nil {
			t.Errorf("%s app after its end: %v, %v", name, d.Outcome, err)
		}
	}
	app, cancel, err = loadApp(t, config("")) // the lock is free again
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Error(err)
	}
	cancel()
}

// TestFinding4_serviceBesideCleanup: an admin call may have found the app just
// before its configuration ends. (The race detector looks on.)
func TestFinding4_serviceBesideCleanup(t *testing.T) {
	db := filepath.Join(t.TempDir(), "a.db")
	for range 20 {
		app, cancel, err := loadApp(t, fmt.Sprintf(`{"store":{"store":"sqlite","path":%q}}`, db))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var ended atomic.Bool
		began := make(chan struct{})
		wg.Go(func() {
			svc := app.Service()
			for close(began); !ended.Load(); {
				svc = app.Service()
			}
			if _, err := svc.Verify(t.Context(), "ak_x", &keyring.Request{}); !errors.Is(err, store.ErrClosed) {
				t.Errorf("error %v", err)
			}
		})
		<-began
		cancel()
		ended.Store(true)
		wg.Wait()
	}
}

// TestFinding4_beforeFirstStart: before there is any configuration.
func TestFinding4_beforeFirstStart(t *testing.T) {
	if caddy.ActiveContext().Context != nil {
		t.Skip("another test has left a configuration")
	}
	if _, err := runningService(); !errors.Is(err, errNotRunning) {
		t.Errorf("error %v", err)
	}
}

// TestR1_logged: the first configuration that uses a store logs the versions, where the store
// is, how many keys it has and how to create one. A reload logs nothing.
func TestR1_logged(t *testing.T) {
	db := filepath.Join(t.TempDir(), "a.db")
	start := func() (*App, context.CancelFunc, *observer.ObservedLogs) {
		t.Helper()
		app, cancel, err := loadApp(t, fmt.Sprintf(`{"store":{"store":"sqlite","path":%q}}`, db))
		if err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.InfoLevel)
		app.logger = zap.New(core)
		if err := app.Start(); err != nil {
			t.Fatal(err)
		}
		return app, cancel, logs
	}
	opened := func(logs *observer.ObservedLogs, keys int64, entries int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); logs.Len() < entries && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if logs.Len() != entries {
			t.Fatalf("%d entries", logs.Len())
		}
		want := map[string]any{
			"version": moduleVersion(), "caddy": versionOf(caddyModule), "sqlite": sqlite.Version, "go": runtime.Version(),
			"store": "sqlite:" + db, "keys": keys, "create_key": "caddy apikey create --owner <userId>",
		}
		if e := logs.All()[0]; e.Message != "opened the store of API keys" || !maps.Equal(e.ContextMap(), want) {
			t.Errorf("logged %s, %v", e.Message, e.ContextMap())
		}
	}

	app, cancel, logs := start()
	opened(logs, 0, 1)
	if _, err := app.Service().As(keyring.Actor{Kind: keyring.ActorOperator}).Create(t.Context(), keyring.Draft{UserID: "alice"}); err != nil {
		t.Fatal(err)
	}
	_, cancelNext, logs := start() // a reload
	cancel()
	cancelNext()
	if logs.Len() != 0 {
		t.Errorf("a reload logged %v", logs.All())
	}
	_, cancel, logs = start()
	opened(logs, 1, 2)
	if e := logs.All()[1]; e.Message != "the newest entry of the audit log" || e.ContextMap()["entry"] != int64(1) || len(e.ContextMap()["chain"].(string)) != 64 {
		t.Errorf("logged %s, %v", e.Message, e.ContextMap())
	}
	cancel()
}
