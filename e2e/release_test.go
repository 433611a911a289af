package e2e

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const releaseTag = "v0.0.1"

// release is a run of .ci/release.
type release struct {
	dir   string            // where the files are
	files map[string][]byte // by name
}

// makeRelease runs .ci/release in a repository.
func makeRelease(t *testing.T, repository, dir string, env ...string) release {
	t.Helper()
	cmd := exec.Command(filepath.Join(repository, ".ci/release"), releaseTag, dir, "linux/"+runtime.GOARCH)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf(".ci/release: %v\n%s", err, out)
	}
	r := release{dir, map[string][]byte{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if r.files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// taggedCopy makes a repository of the files of this one as they are, with a tag. Two copies
// have the same commit.
func taggedCopy(t *testing.T, dir string) {
	t.Helper()
	list, err := exec.Command("git", "-C", source(t), "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		lacking(t, fmt.Errorf("this is no clone of the repository: %w", err))
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		info, err := os.Lstat(source(t, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(source(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message", "release"}, {"tag", releaseTag}} {
		cmd := exec.Command("git", append([]string{"-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
			"GIT_AUTHOR_DATE=2026-11-27T00:00:00Z", "GIT_COMMITTER_DATE=2026-11-27T00:00:00Z")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

// TestR6_release makes a release twice, in two places: the bytes are the same, the checksums
// are those of the files, the SBOM holds the modules of the binary, the signature is that of
// the key, and no path is in the binary. The long form compiles everything again for the second.
func TestR6_release(t *testing.T) {
	full(t)
	keygen := tool(t, "ssh-keygen")
	tool(t, "git")
	tool(t, "sha256sum")
	here, there := filepath.Join(t.TempDir(), "here"), filepath.Join(t.TempDir(), "a longer path", "there")
	taggedCopy(t, here)
	taggedCopy(t, there)
	signingKey := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", signingKey).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	places := []string{t.TempDir(), t.TempDir()} // where the tag is cloned to
	first := makeRelease(t, here, filepath.Join(here, "out"), "SIGNING_KEY=", "TMPDIR="+places[0])
	env := []string{"SIGNING_KEY=" + signingKey, "TMPDIR=" + places[1]}
	if times(0, 1) == 1 {
		env = append(env, "GOCACHE="+t.TempDir())
	}
	second := makeRelease(t, there, t.TempDir(), env...)

	signature := second.files["SHA256SUMS.sig"]
	delete(second.files, "SHA256SUMS.sig")
	name := "caddy-apikey_" + releaseTag + "_linux_" + runtime.GOARCH
	if names := slices.Sorted(maps.Keys(first.files)); !slices.Equal(names, []string{"SHA256SUMS", name, name + ".cdx.json"}) {
		t.Fatalf("files %q", names)
	}
	for name, content := range first.files {
		if !bytes.Equal(content, second.files[name]) {
			t.Errorf("%s: the bytes differ", name)
		}
	}
	// What the cache of go has compiled in one place is used in the other, with the paths in it.
	for _, place := range append(places, source(t), modules(t)) {
		if bytes.Contains(first.files[name], []byte(place)) {
			t.Errorf("the binary contains the path %s", place)
		}
	}
	checkSums(t, first)
	checkBinary(t, filepath.Join(first.dir, name))
	checkSBOM(t, first, name)
	checkSignature(t, second, signature, signingKey+".pub")

	for _, args := range [][]string{{releaseTag, first.dir}, {"v9.9.9", t.TempDir()}, {releaseTag}} {
		if out, err := exec.Command(filepath.Join(here, ".ci/release"), args...).CombinedOutput(); err == nil || len(out) == 0 {
			t.Errorf(".ci/release %q: %v\n%s", args, err, out)
		}
	}
}

// modules is where the source of all dependencies is.
func modules(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// checkSums checks that SHA256SUMS has a line for each file but itself, in the form that
// "sha256sum --check" reads.
func checkSums(t *testing.T, r release) {
	t.Helper()
	var want string
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		if name != "SHA256SUMS" {
			want += fmt.Sprintf("%x  %s\n", sha256.Sum256(r.files[name]), name)
		}
	}
	if got := string(r.files["SHA256SUMS"]); got != want {
		t.Errorf("SHA256SUMS is\n%s, want\n%s", got, want)
	}
}

// checkBinary checks that a binary is static, knows its version, and comes from the tag.
func checkBinary(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary is not static")
		}
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if info.Main.Version != releaseTag || settings["vcs.modified"] != "false" || settings["vcs.revision"] == "" || settings["-tags"] != "" || settings["CGO_ENABLED"] != "0" {
		t.Errorf("version %s, %v", info.Main.Version, settings)
	}
	if out, err := exec.Command(path, "list-modules").CombinedOutput(); err != nil || !strings.Contains(string(out), "http.handlers.apikey\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// checkSBOM compares an SBOM with what "go version -m" says of the binary.
func checkSBOM(t *testing.T, r release, name string) {
	t.Helper()
	info, err := buildinfo.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"std@" + info.GoVersion}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		want = append(want, m.Path+"@"+m.Version)
	}
	type component struct{ Name, Version, PURL string }
	var bom struct {
		BOMFormat  string
		Metadata   struct{ Component component }
		Components []component
	}
	if err := json.Unmarshal(r.files[name+".cdx.json"], &bom); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range bom.Components {
		got = append(got, c.Name+"@"+c.Version)
		if !strings.HasPrefix(c.PURL, "pkg:golang/"+c.Name+"@") {
			t.Errorf("%s@%s has the package URL %s", c.Name, c.Version, c.PURL)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if bom.BOMFormat != "CycloneDX" || bom.Metadata.Component.Name != info.Main.Path || bom.Metadata.Component.Version != releaseTag || !slices.Equal(got, want) {
		t.Errorf("%+v with\n%q, want\n%q", bom.Metadata, got, want)
	}
}

// checkSignature verifies the signature of the checksums, and that
// it fits nothing else.
func checkSignature(t *testing.T, r release, signature []byte, publicKey string) {
	t.Helper()
	public, err := os.ReadFile(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"allowed": append([]byte("maintainer "), public...), "sig": signature} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, sums := range [][]byte{r.files["SHA256SUMS"], append([]byte(" "), r.files["SHA256SUMS"]...)} {
		cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", filepath.Join(dir, "allowed"), "-I", "maintainer", "-n", "caddy-apikey", "-s", filepath.Join(dir, "sig"))
		cmd.Stdin = bytes.NewReader(sums)
		if out, err := cmd.CombinedOutput(); (err == nil) != bytes.Equal(sums, r.files["SHA256SUMS"]) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
