package apikey

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/caddy-apikey/caddy-apikey/internal/near"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// place is a block of a Caddyfile that has options of ours.
type place string

const (
	inApp          place = "the global option apikey"
	inConfig       place = "a config block of the global option apikey"
	inExpiration   place = "an expiration block of the global option apikey"
	inTier         place = "a tier block of the global option apikey"
	inWebhook      place = "a webhook block of the global option apikey"
	inGate         place = "the directive apikey"
	inAPI          place = "the directive apikey_api"
	inOrganization place = "an organization block of the directive apikey_api"
)

// optionPlaces is the list of all options, with the blocks in which each one is
// allowed. It serves the messages about options that are misspelt or in the wrong
// block.
var optionPlaces = []struct {
	name   string
	places []place
}{
	{"allow", []place{inOrganization}},
	{"audit", []place{inApp}},
	{"authorization", []place{inApp, inGate, inAPI}},
	{"base", []place{inAPI}},
	{"bearer", []place{inApp, inGate, inAPI}},
	{"cache_size", []place{inApp}},
	{"checksum", []place{inApp, inConfig}},
	{"config", []place{inApp, inGate, inAPI, inOrganization}},
	{"cost", []place{inGate}},
	{"creator_role", []place{inOrganization}},
	{"credits", []place{inApp}},
	{"cut_on_revoke", []place{inGate}},
	{"default", []place{inExpiration}},
	{"default_tier", []place{inApp}},
	{"dialect", []place{inAPI}},
	{"events", []place{inWebhook}},
	{"expiration", []place{inApp, inConfig}},
	{"expiring", []place{inApp, inWebhook}},
	{"extended", []place{inAPI}},
	{"fixed", []place{inExpiration}},
	{"from", []place{inGate, inAPI}},
	{"generator", []place{inApp, inConfig}},
	{"grant", []place{inAPI}},
	{"guess_limit", []place{inApp}},
	{"headers", []place{inApp, inGate, inAPI}},
	{"identity_header", []place{inGate}},
	{"idle", []place{inApp, inWebhook}},
	{"keep", []place{inExpiration}},
	{"keep_key", []place{inGate}},
	{"leak_reports", []place{inAPI}},
	{"length", []place{inApp, inConfig}},
	{"limit", []place{inTier}},
	{"max", []place{inExpiration}},
	{"max_keys", []place{inApp, inConfig}},
	{"message", []place{inAPI}},
	{"metadata", []place{inApp, inConfig}},
	{"min", []place{inExpiration}},
	{"name_length", []place{inApp, inConfig}},
	{"optional", []place{inGate}},
	{"organization", []place{inAPI}},
	{"permissions", []place{inApp, inConfig, inTier}},
	{"preflight", []place{inGate}},
	{"prefix", []place{inApp, inConfig}},
	{"prefix_length", []place{inApp, inConfig}},
	{"public", []place{inConfig}},
	{"query", []place{inGate, inAPI}},
	{"rate_headers", []place{inGate}},
	{"rate_limit", []place{inApp, inConfig}},
	{"rate_limiting", []place{inApp, inConfig}},
	{"refund_on", []place{inGate}},
	{"require", []place{inGate}},
	{"require_any", []place{inGate}},
	{"require_name", []place{inApp, inConfig}},
	{"role", []place{inOrganization}},
	{"secret", []place{inGate, inAPI, inWebhook}},
	{"secret_prefix", []place{inApp}},
	{"session", []place{inConfig, inGate}},
	{"start", []place{inApp, inConfig}},
	{"store", []place{inApp}},
	{"table_prefix", []place{inApp}},
	{"thresholds", []place{inApp, inWebhook}},
	{"tier", []place{inApp}},
	{"time_zone", []place{inApp}},
	{"trusted_origins", []place{inAPI}},
	{"user", []place{inAPI}},
	{"validate", []place{inApp, inConfig}},
	{"webhook", []place{inApp}},
}

// directives are names that stand in a site. One that stands in a block of options
// shows that the block was not closed.
var directives = []string{
	"abort", "acme_server", "apikey", "apikey_api", "basic_auth", "basicauth", "bind", "encode", "error", "file_server", "forward_auth", "fs",
	"handle", "handle_errors", "handle_path", "header", "intercept", "invoke", "log", "log_append", "log_level", "log_name", "log_skip", "map", "method",
	"metrics", "php_fastcgi", "push", "redir", "request_body", "request_header", "respond", "reverse_proxy", "rewrite", "root", "route",
	"skip_log", "templates", "timeouts", "tls", "tracing", "try_files", "uri", "vars",
}

// unknownOption returns the error about the option that d is at, which the block
// does not have. It says what was probably meant.
func unknownOption(d *caddyfile.Dispenser, block place) error {
	name := d.Val()
	return d.Errf("unknown option %q%s", name, adviceOn(name, block))
}

func adviceOn(name string, block place) string {
	if places := placesOf(name); places != nil {
		return ": it belongs in " + near.List(places)
	}
	var here, all []string
	for _, o := range optionPlaces {
		all = append(all, o.name)
		if slices.Contains(o.places, block) {
			here = append(here, o.name)
		}
	}
	if meant := near.Word(name, here...); meant != "" {
		return ": did you mean " + meant + "?"
	}
	if slices.Contains(directives, name) || strings.ContainsAny(name, ".:/*{}@") || name == "localhost" {
		return fmt.Sprintf(": this line is in the block of %s. Is a closing brace } missing above it?", strings.TrimPrefix(string(block), "the "))
	}
	if meant := near.Word(name, all...); meant != "" {
		return ": did you mean " + meant + ", which belongs in " + near.List(placesOf(meant)) + "?"
	}
	return ""
}

// placesOf returns the blocks that have an option, or nil if there is none.
func placesOf(name string) (places []string) {
	for _, o := range optionPlaces {
		if o.name == name {
			for _, p := range o.places {
				places = append(places, string(p))
			}
		}
	}
	return places
}

// checkModule returns an error if this build of Caddy has no module of a name, and
// says which ones there are.
func checkModule(namespace, option, name string) error {
	if _, err := caddy.GetModule(namespace + "." + name); err == nil {
		return nil
	}
	var names []string
	for _, m := range caddy.GetModules(namespace) {
		names = append(names, m.ID.Name())
	}
	return fmt.Errorf("%s: there is no %s %q in this build of Caddy: %s", option, option, name, near.OneOf(name, names...))
}

// checkInlineModule is checkModule for a module in JSON that has its name under the
// key option.
func checkInlineModule(namespace, option string, raw json.RawMessage) error {
	var fields map[string]json.RawMessage
	var name string
	if json.Unmarshal(raw, &fields) != nil || json.Unmarshal(fields[option], &name) != nil {
		return nil //nolint:nilerr // loading the module reports it
	}
	return checkModule(namespace, option, name)
}

// checkConfigNames returns an error for the first configuration that the options
// config of a directive name and that the global options lack. Without it, only the
// server would find out, and could not tell the line.
func checkConfigNames(h httpcaddyfile.Helper, d caddyfile.Dispenser) error {
	known := []string{key.DefaultConfig}
	if global, ok := h.Option("apikey").(httpcaddyfile.App); ok {
		var a struct{ Configs []struct{ ID string } }
		if err := json.Unmarshal(global.Value, &a); err != nil {
			return fmt.Errorf("the global option apikey: %w", err)
		}
		for _, c := range a.Configs {
			known = append(known, c.ID)
		}
	}
	d.Next() // directive name
	d.RemainingArgs()
	return checkConfigOptions(&d, known)
}

// checkConfigOptions does it for one block, and those within it.
func checkConfigOptions(d *caddyfile.Dispenser, known []string) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		isConfig := d.Val() == "config"
		for d.NextArg() {
			if isConfig && !slices.Contains(known, d.Val()) {
				return d.WrapErr(unknownConfig(d.Val(), known))
			}
		}
		if err := checkConfigOptions(d, known); err != nil {
			return err
		}
	}
	return nil
}
