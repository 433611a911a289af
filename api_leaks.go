package apikey

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/leaks"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// checkLeakReports validates the option leak_reports.
func (s *SelfService) checkLeakReports() error {
	if s.LeakReports != "" && (!isBase(s.LeakReports) || s.LeakReports == "/") {
		return errors.New("leak_reports: must be a path such as " + leaks.DefaultPath + ", without a trailing slash")
	}
	return nil
}

// checkLeakPath returns an error where reports would be taken for calls of the API.
func (s *SelfService) checkLeakPath() error {
	if s.leaks != nil && s.api.Serves(s.LeakReports) {
		return errors.New("leak_reports: the path is one of the API's own calls")
	}
	return nil
}

// reporter implements api.Identify for reports of leaked keys, which anybody may send.
func (s *SelfService) reporter(w http.ResponseWriter, r *http.Request, _ api.Ask) (*api.Caller, error) {
	if r.ProtoMajor == 1 {
		// Where the body was not read to its end, the connection must close. The answer
		// must not tell.
		w.Header().Set("Connection", "close")
	}
	if isEarlyChange(r) {
		return nil, s.refuse(r, keyring.TooEarly)
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return &api.Caller{ClientIP: stateOf(r, repl).clientIP(), Cancel: func(keyring.Outcome) {}}, nil
}
