//go:build testclock

package apikey

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// testClockOffset is how far the clock of everything below is off, in nanoseconds.
var testClockOffset atomic.Int64

// now is the clock of everything below. What measures windows shifts with it.
func now() time.Time { return time.Now().Add(time.Duration(testClockOffset.Load())) }

// withClock adds POST /apikey/clock to the admin API:
//
//	{"offsetMs": n}
//
// shifts the clock to n milliseconds after the real one, or before it. The next
// request sees it.
func withClock(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/apikey/clock" {
			serveTestClock(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func serveTestClock(w http.ResponseWriter, r *http.Request) {
	var in struct {
		OffsetMs *int64 `json:"offsetMs"`
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1024))
	d.DisallowUnknownFields()
	w.Header().Set("Content-Type", "application/json")
	const most = 250 * 365 * 24 * time.Hour / time.Millisecond // what a Duration can hold
	if err := d.Decode(&in); err != nil || in.OffsetMs == nil || *in.OffsetMs > int64(most) || *in.OffsetMs < -time.Now().UnixMilli() {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintln(w, `{"error":"offsetMs: must be an integer that leads to 1970 at least, and at most 250 years ahead","code":"INVALID_FIELD","field":"offsetMs"}`)
		return
	}
	testClockOffset.Store(*in.OffsetMs * int64(time.Millisecond))
	fmt.Fprintf(w, `{"offsetMs":%d,"now":%q}`+"\n", *in.OffsetMs, now().UTC().Format("2006-01-02T15:04:05.000Z"))
}
