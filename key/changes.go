package key

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// FieldChange is a field before and after a change, as JSON; nil: it was, or is, none.
type FieldChange struct {
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
}

// shownField is how a field of a document is shown in Changes.
type shownField struct {
	name   string // empty: not at all
	append func(b []byte, k *Key) ([]byte, bool)
	none   string // as that of a documentField
}

// shownFields are those of the documentFields that are not shown as they are: hashes and
// what could help to find a raw key are not shown, and of metadata only the names of its
// members.
var shownFields = map[string]shownField{
	"id":          {},
	"start":       {},
	"hash":        {},
	"secretHash":  {},
	"checksummed": {},
	"createdAt":   {},
	"updatedAt":   {},
	"rotatedAt":   {},
	"previous": {name: "previousKeys", append: func(b []byte, k *Key) ([]byte, bool) {
		return strconv.AppendInt(b, int64(len(k.Previous)), 10), k.Previous != nil
	}},
	"metadata": {name: "metadata", append: appendMetadataNames},
	"expiresAt": {name: "expiresAt", append: func(b []byte, k *Key) ([]byte, bool) {
		return time.UnixMilli(k.ExpiresAt).UTC().AppendFormat(b, `"2006-01-02T15:04:05.000Z"`), k.ExpiresAt != 0
	}},
}

// Changes returns the fields in which two records differ, by their names, without any
// hash, and with the names of members of the metadata instead of their values. A nil record
// is one without any field.
func Changes(before, after *Key) map[string]FieldChange {
	changes := map[string]FieldChange{}
	for i := range documentFields {
		f := shownField{documentFields[i].name, documentFields[i].append, documentFields[i].none}
		if other, ok := shownFields[f.name]; ok {
			f = other
		}
		if f.name == "" {
			continue
		}
		c := FieldChange{f.of(before), f.of(after)}
		if !bytes.Equal(c.From, c.To) {
			changes[f.name] = c
		}
	}
	return changes
}

func (f *shownField) of(k *Key) json.RawMessage {
	if k == nil {
		return nil
	}
	if b, ok := f.append(nil, k); ok {
		return b
	}
	if f.none != "" {
		return json.RawMessage(f.none)
	}
	return nil
}

func appendMetadataNames(b []byte, k *Key) ([]byte, bool) {
	var members map[string]json.RawMessage
	if k.Metadata == nil || json.Unmarshal(k.Metadata, &members) != nil {
		return b, false
	}
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '[')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name)
	}
	return append(b, ']'), true
}
