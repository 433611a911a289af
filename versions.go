package apikey

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/Masterminds/semver/v3"
	"go.uber.org/zap"

	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

const (
	pluginModule = "github.com/caddy-apikey/caddy-apikey"
	caddyModule  = "github.com/caddyserver/caddy/v2"

	// leastCaddy is what go.mod asks for. A build that replaces Caddy may have an older one.
	leastCaddy = "v2.11.9"
)

// moduleVersion returns the version of this module in the running binary.
func moduleVersion() string { return versionOf(pluginModule) }

// versionOf returns the version of a module in the running binary.
func versionOf(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path != path {
			continue
		}
		if m.Replace != nil && m.Replace.Version != "" {
			return m.Replace.Version
		}
		return m.Version
	}
	return "unknown"
}

// versionFields are the versions that reports of errors need.
func versionFields() []zap.Field {
	return []zap.Field{
		zap.String("version", moduleVersion()), zap.String("caddy", versionOf(caddyModule)),
		zap.String("sqlite", sqlite.Version), zap.String("go", runtime.Version()),
	}
}

// caddyWarning says that Caddy is too old. It is empty where it is not, or where the build does
// not tell.
func caddyWarning(version string) string {
	have, err := semver.NewVersion(version)
	if err != nil || !have.LessThan(semver.MustParse(leastCaddy)) {
		return ""
	}
	return fmt.Sprintf("this build has Caddy %s, but needs %s or later: build it without replacing %s", version, leastCaddy, caddyModule)
}
