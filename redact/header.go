package redact

import (
	"bytes"
	"strings"
)

// bare is the level of what has no quotes. The level of what has some is the
// number of backslashes before each: 0, 1 in a string inside a string, 3, 7 …
const bare = -1

// headerValues masks what follows the header names in front of sep.
func (s *scan) headerValues(sep byte) {
	for i := 0; i < len(s.seg); {
		n := bytes.IndexByte(s.seg[i:], sep)
		if n < 0 {
			return
		}
		i += n + 1
		if !s.mayEndHeader(i - 2) {
			continue
		}
		if level, ok := s.headerBefore(i - 1); ok {
			// Going on behind the value keeps the whole search linear.
			i = max(i, s.headerValue(i, level, sep))
		}
	}
}

// mayEndHeader dismisses what mostly stands in front of a ":".
func (s *scan) mayEndHeader(i int) bool {
	if i > 0 && s.seg[i] == '"' && s.seg[i-1] != '\\' {
		i--
	}
	return i >= 0 && (s.headerEnds[fold(s.seg[i])] || s.seg[i] == ' ' || isQuote(s.seg[i]))
}

// headerBefore reports whether a header name ends at end, and the level of the
// quotes around it.
func (s *scan) headerBefore(end int) (level int, ok bool) {
	for end > 0 && s.seg[end-1] == ' ' {
		end--
	}
	level = bare
	if end > 0 && isQuote(s.seg[end-1]) {
		end--
		if s.seg[end] == '"' {
			level = backslashesBefore(s.seg, end)
			end -= level
		}
	}
	if end == 0 || !s.headerEnds[fold(s.seg[end-1])] {
		return level, false
	}
	for _, name := range s.headers {
		if s.headerEndsAt(name, end) {
			// An even number of backslashes belongs to the text before the quote.
			return level, !s.json || level <= 0 || level%2 == 1
		}
	}
	return level, false
}

func (s *scan) headerEndsAt(name []byte, end int) bool {
	start := end - len(name)
	if start < 0 {
		return false
	}
	for i, c := range name {
		if fold(s.seg[start+i]) != c {
			return false
		}
	}
	if start >= 5 && string(s.seg[start-5:start]) == "HTTP_" {
		start -= 5
	}
	// A dot may precede it, as in "http.request.header.X-API-Key".
	return start > 0 && s.seg[start-1] == '.' || s.startsName(start)
}

// startsName reports whether a name may start at i: at the start, after a
// character that is not part of names, or after an escape sequence of JSON.
func (s *scan) startsName(i int) bool {
	if i == 0 {
		return true
	}
	c, n := decodeBefore(s.seg, i)
	if !isAlnum(c) && c != '-' && c != '_' && c != '.' {
		return true
	}
	if n > 1 {
		return false
	}
	return i >= 2 && s.seg[i-2] == '\\' && strings.IndexByte("nrtbf", c) >= 0 ||
		i >= 6 && s.seg[i-6] == '\\' && s.seg[i-5] == 'u'
}

// headerValue masks the value that starts at i, behind a name at that level and
// sep, and returns where it ends.
func (s *scan) headerValue(i, level int, sep byte) int {
	for i < len(s.seg) && s.seg[i] == ' ' {
		i++
	}
	if i == len(s.seg) {
		return i
	}
	if n, ok := s.quoteAt(i, level); ok {
		start, end, _ := s.quotedText(i, n)
		s.add(start, end, false)
		return end
	}
	switch c := s.seg[i]; {
	case (c == '[' || c == '{') && level != bare:
		return s.composite(i, level)
	case c == '[':
		if n, ok := s.quoteAt(i+1, level); ok {
			return s.composite(i, n)
		}
		return s.bracketed(i)
	case sep == '=':
		end := s.queryValueEnd(i, false)
		s.add(i, end, false)
		return end
	case level != bare && c != '\\':
		return s.scalar(i, level)
	default:
		end := s.lineEnd(i)
		s.add(i, end, false)
		return end
	}
}

// quoteAt reports whether a string starts at i, and its level. What looks like
// its first quote may be the last one of the JSON string around all this.
func (s *scan) quoteAt(i, level int) (n int, ok bool) {
	for i+n < len(s.seg) && s.seg[i+n] == '\\' {
		n++
	}
	if i+n >= len(s.seg) || s.seg[i+n] != '"' {
		return n, false
	}
	return n, !s.json || n%2 == 1 || n == 0 && level == 0
}

// quotedText returns the bounds of the text in the string of that level at i,
// and whether the string has a closing quote of its own.
func (s *scan) quotedText(i, level int) (start, end int, closed bool) {
	start = i + level + 1
	for j := start; ; j++ {
		n := bytes.IndexByte(s.seg[j:], '"')
		if n < 0 {
			return start, len(s.seg), false
		}
		j += n
		slashes := backslashesBefore(s.seg[start:], j-start)
		switch {
		case s.closesOuter(slashes, level):
			return start, j - slashes%2, false
		case slashes%(2*(level+1)) == level:
			return start, j - level, true
		}
	}
}

// closesOuter reports whether a quote behind so many backslashes, in a string of
// that level, ends a string around it.
func (s *scan) closesOuter(slashes, level int) bool {
	return slashes < level || s.json && level > 0 && slashes%2 == 0
}

// composite masks the strings and numbers in the array or object at i, but not
// the keys of objects, and returns where it ends.
func (s *scan) composite(i, level int) int {
	for depth := 0; i < len(s.seg); {
		switch s.seg[i] {
		case '[', '{':
			depth++
			i++
		case ']', '}':
			depth--
			i++
			if depth == 0 && bytes.HasPrefix(s.seg[i:], []byte("string{")) {
				i += len("string") // []string{"a"}, as Go prints it with %#v
			} else if depth == 0 {
				return i
			}
		case ' ', ',', ':':
			i++
		case '\\', '"':
			next, ok := s.element(i, level)
			if !ok {
				return next
			}
			i = next
		default:
			i = s.scalar(i, level)
		}
	}
	return i
}

// element masks the string at i, inside an array or object of that level, and
// returns where it ends. It is not ok if with it everything ends.
func (s *scan) element(i, level int) (next int, ok bool) {
	n := 0
	for i+n < len(s.seg) && s.seg[i+n] == '\\' {
		n++
	}
	if i+n == len(s.seg) || s.seg[i+n] != '"' { // such as a line break
		i += n - n%2
		if n%2 == 1 {
			i += s.escapeLen(i)
		}
		return i, true
	}
	if s.closesOuter(n, level) {
		return i, false
	}
	start, end, closed := s.quotedText(i, n)
	next = min(end+n+1, len(s.seg))
	if !s.colonAt(next) {
		s.add(start, end, false)
	}
	return next, closed
}

func (s *scan) colonAt(i int) bool {
	for i < len(s.seg) && s.seg[i] == ' ' {
		i++
	}
	return i < len(s.seg) && s.seg[i] == ':'
}

// scalar masks a JSON value without quotes, unless it can tell nothing.
func (s *scan) scalar(i, level int) int {
	end := i
	for end < len(s.seg) && strings.IndexByte(",]} \"\\", s.seg[end]) < 0 {
		end++
	}
	switch string(s.seg[i:end]) {
	case "true", "false", "null":
	default:
		s.add(i, end, s.json && level == 0)
	}
	return max(end, i+1)
}

// bracketed masks the list at i in Go's notation, [a b].
func (s *scan) bracketed(i int) int {
	end := s.lineEnd(i + 1)
	if n := bytes.IndexByte(s.seg[i+1:end], ']'); n >= 0 {
		end = i + 1 + n
	}
	s.add(i+1, end, false)
	return end
}

// lineEnd returns where the line of text ends that has i in it. In JSON that is
// an escaped line break, or the end of the string.
func (s *scan) lineEnd(i int) int {
	if !s.json {
		return len(s.seg)
	}
	for i < len(s.seg) {
		switch s.seg[i] {
		case '"':
			return i
		case '\\':
			if i+1 < len(s.seg) && (s.seg[i+1] == 'n' || s.seg[i+1] == 'r') {
				return i
			}
			i += s.escapeLen(i)
		default:
			i++
		}
	}
	return len(s.seg)
}

// escapeLen is the length of the escape sequence at i.
func (s *scan) escapeLen(i int) int {
	n := 2
	if i+1 < len(s.seg) && s.seg[i+1] == 'u' {
		n = 6
	}
	return min(n, len(s.seg)-i)
}
