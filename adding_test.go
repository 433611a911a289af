package apikey

import (
	"encoding/json"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocsAdding applies the examples of docs/adding.md to the code and tests the result,
// with the tests in testdata/adding/<name>, whose folders are those of the repository, and
// with those of the repository that hold for every addition. The go command takes the
// changed and the added files from an overlay, so that nothing is copied.
func TestDocsAdding(t *testing.T) {
	page, err := os.ReadFile("docs/adding.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testFunctions(t)
	for _, m := range quotedTest.FindAllStringSubmatch(string(page), -1) {
		if !slices.Contains(tests, m[1]) {
			t.Errorf("there is no test %s", m[1])
		}
	}
	for _, example := range []struct {
		name, heading string
		places        int
		run           []string // tests of the repository: flags and packages
	}{
		{"algorithm", "A rate-limit algorithm", 1, []string{"./ratelimit"}},
		{"field", "A field of a key", 5, []string{"-skip=^(TestDocument_everyField|TestCreateSaysLittle|TestRecordsComeBack)$", "./key", "./internal/api/admin"}},
		{"outcome", "An outcome", 1, []string{"-run=^(TestAdded|TestOutcomes|TestRest_refusals)$", "./keyring", "./internal/api/rest"}},
	} {
		t.Run(example.name, func(t *testing.T) {
			overlay := map[string]string{}
			places := docPlaces(t, string(page), example.heading)
			if len(places) != example.places {
				t.Errorf("%d files are changed, want %d", len(places), example.places)
			}
			for file, hunks := range places {
				changed := filepath.Join(t.TempDir(), filepath.Base(file))
				if err := os.WriteFile(changed, []byte(applied(t, file, hunks)), 0o600); err != nil {
					t.Fatal(err)
				}
				overlay[absolute(t, file)] = changed
			}
			addFiles(t, overlay, "testdata/adding/common")
			added := addFiles(t, overlay, filepath.Join("testdata/adding", example.name))
			testWith(t, overlay, example.run, added)
		})
	}
}

// testWith tests packages with the files of an overlay, and also what run says.
func testWith(t *testing.T, overlay map[string]string, run, packages []string) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	args := slices.Concat([]string{"test", "-overlay=" + file}, run, packages)
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, p := range packages {
		if !strings.Contains(string(out), "ok  \t"+module+strings.TrimPrefix(p, ".")+"\t") {
			t.Errorf("go %s has not tested %s:\n%s", strings.Join(args, " "), p, out)
		}
	}
}

// hunk replaces lines of a file.
type hunk struct{ before, after string }

var fencedDiff = regexp.MustCompile("(?ms)^```diff\n(.*?)^```$")

// docPlaces returns the hunks in a section of a page, by file.
func docPlaces(t *testing.T, page, heading string) map[string][]hunk {
	t.Helper()
	_, section, _ := strings.Cut(page, "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	places := map[string][]hunk{}
	for _, m := range fencedDiff.FindAllStringSubmatch(section, -1) {
		head, body, _ := strings.Cut(m[1], "@@\n")
		file := strings.TrimPrefix(strings.SplitN(head, "\n", 2)[0], "--- a/")
		if head != "--- a/"+file+"\n+++ b/"+file+"\n" || places[file] != nil {
			t.Fatalf("%s: a block that starts with\n%s", heading, head)
		}
		for text := range strings.SplitSeq(body, "@@\n") {
			places[file] = append(places[file], parseHunk(t, text))
		}
	}
	return places
}

func parseHunk(t *testing.T, text string) (h hunk) {
	t.Helper()
	for line := range strings.Lines(text) {
		switch line[0] {
		case '+':
			h.after += line[1:]
		case '-':
			h.before += line[1:]
		case ' ', '\n': // editors remove the blank of an empty line
			h.before += strings.TrimPrefix(line, " ")
			h.after += strings.TrimPrefix(line, " ")
		default:
			t.Fatalf("not a line of a hunk: %s", line)
		}
	}
	return h
}

// applied returns a Go file with the hunks applied. Their place must be the only one.
func applied(t *testing.T, file string, hunks []hunk) string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := "\n" + string(source) // every line follows a newline
	for _, h := range hunks {
		if n := strings.Count(text, "\n"+h.before); n != 1 {
			t.Fatalf("%s has %d times:\n%s", file, n, h.before)
		}
		text = strings.Replace(text, "\n"+h.before, "\n"+h.after, 1)
	}
	text = text[1:]
	if formatted, err := format.Source([]byte(text)); err != nil || string(formatted) != text {
		t.Errorf("%s is not formatted: %v", file, err)
	}
	return text
}

// addFiles adds the files of a folder to an overlay, at the same path from the root of the
// repository, and returns their packages.
func addFiles(t *testing.T, overlay map[string]string, dir string) (packages []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		place, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		packages = append(packages, "./"+filepath.Dir(place))
		overlay[absolute(t, place)] = absolute(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
