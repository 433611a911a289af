package betterauthdb

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile makes a database by SQL. A statement after the name of a table fills it.
func hostile(t *testing.T, statements ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "hostile.db")
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%.100s: %v", q, err)
		}
	}
	return path
}

const hostileTable = `CREATE TABLE apikey (id TEXT PRIMARY KEY, referenceId TEXT, key TEXT, name TEXT, metadata TEXT)`

// numbers is a row for each number up to n.
func numbers(n int) string {
	return fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)`, n)
}

// read reads a whole database. It fails the test if that takes long, or much memory.
func read(t *testing.T, path string) (keys []Key, err error) {
	t.Helper()
	const mostTime, mostMemory = 20 * time.Second, 64 << 20
	ctx, cancel := context.WithTimeout(t.Context(), mostTime)
	defer cancel()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d, err := Open(ctx, path, Options{})
	if err == nil {
		defer d.Close()
		err = d.Each(ctx, func(k Key) error { keys = append(keys, k); return nil })
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > mostMemory {
		t.Errorf("%d MiB of memory were allocated", n>>20)
	}
	if ctx.Err() != nil {
		t.Errorf("it took longer than %v", mostTime)
	}
	return keys, err
}

// Databases that would run what their maker wrote are refused before that happens.
func TestQ52_NoForeignSQL(t *testing.T) {
	const forever = `WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS id, x AS referenceId, x AS key FROM c`
	bomb := []string{`CREATE VIEW v0 AS SELECT 1 AS id, 2 AS referenceId, 3 AS key`}
	for i := range 12 { // each view has the one before ten times
		var from []string
		for j := range 10 {
			from = append(from, fmt.Sprintf("v%d AS t%d", i, j))
		}
		bomb = append(bomb, fmt.Sprintf("CREATE VIEW v%d AS SELECT t0.* FROM %s", i+1, strings.Join(from, ", ")))
	}
	for _, tt := range []struct {
		name string
		make []string
		want string
	}{
		{"a view that never ends", []string{`CREATE VIEW apikey AS ` + forever}, `"apikey" is a view: only an ordinary table is read`},
		{"a view of another case", []string{`CREATE VIEW "APIKEY" AS ` + forever}, `is a view`},
		{"a view of a table", []string{`CREATE TABLE k (id, referenceId, key)`, `CREATE VIEW apikey AS SELECT * FROM k`}, `is a view`},
		{"a view of many views", append(bomb, `CREATE VIEW apikey AS SELECT * FROM v12`), `is a view`},
		{"many views and no table", bomb, `there is no table "apikey"`},
		{"a virtual table", []string{`CREATE VIRTUAL TABLE apikey USING fts5(id, referenceId, key)`}, `is a virtual table`},
		{"a computed column", []string{`CREATE TABLE apikey (id TEXT, referenceId TEXT, key TEXT AS (hex(zeroblob(400000000))))`}, `no column "key"`},
		{"a view in place of a function", []string{hostileTable, `CREATE VIEW pragma_table_info AS ` + forever}, `is not a function`},
		{"a huge schema", []string{hostileTable, `CREATE TABLE x (y DEFAULT '` + strings.Repeat("x", 2<<20) + `')`}, `too big`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := read(t, hostile(t, tt.make...)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.300v, want an error with %q", err, tt.want)
			}
		})
	}
}

// What runs only when somebody writes, or asks for it, does not get in the way.
func TestQ52_NothingElseRuns(t *testing.T) {
	path := hostile(t, hostileTable,
		`CREATE TRIGGER a BEFORE INSERT ON apikey WHEN new.id = 'x' BEGIN INSERT INTO apikey (id) VALUES ('x'); END`,
		`CREATE TRIGGER b AFTER UPDATE ON apikey BEGIN DELETE FROM apikey; END`,
		`CREATE VIEW endless AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c`,
		`CREATE VIEW three AS SELECT 1 UNION SELECT 2 UNION SELECT 3`,
		`CREATE TABLE wide (a AS (hex(zeroblob(400000000))), b)`,
		`INSERT INTO apikey (id, referenceId, key) VALUES ('a', 'u', 'k')`,
	)
	if keys, err := read(t, path); err != nil || len(keys) != 1 || keys[0].Record.ID != "a" {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	d, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, q := range []string{
		`UPDATE apikey SET id = 'b'`, `ATTACH ':memory:' AS other`, `SELECT load_extension('x')`, `PRAGMA query_only = 0; UPDATE apikey SET id = 'b'`,
	} {
		if _, err := d.conn.ExecContext(t.Context(), q); err == nil {
			t.Errorf("%s was run", q)
		}
	}
}

// A field that is too long is not read, and the key is refused; a long metadata is left
// out as ever.
func TestQ52_HugeFields(t *testing.T) {
	path := hostile(t, hostileTable,
		`INSERT INTO apikey VALUES ('a', 'u', 'k', zeroblob(100000000), NULL)`,
		`INSERT INTO apikey VALUES ('b', 'u', 'k', 'n', zeroblob(100000000))`,
		`INSERT INTO apikey VALUES ('c', 'u', 'k', 'n', '{}')`)
	keys, err := read(t, path)
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if r := keys[0].Refused; r == nil || r.Field != "name" || r.Message != "is longer than 256 KiB" {
		t.Errorf("a long name: %+v", r)
	}
	if k := keys[1]; k.Refused != nil || k.Record.Metadata.Set || len(k.Notes) != 1 || k.Notes[0].Field != "metadata" || !k.Notes[0].Lost {
		t.Errorf("a long metadata: %+v", k)
	}
	if k := keys[2]; k.Refused != nil || string(*k.Record.Metadata.Value) != "{}" {
		t.Errorf("another key: %+v", k)
	}
}

// Many long fields are read a few rows at a time, and every row is.
func TestQ52_ManyLongFields(t *testing.T) {
	const rows, length = 200, 200 << 10
	path := hostile(t, hostileTable, numbers(rows)+fmt.Sprintf(`INSERT INTO apikey SELECT i, 'u', 'k' || i, 'n', printf('%%.*c', %d, 'x') FROM n`, length))
	d, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var p page
	read := 0
	for pages := 1; ; pages++ {
		if p, err = d.page(t.Context(), p.last); err != nil {
			t.Fatal(err)
		}
		read += len(p.keys)
		if most := pageBytes/length + 1; len(p.keys) > most {
			t.Errorf("%d keys at a time, most %d", len(p.keys), most)
		}
		if !p.more {
			break
		}
	}
	if read != rows {
		t.Errorf("%d keys of %d", read, rows)
	}
}

// A huge primary key orders the rows, and cannot be left out.
func TestQ52_HugePrimaryKey(t *testing.T) {
	path := hostile(t, hostileTable+` WITHOUT ROWID`, `INSERT INTO apikey VALUES (printf('%.*c', 50000000, 'x'), 'u', 'k', NULL, NULL)`)
	if _, err := read(t, path); err == nil || !strings.Contains(err.Error(), "too big") {
		t.Errorf("got %v", err)
	}
}

// Pages that refer to the same page over and over make few bytes look like more rows
// than anybody can read.
func TestQ52_PagesOverAndOver(t *testing.T) {
	for _, tt := range []struct {
		name, table string
		opens       bool
	}{
		{"the rows are counted", `CREATE TABLE apikey (id TEXT, referenceId TEXT, key TEXT, name TEXT, metadata TEXT)`, false},
		{"an index is counted, the rows are out of order", hostileTable, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := overAndOver(t, tt.table)
			keys, err := read(t, path)
			if len(keys) > 0 || err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%d keys, %v", len(keys), err)
			}
			d, err := Open(t.Context(), path, Options{})
			if err == nil {
				defer d.Close()
			}
			if (err == nil) != tt.opens {
				t.Errorf("opening it: %v", err)
			}
		})
	}
}

// overAndOver makes a database of a table whose pages refer to the same page over and over.
func overAndOver(t *testing.T, table string) (path string) {
	t.Helper()
	path = hostile(t, `PRAGMA page_size = 4096`, table, numbers(3)+`INSERT INTO apikey SELECT i, 'u', 'k' || i, NULL, NULL FROM n`)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const size = 4096
	root := 2 // of the table, whose page is a leaf
	if b[(root-1)*size] != 0x0d {
		t.Fatalf("page %d is no leaf of a table", root)
	}
	// The leaf moves to the end. In its place, and in pages behind, each page has many
	// children that are all the next page.
	leaf := append([]byte(nil), b[(root-1)*size:root*size]...)
	const levels, children = 10, 300
	pages := len(b) / size
	interior := func(child int) []byte {
		p := make([]byte, size)
		p[0] = 0x05
		binary.BigEndian.PutUint16(p[3:], children)
		at := size
		for i := range children {
			at -= 6
			binary.BigEndian.PutUint32(p[at:], uint32(child)) //nolint:gosec // a small number
			p[at+4], p[at+5] = 0x81+byte(i>>7), byte(i&0x7f)
			binary.BigEndian.PutUint16(p[12+2*i:], uint16(at)) //nolint:gosec // within a page
		}
		binary.BigEndian.PutUint16(p[5:], uint16(at))    //nolint:gosec // within a page
		binary.BigEndian.PutUint32(p[8:], uint32(child)) //nolint:gosec // a small number
		return p
	}
	copy(b[(root-1)*size:], interior(pages+1))
	for i := 1; i < levels; i++ {
		b = append(b, interior(pages+i+1)...)
	}
	b = append(b, leaf...)
	binary.BigEndian.PutUint32(b[28:], uint32(len(b)/size)) //nolint:gosec // a small number
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Reading ends after as many rows as there can be, also where their order tells nothing.
func TestQ52_RowsWithoutEnd(t *testing.T) {
	path := hostile(t, hostileTable+` WITHOUT ROWID`, `INSERT INTO apikey VALUES ('a', 'u', 'k', NULL, NULL), ('b', 'u', 'l', NULL, NULL), ('c', 'u', 'm', NULL, NULL)`)
	for _, tt := range []struct {
		most    int64 // rows that the file has room for, and those that may be added
		damaged bool
	}{{3, false}, {2, true}} {
		d, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		d.most = tt.most - maxAdded
		read := 0
		err = d.Each(t.Context(), func(Key) error { read++; return nil })
		if errors.Is(err, errDamaged) != tt.damaged || !tt.damaged && (err != nil || read != 3) {
			t.Errorf("room for %d: %d keys, %v", tt.most, read, err)
		}
	}
}

// Rows that come out of order would be read for ever.
func TestQ52_RowsOutOfOrder(t *testing.T) {
	for _, tt := range []struct {
		position, last []any
		want           bool
	}{
		{[]any{int64(1)}, nil, true},
		{[]any{int64(2)}, []any{int64(1)}, true},
		{[]any{int64(1)}, []any{int64(1)}, false},
		{[]any{int64(-1)}, []any{int64(1)}, false},
		{[]any{"a"}, []any{"b"}, true}, // SQLite compares texts by the rules of the column
		{[]any{int64(1), "a"}, []any{int64(1), "b"}, true},
	} {
		if got := follows(tt.position, tt.last); got != tt.want {
			t.Errorf("%v after %v: %v", tt.position, tt.last, got)
		}
	}
}

// Whatever else takes long ends at the deadline, which the error tells.
func TestQ52_Deadline(t *testing.T) {
	defer func(d time.Duration) { readTime = d }(readTime)
	readTime = time.Nanosecond
	_, err := read(t, hostile(t, hostileTable))
	if err == nil || !strings.Contains(err.Error(), "it took longer than 1ns") {
		t.Errorf("got %v", err)
	}
}
