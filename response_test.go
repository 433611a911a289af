package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// TestRefusalBodies checks the shape of every refusal there is.
func TestRefusalBodies(t *testing.T) {
	keys := keyring.NewService(keyring.New(nil, time.Now, nil), &keyring.Settings{Rules: keyring.DefaultRules()})
	g := Gate{keys: keys, logger: zap.NewNop(), alarms: zap.NewNop(), sources: sources{schemes: []string{"Bearer"}}}
	for o := keyring.Missing; o < keyring.NumOutcomes; o++ {
		for _, d := range []keyring.Decision{{Outcome: o}, {Outcome: o, Wait: 1001, Waitable: true}, {Outcome: o, Waitable: true}} {
			w := httptest.NewRecorder()
			var err error
			if o == keyring.Unavailable {
				err = errors.New("canary in the log only")
			}
			if err := g.refuse(w, httptest.NewRequest("GET", "/", nil), new(requestState), &d, err); err != nil {
				t.Errorf("%s: %v", o.Code(), err)
			}
			r := w.Result()
			if ct := r.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("%s: Content-Type is %q", o.Code(), ct)
			}
			body := w.Body.String()
			var p struct {
				Status     int    `json:"status"`
				Title      string `json:"title"`
				Detail     string `json:"detail"`
				Code       string `json:"code"`
				Type       string `json:"type"`
				RetryAfter int64  `json:"retryAfter"`
			}
			dec := json.NewDecoder(strings.NewReader(body))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&p); err != nil {
				t.Errorf("%s: body %q: %v", o.Code(), body, err)
			}
			want := int64(0)
			if d.Waitable {
				want = max(1, (d.Wait+999)/1000)
			}
			if p.Code != o.Code() || p.Status != o.Status() || p.Title != http.StatusText(o.Status()) || p.Detail != o.Title() || (p.Type == quotaExceeded) != (o.Status() == 429) || r.StatusCode != o.Status() || p.RetryAfter != want || strings.Contains(body, "canary") {
				t.Errorf("%s: %d %s", o.Code(), r.StatusCode, body)
			}
			if got := r.Header.Get("Retry-After"); want == 0 && got != "" || want != 0 && got != fmt.Sprint(want) {
				t.Errorf("%s: Retry-After %q, want %d", o.Code(), got, want)
			}
			if got := r.Header.Get("WWW-Authenticate"); (got != "") != (r.StatusCode == 401) || strings.Contains(got, "error") != (r.StatusCode == 401 && o != keyring.Missing) {
				t.Errorf("%s: WWW-Authenticate %q", o.Code(), got)
			}
		}
	}
}
