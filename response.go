package apikey

import (
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

// quotaExceeded is the type of problem of a 429 (draft-ietf-httpapi-ratelimit-headers).
const quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// document is the body of a refusal (RFC 9457) and its length as text.
type document struct {
	body   []byte
	length string
}

// documents are the bodies that depend on nothing but the outcome. They are shared:
// nobody changes them.
var documents = sync.OnceValue(func() (all [keyring.NumOutcomes]document) {
	for i := range all {
		body := appendProblem(nil, &keyring.Decision{Outcome: keyring.Outcome(i)}, 0)
		all[i] = document{body, strconv.Itoa(len(body))}
	}
	return all
})

// documentOf returns the body of a refusal. retryAfter 0 is none.
func documentOf(d *keyring.Decision, retryAfter int64) document {
	if retryAfter == 0 && d.Refuser() == nil {
		return documents()[d.Outcome]
	}
	body := appendProblem(make([]byte, 0, 384), d, retryAfter)
	return document{body, strconv.Itoa(len(body))}
}

// appendProblem writes the body. Neither titles and details nor the names of limits need
// escaping.
func appendProblem(body []byte, d *keyring.Decision, retryAfter int64) []byte {
	status := d.Outcome.Status()
	body = strconv.AppendInt(append(body, `{"status":`...), int64(status), 10)
	body = appendMember(body, "title", http.StatusText(status))
	body = appendMember(body, "detail", d.Detail())
	body = appendMember(body, "code", d.Outcome.Code())
	if status == http.StatusTooManyRequests {
		body = appendMember(body, "type", quotaExceeded)
	}
	if l := d.Refuser(); l != nil {
		body = appendMember(body, "limit", l.Name)
		body = appendMember(body, "scope", string(l.Scope))
		body = append(body, `,"violated-policies":`...)
		separator := byte('[')
		for i := range d.Limits {
			if d.Limits[i].Full {
				body = append(append(append(body, separator, '"'), d.Limits[i].Name...), '"')
				separator = ','
			}
		}
		body = append(body, ']')
	}
	if retryAfter > 0 {
		body = strconv.AppendInt(append(body, `,"retryAfter":`...), retryAfter, 10)
	}
	return append(body, '}')
}

func appendMember(body []byte, name, value string) []byte {
	body = append(append(body, `,"`...), name...)
	return append(append(append(body, `":"`...), value...), '"')
}

// headers sets response headers whose values share one piece of memory. Each has
// a slice of its own, for other handlers may write into it.
type headers struct {
	http.Header
	values []string
}

func (h *headers) set(name, value string) { h.take(name, append(h.values, value)) }

// take sets a header to what values has beyond h.values.
func (h *headers) take(name string, values []string) {
	first, n := len(h.values), len(values)
	h.values = values
	h.Header[name] = values[first:n:n]
}

// refuse answers a request that is not admitted. Where an error route handles it, the
// error goes there; else the body is ours.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, s *requestState, d *keyring.Decision, err error) error {
	s.reject(r, g.keys, g.alarms, d)
	s.trace(r)
	logRefusal(r, g.keys, g.logger, g.alarms, d, err)
	h, status, retryAfter := headers{w.Header(), make([]string, 0, 5)}, d.Outcome.Status(), int64(0)
	if d.Waitable {
		retryAfter = api.Seconds(d.Wait)
		h.set("Retry-After", strconv.FormatInt(retryAfter, 10))
	}
	if status == http.StatusUnauthorized {
		h.take("Www-Authenticate", g.sources.appendChallenges(h.values, d.Outcome))
	}
	// An error of Caddy's costs as much as all the rest here, so it is only made where
	// an error route may want it.
	if hasErrorRoutes(r) && !g.mustAnswer(r) {
		if refusal := caddyhttp.Error(status, errors.New(d.Outcome.Code())); errorRouteMatches(r, refusal) {
			return refusal
		}
	}
	h.set("Cache-Control", "no-store")
	if media := grpcType(r); media != "" {
		refuseGRPC(w, media, d.Outcome.GRPCStatus(), d.Outcome.Code())
		return nil
	}
	doc := documentOf(d, retryAfter)
	h.set("Content-Type", "application/problem+json")
	h.set("Content-Length", doc.length)
	w.WriteHeader(status)
	w.Write(doc.body) // the client may be gone
	return nil
}

// fail answers a request that cannot be decided about because the configuration is
// wrong. The caller pays nothing for that.
func (g *Gate) fail(w http.ResponseWriter, r *http.Request, s *requestState, d *keyring.Decision, err error) error {
	d.Outcome = keyring.Unavailable
	s.reject(r, g.keys, g.alarms, d)
	s.refusal, s.failed = keyring.Allowed, true
	s.trace(r)
	g.alarms.Error("the request was refused", zap.Error(err))
	herr, own := caddyhttp.Error(http.StatusInternalServerError, err), g.mustAnswer(r)
	if media := grpcType(r); media != "" && (own || !hasErrorRoutes(r) || !errorRouteMatches(r, herr)) {
		refuseGRPC(w, media, grpcInternal, api.CodeInternal)
		return nil
	}
	if own {
		w.WriteHeader(http.StatusInternalServerError)
		return nil
	}
	return herr
}

// logRefusal logs why a request was refused: as an error where the server is to blame. A
// store that is away has one line when that begins, not one for each request.
func logRefusal(r *http.Request, keys *keyring.Service, logger, alarms *zap.Logger, d *keyring.Decision, err error) {
	if err != nil && r.Context().Err() == nil && !keys.ToldAsDegraded(err) { // else the client has gone
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

// appendChallenges appends the values of WWW-Authenticate: one for each scheme, in the
// order of the option.
func (p *sources) appendChallenges(list []string, o keyring.Outcome) []string {
	if len(p.schemes) == 0 {
		return append(list, challenge("APIKey", o))
	}
	for _, scheme := range p.schemes {
		list = append(list, challenge(scheme, o))
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
	rateDraft   = "draft"    // the newest version of the draft that is known here
	rateDraft11 = "draft-11" // version 11 of the draft
	rateLegacy  = "legacy"
	rateBoth    = "both"
	rateOff     = "off"
)

// rateHeaderNames are all rate headers, in canonical form.
var rateHeaderNames = []string{"Ratelimit-Policy", "Ratelimit", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}

// maxInteger is the largest integer of a structured field (RFC 9651, 3.3.1).
const maxInteger = 999_999_999_999_999

// writeRateHeaders tells the client where it stands. again: an earlier gate may
// have said so before this one took more, or gave all of it back; what it wrote must
// not stay.
func writeRateHeaders(h http.Header, which string, d *keyring.Decision, again bool) {
	if len(d.Limits) == 0 {
		if again && d.Outcome != keyring.Allowed {
			for _, name := range rateHeaderNames {
				delete(h, name)
			}
		}
		return
	}
	if which == "" || which == rateDraft || which == rateDraft11 || which == rateBoth || again && h["Ratelimit"] != nil {
		writeDraft(h, d.Limits)
	}
	if which == rateLegacy || which == rateBoth || again && h["X-Ratelimit-Limit"] != nil {
		writeLegacy(h, d)
	}
}

// writeDraft writes draft-ietf-httpapi-ratelimit-headers in the form it has had
// since version 08: two lists, an item for each limit.
func writeDraft(h http.Header, limits []keyring.Limit) {
	buf := make([]byte, 0, 512)
	for i := range limits {
		l := &limits[i]
		buf = appendItem(buf, i, l.Name, ";q=", l.Quota)
		if l.Window > 0 {
			buf = appendInt(append(buf, ";w="...), seconds(l.Window))
		}
	}
	policies := len(buf)
	for i := range limits {
		l := &limits[i]
		buf = appendItem(buf, i, l.Name, ";r=", l.Remaining)
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
// least left; of several, the one that takes longest to come back. A reset would
// promise too much where waiting never helps.
func writeLegacy(h http.Header, d *keyring.Decision) {
	tightest := &d.Limits[0]
	for i := range d.Limits {
		if l := &d.Limits[i]; tighter(l, tightest) {
			tightest = l
		}
	}
	set := func(name string, n int64) { h[name] = []string{strconv.FormatInt(min(n, maxInteger), 10)} }
	set("X-Ratelimit-Limit", tightest.Quota)
	set("X-Ratelimit-Remaining", tightest.Remaining)
	if tightest.Final || d.Limit != "" && !d.Waitable {
		delete(h, "X-Ratelimit-Reset")
	} else {
		set("X-Ratelimit-Reset", seconds(tightest.Reset))
	}
}

func tighter(a, b *keyring.Limit) bool {
	switch {
	case a.Remaining != b.Remaining:
		return a.Remaining < b.Remaining
	case a.Final != b.Final:
		return a.Final
	}
	return a.Reset > b.Reset
}

// seconds rounds milliseconds up, so that who waits that long has waited enough.
func seconds(ms int64) int64 {
	s := ms / 1000
	if ms%1000 > 0 {
		s++
	}
	return s
}
