package sqlite

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/caddy-apikey/caddy-apikey/store"
)

// order tells apart what a cursor can belong to. The numbers stand in cursors
// that callers hold: never change their meaning.
type order byte

const (
	orderCreatedAt order = iota + 1
	orderName
	orderLastRequest
	orderOwners
	orderExpiresAt
	orderAudit
	orderOutbox
)

const (
	cursorReverse = 1 << iota
	cursorNull
	cursorFlags = cursorReverse | cursorNull
)

// maxCursor is longer than any cursor that is made here: the longest holds a name and an ID.
const maxCursor = 1 << 17

// cursorPoint is the place of the last row of a page in its order. The next
// page begins after it, wherever it then lies.
type cursorPoint struct {
	null  bool   // the row has no value to sort by
	value []byte // the value: a text, or eight bytes of a number
	id    string
}

// encode writes: order, flags, length of the ID, ID, value; in URL-safe base64.
func (c cursorPoint) encode(o order, reverse bool) string {
	var flags byte
	if reverse {
		flags |= cursorReverse
	}
	if c.null {
		flags |= cursorNull
	}
	b := []byte{byte(o), flags}
	b = binary.AppendUvarint(b, uint64(len(c.id)))
	b = append(b, c.id...)
	return base64.RawURLEncoding.EncodeToString(append(b, c.value...))
}

// parseCursor refuses what encode did not make, or made for another order.
func parseCursor(s string, o order, reverse bool) (cursorPoint, error) {
	if len(s) > maxCursor {
		return cursorPoint{}, store.ErrCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < 2 {
		return cursorPoint{}, store.ErrCursor
	}
	flags := b[1]
	if order(b[0]) != o || flags&^cursorFlags != 0 || (flags&cursorReverse != 0) != reverse {
		return cursorPoint{}, store.ErrCursor
	}
	n, size := binary.Uvarint(b[2:])
	if size <= 0 || n == 0 || n > uint64(len(b)-2-size) { //nolint:gosec // not negative: Uvarint has read no more than there is
		return cursorPoint{}, store.ErrCursor
	}
	b = b[2+size:]
	c := cursorPoint{null: flags&cursorNull != 0, id: string(b[:n]), value: b[n:]}
	if !c.fits(o) {
		return cursorPoint{}, store.ErrCursor
	}
	return c, nil
}

func (c cursorPoint) fits(o order) bool {
	switch {
	case o == orderOwners:
		return !c.null && len(c.value) == 0
	case c.null:
		return o != orderCreatedAt && o != orderAudit && o != orderOutbox && len(c.value) == 0
	case o == orderName:
		return true
	}
	return len(c.value) == 8
}

func numberValue(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // all 64 bits come back in sql

// sql returns the value as SQLite compares it.
func (c cursorPoint) sql(o order) any {
	if o == orderName {
		return string(c.value)
	}
	return int64(binary.BigEndian.Uint64(c.value)) //nolint:gosec // all 64 bits of numberValue
}
