package apikey

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// testKey returns a key with a checksum that stays the same from run to run.
func testKey(prefix string, length int) string {
	digits := "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := []byte(prefix)
	for i := range length - 6 {
		b = append(b, digits[(i*i+7*i+length)%62])
	}
	sum, sums := crc32.ChecksumIEEE(b), [6]byte{}
	for i := 5; i >= 0; i-- {
		sums[i] = digits[sum%62]
		sum /= 62
	}
	return string(b) + string(sums[:])
}

// percentEncode encodes every character, as nobody needs to but anybody may.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
