package admin

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// undelivered makes a delivery that nobody sends, and returns its ID.
func (a *rig) undelivered() string {
	a.t.Helper()
	a.set.Webhooks = []keyring.Webhook{{URL: "https://example.com/hook"}}
	a.make(`{"userId":"hooked"}`)
	list, err := a.Deliveries(a.t.Context(), ListDeliveries{})
	if err != nil || len(list.Value.Deliveries) == 0 {
		a.t.Fatal(list.Value, err)
	}
	return list.Value.Deliveries[0].ID
}

// TestDeliveries: the outbox is listed by state and page, and a dead delivery can be tried again.
func TestDeliveries(t *testing.T) {
	a := newAPI(t)
	if got := a.send("GET", "/apikey/webhooks", ""); string(got.body) != `{"deliveries":[],"nextCursor":null}`+"\n" {
		t.Fatalf("%s", got.body)
	}
	first, second := a.undelivered(), a.undelivered()
	m := a.send("GET", "/apikey/webhooks?limit=1", "").want(t, 200)
	one := m["deliveries"].([]any)[0].(map[string]any)
	for name, want := range map[string]any{
		"id": second, "event": "apikey_key_created", "url": "https://example.com/hook", "state": "pending", "attempts": json.Number("0"), "lastStatus": nil,
		"nextAttempt": "2026-11-21T19:09:19.500Z", "createdAt": "2026-11-21T19:09:19.500Z",
	} {
		if one[name] != want {
			t.Errorf("%s is %v, want %v", name, one[name], want)
		}
	}
	m = a.send("GET", "/apikey/webhooks?limit=1&cursor="+m["nextCursor"].(string), "").want(t, 200)
	if id := m["deliveries"].([]any)[0].(map[string]any)["id"]; id != first || m["nextCursor"] != nil {
		t.Errorf("the second page is %v", m)
	}

	service, err := a.service()
	if err != nil {
		t.Fatal(err)
	}
	claimed, _, err := service.ClaimDeliveries(t.Context(), "https://example.com/hook", time.Minute, 1)
	if err != nil || len(claimed) != 1 {
		t.Fatal(claimed, err)
	}
	claimed[0].State, claimed[0].LastStatus = store.DeliveryDead, 500
	if err := service.EndDeliveries(t.Context(), nil, claimed); err != nil {
		t.Fatal(err)
	}
	m = a.send("GET", "/apikey/webhooks?state=dead", "").want(t, 200)
	dead := m["deliveries"].([]any)[0].(map[string]any)
	if dead["id"] != claimed[0].ID || dead["lastStatus"] != json.Number("500") || dead["nextAttempt"] != nil || len(m["deliveries"].([]any)) != 1 {
		t.Errorf("%v", m)
	}
	a.sleep(time.Hour)
	m = a.send("POST", "/apikey/webhooks/"+claimed[0].ID+"/retry", "").want(t, 200)
	if m["state"] != "pending" || m["attempts"] != json.Number("0") || m["createdAt"] != "2026-11-21T20:09:19.500Z" {
		t.Errorf("%v", m)
	}
	a.send("POST", "/apikey/webhooks/msg_none/retry", "").refused(t, 404, "DELIVERY_NOT_FOUND", "")
	a.send("GET", "/apikey/webhooks?state=lost", "").refused(t, 400, "INVALID_FIELD", "state")
	a.send("GET", "/apikey/webhooks?cursor=x", "").refused(t, 400, "INVALID_FIELD", "cursor")
}
