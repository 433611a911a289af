package apikey

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// handled receives the events of testHandler.
var handled = make(chan string, 10*eventQueue)

// testHandler is a handler of Caddy's events that a test may hold up.
type testHandler struct{}

var holdHandler = make(chan struct{}, 1) // holds what the handler needs to go on

func (testHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.apikey_test", New: func() caddy.Module { return new(testHandler) }}
}

func (testHandler) Handle(_ context.Context, e caddy.Event) error {
	<-holdHandler
	handled <- fmt.Sprintf("%s %v %v %v", e.Name(), e.Data["keyId"], e.Data["userId"], e.Data["threshold"])
	holdHandler <- struct{}{}
	return nil
}

func init() { caddy.RegisterModule(testHandler{}) }

// TestCaddyEvents: what happens is told to handlers of Caddy's event app, which nothing waits
// for; where they are too slow, events are lost and not memory.
func TestCaddyEvents(t *testing.T) {
	app := map[string]any{"store": map[string]any{"store": "sqlite", "path": filepath.Join(t.TempDir(), "keys.db")}, "thresholds": []int{50}}
	cfg, err := json.Marshal(map[string]any{
		"admin": map[string]any{"disabled": true, "config": map[string]any{"persist": false}},
		"apps": map[string]any{
			"apikey": app,
			"events": map[string]any{"subscriptions": []any{map[string]any{"events": keyring.EventTypes, "handlers": []any{map[string]any{"handler": "apikey_test"}}}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(cfg, true); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	}()
	loaded, err := caddy.ActiveContext().AppIfConfigured("apikey")
	if err != nil {
		t.Fatal(err)
	}
	s := loaded.(*App).Service()
	editor := s.As(keyring.Actor{Kind: keyring.ActorOperator})
	// The handler is held up: creating keys does not wait for it.
	four := int64(4)
	k, err := editor.Create(t.Context(), keyring.Draft{UserID: "alice", Remaining: &four})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if d, err := s.Verify(t.Context(), k.Raw, &keyring.Request{Cost: 1}); err != nil || d.Outcome != keyring.Allowed {
			t.Fatal(d.Outcome, err)
		}
	}
	holdHandler <- struct{}{}
	id := k.Key.ID
	for _, want := range []string{
		"apikey_key_created " + id + " alice <nil>", "apikey_credits_threshold " + id + " alice 50", "apikey_key_exhausted " + id + " alice <nil>",
	} {
		if got := <-handled; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}

	<-holdHandler
	e := loaded.(*App).events
	before := len(e.queue)
	for i := range 2 * eventQueue {
		e.Happened([]keyring.Event{{Type: keyring.EventKeyCreated, KeyID: fmt.Sprint(i), UserID: "bob"}})
	}
	if n := e.dropped.Load(); n < eventQueue-1 || before != 0 {
		t.Errorf("%d were dropped", n)
	}
	holdHandler <- struct{}{}
	if got := <-handled; got != "apikey_key_created 0 bob <nil>" {
		t.Error(got)
	}
}

// Guard: the handler is one.
var _ caddyevents.Handler = testHandler{}
