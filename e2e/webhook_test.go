package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/webhook"
)

const (
	hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	hookSite   = `{
	log default {
		format apikey_redact
	}
	apikey {
		webhook {$HOOK} {
			secret {env.HOOK_SECRET}
			thresholds 50
		}
	}
}

{$SITE} {
	apikey
	respond ok
}
`
)

// receiver is a webhook that checks signatures and remembers what it has taken.
type receiver struct {
	*httptest.Server
	t      testing.TB
	answer atomic.Int64 // the status of its answers

	mu    sync.Mutex
	taken []string            // "type key" of each request that was answered with 200
	ids   map[string][]string // the requests by webhook-id, whatever was answered
	text  strings.Builder     // all that was sent
}

func startReceiver(t testing.TB) *receiver {
	r := &receiver{t: t, ids: map[string][]string{}}
	r.answer.Store(http.StatusOK)
	r.Server = httptest.NewServer(http.HandlerFunc(r.take))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was killed
	}
	secret, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(hookSecret, "whsec_"))
	id := req.Header.Get("webhook-id")
	if want := "v1," + webhook.Sign(secret, id, req.Header.Get("webhook-timestamp"), body); req.Header.Get("webhook-signature") != want {
		r.t.Errorf("the signature of %s is %s", body, req.Header.Get("webhook-signature"))
	}
	var event struct {
		Type string
		Data struct{ KeyID, UserID string }
	}
	if err := json.Unmarshal(body, &event); err != nil || event.Data.UserID == "" {
		r.t.Errorf("%s: %v", body, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	what := strings.TrimPrefix(event.Type, "apikey_") + " " + event.Data.KeyID
	status := int(r.answer.Load())
	if status == http.StatusOK {
		r.taken = append(r.taken, what)
	}
	r.ids[id] = append(r.ids[id], what)
	r.text.Write(body)
	w.WriteHeader(status)
}

// has reports whether events were taken, whatever else was.
func (r *receiver) has(events ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if !slices.Contains(r.taken, e) {
			return false
		}
	}
	return true
}

// deliveries returns what a webhook has not taken.
func (s *server) deliveries() []admin.Delivery {
	s.t.Helper()
	var list admin.DeliveryList
	s.admin("GET", "/apikey/webhooks?limit=500", nil, 200, &list)
	return list.Deliveries
}

// TestWebhooks: what happens to keys arrives at a webhook, signed, once, and without raw keys.
func TestWebhooks(t *testing.T) {
	quick(t)
	r := startReceiver(t)
	s := startGate(t, hookSite, withEnv("HOOK="+r.URL+"/?token=canary", "HOOK_SECRET="+hookSecret))
	k := s.create(map[string]any{"remaining": 2})
	for range 2 {
		if a := s.get("/", "X-API-Key: "+k.Raw); a.status != 200 {
			t.Fatal(a.status)
		}
	}
	s.admin("POST", "/apikey/keys/"+k.ID+"/rotate", nil, 200, nil)
	s.admin("PATCH", "/apikey/keys/"+k.ID, map[string]any{"enabled": false}, 200, nil)
	s.admin("PUT", "/apikey/owners/alice", map[string]any{"enabled": false}, 200, nil)
	s.admin("DELETE", "/apikey/keys/"+k.ID, nil, 204, nil)
	want := []string{
		"key_created " + k.ID, "credits_threshold " + k.ID, "key_exhausted " + k.ID, "key_rotated " + k.ID, "key_revoked " + k.ID, "owner_disabled ", "key_deleted " + k.ID,
	}
	eventually(t, "events arrive", func() bool { return r.has(want...) && len(s.deliveries()) == 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.taken) != len(want) || len(r.ids) != len(want) {
		t.Errorf("taken %q, want %q", r.taken, want)
	}
	if text := r.text.String(); strings.Contains(text, k.Raw) || strings.Contains(text, k.Raw[:12]) {
		t.Error(text)
	}
	if out := s.Log(); strings.Contains(out, "canary") || strings.Contains(out, hookSecret) {
		t.Error(out)
	}
}

// TestWebhooks_recipe: the configuration of the documentation sends the events that it names,
// and no others.
func TestWebhooks_recipe(t *testing.T) {
	quick(t)
	r, up := startReceiver(t), startUpstream(t)
	config := recipeIn(t, "docs/events.md", "## Webhooks", "https://hooks.example.com/apikey", "{$HOOK}", "\napi.example.com", "\n{$SITE}")
	s := startGate(t, config, withEnv("HOOK="+r.URL, "UPSTREAM="+up.Addr, "APIKEY_WEBHOOK_SECRET="+hookSecret))
	k := s.create(map[string]any{"remaining": 2})
	s.get("/", keyLine(k.Raw)).is(t, 200, "")
	s.admin("POST", "/apikey/keys/"+k.ID+"/rotate", nil, 200, nil)
	s.admin("PATCH", "/apikey/keys/"+k.ID, map[string]any{"enabled": false}, 200, nil)
	eventually(t, "events arrive", func() bool {
		return r.has("key_created "+k.ID, "credits_threshold "+k.ID, "key_revoked "+k.ID) && len(s.deliveries()) == 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.taken) != 3 {
		t.Errorf("taken %q", r.taken)
	}
}

// TestWebhooks_dead: requests do not wait for a webhook that fails. The log says so, what it has
// not taken for a day is dead, and a command sends it again.
func TestWebhooks_dead(t *testing.T) {
	quick(t)
	r := startReceiver(t)
	r.answer.Store(http.StatusInternalServerError)
	s := startGate(t, hookSite, withEnv("HOOK="+r.URL, "HOOK_SECRET="+hookSecret), withTestClock())
	k := s.create(nil)
	if a := s.get("/", "X-API-Key: "+k.Raw); a.status != 200 {
		t.Fatal(a.status)
	}
	eventually(t, "an attempt", func() bool {
		d := s.deliveries()
		return len(d) == 1 && d[0].LastStatus != nil && *d[0].LastStatus == 500
	})
	s.admin("POST", "/apikey/clock", map[string]any{"offsetMs": 25 * 3600 * 1000}, 200, nil)
	eventually(t, "it is dead", func() bool { return s.deliveries()[0].State == "dead" })
	for _, text := range []string{"a webhook does not take events", "gave up sending an event", "caddy apikey webhooks retry " + s.deliveries()[0].ID} {
		if out := s.Log(); !strings.Contains(out, text) {
			t.Errorf("the log does not say %q: %s", text, out)
		}
	}
	dead := s.run("apikey", "webhooks", "list", "--state", "dead", "--columns", "id,event,state,last-status")
	id := s.deliveries()[0].ID
	if dead.code != 0 || !strings.Contains(dead.stdout, id) || !strings.Contains(dead.stdout, "500") {
		t.Error(dead)
	}
	r.answer.Store(http.StatusOK)
	if again := s.run("apikey", "webhooks", "retry", id); again.code != 0 || !strings.Contains(again.stdout, "pending") {
		t.Error(again)
	}
	eventually(t, "it arrives", func() bool { return r.has("key_created "+k.ID) && len(s.deliveries()) == 0 })
	if again := s.run("apikey", "webhooks", "retry", id); again.code != 1 || !strings.Contains(again.stderr, "delivery not found") {
		t.Error(again)
	}
	eventually(t, "the log says so", func() bool { return strings.Contains(s.Log(), "a webhook takes events again") })
}

// TestWebhooks_kill: whatever a killed process had answered is told after all, each event with
// one ID however often it is sent, and nothing is told that did not happen.
func TestWebhooks_kill(t *testing.T) {
	full(t)
	r := startReceiver(t)
	s := startLife(t, hookSite, withEnv("HOOK="+r.URL, "HOOK_SECRET="+hookSecret), withTestClock())
	var mu sync.Mutex
	var answered []string
	for round := range times(5, 50) {
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for { // until the process is killed
					resp, err := lifeClient.Post(s.Admin+"/apikey/keys", "application/json", strings.NewReader(`{"userId":"alice"}`))
					if err != nil {
						return
					}
					var k lifeKey
					err = json.NewDecoder(resp.Body).Decode(&k)
					resp.Body.Close()
					if err != nil || resp.StatusCode != 201 {
						return
					}
					mu.Lock()
					answered = append(answered, "key_created "+k.ID)
					mu.Unlock()
				}
			})
		}
		eventually(t, "changes", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(answered) >= (round+1)*40
		})
		s.kill()
		group.Wait()
		s.start()
		// What was under way is taken for lost after a minute.
		if a := s.admin("POST", "/apikey/clock", fmt.Sprintf(`{"offsetMs":%d}`, (round+1)*120_000)); a.status != 200 {
			t.Fatal(a)
		}
	}
	eventually(t, "all events arrive", func() bool { return r.has(answered...) && len(s.deliveries()) == 0 })
	known := map[string]bool{}
	for cursor := ""; ; {
		var page struct {
			Keys       []struct{ ID string }
			NextCursor *string
		}
		decode(t, s.admin("GET", "/apikey/keys?limit=500"+cursor, "").body, &page)
		for _, k := range page.Keys {
			known["key_created "+k.ID] = true
		}
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	event := map[string]string{}
	for id, all := range r.ids {
		if slices.Sort(all); len(slices.Compact(all)) != 1 {
			t.Errorf("%s is the ID of %q", id, all)
		}
		if event[all[0]] != "" {
			t.Errorf("%q has two IDs", all[0])
		}
		event[all[0]] = id
	}
	for e := range event {
		if !known[e] {
			t.Errorf("%q did not happen", e)
		}
	}
	if len(event) != len(known) {
		t.Errorf("%d of %d changes were told", len(event), len(known))
	}
	t.Logf("%d changes, %d of them answered; %d requests to the webhook", len(known), len(answered), len(r.taken))
}
