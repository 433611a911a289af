package key

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/crc32"
	"unsafe"
)

// The format of a raw key:
//
//	prefix (1 to 32 of a-z A-Z 0-9 _ -, or none) + random base62 + checksum
//
// The checksum is CRC-32 (IEEE) of everything before it, written in base62 with
// the digits below, most significant first, padded with "0" to six characters.
// It finds typing errors and leaked keys; it keeps nobody out.
const (
	alphabet    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	checksumLen = 6

	// MaxRawLen is the longest raw key that is looked at.
	MaxRawLen = 512
	// MinLength is the smallest length of the part after the prefix: 27 random
	// characters, at least 160 bits (OWASP ASVS 5.0 asks for 128), and the checksum.
	MinLength = 33
	// DefaultLength is the usual length of the part after the prefix: 58 random
	// characters, about 345 bits, and the checksum.
	DefaultLength = 64
	// MaxPrefixLen is the longest prefix.
	MaxPrefixLen = 32
	// MaxLength keeps a prefix and its key within MaxRawLen.
	MaxLength = MaxRawLen - MaxPrefixLen
	// secretLength is the length of a secret after its prefix.
	secretLength = 48
)

// Hash is SHA-256 of a whole raw key, the only form in which one is stored. A
// raw key holds more than 128 random bits, so a fast hash is enough
// (OWASP ASVS 5.0, 6.5.2; NIST SP 800-63B-4, look-up secrets).
type Hash [sha256.Size]byte

// HashOf returns the hash of a raw key or a secret.
func HashOf(raw string) Hash { return sha256.Sum256(bytesOf(raw)) }

// bytesOf returns the bytes of s for reading, without the copy that each request
// would pay for twice.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) } //nolint:gosec // read only, as long as s lives

// Equal compares in constant time.
func (h Hash) Equal(o Hash) bool { return subtle.ConstantTimeCompare(h[:], o[:]) == 1 }

// ErrShape is the only answer to a string that cannot be a key, so that nothing
// can be learnt from the difference.
var ErrShape = errors.New("not the shape of an API key")

// isKeyChar tells the characters of a raw key.
var isKeyChar = func() (t [256]bool) {
	for i := range len(alphabet) {
		t[alphabet[i]] = true
	}
	t['_'], t['-'] = true, true
	return t
}()

// CheckShape rejects strings that cannot be a raw key, without looking one up.
// The checksum is checked unless a key made without one may exist.
func CheckShape(raw string, checksum bool) error {
	if raw == "" || len(raw) > MaxRawLen {
		return ErrShape
	}
	for i := range len(raw) {
		if !isKeyChar[raw[i]] {
			return ErrShape
		}
	}
	if checksum && !ChecksumFits(raw) {
		return ErrShape
	}
	return nil
}

// IsKeyChar reports whether c may stand in a raw key.
func IsKeyChar(c byte) bool { return isKeyChar[c] }

// ChecksumFits reports whether the last six characters of s are the checksum of
// what stands before them.
func ChecksumFits(s string) bool {
	n := len(s) - checksumLen
	if n <= 0 {
		return false
	}
	var sum [checksumLen]byte
	putChecksum(&sum, crc32.ChecksumIEEE(bytesOf(s[:n])))
	return string(sum[:]) == s[n:]
}

// FindChecksum returns the length of the raw key with a checksum with which text begins, if
// that is at least so long; 0 for none. What follows it may be characters of keys as well.
func FindChecksum(text []byte, atLeast int) int {
	end := 0
	for end < len(text) && end < MaxRawLen && isKeyChar[text[end]] {
		end++
	}
	n := max(atLeast-checksumLen, 1)
	if n+checksumLen > end {
		return 0
	}
	sum := crc32.ChecksumIEEE(text[:n])
	for {
		if alphabet[sum%62] == text[n+checksumLen-1] { // nearly always decides
			var want [checksumLen]byte
			putChecksum(&want, sum)
			if string(want[:]) == string(text[n:n+checksumLen]) {
				return n + checksumLen
			}
		}
		if n+checksumLen == end {
			return 0
		}
		// crc32.Update, without its cost for each call.
		sum = ^(crc32.IEEETable[byte(^sum)^text[n]] ^ ^sum>>8) //nolint:gosec // its lowest byte is meant
		n++
	}
}

func putChecksum(dst *[checksumLen]byte, sum uint32) {
	for i := checksumLen - 1; i >= 0; i-- {
		dst[i] = alphabet[sum%62]
		sum /= 62
	}
}

// ValidPrefix reports whether p may stand in front of a raw key.
func ValidPrefix(p string) bool {
	for i := range len(p) {
		if !isKeyChar[p[i]] {
			return false
		}
	}
	return len(p) <= MaxPrefixLen
}

// Generator makes raw keys. Generate returns a whole raw key, prefix included,
// of characters that CheckShape accepts.
type Generator interface {
	Generate(prefix string, length int, checksum bool) (string, error)
}

// Validator refuses raw keys before any lookup.
type Validator interface {
	Valid(raw string) bool
}

// Random is the default Generator: base62 characters from crypto/rand.
type Random struct{}

// Generate implements Generator. With checksum, the last six of the length
// characters are the checksum.
func (Random) Generate(prefix string, length int, checksum bool) (string, error) {
	if length < MinLength || length > MaxLength {
		return "", fmt.Errorf("length %d: must be from %d to %d", length, MinLength, MaxLength)
	}
	if !ValidPrefix(prefix) {
		return "", errors.New("prefix: must be at most 32 of a-z A-Z 0-9 _ -")
	}
	n := length
	if checksum {
		n -= checksumLen
	}
	b := make([]byte, 0, len(prefix)+length)
	b = appendRandom(append(b, prefix...), n)
	if checksum {
		var sum [checksumLen]byte
		putChecksum(&sum, crc32.ChecksumIEEE(b))
		b = append(b, sum[:]...)
	}
	return string(b), nil
}

// NewSecret makes the optional second half of a credential. It has the
// checksum, so that it is recognised where keys are masked in logs.
func NewSecret(prefix string) (string, error) {
	return Random{}.Generate(prefix, secretLength, true)
}

// appendRandom appends n base62 characters, each equally likely: bytes of 248
// and more are thrown away, because 248 is the largest multiple of 62 in a byte.
func appendRandom(dst []byte, n int) []byte {
	var buf [96]byte
	for n > 0 {
		rand.Read(buf[:]) // never fails; it ends the program if the system has no entropy
		for _, c := range buf {
			if c >= 248 {
				continue
			}
			dst = append(dst, alphabet[c%62])
			if n--; n == 0 {
				break
			}
		}
	}
	return dst
}

// Display returns what is stored of a raw key so that people can tell their keys apart.
func Display(raw string) string {
	return raw[:min(len(raw), DisplayLen)]
}

var _ Generator = Random{}
