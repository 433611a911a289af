package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
	"github.com/caddy-apikey/caddy-apikey/store/sqlite"
)

func hashText(raw string) string {
	h := key.HashOf(raw)
	return fmt.Sprintf("%x", h[:])
}

// fullRecord has every field.
func fullRecord(id string) string {
	return `{"id":"` + id + `","configId":"default","userId":"imported","name":"n <&> 𝒏","prefix":"p_","start":"p_abcd","hash":"` + hashText(id) + `",
		"secretHash":"` + hashText("secret") + `","previousKeys":[{"hash":"` + hashText("former "+id) + `","start":"p_xyz","until":"2030-01-01T00:00:00.000Z","lastRequest":"2026-01-01T00:00:00.003Z","checksummed":true}],
		"checksummed":true,"enabled":false,"disabledBy":"leak","permissions":{"a":["b","c"]},"metadata":{"x":[1.50,"<"]},"allowedIps":["10.0.0.0/8"],
		"expiresAt":"2030-01-01T00:00:00.001Z","createdAt":"2020-01-01T00:00:00.000Z","updatedAt":"2020-01-01T00:00:00.002Z","rotatedAt":"2020-01-01T00:00:00.003Z",
		"rateLimitEnabled":false,"rateLimitMax":5,"rateLimitTimeWindow":1000,"rateLimitAlgorithm":"token_bucket","lastRequest":"2026-01-01T00:00:00.000Z",
		"remaining":5,"refillAmount":9,"refillInterval":10000000000000,"refillFrom":"2026-01-01T00:00:00.000Z","lastRefillAt":"2026-01-01T00:00:00.000Z","peak":8,"spent":3,"forfeited":2}`
}

// TestA6_import: an import makes what it says, changes nothing else, and a dry run
// changes nothing at all.
func TestA6_import(t *testing.T) {
	a := newAPI(t)
	there, _ := a.make(`{"userId":"u","remaining":5}`)
	a.make(`{"userId":"v"}`)
	before := a.everything()
	for _, body := range []string{
		`{"dryRun":true,"keys":[` + fullRecord("one") + `],"owners":[{"userId":"w"}]}`,
		`{"keys":[{"id":"` + there + `","userId":"mallory","hash":"` + hashText("x") + `"}],"owners":[{"userId":"u","enabled":false}]}`,
		`{"keys":[{"id":"i","userId":"mallory","hash":"x"}],"owners":[{"userId":".."}]}`,
		`{"keys":[` + fullRecord("one") + `],"nosuch":1}`,
		`{"keys":[` + fullRecord("one") + `],"dryRun":null,"dryRun":false}`,
	} {
		a.send("POST", "/apikey/keys/import", body)
		sameAs(t, a.everything(), before)
	}
	got := a.send("POST", "/apikey/keys/import", `{"keys":[`+fullRecord("one")+`],"owners":[{"userId":"w"}]}`).want(t, 200)
	if fmt.Sprint(got["created"]) != "2" {
		t.Errorf("%v", got)
	}
	after := a.everything()
	one, imported, w := after["key one"], after["owner imported"], after["owner w"]
	for _, name := range []string{"key one", "owner imported", "owner w"} {
		delete(after, name)
	}
	sameAs(t, after, before)
	if one["name"] != "n <&> 𝒏" || one["enabled"] != false || imported["enabled"] != true || fmt.Sprint(w["keyCount"]) != "0" {
		t.Errorf("%v\n%v\n%v", one, imported, w)
	}
}

// TestImport_allowedEverywhere: an empty list of networks is none, as in an export of
// other systems.
func TestImport_allowedEverywhere(t *testing.T) {
	a := newAPI(t)
	a.send("POST", "/apikey/keys/import", `{"keys":[{"id":"everywhere","userId":"u","hash":"`+hashText("everywhere")+`","allowedIps":[]}]}`).want(t, 200)
	if got := a.send("GET", "/apikey/keys/everywhere", "").want(t, 200)["allowedIps"]; got != nil {
		t.Errorf("allowedIps: %v", got)
	}
}

// TestRecordsComeBack: every field of a record is stored, and exported again.
func TestRecordsComeBack(t *testing.T) {
	a := newAPI(t)
	sent := decodeLine(t, fullRecord("one"))
	for _, f := range reflect.VisibleFields(reflect.TypeFor[KeyRecord]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if _, ok := sent[name]; !ok && !f.Anonymous && name != "requestCount" && name != "rateState" {
			t.Errorf("the full record lacks %s", name)
		}
	}
	// The minimum, with everything else at its default.
	least := `{"id":"least","userId":"imported","hash":"` + hashText("least") + `"}`
	a.send("POST", "/apikey/keys/import", `{"keys":[`+fullRecord("one")+`,`+least+`]}`).want(t, 200)
	var got, rest map[string]any
	for line := range strings.Lines(string(a.send("GET", "/apikey/keys/export", "").body)) {
		switch {
		case strings.Contains(line, `"id":"one"`):
			got = decodeLine(t, line)
		case strings.Contains(line, `"id":"least"`):
			rest = decodeLine(t, line)
		}
	}
	sameAs(t, map[string]map[string]any{"record": got}, map[string]map[string]any{"record": sent})
	if len(got) != len(sent) {
		t.Errorf("%d fields, want %d: %v", len(got), len(sent), got)
	}
	want := map[string]any{
		"configId": "default", "enabled": true, "checksummed": false, "createdAt": "2026-11-21T19:09:19.500Z", "updatedAt": "2026-11-21T19:09:19.500Z",
		"rateLimitEnabled": true, "rateLimitAlgorithm": "fixed_window", "id": "least", "userId": "imported", "hash": hashText("least"),
	}
	if !maps.Equal(rest, want) {
		t.Errorf("%v", rest)
	}
}

func decodeLine(t *testing.T, line string) map[string]any {
	t.Helper()
	return reply{body: []byte(line)}.object(t)
}

// TestBadRecords: each is refused by its field, repeats nothing, and spoils no other.
func TestBadRecords(t *testing.T) {
	a := newAPI(t)
	const marker = "MARKER"
	n := 0
	for _, test := range []struct{ record, field string }{
		{`{"userId":"u","hash":"H"}`, "id"},
		{`{"id":5,"userId":"u","hash":"H"}`, "id"},
		{`{"id":"","userId":"u","hash":"H"}`, "id"},
		{`{"id":"\u0000","userId":"u","hash":"H"}`, "id"},
		{`{"id":"I","hash":"H"}`, "userId"},
		{`{"id":"I","userId":"..","hash":"H"}`, "userId"},
		{`{"id":"I","userId":"u"}`, "hash"},
		{`{"id":"I","userId":"u","hash":"` + marker + `"}`, "hash"},
		{`{"id":"I","userId":"u","hash":"` + strings.Repeat("g", 64) + `"}`, "hash"},
		{`{"id":"I","userId":"u","hash":"` + strings.Repeat("_", 43) + `"}`, "hash"}, // bits beyond the last byte
		{`{"id":"I","userId":"u","hash":"H","secretHash":"` + marker + `"}`, "secretHash"},
		{`{"id":"I","userId":"u","hash":"H","previousKeys":[{"hash":"` + marker + `","until":"2030-01-01T00:00:00Z"}]}`, "previousKeys.hash"},
		{`{"id":"I","userId":"u","hash":"H","previousKeys":[{"hash":"H"}]}`, "previousKeys.until"},
		{`{"id":"I","userId":"u","hash":"H","previousKeys":[{"hash":"H","until":"2030-01-01T00:00:00Z"}]}`, "previousKeys.hash"},
		{`{"id":"I","userId":"u","hash":"H","disabledBy":"owner"}`, "disabledBy"},
		{`{"id":"I","userId":"u","hash":"H","enabled":false,"disabledBy":"me"}`, "disabledBy"},
		{`{"id":"I","userId":"u","hash":"H","previousKeys":[{},{},{},{},{},{}]}`, "previousKeys"},
		{`{"id":"I","userId":"u","hash":"H","previousKeys":[5]}`, "previousKeys"},
		{`{"id":"I","userId":"u","hash":"H","key":"` + marker + `"}`, "key"},
		{`{"id":"I","userId":"u","hash":"H","id":"I"}`, "id"},
		{`{"id":"I","userId":"u","hash":"H","metadata":{"a":1,"a":2}}`, "metadata"},
		{`{"id":"I","userId":"u","hash":"H","metadata":["` + marker + `"]}`, "metadata"},
		{`{"id":"I","userId":"u","hash":"H","configId":"` + marker + `"}`, "configId"},
		{`{"id":"I","userId":"u","hash":"H","expiresAt":"` + marker + `"}`, "expiresAt"},
		{`{"id":"I","userId":"u","hash":"H","expiresAt":5}`, "expiresAt"},
		{`{"id":"I","userId":"u","hash":"H","expiresAt":"1969-12-31T23:59:59Z"}`, "expiresAt"},
		{`{"id":"I","userId":"u","hash":"H","expiresAt":"2030-02-30T00:00:00Z"}`, "expiresAt"},
		{`{"id":"I","userId":"u","hash":"H","remaining":-1}`, "remaining"},
		{`{"id":"I","userId":"u","hash":"H","remaining":1.5}`, "remaining"},
		{`{"id":"I","userId":"u","hash":"H","refillAmount":1}`, "refillInterval"},
		{`{"id":"I","userId":"u","hash":"H","rateLimitMax":0}`, "rateLimitMax"},
		{`{"id":"I","userId":"u","hash":"H","rateState":"` + marker + `"}`, "rateState"},
		{`{"id":"I","userId":"u","hash":"H","rateState":"AQ==","requestCount":1}`, "rateState"},
		{`{"id":"I","userId":"u","hash":"H","allowedIps":["` + marker + `"]}`, "allowedIps"},
		{`{"id":"I","userId":"u","hash":"H","permissions":{"a":["b c"]}}`, "permissions"},
		{`{"id":"I","userId":"u","hash":"H","name":"a\nb"}`, "name"},
		{`{"id":"I","userId":"u","hash":"H","prefix":"a b"}`, "prefix"},
		{`{"id":"I","userId":"u","hash":"H","start":"` + strings.Repeat("a", 13) + `"}`, "start"},
		{`[]`, ""},
		{`null`, ""},
	} {
		n++
		fill := strings.NewReplacer(`"H"`, `"`+hashText(fmt.Sprint("bad ", n))+`"`, `"I"`, fmt.Sprintf(`"bad %d"`, n))
		good := func(m int) string {
			id := fmt.Sprint("good ", n, m)
			return `{"id":"` + id + `","userId":"u","hash":"` + hashText(id) + `"}`
		}
		r := a.send("POST", "/apikey/keys/import", `{"keys":[`+good(1)+`,`+fill.Replace(test.record)+`,`+good(2)+`]}`)
		var got Imported
		if err := json.Unmarshal(r.body, &got); err != nil || r.status != 200 || len(got.Results) != 3 {
			t.Errorf("%s: %d %s", test.record, r.status, r.body)
			continue
		}
		bad := got.Results[1]
		if bad.Status != "invalid" || bad.Field != test.field || bad.Error == "" || got.Created != 2 || got.Invalid != 1 {
			t.Errorf("%s: %s", test.record, r.body)
		}
		if strings.Contains(string(r.body), marker) || strings.Contains(string(r.body), hashText(fmt.Sprint("bad ", n))) {
			t.Errorf("%s: the answer repeats a value: %s", test.record, r.body)
		}
	}
}

// TestA6_importShutOwners: no key opens whose owner in the same import is invalid,
// or disabled there and enabled here; the keys of others are imported.
func TestA6_importShutOwners(t *testing.T) {
	const anybody, its, conflict = "userId: may be that of an owner in this import that is invalid",
		"userId: is that of an owner in this import that is invalid", "userId: is that of an owner who is disabled in this import and enabled here"
	for _, test := range []struct {
		owners, results string // of the owners and the keys of off and other
		reason          string
	}{
		{`{"userId":"off","enabled":"false"}`, "[invalid invalid created]", its},
		{`{"userId":"off","enabled":false,"enabled":false}`, "[invalid invalid created]", its},
		{`{"userId":"off","enabled":false,"nosuch":1}`, "[invalid invalid created]", its},
		{`{"userId":"off","enabled":false,"windows":[{"unit":"day","state":"x"}]}`, "[invalid invalid created]", its},
		{`{"userId":"off","enabled":false,"tier":"a\nb"}`, "[invalid invalid created]", its},
		{`{"userId":"off","enabled":false},{"userId":"off"}`, "[invalid invalid invalid created]", its},
		{`{"userId":"off","enabled":"false"},{"userId":"off"}`, "[invalid invalid invalid created]", its},
		{`{"enabled":"false","userId":"off"}`, "[invalid invalid invalid]", anybody},
		{`{"user":"off","enabled":false}`, "[invalid invalid invalid]", anybody},
		{`5`, "[invalid invalid invalid]", anybody},
		{`{"userId":"here","enabled":false},{"userId":"off","enabled":false}`, "[conflict created created created]", ""},
		{`{"userId":"here","tier":"gold"},{"userId":"off","enabled":false}`, "[conflict created created created]", ""},
	} {
		for _, dryRun := range []string{"true", "false"} {
			a := newAPI(t)
			a.make(`{"userId":"here"}`)
			a.imports(t, test.owners, []string{"off", "other"}, dryRun, test.results, test.reason)
			if o := a.everything()["owner off"]; o != nil && o["enabled"] == true {
				t.Errorf("%s: the owner is enabled", test.owners)
			}
		}
	}
	a := newAPI(t)
	a.make(`{"userId":"on"}`)
	a.make(`{"userId":"off"}`)
	a.send("PUT", "/apikey/owners/off", `{"enabled":false}`).want(t, 200)
	owners := `{"userId":"on","enabled":false},{"userId":"off","enabled":true}`
	for _, dryRun := range []string{"true", "false"} {
		a.imports(t, owners, []string{"on", "off"}, dryRun, "[conflict conflict conflict created]", conflict)
	}
}

// imports sends owners and a key for each of some, and checks the statuses, and why
// the first key is left out.
func (a *rig) imports(t *testing.T, owners string, keysOf []string, dryRun, want, reason string) {
	t.Helper()
	var keys []string
	for _, id := range keysOf {
		keys = append(keys, `{"id":"key of `+id+`","userId":"`+id+`","hash":"`+hashText(id)+`"}`)
	}
	var got Imported
	r := a.send("POST", "/apikey/keys/import", `{"owners":[`+owners+`],"keys":[`+strings.Join(keys, ",")+`],"dryRun":`+dryRun+`}`)
	if err := json.Unmarshal(r.body, &got); err != nil || r.status != 200 {
		t.Fatalf("%s: %d %s", owners, r.status, r.body)
	}
	var statuses []string
	for _, one := range got.Results {
		statuses = append(statuses, one.Status)
	}
	first := got.Results[len(got.Results)-len(keys)]
	if fmt.Sprint(statuses) != want || first.Error != reason || first.ID == nil || reason != "" && first.Field != "userId" {
		t.Errorf("%s: %s", owners, r.body)
	}
}

// TestImportShape: what is wrong with the whole request.
func TestImportShape(t *testing.T) {
	a := newAPI(t)
	one := `{"id":"i","userId":"u","hash":"` + hashText("i") + `"}`
	for _, test := range []struct {
		body, field string
		status      int
	}{
		{`{}`, "", 400},
		{`{"keys":[],"owners":[]}`, "", 400},
		{`{"keys":{}}`, "keys", 400},
		{`{"keys":"x"}`, "keys", 400},
		{`{"keys":[` + one + `}`, "keys", 400},
		{`{"keys":[` + strings.Repeat(one+",", 500) + one + `]}`, "keys", 400},
		{`{"keys":[` + strings.Repeat(one+",", 299) + one + `],"owners":[` + strings.Repeat(`{"userId":"u"},`, 200) + `{"userId":"u"}]}`, "", 400},
		{`{"keys":[` + one + `],"dryRun":"yes"}`, "dryRun", 400},
		{`{"keys":[` + one + strings.Repeat(" ", MaxImportBody) + `]}`, "", 413},
	} {
		r := a.send("POST", "/apikey/keys/import", test.body)
		code := map[int]string{400: "INVALID_FIELD", 413: "PAYLOAD_TOO_LARGE"}[test.status]
		if test.status == 400 && test.field == "" {
			code = "BAD_REQUEST"
		}
		r.refused(t, test.status, code, test.field)
	}
	big := `{"keys":[` + one + strings.Repeat(" ", MaxImportBody-len(one)-11) + `]}`
	a.send("POST", "/apikey/keys/import", big).want(t, 200)
}

// TestImportedWindow: a count from elsewhere becomes a window that began with the
// last request.
func TestImportedWindow(t *testing.T) {
	a := newAPI(t)
	for i, test := range []struct{ fields, count string }{
		{`"requestCount":3,"lastRequest":"2026-11-21T19:09:00Z"`, "3"},
		{`"requestCount":3,"lastRequest":"2026-11-21T19:08:19.500Z"`, "0"}, // it is over now
		{`"requestCount":3`, "0"},
	} {
		id := fmt.Sprint("id ", i)
		a.send("POST", "/apikey/keys/import", `{"keys":[{"id":"`+id+`","userId":"u","hash":"`+hashText(id)+`","rateLimitMax":5,"rateLimitTimeWindow":60000,`+test.fields+`}]}`).want(t, 200)
		k := must(a.Key(t.Context(), id)).Value
		if fmt.Sprint(k.RequestCount) != test.count {
			t.Errorf("%s: requestCount %d, want %s", test.fields, k.RequestCount, test.count)
		}
	}
	expired := `{"id":"e","userId":"u","hash":"` + hashText("e") + `","expiresAt":"1970-01-01T00:00:00Z"}`
	a.send("POST", "/apikey/keys/import", `{"keys":[`+expired+`]}`).want(t, 200)
	if must(a.Key(t.Context(), "e")).Value.ExpiresAt == nil {
		t.Error("a key that expired in 1970 never expires")
	}
}

// failing is a store whose second page of keys cannot be read.
type failing struct {
	store.Store
	store.Opener
}

func (f *failing) Open(ctx context.Context) (store.Store, error) {
	var err error
	f.Store, err = f.Opener.Open(ctx)
	return f, err
}

func (f *failing) Close() error { return f.Store.Close() }

func (f *failing) List(ctx context.Context, q store.List) (store.Page, error) {
	if q.Cursor != "" {
		return store.Page{}, errStore
	}
	page, err := f.Store.List(ctx, q)
	page.Next = "more"
	return page, err
}

// TestExportBreaksOff: an export that fails late is no whole answer, and one that
// fails early is an error.
func TestExportBreaksOff(t *testing.T) {
	for name, test := range map[string]struct {
		metadata string
		begins   bool
	}{
		"early": {"x", false},
		"late":  {strings.Repeat("x", 16<<10-20), true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			opener := must(sqlite.New(sqlite.Options{Path: t.TempDir() + "/keys.db"}))
			engine := keyring.New(&failing{Opener: opener}, a.now, func(error) {})
			if err := engine.Open(context.Background()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { engine.Close() })
			svc := keyring.NewService(engine, &keyring.Settings{Rules: *a.rules})
			a.service = func() (*keyring.Service, error) { return svc, nil }
			for range 10 {
				a.make(`{"userId":"u","metadata":{"a":"` + test.metadata + `"}}`)
			}
			body, err := a.ExportKeys(t.Context())
			if !test.begins {
				if e := apiErr(t, err); e.Status != 503 {
					t.Errorf("%+v", e)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			n, err := io.Copy(io.Discard, body)
			if err == nil || n == 0 {
				t.Errorf("%d bytes, %v", n, err)
			}
			if len(a.reported) != 1 || !errors.Is(a.reported[0], store.ErrUnavailable) {
				t.Errorf("reported %v", a.reported)
			}
		})
	}
}
