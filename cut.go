package apikey

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
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
	c := newCutWriter(w)
	defer c.end()
	stop := g.keys.Watch(&s.decision, func() {
		cancel(errCut) // ends what waits for an upstream, WebSockets included
		c.cut()
	})
	defer stop()
	// The placeholders of the request belong to this *http.Request.
	*r = *r.WithContext(ctx)
	err := next(c, r)
	*r = *r.WithContext(before)
	if errors.Is(context.Cause(ctx), errCut) {
		// The client must not take what it has got for all of the response.
		panic(http.ErrAbortHandler)
	}
	return err
}

// cutWriter is the writer of a response that may be cut. Other handlers do not look at the
// context: their next write fails, and one that waits for a client that does not read is
// ended by a deadline. Writers of Caddy that count idle time move the deadline with each
// write, without a lock. So it is set beneath them, and again until the handler ends.
type cutWriter struct {
	*caddyhttp.ResponseWriterWrapper
	above, beneath *http.ResponseController
	cutting        sync.Once
	isCut, ended   chan struct{}
	work           sync.WaitGroup
}

// cutEvery is after how long a deadline is set again.
const cutEvery = 100 * time.Millisecond

func newCutWriter(w http.ResponseWriter) *cutWriter {
	return &cutWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		above:                 http.NewResponseController(w), beneath: http.NewResponseController(innermost(w)),
		isCut: make(chan struct{}), ended: make(chan struct{}),
	}
}

// innermost returns the writer of the server.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

// cut ends the response. It does not wait for the handler.
func (w *cutWriter) cut() {
	w.cutting.Do(func() {
		close(w.isCut)
		w.work.Go(func() {
			past := time.Unix(1, 0)
			for {
				// A writer without deadlines ends with the handler.
				w.beneath.SetWriteDeadline(past) //nolint:errcheck // see above
				w.above.SetReadDeadline(past)    //nolint:errcheck // see above
				select {
				case <-w.ended:
					return
				case <-time.After(cutEvery):
				}
			}
		})
	})
}

// end is called when the handler has ended: from then on the writer must not be used.
func (w *cutWriter) end() {
	w.cutting.Do(func() {}) // no cut begins any more
	close(w.ended)
	w.work.Wait()
}

func (w *cutWriter) err() error {
	select {
	case <-w.isCut:
		return errCut
	default:
		return nil
	}
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if err := w.err(); err != nil {
		return 0, err
	}
	return w.ResponseWriterWrapper.Write(p)
}

// cutChunk is how much is copied before the writer looks whether it is cut.
const cutChunk = 1 << 20

func (w *cutWriter) ReadFrom(r io.Reader) (total int64, err error) {
	for {
		if err := w.err(); err != nil {
			return total, err
		}
		n, err := w.ResponseWriterWrapper.ReadFrom(io.LimitReader(r, cutChunk))
		total += n
		if err != nil || n < cutChunk {
			return total, err
		}
	}
}

// FlushError is what http.ResponseController calls.
func (w *cutWriter) FlushError() error {
	if err := w.err(); err != nil {
		return err
	}
	return w.above.Flush()
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

var _ interface {
	io.ReaderFrom
	FlushError() error
	Unwrap() http.ResponseWriter
} = (*cutWriter)(nil)
