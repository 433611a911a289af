//go:build !testclock

package apikey

import (
	"net/http"
	"time"
)

// now is the clock of everything below. Tests shift the other one (see
// clock_testclock.go).
var now = time.Now

func withClock(h http.Handler) http.Handler { return h }
