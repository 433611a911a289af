package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// sqlPieces are what payloads are made of: each means something to SQL, to a pattern, to
// JSON or to a path of it.
var sqlPieces = []string{
	"'", "''", `"`, "`", ";", "--", "/*", "*/", "#", "%", "_", `\`, `\'`, "?", "?1", ":a", "@a", "$a", "(", ")", ",", "=", "||", "[", "]", "{", "}", "{p}", "x'00'",
	"' OR 1=1 --", `" OR ""="`, "'; DROP TABLE keys; --", "'; DELETE FROM keys; --", "') UNION SELECT hash FROM keys --", "1; ATTACH 'x' AS y", "NULL", "randomblob(1e9)",
	"'||(SELECT id FROM keys)||'", " AND ", " LIKE '%' ", " ESCAPE '", "$.a", "$[0]", `{"a":1}`, `","b":"`, "a", "Z", "0", "-1", "9223372036854775808", "é", "ẞ", "\U0001f511", "‘", "ʼ", "＇",
}

// payload returns the text with this number. It is the same in every run.
func payload(n int) string {
	r := rand.New(rand.NewPCG(uint64(n), 6)) //nolint:gosec // a test's own
	var b strings.Builder
	for range 1 + r.IntN(5) {
		b.WriteString(sqlPieces[r.IntN(len(sqlPieces))])
	}
	return b.String()
}

// injection sends payloads to a server, from several goroutines.
type injection struct {
	*testing.T
	s      *server
	caller string // the raw key of a caller of the self-service API
	victim made   // a key that no payload is about
}

// answerOf sends a request. No answer may be an error of the server.
func (in *injection) answerOf(method, url string, body any, lines ...string) (status int, text []byte) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			in.Error(err)
			return 0, nil
		}
		r = strings.NewReader(string(b))
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		in.Error(err)
		return 0, nil
	}
	for _, f := range fieldsOf(append(lines, "Content-Type: application/json")) {
		req.Header.Set(f.name, f.value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		in.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(resp.Body); err != nil {
		in.Error(err)
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		in.Errorf("%s %s %v: %d %s", method, url, body, resp.StatusCode, text)
	}
	return resp.StatusCode, text
}

// stored is what a payload is written to, and read from.
type stored struct {
	ID, Name, UserID string
	Metadata         map[string]any
}

// write makes a key whose name, owner and metadata are the payload, or refuses it, and
// reads it back in every way there is.
func (in *injection) write(p string) {
	var k stored
	status, text := in.answerOf("POST", in.s.Admin+"/apikey/keys", map[string]any{"userId": p, "name": p, "metadata": map[string]any{p: p}}, "X-Actor: "+url.QueryEscape(p))
	if status != http.StatusCreated {
		return
	}
	same := func(what string, text []byte) {
		if err := json.Unmarshal(text, &k); err != nil || k.Name != p || k.UserID != p || k.Metadata[p] != p {
			in.Errorf("%s: %q came back as %s (%v)", what, p, text, err)
		}
	}
	same("created", text)
	_, text = in.answerOf("GET", in.s.Admin+"/apikey/keys/"+k.ID, nil)
	same("read", text)
	for _, query := range []string{"q", "userId"} {
		var list struct{ Keys []stored }
		_, text = in.answerOf("GET", in.s.Admin+"/apikey/keys?limit=500&"+query+"="+url.QueryEscape(p), nil)
		if err := json.Unmarshal(text, &list); err != nil || !slices.ContainsFunc(list.Keys, func(found stored) bool { return found.ID == k.ID }) && len(list.Keys) < 500 {
			in.Errorf("%s does not find %q (%v)", query, p, err)
		}
		for _, found := range list.Keys {
			own := strings.ToLower("victim\n" + in.victim.Raw[:12]) // the search folds the case of ASCII letters
			if query == "userId" && found.UserID != p || found.ID == in.victim.ID && !strings.Contains(own, strings.ToLower(p)) {
				in.Errorf("%s finds %+v with %q", query, found, p)
			}
		}
	}
	in.answerOf("GET", in.s.Admin+"/apikey/audit?keyId="+k.ID+"&userId="+url.QueryEscape(p), nil)
	in.answerOf("PUT", in.s.Admin+"/apikey/owners/"+url.PathEscape(p), map[string]any{"enabled": true})
	in.answerOf("GET", in.s.Admin+"/apikey/owners/"+url.PathEscape(p)+"/usage", nil)
	if status, text = in.answerOf("DELETE", in.s.Admin+"/apikey/keys/"+k.ID, nil); status != http.StatusNoContent {
		in.Errorf("deleting: %d %s", status, text)
	}
}

// ask sends the payload wherever a request can say what it looks for.
func (in *injection) ask(p string, n int) {
	q := url.QueryEscape(p)
	doors := []func(){
		func() { in.answerOf("GET", in.s.URL, nil, "X-API-Key: "+p) },
		func() { in.answerOf("GET", in.s.URL, nil, "Authorization: Bearer "+withChecksum("ak_"+p)) },
		func() {
			in.answerOf("POST", in.s.Admin+"/apikey/verify", map[string]any{"key": p, "permissions": []string{p}})
		},
		func() { in.answerOf("PATCH", in.s.Admin+"/apikey/keys/"+url.PathEscape(p), map[string]any{"name": p}) },
		func() {
			in.answerOf("GET", in.s.URL+"/v1/auth/api-keys?cursor="+q+"&limit="+q, nil, keyLine(in.caller))
		},
		func() {
			in.answerOf("DELETE", in.s.URL+"/v1/auth/api-keys/"+url.PathEscape(p), nil, keyLine(in.caller))
		},
		func() {
			in.answerOf("POST", in.s.URL+"/v1/auth/api-keys", map[string]any{"name": p, "permissions": []string{p}}, keyLine(in.caller))
		},
		func() {
			in.answerOf("POST", in.s.Admin+"/apikey/keys/import", map[string]any{
				"keys": []any{map[string]any{"id": p, "userId": p, "hash": fmt.Sprintf("%064x", n), "prefix": p, "start": p}}, "owners": []any{map[string]any{"userId": p, "tier": p}},
			})
		},
	}
	for path, names := range map[string][]string{
		"/apikey/keys":   {"userId", "configId", "prefix", "q", "tier", "permission", "state", "expiresBefore", "sort", "limit", "cursor", "enabled"},
		"/apikey/owners": {"tier", "q", "limit", "cursor"},
		"/apikey/audit":  {"keyId", "userId", "actor", "action", "since", "until", "limit", "cursor"},
		"/apikey/report": {"rule", "olderThan", "idle", "cursor"},
	} {
		for _, name := range names {
			doors = append(doors, func() { in.answerOf("GET", in.s.Admin+path+"?"+name+"="+q, nil) })
		}
	}
	doors[n%len(doors)]()
}

// TestS6_Injection sends text that means something to SQL through every door of the APIs
// and the gate. It comes back unchanged or is refused, and neither a statement fails nor
// anything else is changed.
func TestS6_Injection(t *testing.T) {
	full(t)
	s := startGate(t, "{\n\tlog default {\n\t\tformat apikey_redact\n\t}\n}\n{$SITE} {\n\tapikey_api {\n\t\textended\n\t}\n\tapikey\n\trespond ok\n}\n")
	in := &injection{T: t, s: s, caller: s.create(with(readWrite, "userId", "caller")).Raw, victim: s.create(map[string]any{"userId": "victim", "name": "victim"})}
	var before, after json.RawMessage
	s.admin("GET", "/apikey/keys/"+in.victim.ID, nil, http.StatusOK, &before)
	total := int64(times(2_000, 100_000))
	var next atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := next.Add(1); n <= total && !t.Failed(); n = next.Add(1) {
				p := payload(int(n))
				in.ask(p, int(n))
				if n%4 == 0 {
					in.write(p)
				}
			}
		})
	}
	all.Wait()
	if s.admin("GET", "/apikey/keys/"+in.victim.ID, nil, http.StatusOK, &after); string(before) != string(after) {
		t.Errorf("another key has changed:\n%s\n%s", before, after)
	}
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, `"level":"error"`) || strings.Contains(line, "SQL") {
			t.Errorf("an error in the log: %.300s", line)
			break
		}
	}
	s.admin("GET", "/apikey/health", nil, http.StatusOK, nil)
}
