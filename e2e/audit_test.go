package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

const auditSite = `{
	log default {
		format apikey_redact
	}
}

{$SITE} {
	basic_auth /person/* {
		bob {$HASH}
	}
	apikey_api /person/* {
		base /person
		user {http.auth.user.id}
		grant read
	}
	apikey_api
	respond "next"
}
`

// audit returns the whole audit log, the oldest entry first, as "action actor key".
func (s *server) audit() (lines []string) {
	s.t.Helper()
	var log admin.AuditLog
	s.admin("GET", "/apikey/audit?limit=500", nil, 200, &log)
	for _, e := range slices.Backward(log.Entries) {
		lines = append(lines, fmt.Sprintf("%s %s %s%s %s", e.Action, e.Actor.Kind, e.Actor.ID, e.Actor.Name, e.KeyID))
	}
	return lines
}

// TestA10_audit: changes by operators, key holders and people, and calls that were denied, are
// in the log with who made them.
func TestA10_audit(t *testing.T) {
	quick(t)
	s := startGate(t, auditSite, withEnv("HASH="+passwordHash))
	if r := s.run("apikey", "create", "--owner", "bob", "--permission", "write", "--permission", "read", "--actor", "ann"); r.code != 0 {
		t.Fatal(r)
	} else {
		raw := strings.TrimSpace(r.stdout)
		made := s.rest(raw, `{"name":"child","permissions":["read"]}`)
		child := keyLine(made.Key)
		s.call("POST", "/v1/auth/api-keys", `{}`, child).is(t, 403, "INSUFFICIENT_PERMISSIONS")
		s.call("DELETE", "/v1/auth/api-keys/"+made.ID, "", keyLine(raw)).is(t, 200, "")
		s.call("GET", "/v1/auth/api-keys", "", child).is(t, 401, "KEY_DISABLED")
		s.call("GET", "/v1/auth/api-keys", "", keyLine("ak_nobody")).is(t, 401, "INVALID_API_KEY")
		s.call("POST", "/person/api-keys", `{}`, signedIn("bob")).is(t, 403, "INSUFFICIENT_PERMISSIONS")
		var first admin.KeyList
		s.admin("GET", "/apikey/keys?limit=1", nil, 200, &first)
		parent := first.Keys[0].ID
		want := []string{
			"key.created operator ann " + parent, "key.created key " + parent + " " + made.ID, "key.revoked key " + parent + " " + made.ID,
			"call.denied key " + made.ID + " " + made.ID, "call.denied key " + made.ID + " " + made.ID, "call.denied person bob ",
		}
		// Denied calls are written behind, those of strangers once a minute.
		known := func() []string {
			lines := slices.DeleteFunc(s.audit(), func(line string) bool { return strings.HasPrefix(line, "calls.refused") })
			slices.SortStableFunc(lines, func(a, b string) int {
				return map[bool]int{true: 1}[strings.HasPrefix(a, "call.")] - map[bool]int{true: 1}[strings.HasPrefix(b, "call.")]
			})
			return lines
		}
		eventually(t, "all denied calls are in the log", func() bool { return len(known()) == len(want) })
		if got := known(); !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
		s.stop(os.Interrupt) // which writes what waits
		s.start()
		s.settled()
		if !slices.ContainsFunc(s.audit(), func(line string) bool { return strings.HasPrefix(line, "calls.refused system") }) {
			t.Errorf("no calls of strangers in %q", s.audit())
		}
		list := s.run("apikey", "audit", "--key", made.ID, "-o", "csv", "--columns", "action,actor,changes")
		if !strings.HasPrefix(list.stdout, "action,actor,changes\n") || !strings.Contains(list.stdout, "key.revoked,key "+parent+`,"disabledBy: ""owner"", enabled: true → false"`) {
			t.Errorf("%+v", list)
		}
		if r := s.run("apikey", "audit", "--by", "ann"); r.code != 0 || strings.Count(r.stdout, "\n") != 2 {
			t.Errorf("%+v", r)
		}
		for _, secret := range []string{raw, made.Key} {
			if all := s.run("apikey", "audit", "--all", "--json"); strings.Contains(all.stdout, secret[len("ak_"):len("ak_")+10]) {
				t.Error("the log shows a part of a raw key")
			}
		}
	}
}

// TestA10_verify: whoever has kept a head learns of each change of the log.
func TestA10_verify(t *testing.T) {
	full(t)
	s := startGate(t, auditSite, withEnv("HASH="+passwordHash))
	for i := range 5 {
		s.create(map[string]any{"userId": fmt.Sprint("user", i)})
	}
	verify := func(args ...string) result { return s.run(append([]string{"apikey", "audit", "--verify"}, args...)...) }
	ok := verify()
	if ok.code != 0 || !strings.Contains(ok.stdout, "5 entries") {
		t.Fatalf("%+v", ok)
	}
	var answer struct{ Head admin.AuditPoint }
	if err := json.Unmarshal([]byte(verify("--json").stdout), &answer); err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("%d:%s", answer.Head.ID, answer.Head.Chain)
	if !strings.Contains(ok.stdout, head) || !strings.Contains(s.run("apikey", "health").stdout, head) {
		t.Errorf("%s is not shown: %+v", head, ok)
	}
	s.create(map[string]any{"userId": "later"})
	if r := verify("--head", head); r.code != 0 {
		t.Errorf("%+v", r)
	}
	for args, code := range map[string]int{"--head " + head: 2, "--verify --head 5": 2, "--verify --head x:" + answer.Head.Chain: 2, "--verify --key x": 2} {
		if r := s.run(append([]string{"apikey", "audit"}, strings.Fields(args)...)...); r.code != code {
			t.Errorf("%s: %+v", args, r)
		}
	}
	path := filepath.Join(s.Dir, "caddy", "apikey", "apikey.db")
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	s.stop(os.Interrupt)
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ sql, why string }{
		"an entry that was changed": {`UPDATE audit SET doc = replace(doc, 'user2', 'user9') WHERE id = 3`, "entry 3"},
		"an entry that is missing":  {`DELETE FROM audit WHERE id = 3`, "entry 4"},
		"a missing end":             {`DELETE FROM audit WHERE id >= 5`, "it ends with entry 4"},
		"a missing beginning":       {`DELETE FROM audit WHERE id = 1`, "entry 2"},
		"a false anchor":            {`DELETE FROM audit WHERE id = 1; INSERT INTO audit_anchor VALUES (1, 1, '` + strings.Repeat("0", 64) + `')`, "entry 2"},
		"all was removed":           {`DELETE FROM audit`, "ends with nothing"},
		"the head itself":           {`UPDATE audit SET doc = replace(doc, 'user4', 'user9') WHERE id = 5`, "entry 5"},
	} {
		if err := os.WriteFile(path, original, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(row.sql); err != nil {
			t.Fatal(err)
		}
		db.Close()
		s.start()
		s.settled()
		if r := verify("--head", head); r.code != 1 || !strings.Contains(r.stderr, row.why) {
			t.Errorf("%s: %+v", name, r)
		}
		s.stop(os.Interrupt)
	}
}
