package keyring

import (
	"context"
	"testing"
	"time"
)

// TestQ32_spend takes calls from the budgets of a key and of a person, who is not the
// key of the same name, and forgets budgets that have ended.
func TestQ32_spend(t *testing.T) {
	g := newRig(t)
	k, err := g.Create(context.Background(), Draft{UserID: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := g.Verify(context.Background(), k.Raw, &Request{RecordOnly: true})
	if err != nil || d.Outcome != Allowed {
		t.Fatal(d.Outcome.Code(), err)
	}
	for i := range int64(60) {
		if got := g.Spend(&d, ""); got.Outcome != Allowed || len(got.Limits) != 1 || got.Limits[0].Remaining != 59-i || got.Key().ID != k.Key.ID {
			t.Fatalf("call %d: %+v", i, got.Limits)
		}
	}
	got := g.Spend(&d, "")
	if got.Outcome != RateLimited || !got.Waitable || got.Wait <= 0 || got.Wait > 60_000 {
		t.Errorf("%v %d", got.Outcome.Code(), got.Wait)
	}
	if got := g.Spend(nil, k.Key.ID); got.Outcome != Allowed {
		t.Errorf("a person has the budget of a key: %v", got.Outcome.Code())
	}
	g.clock.advance(time.Duration(got.Wait) * time.Millisecond)
	if got := g.Spend(&d, ""); got.Outcome != Allowed {
		t.Errorf("after %d ms: %v", got.Wait, got.Outcome.Code())
	}
	g.clock.advance(2 * time.Minute)
	g.Spend(nil, "bob")
	if n := len(g.engine.budgets.of); n != 1 {
		t.Errorf("%d budgets are kept", n)
	}
}
