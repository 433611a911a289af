package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const scanSite = `{
	apikey {
		config ci {
			prefix ci_
			length 40
		}
	}
}

{$SITE} {
	apikey
	respond "next"
}
`

// TestA10_scan: keys are found in files, each with what becomes of it, and no output has a
// part of a raw key.
func TestA10_scan(t *testing.T) {
	quick(t)
	s := startGate(t, scanSite)
	live, ci, off := s.create(nil), s.create(map[string]any{"configId": "ci", "userId": "bob"}), s.create(nil)
	spent, old, own := s.create(map[string]any{"remaining": 0}), s.create(nil), s.create(map[string]any{"prefix": "own_"})
	s.admin("PATCH", "/apikey/keys/"+off.ID, map[string]any{"enabled": false}, 200, nil)
	var rotated made
	s.admin("POST", "/apikey/keys/"+old.ID+"/rotate", map[string]any{"grace": 3600}, 200, &rotated)
	gone := s.create(nil)
	s.admin("DELETE", "/apikey/keys/"+gone.ID, nil, 204, nil)
	raws := []string{live.Raw, ci.Raw, off.Raw, spent.Raw, old.Raw, rotated.Raw, own.Raw, gone.Raw}
	folder := filepath.Join(s.Dir, "leaks")
	for name, text := range map[string]string{
		"a.env":         "# keys\nKEY=" + live.Raw + "\nCI=" + ci.Raw + "\n",
		"deep/b.bin":    "\x00\x01" + off.Raw + "\x00\n\n" + spent.Raw,
		"deep/c":        old.Raw + " " + rotated.Raw,
		"d-own":         own.Raw,
		gone.Raw + ".e": gone.Raw,
	} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	silent := func(r result) result {
		t.Helper()
		for _, raw := range raws {
			prefix, secret, _ := strings.Cut(raw, "_")
			for i := 0; i+10 <= len(secret); i++ {
				if strings.Contains(r.stdout+r.stderr, secret[i:i+10]) {
					t.Fatalf("the output has a part of a raw key with the prefix %s_", prefix)
				}
			}
		}
		return r
	}
	for _, format := range []string{"table", "wide", "csv", "ndjson", "name"} {
		if r := silent(s.run("apikey", "scan", folder, "-o", format)); r.code != 1 || r.stdout == "" || !strings.Contains(r.stderr, "4 live keys found") {
			t.Errorf("%s: %+v", format, r)
		}
	}
	var answer struct {
		Findings []struct {
			File, Start, State string
			Line, Column       int64
			KeyID, UserID      *string
			Live               bool
		}
	}
	r := silent(s.run("apikey", "scan", "--json", "--prefix", "own_", folder))
	if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range answer.Findings {
		id, user := "-", "-"
		if f.KeyID != nil {
			id, user = *f.KeyID, *f.UserID
		}
		got[fmt.Sprintf("%s:%d:%d", strings.TrimPrefix(f.File, folder), f.Line, f.Column)] = fmt.Sprintf("%s %s %s %s %v", f.Start, id, user, f.State, f.Live)
	}
	start := func(raw string) string { return raw[:6] }
	want := map[string]string{
		"/a.env:2:5":      start(live.Raw) + " " + live.ID + " alice active true",
		"/a.env:3:4":      start(ci.Raw) + " " + ci.ID + " bob active true",
		"/deep/b.bin:1:3": start(off.Raw) + " " + off.ID + " alice disabled false",
		"/deep/b.bin:3:1": start(spent.Raw) + " " + spent.ID + " alice exhausted true",
		"/deep/c:1:1":     start(old.Raw) + " " + old.ID + " alice active true",
		"/deep/c:1:69":    start(rotated.Raw) + " " + old.ID + " alice active true",
		"/d-own:1:1":      start(own.Raw) + " " + own.ID + " alice active true",
		"/ak_….e:1:1":     "ak_ - - unknown false",
	}
	for place, w := range want {
		if got[place] != w {
			t.Errorf("%s: %q, want %q", place, got[place], w)
		}
	}
	if len(got) != len(want) || r.code != 1 {
		t.Errorf("%d findings: %q", r.code, got)
	}
	for stdin, code := range map[string]int{"nothing": 0, off.Raw: 0, gone.Raw: 0, "x=" + live.Raw + "&": 1} {
		if r := silent(s.runWith(stdin, "apikey", "scan", "-")); r.code != code {
			t.Errorf("%+v", r)
		}
	}
	// It counts as no use.
	if k := s.state(live.ID); k.LastRequest != nil {
		t.Errorf("used at %s", *k.LastRequest)
	}
	for scanner, want := range map[string]string{"gitleaks": "(ci_[0-9A-Za-z]{40})", "trufflehog": `- "ci_"`, "github": "Secret format: ci_[0-9A-Za-z]{40}\n"} {
		if r := s.run("apikey", "scan", "--rules", scanner); r.code != 0 || !strings.Contains(r.stdout, want) || !strings.Contains(r.stdout, "ak_[0-9A-Za-z]{64}") {
			t.Errorf("%s: %+v", scanner, r)
		}
	}
	s.stop(os.Interrupt)
	if r := silent(s.runWith(live.Raw, "apikey", "scan", "-")); r.code != 1 || !strings.Contains(r.stderr, "does not answer") {
		t.Errorf("%+v", r)
	}
}
