package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// TestAdded: the command line and the admin API set, show, clear and check the note of a
// key, and carry it to another server.
func TestAdded(t *testing.T) {
	p, _ := serve(t, filepath.Join(t.TempDir(), "keys.db"), time.Now)
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
		{"--name=ci", "asked for by phone"}, {"--note=until the audit", "until the audit"}, {"--no-note", ""}, {"--note=moved", "moved"},
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

	exported, _, err := p.run("", "export")
	if err != nil {
		t.Fatal(err)
	}
	p, _ = serve(t, filepath.Join(t.TempDir(), "keys.db"), time.Now)
	if _, _, err := p.run(exported, "import", "-"); err != nil {
		t.Fatal(err)
	}
	a, err := (&admin.Client{Base: p.URL}).Key(t.Context(), id)
	if err != nil || textOf(a.Value.Note.Value) != "moved" {
		t.Errorf("the note is %q after an import, %v", textOf(a.Value.Note.Value), err)
	}
}
