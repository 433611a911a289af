package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// healthTimeout is how long the store may take to answer.
const healthTimeout = 250 * time.Millisecond

func (s *server) health(c *api.Call) (Health, error) {
	svc, err := s.service()
	if err != nil {
		return Health{}, api.Unavailable(err)
	}
	ctx, cancel := context.WithTimeout(c.Context(), healthTimeout)
	defer cancel()
	type result struct {
		store.Status
		err error
	}
	// A disk that hangs does not hear of a context, and the answer must not hang with it.
	done := make(chan result, 1)
	go func() {
		st, err := svc.Health(ctx)
		done <- result{st, err}
	}()
	select {
	case st := <-done:
		if st.err != nil {
			return Health{}, api.Unavailable(st.err)
		}
		return Health{
			Status: "ok", Process: s.process, Version: s.version, Keys: st.Keys, Backlog: int64(st.Backlog),
			Store:    StoreHealth{Kind: st.Kind, Database: st.Database, Version: st.Version, Schema: st.Schema},
			Degraded: degradedOf(svc), Audit: pointOf(st.Audit),
		}, nil
	case <-ctx.Done():
		return Health{}, api.Unavailable(fmt.Errorf("%w: no answer within %v", store.ErrUnavailable, healthTimeout))
	}
}

// degraded is what an answer says that could not ask the store.
func (s *server) degraded() []string {
	svc, err := s.service()
	if err != nil {
		return []string{}
	}
	return degradedOf(svc)
}

func degradedOf(svc *keyring.Service) []string {
	list := []string{}
	for _, p := range svc.Degraded() {
		list = append(list, string(p))
	}
	return list
}
