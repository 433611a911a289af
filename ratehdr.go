package apikey

import (
	"net/http"
	"strconv"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

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
