package key

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/caddy-apikey/caddy-apikey/ratelimit"
)

// A document is a whole record as JSON text, as stores keep it. Everything in it is
// written by name, and what is none (nil, empty or zero) is left out. Only
// PreviousKey.LastRequest and Revision are not in it: the one is written behind
// requests, the other belongs to the store.
//
// Reading is strict: a member or a name that is not known is an error, because the
// next write would lose it.

// documentField is one member of a document.
type documentField struct {
	name string
	// append writes the value, and reports false where there is none.
	append func(b []byte, k *Key) ([]byte, bool)
	read   func(d *documentReader, k *parsedKey)
	// size returns the memory of a text; nil for other values.
	size func(k *Key) int
	// none is what Changes shows where there is no value; empty: null.
	none string
}

// documentFields are the members in the order in which they are written. A new
// field of Key is one line here, and one in the comparison of document_test.go.
var documentFields = [...]documentField{
	textField("id", func(k *Key) *string { return &k.ID }),
	textField("configId", func(k *Key) *string { return &k.ConfigID }),
	textField("userId", func(k *Key) *string { return &k.UserID }),
	optionalField("name", func(k *Key) **string { return &k.Name }, func(k *parsedKey) *string { return &k.name }),
	optionalField("prefix", func(k *Key) **string { return &k.Prefix }, func(k *parsedKey) *string { return &k.prefix }),
	optionalField("start", func(k *Key) **string { return &k.Start }, func(k *parsedKey) *string { return &k.start }),
	member("hash", func(b []byte, k *Key) ([]byte, bool) { return appendHash(b, &k.Hash), true }, func(d *documentReader, k *parsedKey) { k.Hash = d.hash() }),
	member("secretHash", appendSecret, func(d *documentReader, k *parsedKey) { k.secret = d.hash(); k.SecretHash = &k.secret }),
	member("previous", appendPrevious, func(d *documentReader, k *parsedKey) { k.Previous = d.previousKeys() }),
	flagField("checksummed", func(k *Key) *bool { return &k.Checksummed }),
	flagField("enabled", func(k *Key) *bool { return &k.Enabled }),
	member("disabledBy", appendDisabledBy, func(d *documentReader, k *parsedKey) { k.DisabledBy = d.disabledBy() }),
	member("permissions", appendPermissions, func(d *documentReader, k *parsedKey) { k.Permissions = d.permissions() }),
	member("metadata", appendMetadata, func(d *documentReader, k *parsedKey) { k.Metadata = d.object() }),
	member("allowedIps", appendAllowedIPs, func(d *documentReader, k *parsedKey) { k.AllowedIPs = d.prefixes() }),
	numberField("expiresAt", func(k *Key) *int64 { return &k.ExpiresAt }),
	numberField("createdAt", func(k *Key) *int64 { return &k.CreatedAt }),
	numberField("updatedAt", func(k *Key) *int64 { return &k.UpdatedAt }),
	numberField("rotatedAt", func(k *Key) *int64 { return &k.RotatedAt }),
	flagField("rateLimitEnabled", func(k *Key) *bool { return &k.RateLimitEnabled }),
	numberField("rateLimitMax", func(k *Key) *int64 { return &k.RateLimitMax }),
	numberField("rateLimitTimeWindow", func(k *Key) *int64 { return &k.RateLimitTimeWindow }),
	member("rateLimitAlgorithm", appendAlgorithm, func(d *documentReader, k *parsedKey) { k.RateLimitAlgorithm = d.algorithm() }),
}

// parsedKey is a Key with room for what it points to, so that reading one allocates once.
type parsedKey struct {
	Key
	name, prefix, start string
	secret              Hash
}

func member(name string, appendValue func([]byte, *Key) ([]byte, bool), read func(*documentReader, *parsedKey)) documentField {
	return documentField{name: name, append: appendValue, read: read}
}

func textField(name string, of func(*Key) *string) documentField {
	return documentField{
		name:   name,
		append: func(b []byte, k *Key) ([]byte, bool) { s := *of(k); return appendText(b, s), s != "" },
		read:   func(d *documentReader, k *parsedKey) { *of(&k.Key) = d.text() },
		size:   func(k *Key) int { return len(*of(k)) },
	}
}

func optionalField(name string, of func(*Key) **string, room func(*parsedKey) *string) documentField {
	return documentField{
		name: name,
		append: func(b []byte, k *Key) ([]byte, bool) {
			if p := *of(k); p != nil {
				return appendText(b, *p), true
			}
			return b, false
		},
		read: func(d *documentReader, k *parsedKey) {
			p := room(k)
			*p = d.text()
			*of(&k.Key) = p
		},
		size: func(k *Key) int {
			if p := *of(k); p != nil {
				return len(*p) + 16
			}
			return 0
		},
	}
}

func numberField(name string, of func(*Key) *int64) documentField {
	return member(
		name,
		func(b []byte, k *Key) ([]byte, bool) { n := *of(k); return strconv.AppendInt(b, n, 10), n != 0 },
		func(d *documentReader, k *parsedKey) { *of(&k.Key) = d.number() },
	)
}

func flagField(name string, of func(*Key) *bool) documentField {
	f := member(
		name,
		func(b []byte, k *Key) ([]byte, bool) { v := *of(k); return strconv.AppendBool(b, v), v },
		func(d *documentReader, k *parsedKey) { *of(&k.Key) = d.flag() },
	)
	f.none = "false"
	return f
}

// TextSize returns about how many bytes the texts of k take.
func (k *Key) TextSize() (n int) {
	for i := range documentFields {
		if size := documentFields[i].size; size != nil {
			n += size(k)
		}
	}
	return n
}

// AppendDocument appends the document of k. It refuses what could not be read back.
func AppendDocument(b []byte, k *Key) ([]byte, error) {
	if k.Metadata != nil && (!json.Valid(k.Metadata) || firstByte(k.Metadata) != '{') {
		return nil, errors.New("metadata is not a JSON object")
	}
	if !k.DisabledBy.known() {
		return nil, fmt.Errorf("disabledBy: %q is not known", k.DisabledBy)
	}
	begin := len(b)
	b = append(b, '{')
	for i := range documentFields {
		f := &documentFields[i]
		end := len(b)
		if end > begin+1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), f.name...), `":`...)
		var ok bool
		if b, ok = f.append(b, k); !ok {
			b = b[:end]
		}
	}
	b = append(b, '}')
	if !utf8.Valid(b[begin:]) {
		return nil, errors.New("the record holds text that is not UTF-8")
	}
	return b, nil
}

func firstByte(raw []byte) byte {
	for _, c := range raw {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c
		}
	}
	return 0
}

func (d DisabledBy) known() bool { return d.Valid(false) }

const hexDigits = "0123456789abcdef"

func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(b, s[from:]...), '"')
}

func appendHash(b []byte, h *Hash) []byte {
	return append(hex.AppendEncode(append(b, '"'), h[:]), '"')
}

func appendSecret(b []byte, k *Key) ([]byte, bool) {
	if k.SecretHash == nil {
		return b, false
	}
	return appendHash(b, k.SecretHash), true
}

func appendPrevious(b []byte, k *Key) ([]byte, bool) {
	b = append(b, '[')
	for i := range k.Previous {
		p := &k.Previous[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHash(append(b, `{"hash":`...), &p.Hash)
		if p.Start != "" {
			b = appendText(append(b, `,"start":`...), p.Start)
		}
		b = strconv.AppendInt(append(b, `,"until":`...), p.Until, 10)
		if p.Checksummed {
			b = append(b, `,"checksummed":true`...)
		}
		b = append(b, '}')
	}
	return append(b, ']'), len(k.Previous) > 0
}

func appendDisabledBy(b []byte, k *Key) ([]byte, bool) {
	return appendText(b, string(k.DisabledBy)), k.DisabledBy != ""
}

func appendPermissions(b []byte, k *Key) ([]byte, bool) {
	b = append(b, '{')
	resources := make([]string, 0, len(k.Permissions))
	for r := range k.Permissions {
		resources = append(resources, r)
	}
	slices.Sort(resources) // the same record is the same document
	for i, r := range resources {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, r), ':', '[')
		for j, action := range k.Permissions[r] {
			if j > 0 {
				b = append(b, ',')
			}
			b = appendText(b, action)
		}
		b = append(b, ']')
	}
	return append(b, '}'), k.Permissions != nil
}

func appendMetadata(b []byte, k *Key) ([]byte, bool) {
	return append(b, k.Metadata...), k.Metadata != nil
}

func appendAllowedIPs(b []byte, k *Key) ([]byte, bool) {
	b = append(b, '[')
	for i, p := range k.AllowedIPs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(p.AppendTo(append(b, '"')), '"')
	}
	return append(b, ']'), k.AllowedIPs != nil
}

func appendAlgorithm(b []byte, k *Key) ([]byte, bool) {
	return appendText(b, k.RateLimitAlgorithm.String()), k.RateLimitAlgorithm != ratelimit.FixedWindow
}

// ParseDocument reads a document. The key shares memory with doc.
func ParseDocument(doc string) (*Key, error) {
	if !utf8.ValidString(doc) {
		return nil, errors.New("document: not UTF-8")
	}
	d := documentReader{s: doc}
	k := new(parsedKey)
	next := 0 // members mostly come in the order of the table
	var seen uint64
	d.members(func(name string) {
		for range documentFields {
			i := next
			if next++; next == len(documentFields) {
				next = 0
			}
			if documentFields[i].name != name {
				continue
			}
			if seen&(1<<i) != 0 {
				d.fail("is there twice")
				return
			}
			seen |= 1 << i
			documentFields[i].read(&d, k)
			return
		}
		d.fail("is not known")
	})
	d.space()
	if d.err == nil && d.at < len(d.s) {
		d.fail("something follows the document")
	}
	if d.err != nil {
		return nil, d.err
	}
	if k.ID == "" || seen&(1<<hashField) == 0 {
		return nil, errors.New("document: no ID or no hash")
	}
	return &k.Key, nil
}

var hashField = slices.IndexFunc(documentFields[:], func(f documentField) bool { return f.name == "hash" })

// disabledBy, algorithm and hash read names and values that have one form only.
func (d *documentReader) disabledBy() DisabledBy {
	by := DisabledBy(d.text())
	if by == "" || !by.known() {
		d.fail("is not a known name")
	}
	return by
}

func (d *documentReader) algorithm() ratelimit.Algorithm {
	a, err := ratelimit.ParseAlgorithm(d.text())
	if err != nil {
		d.fail("is not a known name")
	}
	return a
}

func (d *documentReader) hash() (h Hash) {
	s := d.text()
	if len(s) != hex.EncodedLen(len(h)) {
		d.fail("is not a hash")
		return h
	}
	for i := range h {
		hi, lo := hexValue[s[2*i]], hexValue[s[2*i+1]]
		if hi|lo > 15 {
			d.fail("is not a hash")
			return h
		}
		h[i] = hi<<4 | lo
	}
	return h
}

// hexValue maps a digit to its value, and everything else to 255.
var hexValue = func() (v [256]byte) {
	for i := range v {
		v[i] = 255
	}
	for i := range len(hexDigits) {
		v[hexDigits[i]] = byte(i)
	}
	return v
}()

func (d *documentReader) previousKeys() (list []PreviousKey) {
	d.elements(func() {
		var p PreviousKey
		hashed := false
		d.members(func(name string) {
			switch name {
			case "hash":
				p.Hash, hashed = d.hash(), true
			case "start":
				p.Start = d.text()
			case "until":
				p.Until = d.number()
			case "checksummed":
				p.Checksummed = d.flag()
			default:
				d.fail("is not known")
			}
		})
		if !hashed {
			d.fail("has no hash")
		}
		list = append(list, p)
	})
	return list
}

func (d *documentReader) permissions() Permissions {
	p := Permissions{}
	d.members(func(resource string) {
		// A resource without actions grants nothing, and is kept all the same.
		actions := make([]string, 0, d.count())
		d.elements(func() { actions = append(actions, d.text()) })
		p[resource] = actions
	})
	return p
}

func (d *documentReader) prefixes() []netip.Prefix {
	list := make([]netip.Prefix, 0, d.count())
	d.elements(func() {
		p, err := netip.ParsePrefix(d.text())
		if err != nil {
			d.fail("is not a network")
		}
		list = append(list, p)
	})
	return list
}
