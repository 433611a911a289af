package e2e

import (
	"fmt"
	"net/http"
	"strings"
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
