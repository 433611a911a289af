package redact

import (
	"bytes"
	"hash/crc32"
	"math"
	"strings"

	"github.com/caddy-apikey/caddy-apikey/key"
)

const (
	checksumLen = 6
	minKeyLen   = key.MinLength

	// searchBudget is how many steps of about 1.5 ns may be spent on one line to
	// find keys inside longer runs of key characters, lest whoever sends long
	// headers should make logging expensive.
	searchBudget = 256 << 10
)

// keys masks the keys with a checksum. A run of at least 32 characters has one
// at each distance of 32, so only every 32nd character is looked at.
func (s *scan) keys() {
	for i := minKeyLen - 1; i < len(s.seg); i += minKeyLen {
		if !runChars[s.seg[i]] {
			continue
		}
		start, end := i, i
		for start > 0 && runChars[s.seg[start-1]] {
			start--
		}
		for end < len(s.seg) && runChars[s.seg[end]] {
			end++
		}
		i = end
		start += s.escapeTail(start)
		if end-start >= minKeyLen {
			s.run(start, end)
		}
	}
}

// escapeTail returns how many characters at i, the start of a run, belong to an
// escape sequence of JSON: masking these would break the line.
func (s *scan) escapeTail(i int) int {
	if !s.json || backslashesBefore(s.seg, i)%2 == 0 || strings.IndexByte("nrtbfu", s.seg[i]) < 0 {
		return 0
	}
	return s.escapeLen(i-1) - 1
}

// run masks the keys in a run of key characters and percent signs.
func (s *scan) run(start, end int) {
	text := s.seg[start:end]
	if hasEncodedKeyChar(text) {
		s.encodedRun(start, end)
	}
	// A key may also stand behind a percent sign that encodes nothing.
	for len(text) > 0 {
		n := bytes.IndexByte(text, '%')
		if n < 0 {
			n = len(text)
		}
		s.plainRun(text[:n], func(from, to int) { s.add(start+from, start+to, false) })
		n = min(n+1, len(text))
		text = text[n:]
		start += n
	}
}

// encodedRun masks the keys in a run in which some characters are
// percent-encoded. It decodes them, and remembers where each came from.
func (s *scan) encodedRun(start, end int) {
	text := make([]byte, 0, end-start)
	from := make([]int, 0, end-start+1)
	flush := func(at int) {
		from = append(from, at)
		s.plainRun(text, func(a, b int) { s.add(from[a], from[b], false) })
		text, from = text[:0], from[:0]
	}
	for i := start; i < end; {
		c, n := s.seg[i], 1
		if d, ok := percentAt(s.seg, i); ok {
			c, n = d, 3
		}
		if key.IsKeyChar(c) {
			text, from = append(text, c), append(from, i)
		} else {
			flush(i)
		}
		i += n
	}
	flush(end)
}

// plainRun calls mask with the bounds of each key in text, which has nothing but
// key characters.
func (s *scan) plainRun(text []byte, mask func(from, to int)) {
	if len(text) < minKeyLen || isNumber(text) {
		return
	}
	for from := 0; ; {
		start, end, ok := s.nextKey(text, from)
		if !ok {
			return
		}
		mask(start, end)
		from = end
	}
}

// isNumber tells numbers in JSON, where no string can be put, from keys: one in
// 10^21 of the shortest keys looks like this.
func isNumber(text []byte) bool {
	for _, c := range text {
		if !('0' <= c && c <= '9' || c == '-' || c == 'e' || c == 'E') {
			return false
		}
	}
	return true
}

// nextKey finds a key in text[from:]. For each six characters that can be a
// checksum it undoes CRC-32, one character at a time, on those before them: a
// key starts where that leads to the value CRC-32 starts with.
func (s *scan) nextKey(text []byte, from int) (start, end int, ok bool) {
	for sumAt := from + minKeyLen - checksumLen; sumAt+checksumLen <= len(text); sumAt++ {
		sum, ok := checksumAt(text[sumAt:])
		if !ok {
			continue
		}
		end := sumAt + checksumLen
		first := max(from, end-key.MaxRawLen)
		if s.budget -= sumAt - first; s.budget < 0 {
			return from, len(text), true
		}
		state := ^sum
		for i := sumAt - 1; i >= first; i-- {
			state = state<<8 ^ crcUndo[state>>24] ^ uint32(text[i])
			if state == math.MaxUint32 && end-i >= minKeyLen && key.ChecksumFits(string(text[i:end])) {
				return i, end, true
			}
		}
	}
	return 0, 0, false
}

// checksumAt reads the checksum at the start of b. Thirteen out of fourteen
// times, random characters are none, being more than 32 bits.
func checksumAt(b []byte) (sum uint32, ok bool) {
	var n uint64
	for _, c := range b[:checksumLen] {
		d := base62Digits[c]
		if d < 0 {
			return 0, false
		}
		n = n*62 + uint64(d)
	}
	return uint32(n), n <= math.MaxUint32
}

// crcUndo has, for the top byte of a state of CRC-32, what undoing one step does
// to the rest: the top byte tells which entry of the table made it.
var crcUndo = func() (t [256]uint32) {
	for i, v := range crc32.IEEETable {
		t[v>>24] = v<<8 ^ uint32(i)
	}
	return t
}()

// base62Digits are the values of the digits of a checksum, -1 for what is none.
var base62Digits = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i, c := range []byte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = int8(i)
	}
	return t
}()

// runChars are the characters of a key, and the percent sign.
var runChars = func() (t [256]bool) {
	for i := range t {
		t[i] = key.IsKeyChar(byte(i)) || i == '%'
	}
	return t
}()

func hasEncodedKeyChar(b []byte) bool {
	for i := 0; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '%')
		if n < 0 {
			return false
		}
		i += n
		if c, ok := percentAt(b, i); ok && key.IsKeyChar(c) {
			return true
		}
	}
	return false
}
