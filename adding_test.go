package apikey

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAdding applies each example of docs/adding.md, and runs a test that uses what it adds.
// What it changes is laid over the sources (go help build, -overlay).
func TestAdding(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the module three times")
	}
	text, err := os.ReadFile("docs/adding.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(text), "\n## ")[1:]
	examples := []struct {
		title, test, in string
		places          int
		packages        []string // whose tests run, of those that hold for every addition
		run             string
	}{
		{"A rate-limit algorithm", "algorithm", "internal/cli", 1, []string{"./internal/cli", "./ratelimit"}, "TestAdded|TestLaw|TestK8_|TestAlgorithmNames|TestState"},
		{"A field of a key", "field", "internal/cli", 5, []string{"./internal/cli", "./internal/api/admin"}, "TestAdded|TestDocument|TestAnswersAreDocumented"},
		{"An outcome", "outcome", "internal/api/admin", 1, []string{"./internal/api/admin", "./keyring", "./internal/api/rest"}, "TestAdded|TestOutcomes|TestRest_refusals"},
	}
	if len(sections) != len(examples) {
		t.Errorf("%d examples, want %d", len(sections), len(examples))
	}
	for i, e := range examples {
		t.Run(e.test, func(t *testing.T) {
			title, body, _ := strings.Cut(sections[i], "\n")
			if title != e.title {
				t.Fatalf("the example is about %q, want %q", title, e.title)
			}
			changed := applied(t, body)
			if len(changed) != e.places {
				t.Errorf("%d places, want %d", len(changed), e.places)
			}
			source, err := os.ReadFile(filepath.Join("testdata/adding", e.test+"_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			changed[filepath.Join(e.in, "added_test.go")] = string(source)
			out, err := exec.Command("go", append([]string{"test", "-overlay", overlay(t, changed), "-run", e.run}, e.packages...)...).CombinedOutput()
			if err != nil || strings.Contains(string(out), "no tests to run") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

var diffs = regexp.MustCompile("(?s)```diff\n--- a/([^\n]+)\n\\+\\+\\+ b/[^\n]+\n(.*?)```")

// applied returns the files that the diffs of a text change, changed.
func applied(t *testing.T, text string) map[string]string {
	t.Helper()
	changed := map[string]string{}
	for _, diff := range diffs.FindAllStringSubmatch(text, -1) {
		file, hunks := diff[1], strings.Split(diff[2], "@@\n")
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		after := string(content)
		for _, hunk := range hunks {
			var old, replaced strings.Builder
			for line := range strings.Lines(hunk) {
				switch line[0] {
				case '+':
					replaced.WriteString(line[1:])
				case '-':
					old.WriteString(line[1:])
				default:
					old.WriteString(line[1:])
					replaced.WriteString(line[1:])
				}
			}
			if n := strings.Count(after, old.String()); n != 1 {
				t.Fatalf("%s has the lines that are to be changed %d times:\n%s", file, n, old.String())
			}
			after = strings.Replace(after, old.String(), replaced.String(), 1)
		}
		changed[file] = after
	}
	return changed
}

// overlay writes files, and what lays them over those of the module.
func overlay(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	for file, content := range files {
		path := filepath.Join(dir, fmt.Sprintf("%d_%s", len(replace), filepath.Base(file)))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
