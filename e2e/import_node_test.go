package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// realKey is a key that a real Better Auth server made, and its row.
type realKey struct {
	Kind, Key string
	Row       map[string]any
}

// realBetterAuthDB lets a real Better Auth server make a database.
func realBetterAuthDB(t *testing.T) (file string, keys map[string]realKey) {
	t.Helper()
	node := needNode(t)
	file = filepath.Join(t.TempDir(), "real.db")
	var made struct{ Keys []realKey }
	if err := json.Unmarshal(runNode(t, node, "database.mjs", file), &made); err != nil {
		t.Fatal(err)
	}
	keys = map[string]realKey{}
	for _, k := range made.Keys {
		keys[k.Kind] = k
	}
	return file, keys
}

// TestImportRealBetterAuth: a database that a real server made is imported, and its
// keys open the gate, or do not, as they did there.
func TestImportRealBetterAuth(t *testing.T) {
	full(t)
	file, keys := realBetterAuthDB(t)
	c := shell{t, startCaddy(t, "{\n\tapikey {\n\t\tconfig second\n\t\tconfig orgs\n\t\tconfig plain\n\t}\n}\n\n"+commandSite, withTestClock())}
	// The clock stands where the database was made: windows must not end meanwhile.
	report := c.decode(c.exits(1, "import", "better-auth", file, "--config-map", "team=orgs", "--json").stdout)
	c.wants("created", report["created"], len(keys)-1)
	results := map[string]map[string]any{}
	for _, r := range report["results"].([]any) {
		r := r.(map[string]any)
		results[r["id"].(string)] = r
	}
	// What each kind answers, request by request. Kinds that are not named must open.
	answers := map[string][]int{
		"with credits":                 {200},
		"without credits":              {429},
		"with refills":                 {429},
		"refilled":                     {200, 200, 200, 200},
		"with a rate limit":            {200, 200, 200, 429},
		"that has expired":             {401},
		"disabled":                     {401},
		"of nobody":                    {401},
		"with rate limiting off":       {200, 200},
		"with a rate limit of nothing": {200},
	}
	// What is not as it was, and whether something is lost.
	told := map[string]string{
		"with metadata in a list":          "lost metadata",
		"with blanks in permissions":       "lost permissions",
		"without credits":                  "remaining",
		"with a fraction for a rate limit": "rateLimitTimeWindow rateLimitMax",
		"with a rate limit of nothing":     "rateLimitMax",
	}
	for kind, k := range keys {
		id := k.Row["id"].(string)
		want := "created"
		if kind == "of nobody" {
			want = "invalid"
		}
		c.wants(kind+": status", results[id]["status"], want)
		var notes []string
		list, _ := results[id]["notes"].([]any)
		for _, n := range list {
			n := n.(map[string]any)
			word := n["field"].(string)
			if n["lost"] == true {
				word = "lost " + word
			}
			if !strings.Contains(strings.Join(notes, " "), word) {
				notes = append(notes, word)
			}
		}
		for _, word := range strings.Fields(told[kind]) {
			if !strings.Contains(strings.Join(notes, " "), word) {
				t.Errorf("%s: notes %v, want %s", kind, notes, told[kind])
			}
		}
		if told[kind] == "" && notes != nil {
			t.Errorf("%s: notes %v", kind, notes)
		}
		statuses := answers[kind]
		if statuses == nil {
			statuses = []int{200}
		}
		for i, status := range statuses {
			if got := c.status(k.Key, ""); got != status {
				t.Errorf("%s: request %d: status %d, want %d", kind, i+1, got, status)
			}
		}
	}
	imported := map[string]map[string]any{}
	for _, k := range c.json("list", "--all")["keys"].([]any) {
		imported[k.(map[string]any)["id"].(string)] = k.(map[string]any)
	}
	show := func(kind string) map[string]any { return imported[keys[kind].Row["id"].(string)] }
	c.wants("metadata", show("with metadata")["metadata"], map[string]any{"plan": "pro", "nested": map[string]any{"list": []any{1, 2.5, nil, "ü"}}})
	c.wants("metadata written twice", show("with metadata written twice")["metadata"], map[string]any{"plan": "old"})
	c.wants("permissions", show("with permissions")["permissions"], map[string]any{"files": []string{"read", "write"}, "users": []string{"read"}})
	c.wants("no permissions", show("with no permissions at all")["permissions"], map[string]any{})
	c.wants("remaining", show("with credits")["remaining"], 96)
	c.wants("end", show("that expires")["expiresAt"], keys["that expires"].Row["expiresAt"])
	c.wants("configuration", show("of an organization")["configId"], "orgs")
	c.wants("organization", show("of an organization")["userId"], keys["of an organization"].Row["referenceId"])
	c.wants("prefix", show("with prefix")["prefix"], "acme_")
	c.wants("start", show("stored without hashing")["start"], keys["stored without hashing"].Key[:6])
	for kind, k := range keys {
		if k.Row["createdAt"] != nil && kind != "of nobody" {
			c.wants(kind+": createdAt", show(kind)["createdAt"], k.Row["createdAt"])
		}
	}
	again := c.decode(c.exits(1, "import", "better-auth", file, "--config-map", "team=orgs", "--json").stdout)
	c.wants("created again", []any{again["created"], again["exists"], again["conflicts"], again["lost"]}, []any{0, len(keys) - 1, 0, 0})
}
