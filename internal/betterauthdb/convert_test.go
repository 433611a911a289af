package betterauthdb

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
)

const raw = "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGhIjKl"

func hashes(raw string) (theirs, ours string) {
	sum := sha256.Sum256([]byte(raw))
	return base64.RawURLEncoding.EncodeToString(sum[:]), hex.EncodeToString(sum[:])
}

// converted converts a plain row after changes.
func converted(o Options, changes row) Key {
	theirs, _ := hashes(raw)
	r := row{
		"id": "i", "configId": "default", "referenceId": "u", "key": theirs, "enabled": int64(1), "rateLimitEnabled": int64(1),
		"createdAt": "2026-11-21T19:09:19.598Z", "updatedAt": "2026-11-21T19:09:19.598Z",
	}
	for field, value := range changes {
		r[field] = value
	}
	return o.convert(r)
}

// TestFields: what each field becomes, and what is told of it. "lost" and
// "refused" stand in front of what does not come over.
func TestFields(t *testing.T) {
	_, hash := hashes(raw)
	plain := `"id":"i","configId":"default","userId":"u","hash":"` + hash + `","enabled":true,"createdAt":"2026-11-21T19:09:19.598Z","updatedAt":"2026-11-21T19:09:19.598Z","rateLimitEnabled":true`
	for name, test := range map[string]struct {
		row  row
		want string // fields that differ from plain
		told string
	}{
		"plain":                         {nil, ``, ""},
		"empty texts are none":          {row{"name": "", "prefix": "", "start": "", "metadata": "", "permissions": "", "configId": ""}, ``, ""},
		"name, prefix, start":           {row{"name": "my <key>", "prefix": "a_", "start": "a_AbCd"}, `"name":"my <key>","prefix":"a_","start":"a_AbCd"`, ""},
		"long start":                    {row{"start": raw[:20]}, `"start":"AbCdEfGhIjKl"`, ""},
		"long prefix":                   {row{"prefix": strings.Repeat("p", 33)}, ``, "lost prefix"},
		"prefix that no gate takes":     {row{"prefix": "a:b"}, ``, "refused prefix"},
		"serial id":                     {row{"id": int64(7)}, `"id":"7"`, ""},
		"disabled":                      {row{"enabled": int64(0)}, `"enabled":false`, ""},
		"enabled is not told":           {row{"enabled": nil}, ``, ""},
		"disabled, as text":             {row{"enabled": "FALSE"}, `"enabled":false`, ""},
		"enabled, as text":              {row{"enabled": []byte("true")}, ``, ""},
		"enabled, in a word":            {row{"enabled": "no"}, `"enabled":false`, "refused enabled"},
		"enabled, by half":              {row{"enabled": 0.5}, `"enabled":false`, "refused enabled"},
		"enabled, twice":                {row{"enabled": int64(2)}, `"enabled":false`, "refused enabled"},
		"limited, in a word":            {row{"rateLimitEnabled": "yes"}, `"rateLimitEnabled":false`, "refused rateLimitEnabled"},
		"credits, as text":              {row{"remaining": "5"}, `"remaining":5`, ""},
		"credits, as bytes":             {row{"remaining": []byte("5")}, `"remaining":5`, ""},
		"credits, in a word":            {row{"remaining": "five"}, ``, "refused remaining"},
		"credits, null as text":         {row{"remaining": "null"}, ``, "refused remaining"},
		"credits, empty text":           {row{"remaining": ""}, ``, "refused remaining"},
		"credits, not a number":         {row{"remaining": "NaN"}, ``, "refused remaining"},
		"limit, as text":                {row{"rateLimitMax": "5", "rateLimitTimeWindow": "1000.0"}, `"rateLimitMax":5,"rateLimitTimeWindow":1000`, ""},
		"limit, in a word":              {row{"rateLimitMax": "many", "rateLimitTimeWindow": int64(1000)}, ``, "rateLimitMax refused rateLimitMax"},
		"window, in a word":             {row{"rateLimitMax": int64(5), "rateLimitTimeWindow": "1d"}, ``, "rateLimitMax refused rateLimitTimeWindow"},
		"refill, in a word":             {row{"remaining": int64(5), "refillAmount": "x", "refillInterval": int64(1000)}, `"remaining":5`, "lost refillAmount refillAmount"},
		"no limit":                      {row{"rateLimitEnabled": int64(0), "rateLimitMax": int64(5), "rateLimitTimeWindow": int64(1000)}, `"rateLimitEnabled":false,"rateLimitMax":5,"rateLimitTimeWindow":1000`, ""},
		"limit with a count":            {row{"rateLimitMax": int64(5), "rateLimitTimeWindow": int64(1000), "requestCount": int64(3), "lastRequest": "2026-11-21T19:09:19.5Z"}, `"rateLimitMax":5,"rateLimitTimeWindow":1000,"requestCount":3,"lastRequest":"2026-11-21T19:09:19.500Z"`, ""},
		"half a limit":                  {row{"rateLimitMax": int64(5)}, ``, "rateLimitMax"},
		"limit with a fraction":         {row{"rateLimitMax": 2.5, "rateLimitTimeWindow": int64(1000)}, `"rateLimitMax":3,"rateLimitTimeWindow":1000`, "rateLimitMax"},
		"limit of 0":                    {row{"rateLimitMax": int64(0), "rateLimitTimeWindow": int64(1000)}, `"rateLimitMax":1,"rateLimitTimeWindow":1000`, "rateLimitMax"},
		"negative window":               {row{"rateLimitMax": int64(5), "rateLimitTimeWindow": int64(-1000)}, ``, "rateLimitTimeWindow"},
		"credits":                       {row{"remaining": int64(5)}, `"remaining":5`, ""},
		"credits used up":               {row{"remaining": int64(0)}, `"remaining":0`, "remaining"},
		"credits used up, with refill":  {row{"remaining": int64(0), "refillAmount": int64(9), "refillInterval": int64(1000), "lastRefillAt": int64(1795000000)}, `"remaining":0,"refillAmount":9,"refillInterval":1000,"lastRefillAt":"2026-11-18T11:06:40.000Z"`, ""},
		"negative credits":              {row{"remaining": int64(-5)}, `"remaining":0`, "remaining remaining"},
		"too many credits":              {row{"remaining": int64(1) << 60}, `"remaining":9007199254740991`, "remaining"},
		"endless credits":               {row{"remaining": 1e300}, `"remaining":9007199254740991`, "remaining"},
		"refill of 0":                   {row{"remaining": int64(5), "refillAmount": int64(0), "refillInterval": int64(1000)}, `"remaining":5`, "refillAmount"},
		"refill without interval":       {row{"remaining": int64(5), "refillAmount": int64(3)}, `"remaining":5`, "refillAmount"},
		"metadata":                      {row{"metadata": `{"a":"<b>"}`}, `"metadata":{"a":"<b>"}`, ""},
		"metadata null":                 {row{"metadata": `null`}, ``, ""},
		"metadata as a string":          {row{"metadata": `"{\"a\":1.50}"`}, `"metadata":{"a":1.50}`, ""},
		"metadata null as a string":     {row{"metadata": `"null"`}, ``, ""},
		"metadata array":                {row{"metadata": `[1]`}, ``, "lost metadata"},
		"metadata number":               {row{"metadata": int64(5)}, ``, "lost metadata"},
		"metadata no JSON":              {row{"metadata": `{a}`}, ``, "lost metadata"},
		"metadata too long":             {row{"metadata": `{"a":"` + strings.Repeat("x", 16<<10) + `"}`}, ``, "lost metadata"},
		"permissions":                   {row{"permissions": `{"files":["read","write","read"],"none":[]}`}, `"permissions":{"files":["read","write"]}`, ""},
		"permissions as a string":       {row{"permissions": `"{\"files\":[\"read\"]}"`}, `"permissions":{"files":["read"]}`, ""},
		"permissions null":              {row{"permissions": `null`}, ``, ""},
		"no permissions":                {row{"permissions": `{}`}, `"permissions":{}`, ""},
		"an action that is no wildcard": {row{"permissions": `{"files":["*","read"],"*":["*"]}`}, `"permissions":{"files":["read"]}`, "lost permissions"},
		"permissions with blanks":       {row{"permissions": `{"my files":["read"],"a:b":["c"],"":["x"]}`}, `"permissions":{}`, "lost permissions"},
		"permissions of another shape":  {row{"permissions": `["files:read"]`}, ``, "lost permissions"},
		"permissions no JSON":           {row{"permissions": `files`}, ``, "lost permissions"},
		"expires, text":                 {row{"expiresAt": "2027-01-02T03:04:05.678+01:00"}, `"expiresAt":"2027-01-02T02:04:05.678Z"`, ""},
		"expires, milliseconds":         {row{"expiresAt": int64(1795288159598)}, `"expiresAt":"2026-11-21T19:09:19.598Z"`, ""},
		"expires, seconds":              {row{"expiresAt": float64(1795288159)}, `"expiresAt":"2026-11-21T19:09:19.000Z"`, ""},
		"expires, seconds as text":      {row{"expiresAt": "1795288159"}, `"expiresAt":"2026-11-21T19:09:19.000Z"`, ""},
		"expires, without zone":         {row{"expiresAt": "2027-01-02 03:04:05"}, `"expiresAt":"2027-01-02T03:04:05.000Z"`, ""},
		"expires, no time":              {row{"expiresAt": "soon"}, ``, "refused expiresAt"},
		"expires, too far":              {row{"expiresAt": "+010000-01-01T00:00:00Z"}, ``, "refused expiresAt"},
		"expires, beyond all times":     {row{"expiresAt": 1e298}, ``, "refused expiresAt"},
		"last use, no time":             {row{"lastRequest": "now"}, ``, "lost lastRequest"},
		"no key":                        {row{"key": ""}, `"hash":""`, "refused key"},
	} {
		t.Run(name, func(t *testing.T) {
			k := converted(Options{}, test.row)
			want := map[string]any{}
			for _, text := range []string{plain, test.want} {
				if err := json.Unmarshal([]byte("{"+text+"}"), &want); err != nil {
					t.Fatal(err)
				}
			}
			if got := asMap(t, k); !same(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			if got := told(k); got != test.told {
				t.Errorf("told %q, want %q", got, test.told)
			}
		})
	}
}

func told(k Key) string {
	var all []string
	for _, n := range k.Notes {
		word := n.Field
		if n.Lost {
			word = "lost " + word
		}
		all = append(all, word)
	}
	if k.Refused != nil {
		all = append(all, "refused "+k.Refused.Field)
	}
	return strings.Join(all, " ")
}

func asMap(t *testing.T, k Key) (m map[string]any) {
	t.Helper()
	b, err := json.Marshal(k.Record)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func same(a, b map[string]any) bool {
	x, _ := json.Marshal(a) // sorted
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// TestPlainKeys: keys that are stored as they are (disableKeyHashing) are hashed.
func TestPlainKeys(t *testing.T) {
	made, err := key.Random{}.Generate("ak_", 64, true)
	if err != nil {
		t.Fatal(err)
	}
	looksHashed := raw[:42] + "A" // 43 characters of base64url
	for name, test := range map[string]struct {
		options Options
		row     row
		raw     string
	}{
		"of 64 characters":           {Options{}, row{"key": raw}, raw},
		"with our checksum":          {Options{}, row{"key": made}, made},
		"that begins with its start": {Options{}, row{"key": looksHashed, "start": looksHashed[:6]}, looksHashed},
		"that looks like a hash":     {Options{PlainKeys: true}, row{"key": looksHashed}, looksHashed},
	} {
		t.Run(name, func(t *testing.T) {
			k := converted(test.options, test.row)
			_, want := hashes(test.raw)
			if k.Refused != nil || k.Record.Hash != want || *k.Record.Start != test.raw[:12] {
				t.Errorf("hash %s, want %s; refused %v", k.Record.Hash, want, k.Refused)
			}
			if *k.Record.Checksummed != key.ChecksumFits(test.raw) {
				t.Errorf("checksummed %v", *k.Record.Checksummed)
			}
			if b, _ := json.Marshal(k); strings.Contains(string(b), test.raw[:13]) {
				t.Errorf("the raw key goes on: %s", b)
			}
		})
	}
	if k := converted(Options{}, row{"key": raw + "!"}); k.Refused == nil || k.Record.Hash != "" {
		t.Errorf("%+v", k)
	}
}

func TestConfigs(t *testing.T) {
	o := Options{Configs: map[string]string{"public": "pub", "default": "main"}}
	for theirs, ours := range map[any]string{"public": "pub", "secret": "secret", "default": "main", nil: "main"} {
		if got := *converted(o, row{"configId": theirs}).Record.ConfigID; got != ours {
			t.Errorf("%v became %s, want %s", theirs, got, ours)
		}
	}
}

// TestQ26_Import: the keys of configurations that reference organizations belong to
// organizations, of whatever name the configuration is here.
func TestQ26_Import(t *testing.T) {
	o := Options{Configs: map[string]string{"team": "orgs"}, Organizations: []string{"team"}}
	for config, owner := range map[any]string{"team": "org:acme", "orgs": "acme", "default": "acme", nil: "acme"} {
		k := converted(o, row{"referenceId": "acme", "configId": config})
		if k.Record.UserID != owner {
			t.Errorf("%v: the owner is %q, want %q", config, k.Record.UserID, owner)
		}
	}
}
