package e2e

import (
	"bytes"
	"database/sql"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// TestR7_golden starts a server on the database of each release, and of this version: every
// key validates as it did, and one that a later version has changed is refused and left alone.
func TestR7_golden(t *testing.T) {
	full(t)
	for _, golden := range sources(t, "store/sqlite/testdata/golden*.db") {
		t.Run(filepath.Base(golden), func(t *testing.T) {
			db := filepath.Join(t.TempDir(), "a.db")
			copyFile(t, source(t, golden), db, nil)
			config := fmt.Sprintf("{\n\tapikey {\n\t\tstore sqlite %s\n\t\tconfig other {\n\t\t\tprefix ak_\n\t\t}\n\t}\n}\n{$SITE} {\n\tapikey\n\trespond ok\n}\n", db)
			l := startLife(t, config)
			checkGolden(t, &admin.Client{HTTP: l.adminClient(), Base: l.Admin})
			if code := l.stop(syscall.SIGTERM); code != 0 {
				t.Fatalf("the server ended with status %d", code)
			}

			later := filepath.Join(t.TempDir(), "a.db")
			copyFile(t, db, later, nil)
			laterSchema(t, later)
			before, err := os.ReadFile(later)
			if err != nil {
				t.Fatal(err)
			}
			newLife(t, lifeConfig(later)).failsToStart(later, "a newer version of this program made it")
			if after, err := os.ReadFile(later); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

// TestR1_start: the log names the versions of what the binary was built with.
func TestR1_start(t *testing.T) {
	quick(t)
	s := startCaddy(t, gatedSite)
	info, err := buildinfo.ReadFile(buildCaddy(t))
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, m := range info.Deps {
		if m.Path == "github.com/caddyserver/caddy/v2" {
			fields = append(fields, fmt.Sprintf(`"caddy":%q`, m.Version), fmt.Sprintf(`"go":%q`, info.GoVersion), `"sqlite":"3.`)
		}
	}
	if len(fields) == 0 {
		t.Fatal("the binary has no Caddy")
	}
	for _, field := range fields {
		eventually(t, "the log has "+field, func() bool { return strings.Contains(s.Log(), field) })
	}
}

// checkGolden verifies all keys of a golden database, whose raw keys its IDs tell.
func checkGolden(t *testing.T, client *admin.Client) {
	t.Helper()
	most, valid := int64(500), 0
	list, err := client.ListKeys(t.Context(), admin.ListKeys{Limit: &most})
	if err != nil || len(list.Value.Keys) == 0 || list.Value.NextCursor != nil {
		t.Fatalf("%d keys: %v", len(list.Value.Keys), err)
	}
	verify := func(raw string) admin.Verification {
		t.Helper()
		v, err := client.Verify(t.Context(), admin.VerifyKey{Key: raw})
		if err != nil {
			t.Fatal(err)
		}
		return v.Value
	}
	// The first owner is disabled, which stops the keys that are valid otherwise.
	first := list.Value.Keys[0]
	if v := verify("golden_" + first.ID); v.Valid || v.Error.Code != "KEY_DISABLED" || !first.Enabled {
		t.Errorf("a key of a disabled owner: %+v", v)
	}
	if _, err := client.PutOwner(t.Context(), first.UserID, admin.PutOwner{Enabled: api.Some(true)}); err != nil {
		t.Fatal(err)
	}
	for _, k := range list.Value.Keys {
		v, code := verify("golden_"+k.ID), ""
		if v.Error != nil {
			code = v.Error.Code
		}
		want := ""
		if !k.Enabled {
			want = "KEY_DISABLED"
		}
		if code != want || v.Valid != (want == "") || v.Key == nil || v.Key.ID != k.ID {
			t.Errorf("key %s: valid %v, %s, want %q", k.ID, v.Valid, code, want)
		}
		if v.Valid {
			valid++
		}
	}
	if valid < 3 {
		t.Errorf("%d valid keys", valid)
	}
	if v := verify("golden_last"); !v.Valid {
		t.Errorf("a previous raw key in its grace: %+v", v.Error)
	}
	if v := verify("golden_nosuch"); v.Valid || v.Key != nil {
		t.Errorf("an unknown key: %+v", v)
	}
}

// laterSchema makes a database look as if a later version had changed its tables.
func laterSchema(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("INSERT INTO apikey_schema (version_id, is_applied) SELECT max(version_id) + 1, 1 FROM apikey_schema"); err != nil {
		t.Fatal(err)
	}
}
