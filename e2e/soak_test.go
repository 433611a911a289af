package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// This file serves many keys for long, while some of them change and the configuration is
// reloaded, and watches what the server takes.

// soakPlan is how long a soak is. It goes by rounds of requests, so that it is the same on
// any machine; the long one also keeps to a rate, and ends when its time is over.
type soakPlan struct {
	keys, rounds            int
	requests, changes       int // in a round
	reloadEvery, measure    int // rounds
	rate                    int // of requests in a second; 0: as fast as may be
	lasts, warmUp           time.Duration
	heapMore, rssMore, more int // bytes, KiB; goroutines and descriptors: what may be added by chance
}

// plannedSoak is short, unless APIKEY_SOAK says how long it is, such as "4h".
func plannedSoak(t *testing.T) soakPlan {
	text := os.Getenv("APIKEY_SOAK")
	if text == "" {
		return soakPlan{keys: 1000, rounds: 60, requests: 500, changes: 10, reloadEvery: 1, measure: 1, heapMore: 1 << 20, rssMore: 24 << 10, more: 10}
	}
	lasts, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("APIKEY_SOAK: %v", err)
	}
	return soakPlan{
		keys: 10_000, requests: 2000, changes: 10, reloadEvery: 30, measure: 10, rate: 2000,
		lasts: lasts, warmUp: min(30*time.Minute, lasts/4), heapMore: 4 << 20, rssMore: 32 << 10, more: 20,
	}
}

const soakSite = `{
	metrics
	apikey {
		tier large {
			limit 1000000000/24h
		}
		tier small {
			limit 50/24h
		}
		OPTION
	}
}
{$SITE} {
	handle /v1/auth/* {
		apikey_api
	}
	handle {
		apikey
		respond ok
	}
}
`

// soakConfig is that of the n-th load: every second time another one.
func soakConfig(n int) string {
	return strings.Replace(soakSite, "OPTION", fmt.Sprintf("length %d", 64+n%2), 1)
}

// soakers are how many requests are under way at a time.
const soakers = 16

// allowance is how many requests of a key, or of all keys of an owner, may pass.
type allowance struct {
	code         string // of the refusal when it is used up
	most         int64
	sent, passed atomic.Int64
}

// soakKey is a key and what it must answer. A request holds mu for reading and a change for
// writing, so that it is known which of them came first.
type soakKey struct {
	mu        sync.RWMutex
	id, raw   string
	kind      int
	enabled   bool
	deleted   bool
	allowance *allowance // nil: everything passes
}

// soakKinds are fields of the admin API for each kind of key. The small ones are used up
// soon, and are then refused.
var soakKinds = []struct {
	fields string
	most   int64
	code   string
}{
	{"", 0, ""},
	{`"rateLimitMax":1000000000,"rateLimitTimeWindow":86400000`, 0, ""},
	{`"rateLimitMax":5,"rateLimitTimeWindow":86400000`, 5, "RATE_LIMITED"},
	{`"remaining":1000000000`, 0, ""},
	{`"remaining":5`, 5, "USAGE_EXCEEDED"},
	{soakLarge, 0, ""},
	{soakSmall, 50, "RATE_LIMITED"},
}

// What stands for an owner with a tier.
const soakLarge, soakSmall = "large", "small"

type soak struct {
	life
	soakPlan
	client  *http.Client
	holders []lifeKey // of keys that see the lists of an owner
	slots   []atomic.Pointer[soakKey]
	small   *allowance // of the owner with the small tier
	loads   atomic.Int64
	done    atomic.Int64 // requests

	mu      sync.Mutex
	answers map[string]int
	wrong   []string
}

func startSoak(t *testing.T, p soakPlan) *soak {
	t.Helper()
	s := &soak{
		life: startLife(t, soakConfig(0)), soakPlan: p, answers: map[string]int{}, slots: make([]atomic.Pointer[soakKey], p.keys),
		client: &http.Client{Timeout: testTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: soakers}},
		small:  &allowance{code: "RATE_LIMITED", most: 50},
	}
	for _, tier := range []string{soakLarge, soakSmall} {
		if a := s.admin(http.MethodPut, "/apikey/owners/"+tier, `{"tier":"`+tier+`"}`); a.status != http.StatusOK {
			t.Fatal(a)
		}
	}
	for range 4 { // each may ask 60 times a minute
		s.holders = append(s.holders, s.create(`"permissions":{"api":["read"]}`))
	}
	const batch = 200
	for from := 0; from < p.keys; from += batch {
		s.fill(from, min(from+batch, p.keys))
	}
	return s
}

// fill imports the first keys of some slots.
func (s *soak) fill(from, to int) {
	s.t.Helper()
	var records []string
	for slot := from; slot < to; slot++ {
		raw, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
		if err != nil {
			s.t.Fatal(err)
		}
		k := s.newKey(slot)
		k.id, k.raw = fmt.Sprint("soak-", slot), raw
		hash := key.HashOf(raw)
		records = append(records, fmt.Sprintf(`{"id":%q,"hash":"%x",%s}`, k.id, hash[:], k.fields(slot)))
		s.slots[slot].Store(k)
	}
	a := s.admin(http.MethodPost, "/apikey/keys/import", `{"keys":[`+strings.Join(records, ",")+`]}`)
	if a.status != http.StatusOK || !strings.Contains(a.body, fmt.Sprintf(`"created":%d,`, to-from)) {
		s.t.Fatal(a)
	}
}

func (s *soak) newKey(slot int) *soakKey {
	k := &soakKey{kind: slot % len(soakKinds), enabled: true}
	switch kind := soakKinds[k.kind]; {
	case kind.fields == soakSmall:
		k.allowance = s.small
	case kind.most > 0:
		k.allowance = &allowance{code: kind.code, most: kind.most}
	}
	return k
}

// fields are what the admin API needs to make a key.
func (k *soakKey) fields(slot int) string {
	switch fields := soakKinds[k.kind].fields; fields {
	case "":
		return fmt.Sprintf(`"userId":"owner %d"`, slot%100)
	case soakLarge, soakSmall:
		return fmt.Sprintf(`"userId":%q`, fields)
	default:
		return fmt.Sprintf(`"userId":"owner %d",%s`, slot%100, fields)
	}
}

// errorf notes what was wrong.
func (s *soak) errorf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[what]++
}

// call sends a request and returns the answer, which must have the status.
func (s *soak) call(client *http.Client, method, url, raw, body string, status int) lifeAnswer {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		panic(err) // a URL of this test that is none
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if raw != "" {
		req.Header.Set("X-API-Key", raw)
	}
	a, err := lifeRetry(client, req)
	if err != nil || a.status != status {
		s.errorf("%s %s: %v %v, want %d", method, url, a, err, status)
	}
	return a
}

// expect sends a request with a raw key that must be refused, or let in where code is "".
func (s *soak) expect(raw, code string) {
	status := http.StatusOK
	switch code {
	case "":
	case "RATE_LIMITED", "USAGE_EXCEEDED":
		status = http.StatusTooManyRequests
	default:
		status = http.StatusUnauthorized
	}
	if a := s.call(s.client, http.MethodGet, s.URL, raw, "", status); a.status == status && a.code() != code {
		s.errorf("the code is %q, want %q", a.code(), code)
	}
	s.count(cmp.Or(code, "allowed"))
}

// request sends one request: with an unknown key, or one of the keys.
func (s *soak) request(r *rand.Rand) {
	s.done.Add(1)
	switch r.IntN(20) {
	case 0:
		raw, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
		if err != nil {
			panic(err) // the constants above are wrong
		}
		s.expect(raw, "INVALID_API_KEY")
		return
	case 1:
		s.expect(fmt.Sprintf("ak_%060d", r.Uint64()), "INVALID_API_KEY") // the checksum is wrong
		return
	}
	k := s.slots[r.IntN(len(s.slots))].Load()
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch {
	case k.deleted:
		s.expect(k.raw, "INVALID_API_KEY")
	case !k.enabled:
		s.expect(k.raw, "KEY_DISABLED")
	case k.allowance == nil:
		s.expect(k.raw, "")
	default:
		s.spend(k)
	}
}

// spend sends a request that passes while something is left.
func (s *soak) spend(k *soakKey) {
	k.allowance.sent.Add(1)
	a, err := lifeRetry(s.client, s.newRequest("/", k.raw))
	sent := k.allowance.sent.Load() // one that was sent later may have been before it
	switch {
	case err == nil && a.status == http.StatusOK:
		s.count("allowed")
		if n := k.allowance.passed.Add(1); n > k.allowance.most {
			s.errorf("%d passed of %d", n, k.allowance.most)
		}
	case err == nil && a.status == http.StatusTooManyRequests && a.code() == k.allowance.code && sent > k.allowance.most:
		s.count(a.code())
	default:
		s.errorf("one of %d requests, of which %d may pass: %v %v", sent, k.allowance.most, a, err)
	}
}

// change changes a key, at random.
func (s *soak) change(r *rand.Rand) {
	slot := r.IntN(len(s.slots))
	k := s.slots[slot].Load()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.deleted {
		return // by somebody else, just now
	}
	one := s.Admin + "/apikey/keys/" + k.id
	what := []string{"revoke", "rotate", "patch", "delete"}[r.IntN(4)]
	switch s.count(what); what {
	case "revoke":
		k.enabled = !k.enabled
		s.call(lifeClient, http.MethodPatch, one, "", fmt.Sprintf(`{"enabled":%v}`, k.enabled), http.StatusOK)
	case "rotate":
		former := k.raw
		k.raw = s.made(s.call(lifeClient, http.MethodPost, one+"/rotate", "", "{}", http.StatusOK)).Raw
		s.expect(former, "INVALID_API_KEY")
	case "patch":
		body := fmt.Sprintf(`{"name":"name %d"}`, r.IntN(1000))
		if soakKinds[k.kind].code == "USAGE_EXCEEDED" {
			body = `{"remainingDelta":3}`
			k.allowance.most += 3
			k.allowance.sent.Store(k.allowance.passed.Load()) // those that were refused took nothing
		}
		s.call(lifeClient, http.MethodPatch, one, "", body, http.StatusOK)
	case "delete":
		k.deleted = true
		s.call(lifeClient, http.MethodDelete, one, "", "", http.StatusNoContent)
		s.expect(k.raw, "INVALID_API_KEY")
		next := s.newKey(slot)
		a := s.made(s.call(lifeClient, http.MethodPost, s.Admin+"/apikey/keys", "", "{"+next.fields(slot)+"}", http.StatusCreated))
		next.id, next.raw = a.ID, a.Raw
		s.slots[slot].Store(next)
	}
}

// made reads a key that was made.
func (s *soak) made(a lifeAnswer) (k lifeKey) {
	if err := json.Unmarshal([]byte(a.body), &k); err != nil || k.Raw == "" {
		s.errorf("no raw key: %v, %v", a, err)
	}
	return k
}

// look reads lists and numbers.
func (s *soak) look(round int) {
	s.count("look")
	s.call(s.client, http.MethodGet, s.URL+"/v1/auth/api-keys", s.holders[round%len(s.holders)].Raw, "", http.StatusOK)
	s.call(lifeClient, http.MethodGet, s.Admin+"/apikey/keys?limit=500&q=soak", "", "", http.StatusOK)
	s.call(lifeClient, http.MethodGet, s.Admin+"/metrics", "", "", http.StatusOK)
}

func (s *soak) reload() {
	s.count("reload")
	n := int(s.loads.Add(1))
	req, err := http.NewRequest(http.MethodPost, s.Admin+"/load", strings.NewReader(soakConfig(n)))
	if err != nil {
		panic(err) // a URL of this test that is none
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	if a, err := lifeRetry(lifeClient, req); err != nil || a.status != http.StatusOK {
		s.errorf("reload: %v %v", a, err)
	}
}

// round sends the requests of a round, and between them all that is done in one.
func (s *soak) round(n int) {
	begin, next := time.Now(), atomic.Int64{}
	var work sync.WaitGroup
	for soaker := range soakers {
		work.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), uint64(soaker)))
			for i := int(next.Add(1)); i <= s.requests; i = int(next.Add(1)) {
				if s.rate > 0 {
					time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(s.rate))))
				}
				switch {
				case i == s.requests/2:
					s.look(n)
				case i == s.requests/3 && n%s.reloadEvery == 0:
					s.reload()
				case i%(s.requests/s.changes) == 0:
					s.change(r)
				}
				s.request(r)
			}
		})
	}
	work.Wait()
}

// soakSample is what the server takes at one moment.
type soakSample struct {
	goroutines, descriptors, heap, rss, wal int
}

// sample measures while nothing is under way.
func (s *soak) sample() (m soakSample) {
	s.t.Helper()
	s.client.CloseIdleConnections()
	m.rss = s.resident()
	heap := s.admin(http.MethodGet, "/debug/pprof/heap?debug=1&gc=1", "").body
	_, heap, _ = strings.Cut(heap, "# HeapAlloc = ")
	if _, err := fmt.Sscan(heap, &m.heap); err != nil {
		s.t.Fatalf("heap profile: %v", err)
	}
	m.goroutines, m.descriptors = s.goroutines(), len(s.descriptors())
	m.wal = int(mustStat(s.t, s.db()+"-wal").Size())
	return m
}

// run soaks, and returns what was measured after the warm-up.
func (s *soak) run() (samples []soakSample) {
	s.t.Helper()
	begin := time.Now()
	warm := func(n int) bool { return n > s.rounds/4 && time.Since(begin) >= s.warmUp }
	for n := 1; n <= s.rounds || time.Since(begin) < s.lasts; n++ {
		s.round(n)
		if len(s.wrong) > 0 {
			break // the log of the server is more use when it ends here
		}
		if n%s.measure == 0 {
			m := s.sample()
			s.t.Logf("%v, round %d: %d goroutines, %d descriptors, heap %d KiB, memory %d KiB, log %d KiB",
				time.Since(begin).Round(time.Second), n, m.goroutines, m.descriptors, m.heap>>10, m.rss, m.wal>>10)
			if warm(n) {
				samples = append(samples, m)
			}
		}
	}
	s.t.Logf("%d requests, %.0f in a second; answers and changes: %v", s.done.Load(), float64(s.done.Load())/time.Since(begin).Seconds(), s.answers)
	return samples
}

// grown is by how much a number is larger in the second half than in the first: of both the
// median, so that a moment does not count.
func grown(samples []soakSample, number func(soakSample) int) (from, by int) {
	var all []int
	for _, m := range samples {
		all = append(all, number(m))
	}
	median := func(half []int) int {
		half = slices.Sorted(slices.Values(half))
		return half[len(half)/2]
	}
	from = median(all[:len(all)/2])
	return from, median(all[len(all)/2:]) - from
}

// TestD7_soak: a server that has served for a while takes no more than before, whatever
// changes, and every answer is the one that is due.
func TestD7_soak(t *testing.T) {
	full(t)
	measures(t)
	s := startSoak(t, plannedSoak(t))
	samples := s.run()
	if len(s.wrong) > 0 {
		t.Fatalf("%d wrong answers, such as %v", len(s.wrong), s.wrong[:min(5, len(s.wrong))])
	}
	if len(samples) < 10 {
		t.Fatalf("%d samples after the warm-up are too few", len(samples))
	}
	const mostLog = 64 << 20
	for _, x := range []struct {
		what   string
		most   int // that it may grow by
		number func(soakSample) int
	}{
		{"goroutines", s.more, func(m soakSample) int { return m.goroutines }},
		{"descriptors", s.more, func(m soakSample) int { return m.descriptors }},
		{"bytes of heap", s.heapMore, func(m soakSample) int { return m.heap }},
		{"KiB of memory", s.rssMore, func(m soakSample) int { return m.rss }},
		{"bytes of write-ahead log", mostLog / 4, func(m soakSample) int { return m.wal }},
	} {
		from, by := grown(samples, x.number)
		t.Logf("%d %s in the first half of %d samples, %+d in the second", from, x.what, len(samples), by)
		if by > x.most {
			t.Errorf("%d more %s in the second half, want at most %d", by, x.what, x.most)
		}
	}
	for _, m := range samples {
		if m.wal > mostLog {
			t.Errorf("the write-ahead log has %d bytes", m.wal)
		}
	}
	if passed, sent := s.small.passed.Load(), s.small.sent.Load(); passed != min(sent, s.small.most) {
		t.Errorf("%d requests passed of %d with the small tier", passed, sent)
	}
	s.noPanic()
}
