package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) audit() *cobra.Command {
	var in admin.ListAudit
	var pages *paging
	var verify bool
	var head *admin.AuditPoint
	cmd := h.command("audit [flags]", "Shows who changed what, or verifies the audit log", noArgs, func(c *call) error {
		switch {
		case verify:
			return c.verifyAudit(head)
		case head != nil:
			return WrongUsage("--head: only together with --verify")
		}
		a, err := fetch(pages, "entries", func() (admin.Answer[admin.AuditLog], error) { return c.client.Audit(c.ctx, in) })
		if err == nil && a.Value.NextCursor != nil {
			c.note("Showing the newest %s. To list all of them, use --all.", entryCount(int64(len(a.Value.Entries))))
		}
		return answerList(c, a, err, "entries", func(l admin.AuditLog) []admin.AuditEntry { return l.Entries }, auditListing)
	})
	cmd.Long = `Shows the audit log, the newest entries first: each change of keys and owners, and each
denied call of a known caller. An entry must match all filters that are given.

--verify reads the whole log and checks that each entry follows the one before. That
reveals changes of the log to whoever has kept an earlier head: pass it as --head.
Exit status: 0 if nothing was changed, 1 if something was.`
	cmd.Example = `  caddy apikey audit --key 6a1f0c2d9b3e4f5a6b7c8d9e
  caddy apikey audit --owner alice --since 7d
  caddy apikey audit --verify`
	setFormats(cmd, listFormats)
	h.defineTable(cmd, auditListing.names())
	f := cmd.Flags()
	define(f, "key", pointer(&in.KeyID, parseText), "entries about the key with this `id`")
	define(f, "owner", pointer(&in.UserID, parseText), "entries about this `userId` and its keys")
	define(f, "by", pointer(&in.Actor, parseText), "entries of the `actor` with this kind (operator, key, person, system), id or name")
	define(f, "action", pointer(&in.Action, parseText), "entries with this `action`, such as key.rotated")
	define(f, "since", pointer(&in.Since, h.parseWhen(-1)), "entries since this `time`, or for a duration such as 7d")
	define(f, "until", pointer(&in.Until, h.parseWhen(-1)), "entries from before this `time`, or older than a duration")
	define(f, "verify", variable(&verify, parseBool), "check the whole log instead of showing it")
	define(f, "head", pointer(&head, parsePoint), "an earlier head, as `ID:CHAIN`, which the log must still have")
	completeFlag(cmd, "key", h.completeIDs())
	completeFlag(cmd, "owner", h.completeOwners())
	pages = definePaging(cmd, &in.Limit, &in.Cursor)
	for _, name := range []string{"key", "owner", "by", "action", "since", "until", "limit", "cursor", "all"} {
		cmd.MarkFlagsMutuallyExclusive("verify", name)
	}
	return cmd
}

// auditListing describes a list of entries of the audit log.
var auditListing = &listing[admin.AuditEntry]{
	name: func(e admin.AuditEntry) string { return strconv.FormatInt(e.ID, 10) },
	columns: []column[admin.AuditEntry]{
		{name: "id", value: func(e admin.AuditEntry) string { return strconv.FormatInt(e.ID, 10) }, whole: true},
		timeColumn("time", false, func(e admin.AuditEntry) *api.Time { return &e.Time }),
		{name: "action", value: func(e admin.AuditEntry) string { return e.Action }, whole: true},
		{name: "actor", value: actorText},
		{name: "key", value: func(e admin.AuditEntry) string { return e.KeyID }, whole: true},
		{name: "owner", value: func(e admin.AuditEntry) string { return e.UserID }},
		{name: "changes", value: changesText},
		{name: "address", value: func(e admin.AuditEntry) string { return e.Actor.Address }, more: true},
		{name: "count", value: func(e admin.AuditEntry) string {
			if e.Count == 0 {
				return ""
			}
			return strconv.FormatInt(e.Count, 10)
		}, more: true},
		{name: "chain", value: func(e admin.AuditEntry) string { return e.Chain }, more: true},
	},
}

func actorText(e admin.AuditEntry) string {
	if who := cmp.Or(e.Actor.Name, e.Actor.ID); who != "" {
		return e.Actor.Kind + " " + who
	}
	return e.Actor.Kind
}

// changesText returns changes as "name: from → to".
func changesText(e admin.AuditEntry) string {
	var changes map[string]struct{ From, To json.RawMessage }
	if json.Unmarshal(e.Changes, &changes) != nil {
		return ""
	}
	var all []string
	for name, c := range changes {
		if string(c.From) == "null" {
			all = append(all, fmt.Sprintf("%s: %s", name, c.To))
		} else {
			all = append(all, fmt.Sprintf("%s: %s → %s", name, c.From, c.To))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// parsePoint parses the ID and the chain of an entry.
func parsePoint(s string) (p admin.AuditPoint, err error) {
	id, chain, _ := strings.Cut(s, ":")
	if p.ID, err = strconv.ParseInt(id, 10, 64); err != nil || p.ID < 1 || len(chain) != 64 {
		return p, errors.New("must be ID:CHAIN, as health and audit --verify print it")
	}
	p.Chain = strings.ToLower(chain)
	return p, nil
}

// verifyAudit checks that each entry of the log follows the one before, from the newest to
// the oldest, and that an earlier head is still there.
func (c *call) verifyAudit(head *admin.AuditPoint) error {
	limit, one := maxPage, int64(1)
	v := auditVerifier{earlier: head}
	for in := (admin.ListAudit{Limit: &limit}); ; {
		a, err := c.client.Audit(c.ctx, in)
		if err != nil {
			return err
		}
		if err := v.page(a); err != nil {
			return err
		}
		if in.Cursor = a.Value.NextCursor; in.Cursor == nil {
			break
		}
	}
	// The anchor as it is by now: entries may have been removed meanwhile.
	last, err := c.client.Audit(c.ctx, admin.ListAudit{Limit: &one})
	if err != nil {
		return err
	}
	v.anchor = last.Value.Anchor
	if err := v.finish(); err != nil {
		return err
	}
	if c.machine() {
		text, err := json.Marshal(map[string]any{"verified": v.n, "head": v.head, "anchor": v.anchor})
		if err != nil {
			return err
		}
		return write(c.OutOrStdout(), string(text))
	}
	rows := []property{{"Verified", entryCount(v.n)}}
	if v.n > 0 {
		rows = append(rows, property{"From", c.timeText(&v.oldest.Time)}, property{"To", c.timeText(&v.newest)})
	}
	if v.head != nil {
		rows = append(rows, property{"Head", fmt.Sprintf("%d:%s", v.head.ID, v.head.Chain)})
	}
	return write(c.OutOrStdout(), properties(rows))
}

// auditVerifier goes through the log from its end.
type auditVerifier struct {
	earlier      *admin.AuditPoint // that must be there; nil: none
	head, anchor *admin.AuditPoint
	n            int64
	newest       api.Time
	oldest       admin.AuditEntry // of those that were seen
	canonical    []byte           // of that one
}

func (v *auditVerifier) page(a admin.Answer[admin.AuditLog]) error {
	if v.n == 0 {
		v.head = a.Value.Head
	}
	var raw struct {
		Entries []json.RawMessage `json:"entries"`
	}
	if err := json.Unmarshal(a.Raw, &raw); err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	for i, e := range a.Value.Entries {
		p := admin.AuditPoint{ID: e.ID, Chain: e.Chain}
		switch {
		case v.n == 0:
			if v.head != nil && e.ID < v.head.ID {
				return fmt.Errorf("the audit log was changed: its newest entry is %d, and not %d", e.ID, v.head.ID)
			}
			v.head, v.newest = &p, e.Time // newer than the head where it was added meanwhile
		default:
			if err := v.follows(&p); err != nil {
				return err
			}
		}
		if v.earlier != nil && v.earlier.ID == e.ID && v.earlier.Chain != e.Chain {
			return fmt.Errorf("the audit log was changed: entry %d is not what it was", e.ID)
		}
		var err error
		if v.canonical, err = admin.CanonicalEntry(raw.Entries[i]); err != nil {
			return fmt.Errorf("reading entry %d of the audit log: %w", e.ID, err)
		}
		v.n, v.oldest = v.n+1, e
	}
	return nil
}

// follows checks that the oldest entry so far follows another one; nil: it is the first.
func (v *auditVerifier) follows(before *admin.AuditPoint) error {
	id, chain := int64(1), ""
	if before != nil {
		id, chain = before.ID+1, before.Chain
	}
	if v.oldest.ID != id {
		return fmt.Errorf("the audit log was changed: entry %d comes after %s", v.oldest.ID, pointText(before))
	}
	if admin.ChainOf(chain, v.canonical) != v.oldest.Chain {
		return fmt.Errorf("the audit log was changed: entry %d, or one before it, is not what was written", v.oldest.ID)
	}
	return nil
}

func (v *auditVerifier) finish() error {
	if v.n > 0 {
		if v.anchor != nil && v.anchor.ID >= v.oldest.ID {
			return errors.New("old entries were removed meanwhile: verify the audit log again")
		}
		if err := v.follows(v.anchor); err != nil {
			return err
		}
	}
	switch p := v.earlier; {
	case p == nil:
	case v.head == nil || v.head.ID < p.ID:
		return fmt.Errorf("the audit log was changed: it ends with %s, before entry %d", pointText(v.head), p.ID)
	case v.anchor != nil && p.ID < v.anchor.ID:
		return fmt.Errorf("entry %d was removed for its age: keep a head that is newer than %d", p.ID, v.anchor.ID)
	case v.anchor != nil && p.ID == v.anchor.ID && p.Chain != v.anchor.Chain:
		return fmt.Errorf("the audit log was changed: entry %d is not what it was", p.ID)
	}
	return nil
}

func entryCount(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

func pointText(p *admin.AuditPoint) string {
	if p == nil {
		return "nothing"
	}
	return fmt.Sprintf("entry %d", p.ID)
}
