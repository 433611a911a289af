package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// field is one field of a wire type, as its tags describe it.
type field struct {
	name  string
	index []int
	value reflect.Type // without a pointer or an Optional around it
	doc   string
	enum  []string

	optional bool // an Optional: tells null from absent
	pointer  bool
	nilable  bool // has a value that is written as null
	notNull  bool // null is refused
	omitted  bool // may be absent from an answer
	each     bool // a list of Each

	min, max int64 // of an integer, or of a length
	bounded  bool  // a length is bounded at all
}

var (
	rawType         = reflect.TypeFor[json.RawMessage]()
	timeType        = reflect.TypeFor[Time]()
	permissionsType = reflect.TypeFor[key.Permissions]()
	stringsType     = reflect.TypeFor[[]string]()
)

// fieldsOf reads a wire type. tag is "json" or "query". Mistakes in a tag end
// the program: the types are part of it.
func fieldsOf(t reflect.Type, tag string) []field {
	var all []field
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Anonymous {
			for _, f := range fieldsOf(sf.Type, tag) {
				f.index = append([]int{i}, f.index...)
				all = append(all, f)
			}
			continue
		}
		name, options, _ := strings.Cut(sf.Tag.Get(tag), ",")
		if name == "" {
			panic(fmt.Sprintf("%s.%s has no tag %s", t, sf.Name, tag))
		}
		f := field{name: name, index: []int{i}, value: sf.Type, doc: sf.Tag.Get("doc"), omitted: options != ""}
		f.unwrap()
		f.bound(sf.Tag)
		all = append(all, f)
	}
	return all
}

func (f *field) unwrap() {
	switch t := f.value; {
	case t.Kind() == reflect.Pointer:
		f.pointer, f.nilable, f.value = true, true, t.Elem()
	case strings.HasPrefix(t.Name(), "Field["): // an Optional
		f.optional, f.nilable, f.value = true, true, t.Field(1).Type.Elem()
	default:
		// Lists of objects are written as [], never as null; in requests they may be absent.
		f.nilable = t == rawType || t == permissionsType || t == stringsType || isList(t) && f.omitted
		f.each = isList(t) && strings.HasPrefix(t.Elem().Name(), "Each[")
	}
}

// isList tells lists of objects.
func isList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// object returns the type of the objects in a list.
func (f *field) object() reflect.Type {
	if f.each {
		return f.value.Elem().Field(0).Type
	}
	return f.value.Elem()
}

func (f *field) bound(tag reflect.StructTag) {
	f.max = key.MaxCount
	f.notNull = tag.Get("null") == "no"
	for name, to := range map[string]*int64{"min": &f.min, "max": &f.max} {
		s, ok := tag.Lookup(name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("tag %s of %s: %v", name, f.name, err))
		}
		*to, f.bounded = n, true
	}
	if s, ok := tag.Lookup("enum"); ok {
		f.enum = enumeration(s)
	}
}

// lists are enumerations that are defined elsewhere, by the names that tags have for them.
var lists = map[string]func() []string{"{algorithms}": keyring.Algorithms}

// enumeration reads a tag enum: words separated by "|", or the name of a list.
func enumeration(tag string) []string {
	if list := lists[tag]; list != nil {
		return list()
	}
	return strings.Split(tag, "|")
}

// required reports whether a request must have the field.
func (f *field) required() bool { return !f.nilable }

// allowed says what the field may hold, for people.
func (f *field) allowed() string {
	switch {
	case f.value == rawType:
		return "must be an object"
	case f.value == permissionsType:
		return `must be a map {"resource":["action"]} or a list ["resource:action"]`
	case f.value == stringsType && f.enum != nil:
		return "must be a list of " + words(f.enum)
	case f.value == stringsType:
		return fmt.Sprintf("must be a list of %d to %d strings", f.min, f.max)
	case isList(f.value):
		return fmt.Sprintf("must be a list of %d to %d objects", f.min, f.max)
	case f.value == timeType:
		return "must be a time such as 2026-11-21T19:09:19.578Z, in the years 1970 to 9999"
	case f.enum != nil:
		return "must be one of " + strings.Join(f.enum, ", ")
	case f.value.Kind() == reflect.Int64:
		return fmt.Sprintf("must be an integer from %d to %d", f.min, f.max)
	case f.value.Kind() == reflect.Bool:
		return "must be true or false"
	case f.bounded:
		return fmt.Sprintf("must be a string of %d to %d characters", f.min, f.max)
	default:
		return "must be a string"
	}
}

// words lists words for people.
func words(list []string) string {
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " and " + list[last]
}

// target returns where the field's value goes in a struct, and makes it present.
func (f *field) target(in reflect.Value) reflect.Value {
	v := in.FieldByIndex(f.index)
	if f.optional {
		v = v.Field(1) // Value
	}
	if f.pointer || f.optional {
		v.Set(reflect.New(f.value))
		v = v.Elem()
	}
	return v
}

// mark notes that the field is there, where null is not the same as absent.
func (f *field) mark(in reflect.Value) {
	if f.optional {
		in.FieldByIndex(f.index).Field(0).SetBool(true) // Set
	}
}
