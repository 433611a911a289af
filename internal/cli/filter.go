package cli

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/internal/near"
)

// filterNames are the parameters of the key list that narrow it.
var filterNames = []string{
	"userId", "configId", "enabled", "prefix", "q", "tier", "permission", "state", "expiresBefore", "unusedSince", "createdBefore", "rotatedBefore",
}

// filters are the flags --filter and --dry-run of commands that act on keys.
type filters struct {
	in     admin.ListKeys
	names  []string // that are given
	dryRun bool
}

func (f *filters) define(h *Host, cmd *cobra.Command) {
	define(cmd.Flags(), "filter", parsed(func(s string) (string, error) { return s, f.add(h, s) }, func(string) {}),
		"all keys with this `name=value` instead of ids; repeatable, all must hold. Names are those of the list: "+strings.Join(filterNames, ", "))
	define(cmd.Flags(), "dry-run", variable(&f.dryRun, parseBool), "list the keys, and change nothing")
}

// add reads one filter. A time may also be a duration: how long ago it was, or, of
// expiresBefore, how long it is until then.
func (f *filters) add(h *Host, text string) error {
	name, value, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return errors.New("must be name=value")
	case !slices.Contains(filterNames, name):
		return errors.New(near.OneOf(name, filterNames...))
	case slices.Contains(f.names, name):
		return errors.New(name + " is given more than once")
	}
	f.names = append(f.names, name)
	switch name {
	case "expiresBefore":
		value = h.when(value, +1)
	case "unusedSince", "createdBefore", "rotatedBefore":
		value = h.when(value, -1)
	}
	return api.SetParameter(&f.in, name, value)
}

// when returns the time of a duration from now, into the future or the past, and any
// other text as it is.
func (h *Host) when(text string, direction time.Duration) string {
	d, err := h.ParseDuration(text)
	if err != nil || d < 0 {
		return text
	}
	return h.Now().Add(direction * d).UTC().Format(time.RFC3339Nano)
}

// parseWhen is a parser for flags that hold such a time.
func (h *Host) parseWhen(direction time.Duration) func(string) (api.Time, error) {
	return func(s string) (api.Time, error) {
		t, err := time.Parse(time.RFC3339, h.when(s, direction))
		if err != nil {
			return api.Time{}, errors.New("must be a time such as 2026-11-21T19:09:19Z, or a duration such as 90d")
		}
		return api.TimeOf(t.UnixMilli()), nil
	}
}

// resolve makes the arguments of a call the keys that it is about. With --dry-run it lists
// them, and done is true.
func (f *filters) resolve(c *call) (done bool, err error) {
	switch {
	case len(f.names) == 0 && len(c.args) == 0:
		return false, WrongUsage("at least one argument is required: the id of a key, or --filter")
	case len(f.names) > 0 && len(c.args) > 0:
		return false, WrongUsage("ids and --filter cannot be combined")
	case len(f.names) > 0:
		return f.list(c)
	case !f.dryRun:
		return false, nil
	}
	return true, each(c, keyListing, func(id string) (admin.Answer[admin.Key], error) { return c.client.Key(c.ctx, id) },
		func(a admin.Answer[admin.Key], err error) error {
			return answerOne(c, a, err, keyListing, func(k admin.Key) string { return keyLine(k) })
		})
}

// list finds the keys of the filters.
func (f *filters) list(c *call) (done bool, err error) {
	pages := &paging{limit: &f.in.Limit, cursor: &f.in.Cursor, all: true}
	a, err := fetch(pages, "keys", func() (admin.Answer[admin.KeyList], error) { return c.client.ListKeys(c.ctx, f.in) })
	if err != nil {
		return false, err
	}
	if f.dryRun {
		c.note("%s. Nothing was changed.", countOf(int64(len(a.Value.Keys)), "matching key"))
		return true, answerList(c, a, nil, "keys", func(l admin.KeyList) []admin.Key { return l.Keys }, keyListing)
	}
	c.args, c.filtered = nil, true
	if len(a.Value.Keys) == 0 {
		c.note("No key matches.")
	}
	for _, k := range a.Value.Keys {
		c.args = append(c.args, k.ID)
	}
	return false, nil
}
