package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
)

const chargeSite = `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	handle /retry/* {
		apikey
		reverse_proxy {$UPSTREAM} {
			lb_try_duration 10s
			lb_try_interval 1ms
		}
	}
	handle /nested/* {
		route {
			apikey {
				keep_key
			}
			apikey files:read {
				cost 3
			}
			rewrite /elsewhere{uri}
			handle /elsewhere/* {
				apikey {
					cost 2
					headers X-Other X-API-Key
				}
				apikey {
					cost 0
					bearer off
				}
				respond ok
			}
		}
	}
	handle /forbidden-inside/* {
		route {
			apikey
			apikey nobody:has {
				cost 5
			}
			respond ok
		}
	}
	handle /foreign/* {
		route {
			apikey
			apikey
			reverse_proxy {$UPSTREAM}
		}
	}
	handle /rewrite/* {
		rewrite /rewritten
		apikey
		route {
			rewrite /again
			apikey
			rewrite /retry/
			respond ok
		}
	}
	handle /intercept/* {
		apikey
		intercept {
			@teapot status 418
			handle_response @teapot {
				apikey
				respond ok
			}
		}
		respond 418
	}
	handle /response/* {
		apikey
		reverse_proxy {$UPSTREAM} {
			@teapot status 418
			handle_response @teapot {
				apikey
				respond ok
			}
		}
	}
	handle /errors/* {
		apikey
		error 418
	}
	handle /refund/* {
		apikey {
			cost 3
			refund_on 502 503
		}
		handle /refund/dead/* {
			reverse_proxy 127.0.0.1:1
		}
		handle /refund/error/* {
			error 503
		}
		handle /refund/plain/* {
			respond 503
		}
		handle /refund/empty/* {
			respond 503 {
				close
			}
		}
		handle /refund/nested/* {
			route {
				apikey {
					cost 5
					refund_on 502
				}
				apikey {
					cost 7
					refund_on 503 502
				}
				reverse_proxy 127.0.0.1:1
			}
		}
		handle {
			reverse_proxy {$UPSTREAM}
		}
	}
	handle /default/* {
		apikey
		reverse_proxy 127.0.0.1:1
	}
	handle_errors {
		@own path /errors/*
		route @own {
			apikey
			apikey {
				cost 1
			}
			respond ok 200
		}
	}
}
`

// TestK6_ChargedOnce checks that a request is charged once, whatever it meets
// behind the gate, and that credits come back once and only where that was said.
func TestK6_ChargedOnce(t *testing.T) {
	full(t)
	up := startUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request, n int) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/retry/") && n < 3:
			conn, _, _ := w.(http.Hijacker).Hijack() //nolint:errcheck // the next attempt tells
			conn.Close()
		case strings.HasPrefix(r.URL.Path, "/response/"):
			w.WriteHeader(http.StatusTeapot)
		case strings.HasPrefix(r.URL.Path, "/refund/502"):
			w.WriteHeader(http.StatusBadGateway)
		case strings.HasPrefix(r.URL.Path, "/refund/early"):
			w.Header().Set("Link", "</x>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasPrefix(r.URL.Path, "/refund/500"):
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	s := startGate(t, chargeSite, withEnv("UPSTREAM="+up.Addr))
	const credits = 1_000_000
	for _, row := range []struct {
		path   string
		status int
		cost   int64 // credits
		slots  int64 // of the rate limit
		lines  []string
	}{
		{path: "/retry/", status: 200, cost: 1, slots: 1},
		{path: "/nested/", status: 200, cost: 3, slots: 3},
		{path: "/forbidden-inside/", status: 403, cost: 0, slots: 0},
		{path: "/foreign/", status: 200, cost: 1, slots: 1, lines: []string{"Authorization: Bearer not.ours"}},
		{path: "/rewrite/", status: 200, cost: 1, slots: 1},
		{path: "/intercept/", status: 200, cost: 1, slots: 1},
		{path: "/response/", status: 200, cost: 1, slots: 1},
		{path: "/errors/", status: 200, cost: 1, slots: 1},
		{path: "/default/", status: 502, cost: 1, slots: 1},
		{path: "/refund/dead/", status: 502, cost: 0, slots: 3},
		{path: "/refund/error/", status: 503, cost: 0, slots: 3},
		{path: "/refund/plain/", status: 503, cost: 0, slots: 3},
		{path: "/refund/empty/", status: 503, cost: 0, slots: 3},
		{path: "/refund/nested/", status: 502, cost: 0, slots: 7},
		{path: "/refund/502", status: 502, cost: 0, slots: 3},
		{path: "/refund/early", status: 503, cost: 0, slots: 3},
		{path: "/refund/500", status: 500, cost: 3, slots: 3},
		{path: "/refund/200", status: 200, cost: 3, slots: 3},
	} {
		k := s.create(map[string]any{
			"remaining": credits, "rateLimitMax": credits, "rateLimitTimeWindow": 3_600_000,
			"permissions": []string{"files:read"},
		})
		const n = 3
		for i := range n {
			lines := append([]string{"X-API-Key: " + k.Raw, fmt.Sprintf("%s: %s%d", markHeader, row.path, i)}, row.lines...)
			if r := s.get(row.path, lines...); r.status != row.status {
				t.Errorf("%s: status %d %s, want %d", row.path, r.status, r.code, row.status)
			}
		}
		st := s.state(k.ID)
		if took := credits - *st.Remaining; took != n*row.cost {
			t.Errorf("%s: %d requests took %d credits, want %d each", row.path, n, took, row.cost)
		}
		if st.RequestCount != n*row.slots {
			t.Errorf("%s: %d requests took %d rate slots, want %d each", row.path, n, st.RequestCount, row.slots)
		}
	}
	if got := up.of("/foreign/0"); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer not.ours" {
		t.Errorf("a token that is not ours did not arrive behind two gates: %v", got)
	}
	t.Run("parallel", func(t *testing.T) { retryParallel(t, s, up) })
}

// retryParallel sends 1,000 requests, each of which the proxy tries three times.
func retryParallel(t *testing.T, s *server, up *upstream) {
	const n, credits = 1000, 2000
	k := s.create(map[string]any{"remaining": credits})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	next := make(chan int)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range next {
				req, _ := http.NewRequest("GET", s.URL+"/retry/", nil)
				req.Header.Set("X-API-Key", k.Raw)
				req.Header.Set(markHeader, fmt.Sprint("parallel", i))
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					continue
				}
				resp.Body.Close()
				if got := len(up.of(fmt.Sprint("parallel", i))); resp.StatusCode != 200 || got != 3 {
					t.Errorf("request %d: status %d after %d attempts", i, resp.StatusCode, got)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	if took := credits - s.left(k.ID); took != n {
		t.Errorf("%d requests took %d credits", n, took)
	}
}

// TestK5_RefusalsCostNothing checks that a refusal changes nothing of its key.
func TestK5_RefusalsCostNothing(t *testing.T) {
	full(t)
	s := startGate(t, `{$SITE} {
	handle /secret/* {
		apikey {
			secret
		}
		respond ok
	}
	handle /perm/* {
		apikey nobody:has
		respond ok
	}
	handle /any/* {
		apikey {
			require_any a:b c:d
		}
		respond ok
	}
	handle /cost/* {
		apikey {
			cost 1000000
		}
		respond ok
	}
	handle /badcost/* {
		vars cost {header.X-Cost}
		apikey {
			cost {vars.cost}
		}
		respond ok
	}
	handle {
		apikey
		respond ok
	}
}
`)
	limits := map[string]any{"remaining": 5, "rateLimitMax": 5, "rateLimitTimeWindow": 3_600_000}
	with := func(more map[string]any) made {
		for name, value := range limits {
			if _, ok := more[name]; !ok {
				more[name] = value
			}
		}
		return s.create(more)
	}
	for _, row := range []struct {
		name   string
		key    made
		path   string
		lines  []string
		status int
		code   string
	}{
		{"no secret", with(map[string]any{"withSecret": true}), "/secret/", nil, 401, "INVALID_SECRET"},
		{"wrong secret", with(map[string]any{"withSecret": true}), "/secret/", []string{"X-API-Secret: clsk_x"}, 401, "INVALID_SECRET"},
		{"disabled", with(map[string]any{"enabled": false}), "/", nil, 401, "KEY_DISABLED"},
		{"address", with(map[string]any{"allowedIps": []string{"192.0.2.0/24"}}), "/", nil, 403, "IP_NOT_ALLOWED"},
		{"permission", with(map[string]any{}), "/perm/", nil, 403, "INSUFFICIENT_PERMISSIONS"},
		{"permission, any", with(map[string]any{}), "/any/", nil, 403, "INSUFFICIENT_PERMISSIONS"},
		{"no credits", with(map[string]any{"remaining": 0}), "/", nil, 429, "USAGE_EXCEEDED"},
		{"cost above credits", with(map[string]any{"rateLimitMax": 10_000_000}), "/cost/", nil, 429, "USAGE_EXCEEDED"},
		{"cost above limit", with(map[string]any{"remaining": 10_000_000}), "/cost/", nil, 429, "RATE_LIMITED"},
		{"bad cost", with(map[string]any{}), "/badcost/", []string{"X-Cost: 1.5"}, 500, ""},
		{"twice", with(map[string]any{}), "/", []string{"Authorization: Bearer " + testKey("ak_", 64)}, 400, "AMBIGUOUS_API_KEY"},
		{"too many headers", with(map[string]any{}), "/", []string{"X-Long: " + strings.Repeat("a", 24<<10)}, 431, ""},
	} {
		before := s.state(row.key.ID)
		for range 3 {
			r := s.get(row.path, append([]string{"X-API-Key: " + row.key.Raw}, row.lines...)...)
			if r.status != row.status || r.code != row.code {
				t.Errorf("%s: %d %s, want %d %s", row.name, r.status, r.code, row.status, row.code)
			}
			if row.code == "RATE_LIMITED" && r.header.Get("Retry-After") != "" {
				t.Errorf("%s: Retry-After where waiting does not help", row.name)
			}
		}
		after := s.state(row.key.ID)
		if *after.Remaining != *before.Remaining || after.RequestCount != before.RequestCount || after.LastRequest != nil {
			t.Errorf("%s: changed the key from %+v to %+v", row.name, before, after)
		}
	}
}

// TestK5_BodyTooLarge: a body is read behind the gate, so what is found wrong with
// it comes after the charge; refund_on takes that back.
func TestK5_BodyTooLarge(t *testing.T) {
	full(t)
	s := startGate(t, `{$SITE} {
	apikey {
		refund_on 413
	}
	request_body {
		max_size 10B
	}
	reverse_proxy {$UPSTREAM}
}
`, withEnv("UPSTREAM="+startUpstream(t).Addr))
	k := s.create(map[string]any{"remaining": 5})
	for body, status := range map[string]int{"short": 200, strings.Repeat("long", 100): 413} {
		m := message{method: "POST", target: "/", body: body, fields: fieldsOf([]string{"X-API-Key: " + k.Raw})}
		if r := m.plain(t, s.URL); r.status != status {
			t.Errorf("a body of %d bytes: status %d, want %d", len(body), r.status, status)
		}
	}
	if left := s.left(k.ID); left != 4 {
		t.Errorf("%d credits left, want 4", left)
	}
}

// rates is what the rate headers of an answer say.
type rates map[string]struct{ q, w, r, t int64 }

func ratesOf(t testing.TB, h http.Header) rates {
	t.Helper()
	all := rates{}
	for _, name := range []string{"RateLimit-Policy", "RateLimit"} {
		lines := h.Values(name)
		if len(lines) != 1 {
			t.Fatalf("%d lines of %s", len(lines), name)
		}
		list, err := httpsfv.UnmarshalList(lines)
		if err != nil {
			t.Fatalf("%s: %v: %q", name, err, lines)
		}
		for _, member := range list {
			item := member.(httpsfv.Item)
			limit := item.Value.(string)
			v := all[limit]
			for parameter, to := range map[string]*int64{"q": &v.q, "w": &v.w, "r": &v.r, "t": &v.t} {
				if n, ok := item.Params.Get(parameter); ok {
					*to = n.(int64)
				}
			}
			all[limit] = v
		}
	}
	return all
}

// TestK8_RetryAfter checks that a client that waits exactly as long as it is told
// passes, and that the rate headers never promise more than passes. The clock of the
// server does the waiting.
func TestK8_RetryAfter(t *testing.T) {
	full(t)
	s := startGate(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n", withTestClock())
	waited := time.Duration(0)
	for _, row := range []struct {
		name   string
		fields map[string]any
		code   string
	}{
		{"fixed window", map[string]any{"rateLimitMax": 3, "rateLimitTimeWindow": 600_500}, "RATE_LIMITED"},
		{"sliding window", map[string]any{"rateLimitMax": 3, "rateLimitTimeWindow": 600_500, "rateLimitAlgorithm": "sliding_window"}, "RATE_LIMITED"},
		{"token bucket", map[string]any{"rateLimitMax": 3, "rateLimitTimeWindow": 1_800_300, "rateLimitAlgorithm": "token_bucket"}, "RATE_LIMITED"},
		{"credits", map[string]any{"remaining": 3, "refillAmount": 3, "refillInterval": 600_700}, "USAGE_EXCEEDED"},
		{"both", map[string]any{"remaining": 4, "refillAmount": 4, "refillInterval": 1_200_000, "rateLimitMax": 3, "rateLimitTimeWindow": 540_900}, ""},
	} {
		k := s.create(row.fields)
		passed := 0
		for turn := range 3 {
			promised := int64(0)
			var r *reply
			for r = s.get("/", "X-API-Key: "+k.Raw); r.status == 200; r = s.get("/", "X-API-Key: "+k.Raw) {
				passed++
				promised = least(ratesOf(t, r.header))
			}
			// A window may have ended meanwhile, so that more pass than was
			// said; fewer must not.
			if promised > 0 {
				t.Errorf("%s: refused though %d were left", row.name, promised)
			}
			p := r.problem(t)
			if r.status != 429 || row.code != "" && turn == 0 && p.Code != row.code {
				t.Fatalf("%s: %d %s", row.name, r.status, p.Code)
			}
			wait := secondsOf(t, r.header.Get("Retry-After"))
			if int64(wait/time.Second) != p.RetryAfter || wait <= 0 || wait > 1201*time.Second {
				t.Errorf("%s: Retry-After is %v, retryAfter %d", row.name, wait, p.RetryAfter)
			}
			waited += wait // no longer than the header asks for
			s.setClock(waited)
			if r := s.get("/", "X-API-Key: "+k.Raw); r.status != 200 {
				t.Errorf("%s: refused after waiting %v: %s", row.name, wait, r.body)
			}
		}
		if passed < 3 {
			t.Errorf("%s: only %d passed", row.name, passed)
		}
	}
}

func least(all rates) int64 {
	first, n := true, int64(0)
	for _, v := range all {
		if first || v.r < n {
			first, n = false, v.r
		}
	}
	return n
}

// TestT1_ExpiryEdge checks over HTTP that a key is valid exactly until it expires.
func TestT1_ExpiryEdge(t *testing.T) {
	full(t)
	s := startGate(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	// A machine that is slow may need longer to ask for the first time.
	for seconds := 1; !expires(t, s, seconds); seconds *= 2 {
		if seconds > 60 {
			t.Fatal("the keys have never been valid")
		}
	}
}

// expires asks for a key until it has expired. It returns whether the key has been
// seen before that.
func expires(t *testing.T, s *server, seconds int) bool {
	t.Helper()
	var k struct {
		ID        string    `json:"id"`
		Raw       string    `json:"key"`
		ExpiresAt time.Time `json:"expiresAt"`
	}
	s.admin("POST", "/apikey/keys", map[string]any{"userId": "alice", "expiresIn": seconds}, http.StatusCreated, &k)
	before, after := 0, 0
	for after < 20 {
		began := time.Now()
		r := s.get("/", "X-API-Key: "+k.Raw)
		ended := time.Now()
		switch {
		case ended.Before(k.ExpiresAt):
			if before++; r.status != 200 {
				t.Fatalf("%v before it expires: %s", k.ExpiresAt.Sub(ended), r.body)
			}
		case began.After(k.ExpiresAt):
			if after++; r.code != "KEY_EXPIRED" {
				t.Fatalf("%v after it has expired: %d %s", began.Sub(k.ExpiresAt), r.status, r.code)
			}
		}
	}
	return before > 0
}
