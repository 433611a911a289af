package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring/keyringtest"
)

// This file changes keys while they are used over HTTP.

// readers are clients that use keys until they are told to stop. What they check is when a
// request was begun, just before its first byte is sent, and when a change was answered, by
// one monotonic clock.
type readers struct {
	life
	base time.Time
	keys []*readKey

	stop atomic.Bool
	sent atomic.Int64
	work sync.WaitGroup
}

// readKey is a key that stops working at some time.
type readKey struct {
	raw   string
	ended atomic.Int64 // when it was answered that it has; nanoseconds from base
}

func startReaders(l life, clients int, keys []*readKey) *readers {
	r := &readers{life: l, base: time.Now(), keys: keys}
	for range clients {
		client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{}}
		r.work.Go(func() {
			defer client.CloseIdleConnections()
			for !r.stop.Load() {
				r.read(client, keys[rand.IntN(len(keys))])
			}
		})
	}
	l.t.Cleanup(r.end)
	return r
}

func (r *readers) read(client *http.Client, k *readKey) {
	req, begun := r.newRequest("/", k.raw), time.Since(r.base)
	a, err := lifeDo(client, req)
	r.sent.Add(1)
	ended := k.ended.Load()
	switch {
	case err != nil:
		r.t.Error(err)
	case a.status == http.StatusUnauthorized: // perhaps a moment before that was answered
	case a.status != http.StatusOK:
		r.t.Errorf("%v", a)
	case ended != 0 && begun > time.Duration(ended):
		r.t.Errorf("a request was let in that began %v after the key had ended", begun-time.Duration(ended))
	}
}

// over notes that a key has ended, by an answer that has just come.
func (r *readers) over(k *readKey) { k.ended.Store(int64(time.Since(r.base))) }

// more waits until so many more requests were answered.
func (r *readers) more(n int64) {
	r.t.Helper()
	before := r.sent.Load()
	eventually(r.t, "the clients send requests", func() bool { return r.sent.Load() >= before+n })
}

func (r *readers) end() {
	r.stop.Store(true)
	r.work.Wait()
}

// importKeys makes keys of an owner, with the IDs "<owner> <n>".
func importKeys(l life, owner string, n int) (keys []*readKey) {
	l.t.Helper()
	const batch = 200
	for len(keys) < n {
		var records []string
		for len(records) < batch && len(keys) < n {
			raw, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
			if err != nil {
				l.t.Fatal(err)
			}
			hash := key.HashOf(raw)
			records = append(records, fmt.Sprintf(`{"id":"%s-%d","userId":%q,"hash":"%x"}`, owner, len(keys), owner, hash[:]))
			keys = append(keys, &readKey{raw: raw})
		}
		a := l.admin(http.MethodPost, "/apikey/keys/import", `{"keys":[`+strings.Join(records, ",")+`]}`)
		if a.status != http.StatusOK || !strings.Contains(a.body, fmt.Sprintf(`"created":%d,`, len(records))) {
			l.t.Fatal(a)
		}
	}
	return keys
}

// TestC2_overHTTP: of all requests that begin after it was answered that a key is revoked,
// deleted or rotated, none is let in.
func TestC2_overHTTP(t *testing.T) {
	full(t)
	s := startLife(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	keys := importKeys(s, "alice", times(100, 1000))
	r := startReaders(s, times(8, 64), keys)
	for i, k := range keys {
		r.more(rand.Int64N(16))
		one, status := fmt.Sprint("/apikey/keys/alice-", i), http.StatusOK
		var a lifeAnswer
		switch i % 3 {
		case 0:
			a = s.admin(http.MethodPatch, one, `{"enabled":false}`)
		case 1:
			a, status = s.admin(http.MethodDelete, one, ""), http.StatusNoContent
		case 2:
			a = s.admin(http.MethodPost, one+"/rotate", "{}")
		}
		r.over(k)
		if a.status != status {
			t.Fatal(a)
		}
	}
	r.more(1000)
	r.end()
	t.Logf("%d keys ended, %d requests", len(keys), r.sent.Load())
	s.noPanic()
}

// TestC6_overHTTP: the same for all keys of an owner, half of which nobody has used before.
func TestC6_overHTTP(t *testing.T) {
	full(t)
	s := startLife(t, "{$SITE} {\n\tapikey\n\trespond ok\n}\n")
	keys := importKeys(s, "alice", 1000)
	all := func(status int, code string) {
		t.Helper()
		for _, k := range keys {
			s.wants(k.raw, status, code)
		}
	}
	r := startReaders(s, 8, keys[:len(keys)/2])
	r.more(int64(len(keys)))
	if a := s.admin(http.MethodPut, "/apikey/owners/alice", `{"enabled":false}`); a.status != http.StatusOK {
		t.Fatal(a)
	}
	for _, k := range keys {
		r.over(k)
	}
	all(http.StatusUnauthorized, "KEY_DISABLED")
	r.end()
	if a := s.admin(http.MethodPut, "/apikey/owners/alice", `{"enabled":true}`); a.status != http.StatusOK {
		t.Fatal(a)
	}
	all(http.StatusOK, "")
	if a := s.admin(http.MethodDelete, "/apikey/owners/alice", ""); a.status != http.StatusNoContent {
		t.Fatal(a)
	}
	all(http.StatusUnauthorized, "INVALID_API_KEY")
	s.noPanic()
}

// TestC8_overHTTP: whatever is done to a key at the same time over the admin API and through
// a gate, there is an order of the calls that explains all answers.
func TestC8_overHTTP(t *testing.T) {
	full(t)
	s := startLife(t, "{$SITE} {\n\tapikey {\n\t\trequire api:read\n\t}\n\trespond ok\n}\n")
	client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	keyringtest.Linearizable(t, times(50, 1000), func(n int) keyringtest.Key {
		raw, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
		if err != nil {
			t.Fatal(err)
		}
		return &httpKey{s, client, fmt.Sprint("key-", n), fmt.Sprint("owner-", n), raw}
	})
	s.noPanic()
}

// httpKey is a key of a server, alone with its owner.
type httpKey struct {
	l              life
	client         *http.Client
	id, owner, raw string
}

// shownKey is a key as the admin API shows it.
type shownKey struct {
	Enabled     bool
	Name        *string
	Permissions key.Permissions
	Key         string
}

func (s *shownKey) view() keyringtest.View {
	v := keyringtest.View{Exists: true, Enabled: s.Enabled, Permitted: len(s.Permissions) > 0}
	if s.Name != nil {
		v.Name = *s.Name
	}
	return v
}

// call calls the admin API. found is false where the key does not exist.
func (k *httpKey) call(method, path, body string, out any) (found bool, err error) {
	req, err := http.NewRequest(method, k.l.Admin+"/apikey/keys"+path, strings.NewReader(body))
	if err != nil {
		return false, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	a, err := lifeDo(k.client, req)
	switch {
	case err != nil:
		return false, err
	case a.status == http.StatusNotFound:
		return false, nil
	case a.status >= http.StatusBadRequest:
		return false, fmt.Errorf("%v", a)
	case out == nil:
		return true, nil
	}
	return true, json.Unmarshal([]byte(a.body), out)
}

func (k *httpKey) view(method, path, body string) (v keyringtest.View, err error) {
	var shown shownKey
	if found, err := k.call(method, path, body, &shown); !found {
		return v, err
	}
	return shown.view(), nil
}

func (k *httpKey) Raw() string { return k.raw }

func (k *httpKey) Create() (bool, error) {
	hash := key.HashOf(k.raw)
	body := fmt.Sprintf(`{"keys":[{"id":%q,"userId":%q,"hash":"%x","permissions":{"api":["read"]}}]}`, k.id, k.owner, hash[:])
	var result struct{ Created int }
	_, err := k.call(http.MethodPost, "/import", body, &result)
	return result.Created == 1, err
}

func (k *httpKey) Use(raw string) (string, error) {
	a, err := lifeDo(k.client, k.l.newRequest("/", raw))
	if err == nil && ((a.status == http.StatusOK) != (a.code() == "") || a.status >= http.StatusInternalServerError) {
		err = fmt.Errorf("%v", a)
	}
	return a.code(), err
}

func (k *httpKey) Get() (keyringtest.View, error) { return k.view(http.MethodGet, "/"+k.id, "") }

func (k *httpKey) List() (v keyringtest.View, err error) {
	var page struct{ Keys []shownKey }
	if _, err := k.call(http.MethodGet, "?userId="+k.owner, "", &page); err != nil || len(page.Keys) == 0 {
		return v, err
	}
	return page.Keys[0].view(), nil
}

func (k *httpKey) Change(c keyringtest.Change) (keyringtest.View, error) {
	fields := map[string]any{}
	if c.Enabled != nil {
		fields["enabled"] = *c.Enabled
	}
	if c.Name != nil {
		fields["name"] = *c.Name
	}
	if c.Permitted != nil {
		fields["permissions"] = key.Permissions{}
		if *c.Permitted {
			fields["permissions"] = key.Permissions{"api": {"read"}}
		}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return keyringtest.View{}, err
	}
	return k.view(http.MethodPatch, "/"+k.id, string(body))
}

func (k *httpKey) Rotate(grace bool) (string, error) {
	body := "{}"
	if grace {
		body = `{"grace":60}`
	}
	var shown shownKey
	_, err := k.call(http.MethodPost, "/"+k.id+"/rotate", body, &shown)
	return shown.Key, err
}

func (k *httpKey) Delete() (bool, error) { return k.call(http.MethodDelete, "/"+k.id, "", nil) }
