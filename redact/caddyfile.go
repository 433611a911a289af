package redact

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap/zapcore"
)

// UnmarshalCaddyfile sets up the encoder from Caddyfile tokens. Syntax:
//
//	apikey_redact [json|console] {
//	    headers <names...>
//	    query   <names...>
//	    wrap    <another encoder>
//	}
//
// What gates and self-service APIs read is masked without being named. `headers` and
// `query` add to that, and may be repeated.
// `wrap` takes the place of json|console, for an encoder with options or another
// one than these.
func (e *Encoder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume encoder name
	if d.NextArg() {
		format := d.Val()
		if format != "json" && format != "console" {
			return d.Errf("unknown format %q: allowed are json and console; for another encoder, use wrap in a block", format)
		}
		e.WrappedRaw = caddyconfig.JSON(map[string]string{"format": format}, nil)
		if d.NextArg() {
			return d.Errf("unexpected %q: only one format is allowed, json or console", d.Val())
		}
	}
	for d.NextBlock(0) {
		var err error
		switch d.Val() {
		case "headers":
			err = unmarshalNames(d, &e.Headers, checkHeader)
		case "query":
			err = unmarshalNames(d, &e.Query, checkQuery)
		case "wrap":
			err = unmarshalWrap(d, &e.WrappedRaw)
		default:
			err = d.Errf("unknown subdirective %q: allowed are headers, query and wrap", d.Val())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshalNames adds the arguments of a subdirective to names.
func unmarshalNames(d *caddyfile.Dispenser, names *[]string, check func(string) error) error {
	option := d.Val()
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("%s needs one or more names", option)
	}
	for _, name := range args {
		if err := check(name); err != nil {
			return d.Errf("%s: %v", option, err)
		}
	}
	*names = append(*names, args...)
	return nil
}

// unmarshalWrap reads the encoder to wrap, with its own block.
func unmarshalWrap(d *caddyfile.Dispenser, raw *json.RawMessage) error {
	if *raw != nil {
		return d.Err("the encoder to wrap is given twice: name it once, as json or console behind apikey_redact or with wrap")
	}
	if !d.NextArg() {
		return d.Err("wrap needs the name of an encoder, such as json or console")
	}
	name := d.Val()
	id := "caddy.logging.encoders." + name
	mod, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return err
	}
	enc, ok := mod.(zapcore.Encoder)
	if !ok {
		return d.Errf("wrap: module %s (%T) is not an encoder", id, mod)
	}
	*raw = caddyconfig.JSONModuleObject(enc, "format", name, nil)
	return nil
}
