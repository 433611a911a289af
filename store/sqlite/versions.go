package sqlite

import (
	"fmt"
	"runtime/debug"

	sqlite3 "modernc.org/sqlite/lib"
)

// Version is that of SQLite itself.
const Version = sqlite3.SQLITE_VERSION

// leastVersion is 3.51.3. In earlier ones, a write that begins while a checkpoint resets the
// write-ahead log may damage the database.
const leastVersion = 3_051_003

// The engine and the C library it was translated for. Its authors say that no
// other version of modernc.org/libc may be linked; but Go takes the highest that
// any plugin in the build asks for.
const (
	sqliteModule, sqliteVersion = "modernc.org/sqlite", "v1.60.1"
	libcModule, libcVersion     = "modernc.org/libc", "v1.77.1"
)

// BuildWarning says what is wrong with the SQLite and the modernc.org/libc of this build, and
// is empty where nothing is or where the build does not tell.
func BuildWarning() string {
	if warning := versionWarning(sqlite3.SQLITE_VERSION_NUMBER, Version); warning != "" {
		return warning
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return libcWarning(info.Deps)
}

func versionWarning(number int, version string) string {
	if number >= leastVersion {
		return ""
	}
	return fmt.Sprintf("this build has SQLite %s, but needs 3.51.3 or later, because earlier ones may damage the database: build it without replacing %s", version, sqliteModule)
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
