package cli

import (
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/near"
)

// algorithms are the values of --rate-limit-algorithm.
var algorithms = api.Words[admin.PatchKey]("rateLimitAlgorithm")

// keyFlag is a flag of both create and update.
type keyFlag struct {
	name  string
	value *flagValue
	usage string
	// noUsage describes the flag "no-<name>" of update, which clears the field.
	// Empty: there is no such flag.
	noUsage string
	// label and show are how the details of a key name and print the field. Empty: this
	// row does not print it.
	label string
	show  func(admin.Key) string
}

// keyFlags returns the flags for the fields that create and update share. A flag for
// a new field is one row here: create copies all fields of the patch, which have the
// same JSON names in admin.CreateKey.
func (h *Host) keyFlags(in *admin.PatchKey) []keyFlag {
	return []keyFlag{
		{name: "owner", value: optional(&in.UserID, parseText), usage: "`userId` of the owner"},
		{
			name: "name", value: optional(&in.Name, parseText),
			usage: "`text` by which people recognize the key", noUsage: "no name",
		},
		{
			name: "expires-in", value: optional(&in.ExpiresIn, h.seconds(1)),
			usage: "`lifetime` from now, such as 90d", noUsage: "the key never expires",
		},
		{
			name: "remaining", value: credits(&in.Remaining),
			usage: "`credits` that are left, or \"unlimited\"", noUsage: "unlimited credits",
		},
		{
			name: "refill", value: h.rate(&in.RefillAmount, &in.RefillInterval),
			usage: "set the credits to an `amount/interval`, such as 100/1d", noUsage: "no refill",
		},
		{
			name: "rate-limit", value: h.rate(&in.RateLimitMax, &in.RateLimitTimeWindow),
			usage: "at most `requests/window`, such as 100/1m", noUsage: "no rate limit",
		},
		{
			name: "rate-limit-algorithm", value: optional(&in.RateLimitAlgorithm, oneOf(algorithms...)),
			usage: "`name`: " + near.List(algorithms),
		},
		{
			name: "rate-limit-enabled", value: optional(&in.RateLimitEnabled, parseBool),
			usage: "enforce the rate limit of the key; =false records it only",
		},
		{
			name: "permission", value: optional(&in.Permissions, permissions()),
			usage: "`resource:action` that the key may perform; repeatable", noUsage: "no permissions",
		},
		{
			name: "metadata", value: optional(&in.Metadata, metadata()),
			usage: "`field=text` to store with the key; repeatable", noUsage: "no metadata",
			label: "Metadata", show: func(k admin.Key) string { return formatJSON(api.Or(k.Metadata.Value, nil)) },
		},
		{
			name: "metadata-json", value: optional(&in.Metadata, parseObject),
			usage: "the whole metadata as a JSON `object`",
		},
		{
			name: "allowed-ip", value: optional(&in.AllowedIPs, texts()),
			usage: "`address` or network from which the key may be used; repeatable", noUsage: "the key may be used from everywhere",
		},
	}
}

// shownFields returns the fields of a key that keyFlags has a label for.
func shownFields(k admin.Key) (all []property) {
	for _, f := range new(Host).keyFlags(new(admin.PatchKey)) {
		if f.label != "" {
			all = append(all, property{f.label, f.show(k)})
		}
	}
	return all
}

func (h *Host) defineKeyFlags(cmd *cobra.Command, flags []keyFlag) {
	for _, f := range flags {
		define(cmd.Flags(), f.name, f.value, f.usage)
	}
	completeFlag(cmd, "owner", h.completeOwners())
	completeFlag(cmd, "rate-limit-algorithm", completeWords(algorithms...))
	cmd.MarkFlagsMutuallyExclusive("metadata", "metadata-json")
}

// defineNoFlags adds the flags that clear fields.
func defineNoFlags(cmd *cobra.Command, flags []keyFlag) {
	for _, f := range flags {
		if f.noUsage != "" {
			defineNo(cmd, f.name, f.value, f.noUsage)
		}
	}
	cmd.MarkFlagsMutuallyExclusive("metadata-json", "no-metadata")
}
