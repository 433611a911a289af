package key

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// jsonKey is a document as encoding/json reads it.
type jsonKey struct {
	ID          string           `json:"id"`
	ConfigID    string           `json:"configId"`
	UserID      string           `json:"userId"`
	Name        *string          `json:"name"`
	Prefix      *string          `json:"prefix"`
	Start       *string          `json:"start"`
	Hash        jsonHash         `json:"hash"`
	SecretHash  *jsonHash        `json:"secretHash"`
	Previous    []jsonPrevious   `json:"previous"`
	Checksummed bool             `json:"checksummed"`
	Enabled     bool             `json:"enabled"`
	DisabledBy  DisabledBy       `json:"disabledBy"`
	Permissions Permissions      `json:"permissions"`
	Metadata    json.RawMessage  `json:"metadata"`
	AllowedIPs  []netip.Prefix   `json:"allowedIps"`
	ExpiresAt   int64            `json:"expiresAt"`
	CreatedAt   int64            `json:"createdAt"`
	UpdatedAt   int64            `json:"updatedAt"`
	RotatedAt   int64            `json:"rotatedAt"`
	RateEnabled bool             `json:"rateLimitEnabled"`
	RateMax     int64            `json:"rateLimitMax"`
	RateWindow  int64            `json:"rateLimitTimeWindow"`
	Algorithm   ratelimitOfNames `json:"rateLimitAlgorithm"`
}

type jsonPrevious struct {
	Hash        jsonHash `json:"hash"`
	Start       string   `json:"start"`
	Until       int64    `json:"until"`
	Checksummed bool     `json:"checksummed"`
}

type jsonHash Hash

func (h *jsonHash) UnmarshalText(b []byte) error {
	if n, err := hex.Decode(h[:], b); err != nil || n != len(h) || len(b) != 2*n {
		return errors.New("not a hash")
	}
	return nil
}

type ratelimitOfNames ratelimit.Algorithm

func (a *ratelimitOfNames) UnmarshalText(b []byte) error {
	parsed, err := ratelimit.ParseAlgorithm(string(b))
	*a = ratelimitOfNames(parsed)
	return err
}

// byJSON reads a document by encoding/json.
func byJSON(doc string) (*Key, error) {
	var j jsonKey
	d := json.NewDecoder(strings.NewReader(doc))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return nil, err
	}
	k := &Key{
		ID: j.ID, ConfigID: j.ConfigID, UserID: j.UserID, Name: j.Name, Prefix: j.Prefix, Start: j.Start,
		Hash: Hash(j.Hash), SecretHash: (*Hash)(j.SecretHash), Checksummed: j.Checksummed, Enabled: j.Enabled, DisabledBy: j.DisabledBy,
		Permissions: j.Permissions, Metadata: j.Metadata, AllowedIPs: j.AllowedIPs,
		ExpiresAt: j.ExpiresAt, CreatedAt: j.CreatedAt, UpdatedAt: j.UpdatedAt, RotatedAt: j.RotatedAt,
		RateLimitEnabled: j.RateEnabled, RateLimitMax: j.RateMax, RateLimitTimeWindow: j.RateWindow, RateLimitAlgorithm: ratelimit.Algorithm(j.Algorithm),
	}
	for _, p := range j.Previous {
		k.Previous = append(k.Previous, PreviousKey{Hash: Hash(p.Hash), Start: p.Start, Until: p.Until, Checksummed: p.Checksummed})
	}
	return k, nil
}

func text(s string) *string { return &s }

// fullKey has a value in every field that a document holds.
func fullKey() *Key {
	secret := HashOf("secret")
	return &Key{
		ID: "019ab3f2c4d50123456789ab", ConfigID: "other", UserID: "Ünïcode 👩‍👩‍👧 \u2028", Name: text("a \"name\" \\ \t"), Prefix: text("ak_"), Start: text("ak_012345678"),
		Hash: HashOf("a"), SecretHash: &secret,
		Previous:   []PreviousKey{{Hash: HashOf("b"), Start: "ak_9", Until: MaxCount, Checksummed: true}, {Hash: HashOf("c")}},
		DisabledBy: DisabledByLeak, Checksummed: true, Enabled: true,
		Permissions: Permissions{"files": {"write", "read"}, "*": {"*"}, "none": {}},
		Metadata:    json.RawMessage(`{ "z": 1.50, "a" :[null, "\u0000", "é", -12345678901234567890e-7, true, {}] }`),
		AllowedIPs:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")},
		ExpiresAt:   MaxTime, CreatedAt: 2, UpdatedAt: 3, RotatedAt: 4,
		RateLimitEnabled: true, RateLimitMax: 10, RateLimitTimeWindow: MaxCount, RateLimitAlgorithm: ratelimit.TokenBucket,
	}
}

// TestDocument_everyField fails for a field of Key that a document forgets.
func TestDocument_everyField(t *testing.T) {
	full := fullKey()
	for v, i := reflect.ValueOf(full).Elem(), 0; i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Revision" {
			t.Errorf("the test knows no value for Key.%s", name)
		}
	}
	empty := &Key{ID: "x", Hash: HashOf("x"), Name: text(""), Prefix: text(""), Start: text(""), Permissions: Permissions{}, Metadata: json.RawMessage("{}"), AllowedIPs: []netip.Prefix{}}
	for name, k := range map[string]*Key{"full": full, "none": {ID: "x", Hash: HashOf("x")}, "empty": empty} {
		doc, err := AppendDocument(nil, k)
		if err != nil {
			t.Fatal(name, err)
		}
		for reader, read := range map[string]func(string) (*Key, error){"ours": ParseDocument, "encoding/json": byJSON} {
			if got, err := read(string(doc)); err != nil || !reflect.DeepEqual(got, k) {
				t.Errorf("%s by %s: %v\n%s\n%+v\n%+v", name, reader, err, doc, got, k)
			}
		}
		again, err := AppendDocument([]byte("before"), k)
		if err != nil || string(again) != "before"+string(doc) {
			t.Errorf("%s: %s, %v", name, again, err)
		}
	}
}

func TestDocument_refused(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	with := func(member string) string { return `{"id":"x",` + member + `,"hash":"` + hash + `"}` }
	if _, err := ParseDocument(with(`"enabled":true`)); err != nil {
		t.Fatal(err)
	}
	for _, doc := range []string{
		"", "{", "{}", "null", `{"id":"x"}`, `{"hash":"` + hash + `"}`, `{"id":"x","hash":"ab"}`, `{"id":"x","hash":"` + strings.ToUpper(hash) + `"}`,
		with(`"unknown":1`), with(`"ID":"y"`), with(`"id":"y"`), with(`"enabled":1`), with(`"enabled":null`), with(`"name":null`), with(`"name":"` + "\x01" + `"`),
		with(`"disabledBy":"somebody"`), with(`"disabledBy":""`), with(`"rateLimitAlgorithm":"calendar_window"`), with(`"rateLimitAlgorithm":"other"`),
		with(`"createdAt":1.5`), with(`"createdAt":1e3`), with(`"createdAt":01`), with(`"createdAt":99999999999999999999`), with(`"createdAt":""`),
		with(`"metadata":[]`), with(`"metadata":{"a":01}`), with(`"metadata":{"a":tru}`), with(`"metadata":{`), with(`"metadata":{"a":"` + "\xff" + `"}`),
		with(`"allowedIps":["10.0.0.0"]`), with(`"previous":[{}]`), with(`"previous":[{"hash":"` + hash + `","other":1}]`), with(`"permissions":{"a":"b"}`),
		with(`"enabled":true,`), with(`"enabled":true`) + "x", with(`"metadata":` + strings.Repeat(`{"a":`, 20_000)), "\xff" + with(`"enabled":true`),
	} {
		if k, err := ParseDocument(doc); err == nil {
			t.Errorf("%.80s is read as %+v", doc, k)
		}
	}
	bad := fullKey()
	for name, change := range map[string]func(*Key){
		"metadata":   func(k *Key) { k.Metadata = json.RawMessage(`{"a":`) },
		"no object":  func(k *Key) { k.Metadata = json.RawMessage(`[]`) },
		"disabledBy": func(k *Key) { k.DisabledBy = "somebody" },
		"UTF-8":      func(k *Key) { k.UserID = "\xff" },
	} {
		k := *bad
		change(&k)
		if doc, err := AppendDocument(nil, &k); err == nil {
			t.Errorf("%s is written: %s", name, doc)
		}
	}
}

// FuzzDocument holds ParseDocument against encoding/json: what it reads, both read
// alike, and it is written again as something that is read as the same.
func FuzzDocument(f *testing.F) {
	for _, k := range []*Key{fullKey(), {ID: "x", Hash: HashOf("x")}} {
		doc, err := AppendDocument(nil, k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(doc))
		f.Add(string(bytes.ReplaceAll(doc, []byte(","), []byte(" ,\n"))))
	}
	f.Add(`{"id":"\ud800\u00e9","hash":"` + strings.Repeat("00", 32) + `","permissions":{"a":[],"a":["b"]},"createdAt":-0}`)
	f.Fuzz(func(t *testing.T, doc string) {
		k, err := ParseDocument(doc)
		if err != nil {
			return
		}
		want, err := byJSON(doc)
		if err != nil {
			t.Fatalf("%s is read, which encoding/json refuses: %v", doc, err)
		}
		if !reflect.DeepEqual(k, want) {
			t.Fatalf("%s is read as\n%+v, want\n%+v", doc, k, want)
		}
		again, err := AppendDocument(nil, k)
		if err != nil {
			t.Fatalf("%s cannot be written again: %v", doc, err)
		}
		if back, err := ParseDocument(string(again)); err != nil || !reflect.DeepEqual(back, k) {
			t.Fatalf("%s is written as %s: %v", doc, again, err)
		}
	})
}

// typicalKey is what most keys are like.
func typicalKey() *Key {
	return &Key{
		ID: "019ab3f2c4d50123456789ab", ConfigID: DefaultConfig, UserID: "user_2abcdefghijklmnop", Name: text("production server"), Prefix: text("ak_"), Start: text("ak_01234567"),
		Hash: HashOf("a"), Checksummed: true, Enabled: true, Permissions: Permissions{"files": {"read", "write"}}, Metadata: json.RawMessage(`{"plan":"pro","seats":5}`),
		CreatedAt: 1_800_000_000_000, UpdatedAt: 1_800_000_000_000, RateLimitEnabled: true, RateLimitMax: 1000, RateLimitTimeWindow: 60_000,
	}
}

func BenchmarkParseDocument(b *testing.B) {
	doc, err := AppendDocument(nil, typicalKey())
	if err != nil {
		b.Fatal(err)
	}
	s := string(doc)
	for name, parse := range map[string]func(string) (*Key, error){"ours": ParseDocument, "encoding_json": byJSON} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parse(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
