package keyring

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// denialsEvery is how often denied calls are written to the audit log, and
	// strangersEvery how often those of callers whom nobody knows.
	denialsEvery   = time.Second
	strangersEvery = int64(time.Minute / time.Millisecond)
	// maxDenials is how many denied calls wait to be written. More are only counted.
	maxDenials = 1000
	// maxStrangers is of how many addresses calls are counted apart.
	maxStrangers = 1000
)

// Denied is a call of a management API that was refused for who made it.
type Denied struct {
	By   Actor // the zero Kind: nobody knows who; only Address counts
	Code string
	Call string // such as "DELETE /v1/auth/api-keys/{id}"
}

// denials are denied calls until they are written. The calls do not wait for that.
type denials struct {
	mu        sync.Mutex
	entries   []store.AuditEntry
	more      int64 // beyond maxDenials
	strangers map[netip.Addr]int64
	others    int64 // of strangers beyond maxStrangers
	since     int64 // by the monotonic clock: when strangers were written last
}

// Denied notes a denied call for the audit log. Each call of a known caller is an entry;
// those of others are summed by address, in one entry a minute.
func (s *Service) Denied(d Denied) {
	r := s.engine
	if d.By.Kind == "" {
		r.denials.stranger(d.By.Address)
		return
	}
	e := r.entry(&d.By, ActionCallDenied)
	if d.By.Kind == ActorKey {
		e.KeyID = d.By.ID
	}
	var err error
	if e.Changes, err = changesJSON(map[string]key.FieldChange{"call": {To: text(&d.Call)}, "code": {To: text(&d.Code)}}); err != nil {
		r.report(err)
		return
	}
	r.denials.add(e)
}

func (d *denials) add(e store.AuditEntry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.entries) == maxDenials {
		d.more++
		return
	}
	d.entries = append(d.entries, e)
}

func (d *denials) stranger(address netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.strangers[address]; !ok && len(d.strangers) == maxStrangers {
		d.others++
		return
	}
	if d.strangers == nil {
		d.strangers = make(map[netip.Addr]int64)
	}
	d.strangers[address]++
}

// take takes what is to be written now.
func (d *denials) take(now instant, all bool) (list []store.AuditEntry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list, d.entries = d.entries, nil
	summed := func(action string, address netip.Addr, n int64) {
		if n == 0 {
			return
		}
		e := store.AuditEntry{Time: now.wall, Action: action, Actor: store.AuditActor{Kind: string(ActorSystem)}, Count: n}
		if address.IsValid() {
			e.Actor.Address = address.String()
		}
		list = append(list, e)
	}
	summed(ActionCallDenied, netip.Addr{}, d.more)
	d.more = 0
	if passed := now.monotonic - d.since; !all && passed >= 0 && passed < strangersEvery {
		return list
	}
	addresses := make([]netip.Addr, 0, len(d.strangers))
	for a := range d.strangers {
		addresses = append(addresses, a)
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	for _, a := range addresses {
		summed(ActionCallsRefused, a, d.strangers[a])
	}
	summed(ActionCallsRefused, netip.Addr{}, d.others)
	d.strangers, d.others, d.since = nil, 0, now.monotonic
	return list
}

// untake puts back what could not be written, as far as there is room.
func (d *denials) untake(list []store.AuditEntry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list = append(list, d.entries...)
	d.entries = list[:min(len(list), maxDenials)]
	for _, e := range list[len(d.entries):] {
		d.more += max(e.Count, 1)
	}
}

// writeDenials writes denied calls to the audit log; all of them, or those that are due.
func (r *Engine) writeDenials(ctx context.Context, st store.Store, all bool) error {
	list := r.denials.take(r.clock(), all)
	if len(list) == 0 {
		return nil
	}
	if err := st.AppendAudit(ctx, store.Noted{Audit: list}); err != nil {
		r.denials.untake(list)
		return fmt.Errorf("writing denied calls to the audit log: %w", err)
	}
	return nil
}
