package apikey

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// problem is the body of a refusal (RFC 9457), but for its last member,
// retryAfter.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// problems are the bodies of all refusals, without the end that depends on the
// request.
var problems = sync.OnceValue(func() (all [keyring.NumOutcomes][]byte) {
	for i := range all {
		o := keyring.Outcome(i)
		body, _ := json.Marshal(problem{o.Status(), http.StatusText(o.Status()), o.Title(), o.Code()}) // strings and numbers
		all[i] = bytes.TrimSuffix(body, []byte("}"))
	}
	return all
})

// bodyOf returns the body of a refusal. retryAfter 0 is none.
func bodyOf(o keyring.Outcome, retryAfter int64) []byte {
	body := append(make([]byte, 0, 192), problems()[o]...)
	if retryAfter > 0 {
		body = strconv.AppendInt(append(body, `,"retryAfter":`...), retryAfter, 10)
	}
	return append(body, '}')
}

// headers sets response headers whose values share one piece of memory. Each has
// a slice of its own, for other handlers may write into it.
type headers struct {
	http.Header
	values []string
}

func (h *headers) set(name, value string) {
	h.values = append(h.values, value)
	n := len(h.values)
	h.Header[name] = h.values[n-1 : n : n]
}

// refuse answers a request that is not admitted. Where an error route handles it, the
// error goes there; else the body is ours.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, s *requestState, d *keyring.Decision, err error) error {
	s.cancel(r, g.keys, g.alarms, d.Outcome)
	s.refusal = d.Outcome
	logRefusal(r, g.logger, g.alarms, d, err)
	h, status, retryAfter := headers{w.Header(), make([]string, 0, 5)}, d.Outcome.Status(), int64(0)
	if d.Waitable {
		retryAfter = api.Seconds(d.Wait)
		h.set("Retry-After", strconv.FormatInt(retryAfter, 10))
	}
	if status == http.StatusUnauthorized {
		h.Header["Www-Authenticate"] = g.sources.challenges(d.Outcome)
	}
	// An error of Caddy's costs as much as all the rest here, so it is only made where
	// an error route may want it.
	if hasErrorRoutes(r) && !g.mustAnswer(r) {
		if refusal := caddyhttp.Error(status, errors.New(d.Outcome.Code())); errorRouteMatches(r, refusal) {
			return refusal
		}
	}
	body := bodyOf(d.Outcome, retryAfter)
	h.set("Content-Type", "application/problem+json")
	h.set("Cache-Control", "no-store")
	h.set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // the client may be gone
	return nil
}

// fail answers a request that cannot be decided about because the configuration is
// wrong. The caller pays nothing for that.
func (g *Gate) fail(w http.ResponseWriter, r *http.Request, s *requestState, err error) error {
	s.cancel(r, g.keys, g.alarms, keyring.Unavailable)
	g.alarms.Error("the request was refused", zap.Error(err))
	if g.mustAnswer(r) {
		w.WriteHeader(http.StatusInternalServerError)
		return nil
	}
	return caddyhttp.Error(http.StatusInternalServerError, err)
}

// logRefusal logs why a request was refused: as an error where the server is to blame.
func logRefusal(r *http.Request, logger, alarms *zap.Logger, d *keyring.Decision, err error) {
	if err != nil && r.Context().Err() == nil { // else the client has gone
		alarms.Error("a key could not be checked", zap.Error(err))
		return
	}
	if c := logger.Check(zap.DebugLevel, "request refused"); c != nil {
		fields := []zap.Field{zap.String("code", d.Outcome.Code())}
		if k := d.Key(); k != nil {
			fields = append(fields, zap.String("key_id", k.ID), zap.String("user_id", k.UserID))
		}
		c.Write(fields...)
	}
}

// challenges returns the values of WWW-Authenticate: one for each scheme, in the order
// of the option.
func (p *sources) challenges(o keyring.Outcome) []string {
	if len(p.schemes) == 0 {
		return []string{challenge("APIKey", o)}
	}
	list := make([]string, len(p.schemes))
	for i, scheme := range p.schemes {
		list[i] = challenge(scheme, o)
	}
	return list
}

func challenge(scheme string, o keyring.Outcome) string {
	if strings.EqualFold(scheme, basicScheme) {
		return scheme + ` realm="api"` // RFC 7617 has no error
	}
	if parameter := o.Challenge(); parameter != "" {
		return scheme + " " + parameter
	}
	return scheme
}

// The choices of rate_headers.
const (
	rateDraft  = "draft"
	rateLegacy = "legacy"
	rateBoth   = "both"
	rateOff    = "off"
)

// maxInteger is the largest integer of a structured field (RFC 9651, 3.3.1).
const maxInteger = 999_999_999_999_999

// writeRateHeaders tells the client where it stands. again: an earlier gate may
// have said so before this one took more; what it wrote must not stay.
func writeRateHeaders(h http.Header, which string, limits []keyring.Limit, again bool) {
	if len(limits) == 0 {
		return
	}
	if which == "" || which == rateDraft || which == rateBoth || again && h["Ratelimit"] != nil {
		writeDraft(h, limits)
	}
	if which == rateLegacy || which == rateBoth || again && h["X-Ratelimit-Limit"] != nil {
		writeLegacy(h, limits)
	}
}

// writeDraft writes draft-ietf-httpapi-ratelimit-headers in the form it has had
// since version 08: two lists, an item for each limit. A client may go by any one
// of them, so none shows more as remaining than all of them let pass.
func writeDraft(h http.Header, limits []keyring.Limit) {
	buf := make([]byte, 0, 512)
	for i := range limits {
		l := &limits[i]
		buf = appendItem(buf, i, l.Name, ";q=", l.Quota)
		if l.Window > 0 {
			buf = appendInt(append(buf, ";w="...), seconds(l.Window))
		}
	}
	policies, least := len(buf), keyring.Least(limits)
	for i := range limits {
		l := &limits[i]
		buf = appendItem(buf, i, l.Name, ";r=", least)
		if l.Reset > 0 {
			buf = appendInt(append(buf, ";t="...), seconds(l.Reset))
		}
	}
	// Both share their memory, for this is on the way of every request that passes.
	// The keys are in canonical form, or other handlers would not find them.
	text := string(buf)
	values := []string{text[:policies], text[policies:]}
	h["Ratelimit-Policy"], h["Ratelimit"] = values[:1:1], values[1:]
}

func appendItem(buf []byte, i int, name, parameter string, n int64) []byte {
	if i > 0 {
		buf = append(buf, ", "...)
	}
	buf = append(buf, '"')
	buf = append(buf, name...)
	buf = append(buf, '"')
	return appendInt(append(buf, parameter...), n)
}

func appendInt(buf []byte, n int64) []byte {
	return strconv.AppendInt(buf, min(n, maxInteger), 10)
}

// writeLegacy writes the headers that many clients know, for the limit with the
// least left; of several, the one that takes longest to come back.
func writeLegacy(h http.Header, limits []keyring.Limit) {
	tightest := &limits[0]
	for i := range limits {
		l := &limits[i]
		if l.Remaining < tightest.Remaining || l.Remaining == tightest.Remaining && l.Reset > tightest.Reset {
			tightest = l
		}
	}
	for name, n := range map[string]int64{
		"X-Ratelimit-Limit": tightest.Quota, "X-Ratelimit-Remaining": tightest.Remaining, "X-Ratelimit-Reset": seconds(tightest.Reset),
	} {
		h[name] = []string{strconv.FormatInt(min(n, maxInteger), 10)}
	}
}

// seconds rounds milliseconds up, so that who waits that long has waited enough.
func seconds(ms int64) int64 {
	s := ms / 1000
	if ms%1000 > 0 {
		s++
	}
	return s
}
