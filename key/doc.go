// Package key says what an API key is: the record, its owner, its permissions,
// its credits, and the format of the raw key. It does no I/O and knows nothing
// of Caddy or of any store.
//
// Times are Unix milliseconds, durations milliseconds, and 0 is "none" only
// where a field says so. Nothing here reads the clock.
package key
