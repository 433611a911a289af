package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// set reads a JSON value into the field.
func (f *field) set(in reflect.Value, raw json.RawMessage) error {
	if string(raw) == "null" {
		if f.required() {
			return Invalid(f.name, "is required")
		}
		if f.notNull {
			return Invalid(f.name, "must not be null")
		}
		f.mark(in)
		return nil
	}
	f.mark(in)
	v := f.target(in)
	switch {
	case f.value == rawType:
		v.SetBytes(raw)
		return nil
	case f.value == permissionsType:
		return f.setPermissions(v, raw)
	case f.value == stringsType:
		return f.setStrings(v, raw)
	case isList(f.value):
		return f.setObjects(v, raw)
	case f.value == timeType:
		return f.setTime(v, raw)
	case f.value.Kind() == reflect.String:
		s, ok := readString(raw)
		if !ok {
			return Invalid(f.name, "%s", f.allowed())
		}
		return f.setString(v, s)
	case raw[0] == '"':
		return Invalid(f.name, "%s", f.allowed())
	default:
		return f.setText(v, string(raw))
	}
}

// setText reads text that is not quoted: a parameter, a number, a boolean.
func (f *field) setText(v reflect.Value, s string) error {
	if f.value == timeType {
		return f.setTime(v, strconv.AppendQuote(nil, s))
	}
	switch f.value.Kind() {
	case reflect.Int64:
		n, ok := readInt(s)
		if !ok || n < f.min || n > f.max {
			return Invalid(f.name, "%s", f.allowed())
		}
		v.SetInt(n)
	case reflect.Bool:
		if s != "true" && s != "false" {
			return Invalid(f.name, "%s", f.allowed())
		}
		v.SetBool(s == "true")
	default:
		if strings.ContainsFunc(s, unicode.IsControl) {
			return Invalid(f.name, "must not contain control characters")
		}
		return f.setString(v, s)
	}
	return nil
}

func (f *field) setString(v reflect.Value, s string) error {
	n := int64(utf8.RuneCountInString(s))
	if !utf8.ValidString(s) || f.enum != nil && !slices.Contains(f.enum, s) || f.bounded && (n < f.min || n > f.max) {
		return Invalid(f.name, "%s", f.allowed())
	}
	v.SetString(s)
	return nil
}

func (f *field) setPermissions(v reflect.Value, raw json.RawMessage) error {
	var m map[string]json.RawMessage
	if raw[0] == '{' && json.Unmarshal(raw, &m) == nil {
		for _, actions := range m {
			if actions[0] != '[' { // null would pass for an empty list
				return Invalid(f.name, "%s", f.allowed())
			}
		}
	}
	p, err := key.UnmarshalPermissions(raw)
	if err != nil {
		return Invalid(f.name, "%v", err)
	}
	v.Set(reflect.ValueOf(p))
	return nil
}

func (f *field) setStrings(v reflect.Value, raw json.RawMessage) error {
	var list []json.RawMessage
	err := json.Unmarshal(raw, &list)
	if n := int64(len(list)); err != nil || list == nil || n < f.min || n > f.max {
		return Invalid(f.name, "%s", f.allowed())
	}
	all := make([]string, len(list))
	for i := range list {
		s, ok := readString(list[i])
		if !ok || f.enum != nil && !slices.Contains(f.enum, s) {
			return Invalid(f.name, "%s", f.allowed())
		}
		all[i] = s
	}
	v.Set(reflect.ValueOf(all))
	return nil
}

// setObjects reads a list of objects. What is wrong with an object is the list's
// fault too, unless each stands for itself.
func (f *field) setObjects(v reflect.Value, raw json.RawMessage) error {
	var list []json.RawMessage
	err := json.Unmarshal(raw, &list)
	if n := int64(len(list)); err != nil || n < f.min || n > f.max {
		return Invalid(f.name, "%s", f.allowed())
	}
	v.Set(reflect.MakeSlice(f.value, len(list), len(list)))
	for i, one := range list {
		o := v.Index(i)
		if f.each {
			o = o.Field(0) // Value
		}
		err := decodeObject(one, o)
		switch {
		case err == nil:
		case f.each:
			v.Index(i).Field(2).Set(reflect.ValueOf(err)) // Err
		default:
			return within(f.name, err)
		}
	}
	return nil
}

// within names the list that a bad field stands in.
func within(list string, err error) error {
	bad, ok := errors.AsType[*keyring.FieldError](err)
	if !ok {
		return Invalid(list, "must be a list of objects")
	}
	return &keyring.FieldError{Field: list + "." + bad.Field, Code: bad.Code, Message: bad.Message}
}

func (f *field) setTime(v reflect.Value, raw json.RawMessage) error {
	s, ok := readString(raw)
	t, err := time.Parse(time.RFC3339, s)
	if ms := t.UnixMilli(); !ok || err != nil || ms < 0 || ms > key.MaxTime {
		return Invalid(f.name, "%s", f.allowed())
	}
	v.Set(reflect.ValueOf(TimeOf(t.UnixMilli())))
	return nil
}

// readInt reads a plain integer: no fraction, exponent, sign of plus, leading
// zero or negative zero.
func readInt(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == s
}
