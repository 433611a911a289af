package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

const listSite = `{
	admin {$ADMIN}
	apikey {
		metadata on
	}
}
{$SITE} {
	handle /api/auth/* {
		apikey_api {
			dialect better_auth
		}
	}
	handle /v1/auth/* {
		apikey_api
	}
	handle {
		apikey
		respond ok
	}
}
`

// TestQ36_stalledLists: clients that ask for lists of large keys and read nothing hold
// little memory, and meanwhile other customers' keys, which have not been used before, work.
func TestQ36_stalledLists(t *testing.T) {
	full(t)
	measures(t)
	s := startLife(t, listSite)
	const keys, each, stalled, others = 2000, 16 << 10, 8, 200
	metadata := strings.Repeat("x", each-20)
	holder := s.create(`"permissions":{"api":["read"]}`)
	for i := 0; i < keys; {
		var batch []string
		for ; i < keys && len(batch) < 200; i++ {
			batch = append(batch, fmt.Sprintf(`{"id":"k%d","userId":"alice","hash":"%064x","metadata":{"m":%q}}`, i, i, metadata))
		}
		if a := s.admin(http.MethodPost, "/apikey/keys/import", `{"keys":[`+strings.Join(batch, ",")+`]}`); a.status != http.StatusOK || strings.Contains(a.body, `"failed"`) {
			t.Fatal(a)
		}
	}
	var cold []lifeKey
	for i := range others {
		cold = append(cold, s.create(fmt.Sprintf(`"name":"%d"`, i)))
	}

	s.stop(syscall.SIGTERM) // what the import took is no matter here
	s.start()
	before := s.resident()
	calls := []string{
		s.URL + "/api/auth/api-key/list", s.URL + "/api/auth/api-key/list?sortBy=name", s.URL + "/v1/auth/api-keys",
		s.Admin + "/apikey/keys?limit=500", s.Admin + "/apikey/keys/export",
	}
	for _, call := range calls {
		for range stalled {
			host, path, _ := strings.Cut(strings.TrimPrefix(call, "http://"), "/")
			conn := dial(t, "http://"+host)
			fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, host, holder.Raw)
			if _, err := conn.Read(make([]byte, 1)); err != nil { // its answer has begun
				t.Fatalf("%s: %v", call, err)
			}
		}
	}
	var listing atomic.Int64
	end := make(chan struct{})
	for range 8 {
		go func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if a, err := s.try(lifeClient, "/v1/auth/api-keys", holder.Raw); err == nil && a.status == http.StatusOK {
					listing.Add(1)
				}
			}
		}()
	}
	for _, k := range cold {
		s.wants(k.Raw, http.StatusOK, "")
	}
	eventually(t, "the others get their lists", func() bool { return listing.Load() >= 8 })
	close(end)
	grown := (s.resident() - before) / len(calls) / stalled
	t.Logf("%d KiB for each client that reads nothing, of %d KiB", grown, keys*each>>10)
	if most := 1 << 10; grown > most {
		t.Errorf("%d KiB, want at most %d", grown, most)
	}
	s.noPanic()
}

// TestQ36_listsUnderLoad: while eight callers list 3,000 keys of one owner over the
// self-service API, one list after the other, every request of other customers whose keys
// have not been used before is answered as it is due.
func TestQ36_listsUnderLoad(t *testing.T) {
	full(t)
	s := startLife(t, listSite)
	const callers, listed, cold = 8, 3000, 50 // cold keys for each list
	importKeys(s, "alice", listed)
	lists, others := times(callers, 25*callers), importKeys(s, "bob", times(callers, 25*callers)*cold)
	var holders []lifeKey
	for range callers { // each may list 60 times in a minute
		holders = append(holders, s.create(`"permissions":{"api":["read"]}`))
	}
	s.stop(syscall.SIGTERM) // so that no key is in memory
	s.start()
	var listings atomic.Int64
	var work sync.WaitGroup
	end := make(chan struct{})
	for _, holder := range holders {
		client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{}}
		work.Go(func() {
			defer client.CloseIdleConnections()
			for {
				select {
				case <-end:
					return
				default:
				}
				a, err := s.try(client, "/v1/auth/api-keys", holder.Raw)
				if err != nil || a.status != http.StatusOK || strings.Count(a.body, `"_id"`) != listed+callers {
					t.Errorf("a list: %d, %d keys, %v", a.status, strings.Count(a.body, `"_id"`), err)
					return
				}
				listings.Add(1)
			}
		})
	}
	for i := range lists {
		eventually(t, "lists end", func() bool { return t.Failed() || listings.Load() >= int64(i) })
		for _, k := range others[i*cold : (i+1)*cold] {
			s.wants(k.raw, http.StatusOK, "")
		}
	}
	close(end)
	work.Wait()
	t.Logf("%d cold keys were used while %d lists of %d keys were read", len(others), listings.Load(), listed)
	s.noPanic()
}
