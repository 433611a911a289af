package redact

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// Places are where requests may carry keys.
type Places struct {
	Headers, Query, Cookies []string
	// From are placeholders that read something else, such as a segment of the path.
	From []string
}

// Requests are the requests that one handler reads keys from.
type Requests struct {
	Places
	// Credentials tells that the server logs the values of Authorization and
	// Cookie, which Caddy masks unless log_credentials is on.
	Credentials bool
}

// Log is a log that would print keys.
type Log struct {
	// Name is that in the configuration; "default" exists without one.
	Name string
	// Places are those whose values it would print.
	Places
}

// Uncovered returns the logs of the configuration that ctx belongs to, by name,
// that would print a key from one of the places. The error says that there is no
// way to tell.
//
// Each log that receives entries of the HTTP app has its encoder encode made-up
// requests, which are not written anywhere. Therefore it does not matter in what
// order encoders are wrapped, or whether `filter` does the masking. Logs whose
// output is discarded and logs of other entries only (such as `include tls`) are
// not listed. Access and error logs are not told apart: Caddy logs the same
// request in both.
//
// The values tried are no keys, so that a place counts as covered if it is masked
// whatever it holds. Apart from a segment of the path, no encoder can know what From
// reads, so if checksums tells that all keys end in one, the values tried there do as
// well.
func Uncovered(ctx caddy.Context, requests []Requests, checksums bool) ([]Log, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	conf, err := configOf(ctx)
	if err != nil || conf == nil || conf.Logging == nil {
		return nil, err
	}
	var list []Log
	for name, log := range conf.Logging.Logs {
		p := probe{requests: requests, checksums: checksums}
		alone := caddy.Logging{Logs: map[string]*caddy.CustomLog{name: log}}
		// With makes every encoder add the field to a copy of itself, which passes
		// the copy to the probe. Nothing is written.
		alone.Logger(httpEmitter{}).Core().With([]zap.Field{zap.Inline(&p)})
		if p.printed.normalize() > 0 {
			list = append(list, Log{name, p.printed})
		}
	}
	slices.SortFunc(list, func(a, b Log) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

var errNoConfig = errors.New("this version of Caddy keeps its configuration elsewhere than expected")

// configOf returns the configuration in a caddy.Context, nil if it has none. Caddy
// has no accessor for it, and until a configuration is in use nothing else leads
// to its logs. The field is found by its type, so that it may be renamed.
func configOf(ctx any) (*caddy.Config, error) {
	v := reflect.ValueOf(ctx)
	for i := range v.NumField() {
		if f := v.Field(i); f.Type() == reflect.TypeFor[*caddy.Config]() {
			return (*caddy.Config)(f.UnsafePointer()), nil
		}
	}
	return nil, errNoConfig
}

// httpEmitter stands for everything in the HTTP app that logs.
type httpEmitter struct{}

func (httpEmitter) CaddyModule() caddy.ModuleInfo { return caddy.ModuleInfo{ID: "http"} }

// probe is a field that makes each encoder it is added to encode requests, and
// notes whose values can be read in the result.
type probe struct {
	requests  []Requests
	checksums bool
	printed   Places
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (p *probe) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	full, ok := enc.(zapcore.Encoder)
	if !ok { // a log core of another module, which may print whatever it is given
		full = zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
	}
	for i := range p.requests {
		t := p.newTrial(&p.requests[i])
		buf, err := full.Clone().EncodeEntry(
			zapcore.Entry{LoggerName: "http.log.access", Message: t.message},
			[]zap.Field{zap.Object("request", t.request)},
		)
		if err != nil {
			return err // it would not print a real entry either
		}
		for _, v := range t.values {
			if bytes.Contains(buf.Bytes(), []byte(v.value)) {
				*v.printed = append(*v.printed, v.place)
			}
		}
		buf.Free()
	}
	return nil
}

// trial is a made-up request with a value in each place.
type trial struct {
	request caddyhttp.LoggableHTTPRequest
	message string // holds what may be anywhere, and no filter of fields can reach
	values  []triedValue
}

// triedValue is added to printed, by the name of its place, if it can be read.
type triedValue struct {
	value, place string
	printed      *[]string
}

// maxSegments bounds the length of a made-up path.
const maxSegments = 1000

func (p *probe) newTrial(r *Requests) *trial {
	req := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", Host: "localhost", Header: make(http.Header)}
	t := &trial{message: "handled request", request: caddyhttp.LoggableHTTPRequest{Request: req, ShouldLogCredentials: r.Credentials}}
	for _, name := range r.Headers {
		req.Header.Add(name, t.value(name, &p.printed.Headers, false))
	}
	for _, name := range r.Cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: t.value(name, &p.printed.Cookies, false)}) //nolint:gosec // sent nowhere
	}
	segments, query := []string(nil), "?"
	for _, name := range r.Query {
		query += url.QueryEscape(name) + "=" + t.value(name, &p.printed.Query, false) + "&"
	}
	for _, name := range r.From {
		value := t.value(name, &p.printed.From, p.checksums)
		switch n, ok := segmentOf(name); {
		case ok && n < maxSegments:
			for len(segments) < n {
				segments = append(segments, "x")
			}
			segments = slices.Insert(segments, n, value)
		case inURI(name):
			segments = append(segments, value)
		default:
			t.message += " " + value
		}
	}
	req.RequestURI = "/" + strings.Join(segments, "/") + query
	return t
}

// value returns a value to try in a place.
func (t *trial) value(place string, printed *[]string, checksum bool) string {
	value := fmt.Sprintf("canary.%d.", len(t.values))
	if checksum {
		value, _ = key.Random{}.Generate("", key.MinLength, true) // it fails for other lengths only
	}
	t.values = append(t.values, triedValue{value, place, printed})
	return value
}

func inURI(placeholder string) bool {
	return strings.HasPrefix(placeholder, "{http.request.uri") || strings.HasPrefix(placeholder, "{http.request.orig_uri")
}

// normalize sorts the names, leaves each once and returns how many there are.
func (p *Places) normalize() (n int) {
	for _, list := range []*[]string{&p.Headers, &p.Query, &p.Cookies, &p.From} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
		n += len(*list)
	}
	return n
}
