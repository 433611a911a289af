package apikey

import (
	"cmp"
	"encoding/json"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("apikey", parseGlobalOption)
	httpcaddyfile.RegisterDirective("apikey", parseGate)
	httpcaddyfile.RegisterDirectiveOrder("apikey", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterHandlerDirective("apikey_api", parseSelfService)
	httpcaddyfile.RegisterDirectiveOrder("apikey_api", httpcaddyfile.After, "forward_auth")
}

func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next()
		return nil, d.Err("the global option apikey is already specified")
	}
	var a App
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "apikey", Value: caddyconfig.JSON(a, nil)}, nil
}

// parseGate makes the route of a gate. Where a matcher lets requests pass by the gate,
// a second route removes from those what only the gate may set: it has no matcher, so
// that Caddy sorts it behind the gates and before the directives that follow them.
func parseGate(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	g, start := new(Gate), *h.Dispenser
	if err := cmp.Or(g.UnmarshalCaddyfile(h.Dispenser), checkConfigNames(h, start)); err != nil {
		return nil, err
	}
	routes := h.NewRoute(matcher, g)
	if matcher != nil && len(g.IdentityHeaders) > 0 {
		routes = append(routes, h.NewRoute(nil, newClean(g.IdentityHeaders))...)
	}
	return routes, nil
}

func parseSelfService(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	s, start := new(SelfService), *h.Dispenser
	return s, cmp.Or(s.UnmarshalCaddyfile(h.Dispenser), checkConfigNames(h, start))
}

// located adds the position of d to an error, if there is one.
func located(d *caddyfile.Dispenser, err error) error {
	if err == nil {
		return nil
	}
	return d.WrapErr(err)
}

// The functions below read the arguments of the option that d is at into the
// field of that option. All but appendArgs are for options that may be specified
// only once: they return an error if the field is already set.

// once returns an error if the option that d is at was already specified.
func once(d *caddyfile.Dispenser, specified bool) error {
	if specified {
		return d.Errf("%s already specified", d.Val())
	}
	return nil
}

// appendArgs appends one or more arguments. The option may be repeated.
func appendArgs(d *caddyfile.Dispenser, dst *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*dst = append(*dst, args...)
	return nil
}

// unmarshalSource reads the options headers, authorization and bearer, which say where a
// key may be.
func unmarshalSource(d *caddyfile.Dispenser, headers, authorization *[]string) error {
	switch d.Val() {
	case "headers":
		return readList(d, headers)
	case "authorization":
		return readList(d, authorization)
	}
	var bearer *bool // short for authorization Bearer, or off
	if err := readOnOff(d, &bearer); err != nil {
		return err
	}
	switch {
	case *bearer:
		*authorization = append(*authorization, bearerScheme)
	case *authorization != nil:
		return d.Err("bearer: off cannot be combined with other values of authorization")
	default:
		*authorization = []string{}
	}
	return nil
}

// readList reads one or more arguments, or "off" for an empty list. The option may be
// repeated.
func readList(d *caddyfile.Dispenser, dst *[]string) error {
	if done, err := readListSwitch(d, dst); done {
		return err
	}
	return appendArgs(d, dst)
}

// readOnce reads as many arguments as there are targets.
func readOnce(d *caddyfile.Dispenser, specified bool, targets ...*string) error {
	if err := once(d, specified); err != nil {
		return err
	}
	if !d.AllArgs(targets...) {
		return d.ArgErr()
	}
	return nil
}

// readString reads one argument.
func readString(d *caddyfile.Dispenser, dst *string) error { return readOnce(d, *dst != "", dst) }

// readNonEmpty reads one argument, for options where an empty one would be taken
// for the default.
func readNonEmpty(d *caddyfile.Dispenser, dst *string) error {
	option := d.Val()
	if err := readString(d, dst); err != nil {
		return err
	}
	if *dst == "" {
		return d.Errf("%s: must not be empty", option)
	}
	return nil
}

// readStringPtr reads one argument, for options where an empty one is not the
// default.
func readStringPtr(d *caddyfile.Dispenser, dst **string) error {
	s := new(string)
	err := readOnce(d, *dst != nil, s)
	*dst = s
	return err
}

// readFlag reads an option without arguments.
func readFlag(d *caddyfile.Dispenser, dst *bool) error {
	if err := once(d, *dst); err != nil {
		return err
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	*dst = true
	return nil
}

// readOnOff reads [on|off].
func readOnOff(d *caddyfile.Dispenser, dst **bool) error {
	option := d.Val()
	if err := once(d, *dst != nil); err != nil {
		return err
	}
	value := true
	if d.NextArg() {
		switch d.Val() {
		case "on":
		case "off":
			value = false
		default:
			return d.Errf("%s: must be on or off, not %q", option, d.Val())
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	*dst = &value
	return nil
}

// readPositive reads an integer above 0.
func readPositive(d *caddyfile.Dispenser, dst *int) error {
	option, s := d.Val(), ""
	if err := readOnce(d, *dst != 0, &s); err != nil {
		return err
	}
	n, err := strconv.Atoi(s)
	if err != nil || n == 0 {
		return d.Errf("%s: must be an integer above 0, not %q", option, s)
	}
	*dst = n
	return nil
}

// readRange reads <min> <max>.
func readRange(d *caddyfile.Dispenser, dst **Range) error {
	option, lowest, highest := d.Val(), "", ""
	if err := readOnce(d, *dst != nil, &lowest, &highest); err != nil {
		return err
	}
	r := new(Range)
	var err error
	if r.Min, err = strconv.Atoi(lowest); err == nil {
		r.Max, err = strconv.Atoi(highest)
	}
	if err != nil {
		return d.Errf("%s: must be two integers", option)
	}
	*dst = r
	return nil
}

// readDuration reads a duration. Its caller calls once.
func readDuration(d *caddyfile.Dispenser, dst *caddy.Duration) error {
	option, s := d.Val(), ""
	if err := readString(d, &s); err != nil {
		return err
	}
	value, err := caddy.ParseDuration(s)
	if err != nil {
		return d.Errf("%s: must be a duration such as 90d or 1h30m, not %q", option, s)
	}
	*dst = caddy.Duration(value)
	return nil
}

// readDurationOrOff reads a duration, or "off" for none. "on" leaves the default.
func readDurationOrOff(d *caddyfile.Dispenser, dst **caddy.Duration) error {
	if err := once(d, *dst != nil); err != nil {
		return err
	}
	word := readSwitch(d)
	if word == "on" {
		return nil
	}
	*dst = new(caddy.Duration)
	if word == "off" {
		return nil
	}
	return readDuration(d, *dst)
}

// readModule reads the name of a module and the module's own arguments and block
// into the JSON that loads it.
func readModule(d *caddyfile.Dispenser, namespace, inlineKey string, dst *json.RawMessage) error {
	if err := once(d, *dst != nil); err != nil {
		return err
	}
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	if err := checkModule(namespace, inlineKey, name); err != nil {
		return d.WrapErr(err)
	}
	module, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil {
		return err
	}
	*dst = caddyconfig.JSONModuleObject(module, inlineKey, name, nil)
	return nil
}

// readListSwitch reads the only argument of a list option if it is "off", which
// sets an empty list and must be the only line of the option, or "on", which
// leaves the default. It returns false if the arguments are items of the list.
func readListSwitch[T any](d *caddyfile.Dispenser, list *[]T) (bool, error) {
	option := d.Val()
	word := readSwitch(d)
	switch {
	case word == "on":
		return true, nil
	case *list != nil && (word == "off" || len(*list) == 0):
		return true, d.Errf("%s: off cannot be combined with other values", option)
	case word == "off":
		*list = []T{}
		return true, nil
	}
	return false, nil
}

// readSwitch reads and returns the argument if it is the only one, and "on" or
// "off". Otherwise it reads nothing and returns an empty string.
func readSwitch(d *caddyfile.Dispenser) string {
	if d.CountRemainingArgs() != 1 || peek(d) != "on" && peek(d) != "off" {
		return ""
	}
	d.NextArg()
	return d.Val()
}

// peek returns the next argument without reading it.
func peek(d *caddyfile.Dispenser) string {
	next := *d
	next.NextArg()
	return next.Val()
}
