package cli

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// mostPerPage is the largest page of the API.
const mostPerPage = 500

// paging adds the flags of lists that come in pages.
func paging(cmd *cobra.Command, limit **int64, cursor **string, all *bool) {
	f := cmd.Flags()
	define(f, "limit", pointer(limit, parseNumber), "at most this `number`, up to 500 (default 50)")
	define(f, "cursor", pointer(cursor, parseText), "nextCursor of the `page` before")
	define(f, "all", variable(all, parseBool), "all pages")
	cmd.MarkFlagsMutuallyExclusive("all", "limit")
	cmd.MarkFlagsMutuallyExclusive("all", "cursor")
}

// allPages fetches page after page and returns the items of all, as they came,
// from the list of that name. add takes a page and returns the next cursor.
func allPages[T any](name string, fetch func(cursor *string) (admin.Answer[T], error), add func(T) *string) ([]json.RawMessage, error) {
	var items []json.RawMessage
	var cursor *string
	for {
		page, err := fetch(cursor)
		if err != nil {
			return nil, err
		}
		var fields map[string]json.RawMessage
		var list []json.RawMessage
		if err := json.Unmarshal(page.Raw, &fields); err != nil {
			return nil, fmt.Errorf("reading a page: %w", err)
		}
		if err := json.Unmarshal(fields[name], &list); err != nil {
			return nil, fmt.Errorf("reading a page: %w", err)
		}
		items = append(items, list...)
		if cursor = add(page.Value); cursor == nil {
			return items, nil
		}
	}
}

// joinPages writes the items of all pages as one page of the API, to the byte.
// total is nil where pages do not tell it.
func joinPages(name string, items []json.RawMessage, total *int64) json.RawMessage {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{%q:[`, name)
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(item)
	}
	b.WriteByte(']')
	if total != nil {
		fmt.Fprintf(&b, `,"total":%d`, *total)
	}
	b.WriteString(`,"nextCursor":null}`)
	return b.Bytes()
}
