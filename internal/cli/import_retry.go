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

// A request is repeated up to four times, after pauses that double: about four
// seconds in all, enough for a reload or a restart of the server.
const (
	maxRetries = 4
	firstPause = 250 * time.Millisecond
)

// send sends a request, and repeats it while the server is unavailable. This is
// safe because an import leaves existing records alone.
func (r *importRun) send(in admin.ImportKeys) (admin.Answer[admin.Imported], error) {
	backoff := retry.WithMaxRetries(maxRetries, retry.NewExponential(firstPause))
	return retry.DoValue(r.c.ctx, backoff, func(ctx context.Context) (admin.Answer[admin.Imported], error) {
		a, err := r.c.client.ImportKeys(ctx, in)
		if r.temporary(err) {
			return a, retry.RetryableError(err)
		}
		r.answered = r.answered || err == nil
		return a, err
	})
}

// temporary reports whether a request that failed may succeed soon. A refused
// connection is not temporary before the server has answered: its address is
// probably wrong.
func (r *importRun) temporary(err error) bool {
	if refused, ok := errors.AsType[*admin.APIError](err); ok {
		return refused.Status == http.StatusServiceUnavailable
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" && !r.answered {
		return false
	}
	_, network := errors.AsType[*url.Error](err)
	return network || errors.Is(err, io.ErrUnexpectedEOF)
}
