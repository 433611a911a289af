package cli

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// A request is sent so often before an import ends, with a pause that doubles:
// four seconds in all, in which a reload or a restart is over.
const (
	sendTries = 5
	sendPause = 250 * time.Millisecond
)

// send sends a request, again where the server is gone for a moment. That does no
// harm: what is there already is left alone.
func (s *shipment) send(in admin.ImportKeys) (a admin.Answer[admin.Imported], err error) {
	for try, pause := 1, sendPause; ; try, pause = try+1, 2*pause {
		a, err = s.c.client.ImportKeys(s.c.ctx, in)
		if err == nil {
			s.answered = true
			return a, nil
		}
		if try == sendTries || !s.passing(err) {
			return a, err
		}
		select {
		case <-s.c.ctx.Done():
			return a, err
		case <-time.After(pause):
		}
	}
}

// passing tells that an error may be over soon. An address where nobody has ever
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
