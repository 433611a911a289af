package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
	"github.com/caddy-apikey/caddy-apikey/key"
)

const (
	// maxPage is the largest page size of the API, and defaultPage its default.
	maxPage, defaultPage = int64(500), int64(50)
)

// paging are the flags of a list that comes in pages.
type paging struct {
	limit  **int64
	cursor **string
	all    bool
}

// definePaging adds the flags that set these fields of a query.
func definePaging(cmd *cobra.Command, limit **int64, cursor **string) *paging {
	p := &paging{limit: limit, cursor: cursor}
	f := cmd.Flags()
	define(f, "limit", pointer(limit, parseNumber), "`number` of entries at most, up to 500 (default 50)")
	define(f, "cursor", pointer(cursor, parseText), "nextCursor of the previous `page`")
	define(f, "all", variable(&p.all, parseBool), "list all pages")
	cmd.MarkFlagsMutuallyExclusive("all", "limit")
	cmd.MarkFlagsMutuallyExclusive("all", "cursor")
	return p
}

// fetch returns one page or, with --all, all pages joined into one. name is the
// field of the page that holds the list.
func fetch[T any](p *paging, name string, get func() (admin.Answer[T], error)) (admin.Answer[T], error) {
	left := key.MaxCount
	switch {
	case p.all:
		limit := maxPage
		*p.limit = &limit
	case *p.limit == nil:
		left = defaultPage
	default:
		left = **p.limit
	}
	items := []json.RawMessage{}
	for { // a page may be short, even empty, though there are more
		a, err := get()
		if err != nil {
			return a, err
		}
		var page map[string]json.RawMessage
		var list []json.RawMessage
		if err = json.Unmarshal(a.Raw, &page); err == nil {
			err = errors.Join(json.Unmarshal(page[name], &list), json.Unmarshal(page["nextCursor"], p.cursor))
		}
		if err != nil {
			return a, fmt.Errorf("reading a page: %w", err)
		}
		items = append(items, list...)
		left -= int64(len(list))
		if *p.cursor == nil || left < 1 {
			return join[T](name, items, page["total"], *p.cursor)
		}
		if !p.all {
			*p.limit = &left
		}
	}
}

// join returns the items of all pages as one page, each item as the server sent
// it. total is nil if the list has none.
func join[T any](name string, items []json.RawMessage, total json.RawMessage, next *string) (a admin.Answer[T], err error) {
	list, err := api.Marshal(items)
	if err != nil {
		return a, err
	}
	a.Raw = fmt.Appendf(nil, `{%q:%s`, name, bytes.TrimSpace(list))
	if total != nil {
		a.Raw = fmt.Appendf(a.Raw, `,"total":%s`, total)
	}
	cursor, err := api.Marshal(next)
	if err != nil {
		return a, err
	}
	a.Raw = fmt.Appendf(a.Raw, `,"nextCursor":%s}`, bytes.TrimSpace(cursor))
	return a, json.Unmarshal(a.Raw, &a.Value)
}
