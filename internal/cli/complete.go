package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// completion is what the shell calls for a word that is not complete yet.
type completion = func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// completeTimeout is how long the admin endpoint may take while somebody waits for
// the completion of a word.
const completeTimeout = 2 * time.Second

// completeWords completes one of words.
func completeWords(words ...string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeList completes the last word of a list that is separated by commas.
func completeList(words []string) completion {
	return func(_ *cobra.Command, _ []string, toComplete string) (list []string, _ cobra.ShellCompDirective) {
		before := toComplete[:strings.LastIndexByte(toComplete, ',')+1]
		for _, word := range words {
			if !slices.Contains(strings.Split(before, ","), word) {
				list = append(list, before+word)
			}
		}
		return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// complete completes words that the admin endpoint knows. Without it there are none.
func (h *Host) complete(words func(ctx context.Context, c *admin.Client) ([]string, error)) completion {
	return func(cmd *cobra.Command, args []string, toComplete string) (list []string, _ cobra.ShellCompDirective) {
		client, err := h.connect(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
		defer cancel()
		all, err := words(ctx, client)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, word := range all {
			name, _, _ := strings.Cut(word, "\t")
			if strings.HasPrefix(name, toComplete) && !slices.Contains(args, name) {
				list = append(list, word)
			}
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeIDs completes ids of keys, described by name and owner. It knows the
// newest ones.
func (h *Host) completeIDs() completion {
	return h.complete(func(ctx context.Context, c *admin.Client) (words []string, err error) {
		limit, newest := maxPage, "-createdAt"
		a, err := c.ListKeys(ctx, admin.ListKeys{Limit: &limit, Sort: &newest})
		for _, k := range a.Value.Keys {
			words = append(words, fmt.Sprintf("%s\t%s", k.ID, strings.TrimPrefix(keyLine(k), k.ID+" ")))
		}
		return words, err
	})
}

// completeOwners completes owners.
func (h *Host) completeOwners() completion {
	return h.complete(func(ctx context.Context, c *admin.Client) (words []string, err error) {
		limit := maxPage
		a, err := c.ListOwners(ctx, admin.ListOwners{Limit: &limit})
		for _, o := range a.Value.Owners {
			words = append(words, fmt.Sprintf("%s\t%s", printable(o.UserID), countOf(o.KeyCount, "key")))
		}
		return words, err
	})
}

// completeTiers completes tiers.
func (h *Host) completeTiers() completion {
	return h.complete(func(ctx context.Context, c *admin.Client) (words []string, err error) {
		a, err := c.Tiers(ctx)
		for _, t := range a.Value.Tiers {
			words = append(words, fmt.Sprintf("%s\t%s", printable(t.Name), tierLimits(t)))
		}
		return words, err
	})
}

// completeFirst completes the first argument only.
func completeFirst(first completion) completion {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return first(cmd, args, toComplete)
	}
}

// completeFlag sets what completes the value of a flag.
func completeFlag(cmd *cobra.Command, flag string, with completion) {
	cmd.RegisterFlagCompletionFunc(flag, with) //nolint:errcheck // fails for an unknown flag only, which the tests would find
}
