// Package redact masks API keys in logs: an encoder for Caddy (module
// caddy.logging.encoders.apikey_redact) and a probe for logs that would print keys.
package redact

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/term"
)

func init() {
	caddy.RegisterModule((*Encoder)(nil))
}

// redacted stands in for whatever was masked. It is Caddy's own word, see
// caddyhttp.LoggableHTTPHeader.
const redacted = "REDACTED"

// defaultHeaders are always masked.
var defaultHeaders = []string{"X-API-Key", "X-API-Secret"}

// Encoder masks API keys in log lines. It lets another encoder write the line, then
// replaces with REDACTED, wherever in the line it stands (fields, message, error text,
// what was added with With):
//
//   - the values of the headers X-API-Key, X-API-Secret, those in `headers`, and those
//     that a gate or a self-service API reads keys from, Authorization among them. Names
//     match in any case, with "-", "_" and "." taken for one another, and in their CGI
//     form (HTTP_X_API_KEY). Every value of a list is masked, whatever it looks like. In
//     plain text ("X-API-Key: abc") the value reaches to the end of the line;
//   - the values of the query parameters in `query` and those that a gate or a
//     self-service API reads, with names that match alike and may be percent-encoded, up
//     to the next "&", blank or closing quote. A ";" does not end one, because Go does
//     not split queries there. A URL that is itself percent-encoded inside another one is
//     looked into, one level deep;
//   - the values of the cookies that a gate or a self-service API reads;
//   - if one reads a segment of the path ({http.request.uri.path.1}), that segment of
//     every path and URL, and any other segment of at least 20 key characters, because a
//     prefix may be stripped from the path before the gate;
//   - API keys and secrets with a checksum: a run of at least 32 key characters
//     (0-9 A-Z a-z _ -, of which any may be percent-encoded once), up to 512,
//     whose last six characters are the checksum of those before them. It is
//     found with other key characters directly before or behind it, too, and
//     only the key is replaced. Looking for those costs time that grows with
//     the square of the run, so it has a limit per line (some 6 KiB of random
//     characters without a gap); runs beyond it are masked whole.
//
// The places of gates and self-service APIs need no option here: whatever the
// configurations in use read is masked in every log of the process. A name is looked for
// where a ":" or "=" follows it. What is not found: keys made without a checksum outside
// these places, and keys in another encoding (Base64, or percent-encoded twice).
//
// JSON stays valid JSON, and lines without a key are left as they are. To cover
// everything, use this encoder for the default log as well as for the access
// logs: errors and the admin endpoint are logged there.
type Encoder struct {
	// The encoder that writes the lines. Default: `json`, or `console` if the
	// log goes to a terminal.
	WrappedRaw json.RawMessage `json:"wrap,omitempty" caddy:"namespace=caddy.logging.encoders inline_key=format"`

	// Names of headers to mask in addition to X-API-Key, X-API-Secret and those that
	// gates and self-service APIs read. Default: none.
	Headers []string `json:"headers,omitempty"`

	// Names of query parameters to mask in addition to those that gates and
	// self-service APIs read. Default: none.
	Query []string `json:"query,omitempty"`

	zapcore.Encoder `json:"-"`

	mask             *masks
	wrappedIsDefault bool
	ctx              caddy.Context
}

// CaddyModule returns the Caddy module information.
func (*Encoder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.encoders.apikey_redact",
		New: func() caddy.Module { return new(Encoder) },
	}
}

// Provision sets up the encoder.
func (e *Encoder) Provision(ctx caddy.Context) error {
	e.ctx = ctx
	for _, name := range e.Headers {
		if err := checkHeader(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
	}
	for _, name := range e.Query {
		if err := checkQuery(name); err != nil {
			return fmt.Errorf("query: %w", err)
		}
	}
	e.mask = &masks{headers: e.Headers, query: e.Query}

	if e.WrappedRaw == nil {
		e.wrappedIsDefault = true
		return e.wrap(new(logging.JSONEncoder))
	}
	mod, err := ctx.LoadModule(e, "WrappedRaw")
	if err != nil {
		return fmt.Errorf("loading wrapped encoder: %w", err)
	}
	enc, ok := mod.(zapcore.Encoder)
	if !ok {
		return fmt.Errorf("wrap: %T is not an encoder", mod)
	}
	e.Encoder = enc
	return nil
}

// ConfigureDefaultFormat picks `console` for a terminal when no format was
// chosen, like Caddy's own wrapping encoders, and hands the writer on otherwise.
func (e *Encoder) ConfigureDefaultFormat(wo caddy.WriterOpener) error {
	if !e.wrappedIsDefault {
		if inner, ok := e.Encoder.(caddy.ConfiguresFormatterDefault); ok {
			return inner.ConfigureDefaultFormat(wo)
		}
		return nil
	}
	if caddy.IsWriterStandardStream(wo) && term.IsTerminal(int(os.Stderr.Fd())) {
		return e.wrap(new(logging.ConsoleEncoder))
	}
	return nil
}

// wrap provisions one of Caddy's encoders and puts it to use.
func (e *Encoder) wrap(enc zapcore.Encoder) error {
	if p, ok := enc.(caddy.Provisioner); ok {
		if err := p.Provision(e.ctx); err != nil {
			return fmt.Errorf("provisioning default encoder: %w", err)
		}
	}
	e.Encoder = enc
	return nil
}

// Clone implements zapcore.Encoder.
func (e *Encoder) Clone() zapcore.Encoder {
	return &Encoder{Encoder: e.Encoder.Clone(), mask: e.mask}
}

// EncodeEntry implements zapcore.Encoder. Masking the finished line, rather than
// the fields, also reaches what With encoded before and what the message says.
func (e *Encoder) EncodeEntry(ent zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	buf, err := e.Encoder.EncodeEntry(ent, fields)
	if err != nil {
		return buf, err
	}
	found := e.mask.masker().find(buf.Bytes())
	if len(found) == 0 {
		return buf, nil
	}
	out := buffers.Get()
	writeMasked(out, buf.Bytes(), found)
	buf.Free()
	return out, nil
}

var buffers = buffer.NewPool()

// checkHeader accepts any field name of RFC 9110, 5.1: other than the
// gate, the logs also see headers that Caddy drops, such as X_API_Key.
func checkHeader(name string) error {
	if !httpguts.ValidHeaderFieldName(name) {
		return fmt.Errorf("%q is not a header name: allowed are letters, digits and !#$%%&'*+-.^_`|~", name)
	}
	return nil
}

// checkQuery accepts what a "key=value" pair can be recognised by.
func checkQuery(name string) error {
	if name == "" {
		return errors.New("a parameter name is empty")
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c == 0x7f || strings.IndexByte(`&;=%#"\`, c) >= 0 {
			return fmt.Errorf(`%q cannot be masked: a parameter name must be given decoded, without control characters and &;=%%#"\`, name)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner                = (*Encoder)(nil)
	_ caddy.ConfiguresFormatterDefault = (*Encoder)(nil)
	_ caddyfile.Unmarshaler            = (*Encoder)(nil)
	_ zapcore.Encoder                  = (*Encoder)(nil)
	_ zapcore.ObjectMarshaler          = (*probe)(nil)
)
