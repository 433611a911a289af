package admin

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"

	"github.com/caddy-apikey/caddy-apikey/internal/strictjson"
)

const introduction = `Keys and owners of caddy-apikey, on Caddy's admin endpoint. ` +
	`Bodies are JSON objects of at most 64 KiB, those of imports of at most 4 MiB. Names count to the letter; unknown and repeated ones are refused, in the query too. ` +
	`Integers are written plainly, without fraction and exponent. An error names the field that is to blame and repeats no value.`

// document makes the OpenAPI document of the table.
func document(all []*route, version string) json.RawMessage {
	s := schemas{}
	var paths object
	for _, rt := range all {
		item, _ := paths.get(rt.pattern).(object)
		item.add(lower(rt.method), s.operation(rt))
		paths.set(rt.pattern, item)
	}
	doc := object{
		{"openapi", "3.1.0"},
		{"info", object{{"title", "caddy-apikey admin API"}, {"version", version}, {"description", introduction}}},
		{"paths", paths},
		{"components", object{{"schemas", s.all}}},
	}
	b, err := strictjson.MarshalLine(doc)
	if err != nil {
		panic(err) // it holds nothing but text and numbers
	}
	return b
}

// operation describes one call.
func (s *schemas) operation(rt *route) object {
	op := object{{"operationId", rt.name}, {"summary", rt.summary}}
	if p := s.parameters(rt); p != nil {
		op.add("parameters", p)
	}
	if rt.body != noneType {
		op.add("requestBody", object{{"required", !rt.mayBeEmpty}, {"content", s.content(rt.body, true)}})
	}
	op.add("responses", s.responses(rt))
	return op
}

func (s *schemas) parameters(rt *route) []object {
	var all []object
	if name := rt.variable(); name != "" {
		all = append(all, object{
			{"name", name},
			{"in", "path"},
			{"required", true},
			{"schema", object{{"type", "string"}, {"minLength", 1}, {"maxLength", 255}}},
		})
	}
	for _, f := range rt.queryFields {
		p := object{{"name", f.name}, {"in", "query"}}
		if f.doc != "" {
			p.add("description", f.doc)
		}
		f.nilable, f.doc = false, "" // a query cannot be null
		p.add("schema", s.property(&f, true))
		all = append(all, p)
	}
	return all
}

func (s *schemas) responses(rt *route) object {
	good := object{{"description", http.StatusText(rt.status)}}
	switch rt.answer {
	case noneType:
	case reflect.TypeFor[stream]():
		good.add("content", object{{streamType, object{{"schema", object{{"type", "string"}, {"description", "one JSON object a line: " +
			`{"format":"caddy-apikey","version":1}, then {"owner":OwnerRecord} for every owner, then a KeyRecord for every key, then {"end":{"owners":n,"keys":n}} with how many there are`}}}}}})
	default:
		good.add("content", s.content(rt.answer, false))
	}
	out := object{{strconv.Itoa(rt.status), good}}
	bad := func(status int) { out.add(strconv.Itoa(status), s.response(http.StatusText(status), errorType)) }
	bad(http.StatusBadRequest)
	if rt.variable() != "" && rt.method != http.MethodPut {
		bad(http.StatusNotFound)
	}
	if rt.conflict {
		bad(http.StatusConflict)
	}
	if rt.body != noneType || rt.mayBeEmpty {
		bad(http.StatusRequestEntityTooLarge)
		bad(http.StatusUnsupportedMediaType)
	}
	switch {
	case rt.unhealthy:
		out.add("503", s.later(reflect.TypeFor[Unhealthy]()))
	case !rt.static:
		out.add("503", s.later(errorType))
	}
	out.add("default", s.response("any other error", errorType))
	return out
}

var errorType = reflect.TypeFor[Error]()

func (s *schemas) response(description string, t reflect.Type) object {
	return object{{"description", description}, {"content", s.content(t, false)}}
}

// later is a response that says when to try again.
func (s *schemas) later(t reflect.Type) object {
	r := s.response(http.StatusText(http.StatusServiceUnavailable), t)
	seconds := object{{"description", "seconds"}, {"schema", object{{"type", "integer"}}}}
	r.add("headers", object{{"Retry-After", seconds}})
	return r
}

func (s *schemas) content(t reflect.Type, request bool) object {
	return object{{"application/json", object{{"schema", s.of(t, request)}}}}
}
