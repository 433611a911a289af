package apikey

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// errCut is why the context of a request ends whose key has stopped working.
var errCut = errors.New("the API key of the request does not work any more")

// serveCutting calls the next handler, and ends its response when the key of the request
// stops working.
func (g *Gate) serveCutting(w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request) error, s *requestState) error {
	before := r.Context()
	ctx, cancel := context.WithCancelCause(before)
	defer cancel(nil)
	control := http.NewResponseController(w)
	stop := g.keys.Watch(&s.decision, func() {
		cancel(errCut) // ends what waits for an upstream, WebSockets included
		// Other handlers do not look at the context, and may wait for a client that does not
		// read. A writer without deadlines ends with the handler.
		past := time.Unix(1, 0)
		control.SetWriteDeadline(past) //nolint:errcheck // see above
		control.SetReadDeadline(past)  //nolint:errcheck // see above
	})
	defer stop()
	// The placeholders of the request belong to this *http.Request.
	*r = *r.WithContext(ctx)
	err := next(w, r)
	*r = *r.WithContext(before)
	if errors.Is(context.Cause(ctx), errCut) {
		// The client must not take what it has got for all of the response.
		panic(http.ErrAbortHandler)
	}
	return err
}

// serveNext calls the next handler for a request that was let in.
func (g *Gate) serveNext(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, s *requestState) error {
	serve := next.ServeHTTP
	if g.RefundOn != nil {
		serve = func(w http.ResponseWriter, r *http.Request) error { return g.serveRefunding(w, r, next, s) }
	}
	if g.CutOnRevoke {
		return g.serveCutting(w, r, serve, s)
	}
	return serve(w, r)
}
