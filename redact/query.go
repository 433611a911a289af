package redact

import (
	"bytes"
	"strings"
)

// queryValues masks what follows the names of parameters and "=".
func (s *scan) queryValues() {
	for i := 0; i < len(s.seg); {
		n := bytes.IndexByte(s.seg[i:], '=')
		if n < 0 {
			return
		}
		i += n + 1
		if s.queryBefore(i - 1) {
			end := s.queryValueEnd(i, false)
			s.add(i, end, false)
			i = end
		}
	}
}

// nestedQueryValues does the same where the "=" is percent-encoded, because the
// URL is itself part of a query.
func (s *scan) nestedQueryValues() {
	for i := 0; i < len(s.seg); {
		n := bytes.IndexByte(s.seg[i:], '%')
		if n < 0 {
			return
		}
		i += n + 1
		if c, ok := percentAt(s.seg, i-1); ok && c == '=' && s.queryBefore(i-1) {
			end := s.queryValueEnd(i+2, true)
			s.add(i+2, end, false)
			i = end
		}
	}
}

// queryBefore reports whether the name of a parameter ends at end.
func (s *scan) queryBefore(end int) bool {
	if end == 0 {
		return false
	}
	if c, _ := decodeBefore(s.seg, end); !s.queryEnds[fold(c)] {
		return false
	}
	for _, name := range s.query {
		if s.queryEndsAt(name, end) {
			return true
		}
	}
	return false
}

func (s *scan) queryEndsAt(name []byte, end int) bool {
	for i := len(name) - 1; i >= 0; i-- {
		if end == 0 {
			return false
		}
		c, n := decodeBefore(s.seg, end)
		if fold(c) != name[i] {
			return false
		}
		end -= n
	}
	return s.startsName(end)
}

// queryValueEnd returns where the value ends that starts at i. It rather takes
// too much than too little: a quote inside, which keys do not have, ends it only
// if the text looks like going on after a URL in quotes.
func (s *scan) queryValueEnd(i int, nested bool) int {
	for i < len(s.seg) {
		switch c := s.seg[i]; {
		case c <= ' ' || c == '&' || c == 0x7f:
			return i
		case c == '"':
			if s.json || s.afterQuotedURL(i+1) {
				return i
			}
			i++
		case c == '\\':
			if s.endsAtEscape(i) {
				return i
			}
			i += s.escapeLen(i)
		case c == '%' && nested:
			if d, ok := percentAt(s.seg, i); ok && d == '&' {
				return i
			}
			i++
		default:
			i++
		}
	}
	return i
}

// endsAtEscape reports whether the escape sequence at i stands for something
// that ends a value: a blank, "&", or the quote behind a URL.
func (s *scan) endsAtEscape(i int) bool {
	rest := s.seg[i+1:]
	if len(rest) == 0 {
		return false
	}
	switch rest[0] {
	case 'n', 'r', 't':
		return true
	case '"':
		return s.afterQuotedURL(i + 2)
	case 'u':
		return bytes.HasPrefix(rest, []byte("u0026"))
	case '\\': // a string in a string in a string
		n := 0
		for n < min(len(rest), 15) && rest[n] == '\\' {
			n++
		}
		return n < len(rest) && rest[n] == '"' && s.afterQuotedURL(i+1+n+1)
	}
	return false
}

func (s *scan) afterQuotedURL(i int) bool {
	return i >= len(s.seg) || strings.IndexByte(" :,;.)]}\"\\", s.seg[i]) >= 0
}
