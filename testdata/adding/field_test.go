package cli

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

// TestAdded: the command line and the admin API set, show and clear the note of a key.
func TestAdded(t *testing.T) {
	opener, err := sqlite.New(sqlite.Options{Path: filepath.Join(t.TempDir(), "keys.db")})
	if err != nil {
		t.Fatal(err)
	}
	engine := keyring.New(opener, time.Now, func(err error) { t.Error(err) })
	if err := engine.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	keys := keyring.NewService(engine, &keyring.Settings{Rules: keyring.DefaultRules()})
	p := &peer{Server: httptest.NewServer(admin.New(func() (*keyring.Service, error) { return keys, nil }, admin.Info{}))}
	defer p.Close()
	client := &admin.Client{Base: p.URL}

	if _, _, err := p.run("", "create", "--owner", "alice", "--note", "asked for by phone"); err != nil {
		t.Fatal(err)
	}
	list, err := client.ListKeys(t.Context(), admin.ListKeys{})
	if err != nil || len(list.Value.Keys) != 1 {
		t.Fatalf("%+v, %v", list.Value, err)
	}
	id := list.Value.Keys[0].ID
	for _, step := range []struct{ flag, note string }{
		{"--name=ci", "asked for by phone"}, {"--note=until the audit", "until the audit"}, {"--no-note", ""},
	} {
		if _, _, err := p.run("", "update", id, step.flag); err != nil {
			t.Fatal(err)
		}
		a, err := client.Key(t.Context(), id)
		if err != nil || textOf(a.Value.Note.Value) != step.note {
			t.Errorf("%s: the note is %q, %v", step.flag, textOf(a.Value.Note.Value), err)
		}
		if shown, _, err := p.run("", "show", id); err != nil || !strings.Contains(shown, "Note:") || !strings.Contains(shown, step.note) {
			t.Errorf("%s: %v, shown as\n%s", step.flag, err, shown)
		}
	}
	if _, _, err := p.run("", "update", id, "--note", strings.Repeat("x", 201)); err == nil {
		t.Error("a note of 201 characters passes")
	}
}
