package api

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Optional is a field of a body that may be absent, null or a value.
type Optional[T any] = keyring.Field[T]

// Some returns a field with a value.
func Some[T any](v T) Optional[T] { return Optional[T]{Set: true, Value: &v} }

// Null returns a field that is null.
func Null[T any]() Optional[T] { return Optional[T]{Set: true} }

// Present returns fields for an answer, where every [Optional] is there: null where it has
// no value.
func Present[T any](fields T) T {
	v := reflect.ValueOf(&fields).Elem()
	for _, f := range fieldsOf(v.Type(), "json") {
		f.mark(v)
	}
	return fields
}

// Each is one of a list whose elements are read one by one: a bad one does not
// spoil the others.
type Each[T any] struct {
	Value T
	Raw   json.RawMessage // of a request that is being made: sent instead of Value
	Err   error           // of a request that was read: why Value is not whole
}

// MarshalJSON implements json.Marshaler.
func (e Each[T]) MarshalJSON() ([]byte, error) {
	if e.Raw != nil {
		return e.Raw, nil
	}
	return Marshal(e.Value)
}

// Time is a moment in milliseconds, written in RFC 3339 and UTC.
type Time struct{ time.Time }

const timeFormat = `"2006-01-02T15:04:05.000Z"`

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) { return t.UTC().AppendFormat(nil, timeFormat), nil }

// TimeOf returns the time of Unix milliseconds.
func TimeOf(ms int64) Time { return Time{time.UnixMilli(ms).UTC()} }

// MaybeTime is null for 0.
func MaybeTime(ms int64) *Time {
	if ms == 0 {
		return nil
	}
	t := TimeOf(ms)
	return &t
}

// MaybeCount is null for 0.
func MaybeCount(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

// MaybeText is null for "".
func MaybeText(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Or returns the value of an optional field, or a default.
func Or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
