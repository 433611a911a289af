package e2e

import (
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// betterAuthTable is the table that Better Auth makes in SQLite.
const betterAuthTable = `CREATE TABLE "apikey" ("id" text not null primary key, "configId" text not null, "name" text, "start" text,
	"referenceId" text not null, "prefix" text, "key" text not null, "refillInterval" integer, "refillAmount" integer, "lastRefillAt" date,
	"enabled" integer, "rateLimitEnabled" integer, "rateLimitTimeWindow" integer, "rateLimitMax" integer, "requestCount" integer,
	"remaining" integer, "lastRequest" date, "expiresAt" date, "createdAt" date not null, "updatedAt" date not null,
	"permissions" text, "metadata" text)`

// betterAuthRow is a row as that server writes it for a raw key, but for changes.
func betterAuthRow(raw string, changes map[string]any) map[string]any {
	sum := sha256.Sum256([]byte(raw))
	const then = "2026-11-01T10:00:00.000Z"
	row := map[string]any{
		"id": "id-" + raw[:6], "configId": "default", "name": "key " + raw[:6], "start": raw[:6], "referenceId": "alice",
		"key": base64.RawURLEncoding.EncodeToString(sum[:]), "enabled": 1, "rateLimitEnabled": 1, "rateLimitTimeWindow": 86400000,
		"rateLimitMax": 1000, "requestCount": 0, "createdAt": then, "updatedAt": then, "metadata": "null",
	}
	maps.Copy(row, changes)
	return row
}

// rawKeyOf makes a raw key as Better Auth does: 64 letters.
func rawKeyOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	letters := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return 'g' + r - '0'
		}
		return r
	}, fmt.Sprintf("%x", sum))
	return name + letters[:64-len(name)]
}

// betterAuthDB makes a database with these rows.
func betterAuthDB(t testing.TB, rows ...map[string]any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "better auth?.db")
	fillBetterAuthDB(t, path, rows)
	return path
}

func fillBetterAuthDB(t testing.TB, path string, rows []map[string]any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer(" ", "%20", "?", "%3F").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(betterAuthTable); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		names := slices.Sorted(maps.Keys(row))
		values := make([]any, len(names))
		for i, name := range names {
			values[i] = row[name]
		}
		query := fmt.Sprintf(`INSERT INTO apikey ("%s") VALUES (?%s)`, strings.Join(names, `", "`), strings.Repeat(", ?", len(names)-1))
		if _, err := tx.Exec(query, values...); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

const importSite = `{
	apikey {
		config pub {
			prefix pub_
		}
	}
}

{$SITE} {
	apikey
	respond "hello {http.auth.user.id} {http.auth.user.metadata.plan}"
}
`

// TestImportBetterAuth: the raw keys of a Better Auth database open the gate, or
// do not, as they did there.
func TestImportBetterAuth(t *testing.T) {
	full(t)
	c := shell{t, startCaddy(t, importSite, withTestClock())}
	now := time.Now().UTC()
	iso := func(d time.Duration) string { return now.Add(d).Format("2006-01-02T15:04:05.000Z") }
	names := []string{"plain", "metad", "off", "over", "soon", "limit", "spent", "refil", "perms", "other", "lost", "window"}
	raw := map[string]string{}
	for _, name := range names {
		raw[name] = rawKeyOf(name)
	}
	rows := []map[string]any{
		betterAuthRow(raw["plain"], nil),
		betterAuthRow(raw["metad"], map[string]any{"metadata": `"{\"plan\":\"a <b> & c\"}"`, "prefix": "me", "expiresAt": iso(time.Hour)}),
		betterAuthRow(raw["off"], map[string]any{"enabled": 0}),
		betterAuthRow(raw["over"], map[string]any{"expiresAt": iso(-time.Hour)}),
		betterAuthRow(raw["soon"], map[string]any{"expiresAt": now.Add(time.Hour).UnixMilli()}),
		betterAuthRow(raw["limit"], map[string]any{"remaining": 3, "rateLimitEnabled": 0}),
		betterAuthRow(raw["spent"], map[string]any{"remaining": 0}),
		betterAuthRow(raw["refil"], map[string]any{"remaining": 0, "refillAmount": 2, "refillInterval": 3600_000, "lastRefillAt": iso(-30 * time.Minute)}),
		betterAuthRow(raw["perms"], map[string]any{"permissions": `{"files":["read","write"],"all":["*"]}`}),
		betterAuthRow(raw["other"], map[string]any{"configId": "public"}),
		betterAuthRow(raw["lost"], map[string]any{"metadata": `["a"]`}),
		betterAuthRow(raw["window"], map[string]any{"rateLimitMax": 5, "requestCount": 4, "lastRequest": iso(-time.Minute), "referenceId": "bob"}),
	}
	db := betterAuthDB(t, rows...)
	before, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}

	r := c.exits(1, "import", "better-auth", db, "--dry-run", "--config-map", "public=pub")
	if !strings.Contains(r.stdout, "dry run") || !strings.Contains(r.stderr, "2 records lost something") {
		t.Errorf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
	c.wants("keys after a dry run", c.json("list")["total"], 0)

	r = c.exits(1, "import", "better-auth", db, "--config-map", "public=pub")
	for _, want := range []string{"created   12", "exists    0", "invalid   0", "is not an object: left out", "would have been deleted", "no wildcard"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the report does not say %q:\n%s", want, r.stdout)
		}
	}
	open := func(name string, want ...int) {
		t.Helper()
		for i, status := range want {
			if got := c.status(raw[name], ""); got != status {
				t.Errorf("%s, request %d: status %d, want %d", name, i+1, got, status)
			}
		}
	}
	open("plain", 200)
	open("off", 401)
	open("over", 401)
	open("soon", 200)
	open("limit", 200, 200, 200, 429)
	open("spent", 429)
	open("refil", 429)
	open("window", 200, 429)
	open("other", 200)
	open("lost", 200)
	if body := get(t, c.s.URL, raw["metad"]); body != "hello alice a <b> & c" {
		t.Errorf("metadata: %q", body)
	}

	show := func(name string) map[string]any { return c.json("show", "id-"+raw[name][:6]) }
	perms := show("perms")
	c.wants("permissions", perms["permissions"], map[string]any{"files": []string{"read", "write"}})
	c.wants("name", perms["name"], "key "+raw["perms"][:6])
	c.wants("start", perms["start"], raw["perms"][:6])
	c.wants("createdAt", perms["createdAt"], "2026-11-01T10:00:00.000Z")
	c.wants("rateLimitMax", perms["rateLimitMax"], 1000)
	c.wants("rateLimitTimeWindow", perms["rateLimitTimeWindow"], 86400000)
	c.wants("configId", show("other")["configId"], "pub")
	c.wants("owner", show("window")["userId"], "bob")
	c.wants("window", show("window")["requestCount"], 5)

	// The grid of refills begins at the last one.
	c.s.setClock(31 * time.Minute)
	open("refil", 200, 200, 429)
	c.s.setClock(61 * time.Minute)
	open("soon", 401)

	// Again: all exists, and nothing is reset.
	all := c.exits(0, "list", "--all", "--json").stdout
	r = c.exits(0, "import", "better-auth", db, "--config-map", "public=pub")
	if !strings.Contains(r.stdout, "created   0") || !strings.Contains(r.stdout, "exists    12") {
		t.Errorf("the second import:\n%s", r.stdout)
	}
	if again := c.exits(0, "list", "--all", "--json").stdout; again != all {
		t.Errorf("the second import changed something:\n%s\n%s", all, again)
	}
	open("limit", 429)

	// Not one raw key or hash is anywhere.
	after, err := os.ReadFile(db)
	if err != nil || string(after) != string(before) {
		t.Errorf("the other database was changed (%v)", err)
	}
	if r := c.exits(1, "import", "better-auth", db); !strings.Contains(r.stdout, `"public" must be a configuration of this server: "default", "pub"`) {
		t.Errorf("an unknown configuration:\n%s", r.stdout)
	}
	out := c.exits(1, "import", "better-auth", db, "--json")
	for where, text := range map[string]string{"the log": c.s.Log(), "the report": r.stdout + r.stderr, "the JSON": out.stdout + out.stderr} {
		for i, row := range rows {
			for what, secret := range map[string]string{"hash": row["key"].(string)[:20], "key": raw[names[i]][12:32]} {
				if strings.Contains(text, secret) {
					t.Errorf("%s holds the %s of %s", where, what, names[i])
				}
			}
		}
	}
}

// get sends a key to a site and returns what comes.
func get(t *testing.T, url, raw string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", raw)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestImportBetterAuthMany: a database is read whole, and in batches.
func TestImportBetterAuthMany(t *testing.T) {
	full(t)
	c := startCLI(t)
	const many = 5000
	rows := make([]map[string]any, many)
	for i := range rows {
		rows[i] = betterAuthRow(rawKeyOf(fmt.Sprintf("k%d", i)), map[string]any{"id": fmt.Sprintf("id%d", i), "referenceId": fmt.Sprintf("owner%d", i%7)})
	}
	rows[many/2]["configId"] = "nosuch"
	rows[many-1]["key"] = rows[0]["key"]
	rows[many-2]["expiresAt"] = "soon"
	got := c.decode(c.exits(1, "import", "better-auth", betterAuthDB(t, rows...), "--json").stdout)
	for field, want := range map[string]any{"created": many - 3, "exists": 0, "conflicts": 1, "invalid": 2, "lost": 0, "dryRun": false} {
		c.wants(field, got[field], want)
	}
	faults := map[string]string{}
	results := got["results"].([]any)
	for _, r := range results {
		if r := r.(map[string]any); r["status"] != "created" {
			faults[r["id"].(string)] = fmt.Sprint(r["status"], " ", r["field"])
		}
	}
	c.wants("results", len(results), many)
	c.wants("faults", faults, map[string]string{
		fmt.Sprint("id", many/2): "invalid configId", fmt.Sprint("id", many-1): "conflict hash", fmt.Sprint("id", many-2): "invalid expiresAt",
	})
	c.wants("total", c.json("list")["total"], many-3)
	for _, i := range []int{0, many/2 - 1, many - 3} {
		c.wants("status", c.status(rawKeyOf(fmt.Sprintf("k%d", i)), ""), 200)
	}
	c.wants("status of what was not imported", c.status(rawKeyOf(fmt.Sprintf("k%d", many/2)), ""), 401)
}

// TestExportImport: an export brings everything to an empty server, and an export
// of that is the same.
func TestExportImport(t *testing.T) {
	full(t)
	site := `{
	apikey {
		tier pro {
			limit 3/1h
		}
	}
}

{$SITE} {
	apikey {
		secret
	}
	respond ok
}
`
	from, to := shell{t, startCaddy(t, site, withTestClock())}, shell{t, startCaddy(t, site, withTestClock())}
	from.exits(0, "owner", "set", "paula", "--tier", "pro")
	from.exits(0, "owner", "set", "dora", "--disable")
	from.exits(0, "owner", "set", "nobody")
	make := func(args ...string) (id, raw, secret string) {
		m := from.json(append([]string{"create"}, args...)...)
		secret, _ = m["secret"].(string)
		return m["id"].(string), m["key"].(string), secret
	}
	_, plain, _ := make("--owner", "alice", "--name", "部署 <1>", "--metadata", "a=<b>", "--permission", "files:read", "--allowed-ip", "127.0.0.0/8", "--expires-in", "1h")
	_, tiered, _ := make("--owner", "paula")
	_, disabled, _ := make("--owner", "dora")
	_, off, _ := make("--owner", "alice", "--disabled")
	_, locked, secret := make("--owner", "alice", "--with-secret")
	_, credits, _ := make("--owner", "alice", "--remaining", "5", "--refill", "4/1h")
	_, sliding, _ := make("--owner", "alice", "--rate-limit", "3/1h", "--rate-limit-algorithm", "sliding_window")
	_, fixed, _ := make("--owner", "alice", "--rate-limit", "3/1h")
	rotated, old, _ := make("--owner", "alice", "--rate-limit", "100/1h")
	renewed := from.json("rotate", rotated, "--grace", "1h")["key"].(string)
	for raw, status := range map[string]int{plain: 200, tiered: 200, sliding: 200, fixed: 200, credits: 200, old: 200, disabled: 401, off: 401} {
		from.wants("status before", from.status(raw, ""), status)
	}
	from.wants("status before", from.status(locked, secret), 200)

	file := filepath.Join(t.TempDir(), "keys.ndjson")
	from.exits(0, "export", "--output", file)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	text := readAll(t, file)
	if first, _, _ := strings.Cut(text, "\n"); first != `{"format":"caddy-apikey","version":1}` {
		t.Errorf("first line %s", first)
	}
	from.wants("standard output", from.exits(0, "export").stdout, text)

	r := to.exitsWith(0, text, "import", "-", "--dry-run")
	if !strings.Contains(r.stdout, "created   13") {
		t.Errorf("dry run:\n%s", r.stdout)
	}
	to.wants("keys after a dry run", to.json("list")["total"], 0)
	to.wants("owners after a dry run", len(to.json("owner", "list")["owners"].([]any)), 0)
	to.exits(0, "import", file)
	to.wants("the export of what was imported", to.exits(0, "export").stdout, text)
	r = to.exits(0, "import", file)
	if !strings.Contains(r.stdout, "created   0") || !strings.Contains(r.stdout, "exists    13") {
		t.Errorf("second import:\n%s", r.stdout)
	}
	to.wants("the export after a second import", to.exits(0, "export").stdout, text)

	for _, w := range []struct {
		raw, secret string
		status      []int
	}{
		{plain, "", []int{200}},
		{tiered, "", []int{200, 200, 429}},
		{disabled, "", []int{401}},
		{off, "", []int{401}},
		{locked, secret, []int{200}},
		{locked, secret + "x", []int{401}},
		{credits, "", []int{200, 200, 200, 200, 429}},
		{sliding, "", []int{200, 200, 429}},
		{fixed, "", []int{200, 200, 429}},
		{old, "", []int{200}},
		{renewed, "", []int{200}},
	} {
		for i, status := range w.status {
			to.wants(fmt.Sprintf("%s…, request %d", w.raw[:6], i+1), to.status(w.raw, w.secret), status)
		}
	}
	to.s.setClock(61 * time.Minute)
	to.wants("the key with an end", to.status(plain, ""), 401)
	to.wants("the old key after its grace", to.status(old, ""), 401)
	to.wants("the new key", to.status(renewed, ""), 200)
	to.wants("refilled credits", to.status(credits, ""), 200)

	// What was changed since is not changed back.
	before := to.exits(0, "export").stdout
	to.exits(0, "import", file)
	to.wants("the export after a late import", to.exits(0, "export").stdout, before)
	to.exits(0, "owner", "set", "dora", "--enable")
	r = to.exits(1, "import", file)
	if !strings.Contains(r.stdout, "conflict  1") {
		t.Errorf("an owner that is another one:\n%s", r.stdout)
	}
	to.wants("the owner", to.json("owner", "show", "dora")["enabled"], true)
	for _, raw := range []string{plain, old, renewed, locked, secret} {
		for where, text := range map[string]string{"the export": text, "a log": from.s.Log() + to.s.Log(), "a report": r.stdout + r.stderr} {
			if strings.Contains(text, raw[10:30]) {
				t.Errorf("%s holds a raw key or secret", where)
			}
		}
	}
	hash := key.HashOf(plain)
	if !strings.Contains(text, fmt.Sprintf("%x", hash[:])) || strings.Contains(from.s.Log()+to.s.Log()+r.stdout, fmt.Sprintf("%x", hash[:8])) {
		t.Error("the hash must be in the export and nowhere else")
	}
}

func readAll(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestImportRestoresDeleted: what was deleted comes back from an export, into the
// memory of the server that deleted it too.
func TestImportRestoresDeleted(t *testing.T) {
	full(t)
	site := "{\n\tapikey {\n\t\ttier pro {\n\t\t\tlimit 2/1h\n\t\t}\n\t}\n}\n\n" + commandSite
	c := shell{t, startCaddy(t, site)}
	c.exits(0, "owner", "set", "paula", "--tier", "pro")
	limited := c.json("create", "--owner", "alice", "--rate-limit", "2/1h")
	tiered := c.json("create", "--owner", "paula")["key"].(string)
	raw := limited["key"].(string)
	c.wants("status", c.status(raw, ""), 200)
	c.wants("status", c.status(tiered, ""), 200)
	text := c.exits(0, "export").stdout
	c.exits(0, "delete", "--yes", limited["id"].(string))
	c.exits(0, "owner", "delete", "--yes", "paula")
	c.wants("deleted", []int{c.status(raw, ""), c.status(tiered, "")}, []int{401, 401})
	c.exitsWith(0, text, "import", "-")
	c.wants("the same export", c.exits(0, "export").stdout, text)
	c.wants("restored", []int{c.status(raw, ""), c.status(raw, "")}, []int{200, 429})
	c.wants("restored, with its owner", []int{c.status(tiered, ""), c.status(tiered, "")}, []int{200, 429})
}

// TestImportUsage: wrong files and arguments.
func TestImportUsage(t *testing.T) {
	full(t)
	c := startCLI(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const header = `{"format":"caddy-apikey","version":1}` + "\n"
	const end = `{"end":{"owners":0,"keys":0}}`
	empty := betterAuthDB(t)
	for name, test := range map[string]struct {
		code int
		args []string
		says string
	}{
		"no argument":         {2, []string{"import"}, "one argument"},
		"no database":         {2, []string{"import", "better-auth"}, "one argument"},
		"unknown flag":        {2, []string{"import", "better-auth", "x.db", "--nosuch"}, "--nosuch"},
		"bad pair":            {2, []string{"import", "better-auth", "x.db", "--config-map", "x"}, "--config-map"},
		"export argument":     {2, []string{"export", "x"}, "no arguments"},
		"missing file":        {1, []string{"import", filepath.Join(dir, "nosuch")}, "no such file"},
		"missing database":    {1, []string{"import", "better-auth", filepath.Join(dir, "nosuch")}, "no such file"},
		"a folder":            {1, []string{"import", "better-auth", dir}, "is not a regular file"},
		"no database at all":  {1, []string{"import", "better-auth", file("text.db", strings.Repeat("text ", 500))}, "not a database"},
		"no such table":       {1, []string{"import", "better-auth", empty, "--table", "keys"}, "there are: apikey"},
		"no such column":      {1, []string{"import", "better-auth", empty, "--column", "name=title"}, `no column "title"`},
		"no such field":       {1, []string{"import", "better-auth", empty, "--column", "title=name"}, "is not a field"},
		"no header":           {1, []string{"import", file("a", `{"id":"x"}`+"\n")}, "not an export"},
		"nothing":             {1, []string{"import", file("b", "")}, "not an export"},
		"another version":     {1, []string{"import", file("c", `{"format":"caddy-apikey","version":2}`)}, "version 2"},
		"a database":          {1, []string{"import", empty}, "better-auth"},
		"bad lines":           {1, []string{"import", file("d", header+"x\n\n[]\n{}\n"+`{"end":{"owners":0,"keys":3}}`)}, "3 records could not"},
		"an owner is invalid": {1, []string{"import", file("e", header+`{"owner":{"userId":"."}}`+"\n"+`{"id":"x"}`+"\n")}, "nothing more was imported"},
		"empty export":        {0, []string{"import", file("f", header+end)}, ""},
		"empty database":      {0, []string{"import", "better-auth", empty}, ""},
		"no folder for it":    {1, []string{"export", "--output", filepath.Join(dir, "nosuch", "x")}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			if r := (shell{t, c.s}).exits(test.code, test.args...); !strings.Contains(r.stderr, test.says) {
				t.Errorf("stderr: %s", r.stderr)
			}
		})
	}
	var lines []string
	for _, r := range c.decode(c.exits(1, "import", filepath.Join(dir, "d"), "--json").stdout)["results"].([]any) {
		r := r.(map[string]any)
		lines = append(lines, fmt.Sprint(r["line"], " ", r["status"], " ", r["field"]))
	}
	c.wants("lines", lines, []string{"2 invalid <nil>", "4 invalid <nil>", "5 invalid id"})
	if left, err := filepath.Glob(filepath.Join(dir, "nosuch*")); err != nil || left != nil {
		t.Errorf("%v, %v", left, err)
	}
}

// TestImportWhileGone: a server that goes away in the middle leaves a report.
func TestImportWhileGone(t *testing.T) {
	full(t)
	c := startCLI(t)
	c.s.kill()
	r := c.exits(1, "import", "better-auth", betterAuthDB(t, betterAuthRow(rawKeyOf("a"), nil)), "--json")
	if r.stdout != "" || !strings.Contains(r.stderr, "does not answer") {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}

// TestImportKeysAPI: the wire form of the admin API, through Caddy.
func TestImportKeysAPI(t *testing.T) {
	full(t)
	c := startCLI(t)
	raw := rawKeyOf("api")
	sum := sha256.Sum256([]byte(raw))
	body, err := json.Marshal(map[string]any{"keys": []any{
		map[string]any{"id": "x", "userId": "alice", "hash": fmt.Sprintf("%x", sum)},
		map[string]any{"id": "y", "userId": "alice", "hash": "short"},
		map[string]any{"id": "z", "userId": "alice", "hash": base64.RawURLEncoding.EncodeToString(sum[:])},
	}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(c.s.Admin+"/apikey/keys/import", "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got admin.Imported
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != 200 {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	c.wants("sums", []int64{got.Created, got.Exists, got.Conflicts, got.Invalid}, []int64{1, 0, 1, 1})
	c.wants("status", c.status(raw, ""), 200)
}
