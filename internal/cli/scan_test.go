package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

func newRaw(t testing.TB, prefix string, length int) string {
	t.Helper()
	raw, err := key.Random{}.Generate(prefix, length, true)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// scanText returns the places of what a scanner finds, which must be the raw keys.
func scanText(t *testing.T, s *scanner, r io.Reader, raws ...string) (places []place) {
	t.Helper()
	var got []string
	err := s.scan(textReader(r), func(raw string, _ int, at place) error {
		got, places = append(got, raw), append(places, at)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, raws) {
		t.Fatalf("found %d, want %d", len(got), len(raws))
	}
	return places
}

// TestScanner: raw keys are found wherever they stand, and nothing else is.
func TestScanner(t *testing.T) {
	s := newScanner([]string{"ak_", "ak_live_"})
	raw, live, long := newRaw(t, "ak_", 64), newRaw(t, "ak_live_", 33), newRaw(t, "ak_", key.MaxLength)
	changed := func(at int) string {
		b := []byte(raw)
		b[at] = map[bool]byte{true: '1', false: '0'}[b[at] == '0']
		return string(b)
	}
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"nothing":           {"", nil},
		"alone":             {raw, []string{raw}},
		"in a line":         {"a\nkey = \"" + raw + "\"\n", []string{raw}},
		"two prefixes fit":  {live, []string{live}},
		"the longest":       {"x " + long, []string{long}},
		"side by side":      {raw + raw + "," + live, []string{raw, raw, live}},
		"joined before":     {"MY_" + raw, []string{raw}},
		"joined behind":     {raw + "-old", []string{raw}},
		"after a prefix":    {"ak_ak_live_" + raw, []string{raw}},
		"binary":            {"\x00\xff" + raw + "\x00", []string{raw}},
		"cut":               {raw[:len(raw)-1], nil},
		"without prefix":    {raw[3:], nil},
		"another prefix":    {newRaw(t, "xx_", 64), nil},
		"a wrong character": {changed(10), nil},
		"a wrong checksum":  {changed(len(raw) - 1), nil},
		"broken":            {raw[:20] + "\n" + raw[20:], nil},
		"too short":         {"ak_short", nil},
	} {
		t.Run(name, func(t *testing.T) {
			scanText(t, s, strings.NewReader(test.text), test.want...)
			scanText(t, s, iotest.OneByteReader(strings.NewReader(test.text)), test.want...)
		})
	}
	bare := newScanner([]string{""})
	plain := newRaw(t, "", 40)
	scanText(t, bare, strings.NewReader("("+plain+") "+raw+" x"+plain+" "+plain+"x"), plain, raw)
	var utf []byte
	for _, c := range utf16.Encode([]rune("\ufeffkey " + raw + "\r\n" + raw)) {
		utf = append(utf, byte(c), byte(c>>8))
	}
	scanText(t, s, bytes.NewReader(utf), raw, raw)
	if err := s.scan(textReader(iotest.ErrReader(os.ErrPermission)), nil); !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
	if got := s.mask("/tmp/" + raw + "/x" + live + ".txt"); got != "/tmp/ak_…/xak_….txt" {
		t.Error(got)
	}
}

// TestScanner_windows: a key is found at any place around the end of a window, with its line
// and column, and a long line is read in bounded memory.
func TestScanner_windows(t *testing.T) {
	s := newScanner([]string{"ak_"})
	raw := newRaw(t, "ak_", 64)
	for _, at := range []int{0, 1, scanWindow - 600, scanWindow - 514, scanWindow - 513, scanWindow - 512, scanWindow - 67, scanWindow - 66, scanWindow - 1, scanWindow, 2*scanWindow - 700 + rand.IntN(700)} {
		text := strings.Repeat("x y", at/3) + strings.Repeat(".", at%3) + raw + "\n  " + raw
		if got, want := scanText(t, s, strings.NewReader(text), raw, raw), []place{{1, int64(at) + 1}, {2, 3}}; !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", at, got, want)
		}
	}
	if n := testing.AllocsPerRun(1, func() {
		scanText(t, s, io.MultiReader(io.LimitReader(endless("ak_a"), 2<<20), strings.NewReader(" "+raw)), raw)
	}); n > 50 {
		t.Errorf("%v allocations for one long line", n)
	}
}

// endless repeats itself.
type endless string

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e[i%len(e)]
	}
	return len(p), nil
}

func FuzzScanner(f *testing.F) {
	f.Add([]byte("ak_0123456789"), 3, "ak_")
	f.Fuzz(func(t *testing.T, text []byte, at int, prefix string) {
		if prefix == "" || !key.ValidPrefix(prefix) || at < 0 || at > len(text) {
			t.Skip()
		}
		s, raw, found := newScanner([]string{prefix}), newRaw(t, prefix, 64), false
		text = slices.Concat(text[:at], []byte(" "+raw+" "), text[at:])
		if err := s.scan(bytes.NewReader(text), func(got string, _ int, _ place) error {
			found = found || got == raw
			if !key.ChecksumFits(got) {
				t.Errorf("%q has no checksum", got)
			}
			return nil
		}); err != nil || !found {
			t.Errorf("found %v, %v", found, err)
		}
	})
}

// TestRules: each rule finds the keys of its configuration and no near miss.
func TestRules(t *testing.T) {
	length := func(n int64) *int64 { return &n }
	configs := admin.ConfigList{Configs: []admin.Config{
		{ID: "default", Prefix: "ak_", Length: length(64), Checksum: true},
		{ID: "a.b-c_D", Prefix: "-LIVE-", Length: length(33)},
		{ID: "bare", Length: length(64)},
		{ID: "guest", Prefix: "g_"},
		{ID: "same", Prefix: "ak_", Length: length(64)},
	}}
	all, bare := patterns(configs, nil)
	if len(all) != 3 || !slices.Equal(bare, []string{"bare"}) {
		t.Fatalf("%v, %v", all, bare)
	}
	for scanner, extract := range map[string]*regexp.Regexp{
		"gitleaks":   regexp.MustCompile(`(?m)^regex = '''(.*)'''$`),
		"trufflehog": regexp.MustCompile(`(?m)^      key: '(.*)'$`),
		"github":     regexp.MustCompile(`(?m)^Secret format: (.*)\nBefore secret: (.*)\nAfter secret:  (.*)$`),
	} {
		t.Run(scanner, func(t *testing.T) {
			text := rulesOf(scanner, all)
			rules := extract.FindAllStringSubmatch(text, -1)
			if len(rules) != len(all) {
				t.Fatalf("%d rules in\n%s", len(rules), text)
			}
			for i, prefix := range []string{"ak_", "-LIVE-", "g_"} {
				n := []int{64, 33, 64}[i]
				rule := rules[i][1]
				if scanner == "github" {
					rule = fmt.Sprintf("(?:%s)(%s)(?:%s)", rules[i][2], rules[i][1], rules[i][3])
				} else if !strings.Contains(text, `"`+map[string]string{"gitleaks": strings.ToLower(prefix), "trufflehog": prefix}[scanner]+`"`) {
					t.Errorf("no keyword for %s", prefix)
				}
				re := regexp.MustCompile(rule)
				for range 100 {
					raw := newRaw(t, prefix, n)
					for _, text := range []string{raw, "k=" + raw + "\n", `"` + raw + `"`, "K_" + raw + ","} {
						if m := re.FindStringSubmatch(text); m == nil || m[1] != raw {
							t.Fatalf("%s does not find a key of %s in %d bytes", rule, prefix, len(text))
						}
					}
					if two := raw + "," + raw; scanner != "github" && len(re.FindAllString(two, -1)) != 2 {
						t.Fatalf("%s does not find both keys", rule)
					}
					misses := []string{raw[1:], "x" + raw, strings.ToUpper(prefix[:1]) + "x" + raw[2:], raw[:len(prefix)+10], raw[:len(prefix)+12] + " " + raw[len(prefix)+12:]}
					if prefix != "g_" {
						misses = append(misses, raw[:len(raw)-1], raw+"x", raw[:len(raw)-1]+"-")
					} else {
						misses = misses[:4]
					}
					for i, miss := range misses {
						if re.MatchString(miss) {
							t.Fatalf("%s finds near miss %d of %s", rule, i, prefix)
						}
					}
				}
			}
		})
	}
	if all, _ := patterns(configs, []string{"ci_"}); len(all) != 6 || all[3].regex != "ci_[0-9A-Za-z]{64}" {
		t.Errorf("%v", all)
	}
}

// TestScanning_walk: what cannot be read is told and does not end a scan, and nothing outside
// of the folder is read.
func TestScanning_walk(t *testing.T) {
	raw, folder, outside := newRaw(t, "ak_", 64), t.TempDir(), t.TempDir()
	write := func(dir, name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	write(folder, ".hidden/a", "\n"+raw, 0o600)
	write(folder, raw+".txt", raw, 0o600)
	write(outside, "b", raw, 0o600)
	for _, link := range []string{filepath.Join(folder, "file"), filepath.Join(folder, "self")} {
		target := map[string]string{"file": filepath.Join(outside, "b"), "self": folder}[filepath.Base(link)]
		if err := os.Symlink(target, link); err != nil {
			t.Skip(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(folder, "folder")); err != nil {
		t.Skip(err)
	}
	p := newVerifier(t, admin.Verification{Error: &admin.VerifyError{Code: "INVALID_API_KEY"}})
	stdout, stderr, err := p.run("", "scan", folder, "-o", "csv", "--columns", "place,start,status,live")
	want := "place,start,status,live\n" + filepath.Join(folder, ".hidden/a") + ":2,ak_,unknown,no\n" + filepath.Join(folder, "ak_….txt") + ":1,ak_,unknown,no\n"
	if err != nil || stdout != want || stderr != "" {
		t.Errorf("%q, %q, %v", stdout, stderr, err)
	}
	if n := p.calls.Load(); n != 2 { // configs, and the key once
		t.Errorf("%d calls", n)
	}
	stdout, _, _ = p.run("x "+raw, "scan", "-", "--json")
	if want := `{"findings":[{"file":"-","line":1,"column":3,"start":"ak_","keyId":null,"userId":null,"state":"unknown","live":false}]}` + "\n"; stdout != want {
		t.Errorf("%s", stdout)
	}
	if _, stderr, err := p.run("", "scan", filepath.Join(folder, "nosuch")); err == nil || !strings.Contains(stderr, "cannot read") {
		t.Errorf("%v, %s", err, stderr)
	}
	for _, args := range [][]string{{"scan"}, {"scan", "a", "b"}, {"scan", "--rules", "github", "a"}, {"scan", "--rules", "nosuch"}, {"scan", "--prefix", "é", "a"}, {"scan", "--prefix", "", "a"}, {"scan", raw}} {
		if out, stderr, err := p.run("", args...); err == nil || err.Error() != "wrong usage" || strings.Contains(out+stderr, raw[3:13]) {
			t.Errorf("%q: %v, %s", args[1:], err, stderr)
		}
	}
	if os.Geteuid() != 0 {
		write(folder, "secret", raw, 0)
		_, stderr, err := p.run("", "scan", folder)
		if err == nil || !strings.Contains(stderr, "Warning: cannot read "+filepath.Join(folder, "secret")+": permission denied\n") || !strings.Contains(stderr, "1 path could not be read") {
			t.Errorf("%v, %s", err, stderr)
		}
	}
}

// TestVerdict: live is what a gate admits, now or when a limit has room again.
func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		code, state string
		want        verdict
	}{
		{"", "active", verdict{"active", true}},
		{"KEY_DISABLED", "disabled", verdict{"disabled", false}},
		{"KEY_EXPIRED", "expired", verdict{"expired", false}},
		{"RATE_LIMITED", "active", verdict{"active", true}},
		{"USAGE_EXCEEDED", "exhausted", verdict{"exhausted", true}},
		{"INVALID_API_KEY", "active", verdict{"rejected", false}},
		{"INVALID_API_KEY", "", verdict{"unknown", false}},
	} {
		v := admin.Verification{Valid: test.code == ""}
		if !v.Valid {
			v.Error = &admin.VerifyError{Code: test.code}
		}
		if test.state != "" {
			v.Key = &admin.Key{State: test.state}
		}
		if got := verdictOf(v); got != test.want {
			t.Errorf("%s of a key that is %q: %v", test.code, test.state, got)
		}
	}
}

// newVerifier returns an admin endpoint with one configuration that answers each
// verification in the same way.
func newVerifier(t *testing.T, v admin.Verification) *peer {
	p := newPeer(t)
	length := int64(64)
	p.fails = func(w http.ResponseWriter, _ int) bool {
		json.NewEncoder(w).Encode(struct { //nolint:errcheck // the client will say so
			admin.Verification
			admin.ConfigList
		}{v, admin.ConfigList{Configs: []admin.Config{{ID: "default", Prefix: "ak_", Length: &length, Checksum: true}}}})
		return true
	}
	return p
}
