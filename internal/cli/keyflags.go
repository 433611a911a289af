package cli

import (
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// keyFlag is a flag of both create and update.
type keyFlag struct {
	name  string
	value *flagValue
	usage string
	// no describes the flag "no-<name>" of update, which clears what the flag
	// sets. Empty: there is none.
	no string
}

// keyFlags returns the flags for the fields that create and update share. This is
// the only place to change for a new one: create sends the same fields, which
// have the same JSON names in admin.CreateKey.
func (h *Host) keyFlags(in *admin.PatchKey) []keyFlag {
	return []keyFlag{
		{name: "owner", value: optional(&in.UserID, parseText), usage: "`userId` of the owner"},
		{
			name: "name", value: optional(&in.Name, parseText),
			usage: "`text` that tells people which key it is", no: "no name",
		},
		{
			name: "expires-in", value: optional(&in.ExpiresIn, h.seconds(1)),
			usage: "`lifetime` from now, such as 90d", no: "the key never expires",
		},
		{
			name: "remaining", value: credits(&in.Remaining),
			usage: "`credits`: how many requests are left, or \"unlimited\"", no: "unlimited credits",
		},
		{
			name: "refill", value: h.rate(&in.RefillAmount, &in.RefillInterval),
			usage: "set the credits to an `amount/interval`, such as 100/1d", no: "no refill",
		},
		{
			name: "rate-limit", value: h.rate(&in.RateLimitMax, &in.RateLimitTimeWindow),
			usage: "at most `requests/window`, such as 100/1m", no: "no rate limit",
		},
		{
			name: "rate-limit-algorithm", value: optional(&in.RateLimitAlgorithm, oneOf("fixed_window", "sliding_window", "token_bucket")),
			usage: "`name`: fixed_window, sliding_window or token_bucket",
		},
		{
			name: "rate-limit-enabled", value: optional(&in.RateLimitEnabled, parseBool),
			usage: "enforce the key's rate limit; =false does not",
		},
		{
			name: "permission", value: optional(&in.Permissions, permissions()),
			usage: "`resource:action` that the key may do; repeatable", no: "no permissions",
		},
		{
			name: "metadata", value: optional(&in.Metadata, metadata()),
			usage: "`field=text` to keep with the key; repeatable", no: "no metadata",
		},
		{
			name: "metadata-json", value: optional(&in.Metadata, parseObject),
			usage: "the whole metadata as a JSON `object`",
		},
		{
			name: "allowed-ip", value: optional(&in.AllowedIPs, texts()),
			usage: "`address` or network that the key may be used from; repeatable", no: "usable from everywhere",
		},
	}
}

func defineKeyFlags(cmd *cobra.Command, flags []keyFlag) {
	for _, f := range flags {
		define(cmd.Flags(), f.name, f.value, f.usage)
	}
	cmd.MarkFlagsMutuallyExclusive("metadata", "metadata-json")
}

// defineNoFlags adds the flags that clear fields.
func defineNoFlags(cmd *cobra.Command, flags []keyFlag) {
	for _, f := range flags {
		if f.no != "" {
			defineNo(cmd, f.name, f.value, f.no)
		}
	}
	cmd.MarkFlagsMutuallyExclusive("metadata-json", "no-metadata")
}
