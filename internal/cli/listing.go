package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// column is a column of a table of keys, owners or tiers.
type column[T any] struct {
	name string // in --columns; in upper case the header
	// value returns the exact value, for CSV.
	value func(T) string
	// text returns the cell of a table. Nil: the value, or "-" if that is empty.
	text func(T, time.Time) string
	// color returns the color of a cell on a terminal. Nil: none.
	color func(T) text.Color
	more  bool // not in a table, unless it is wide
	whole bool // not cut
}

// listing describes how a list of T is printed.
type listing[T any] struct {
	name    func(T) string // what --format name prints
	columns []column[T]
}

// names returns the names of all columns.
func (l *listing[T]) names() []string {
	names := make([]string, len(l.columns))
	for i, c := range l.columns {
		names[i] = c.name
	}
	return names
}

// chosen returns the columns that are to be shown.
func (l *listing[T]) chosen(o *output) (chosen []column[T]) {
	for _, name := range o.columns {
		i := slices.IndexFunc(l.columns, func(c column[T]) bool { return c.name == name })
		chosen = append(chosen, l.columns[i])
	}
	if chosen != nil {
		return chosen
	}
	for _, c := range l.columns {
		if !c.more || o.format != asTable {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// render returns items in the format that the flags ask for.
func (l *listing[T]) render(c *call, items []T) string {
	columns := l.chosen(c.output)
	switch c.format {
	case asName:
		names := make([]string, len(items))
		for i, item := range items {
			names[i] = printable(l.name(item)) + "\n"
		}
		return strings.Join(names, "")
	case asCSV:
		rows := make([][]string, 1+len(items))
		for _, col := range columns {
			rows[0] = append(rows[0], col.name)
			for i, item := range items {
				rows[1+i] = append(rows[1+i], printable(col.value(item)))
			}
		}
		return writeCSV(rows)
	}
	width := c.width()
	if c.wide {
		width = 0
	}
	return l.table(columns, items, c.now(), width, c.colored())
}

// table returns a table that is at most width columns wide, unless that is 0.
func (l *listing[T]) table(columns []column[T], items []T, now time.Time, width int, colored bool) string {
	cells := make([][]string, 1+len(items))
	for _, col := range columns {
		cells[0] = append(cells[0], strings.ToUpper(strings.ReplaceAll(col.name, "-", " ")))
		for i, item := range items {
			cells[1+i] = append(cells[1+i], col.cell(item, now))
		}
	}
	if width > 0 {
		whole := make([]bool, len(columns))
		for i, col := range columns {
			whole[i] = col.whole
		}
		fit(cells, whole, width)
	}
	t := newTable()
	for i, row := range cells {
		out := make(table.Row, len(row))
		for j, cell := range row {
			if i > 0 && colored && columns[j].color != nil {
				cell = columns[j].color(items[i-1]).EscapeSeq() + cell + text.EscapeReset
			}
			out[j] = cell
		}
		t.AppendRow(out)
	}
	return t.Render()
}

func (c *column[T]) cell(item T, now time.Time) string {
	if c.text != nil {
		return printable(c.text(item, now))
	}
	if v := c.value(item); v != "" {
		return printable(v)
	}
	return noValue
}

const (
	columnGap = 2
	minColumn = 4 // columns to which a cell is cut at most
	ellipsis  = "…"
)

// fit cuts cells until the rows are at most width columns wide, if that is
// possible: always those of the widest column.
func fit(cells [][]string, whole []bool, width int) {
	widths := make([]int, len(whole))
	total := columnGap * (len(whole) - 1)
	for j := range whole {
		for _, row := range cells {
			widths[j] = max(widths[j], text.StringWidth(row[j]))
		}
		total += widths[j]
	}
	for ; total > width; total-- {
		widest := -1
		for j, w := range widths {
			if !whole[j] && w > minColumn && (widest < 0 || w > widths[widest]) {
				widest = j
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
		for _, row := range cells {
			if text.StringWidth(row[widest]) > widths[widest] {
				row[widest] = cut(row[widest], widths[widest])
			}
		}
	}
}

// cut returns the beginning of s and an ellipsis, together at most width columns.
func cut(s string, width int) string {
	s = strings.TrimSuffix(s, ellipsis)
	used := 0
	for i, r := range s {
		w := text.RuneWidth(r)
		if used+w > width-1 {
			return s[:i] + ellipsis
		}
		used += w
	}
	return s + ellipsis
}
