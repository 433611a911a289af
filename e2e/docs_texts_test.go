package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// TestDocsPasswords: where an example has the hash of a password, the password is said.
func TestDocsPasswords(t *testing.T) {
	full(t)
	hashes := regexp.MustCompile(`\$2a\$14\$[./0-9A-Za-z]{53}`)
	said := regexp.MustCompile("password of [a-z ]+\\s`([^`]+)`")
	checked := map[string]string{}
	for _, file := range slices.Concat(sources(t, "docs/*.md"), sources(t, "docs/*/*.md"), []string{"README.md"}) {
		text := readAll(t, source(t, file))
		for _, hash := range hashes.FindAllString(text, -1) {
			m := said.FindStringSubmatch(text)
			if m == nil {
				t.Fatalf("%s: the password of %s stands nowhere", file, hash)
			}
			if checked[hash] == m[1] {
				continue // bcrypt is slow
			}
			if err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(m[1])); err != nil {
				t.Errorf("%s: %q: %v", file, m[1], err)
			}
			checked[hash] = m[1]
		}
	}
	if len(checked) == 0 {
		t.Error("no hash found")
	}
}

// TestDocsClient: the example of the client says what to install and which key to make.
func TestDocsClient(t *testing.T) {
	quick(t)
	b, err := os.ReadFile(source(t, "testdata", "node", "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	var tested struct{ Dependencies map[string]string }
	if err := json.Unmarshal(b, &tested); err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(readAll(t, source(t, "docs/better-auth.md")), "```js\n")
	if !ok {
		t.Fatal("no example of the client")
	}
	wants := []string{"npm install", "caddy apikey create --owner alice --permission write"}
	for _, name := range []string{"better-auth", "@better-auth/api-key"} {
		wants = append(wants, name+"@"+tested.Dependencies[name])
	}
	for _, want := range wants {
		if !strings.Contains(before, want) {
			t.Errorf("%q stands nowhere before the example", want)
		}
	}
}
