package keyring

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Tier is a named plan: limits that all keys of an owner share.
type Tier struct {
	Name   string
	Limits []TierLimit // each unit once
	// Permissions of new keys that do not say. Nil: those of the rules.
	Permissions key.Permissions
}

// TierLimit is at most Max requests per Unit, of all keys of an owner together.
type TierLimit struct {
	Max  int64
	Unit Unit
	Text string // the unit as it was written; empty: as Unit writes it
}

// Unit is what a limit of a tier counts in: Day, Month, or, above 0, a number of
// milliseconds.
type Unit int64

// Day and Month are those of the calendar.
const (
	Day   Unit = -1
	Month Unit = -2

	// Rate is the unit of a key's own limit, whose window is that of the key.
	Rate Unit = 0

	minute = Unit(time.Minute / time.Millisecond)
	hour   = Unit(time.Hour / time.Millisecond)
)

// String returns "day", "month", or a duration such as "10s".
func (u Unit) String() string {
	switch u {
	case Day:
		return "day"
	case Month:
		return "month"
	default:
		return (time.Duration(u) * time.Millisecond).String()
	}
}

// id is the name of the unit in the store.
func (u Unit) id() string {
	switch {
	case u == Rate:
		return store.UnitRate
	case u < 0:
		return u.String()
	}
	return strconv.FormatInt(int64(u), 10) + "ms"
}

// unitOf reads what id writes.
func unitOf(id string) (Unit, bool) {
	switch id {
	case Day.id():
		return Day, true
	case Month.id():
		return Month, true
	case Rate.id():
		return Rate, true
	}
	number, _ := strings.CutSuffix(id, "ms")
	n, err := strconv.ParseInt(number, 10, 64)
	return Unit(n), err == nil && n > 0 && Unit(n).id() == id
}

// label is the name of the limit in rate headers.
func (l *TierLimit) label() string {
	switch {
	case l.Unit == minute:
		return "minute"
	case l.Unit == hour:
		return "hour"
	case l.Unit < 0:
		return l.Unit.String()
	}
	return cmp.Or(l.Text, l.Unit.String())
}

// max returns the maximum that the tier has for a unit, or nil.
func (t *Tier) max(u Unit) *int64 {
	for i := range t.Limits {
		if t.Limits[i].Unit == u {
			return &t.Limits[i].Max
		}
	}
	return nil
}

// plans are the tiers of a configuration, prepared for requests.
type plans struct {
	named  map[string]*plan
	normal *plan // of owners that have no tier of their own; nil: none
	// units are all that any tier limits, the shortest first. Each is counted for
	// every owner, so that an owner's counts are there when its tier changes.
	units []Unit
	zone  *time.Location
	spans atomic.Pointer[spans]
	hour  atomic.Pointer[hourCounts] // the last one, of decisions about keys without a tier
	// granting: a tier has permissions for new keys.
	granting bool
}

// plan is a tier. quotas has an element for each of plans.units.
type plan struct {
	*Tier
	quotas []quota
	shown  int                        // of them, how many limit anything
	hour   atomic.Pointer[hourCounts] // the last one
}

// quota is what a tier grants of a unit.
type quota struct {
	label string // empty: the tier does not limit this unit
	max   int64
}

func newPlans(s *Settings) *plans {
	p := &plans{named: make(map[string]*plan, len(s.Tiers)), zone: s.Zone}
	if p.zone == nil {
		p.zone = time.UTC
	}
	for i := range s.Tiers {
		for _, l := range s.Tiers[i].Limits {
			if !slices.Contains(p.units, l.Unit) {
				p.units = append(p.units, l.Unit)
			}
		}
	}
	slices.SortFunc(p.units, func(a, b Unit) int { return cmp.Compare(a.length(), b.length()) })
	for i := range s.Tiers {
		t := &s.Tiers[i]
		p.named[t.Name] = p.draw(t)
		p.granting = p.granting || t.Permissions != nil
	}
	p.normal = p.named[s.DefaultTier]
	return p
}

// length sorts units: a calendar day comes after every duration.
func (u Unit) length() uint64 {
	if u < 0 {
		return 1<<63 - uint64(u) //nolint:gosec // the two's complement of u
	}
	return uint64(u)
}

func (p *plans) draw(t *Tier) *plan {
	pl := &plan{Tier: t, quotas: make([]quota, len(p.units))}
	for i, u := range p.units {
		pl.quotas[i].max = key.MaxCount
		for j := range t.Limits {
			if l := &t.Limits[j]; l.Unit == u {
				pl.quotas[i] = quota{l.label(), l.Max}
				pl.shown++
			}
		}
	}
	return pl
}

// of returns the plan of an owner; known is false where the owner's tier is not
// configured and the default one stands in.
func (p *plans) of(o *key.Owner) (pl *plan, known bool) {
	if o.Tier == nil {
		return p.normal, true
	}
	if pl, known = p.named[*o.Tier]; known {
		return pl, true
	}
	return p.normal, false
}

// policy returns what counts a unit at most limit times.
func (p *plans) policy(u Unit, limit, wall int64) ratelimit.Policy {
	switch u {
	case Day:
		return p.calendarAt(wall).day.Policy(limit)
	case Month:
		return p.calendarAt(wall).month.Policy(limit)
	default:
		return ratelimit.Policy{Algorithm: ratelimit.FixedWindow, Max: limit, Window: int64(u)}
	}
}

// spans are a day of the calendar and its month.
type spans struct{ day, month ratelimit.Span }

// calendarAt returns the day and the month at a moment. They are worked out once
// a day, since requests should not have to.
func (p *plans) calendarAt(wall int64) *spans {
	if s := p.spans.Load(); s != nil && s.day.Has(wall) && s.month.Has(wall) {
		return s
	}
	s := &spans{ratelimit.Day(wall, p.zone), ratelimit.Month(wall, p.zone)}
	p.spans.Store(s)
	return s
}

// Tiers returns the tiers of this configuration, in its order.
func (s *Service) Tiers() []Tier { return s.set.Tiers }

// DefaultTier returns the name of the tier of owners that have none of their
// own; empty: none.
func (s *Service) DefaultTier() string { return s.set.DefaultTier }

// Zone returns where days and months begin and end.
func (s *Service) Zone() *time.Location { return s.plans.zone }

// TierOf returns the name of the tier that holds for an owner, or nil.
func (s *Service) TierOf(o *key.Owner) *string {
	if pl, _ := s.plans.of(o); pl != nil {
		return &pl.Name
	}
	return nil
}

// checkTier checks a tier that somebody gives an owner.
func (s *Service) checkTier(name *string) error {
	if name == nil || s.plans.named[*name] != nil {
		return nil
	}
	if len(s.set.Tiers) == 0 {
		return invalid("tier", "unknown tier: none is configured, so it must be null")
	}
	return invalid("tier", "unknown tier: must be one of %s, or null", s.tierNames())
}

func (s *Service) tierNames() string {
	var names []string
	for i := range s.set.Tiers {
		names = append(names, strconv.Quote(s.set.Tiers[i].Name))
	}
	return strings.Join(names, ", ")
}

// tierFilter returns the filter for keys whose owner is in a tier, as TierOf says.
func (s *Service) tierFilter(name string) (*store.TierFilter, error) {
	if s.plans.named[name] == nil {
		if len(s.set.Tiers) == 0 {
			return nil, invalid("tier", "unknown tier: none is configured")
		}
		return nil, invalid("tier", "unknown tier: must be one of %s", s.tierNames())
	}
	f := &store.TierFilter{Name: name, Default: name == s.set.DefaultTier}
	for i := range s.set.Tiers {
		f.Known = append(f.Known, s.set.Tiers[i].Name)
	}
	return f, nil
}

// tierPermissions returns what the tier of an owner grants new keys that do not
// say, or nil where it does not say either.
func (s *Service) tierPermissions(ctx context.Context, st store.Store, userID string) (key.Permissions, error) {
	if !s.plans.granting {
		return nil, nil
	}
	o, err := st.Owner(ctx, userID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if pl, _ := s.plans.of(&o.Owner); pl != nil {
		return pl.Permissions, nil
	}
	return nil, nil
}
