package cli

import (
	"encoding/json"
	"reflect"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

// clearing tells what "no-" in front of a flag clears.
var clearing = []struct {
	flag, usage string
	clear       func(*admin.PatchKey)
}{
	{"name", "no name", func(in *admin.PatchKey) { in.Name = api.Null[string]() }},
	{"expires-in", "the key never expires", func(in *admin.PatchKey) { in.ExpiresIn = api.Null[int64]() }},
	{"remaining", "unlimited credits", func(in *admin.PatchKey) { in.Remaining = api.Null[int64]() }},
	{"refill", "no refill", func(in *admin.PatchKey) {
		in.RefillAmount, in.RefillInterval = api.Null[int64](), api.Null[int64]()
	}},
	{"rate-limit", "no rate limit", func(in *admin.PatchKey) {
		in.RateLimitMax, in.RateLimitTimeWindow = api.Null[int64](), api.Null[int64]()
	}},
	{"permission", "no permissions", func(in *admin.PatchKey) { in.Permissions = api.Null[key.Permissions]() }},
	{"metadata", "no metadata", func(in *admin.PatchKey) { in.Metadata = api.Null[json.RawMessage]() }},
	{"allowed-ip", "usable from everywhere", func(in *admin.PatchKey) { in.AllowedIPs = api.Null[[]string]() }},
}

func (h *Host) update() *cobra.Command {
	var x fields
	var add *int64
	cmd := h.command("update <id> [flags]", "Changes a key", oneArg("the id of the key"), func(c *call) error {
		in := admin.PatchKey{RemainingDelta: some(add)}
		if err := x.update(&in); err != nil {
			return err
		}
		for _, field := range clearing {
			if yes, err := c.Flags().GetBool("no-" + field.flag); yes && err == nil {
				field.clear(&in)
			}
		}
		if reflect.ValueOf(in).IsZero() {
			return WrongUsage("there is nothing to change: give at least one flag")
		}
		a, err := c.client.PatchKey(c.ctx, c.args[0], in)
		return answer(c, a, err, details)
	})
	cmd.Long = `Changes a key. What no flag names stays as it is.

"no-" in front of a flag clears what the flag sets: --no-expires-in makes a key
that never expires, --no-remaining one with unlimited credits. Lists and metadata
are replaced whole. --add changes the credits by a number, safely beside requests
that spend them.`
	cmd.Example = `  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --name "build server" --expires-in 90d
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --add 500
  caddy apikey update 6a1f0c2d9b3e4f5a6b7c8d9e --no-rate-limit --no-allowed-ip`
	x.define(h, cmd)
	f := cmd.Flags()
	value(f, &add, "add", "`number` of credits to add; below zero takes them away", parseNumber)
	boolean(f, "enabled", "the key works", on(&x.enabled))
	boolean(f, "disabled", "the key does not work", off(&x.enabled))
	for _, field := range clearing {
		f.Bool("no-"+field.flag, false, field.usage)
		cmd.MarkFlagsMutuallyExclusive(field.flag, "no-"+field.flag)
	}
	cmd.MarkFlagsMutuallyExclusive("enabled", "disabled")
	cmd.MarkFlagsMutuallyExclusive("add", "remaining")
	cmd.MarkFlagsMutuallyExclusive("add", "no-remaining")
	cmd.MarkFlagsMutuallyExclusive("metadata-json", "no-metadata")
	return cmd
}

// update fills in a request from the flags.
func (x *fields) update(in *admin.PatchKey) error {
	in.UserID, in.Name, in.ExpiresIn, in.Enabled = some(x.owner), some(x.name), some(x.expiresIn), some(x.enabled)
	in.RateLimitAlgorithm, in.RateLimitEnabled = some(x.algorithm), some(x.limited)
	if x.remaining != nil {
		in.Remaining = api.Optional[int64]{Set: true, Value: x.remaining.n}
	}
	if x.refill != nil {
		in.RefillAmount, in.RefillInterval = some(&x.refill.amount), some(&x.refill.millis)
	}
	if x.rateLimit != nil {
		in.RateLimitMax, in.RateLimitTimeWindow = some(&x.rateLimit.amount), some(&x.rateLimit.millis)
	}
	if x.allowedIPs != nil {
		in.AllowedIPs = some(&x.allowedIPs)
	}
	p, err := x.wantedPermissions()
	if err != nil {
		return err
	}
	if p != nil {
		in.Permissions = some(&p)
	}
	m, err := x.wantedMetadata()
	if m != nil {
		in.Metadata = some(&m)
	}
	return err
}

// some is absent for nil.
func some[T any](v *T) api.Optional[T] { return api.Optional[T]{Set: v != nil, Value: v} }
