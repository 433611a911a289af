package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// A request of an import is repeated so often, with a pause that doubles: four
// seconds in all, enough for a reload or a restart of the server.
const (
	maxRetries = 4
	firstPause = 250 * time.Millisecond
)

// send sends a request, and repeats it while the server is away. Repeating it is
// safe because records that exist are left alone.
func (s *shipment) send(in admin.ImportKeys) (admin.Answer[admin.Imported], error) {
	backoff := retry.WithMaxRetries(maxRetries, retry.NewExponential(firstPause))
	return retry.DoValue(s.c.ctx, backoff, func(ctx context.Context) (admin.Answer[admin.Imported], error) {
		a, err := s.c.client.ImportKeys(ctx, in)
		if s.passing(err) {
			return a, retry.RetryableError(err)
		}
		s.answered = s.answered || err == nil
		return a, err
	})
}

// passing reports whether an error may be over soon. An address that has never
// answered is likely wrong.
func (s *shipment) passing(err error) bool {
	if refused, ok := errors.AsType[*admin.APIError](err); ok {
		return refused.Status == http.StatusServiceUnavailable
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" && !s.answered {
		return false
	}
	_, network := errors.AsType[*url.Error](err)
	return network || errors.Is(err, io.ErrUnexpectedEOF)
}
