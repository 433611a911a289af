package api

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// schemas collects the JSON schemas of the wire types that a document names.
type schemas struct {
	all       object
	errorType reflect.Type
	timeout   bool // bodies have one
}

// of returns a schema for t: a reference, if it is a struct.
func (s *schemas) of(t reflect.Type, request bool) object {
	if t.Kind() != reflect.Struct {
		return s.plain(&field{value: t}, request)
	}
	if s.all.get(t.Name()) == nil {
		s.all.add(t.Name(), s.structure(t, request))
	}
	return object{{"$ref", "#/components/schemas/" + t.Name()}}
}

func (s *schemas) structure(t reflect.Type, request bool) object {
	var properties object
	required := []string{}
	for _, f := range fieldsOf(t, "json") {
		properties.add(f.name, s.property(&f, request))
		if request && f.required() || !request && (f.optional || !f.omitted) { // see Present
			required = append(required, f.name)
		}
	}
	return object{{"type", "object"}, {"properties", properties}, {"required", required}, {"additionalProperties", false}}
}

// property returns the schema of a field.
func (s *schemas) property(f *field, request bool) object {
	schema := s.plain(f, request)
	if f.nilable && !f.notNull {
		schema = nullable(schema)
	}
	if f.doc != "" {
		schema.add("description", f.doc)
	}
	return schema
}

// plain returns the schema of a field's value.
func (s *schemas) plain(f *field, request bool) object {
	words := object{{"type", "array"}, {"items", object{{"type", "string"}}}}
	switch t := f.value; {
	case t == timeType:
		return object{{"type", "string"}, {"format", "date-time"}, {"pattern", `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`}}
	case t == rawType:
		return object{{"type", "object"}}
	case t == permissionsType:
		byResource := object{{"type", "object"}, {"additionalProperties", words}}
		if request {
			return object{{"anyOf", []object{byResource, words}}}
		}
		return byResource
	case t == stringsType && f.enum != nil:
		return object{{"type", "array"}, {"items", object{{"type", "string"}, {"enum", f.enum}}}}
	case t == stringsType:
		if f.bounded {
			words.add("minItems", f.min)
			words.add("maxItems", f.max)
		}
		return words
	case t.Kind() == reflect.Slice:
		list := object{{"type", "array"}, {"items", s.of(f.object(), request)}}
		if f.bounded {
			list.add("maxItems", f.max)
		}
		return list
	case t.Kind() == reflect.Struct:
		return s.of(t, request)
	case t.Kind() == reflect.Int64:
		return object{{"type", "integer"}, {"format", "int64"}, {"minimum", f.min}, {"maximum", f.max}}
	case t.Kind() == reflect.Bool:
		return object{{"type", "boolean"}}
	default:
		return text(f)
	}
}

func text(f *field) object {
	schema := object{{"type", "string"}}
	if f.bounded {
		schema.add("minLength", f.min)
		schema.add("maxLength", f.max)
	}
	if f.enum != nil {
		schema.add("enum", f.enum)
	}
	return schema
}

// nullable also allows null.
func nullable(schema object) object {
	t, ok := schema.get("type").(string)
	if !ok || schema.get("enum") != nil {
		return object{{"anyOf", []object{schema, {{"type", "null"}}}}}
	}
	schema.set("type", []string{t, "null"})
	return schema
}

// object is a JSON object that keeps its order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) get(name string) any {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

func (o *object) add(name string, value any) { *o = append(*o, member{name, value}) }

func (o *object) set(name string, value any) {
	for i := range *o {
		if (*o)[i].name == name {
			(*o)[i].value = value
			return
		}
	}
	o.add(name, value)
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	b := bytes.NewBufferString("{")
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
