package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// betterAuthOptionsSite has a configuration for each option that may differ between
// configurations, and a mount for each that belongs to one.
const betterAuthOptionsSite = `{
	log default {
		format apikey_redact
	}
	apikey {
		store sqlite {$DIR}/elsewhere.db
		table_prefix my_
		generator random
		config starts {
			start 4
		}
		config unstarted {
			start off
		}
		config long {
			length 100
		}
		config prefixed {
			prefix pre_
		}
		config prefixes {
			prefix_length 2 3
		}
		config names {
			name_length 2 3
		}
		config named {
			require_name
		}
		config bare {
			metadata off
		}
		config mortal {
			expiration {
				default 1h
				min 30m
				max 2h
			}
		}
		config fixed {
			expiration {
				fixed
			}
		}
		config limited {
			rate_limit 5/1h
		}
		config unlimited {
			rate_limit 5/1h
			rate_limiting off
		}
		config quiet {
			session off
		}
		config reading {
			permissions files:read
		}
		config validated {
			validate match ^val_
			prefix val_
		}
		config team
	}
}

{$SITE} {
	handle /placed/* {
		apikey_api {
			dialect better_auth
			base /placed
			headers X-My-Key
		}
	}
	handle /cookie/* {
		apikey_api {
			dialect better_auth
			base /cookie
			from {http.request.cookie.key}
			trusted_origins https://app.example.com
		}
	}
	handle /validated/* {
		apikey_api {
			dialect better_auth
			base /validated
			config validated
		}
	}
	handle /people/* {
		basic_auth {
			olga {$HASH}
		}
		map {http.auth.user.id} {org} {
			olga acme
		}
		map {path} {role} {
			~^/people/chief/ chief
			default reader
		}
		apikey_api /people/chief/* {
			dialect better_auth
			base /people/chief
			user {http.auth.user.id}
			organization {org} {
				role {role}
				config team
				creator_role chief
			}
		}
		apikey_api /people/reader/* {
			dialect better_auth
			base /people/reader
			user {http.auth.user.id}
			organization {org} {
				role {role}
				config team
				allow reader read
			}
		}
	}
	handle /person/* {
		basic_auth {
			olga {$HASH}
		}
		apikey_api {
			dialect better_auth
			base /person
			user {http.auth.user.id}
		}
	}
	apikey_api {
		dialect better_auth
	}
	respond "next handler"
}
`

// optionRig makes calls with a key that may make keys, and as a person.
type optionRig struct {
	*server
	t *testing.T
	k made
}

// call makes a call; a body makes it a POST.
func (o *optionRig) call(path, body string, lines ...string) *reply {
	o.t.Helper()
	m := &message{target: path, fields: fieldsOf(lines), body: body}
	if body != "" {
		m.method = http.MethodPost
		m.fields = append(m.fields, field{"Content-Type", "application/json"})
	}
	return m.plain(o.t, o.URL)
}

// create has a person make a key of a configuration, and returns its fields.
func (o *optionRig) create(configID, rest string) map[string]any {
	o.t.Helper()
	r := o.tryCreate(configID, rest)
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil || r.status != http.StatusOK {
		o.t.Fatalf("%d %s", r.status, r.body)
	}
	return m
}

func (o *optionRig) tryCreate(configID, rest string) *reply {
	o.t.Helper()
	return o.call("/person/api-key/create", `{"configId":"`+configID+`"`+rest+`}`, signedIn("olga"))
}

// wantCode checks an answer; an empty code is success.
func (o *optionRig) wantCode(r *reply, code string) {
	o.t.Helper()
	if r.code != code || (code == "") != (r.status == http.StatusOK) {
		o.t.Errorf("%d %s, want %q", r.status, r.body, code)
	}
}

func (o *optionRig) wantField(m map[string]any, name string, want any) {
	o.t.Helper()
	if m[name] != want {
		o.t.Errorf("%s is %v, want %v", name, m[name], want)
	}
}

// lives returns how long a new key lives.
func (o *optionRig) lives(m map[string]any) time.Duration {
	o.t.Helper()
	made, err1 := time.Parse(time.RFC3339, m["createdAt"].(string))
	ends, err2 := time.Parse(time.RFC3339, m["expiresAt"].(string))
	if err1 != nil || err2 != nil {
		o.t.Fatal(err1, err2)
	}
	return ends.Sub(made)
}

// betterAuthOptions try what an option of the plugin becomes here.
var betterAuthOptions = map[string]func(*optionRig){
	"configId": func(o *optionRig) {
		o.wantField(o.create("starts", ""), "configId", "starts")
		o.wantField(o.create("nowhere", ""), "configId", "default")
		o.wantCode(o.call("/api/auth/api-key/create", `{"configId":"starts"}`, "X-API-Key: "+o.k.Raw), "INSUFFICIENT_PERMISSIONS")
	},
	"apiKeyHeaders": func(o *optionRig) {
		o.wantCode(o.call("/placed/api-key/list", "", "X-My-Key: "+o.k.Raw), "")
		o.wantCode(o.call("/placed/api-key/list", "", "X-API-Key: "+o.k.Raw), "UNAUTHORIZED")
		o.wantCode(o.call("/api/auth/api-key/list", "", "Authorization: Bearer "+o.k.Raw), "")
		o.wantCode(o.call("/api/auth/api-key/list", "", "X-API-Key: "+o.k.Raw, "Authorization: Bearer "+o.k.Raw), "") // the same key twice
	},
	"customAPIKeyGetter": func(o *optionRig) {
		o.wantCode(o.call("/cookie/api-key/list", "", "Cookie: key="+o.k.Raw), "")
		o.wantCode(o.call("/cookie/api-key/list", "", "X-API-Key: "+o.k.Raw), "UNAUTHORIZED")
	},
	"customAPIKeyValidator": func(o *optionRig) {
		k := o.server.create(map[string]any{"configId": "validated", "permissions": []string{"read"}})
		o.wantCode(o.call("/validated/api-key/list", "", "X-API-Key: "+k.Raw), "")
		o.wantCode(o.call("/validated/api-key/list", "", "X-API-Key: "+o.k.Raw), "INVALID_API_KEY")
	},
	"customKeyGenerator": func(o *optionRig) {
		if raw := o.create("default", "")["key"].(string); len(raw) != len("ak_")+64 {
			o.t.Errorf("the key has %d characters", len(raw))
		}
	},
	"startingCharactersConfig.shouldStore": func(o *optionRig) { o.wantField(o.create("unstarted", ""), "start", nil) },
	"startingCharactersConfig.charactersLength": func(o *optionRig) {
		m := o.create("starts", "")
		o.wantField(m, "start", m["key"].(string)[:4])
	},
	"defaultKeyLength": func(o *optionRig) {
		if raw := o.create("long", "")["key"].(string); len(raw) != len("ak_")+100 {
			o.t.Errorf("the key has %d characters", len(raw))
		}
	},
	"defaultPrefix": func(o *optionRig) { o.wantField(o.create("prefixed", ""), "prefix", "pre_") },
	"minimumPrefixLength": func(o *optionRig) {
		o.wantCode(o.tryCreate("prefixes", `,"prefix":"a"`), "INVALID_PREFIX_LENGTH")
		o.wantCode(o.tryCreate("prefixes", `,"prefix":"ab"`), "")
	},
	"maximumPrefixLength": func(o *optionRig) {
		o.wantCode(o.tryCreate("prefixes", `,"prefix":"abcd"`), "INVALID_PREFIX_LENGTH")
		o.wantCode(o.tryCreate("prefixes", `,"prefix":"abc"`), "")
	},
	"minimumNameLength": func(o *optionRig) {
		o.wantCode(o.tryCreate("names", `,"name":"a"`), "INVALID_NAME_LENGTH")
		o.wantCode(o.tryCreate("names", `,"name":"ab"`), "")
	},
	"maximumNameLength": func(o *optionRig) {
		o.wantCode(o.tryCreate("names", `,"name":"abcd"`), "INVALID_NAME_LENGTH")
		o.wantCode(o.tryCreate("names", `,"name":"abc"`), "")
	},
	"requireName": func(o *optionRig) {
		o.wantCode(o.tryCreate("named", ""), "NAME_REQUIRED")
		o.wantCode(o.tryCreate("named", `,"name":""`), "NAME_REQUIRED")
		o.wantCode(o.tryCreate("named", `,"name":"x"`), "")
	},
	"enableMetadata": func(o *optionRig) {
		o.wantCode(o.tryCreate("bare", `,"metadata":{}`), "METADATA_DISABLED")
		o.wantCode(o.tryCreate("default", `,"metadata":{}`), "")
	},
	"keyExpiration.defaultExpiresIn": func(o *optionRig) {
		if d := o.lives(o.create("mortal", "")); d != time.Hour {
			o.t.Errorf("it lives %v", d)
		}
	},
	"keyExpiration.disableCustomExpiresTime": func(o *optionRig) {
		o.wantCode(o.tryCreate("fixed", `,"expiresIn":86400`), "KEY_DISABLED_EXPIRATION")
	},
	"keyExpiration.minExpiresIn": func(o *optionRig) {
		o.wantCode(o.tryCreate("mortal", `,"expiresIn":1799`), "EXPIRES_IN_IS_TOO_SMALL")
		o.wantCode(o.tryCreate("mortal", `,"expiresIn":1800`), "")
	},
	"keyExpiration.maxExpiresIn": func(o *optionRig) {
		o.wantCode(o.tryCreate("mortal", `,"expiresIn":7201`), "EXPIRES_IN_IS_TOO_LARGE")
		o.wantCode(o.tryCreate("mortal", `,"expiresIn":7200`), "")
	},
	"rateLimit.enabled": func(o *optionRig) {
		o.wantField(o.create("limited", ""), "rateLimitEnabled", true)
		o.wantField(o.create("unlimited", ""), "rateLimitEnabled", false)
	},
	"rateLimit.timeWindow":  func(o *optionRig) { o.wantField(o.create("limited", ""), "rateLimitTimeWindow", 3600000.0) },
	"rateLimit.maxRequests": func(o *optionRig) { o.wantField(o.create("limited", ""), "rateLimitMax", 5.0) },
	"enableSessionForAPIKeys": func(o *optionRig) {
		o.wantCode(o.call("/api/auth/get-session", "", "X-API-Key: "+o.k.Raw), "")
	},
	"disableSessionForAPIKeys": func(o *optionRig) {
		k := o.server.create(map[string]any{"configId": "quiet"})
		o.wantCode(o.call("/api/auth/get-session", "", "X-API-Key: "+k.Raw), "INVALID_REFERENCE_ID_FROM_API_KEY")
	},
	"permissions.defaultPermissions": func(o *optionRig) {
		all := o.server.create(map[string]any{"configId": "reading", "permissions": []string{"*:*"}})
		r := o.call("/api/auth/api-key/create", "{}", "X-API-Key: "+all.Raw)
		if !strings.Contains(r.body, `"permissions":{"files":["read"]}`) {
			o.t.Errorf("%d %s", r.status, r.body)
		}
	},
	"storage":       (*optionRig).isStored,
	"customStorage": (*optionRig).isStored,
	"schema":        (*optionRig).isStored,
	"basePath": func(o *optionRig) {
		o.wantCode(o.call("/placed/api-key/list", "", "X-My-Key: "+o.k.Raw), "")
		if r := o.call("/api/auth2/api-key/list", ""); r.body != "next handler" {
			o.t.Errorf("%d %s", r.status, r.body)
		}
	},
	"trustedOrigins": func(o *optionRig) {
		cookie := "Cookie: key=" + o.k.Raw
		o.wantCode(o.call("/cookie/api-key/create", "{}", cookie, "Origin: https://app.example.com"), "")
		o.wantCode(o.call("/cookie/api-key/create", "{}", cookie, "Origin: https://evil.example.com"), "INVALID_ORIGIN")
		o.wantCode(o.call("/cookie/api-key/create", "{}", cookie, "Origin: null"), "MISSING_OR_NULL_ORIGIN")
	},
	"references": func(o *optionRig) {
		r := o.call("/people/chief/api-key/create", `{"configId":"team","organizationId":"acme"}`, signedIn("olga"))
		o.wantCode(r, "")
		if !strings.Contains(r.body, `"referenceId":"acme"`) {
			o.t.Error(r.body)
		}
	},
	"creatorRole": func(o *optionRig) {
		o.wantCode(o.call("/people/chief/api-key/list?organizationId=acme", "", signedIn("olga")), "")
	},
	"roles": func(o *optionRig) {
		o.wantCode(o.call("/people/reader/api-key/list?organizationId=acme", "", signedIn("olga")), "")
		o.wantCode(o.call("/people/reader/api-key/create", `{"configId":"team","organizationId":"acme"}`, signedIn("olga")), "INSUFFICIENT_API_KEY_PERMISSIONS")
	},
}

// isStored looks for the file of the store, and for a table in it.
func (o *optionRig) isStored() {
	o.t.Helper()
	b, err := os.ReadFile(filepath.Join(o.Dir, "elsewhere.db"))
	if err != nil {
		o.t.Fatal(err)
	}
	if wal, err := os.ReadFile(filepath.Join(o.Dir, "elsewhere.db-wal")); err == nil {
		b = append(b, wal...)
	}
	if !strings.Contains(string(b), "CREATE TABLE my_") && !strings.Contains(string(b), `CREATE TABLE "my_`) {
		o.t.Error("no table has the prefix")
	}
}

// TestBetterAuthOptions tries every option that has a home here. One without is a row
// that says so.
func TestBetterAuthOptions(t *testing.T) {
	full(t)
	cells := firstCells(t)
	dir := t.TempDir()
	s := startGate(t, betterAuthOptionsSite, withEnv("HASH="+passwordHash, "DIR="+dir))
	s.Dir = dir
	k := s.create(map[string]any{"permissions": []string{"read", "write"}})
	for _, name := range rowsOf(t, "options") {
		try, home := betterAuthOptions[name]
		switch {
		case strings.HasPrefix(cells[name], "none") && home:
			t.Errorf("%s: the document says that it has no home", name)
		case strings.HasPrefix(cells[name], "none"):
		case !home:
			t.Errorf("%s has no test", name)
		default:
			t.Run(name, func(t *testing.T) { try(&optionRig{s, t, k}) })
		}
	}
}

// TestOrganization_refused tries configurations that could never work.
func TestOrganization_refused(t *testing.T) {
	full(t)
	const whole = "role {role}\nconfig team\nallow member read"
	for name, c := range map[string]struct{ before, placeholder, block, want string }{
		"another dialect":     {"dialect rest\nuser {http.auth.user.id}", "{org}", whole, "only available with dialect better_auth"},
		"no user":             {"dialect better_auth", "{org}", whole, "requires user"},
		"no placeholder":      {"dialect better_auth\nuser {http.auth.user.id}", "acme", whole, "placeholder"},
		"what a client says":  {"dialect better_auth\nuser {http.auth.user.id}", "{http.request.header.X-Org}", whole, "not one that holds what the client sends"},
		"a role from outside": {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {http.request.uri.query.role}\nconfig team", "not one that holds what the client sends"},
		"no role":             {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "config team", "requires role"},
		"no configuration":    {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {role}", "requires config"},
		"an unknown one":      {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {role}\nconfig nowhere", "there is no configuration"},
		"one twice":           {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {role}\nconfig team team", "already specified"},
		"one of elsewhere":    {"dialect better_auth\nuser {http.auth.user.id}\nconfig default", "{org}", whole, "must also be in the config list of the API"},
		"an unknown action":   {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {role}\nconfig team\nallow member destroy", "create, read, update, delete"},
		"no action":           {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {role}\nconfig team\nallow member", "must be a role and one or more actions"},
		"a role twice":        {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {role}\nconfig team\nallow member read\nallow member create", "already specified"},
		"two roles at once":   {"dialect better_auth\nuser {http.auth.user.id}", "{org}", "role {role}\nconfig team\nallow member,admin read", "roles are separated by"},
		"an unknown option":   {"dialect better_auth\nuser {http.auth.user.id}", "{org}", whole + "\nsurprise", "unknown option"},
	} {
		t.Run(name, func(t *testing.T) {
			site := "{\n\tapikey {\n\t\tconfig team\n\t}\n}\n:0 {\n\tapikey_api {\n" + c.before + "\norganization " + c.placeholder + " {\n" + c.block + "\n}\n\t}\n}\n"
			file := filepath.Join(t.TempDir(), "test.caddyfile")
			if err := os.WriteFile(file, []byte(site), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(buildCaddy(t), "validate", "--adapter", "caddyfile", "--config", file)
			cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s\nwant %q", err, out, c.want)
			}
		})
	}
}
