package keyring

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// recent remembers what has been changed, and what has left memory. A read from the
// store that began before may have missed that, and is made again.
//
// It holds fingerprints: two that are equal by chance cost a read.
type recent struct {
	ring [1 << 16]uint64
	next uint64 // how many there have been
}

var fingerprintSeed = maphash.MakeSeed()

func fingerprint(s store.Subject) uint64 { return maphash.Comparable(fingerprintSeed, s) }

// fingerprintOf returns the fingerprint of a raw key.
func fingerprintOf(h key.Hash) uint64 { return binary.LittleEndian.Uint64(h[:]) }

func (r *recent) add(fingerprint uint64) {
	r.ring[r.next%uint64(len(r.ring))] = fingerprint
	r.next++
}

// since reports whether one of two fingerprints may have been added after the first
// mark of all.
func (r *recent) since(mark, a, b uint64) bool {
	if r.next-mark > uint64(len(r.ring)) {
		return true
	}
	for i := mark; i < r.next; i++ {
		if f := r.ring[i%uint64(len(r.ring))]; f == a || f == b {
			return true
		}
	}
	return false
}
