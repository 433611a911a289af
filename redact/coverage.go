package redact

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Log is a log that would print a key.
type Log struct {
	// Name is that in the configuration; "default" exists without one.
	Name string
	// Headers and Query are the places whose values it would print.
	Headers, Query []string
}

// Uncovered returns the logs of the configuration that ctx belongs to, by
// name, that would print the value of one of these headers or query parameters
// of a request.
//
// It finds out by trying: each log that receives entries of the HTTP app has its
// encoder encode a made-up request, which is not written anywhere. So it does
// not matter in what order encoders are wrapped, or whether `filter` does the
// masking; logs whose output is discarded, or which take other entries only
// (such as `include tls`), are not listed. The values tried carry no checksum.
func Uncovered(ctx caddy.Context, headers, query []string) []Log {
	conf := loggingOf(ctx)
	if conf == nil {
		return nil
	}
	var list []Log
	for name, log := range conf.Logs {
		probe := newLogProbe(headers, query)
		alone := caddy.Logging{Logs: map[string]*caddy.CustomLog{name: log}}
		// With lets every encoder add the field to a copy of itself, and thereby
		// hands the copy to the probe. Nothing is written.
		alone.Logger(httpEmitter{}).Core().With([]zap.Field{zap.Inline(probe)})
		if printed := probe.printed(); len(printed.Headers)+len(printed.Query) > 0 {
			printed.Name = name
			list = append(list, printed)
		}
	}
	slices.SortFunc(list, func(a, b Log) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// loggingOf returns the logging part of the configuration that is being loaded,
// nil if there is none. Caddy has no accessor for it, and until a configuration
// is in use nothing else leads there, hence the look inside: by type, so that
// renaming the field does no harm.
func loggingOf(ctx caddy.Context) *caddy.Logging {
	v := reflect.ValueOf(ctx)
	for i := range v.NumField() {
		if f := v.Field(i); f.Type() == reflect.TypeFor[*caddy.Config]() && !f.IsNil() {
			return (*caddy.Config)(f.UnsafePointer()).Logging
		}
	}
	return nil
}

// httpEmitter stands for everything in the HTTP app that logs.
type httpEmitter struct{}

func (httpEmitter) CaddyModule() caddy.ModuleInfo { return caddy.ModuleInfo{ID: "http"} }

// logProbe is a field that makes each encoder it is added to encode a request,
// and notes which of its values can be read in the outcome.
type logProbe struct {
	headers, query []string
	request        *http.Request
	seen           map[string]bool
}

func newLogProbe(headers, query []string) *logProbe {
	p := &logProbe{headers: headers, query: query, seen: make(map[string]bool)}
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", Host: "localhost", Header: make(http.Header)}
	for i, name := range headers {
		r.Header.Set(name, p.canary("h", i))
	}
	uri := "/"
	for i, name := range query {
		sep := "&"
		if i == 0 {
			sep = "?"
		}
		uri += sep + url.QueryEscape(name) + "=" + p.canary("q", i)
	}
	r.RequestURI = uri
	p.request = r
	return p
}

// canary is a value too short to be taken for a key.
func (*logProbe) canary(place string, i int) string {
	return fmt.Sprintf("canary.%s%d.", place, i)
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (p *logProbe) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	full, ok := enc.(zapcore.Encoder)
	if !ok { // a custom core, which takes the fields past every encoder
		p.note(func(string) bool { return true })
		return nil
	}
	buf, err := full.Clone().EncodeEntry(
		zapcore.Entry{LoggerName: "http.log.access", Message: "handled request"},
		[]zap.Field{zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: p.request})},
	)
	if err != nil {
		return err // it would not print a real entry either
	}
	defer buf.Free()
	p.note(func(canary string) bool { return bytes.Contains(buf.Bytes(), []byte(canary)) })
	return nil
}

func (p *logProbe) note(printed func(canary string) bool) {
	for place, names := range map[string][]string{"h": p.headers, "q": p.query} {
		for i := range names {
			if c := p.canary(place, i); printed(c) {
				p.seen[c] = true
			}
		}
	}
}

func (p *logProbe) printed() (u Log) {
	for i, name := range p.headers {
		if p.seen[p.canary("h", i)] {
			u.Headers = append(u.Headers, name)
		}
	}
	for i, name := range p.query {
		if p.seen[p.canary("q", i)] {
			u.Query = append(u.Query, name)
		}
	}
	return u
}
