package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// mixupSite has less room for keys in memory than its keys take.
const mixupSite = `{
	skip_install_trust
	auto_https disable_redirects
	log default {
		format apikey_redact
	}
	apikey {
		cache_size 1MiB
	}
}

(gate) {
	apikey {
		identity_header X-User-Id {http.auth.user.id}
		identity_header X-Key-Name {http.auth.user.key_name}
		identity_header X-Plan {http.auth.user.metadata.plan}
	}
	reverse_proxy {$UPSTREAM}
}

https://localhost:{$TLS_PORT} {
	bind 127.0.0.1
	tls internal
	import gate
}

{$SITE} {
	import gate
}
`

// TestS4_IdentityMixup sends the keys of many owners at the same time, over all
// versions of HTTP, while clients go away at random and keys leave memory and come back.
// The upstream is told who each key belongs to, and each client gets its own answer.
func TestS4_IdentityMixup(t *testing.T) {
	full(t)
	m := &mixup{requests: times(20_000, 1_000_000), asked: make([]string, 2_000)}
	tlsPort := port(t, freeAddr(t))
	options := []option{withEnv("UPSTREAM="+serve(t, m), "TLS_PORT="+tlsPort)}
	if isLong() {
		options = append(options, withRaceDetector())
	}
	s := startGate(t, mixupSite, options...)
	newProtocols(t, "localhost:"+tlsPort).ready(t)
	m.importKeys(s)
	m.run(t, s.URL, "https://localhost:"+tlsPort)

	if n := m.wrong.Load(); n != 0 {
		t.Errorf("%d of %d requests came with another identity", n, m.served.Load())
	}
	if n := m.misled.Load(); n != 0 {
		t.Errorf("%d of %d clients got the answer of another", n, m.answered.Load())
	}
	if n := m.answered.Load(); n < int64(m.requests)/2 {
		t.Errorf("only %d of %d requests were answered", n, m.requests)
	}
	if n := m.aborted.Load(); n < int64(m.requests)/100 {
		t.Errorf("only %d of %d clients went away", n, m.requests)
	}
	metrics := s.scrape()
	cached, lookups := metrics["caddy_apikey_cache_entries"], metrics[`caddy_apikey_decision_seconds_count{looked_up="true"}`]
	if cached == 0 || cached > float64(len(m.asked))/2 || lookups < 2*float64(len(m.asked)) {
		t.Errorf("%v of %d keys are in memory, and %v were looked up: not enough have left it", cached, len(m.asked), lookups)
	}
	if race := ownRace(s.Log()); race != "" {
		t.Errorf("a data race:\n%s", race)
	}
	t.Logf("%d answered, %d aborted, %d unavailable; %v lookups, %v keys in memory",
		m.answered.Load(), m.aborted.Load(), m.unavailable.Load(), lookups, cached)
}

// ownRace returns a report of the race detector that involves this plugin, or none.
// Caddy 2.11.9 has a race of its own where it forwards the body of an HTTP/3 request
// whose client is slow to end it: reverseproxy.requestBodyWithTrailers.Read clears the
// trailer while net/http writes the header.
func ownRace(log string) string {
	reports := strings.Split(log, "WARNING: DATA RACE")
	for _, report := range reports[1:] {
		report, _, _ = strings.Cut(report, "==================")
		if strings.Contains(report, "github.com/caddy-apikey/") {
			return report
		}
	}
	return ""
}

// mixup sends requests, and is the upstream that they reach.
type mixup struct {
	requests int
	asked    []string // the raw keys

	left                                   atomic.Int64 // requests to send
	served, wrong                          atomic.Int64 // as the upstream counts
	answered, misled, aborted, unavailable atomic.Int64 // as the clients count
}

// wantHeader tells the upstream whose key was sent. No gate knows of it.
const wantHeader = "X-Want"

// ServeHTTP compares the identity that the gate tells with the key that was sent.
func (m *mixup) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.served.Add(1)
	want := r.Header.Get(wantHeader)
	for name, prefix := range map[string]string{"X-User-Id": "user", "X-Key-Name": "name", "X-Plan": "plan"} {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != prefix+want {
			m.wrong.Add(1)
			break
		}
	}
	io.WriteString(w, want)
}

// importKeys makes the keys. They take several times the memory that keys may take.
func (m *mixup) importKeys(s *server) {
	s.t.Helper()
	const each = 200
	ballast := strings.Repeat("x", 1500)
	for from := 0; from < len(m.asked); from += each {
		var keys []any
		for i := from; i < from+each; i++ {
			m.asked[i] = withChecksum(fmt.Sprintf("ak_%048d", i))
			keys = append(keys, map[string]any{
				"id": fmt.Sprint("key", i), "userId": fmt.Sprint("user", i), "name": fmt.Sprint("name", i), "checksummed": true,
				"hash": fmt.Sprintf("%x", sha256.Sum256([]byte(m.asked[i]))), "metadata": map[string]any{"plan": fmt.Sprint("plan", i), "ballast": ballast},
			})
		}
		s.admin("POST", "/apikey/keys/import", map[string]any{"keys": keys}, http.StatusOK, nil)
	}
}

// run sends all requests: some clients share the connections of HTTP/1.1, others are
// streams of one connection of HTTP/2 or HTTP/3.
func (m *mixup) run(t *testing.T, plain, secure string) {
	t.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}
	only2 := new(http.Protocols)
	only2.SetHTTP2(true)
	h1 := &http.Transport{MaxIdleConnsPerHost: 64}
	h2 := &http.Transport{TLSClientConfig: conf.Clone(), Protocols: only2}
	h3 := &http3.Transport{TLSClientConfig: conf.Clone()}
	defer h1.CloseIdleConnections()
	defer h2.CloseIdleConnections()
	defer h3.Close()
	m.left.Store(int64(m.requests))
	var all sync.WaitGroup
	client := func(n int, url string, transport http.RoundTripper) {
		for range n {
			all.Go(func() {
				for m.left.Add(-1) >= 0 && !t.Failed() {
					if err := m.ask(url, transport); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	client(16, plain, h1)
	client(12, secure, h2)
	client(4, secure, h3)
	all.Wait()
}

// ask sends one request. One in five clients goes away at a random moment.
func (m *mixup) ask(url string, transport http.RoundTripper) error {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	leaves := rand.IntN(5) == 0
	if leaves {
		time.AfterFunc(rand.N(5*time.Millisecond), cancel)
	}
	i := rand.IntN(len(m.asked))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", m.asked[i])
	req.Header.Set(wantHeader, fmt.Sprint(i))
	resp, err := transport.RoundTrip(req)
	var r *reply
	if err == nil {
		r, err = read(resp)
	}
	switch {
	case err != nil && leaves:
		m.aborted.Add(1)
	case err != nil:
		return err
	case r.status == http.StatusOK:
		m.answered.Add(1)
		if r.body != fmt.Sprint(i) {
			m.misled.Add(1)
		}
	case r.code == "STORE_UNAVAILABLE": // the machine had no time to look the key up
		m.unavailable.Add(1)
	default:
		return errors.New(r.body)
	}
	return nil
}

// serve runs a handler on the loopback interface and returns its address.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}
