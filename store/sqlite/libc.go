package sqlite

import (
	"fmt"
	"runtime/debug"
)

// The engine and the C library it was translated for. Its authors say that no
// other version of modernc.org/libc may be linked; but Go takes the highest that
// any plugin in the build asks for.
const (
	sqliteModule, sqliteVersion = "modernc.org/sqlite", "v1.60.1"
	libcModule, libcVersion     = "modernc.org/libc", "v1.77.1"
)

// LibcWarning says what is wrong with this build's modernc.org/libc, and is
// empty where nothing is or where the build does not tell.
func LibcWarning() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return libcWarning(info.Deps)
}

func libcWarning(deps []*debug.Module) string {
	versions := map[string]string{}
	for _, m := range deps {
		path := m.Path
		if m.Replace != nil {
			m = m.Replace
		}
		versions[path] = m.Version
	}
	engine, libc := versions[sqliteModule], versions[libcModule]
	switch {
	case engine == "" || libc == "":
		return ""
	case engine != sqliteVersion:
		return fmt.Sprintf("this build links %s %s, but was tested with %s: build it with that version, or test it yourself", sqliteModule, engine, sqliteVersion)
	case libc != libcVersion:
		return fmt.Sprintf("this build links %s %s, but %s %s works with %s only: another plugin raised it, and the database may be damaged", libcModule, libc, sqliteModule, engine, libcVersion)
	}
	return ""
}
