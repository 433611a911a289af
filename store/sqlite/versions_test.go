package sqlite

import (
	"fmt"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
)

// TestR1_sqlite: this build has the versions of SQLite and its libc that it needs, and go.mod
// asks for them. A build with others says so.
func TestR1_sqlite(t *testing.T) {
	if w := BuildWarning(); w != "" {
		t.Error(w)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", sqliteModule, libcModule).Output()
	if err != nil {
		t.Skip("no go command: ", err)
	}
	want := fmt.Sprintf("%s %s\n%s %s\n", sqliteModule, sqliteVersion, libcModule, libcVersion)
	if string(out) != want {
		t.Errorf("go.mod has\n%swant\n%s", out, want)
	}
	out, err = exec.Command("go", "mod", "graph").Output()
	must(t, err)
	if edge := fmt.Sprintf("%s@%s %s@%s\n", sqliteModule, sqliteVersion, libcModule, libcVersion); !strings.Contains(string(out), edge) {
		t.Errorf("%s does not ask for %s %s", sqliteModule, libcModule, libcVersion)
	}
}

// TestR1_sqliteWarnings: a build with other versions says so, also with a replaced module.
func TestR1_sqliteWarnings(t *testing.T) {
	module := func(path, version string) *debug.Module { return &debug.Module{Path: path, Version: version} }
	engine, libc := module(sqliteModule, sqliteVersion), module(libcModule, libcVersion)
	replaced := module(libcModule, libcVersion)
	replaced.Replace = module("example.com/libc", "v1.0.0")
	for name, c := range map[string]struct{ got, want string }{
		"this version":    {versionWarning(leastVersion, "3.51.3"), ""},
		"an older one":    {versionWarning(leastVersion-1, "3.51.2"), "SQLite 3.51.2"},
		"as tested":       {libcWarning([]*debug.Module{engine, libc}), ""},
		"unknown":         {libcWarning([]*debug.Module{engine}), ""},
		"another engine":  {libcWarning([]*debug.Module{module(sqliteModule, "v1.60.2"), libc}), "v1.60.2"},
		"another libc":    {libcWarning([]*debug.Module{engine, module(libcModule, "v1.78.0")}), "v1.78.0"},
		"a libc in place": {libcWarning([]*debug.Module{engine, replaced}), "v1.0.0"},
	} {
		if (c.got == "") != (c.want == "") || !strings.Contains(c.got, c.want) {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
}
