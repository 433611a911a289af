package sqlite

import (
	"sync"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite keeps pages of each connection in memory that it takes page by page from
// its allocator, and drops them after every commit of another connection. With this
// allocator that is so slow that commits hold up look-ups. One piece of memory for
// all pages, given to it before it is used first, avoids that. It belongs to the
// whole process.

const (
	pageSlots = 2600
	// slotSize is for a page of 4096 bytes and what SQLite keeps with it.
	slotSize = 4096 + 512
)

// preparePageCache reports whether page caches are in memory of their own. Only the
// first call does something.
var preparePageCache = sync.OnceValue(func() bool {
	tls := libc.NewTLS()
	defer tls.Close()
	room := libc.Xmalloc(tls, pageSlots*slotSize)
	if room == 0 {
		return false
	}
	args := libc.NewVaList(room, int32(slotSize), int32(pageSlots))
	defer libc.Xfree(tls, args)
	if sqlite3.Xsqlite3_config(tls, sqlite3.SQLITE_CONFIG_PAGECACHE, args) != sqlite3.SQLITE_OK {
		libc.Xfree(tls, room) // another plugin has used SQLite before
		return false
	}
	return true
})

// cacheSize returns the size of a connection's page cache, as SQLite's pragma has it.
func cacheSize() string {
	if preparePageCache() {
		return "-2000" // all connections fit into the memory
	}
	// The allocator holds on to 4 MiB of what was freed: all six must fit into that.
	return "-600"
}

// finderCacheSize is cacheSize for look-ups. Most pages that they read are read once, and
// a copy costs least where the cache of the processor holds the memory already.
func finderCacheSize() string {
	if preparePageCache() {
		return "-1000"
	}
	return cacheSize()
}
