package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"
)

// Document is the endpoint that answers with the OpenAPI document of its API.
func Document() Endpoint {
	return Plain(func(c *Call) (json.RawMessage, error) { return c.api.document, nil })
}

// document makes the OpenAPI document of a table of routes.
func document(base string, timeout bool, d Dialect, routes []*Route) json.RawMessage {
	s := schemas{errorType: reflect.TypeOf(d.ErrorBody), timeout: timeout}
	var paths object
	for _, rt := range routes {
		if rt.Name == "" {
			continue
		}
		item, _ := paths.get(base + rt.Path).(object)
		item.add(strings.ToLower(rt.Method), s.operation(rt))
		paths.set(base+rt.Path, item)
	}
	b, err := MarshalLine(object{
		{"openapi", "3.1.0"},
		{"info", object{{"title", d.Title}, {"version", d.Version}, {"description", d.Description}}},
		{"paths", paths},
		{"components", object{{"schemas", s.all}}},
	})
	if err != nil {
		panic(err) // it holds nothing but text and numbers
	}
	return b
}

// operation describes one call.
func (s *schemas) operation(rt *Route) object {
	op := object{{"operationId", rt.Name}, {"summary", rt.Summary}}
	if p := s.parameters(rt); p != nil {
		op.add("parameters", p)
	}
	if rt.body != noneType {
		op.add("requestBody", object{{"required", !rt.OptionalBody}, {"content", s.content(rt.body, true)}})
	}
	op.add("responses", s.responses(rt))
	return op
}

func (s *schemas) parameters(rt *Route) []object {
	var all []object
	if name := rt.variable(); name != "" {
		all = append(all, object{
			{"name", name},
			{"in", "path"},
			{"required", true},
			{"schema", object{{"type", "string"}, {"minLength", 1}, {"maxLength", 255}}},
		})
	}
	for _, f := range fieldsOf(rt.query, "query") {
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

func (s *schemas) responses(rt *Route) object {
	good := object{{"description", http.StatusText(rt.Status)}}
	switch rt.answer {
	case noneType:
	case reflect.TypeFor[Stream]():
		good.add("content", object{{StreamType, object{{"schema", object{{"type", "string"}, {"description", rt.Stream}}}}}})
	case reflect.TypeFor[File]():
		good.add("content", object{{rt.File, object{{"schema", object{{"type", "string"}, {"format", "binary"}}}}}})
	default:
		good.add("content", s.content(rt.answer, false))
	}
	out := object{{strconv.Itoa(rt.Status), good}}
	bad := func(status int) { out.add(strconv.Itoa(status), s.failure(http.StatusText(status), s.errorType)) }
	bad(http.StatusBadRequest)
	if rt.variable() != "" && rt.Method != http.MethodPut {
		bad(http.StatusNotFound)
	}
	if rt.Conflict {
		bad(http.StatusConflict)
	}
	if rt.takesBody() {
		if s.timeout {
			bad(http.StatusRequestTimeout)
		}
		bad(http.StatusRequestEntityTooLarge)
		bad(http.StatusUnsupportedMediaType)
	}
	switch {
	case rt.Unavailable != nil:
		out.add("503", s.later(reflect.TypeOf(rt.Unavailable)))
	case !rt.Public:
		out.add("503", s.later(s.errorType))
	}
	out.add("default", s.failure("any other error", s.errorType))
	return out
}

func (s *schemas) failure(description string, t reflect.Type) object {
	return object{{"description", description}, {"content", s.content(t, false)}}
}

// later is a response that says when to try again.
func (s *schemas) later(t reflect.Type) object {
	r := s.failure(http.StatusText(http.StatusServiceUnavailable), t)
	seconds := object{{"description", "seconds"}, {"schema", object{{"type", "integer"}}}}
	r.add("headers", object{{"Retry-After", seconds}})
	return r
}

func (s *schemas) content(t reflect.Type, request bool) object {
	return object{{"application/json", object{{"schema", s.of(t, request)}}}}
}
