package apikey

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// TestQ50_optionPlaces compares the list of options with the parsers: the cases of
// their switches.
func TestQ50_optionPlaces(t *testing.T) {
	blocks := map[string][]place{
		"App.UnmarshalCaddyfile": {inApp}, "App.unmarshalConfig": {inConfig}, "KeyRules.unmarshalOption": {inApp, inConfig},
		"KeyRules.unmarshalExpiration": {inExpiration}, "Plans.unmarshalTier": {inTier},
		"App.unmarshalWebhook": {inWebhook}, "Notices.unmarshalOption": {inWebhook},
		"Gate.UnmarshalCaddyfile": {inGate}, "CredentialSources.unmarshalOption": {inGate, inAPI},
		"SelfService.UnmarshalCaddyfile": {inAPI}, "SelfService.unmarshalOrganization": {inOrganization},
	}
	parsed := map[string][]place{}
	files, err := filepath.Glob("*_caddyfile.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			receiver := fn.Recv.List[0].Type
			if pointer, ok := receiver.(*ast.StarExpr); ok {
				receiver = pointer.X
			}
			method := receiver.(*ast.Ident).Name + "." + fn.Name.Name
			for _, option := range casesOfOption(fn) {
				if blocks[method] == nil {
					t.Errorf("%s reads options, but this test does not know of which block", method)
				}
				parsed[option] = append(parsed[option], blocks[method]...)
			}
		}
	}
	listed := map[string][]place{}
	for _, o := range optionPlaces {
		if listed[o.name] != nil {
			t.Errorf("%s is listed more than once", o.name)
		}
		listed[o.name] = o.places
	}
	for option, places := range parsed {
		slices.Sort(places)
		want := slices.Clone(listed[option])
		slices.Sort(want)
		if !slices.Equal(places, want) {
			t.Errorf("option %s: optionPlaces says %q, the parsers read it in %q", option, want, places)
		}
	}
	for option := range listed {
		if parsed[option] == nil {
			t.Errorf("option %s is in optionPlaces, but no parser reads it", option)
		}
	}
}

// casesOfOption returns the words in the cases of "switch d.Val()" that a method
// has directly in its body or in a loop over a block.
func casesOfOption(fn *ast.FuncDecl) (words []string) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		sw, ok := n.(*ast.SwitchStmt)
		if !ok {
			return true
		}
		call, ok := sw.Tag.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != "Val" {
			return true
		}
		for _, c := range sw.Body.List {
			for _, expr := range c.(*ast.CaseClause).List {
				if lit, ok := expr.(*ast.BasicLit); ok {
					word, _ := strconv.Unquote(lit.Value)
					words = append(words, word)
				}
			}
		}
		return false
	})
	return words
}

// TestQ50_messages checks what is said about options in the wrong block, misspelt
// ones, configurations that do not exist, and blocks that were not closed.
func TestQ50_messages(t *testing.T) {
	for _, tt := range []struct{ name, source, want string }{
		{
			"of the global option, in a gate", ":80 {\n\tapikey {\n\t\trate_limit 1/1m\n\t}\n}",
			`unknown option "rate_limit": it belongs in the global option apikey or a config block of the global option apikey, at Caddyfile:3`,
		},
		{"of a gate, in the global option", "{\n\tapikey {\n\t\tcost 1\n\t}\n}", `unknown option "cost": it belongs in the directive apikey, at Caddyfile:3`},
		{"of a gate, in a config block", "{\n\tapikey {\n\t\tconfig a {\n\t\t\toptional\n\t\t}\n\t}\n}", `it belongs in the directive apikey, at Caddyfile:4`},
		{"of the global option, in a config block", "{\n\tapikey {\n\t\tconfig a {\n\t\t\tstore sqlite\n\t\t}\n\t}\n}", `it belongs in the global option apikey, at Caddyfile:4`},
		{"of an expiration block, outside", "{\n\tapikey {\n\t\tmax 1d\n\t}\n}", `it belongs in an expiration block of the global option apikey, at Caddyfile:3`},
		{"of a tier, outside", "{\n\tapikey {\n\t\tlimit 1/1m\n\t}\n}", `it belongs in a tier block of the global option apikey, at Caddyfile:3`},
		{"of a gate, in a tier", "{\n\tapikey {\n\t\ttier a {\n\t\t\trequire read\n\t\t}\n\t}\n}", `it belongs in the directive apikey, at Caddyfile:4`},
		{"of the API, in a gate", ":80 {\n\tapikey {\n\t\tdialect rest\n\t}\n}", `it belongs in the directive apikey_api, at Caddyfile:3`},
		{"of a gate, in the API", ":80 {\n\tapikey_api {\n\t\toptional\n\t}\n}", `it belongs in the directive apikey, at Caddyfile:3`},
		{"of the API, in an organization", ":80 {\n\tapikey_api {\n\t\torganization {a} {\n\t\t\tuser {b}\n\t\t}\n\t}\n}", `it belongs in the directive apikey_api, at Caddyfile:4`},
		{"misspelt, in a gate", ":80 {\n\tapikey {\n\t\toptoinal\n\t}\n}", `unknown option "optoinal": did you mean optional?, at Caddyfile:3`},
		{"misspelt, in the global option", "{\n\tapikey {\n\t\trate-limit 1/1m\n\t}\n}", `did you mean rate_limit?, at Caddyfile:3`},
		{"misspelt, in the API", ":80 {\n\tapikey_api {\n\t\torigin a\n\t\tdialekt rest\n\t}\n}", `unknown option "origin", at Caddyfile:3`},
		{"misspelt, in a tier", "{\n\tapikey {\n\t\ttier a {\n\t\t\tlimits 1/1m\n\t\t}\n\t}\n}", `did you mean limit?, at Caddyfile:4`},
		{"misspelt, in an expiration block", "{\n\tapikey {\n\t\texpiration {\n\t\t\tmaximum 1d\n\t\t}\n\t}\n}", `did you mean max?, at Caddyfile:4`},
		{"misspelt and in the wrong block", ":80 {\n\tapikey {\n\t\tdefault_teir a\n\t}\n}", `did you mean default_tier, which belongs in the global option apikey?, at Caddyfile:3`},
		{"in a snippet", "(a) {\n\trate_limit 1/1m\n}\n:80 {\n\tapikey {\n\t\timport a\n\t}\n}", `it belongs in the global option apikey or a config block of the global option apikey, at Caddyfile:2`},
		{"no brace after a gate", ":80 {\n\tapikey {\n\t\trequire read\n\n\treverse_proxy a:1\n}", `this line is in the block of directive apikey. Is a closing brace } missing above it?, at Caddyfile:5`},
		{"no brace after a gate in a route", ":80 {\n\troute {\n\t\tapikey {\n\t\t\toptional\n\t\trespond ok\n\t}\n}", `Is a closing brace } missing above it?, at Caddyfile:5`},
		{"no brace before a site", "{\n\tapikey {\n\t\tstore sqlite\n\nexample.com {\n\tapikey\n}\n}", `this line is in the block of global option apikey. Is a closing brace } missing above it?, at Caddyfile:5`},
		{"no brace after expiration", "{\n\tapikey {\n\t\texpiration {\n\t\t\tmax 1d\n\t\tprefix ak_\n\t}\n}\n:80 {\n\tapikey\n}", `it belongs in the global option apikey or a config block of the global option apikey, at Caddyfile:5`},
		{"a configuration that is not there", ":80 {\n\tapikey {\n\t\toptional\n\t\tconfig default pub\n\t}\n}", `config: there is no configuration "pub": it must be one of "default", at Caddyfile:4`},
		{"a misspelt configuration", "{\n\tapikey {\n\t\tconfig public {\n\t\t}\n\t}\n}\n:80 {\n\troute /a {\n\t\tapikey {\n\t\t\tconfig pubilc\n\t\t}\n\t}\n}", `it must be one of "default", "public". Did you mean "public"?, at Caddyfile:10`},
		{"a configuration of the API", ":80 {\n\tapikey_api {\n\t\tdialect better_auth\n\t\tuser {a}\n\t\torganization {b} {\n\t\t\trole {c}\n\t\t\tconfig pub\n\t\t}\n\t}\n}", `there is no configuration "pub": it must be one of "default", at Caddyfile:7`},
		{"a misspelt tier", "{\n\tapikey {\n\t\tdefault_tier fre\n\t\ttier free {\n\t\t}\n\t}\n}", `default_tier: there is no tier "fre". Did you mean "free"?, at Caddyfile:3`},
		{"a misspelt dialect", ":80 {\n\tapikey_api {\n\t\tdialect better-auth\n\t}\n}", `dialect: must be better_auth or rest: did you mean better_auth?, at Caddyfile:3`},
		{"misspelt rate headers", ":80 {\n\tapikey {\n\t\trate_headers drafts\n\t}\n}", `did you mean draft?, at Caddyfile:3`},
	} {
		t.Run(tt.name, func(t *testing.T) { wantAdaptError(t, tt.source, tt.want) })
	}
}

// TestQ51_messages checks what is said about modules that the build does not have,
// and about names of algorithms.
func TestQ51_messages(t *testing.T) {
	algorithms := near.List(ratelimit.Algorithms())
	for _, tt := range []struct{ name, source, want string }{
		{"store", "{\n\tapikey {\n\t\tstore postgres\n\t}\n}", `store: there is no store "postgres" in this build of Caddy: must be sqlite, at Caddyfile:3`},
		{"misspelt store", "{\n\tapikey {\n\t\tstore sqlite3\n\t}\n}", `must be sqlite: did you mean sqlite?, at Caddyfile:3`},
		{"generator", "{\n\tapikey {\n\t\tgenerator radnom\n\t}\n}", `generator: there is no generator "radnom" in this build of Caddy: must be random: did you mean random?, at Caddyfile:3`},
		{"validator", "{\n\tapikey {\n\t\tvalidate regexp a\n\t}\n}", `validator: there is no validator "regexp" in this build of Caddy: must be match, at Caddyfile:3`},
		{"algorithm", "{\n\tapikey {\n\t\trate_limit 1/1m sliding\n\t}\n}", "rate_limit: the algorithm must be " + algorithms + `: did you mean sliding_window?, at Caddyfile:3`},
		{"algorithm of a config", "{\n\tapikey {\n\t\tconfig a {\n\t\t\trate_limit 1/1m leaky\n\t\t}\n\t}\n}", "rate_limit: the algorithm must be " + algorithms + `, at Caddyfile:4`},
	} {
		t.Run(tt.name, func(t *testing.T) { wantAdaptError(t, tt.source, tt.want) })
	}
	for app, want := range map[string]string{
		`{"store": {"store": "postgres"}}`:                                   `store: there is no store "postgres" in this build of Caddy: must be sqlite`,
		`{"generator": {"generator": "dice"}}`:                               `generator: there is no generator "dice" in this build of Caddy: must be random`,
		`{"validators": [{"validator": "mach", "pattern": "a"}]}`:            `did you mean match?`,
		`{"rate_limit": {"max": 1, "window": "1m", "algorithm": "sliding"}}`: `did you mean sliding_window?`,
	} {
		if err := validate([]byte(`{"apps": {"apikey": ` + app + `}}`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("app %s: error is %v, want %s", app, err, want)
		}
	}
}

func wantAdaptError(t *testing.T, source, want string) {
	t.Helper()
	switch _, _, err := adapt([]byte(source + "\n")); {
	case err == nil || !strings.Contains(err.Error(), want):
		t.Errorf("error is\n%v\nwant\n%s", err, want)
	case len(err.Error()) > 300:
		t.Errorf("an error of %d characters: %v", len(err.Error()), err)
	}
}
