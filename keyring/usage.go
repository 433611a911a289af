package keyring

import (
	"context"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// Usage is what a key or an owner has used.
type Usage struct {
	Tier         *string
	Today, Month int64 // requests let in on this calendar day and in this month
	UsageLimits
	Days []DayUsage // without a gap, the oldest first, ending today
}

// UsageLimits are limits of a tier; nil where it has none.
type UsageLimits struct{ PerDay, PerMinute, PerMonth *int64 }

// DayUsage is one day of Usage.
type DayUsage struct {
	Date string // 2026-11-21
	store.Uses
}

// MaxDays is how many days of usage may be asked for.
const MaxDays = 366

// KeyUsage returns the usage of a key for the given number of days, whoever
// owned it then.
func (s *Service) KeyUsage(ctx context.Context, id string, days int) (Usage, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return Usage{}, err
	}
	e, err := st.Get(ctx, id)
	if err != nil {
		return Usage{}, err
	}
	return s.usage(ctx, st, days, used{
		owner: e.Owner,
		read: func(first, last date) ([]store.DayUses, error) {
			return st.Usage(ctx, store.OfKey(id), int32(first), int32(last))
		},
		ours: func(keyID, _ string) bool { return keyID == id },
	})
}

// OwnerUsage returns what the keys of an owner have used, deleted ones included,
// while they were the owner's.
func (s *Service) OwnerUsage(ctx context.Context, userID string, days int) (Usage, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return Usage{}, err
	}
	o, err := st.Owner(ctx, userID)
	if err != nil {
		return Usage{}, err
	}
	return s.usage(ctx, st, days, used{
		owner: o.Owner,
		read: func(first, last date) ([]store.DayUses, error) {
			return st.Usage(ctx, store.OfOwner(userID), int32(first), int32(last))
		},
		ours: func(_, owner string) bool { return owner == userID },
	})
}

// NewcomerUsage returns the usage of an owner that does not exist yet.
func (s *Service) NewcomerUsage() Usage {
	u := Usage{}
	u.Tier, u.UsageLimits = s.plan(key.Owner{})
	return u
}

// used is whose usage is asked for.
type used struct {
	owner key.Owner
	read  func(first, last date) ([]store.DayUses, error) // from the store
	ours  func(keyID, userID string) bool                 // whether what waits in memory belongs to it
}

func (s *Service) usage(ctx context.Context, st *opened, days int, of used) (Usage, error) {
	if days < 1 || days > MaxDays {
		return Usage{}, invalid("days", "must be an integer from 1 to %d", MaxDays)
	}
	today := s.days.dateAt(s.engine.clock().wall)
	first := min(today.plus(1-days), today.monthStart())
	sums, err := s.engine.queue.with(ctx, st, func() ([]store.DayUses, error) { return of.read(first, today) }, of.ours)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Today: sums[today].Allowed}
	for day, uses := range sums {
		if day >= today.monthStart() && day <= today {
			u.Month += uses.Allowed
		}
	}
	for i := 1 - days; i <= 0; i++ {
		day := today.plus(i)
		u.Days = append(u.Days, DayUsage{day.String(), sums[day]})
	}
	u.Tier, u.UsageLimits = s.plan(of.owner)
	return u, nil
}

// plan returns the tier of an owner and those of its limits that usage shows.
func (s *Service) plan(o key.Owner) (tier *string, limits UsageLimits) {
	pl, _ := s.plans.of(&o)
	if pl == nil {
		return nil, limits
	}
	return &pl.Name, UsageLimits{PerDay: pl.max(Day), PerMinute: pl.max(minute), PerMonth: pl.max(Month)}
}
