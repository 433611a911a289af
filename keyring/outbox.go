package keyring

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-apikey/caddy-apikey/store"
)

const (
	// DeliverFor is how long a delivery is tried before it is dead, in milliseconds.
	DeliverFor = int64(24 * time.Hour / time.Millisecond)
	// keepDead is how long dead deliveries are kept, in milliseconds.
	keepDead = 30 * msPerDay

	expireEvery = time.Minute
)

// Deliveries returns a page of the events that webhooks have not got yet.
func (s *Service) Deliveries(ctx context.Context, q store.DeliveryQuery) (store.DeliveryPage, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return store.DeliveryPage{}, err
	}
	return st.Deliveries(ctx, q)
}

// RetryDelivery has a delivery tried again as if it were new.
func (s *Service) RetryDelivery(ctx context.Context, id string) (store.Delivery, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return store.Delivery{}, err
	}
	return st.RetryDelivery(context.WithoutCancel(ctx), id, s.Now())
}

// ClaimDeliveries returns deliveries to a URL that the caller sends within a time, and when
// there are more (see store.Outbox).
func (s *Service) ClaimDeliveries(ctx context.Context, url string, within time.Duration, limit int) (claimed []store.Delivery, next int64, err error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	now := s.Now()
	return st.ClaimDeliveries(ctx, url, now, now+within.Milliseconds(), limit)
}

// EndDeliveries stores what became of deliveries that were claimed.
func (s *Service) EndDeliveries(ctx context.Context, delivered []string, failed []store.Delivery) error {
	st, err := s.engine.open(ctx)
	if err != nil {
		return err
	}
	return st.EndDeliveries(ctx, delivered, failed)
}

// expireDeliveries gives up deliveries that nobody has sent in time, such as those to a
// webhook that is configured no more, and removes those that have been dead for long.
func (r *Engine) expireDeliveries(ctx context.Context, st store.Store) error {
	now := r.keeping.steady(r.clock())
	for ctx.Err() == nil {
		n, err := st.ExpireDeliveries(ctx, now-DeliverFor, now-keepDead, deleteBatch)
		if err != nil {
			return fmt.Errorf("removing old deliveries to webhooks: %w", err)
		}
		if n < deleteBatch {
			break
		}
	}
	return nil
}
